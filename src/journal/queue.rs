//! What lies between the workers and the committer: batches in the order of their offsets.
//! Pure state; `shared.rs` holds its lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{FullReason, JournalStatus};
use super::record::{BATCH_BYTES_MAX, Batch, Offset};
use super::submit::Wake;

/// Batches of one submitter that may wait for the next commit. All that wait go with it, however
/// long the one before takes: a slow disk makes commits larger, and no ack waits for more than
/// two. A batch is added to the one handed over just before it, if that still waits, so there is
/// more than one only where submitters take turns. Beyond it, and beyond the bytes of one full
/// batch, a submit is refused; the worker collects, and in the end stops reading. As many may be
/// in the commit that is under way.
pub const BATCHES_WAITING_MAX: usize = 32;

/// Empty batches that a submitter keeps: one is filled while the others are in flight.
const SPARE_MAX: usize = 2 * BATCHES_WAITING_MAX + 1;

/// Bytes that their buffers may have together: two of the largest in flight and one that is filled,
/// each grown to twice its need, and small ones.
const SPARE_BYTES_MAX: usize = 8 * BATCH_BYTES_MAX;

/// What became of a batch that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Offset of its last record.
    pub last: Offset,
    /// It is part of the batch before it now: both are durable at the same moment.
    pub joined: bool,
}

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
    /// Batches that are not durable, those that wait included.
    in_flight: usize,
    /// Batches that wait for the next commit,
    waiting: usize,
    /// and the bytes of their records.
    waiting_bytes: usize,
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
            waiting: 0,
            waiting_bytes: 0,
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
            .reserve(self.slots.len() * BATCHES_WAITING_MAX - self.pending.len());
        self.slots.len() - 1
    }

    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.live = false;
            slot.spare.clear();
        }
    }

    /// Whether a batch with so many bytes of records would be taken.
    pub(super) fn takes(&self, index: usize, bytes: usize) -> bool {
        let has_room = self.slots.get(index).is_some_and(|slot| {
            slot.waiting_bytes.saturating_add(bytes) <= self.batch_bytes_max
                && (slot.waiting < BATCHES_WAITING_MAX || self.is_last(index))
        });
        self.status == JournalStatus::Running && has_room
    }

    /// Whether nothing was handed over since this submitter did, and that still waits.
    fn is_last(&self, index: usize) -> bool {
        self.pending.last().is_some_and(|last| last.slot == index)
    }

    /// Takes what is in a batch and leaves an empty one, perhaps another. `None`: nothing changed.
    pub(super) fn hand_over(&mut self, index: usize, batch: &mut Batch) -> Option<HandedOver> {
        let bytes = batch.bytes_len();
        if !self.takes(index, bytes) {
            return None;
        }
        let last = self.next + u64::from(batch.records());
        let handed_over = |joined| HandedOver {
            last: Offset::new(last - 1),
            joined,
        };
        if batch.is_empty() {
            return Some(handed_over(false));
        }
        let slot = self.slots.get_mut(index)?;
        let before = self.pending.last_mut();
        let before = before.filter(|last| last.slot == index);
        let joined = before.is_some();
        match before {
            // A copy, but few buffers: each grows to what its worker needs. All that waits of one
            // submitter is no more than one batch may have.
            Some(before) => before.batch.append(batch),
            None => {
                let empty = slot.spare.pop();
                let empty = empty.unwrap_or_else(|| Batch::with_limit(self.batch_bytes_max));
                let batch = std::mem::replace(batch, empty);
                self.pending.push(Pending { batch, slot: index });
                slot.waiting += 1;
                slot.in_flight += 1;
            }
        }
        slot.waiting_bytes += bytes;
        self.next = last;
        Some(handed_over(joined))
    }

    /// Keeps an empty batch that its submitter does not need.
    pub(super) fn give_back(&mut self, index: usize, batch: Batch) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.keep(batch);
        }
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
        self.pending.reserve(self.slots.len() * BATCHES_WAITING_MAX);
        for slot in &mut self.slots {
            (slot.waiting, slot.waiting_bytes) = (0, 0);
        }
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

