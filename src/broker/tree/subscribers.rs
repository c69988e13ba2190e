//! The sessions that subscribed to one filter, in order of worker and slot.
//!
//! Most filters of a fleet have one subscriber, a few have all of them: one is kept in place, some
//! in a vector, many in chunks of at most [`CHUNK_MAX`], so that a change never moves more than a
//! chunk. In order means: grouped by worker without work, and merged in one pass.
//!
//! Invariants: keys are unique and ascending over all chunks; no chunk and no run is empty.

use std::mem;

use super::delivery::Delivery;

/// Deliveries in a chunk: 12 KiB, the most that an insertion moves.
const CHUNK_MAX: usize = 1_024;

/// A set of deliveries, one for each session.
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    One(Delivery),
    Few(Box<Run>),
    Many(Box<Chunks>),
}

/// At most [`CHUNK_MAX`].
#[derive(Debug)]
pub(super) struct Run(Vec<Delivery>);

/// Runs one behind the other.
#[derive(Debug)]
pub(super) struct Chunks(Vec<Run>);

const _: () = assert!(size_of::<Subscribers>() == 16);

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    /// Adds the delivery, or puts it in the place of the one with the same key and returns that.
    /// O(log n) to find, at most one chunk moves.
    pub(super) fn insert(&mut self, new: Delivery) -> Option<Delivery> {
        match self {
            Subscribers::None => {
                *self = Subscribers::One(new);
                None
            }
            Subscribers::One(held) if held.key() == new.key() => Some(mem::replace(held, new)),
            Subscribers::One(held) => {
                let both = match held.key() < new.key() {
                    true => vec![*held, new],
                    false => vec![new, *held],
                };
                *self = Subscribers::Few(Box::new(Run(both)));
                None
            }
            Subscribers::Few(run) => match run.find(new.key()) {
                Ok(at) => run.0.get_mut(at).map(|held| mem::replace(held, new)),
                Err(at) if run.0.len() < CHUNK_MAX => {
                    run.0.insert(at, new);
                    None
                }
                Err(_) => {
                    let mut chunks = Chunks(vec![Run(mem::take(&mut run.0))]);
                    let old = chunks.insert(new);
                    *self = Subscribers::Many(Box::new(chunks));
                    old
                }
            },
            Subscribers::Many(chunks) => chunks.insert(new),
        }
    }

    /// Takes out the delivery with this key.
    pub(super) fn remove(&mut self, key: u64) -> Option<Delivery> {
        match self {
            Subscribers::None => None,
            Subscribers::One(held) => {
                let found = (held.key() == key).then_some(*held)?;
                *self = Subscribers::None;
                Some(found)
            }
            Subscribers::Few(run) => {
                let found = run.remove(key)?;
                if let [last] = run.0.as_slice() {
                    *self = Subscribers::One(*last);
                }
                Some(found)
            }
            Subscribers::Many(chunks) => {
                let found = chunks.remove(key)?;
                if let [run] = chunks.0.as_mut_slice() {
                    *self = Subscribers::Few(Box::new(Run(mem::take(&mut run.0))));
                }
                Some(found)
            }
        }
    }

    pub(super) fn get(&self, key: u64) -> Option<&Delivery> {
        match self {
            Subscribers::None => None,
            Subscribers::One(held) => (held.key() == key).then_some(held),
            Subscribers::Few(run) => run.0.get(run.find(key).ok()?),
            Subscribers::Many(chunks) => {
                let run = chunks.0.get(chunks.place(key))?;
                run.0.get(run.find(key).ok()?)
            }
        }
    }

    /// Appends all of them, in order.
    pub(super) fn copy_to(&self, out: &mut Vec<Delivery>) {
        match self {
            Subscribers::None => {}
            Subscribers::One(held) => out.push(*held),
            Subscribers::Few(run) => out.extend_from_slice(&run.0),
            Subscribers::Many(chunks) => {
                for run in &chunks.0 {
                    out.extend_from_slice(&run.0);
                }
            }
        }
    }
}

impl Run {
    fn find(&self, key: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, Delivery::key)
    }

    fn remove(&mut self, key: u64) -> Option<Delivery> {
        let at = self.find(key).ok()?;
        let found = self.0.remove(at);
        if self.0.capacity() / 4 > self.0.len() {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(found)
    }

    fn last_key(&self) -> u64 {
        self.0.last().map_or(0, Delivery::key)
    }
}

