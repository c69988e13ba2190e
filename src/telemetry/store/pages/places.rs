//! Where the columns of a file's row groups are.
//!
//! The library's description of a column is some 500 bytes, 1,300 with its indexes, and a merge
//! reads hundreds of row groups of eleven columns at once: of each, what finds its bytes is kept.

use parquet::basic::Compression;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::ColumnDescPtr;

/// A row group.
pub(super) struct Group {
    pub(super) rows: usize,
    /// In the order of the columns.
    pub(super) columns: Box<[Place]>,
}

/// A column of a row group.
pub(super) struct Place {
    /// Of the first of its pages in the file.
    pub(super) begin: u64,
    /// Of all its pages.
    bytes: i64,
    /// The same when they are not compressed.
    pub(super) plain_bytes: usize,
    has_dictionary: bool,
    pub(super) is_compressed: bool,
    /// No row has a value.
    pub(super) is_empty: bool,
}

/// The row groups of a file, in order. `None`: a number in its footer is below zero.
pub(super) fn groups(metadata: &ParquetMetaData) -> Option<Vec<Group>> {
    metadata.row_groups().iter().map(Group::of).collect()
}

impl Group {
    fn of(group: &RowGroupMetaData) -> Option<Self> {
        let columns = group.columns().iter();
        Some(Self {
            rows: usize::try_from(group.num_rows()).ok()?,
            columns: columns
                .map(|column| Place::of(column, group.num_rows()))
                .collect::<Option<_>>()?,
        })
    }
}

impl Place {
    fn of(column: &ColumnChunkMetaData, rows: i64) -> Option<Self> {
        let dictionary = column.dictionary_page_offset();
        let begin = dictionary.unwrap_or_else(|| column.data_page_offset());
        let nulls = column.statistics().and_then(|known| known.null_count_opt());
        Some(Self {
            begin: u64::try_from(begin).ok()?,
            bytes: Some(column.compressed_size()).filter(|bytes| *bytes >= 0)?,
            plain_bytes: usize::try_from(column.uncompressed_size()).ok()?,
            has_dictionary: dictionary.is_some(),
            is_compressed: column.compression() != Compression::UNCOMPRESSED,
            is_empty: nulls.and_then(|nulls| i64::try_from(nulls).ok()) == Some(rows),
        })
    }

    /// What the library's reader of pages is told: as if they were not compressed, as it would
    /// have what decompresses them once for each column of each file, 94 KiB.
    pub(super) fn described(&self, column: ColumnDescPtr) -> Result<ColumnChunkMetaData> {
        let begin = i64::try_from(self.begin)?;
        ColumnChunkMetaData::builder(column)
            .set_compression(Compression::UNCOMPRESSED)
            .set_total_compressed_size(self.bytes)
            .set_data_page_offset(begin)
            .set_dictionary_page_offset(self.has_dictionary.then_some(begin))
            .build()
    }
}
