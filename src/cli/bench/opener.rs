//! Opening many connections at once, on one thread: TCP, TLS, CONNECT, CONNACK.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::cli::{
    bench::{
        BenchError, frame, interrupt,
        latency::{Latencies, Times},
        link::Link,
        poll::Poll,
        target::Target,
    },
    progress::Progress,
};

/// Connections under way at the same time where nothing else is asked for: a broker that checks
/// passwords slowly is kept busy, and no listen queue is overrun.
pub(super) const IN_PROGRESS: usize = 64;
/// Answers are looked for after so many starts, so that a storm's first ones need not wait.
const STARTS_PER_TURN: usize = 128;
/// How long a wait lasts when nothing happens.
const WAIT: Duration = Duration::from_millis(50);
/// How often connections that take too long are looked for.
const OVERDUE_INTERVAL: Duration = Duration::from_millis(250);
/// See [`Opener::give_way`].
const NICER_BY: i32 = 10;
/// CONNACK is short; whatever else comes, this much at once is enough.
const READ_BYTES: usize = 4096;

/// Connections of one kind on their way.
pub(super) struct Opener<'a> {
    target: &'a Target,
    mark: char,
    window: u32,
    limit: Duration,
    pub(super) poll: Poll,
    slots: Vec<Slot>,
    in_progress: usize,
    keys: Vec<usize>,
    looked_at: Instant,
    gives_way: bool,
    pub(super) tally: Tally,
}

enum Slot {
    Empty,
    Opening { link: Link, began: Instant },
    Open(Link),
}

/// What became of the connections.
pub(super) struct Tally {
    pub(super) accepted: u64,
    refused: BTreeMap<u8, u64>,
    failed: BTreeMap<String, u64>,
    pub(super) resumed: u64,
    pub(super) latencies: Latencies,
}

/// The same, to be printed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Opened {
    pub(super) accepted: u64,
    /// By CONNACK code, as MQTT writes it: "0x05".
    pub(super) refused: BTreeMap<String, u64>,
    /// By what went wrong before CONNACK.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) resumed_tls: u64,
    /// From the first packet of TCP to CONNACK.
    pub(super) connack_us: Option<Times>,
}

