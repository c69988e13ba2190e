//! A part of the token index: one list of slots in the order of their keys, with gaps.
//!
//! A slot has 46 bytes, and there is nothing beside the slots. Six of seven are taken at most, and
//! a list that is full grows by a quarter: a token costs 50 to 70 bytes however many there are. A
//! map that doubles costs twice as much behind each doubling.
//!
//! # Invariants
//! 1. The slots that are taken stand in ascending order of the first eight bytes of their keys.
//! 2. A key has a home: its place if all keys were evenly spread. It stands there or behind it, and
//!    no slot between its home and its place is free.
//!
//! So a search begins at the home and ends at a free slot, at a greater key, or at the key.

use super::PackedEntry;
use crate::identity::key::{self, Digest};

/// A place for one token.
#[derive(Clone, Copy)]
struct Slot {
    key: DigestKey,
    held: PackedEntry,
}

// The figures above.
const _: () = assert!(size_of::<Slot>() == 46);

/// Slots behind the last home, for those that find theirs taken.
const TAIL: usize = 16;

/// A part with so few homes is not made smaller.
const SMALL: usize = 64;

/// Of `FILL.1` homes as many as `FILL.0` are taken at most.
const FILL: (usize, usize) = (6, 7);

/// The first half of a digest.
#[derive(Clone, Copy, Eq)]
pub(super) struct DigestKey([u8; 16]);

/// The slots of one part, and how many of them are taken.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    /// Places at which a key can be at home: the slots without the tail.
    homes: usize,
    len: usize,
    /// Bits at the front of the keys that all keys of this part have in common.
    common_bits: u32,
}

impl Table {
    /// A part with room for so many, whose keys begin with the same bits.
    pub(super) fn with_capacity(tokens: usize, common_bits: u32) -> Table {
        let mut table = Table {
            common_bits,
            ..Table::default()
        };
        if tokens > 0 {
            table.resize(homes_for(tokens));
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &DigestKey) -> Option<&PackedEntry> {
        let place = self.search(key).ok()?;
        self.slots.get(place).map(|slot| &slot.held)
    }

    /// Puts `held` beside its key, in place of what stands there.
    pub(super) fn insert(&mut self, key: DigestKey, held: PackedEntry) {
        let slot = Slot { key, held };
        loop {
            match self.search(&key) {
                Ok(place) => {
                    if let Some(found) = self.slots.get_mut(place) {
                        *found = slot;
                    }
                    return;
                }
                Err(place) if self.has_room() && self.put(place, slot) => {
                    self.len += 1;
                    return;
                }
                Err(_) => self.resize(self.homes + self.homes / 4 + TAIL),
            }
        }
    }

    pub(super) fn remove(&mut self, key: &DigestKey) {
        let Ok(place) = self.search(key) else {
            return;
        };
        // Those behind it move up, as far as none comes before its home.
        let behind = self.slots.iter().enumerate().skip(place + 1);
        let end = behind
            .take_while(|(at, slot)| slot.is_taken() && self.home(&slot.key) < *at)
            .last()
            .map_or(place, |(at, _)| at);
        if let Some(moved) = self.slots.get_mut(place..=end) {
            moved.rotate_left(1);
            if let Some(last) = moved.last_mut() {
                *last = Slot::FREE;
            }
        }
        self.len -= 1;
        if self.len < self.homes / 4 && self.homes > SMALL {
            self.resize(homes_for(self.len));
        }
    }

    /// Where a key stands, or where it would.
    fn search(&self, key: &DigestKey) -> Result<usize, usize> {
        let home = self.home(key);
        let first = key.first();
        for (at, slot) in (home..).zip(self.slots.get(home..).unwrap_or_default()) {
            if !slot.is_taken() {
                return Err(at);
            }
            let found = slot.key.first();
            if found > first {
                return Err(at);
            }
            if found == first && slot.key == *key {
                return Ok(at);
            }
        }
        Err(self.slots.len())
    }

    /// Puts a slot before the one at `place`; those in its way move by one. False if the tail is
    /// full.
    fn put(&mut self, place: usize, slot: Slot) -> bool {
        let mut behind = (place..).zip(self.slots.get(place..).unwrap_or_default());
        let Some((free, _)) = behind.find(|(_, slot)| !slot.is_taken()) else {
            return false;
        };
        let Some(moved) = self.slots.get_mut(place..=free) else {
            return false;
        };
        moved.rotate_right(1);
        if let Some(first) = moved.first_mut() {
            *first = slot;
        }
        true
    }

    fn has_room(&self) -> bool {
        self.len * FILL.1 < self.homes * FILL.0
    }

    /// Spreads the entries over another number of homes.
    fn resize(&mut self, homes: usize) {
        let before = std::mem::take(&mut self.slots);
        self.homes = homes;
        let mut slots: Vec<Slot> = Vec::with_capacity(homes + TAIL);
        for slot in before.into_iter().filter(Slot::is_taken) {
            // In order, so that each stands behind the last one or at its home.
            let home = self.home(&slot.key).max(slots.len());
            slots.resize(home, Slot::FREE);
            slots.push(slot);
        }
        let len = slots.len().max(homes + TAIL);
        slots.resize(len, Slot::FREE);
        self.slots = slots;
    }

    fn home(&self, key: &DigestKey) -> usize {
        let spread = u128::from(key.first() << self.common_bits);
        let home = (spread * self.homes as u128) >> u64::BITS;
        usize::try_from(home).expect("it is below the number of homes")
    }
}

/// Some parts get more tokens than others: three of four homes are taken on average.
fn homes_for(tokens: usize) -> usize {
    tokens.div_ceil(3).saturating_mul(4)
}

impl Slot {
    const FREE: Slot = Slot {
        key: DigestKey([0; 16]),
        held: PackedEntry::FREE,
    };

