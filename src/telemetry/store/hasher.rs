//! A cheap hash for the maps of the head: a multiplication for every eight bytes.
//!
//! Seeded at random once a process, as devices choose the names of their series: nobody can send
//! keys that meet in one place of the map.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// Makes hashers with the seed of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cheap {
    seed: u64,
}

/// The state while one key is hashed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheapHasher {
    state: u64,
}

/// An odd number with bits all over, from the digits of pi.
const FACTOR: u64 = 0x2d35_8dcc_aa6c_78a5;

impl Default for Cheap {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        let seed = *SEED.get_or_init(|| RandomState::new().hash_one(FACTOR));
        Self { seed }
    }
}

impl BuildHasher for Cheap {
    type Hasher = CheapHasher;

    fn build_hasher(&self) -> CheapHasher {
        CheapHasher { state: self.seed }
    }
}

impl CheapHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(FACTOR);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        // The rotation keeps the order of words from being lost.
        self.state = low ^ high.rotate_left(23);
    }
}

impl Hasher for CheapHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(rest) {
                *place = *byte;
            }
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.mix(u64::try_from(number).unwrap_or(u64::MAX));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}