impl<'a> Opener<'a> {
    /// `limit` is how long one connection may take.
    pub(super) fn new(
        target: &'a Target,
        mark: char,
        window: u32,
        limit: Duration,
    ) -> io::Result<Opener<'a>> {
        raise_file_limit();
        Ok(Opener {
            target,
            mark,
            window,
            limit,
            poll: Poll::new()?,
            slots: Vec::new(),
            in_progress: 0,
            keys: Vec::new(),
            looked_at: Instant::now(),
            gives_way: false,
            tally: Tally::new(),
        })
    }

    /// From now on this thread gives way to all others of the generator, and to the broker's on
    /// the same machine: each of the clients that it stands for has a core of its own, and takes
    /// none from the others.
    pub(super) fn give_way(&mut self) {
        // Niceness is a thread's own; more of it needs no right.
        self.gives_way = rustix::process::nice(NICER_BY).is_ok();
    }

    /// Starts connection `number` in place `key`. What the system refuses is counted; an error is
    /// what no further connection would survive.
    pub(super) fn start(&mut self, key: usize, number: usize) -> Result<(), BenchError> {
        if self.slots.len() <= key {
            self.slots.resize_with(key + 1, || Slot::Empty);
        }
        let began = Instant::now();
        let link = match Link::start(self.target, self.mark, number, self.window) {
            Ok(link) => link,
            Err(BenchError::NoBroker { source, .. }) => {
                self.tally.fail(&source);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.offer_core();
        self.poll.add(&link, key)?;
        if let Some(slot) = self.slots.get_mut(key) {
            *slot = Slot::Opening { link, began };
            self.in_progress += 1;
        }
        self.advance(key);
        Ok(())
    }

    /// Takes what has come; `finished` gets the places whose connection was accepted, refused or
    /// failed.
    pub(super) fn turn(&mut self, wait: Duration, finished: &mut Vec<usize>) -> io::Result<()> {
        let mut keys = std::mem::take(&mut self.keys);
        self.poll.wait(wait, &mut keys)?;
        finished.extend(keys.iter().copied().filter(|&key| self.advance(key)));
        self.keys = keys;
        if self.looked_at.elapsed() >= OVERDUE_INTERVAL {
            self.looked_at = Instant::now();
            self.end_overdue(finished);
        }
        Ok(())
    }

    pub(super) fn in_progress(&self) -> usize {
        self.in_progress
    }

    /// The accepted connection in this place, which is empty then.
    pub(super) fn take(&mut self, key: usize) -> Option<Link> {
        let slot = self.slots.get_mut(key)?;
        match std::mem::replace(slot, Slot::Empty) {
            Slot::Open(link) => Some(link),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Opens connections 0 to `count`, at most `at_once` at the same time, each in the place of its
    /// number.
    pub(super) fn open_all(
        &mut self,
        count: usize,
        at_once: usize,
        progress: &Progress,
    ) -> Result<(), BenchError> {
        let (mut next, mut finished) = (0, Vec::new());
        while (next < count || self.in_progress > 0) && !interrupt::is_asked() {
            let mut started = 0;
            while next < count && self.in_progress < at_once && started < STARTS_PER_TURN {
                self.start(next, next)?;
                next += 1;
                started += 1;
            }
            let has_more = next < count && self.in_progress < at_once;
            let wait = if has_more { Duration::ZERO } else { WAIT };
            self.turn(wait, &mut finished)?;
            finished.clear();
            progress.set(self.tally.accepted);
        }
        Ok(())
    }

    /// The accepted connections in the order of their numbers, with what watches them.
    pub(super) fn into_links(self) -> (Poll, Vec<Link>) {
        let links = self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Open(link) => Some(link),
            _ => None,
        });
        (self.poll, links.collect())
    }

    /// Goes on with a connection; true when its end was reached, good or bad.
    fn advance(&mut self, key: usize) -> bool {
        let Some(Slot::Opening { link, began }) = self.slots.get_mut(key) else {
            return false;
        };
        let connack = match connack(link) {
            Ok(None) => {
                self.offer_core();
                return false;
            }
            Ok(Some(code)) => Ok(code),
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        self.in_progress -= 1;
        let slot = self
            .slots
            .get_mut(key)
            .map(|slot| std::mem::replace(slot, Slot::Empty));
        match (connack, slot) {
            (Ok(0), Some(Slot::Opening { link, .. })) => {
                self.tally.accept(took, link.is_resumed());
                if let Some(slot) = self.slots.get_mut(key) {
                    *slot = Slot::Open(link);
                }
            }
            (Ok(code), _) => *self.tally.refused.entry(code).or_insert(0) += 1,
            (Err(error), _) => self.tally.fail(&error),
        }
        true
    }

    /// Between two steps of a handshake: otherwise the system lets a thread finish its slice.
    fn offer_core(&self) {
        if self.gives_way {
            std::thread::yield_now();
        }
    }

    fn end_overdue(&mut self, finished: &mut Vec<usize>) {
        for (key, slot) in self.slots.iter_mut().enumerate() {
            if matches!(slot, Slot::Opening { began, .. } if began.elapsed() > self.limit) {
                *slot = Slot::Empty;
                self.in_progress -= 1;
                self.tally.fail(&io::ErrorKind::TimedOut.into());
                finished.push(key);
            }
        }
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            accepted: 0,
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            resumed: 0,
            latencies: Latencies::new(),
        }
    }

    fn accept(&mut self, took: Duration, is_resumed: bool) {
        self.accepted += 1;
        self.resumed += u64::from(is_resumed);
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.latencies.add(us);
    }

    fn fail(&mut self, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed without CONNACK".to_owned(),
            io::ErrorKind::TimedOut => "no CONNACK in time".to_owned(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
                "no free port: name more addresses with --source".to_owned()
            }
            _ => error.to_string(),
        };
        *self.failed.entry(what).or_insert(0) += 1;
    }

    pub(super) fn opened(&self) -> Opened {
        let codes = self.refused.iter();
        Opened {
            accepted: self.accepted,
            refused: codes
                .map(|(code, n)| (format!("{code:#04x}"), *n))
                .collect(),
            failed: self.failed.clone(),
            resumed_tls: self.resumed,
            connack_us: self.latencies.times(),
        }
    }

    /// An error when a connection is missing: the code of a refusal first, as it says the most.
    pub(super) fn expect_all(&self, target: &Target) -> Result<(), BenchError> {
        if let Some((&code, &connections)) = self.refused.first_key_value() {
            return Err(BenchError::Refused { connections, code });
        }
        if let Some((what, &connections)) = self.failed.first_key_value() {
            let what = what.clone();
            return Err(match self.accepted {
                0 => BenchError::NoBroker {
                    address: target.address.to_string(),
                    source: io::Error::other(what),
                },
                _ => BenchError::NotOpened { connections, what },
            });
        }
        if interrupt::is_asked() {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }
}

/// The code of CONNACK; `None` while it has not come.
fn connack(link: &mut Link) -> io::Result<Option<u8>> {
    link.flush()?;
    let mut buffer = [0; READ_BYTES];
    while let Some((len, is_more)) = link.read(&mut buffer)? {
        let new = buffer.get(..len).unwrap_or_default();
        let joined = link.joined(new);
        let bytes = joined.as_deref().unwrap_or(new);
        if let Some(&first) = bytes.first().filter(|&&first| first != 0x20) {
            let what = format!("what answers speaks no MQTT: {first:#04x} instead of CONNACK");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if let Some(frame) = frame::split(bytes) {
            link.keep(frame.rest);
            return Ok(Some(frame.body.get(1).copied().unwrap_or(0xff)));
        }
        link.keep(bytes);
        if !is_more {
            break;
        }
    }
    Ok(None)
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
