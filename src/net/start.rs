//! Starts and stops the threads that serve the sockets.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use super::acceptor::{self, Accepted, Door, Listener, Reception};
use super::greeter::{Greeter, TOGETHER_MAX};
use super::handshake::Arrival;
use super::output::UnsentLimits;
use super::places::{PlaceLimits, Places};
use super::retire;
use super::rights;
use super::throttle::Throttle;
use super::tls::TlsWarnings;
use super::worker::{Shared, Worker};
use crate::audit::Audit;
use crate::broker::control::COMMANDS_WAITING_MAX;
use crate::broker::feed::Feeds;
use crate::broker::router::{Router, RouterLimits};
use crate::broker::{
    Command, Control, IdentityLimits, IdentityPlaces, Restored, SessionKey, SessionTable, Stored,
    vital,
};
use crate::device_api::Profile;
use crate::identity::Registry;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::mqtt::session::SessionLimits;

/// Sockets waiting between acceptor and greeter, and between greeter and worker. A full queue makes
/// the sender wait; the kernel's accept queue is behind it.
const SOCKETS_WAITING_MAX: usize = 1_024;

/// Everything the network needs of the rest.
pub struct NetParts {
    /// Bound listeners.
    pub listeners: Vec<Listener>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Devices and their credentials.
    pub registry: Registry,
    /// Where telemetry goes.
    pub journal: Journal,
    /// Where applications get telemetry from.
    pub feeds: Feeds,
    /// What the broker counts.
    pub metrics: Metrics,
    /// Who comes and who is refused is told to it.
    pub audit: Audit,
    /// What every session is granted.
    pub limits: SessionLimits,
    /// What holds for all devices.
    pub profile: Profile,
    /// A device has one session, whatever its client id (TB-06).
    pub one_session: bool,
    /// `connack_style = "magenta"`: an empty user name is answered with 0x04 in 3.1 and 3.1.1.
    pub empty_user_name_code_4: bool,
    /// Connections end with the token that they showed (SEC-40).
    pub cut_at_expiry: bool,
    /// What routing may take.
    pub router: RouterLimits,
    /// How often the broker's figures are published under `$SYS/broker/`; zero is never.
    pub statistics_every: Duration,
    /// Sessions of the last run.
    pub restored: Restored,
    /// Who may come in, and how many.
    pub door: DoorLimits,
}

/// Who may come in, and how many.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Connections, in all and per address.
    pub places: PlaceLimits,
    /// Connections that the process has file descriptors for; at that many, accepting rests.
    pub descriptors_max: usize,
    /// Connections accepted in one second.
    pub accepts_per_second_max: u32,
    /// Failed authentications of one address or credential in one minute.
    pub failures_per_minute_max: u32,
    /// Connections and sessions of one identity.
    pub per_identity: IdentityLimits,
    /// What may wait for a client that does not read.
    pub unsent: UnsentLimits,
}

/// What handshakes and connections are watched with; one for all threads.
pub(super) struct Guards {
    /// Slows down who guesses credentials.
    pub(super) throttle: Throttle,
    pub(super) tls_warnings: TlsWarnings,
    /// What may wait for a client that does not read.
    pub(super) unsent: UnsentLimits,
}

/// A thread of the network could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the network thread {name}: {source}")]
pub struct NetError {
    name: String,
    source: io::Error,
}

