//! Writing a file of sorted samples.
//!
//! Rows come in order, are gathered by column, and leave as row groups. Everything passes through
//! a writer that takes a CRC-32C of each 64 KiB: Parquet's own pages carry none that this library
//! writes, and nothing false is to be served. The sums of the data stand in the file's footer, the
//! sum of indexes and footer in the manifest.

mod bounds;
mod chunk;
mod group;
mod names;
mod packing;
mod stretches;
mod summed;
#[cfg(test)]
mod tests;
mod values;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::pages::Batch;
use super::rows::{Row, column, schema};
use super::run::Run;
use group::Group;
use summed::Summed;

/// Bytes under one checksum.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Name of the footer's entry that holds the checksums: `DATA_END:HEX`, eight digits a block.
pub(super) const CHECKSUMS: &str = "tollgate.crc32c";

/// Name and value of the footer's entry that tells the layout.
pub(super) const FORMAT: (&str, &str) = ("tollgate.format", "1");

/// The quickest that still looks for what comes again.
const ZSTD_LEVEL: i32 = 1;

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
    writer: SerializedFileWriter<Summed>,
    columns: Vec<ColumnDescPtr>,
    zstd: Compressor<'static>,
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
        let summed = Summed::new(file);
        let properties = Arc::new(properties());
        let schema = schema().map_err(io_error)?;
        let writer = SerializedFileWriter::new(summed, schema, properties).map_err(io_error)?;
        let columns = writer.schema_descr().columns().to_vec();
        Ok(Self {
            writer,
            columns,
            zstd: Compressor::new(ZSTD_LEVEL)?,
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
        self.note(row.device, (row.ts_ms, row.ts_ms), 1);
        self.group.push(row);
        if self.group.is_full() {
            self.end_group()?;
        }
        Ok(())
    }

    /// Adds rows of one series at once, as if one by one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn push_run(&mut self, run: &Run<'_>) -> io::Result<()> {
        let mut begin = 0;
        while begin < run.rows() {
            let rest = run.part(&(begin..run.rows()));
            let end = run.rows().min(begin + self.group.room(&rest.values));
            let now = run.part(&(begin..end));
            begin = end;
            if let (Some(first), Some(last)) = (now.ts.first(), now.ts.last()) {
                self.note(now.device, (*first, *last), now.rows());
            }
            self.group.extend(&now);
            if self.group.is_full() {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// Adds rows of one series that were read from another file.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn push_stretch(&mut self, batch: &Batch, rows: &Range<usize>) -> io::Result<()> {
        let mut any = Vec::new();
        let run = batch.run(rows, &mut any);
        let run = run.ok_or_else(|| io::Error::other("rows that are not there cannot be written"));
        self.push_run(&run?)
    }

    fn note(&mut self, device: [u8; 16], times: (i64, i64), rows: usize) {
        let written = &mut self.written;
        written.rows += u64::try_from(rows).unwrap_or_default();
        written.times.0 = written.times.0.min(times.0);
        written.times.1 = written.times.1.max(times.1);
        written.devices.0 = written.devices.0.min(device);
        written.devices.1 = written.devices.1.max(device);
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
        let mut summed = self.writer.into_inner().map_err(io_error)?;
        summed.file.flush()?;
        summed.file.get_ref().sync_all()?;
        self.written.bytes = summed.position;
        self.written.tail_crc = summed.crc;
        Ok(self.written)
    }

    fn end_group(&mut self) -> io::Result<()> {
        if self.group.rows() == 0 {
            return Ok(());
        }
        let mut writer = self.writer.next_row_group().map_err(io_error)?;
        self.group
            .write(&self.columns, &mut self.zstd, &mut writer)
            .map_err(io_error)?;
        writer.close().map_err(io_error)?;
        self.group.clear();
        Ok(())
    }
}

fn properties() -> WriterProperties {
    let properties = WriterProperties::builder()
        .set_created_by(concat!("tollgate ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(Default::default()))
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None);
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
