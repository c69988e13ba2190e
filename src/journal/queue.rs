//! What lies between the workers and the committer: batches in the order of their offsets.
//! Pure state; `shared.rs` holds its lock.

use std::sync::Arc;
use std::time::Instant;

use super::options::{FullReason, JournalStatus};
use super::record::{Batch, Offset};
use super::submit::Wake;

/// Batches of one submitter that may wait or be under way: one is written while the next is
/// filled. Beyond it a submit is refused, and the worker stops reading. Bounds the queue.
pub(super) const IN_FLIGHT_MAX: usize = 2;

/// A batch that was taken, with its submitter.
pub(super) struct Pending {
    pub(super) batch: Batch,
    slot: usize,
}

/// One submitter's place.
struct Slot {
    wake: Wake,
    /// False once the submitter is dropped; the place is used again when nothing is in flight.
    live: bool,
    in_flight: usize,
    /// Empty batches that keep their buffers, at most one more than can be in flight.
    spare: Vec<Batch>,
}

pub(super) struct Queue {
    /// Whether new work is taken.
    pub(super) status: JournalStatus,
    /// Offset that the next submitted record gets.
    pub(super) next: u64,
    /// What waits, in order of its offsets.
    pending: Vec<Pending>,
    slots: Vec<Slot>,
    /// The committer sleeps and has to be woken.
    pub(super) committer_idle: bool,
}

impl Queue {
    pub(super) fn new(next: u64) -> Queue {
        let status = JournalStatus::Running;
        Queue {
            status,
            next,
            pending: vec![],
            slots: vec![],
            committer_idle: false,
        }
    }

    /// A place for a new submitter.
    pub(super) fn join(&mut self, wake: Wake) -> usize {
        let spare = Vec::with_capacity(IN_FLIGHT_MAX + 1);
        let joined = Slot {
            wake,
            live: true,
            in_flight: 0,
            spare,
        };
        let free = self
            .slots
            .iter()
            .position(|slot| !slot.live && slot.in_flight == 0);
        if let Some((index, slot)) = free.and_then(|i| Some((i, self.slots.get_mut(i)?))) {
            *slot = joined;
            return index;
        }
        self.slots.push(joined);
        // No allocation later: this is the most that can wait.
        self.pending
            .reserve(self.slots.len() * IN_FLIGHT_MAX - self.pending.len());
        self.slots.len() - 1
    }

    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.live = false;
            slot.spare.clear();
        }
    }

    pub(super) fn takes(&self, slot: usize) -> bool {
        self.status == JournalStatus::Running
            && self
                .slots
                .get(slot)
                .is_some_and(|slot| slot.in_flight < IN_FLIGHT_MAX)
    }

    /// Takes a batch; answers the offset of its last record.
    pub(super) fn submit(&mut self, slot: usize, batch: Batch) -> Result<Offset, Batch> {
        if !self.takes(slot) {
            return Err(batch);
        }
        let last = self.next + u64::from(batch.records());
        if !batch.is_empty() {
            self.next = last;
            self.pending.push(Pending { batch, slot });
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.in_flight += 1;
            }
        }
        Ok(Offset::new(last - 1))
    }

    pub(super) fn spare(&mut self, slot: usize) -> Option<Batch> {
        self.slots.get_mut(slot)?.spare.pop()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves everything that waits into `taken`, which is empty.
    pub(super) fn take(&mut self, taken: &mut Vec<Pending>) {
        std::mem::swap(&mut self.pending, taken);
        // Both buffers take turns, so both need room for all.
        self.pending.reserve(self.slots.len() * IN_FLIGHT_MAX);
    }

    /// Takes back what is durable now; adds the wake of each of its submitters to `wakes`, once.
    pub(super) fn done(&mut self, done: impl Iterator<Item = Pending>, wakes: &mut Vec<Wake>) {
        for Pending { mut batch, slot } in done {
            let Some(slot) = self.slots.get_mut(slot) else {
                continue;
            };
            slot.in_flight = slot.in_flight.saturating_sub(1);
            if !slot.live {
                continue;
            }
            batch.clear();
            if slot.spare.len() <= IN_FLIGHT_MAX {
                slot.spare.push(batch);
            }
            if !wakes.iter().any(|wake| Arc::ptr_eq(wake, &slot.wake)) {
                wakes.push(Arc::clone(&slot.wake));
            }
        }
    }

    /// There is no room: refuse new work.
    pub(super) fn full(&mut self, reason: FullReason) {
        let since = match self.status {
            JournalStatus::Running => Instant::now(),
            JournalStatus::Full { since, .. } => since,
            JournalStatus::Failed | JournalStatus::Closed => return,
        };
        self.status = JournalStatus::Full { since, reason };
    }

    /// There is room again; adds every submitter's wake to `wakes` if there was none. Answers
    /// since when there was none.
    pub(super) fn room(&mut self, wakes: &mut Vec<Wake>) -> Option<Instant> {
        let JournalStatus::Full { since, .. } = self.status else {
            return None;
        };
        self.status = JournalStatus::Running;
        wakes.extend(
            self.slots
                .iter()
                .filter(|slot| slot.live)
                .map(|slot| slot.wake.clone()),
        );
        Some(since)
    }
}