/// Least time from the start of a commit of what was taken to the next one. A record alone is
/// perhaps of a client that waits for its ack before it sends the next: it waits for half as long.
/// Where many send, the half brings more than one, and the next time is whole again.
pub(super) fn interval_behind(taken: &[Pending], interval: Duration) -> Duration {
    match taken {
        [alone] if alone.batch.records() == 1 => interval / 2,
        _ => interval,
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

    impl Queue {
        fn submit(&mut self, index: usize, mut batch: Batch) -> Result<Offset, Batch> {
            let handed_over = self.hand_over(index, &mut batch);
            handed_over.map(|done| done.last).ok_or(batch)
        }
    }

    fn all_done(queue: &mut Queue) {
        let mut taken = Vec::new();
        queue.take(&mut taken);
        queue.done(taken.drain(..), &mut Vec::new());
    }

    fn handed_over(last: u64, joined: bool) -> HandedOver {
        let last = Offset::new(last);
        HandedOver { last, joined }
    }

    #[test]
    fn batches_join_the_one_that_waits() {
        let (mut queue, slot) = queue();
        let mut small = batch(2, 10);
        let bytes = small.bytes_len();
        let first = queue.hand_over(slot, &mut small);
        assert_eq!(first, Some(handed_over(2, false)));
        for number in 1..=1_000_u64 {
            assert!(small.is_empty(), "what is left is an empty batch");
            small = batch(2, 10);
            let next = queue.hand_over(slot, &mut small);
            assert_eq!(next, Some(handed_over(2 + 2 * number, true)));
        }
        assert_eq!(queue.pending.len(), 1);
        let taken = &queue.pending[0].batch;
        assert_eq!((taken.records(), taken.bytes_len()), (2_002, 1_001 * bytes));
        // The commit is under way: what comes now is the next one's.
        let mut taken = Vec::new();
        queue.take(&mut taken);
        let next = queue.hand_over(slot, &mut batch(1, 10));
        assert_eq!(next, Some(handed_over(2_003, false)));
        queue.done(taken.drain(..), &mut Vec::new());
        assert_eq!(queue.slots[slot].in_flight, 1);
    }

    #[test]
    fn the_interval_is_half_as_long_behind_one_record() {
        let whole = Duration::from_millis(10);
        for (records, expected) in [([1, 0], whole / 2), ([2, 0], whole), ([1, 1], whole)] {
            let (mut queue, slot) = queue();
            let other = queue.join(Arc::new(|| {}));
            for (slot, records) in [slot, other].into_iter().zip(records) {
                queue.submit(slot, batch(records, 10)).unwrap();
            }
            let mut taken = Vec::new();
            queue.take(&mut taken);
            assert_eq!(interval_behind(&taken, whole), expected, "{records:?}");
        }
    }

    #[test]
    fn offsets_follow_one_another_where_two_take_turns() {
        let (mut queue, one) = queue();
        let other = queue.join(Arc::new(|| {}));
        for number in 1..=BATCHES_WAITING_MAX as u64 {
            let first = queue.hand_over(one, &mut batch(1, 10));
            assert_eq!(first, Some(handed_over(2 * number - 1, false)));
            let second = queue.hand_over(other, &mut batch(1, 10));
            assert_eq!(second, Some(handed_over(2 * number, false)));
        }
        // As many as may wait; the last one's submitter can still add to it.
        let mut kept = batch(1, 10);
        assert_eq!(queue.hand_over(one, &mut kept), None);
        assert_eq!(kept.records(), 1);
        let last = queue.hand_over(other, &mut batch(1, 9_000));
        assert_eq!(
            last,
            Some(handed_over(2 * BATCHES_WAITING_MAX as u64 + 1, true))
        );
        all_done(&mut queue);
        assert!(queue.hand_over(one, &mut kept).is_some());
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes() {
        let (mut queue, slot) = queue();
        let half = || batch(1, BATCH_BYTES_MAX / 2 - 100);
        let mut taken = Vec::new();
        for _ in 0..2 {
            // While as much is being written.
            assert!(queue.submit(slot, half()).is_ok());
            assert!(queue.submit(slot, half()).is_ok());
            assert!(!queue.takes(slot, 1_000));
            assert!(queue.submit(slot, batch(1, 1_000)).is_err());
            assert!(queue.submit(slot, batch(1, 1)).is_ok(), "what is left");
            if taken.is_empty() {
                queue.take(&mut taken);
            }
        }
        queue.done(taken.drain(..), &mut Vec::new());
        assert!(!queue.takes(slot, 1_000));
        all_done(&mut queue);
        assert!(queue.takes(slot, BATCH_BYTES_MAX));
        assert_eq!(queue.slots[slot].in_flight, 0);
    }

    #[test]
    fn the_largest_buffer_is_used_first_and_all_of_them_are_bounded() {
        let (mut queue, slot) = queue();
        let other = queue.join(Arc::new(|| {}));
        for records in [100, 900, 400] {
            queue.submit(slot, batch(records, 100)).unwrap();
            queue.submit(other, batch(1, 1)).unwrap();
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
