//! `tollgate bench fanout`: publishers and subscribers at once, and how long a message takes from
//! one to the other.
//!
//! At QoS 1 the acks hold the publishers back, at QoS 0 nothing does: an unbounded run says what a
//! broker drops. With `--window` publishers wait for the deliveries instead: each sends half a
//! window when half of all that is under way was delivered.

use std::{
    io,
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use serde::Serialize;

use crate::cli::{
    self, CliError,
    bench::{
        BenchError,
        cost::{Cost, Meter},
        frame::{self, Frame},
        ingest::{self, CONNECT_LIMIT},
        interrupt,
        latency::{Latencies, Times},
        link::Link,
        load::{Load, Plan},
        opener::{self, Opener},
        options::{CONNECTIONS_MAX, Pace},
        packets,
        payload::{self, STAMPED_BYTES_MIN},
        target::{self, Target, TargetArguments},
    },
    print_json,
    progress::Progress,
    table::aligned,
};

/// How long SUBACK may take.
const SUBACK_LIMIT: Duration = Duration::from_secs(10);
/// Deliveries that are still due are waited for as long as some come in this time.
const STILL_LIMIT: Duration = Duration::from_secs(3);
/// Deliveries at QoS 0 that did not come in this time are written off, so that a run goes on.
const LOST_LIMIT: Duration = Duration::from_secs(1);
/// How long a wait lasts when nothing happens.
const WAIT: Duration = Duration::from_millis(20);
/// Mark of the subscribers' client ids.
const MARK: char = 's';
/// How often the progress is told.
const TELL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Fanout {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    pace: Pace,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    publishers: u32,
    /// Connections that subscribe
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    subscribers: u32,
    /// Quality of service of messages and subscriptions
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Topic of every message; may have {connection} in it, the publisher's number
    #[arg(long, value_name = "TOPIC", default_value = "bench/{connection}")]
    publish_topic: String,
    /// What subscribers ask for; may have {connection} in it, the subscriber's number
    #[arg(long, value_name = "FILTER", default_value = "bench/#")]
    subscribe_filter: String,
    /// Token of all subscribers, where it is not one of the publishers'
    #[arg(long, value_name = "TOKEN")]
    subscribe_token: Option<String>,
    /// Sessions of subscribers outlive their connections; the run ends them behind itself
    #[arg(long)]
    kept: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    broker: String,
    mqtt: &'static str,
    tls: bool,
    qos: u8,
    payload_bytes: usize,
    publishers: usize,
    subscribers: usize,
    kept: bool,
    interrupted: bool,
    messages: u64,
    /// Messages times the subscribers whose filter matches them.
    expected: u64,
    delivered: u64,
    elapsed_s: f64,
    messages_per_s: f64,
    deliveries_per_s: f64,
    ack_us: Option<Times>,
    /// From the publisher's send to the subscriber's receive.
    delivery_us: Option<Times>,
    #[serde(flatten)]
    cost: Cost,
    unacknowledged: u64,
    refused: u64,
    lost_connections: u64,
}

pub(super) fn run(options: &Fanout) -> Result<(), CliError> {
    options.pace.check()?;
    target::check_topic("--publish-topic", &options.publish_topic)?;
    if options.pace.payload_bytes() < STAMPED_BYTES_MIN {
        return Err(CliError::Usage(format!(
            "--payload-bytes: the time of sending needs {STAMPED_BYTES_MIN} bytes"
        )));
    }
    let target = options.target.checked(false)?;
    interrupt::watch().map_err(BenchError::System)?;
    let payload = payload::stamped(options.pace.payload_bytes());
    let pace = &options.pace;
    let plan = Plan {
        in_bursts: options.burst().is_some(),
        ..pace.plan(&target, options.qos, &options.publish_topic, payload)
    };
    let report = measure(options, &target, &plan)?;
    if options.target.json {
        print_json(&report)?;
    } else {
        cli::print(&report.table())?;
    }
    Ok(report.verdict()?)
}

fn measure(options: &Fanout, target: &Target, plan: &Plan) -> Result<Report, BenchError> {
    let publishers = options.publishers as usize;
    let subscribers = options.subscribers(target);
    let mut receivers = Receivers::subscribe(options, &subscribers)?;
    let due = receivers.due(options);
    let (mut load, _) = ingest::open(target, plan, publishers)?;
    for (key, link) in (publishers..).zip(&receivers.links) {
        load.poll.add(link, key)?;
    }
    let flags = &options.target;
    let meter = Meter::start(flags.broker_pid, flags.perf)?;
    let progress = Progress::new(load.seconds(), "s");
    let (mut told, mut others) = (Instant::now(), Vec::new());
    load.start();
    let mut bursts = options.burst().map(|half| Bursts::new(half, &due));
    while load.turn(&mut others)? {
        receivers.serve(&mut load, &mut others);
        if let Some(bursts) = &mut bursts {
            let expected = expected(&due, &load);
            bursts.send_if_due(&mut load, expected, receivers.delivered);
        }
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            ingest::tell(&progress, &load);
        }
    }
    let expected = expected(&due, &load);
    let elapsed = receivers.drain(&mut load, expected)?;
    let cost = meter.finish(receivers.delivered, || Ok::<(), BenchError>(()))?;
    if options.kept {
        end_sessions(&subscribers, receivers.links.len())?;
    }
    let (tally, elapsed_s) = (&load.tally, elapsed.as_secs_f64());
    Ok(Report {
        broker: target.address.to_string(),
        mqtt: target.version.name(),
        tls: target.tls.is_some(),
        qos: options.qos,
        payload_bytes: options.pace.payload_bytes(),
        publishers,
        subscribers: receivers.links.len(),
        kept: options.kept,
        interrupted: interrupt::is_asked(),
        messages: tally.sent,
        expected,
        delivered: receivers.delivered,
        elapsed_s,
        messages_per_s: tally.sent as f64 / elapsed_s,
        deliveries_per_s: receivers.delivered as f64 / elapsed_s,
        ack_us: tally.latencies.times(),
        delivery_us: receivers.latencies.times(),
        cost,
        unacknowledged: match options.qos {
            0 => tally.pings,
            _ => tally.sent - tally.done,
        },
        refused: tally.refused,
        lost_connections: tally.lost + receivers.lost,
    })
}

