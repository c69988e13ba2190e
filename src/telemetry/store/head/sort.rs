//! A generation in the order of files.

use uuid::Uuid;

use super::Generation;
use super::part::{Lists, Parts};
use super::slot::{Kind, place};
use crate::journal::Offset;
use crate::telemetry::sample::Value;
use crate::telemetry::store::run::{Run, Values};

/// Samples of a series whose list is kept for the next device.
const ITEMS_KEPT_MAX: usize = 4_096;

/// Series whose lists are kept for the next device.
const SERIES_KEPT_MAX: usize = 256;

/// Most rows told at a time: bounds the memory beside the lists.
const RUN_ROWS_MAX: usize = 4_096;

impl Generation {
    /// Calls `visit` for every series in order of (device, key) with its samples in order of time,
    /// in runs of a few thousand, until it fails. Of equal ones only the last that came is there.
    /// Samples before the offset that `hidden_before` tells of their device are left out. Takes
    /// beside the generation a fourth of its samples' and entries' memory, 40 bytes a device, 4 an
    /// entry, and 16 for each sample of the device that is told.
    pub(in crate::telemetry::store) fn visit_runs<E>(
        &self,
        hidden_before: impl Fn(Uuid) -> Offset,
        mut visit: impl FnMut(&Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ranks = self.key_ranks();
        let mut sorted = Sorted::new(self.key_names.len());
        let mut columns = Columns::default();
        let mut parts = Parts::of(self);
        while let Some(part) = parts.next() {
            for (device, number) in part.devices {
                let hidden = hidden_before(*device).number();
                for at in part.entries_of(*number) {
                    self.gather(part.lists, at, (*number, hidden), &mut sorted);
                }
                sorted.put_in_order(&ranks);
                for series in sorted.series() {
                    let key = self.key_names.get(place(series.key));
                    for items in series.items.chunks(RUN_ROWS_MAX) {
                        columns.fill(self, part.lists, items);
                        visit(&columns.run(*device, key.map_or("", |key| &**key)))?;
                    }
                }
                sorted.clear();
            }
        }
        Ok(())
    }

    /// Adds the samples of an entry to their series, if it is one of this device.
    #[inline]
    fn gather(&self, lists: Lists<'_>, at: u32, device: (u32, u64), sorted: &mut Sorted) {
        let Some((entry, sender)) = lists.entry(at) else {
            return;
        };
        let (device, hidden) = device;
        if sender.device != device || self.offset(entry) < hidden {
            return;
        }
        let ts_ms = entry.ts_ms;
        for (sample, slot) in (entry.begin..).zip(lists.slots(at)) {
            let entry = at;
            let item = Item {
                ts_ms,
                sample,
                entry,
            };
            sorted.add(slot.key(), item);
        }
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
    fn fill(&mut self, generation: &'g Generation, lists: Lists<'_>, items: &[Item]) {
        self.clear();
        let mut kinds = 0_u32;
        for item in items {
            let Some((entry, sender)) = lists.entry(item.entry) else {
                continue;
            };
            let Some(slot) = lists.sample(item.sample) else {
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
                let slots = items.iter().filter_map(|item| lists.sample(item.sample));
                self.any.extend(slots.map(|slot| generation.load(slot)));
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
