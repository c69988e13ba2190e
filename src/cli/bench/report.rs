//! What came out of a run, for people and for programs.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::cli::{
    self, CliError,
    bench::{
        BenchError,
        latency::Latencies,
        options::{Plan, Version},
    },
    print_json,
    table::aligned,
};

/// Figures of one run. Units are in the names; "ack" is the last one of a message's QoS.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    broker: String,
    mqtt: &'static str,
    tls: bool,
    connections: usize,
    qos: u8,
    payload_bytes: usize,
    window: Option<u32>,
    asked_per_s: Option<u32>,
    messages: u64,
    elapsed_s: f64,
    messages_per_s: f64,
    ack_us: Option<AckTimes>,
    cpu_us_per_message: Option<f64>,
    cpu_us_per_message_by_thread: BTreeMap<&'static str, f64>,
    rss_kib: Option<u64>,
    pub(super) unacknowledged: u64,
    pub(super) refused: u64,
    pub(super) lost_connections: u64,
}

#[derive(Debug, Serialize)]
struct AckTimes {
    p50: u32,
    p90: u32,
    p99: u32,
    max: u32,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        messages: u64,
        elapsed: Duration,
        latencies: Option<&Latencies>,
    ) -> Report {
        let elapsed_s = elapsed.as_secs_f64();
        Report {
            broker: plan.address.to_string(),
            mqtt: match plan.version {
                Version::V311 => "3.1.1",
                Version::V5 => "5",
            },
            tls: plan.cafile.is_some(),
            connections: plan.connections,
            qos: plan.qos,
            payload_bytes: plan.payload_bytes,
            window: (plan.qos > 0).then_some(plan.window),
            asked_per_s: plan.rate,
            messages,
            elapsed_s,
            messages_per_s: messages as f64 / elapsed_s,
            ack_us: latencies.map(|latencies| AckTimes {
                p50: latencies.percentile(50),
                p90: latencies.percentile(90),
                p99: latencies.percentile(99),
                max: latencies.max_us(),
            }),
            cpu_us_per_message: None,
            cpu_us_per_message_by_thread: BTreeMap::new(),
            rss_kib: None,
            unacknowledged: 0,
            refused: 0,
            lost_connections: 0,
        }
    }

    /// Adds what the broker's process cost: nanoseconds of CPU by thread group, and its memory.
    pub(super) fn set_cost(&mut self, cpu_ns: &BTreeMap<&'static str, u64>, rss_kib: Option<u64>) {
        self.rss_kib = rss_kib;
        if cpu_ns.is_empty() || self.messages == 0 {
            return;
        }
        let per_message = |ns: u64| ns as f64 / 1000.0 / self.messages as f64;
        self.cpu_us_per_message = Some(per_message(cpu_ns.values().sum()));
        let groups = cpu_ns.iter().filter(|(_, ns)| **ns > 0);
        self.cpu_us_per_message_by_thread = groups
            .map(|(group, &ns)| (*group, per_message(ns)))
            .collect();
    }

    /// An error when the figures are not those of a whole run.
    pub(super) fn verdict(&self) -> Result<(), BenchError> {
        if self.unacknowledged + self.refused + self.lost_connections == 0 {
            return Ok(());
        }
        Err(BenchError::Incomplete {
            lost: self.lost_connections,
            unacknowledged: self.unacknowledged,
            refused: self.refused,
        })
    }
}

pub(super) fn print(report: &Report, is_json: bool) -> Result<(), CliError> {
    if is_json {
        return print_json(report);
    }
    cli::print(&table(report))
}

fn table(report: &Report) -> String {
    let mut rows = vec![
        [
            "messages".to_owned(),
            format!("{} in {:.2} s", report.messages, report.elapsed_s),
        ],
        ["rate".to_owned(), format!("{:.0}/s", report.messages_per_s)],
    ];
    if let Some(ack) = &report.ack_us {
        for (name, us) in [
            ("ack p50", ack.p50),
            ("ack p90", ack.p90),
            ("ack p99", ack.p99),
            ("ack max", ack.max),
        ] {
            rows.push([name.to_owned(), format!("{us} us")]);
        }
    }
    if let Some(us) = report.cpu_us_per_message {
        rows.push(["CPU per message".to_owned(), format!("{us:.3} us")]);
    }
    for (group, us) in &report.cpu_us_per_message_by_thread {
        rows.push([format!("  {group}"), format!("{us:.3} us")]);
    }
    if let Some(rss_kib) = report.rss_kib {
        rows.push(["RSS".to_owned(), format!("{rss_kib} KiB")]);
    }
    aligned(["FIGURE", "VALUE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            broker: "127.0.0.1:1883".to_owned(),
            mqtt: "5",
            tls: false,
            connections: 2,
            qos: 1,
            payload_bytes: 60,
            window: Some(1),
            asked_per_s: None,
            messages: 1000,
            elapsed_s: 2.0,
            messages_per_s: 500.0,
            ack_us: Some(AckTimes {
                p50: 40,
                p90: 50,
                p99: 60,
                max: 70,
            }),
            cpu_us_per_message: None,
            cpu_us_per_message_by_thread: BTreeMap::new(),
            rss_kib: None,
            unacknowledged: 0,
            refused: 0,
            lost_connections: 0,
        }
    }

    #[test]
    fn costs_are_per_message() {
        let mut report = report();
        let cpu_ns = BTreeMap::from([("net-", 3_000_000), ("journal", 1_000_000), ("state", 0)]);
        report.set_cost(&cpu_ns, Some(7));
        assert_eq!(
            table(&report),
            "FIGURE           VALUE\n\
             messages         1000 in 2.00 s\n\
             rate             500/s\n\
             ack p50          40 us\n\
             ack p90          50 us\n\
             ack p99          60 us\n\
             ack max          70 us\n\
             CPU per message  4.000 us\n\
             \u{20} journal        1.000 us\n\
             \u{20} net-           3.000 us\n\
             RSS              7 KiB\n"
        );
    }

    #[test]
    fn a_run_with_losses_is_no_result() {
        let mut report = report();
        assert!(report.verdict().is_ok());
        report.unacknowledged = 1;
        let error = report.verdict().unwrap_err();
        assert!(error.to_string().contains("1 messages have no ack"));
    }
}
