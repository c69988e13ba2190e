//! The pages of one column, and columns that have a value in every row.

use std::io;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

use super::super::checked::CheckedFile;
use super::garbled;
use super::places::Group;
use super::unpack;

/// A column of a row group, page after page.
pub(super) struct Chunk {
    reader: SerializedPageReader<CheckedFile>,
    pub(super) place: usize,
    is_compressed: bool,
    /// Bytes of all its pages when they are not compressed.
    plain_bytes: usize,
    /// Its bytes, once it was read.
    pub(super) dictionary: Vec<u8>,
}

/// A page of values.
pub(super) struct Data<'p> {
    pub(super) bytes: &'p [u8],
    pub(super) rows: usize,
    pub(super) encoding: Encoding,
}

impl Chunk {
    /// `place`: which of the columns it is.
    pub(super) fn open(
        file: &Arc<CheckedFile>,
        schema: &SchemaDescriptor,
        group: &Group,
        place: usize,
    ) -> Result<Self, String> {
        let found = group.columns.get(place).ok_or_else(|| garbled(place))?;
        let column = found.described(schema.column(place));
        let column = column.map_err(|error| error.to_string())?;
        let reader = SerializedPageReader::new(Arc::clone(file), &column, group.rows, None);
        Ok(Self {
            reader: reader.map_err(|error| error.to_string())?,
            place,
            is_compressed: found.is_compressed,
            plain_bytes: found.plain_bytes,
            dictionary: Vec::new(),
        })
    }

    /// The next page of values; `None` behind the last one.
    pub(super) fn next<'p>(&mut self, plain: &'p mut Plain) -> Result<Option<Data<'p>>, String> {
        loop {
            let page = self.reader.get_next_page();
            match page.map_err(|error| error.to_string())? {
                None => return Ok(None),
                Some(Page::DictionaryPage { buf, .. }) => {
                    self.make_plain(&buf, plain)?;
                    self.dictionary.clone_from(&plain.bytes);
                }
                Some(Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    ..
                }) => {
                    self.make_plain(&buf, plain)?;
                    return Ok(Some(Data {
                        bytes: &plain.bytes,
                        rows: usize::try_from(num_values).unwrap_or_default(),
                        encoding,
                    }));
                }
                Some(_) => return Err(garbled(self.place)),
            }
        }
    }

    fn make_plain(&self, page: &[u8], plain: &mut Plain) -> Result<(), String> {
        if !self.is_compressed {
            plain.bytes.clear();
            plain.bytes.extend_from_slice(page);
            return Ok(());
        }
        plain
            .decompress(page, self.plain_bytes)
            .ok_or_else(|| garbled(self.place))
    }
}

/// Decompresses pages: one for all columns of all files of a merge.
pub(in crate::telemetry::store) struct Plain {
    zstd: Decompressor<'static>,
    /// Of the page that came last.
    bytes: Vec<u8>,
}

impl Plain {
    /// # Errors
    /// What the library says.
    pub(in crate::telemetry::store) fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            bytes: Vec::new(),
        })
    }

    /// `None` if it is none that was compressed, or has more bytes than `most`.
    fn decompress(&mut self, page: &[u8], most: usize) -> Option<()> {
        let len = get_frame_content_size(page).ok()??;
        let len = usize::try_from(len).ok().filter(|len| *len <= most)?;
        self.bytes.clear();
        self.bytes.reserve(len);
        self.zstd.decompress_to_buffer(page, &mut self.bytes).ok()?;
        Some(())
    }
}

/// A value of a fixed length.
pub(super) trait Fixed: Copy + PartialEq {
    /// The value at the start of these bytes, and what follows it.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])>;

    /// The value with this number in a list.
    fn at(bytes: &[u8], number: usize) -> Option<Self> {
        let at = number.checked_mul(size_of::<Self>())?;
        Self::split(bytes.get(at..)?).map(|(value, _)| value)
    }
}

impl Fixed for i64 {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (value, rest) = bytes.split_first_chunk()?;
        Some((Self::from_le_bytes(*value), rest))
    }
}

