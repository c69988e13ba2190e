//! What an operator should look at, found in the events of clients.
//!
//! **One token, two addresses.** With one session for each device, a second client with the same
//! token takes the first one's connection over. That alone says little: a device that changes from
//! one network to another, or whose address is given by a provider, comes back from a new address
//! while the old connection still stands. A copied token shows itself by going back and forth: both
//! clients come back as soon as they are cut off. So the alarm is raised when a credential was
//! taken over [`SWAPS`] times within [`WINDOW`] from another address than before, and one of these
//! addresses had been there already. Two clients behind one address (NAT) do not raise it; their
//! take-overs are told one by one.
//!
//! **A throttled source.** An address whose failed authentications are over the limit.
//!
//! Each alarm is raised once in [`WINDOW`] for the same credential or address. Both tables hold
//! [`ENTRIES_MAX`] entries; when one is full, those that are over go, or else nothing new is noted.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Take-overs from another address that make an alarm.
const SWAPS: u32 = 3;

/// In what time.
const WINDOW: Duration = Duration::from_secs(600);

/// Credentials, and addresses, that are remembered; about 100 bytes each.
const ENTRIES_MAX: usize = 4_096;

/// Addresses of one credential that are remembered.
const ADDRESSES_MAX: usize = 8;

/// The tables.
#[derive(Default)]
pub(super) struct Alarms {
    swaps: HashMap<u64, Swaps>,
    throttled: HashMap<IpAddr, Instant>,
}

struct Swaps {
    since: Instant,
    count: u32,
    came_back: bool,
    is_raised: bool,
    addresses: Vec<IpAddr>,
}

impl Alarms {
    /// A credential's connection was taken over; the answer is whether this makes an alarm.
    pub(super) fn taken_over(
        &mut self,
        credential: u64,
        before: IpAddr,
        now_from: IpAddr,
        now: Instant,
    ) -> bool {
        if before == now_from {
            return false;
        }
        let is_over = |swaps: &Swaps| now.saturating_duration_since(swaps.since) >= WINDOW;
        if !has_room(&mut self.swaps, &credential, |swaps| !is_over(swaps)) {
            return false;
        }
        let fresh = || Swaps {
            since: now,
            count: 0,
            came_back: false,
            is_raised: false,
            addresses: vec![before],
        };
        let swaps = self.swaps.entry(credential).or_insert_with(fresh);
        if is_over(swaps) {
            *swaps = fresh();
        }
        swaps.count += 1;
        if swaps.addresses.contains(&now_from) {
            swaps.came_back = true;
        } else if swaps.addresses.len() < ADDRESSES_MAX {
            swaps.addresses.push(now_from);
        }
        let raises = swaps.count >= SWAPS && swaps.came_back && !swaps.is_raised;
        swaps.is_raised |= raises;
        raises
    }

    /// A failure of this address was over the limit; the answer is whether this makes an alarm.
    pub(super) fn throttled(&mut self, from: IpAddr, now: Instant) -> bool {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= WINDOW;
        if !has_room(&mut self.throttled, &from, |since| !is_over(since)) {
            return false;
        }
        match self.throttled.get(&from) {
            Some(since) if !is_over(since) => false,
            _ => {
                self.throttled.insert(from, now);
                true
            }
        }
    }
}

fn has_room<K: Eq + Hash, V>(
    table: &mut HashMap<K, V>,
    key: &K,
    stays: impl Fn(&V) -> bool,
) -> bool {
    if table.len() >= ENTRIES_MAX && !table.contains_key(key) {
        table.retain(|_, value| stays(value));
    }
    table.len() < ENTRIES_MAX || table.contains_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn two_clients_that_take_turns_raise_one_alarm() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        let mut swap = |before, after| alarms.taken_over(7, before, after, now);
        assert!(!swap(A, B) && !swap(B, A));
        assert!(swap(A, B));
        assert!((0..100).all(|_| !swap(B, A) && !swap(A, B)), "once");
        let later = now + WINDOW;
        let mut swap = |before, after| alarms.taken_over(7, before, after, later);
        assert!(!swap(A, B) && !swap(B, A) && swap(A, B), "again later");
    }

    #[test]
    fn a_device_on_its_way_raises_none() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        // From network to network, never back.
        assert!((0..50).all(|n| !alarms.taken_over(1, address(n), address(n + 1), now)));
        // Out and home again.
        assert!(!alarms.taken_over(2, A, B, now) && !alarms.taken_over(2, B, A, now));
        // From the same address: a connection that was lost, or two clients behind one NAT.
        assert!((0..50).all(|_| !alarms.taken_over(3, A, A, now)));
        // Slowly.
        let slowly = |n| now + n * (WINDOW / 2);
        assert!((0..20).all(|n| {
            let (from, to) = if n % 2 == 0 { (A, B) } else { (B, A) };
            !alarms.taken_over(4, from, to, slowly(n))
        }));
    }

    #[test]
    fn sec_27_a_throttled_source_is_told_once() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        assert!(alarms.throttled(A, now) && !alarms.throttled(A, now) && alarms.throttled(B, now));
        assert!(alarms.throttled(A, now + WINDOW));
    }

    #[test]
    fn rel_07_the_tables_are_bounded() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        let entries = u32::try_from(ENTRIES_MAX).unwrap();
        for n in 0..2 * entries {
            alarms.taken_over(u64::from(n), A, B, now);
            assert_eq!(alarms.throttled(address(n), now), n < entries);
        }
        assert_eq!(
            (alarms.swaps.len(), alarms.throttled.len()),
            (ENTRIES_MAX, ENTRIES_MAX)
        );
        let later = now + WINDOW;
        assert!(alarms.throttled(address(2 * entries), later));
        assert_eq!(alarms.throttled.len(), 1);
    }
}
