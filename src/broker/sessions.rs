//! One worker's table of sessions: live ones by their connection's slot, stored ones by state.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use uuid::Uuid;

use crate::mqtt::session::SessionState;

/// Session expiry that means "never" (MQTT 5, 3.1.2.11.2).
pub const NEVER_EXPIRES_S: u32 = u32::MAX;

/// Whose session it is. Two clients with equal keys are the same client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The device or application.
    pub identity: Uuid,
    /// Empty where an identity may have one session only (TB-06).
    pub client_id: Box<str>,
}

impl SessionKey {
    /// True if the identity can have no other session.
    fn is_only(&self) -> bool {
        self.client_id.is_empty()
    }

    /// The home worker of this session, below `workers`. It depends on nothing but the key, so
    /// every worker comes to the same answer.
    #[must_use]
    pub fn home(&self, workers: usize) -> usize {
        let hash = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::new().hash_one(self);
        let workers = u64::try_from(workers.max(1)).unwrap_or(1);
        usize::try_from(hash % workers).unwrap_or(0)
    }
}

/// A session without a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the journal.
    pub number: u32,
    /// Subscriptions and unfinished QoS 2 ids.
    pub state: SessionState,
    /// Seconds it is kept, [`NEVER_EXPIRES_S`] for ever.
    pub expiry_s: u32,
    /// When it goes; `None` is never.
    pub expires: Option<Instant>,
}

impl Stored {
    /// A session whose connection ended at `now`.
    #[must_use]
    pub fn new(number: u32, state: SessionState, expiry_s: u32, now: Instant) -> Self {
        let expires = (expiry_s != NEVER_EXPIRES_S)
            .then(|| now.checked_add(Duration::from_secs(u64::from(expiry_s))))
            .flatten();
        Self {
            number,
            state,
            expiry_s,
            expires,
        }
    }
}

/// How many sessions each identity has, live and stored, on all workers (SEC-28). Counts only
/// identities that may have more than one; at most one entry per session.
#[derive(Debug)]
pub struct Places {
    taken: DashMap<Uuid, u32>,
    max: u32,
}

impl Places {
    /// So many places for each identity.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            taken: DashMap::new(),
            max,
        }
    }

    /// Takes a place; false if there is none.
    fn take(&self, identity: Uuid) -> bool {
        let mut taken = self.taken.entry(identity).or_insert(0);
        let is_free = *taken < self.max;
        *taken += u32::from(is_free);
        is_free
    }

    /// Takes a place for a session that is there already.
    fn keep(&self, identity: Uuid) {
        let mut taken = self.taken.entry(identity).or_insert(0);
        *taken = taken.saturating_add(1);
    }

    fn give_back(&self, identity: Uuid) {
        self.taken.remove_if_mut(&identity, |_, taken| {
            *taken = taken.saturating_sub(1);
            *taken == 0
        });
    }
}

/// The sessions whose home is one worker. At most one entry per key, and at most as many per
/// identity as [`Places`] has for it on all workers.
#[derive(Debug)]
pub struct SessionTable {
    by_identity: HashMap<Uuid, Vec<Entry>>,
    stored: usize,
    places: Arc<Places>,
}

#[derive(Debug)]
struct Entry {
    client_id: Box<str>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Live(u32),
    Stored(Box<Stored>),
}

impl SessionTable {
    /// An empty table.
    #[must_use]
    pub fn new(places: Arc<Places>) -> Self {
        Self {
            by_identity: HashMap::new(),
            stored: 0,
            places,
        }
    }

    /// The slot of the live session with this key.
    #[must_use]
    pub fn live(&self, key: &SessionKey) -> Option<u32> {
        match self.entry(key)?.place {
            Place::Live(slot) => Some(slot),
            Place::Stored(_) => None,
        }
    }

