//! The newest samples in memory: one generation grows while another is being sealed.
//!
//! In a generation the samples of all devices lie in one list in order of their offsets, 12 bytes
//! each. Those of one record and time are an *entry* (24 bytes); the entries of one device are
//! linked from the newest back to the oldest. What a device's records have in common is kept once,
//! as their *sender*, keys once a generation, text values in one string. Appending touches only
//! ends of lists, and memory is known to the byte from the capacities (the allocator's own overhead
//! is not counted).

mod part;
mod slot;
mod sort;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hint::black_box;
use std::sync::Arc;

use uuid::Uuid;

use super::hasher::Cheap;
use super::rows::Row;
use crate::journal::{Offset, RecordHeader};
use crate::telemetry::sample::{Sample, Value};
use slot::{Device, Entry, Kind, Sender, Slot, place};

/// A generation never refuses below this, so that every record finds a place.
pub(super) const GENERATION_BYTES_MIN: usize = 4 * 1024;

/// Above it places in a generation would not fit 32 bits by far.
pub(super) const GENERATION_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of one sample, and of an entry.
const SAMPLE_BYTES: usize = size_of::<Slot>();
const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(SAMPLE_BYTES == 12 && ENTRY_BYTES == 24);

// The number of a key finds room in a slot: a key takes more bytes than this leaves it.
const _: () = assert!(GENERATION_BYTES_MAX / 8 <= slot::KEYS_MAX);

/// The samples of a stretch of offsets.
pub(super) struct Generation {
    /// The first offset that belongs to it, with samples or without.
    first: Offset,
    /// The offset from which those of the entries are counted.
    base: u64,
    entries: Vec<Entry>,
    samples: Vec<Slot>,
    senders: Vec<Sender>,
    /// Number of each device, a place in `known`.
    devices: HashMap<Uuid, u32, Cheap>,
    known: Vec<Device>,
    keys: HashMap<Arc<str>, u32, Cheap>,
    key_names: Vec<Arc<str>>,
    /// Bytes of the key names in their own allocations.
    key_bytes: usize,
    /// All text values, one behind the other.
    text: String,
    /// Numbers of the keys of the last record, by their places in it: the next one has the same.
    recent: [u32; RECENT_KEYS],
    /// Bytes of memory.
    bytes: usize,
    /// Bytes by which the map of keys may grow with the next ones.
    names_bytes: usize,
}

/// Keys of a record that are guessed from the record before.
const RECENT_KEYS: usize = 16;

impl Generation {
    /// An empty generation that begins at `first`.
    pub(super) fn new(first: Offset) -> Self {
        Self {
            first,
            base: 0,
            entries: Vec::new(),
            samples: Vec::new(),
            senders: Vec::new(),
            devices: HashMap::default(),
            known: Vec::new(),
            keys: HashMap::default(),
            key_names: Vec::new(),
            key_bytes: 0,
            text: String::new(),
            recent: [0; RECENT_KEYS],
            bytes: size_of::<Self>(),
            names_bytes: 0,
        }
    }

    /// The same storage, empty. None if most of it was not used: it would be full before what comes
    /// has found room.
    pub(super) fn emptied(mut self) -> Option<Self> {
        let used = self.samples.len() * SAMPLE_BYTES
            + self.entries.len() * ENTRY_BYTES
            + self.senders.len() * size_of::<Sender>()
            + self.known.len() * size_of::<Device>()
            + map_bytes::<Uuid, u32>(self.devices.len())
            + self.text.len();
        if used < self.bytes() / 2 {
            return None;
        }
        self.entries.clear();
        self.samples.clear();
        self.senders.clear();
        self.devices.clear();
        self.known.clear();
        self.keys = HashMap::default();
        self.key_names = Vec::new();
        self.key_bytes = 0;
        self.text.clear();
        self.bytes = self.counted();
        self.names_bytes = 0;
        Some(self)
    }

    /// An empty one for what begins at `first`.
    pub(super) fn beginning(mut self, first: Offset) -> Self {
        self.first = first;
        self
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
        self.bytes
    }

    fn counted(&self) -> usize {
        size_of::<Self>()
            + self.entries.capacity() * ENTRY_BYTES
            + self.samples.capacity() * SAMPLE_BYTES
            + self.senders.capacity() * size_of::<Sender>()
            + map_bytes::<Uuid, u32>(self.devices.capacity())
            + self.known.capacity() * size_of::<Device>()
            + map_bytes::<Arc<str>, u32>(self.keys.capacity())
            + self.key_names.capacity() * size_of::<Arc<str>>()
            + self.key_bytes
            + self.text.capacity()
    }