impl Fanout {
    /// Half of the window of publishers that deliveries hold back.
    fn burst(&self) -> Option<u32> {
        let window = self.pace.window().filter(|_| self.qos == 0);
        window.map(|window| window.div_ceil(2))
    }

    /// The broker, for the subscribers.
    fn subscribers(&self, target: &Target) -> Target {
        let target = target.with_sessions(self.kept);
        match &self.subscribe_token {
            Some(token) => target.with_token(token),
            None => target,
        }
    }
}

/// The subscribers, and what came to them.
struct Receivers {
    links: Vec<Link>,
    latencies: Latencies,
    delivered: u64,
    lost: u64,
    acks: Vec<u8>,
}

impl Receivers {
    /// Connects them all and subscribes; a refusal of either is an error.
    fn subscribe(options: &Fanout, target: &Target) -> Result<Receivers, BenchError> {
        let count = options.subscribers as usize;
        let mut opener = Opener::new(target, MARK, 1, CONNECT_LIMIT)?;
        let progress = Progress::new(count as u64, "subscribers");
        opener.open_all(count, opener::IN_PROGRESS, &progress)?;
        opener.tally.expect_all(target)?;
        let (mut poll, mut links) = opener.into_links();
        let mut waiting = links.len();
        for (number, link) in links.iter_mut().enumerate() {
            let filter = payload::fill_in(&options.subscribe_filter, number);
            link.send(&packets::subscribe(target.version, &filter, options.qos)?)?;
        }
        let (end, mut keys) = (Instant::now() + SUBACK_LIMIT, Vec::new());
        while waiting > 0 && Instant::now() < end {
            poll.wait(WAIT, &mut keys)?;
            for &key in &keys {
                let Some(link) = links.get_mut(key) else {
                    continue;
                };
                waiting -= usize::from(subscribed(link, &options.subscribe_filter)?);
            }
        }
        if waiting > 0 {
            return Err(BenchError::NotOpened {
                connections: waiting as u64,
                what: format!("no SUBACK within {SUBACK_LIMIT:?}"),
            });
        }
        links.iter().try_for_each(|link| poll.remove(link))?;
        Ok(Receivers {
            links,
            latencies: Latencies::new(),
            delivered: 0,
            lost: 0,
            acks: Vec::new(),
        })
    }