impl Fixed for i32 {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (value, rest) = bytes.split_first_chunk()?;
        Some((Self::from_le_bytes(*value), rest))
    }
}

impl Fixed for [u8; 16] {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        bytes
            .split_first_chunk()
            .map(|(value, rest)| (*value, rest))
    }
}

/// Numbers of a dictionary: `visit` hears each stretch of them. `None` if there are fewer.
pub(super) fn listed(bytes: &[u8], count: usize, visit: impl FnMut(u32, usize)) -> Option<()> {
    let (width, rest) = bytes.split_first()?;
    unpack::hybrid(rest, u32::from(*width), count, visit)
}

/// A column of stretches.
pub(super) struct Stretched<T> {
    chunk: Chunk,
    list: Vec<(T, usize)>,
    /// Of the first one so many rows are gone.
    rows: usize,
}

impl<T: Fixed> Stretched<T> {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self {
            chunk,
            list: Vec::new(),
            rows: 0,
        }
    }

    /// Rows that are decoded; a page is, if there were none.
    pub(super) fn have(&mut self, plain: &mut Plain) -> Result<usize, String> {
        while self.rows == 0 {
            let place = self.chunk.place;
            let data = self.chunk.next(plain)?.ok_or_else(|| garbled(place))?;
            self.list.clear();
            self.decode(&data).ok_or_else(|| garbled(place))?;
        }
        Ok(self.rows)
    }

    fn decode(&mut self, data: &Data<'_>) -> Option<()> {
        let (list, dictionary) = (&mut self.list, &self.chunk.dictionary);
        let mut is_good = true;
        let mut add = |value: Option<T>, count: usize| match (value, list.last_mut()) {
            (None, _) => is_good = false,
            (Some(value), Some((last, rows))) if *last == value => *rows += count,
            (Some(value), _) => list.push((value, count)),
        };
        match data.encoding {
            Encoding::RLE_DICTIONARY => listed(data.bytes, data.rows, |number, count| {
                add(
                    usize::try_from(number)
                        .ok()
                        .and_then(|number| T::at(dictionary, number)),
                    count,
                );
            })?,
            Encoding::PLAIN => {
                let mut rest = data.bytes;
                for _ in 0..data.rows {
                    let (value, later) = T::split(rest)?;
                    add(Some(value), 1);
                    rest = later;
                }
            }
            _ => return None,
        }
        self.rows = data.rows;
        is_good.then_some(())
    }

    /// Takes so many rows, of which there are as many.
    pub(super) fn take(&mut self, rows: usize, visit: impl FnMut(T, usize)) {
        self.rows -= take(&mut self.list, rows, visit);
    }
}

/// Takes rows from the front of stretches; answers how many these were.
pub(super) fn take<T: Copy>(
    list: &mut Vec<(T, usize)>,
    rows: usize,
    mut visit: impl FnMut(T, usize),
) -> usize {
    let (mut left, mut gone) = (rows, 0);
    for (value, count) in list.iter_mut() {
        if left == 0 {
            break;
        }
        let now = left.min(*count);
        visit(*value, now);
        left -= now;
        *count -= now;
        gone += usize::from(*count == 0);
    }
    if gone == list.len() {
        list.clear();
    } else {
        list.drain(..gone);
    }
    rows - left
}

/// The column of names.
pub(super) struct Texts {
    chunk: Chunk,
    /// Places in `names`.
    list: Vec<((usize, usize), usize)>,
    rows: usize,
    names: String,
    /// Of the dictionary.
    places: Vec<(usize, usize)>,
}

