//! `tollgate bench connect`: how fast a broker takes connections in, one after the other over and
//! over, or all at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use serde::Serialize;

use crate::cli::{
    self, CliError,
    bench::{
        BenchError,
        cost::{Cost, Meter},
        interrupt,
        opener::{self, Opened, Opener},
        options::CONNECTIONS_MAX,
        packets::DISCONNECT,
        probe::{Probe, Probes},
        target::{self, Target, TargetArguments},
    },
    print_json,
    progress::Progress,
    table::aligned,
};

/// How long a wait lasts when nothing happens.
const WAIT: Duration = Duration::from_millis(20);
/// The same where connections are paced: each may start so much late.
const WAIT_PACED: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(super) struct Connect {
    #[command(flatten)]
    target: TargetArguments,
    /// How long connections are opened, each closed after its CONNACK
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        conflicts_with = "at_once"
    )]
    #[arg(value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Connections on their way at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        conflicts_with = "at_once"
    )]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    in_progress: u32,
    /// Connections opened in a second, evenly paced [default: as fast as the broker takes them]
    #[arg(long, value_name = "N", conflicts_with = "at_once")]
    #[arg(value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Open so many at once instead, keep them, and measure until all are in
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    at_once: Option<u32>,
    /// Resume TLS sessions by tickets; with --at-once each connection has had one before
    #[arg(long, requires = "tls")]
    resume: bool,
    /// How long one connection may take
    #[arg(long, value_name = "N", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u64).range(1..=3600))]
    limit_s: u64,
    /// Beside --at-once, one connection with this token publishes at a steady rate; its acks are
    /// measured before and during the storm
    #[arg(long, value_name = "TOKEN", requires = "at_once")]
    probe_token: Option<String>,
    /// Topic of the probe
    #[arg(long, default_value = "v1/devices/me/telemetry")]
    probe_topic: String,
    /// Messages a second of the probe, QoS 1
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    probe_rate: u32,
    /// How long the probe publishes before the storm
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u64).range(1..=600))]
    quiet_s: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    broker: String,
    mqtt: &'static str,
    tls: bool,
    /// True when all were started together.
    at_once: bool,
    interrupted: bool,
    elapsed_s: f64,
    connections_per_s: f64,
    #[serde(flatten)]
    opened: Opened,
    #[serde(flatten)]
    cost: Cost,
    probe: Option<Probes>,
}

/// The figures, and whether they are a result.
type Outcome = (Report, Result<(), BenchError>);

pub(super) fn run(options: &Connect) -> Result<(), CliError> {
    target::check_topic("--probe-topic", &options.probe_topic)?;
    let target = options.target.checked(options.resume)?;
    interrupt::watch().map_err(BenchError::System)?;
    let (report, verdict) = match options.at_once {
        Some(count) => storm(options, &target, count as usize)?,
        None => churn(options, &target)?,
    };
    if options.target.json {
        print_json(&report)?;
    } else {
        cli::print(&report.table())?;
    }
    Ok(verdict?)
}

impl Connect {
    /// Connections that are to be started so long after the first.
    fn due(&self, since: Duration) -> u128 {
        self.rate.map_or(u128::MAX, |rate| {
            since.as_micros() * u128::from(rate) / 1_000_000 + 1
        })
    }
}

/// Connections that come and go, as fast as the broker takes them or at a rate.
fn churn(options: &Connect, target: &Target) -> Result<Outcome, BenchError> {
    let limit = Duration::from_secs(options.limit_s);
    let mut opener = Opener::new(target, 'c', 1, limit)?;
    let progress = Progress::new(options.seconds, "s");
    let meter = Meter::start(options.target.broker_pid, options.target.perf)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(options.seconds);
    // Places that are free now; first all of them.
    let mut free: Vec<usize> = (0..options.in_progress as usize).collect();
    let (mut number, mut ended) = (0, Vec::new());
    let wait = options.rate.map_or(WAIT, |_| WAIT_PACED);
    let elapsed = loop {
        let is_over = Instant::now() >= end || interrupt::is_asked();
        if is_over && opener.in_progress() == 0 {
            break began.elapsed();
        }
        let due = options.due(began.elapsed());
        while !is_over
            && (number as u128) < due
            && let Some(key) = free.pop()
        {
            opener.start(key, number)?;
            number += 1;
        }
        opener.turn(wait, &mut ended)?;
        for &key in &ended {
            if let Some(mut link) = opener.take(key) {
                let _ = link.send(&DISCONNECT); // it ends either way
            }
        }
        free.append(&mut ended);
        if opener.in_progress() == 0 && !is_over {
            // Starts that fail at once end no turn: all places are free again.
            free = (0..options.in_progress as usize).collect();
        }
        progress.set(began.elapsed().as_secs());
    };
    let cost = meter.finish(opener.tally.accepted, || Ok::<(), BenchError>(()))?;
    // Refusals are a result here, as long as they are not all there is.
    let verdict = match opener.tally.accepted {
        0 => opener.tally.expect_all(target),
        _ => Ok(()),
    };
    let report = report(target, false, elapsed, &opener, cost, None);
    Ok((report, verdict))
}

