//! The order of the journal, kept although workers apply their records at different times.
//!
//! Each worker applies its own records in order, behind its own sync. A topic can be set by one
//! and cleared by another: when the clear comes first, the set, which stands before it in the
//! journal, must not bring the message back. So a clear leaves a mark, (topic, offset), until
//! every worker has applied everything up to that offset: an [`Applier`] says how far its worker
//! is. A set needs none: the message itself has its offset.
//!
//! Marks are as many as the clears that pass while a batch of some worker is on its way. Should a
//! worker stand still for longer than [`MARKS_MAX`] clears, the oldest marks go, and a message it
//! has on its way may be seen again until the next restart.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clears that are remembered, about 150 bytes each.
pub const MARKS_MAX: usize = 65_536;

/// Nothing of the worker is on its way.
const IDLE: u64 = u64::MAX;

/// How far one worker has applied the changes of retained messages that it wrote. Dropped with the
/// worker.
#[derive(Debug)]
pub struct Applier {
    /// Everything of this worker up to here is applied.
    applied: Arc<AtomicU64>,
    batches: Cell<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The offset of the last clear of a topic.
    cleared: HashMap<Arc<str>, u64>,
    /// The same in the order in which they came.
    queue: VecDeque<(u64, Arc<str>)>,
    appliers: Vec<Arc<AtomicU64>>,
}

impl Applier {
    /// A batch with changes of retained messages is about to be handed over; `durable` is what is
    /// durable now. Call it *before* the journal gives the batch its offsets.
    pub fn submits(&self, durable: u64) {
        if self.batches.get() == 0 {
            self.applied.store(durable, Ordering::Release);
        }
        self.batches.set(self.batches.get() + 1);
    }

    /// The changes of the oldest such batch are applied; `last` is the offset of its last record.
    pub fn applied(&self, last: u64) {
        let batches = self.batches.get().saturating_sub(1);
        self.batches.set(batches);
        let applied = if batches == 0 { IDLE } else { last };
        self.applied.store(applied, Ordering::Release);
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.applied.store(IDLE, Ordering::Release);
    }
}

impl Marks {
    pub(super) fn applier(&mut self) -> Applier {
        // Those of workers that are gone hold nothing back and are not kept.
        self.appliers.retain(|held| Arc::strong_count(held) > 1);
        let applied = Arc::new(AtomicU64::new(IDLE));
        self.appliers.push(Arc::clone(&applied));
        Applier {
            applied,
            batches: Cell::new(0),
        }
    }

    /// Whether the topic was cleared at `offset` or later, as far as that is remembered.
    pub(super) fn is_cleared(&self, topic: &str, offset: u64) -> bool {
        let cleared = self.cleared.get(topic);
        cleared.is_some_and(|cleared| *cleared >= offset)
    }

    /// The topic has no message that stands at `offset` or before.
    pub(super) fn clear(&mut self, topic: &str, offset: u64) {
        let applied = self.applied();
        while let Some((oldest, topic)) = self.queue.front()
            && (*oldest <= applied || self.queue.len() >= MARKS_MAX)
        {
            if self.cleared.get(topic) == Some(oldest) {
                self.cleared.remove(topic);
            }
            self.queue.pop_front();
        }
        if offset <= applied || self.is_cleared(topic, offset) {
            return;
        }
        let topic = match self.cleared.get_key_value(topic) {
            Some((topic, _)) => Arc::clone(topic),
            None => Arc::from(topic),
        };
        self.cleared.insert(Arc::clone(&topic), offset);
        self.queue.push_back((offset, topic));
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Every worker has applied everything of its own up to here.
    fn applied(&self) -> u64 {
        let appliers = self.appliers.iter();
        let applied = appliers.map(|applied| applied.load(Ordering::Acquire));
        applied.min().unwrap_or(IDLE)
    }
}
