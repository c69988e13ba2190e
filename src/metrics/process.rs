//! What the system says of this process, read when the figures are asked for.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::Gauge;

use super::{list, one_gauge};

/// The gauges of the process.
pub(super) struct Process {
    memory: Gauge,
    descriptors: Gauge,
    descriptors_max: Gauge,
}

impl Process {
    /// Makes the handles and notes when the process began, about.
    pub(super) fn new() -> Process {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        one_gauge(&list::PROCESS_START).set(since.as_secs_f64());
        for build in super::gauges(&list::BUILD) {
            build.set(1.0);
        }
        Process {
            memory: one_gauge(&list::PROCESS_MEMORY),
            descriptors: one_gauge(&list::PROCESS_DESCRIPTORS),
            descriptors_max: one_gauge(&list::PROCESS_DESCRIPTORS_MAX),
        }
    }

    /// Reads the figures anew; what the system does not tell stays as it was.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub(super) fn read(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = number_after(&status, "VmRSS:") {
            self.memory.set((kib * 1024) as f64);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.descriptors
                .set(entries.count().saturating_sub(1) as f64);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(max) = number_after(&limits, "Max open files") {
            self.descriptors_max.set(max as f64);
        }
    }
}

/// The first number behind a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}
