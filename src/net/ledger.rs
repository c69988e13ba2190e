//! The ack ledger: acknowledgements of one worker that wait for the journal.
//!
//! One flat byte buffer and a list of runs (slot, generation, length) per hand-over. A batch of
//! acks is *open* while its records are collected, *sealed* with the offset of its last record
//! when they go to the committer, and *released* once that offset is durable: then each run is
//! one write to one connection. Runs of a connection are released in the order in which they were
//! pushed, so acknowledgements leave in order of arrival [MQTT-4.6.0-2], and an idle connection
//! owns nothing here.
//!
//! Its size is bounded ([`LEDGER_BYTES_MAX`]): when it is full, packets that are answered through
//! it wait outside like messages that find no room in the journal.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::journal::{BATCHES_WAITING_MAX, Offset};
use crate::mqtt::wire::QoS;

/// What one worker's acks may take while they wait, in bytes. Beyond it nothing that is answered in
/// order is taken from clients until a sync lets acks go (back-pressure).
pub(super) const LEDGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The acks of one worker.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: Acks,
    sealed: VecDeque<(Offset, Acks)>,
    /// Emptied batches, kept for their memory.
    spare: Vec<Acks>,
    /// What open and sealed batches take.
    bytes: usize,
}

/// The acks of one hand-over.
#[derive(Debug, Default)]
pub(super) struct Acks {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Messages whose records these acks wait for, by QoS.
    messages: [u32; 3],
    /// When the first of them was recorded.
    since: Option<Instant>,
}

/// Consecutive acks of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The connection's place on its worker.
    pub(super) slot: u32,
    /// Guards a slot that was used again: an ack for a connection that is gone goes nowhere.
    pub(super) generation: u32,
    /// Bytes of this run.
    pub(super) len: u32,
    /// Places of Receive Maximum that these acks give back.
    pub(super) places: u16,
}

impl Ledger {
    /// Adds acks to the open batch.
    pub(super) fn push(&mut self, slot: u32, generation: u32, bytes: &[u8], places: u16) {
        let len = u32::try_from(bytes.len()).expect("acks of one read are far below 4 GiB");
        self.bytes += bytes.len() + size_of::<Run>();
        self.open.bytes.extend_from_slice(bytes);
        self.open.runs.push(Run {
            slot,
            generation,
            len,
            places,
        });
    }

    /// What waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A message was recorded; it counts as stored when the batch is released.
    pub(super) fn recorded(&mut self, qos: QoS, now: Instant) {
        if let Some(messages) = self.open.messages.get_mut(usize::from(qos.as_u8())) {
            *messages = messages.saturating_add(1);
        }
        self.open.since.get_or_insert(now);
    }

    /// True if nothing waits to be sealed.
    pub(super) fn is_open_empty(&self) -> bool {
        self.open.runs.is_empty() && self.open.since.is_none()
    }

    /// True if nothing waits at all.
    pub(super) fn is_empty(&self) -> bool {
        self.is_open_empty() && self.sealed.is_empty()
    }

    /// Closes the open batch: its acks may leave once `offset` is durable. `with` is what becomes
    /// durable at the same moment: acks that wait for it wait for `offset` as well.
    pub(super) fn seal(&mut self, offset: Offset, with: Offset) {
        if self.is_open_empty() {
            return;
        }
        if let Some((last, acks)) = self.sealed.back_mut()
            && (*last == offset || *last == with)
        {
            // Both leave at once.
            *last = offset;
            acks.append(&mut self.open);
            return;
        }
        let next = self.spare.pop().unwrap_or_default();
        let acks = std::mem::replace(&mut self.open, next);
        self.sealed.push_back((offset, acks));
    }

    /// The next batch whose records are durable, to be given back with [`Ledger::recycle`].
    pub(super) fn release(&mut self, durable: Offset) -> Option<Acks> {
        let (offset, _) = self.sealed.front()?;
        if *offset > durable {
            return None;
        }
        self.sealed.pop_front().map(|(_, acks)| acks)
    }

    /// Takes an emptied batch back for its memory.
    pub(super) fn recycle(&mut self, mut acks: Acks) {
        self.bytes = self.bytes.saturating_sub(acks.size());
        acks.clear();
        let room = acks.bytes.capacity();
        if self.spare.len() < SPARE_BATCHES_MAX && room <= SPARE_BYTES_MAX {
            // The largest is used first: the others grow only where all of them are needed.
            let smaller = |other: &Acks| other.bytes.capacity() <= room;
            let place = self.spare.iter().rposition(smaller);
            self.spare.insert(place.map_or(0, |at| at + 1), acks);
        }
    }
}

