//! The newest samples in memory.
//!
//! A queue of chunks, each for a stretch of offsets. In a chunk the samples of all devices lie in
//! one list in order of their offsets, 32 bytes each; the samples of one device are linked from
//! the newest back to the oldest. Keys are kept once a chunk, text values in one string. Appending
//! touches only ends of lists, evicting frees a whole chunk, and memory is known to the byte from
//! the capacities (the allocator's own overhead is not counted).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::best::{Best, Order};
use super::{Query, QueryError};
use crate::journal::Offset;
use crate::telemetry::sample::{OwnedValue, Sample, Value};

/// A chunk is this part of the head; one chunk at a time leaves.
const CHUNKS: usize = 16;

/// Least and greatest bytes of a chunk: below it the fixed cost counts for more than the samples,
/// above it places in it would not fit 32 bits by far.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
const CHUNK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of one sample.
const ROW_BYTES: usize = size_of::<Row>();
const _: () = assert!(ROW_BYTES == 32);

/// The head.
pub(super) struct Head {
    chunks: VecDeque<Chunk>,
    /// Every sample from this offset on is in the chunks.
    first: Offset,
    bytes_max: usize,
    /// Bytes of all chunks but the last, which still grows.
    sealed_bytes: usize,
}

impl Head {
    /// An empty head that begins at `first`.
    pub(super) fn new(bytes_max: usize, first: Offset) -> Self {
        Self {
            chunks: VecDeque::new(),
            first,
            bytes_max,
            sealed_bytes: 0,
        }
    }

    /// Every sample from this offset on is here.
    pub(super) fn first(&self) -> Offset {
        self.first
    }

