//! What all workers share to bring a message from its publisher to those who get it: the
//! subscription tree, the retained messages, and an inbox for each worker.
//!
//! A worker matches what its own clients publish, and puts one [`Parcel`] for each other worker
//! into that worker's [`Inbox`] at the end of its turn. What it has for itself goes the same way,
//! without the inbox. Who is full never waits and never drops: [`Inbox::put`] gives the parcel
//! back, the source parks its clients, and is woken when there is room ([`Router::turn`]). An
//! inbox is always emptied, whatever its worker cannot hand over itself, so that two full ones
//! cannot wait for each other.

mod inbox;
mod parcel;
mod under_way;

use std::sync::Arc;

use tokio::sync::Notify;

use super::retained::RetainedIndex;
use super::tree::{SubscriptionTree, TreeLimits};

pub use inbox::{Inbox, InboxFigures};
pub use parcel::{Parcel, Routed, Target};
pub use under_way::{Moment, UnderWay};

/// What routing may take.
#[derive(Clone, Copy, Debug)]
pub struct RouterLimits {
    /// Of the subscription tree.
    pub tree: TreeLimits,
    /// Bytes of messages and their addresses that may wait for one worker.
    pub inbox_bytes_max: usize,
}

impl Default for RouterLimits {
    /// 8 MiB for each worker: some milliseconds of work.
    fn default() -> RouterLimits {
        RouterLimits {
            tree: TreeLimits::default(),
            inbox_bytes_max: 8 << 20,
        }
    }
}

/// One for the whole broker; see the module's page.
#[derive(Debug)]
pub struct Router {
    /// Who subscribed to what.
    pub tree: SubscriptionTree,
    /// The last retained message of each topic.
    pub retained: Arc<RetainedIndex>,
    /// Retained messages on their way there.
    pub under_way: UnderWay,
    inboxes: Box<[Inbox]>,
    turns: Box<[Arc<Notify>]>,
}

impl Router {
    /// A router for so many workers, with the retained messages of the last run.
    #[must_use]
    pub fn new(workers: usize, limits: RouterLimits, retained: Arc<RetainedIndex>) -> Router {
        let turns: Box<[Arc<Notify>]> = (0..workers).map(|_| Arc::default()).collect();
        let inboxes = (0..workers).map(|_| Inbox::new(limits.inbox_bytes_max, &turns));
        let inboxes = inboxes.collect();
        Router {
            tree: SubscriptionTree::new(limits.tree),
            retained,
            under_way: UnderWay::new(&turns),
            inboxes,
            turns,
        }
    }

    /// Workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// What comes for a worker; `None` if there is no such worker.
    #[must_use]
    pub fn inbox(&self, worker: usize) -> Option<&Inbox> {
        self.inboxes.get(worker)
    }

    /// The size of all inboxes.
    #[must_use]
    pub fn inboxes(&self) -> InboxFigures {
        let all = self.inboxes.iter().map(Inbox::figures);
        all.fold(InboxFigures::default(), |sum, one| InboxFigures {
            bytes: sum.bytes + one.bytes,
            waits: sum.waits + one.waits,
        })
    }

    /// What wakes a worker for the end of a turn: it has something to hand over, or an inbox that
    /// was full has room.
    #[must_use]
    pub fn turn(&self, worker: usize) -> Arc<Notify> {
        self.turns.get(worker).map(Arc::clone).unwrap_or_default()
    }
}
