//! Random numbers that come back for the same seed.

/// SplitMix64: good enough to choose moments and sizes, and one number to replay it all.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `of` cases once, on average.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// A generator of its own, for a thread.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }
}

/// The seed of this run: `TOLLGATE_SEED`, or a new one. It is printed, so that a failure can be
/// played again: the same choices, though not the same thread timing.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("TOLLGATE_SEED") {
        Ok(text) => text.parse().expect("TOLLGATE_SEED is a whole number"),
        Err(_) => {
            let since = std::time::UNIX_EPOCH.elapsed();
            let nanos = since.expect("the clock is past 1970").subsec_nanos();
            u64::from(nanos) ^ (u64::from(std::process::id()) << 32)
        }
    };
    println!("TOLLGATE_SEED={seed}");
    seed
}
