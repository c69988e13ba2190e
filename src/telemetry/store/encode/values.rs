//! How the columns of values are written.

use parquet::basic::Encoding;
use parquet::errors::Result;

use super::chunk::{Chunk, Closed};
use super::group::{Group, PAGE_ROWS_MAX, kind, missing};
use super::packing::{Hybrid, delta, width_of};
use super::stretches::{Stretches, pages};

/// Most different doubles of a row group that go by dictionary.
const DOUBLES_LISTED_MAX: usize = 16 * 1024;

/// Most different whole numbers of a row group that go by dictionary.
const LONGS_LISTED_MAX: usize = 1024;

/// One page of so many is tried.
const TRIAL_STEP: usize = 4;

/// Most bytes of different texts of a row group that go by dictionary.
const TEXTS_LISTED_MAX: usize = 1024 * 1024;

/// Bytes of texts in a page that are about enough.
const PAGE_TEXT_BYTES: usize = 512 * 1024;

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
        if self.list_longs() {
            return self.write_numbered(chunk, kind::LONG);
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

    /// Whether a dictionary is shorter than the differences; it is made then.
    fn list_longs(&mut self) -> bool {
        // Some pages tell well enough how long all differences are.
        let (mut trial, mut tried) = (0, 0);
        for part in self.longs.chunks(PAGE_ROWS_MAX).step_by(TRIAL_STEP) {
            self.page.clear();
            delta(&mut self.page, part);
            trial += self.page.len();
            tried += part.len();
        }
        // Four bits each are hard to beat, and then nothing needs to be looked up.
        if trial <= tried / 2 {
            return false;
        }
        let bits = self.longs.iter().map(|value| value.cast_unsigned());
        if !self.numbered.list(bits, LONGS_LISTED_MAX) {
            return false;
        }
        let width = usize::try_from(width_of(self.numbered.values.len())).unwrap_or(64);
        let bytes = self.numbered.values.len() * 8 + self.longs.len() * width / 8;
        bytes * tried < trial * self.longs.len()
    }

    pub(super) fn write_doubles(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        // A list as long as the values themselves is no gain.
        let most = (self.doubles.len() / 4).next_power_of_two().max(64);
        let bits = self.doubles.iter().copied();
        if self.numbered.list(bits, most.min(DOUBLES_LISTED_MAX)) {
            return self.write_numbered(chunk, kind::DOUBLE);
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

    fn write_numbered(&mut self, mut chunk: Chunk<'_>, kind: u32) -> Result<Closed> {
        let listed = &self.numbered;
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
            numbers(&mut self.page, width, now);
            chunk.page(page.len(), Encoding::RLE_DICTIONARY, &self.page, None)?;
        }
        chunk.finish(None)
    }

    pub(super) fn write_bools(&mut self, mut chunk: Chunk<'_>) -> Result<Closed> {
        let mut rest = self.bools.as_slice();
        let mut walk = self.kinds.walk();
        for page in pages(self.ts.len(), PAGE_ROWS_MAX) {
            self.page.clear();
            let present = walk.levels(page.len(), kind::BOOL, &mut self.page);
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            let eight = now.chunks(8).map(|eight| {
                let bits = eight.iter().rev();
                bits.fold(0, |byte, bit| byte << 1 | u8::from(*bit))
            });
            self.page.extend(eight);
            chunk.page(page.len(), Encoding::PLAIN, &self.page, None)?;
        }
        chunk.finish(None)
    }

    /// The texts of a kind.
    pub(super) fn write_texts(&mut self, mut chunk: Chunk<'_>, kind: u32) -> Result<Closed> {
        let texts = if kind == kind::TEXT {
            &self.texts
        } else {
            &self.jsons
        };
        let (names, count) = (&texts.names, texts.numbers.len());
        let is_listed = names.len() <= count / 2 && names.plain().len() <= TEXTS_LISTED_MAX;
        // Pages of about as many bytes, as whoever seeks a series reads all of one.
        let (rows, average) = (self.ts.len(), texts.bytes / self.ts.len().max(1) + 1);
        let page_rows = (PAGE_TEXT_BYTES / average).clamp(1, PAGE_ROWS_MAX);
        let page_rows = if is_listed { PAGE_ROWS_MAX } else { page_rows };
        let width = width_of(names.len());
        if is_listed {
            chunk.dictionary(names.plain(), names.len())?;
        }
        let mut rest = texts.numbers.as_slice();
        let mut walk = self.kinds.walk();
        for page in pages(rows, page_rows) {
            self.page.clear();
            let present = walk.levels(page.len(), kind, &mut self.page);
            let (now, later) = rest.split_at_checked(present).ok_or_else(missing)?;
            rest = later;
            if is_listed {
                numbers(&mut self.page, width, now);
                chunk.page(page.len(), Encoding::RLE_DICTIONARY, &self.page, None)?;
                continue;
            }
            for number in now {
                let text = names.get(*number);
                let len = u32::try_from(text.len()).unwrap_or_default();
                self.page.extend_from_slice(&len.to_le_bytes());
                self.page.extend_from_slice(text);
            }
            chunk.page(page.len(), Encoding::PLAIN, &self.page, None)?;
        }
        chunk.finish(None)
    }
}

/// Numbers of a dictionary as a page has them.
fn numbers(out: &mut Vec<u8>, width: u32, numbers: &[u32]) {
    out.push(u8::try_from(width).unwrap_or_default());
    let mut hybrid = Hybrid::new(out, width);
    hybrid.extend(numbers);
    hybrid.finish();
}
