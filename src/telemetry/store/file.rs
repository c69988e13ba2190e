//! Reading a file of samples: what of it can hold a series, and the rows of that.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use thiserror::Error;
use uuid::Uuid;

use super::Suspect;
use super::checked::CheckedFile;
use super::cursor::Cursor;
use super::encode::{CHECKSUMS, FORMAT};
use super::pages::Pages;
use super::rows::{NAMES, Row, column};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4 * 1024;

/// Why a file gives no rows.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// Environment: it cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it holds is not what was written.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

/// An open file with its footer and indexes.
pub(super) struct OpenFile {
    path: PathBuf,
    file: CheckedFile,
    metadata: ArrowReaderMetadata,
    /// CRC-32C of indexes and footer.
    pub(super) tail_crc: u32,
}

/// What is sought in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Only this device.
    pub(super) device: Option<Uuid>,
    /// Only these series.
    pub(super) keys: Option<&'a [String]>,
    /// Times from this one on, up to the second one, without it.
    pub(super) times: (i64, i64),
    /// But for what these mark.
    pub(super) left_out: &'a [Suspect],
}

impl Wanted<'_> {
    /// Everything that is there.
    pub(super) const ALL: Wanted<'static> = Wanted {
        device: None,
        keys: None,
        times: (i64::MIN, i64::MAX),
        left_out: &[],
    };

    pub(super) fn holds(&self, row: &Row<'_>) -> bool {
        self.device.is_none_or(|device| row.device == *device.as_bytes())
            // The greatest time has no end behind it, so that everything is everything.
            && (self.times.0 <= row.ts_ms)
            && (row.ts_ms < self.times.1 || self.times.1 == i64::MAX)
            && self
                .keys
                .is_none_or(|keys| keys.iter().any(|key| key == row.key))
            && !self.left_out.iter().any(|mark| mark.holds(row))
    }
}

