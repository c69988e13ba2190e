//! One client that publishes at a steady rate while something else happens to the broker: what the
//! storm means for those who are in already. It has a thread of its own, so that the generator's
//! other work delays it as little as can be.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::Serialize;

use crate::cli::bench::{
    BenchError, ingest,
    latency::{Latencies, Times},
    load::{Load, Plan},
    payload::{self, Template},
    target::Target,
};

/// Bytes of a message of the probe.
const PAYLOAD_BYTES: usize = 60;
/// Longer than any storm: the probe is ended from outside.
const DURATION: Duration = Duration::from_secs(24 * 3600);
/// Messages in flight at most: a broker that stops answering is not flooded.
const WINDOW: u32 = 100;

/// Phases of a run.
const QUIET: u8 = 0;
const STORM: u8 = 1;
const END: u8 = 2;

/// A probe that publishes.
pub(super) struct Probe {
    thread: JoinHandle<Result<Probes, BenchError>>,
    phase: Arc<AtomicU8>,
}

/// Acks of the probe before and during the storm.
#[derive(Debug, Serialize)]
pub(super) struct Probes {
    quiet: Probed,
    storm: Probed,
}

/// Acks in a stretch of time.
#[derive(Debug, Serialize)]
struct Probed {
    acks: u64,
    ack_us: Option<Times>,
}

impl Probe {
    /// Connects and begins to publish.
    pub(super) fn start(target: Target, topic: &str, rate: u32) -> Result<Probe, BenchError> {
        let plan = Plan {
            version: target.version,
            qos: 1,
            topic: topic.to_owned(),
            payload: Template::new(&payload::of_size(PAYLOAD_BYTES)),
            window: WINDOW,
            rate: Some(rate),
            duration: DURATION,
            together: 1,
            in_bursts: false,
        };
        let phase = Arc::new(AtomicU8::new(QUIET));
        let seen = Arc::clone(&phase);
        let (sender, is_open) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("bench-probe".to_owned())
            .spawn(move || {
                let (mut load, _) = ingest::open(&target, &plan, 1)?;
                let _ = sender.send(()); // whoever waits has its answer
                run(&mut load, &seen)
            })?;
        if is_open.recv().is_err() {
            return Err(join(thread).err().unwrap_or_else(|| ended().into()));
        }
        Ok(Probe { thread, phase })
    }

    /// From now on acks count as the storm's, those in flight too.
    pub(super) fn storm(&self) {
        self.phase.store(STORM, Ordering::Relaxed);
    }

    /// Ends it; what it measured. An error when it lost its connection or a message.
    pub(super) fn finish(self) -> Result<Probes, BenchError> {
        self.phase.store(END, Ordering::Relaxed);
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<Probes, BenchError>>) -> Result<Probes, BenchError> {
    thread.join().unwrap_or_else(|_| Err(ended().into()))
}

fn ended() -> io::Error {
    io::Error::other("the probe ended")
}

fn run(load: &mut Load<'_>, phase: &AtomicU8) -> Result<Probes, BenchError> {
    let (mut quiet, mut others) = (None, Vec::new());
    load.start();
    while load.turn(&mut others)? {
        let phase = phase.load(Ordering::Relaxed);
        if phase >= STORM && quiet.is_none() {
            let so_far = std::mem::replace(&mut load.tally.latencies, Latencies::new());
            quiet = Some(Probed::new(&so_far));
        }
        if phase == END {
            load.stop();
        }
    }
    let tally = &load.tally;
    if tally.lost + tally.refused > 0 || tally.done < tally.sent {
        return Err(BenchError::Incomplete {
            lost: tally.lost,
            unacknowledged: tally.sent - tally.done,
            refused: tally.refused,
        });
    }
    let rest = Probed::new(&tally.latencies);
    Ok(Probes {
        quiet: quiet.unwrap_or_else(|| Probed::new(&Latencies::new())),
        storm: rest,
    })
}

impl Probed {
    fn new(latencies: &Latencies) -> Probed {
        Probed {
            acks: latencies.total(),
            ack_us: latencies.times(),
        }
    }
}

impl Probes {
    /// Rows of a table.
    pub(super) fn rows(&self) -> Vec<[String; 2]> {
        let mut rows = Vec::new();
        for (name, probed) in [("quiet", &self.quiet), ("storm", &self.storm)] {
            rows.push([format!("probe acks, {name}"), probed.acks.to_string()]);
            let times = probed.ack_us.iter();
            rows.extend(times.flat_map(|times| times.rows(&format!("probe ack, {name},"))));
        }
        rows
    }
}