    /// Bytes of memory, never above the limit between two calls.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.chunks.back().map_or(0, Chunk::bytes)
    }

    /// Appends the samples of one record; offsets must grow from call to call.
    pub(super) fn append(&mut self, device: Uuid, offset: Offset, samples: &[Sample<'_>]) {
        if samples.is_empty() {
            return;
        }
        let chunk_bytes = (self.bytes_max / CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        if self
            .chunks
            .back()
            .is_none_or(|last| last.is_full(offset, chunk_bytes))
        {
            if let Some(last) = self.chunks.back_mut() {
                last.shrink();
                self.sealed_bytes += last.bytes();
            }
            self.chunks.push_back(Chunk::new(offset));
        }
        if let Some(last) = self.chunks.back_mut() {
            last.append(device, offset, samples);
        }
        while self.bytes() > self.bytes_max {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.first = oldest.last.next();
            if !self.chunks.is_empty() {
                self.sealed_bytes -= oldest.bytes();
            }
        }
    }

    /// Offers every sample of the query's device from `hidden` on, from the newest to the oldest.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`]
    pub(super) fn collect(
        &self,
        query: &Query,
        hidden: Offset,
        best: &mut Best<'_>,
    ) -> Result<(), QueryError> {
        let wanted = self
            .chunks
            .iter()
            .rev()
            .take_while(|chunk| chunk.last >= hidden);
        for chunk in wanted {
            chunk.collect(query.device, hidden, best)?;
        }
        Ok(())
    }
}

/// The samples of a stretch of offsets.
struct Chunk {
    first: Offset,
    last: Offset,
    rows: Vec<Row>,
    /// Index of each device's newest row.
    devices: HashMap<Uuid, u32>,
    keys: HashMap<Arc<str>, u32>,
    key_names: Vec<Arc<str>>,
    /// Bytes of the key names in their own allocations.
    key_bytes: usize,
    /// All text values, one behind the other.
    text: String,
}

/// One sample.
#[derive(Clone, Copy)]
struct Row {
    ts_ms: i64,
    /// The number, or place and length of the text.
    bits: u64,
    /// From the chunk's first offset on.
    offset: u32,
    key: u32,
    /// The device's row before this one; its own index if there is none.
    previous: u32,
    kind: RowKind,
}

#[derive(Clone, Copy)]
enum RowKind {
    Long,
    Double,
    Bool,
    Text,
    Json,
}

impl Chunk {
    fn new(first: Offset) -> Self {
        Self {
            first,
            last: first,
            rows: Vec::new(),
            devices: HashMap::new(),
            keys: HashMap::new(),
            key_names: Vec::new(),
            key_bytes: 0,
            text: String::new(),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.rows.capacity() * ROW_BYTES
            + map_bytes::<Uuid, u32>(self.devices.capacity())
            + map_bytes::<Arc<str>, u32>(self.keys.capacity())
            + self.key_names.capacity() * size_of::<Arc<str>>()
            + self.key_bytes
            + self.text.capacity()
    }

    fn is_full(&self, offset: Offset, chunk_bytes: usize) -> bool {
        // A record adds less than 2^31 rows or bytes of text (a body is at most 512 KiB), so below
        // these bounds every place in the chunk fits 32 bits.
        self.bytes() >= chunk_bytes || offset.number() - self.first.number() > u64::from(u32::MAX)
    }

    fn shrink(&mut self) {
        self.rows.shrink_to_fit();
        self.key_names.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    fn append(&mut self, device: Uuid, offset: Offset, samples: &[Sample<'_>]) {
        self.last = offset;
        let relative = offset.number().saturating_sub(self.first.number());
        let relative = u32::try_from(relative).unwrap_or(u32::MAX);
        let mut previous = self.devices.get(&device).copied();
        for sample in samples {
            let Ok(index) = u32::try_from(self.rows.len()) else {
                return;
            };
            let (kind, bits) = self.store(&sample.value);
            let row = Row {
                ts_ms: sample.ts_ms,
                bits,
                offset: relative,
                key: self.intern(&sample.key),
                previous: previous.unwrap_or(index),
                kind,
            };
            self.rows.push(row);
            previous = Some(index);
        }
        if let Some(newest) = previous {
            self.devices.insert(device, newest);
        }
    }

    fn collect(&self, device: Uuid, hidden: Offset, best: &mut Best<'_>) -> Result<(), QueryError> {
        let mut next = self.devices.get(&device).copied();
        while let Some(index) = next {
            let Some(row) = self.row(index) else { break };
            next = (row.previous != index).then_some(row.previous);
            let offset = Offset::new(self.first.number() + u64::from(row.offset));
            if offset < hidden {
                break;
            }
            let key = usize::try_from(row.key)
                .ok()
                .and_then(|key| self.key_names.get(key));
            let Some(key) = key else { break };
            if best.wants(key, row.ts_ms) {
                best.offer((key, row.ts_ms), offset, Order::Descending, self.load(row))?;
            }
        }
        Ok(())
    }

    fn row(&self, index: u32) -> Option<&Row> {
        self.rows.get(usize::try_from(index).ok()?)
    }

    fn intern(&mut self, key: &str) -> u32 {
        if let Some(&known) = self.keys.get(key) {
            return known;
        }
        // As many keys as rows at most.
        let number = u32::try_from(self.key_names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = Arc::from(key);
        // Two counters stand before the text.
        self.key_bytes += key.len() + 2 * size_of::<usize>();
        self.key_names.push(Arc::clone(&name));
        self.keys.insert(name, number);
        number
    }

    fn store(&mut self, value: &Value<'_>) -> (RowKind, u64) {
        match value {
            Value::Long(value) => (RowKind::Long, value.cast_unsigned()),
            Value::Double(value) => (RowKind::Double, value.to_bits()),
            Value::Bool(value) => (RowKind::Bool, u64::from(*value)),
            Value::Text(text) => (RowKind::Text, self.store_text(text)),
            Value::Json(text) => (RowKind::Json, self.store_text(text)),
        }
    }

    fn store_text(&mut self, text: &str) -> u64 {
        let start = u64::try_from(self.text.len()).unwrap_or(u64::MAX);
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.text.push_str(text);
        start << 32 | len
    }

    fn load(&self, row: &Row) -> OwnedValue {
        match row.kind {
            RowKind::Long => OwnedValue::Long(row.bits.cast_signed()),
            RowKind::Double => OwnedValue::Double(f64::from_bits(row.bits)),
            RowKind::Bool => OwnedValue::Bool(row.bits != 0),
            RowKind::Text => OwnedValue::Text(self.load_text(row.bits)),
            RowKind::Json => OwnedValue::Json(self.load_text(row.bits)),
        }
    }

    fn load_text(&self, bits: u64) -> String {
        let place = |bits: u64| usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let (start, len) = (place(bits >> 32), place(bits));
        self.text
            .get(start..start.saturating_add(len))
            .unwrap_or_default()
            .to_owned()
    }
}

/// Bytes of a hash map with room for `capacity` entries: it fills seven eighths of its places, and
/// each place has one byte of its own.
fn map_bytes<K, V>(capacity: usize) -> usize {
    capacity.div_ceil(7) * 8 * (size_of::<(K, V)>() + 1)
}

#[cfg(test)]
mod tests;
