//! One worker's table of sessions: live ones by their connection's slot, stored ones by state.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::identity_places::{Held, IdentityPlaces, NoPlace};
use crate::mqtt::message::Publisher;
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
    /// Subscriptions, unfinished QoS 2 ids, queue, will.
    pub state: SessionState,
    /// Who used it last: whose will it is.
    pub publisher: Publisher,
    /// When the credential that it was used with ends by itself, as it stood then; wall clock, ms.
    pub publisher_ends_ms: Option<u64>,
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
            publisher: Publisher::default(),
            publisher_ends_ms: None,
            expiry_s,
            expires,
        }
    }
}

/// The sessions whose home is one worker. At most one entry per key; how many an identity may
/// have in all tables together, [`IdentityPlaces`] knows.
#[derive(Debug)]
pub struct SessionTable {
    by_identity: HashMap<Uuid, Vec<Entry>>,
    stored: usize,
    places: Arc<IdentityPlaces>,
}

/// A place that was taken for a session which is about to connect.
#[derive(Debug)]
#[must_use = "it is counted until it is connected or given back"]
pub struct Reserved(Held);

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
    /// An empty table; `places` is shared by the tables of all workers.
    #[must_use]
    pub fn new(places: Arc<IdentityPlaces>) -> Self {
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

    /// Takes a place for a session with this key. Taking over a live one needs none.
    ///
    /// # Errors
    /// The identity has as many connections or sessions as it may have (SEC-28).
    pub fn reserve(&self, key: &SessionKey) -> Result<Reserved, NoPlace> {
        let wanted = counted(key, &Place::Live(0));
        let held = self.entry(key).map(|entry| counted(key, &entry.place));
        let held = held.unwrap_or_default();
        let more = Held {
            connections: wanted.connections - held.connections,
            sessions: wanted.sessions - held.sessions,
        };
        if more != Held::default() {
            self.places.take(key.identity, more)?;
        }
        Ok(Reserved(more))
    }

    /// Gives a place back that is not used after all.
    #[expect(clippy::needless_pass_by_value, reason = "a place is given back once")]
    pub fn give_back(&self, key: &SessionKey, reserved: Reserved) {
        self.count(key.identity, reserved.0, Held::default());
    }

    /// True if something is live or stored under the key.
    #[must_use]
    pub fn is_known(&self, key: &SessionKey) -> bool {
        self.entry(key).is_some()
    }

    /// Every stored session.
    pub fn stored(&self) -> impl Iterator<Item = (SessionKey, &Stored)> {
        self.by_identity.iter().flat_map(|(identity, entries)| {
            entries.iter().filter_map(|entry| match &entry.place {
                Place::Stored(stored) => {
                    let key = SessionKey {
                        identity: *identity,
                        client_id: entry.client_id.clone(),
                    };
                    Some((key, stored.as_ref()))
                }
                Place::Live(_) => None,
            })
        })
    }

    /// The stored session with this key.
    pub fn stored_mut(&mut self, key: &SessionKey) -> Option<&mut Stored> {
        let entries = self.by_identity.get_mut(&key.identity)?;
        let entry = entries
            .iter_mut()
            .find(|entry| entry.client_id == key.client_id)?;
        match &mut entry.place {
            Place::Stored(stored) => Some(stored),
            Place::Live(_) => None,
        }
    }

    /// The stored sessions of an identity, to be looked at.
    pub fn stored_of(&self, identity: Uuid) -> impl Iterator<Item = &Stored> {
        let entries = self.by_identity.get(&identity).into_iter().flatten();
        entries.filter_map(|entry| match &entry.place {
            Place::Stored(stored) => Some(stored.as_ref()),
            Place::Live(_) => None,
        })
    }

    /// The stored sessions of an identity, each with its client id.
    pub fn stored_of_mut(&mut self, identity: Uuid) -> impl Iterator<Item = (&str, &mut Stored)> {
        let entries = self.by_identity.get_mut(&identity);
        let entries = entries.into_iter().flatten();
        entries.filter_map(|entry| match &mut entry.place {
            Place::Stored(stored) => Some((&*entry.client_id, stored.as_mut())),
            Place::Live(_) => None,
        })
    }

    /// Stored sessions in the table.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        self.stored
    }

    /// Makes the session live on `slot`; gives back what was stored under the key.
    pub fn connect(&mut self, key: &SessionKey, slot: u32, reserved: Reserved) -> Option<Stored> {
        let before = self.replace(key, Some(Place::Live(slot)));
        self.give_back(key, reserved); // it counts by itself now
        match before {
            Some(Place::Stored(stored)) => Some(*stored),
            _ => None,
        }
    }

    /// Keeps a session whose connection ended, or one of the last run.
    pub fn store(&mut self, key: &SessionKey, stored: Stored) {
        self.replace(key, Some(Place::Stored(Box::new(stored))));
    }

    /// Ends the session for good.
    pub fn remove(&mut self, key: &SessionKey) {
        self.replace(key, None);
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

    /// Takes those of the stored sessions of an identity out that are wanted; live ones stay.
    pub fn take_stored(&mut self, identity: Uuid, wanted: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        let Some(entries) = self.by_identity.get_mut(&identity) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        let mut uncounted = Held::default();
        entries.retain_mut(|entry| match &mut entry.place {
            Place::Stored(stored) if wanted(stored) => {
                taken.push(stored.as_ref().clone());
                uncounted.sessions += u32::from(!entry.client_id.is_empty());
                false
            }
            _ => true,
        });
        if entries.is_empty() {
            self.by_identity.remove(&identity);
        }
        self.stored -= taken.len();
        self.count(identity, uncounted, Held::default());
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
        let counts = |place: Option<&Place>| place.map_or(Held::default(), |at| counted(key, at));
        let (was, is) = (counts(before.as_ref()), counts(place.as_ref()));
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
        self.count(key.identity, was, is);
        before
    }

    fn count(&self, identity: Uuid, before: Held, after: Held) {
        if before != after {
            self.places.change(identity, before, after);
        }
    }
}

