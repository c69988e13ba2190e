//! The rows of a row group by column, and how each column is written.
//!
//! Devices, keys, credentials and generations are stretches and go by dictionary. Times and
//! offsets are differences. Whole numbers are differences or go by dictionary, whatever is
//! shorter; doubles go by dictionary, or as streams of their bytes where there are too many. A
//! column without any value in the group is a few bytes, which its statistics say.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::super::columns::{Columns, Numbers};
use super::super::hasher::Cheap;
use super::super::rows::{Row, column};
use super::bounds::{Least, cut_greatest, cut_least};
use super::chunk::{Bounds, Chunk, Closed};
use super::packing::delta;
use super::stretches::{Listed, Stretches, pages};
use crate::telemetry::sample::Value;

/// Most rows of a row group: bounds the memory of a writer (some 40 bytes each).
pub(super) const GROUP_ROWS_MAX: usize = 128 * 1024;

/// Most bytes of text in a row group, gathered before they are encoded.
const GROUP_TEXT_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of keys in a row group, as whoever seeks a series reads all of them.
const GROUP_KEYS_MAX: usize = 1024 * 1024;

/// Rows of a page: the least that is read to find a series.
pub(super) const PAGE_ROWS_MAX: usize = 8 * 1024;

/// The rows of a row group by column.
#[derive(Default)]
pub(super) struct Group {
    devices: Listed<[u8; 16]>,
    keys: Keys,
    pub(super) ts: Vec<i64>,
    offset: Vec<i64>,
    credentials: Listed<i64>,
    generations: Listed<i32>,
    /// The column of each row's value.
    pub(super) kinds: Stretches,
    pub(super) longs: Vec<i64>,
    /// Their bits.
    pub(super) doubles: Vec<u64>,
    pub(super) bools: Vec<bool>,
    pub(super) texts: Vec<ByteArray>,
    pub(super) jsons: Vec<ByteArray>,
    text_bytes: usize,
    /// For the content of a page.
    pub(super) page: Vec<u8>,
}

/// Keys with the dictionary they make.
#[derive(Default)]
struct Keys {
    stretches: Stretches,
    known: HashMap<Box<str>, u32, Cheap>,
    names: Vec<Box<str>>,
    /// Each with its length before it.
    plain: Vec<u8>,
}

/// The numbers that stand for the columns of values in `kinds`.
#[expect(clippy::cast_possible_truncation, reason = "places of a dozen columns")]
pub(super) mod kind {
    use super::column;

    pub(in super::super) const LONG: u32 = column::LONG as u32;
    pub(in super::super) const DOUBLE: u32 = column::DOUBLE as u32;
    pub(in super::super) const BOOL: u32 = column::BOOL as u32;
    pub(in super::super) const TEXT: u32 = column::TEXT as u32;
    pub(in super::super) const JSON: u32 = column::JSON as u32;
}

impl Group {
    pub(super) fn rows(&self) -> usize {
        self.ts.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows() >= GROUP_ROWS_MAX
            || self.text_bytes >= GROUP_TEXT_MAX
            || self.keys.plain.len() >= GROUP_KEYS_MAX
    }

    pub(super) fn clear(&mut self) {
        // Lists keep their storage for the next group; keys may be others by then.
        self.devices.clear();
        self.keys = Keys::default();
        self.ts.clear();
        self.offset.clear();
        self.credentials.clear();
        self.generations.clear();
        self.kinds.clear();
        self.longs.clear();
        self.doubles.clear();
        self.bools.clear();
        self.texts.clear();
        self.jsons.clear();
        self.text_bytes = 0;
    }