    fn is_taken(&self) -> bool {
        self.held.is_taken()
    }
}

impl DigestKey {
    pub(super) fn new(digest: &Digest) -> DigestKey {
        let (first, _) = digest.split_first_chunk().expect("32 bytes hold 16");
        DigestKey(*first)
    }

    /// What keys are ordered by. How many of its bits are alike may be seen in the time that a
    /// search takes, as with every map: of a digest, not of a token.
    pub(super) fn first(&self) -> u64 {
        let (first, _) = self.0.split_first_chunk().expect("16 bytes hold 8");
        u64::from_be_bytes(*first)
    }
}

impl PartialEq for DigestKey {
    fn eq(&self, other: &DigestKey) -> bool {
        key::equal(&self.0, &other.0)
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::TokenEntry;
    use super::*;

    fn held(value: u32) -> PackedEntry {
        let entry = TokenEntry {
            identity: Uuid::nil(),
            credential: 1,
            generation: value,
            kind: 0,
            expires_s: 0,
            has_terms: false,
            is_basic: false,
            is_watched: false,
        };
        PackedEntry::new(entry).unwrap()
    }

    fn check(table: &Table, model: &BTreeMap<[u8; 16], u32>) {
        assert_eq!(table.len(), model.len());
        let mut last = None;
        for (at, slot) in table.slots.iter().enumerate() {
            if !slot.is_taken() {
                continue;
            }
            assert!(last <= Some(slot.key.first()), "out of order at {at}");
            last = Some(slot.key.first());
            let home = table.home(&slot.key);
            assert!(home <= at, "before its home at {at}");
            assert!(table.slots[home..at].iter().all(Slot::is_taken));
            assert_eq!(slot.held, held(model[&slot.key.0]));
        }
        for (key, value) in model {
            assert_eq!(table.get(&DigestKey(*key)), Some(&held(*value)));
        }
    }

    proptest! {
        /// Against a map; few different beginnings, so that many keys have one home.
        #[test]
        fn a_table_holds_what_a_map_holds(
            room in 0_usize..40,
            steps in prop::collection::vec((0_u8..16, any::<u8>(), any::<bool>()), 0..400),
        ) {
            let mut table = Table::with_capacity(room, 4);
            let mut model = BTreeMap::new();
            for (number, (first, last, ends)) in (0..).zip(steps) {
                let mut key = [0; 16];
                key[0] = first;
                key[7] = last & 3;
                key[15] = last >> 2;
                if ends {
                    table.remove(&DigestKey(key));
                    model.remove(&key);
                } else {
                    table.insert(DigestKey(key), held(number));
                    model.insert(key, number);
                }
            }
            check(&table, &model);
        }
    }

    #[test]
    fn a_token_costs_70_bytes_at_most_and_a_part_shrinks() {
        let mut table = Table::with_capacity(0, 0);
        let key = |number: u64| {
            let mut key = [0; 16];
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            key[..8].copy_from_slice(&spread.to_be_bytes());
            DigestKey(key)
        };
        for number in 0..20_000 {
            table.insert(key(number), held(7));
            let bytes = table.slots.capacity() * size_of::<Slot>();
            assert!(number < 1_000 || bytes <= 70 * table.len(), "{number}");
        }
        for number in 0..19_990 {
            table.remove(&key(number));
        }
        assert_eq!(table.len(), 10);
        assert!(table.slots.capacity() < 100, "{}", table.slots.capacity());
        assert!((19_990..20_000).all(|number| table.get(&key(number)).is_some()));
    }
}