/// What a session counts for. Without a client id an identity has one session at most, which
/// needs no count.
fn counted(key: &SessionKey, place: &Place) -> Held {
    let one = u32::from(!key.client_id.is_empty());
    Held {
        connections: match place {
            Place::Live(_) => one,
            Place::Stored(_) => 0,
        },
        sessions: one,
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity_places::IdentityLimits;
    use super::*;

    fn key(client_id: &str) -> SessionKey {
        SessionKey {
            identity: Uuid::from_u128(7),
            client_id: client_id.into(),
        }
    }

    const LIMITS: IdentityLimits = IdentityLimits {
        connections_max: 3,
        sessions_max: 10,
    };

    fn table() -> SessionTable {
        SessionTable::new(IdentityPlaces::new(LIMITS))
    }

    /// Takes a place and connects.
    fn connect(table: &mut SessionTable, key: &SessionKey, slot: u32) -> Option<Stored> {
        let reserved = table.reserve(key).unwrap();
        table.connect(key, slot, reserved)
    }

    fn stored(number: u32, expiry_s: u32, now: Instant) -> Stored {
        Stored::new(number, SessionState::default(), expiry_s, now)
    }

    #[test]
    fn a_session_is_live_or_stored_but_never_both() {
        let now = Instant::now();
        let mut table = table();
        assert_eq!(connect(&mut table, &key("a"), 3), None);
        assert_eq!(table.live(&key("a")), Some(3));
        table.store(&key("a"), stored(1, 60, now));
        assert_eq!(table.live(&key("a")), None);
        assert_eq!(table.stored_count(), 1);
        assert_eq!(
            connect(&mut table, &key("a"), 4).map(|stored| stored.number),
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
        connect(&mut table, &key("a"), 1);
        connect(&mut table, &key("b"), 2);
        table.store(&key("c"), stored(9, NEVER_EXPIRES_S, now));
        assert_eq!(table.live_of(key("a").identity).count(), 2);
        assert_eq!(table.take_stored(key("a").identity, |_| true).len(), 1);
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
    fn sec_28_an_identity_has_a_limited_number_of_sessions_over_all_workers() {
        let now = Instant::now();
        let places = IdentityPlaces::new(LIMITS);
        let mut tables = [0, 1].map(|_| SessionTable::new(Arc::clone(&places)));
        let of = |n: u32| usize::from(n % 2 == 1);
        for n in 0..3 {
            let client = key(&n.to_string());
            assert_eq!(connect(&mut tables[of(n)], &client, n), None);
        }
        let fourth = key("3");
        assert_eq!(tables[1].reserve(&fourth).err(), Some(NoPlace::Connections));
        for n in 0..7 {
            tables[of(n)].store(&key(&format!("stored {n}")), stored(n, 60, now));
        }
        tables[0].store(&key("0"), stored(100, 60, now));
        assert_eq!(tables[1].reserve(&fourth).err(), Some(NoPlace::Sessions));
        let again = tables[0].reserve(&key("0")).unwrap();
        tables[0].connect(&key("0"), 9, again).unwrap();
        let other = SessionKey {
            identity: Uuid::from_u128(8),
            client_id: "x".into(),
        };
        let unused = tables[0].reserve(&other).unwrap();
        tables[0].give_back(&other, unused);
        tables[1].remove(&key("1"));
        assert_eq!(tables[0].take_stored(fourth.identity, |_| true).len(), 4);
        assert_eq!(connect(&mut tables[1], &fourth, 3), None);
    }

    #[test]
    fn sec_28_taking_over_needs_no_place_and_nothing_is_left_behind() {
        let mut table = table();
        for n in 0..3 {
            assert_eq!(connect(&mut table, &key(&n.to_string()), n), None);
        }
        // A take-over: the older one goes between the two steps.
        let reserved = table.reserve(&key("1")).unwrap();
        table.remove(&key("1"));
        assert_eq!(table.connect(&key("1"), 7, reserved), None);
        assert!(table.reserve(&key("4")).is_err());
        for n in 0..3 {
            table.remove(&key(&n.to_string()));
        }
        assert!(table.places.is_empty());
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
