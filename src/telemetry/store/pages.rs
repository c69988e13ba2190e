//! A file's rows from front to back, by column, for whoever writes them again.
//!
//! The library's reader repeats device and key for each row; here they stay the stretches they are
//! in the file. Rows come in batches that end where a page of any column ends, or before; of each
//! column one page is in memory, and its dictionary.

mod chunk;
mod places;
mod unpack;
mod values;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};

use super::checked::CheckedFile;
use super::file::FileError;
#[cfg(test)]
use super::rows::Row;
use super::rows::{NAMES, column};
use super::run::{Run, Values};
use crate::telemetry::sample::Value;
pub(super) use chunk::Plain;
use chunk::{Chunk, Numbers, Stretched, Texts};
use places::Group;
use values::{Kind, Optional, span};

/// Most rows of a batch, 90 KiB: of 16 files they are in memory at the same time.
const BATCH_ROWS_MAX: usize = 2 * 1024;

/// Goes over the rows of one file.
pub(super) struct Pages {
    path: PathBuf,
    file: Arc<CheckedFile>,
    schema: SchemaDescPtr,
    /// The row groups that were not opened yet.
    groups: std::vec::IntoIter<Group>,
    columns: Option<Columns>,
    batch: Batch,
    at: usize,
    /// The series of that row, by its place in the batch.
    series: usize,
}

/// The columns of an open row group.
struct Columns {
    /// Rows that were in no batch yet.
    left: usize,
    devices: Stretched<[u8; 16]>,
    keys: Texts,
    ts: Numbers,
    offsets: Numbers,
    credentials: Stretched<i64>,
    generations: Stretched<i32>,
    /// Those that have values.
    values: Vec<Optional>,
}

/// Rows by column.
#[derive(Default)]
pub(super) struct Batch {
    /// Where each series ends, its device, and the place of its key in `names`.
    series: Vec<(usize, [u8; 16], Range<usize>)>,
    names: String,
    ts: Vec<i64>,
    offsets: Vec<i64>,
    credentials: Vec<i64>,
    generations: Vec<i32>,
    kinds: Vec<Kind>,
    /// Whole numbers; true and false; places of texts.
    bits: Vec<i64>,
    doubles: Vec<f64>,
    texts: String,
}

