//! What is counted of each user (section 10 of the specification): asked for by id, never among
//! the metrics, and gone when the user is deleted. Counts begin with the broker's start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one user; shared by all who count.
#[derive(Debug, Default)]
pub struct UserFigures {
    issued: AtomicU64,
    revocations: AtomicU64,
    connects: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    delivered: AtomicU64,
    live: AtomicU64,
}

/// What the counters say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    /// Tokens issued.
    pub issued: u64,
    /// Revocations of all tokens.
    pub revocations: u64,
    /// Connections that were accepted.
    pub connects: u64,
    /// Connections that were refused with this user's name.
    pub refused: u64,
    /// Messages that came from it.
    pub received: u64,
    /// Copies of messages that went to it.
    pub delivered: u64,
    /// Connections there are.
    pub live: u64,
}

impl UserFigures {
    pub(super) fn issued(&self) {
        add(&self.issued);
    }

    pub(super) fn revoked(&self) {
        add(&self.revocations);
    }

    pub(super) fn refused(&self) {
        add(&self.refused);
    }

    /// A connection began.
    pub fn connected(&self) {
        add(&self.connects);
        add(&self.live);
    }

    /// A connection ended.
    pub fn disconnected(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// A message came.
    pub fn received(&self) {
        add(&self.received);
    }

    /// A copy of a message went out.
    pub fn delivered(&self) {
        add(&self.delivered);
    }

    pub(super) fn read(&self) -> UserCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UserCounts {
            issued: now(&self.issued),
            revocations: now(&self.revocations),
            connects: now(&self.connects),
            refused: now(&self.refused),
            received: now(&self.received),
            delivered: now(&self.delivered),
            live: now(&self.live),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
