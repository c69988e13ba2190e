//! `tollgate bench idle`: connections that only stay, and the memory that each of them costs.

use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use serde::Serialize;

use crate::cli::{
    self, CliError,
    bench::{
        BenchError, cost, frame,
        ingest::CONNECT_LIMIT,
        interrupt,
        link::Link,
        opener::{self, Opened, Opener},
        options::CONNECTIONS_MAX,
        packets::PINGREQ,
        poll::Poll,
        target::{Target, TargetArguments},
    },
    print_json,
    progress::Progress,
    table::aligned,
};

/// How long the sample may take to answer PINGREQ.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// How long a wait lasts when nothing happens.
const WAIT: Duration = Duration::from_millis(50);
/// Bytes read at once.
const READ_BYTES: usize = 4096;

#[derive(Debug, Args)]
pub(super) struct Idle {
    #[command(flatten)]
    target: TargetArguments,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// How long they are held once all are open
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = value_parser!(u64).range(0..=86_400))]
    seconds: u64,
    /// So many of them, evenly spread, are asked for a sign of life at the end
    #[arg(long, value_name = "N", default_value_t = 100)]
    ping: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    broker: String,
    mqtt: &'static str,
    tls: bool,
    interrupted: bool,
    connections: usize,
    opened: Opened,
    opened_in_s: f64,
    held_s: f64,
    /// Resident memory of the broker before the first connection, with all of them open, and after
    /// they were held.
    rss_before_kib: Option<u64>,
    rss_open_kib: Option<u64>,
    rss_held_kib: Option<u64>,
    /// From before to held.
    rss_kib_per_connection: Option<f64>,
    pinged: u64,
    silent: u64,
    lost_connections: u64,
}

pub(super) fn run(options: &Idle) -> Result<(), CliError> {
    let target = options.target.checked(false)?;
    interrupt::watch().map_err(BenchError::System)?;
    let report = hold(options, &target)?;
    if options.target.json {
        print_json(&report)?;
    } else {
        cli::print(&report.table())?;
    }
    Ok(report.verdict()?)
}

fn hold(options: &Idle, target: &Target) -> Result<Report, BenchError> {
    let rss_kib = || options.target.broker_pid.map(cost::rss_kib).transpose();
    let rss_before_kib = rss_kib()?;
    let count = options.connections as usize;
    let began = Instant::now();
    let mut opener = Opener::new(target, 'i', 1, CONNECT_LIMIT)?;
    let progress = Progress::new(count as u64, "connections");
    opener.open_all(count, opener::IN_PROGRESS, &progress)?;
    drop(progress);
    opener.tally.expect_all(target)?;
    let (opened, opened_in) = (opener.tally.opened(), began.elapsed());
    let (poll, links) = opener.into_links();
    let connections = links.len();
    let mut held = Held {
        poll,
        links,
        lost: 0,
        answered: 0,
    };
    let rss_open_kib = rss_kib()?;
    let began = Instant::now();
    held.wait(Duration::from_secs(options.seconds))?;
    let held_for = began.elapsed();
    let rss_held_kib = rss_kib()?;
    let pinged = held.ping(options.ping as usize)?;
    let grown = |(before, after): (u64, u64)| after as f64 - before as f64;
    Ok(Report {
        broker: target.address.to_string(),
        mqtt: target.version.name(),
        tls: target.tls.is_some(),
        interrupted: interrupt::is_asked(),
        connections,
        opened,
        opened_in_s: opened_in.as_secs_f64(),
        held_s: held_for.as_secs_f64(),
        rss_before_kib,
        rss_open_kib,
        rss_held_kib,
        rss_kib_per_connection: rss_before_kib
            .zip(rss_held_kib)
            .map(grown)
            .map(|kib| kib / connections.max(1) as f64),
        pinged,
        silent: pinged.saturating_sub(held.answered),
        lost_connections: held.lost,
    })
}

/// Connections that nothing is sent on.
struct Held {
    poll: Poll,
    links: Vec<Link>,
    lost: u64,
    answered: u64,
}

impl Held {
    /// Notices connections that end; nothing else is expected to happen.
    fn wait(&mut self, duration: Duration) -> Result<(), BenchError> {
        let progress = Progress::new(duration.as_secs(), "s");
        let began = Instant::now();
        while began.elapsed() < duration && !interrupt::is_asked() {
            self.turn()?;
            progress.set(began.elapsed().as_secs());
        }
        Ok(())
    }

    /// Asks a sample and waits for its answers; how many were asked.
    fn ping(&mut self, sample: usize) -> Result<u64, BenchError> {
        let step = (self.links.len() / sample.max(1)).max(1);
        let mut asked = 0;
        for link in self.links.iter_mut().step_by(step).take(sample) {
            if link.is_open {
                asked += 1;
                link.is_open = link.send(&PINGREQ).is_ok();
                self.lost += u64::from(!link.is_open);
            }
        }
        let end = Instant::now() + PING_LIMIT;
        while self.answered < asked && Instant::now() < end {
            self.turn()?;
        }
        Ok(asked)
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        let mut keys = Vec::new();
        self.poll.wait(WAIT, &mut keys)?;
        for key in keys {
            let link = self.links.get_mut(key).filter(|link| link.is_open);
            let Some(link) = link else { continue };
            match pongs(link) {
                Ok(pongs) => self.answered += pongs,
                Err(_) => {
                    link.is_open = false;
                    self.lost += 1;
                }
            }
        }
        Ok(())
    }
}

/// PINGRESPs that have come. Whatever else a broker sends is read and dropped.
fn pongs(link: &mut Link) -> std::io::Result<u64> {
    let (mut pongs, mut buffer) = (0, [0; READ_BYTES]);
    link.flush()?;
    while let Some((len, is_more)) = link.read(&mut buffer)? {
        let new = buffer.get(..len).unwrap_or_default();
        let joined = link.joined(new);
        let mut rest = joined.as_deref().unwrap_or(new);
        while let Some(packet) = frame::split(rest) {
            pongs += u64::from(packet.first == 0xd0);
            rest = packet.rest;
        }
        link.keep(rest);
        if !is_more {
            break;
        }
    }
    Ok(pongs)
}

impl Report {
    fn verdict(&self) -> Result<(), BenchError> {
        if self.lost_connections + self.silent == 0 {
            return Ok(());
        }
        Err(BenchError::Idle {
            lost: self.lost_connections,
            silent: self.silent,
        })
    }

    fn table(&self) -> String {
        let row = |name: &str, value: String| [name.to_owned(), value];
        let mut rows = vec![
            row(
                "connections",
                format!("{} in {:.2} s", self.connections, self.opened_in_s),
            ),
            row("held", format!("{:.1} s", self.held_s)),
        ];
        for (name, kib) in [
            ("RSS before", self.rss_before_kib),
            ("RSS with all open", self.rss_open_kib),
            ("RSS after holding", self.rss_held_kib),
        ] {
            rows.extend(kib.map(|kib| row(name, format!("{kib} KiB"))));
        }
        let each = self.rss_kib_per_connection;
        rows.extend(each.map(|kib| row("RSS per connection", format!("{kib:.2} KiB"))));
        let answered = self.pinged - self.silent;
        rows.push(row(
            "PINGREQ answered",
            format!("{answered} of {}", self.pinged),
        ));
        rows.push(row("connections lost", self.lost_connections.to_string()));
        aligned(["FIGURE", "VALUE"], &rows)
    }
}
