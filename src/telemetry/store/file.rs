//! Reading a file of samples: what of it can hold a series, and the rows of that.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use thiserror::Error;
use uuid::Uuid;

use super::checked::CheckedFile;
use super::encode::{CHECKSUMS, FORMAT};
use super::rows::{NAMES, Row, column};
use crate::telemetry::sample::Value;

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
}

impl Wanted<'_> {
    /// Everything that is there.
    pub(super) const ALL: Wanted<'static> = Wanted {
        device: None,
        keys: None,
        times: (i64::MIN, i64::MAX),
    };

    pub(super) fn holds(&self, row: &Row<'_>) -> bool {
        self.device.is_none_or(|device| row.device == *device.as_bytes())
            // The greatest time has no end behind it, so that everything is everything.
            && (self.times.0 <= row.ts_ms)
            && (row.ts_ms < self.times.1 || self.times.1 == i64::MAX)
            && self
                .keys
                .is_none_or(|keys| keys.iter().any(|key| key == row.key))
    }
}

impl OpenFile {
    /// Opens a file and checks its footer against `tail_crc`, if that is known.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn open(path: &Path, tail_crc: Option<u32>) -> Result<Self, FileError> {
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
            .with_page_index_policy(PageIndexPolicy::Optional);
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
            self.file.clone(),
            self.metadata.clone(),
        );
        let last = if whole {
            column::GENERATION
        } else {
            column::OFFSET
        };
        let columns = ProjectionMask::leaves(builder.parquet_schema(), 0..=last);
        let mut builder = builder
            .with_batch_size(BATCH_ROWS)
            .with_projection(columns)
            .with_row_groups(groups);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let reader = builder.build().map_err(damaged)?;
        Ok(Cursor {
            path: self.path.clone(),
            reader,
            columns: None,
            at: 0,
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

/// Rows of one file, one after the other.
pub(super) struct Cursor {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    columns: Option<Columns>,
    at: usize,
}

impl Cursor {
    /// Goes to the next row; false at the end. A new cursor stands before the first row.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn advance(&mut self) -> Result<bool, FileError> {
        if let Some(columns) = &self.columns {
            self.at += 1;
            if self.at < columns.rows {
                return Ok(true);
            }
        }
        loop {
            let batch = match self.reader.next() {
                None => {
                    self.columns = None;
                    return Ok(false);
                }
                Some(batch) => {
                    batch.map_err(|error: ArrowError| self.damaged(error.to_string()))?
                }
            };
            let columns = Columns::new(&batch);
            let columns =
                columns.ok_or_else(|| self.damaged("its columns are others".to_owned()))?;
            if columns.rows > 0 {
                self.columns = Some(columns);
                self.at = 0;
                return Ok(true);
            }
        }
    }

    /// The row it stands on; `None` before the first and behind the last.
    pub(super) fn row(&self) -> Option<Row<'_>> {
        self.columns.as_ref()?.row(self.at)
    }

    /// Calls `visit` for all rows that are wanted, to the end or until it fails.
    ///
    /// # Errors
    /// Those of `visit`, or what `damage` makes of a damaged file's error.
    pub(super) fn visit<E>(
        mut self,
        wanted: Wanted<'_>,
        damage: impl FnOnce(FileError) -> Result<(), E>,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return damage(error),
            }
            if let Some(row) = self.row()
                && wanted.holds(&row)
            {
                visit(&row)?;
            }
        }
    }

    /// Goes on to the next row that is wanted; false at the end.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn advance_to(&mut self, wanted: Wanted<'_>) -> Result<bool, FileError> {
        while self.advance()? {
            if self.row().is_some_and(|row| wanted.holds(&row)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn damaged(&self, what: String) -> FileError {
        FileError::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

/// A stretch of rows by column.
struct Columns {
    rows: usize,
    device: FixedSizeBinaryArray,
    key: StringArray,
    ts: Int64Array,
    long: Int64Array,
    double: Float64Array,
    bool: BooleanArray,
    text: StringArray,
    json: StringArray,
    offset: Int64Array,
    credential: Option<Int64Array>,
    generation: Option<Int32Array>,
}

impl Columns {
    fn new(batch: &RecordBatch) -> Option<Self> {
        let column = |place: usize| batch.columns().get(place).map(|column| &**column);
        let int64 = |place: usize| column(place)?.as_primitive_opt::<Int64Type>().cloned();
        let string = |place: usize| column(place)?.as_string_opt::<i32>().cloned();
        let generation = column(column::GENERATION);
        Some(Self {
            rows: batch.num_rows(),
            device: column(column::DEVICE)?.as_fixed_size_binary_opt()?.clone(),
            key: string(column::KEY)?,
            ts: int64(column::TS)?,
            long: int64(column::LONG)?,
            double: column(column::DOUBLE)?
                .as_primitive_opt::<Float64Type>()?
                .clone(),
            bool: column(column::BOOL)?.as_boolean_opt()?.clone(),
            text: string(column::TEXT)?,
            json: string(column::JSON)?,
            offset: int64(column::OFFSET)?,
            credential: int64(column::CREDENTIAL),
            generation: generation
                .and_then(|column| column.as_primitive_opt::<Int32Type>())
                .cloned(),
        })
    }

    fn row(&self, at: usize) -> Option<Row<'_>> {
        if at >= self.rows {
            return None;
        }
        Some(Row {
            device: self.device.value(at).try_into().ok()?,
            key: self.key.value(at),
            ts_ms: self.ts.value(at),
            value: self.value(at),
            offset: self.offset.value(at).cast_unsigned(),
            credential: self
                .credential
                .as_ref()
                .map_or(0, |column| column.value(at).cast_unsigned()),
            generation: self
                .generation
                .as_ref()
                .map_or(0, |column| column.value(at).cast_unsigned()),
        })
    }

    fn value(&self, at: usize) -> Value<'_> {
        if self.double.is_valid(at) {
            Value::Double(self.double.value(at))
        } else if self.long.is_valid(at) {
            Value::Long(self.long.value(at))
        } else if self.bool.is_valid(at) {
            Value::Bool(self.bool.value(at))
        } else if self.json.is_valid(at) {
            Value::Json(self.json.value(at).into())
        } else {
            Value::Text(self.text.value(at).into())
        }
    }
}
