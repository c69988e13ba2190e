//! How the columns of values are written.

use std::io::Write;

use parquet::basic::Encoding;
use parquet::data_type::{BoolType, ByteArrayType, DataType};
use parquet::errors::Result;
use parquet::file::writer::SerializedRowGroupWriter;

use super::chunk::{Chunk, Closed};
use super::group::{Group, PAGE_ROWS_MAX, kind, missing};
use super::packing::{Hybrid, delta, width_of};
use super::stretches::{Numbered, Stretches, pages};

/// Most different doubles of a row group that go by dictionary.
const DOUBLES_LISTED_MAX: usize = 16 * 1024;

/// Most different whole numbers of a row group that go by dictionary.
const LONGS_LISTED_MAX: usize = 1024;

/// Values handed to the library at a time; its pages end between two of these.
pub(super) const VALUES_AT_ONCE: usize = 1024;

impl Group {
    /// A column without values.
    pub(super) fn write_nothing(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let rows = self.ts.len();
        for page in pages(rows, PAGE_ROWS_MAX) {
            self.page.clear();
            // Another kind than any: no row has it.
            let mut none = Stretches::default();
            none.push(0, page.len());
            none.walk().levels(page.len(), u32::MAX, &mut self.page);
            chunk.page(page.len(), Encoding::PLAIN, &self.page, None)?;
        }
        chunk.finish_empty()
    }

    pub(super) fn write_longs(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let bits: Vec<u64>;
        let mut listed = None;
        let mut trial = Vec::new();
        delta(&mut trial, &self.longs);
        // Four bits each are hard to beat, and then nothing needs to be looked up.
        if trial.len() > self.longs.len() / 2 {
            bits = self
                .longs
                .iter()
                .map(|value| value.cast_unsigned())
                .collect();
            listed = Numbered::of(&bits, LONGS_LISTED_MAX).filter(|listed| {
                let width = usize::try_from(width_of(listed.values.len())).unwrap_or(64);
                listed.values.len() * 8 + self.longs.len() * width / 8 < trial.len()
            });
        }
        if let Some(listed) = listed {
            return self.write_numbered(chunk, kind::LONG, &listed);
        }
        let mut rest = self.longs.as_slice();
        let mut walk = self.kinds.walk();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            self.page.clear();
            let present = walk.levels(page.len(), kind::LONG, &mut self.page);
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            delta(&mut self.page, now);
            chunk.page(page.len(), Encoding::DELTA_BINARY_PACKED, &self.page, None)?;
        }
        chunk.finish(None)
    }

    pub(super) fn write_doubles(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        // A list as long as the values themselves is no gain.
        let most = (self.doubles.len() / 4).next_power_of_two().max(64);
        if let Some(listed) = Numbered::of(&self.doubles, most.min(DOUBLES_LISTED_MAX)) {
            return self.write_numbered(chunk, kind::DOUBLE, &listed);
        }
        let mut rest = self.doubles.as_slice();
        let mut walk = self.kinds.walk();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            self.page.clear();
            let present = walk.levels(page.len(), kind::DOUBLE, &mut self.page);
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            for byte in 0..size_of::<f64>() {
                let stream = now.iter().map(|bits| (bits >> (8 * byte)).to_le_bytes()[0]);
                self.page.extend(stream);
            }
            chunk.page(page.len(), Encoding::BYTE_STREAM_SPLIT, &self.page, None)?;
        }
        chunk.finish(None)
    }

    fn write_numbered(
        &mut self,
        mut chunk: Chunk<'_>,
        kind: u32,
        listed: &Numbered,
    ) -> Result<Closed> {
        let bytes = |bits: &u64| bits.to_le_bytes();
        let plain: Vec<[u8; 8]> = listed.values.iter().map(bytes).collect();
        chunk.dictionary(plain.as_flattened(), plain.len())?;
        let width = width_of(listed.values.len());
        let mut rest = listed.numbers.as_slice();
        let mut walk = self.kinds.walk();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            self.page.clear();
            let present = walk.levels(page.len(), kind, &mut self.page);
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            self.page.push(u8::try_from(width).unwrap_or_default());
            let mut hybrid = Hybrid::new(&mut self.page, width);
            hybrid.extend(now);
            hybrid.finish();
            chunk.page(page.len(), Encoding::RLE_DICTIONARY, &self.page, None)?;
        }
        chunk.finish(None)
    }

    /// The rarer kinds, whose values the library knows how to list.
    pub(super) fn write_by_library<W: Write + Send>(
        &self,
        kind: u32,
        writer: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        match kind {
            kind::BOOL => self.write_values::<BoolType, W>(kind, &self.bools, writer),
            kind::TEXT => self.write_values::<ByteArrayType, W>(kind, &self.texts, writer),
            _ => self.write_values::<ByteArrayType, W>(kind, &self.jsons, writer),
        }
    }

    fn write_values<T: DataType, W: Write + Send>(
        &self,
        kind: u32,
        mut values: &[T::T],
        writer: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let mut column = writer.next_column()?.ok_or_else(missing)?;
        let mut walk = self.kinds.walk();
        let mut levels = Vec::with_capacity(VALUES_AT_ONCE);
        for part in pages(self.ts.len(), VALUES_AT_ONCE) {
            levels.clear();
            let mut present = 0;
            walk.take(part.len(), |found, count| {
                levels.extend(std::iter::repeat_n(i16::from(found == kind), count));
                present += if found == kind { count } else { 0 };
            });
            let (now, later) = values.split_at_checked(present).ok_or_else(missing)?;
            values = later;
            column.typed::<T>().write_batch(now, Some(&levels), None)?;
        }
        column.close()
    }
}
