//! The newest clients that were refused, for whoever asks why a device does not connect.
//!
//! One row for each address, client id, reason and credential that is known: it says when first
//! and last, and how often. The table holds [`ROWS_MAX`] rows; the one whose last refusal is the
//! longest ago goes. When it is full, those of a source that has more than [`ROWS_OF_ONE_MAX`] of
//! them go first: who floods the broker with made-up client ids does not push everybody else out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use uuid::Uuid;

use super::subscriber;

/// Rows kept, of at most about 300 bytes each.
pub const ROWS_MAX: usize = 1_024;

/// Rows that one source keeps when the table is full.
const ROWS_OF_ONE_MAX: usize = ROWS_MAX / 8;

/// A client that was refused, as often as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedClient {
    /// Grows with each refusal of anybody: whoever remembers the greatest one can ask for later
    /// ones.
    pub sequence: u64,
    /// First refusal; wall clock, ms.
    pub first_ms: u64,
    /// Last refusal; wall clock, ms.
    pub last_ms: u64,
    /// How often.
    pub count: u64,
    /// Where it comes from.
    pub from: IpAddr,
    /// Its client id, cut.
    pub client_id: Box<str>,
    /// Why, as the label of the metric has it.
    pub reason: &'static str,
    /// What is known of the credential it showed.
    pub known: Option<Known>,
}

/// What is known of a credential that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Public number of the credential.
    pub credential: u64,
    /// Whose it is or was.
    pub identity: Uuid,
    /// The name of it, if it is known.
    pub name: Option<Box<str>>,
    /// When the credential ended; wall clock, ms.
    pub ended_ms: Option<u64>,
}

