//! A column of a row group: pages, and what the footer tells of them.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

/// Least and greatest value of a page, as they stand in the index.
pub(super) type Bounds = (Vec<u8>, Vec<u8>);

/// A column in the making.
pub(super) struct Chunk<'z> {
    column: ColumnDescPtr,
    zstd: Option<&'z mut Compressor<'static>>,
    sink: TrackedWrite<Vec<u8>>,
    offsets: OffsetIndexBuilder,
    index: Option<ColumnIndexBuilder>,
    encodings: Vec<Encoding>,
    rows: u64,
    dictionary_at: Option<i64>,
    data_at: Option<i64>,
    bytes: i64,
    bytes_plain: i64,
}

/// A column that is written, but not in the file yet.
pub(super) struct Closed {
    pub(super) bytes: Bytes,
    pub(super) result: ColumnCloseResult,
}

impl<'z> Chunk<'z> {
    /// `zstd`: compresses its pages. `is_indexed`: pages come with their bounds.
    pub(super) fn new(
        column: ColumnDescPtr,
        zstd: Option<&'z mut Compressor<'static>>,
        is_indexed: bool,
    ) -> Self {
        let index = is_indexed.then(|| ColumnIndexBuilder::new(column.physical_type()));
        Self {
            column,
            zstd,
            sink: TrackedWrite::new(Vec::new()),
            offsets: OffsetIndexBuilder::new(),
            index,
            encodings: vec![Encoding::RLE],
            rows: 0,
            dictionary_at: None,
            data_at: None,
            bytes: 0,
            bytes_plain: 0,
        }
    }

    /// Writes the values that the pages behind it tell by number; plain, one behind the other.
    pub(super) fn dictionary(&mut self, values: &[u8], count: usize) -> Result<()> {
        let page = Page::DictionaryPage {
            buf: self.compressed(values)?,
            num_values: number(count)?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.encodings.push(Encoding::PLAIN);
        self.dictionary_at = Some(self.write(page, values.len())?.0);
        Ok(())
    }

    /// Writes a page of so many rows: its levels, if it has some, and its values.
    pub(super) fn page(
        &mut self,
        rows: usize,
        encoding: Encoding,
        content: &[u8],
        bounds: Option<Bounds>,
    ) -> Result<()> {
        let page = Page::DataPage {
            buf: self.compressed(content)?,
            num_values: number(rows)?,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        let (at, bytes) = self.write(page, content.len())?;
        self.data_at.get_or_insert(at);
        self.offsets.append_row_count(i64::from(number(rows)?));
        let bytes = i32::try_from(bytes).map_err(too_large)?;
        self.offsets.append_offset_and_size(at, bytes);
        if let Some(index) = &mut self.index {
            let (least, greatest) = bounds.unwrap_or_default();
            index.append(false, least, greatest, 0, None);
        }
        self.rows += u64::from(number(rows)?);
        Ok(())
    }

    /// Ends it.
    pub(super) fn finish(self, statistics: Option<Statistics>) -> Result<Closed> {
        let compression = match self.zstd {
            Some(_) => Compression::ZSTD(Default::default()),
            None => Compression::UNCOMPRESSED,
        };
        let mut metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(compression)
            .set_encodings(self.encodings)
            .set_num_values(i64::try_from(self.rows).map_err(too_large)?)
            .set_total_compressed_size(self.bytes)
            .set_total_uncompressed_size(self.bytes_plain)
            .set_dictionary_page_offset(self.dictionary_at)
            .set_data_page_offset(self.data_at.unwrap_or_default());
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        Ok(Closed {
            bytes: Bytes::from(self.sink.into_inner()?),
            result: ColumnCloseResult {
                bytes_written: self.bytes.cast_unsigned(),
                rows_written: self.rows,
                metadata: metadata.build()?,
                bloom_filter: None,
                column_index: self.index.map(ColumnIndexBuilder::build).transpose()?,
                offset_index: Some(self.offsets.build()),
            },
        })
    }

    /// Ends a column that has no value in any row.
    pub(super) fn finish_empty(self) -> Result<Closed> {
        let nulls = Some(self.rows);
        let statistics = match self.column.physical_type() {
            Type::INT64 => Statistics::int64(None, None, None, nulls, false),
            Type::DOUBLE => Statistics::double(None, None, None, nulls, false),
            Type::BOOLEAN => Statistics::boolean(None, None, None, nulls, false),
            _ => Statistics::byte_array(None, None, None, nulls, false),
        };
        self.finish(Some(statistics))
    }

    fn compressed(&mut self, content: &[u8]) -> Result<Bytes> {
        match &mut self.zstd {
            Some(zstd) => zstd
                .compress(content)
                .map(Bytes::from)
                .map_err(|error| ParquetError::External(Box::new(error))),
            None => Ok(Bytes::copy_from_slice(content)),
        }
    }

    /// Where the page stands in the column, and its bytes.
    fn write(&mut self, page: Page, plain: usize) -> Result<(i64, usize)> {
        let page = CompressedPage::new(page, plain);
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.bytes += i64::try_from(written.compressed_size).map_err(too_large)?;
        self.bytes_plain += i64::try_from(written.uncompressed_size).map_err(too_large)?;
        let at = i64::try_from(written.offset).map_err(too_large)?;
        Ok((at, written.compressed_size))
    }
}

fn number(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(too_large)
}

fn too_large(error: std::num::TryFromIntError) -> ParquetError {
    ParquetError::External(Box::new(error))
}