    /// Adds a row.
    #[inline]
    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.series(row.device, row.key, 1);
        self.ts.push(row.ts_ms);
        self.offset.push(row.offset.cast_signed());
        self.credentials.push(row.credential.cast_signed(), 1);
        self.generations.push(row.generation.cast_signed(), 1);
        match &row.value {
            Value::Long(value) => self.longs(&[*value]),
            Value::Double(value) => self.doubles(&[*value]),
            Value::Bool(value) => {
                self.bools.push(*value);
                self.kinds.push(kind::BOOL, 1);
            }
            Value::Text(text) => {
                self.text_bytes += text.len();
                self.texts.push(ByteArray::from(text.as_bytes().to_vec()));
                self.kinds.push(kind::TEXT, 1);
            }
            Value::Json(text) => {
                self.text_bytes += text.len();
                self.jsons.push(ByteArray::from(text.as_bytes().to_vec()));
                self.kinds.push(kind::JSON, 1);
            }
        }
    }

    /// The next `count` rows belong to this series.
    #[inline]
    pub(super) fn series(&mut self, device: [u8; 16], key: &str, count: usize) {
        self.devices.push(device, count);
        self.keys.push(key, count);
    }

    /// Rows of the series that was told last, by column.
    pub(super) fn extend(&mut self, columns: &Columns, rows: &Range<usize>, values: &Numbers<'_>) {
        self.ts.extend_from_slice(columns.ts(rows));
        self.offset.extend_from_slice(columns.offsets(rows));
        for stretch in columns
            .credentials(rows)
            .chunk_by(|one, other| one == other)
        {
            if let Some(credential) = stretch.first() {
                self.credentials.push(*credential, stretch.len());
            }
        }
        for stretch in columns
            .generations(rows)
            .chunk_by(|one, other| one == other)
        {
            if let Some(generation) = stretch.first() {
                self.generations.push(*generation, stretch.len());
            }
        }
        match values {
            Numbers::Longs(values) => self.longs(values),
            Numbers::Doubles(values) => self.doubles(values),
        }
    }

    /// Their values, if all are whole numbers.
    #[inline]
    fn longs(&mut self, values: &[i64]) {
        self.longs.extend_from_slice(values);
        self.kinds.push(kind::LONG, values.len());
    }

    /// Their values, if all are doubles.
    #[inline]
    fn doubles(&mut self, values: &[f64]) {
        self.doubles
            .extend(values.iter().map(|value| value.to_bits()));
        self.kinds.push(kind::DOUBLE, values.len());
    }

    /// Writes all columns.
    pub(super) fn write<W: Write + Send>(
        &mut self,
        columns: &[ColumnDescPtr],
        zstd: &mut Compressor<'static>,
        writer: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        for (place, column) in columns.iter().enumerate() {
            let kind = u32::try_from(place).unwrap_or_default();
            let closed = match place {
                column::DEVICE => self.write_devices(Chunk::new(column.clone(), Some(zstd), true)),
                column::KEY => self.write_keys(Chunk::new(column.clone(), Some(zstd), true)),
                column::TS => self.write_ts(Chunk::new(column.clone(), Some(zstd), true)),
                column::OFFSET => self.write_offset(Chunk::new(column.clone(), Some(zstd), false)),
                column::CREDENTIAL => {
                    let chunk = Chunk::new(column.clone(), Some(zstd), false);
                    write_listed(chunk, &mut self.page, &self.credentials, self.ts.len())
                }
                column::GENERATION => {
                    let chunk = Chunk::new(column.clone(), Some(zstd), false);
                    write_listed(chunk, &mut self.page, &self.generations, self.ts.len())
                }
                _ if self.present(kind) == 0 => {
                    self.write_nothing(Chunk::new(column.clone(), None, false))
                }
                column::LONG => self.write_longs(Chunk::new(column.clone(), Some(zstd), false)),
                column::DOUBLE => self.write_doubles(Chunk::new(column.clone(), Some(zstd), false)),
                _ => {
                    self.write_by_library(kind, writer)?;
                    continue;
                }
            }?;
            writer.append_column(&closed.bytes, closed.result)?;
        }
        Ok(())
    }

    fn present(&self, kind: u32) -> usize {
        match kind {
            kind::LONG => self.longs.len(),
            kind::DOUBLE => self.doubles.len(),
            kind::BOOL => self.bools.len(),
            kind::TEXT => self.texts.len(),
            _ => self.jsons.len(),
        }
    }

    fn write_devices(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let list = &self.devices.values;
        chunk.dictionary(list.as_flattened(), list.len())?;
        let device = |number: u32| list.get(place(number)).copied().unwrap_or_default();
        let mut walk = self.devices.stretches.walk();
        let mut of_page = self.devices.stretches.walk();
        let mut all = Least::default();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            let mut bounds = Least::default();
            of_page.take(page.len(), |number, _| bounds.add(device(number)));
            self.page.clear();
            walk.numbers(page.len(), list.len(), &mut self.page);
            all.join(&bounds);
            let bounds = bounds
                .0
                .map(|(least, most)| (least.to_vec(), most.to_vec()));
            chunk.page(page.len(), Encoding::RLE_DICTIONARY, &self.page, bounds)?;
        }
        let bound = |device: [u8; 16]| Some(FixedLenByteArray::from(device.to_vec()));
        let (least, most) = all.0.unwrap_or_default();
        let (least, most) = (bound(least), bound(most));
        let statistics = Statistics::fixed_len_byte_array(least, most, None, Some(0), false);
        chunk.finish(Some(statistics))
    }

    fn write_keys(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let names = &self.keys.names;
        chunk.dictionary(&self.keys.plain, names.len())?;
        let name = |number: u32| names.get(place(number)).map_or("", |name| &**name);
        let mut walk = self.keys.stretches.walk();
        let mut of_page = self.keys.stretches.walk();
        let mut all = Least::default();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            let mut bounds = Least::default();
            of_page.take(page.len(), |number, _| bounds.add(name(number)));
            self.page.clear();
            walk.numbers(page.len(), names.len(), &mut self.page);
            all.join(&bounds);
            let bounds: Option<Bounds> = bounds.0.map(|(least, most)| {
                let (least, most) = (cut_least(least), cut_greatest(most));
                (least.as_bytes().to_vec(), most.into_bytes())
            });
            chunk.page(page.len(), Encoding::RLE_DICTIONARY, &self.page, bounds)?;
        }
        let (least, most) = all.0.unwrap_or_default();
        let (cut, cut_most) = (cut_least(least), cut_greatest(most));
        let (is_least, is_most) = (cut == least, cut_most == most);
        let bound = |text: &str| Some(ByteArray::from(text.as_bytes().to_vec()));
        let statistics = ValueStatistics::new(bound(cut), bound(&cut_most), None, Some(0), false)
            .with_min_is_exact(is_least)
            .with_max_is_exact(is_most);
        chunk.finish(Some(Statistics::ByteArray(statistics)))
    }

    fn write_ts(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let mut all = Least::default();
        for values in self.ts.chunks(PAGE_ROWS_MAX) {
            let mut bounds = Least::default();
            values.iter().for_each(|value| bounds.add(*value));
            all.join(&bounds);
            self.page.clear();
            delta(&mut self.page, values);
            let bytes = |value: i64| value.to_le_bytes().to_vec();
            let bounds = bounds.0.map(|(least, most)| (bytes(least), bytes(most)));
            chunk.page(
                values.len(),
                Encoding::DELTA_BINARY_PACKED,
                &self.page,
                bounds,
            )?;
        }
        let (least, most) = all.0.unzip();
        chunk.finish(Some(Statistics::int64(least, most, None, Some(0), false)))
    }

    fn write_offset(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        for values in self.offset.chunks(PAGE_ROWS_MAX) {
            self.page.clear();
            delta(&mut self.page, values);
            chunk.page(
                values.len(),
                Encoding::DELTA_BINARY_PACKED,
                &self.page,
                None,
            )?;
        }
        chunk.finish(None)
    }
}

