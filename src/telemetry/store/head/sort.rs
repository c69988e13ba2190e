//! A generation in the order of files.

use uuid::Uuid;

use super::{Generation, Place, place};
use crate::journal::Offset;
use crate::telemetry::store::rows::Row;

impl Generation {
    /// Calls `visit` for every sample in order of (device, key, time), until it fails. Of equal
    /// ones only the last that came is there. Samples before the offset that `hidden_before`
    /// tells of their device are left out. `visit` also hears whether a sample is the last one of
    /// its series. Takes 4 bytes a sample beside the generation, and 16 for each of one device.
    pub(in crate::telemetry::store) fn visit_sorted<E>(
        &self,
        hidden_before: impl Fn(Uuid) -> Offset,
        mut visit: impl FnMut(&Row<'_>, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let ranks = self.key_ranks();
        let by_device = self.by_device();
        let mut devices: Vec<(Uuid, u32)> =
            self.devices.iter().map(|(id, at)| (*id, *at)).collect();
        devices.sort_unstable();
        let mut order: Vec<Sorted> = Vec::new();
        for (device, number) in devices {
            let hidden = hidden_before(device).number();
            order.clear();
            for index in by_device.of(number) {
                let Some(stored) = self.samples.get(place(*index)) else {
                    continue;
                };
                let origin = self.records.get(place(stored.record));
                if origin.is_some_and(|origin| origin.offset >= hidden) {
                    let rank = ranks.get(place(stored.key)).copied().unwrap_or_default();
                    order.push(Sorted::new(rank, stored.ts_ms, *index));
                }
            }
            order.sort_unstable();
            order.dedup_by(|later, kept| {
                let is_same = later.place() == kept.place();
                if is_same {
                    *kept = *later;
                }
                is_same
            });
            let mut rest = order.iter().peekable();
            while let Some(sorted) = rest.next() {
                let stored = self.samples.get(place(sorted.index()));
                let Some(row) = stored.and_then(|stored| self.row(device, stored)) else {
                    continue;
                };
                let is_last = rest.peek().is_none_or(|next| next.rank() != sorted.rank());
                visit(&row, is_last)?;
            }
        }
        Ok(())
    }

    /// The samples of each device, in the order in which they came. Following the links of each
    /// device would wait for memory at every sample.
    fn by_device(&self) -> ByDevice {
        let numbers = || {
            let record = |sample: &Place| self.records.get(place(sample.record));
            let samples = (0_u32..).zip(&self.samples);
            samples.filter_map(move |(index, sample)| Some((index, place(record(sample)?.device))))
        };
        let mut ends = vec![0_u32; self.newest.len()];
        for (_, device) in numbers() {
            if let Some(count) = ends.get_mut(device) {
                *count += 1;
            }
        }
        let mut begin = 0;
        for end in &mut ends {
            let count = *end;
            *end = begin;
            begin += count;
        }
        let mut indexes = vec![0_u32; self.samples.len()];
        for (index, device) in numbers() {
            if let Some(end) = ends.get_mut(device)
                && let Some(free) = indexes.get_mut(place(*end))
            {
                *free = index;
                *end += 1;
            }
        }
        ByDevice { ends, indexes }
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

/// Indexes of samples, by the number of their device.
struct ByDevice {
    /// Where those of each device end; those of the next one begin there.
    ends: Vec<u32>,
    indexes: Vec<u32>,
}

impl ByDevice {
    fn of(&self, device: u32) -> &[u32] {
        let end = |number: usize| self.ends.get(number).copied().map(place);
        let begin = place(device).checked_sub(1).and_then(end).unwrap_or(0);
        let end = end(place(device)).unwrap_or(0);
        self.indexes.get(begin..end).unwrap_or_default()
    }
}

/// Where a sample of a device belongs: the rank of its key, its time, and its index, in the bits
/// of one number from the highest on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sorted(u128);

impl Sorted {
    fn new(rank: u32, ts_ms: i64, index: u32) -> Self {
        // With the sign turned round the least time is the least number.
        let ts = ts_ms.cast_unsigned() ^ 1 << 63;
        Self(u128::from(rank) << 96 | u128::from(ts) << 32 | u128::from(index))
    }

    fn rank(self) -> u128 {
        self.0 >> 96
    }

    fn place(self) -> u128 {
        self.0 >> 32
    }

    fn index(self) -> u32 {
        u32::try_from(self.0 & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}
