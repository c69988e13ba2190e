//! The load: many connections on one thread, each with its window of messages in flight.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{
    CliError,
    bench::{
        BenchError, frame,
        latency::Latencies,
        link::Link,
        options::Plan,
        packets::{self, Block, PINGREQ},
        poll::Poll,
        process::{self, Sample},
        report::{self, Report},
        tls::Tls,
    },
};

/// How long the last acks may take after the last message.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Bytes read at once: the acks of 16,000 messages.
const READ_BYTES: usize = 64 * 1024;
/// How long a wait lasts when nothing happens: the end of the run must be noticed.
const WAIT: Duration = Duration::from_millis(50);
/// epoll waits in milliseconds; whatever is due sooner is waited for by looking again and again,
/// because a late message would look like a slow broker.
const WAIT_LEAST: Duration = Duration::from_millis(2);

/// Runs the load and prints what came out.
pub(super) fn run(plan: &Plan) -> Result<(), CliError> {
    let mut load = Load::open(plan)?;
    let before = sample(plan)?;
    load.run().map_err(BenchError::System)?;
    let after = sample(plan)?;
    let cpu_ns = match (before, after) {
        (Some(before), Some(after)) => after.since(&before),
        _ => BTreeMap::new(),
    };
    let rss = plan.broker_pid.map(process::rss_kib).transpose();
    let report = load.report(&cpu_ns, rss.map_err(BenchError::System)?);
    report::print(&report, plan.json)?;
    Ok(report.verdict()?)
}

fn sample(plan: &Plan) -> Result<Option<Sample>, BenchError> {
    let taken = plan.broker_pid.map(Sample::take).transpose();
    taken.map_err(BenchError::System)
}

/// A load test under way.
struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    links: Vec<Link>,
    block: Block,
    buffer: Vec<u8>,
    started: Instant,
    elapsed: Duration,
    is_sending: bool,
    tally: Tally,
    /// The connection whose turn it is in a paced run.
    turn: usize,
    /// Connections of a QoS 0 run that take more.
    writable: Vec<usize>,
}

/// What happened so far.
struct Tally {
    latencies: Latencies,
    sent: u64,
    done: u64,
    refused: u64,
    lost: u64,
    /// PINGREQs without an answer (QoS 0).
    pings: u64,
}

impl<'a> Load<'a> {
    /// Opens every connection, one after the other.
    fn open(plan: &'a Plan) -> Result<Load<'a>, BenchError> {
        raise_file_limit();
        let tls = match &plan.cafile {
            Some(cafile) => Some(Tls::new(cafile, &plan.host)?),
            None => None,
        };
        let payload = packets::payload(plan.payload_bytes);
        let (window, per_block) = match (plan.qos, plan.rate) {
            (_, Some(_)) => (plan.window, 1),
            (0, None) => (1, u32::MAX),
            (_, None) => (plan.window, plan.window),
        };
        let block = Block::new(plan.version, plan.qos, &plan.topic, &payload, per_block)?;
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(plan.connections);
        let run = std::process::id();
        let mut tokens = plan.tokens.iter().cycle();
        let mut sources = plan.sources.iter().cycle();
        for number in 0..plan.connections {
            let token = tokens.next().map_or("", String::as_str);
            let client_id = format!("bench-{run}-{number}");
            let connect = packets::connect(plan.version, &client_id, token, &plan.password)?;
            let source = sources.next().copied();
            let stream = Link::open(plan.address, source, tls.as_ref(), &connect, number)?;
            let link = Link::new(stream, window);
            poll.add(&link, number)?;
            links.push(link);
        }
        Ok(Load {
            plan,
            poll,
            links,
            block,
            buffer: vec![0; READ_BYTES],
            started: Instant::now(),
            elapsed: Duration::ZERO,
            is_sending: true,
            tally: Tally::new(),
            turn: 0,
            writable: Vec::new(),
        })
    }

    /// Sends until the time is over, then waits for what is outstanding.
    fn run(&mut self) -> io::Result<()> {
        let mut keys = Vec::new();
        self.started = Instant::now();
        if self.plan.rate.is_none() {
            (0..self.links.len()).for_each(|key| self.attempt(key, Load::fill));
        }
        loop {
            self.elapsed = self.started.elapsed();
            if self.is_sending && self.elapsed >= self.plan.duration {
                self.stop_sending();
            }
            let is_over = self.elapsed >= self.plan.duration + DRAIN_LIMIT;
            if !self.is_sending && (self.outstanding() == 0 || is_over) || self.all_lost() {
                return Ok(());
            }
            let wait = self.send_what_is_due();
            self.poll.wait(wait, &mut keys)?;
            for &key in &keys {
                self.attempt(key, Load::serve);
            }
        }
    }

    /// Does something with a connection; an error ends that connection and no other.
    fn attempt(&mut self, key: usize, act: fn(&mut Self, usize) -> io::Result<()>) {
        let is_open = self.links.get(key).is_some_and(|link| link.is_open);
        if is_open && act(self, key).is_err() {
            if let Some(link) = self.links.get_mut(key) {
                link.is_open = false;
            }
            self.tally.lost += 1;
        }
    }

    /// Sends what the clock or free sockets ask for; how long to wait for events afterwards.
    fn send_what_is_due(&mut self) -> Duration {
        if !self.is_sending {
            return WAIT;
        }
        let Some(rate) = self.plan.rate else {
            let writable = std::mem::take(&mut self.writable);
            for &key in &writable {
                self.attempt(key, Load::fill);
            }
            return if self.writable.is_empty() {
                WAIT
            } else {
                Duration::ZERO
            };
        };
        let due = self.elapsed.as_micros() * u128::from(rate) / 1_000_000;
        let mut passed_over = 0;
        while u128::from(self.tally.sent) < due && passed_over < self.links.len() {
            let key = self.turn;
            self.turn = (key + 1) % self.links.len();
            let before = self.tally.sent;
            self.attempt(key, Load::send_one);
            passed_over = if self.tally.sent > before {
                0
            } else {
                passed_over + 1
            };
        }
        let interval = Duration::from_secs(1) / rate;
        if interval < WAIT_LEAST {
            Duration::ZERO
        } else {
            WAIT_LEAST / 2
        }
    }

    /// One message of a paced run, if the connection's window has room.
    fn send_one(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        let has_room = self.plan.qos == 0 || link.in_flight() < u64::from(self.plan.window);
        if has_room && link.is_flushed() {
            self.tally.sent += link.publish(&mut self.block, 1, now_us)?;
        }
        Ok(())
    }

    /// As many messages as the window has room for; with QoS 0 as many as one write takes.
    fn fill(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        if self.plan.qos == 0 {
            if link.is_flushed() {
                self.tally.sent += link.publish(&mut self.block, u64::MAX, now_us)?;
            }
            if link.is_flushed() {
                self.writable.push(key);
            }
            return Ok(());
        }
        let mut room = u64::from(self.plan.window).saturating_sub(link.in_flight());
        while room > 0 && link.is_flushed() {
            let sent = link.publish(&mut self.block, room, now_us)?;
            self.tally.sent += sent;
            room = room.saturating_sub(sent);
        }
        Ok(())
    }

    /// A connection that can be read or written.
    fn serve(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        let was_full = !link.is_flushed();
        link.flush()?;
        while let Some((len, is_more)) = link.read(&mut self.buffer)? {
            let bytes = self.buffer.get(..len).unwrap_or_default();
            match link.joined(bytes) {
                Some(joined) => take(link, &mut self.tally, &joined, now_us)?,
                None => take(link, &mut self.tally, bytes, now_us)?,
            }
            if !is_more {
                break;
            }
        }
        let refills = self.plan.qos > 0 || was_full;
        if self.is_sending && self.plan.rate.is_none() && refills {
            self.fill(key)?;
        }
        Ok(())
    }

    /// QoS 0 has no acks: an answered PINGREQ says that all before it was read.
    fn stop_sending(&mut self) {
        self.is_sending = false;
        if self.plan.qos == 0 {
            (0..self.links.len()).for_each(|key| self.attempt(key, Load::ping));
        }
    }

    fn ping(&mut self, key: usize) -> io::Result<()> {
        if let Some(link) = self.links.get_mut(key) {
            self.tally.pings += 1;
            link.send(&PINGREQ)?;
        }
        Ok(())
    }

    /// Messages, with QoS 0 connections, that are not answered yet.
    fn outstanding(&self) -> u64 {
        if self.plan.qos == 0 {
            let lost = self.tally.lost.min(self.tally.pings);
            return self.tally.pings - lost;
        }
        let open = self.links.iter().filter(|link| link.is_open);
        open.map(Link::in_flight).sum()
    }

    fn all_lost(&self) -> bool {
        self.tally.lost >= self.links.len() as u64
    }

    fn now_us(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_micros()).unwrap_or(u32::MAX)
    }

