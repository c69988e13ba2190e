//! Writing a file of sorted samples.
//!
//! Rows come in order, are gathered by column, and leave as row groups. Everything passes through
//! a writer that takes a CRC-32C of each 64 KiB: Parquet's own pages carry none that this library
//! writes, and nothing false is to be served. The sums of the data stand in the file's footer, the
//! sum of indexes and footer in the manifest.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::rows::{NAMES, Row, column, schema};
use crate::telemetry::sample::Value;

/// Bytes under one checksum.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Name of the footer's entry that holds the checksums: `DATA_END:HEX`, eight digits a block.
pub(super) const CHECKSUMS: &str = "tollgate.crc32c";

/// Name and value of the footer's entry that tells the layout.
pub(super) const FORMAT: (&str, &str) = ("tollgate.format", "1");

/// Most rows of a row group: bounds the memory of a writer (some 80 bytes each).
const GROUP_ROWS_MAX: usize = 128 * 1024;

/// Most bytes of text in a row group, gathered before they are encoded.
const GROUP_TEXT_MAX: usize = 16 * 1024 * 1024;

/// Rows of a page: the least that is read to find a series.
const PAGE_ROWS_MAX: usize = 8 * 1024;

/// Values handed to a column at a time; pages end between two of these.
const VALUES_AT_ONCE: usize = 1024;

/// Permissions of a file: nobody else reads the devices' data (SEC-78).
const FILE_MODE: u32 = 0o600;

/// What was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Rows in it; a file without rows is none.
    pub(super) rows: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Least and greatest time.
    pub(super) times: (i64, i64),
    /// Least and greatest device.
    pub(super) devices: ([u8; 16], [u8; 16]),
    /// CRC-32C of indexes and footer.
    pub(super) tail_crc: u32,
}

/// A file in the making.
pub(super) struct Encoder {
    writer: SerializedFileWriter<Checked>,
    group: Group,
    written: Written,
}

impl Encoder {
    /// Makes the file; one that is there is emptied.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        let checked = Checked::new(file);
        let properties = Arc::new(properties());
        let schema = schema().map_err(io_error)?;
        let writer = SerializedFileWriter::new(checked, schema, properties).map_err(io_error)?;
        Ok(Self {
            writer,
            group: Group::default(),
            written: Written {
                rows: 0,
                bytes: 0,
                times: (i64::MAX, i64::MIN),
                devices: ([0xff; 16], [0; 16]),
                tail_crc: 0,
            },
        })
    }

    /// Adds a row; rows come in the order of [`Row::order`], and none twice.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn push(&mut self, row: &Row<'_>) -> io::Result<()> {
        let written = &mut self.written;
        written.rows += 1;
        written.times.0 = written.times.0.min(row.ts_ms);
        written.times.1 = written.times.1.max(row.ts_ms);
        written.devices.0 = written.devices.0.min(row.device);
        written.devices.1 = written.devices.1.max(row.device);
        self.group.push(row);
        if self.group.is_full() {
            self.end_group()?;
        }
        Ok(())
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.written.rows
    }

    /// Ends the file and makes it survive a power loss; its name is the caller's affair.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        self.end_group()?;
        self.writer.flush()?;
        let checksums = self.writer.inner_mut().end_data();
        let entry = |name: &str, value: String| KeyValue::new(name.to_owned(), value);
        self.writer
            .append_key_value_metadata(entry(FORMAT.0, FORMAT.1.to_owned()));
        self.writer
            .append_key_value_metadata(entry(CHECKSUMS, checksums));
        let mut checked = self.writer.into_inner().map_err(io_error)?;
        checked.file.flush()?;
        checked.file.get_ref().sync_all()?;
        self.written.bytes = checked.position;
        self.written.tail_crc = checked.crc;
        Ok(self.written)
    }

    fn end_group(&mut self) -> io::Result<()> {
        if self.group.rows() == 0 {
            return Ok(());
        }
        let mut writer = self.writer.next_row_group().map_err(io_error)?;
        self.group.write(&mut writer).map_err(io_error)?;
        writer.close().map_err(io_error)?;
        self.group.clear();
        Ok(())
    }
}

/// The rows of a row group by column.
#[derive(Default)]
struct Group {
    /// Devices and keys come in stretches: what, and for how many rows.
    devices: Vec<(FixedLenByteArray, usize)>,
    keys: Vec<(ByteArray, usize)>,
    /// Keys met, so that one is allocated once a group.
    known: HashMap<Box<str>, ByteArray>,
    ts: Vec<i64>,
    offset: Vec<i64>,
    credential: Vec<i64>,
    generation: Vec<i32>,
    /// The column of each row's value.
    kinds: Vec<u8>,
    longs: Vec<i64>,
    doubles: Vec<f64>,
    bools: Vec<bool>,
    texts: Vec<ByteArray>,
    jsons: Vec<ByteArray>,
    text_bytes: usize,
}