    /// Takes what came to the subscribers with these keys.
    fn serve(&mut self, load: &mut Load<'_>, keys: &mut Vec<usize>) {
        let first = load.links.len();
        for key in keys.drain(..) {
            let at = key.saturating_sub(first);
            if self.links.get(at).is_some_and(|link| link.is_open)
                && self.receive(at, load).is_err()
            {
                self.lost += 1;
                if let Some(link) = self.links.get_mut(at) {
                    link.is_open = false;
                }
            }
        }
    }

    fn receive(&mut self, at: usize, load: &mut Load<'_>) -> io::Result<()> {
        let now_us = load.now_us();
        let Some(link) = self.links.get_mut(at) else {
            return Ok(());
        };
        link.flush()?;
        while let Some((len, is_more)) = link.read(&mut load.buffer)? {
            let new = load.buffer.get(..len).unwrap_or_default();
            let joined = link.joined(new);
            let mut rest = joined.as_deref().unwrap_or(new);
            while let Some(packet) = frame::split(rest) {
                rest = packet.rest;
                if packet.first >> 4 == 14 {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                if packet.first >> 4 == 3 {
                    self.delivered += 1;
                    let sent_us = payload::sent_us(packet.body).unwrap_or(now_us);
                    self.latencies.add(now_us.saturating_sub(sent_us));
                    if let Some([high, low]) = packet_id(&packet) {
                        self.acks.extend([0x40, 2, high, low]);
                    }
                }
            }
            link.keep(rest);
            if !self.acks.is_empty() {
                link.send(&self.acks)?;
                self.acks.clear();
            }
            if !is_more {
                break;
            }
        }
        Ok(())
    }

    /// How many deliveries are due for a message of each publisher.
    fn due(&self, options: &Fanout) -> Vec<u64> {
        let filters = 0..self.links.len();
        let filters: Vec<String> = filters
            .map(|number| payload::fill_in(&options.subscribe_filter, number))
            .collect();
        let count = |publisher: usize| {
            let topic = payload::fill_in(&options.publish_topic, publisher);
            let matching = filters.iter();
            matching
                .filter(|filter| packets::matches(&topic, filter))
                .count() as u64
        };
        let publishers = options.publishers as usize;
        match payload::is_own(&options.publish_topic) {
            true => (0..publishers).map(count).collect(),
            false => vec![count(0); publishers],
        }
    }

    /// Waits for what is still due; the time from the start to the last delivery.
    fn drain(&mut self, load: &mut Load<'_>, expected: u64) -> io::Result<Duration> {
        let (mut keys, mut last) = (Vec::new(), Instant::now());
        let mut elapsed = load.since_start();
        while self.delivered < expected && last.elapsed() < STILL_LIMIT {
            let before = self.delivered;
            load.poll.wait(WAIT, &mut keys)?;
            keys.retain(|&key| key >= load.links.len());
            self.serve(load, &mut keys);
            if self.delivered > before {
                last = Instant::now();
                elapsed = load.since_start();
            }
        }
        Ok(elapsed)
    }
}

/// How many deliveries are due for what was sent.
fn expected(due: &[u64], load: &Load<'_>) -> u64 {
    let links = load.links.iter().zip(due);
    links.map(|(link, due)| link.sent * due).sum()
}

/// When publishers at QoS 0 send, if the deliveries hold them back.
struct Bursts {
    /// Messages of each publisher.
    half: u64,
    /// Deliveries of them all.
    half_due: u64,
    written_off: u64,
    /// How much had been delivered when something was, and when that was.
    last: (u64, Instant),
}

impl Bursts {
    fn new(half: u32, due: &[u64]) -> Bursts {
        Bursts {
            half: half.into(),
            half_due: u64::from(half) * due.iter().sum::<u64>(),
            written_off: 0,
            last: (0, Instant::now()),
        }
    }

