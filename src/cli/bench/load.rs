//! The load: many connections on one thread, each with its window of messages in flight.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::cli::bench::{
    BenchError, frame, interrupt,
    latency::Latencies,
    link::Link,
    packets::{self, Block, PINGREQ, Recipe},
    payload::{self, Template},
    poll::Poll,
    target::Version,
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

/// What is sent, and how fast.
pub(super) struct Plan {
    pub(super) version: Version,
    pub(super) qos: u8,
    pub(super) topic: String,
    pub(super) payload: Template,
    /// Messages in flight per connection; QoS 0 has no acks to wait for.
    pub(super) window: u32,
    /// Messages a second over all connections; `None` is as fast as possible.
    pub(super) rate: Option<u32>,
    /// Messages that a connection of a paced run sends in one write, at most its window.
    pub(super) together: u32,
    pub(super) duration: Duration,
    /// Messages go when the caller says so ([`Load::burst`]), not by acks or free sockets.
    pub(super) in_bursts: bool,
}

/// A load test under way. The first connections of its poll are its own; other keys belong to the
/// caller.
pub(super) struct Load<'a> {
    plan: &'a Plan,
    pub(super) poll: Poll,
    pub(super) links: Vec<Link>,
    /// One for all connections, or one for each.
    blocks: Vec<Block>,
    pub(super) buffer: Vec<u8>,
    started: Instant,
    pub(super) elapsed: Duration,
    is_sending: bool,
    stopped: Option<Instant>,
    pub(super) tally: Tally,
    keys: Vec<usize>,
    /// The connection whose turn it is in a paced run.
    turn: usize,
    /// Connections of a QoS 0 run that take more.
    writable: Vec<usize>,
}

/// What happened so far.
pub(super) struct Tally {
    pub(super) latencies: Latencies,
    pub(super) sent: u64,
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
    /// PINGREQs without an answer (QoS 0).
    pub(super) pings: u64,
}