impl Keys {
    #[inline]
    fn push(&mut self, key: &str, count: usize) {
        if let Some(last) = self.stretches.last()
            && self
                .names
                .get(place(last))
                .is_some_and(|name| **name == *key)
        {
            self.stretches.push(last, count);
            return;
        }
        let number = self.known.get(key).copied().unwrap_or_else(|| {
            let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
            self.plain.extend_from_slice(&len.to_le_bytes());
            self.plain.extend_from_slice(key.as_bytes());
            self.names.push(Box::from(key));
            self.known.insert(Box::from(key), number);
            number
        });
        self.stretches.push(number, count);
    }
}

/// A column of few values in stretches.
fn write_listed<T: Plain>(
    mut chunk: Chunk<'_>,
    buffer: &mut Vec<u8>,
    listed: &Listed<T>,
    rows: usize,
) -> Result<Closed> {
    let mut plain = Vec::with_capacity(size_of_val(listed.values.as_slice()));
    listed
        .values
        .iter()
        .for_each(|value| value.plain(&mut plain));
    chunk.dictionary(&plain, listed.values.len())?;
    let mut walk = listed.stretches.walk();
    for page in pages(rows, PAGE_ROWS_MAX) {
        buffer.clear();
        walk.numbers(page.len(), listed.values.len(), buffer);
        chunk.page(page.len(), Encoding::RLE_DICTIONARY, buffer, None)?;
    }
    chunk.finish(None)
}

/// How a value stands in a dictionary.
trait Plain {
    fn plain(&self, out: &mut Vec<u8>);
}

impl Plain for i64 {
    fn plain(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Plain for i32 {
    fn plain(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn missing() -> ParquetError {
    ParquetError::General("the values of a column are fewer than its rows".to_owned())
}