impl Texts {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self {
            chunk,
            list: Vec::new(),
            rows: 0,
            names: String::new(),
            places: Vec::new(),
        }
    }

    /// As [`Stretched::have`].
    pub(super) fn have(&mut self, plain: &mut Plain) -> Result<usize, String> {
        while self.rows == 0 {
            let place = self.chunk.place;
            let data = self.chunk.next(plain)?.ok_or_else(|| garbled(place))?;
            self.list.clear();
            self.decode(&data).ok_or_else(|| garbled(place))?;
        }
        Ok(self.rows)
    }

    fn decode(&mut self, data: &Data<'_>) -> Option<()> {
        if self.places.is_empty() {
            let mut rest: &[u8] = &self.chunk.dictionary;
            while !rest.is_empty() {
                let (text, later) = text(rest)?;
                self.places
                    .push((self.names.len(), self.names.len() + text.len()));
                self.names.push_str(text);
                rest = later;
            }
        }
        let (list, places) = (&mut self.list, &self.places);
        let mut is_good = true;
        match data.encoding {
            Encoding::RLE_DICTIONARY => listed(data.bytes, data.rows, |number, count| {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                match (places.get(number), list.last_mut()) {
                    (None, _) => is_good = false,
                    (Some(place), Some((last, rows))) if last == place => *rows += count,
                    (Some(place), _) => list.push((*place, count)),
                }
            })?,
            Encoding::PLAIN => {
                let mut rest = data.bytes;
                for _ in 0..data.rows {
                    let (text, later) = text(rest)?;
                    list.push(((self.names.len(), self.names.len() + text.len()), 1));
                    self.names.push_str(text);
                    rest = later;
                }
            }
            _ => return None,
        }
        self.rows = data.rows;
        is_good.then_some(())
    }

    /// As [`Stretched::take`].
    pub(super) fn take(&mut self, rows: usize, mut visit: impl FnMut(&str, usize)) {
        let names = &self.names;
        self.rows -= take(&mut self.list, rows, |(begin, end), count| {
            visit(names.get(begin..end).unwrap_or_default(), count);
        });
    }
}

/// The text at the start of these bytes, which has its length before it, and what follows it.
pub(super) fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (text, rest) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// A column of whole numbers.
pub(super) struct Numbers {
    chunk: Chunk,
    list: Vec<i64>,
    /// How many of them are gone.
    used: usize,
}

impl Numbers {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self {
            chunk,
            list: Vec::new(),
            used: 0,
        }
    }

    /// As [`Stretched::have`].
    pub(super) fn have(&mut self, plain: &mut Plain) -> Result<usize, String> {
        while self.used == self.list.len() {
            let place = self.chunk.place;
            let data = self.chunk.next(plain)?.ok_or_else(|| garbled(place))?;
            self.list.clear();
            self.used = 0;
            numbers(
                &data,
                data.bytes,
                data.rows,
                &self.chunk.dictionary,
                &mut self.list,
            )
            .ok_or_else(|| garbled(place))?;
        }
        Ok(self.list.len() - self.used)
    }

    /// As [`Stretched::take`]; an error if there are fewer.
    pub(super) fn take(&mut self, rows: usize, out: &mut Vec<i64>) -> Result<(), String> {
        let now = self.list.get(self.used..self.used + rows);
        out.extend_from_slice(now.ok_or_else(|| garbled(self.chunk.place))?);
        self.used += rows;
        Ok(())
    }
}

/// Adds the whole numbers of a page.
pub(super) fn numbers(
    data: &Data<'_>,
    bytes: &[u8],
    count: usize,
    dictionary: &[u8],
    out: &mut Vec<i64>,
) -> Option<()> {
    match data.encoding {
        Encoding::DELTA_BINARY_PACKED => unpack::delta(bytes, count, out),
        Encoding::RLE_DICTIONARY => {
            let mut is_good = true;
            listed(bytes, count, |number, count| {
                let number = usize::try_from(number).ok();
                match number.and_then(|number| i64::at(dictionary, number)) {
                    Some(value) => out.extend(std::iter::repeat_n(value, count)),
                    None => is_good = false,
                }
            })?;
            is_good.then_some(())
        }
        Encoding::PLAIN => {
            let (numbers, _) = bytes.as_chunks();
            out.extend(
                numbers
                    .get(..count)?
                    .iter()
                    .map(|bytes| i64::from_le_bytes(*bytes)),
            );
            Some(())
        }
        _ => None,
    }
}