/// The number that stands for a value's column in `kinds`.
const KIND_LONG: u8 = 3;
const KIND_DOUBLE: u8 = 4;
const KIND_BOOL: u8 = 5;
const KIND_TEXT: u8 = 6;
const KIND_JSON: u8 = 7;
const _: () = assert!(column::LONG == KIND_LONG as usize && column::JSON == KIND_JSON as usize);

impl Group {
    fn rows(&self) -> usize {
        self.ts.len()
    }

    fn is_full(&self) -> bool {
        self.rows() >= GROUP_ROWS_MAX || self.text_bytes >= GROUP_TEXT_MAX
    }

    fn clear(&mut self) {
        // Lists keep their storage for the next group; keys may be others by then.
        self.devices.clear();
        self.keys.clear();
        self.known.clear();
        self.ts.clear();
        self.offset.clear();
        self.credential.clear();
        self.generation.clear();
        self.kinds.clear();
        self.longs.clear();
        self.doubles.clear();
        self.bools.clear();
        self.texts.clear();
        self.jsons.clear();
        self.text_bytes = 0;
    }

    fn push(&mut self, row: &Row<'_>) {
        match self.devices.last_mut() {
            Some((device, count)) if device.data() == row.device => *count += 1,
            _ => {
                let device = FixedLenByteArray::from(row.device.to_vec());
                self.devices.push((device, 1));
            }
        }
        match self.keys.last_mut() {
            Some((key, count)) if key.data() == row.key.as_bytes() => *count += 1,
            _ => {
                let key = self.key(row.key);
                self.keys.push((key, 1));
            }
        }
        self.ts.push(row.ts_ms);
        self.offset.push(row.offset.cast_signed());
        self.credential.push(row.credential.cast_signed());
        self.generation.push(row.generation.cast_signed());
        let kind = match &row.value {
            Value::Long(value) => {
                self.longs.push(*value);
                KIND_LONG
            }
            Value::Double(value) => {
                self.doubles.push(*value);
                KIND_DOUBLE
            }
            Value::Bool(value) => {
                self.bools.push(*value);
                KIND_BOOL
            }
            Value::Text(text) => {
                self.text_bytes += text.len();
                self.texts.push(ByteArray::from(text.as_bytes().to_vec()));
                KIND_TEXT
            }
            Value::Json(text) => {
                self.text_bytes += text.len();
                self.jsons.push(ByteArray::from(text.as_bytes().to_vec()));
                KIND_JSON
            }
        };
        self.kinds.push(kind);
    }

    fn key(&mut self, key: &str) -> ByteArray {
        if let Some(known) = self.known.get(key) {
            return known.clone();
        }
        self.text_bytes += key.len();
        let made = ByteArray::from(key.as_bytes().to_vec());
        self.known.insert(Box::from(key), made.clone());
        made
    }

    fn write<W: Write + Send>(
        &self,
        writer: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        stretches::<FixedLenByteArrayType, W>(writer, &self.devices)?;
        stretches::<ByteArrayType, W>(writer, &self.keys)?;
        required::<Int64Type, W>(writer, &self.ts)?;
        self.values::<Int64Type, W>(writer, KIND_LONG, &self.longs)?;
        self.values::<DoubleType, W>(writer, KIND_DOUBLE, &self.doubles)?;
        self.values::<BoolType, W>(writer, KIND_BOOL, &self.bools)?;
        self.values::<ByteArrayType, W>(writer, KIND_TEXT, &self.texts)?;
        self.values::<ByteArrayType, W>(writer, KIND_JSON, &self.jsons)?;
        required::<Int64Type, W>(writer, &self.offset)?;
        required::<Int64Type, W>(writer, &self.credential)?;
        required::<Int32Type, W>(writer, &self.generation)
    }

    /// A column that is empty wherever the value is of another kind.
    fn values<T: DataType, W: Write + Send>(
        &self,
        writer: &mut SerializedRowGroupWriter<'_, W>,
        kind: u8,
        values: &[T::T],
    ) -> Result<(), ParquetError> {
        let mut column = writer.next_column()?.ok_or_else(missing)?;
        let mut levels = [0; VALUES_AT_ONCE];
        let mut rest = values;
        for kinds in self.kinds.chunks(VALUES_AT_ONCE) {
            let mut present = 0;
            for (level, found) in levels.iter_mut().zip(kinds) {
                let is_here = *found == kind;
                *level = i16::from(is_here);
                present += usize::from(is_here);
            }
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            let levels = levels.get(..kinds.len());
            column.typed::<T>().write_batch(now, levels, None)?;
        }
        column.close()
    }
}