    /// Slots of all live sessions of an identity.
    pub fn live_of(&self, identity: Uuid) -> impl Iterator<Item = u32> + '_ {
        self.by_identity
            .get(&identity)
            .into_iter()
            .flatten()
            .filter_map(|entry| match entry.place {
                Place::Live(slot) => Some(slot),
                Place::Stored(_) => None,
            })
    }

    /// True if a session with this key may open: it has a place now, if it had none.
    #[must_use]
    pub fn take_place(&self, key: &SessionKey) -> bool {
        self.entry(key).is_some() || key.is_only() || self.places.take(key.identity)
    }

    /// The session that was to open did not.
    pub fn give_back(&self, key: &SessionKey) {
        if self.entry(key).is_none() && !key.is_only() {
            self.places.give_back(key.identity);
        }
    }

    /// True if something is live or stored under the key.
    #[must_use]
    pub fn is_known(&self, key: &SessionKey) -> bool {
        self.entry(key).is_some()
    }

    /// Stored sessions in the table.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        self.stored
    }

    /// Makes the session live on `slot`; gives back what was stored under the key.
    pub fn connect(&mut self, key: &SessionKey, slot: u32) -> Option<Stored> {
        let before = self.replace(key, Some(Place::Live(slot)));
        match before {
            Some(Place::Stored(stored)) => Some(*stored),
            _ => None,
        }
    }

    /// Keeps a session whose connection ended, or one of the last run.
    pub fn store(&mut self, key: &SessionKey, stored: Stored) {
        if self.entry(key).is_none() && !key.is_only() {
            self.places.keep(key.identity);
        }
        self.replace(key, Some(Place::Stored(Box::new(stored))));
    }

    /// Ends the session for good.
    pub fn remove(&mut self, key: &SessionKey) {
        self.replace(key, None);
    }

    /// Takes the stored sessions of an identity out; live ones stay.
    pub fn take_stored_of(&mut self, identity: Uuid) -> Vec<Stored> {
        self.take_stored(identity, |_| true)
    }

    /// Takes the stored sessions out whose time is over.
    pub fn take_expired(&mut self, now: Instant) -> Vec<(Uuid, Stored)> {
        if self.stored == 0 {
            return Vec::new();
        }
        let is_over = |stored: &Stored| stored.expires.is_some_and(|at| at <= now);
        let identities: Vec<Uuid> = self
            .by_identity
            .iter()
            .filter(|(_, entries)| {
                entries.iter().any(|entry| match &entry.place {
                    Place::Stored(stored) => is_over(stored),
                    Place::Live(_) => false,
                })
            })
            .map(|(identity, _)| *identity)
            .collect();
        let mut expired = Vec::new();
        for identity in identities {
            let taken = self.take_stored(identity, is_over);
            expired.extend(taken.into_iter().map(|stored| (identity, stored)));
        }
        expired
    }

    fn take_stored(&mut self, identity: Uuid, wanted: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        let Some(entries) = self.by_identity.get_mut(&identity) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        entries.retain_mut(|entry| match &mut entry.place {
            Place::Stored(stored) if wanted(stored) => {
                taken.push(stored.as_ref().clone());
                if !entry.client_id.is_empty() {
                    self.places.give_back(identity);
                }
                false
            }
            _ => true,
        });
        if entries.is_empty() {
            self.by_identity.remove(&identity);
        }
        self.stored -= taken.len();
        taken
    }

    fn entry(&self, key: &SessionKey) -> Option<&Entry> {
        self.by_identity
            .get(&key.identity)?
            .iter()
            .find(|entry| entry.client_id == key.client_id)
    }

    fn replace(&mut self, key: &SessionKey, place: Option<Place>) -> Option<Place> {
        let entries = self.by_identity.entry(key.identity).or_default();
        let at = entries
            .iter()
            .position(|entry| entry.client_id == key.client_id);
        let before = at.map(|at| entries.swap_remove(at).place);
        self.stored -= usize::from(matches!(before, Some(Place::Stored(_))));
        self.stored += usize::from(matches!(place, Some(Place::Stored(_))));
        if place.is_none() && before.is_some() && !key.is_only() {
            self.places.give_back(key.identity);
        }
        match place {
            Some(place) => entries.push(Entry {
                client_id: key.client_id.clone(),
                place,
            }),
            None if entries.is_empty() => {
                self.by_identity.remove(&key.identity);
            }
            None => {}
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client_id: &str) -> SessionKey {
        SessionKey {
            identity: Uuid::from_u128(7),
            client_id: client_id.into(),
        }
    }

    fn table() -> SessionTable {
        SessionTable::new(Arc::new(Places::new(10)))
    }

    fn stored(number: u32, expiry_s: u32, now: Instant) -> Stored {
        Stored::new(number, SessionState::default(), expiry_s, now)
    }

    #[test]
    fn a_session_is_live_or_stored_but_never_both() {
        let now = Instant::now();
        let mut table = table();
        assert_eq!(table.connect(&key("a"), 3), None);
        assert_eq!(table.live(&key("a")), Some(3));
        table.store(&key("a"), stored(1, 60, now));
        assert_eq!(table.live(&key("a")), None);
        assert_eq!(table.stored_count(), 1);
        assert_eq!(
            table.connect(&key("a"), 4).map(|stored| stored.number),
            Some(1)
        );
        assert_eq!(table.stored_count(), 0);
        table.remove(&key("a"));
        assert_eq!(table.live_of(key("a").identity).count(), 0);
        assert!(table.by_identity.is_empty());
    }

    #[test]
    fn sessions_of_one_identity_are_found_and_dropped_together() {
        let now = Instant::now();
        let mut table = table();
        table.connect(&key("a"), 1);
        table.connect(&key("b"), 2);
        table.store(&key("c"), stored(9, NEVER_EXPIRES_S, now));
        assert_eq!(table.live_of(key("a").identity).count(), 2);
        assert_eq!(table.take_stored_of(key("a").identity).len(), 1);
        assert_eq!(table.live_of(key("a").identity).count(), 2);
    }

    #[test]
    fn stored_sessions_expire_at_their_time() {
        let now = Instant::now();
        let mut table = table();
        table.store(&key("a"), stored(1, 10, now));
        table.store(&key("b"), stored(2, NEVER_EXPIRES_S, now));
        assert!(table.take_expired(now + Duration::from_secs(9)).is_empty());
        let expired = table.take_expired(now + Duration::from_secs(10));
        assert_eq!(
            expired
                .iter()
                .map(|(_, stored)| stored.number)
                .collect::<Vec<_>>(),
            [1]
        );
        assert_eq!(table.stored_count(), 1);
    }

    #[test]
    fn sec_28_an_identity_has_a_limited_number_of_sessions_on_all_workers() {
        let places = Arc::new(Places::new(10));
        let mut tables = [0, 1].map(|_| SessionTable::new(Arc::clone(&places)));
        for n in 0..10_u32 {
            let table = &mut tables[n as usize % 2];
            assert!(table.take_place(&key(&n.to_string())));
            table.connect(&key(&n.to_string()), n);
        }
        assert!(!tables[0].take_place(&key("one more")));
        assert!(!tables[1].take_place(&key("one more")));
        assert!(
            tables[1].take_place(&key("3")),
            "taking over is always possible"
        );
        let other = SessionKey {
            identity: Uuid::from_u128(8),
            client_id: "x".into(),
        };
        assert!(tables[0].take_place(&other));
        tables[0].give_back(&other);
        // A stored one keeps its place, an ended one gives it back.
        tables[1].store(&key("3"), stored(3, 60, Instant::now()));
        assert!(!tables[0].take_place(&key("one more")));
        assert_eq!(tables[1].take_stored_of(key("3").identity).len(), 1);
        assert!(tables[0].take_place(&key("one more")));
        tables[0].remove(&key("0"));
        assert!(tables[0].take_place(&key("another")));
        assert_eq!(places.taken.len(), 1);
    }

    #[test]
    fn every_worker_agrees_on_a_home() {
        for n in 0..1_000 {
            let key = key(&n.to_string());
            assert!(key.home(3) < 3);
            assert_eq!(key.home(3), key.clone().home(3));
        }
    }
}
