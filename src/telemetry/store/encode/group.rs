//! The rows of a row group by column, and how each column is written.
//!
//! Devices, keys, credentials and generations are stretches and go by dictionary. Times and
//! offsets are differences. Whole numbers are differences or go by dictionary, whatever is
//! shorter; doubles go by dictionary, or as streams of their bytes where there are too many; texts
//! go by dictionary, or as they are. A column without any value in the group is a few bytes, which
//! its statistics say.

use std::io::Write;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::super::rows::{Row, column};
use super::super::run::{Run, Values};
use super::bounds::{Least, cut_greatest, cut_least};
use super::chunk::{Bounds, Chunk, Closed};
use super::names::Names;
use super::packing::delta;
use super::stretches::{Listed, Numbered, Stretches, pages};
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
    pub(super) texts: Texts,
    pub(super) jsons: Texts,
    /// For the content of a page.
    pub(super) page: Vec<u8>,
    /// For the values of a column that goes by dictionary.
    pub(super) numbered: Numbered,
}

/// Keys with the dictionary they make.
#[derive(Default)]
struct Keys {
    stretches: Stretches,
    names: Names,
}

/// The texts of a column.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) names: Names,
    /// Of each row that has one.
    pub(super) numbers: Vec<u32>,
    /// Bytes of all of them, however often each is there.
    pub(super) bytes: usize,
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
            || self.text_bytes() >= GROUP_TEXT_MAX
            || self.keys.names.plain().len() >= GROUP_KEYS_MAX
    }

    /// How many of the rows with these values it takes before it is full; at least one.
    pub(super) fn room(&self, values: &Values<'_>) -> usize {
        let rows = GROUP_ROWS_MAX.saturating_sub(self.rows()).max(1);
        let Values::Any(values) = values else {
            return rows;
        };
        let mut bytes = self.text_bytes();
        let before = values.iter().take(rows - 1).take_while(|value| {
            if let Value::Text(text) | Value::Json(text) = value {
                bytes += text.len();
            }
            bytes < GROUP_TEXT_MAX
        });
        before.count() + 1
    }

    fn text_bytes(&self) -> usize {
        self.texts.bytes + self.jsons.bytes
    }

    pub(super) fn clear(&mut self) {
        // Lists keep their storage for the next group; keys may be others by then.
        self.devices.clear();
        self.keys.stretches.clear();
        self.keys.names.clear();
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
    }

    /// Adds a row.
    #[inline]
    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.series(row.device, row.key, 1);
        self.ts.push(row.ts_ms);
        self.offset.push(row.offset.cast_signed());
        self.credentials.push(row.credential.cast_signed(), 1);
        self.generations.push(row.generation.cast_signed(), 1);
        self.value(&row.value);
    }

    /// Adds rows of one series.
    pub(super) fn extend(&mut self, run: &Run<'_>) {
        self.series(run.device, run.key, run.rows());
        self.ts.extend_from_slice(run.ts);
        self.offset.extend_from_slice(run.offsets);
        self.credentials.extend(run.credentials);
        self.generations.extend(run.generations);
        match run.values {
            Values::Longs(values) => {
                self.longs.extend_from_slice(values);
                self.kinds.push(kind::LONG, values.len());
            }
            Values::Doubles(values) => {
                self.doubles
                    .extend(values.iter().map(|value| value.to_bits()));
                self.kinds.push(kind::DOUBLE, values.len());
            }
            Values::Any(values) => values.iter().for_each(|value| self.value(value)),
        }
    }

    /// The next `count` rows belong to this series.
    #[inline]
    fn series(&mut self, device: [u8; 16], key: &str, count: usize) {
        self.devices.push(device, count);
        self.keys.push(key, count);
    }

    #[inline]
    fn value(&mut self, value: &Value<'_>) {
        let kind = match value {
            Value::Long(value) => {
                self.longs.push(*value);
                kind::LONG
            }
            Value::Double(value) => {
                self.doubles.push(value.to_bits());
                kind::DOUBLE
            }
            Value::Bool(value) => {
                self.bools.push(*value);
                kind::BOOL
            }
            Value::Text(text) => {
                self.texts.push(text);
                kind::TEXT
            }
            Value::Json(text) => {
                self.jsons.push(text);
                kind::JSON
            }
        };
        self.kinds.push(kind, 1);
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
                column::BOOL => self.write_bools(Chunk::new(column.clone(), Some(zstd), false)),
                _ => self.write_texts(Chunk::new(column.clone(), Some(zstd), false), kind),
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
            kind::TEXT => self.texts.numbers.len(),
            _ => self.jsons.numbers.len(),
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
        chunk.dictionary(names.plain(), names.len())?;
        let name = |number: u32| std::str::from_utf8(names.get(number)).unwrap_or_default();
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
        let key = key.as_bytes();
        let last = self.stretches.last();
        let same = last.filter(|last| self.names.get(*last) == key);
        let number = same.unwrap_or_else(|| self.names.number(key));
        self.stretches.push(number, count);
    }
}

impl Texts {
    #[inline]
    fn push(&mut self, text: &str) {
        self.bytes += text.len();
        let text = text.as_bytes();
        let last = self.numbers.last().copied();
        let same = last.filter(|last| self.names.get(*last) == text);
        let number = same.unwrap_or_else(|| self.names.number(text));
        self.numbers.push(number);
    }

    fn clear(&mut self) {
        self.names.clear();
        self.numbers.clear();
        self.bytes = 0;
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