impl<'a> Load<'a> {
    /// A load over connections that are open; encodes what they will send.
    pub(super) fn new(
        plan: &'a Plan,
        poll: Poll,
        links: Vec<Link>,
    ) -> Result<Load<'a>, BenchError> {
        Ok(Load {
            plan,
            poll,
            blocks: blocks(plan, links.len())?,
            links,
            buffer: vec![0; READ_BYTES],
            started: Instant::now(),
            elapsed: Duration::ZERO,
            is_sending: true,
            stopped: None,
            tally: Tally::new(),
            keys: Vec::new(),
            turn: 0,
            writable: Vec::new(),
        })
    }

    /// Takes what came while connections were opened: whoever was closed meanwhile is lost, and no
    /// event will tell of it again.
    pub(super) fn look(&mut self) {
        (0..self.links.len()).for_each(|key| self.attempt(key, Load::take_waiting));
    }

    /// The clock of the run starts, and so does the load.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
        if self.plan.rate.is_none() && !self.plan.in_bursts {
            (0..self.links.len()).for_each(|key| self.attempt(key, Load::fill));
        }
    }

    /// Sends and takes what there is; false when the time is over and nothing is outstanding.
    /// `others` gets the keys that belong to the caller.
    pub(super) fn turn(&mut self, others: &mut Vec<usize>) -> io::Result<bool> {
        self.elapsed = self.started.elapsed();
        let is_over = self.elapsed >= self.plan.duration || interrupt::is_asked();
        if self.is_sending && is_over {
            self.stop_sending();
        }
        let is_too_late = self
            .stopped
            .is_some_and(|stopped| stopped.elapsed() >= DRAIN_LIMIT);
        if !self.is_sending && (self.outstanding() == 0 || is_too_late) || self.all_lost() {
            return Ok(false);
        }
        let wait = self.send_what_is_due();
        let mut keys = std::mem::take(&mut self.keys);
        self.poll.wait(wait, &mut keys)?;
        for &key in &keys {
            match key < self.links.len() {
                true => self.attempt(key, Load::serve),
                false => others.push(key),
            }
        }
        self.keys = keys;
        Ok(true)
    }

    /// Every connection sends so many messages; nothing once the time is over.
    pub(super) fn burst(&mut self, messages: u64) {
        for key in 0..self.links.len() {
            let mut left = messages;
            while left > 0 && self.is_sending {
                let before = self.tally.sent;
                self.attempt(key, |load, key| load.send_up_to(key, left));
                match self.tally.sent - before {
                    0 => break,
                    sent => left = left.saturating_sub(sent),
                }
            }
        }
    }

    /// Ends the sending, whatever the plan says; `turn` then waits for what is outstanding.
    pub(super) fn stop(&mut self) {
        if self.is_sending {
            self.stop_sending();
        }
    }

    pub(super) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long messages are sent.
    pub(super) fn seconds(&self) -> u64 {
        self.plan.duration.as_secs()
    }

    /// Does something with a connection; an error ends that connection and no other.
    fn attempt(&mut self, key: usize, act: impl FnOnce(&mut Self, usize) -> io::Result<()>) {
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
        if !self.is_sending || self.plan.in_bursts {
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
            self.attempt(key, Load::send_together);
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

    /// The messages of a connection's turn in a paced run, if its window has room.
    fn send_together(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let at = key % self.blocks.len().max(1);
        let (Some(link), Some(block)) = (self.links.get_mut(key), self.blocks.get_mut(at)) else {
            return Ok(());
        };
        let together = u64::from(self.plan.together);
        let window = u64::from(self.plan.window);
        let has_room = self.plan.qos == 0 || link.in_flight() + together <= window;
        if has_room && link.is_flushed() {
            self.tally.sent += link.publish(block, together, now_us)?;
        }
        Ok(())
    }

    /// At most so many messages in one write; what the socket does not take waits.
    fn send_up_to(&mut self, key: usize, messages: u64) -> io::Result<()> {
        let now_us = self.now_us();
        let at = key % self.blocks.len().max(1);
        if let (Some(link), Some(block)) = (self.links.get_mut(key), self.blocks.get_mut(at)) {
            self.tally.sent += link.publish(block, messages, now_us)?;
        }
        Ok(())
    }

    /// As many messages as the window has room for; with QoS 0 as many as one write takes.
    fn fill(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let at = key % self.blocks.len().max(1);
        let (Some(link), Some(block)) = (self.links.get_mut(key), self.blocks.get_mut(at)) else {
            return Ok(());
        };
        if self.plan.qos == 0 {
            if link.is_flushed() {
                self.tally.sent += link.publish(block, u64::MAX, now_us)?;
            }
            if link.is_flushed() {
                self.writable.push(key);
            }
            return Ok(());
        }
        let mut room = u64::from(self.plan.window).saturating_sub(link.in_flight());
        while room > 0 && link.is_flushed() {
            let sent = link.publish(block, room, now_us)?;
            self.tally.sent += sent;
            room = room.saturating_sub(sent);
        }
        Ok(())
    }

    /// A connection that can be read or written.
    fn serve(&mut self, key: usize) -> io::Result<()> {
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        let was_full = !link.is_flushed();
        link.flush()?;
        self.take_waiting(key)?;
        let refills = self.plan.qos > 0 || was_full;
        let fills = self.plan.rate.is_none() && !self.plan.in_bursts;
        if self.is_sending && fills && refills {
            self.fill(key)?;
        }
        Ok(())
    }

    /// Reads what is there.
    fn take_waiting(&mut self, key: usize) -> io::Result<()> {
        let now_us = self.now_us();
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
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
        Ok(())
    }

    /// QoS 0 has no acks: an answered PINGREQ says that all before it was read.
    fn stop_sending(&mut self) {
        self.is_sending = false;
        self.stopped = Some(Instant::now());
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

    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_micros()).unwrap_or(u32::MAX)
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

/// The messages of the connections: one block for all where they send the same.
fn blocks(plan: &Plan, connections: usize) -> Result<Vec<Block>, BenchError> {
    let is_own = plan.payload.is_own() || payload::is_own(&plan.topic);
    let messages = match (plan.qos, plan.rate) {
        (_, Some(_)) => plan.together,
        (0, None) => u32::MAX,
        (_, None) => plan.window,
    };
    let count = if is_own { connections } else { 1 };
    let block = |connection: usize| {
        Block::new(&Recipe {
            version: plan.version,
            qos: plan.qos,
            topic: &payload::fill_in(&plan.topic, connection),
            payload: &plan.payload.render(connection),
            messages,
            is_own,
            seed: (connection as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), // spreads neighbours
        })
    };
    (0..count).map(block).collect()
}