/// Clients without a client id, or behind one address, are told apart by what they showed.
type Key = (IpAddr, Box<str>, &'static str, Option<u64>);

/// The table.
#[derive(Default)]
pub(super) struct Table {
    rows: HashMap<Key, RefusedClient>,
    /// The rows by their sequence.
    order: BTreeMap<u64, Key>,
    sequence: u64,
    /// Of each source its rows, by their sequence.
    sources: HashMap<IpAddr, BTreeSet<u64>>,
    /// Sources with more than [`ROWS_OF_ONE_MAX`] rows: fewer than eight.
    large: BTreeSet<IpAddr>,
}

impl Table {
    /// Notes a refusal, and what is known of the credential that was shown; answers the row as it
    /// is now.
    pub(super) fn note(
        &mut self,
        at_ms: u64,
        (from, client_id): (IpAddr, &str),
        reason: &'static str,
        known: Option<Known>,
    ) -> RefusedClient {
        self.sequence += 1;
        let sequence = self.sequence;
        let credential = known.as_ref().map(|known| known.credential);
        let key = (from, Box::from(client_id), reason, credential);
        match self.rows.get(&key).map(|row| row.sequence) {
            Some(before) => self.leave(before, from),
            None if self.rows.len() >= ROWS_MAX => self.make_room(),
            None => {}
        }
        let row = self
            .rows
            .entry(key.clone())
            .or_insert_with(|| RefusedClient {
                sequence,
                first_ms: at_ms,
                last_ms: at_ms,
                count: 0,
                from,
                client_id: Box::from(client_id),
                reason,
                known: None,
            });
        row.sequence = sequence;
        row.last_ms = at_ms;
        row.count += 1;
        row.known = known;
        let row = row.clone();
        self.enter(sequence, key);
        row
    }

    /// Takes a row out: the oldest of a source that has many, or else the oldest of all.
    fn make_room(&mut self) {
        let large = self
            .large
            .first()
            .and_then(|source| self.sources.get(source));
        let oldest = large.and_then(|rows| rows.first().copied());
        let oldest = oldest.or_else(|| self.order.first_key_value().map(|(at, _)| *at));
        let Some((sequence, key)) = oldest.and_then(|at| self.order.remove_entry(&at)) else {
            return;
        };
        self.leave(sequence, key.0);
        self.rows.remove(&key);
    }

    fn enter(&mut self, sequence: u64, key: Key) {
        let source = subscriber(key.0);
        let rows = self.sources.entry(source).or_default();
        rows.insert(sequence);
        if rows.len() > ROWS_OF_ONE_MAX {
            self.large.insert(source);
        }
        self.order.insert(sequence, key);
    }

    fn leave(&mut self, sequence: u64, from: IpAddr) {
        self.order.remove(&sequence);
        let source = subscriber(from);
        let Some(rows) = self.sources.get_mut(&source) else {
            return;
        };
        rows.remove(&sequence);
        if rows.len() <= ROWS_OF_ONE_MAX {
            self.large.remove(&source);
        }
        if rows.is_empty() {
            self.sources.remove(&source);
        }
    }

    /// The rows whose last refusal is behind `sequence`, oldest first.
    pub(super) fn after(&self, sequence: u64) -> Vec<RefusedClient> {
        let later = self.order.range(sequence.saturating_add(1)..);
        later
            .filter_map(|(_, key)| self.rows.get(key).cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_refused_again_is_one_row() {
        let mut table = Table::default();
        let from = IpAddr::from([192, 0, 2, 1]);
        table.note(5, (from, "a"), "bad_credential", None);
        table.note(6, (from, "b"), "bad_credential", None);
        table.note(7, (from, "a"), "bad_credential", None);
        table.note(8, (from, "a"), "throttled", None);
        let rows = table.after(0);
        let brief: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    &*row.client_id,
                    row.reason,
                    row.first_ms,
                    row.last_ms,
                    row.count,
                )
            })
            .collect();
        let expected = [
            ("b", "bad_credential", 6, 6, 1),
            ("a", "bad_credential", 5, 7, 2),
            ("a", "throttled", 8, 8, 1),
        ];
        assert_eq!(brief, expected);
        assert_eq!(table.after(rows[1].sequence).len(), 1);
        assert_eq!(table.after(u64::MAX), []);
    }

    /// Clients without a client id, behind one address.
    #[test]
    fn each_credential_has_a_row_of_its_own() {
        let mut table = Table::default();
        let from = IpAddr::from([192, 0, 2, 1]);
        let known = |credential| Known {
            credential,
            identity: Uuid::from_u128(credential.into()),
            name: None,
            ended_ms: None,
        };
        for credential in [1, 0, 2, 1, 0] {
            let known = (credential > 0).then(|| known(credential));
            let row = table.note(5, (from, ""), "bad_credential", known.clone());
            assert_eq!(row.known, known);
        }
        let rows = table.after(0);
        let brief: Vec<_> = rows
            .iter()
            .map(|row| (row.known.as_ref().map(|known| known.credential), row.count))
            .collect();
        assert_eq!(brief, [(Some(2), 1), (Some(1), 2), (None, 2)]);
    }

    #[test]
    fn rel_07_the_table_is_bounded_and_keeps_the_newest() {
        let mut table = Table::default();
        for n in 0..3 * u32::try_from(ROWS_MAX).unwrap() {
            let from = IpAddr::from(n.to_be_bytes());
            table.note(u64::from(n), (from, "c"), "throttled", None);
            // This one comes back all the time, and so stays.
            let other = IpAddr::from([1, 1, 1, 1]);
            table.note(u64::from(n), (other, "c"), "throttled", None);
        }
        assert_eq!((table.rows.len(), table.order.len()), (ROWS_MAX, ROWS_MAX));
        let rows = table.after(0);
        assert_eq!(rows.last().unwrap().count, 3 * ROWS_MAX as u64);
        assert_eq!(rows.first().unwrap().first_ms, 2 * ROWS_MAX as u64 + 1);
        let held: usize = table.sources.values().map(BTreeSet::len).sum();
        assert_eq!((held, table.sources.len()), (ROWS_MAX, ROWS_MAX));
    }

    /// Whoever makes up client ids, also from every address of a subscriber's IPv6 network.
    #[test]
    fn sec_27_one_source_does_not_push_the_others_out() {
        let mut table = Table::default();
        let innocent = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..500 {
            table.note(1, (innocent(n), "sensor"), "bad_credential", None);
        }
        for n in 0..10_000_u32 {
            let segments = [0x2001, 0xdb8, 0, 0, 1, 2, 3, u16::try_from(n).unwrap()];
            let (from, client_id) = (IpAddr::from(segments), n.to_string());
            table.note(2, (from, &client_id), "bad_credential", None);
        }
        let rows = table.after(0);
        let ours = rows.iter().filter(|row| &*row.client_id == "sensor");
        assert_eq!((ours.count(), rows.len()), (500, ROWS_MAX));
        // Others take its place, down to what it may keep, before anybody else goes.
        let places = u32::try_from(ROWS_MAX - 500 - ROWS_OF_ONE_MAX).unwrap();
        for n in 500..500 + places {
            table.note(3, (innocent(n), "sensor"), "bad_credential", None);
        }
        let first = |table: &Table| table.after(0).first().unwrap().first_ms;
        assert_eq!((first(&table), table.large.len()), (1, 0));
        table.note(3, (innocent(5_000), "sensor"), "bad_credential", None);
        assert_eq!(table.after(0).len(), ROWS_MAX);
        let held: usize = table.sources.values().map(BTreeSet::len).sum();
        assert_eq!((held, table.order.len()), (ROWS_MAX, ROWS_MAX));
    }
}
