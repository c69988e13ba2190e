//! `tollgate bench fanout`: publishers and subscribers at once, and how long a message takes from
//! one to the other.

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
/// How long a wait lasts when nothing happens.
const WAIT: Duration = Duration::from_millis(20);
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
    let plan = pace.plan(&target, options.qos, &options.publish_topic, payload);
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
    let mut receivers = Receivers::subscribe(options, target)?;
    let (mut load, _) = ingest::open(target, plan, publishers)?;
    for (key, link) in (publishers..).zip(&receivers.links) {
        load.poll.add(link, key)?;
    }
    let flags = &options.target;
    let meter = Meter::start(flags.broker_pid, flags.perf)?;
    let progress = Progress::new(load.seconds(), "s");
    let (mut told, mut others) = (Instant::now(), Vec::new());
    load.start();
    while load.turn(&mut others)? {
        receivers.serve(&mut load, &mut others);
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            ingest::tell(&progress, &load);
        }
    }
    let expected = receivers.expected(options, &load);
    let elapsed = receivers.drain(&mut load, expected)?;
    let cost = meter.finish(receivers.delivered, || Ok::<(), BenchError>(()))?;
    let (tally, elapsed_s) = (&load.tally, elapsed.as_secs_f64());
    Ok(Report {
        broker: target.address.to_string(),
        mqtt: target.version.name(),
        tls: target.tls.is_some(),
        qos: options.qos,
        payload_bytes: options.pace.payload_bytes(),
        publishers,
        subscribers: receivers.links.len(),
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
        let own = options.subscribe_token.as_deref();
        let own = own.map(|token| target.with_token(token));
        let target = own.as_ref().unwrap_or(target);
        let count = options.subscribers as usize;
        let mut opener = Opener::new(target, 's', 1, CONNECT_LIMIT)?;
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

    /// How many deliveries are due for what was sent.
    fn expected(&self, options: &Fanout, load: &Load<'_>) -> u64 {
        let filters = 0..self.links.len();
        let filters: Vec<String> = filters
            .map(|number| payload::fill_in(&options.subscribe_filter, number))
            .collect();
        let is_for_all = !payload::is_own(&options.publish_topic);
        let mut expected = 0;
        let mut receivers = None;
        for (number, link) in load.links.iter().enumerate() {
            let count = match receivers.filter(|_| is_for_all) {
                Some(count) => count,
                None => {
                    let topic = payload::fill_in(&options.publish_topic, number);
                    let matching = filters.iter();
                    matching
                        .filter(|filter| packets::matches(&topic, filter))
                        .count() as u64
                }
            };
            receivers = Some(count);
            expected += link.sent * count;
        }
        expected
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
