//! How many events of one sort are told one by one: so many a second, the rest is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Events of one sort told in a second; beyond it they are counted (SEC-56).
pub const PER_SECOND_MAX: u32 = 100;

/// Lets [`PER_SECOND_MAX`] events a second through. Shared by threads: one atomic step each, and
/// one more for what is left out.
pub(super) struct Gate {
    began: Instant,
    /// The second, and how many were let through in it.
    taken: AtomicU64,
    left_out: AtomicU64,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Gate {
        Gate {
            began: now,
            taken: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether one more is told now; counts it if not.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs();
        let (count_bits, count_mask) = (32, u64::from(u32::MAX));
        let mut told = false;
        // The closure's last run is the one that counts.
        let _ = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                let (of, count) = (taken >> count_bits, taken & count_mask);
                // A thread that was held up between clock and counter counts for the later second.
                let (of, count) = if second > of {
                    (second, 0)
                } else {
                    (of, count)
                };
                told = count < u64::from(PER_SECOND_MAX);
                told.then_some((of << count_bits) | (count + 1))
            });
        if !told {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// How many were left out since this was asked last.
    pub(super) fn take_left_out(&self) -> u64 {
        // A look first: nothing is written to a shared line while nothing is left out.
        match self.left_out.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.left_out.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sec_56_a_hundred_a_second_are_told_and_the_rest_is_counted() {
        let began = Instant::now();
        let gate = Gate::new(began);
        let told = |at| (0..250).filter(|_| gate.admits(at)).count();
        assert_eq!(told(began), 100);
        assert_eq!(gate.take_left_out(), 150);
        assert_eq!(gate.take_left_out(), 0);
        assert_eq!(told(began + Duration::from_millis(999)), 0);
        assert_eq!(told(began + Duration::from_secs(1)), 100);
        assert_eq!(told(began), 0, "time does not run backwards");
        assert_eq!(gate.take_left_out(), 250 + 150 + 250);
    }

    #[test]
    fn sec_56_threads_share_the_hundred() {
        let began = Instant::now();
        let gate = Gate::new(began);
        let told = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| gate.admits(began)).count()))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!((told, gate.take_left_out()), (100, 3_900));
    }
}