impl OpenFile {
    /// Opens a file and checks its footer against `tail_crc`, if that is known.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn open(path: &Path, tail_crc: Option<u32>) -> Result<Self, FileError> {
        Self::load(path, tail_crc, PageIndexPolicy::Optional)
    }

    /// The same for whoever reads all of it: without the indexes, which tell what not to read.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn open_for_all(path: &Path, tail_crc: u32) -> Result<Self, FileError> {
        Self::load(path, Some(tail_crc), PageIndexPolicy::Skip)
    }

    fn load(
        path: &Path,
        tail_crc: Option<u32>,
        indexes: PageIndexPolicy,
    ) -> Result<Self, FileError> {
        let failed = |source| FileError::Open {
            path: path.to_path_buf(),
            source,
        };
        let damaged = |what: String| FileError::Damaged {
            path: path.to_path_buf(),
            what,
        };
        let file = CheckedFile::unchecked(File::open(path).map_err(failed)?).map_err(failed)?;
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_page_index_policy(indexes);
        let metadata = ArrowReaderMetadata::load(&file, options)
            .map_err(|error| damaged(error.to_string()))?;
        let entries = metadata.metadata().file_metadata().key_value_metadata();
        let entry = |name: &str| {
            let found = entries
                .into_iter()
                .flatten()
                .find(|entry| entry.key == name);
            found.and_then(|entry| entry.value.as_deref())
        };
        if entry(FORMAT.0) != Some(FORMAT.1) {
            let what = "it is not a file of this store, or of a later version";
            return Err(damaged(what.to_owned()));
        }
        let file = entry(CHECKSUMS)
            .and_then(|text| file.with_checksums(text))
            .ok_or_else(|| damaged("its list of checksums is garbled".to_owned()))?;
        let found = file.tail_crc().map_err(failed)?;
        if tail_crc.is_some_and(|expected| expected != found) {
            return Err(damaged(
                "the checksum of its footer does not hold".to_owned(),
            ));
        }
        let names = metadata.schema().fields().iter().map(|field| field.name());
        if !names.eq(NAMES) {
            return Err(damaged("its columns are others".to_owned()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata,
            tail_crc: found,
        })
    }

    /// Bytes that footer and indexes take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.metadata.metadata().memory_size()
    }

    /// Rows in the file.
    pub(super) fn rows(&self) -> u64 {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        u64::try_from(rows).unwrap_or_default()
    }

    /// Row groups in the file.
    #[cfg(test)]
    pub(super) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Least and greatest time and device, as the row groups tell them.
    pub(super) fn bounds(&self) -> ((i64, i64), (Uuid, Uuid)) {
        let mut times = (i64::MAX, i64::MIN);
        let mut devices = (Uuid::max(), Uuid::nil());
        for group in self.metadata.metadata().row_groups() {
            let bounds = |place: usize| {
                let statistics = group.columns().get(place)?.statistics()?;
                statistics.min_bytes_opt().zip(statistics.max_bytes_opt())
            };
            let time = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes);
            match bounds(column::TS).map(|(least, greatest)| (time(least), time(greatest))) {
                Some((Ok(least), Ok(greatest))) => {
                    times = (times.0.min(least), times.1.max(greatest));
                }
                _ => times = (i64::MIN, i64::MAX),
            }
            let device = |bytes: &[u8]| Uuid::from_slice(bytes);
            match bounds(column::DEVICE).map(|(least, greatest)| (device(least), device(greatest)))
            {
                Some((Ok(least), Ok(greatest))) => {
                    devices = (devices.0.min(least), devices.1.max(greatest));
                }
                _ => devices = (Uuid::nil(), Uuid::max()),
            }
        }
        (times, devices)
    }

    /// The rows that are wanted, in order. `whole`: with credential and generation.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn read(&self, wanted: Wanted<'_>, whole: bool) -> Result<Cursor, FileError> {
        let damaged = |error: ParquetError| FileError::Damaged {
            path: self.path.clone(),
            what: error.to_string(),
        };
        let (groups, selection) = self.select(wanted);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file.for_one_reader(),
            self.metadata.clone(),
        );
        let last = if whole || !wanted.left_out.is_empty() {
            column::GENERATION
        } else {
            column::OFFSET
        };
        let columns = (0..=last).filter(|place| !self.is_empty(&groups, *place));
        let columns = ProjectionMask::leaves(builder.parquet_schema(), columns);
        let mut builder = builder
            .with_batch_size(BATCH_ROWS)
            .with_projection(columns)
            .with_row_groups(groups);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let reader = builder.build().map_err(damaged)?;
        Ok(Cursor::new(self.path.clone(), reader))
    }

    /// All rows, for whoever writes them again.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn pages(&self) -> Result<Pages, FileError> {
        let file = self.file.for_one_reader();
        Pages::new(self.path.clone(), file, self.metadata.metadata())
    }

    /// Whether no row of these groups has a value in a column; their statistics say so.
    fn is_empty(&self, groups: &[usize], place: usize) -> bool {
        let groups = groups
            .iter()
            .map(|number| self.metadata.metadata().row_groups().get(*number));
        (column::LONG..=column::JSON).contains(&place)
            && groups.into_iter().all(|group| {
                let column = group.and_then(|group| group.columns().get(place));
                let nulls = column.and_then(|column| column.statistics()?.null_count_opt());
                group.is_some_and(|group| u64::try_from(group.num_rows()).ok() == nulls)
            })
    }

    /// The row groups and in them the rows that the indexes do not rule out; no selection means
    /// all rows.
    fn select(&self, wanted: Wanted<'_>) -> (Vec<usize>, Option<RowSelection>) {
        let metadata = self.metadata.metadata();
        let groups = metadata.row_groups().iter().enumerate();
        if wanted.device.is_none() {
            return (groups.map(|(number, _)| number).collect(), None);
        }
        let mut chosen = Vec::new();
        let mut selectors = Vec::new();
        for (number, group) in groups {
            let rows = self.rows_of_group(number, group, wanted);
            if rows.is_empty() {
                continue;
            }
            chosen.push(number);
            let end = group_rows(group);
            let mut position = 0;
            for range in rows {
                selectors.push(RowSelector::skip(range.start - position));
                selectors.push(RowSelector::select(range.len()));
                position = range.end;
            }
            selectors.push(RowSelector::skip(end - position));
        }
        (chosen, Some(RowSelection::from(selectors)))
    }

    /// Rows of a group that can be wanted, as ranges in order.
    fn rows_of_group(
        &self,
        number: usize,
        group: &RowGroupMetaData,
        wanted: Wanted<'_>,
    ) -> Vec<Range<usize>> {
        let all = 0..group_rows(group);
        let Some(device) = wanted.device else {
            return vec![all];
        };
        let statistics = group.columns().get(column::DEVICE);
        let statistics = statistics.and_then(|column| column.statistics());
        if let Some(statistics) = statistics
            && let (Some(least), Some(greatest)) =
                (statistics.min_bytes_opt(), statistics.max_bytes_opt())
            && !(least..=greatest).contains(&device.as_bytes().as_slice())
        {
            return Vec::new();
        }
        let index = self.metadata.metadata().page_index_for_row_group(number);
        let mut rows = vec![all.clone()];
        for place in [column::DEVICE, column::KEY, column::TS] {
            let (Some(values), Some(pages)) =
                (index.column_index(place), index.offset_index(place))
            else {
                continue; // without an index every page can hold it
            };
            let firsts = pages.page_locations().iter();
            let firsts = firsts.map(|page| usize::try_from(page.first_row_index).unwrap_or(0));
            let ends = firsts.clone().skip(1).chain([all.end]);
            let pages = firsts.zip(ends).map(|(first, end)| first..end);
            let kept = pages
                .enumerate()
                .filter(|(page, _)| can_hold(values, *page, wanted))
                .map(|(_, rows)| rows);
            rows = common(&rows, kept);
            if rows.is_empty() {
                break;
            }
        }
        rows
    }
}