    fn report(&self, cpu_ns: &BTreeMap<&'static str, u64>, rss_kib: Option<u64>) -> Report {
        let is_acked = self.plan.qos > 0;
        let done = if is_acked {
            self.tally.done
        } else {
            self.tally.sent
        };
        let latencies = is_acked.then_some(&self.tally.latencies);
        let mut report = Report::new(self.plan, done, self.elapsed, latencies);
        report.unacknowledged = match is_acked {
            true => self.tally.sent - self.tally.done,
            false => self.tally.pings,
        };
        report.refused = self.tally.refused;
        report.lost_connections = self.tally.lost;
        report.set_cost(cpu_ns, rss_kib);
        report
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            latencies: Latencies::new(),
            sent: 0,
            done: 0,
            refused: 0,
            lost: 0,
            pings: 0,
        }
    }
}

/// Counts the acks in `bytes`. They come in the order of the messages [MQTT-4.6.0-2]; a broker
/// that does otherwise loses the connection and its figures.
fn take(link: &mut Link, tally: &mut Tally, bytes: &[u8], now_us: u32) -> io::Result<()> {
    let mut releases = Vec::new();
    let mut rest = bytes;
    while let Some(packet) = frame::split(rest) {
        rest = packet.rest;
        let id = || packet.body.first_chunk().map(|id| u16::from_be_bytes(*id));
        let is_refusal = packet.body.get(2).is_some_and(|&reason| reason >= 0x80);
        match packet.first {
            // PUBREC of a message that goes on: PUBREL next.
            0x50 if !is_refusal => {
                expect(id(), link.received, link.sent)?;
                releases.extend([0x62, 2]);
                releases.extend(packets::id_of(link.received).to_be_bytes());
                link.received += 1;
            }
            0x40 | 0x50 | 0x70 => {
                expect(id(), link.done, link.sent)?;
                tally
                    .latencies
                    .add(now_us.saturating_sub(link.sent_us(link.done)));
                link.done += 1;
                tally.done += 1;
                tally.refused += u64::from(is_refusal);
            }
            0xd0 => tally.pings = tally.pings.saturating_sub(1),
            // DISCONNECT, or something that nobody asked for.
            _ => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
    link.keep(rest);
    if releases.is_empty() {
        return Ok(());
    }
    link.send(&releases)
}

fn expect(id: Option<u16>, number: u64, sent: u64) -> io::Result<()> {
    if id == Some(packets::id_of(number)) && number < sent {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// A connection needs a descriptor: the soft limit is raised to the hard one. What that does not
/// cover fails when it is opened, with the system's own words.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}
