//! How long acks took, in buckets of 3 %.

use serde::Serialize;

/// Buckets per power of two: an error of at most 1/32.
const PARTS: u32 = 32;
/// Buckets for all of u32 microseconds, 71 minutes: longer than any run.
const BUCKETS: usize = 28 * PARTS as usize;

/// Percentiles for a report, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
}

impl Times {
    /// Names and values, for a table.
    pub(super) fn rows(&self, what: &str) -> [[String; 2]; 4] {
        let row = |name: &str, us: u32| [format!("{what} {name}"), format!("{us} us")];
        [
            row("p50", self.p50),
            row("p90", self.p90),
            row("p99", self.p99),
            row("max", self.max),
        ]
    }
}

/// Counts of latencies in microseconds.
pub(super) struct Latencies {
    counts: Box<[u64]>,
    total: u64,
    max_us: u32,
}

impl Latencies {
    pub(super) fn new() -> Latencies {
        Latencies {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            max_us: 0,
        }
    }

    pub(super) fn add(&mut self, us: u32) {
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count += 1;
        }
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The least latency, in microseconds, that `percent` of all do not exceed; 0 without any.
    pub(super) fn percentile(&self, percent: u64) -> u32 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(at).min(self.max_us);
            }
        }
        self.max_us
    }

    /// How many there are.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What a report says of them; `None` when there is nothing to say.
    pub(super) fn times(&self) -> Option<Times> {
        (self.total > 0).then(|| Times {
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            max: self.max_us,
        })
    }
}

/// Values below 32 have a bucket each; above, the five bits behind the first one choose.
fn bucket(us: u32) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let shift = us.ilog2() - PARTS.ilog2(); // at least 0: us has the bit of PARTS or a higher one
    let part = (us >> shift) - PARTS;
    ((shift + 1) * PARTS + part) as usize
}

/// The greatest value of a bucket.
fn upper(bucket: usize) -> u32 {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
    let (shift, part) = (bucket / PARTS, bucket % PARTS);
    match shift {
        0 => part,
        _ => {
            let next = u64::from(PARTS + part + 1) << (shift - 1);
            u32::try_from(next - 1).unwrap_or(u32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_of_three_percent() {
        for us in (0..100_000).chain([1 << 20, u32::MAX - 1, u32::MAX]) {
            let (at, top) = (bucket(us), upper(bucket(us)));
            assert!(at < BUCKETS, "{us}");
            assert!(top >= us && top - us <= us / 32, "{us}: {top}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentile(50), 0);
        (1..=100).for_each(|us| latencies.add(us));
        assert_eq!(latencies.percentile(10), 10);
        assert!((50..=51).contains(&latencies.percentile(50)));
        assert_eq!(latencies.percentile(100), 100);
        assert_eq!(latencies.times().unwrap().max, 100);
    }
}
