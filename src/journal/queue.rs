//! What lies between the workers and the committer: batches in the order of their offsets.
//! Pure state; `shared.rs` holds its lock.

use std::sync::Arc;
use std::time::Instant;

use super::options::{FullReason, JournalStatus};
use super::record::{BATCH_BYTES_MAX, Batch, Offset};
use super::submit::Wake;

/// Batches of one submitter that may wait or be under way. In thin traffic each message is a turn,
/// and so a batch, of its own: those of the time between two commits all go with the next one.
/// Beyond it a submit is refused; the worker collects, and in the end stops reading. Bounds the
/// queue, together with the two below.
pub const BATCHES_IN_FLIGHT_MAX: usize = 16;

/// As many whatever they hold, as long as it is less than one batch may have: one is written while
/// the next is filled.
const LARGE_IN_FLIGHT_MAX: usize = 2;

/// Bytes in flight up to which a batch is one of many. Beyond it what comes is better collected in
/// a batch than handed over turn by turn.
const SMALL_IN_FLIGHT_BYTES: usize = 32 * 1024;

/// Empty batches that a submitter keeps: one is filled while the others are in flight.
const SPARE_MAX: usize = BATCHES_IN_FLIGHT_MAX + 1;

/// Bytes that their buffers may have together: two of the largest in flight and one that is filled,
/// each grown to twice its need, and small ones.
const SPARE_BYTES_MAX: usize = 8 * BATCH_BYTES_MAX;

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
    /// Bytes of records in them.
    in_flight_bytes: usize,
    /// Empty batches that keep their buffers, the largest last.
    spare: Vec<Batch>,
}

impl Slot {
    /// Keeps an empty batch for its buffer, behind the smaller ones: the largest is filled first,
    /// so that all of them grow only where all of them are needed.
    fn keep(&mut self, batch: Batch) {
        let kept = self.spare.iter().map(Batch::capacity).sum::<usize>();
        if self.spare.len() < SPARE_MAX && kept + batch.capacity() <= SPARE_BYTES_MAX {
            let smaller = |other: &Batch| other.capacity() <= batch.capacity();
            let place = self.spare.iter().rposition(smaller).map_or(0, |at| at + 1);
            self.spare.insert(place, batch);
        }
    }
}

pub(super) struct Queue {
    /// Whether new work is taken.
    pub(super) status: JournalStatus,
    /// Offset that the next submitted record gets.
    pub(super) next: u64,
    /// What waits, in order of its offsets.
    pending: Vec<Pending>,
    slots: Vec<Slot>,
    /// Bytes of records in one batch at most.
    batch_bytes_max: usize,
    /// The committer sleeps and has to be woken.
    pub(super) committer_idle: bool,
}

impl Queue {
    pub(super) fn new(next: u64, batch_bytes_max: usize) -> Queue {
        let status = JournalStatus::Running;
        Queue {
            status,
            next,
            pending: vec![],
            slots: vec![],
            batch_bytes_max,
            committer_idle: false,
        }
    }