fn required<T: DataType, W: Write + Send>(
    writer: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let mut column = writer.next_column()?.ok_or_else(missing)?;
    for values in values.chunks(VALUES_AT_ONCE) {
        column.typed::<T>().write_batch(values, None, None)?;
    }
    column.close()
}

fn stretches<T: DataType, W: Write + Send>(
    writer: &mut SerializedRowGroupWriter<'_, W>,
    stretches: &[(T::T, usize)],
) -> Result<(), ParquetError> {
    let mut column = writer.next_column()?.ok_or_else(missing)?;
    let mut values = Vec::with_capacity(VALUES_AT_ONCE);
    for (value, count) in stretches {
        let mut left = *count;
        while left > 0 {
            let now = left.min(VALUES_AT_ONCE - values.len());
            values.extend(std::iter::repeat_n(value.clone(), now));
            left -= now;
            if values.len() == VALUES_AT_ONCE {
                column.typed::<T>().write_batch(&values, None, None)?;
                values.clear();
            }
        }
    }
    column.typed::<T>().write_batch(&values, None, None)?;
    column.close()
}

fn missing() -> ParquetError {
    ParquetError::General("the schema has fewer columns than a row".to_owned())
}

fn properties() -> WriterProperties {
    let path = |place: usize| ColumnPath::from(NAMES.get(place).copied().unwrap_or_default());
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tollgate ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(Default::default()))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_write_batch_size(VALUES_AT_ONCE)
        .set_max_row_group_row_count(None)
        .set_column_index_truncate_length(Some(64))
        .set_statistics_enabled(EnabledStatistics::None);
    for place in [column::DEVICE, column::KEY, column::TS] {
        // These are what a series is found by.
        properties = properties.set_column_statistics_enabled(path(place), EnabledStatistics::Page);
    }
    for place in [column::TS, column::OFFSET] {
        properties = properties
            .set_column_dictionary_enabled(path(place), false)
            .set_column_encoding(path(place), Encoding::DELTA_BINARY_PACKED);
    }
    // What these fall back to when there are too many values for a dictionary.
    properties = properties
        .set_column_encoding(path(column::LONG), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(path(column::DOUBLE), Encoding::BYTE_STREAM_SPLIT);
    let ascending = |place: usize| SortingColumn {
        column_idx: i32::try_from(place).unwrap_or_default(),
        descending: false,
        nulls_first: false,
    };
    let sorting = [column::DEVICE, column::KEY, column::TS].map(ascending);
    properties
        .set_sorting_columns(Some(sorting.to_vec()))
        .build()
}

/// A file that is written from front to back and summed on the way.
struct Checked {
    file: BufWriter<File>,
    position: u64,
    blocks: Vec<u32>,
    /// Of the block that is being filled; once the data has ended, of all behind it.
    crc: u32,
    filled: usize,
    data_ended: bool,
}

impl Checked {
    fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(4 * BLOCK_BYTES, file),
            position: 0,
            blocks: Vec::new(),
            crc: 0,
            filled: 0,
            data_ended: false,
        }
    }

    /// Ends the data; answers where that is, and its checksums.
    fn end_data(&mut self) -> String {
        use std::fmt::Write as _;
        if self.filled > 0 {
            self.blocks.push(self.crc);
        }
        (self.crc, self.filled, self.data_ended) = (0, 0, true);
        let mut text = format!("{}:", self.position);
        for block in &self.blocks {
            // Writing into a string cannot fail.
            let _ = write!(text, "{block:08x}");
        }
        text
    }

    fn sum(&mut self, mut bytes: &[u8]) {
        if self.data_ended {
            self.crc = crc32c::crc32c_append(self.crc, bytes);
            return;
        }
        while !bytes.is_empty() {
            let room = bytes.len().min(BLOCK_BYTES - self.filled);
            let (now, later) = bytes.split_at(room);
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.filled += room;
            bytes = later;
            if self.filled == BLOCK_BYTES {
                self.blocks.push(self.crc);
                (self.crc, self.filled) = (0, 0);
            }
        }
    }
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum(bytes.get(..written).unwrap_or_default());
        self.position += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The system's own error again, if it is one.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        error => io::Error::other(error),
    }
}
