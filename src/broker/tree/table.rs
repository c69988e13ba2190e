//! A hash table of numbers: open addressing, eight bytes a slot, the keys stay where they are.
//!
//! The caller hashes with a secret key (the names come from clients) and compares. A slot holds
//! 32 bits of the hash, so that growing and removing touch no key. At most three quarters of the
//! slots are taken. Growing moves all numbers of this table, about 3 ns each.

/// A number that stands for "none"; never stored.
pub(super) const NONE: u32 = u32::MAX;

/// Slots of the smallest table that holds anything; a power of two like every size.
const SLOTS_MIN: usize = 8;

/// A slot without a number.
const EMPTY: u64 = u64::MAX;

/// Numbers by hash.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<u64>,
    count: usize,
}

impl Table {
    /// The number with this hash for which `is_same` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = home(hash, mask);
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if hash_of(slot) == hash && is_same(number_of(slot)) {
                return Some(number_of(slot));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a number, below [`NONE`], that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if (self.count + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.put(u64::from(hash) << 32 | u64::from(number));
        self.count += 1;
    }

    /// Takes out a number.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let Some(mask) = self.slots.len().checked_sub(1) else {
            return;
        };
        let gone = u64::from(hash) << 32 | u64::from(number);
        let mut hole = home(hash, mask);
        loop {
            match self.slots.get(hole) {
                None | Some(&EMPTY) => return,
                Some(&slot) if slot == gone => break,
                Some(_) => hole = (hole + 1) & mask,
            }
        }
        // Moves back whatever would no longer be found behind the hole.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots.get(at).copied().unwrap_or(EMPTY);
            if slot == EMPTY {
                break;
            }
            let distance = at.wrapping_sub(home(hash_of(slot), mask)) & mask;
            if distance >= at.wrapping_sub(hole) & mask {
                self.set(hole, slot);
                hole = at;
            }
        }
        self.set(hole, EMPTY);
        self.count -= 1;
        if self.count * 8 < self.slots.len() {
            self.resize(match self.count {
                0 => 0,
                _ => (self.slots.len() / 4).max(SLOTS_MIN),
            });
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn resize(&mut self, slots: usize) {
        if slots == self.slots.len() {
            return;
        }
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in old.into_iter().filter(|&slot| slot != EMPTY) {
            self.put(slot);
        }
    }

    fn put(&mut self, slot: u64) {
        let Some(mask) = self.slots.len().checked_sub(1) else {
            return;
        };
        let mut at = home(hash_of(slot), mask);
        while self.slots.get(at).is_some_and(|&held| held != EMPTY) {
            at = (at + 1) & mask;
        }
        self.set(at, slot);
    }

    fn set(&mut self, at: usize, slot: u64) {
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }
}

/// The 32 bits that a table uses, of 64.
#[inline]
pub(super) const fn fold(hash: u64) -> u32 {
    let [_, _, _, _, a, b, c, d] = hash.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn home(hash: u32, mask: usize) -> usize {
    usize::try_from(hash).unwrap_or(usize::MAX) & mask
}

const fn hash_of(slot: u64) -> u32 {
    fold(slot >> 32)
}

const fn number_of(slot: u64) -> u32 {
    fold(slot)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few hashes for many numbers: long chains, wrapped around the end.
        #[test]
        fn a_table_behaves_as_a_map(
            steps in proptest::collection::vec((0..60_u32, any::<bool>()), 0..300),
            spread in 1..9_u32,
        ) {
            let hash = |number: u32| u32::MAX - number / spread;
            let mut table = Table::default();
            let mut model = HashMap::new();
            for (number, is_added) in steps {
                if is_added && model.insert(number, ()).is_none() {
                    table.insert(hash(number), number);
                } else if !is_added {
                    model.remove(&number);
                    table.remove(hash(number), number);
                }
                prop_assert_eq!(table.count, model.len());
                for number in 0..60 {
                    let found = table.find(hash(number), |found| found == number);
                    prop_assert_eq!(found.is_some(), model.contains_key(&number));
                }
            }
        }
    }

    #[test]
    fn a_table_grows_and_shrinks_with_what_it_holds() {
        let hash = |number: u32| number.wrapping_mul(0x9E37_79B9);
        let mut table = Table::default();
        for number in 0..10_000 {
            table.insert(hash(number), number);
        }
        assert_eq!(table.slots.len(), 16_384);
        for number in 0..10_000 {
            assert_eq!(
                table.find(hash(number), |found| found == number),
                Some(number)
            );
            table.remove(hash(number), number);
            assert_eq!(table.find(hash(number), |found| found == number), None);
        }
        assert_eq!(table.slots.capacity(), 0);
    }
}
