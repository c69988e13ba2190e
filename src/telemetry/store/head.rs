//! The newest samples in memory: one generation grows while another is being sealed.
//!
//! In a generation the samples of all devices lie in one list in order of their offsets, 32 bytes
//! each; the samples of one device are linked from the newest back to the oldest, and what a
//! record's samples have in common is kept once a record. Keys are kept once a generation, text
//! values in one string. Appending touches only ends of lists, and memory is known to the byte
//! from the capacities (the allocator's own overhead is not counted).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::hasher::Cheap;
use super::rows::Row;
use crate::journal::{Offset, RecordHeader};
use crate::telemetry::sample::{Sample, Value};

/// A generation never refuses below this, so that every record finds a place.
pub(super) const GENERATION_BYTES_MIN: usize = 4 * 1024;

/// Above it places in a generation would not fit 32 bits by far.
pub(super) const GENERATION_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of one sample.
const SAMPLE_BYTES: usize = size_of::<Place>();
const _: () = assert!(SAMPLE_BYTES == 32);

/// The samples of a stretch of offsets.
pub(super) struct Generation {
    /// The first offset that belongs to it, with samples or without.
    first: Offset,
    samples: Vec<Place>,
    records: Vec<Origin>,
    /// Number of each device, a place in `newest`.
    devices: HashMap<Uuid, u32, Cheap>,
    /// Index of each device's newest sample.
    newest: Vec<u32>,
    keys: HashMap<Arc<str>, u32, Cheap>,
    key_names: Vec<Arc<str>>,
    /// Bytes of the key names in their own allocations.
    key_bytes: usize,
    /// All text values, one behind the other.
    text: String,
}

/// One sample.
#[derive(Clone, Copy)]
struct Place {
    ts_ms: i64,
    /// The number, or place and length of the text.
    bits: u64,
    /// Index in `records`.
    record: u32,
    key: u32,
    /// The device's sample before this one; its own index if there is none.
    previous: u32,
    kind: Kind,
}

/// What the samples of one record have in common.
#[derive(Clone, Copy)]
struct Origin {
    offset: u64,
    credential: u64,
    generation: u32,
}

#[derive(Clone, Copy)]
enum Kind {
    Long,
    Double,
    Bool,
    Text,
    Json,
}

impl Generation {
    /// An empty generation that begins at `first`.
    pub(super) fn new(first: Offset) -> Self {
        Self {
            first,
            samples: Vec::new(),
            records: Vec::new(),
            devices: HashMap::default(),
            newest: Vec::new(),
            keys: HashMap::default(),
            key_names: Vec::new(),
            key_bytes: 0,
            text: String::new(),
        }
    }

    /// The first offset that belongs to it.
    pub(super) fn first(&self) -> Offset {
        self.first
    }

