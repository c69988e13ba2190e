//! A generation in the order of files.

use std::hint::black_box;

use uuid::Uuid;

use super::slot::{Entry, Kind, place};
use super::{Generation, Slot};
use crate::journal::Offset;
use crate::telemetry::sample::Value;
use crate::telemetry::store::run::{Run, Values};

/// Entries that are looked at before the first of them is used: they fit the nearest cache.
const TOUCHED_MAX: usize = 64;

/// Samples of a series whose list is kept for the next device.
const ITEMS_KEPT_MAX: usize = 4_096;

/// Series whose lists are kept for the next device.
const SERIES_KEPT_MAX: usize = 256;

/// Most rows told at a time: bounds the memory beside the lists.
const RUN_ROWS_MAX: usize = 4_096;

impl Generation {
    /// Calls `visit` for every series in order of (device, key) with its samples in order of time,
    /// in runs of a few thousand, until it fails. Of equal ones only the last that came is there.
    /// Samples before the offset that `hidden_before` tells of their device are left out. Takes 4
    /// bytes an entry beside the generation, and 16 for each sample of one device.
    pub(in crate::telemetry::store) fn visit_runs<E>(
        &self,
        hidden_before: impl Fn(Uuid) -> Offset,
        mut visit: impl FnMut(&Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ranks = self.key_ranks();
        let by_device = self.by_device();
        let mut devices: Vec<(Uuid, u32)> =
            self.devices.iter().map(|(id, at)| (*id, *at)).collect();
        devices.sort_unstable();
        let mut sorted = Sorted::new(self.key_names.len());
        let mut columns = Columns::default();
        for (device, number) in devices {
            let hidden = hidden_before(device).number();
            for numbers in by_device.of(number).chunks(TOUCHED_MAX) {
                self.touch_entries(numbers);
                for number in numbers {
                    self.gather(*number, hidden, &mut sorted);
                }
            }
            sorted.put_in_order(&ranks);
            for series in sorted.series() {
                let key = self.key_names.get(place(series.key));
                for items in series.items.chunks(RUN_ROWS_MAX) {
                    columns.fill(self, items);
                    visit(&columns.run(device, key.map_or("", |key| &**key)))?;
                }
            }
            sorted.clear();
        }
        Ok(())
    }

    /// Looks at entries and at the first sample of each. They lie all over the generation: so the
    /// processor waits for many of them at once, what is done with each would be in the way.
    fn touch_entries(&self, numbers: &[u32]) {
        let entries = || numbers.iter().filter_map(|at| self.entries.get(place(*at)));
        black_box(entries().fold(0, |all, entry| all ^ entry.begin));
        let samples = entries().filter_map(|entry| self.samples.get(place(entry.begin)));
        black_box(samples.fold(0, |all, slot| all ^ slot.key()));
    }

    /// Adds the samples of an entry to their series.
    #[inline]
    fn gather(&self, number: u32, hidden: u64, sorted: &mut Sorted) {
        let Some(entry) = self.entries.get(place(number)) else {
            return;
        };
        if self.offset(entry) < hidden {
            return;
        }
        for (sample, slot) in (entry.begin..).zip(self.slots(place(number))) {
            let ts_ms = entry.ts_ms;
            sorted.add(
                slot.key(),
                Item {
                    ts_ms,
                    sample,
                    entry: number,
                },
            );
        }
    }

    /// The entries of each device, in the order in which they came. Following the links of each
    /// device would wait for memory at every entry.
    fn by_device(&self) -> ByDevice {
        let mut begin = 0;
        let mut ends: Vec<u32> = Vec::with_capacity(self.known.len());
        for known in &self.known {
            ends.push(begin);
            begin += known.entries;
        }
        let mut numbers = vec![0_u32; self.entries.len()];
        for (number, entry) in (0_u32..).zip(&self.entries) {
            if let Some(sender) = self.senders.get(place(entry.sender))
                && let Some(end) = ends.get_mut(place(sender.device))
                && let Some(free) = numbers.get_mut(place(*end))
            {
                *free = number;
                *end += 1;
            }
        }
        ByDevice { ends, numbers }
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
}

/// Numbers of entries, by the number of their device.
struct ByDevice {
    /// Where those of each device end; those of the next one begin there.
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

impl ByDevice {
    fn of(&self, device: u32) -> &[u32] {
        let end = |number: usize| self.ends.get(number).copied().map(place);
        let begin = place(device).checked_sub(1).and_then(end).unwrap_or(0);
        let end = end(place(device)).unwrap_or(0);
        self.numbers.get(begin..end).unwrap_or_default()
    }
}

/// A sample, and where it is.
#[derive(Clone, Copy)]
struct Item {
    ts_ms: i64,
    sample: u32,
    entry: u32,
}

/// The samples of one device by series.
struct Sorted {
    /// Those in use stand first.
    list: Vec<Series>,
    used: usize,
    /// By the number of a key: one more than the place of its series, 0 if it has none.
    of_key: Vec<u32>,
}

/// Samples of one key.
#[derive(Default)]
struct Series {
    key: u32,
    rank: u32,
    items: Vec<Item>,
    /// Each is later than the one before it, as devices mostly send.
    is_sorted: bool,
}

impl Sorted {
    fn new(keys: usize) -> Self {
        Self {
            list: Vec::new(),
            used: 0,
            of_key: vec![0; keys],
        }
    }

    #[inline]
    fn add(&mut self, key: u32, item: Item) {
        let Some(known) = self.of_key.get_mut(place(key)) else {
            return;
        };
        if *known == 0 {
            // As many series as samples at most.
            self.used += 1;
            *known = u32::try_from(self.used).unwrap_or(u32::MAX);
            if self.list.len() < self.used {
                self.list.push(Series::default());
            }
            if let Some(series) = self.list.get_mut(self.used - 1) {
                (series.key, series.is_sorted) = (key, true);
            }
        }
        let Some(series) = self.list.get_mut(place(*known - 1)) else {
            return;
        };
        if let Some(last) = series.items.last() {
            series.is_sorted &= last.ts_ms < item.ts_ms;
        }
        series.items.push(item);
    }

    fn put_in_order(&mut self, ranks: &[u32]) {
        let used = self.list.get_mut(..self.used).unwrap_or_default();
        for series in used.iter_mut() {
            series.rank = ranks.get(place(series.key)).copied().unwrap_or_default();
            series.put_in_order();
        }
        used.sort_unstable_by_key(|series| series.rank);
    }

    fn series(&self) -> &[Series] {
        self.list.get(..self.used).unwrap_or_default()
    }

    fn clear(&mut self) {
        for series in self.list.get_mut(..self.used).unwrap_or_default() {
            if let Some(known) = self.of_key.get_mut(place(series.key)) {
                *known = 0;
            }
            if series.items.capacity() > ITEMS_KEPT_MAX {
                series.items = Vec::new();
            }
            series.items.clear();
        }
        self.list.truncate(SERIES_KEPT_MAX);
        self.used = 0;
    }
}

impl Series {
    fn put_in_order(&mut self) {
        if self.is_sorted {
            return;
        }
        self.items
            .sort_unstable_by_key(|item| (item.ts_ms, item.sample));
        self.items.dedup_by(|later, kept| {
            let is_same = later.ts_ms == kept.ts_ms;
            if is_same {
                *kept = *later;
            }
            is_same
        });
    }
}

/// The rows of one series by column.
#[derive(Default)]
struct Columns<'g> {
    ts: Vec<i64>,
    offsets: Vec<i64>,
    credentials: Vec<i64>,
    generations: Vec<i32>,
    /// What all values are, if they are all numbers of one kind.
    kind: Option<Kind>,
    longs: Vec<i64>,
    doubles: Vec<f64>,
    any: Vec<Value<'g>>,
}

impl<'g> Columns<'g> {
    fn fill(&mut self, generation: &'g Generation, items: &[Item]) {
        self.clear();
        let mut kinds = 0_u32;
        for item in items {
            let Some((entry, slot)) = found(generation, *item) else {
                continue;
            };
            let Some(sender) = generation.senders.get(place(entry.sender)) else {
                continue;
            };
            self.ts.push(item.ts_ms);
            self.offsets.push(generation.offset(entry).cast_signed());
            self.credentials.push(sender.credential.cast_signed());
            self.generations.push(sender.generation.cast_signed());
            // What they mean is known when all kinds are.
            self.longs.push(slot.bits().cast_signed());
            kinds |= 1 << slot.kind() as u32;
        }
        const LONGS: u32 = 1 << Kind::Long as u32;
        const DOUBLES: u32 = 1 << Kind::Double as u32;
        match kinds {
            LONGS => self.kind = Some(Kind::Long),
            DOUBLES => {
                self.kind = Some(Kind::Double);
                let bits = self.longs.iter().map(|bits| bits.cast_unsigned());
                self.doubles.extend(bits.map(f64::from_bits));
            }
            _ => {
                self.kind = None;
                let found = items.iter().filter_map(|item| found(generation, *item));
                self.any
                    .extend(found.map(|(_, slot)| generation.load(slot)));
            }
        }
    }

    fn clear(&mut self) {
        self.ts.clear();
        self.offsets.clear();
        self.credentials.clear();
        self.generations.clear();
        self.longs.clear();
        self.doubles.clear();
        self.any.clear();
    }

    fn run<'c>(&'c self, device: Uuid, key: &'c str) -> Run<'c> {
        Run {
            device: device.into_bytes(),
            key,
            ts: &self.ts,
            offsets: &self.offsets,
            credentials: &self.credentials,
            generations: &self.generations,
            values: match self.kind {
                Some(Kind::Long) => Values::Longs(&self.longs),
                Some(Kind::Double) => Values::Doubles(&self.doubles),
                _ => Values::Any(&self.any),
            },
        }
    }
}

fn found(generation: &Generation, item: Item) -> Option<(&Entry, Slot)> {
    let entry = generation.entries.get(place(item.entry))?;
    let slot = generation.samples.get(place(item.sample))?;
    Some((entry, *slot))
}