    /// A place for a new submitter.
    pub(super) fn join(&mut self, wake: Wake) -> usize {
        let spare = Vec::with_capacity(SPARE_MAX);
        let joined = Slot {
            wake,
            live: true,
            in_flight: 0,
            in_flight_bytes: 0,
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
            .reserve(self.slots.len() * BATCHES_IN_FLIGHT_MAX - self.pending.len());
        self.slots.len() - 1
    }

    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.live = false;
            slot.spare.clear();
        }
    }

    pub(super) fn takes(&self, slot: usize) -> bool {
        let Some(slot) = self.slots.get(slot) else {
            return false;
        };
        let (count, bytes) = (slot.in_flight, slot.in_flight_bytes);
        let is_small = count < BATCHES_IN_FLIGHT_MAX && bytes < SMALL_IN_FLIGHT_BYTES;
        let is_few = count < LARGE_IN_FLIGHT_MAX && bytes < self.batch_bytes_max;
        self.status == JournalStatus::Running && (is_small || is_few)
    }

    /// Takes a batch; answers the offset of its last record.
    pub(super) fn submit(&mut self, slot: usize, batch: Batch) -> Result<Offset, Batch> {
        if !self.takes(slot) {
            return Err(batch);
        }
        let last = self.next + u64::from(batch.records());
        if !batch.is_empty() {
            self.next = last;
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.in_flight += 1;
                slot.in_flight_bytes += batch.bytes_len();
            }
            self.pending.push(Pending { batch, slot });
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
        self.pending
            .reserve(self.slots.len() * BATCHES_IN_FLIGHT_MAX);
    }

    /// Takes back what is durable now; adds the wake of each of its submitters to `wakes`, once.
    pub(super) fn done(&mut self, done: impl Iterator<Item = Pending>, wakes: &mut Vec<Wake>) {
        for Pending { mut batch, slot } in done {
            let Some(slot) = self.slots.get_mut(slot) else {
                continue;
            };
            slot.in_flight = slot.in_flight.saturating_sub(1);
            slot.in_flight_bytes = slot.in_flight_bytes.saturating_sub(batch.bytes_len());
            if !slot.live {
                continue;
            }
            batch.clear();
            slot.keep(batch);
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

#[cfg(test)]
mod tests {
    use super::super::record::{RecordHeader, RecordKind};
    use super::*;
    use uuid::Uuid;

    fn batch(records: usize, body_bytes: usize) -> Batch {
        let header = RecordHeader {
            kind: RecordKind::Telemetry,
            qos: 1,
            profile_flags: 0,
            parser_version: 1,
            received_ms: 1,
            device: Uuid::nil(),
            credential: 1,
            generation: 1,
            session: 0,
            packet_id: 0,
        };
        let mut batch = Batch::with_limit(BATCH_BYTES_MAX);
        for _ in 0..records {
            batch.push(&header, &vec![b'x'; body_bytes]).unwrap();
        }
        batch
    }

    fn queue() -> (Queue, usize) {
        let mut queue = Queue::new(1, BATCH_BYTES_MAX);
        let slot = queue.join(Arc::new(|| {}));
        (queue, slot)
    }

    fn all_done(queue: &mut Queue) {
        let mut taken = Vec::new();
        queue.take(&mut taken);
        queue.done(taken.drain(..), &mut Vec::new());
    }

    #[test]
    fn small_batches_are_bounded_by_their_number() {
        let (mut queue, slot) = queue();
        for number in 1..=BATCHES_IN_FLIGHT_MAX as u64 {
            assert_eq!(
                queue.submit(slot, batch(1, 10)).unwrap(),
                Offset::new(number)
            );
        }
        assert!(!queue.takes(slot));
        assert!(queue.submit(slot, batch(1, 10)).is_err());
        all_done(&mut queue);
        assert!(queue.takes(slot));
    }

    #[test]
    fn large_batches_are_bounded_by_their_bytes() {
        let (mut queue, slot) = queue();
        let half = || batch(1, BATCH_BYTES_MAX / 2);
        assert!(queue.submit(slot, half()).is_ok());
        assert!(
            queue.submit(slot, half()).is_ok(),
            "less than one batch may have"
        );
        assert!(queue.submit(slot, batch(1, 1)).is_err());
        all_done(&mut queue);
        assert!(queue.takes(slot));
        assert_eq!(queue.slots[slot].in_flight_bytes, 0);
        assert!(
            queue
                .submit(slot, batch(1, BATCH_BYTES_MAX * 3 / 4))
                .is_ok()
        );
        let first = batch(1, BATCH_BYTES_MAX * 3 / 4);
        assert!(queue.submit(slot, first).is_ok());
        assert!(queue.submit(slot, batch(1, 1)).is_err());
    }

    #[test]
    fn beyond_two_batches_only_small_ones_are_taken() {
        let (mut queue, slot) = queue();
        let half = || batch(1, SMALL_IN_FLIGHT_BYTES / 2);
        assert!(queue.submit(slot, half()).is_ok());
        assert!(queue.submit(slot, half()).is_ok());
        assert!(queue.submit(slot, batch(1, 1)).is_err());
        all_done(&mut queue);
        for _ in 0..3 {
            assert!(queue.submit(slot, batch(1, 1)).is_ok());
        }
    }

    #[test]
    fn the_largest_buffer_is_used_first_and_all_of_them_are_bounded() {
        let (mut queue, slot) = queue();
        for records in [1, 50, 10] {
            queue.submit(slot, batch(records, 100)).unwrap();
        }
        all_done(&mut queue);
        let capacities: Vec<usize> = queue.slots[slot]
            .spare
            .iter()
            .map(Batch::capacity)
            .collect();
        assert!(
            capacities.is_sorted() && capacities.len() == 3,
            "{capacities:?}"
        );
        let largest = queue.spare(slot).unwrap();
        assert_eq!(largest.capacity(), capacities[2]);
        for _ in 0..20 {
            queue.submit(slot, batch(1, 800 * 1024)).unwrap();
            all_done(&mut queue);
        }
        let spare = &queue.slots[slot].spare;
        let kept: usize = spare.iter().map(Batch::capacity).sum();
        assert!(
            kept <= SPARE_BYTES_MAX && spare.len() <= SPARE_MAX,
            "{kept}"
        );
    }
}