impl Pages {
    /// Stands before the first row.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn new(
        path: PathBuf,
        file: CheckedFile,
        metadata: &ParquetMetaData,
    ) -> Result<Self, FileError> {
        let Some(groups) = places::groups(metadata) else {
            let what = "a number of bytes or rows in its footer is below zero".to_owned();
            return Err(FileError::Damaged { path, what });
        };
        Ok(Self {
            path,
            file: Arc::new(file),
            schema: metadata.file_metadata().schema_descr_ptr(),
            groups: groups.into_iter(),
            columns: None,
            batch: Batch::default(),
            at: 0,
            series: 0,
        })
    }

    /// Goes on by so many rows, of which there are at least so many but one in the batch; false at
    /// the end.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn advance_by(&mut self, rows: usize, plain: &mut Plain) -> Result<bool, FileError> {
        self.at += rows;
        if self.at < self.batch.rows() {
            let ends = self.batch.series.iter().skip(self.series);
            self.series += ends.take_while(|(end, _, _)| *end <= self.at).count();
            return Ok(true);
        }
        (self.at, self.series) = (0, 0);
        loop {
            if let Some(columns) = &mut self.columns
                && columns.left > 0
            {
                let filled = columns.fill(&mut self.batch, plain);
                return filled.map(|()| true).map_err(|what| self.damaged(what));
            }
            let Some(group) = self.groups.next() else {
                self.columns = None;
                self.batch.clear();
                return Ok(false);
            };
            let begin = group.columns.first().map_or(0, |column| column.begin);
            self.file.forget_before(begin);
            let columns = Columns::open(&self.file, &self.schema, &group);
            self.columns = Some(columns.map_err(|what| self.damaged(what))?);
        }
    }

    /// The rows decoded, and at which of them it stands; `None` before the first and behind the
    /// last.
    pub(super) fn batch(&self) -> Option<(&Batch, usize)> {
        (self.batch.rows() > 0).then_some((&self.batch, self.at))
    }

    /// Device, key, time and offset of the row it stands on.
    pub(super) fn here(&self) -> Option<([u8; 16], &str, i64, u64)> {
        let (_, device, key) = self.batch.series.get(self.series)?;
        let offset = self.batch.offsets.get(self.at)?.cast_unsigned();
        let key = self.batch.names.get(key.clone())?;
        Some((*device, key, *self.batch.ts.get(self.at)?, offset))
    }

    /// Blocks of the file in memory.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.file.blocks_kept()
    }

    fn damaged(&self, what: String) -> FileError {
        FileError::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

impl Columns {
    fn open(
        file: &Arc<CheckedFile>,
        schema: &SchemaDescriptor,
        group: &Group,
    ) -> Result<Self, String> {
        let chunk = |place: usize| Chunk::open(file, schema, group, place);
        let mut values = Vec::new();
        for place in column::LONG..=column::JSON {
            if !group.columns.get(place).is_some_and(|found| found.is_empty) {
                values.push(Optional::new(chunk(place)?, place));
            }
        }
        Ok(Self {
            left: group.rows,
            devices: Stretched::new(chunk(column::DEVICE)?),
            keys: Texts::new(chunk(column::KEY)?),
            ts: Numbers::new(chunk(column::TS)?),
            offsets: Numbers::new(chunk(column::OFFSET)?),
            credentials: Stretched::new(chunk(column::CREDENTIAL)?),
            generations: Stretched::new(chunk(column::GENERATION)?),
            values,
        })
    }

    /// The next rows, as far as the pages go that are decoded.
    fn fill(&mut self, batch: &mut Batch, plain: &mut Plain) -> Result<(), String> {
        let mut rows = self.left.min(BATCH_ROWS_MAX);
        for has in [
            self.devices.have(plain)?,
            self.keys.have(plain)?,
            self.ts.have(plain)?,
            self.offsets.have(plain)?,
            self.credentials.have(plain)?,
            self.generations.have(plain)?,
        ] {
            rows = rows.min(has);
        }
        for column in &mut self.values {
            rows = rows.min(column.have(plain)?);
        }
        batch.clear();
        self.ts.take(rows, &mut batch.ts)?;
        self.offsets.take(rows, &mut batch.offsets)?;
        let credentials = &mut batch.credentials;
        self.credentials.take(rows, |value, count| {
            credentials.extend(std::iter::repeat_n(value, count));
        });
        let generations = &mut batch.generations;
        self.generations.take(rows, |value, count| {
            generations.extend(std::iter::repeat_n(value, count));
        });
        self.fill_series(rows, batch);
        batch.kinds.resize(rows, Kind::None);
        batch.bits.resize(rows, 0);
        batch.doubles.resize(rows, 0.0);
        for column in &mut self.values {
            column.take(rows, batch);
        }
        if batch.kinds.contains(&Kind::None) {
            return Err("a row has no value".to_owned());
        }
        self.left -= rows;
        Ok(())
    }

    fn fill_series(&mut self, rows: usize, batch: &mut Batch) {
        let Batch { series, names, .. } = batch;
        let mut end = 0;
        self.devices.take(rows, |device, count| {
            end += count;
            series.push((end, device, 0..0));
        });
        // Each device has several keys: its place becomes several.
        let devices = std::mem::take(series);
        let (mut devices, mut end) = (devices.into_iter().peekable(), 0);
        self.keys.take(rows, |key, mut count| {
            let begin = names.len();
            names.push_str(key);
            while count > 0
                && let Some((last, device, _)) = devices.peek()
            {
                let now = count.min(last - end);
                (end, count) = (end + now, count - now);
                series.push((end, *device, begin..names.len()));
                if end == *last {
                    devices.next();
                }
            }
        });
    }
}

impl Batch {
    pub(super) fn rows(&self) -> usize {
        self.ts.len()
    }

    fn clear(&mut self) {
        self.series.clear();
        self.names.clear();
        self.ts.clear();
        self.offsets.clear();
        self.credentials.clear();
        self.generations.clear();
        self.kinds.clear();
        self.bits.clear();
        self.doubles.clear();
        self.texts.clear();
    }

    fn series(&self, at: usize) -> Option<&(usize, [u8; 16], Range<usize>)> {
        let place = self.series.partition_point(|(end, _, _)| *end <= at);
        self.series.get(place)
    }

    pub(super) fn device(&self, at: usize) -> Option<[u8; 16]> {
        self.series(at).map(|(_, device, _)| *device)
    }

    pub(super) fn key(&self, at: usize) -> Option<&str> {
        self.names.get(self.series(at)?.2.clone())
    }

    pub(super) fn ts(&self, rows: &Range<usize>) -> &[i64] {
        self.ts.get(rows.clone()).unwrap_or_default()
    }

    pub(super) fn offsets(&self, rows: &Range<usize>) -> &[i64] {
        self.offsets.get(rows.clone()).unwrap_or_default()
    }

    /// Where the series of this row ends, behind its last row in the batch.
    pub(super) fn series_end(&self, at: usize) -> usize {
        self.series(at).map_or(self.rows(), |(end, _, _)| *end)
    }

    /// Rows of one series. `any`: where their values are put if they are not all numbers of one
    /// kind. `None`: they are not there.
    pub(super) fn run<'s: 'c, 'c>(
        &'s self,
        rows: &Range<usize>,
        any: &'c mut Vec<Value<'s>>,
    ) -> Option<Run<'c>> {
        let kinds = self.kinds.get(rows.clone())?;
        let is_all = |kind: Kind| kinds.iter().all(|other| *other == kind);
        Some(Run {
            device: self.device(rows.start)?,
            key: self.key(rows.start)?,
            ts: self.ts.get(rows.clone())?,
            offsets: self.offsets.get(rows.clone())?,
            credentials: self.credentials.get(rows.clone())?,
            generations: self.generations.get(rows.clone())?,
            values: match kinds.first()? {
                Kind::Double if is_all(Kind::Double) => {
                    Values::Doubles(self.doubles.get(rows.clone())?)
                }
                Kind::Long if is_all(Kind::Long) => Values::Longs(self.bits.get(rows.clone())?),
                _ => {
                    any.clear();
                    any.extend(rows.clone().filter_map(|at| self.value(at)));
                    Values::Any(any)
                }
            },
        })
    }

    /// One row.
    #[cfg(test)]
    pub(super) fn row(&self, at: usize) -> Option<Row<'_>> {
        Some(Row {
            device: self.device(at)?,
            key: self.key(at)?,
            ts_ms: *self.ts.get(at)?,
            value: self.value(at)?,
            offset: self.offsets.get(at)?.cast_unsigned(),
            credential: self.credentials.get(at)?.cast_unsigned(),
            generation: self.generations.get(at)?.cast_unsigned(),
        })
    }

    fn value(&self, at: usize) -> Option<Value<'_>> {
        let bits = *self.bits.get(at)?;
        let text = || self.texts.get(span(bits));
        Some(match self.kinds.get(at)? {
            Kind::None => return None,
            Kind::Long => Value::Long(bits),
            Kind::Double => Value::Double(*self.doubles.get(at)?),
            Kind::Bool => Value::Bool(bits != 0),
            Kind::Text => Value::Text(text()?.into()),
            Kind::Json => Value::Json(text()?.into()),
        })
    }
}

/// What is wrong with a column.
fn garbled(place: usize) -> String {
    let name = NAMES.get(place).copied().unwrap_or_default();
    format!("a page of the column {name} is garbled or of a kind that is not known")
}
