//! The load generator against its own sink: every message is counted and acknowledged.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// A sink in its own process, killed with the test.
struct Raw {
    process: Child,
    port: String,
}

impl Raw {
    fn start() -> Raw {
        let mut process = Command::new(TOLLGATE)
            .args(["bench", "raw", "--seconds", "60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let port = line.trim_end().rsplit(':').next().unwrap().to_owned();
        Raw { process, port }
    }

    fn ingest(&self, flags: &str) -> Output {
        Command::new(TOLLGATE)
            .args(["bench", "ingest", "--seconds", "1", "--port", &self.port])
            .args(flags.split_whitespace())
            .output()
            .unwrap()
    }

    fn figures(&self, flags: &str) -> Value {
        let done = self.ingest(&format!("--json {flags}"));
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), &*said), (Some(0), ""), "{flags}");
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_message_is_acknowledged_in_each_qos_and_version() {
    let raw = Raw::start();
    for flags in [
        "--qos 0 --mqtt 3.1.1 --connections 3",
        "--qos 1 --mqtt 5 --connections 10 --window 32 --token t",
        "--qos 2 --mqtt 3.1.1 --connections 2 --window 7 --payload-bytes 7 --token t",
        "--qos 2 --mqtt 5 --connections 2 --window 5000 --payload-bytes 100",
    ] {
        let figures = raw.figures(flags);
        assert!(figures["messages"].as_u64().unwrap() > 0, "{figures}");
        for name in ["unacknowledged", "refused", "lost_connections"] {
            assert_eq!(figures[name], 0, "{flags}: {figures}");
        }
        let has_acks = !flags.contains("--qos 0");
        assert_eq!(figures["ack_us"]["p50"].is_u64(), has_acks, "{figures}");
    }
}

#[test]
fn a_rate_is_kept_and_the_brokers_cpu_is_counted() {
    let raw = Raw::start();
    let pid = raw.process.id();
    let flags = format!("--rate 500 --connections 20 --source 127.0.0.2 --broker-pid {pid}");
    let figures = raw.figures(&flags);
    let messages = figures["messages"].as_u64().unwrap();
    // A busy machine may be late with the last ones, never early.
    assert!((250..=500).contains(&messages), "{figures}");
    let cpu = figures["cpu_us_per_message"].as_f64().unwrap();
    assert!(cpu > 0.0, "{figures}");
    assert!(figures["rss_kib"].as_u64().unwrap() > 0, "{figures}");
}

#[test]
fn a_broker_that_goes_away_is_no_result() {
    let mut raw = Raw::start();
    let running = Command::new(TOLLGATE)
        .args(["bench", "ingest", "--seconds", "3600", "--port", &raw.port])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its CPU time shows that the load has begun.
    let stat = format!("/proc/{}/schedstat", raw.process.id());
    let ns = || -> u64 {
        let text = std::fs::read_to_string(&stat).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let before = ns();
    while ns() < before + 100_000_000 {
        std::thread::yield_now();
    }
    raw.process.kill().unwrap();
    let done = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("connections were lost"), "{said}");
}

#[test]
fn a_port_without_a_broker_is_code_5() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let done = Command::new(TOLLGATE)
        .args(["bench", "ingest", "--port", &port])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(5));
}
