//! What one token may have at once: connections, and messages in a second. Shared by all
//! connections of the token, on whichever workers they are; no lock.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Largest quota of connections or of messages in a second.
pub const QUOTA_MAX: u32 = 1_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// The quotas of a token, and what is used of them. 0 is no limit.
#[derive(Default)]
pub struct Quota {
    connections_max: AtomicU32,
    messages_max: AtomicU32,
    connections: AtomicU32,
    /// When the next message would be due if they came evenly, in ns of [`clock_ns`]. As many as
    /// fit into one second may come earlier.
    due_ns: AtomicU64,
}

impl Quota {
    /// Sets the limits; what is used stays counted.
    pub(super) fn limit(&self, connections_max: Option<u32>, messages_max: Option<u32>) {
        let (connections_max, messages_max) =
            (connections_max.unwrap_or(0), messages_max.unwrap_or(0));
        self.connections_max
            .store(connections_max, Ordering::Relaxed);
        self.messages_max.store(messages_max, Ordering::Relaxed);
    }

    /// Takes a place for one more connection; `None` if there are as many as there may be.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<QuotaPlace> {
        let limit = self.connections_max.load(Ordering::Relaxed);
        let entered = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (limit == 0 || held < limit).then(|| held.saturating_add(1))
            });
        entered.ok().map(|_| QuotaPlace(Arc::clone(self)))
    }

    /// Counts a connection that is there already, whatever the limit.
    #[must_use]
    pub fn count(self: &Arc<Self>) -> QuotaPlace {
        self.connections.fetch_add(1, Ordering::Relaxed);
        QuotaPlace(Arc::clone(self))
    }

    /// Counts a message; false if it is one too many.
    #[must_use]
    pub fn takes_message(&self, now: Instant) -> bool {
        let limit = self.messages_max.load(Ordering::Relaxed);
        if limit == 0 {
            return true;
        }
        let now_ns = clock_ns(now);
        let each_ns = SECOND_NS / u64::from(limit);
        let counted = self
            .due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                let due = due.max(now_ns).saturating_add(each_ns);
                (due <= now_ns.saturating_add(SECOND_NS)).then_some(due)
            });
        counted.is_ok()
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("connections_max", &self.connections_max)
            .field("messages_max", &self.messages_max)
            .finish_non_exhaustive()
    }
}

/// A connection's place in the quota of its token. Dropping it gives it up.
#[derive(Debug)]
pub struct QuotaPlace(Arc<Quota>);

impl QuotaPlace {
    /// Counts a message; false if it is one too many.
    #[must_use]
    pub fn takes_message(&self, now: Instant) -> bool {
        self.0.takes_message(now)
    }

    /// Whether it is a place in this quota.
    #[must_use]
    pub fn is_of(&self, quota: &Arc<Quota>) -> bool {
        Arc::ptr_eq(&self.0, quota)
    }
}

impl Drop for QuotaPlace {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nanoseconds since this was first asked.
fn clock_ns(now: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*START.get_or_init(|| now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sec_54_connections_are_counted_from_their_place_to_its_drop() {
        let quota = Arc::new(Quota::default());
        quota.limit(Some(2), None);
        let first = quota.enter().unwrap();
        let second = quota.enter().unwrap();
        assert!(quota.enter().is_none());
        drop(first);
        let third = quota.enter().unwrap();
        assert!(third.is_of(&quota));
        // A lower limit ends nobody and lets nobody in.
        quota.limit(Some(1), None);
        drop(second);
        assert!(quota.enter().is_none());
        drop(third);
        let held = quota.enter().unwrap();
        quota.limit(None, None);
        let many: Vec<_> = (0..100).map(|_| quota.enter().unwrap()).collect();
        drop((held, many));
        assert_eq!(quota.connections(), 0);
    }

    #[test]
    fn sec_54_messages_come_at_the_rate_and_a_second_of_them_at_once() {
        let quota = Quota::default();
        let start = Instant::now();
        quota.limit(None, Some(10));
        let taken = |at_ms: u64, count: usize| {
            let now = start + Duration::from_millis(at_ms);
            (0..count).filter(|_| quota.takes_message(now)).count()
        };
        assert_eq!(taken(0, 100), 10, "a second's worth");
        assert_eq!(taken(99, 5), 0);
        assert_eq!(taken(100, 5), 1);
        assert_eq!(taken(500, 50), 4);
        assert_eq!(taken(10_000, 50), 10, "what was not used is not saved up");
        let all: usize = (0..1_000).map(|ms| taken(20_000 + ms * 10, 3)).sum();
        assert!(
            (109..=111).contains(&all),
            "ten seconds and the first one: {all}"
        );
        quota.limit(None, None);
        assert_eq!(taken(30_001, 1_000), 1_000);
    }
}
