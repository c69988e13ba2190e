//! How long something took, sorted into fixed buckets.
//!
//! The exporter's own histogram keeps samples in blocks that it allocates on the recording thread,
//! which would break the promise that a PUBLISH costs no allocation, and it grows until somebody
//! reads it. This one is a row of counters, rendered in the same text format.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use metrics::HistogramFn;

use super::list::{Figure, SECONDS_BUCKETS};

/// Seconds, in the buckets of [`SECONDS_BUCKETS`] and one above them all.
#[derive(Debug)]
pub(super) struct Distribution {
    figure: Figure,
    counts: [AtomicU64; SECONDS_BUCKETS.len() + 1],
    /// Bits of the `f64` sum of all values.
    sum: AtomicU64,
}

impl Distribution {
    pub(super) fn new(figure: Figure) -> Distribution {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Distribution {
            figure,
            counts,
            sum: AtomicU64::new(0.0_f64.to_bits()),
        }
    }

    /// Appends the figure in the Prometheus text format.
    ///
    /// Buckets and sum are read one after the other while others record, so they may differ by
    /// what was recorded in between; the buckets and the count never contradict each other.
    pub(super) fn render(&self, text: &mut String) {
        let name = self.figure.name;
        let mut total = 0_u64;
        let mut rows = String::new();
        for (place, count) in self.counts.iter().enumerate() {
            total = total.saturating_add(count.load(Ordering::Relaxed));
            let row = match SECONDS_BUCKETS.get(place) {
                Some(bound) => writeln!(rows, "{name}_bucket{{le=\"{bound}\"}} {total}"),
                None => writeln!(rows, "{name}_bucket{{le=\"+Inf\"}} {total}"),
            };
            row.expect("writing to a String cannot fail");
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let help = self.figure.help;
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} histogram\n{rows}\
             {name}_sum {sum}\n{name}_count {total}\n\n"
        ));
    }
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let place = SECONDS_BUCKETS.partition_point(|bound| *bound < value);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if let Some(bucket) = self.counts.get(place) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of messages, far below 2^53"
        )]
        let add = value * count as f64;
        let added = |bits| Some((f64::from_bits(bits) + add).to_bits());
        // The closure always returns Some, so there is no failure to look at.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}
