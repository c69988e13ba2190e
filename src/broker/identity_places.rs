//! How many connections and sessions one identity has, over all workers (SEC-28).
//!
//! Sessions of one identity have different homes when they have client ids, so the count is shared:
//! an identity is never given more than it may have, whichever workers its clients arrive at. An
//! identity with one session only (TB-06) is not counted, since its key allows no second.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

/// What one identity may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityLimits {
    /// Connections.
    pub connections_max: u32,
    /// Sessions, with and without a connection.
    pub sessions_max: u32,
}

/// Why an identity gets no further session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// It has as many connections as it may have.
    Connections,
    /// It has as many sessions as it may have.
    Sessions,
}

/// What one session counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) connections: u32,
    pub(super) sessions: u32,
}

/// The counts of all identities that have sessions with client ids. Entries of the map are locks:
/// each is held for one step and nothing else is called meanwhile.
#[derive(Debug)]
pub struct IdentityPlaces {
    limits: IdentityLimits,
    held: DashMap<Uuid, Held>,
}

impl IdentityPlaces {
    /// Nobody has anything yet.
    #[must_use]
    pub fn new(limits: IdentityLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            held: DashMap::new(),
        })
    }

    /// Counts `more`, unless that is too much.
    pub(super) fn take(&self, identity: Uuid, more: Held) -> Result<(), NoPlace> {
        let mut entry = self.held.entry(identity).or_default();
        let after = entry.plus(more);
        // Sessions restored from disk may be more than a lowered limit: only growth is refused.
        let refused = if more.sessions > 0 && after.sessions > self.limits.sessions_max {
            Some(NoPlace::Sessions)
        } else if more.connections > 0 && after.connections > self.limits.connections_max {
            Some(NoPlace::Connections)
        } else {
            None
        };
        if let Some(refused) = refused {
            return Err(refused); // it has some, so the entry is not empty
        }
        *entry = after;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// One session counted for `before` and counts for `after` now.
    pub(super) fn change(&self, identity: Uuid, before: Held, after: Held) {
        let mut entry = self.held.entry(identity).or_default();
        *entry = entry.plus(after).minus(before);
        drop(entry);
        self.held
            .remove_if(&identity, |_, held| *held == Held::default());
    }
}

impl Held {
    fn plus(self, more: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(more.connections),
            sessions: self.sessions.saturating_add(more.sessions),
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(less.connections),
            sessions: self.sessions.saturating_sub(less.sessions),
        }
    }
}