    fn send_if_due(&mut self, load: &mut Load<'_>, expected: u64, delivered: u64) {
        if delivered != self.last.0 {
            self.last = (delivered, Instant::now());
        } else if self.last.1.elapsed() > LOST_LIMIT {
            self.written_off = expected.saturating_sub(delivered);
        }
        let under_way = expected.saturating_sub(delivered + self.written_off);
        if under_way <= self.half_due {
            let bursts = if under_way == 0 { 2 } else { 1 };
            load.burst(self.half * bursts);
        }
    }
}

/// Takes kept sessions over with clean ones, which end with their connections: no later run has
/// them as subscribers.
fn end_sessions(subscribers: &Target, count: usize) -> Result<(), BenchError> {
    let clean = subscribers.with_sessions(false);
    let mut opener = Opener::new(&clean, MARK, 1, CONNECT_LIMIT)?;
    let progress = Progress::new(count as u64, "sessions ended");
    opener.open_all(count, opener::IN_PROGRESS, &progress)?;
    opener.tally.expect_all(&clean)
}

/// True once SUBACK is there; an error when it refuses.
fn subscribed(link: &mut Link, filter: &str) -> Result<bool, BenchError> {
    let mut buffer = [0; 4096];
    link.flush()?;
    while let Some((len, is_more)) = link.read(&mut buffer)? {
        let new = buffer.get(..len).unwrap_or_default();
        let joined = link.joined(new);
        let bytes = joined.as_deref().unwrap_or(new);
        let Some(packet) = frame::split(bytes) else {
            link.keep(bytes);
            if is_more {
                continue;
            }
            break;
        };
        link.keep(packet.rest);
        if packet.first != 0x90 {
            continue; // a retained message, say
        }
        return match packet.body.last() {
            Some(&code) if code >= 0x80 => Err(BenchError::NotSubscribed {
                filter: filter.to_owned(),
                code,
            }),
            _ => Ok(true),
        };
    }
    Ok(false)
}

/// The packet id of a PUBLISH with QoS 1.
fn packet_id(packet: &Frame<'_>) -> Option<[u8; 2]> {
    if packet.first & 0b110 == 0 {
        return None;
    }
    let (topic_len, rest) = packet.body.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    rest.first_chunk().copied()
}

impl Report {
    fn verdict(&self) -> Result<(), BenchError> {
        if self.unacknowledged + self.refused + self.lost_connections > 0 {
            return Err(BenchError::Incomplete {
                lost: self.lost_connections,
                unacknowledged: self.unacknowledged,
                refused: self.refused,
            });
        }
        // With QoS 0 a broker may drop what a subscriber does not take: the figures say it.
        if self.qos == 0 || self.delivered == self.expected {
            return Ok(());
        }
        Err(BenchError::Deliveries {
            expected: self.expected,
            delivered: self.delivered,
        })
    }

    fn table(&self) -> String {
        let row = |name: &str, value: String| [name.to_owned(), value];
        let mut rows = vec![
            row(
                "publishers, subscribers",
                format!("{}, {}", self.publishers, self.subscribers),
            ),
            row(
                "messages",
                format!("{} in {:.2} s", self.messages, self.elapsed_s),
            ),
            row(
                "deliveries",
                format!("{} of {}", self.delivered, self.expected),
            ),
            row("deliveries/s", format!("{:.0}", self.deliveries_per_s)),
        ];
        rows.extend(self.ack_us.iter().flat_map(|times| times.rows("ack")));
        rows.extend(self.delivery_us.iter().flat_map(|t| t.rows("delivery")));
        rows.extend(self.cost.rows("delivery"));
        aligned(["FIGURE", "VALUE"], &rows)
    }
}