    /// Whether a record's samples find room below `bytes_max`. An empty generation takes any
    /// record.
    pub(super) fn has_room(
        &self,
        offset: Offset,
        samples: &[Sample<'_>],
        bytes_max: usize,
    ) -> bool {
        if self.is_empty() {
            return true;
        }
        if offset.number().saturating_sub(self.base) > u64::from(u32::MAX) {
            return false;
        }
        let (mut text, mut keys, mut entries, mut ts_ms) = (0, 0, 0, None);
        for sample in samples {
            text += text_len(sample);
            // Keys are mostly known; counted as new they stay an upper bound.
            keys += sample.key.len() + 128;
            entries += usize::from(ts_ms != Some(sample.ts_ms));
            ts_ms = Some(sample.ts_ms);
        }
        let growth = keys + self.names_bytes + self.growth(samples.len(), entries, text);
        let bytes_max = bytes_max.clamp(GENERATION_BYTES_MIN, GENERATION_BYTES_MAX);
        self.bytes + growth <= bytes_max
    }

    /// Bytes by which lists grow for so many samples and entries and so much text.
    #[inline]
    fn growth(&self, samples: usize, entries: usize, text: usize) -> usize {
        let fits = free(&self.samples) >= samples
            && free(&self.entries) >= entries
            && free(&self.senders) > 0
            && free(&self.known) > 0
            && self.devices.len() < self.devices.capacity()
            && self.text.capacity() - self.text.len() >= text;
        if fits {
            return 0;
        }
        grown(&self.samples, samples) * SAMPLE_BYTES
            + grown(&self.entries, entries) * ENTRY_BYTES
            + grown(&self.senders, 1) * size_of::<Sender>()
            + grown(&self.known, 1) * size_of::<Device>()
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
    }

    /// Looks at what is known of those who send the next records. They are all over the lists: so
    /// the processor waits for many of them at once, [`Self::append`] would be in the way.
    pub(super) fn touch_senders(&self, devices: impl ExactSizeIterator<Item = Uuid>) {
        let mut senders: Vec<u32> = Vec::with_capacity(devices.len());
        senders.extend(devices.filter_map(|device| self.devices.get(&device).copied()));
        for at in &mut senders {
            *at = self.known.get(place(*at)).map_or(0, |known| known.sender);
        }
        let senders = senders.iter().filter_map(|at| self.senders.get(place(*at)));
        black_box(senders.fold(0, |all, sender| all ^ sender.generation));
    }

    /// Appends the samples of one record; offsets must grow from call to call.
    pub(super) fn append(&mut self, header: &RecordHeader, offset: Offset, samples: &[Sample<'_>]) {
        if samples.is_empty() {
            return;
        }
        if self.is_empty() {
            self.base = offset.number();
        }
        let since = offset.number().saturating_sub(self.base);
        let Ok(offset) = u32::try_from(since) else {
            return; // out of reach: `has_room` ends a generation before
        };
        let mut grew = make_room(&mut self.samples, samples.len());
        let device = self.sent(header, samples.len(), &mut grew);
        let mut ts_ms = None;
        for (at, sample) in samples.iter().enumerate() {
            if ts_ms != Some(sample.ts_ms) {
                ts_ms = Some(sample.ts_ms);
                grew |= self.enter(device, offset, sample.ts_ms);
            }
            let value = self.store(&sample.value, &mut grew);
            let key = self.known_key(at, &sample.key, &mut grew);
            self.samples.push(Slot::new(value, key));
        }
        if grew {
            self.bytes = self.counted();
            self.names_bytes = map_bytes::<Arc<str>, u32>(self.keys.len() / 4);
        }
    }

    /// The number of the record's device, whose sender is known then.
    #[inline]
    fn sent(&mut self, header: &RecordHeader, samples: usize, grew: &mut bool) -> u32 {
        let device = match self.devices.entry(header.device) {
            MapEntry::Occupied(known) => *known.get(),
            MapEntry::Vacant(new) => {
                // As many devices as samples at most.
                let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
                make_room(&mut self.known, 1);
                self.known.push(Device {
                    newest: u32::MAX,
                    sender: u32::MAX,
                    entries: 0,
                    samples: 0,
                });
                *grew = true;
                *new.insert(number)
            }
        };
        let Some(known) = self.known.get_mut(place(device)) else {
            return device;
        };
        // Fewer than the generation has, whose places fit 32 bits.
        known.samples += u32::try_from(samples).unwrap_or_default();
        let last = self.senders.get(place(known.sender));
        let is_last = last.is_some_and(|last| {
            last.credential == header.credential && last.generation == header.generation
        });
        if !is_last {
            known.sender = u32::try_from(self.senders.len()).unwrap_or(u32::MAX);
            *grew |= make_room(&mut self.senders, 1);
            self.senders.push(Sender {
                credential: header.credential,
                generation: header.generation,
                device,
            });
        }
        device
    }

    /// Begins an entry of a device; true if a list grew.
    #[inline]
    fn enter(&mut self, device: u32, offset: u32, ts_ms: i64) -> bool {
        let Some(known) = self.known.get_mut(place(device)) else {
            return false;
        };
        // `has_room` ends a generation long before these are out of reach.
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let begin = u32::try_from(self.samples.len()).unwrap_or(u32::MAX);
        let is_first = known.entries == 0;
        let entry = Entry {
            ts_ms,
            offset,
            sender: known.sender,
            begin,
            previous: if is_first { number } else { known.newest },
        };
        known.newest = number;
        known.entries += 1;
        let grew = make_room(&mut self.entries, 1);
        self.entries.push(entry);
        grew
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
        let known = number.and_then(|number| self.known.get(place(number)));
        let mut next = known.map(|known| known.newest);
        while let Some(number) = next {
            let Some(entry) = self.entries.get(place(number)) else {
                break;
            };
            next = (entry.previous != number).then_some(entry.previous);
            let Some(sender) = self.senders.get(place(entry.sender)) else {
                break;
            };
            let offset = self.offset(entry);
            if offset < hidden.number() {
                break;
            }
            for slot in self.lists().slots(number).iter().rev() {
                visit(&Row {
                    device: device.into_bytes(),
                    key: self.key_name(*slot),
                    ts_ms: entry.ts_ms,
                    value: self.load(*slot),
                    offset,
                    credential: sender.credential,
                    generation: sender.generation,
                })?;
            }
        }
        Ok(())
    }

    #[inline]
    fn offset(&self, entry: &Entry) -> u64 {
        self.base + u64::from(entry.offset)
    }

    #[inline]
    fn key_name(&self, slot: Slot) -> &str {
        self.key_names
            .get(place(slot.key()))
            .map_or("", |name| &**name)
    }

    /// The number of the key at this place of a record.
    #[inline]
    fn known_key(&mut self, at: usize, key: &str, grew: &mut bool) -> u32 {
        let guess = self.recent.get(at).copied().unwrap_or(u32::MAX);
        let name = self.key_names.get(place(guess));
        if name.is_some_and(|name| **name == *key) {
            return guess;
        }
        let number = self.intern(key, grew);
        if let Some(recent) = self.recent.get_mut(at) {
            *recent = number;
        }
        number
    }

    #[inline]
    fn intern(&mut self, key: &str, grew: &mut bool) -> u32 {
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
        *grew = true;
        number
    }

    #[inline]
    fn store(&mut self, value: &Value<'_>, grew: &mut bool) -> (Kind, u64) {
        match value {
            Value::Long(value) => (Kind::Long, value.cast_unsigned()),
            Value::Double(value) => (Kind::Double, value.to_bits()),
            Value::Bool(value) => (Kind::Bool, u64::from(*value)),
            Value::Text(text) => (Kind::Text, self.store_text(text, grew)),
            Value::Json(text) => (Kind::Json, self.store_text(text, grew)),
        }
    }

    fn store_text(&mut self, text: &str, grew: &mut bool) -> u64 {
        let start = u64::try_from(self.text.len()).unwrap_or(u64::MAX);
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.text.capacity() - self.text.len() < text.len() {
            let more = text.len().max(self.text.capacity() / GROWTH);
            self.text.reserve_exact(more);
            *grew = true;
        }
        self.text.push_str(text);
        start << 32 | len
    }

    #[inline]
    fn load(&self, slot: Slot) -> Value<'_> {
        let bits = slot.bits();
        match slot.kind() {
            Kind::Long => Value::Long(bits.cast_signed()),
            Kind::Double => Value::Double(f64::from_bits(bits)),
            Kind::Bool => Value::Bool(bits != 0),
            Kind::Text => Value::Text(Cow::Borrowed(self.load_text(bits))),
            Kind::Json => Value::Json(Cow::Borrowed(self.load_text(bits))),
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

/// Entries that find room in a list as it is.
#[inline]
fn free<T>(list: &Vec<T>) -> usize {
    list.capacity() - list.len()
}

/// Entries that a list takes more when it gets `more` items.
fn grown<T>(list: &Vec<T>, more: usize) -> usize {
    if free(list) >= more {
        0
    } else {
        more.max(list.capacity() / GROWTH).max(8)
    }
}

/// True if the list had to grow.
#[inline]
fn make_room<T>(list: &mut Vec<T>, more: usize) -> bool {
    let growth = grown(list, more);
    if growth > 0 {
        // Counted from the length, which is the capacity but for a few.
        list.reserve_exact(growth);
    }
    growth > 0
}

fn text_len(sample: &Sample<'_>) -> usize {
    match &sample.value {
        Value::Long(_) | Value::Double(_) | Value::Bool(_) => 0,
        Value::Text(text) | Value::Json(text) => text.len(),
    }
}

/// Bytes of a hash map with room for `capacity` entries: it fills seven eighths of its places, and
/// each place has one byte of its own.
fn map_bytes<K, V>(capacity: usize) -> usize {
    capacity.div_ceil(7) * 8 * (size_of::<(K, V)>() + 1)
}
