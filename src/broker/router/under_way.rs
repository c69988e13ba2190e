//! Retained messages that were sent to subscribers and are not in the index yet.
//!
//! A message goes to those who had subscribed when it came, and into the index when it is durable.
//! Who subscribes in between would get neither, and keep an older value: so the walk of a new
//! subscription waits until what was under way when it was made has arrived. What came later was
//! sent to it: each message has a serial number, and the walk leaves out those from its own on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts of each worker.
#[derive(Debug)]
pub struct UnderWay {
    /// Of the next retained message; those of the last run have 0.
    serial: AtomicU64,
    workers: Box<[Counts]>,
    turns: Box<[Arc<Notify>]>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Retained messages that were about to be matched,
    begun: AtomicU64,
    /// and of these, those that are in the index, or never will be.
    arrived: AtomicU64,
    /// Those that never will be and are not counted yet: others before them are still under way.
    withdrawn: AtomicU64,
    /// A walk of this worker waits.
    waits: AtomicBool,
}

/// What was under way at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    serial: u64,
    /// What each worker had begun; empty if all of it had arrived.
    begun: Box<[u64]>,
}

impl Moment {
    /// Messages with this serial number or a later one were matched after this moment.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }
}

impl UnderWay {
    pub(super) fn new(turns: &[Arc<Notify>]) -> UnderWay {
        UnderWay {
            serial: AtomicU64::new(1),
            workers: turns.iter().map(|_| Counts::default()).collect(),
            turns: turns.into(),
        }
    }

    /// The worker is about to match a retained message, which gets this serial number.
    pub fn begins(&self, worker: usize) -> u64 {
        if let Some(counts) = self.workers.get(worker) {
            // Before the match, and so before a subscription that it does not find.
            counts.begun.fetch_add(1, Ordering::SeqCst);
        }
        // Behind the count: a moment waits for every message with a serial before its own.
        self.serial.fetch_add(1, Ordering::SeqCst)
    }

    /// So many of its messages have arrived, the oldest first.
    pub fn arrived(&self, worker: usize, messages: u64) {
        if let Some(counts) = self.workers.get(worker) {
            counts.arrived.fetch_add(messages, Ordering::SeqCst);
        }
        self.settle(worker);
    }

    /// The message that began last was not taken after all.
    pub fn withdrawn(&self, worker: usize) {
        if let Some(counts) = self.workers.get(worker) {
            counts.withdrawn.fetch_add(1, Ordering::SeqCst);
        }
        self.settle(worker);
    }

    /// Counts what was withdrawn, once nothing is under way before it: a count that went ahead
    /// would be taken for that of a message which has not arrived.
    fn settle(&self, worker: usize) {
        if let Some(counts) = self.workers.get(worker) {
            // All three are changed by this worker alone.
            let withdrawn = counts.withdrawn.load(Ordering::SeqCst);
            let arrived = counts.arrived.load(Ordering::SeqCst) + withdrawn;
            if withdrawn > 0 && arrived == counts.begun.load(Ordering::SeqCst) {
                counts.withdrawn.store(0, Ordering::SeqCst);
                counts.arrived.store(arrived, Ordering::SeqCst);
            }
        }
        for (counts, turn) in self.workers.iter().zip(&self.turns) {
            if counts.waits.swap(false, Ordering::SeqCst) {
                turn.notify_one();
            }
        }
    }

    /// What is under way now: to be asked behind a subscription.
    #[must_use]
    pub fn now(&self) -> Moment {
        let serial = self.serial.load(Ordering::SeqCst);
        let is_idle = |counts: &Counts| {
            counts.arrived.load(Ordering::SeqCst) == counts.begun.load(Ordering::SeqCst)
        };
        if self.workers.iter().all(is_idle) {
            return Moment {
                serial,
                begun: Box::default(),
            };
        }
        let begun = self.workers.iter();
        let begun = begun.map(|counts| counts.begun.load(Ordering::SeqCst));
        Moment {
            serial,
            begun: begun.collect(),
        }
    }

    /// Whether all of it has arrived. If not, the turn of `worker` is woken when more has.
    #[must_use]
    pub fn is_over(&self, moment: &Moment, worker: usize) -> bool {
        if self.has_arrived(moment) {
            return true;
        }
        if let Some(counts) = self.workers.get(worker) {
            counts.waits.store(true, Ordering::SeqCst);
        }
        // It may have come just now.
        self.has_arrived(moment)
    }

    fn has_arrived(&self, moment: &Moment) -> bool {
        let mut all = self.workers.iter().zip(&moment.begun);
        all.all(|(counts, begun)| counts.arrived.load(Ordering::SeqCst) >= *begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_over_when_all_that_was_under_way_has_arrived() {
        let turns = [Arc::default(), Arc::default()];
        let under_way = UnderWay::new(&turns);
        let before = under_way.now();
        assert!(under_way.is_over(&before, 1));
        assert_eq!(under_way.begins(0), before.serial());
        under_way.begins(1);
        let moment = under_way.now();
        assert_eq!(under_way.begins(1), moment.serial());
        assert!(!under_way.is_over(&moment, 0));
        under_way.arrived(1, 2);
        assert!(!under_way.is_over(&moment, 0));
        under_way.arrived(0, 1);
        assert!(under_way.is_over(&moment, 0));
    }

    #[test]
    fn what_is_withdrawn_does_not_count_for_what_is_under_way_before_it() {
        let under_way = UnderWay::new(&[Arc::default()]);
        under_way.begins(0);
        let moment = under_way.now();
        under_way.begins(0);
        under_way.withdrawn(0);
        assert!(!under_way.is_over(&moment, 0));
        under_way.arrived(0, 1);
        assert!(under_way.is_over(&under_way.now(), 0));
        under_way.begins(0);
        let moment = under_way.now();
        under_way.withdrawn(0);
        assert!(under_way.is_over(&moment, 0));
    }
}
