//! What a broker's process costs, as the kernel counts it: CPU time by thread, memory, and
//! instructions where the machine has counters.

use std::{
    collections::BTreeMap,
    fs, io,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

/// Thread groups by the beginnings of the names that Tollgate gives.
const GROUPS: [(&str, &str); 5] = [
    ("net-", "net"),
    ("journal", "journal"),
    ("store-", "store"),
    ("state", "state"),
    ("http-", "http"),
];
/// All threads of other brokers.
const OTHER: &str = "other";
/// The group whose work goes on after the last ack.
const STORE: &str = "store";

/// Counts what a process spends from its start to its end; without a process it counts nothing.
pub(super) struct Meter {
    pid: Option<u32>,
    before: Sample,
    perf: Option<Perf>,
}

/// What it cost. "unit" is a message or a connection.
#[derive(Debug, Default, Serialize)]
pub(super) struct Cost {
    pub(super) cpu_us_per_message: Option<f64>,
    /// The parts of it in the program and in the kernel, from the coarser clock of `stat`.
    cpu_user_us_per_message: Option<f64>,
    cpu_system_us_per_message: Option<f64>,
    cpu_us_per_message_by_thread: BTreeMap<&'static str, f64>,
    cpu_user_us_per_message_by_thread: BTreeMap<&'static str, f64>,
    rss_kib: Option<u64>,
    instructions_per_message: Option<Instructions>,
    /// Why there are none, when they were asked for.
    instructions_missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct Instructions {
    user: f64,
    kernel: f64,
}

/// CPU time of every thread at one moment, by thread id.
#[derive(Clone, Default)]
pub(super) struct Sample {
    threads: BTreeMap<u64, Thread>,
}

#[derive(Clone, Copy, Default)]
struct Thread {
    group: &'static str,
    ns: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl Meter {
    pub(super) fn start(pid: Option<u32>, counts_instructions: bool) -> io::Result<Meter> {
        let perf = pid.filter(|_| counts_instructions).map(Perf::start);
        Ok(Meter {
            pid,
            before: pid.map(Sample::take).transpose()?.unwrap_or_default(),
            perf,
        })
    }

    /// The cost of each of `units`. `settle` runs between the last ack and the last look at the
    /// store's threads, so that their share is that of all messages.
    pub(super) fn finish<E: From<io::Error>>(
        self,
        units: u64,
        settle: impl FnOnce() -> Result<(), E>,
    ) -> Result<Cost, E> {
        let Some(pid) = self.pid else {
            settle()?;
            return Ok(Cost::default());
        };
        let after = Sample::take(pid)?;
        let mut cost = Cost::default();
        match self.perf.map(Perf::finish) {
            Some(Ok((user, kernel))) => {
                cost.instructions_per_message = Some(Instructions {
                    user: per(user, units),
                    kernel: per(kernel, units),
                });
            }
            Some(Err(why)) => cost.instructions_missing = Some(why),
            None => {}
        }
        settle()?;
        let settled = Sample::take(pid)?;
        let mut spent = after.since(&self.before);
        if let Some(store) = settled.since(&self.before).remove(STORE) {
            spent.insert(STORE, store);
        }
        cost.rss_kib = Some(rss_kib(pid)?);
        if units > 0 {
            cost.set_cpu(&spent, units);
        }
        Ok(cost)
    }
}

impl Cost {
    fn set_cpu(&mut self, spent: &BTreeMap<&'static str, Thread>, units: u64) {
        let (mut total, mut total_user) = (0.0, 0.0);
        for (&group, thread) in spent.iter().filter(|(_, thread)| thread.ns > 0) {
            let us = per(thread.ns, units) / 1000.0;
            let ticks = thread.user_ticks + thread.system_ticks;
            let user = us * per(thread.user_ticks, ticks);
            self.cpu_us_per_message_by_thread.insert(group, us);
            self.cpu_user_us_per_message_by_thread.insert(group, user);
            total += us;
            total_user += user;
        }
        self.cpu_us_per_message = Some(total);
        self.cpu_user_us_per_message = Some(total_user);
        self.cpu_system_us_per_message = Some(total - total_user);
    }

    /// Rows of a table; `unit` is what was counted.
    pub(super) fn rows(&self, unit: &str) -> Vec<[String; 2]> {
        let mut rows = Vec::new();
        let mut add = |name: String, us: Option<f64>| {
            rows.extend(us.map(|us| [name, format!("{us:.3} us")]));
        };
        add(format!("CPU per {unit}"), self.cpu_us_per_message);
        add("  user".to_owned(), self.cpu_user_us_per_message);
        add("  system".to_owned(), self.cpu_system_us_per_message);
        for (group, us) in &self.cpu_us_per_message_by_thread {
            add(format!("  {group} threads"), Some(*us));
        }
        if let Some(count) = &self.instructions_per_message {
            let text = format!("{:.0} user, {:.0} kernel", count.user, count.kernel);
            rows.push([format!("instructions per {unit}"), text]);
        }
        if let Some(why) = &self.instructions_missing {
            rows.push([format!("instructions per {unit}"), why.clone()]);
        }
        if let Some(kib) = self.rss_kib {
            rows.push(["RSS".to_owned(), format!("{kib} KiB")]);
        }
        rows
    }
}

impl Sample {
    /// Reads `schedstat`, run time to the nanosecond, and `stat`, which has hundredths of a second
    /// but knows user from system.
    pub(super) fn take(pid: u32) -> io::Result<Sample> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            // A thread may end between the listing and the reading.
            let (Some(id), Ok(times), Ok(stat)) = (
                id,
                fs::read_to_string(path.join("schedstat")),
                fs::read_to_string(path.join("stat")),
            ) else {
                continue;
            };
            threads.extend(thread(&times, &stat).map(|thread| (id, thread)));
        }
        Ok(Sample { threads })
    }

    /// Nanoseconds of CPU that the `store-` threads took since `before`.
    pub(super) fn store_ns_since(&self, before: &Sample) -> u64 {
        self.since(before).get(STORE).map_or(0, |spent| spent.ns)
    }

    /// CPU time since `before` by group; threads that ended are missing.
    fn since(&self, before: &Sample) -> BTreeMap<&'static str, Thread> {
        let mut spent: BTreeMap<&'static str, Thread> = BTreeMap::new();
        for (id, now) in &self.threads {
            let start = before.threads.get(id).copied().unwrap_or_default();
            let sum = spent.entry(now.group).or_default();
            sum.ns += now.ns.saturating_sub(start.ns);
            sum.user_ticks += now.user_ticks.saturating_sub(start.user_ticks);
            sum.system_ticks += now.system_ticks.saturating_sub(start.system_ticks);
        }
        spent
    }
}

