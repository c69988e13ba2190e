//! Threads and tasks that the broker cannot do without: when one of them panics, the process ends,
//! and with it every promise that is not on disk (SEC-16). Clients come back to a broker that
//! works.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a thread's work to its end. If it panics, the process ends with exit code 1.
pub fn run<T>(part: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| end_after_panic(part))
}

/// Ends the process, because `part` of it has panicked.
pub fn end_after_panic(part: &str) -> ! {
    tracing::error!("a part of the {part} panicked: the broker ends, with exit code 1");
    std::process::exit(1);
}