impl Acks {
    /// Messages that are stored now, by QoS.
    pub(super) fn messages(&self) -> [u32; 3] {
        self.messages
    }

    /// Number of runs, and how long the oldest message waited.
    pub(super) fn wait(&self, now: Instant) -> Option<(usize, Duration)> {
        Some((self.runs.len(), now.saturating_duration_since(self.since?)))
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.runs.len() * size_of::<Run>()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.messages = [0; 3];
        self.since = None;
    }

    /// Takes over what `other` holds and leaves it empty.
    fn append(&mut self, other: &mut Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.runs.extend_from_slice(&other.runs);
        for (mine, more) in self.messages.iter_mut().zip(other.messages) {
            *mine = mine.saturating_add(more);
        }
        self.since = self.since.or(other.since);
        other.clear();
    }

    /// The runs with their bytes, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Run, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.runs.iter().map(move |run| {
            let (bytes, behind) = rest
                .split_at_checked(run.len as usize)
                .unwrap_or((rest, &[]));
            rest = behind;
            (*run, bytes)
        })
    }
}

/// Batches kept for reuse: as many as may be in one commit and wait for the next, and the open one.
const SPARE_BATCHES_MAX: usize = 2 * BATCHES_WAITING_MAX + 1;

/// A batch that grew beyond this, in bytes, is given back to the system.
const SPARE_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn released(ledger: &mut Ledger, durable: u64) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(acks) = ledger.release(Offset::new(durable)) {
            all.extend(acks.iter().map(|(run, bytes)| (run.slot, bytes.to_vec())));
            ledger.recycle(acks);
        }
        all
    }

    #[test]
    fn acks_wait_for_their_records_and_keep_their_order() {
        let mut ledger = Ledger::default();
        ledger.push(1, 0, b"aa", 1);
        ledger.push(2, 0, b"b", 1);
        ledger.seal(Offset::new(10), Offset::new(10));
        ledger.push(1, 0, b"ccc", 1);
        ledger.seal(Offset::new(20), Offset::new(20));
        ledger.push(3, 0, b"d", 1);
        assert_eq!(released(&mut ledger, 9), []);
        assert_eq!(
            released(&mut ledger, 10),
            [(1, b"aa".to_vec()), (2, b"b".to_vec())]
        );
        assert_eq!(released(&mut ledger, 25), [(1, b"ccc".to_vec())]);
        assert!(!ledger.is_empty() && !ledger.is_open_empty());
    }

    #[test]
    fn acks_without_new_records_join_those_that_wait_for_the_same() {
        let mut ledger = Ledger::default();
        for slot in 0..100 {
            ledger.push(slot, 0, b"ab", 1);
            ledger.seal(Offset::new(10), Offset::new(10));
        }
        assert_eq!(ledger.sealed.len(), 1);
        assert_eq!(ledger.bytes(), 100 * (2 + size_of::<Run>()));
        assert_eq!(released(&mut ledger, 10).len(), 100);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn acks_of_records_that_joined_others_leave_with_those() {
        let mut ledger = Ledger::default();
        ledger.push(1, 0, b"a", 1);
        ledger.seal(Offset::new(10), Offset::new(10));
        ledger.push(2, 0, b"b", 1);
        ledger.seal(Offset::new(20), Offset::new(20));
        ledger.push(3, 0, b"c", 1);
        ledger.seal(Offset::new(30), Offset::new(20));
        // What it joined had no acks: those before it do not wait for it.
        ledger.push(4, 0, b"d", 1);
        ledger.seal(Offset::new(50), Offset::new(40));
        assert_eq!(ledger.sealed.len(), 3);
        assert_eq!(released(&mut ledger, 29), [(1, b"a".to_vec())]);
        let both = [(2, b"b".to_vec()), (3, b"c".to_vec())];
        assert_eq!(released(&mut ledger, 30), both);
        assert_eq!(released(&mut ledger, 50), [(4, b"d".to_vec())]);
    }

    #[test]
    fn an_empty_batch_is_not_sealed() {
        let mut ledger = Ledger::default();
        ledger.seal(Offset::new(1), Offset::new(1));
        assert!(ledger.is_empty());
    }
}
