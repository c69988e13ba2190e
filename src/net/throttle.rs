//! Throttling of failed authentications (SEC-27).
//!
//! Failures are counted per source address (IPv6: /64) and per credential shown, for all
//! listeners and workers together. Beyond the limit a further *failure* is held back for
//! [`DELAY`] and refused with 0x9F (3.1.1: 3). A good credential never comes here, so it costs
//! nothing and gets in from any address: behind one address there may be a whole site.
//!
//! The table is bounded by [`ENTRIES_MAX`]: when it is full of entries that still count, whoever
//! is not in it is treated as throttled, without delay. It is a leaf lock, taken per failure.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::places::source;
use crate::limits::Networks;
use crate::metrics::DoorFigures;

/// In what time failures are counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// How long a throttled failure is held back before it is refused.
pub(super) const DELAY: Duration = Duration::from_secs(1);

/// Failures of one address, or one credential, that are held back at once; the others are refused
/// without delay, so that they do not take the address's places.
const DELAYED_MAX: u32 = 8;

/// Addresses and credentials in the table, about 64 bytes each.
const ENTRIES_MAX: usize = 65_536;

/// A full table is looked through no more often: that takes as long as thousands of failures.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Counts failures; one for all listeners and workers.
pub(super) struct Throttle {
    failures_max: u32,
    trusted: Networks,
    /// Keyed by chance: nobody can aim at another's entry, and no credential is kept.
    hasher: RandomState,
    table: Mutex<Table>,
    figures: DoorFigures,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Failures>,
    /// When it was last full and looked through for entries that are over.
    swept: Option<Instant>,
}

/// Whose failures they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Source(IpAddr),
    Credential(u64),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
    /// Of the current second: how many were held back.
    delayed: (Instant, u32),
}

/// What is done with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is refused as what it is.
    Ordinary,
    /// It is held back, then refused as one of too many.
    Delayed,
    /// It is refused at once as one of too many.
    Refused,
}

impl Throttle {
    /// `failures_max` a minute are ordinary; `trusted` addresses are not counted.
    pub(super) fn new(failures_max: u32, trusted: Networks, figures: DoorFigures) -> Self {
        Self {
            failures_max,
            trusted,
            hasher: RandomState::new(),
            table: Mutex::default(),
            figures,
        }
    }

    /// Notes a failure from `address` with `credential` (empty: none was shown).
    pub(super) fn failed(&self, address: IpAddr, credential: &str, now: Instant) -> Verdict {
        if self.trusted.contains(address) {
            return Verdict::Ordinary;
        }
        let of_source = Some(Key::Source(source(address)));
        let of_credential =
            (!credential.is_empty()).then(|| Key::Credential(self.hasher.hash_one(credential)));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worst = Verdict::Ordinary;
        for key in [of_source, of_credential].into_iter().flatten() {
            let verdict = table.note(key, now, self.failures_max);
            if verdict != Verdict::Ordinary && worst != Verdict::Refused {
                worst = verdict;
            }
        }
        self.figures
            .throttle_entries(u32::try_from(table.entries.len()).unwrap_or(u32::MAX));
        worst
    }
}

impl Table {
    fn note(&mut self, key: Key, now: Instant, failures_max: u32) -> Verdict {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            let is_due = |at| now.saturating_duration_since(at) >= SWEEP_EVERY;
            if self.swept.is_none_or(is_due) {
                self.entries.retain(|_, failures| !failures.is_over(now));
                self.swept = Some(now);
            }
            if self.entries.len() >= ENTRIES_MAX {
                return Verdict::Refused;
            }
        }
        let fresh = Failures {
            since: now,
            count: 0,
            delayed: (now, 0),
        };
        let failures = self.entries.entry(key).or_insert(fresh);
        if failures.is_over(now) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count <= failures_max {
            return Verdict::Ordinary;
        }
        if now.saturating_duration_since(failures.delayed.0) >= DELAY {
            failures.delayed = (now, 0);
        }
        if failures.delayed.1 >= DELAYED_MAX {
            return Verdict::Refused;
        }
        failures.delayed.1 += 1;
        Verdict::Delayed
    }
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn throttle() -> Throttle {
        let trusted = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        Throttle::new(3, trusted, Metrics::new().door().clone())
    }

    #[test]
    fn sec_27_failures_of_one_address_are_counted_for_a_minute() {
        let (throttle, now) = (throttle(), Instant::now());
        let failed = |address: &str, at| throttle.failed(address.parse().unwrap(), "", at);
        for _ in 0..3 {
            assert_eq!(failed("2001:db8::1", now), Verdict::Ordinary);
        }
        assert_eq!(failed("2001:db8::2", now), Verdict::Delayed, "the same /64");
        assert_eq!(failed("2001:db8:0:1::", now), Verdict::Ordinary);
        for _ in 0..10 {
            assert_eq!(failed("10.1.2.3", now), Verdict::Ordinary, "trusted");
        }
        let later = now + WINDOW;
        assert_eq!(failed("2001:db8::1", later), Verdict::Ordinary);
    }

    #[test]
    fn sec_27_one_credential_is_counted_over_all_addresses() {
        let (throttle, now) = (throttle(), Instant::now());
        for n in 0..3_u8 {
            let address = IpAddr::from([192, 0, 2, n]);
            assert_eq!(throttle.failed(address, "guess", now), Verdict::Ordinary);
        }
        let other = IpAddr::from([192, 0, 2, 9]);
        assert_eq!(throttle.failed(other, "guess", now), Verdict::Delayed);
        assert_eq!(throttle.failed(other, "another", now), Verdict::Ordinary);
    }

    #[test]
    fn sec_27_few_are_held_back_at_once() {
        let (throttle, now) = (throttle(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut verdicts = (0..20).map(|_| throttle.failed(address, "", now)).skip(3);
        assert_eq!(
            verdicts
                .by_ref()
                .take(8)
                .filter(|v| *v == Verdict::Delayed)
                .count(),
            8
        );
        assert!(verdicts.all(|verdict| verdict == Verdict::Refused));
        assert_eq!(throttle.failed(address, "", now + DELAY), Verdict::Delayed);
    }

    #[test]
    fn sec_27_the_table_is_bounded() {
        let (throttle, now) = (throttle(), Instant::now());
        let entries = u32::try_from(ENTRIES_MAX).unwrap();
        for n in 0..entries {
            let address = IpAddr::from((0xC000_0000 | n).to_be_bytes());
            assert_eq!(throttle.failed(address, "", now), Verdict::Ordinary);
        }
        let one_more = IpAddr::from([203, 0, 113, 1]);
        assert_eq!(throttle.failed(one_more, "", now), Verdict::Refused);
        assert_eq!(throttle.table.lock().unwrap().entries.len(), ENTRIES_MAX);
        let just_before = now + WINDOW - SWEEP_EVERY / 2;
        assert_eq!(throttle.failed(one_more, "", just_before), Verdict::Refused);
        let over = now + WINDOW;
        assert_eq!(
            throttle.failed(one_more, "", over),
            Verdict::Refused,
            "was swept just now"
        );
        let swept = just_before + SWEEP_EVERY;
        assert_eq!(throttle.failed(one_more, "", swept), Verdict::Ordinary);
        assert_eq!(throttle.table.lock().unwrap().entries.len(), 1);
    }
}
