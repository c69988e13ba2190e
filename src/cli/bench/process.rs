//! What a broker's process costs, as the kernel counts it: CPU time by thread, memory.

use std::{collections::BTreeMap, fs, io};

/// Thread groups by the names that Tollgate gives; another broker's threads are all "other".
const GROUPS: [&str; 5] = ["net-", "journal", "state", "store-", "http-"];
const OTHER: &str = "other";

/// CPU time of every thread at one moment, in nanoseconds, by thread id.
pub(super) struct Sample {
    threads: BTreeMap<u64, (&'static str, u64)>,
}

impl Sample {
    /// Reads `/proc/PID/task/*/schedstat`: run time to the nanosecond, where `stat` has only
    /// hundredths of a second.
    pub(super) fn take(pid: u32) -> io::Result<Sample> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(times)) = (
                fs::read_to_string(path.join("comm")),
                fs::read_to_string(path.join("schedstat")),
            ) else {
                continue;
            };
            let id = path.file_name().and_then(|name| name.to_str());
            let (Some(id), Some(ns)) = (
                id.and_then(|id| id.parse().ok()),
                times
                    .split_whitespace()
                    .next()
                    .and_then(|ns| ns.parse().ok()),
            ) else {
                continue;
            };
            threads.insert(id, (group(name.trim_end()), ns));
        }
        Ok(Sample { threads })
    }

    /// CPU time since `before`, in nanoseconds, by group; threads that ended are missing.
    pub(super) fn since(&self, before: &Sample) -> BTreeMap<&'static str, u64> {
        let mut spent = BTreeMap::new();
        for (id, (group, ns)) in &self.threads {
            let start = before.threads.get(id).map_or(0, |(_, ns)| *ns);
            *spent.entry(*group).or_insert(0) += ns.saturating_sub(start);
        }
        spent
    }
}

/// Resident memory in KiB.
pub(super) fn rss_kib(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no VmRSS")))
}

fn group(name: &str) -> &'static str {
    GROUPS
        .into_iter()
        .find(|group| name.starts_with(group))
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_grouped_by_their_names() {
        assert_eq!(group("net-0"), "net-");
        assert_eq!(group("journal-prep"), "journal");
        assert_eq!(group("mosquitto"), "other");
    }

    #[test]
    fn the_work_of_this_process_is_seen() {
        let pid = std::process::id();
        let before = Sample::take(pid).unwrap();
        let mut sum = 0_u64;
        let spent = loop {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
            let spent: u64 = Sample::take(pid).unwrap().since(&before).values().sum();
            if spent > 0 {
                break spent;
            }
        };
        assert!(spent > 0);
        assert!(rss_kib(pid).unwrap() > 0);
    }
}