/// All at once, and a probe beside them.
fn storm(options: &Connect, target: &Target, count: usize) -> Result<Outcome, BenchError> {
    if options.resume {
        collect_tickets(options, target, count)?;
    }
    let probe = options.probe_token.as_deref().map(|token| {
        Probe::start(
            target.with_token(token),
            &options.probe_topic,
            options.probe_rate,
        )
    });
    let probe = probe.transpose()?;
    if probe.is_some() {
        wait_quietly(Duration::from_secs(options.quiet_s));
    }
    let limit = Duration::from_secs(options.limit_s);
    let mut opener = Opener::new(target, 'c', 1, limit)?;
    if probe.is_some() {
        opener.give_way();
    }
    let progress = Progress::new(count as u64, "connections");
    let meter = Meter::start(options.target.broker_pid, options.target.perf)?;
    if let Some(probe) = &probe {
        probe.storm();
    }
    let began = Instant::now();
    opener.open_all(count, count, &progress)?;
    let elapsed = began.elapsed();
    let probes = probe.map(Probe::finish).transpose()?;
    let cost = meter.finish(opener.tally.accepted, || Ok::<(), BenchError>(()))?;
    let verdict = opener.tally.expect_all(target); // everybody is to be let in
    let report = report(target, true, elapsed, &opener, cost, probes);
    Ok((report, verdict))
}

/// A stretch of time in which only the probe works; Ctrl-C ends it.
fn wait_quietly(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end && !interrupt::is_asked() {
        thread::sleep(WAIT);
    }
}

/// One connection for each of the storm, closed again: what a fleet was before it came back.
fn collect_tickets(options: &Connect, target: &Target, count: usize) -> Result<(), BenchError> {
    let progress = Progress::new(count as u64, "tickets");
    let limit = Duration::from_secs(options.limit_s);
    let mut opener = Opener::new(target, 'c', 1, limit)?;
    target.tls.iter().for_each(|tls| tls.only_collects(true));
    opener.open_all(count, opener::IN_PROGRESS, &progress)?;
    target.tls.iter().for_each(|tls| tls.only_collects(false));
    opener.tally.expect_all(target)?;
    for mut link in opener.into_links().1 {
        let _ = link.send(&DISCONNECT); // it ends either way
    }
    Ok(())
}

fn report(
    target: &Target,
    at_once: bool,
    elapsed: Duration,
    opener: &Opener<'_>,
    cost: Cost,
    probe: Option<Probes>,
) -> Report {
    let opened = opener.tally.opened();
    let elapsed_s = elapsed.as_secs_f64();
    Report {
        broker: target.address.to_string(),
        mqtt: target.version.name(),
        tls: target.tls.is_some(),
        at_once,
        interrupted: interrupt::is_asked(),
        elapsed_s,
        connections_per_s: opened.accepted as f64 / elapsed_s,
        opened,
        cost,
        probe,
    }
}

impl Report {
    fn table(&self) -> String {
        let row = |name: String, value: String| [name, value];
        let opened = &self.opened;
        let mut rows = vec![
            row(
                "accepted".to_owned(),
                format!("{} in {:.2} s", opened.accepted, self.elapsed_s),
            ),
            row(
                "rate".to_owned(),
                format!("{:.0}/s", self.connections_per_s),
            ),
        ];
        rows.extend(opened.connack_us.iter().flat_map(|t| t.rows("CONNACK")));
        if self.tls {
            let resumed = opened.resumed_tls.to_string();
            rows.push(row("TLS sessions resumed".to_owned(), resumed));
        }
        let refused = opened.refused.iter();
        rows.extend(refused.map(|(code, n)| row(format!("refused, {code}"), n.to_string())));
        let failed = opened.failed.iter();
        rows.extend(failed.map(|(what, n)| row(format!("failed, {what}"), n.to_string())));
        rows.extend(self.cost.rows("connection"));
        rows.extend(self.probe.iter().flat_map(Probes::rows));
        aligned(["FIGURE", "VALUE"], &rows)
    }
}