/// The running network.
pub struct Net {
    control: Control,
    stop_accepting: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts a greeter for each worker; sockets are dealt out to them.
fn start_greeters(
    count: usize,
    shared: &Arc<Shared>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<Vec<mpsc::Sender<Accepted>>, NetError> {
    let mut dealt = Vec::with_capacity(count);
    for index in 0..count {
        let (deal, sockets) = mpsc::channel::<Accepted>(SOCKETS_WAITING_MAX);
        dealt.push(deal);
        let shared = Arc::clone(shared);
        threads.push(spawn(&format!("net-hello-{index}"), move || {
            Greeter::new(shared).run(sockets)
        })?);
    }
    Ok(dealt)
}

impl Net {
    /// Starts the workers and greeters, then accepts.
    ///
    /// # Errors
    /// A thread or its runtime could not be made.
    pub fn start(parts: NetParts) -> Result<Self, NetError> {
        let workers = parts.workers.get();
        let mut ends = Vec::with_capacity(workers);
        let (mut lanes, mut homes) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (lane, control) = mpsc::channel::<Command>(COMMANDS_WAITING_MAX);
            let (home, arrivals) =
                mpsc::channel::<Vec<Arrival>>(SOCKETS_WAITING_MAX / TOGETHER_MAX);
            lanes.push(lane);
            homes.push(home);
            ends.push((control, arrivals));
        }
        let Restored {
            sessions,
            next_number,
            retained,
            feeds: _,
        } = parts.restored;
        let tables = tables(workers, parts.door.per_identity, sessions);
        let figures = parts.metrics.door().clone();
        let trusted = parts.door.places.trusted.clone();
        let failures_max = parts.door.failures_per_minute_max;
        let door = Door {
            places: Places::new(parts.door.places, figures.clone()),
            per_second_max: parts.door.accepts_per_second_max,
            descriptors_max: parts.door.descriptors_max,
            figures: figures.clone(),
            counters: parts.metrics.worker(),
            audit: parts.audit.clone(),
        };
        let shared = Arc::new(Shared {
            registry: parts.registry,
            limits: parts.limits,
            profile: parts.profile,
            one_session: parts.one_session,
            empty_user_name_code_4: parts.empty_user_name_code_4,
            cut_at_expiry: parts.cut_at_expiry,
            metrics: parts.metrics,
            audit: parts.audit,
            feeds: parts.feeds,
            statistics_every: parts.statistics_every,
            router: Router::new(workers, parts.router, retained),
            journal: parts.journal.clone(),
            guards: Guards {
                throttle: Throttle::new(failures_max, trusted, figures),
                tls_warnings: TlsWarnings::new(),
                unsent: parts.door.unsent,
            },
            session_numbers: AtomicU32::new(next_number),
            homes,
        });
        let mut threads = start_workers(ends.into_iter().zip(tables), &shared)?;
        let dealt = start_greeters(workers, &shared, &mut threads)?;
        let (stop_accepting, stopped) = watch::channel(false);
        let control = Control::new(lanes);
        let clock = (shared.registry.clone(), control.clone(), stopped.clone());
        threads.push(spawn("net-tokens", move || {
            retire::run(clock.0, clock.1, clock.2)
        })?);
        let listeners = parts.listeners;
        threads.push(spawn("net-accept", move || {
            let reception = Reception::new(Greeter::new(shared), dealt);
            acceptor::accept_all(listeners, door, reception, stopped)
        })?);
        Ok(Self {
            control,
            stop_accepting,
            threads,
        })
    }

    /// The lane by which admin changes reach every worker.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Stops accepting, says goodbye to every client when what it was promised is durable, and
    /// ends the threads. False if that took longer than `grace`.
    pub async fn stop(self, grace: Duration) -> bool {
        self.stop_accepting.send_replace(true);
        let in_time = self.control.stop(grace).await;
        if in_time {
            for thread in self.threads {
                // A panic was reported by the thread itself.
                let _ = thread.join();
            }
        }
        in_time
    }
}

/// Starts a task without which the worker is of no use: its panic ends the process (SEC-16).
pub(super) fn spawn_vital(task: impl Future<Output = ()> + 'static) {
    let task = tokio::task::spawn_local(task);
    tokio::task::spawn_local(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            vital::end_after_panic("network");
        }
    });
}

/// What a worker listens to, and the sessions that are at home there.
type Home = (
    (mpsc::Receiver<Command>, mpsc::Receiver<Vec<Arrival>>),
    SessionTable,
);

/// Starts the workers. None serves a client, and no will is published, before the subscriptions of
/// all kept sessions are in the tree: else a message might miss one.
fn start_workers(
    homes: impl ExactSizeIterator<Item = Home>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>, NetError> {
    let restored = Arc::new(Barrier::new(homes.len() + 1));
    let mut threads = Vec::with_capacity(2 * homes.len() + 1);
    for (index, ((control, arrivals), table)) in homes.enumerate() {
        let (shared, restored) = (Arc::clone(shared), Arc::clone(&restored));
        threads.push(spawn(&format!("net-{index}"), move || async move {
            let journal = shared.journal.clone();
            let worker = Worker::new(index, shared, &journal, table);
            worker.restore_all();
            restored.wait();
            rights::prune_restored(&worker);
            worker.run(control, arrivals).await;
        })?);
    }
    restored.wait();
    Ok(threads)
}

/// The workers' tables, with the sessions of the last run at home.
fn tables(
    workers: usize,
    limits: IdentityLimits,
    sessions: Vec<(SessionKey, Stored)>,
) -> Vec<SessionTable> {
    let identities = IdentityPlaces::new(limits);
    let mut tables: Vec<SessionTable> = (0..workers)
        .map(|_| SessionTable::new(Arc::clone(&identities)))
        .collect();
    for (key, stored) in sessions {
        if let Some(table) = tables.get_mut(key.home(workers)) {
            table.store(&key, stored);
        }
    }
    tables
}

fn spawn<F>(
    name: &str,
    run: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<()>, NetError>
where
    F: Future<Output = ()>,
{
    let failed = |source| NetError {
        name: name.to_owned(),
        source,
    };
    let (started, start) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    vital::run("network", || runtime.block_on(run()));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })
        .map_err(failed)?;
    match start.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(failed(io::ErrorKind::BrokenPipe.into())),
    }
}