    /// How many samples it holds.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// True as long as no record brought a sample.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.samples.capacity() * SAMPLE_BYTES
            + self.records.capacity() * size_of::<Origin>()
            + map_bytes::<Uuid, u32>(self.devices.capacity())
            + self.newest.capacity() * size_of::<u32>()
            + map_bytes::<Arc<str>, u32>(self.keys.capacity())
            + self.key_names.capacity() * size_of::<Arc<str>>()
            + self.key_bytes
            + self.text.capacity()
    }

    /// Whether a record's samples find room below `bytes_max`. An empty generation takes any
    /// record.
    pub(super) fn has_room(&self, samples: &[Sample<'_>], bytes_max: usize) -> bool {
        let bytes_max = bytes_max.clamp(GENERATION_BYTES_MIN, GENERATION_BYTES_MAX);
        let text: usize = samples.iter().map(text_len).sum();
        let keys: usize = samples.iter().map(|sample| sample.key.len() + 128).sum();
        let growth = grown(&self.samples, samples.len()) * SAMPLE_BYTES
            + grown(&self.records, 1) * size_of::<Origin>()
            + grown(&self.newest, 1) * size_of::<u32>()
            + if self.devices.len() == self.devices.capacity() {
                map_bytes::<Uuid, u32>(self.devices.capacity().max(7))
            } else {
                0
            }
            + if self.text.capacity() - self.text.len() < text {
                text.max(self.text.capacity() / GROWTH)
            } else {
                0
            }
            // Keys are mostly known; counted as new they stay an upper bound.
            + keys
            + map_bytes::<Arc<str>, u32>(self.keys.len() / 4);
        self.is_empty() || self.bytes() + growth <= bytes_max
    }

    /// Appends the samples of one record; offsets must grow from call to call.
    pub(super) fn append(&mut self, header: &RecordHeader, offset: Offset, samples: &[Sample<'_>]) {
        let (Ok(record), Ok(count)) = (
            u32::try_from(self.records.len()),
            u32::try_from(self.newest.len()),
        ) else {
            return; // out of reach: `has_room` ends a generation long before
        };
        if samples.is_empty() {
            return;
        }
        make_room(&mut self.records, 1);
        self.records.push(Origin {
            offset: offset.number(),
            credential: header.credential,
            generation: header.generation,
        });
        make_room(&mut self.samples, samples.len());
        let device = *self.devices.entry(header.device).or_insert(count);
        let mut previous = None;
        if device == count {
            make_room(&mut self.newest, 1);
            self.newest.push(0);
        } else {
            previous = self.newest.get(place(device)).copied();
        }
        for sample in samples {
            let Ok(index) = u32::try_from(self.samples.len()) else {
                return;
            };
            let (kind, bits) = self.store(&sample.value);
            let stored = Place {
                ts_ms: sample.ts_ms,
                bits,
                record,
                key: self.intern(&sample.key),
                previous: previous.unwrap_or(index),
                kind,
            };
            self.samples.push(stored);
            previous = Some(index);
        }
        if let (Some(newest), Some(index)) = (self.newest.get_mut(place(device)), previous) {
            *newest = index;
        }
    }

    /// Calls `visit` for every sample of a device from `hidden` on, from the newest to the oldest,
    /// until it fails.
    pub(super) fn visit<E>(
        &self,
        device: Uuid,
        hidden: Offset,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let number = self.devices.get(&device).copied();
        let mut next = number.and_then(|number| self.newest.get(place(number)).copied());
        while let Some(index) = next {
            let Some(stored) = self.samples.get(place(index)) else {
                break;
            };
            next = (stored.previous != index).then_some(stored.previous);
            let Some(row) = self.row(device, stored) else {
                break;
            };
            if row.offset < hidden.number() {
                break;
            }
            visit(&row)?;
        }
        Ok(())
    }

    /// Calls `visit` for every sample in order of (device, key, time), until it fails. Of equal
    /// ones only the last that came is there. Samples that `is_hidden` are left out.
    pub(super) fn visit_sorted<E>(
        &self,
        is_hidden: impl Fn(Uuid, u64) -> bool,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ranks = self.key_ranks();
        let mut devices: Vec<(Uuid, u32)> =
            self.devices.iter().map(|(id, at)| (*id, *at)).collect();
        devices.sort_unstable();
        let mut order: Vec<(u32, i64, u32)> = Vec::new();
        for (device, number) in devices {
            order.clear();
            let mut next = self.newest.get(place(number)).copied();
            while let Some(index) = next {
                let Some(stored) = self.samples.get(place(index)) else {
                    break;
                };
                next = (stored.previous != index).then_some(stored.previous);
                let rank = ranks.get(place(stored.key)).copied().unwrap_or_default();
                order.push((rank, stored.ts_ms, index));
            }
            order.sort_unstable();
            let mut rest = order.iter().peekable();
            while let Some((rank, ts_ms, index)) = rest.next() {
                let is_replaced = rest
                    .peek()
                    .is_some_and(|later| later.0 == *rank && later.1 == *ts_ms);
                let stored = self.samples.get(place(*index));
                let row = stored.and_then(|stored| self.row(device, stored));
                if let Some(row) = row
                    && !is_replaced
                    && !is_hidden(device, row.offset)
                {
                    visit(&row)?;
                }
            }
        }
        Ok(())
    }

    /// The place of each key in the order of their names.
    fn key_ranks(&self) -> Vec<u32> {
        let mut sorted: Vec<(&str, usize)> = self
            .key_names
            .iter()
            .enumerate()
            .map(|(number, name)| (&**name, number))
            .collect();
        sorted.sort_unstable();
        let mut ranks = vec![0; sorted.len()];
        for (rank, (_, number)) in (0..).zip(sorted) {
            if let Some(place) = ranks.get_mut(number) {
                *place = rank;
            }
        }
        ranks
    }

    fn row(&self, device: Uuid, stored: &Place) -> Option<Row<'_>> {
        let origin = self.records.get(place(stored.record))?;
        Some(Row {
            device: device.into_bytes(),
            key: self.key_names.get(place(stored.key))?,
            ts_ms: stored.ts_ms,
            value: self.load(stored),
            offset: origin.offset,
            credential: origin.credential,
            generation: origin.generation,
        })
    }

    #[inline]
    fn intern(&mut self, key: &str) -> u32 {
        if let Some(&known) = self.keys.get(key) {
            return known;
        }
        // As many keys as samples at most.
        let number = u32::try_from(self.key_names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = Arc::from(key);
        // Two counters stand before the text.
        self.key_bytes += key.len() + 2 * size_of::<usize>();
        make_room(&mut self.key_names, 1);
        self.key_names.push(Arc::clone(&name));
        self.keys.insert(name, number);
        number
    }

    fn store(&mut self, value: &Value<'_>) -> (Kind, u64) {
        match value {
            Value::Long(value) => (Kind::Long, value.cast_unsigned()),
            Value::Double(value) => (Kind::Double, value.to_bits()),
            Value::Bool(value) => (Kind::Bool, u64::from(*value)),
            Value::Text(text) => (Kind::Text, self.store_text(text)),
            Value::Json(text) => (Kind::Json, self.store_text(text)),
        }
    }

    fn store_text(&mut self, text: &str) -> u64 {
        let start = u64::try_from(self.text.len()).unwrap_or(u64::MAX);
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.text.capacity() - self.text.len() < text.len() {
            let more = text.len().max(self.text.capacity() / GROWTH);
            self.text.reserve_exact(more);
        }
        self.text.push_str(text);
        start << 32 | len
    }

    fn load(&self, stored: &Place) -> Value<'_> {
        match stored.kind {
            Kind::Long => Value::Long(stored.bits.cast_signed()),
            Kind::Double => Value::Double(f64::from_bits(stored.bits)),
            Kind::Bool => Value::Bool(stored.bits != 0),
            Kind::Text => Value::Text(Cow::Borrowed(self.load_text(stored.bits))),
            Kind::Json => Value::Json(Cow::Borrowed(self.load_text(stored.bits))),
        }
    }

    fn load_text(&self, bits: u64) -> &str {
        let part = |bits: u64| usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let (start, len) = (part(bits >> 32), part(bits));
        self.text
            .get(start..start.saturating_add(len))
            .unwrap_or_default()
    }
}

/// Lists grow by this part of what they hold: less is copied less room is left over.
const GROWTH: usize = 4;

/// Entries that a list takes more when it gets `more` items.
fn grown<T>(list: &Vec<T>, more: usize) -> usize {
    if list.capacity() - list.len() >= more {
        0
    } else {
        more.max(list.capacity() / GROWTH).max(8)
    }
}

fn make_room<T>(list: &mut Vec<T>, more: usize) {
    let growth = grown(list, more);
    if growth > 0 {
        // Counted from the length, which is the capacity but for a few.
        list.reserve_exact(growth);
    }
}

fn text_len(sample: &Sample<'_>) -> usize {
    match &sample.value {
        Value::Long(_) | Value::Double(_) | Value::Bool(_) => 0,
        Value::Text(text) | Value::Json(text) => text.len(),
    }
}

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Bytes of a hash map with room for `capacity` entries: it fills seven eighths of its places, and
/// each place has one byte of its own.
fn map_bytes<K, V>(capacity: usize) -> usize {
    capacity.div_ceil(7) * 8 * (size_of::<(K, V)>() + 1)
}

#[cfg(test)]
mod tests;