impl Chunks {
    /// The chunk that holds the key, or would.
    fn place(&self, key: u64) -> usize {
        let at = self.0.partition_point(|run| run.last_key() < key);
        at.min(self.0.len().saturating_sub(1))
    }

    fn insert(&mut self, new: Delivery) -> Option<Delivery> {
        let chunk = self.place(new.key());
        let run = self.0.get_mut(chunk)?;
        match run.find(new.key()) {
            Ok(at) => return run.0.get_mut(at).map(|held| mem::replace(held, new)),
            Err(at) if run.0.len() < CHUNK_MAX => run.0.insert(at, new),
            // A worker gives out its slots in ascending order: splitting where the new one goes,
            // not in the middle, leaves full chunks behind.
            Err(at) => {
                let behind = run.0.split_off(at);
                run.0.push(new);
                run.0.shrink_to_fit();
                if !behind.is_empty() {
                    self.0.insert(chunk + 1, Run(behind));
                } else if run.0.len() > CHUNK_MAX {
                    let last = run.0.split_off(CHUNK_MAX);
                    run.0.shrink_to_fit();
                    self.0.insert(chunk + 1, Run(last));
                }
            }
        }
        None
    }

    fn remove(&mut self, key: u64) -> Option<Delivery> {
        let chunk = self.place(key);
        let run = self.0.get_mut(chunk)?;
        let found = run.remove(key)?;
        let left = run.0.len();
        let next = self.0.get(chunk + 1).map(|run| run.0.len());
        if left == 0 {
            self.0.remove(chunk);
        } else if next.is_some_and(|next| left + next <= CHUNK_MAX / 2) {
            let next = self.0.remove(chunk + 1);
            if let Some(run) = self.0.get_mut(chunk) {
                run.0.extend_from_slice(&next.0);
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::delivery::Subscriber;
    use super::*;
    use crate::mqtt::wire::SubscriptionOptions;

    fn delivery(worker: u16, slot: u32, id: u32) -> Delivery {
        let subscriber = Subscriber::new(worker, slot, 0).expect("a worker");
        Delivery::new(subscriber, SubscriptionOptions::default(), Some(id))
    }

    fn all(subscribers: &Subscribers) -> Vec<Delivery> {
        let mut out = Vec::new();
        subscribers.copy_to(&mut out);
        out
    }

    /// Adds and removes against a map, and looks at the shape on the way.
    fn play(steps: impl Iterator<Item = (u16, u32, bool)>) -> Subscribers {
        let mut subscribers = Subscribers::default();
        let mut model = BTreeMap::new();
        for (number, (worker, slot, is_added)) in (1_u32..).zip(steps) {
            let new = delivery(worker, slot, number);
            if is_added {
                assert_eq!(subscribers.insert(new), model.insert(new.key(), new));
            } else {
                assert_eq!(subscribers.remove(new.key()), model.remove(&new.key()));
            }
            assert_eq!(subscribers.get(new.key()), model.get(&new.key()));
            assert_eq!(subscribers.is_empty(), model.is_empty());
            if let Subscribers::Many(chunks) = &subscribers
                && number % 64 == 0
            {
                let mut sizes = chunks.0.iter().map(|run| run.0.len());
                assert!(sizes.all(|size| (1..=CHUNK_MAX).contains(&size)));
            }
        }
        assert_eq!(all(&subscribers), model.into_values().collect::<Vec<_>>());
        subscribers
    }

    #[test]
    fn ascending_slots_of_two_workers_fill_their_chunks() {
        let steps = (0..20_000_u32).map(|n| (u16::from(n % 2 == 0), n / 2, true));
        let Subscribers::Many(chunks) = play(steps) else {
            panic!("20,000 are many");
        };
        assert!(chunks.0.len() <= 32, "{} chunks", chunks.0.len());
    }

    #[test]
    fn any_order_and_removing_all_leaves_nothing() {
        let scattered = |n: u32| n.wrapping_mul(2_654_435_761) % 30_011;
        let added = (0..9_000).map(|n| (0, scattered(n), true));
        let removed = (0..9_000).rev().map(|n| (0, scattered(n), false));
        let descending = (0..5_000).rev().map(|n| (1, n, true));
        let rest = (0..5_000).map(|n| (1, n, false));
        let subscribers = play(added.chain(removed).chain(descending).chain(rest));
        assert!(subscribers.is_empty());
    }

    proptest! {
        #[test]
        fn a_set_behaves_as_a_map(
            steps in proptest::collection::vec((0..3_u16, 0..40_u32, any::<bool>()), 0..200)
        ) {
            play(steps.into_iter());
        }
    }
}
