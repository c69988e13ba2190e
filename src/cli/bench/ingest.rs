//! `tollgate bench ingest`: publishes over many connections and measures the acks.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{
    self, CliError,
    bench::{
        BenchError,
        cost::{Cost, Meter},
        interrupt,
        latency::Times,
        ledger::{Balance, Ledger},
        load::{Load, Plan},
        opener::{self, Opened, Opener},
        options::Ingest,
        target::Target,
    },
    print_json,
    progress::Progress,
    table::aligned,
};

/// How long a broker may take for one CONNECT, TLS included.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How often the progress is told.
const TELL_INTERVAL: Duration = Duration::from_millis(200);

/// Figures of one run. Units are in the names; "ack" is the last one of a message's QoS.
#[derive(Debug, Serialize)]
struct Report {
    broker: String,
    mqtt: &'static str,
    tls: bool,
    connections: usize,
    qos: u8,
    payload_bytes: usize,
    window: Option<u32>,
    asked_per_s: Option<u32>,
    /// True when Ctrl-C ended it.
    interrupted: bool,
    opened: Opened,
    messages: u64,
    elapsed_s: f64,
    messages_per_s: f64,
    ack_us: Option<Times>,
    #[serde(flatten)]
    cost: Cost,
    ledger: Option<Balance>,
    unacknowledged: u64,
    refused: u64,
    lost_connections: u64,
}

pub(super) fn run(options: &Ingest) -> Result<(), CliError> {
    let (target, plan) = options.checked()?;
    interrupt::watch().map_err(BenchError::System)?;
    let ledger = options
        .ledger_url
        .as_deref()
        .map(Ledger::open)
        .transpose()?;
    let (mut load, opened) = open(&target, &plan, options.connections())?;
    load.look();
    if let Some(error) = target.taken_over(load.tally.lost, options.connections()) {
        return Err(error.into());
    }
    let flags = &options.target;
    let meter = Meter::start(flags.broker_pid, flags.perf).map_err(BenchError::System)?;
    send(&mut load, &target)?;
    let mut balance = None;
    let units = done(&plan, &load);
    let cost = meter.finish(units, || {
        balance = (ledger.as_ref())
            .map(|ledger| ledger.settle(load.tally.sent))
            .transpose()?;
        Ok::<(), BenchError>(())
    })?;
    let report = Report::new(&target, &plan, &load, opened, cost, balance);
    if flags.json {
        print_json(&report)?;
    } else {
        cli::print(&report.table())?;
    }
    Ok(report.verdict(load.tally.sent)?)
}

/// Opens every connection; none may be missing.
pub(super) fn open<'a>(
    target: &Target,
    plan: &'a Plan,
    connections: usize,
) -> Result<(Load<'a>, Opened), BenchError> {
    let progress = Progress::new(connections as u64, "connections");
    let mut opener = Opener::new(target, 'p', plan.window, CONNECT_LIMIT)?;
    opener.open_all(connections, opener::IN_PROGRESS, &progress)?;
    opener.tally.expect_all(target)?;
    let opened = opener.tally.opened();
    let (poll, links) = opener.into_links();
    Ok((Load::new(plan, poll, links)?, opened))
}

/// Connections that take each other's place end it: that is no load.
fn send(load: &mut Load<'_>, target: &Target) -> Result<(), BenchError> {
    let progress = Progress::new(load.seconds(), "s");
    let (mut told, mut others) = (Instant::now(), Vec::new());
    load.start();
    while load.turn(&mut others)? {
        if let Some(error) = target.taken_over(load.tally.lost, load.links.len()) {
            return Err(error);
        }
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            tell(&progress, load);
        }
    }
    Ok(())
}

/// Seconds so far, and what they brought.
pub(super) fn tell(progress: &Progress, load: &Load<'_>) {
    progress.set(load.elapsed.as_secs());
    progress.say(|| {
        let rate = load.tally.sent as f64 / load.elapsed.as_secs_f64();
        format!("{} messages, {rate:.0}/s", load.tally.sent)
    });
}

/// Messages whose last ack came; without acks those that were sent.
fn done(plan: &Plan, load: &Load<'_>) -> u64 {
    match plan.qos {
        0 => load.tally.sent,
        _ => load.tally.done,
    }
}

impl Report {
    fn new(
        target: &Target,
        plan: &Plan,
        load: &Load<'_>,
        opened: Opened,
        cost: Cost,
        ledger: Option<Balance>,
    ) -> Report {
        let (tally, elapsed_s) = (&load.tally, load.elapsed.as_secs_f64());
        let messages = done(plan, load);
        Report {
            broker: target.address.to_string(),
            mqtt: target.version.name(),
            tls: target.tls.is_some(),
            connections: load.links.len(),
            qos: plan.qos,
            payload_bytes: plan.payload.render(0).text.len(),
            window: (plan.qos > 0).then_some(plan.window),
            asked_per_s: plan.rate,
            interrupted: interrupt::is_asked(),
            opened,
            messages,
            elapsed_s,
            messages_per_s: messages as f64 / elapsed_s,
            ack_us: tally.latencies.times(),
            cost,
            ledger,
            unacknowledged: match plan.qos {
                0 => tally.pings,
                _ => tally.sent - tally.done,
            },
            refused: tally.refused,
            lost_connections: tally.lost,
        }
    }

    /// An error when the figures are not those of a whole run.
    fn verdict(&self, sent: u64) -> Result<(), BenchError> {
        if self.unacknowledged + self.refused + self.lost_connections > 0 {
            return Err(BenchError::Incomplete {
                lost: self.lost_connections,
                unacknowledged: self.unacknowledged,
                refused: self.refused,
            });
        }
        let acked = if self.qos > 0 { self.messages } else { 0 };
        let verdict = self
            .ledger
            .map(|ledger| ledger.verdict(sent, acked, self.refused));
        verdict.unwrap_or(Ok(()))
    }

    fn table(&self) -> String {
        let row = |name: &str, value: String| [name.to_owned(), value];
        let mut rows = vec![
            row("connections", self.connections.to_string()),
            row(
                "messages",
                format!("{} in {:.2} s", self.messages, self.elapsed_s),
            ),
            row("rate", format!("{:.0}/s", self.messages_per_s)),
        ];
        rows.extend(self.ack_us.iter().flat_map(|times| times.rows("ack")));
        rows.extend(self.cost.rows("message"));
        rows.extend(self.ledger.iter().flat_map(Balance::rows));
        if self.interrupted {
            rows.push(row("ended by", "Ctrl-C".to_owned()));
        }
        aligned(["FIGURE", "VALUE"], &rows)
    }
}