/// `schedstat` and `stat` of a thread.
fn thread(times: &str, stat: &str) -> Option<Thread> {
    // 12 (name) S ...: a name may have blanks and brackets in it.
    let (before, behind) = stat.rsplit_once(") ")?;
    let name = before.split_once('(')?.1;
    let mut fields = behind.split(' ').skip(11);
    Some(Thread {
        group: group(name),
        ns: times.split_whitespace().next()?.parse().ok()?,
        user_ticks: fields.next()?.parse().ok()?,
        system_ticks: fields.next()?.parse().ok()?,
    })
}

fn group(name: &str) -> &'static str {
    let named = GROUPS.iter().find(|(start, _)| name.starts_with(start));
    named.map_or(OTHER, |(_, group)| group)
}

fn per(sum: u64, units: u64) -> f64 {
    sum as f64 / units.max(1) as f64
}

/// Resident memory in KiB.
pub(super) fn rss_kib(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no VmRSS")))
}

/// `perf stat` beside the run.
struct Perf {
    process: Result<Child, String>,
}

impl Perf {
    fn start(pid: u32) -> Perf {
        let process = Command::new("perf")
            .args(["stat", "-x,", "-e", "instructions:u,instructions:k", "-p"])
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("perf does not run: {error}"));
        Perf { process }
    }

    /// Instructions of the program and of the kernel, or why they are not known.
    fn finish(self) -> Result<(u64, u64), String> {
        let child = self.process?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT); // it may have ended by itself: it says why
        }
        let said = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        counts(&String::from_utf8_lossy(&said.stderr))
    }
}

/// What `perf stat -x,` says: a line of fields for each event.
fn counts(text: &str) -> Result<(u64, u64), String> {
    let count = |event: &str| {
        let line = text.lines().find(|line| line.contains(event));
        let line = line.ok_or_else(|| format!("perf says: {}", text.trim()))?;
        let value = line.split(',').next().unwrap_or_default();
        let wrong = |_| format!("this machine has no counter for it ({value})");
        value.parse::<u64>().map_err(wrong)
    };
    Ok((count("instructions:u")?, count("instructions:k")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_grouped_by_their_names() {
        assert_eq!(group("net-0"), "net");
        assert_eq!(group("journal-prep"), "journal");
        assert_eq!(group("store-reader"), "store");
        assert_eq!(group("mosquitto"), "other");
        let stat = "7 (net-a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 0 0 20";
        let thread = thread("900 1 2", stat).unwrap();
        let ticks = (thread.user_ticks, thread.system_ticks);
        assert_eq!((thread.group, thread.ns, ticks), ("net", 900, (11, 12)));
    }

    #[test]
    fn costs_are_per_message() {
        let thread = |ns, user_ticks, system_ticks| Thread {
            group: "net",
            ns,
            user_ticks,
            system_ticks,
        };
        let spent = BTreeMap::from([
            ("net", thread(3_000_000, 1, 2)),
            ("journal", thread(1_000_000, 0, 1)),
            ("state", thread(0, 0, 0)),
        ]);
        let mut cost = Cost::default();
        cost.set_cpu(&spent, 1000);
        let shown: Vec<String> = cost
            .rows("message")
            .iter()
            .map(|row| row.join(": "))
            .collect();
        assert_eq!(
            shown,
            [
                "CPU per message: 4.000 us",
                "  user: 1.000 us",
                "  system: 3.000 us",
                "  journal threads: 1.000 us",
                "  net threads: 3.000 us",
            ]
        );
    }

    #[test]
    fn counters_that_are_missing_are_said_to_be() {
        let both = "123,,instructions:u,9,100.00,,\n45,,instructions:k,9,100.00,,\n";
        assert_eq!(counts(both), Ok((123, 45)));
        let none = "<not supported>,,instructions:u,0,100.00,,\n";
        assert!(counts(none).unwrap_err().contains("not supported"));
        assert!(
            counts("Permission denied")
                .unwrap_err()
                .contains("Permission")
        );
    }

    #[test]
    fn the_work_of_this_process_is_seen() {
        let pid = std::process::id();
        let before = Sample::take(pid).unwrap();
        let mut sum = 0_u64;
        let spent = loop {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
            let threads = Sample::take(pid).unwrap().since(&before);
            let spent: u64 = threads.values().map(|thread| thread.ns).sum();
            if spent > 0 {
                break spent;
            }
        };
        assert!(spent > 0);
        assert!(rss_kib(pid).unwrap() > 0);
    }
}
