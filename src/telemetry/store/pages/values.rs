//! Columns that have a value in some rows: those of the values.

use std::ops::Range;

use parquet::basic::Encoding;

use super::super::rows::column;
use super::chunk::{Chunk, Data, Plain, listed, numbers, take, text};
use super::{Batch, garbled, unpack};

/// What the value of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Long,
    Double,
    Bool,
    Text,
    Json,
}

/// A column of values.
pub(super) struct Optional {
    chunk: Chunk,
    kind: Kind,
    /// Whether rows have a value.
    levels: Vec<(bool, usize)>,
    rows: usize,
    /// The values that there are: numbers, bits of doubles, places in `texts`.
    values: Vec<i64>,
    /// How many of them are gone.
    used: usize,
    /// Texts of the dictionary, and behind them those of the page.
    texts: String,
    listed_end: usize,
    /// Places of those of the dictionary.
    listed: Vec<i64>,
}

impl Optional {
    pub(super) fn new(chunk: Chunk, place: usize) -> Self {
        Self {
            chunk,
            kind: match place {
                column::LONG => Kind::Long,
                column::DOUBLE => Kind::Double,
                column::BOOL => Kind::Bool,
                column::TEXT => Kind::Text,
                _ => Kind::Json,
            },
            levels: Vec::new(),
            rows: 0,
            values: Vec::new(),
            used: 0,
            texts: String::new(),
            listed: Vec::new(),
            listed_end: 0,
        }
    }

    /// Rows that are decoded; a page is, if there were none.
    pub(super) fn have(&mut self, plain: &mut Plain) -> Result<usize, String> {
        while self.rows == 0 {
            let place = self.chunk.place;
            let data = self.chunk.next(plain)?.ok_or_else(|| garbled(place))?;
            self.levels.clear();
            self.values.clear();
            self.used = 0;
            self.decode(&data).ok_or_else(|| garbled(place))?;
        }
        Ok(self.rows)
    }

    fn decode(&mut self, data: &Data<'_>) -> Option<()> {
        // Nobody wants those of the page before any more.
        self.texts.truncate(self.listed_end);
        let (len, rest) = data.bytes.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (levels, bytes) = rest.split_at_checked(len)?;
        let mut present = 0;
        unpack::hybrid(levels, 1, data.rows, |level, count| {
            present += if level == 1 { count } else { 0 };
            match self.levels.last_mut() {
                Some((last, rows)) if *last == (level == 1) => *rows += count,
                _ => self.levels.push((level == 1, count)),
            }
        })?;
        self.rows = data.rows;
        if present == 0 {
            return Some(());
        }
        match self.kind {
            Kind::Text | Kind::Json => self.decode_texts(data.encoding, bytes, present),
            Kind::Bool => {
                let bit = |at: usize| Some(i64::from(bytes.get(at / 8)? >> (at % 8) & 1));
                (0..present).try_for_each(|at| {
                    self.values.push(bit(at)?);
                    Some(())
                })
            }
            Kind::Double if data.encoding == Encoding::BYTE_STREAM_SPLIT => {
                self.values.resize(present, 0);
                let streams = bytes
                    .get(..present * size_of::<f64>())?
                    .chunks_exact(present);
                for (stream, shift) in streams.zip((0..).step_by(8)) {
                    for (value, byte) in self.values.iter_mut().zip(stream) {
                        *value |= (u64::from(*byte) << shift).cast_signed();
                    }
                }
                Some(())
            }
            _ => {
                let dictionary = &self.chunk.dictionary;
                numbers(data, bytes, present, dictionary, &mut self.values)
            }
        }
    }

    fn decode_texts(&mut self, encoding: Encoding, bytes: &[u8], present: usize) -> Option<()> {
        let (texts, values) = (&mut self.texts, &mut self.values);
        let mut push = |text: &str| {
            let (start, len) = (texts.len(), text.len());
            texts.push_str(text);
            Some(i64::try_from(start).ok()? << 32 | i64::try_from(len).ok()?)
        };
        match encoding {
            Encoding::RLE_DICTIONARY => {
                if self.listed.is_empty() {
                    let mut rest: &[u8] = &self.chunk.dictionary;
                    while let Some((text, later)) = text(rest) {
                        self.listed.push(push(text)?);
                        rest = later;
                    }
                    self.listed_end = texts.len();
                }
                let listed_texts = &self.listed;
                let mut is_good = true;
                listed(bytes, present, |number, count| {
                    let number = usize::try_from(number).unwrap_or(usize::MAX);
                    match listed_texts.get(number) {
                        Some(place) => values.extend(std::iter::repeat_n(*place, count)),
                        None => is_good = false,
                    }
                })?;
                is_good.then_some(())
            }
            Encoding::PLAIN => {
                let mut rest = bytes;
                for _ in 0..present {
                    let (text, later) = text(rest)?;
                    values.push(push(text)?);
                    rest = later;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// Takes so many rows, of which there are as many.
    pub(super) fn take(&mut self, rows: usize, batch: &mut Batch) {
        let Self {
            kind,
            levels,
            values,
            used,
            texts,
            ..
        } = self;
        let mut at = 0;
        self.rows -= take(levels, rows, |is_here, count| {
            let begin = at;
            at += count;
            if !is_here {
                return;
            }
            let now = values.get(*used..*used + count).unwrap_or_default();
            *used += count;
            fill(
                batch.kinds.get_mut(begin..at),
                |place, _| *place = *kind,
                now,
            );
            match kind {
                Kind::Double => {
                    let doubles = batch.doubles.get_mut(begin..at);
                    let double = |bits: i64| f64::from_bits(bits.cast_unsigned());
                    fill(doubles, |place, bits| *place = double(bits), now);
                }
                Kind::Text | Kind::Json => {
                    let bits = batch.bits.get_mut(begin..at);
                    let out = &mut batch.texts;
                    fill(bits, |place, from| *place = moved(from, texts, out), now);
                }
                _ => fill(
                    batch.bits.get_mut(begin..at),
                    |place, value| *place = value,
                    now,
                ),
            }
        });
    }
}

fn fill<T>(places: Option<&mut [T]>, mut set: impl FnMut(&mut T, i64), values: &[i64]) {
    for (place, value) in places.unwrap_or_default().iter_mut().zip(values) {
        set(place, *value);
    }
}

/// Copies a text; answers its new place.
fn moved(from: i64, texts: &str, out: &mut String) -> i64 {
    let range = span(from);
    let start = i64::try_from(out.len()).unwrap_or_default();
    let text = texts.get(range).unwrap_or_default();
    out.push_str(text);
    start << 32 | i64::try_from(text.len()).unwrap_or_default()
}

/// Where a text is.
pub(super) fn span(place: i64) -> Range<usize> {
    let place = place.cast_unsigned();
    let start = usize::try_from(place >> 32).unwrap_or_default();
    start..start + usize::try_from(place & u64::from(u32::MAX)).unwrap_or_default()
}