/// Whether a page can hold what is wanted, by its least and greatest value.
fn can_hold(values: &ColumnIndexMetaData, page: usize, wanted: Wanted<'_>) -> bool {
    match values {
        ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index) => {
            let bounds = index.min_value(page).zip(index.max_value(page));
            wanted
                .device
                .zip(bounds)
                .is_none_or(|(device, (least, greatest))| {
                    (least..=greatest).contains(&device.as_bytes().as_slice())
                })
        }
        ColumnIndexMetaData::BYTE_ARRAY(index) => {
            let bounds = index.min_value(page).zip(index.max_value(page));
            wanted
                .keys
                .zip(bounds)
                .is_none_or(|(keys, (least, greatest))| {
                    keys.iter()
                        .any(|key| (least..=greatest).contains(&key.as_bytes()))
                })
        }
        ColumnIndexMetaData::INT64(index) => {
            let bounds = index.min_value(page).zip(index.max_value(page));
            bounds.is_none_or(|(least, greatest)| {
                let (from, to) = wanted.times;
                *greatest >= from && (*least < to || to == i64::MAX)
            })
        }
        _ => true,
    }
}

/// The rows that are in both.
fn common(rows: &[Range<usize>], pages: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut result: Vec<Range<usize>> = Vec::new();
    for page in pages {
        let first = rows.partition_point(|range| range.end <= page.start);
        let touching = rows.get(first..).unwrap_or_default().iter();
        for range in touching.take_while(|range| range.start < page.end) {
            let both = range.start.max(page.start)..range.end.min(page.end);
            match result.last_mut() {
                Some(last) if last.end == both.start => last.end = both.end,
                _ => result.push(both),
            }
        }
    }
    result
}

fn group_rows(group: &RowGroupMetaData) -> usize {
    usize::try_from(group.num_rows()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
