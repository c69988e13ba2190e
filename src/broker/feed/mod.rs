//! The application feed: telemetry from the journal, after it is durable, to applications.
//!
//! A subscription to `v1/devices/{id or +}/telemetry` is a *cursor* in the journal, not a queue.
//! One thread, `feed`, owns all cursors: it reads the journal's end once for all who are there
//! ([`chunk`]), lets those who are far behind read for themselves, and hands slices of what it
//! read to the home workers of the clients ([`FeedInbox`]), one wake per batch. The workers tell
//! it what was settled (acknowledged; at QoS 0: written), and only then a client gets more, so
//! that a slow one costs 1 MiB and a place in the journal.
//!
//! Members of a share group have one cursor together; each record goes to the member that has
//! most room, and to another one when that member goes without settling it.
//!
//! What survives: a kept session notes the offset up to which it is settled in `FeedProgress`
//! records, once a second while that moves and when its client goes. After a crash it starts again
//! behind that offset: everything arrives at least once. The journal keeps what a cursor needs
//! (`Journal::hold`), up to a limit.

mod chunk;
mod cursor;
mod runner;
mod start;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use uuid::Uuid;

use super::vital;
use crate::identity::Registry;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::mqtt::topic::Filter;

pub use chunk::{FedRecord, Slice};
pub use start::{NotAStart, START_PROPERTY, Start};

use cursor::Owner;
use runner::Runner;

/// Feeds there can be at once, connected or not: each may hold 1 MiB for each member and, while it
/// is behind, a reader. A SUBSCRIBE beyond it is refused with 0x97.
pub const FEEDS_MAX: usize = 256;

/// What of the journal is kept for feeds.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Bytes of the newest segments that are kept for feeds that start in the past.
    pub keep_bytes: u64,
    /// Bytes of the journal that feeds may pin; the oldest one loses what is beyond it.
    pub pin_bytes_max: u64,
}

/// Which records a feed is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of every device.
    All,
    /// Of this one.
    Device(Uuid),
}

impl Wanted {
    /// What a subscription filter asks the feed for: `v1/devices/+/telemetry`, or the same with
    /// the id of a device in place of `+`, shared or not. `None` for any other filter.
    #[must_use]
    pub fn of(filter: &Filter<'_>) -> Option<Wanted> {
        let device = filter
            .matched()
            .strip_prefix("v1/devices/")?
            .strip_suffix("/telemetry")?;
        if device == "+" {
            return Some(Wanted::All);
        }
        // In the one form in which it is also delivered.
        let id = Uuid::try_parse(device).ok()?;
        (id.hyphenated().to_string() == device).then_some(Wanted::Device(id))
    }
}

/// A subscription of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// Its home worker.
    pub worker: usize,
    /// The connection's slot there,
    pub slot: u32,
    /// and which connection in that slot.
    pub generation: u32,
    /// Which of its subscriptions,
    pub source: u64,
    /// and which time it took that up.
    pub attached: u32,
}

/// A client takes a feed up.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Who.
    pub member: MemberKey,
    /// The application.
    pub identity: Uuid,
    /// The session's number in the journal; 0 if it ends with the connection.
    pub session: u32,
    /// The filter, with `$share/…`.
    pub filter: Box<str>,
    /// Which records.
    pub wanted: Wanted,
    /// Where a new feed starts.
    pub start: Start,
    /// Whether a feed that is there already starts again there.
    pub is_restart: bool,
    /// Records it may have unsettled, at least 1.
    pub credit: u16,
}

impl Attach {
    fn owner(&self) -> Owner {
        if self.filter.starts_with("$share/") {
            Owner::Group(self.identity)
        } else if self.session != 0 {
            Owner::Session(self.session)
        } else {
            Owner::Connection(self.member)
        }
    }
}

/// A client's connection or subscription ends.
#[derive(Clone, Debug)]
pub struct Detach {
    /// Who.
    pub member: MemberKey,
    /// The first records it was given that are settled: how many.
    pub front: u64,
    /// Offsets behind them that are settled too.
    pub done: Vec<u64>,
    /// The session whose claim on the feed ends with it (UNSUBSCRIBE); 0 for none.
    pub ends_for: u32,
}

/// A kept session's feed, as the last run left it.
#[derive(Clone, Debug)]
pub struct RestoredFeed {
    /// The session's number in the journal.
    pub session: u32,
    /// The application.
    pub identity: Uuid,
    /// The filter.
    pub filter: Box<str>,
    /// Where it started: [`Start::number`].
    pub start: u64,
    /// The offset up to which it is settled, if any is.
    pub settled: Option<u64>,
}

/// Records on their way to a client.
#[derive(Debug)]
pub struct Delivery {
    /// To whom.
    pub member: MemberKey,
    /// What.
    pub slice: Slice,
}

/// What waits for one worker. Bounded by what each client may have unsettled.
#[derive(Debug, Default)]
pub struct FeedInbox {
    deliveries: Mutex<Vec<Delivery>>,
    wake: Notify,
}

impl FeedInbox {
    /// Waits until something is there, and takes it. Cancel-safe: nothing is taken before.
    pub async fn take(&self) -> Vec<Delivery> {
        self.wake.notified().await;
        std::mem::take(&mut *lock(&self.deliveries))
    }

    fn put(&self, deliveries: &mut Vec<Delivery>) {
        lock(&self.deliveries).append(deliveries);
        self.wake.notify_one();
    }
}

/// The way to the feed thread. Clones share it.
#[derive(Clone)]
pub struct Feeds {
    shared: Arc<Shared>,
}

/// The feed thread itself.
pub struct FeedThread {
    feeds: Feeds,
    thread: JoinHandle<Runner>,
}

/// What the feeds of a stopped thread still need of the journal; held until it is dropped.
#[must_use = "what it holds is lost when something releases the journal"]
pub struct HeldForFeeds {
    _runner: Option<Runner>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// Somebody waits for what becomes durable.
    is_live: AtomicBool,
    feeds: AtomicUsize,
    workers: Vec<Arc<FeedInbox>>,
}

/// What the workers have to say. The commands are bounded by connections and subscriptions.
#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    settled: HashMap<MemberKey, u64>,
    is_durable_news: bool,
    is_stopping: bool,
}

enum Command {
    Attach(Attach),
    Detach(Detach),
    EndSession(u32),
    EndSubscription { session: u32, filter: Box<str> },
}

impl Feeds {
    /// Starts the feed thread for so many workers, with the feeds of the last run.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        journal: &Journal,
        registry: &Registry,
        metrics: &Metrics,
        limits: FeedLimits,
        workers: usize,
        restored: Vec<RestoredFeed>,
    ) -> io::Result<FeedThread> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            is_live: AtomicBool::new(false),
            feeds: AtomicUsize::new(0),
            workers: (0..workers).map(|_| Arc::default()).collect(),
        });
        let mut runner = Runner::new(
            Arc::clone(&shared),
            journal.clone(),
            registry.clone(),
            metrics,
            limits,
        );
        runner.restore(restored);
        let thread = std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || vital::run("feed", || runner.run()))?;
        Ok(FeedThread {
            feeds: Feeds { shared },
            thread,
        })
    }

    /// Where a worker finds what is for its clients.
    ///
    /// # Panics
    /// If there are fewer workers.
    #[must_use]
    pub fn inbox(&self, worker: usize) -> Arc<FeedInbox> {
        let inbox = self.shared.workers.get(worker);
        Arc::clone(inbox.expect("the feed was started for as many workers as there are"))
    }

    /// False if no more feeds are taken: [`FEEDS_MAX`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.feeds.load(Ordering::Relaxed) < FEEDS_MAX
    }

    /// A client takes a feed up; the deliveries begin.
    pub fn attach(&self, attach: Attach) {
        self.command(Command::Attach(attach));
    }

    /// A client goes, or no longer wants it.
    pub fn detach(&self, detach: Detach) {
        self.command(Command::Detach(detach));
    }

    /// A kept session ended: its feeds go.
    pub fn end_session(&self, session: u32) {
        if session != 0 && self.shared.feeds.load(Ordering::Relaxed) > 0 {
            self.command(Command::EndSession(session));
        }
    }

    /// A kept session without connection does not subscribe to this any more.
    pub fn end_subscription(&self, session: u32, filter: &str) {
        if session != 0 && self.shared.feeds.load(Ordering::Relaxed) > 0 {
            let filter = filter.into();
            self.command(Command::EndSubscription { session, filter });
        }
    }

    /// Of what a client was given, the first `front` records are settled.
    pub fn settled(&self, member: MemberKey, front: u64) {
        let mut inbox = lock(&self.shared.inbox);
        inbox.settled.insert(member, front);
        drop(inbox);
        self.shared.wake.notify_one();
    }

    /// Something became durable.
    pub fn durable(&self) {
        if self.shared.is_live.load(Ordering::Relaxed) {
            lock(&self.shared.inbox).is_durable_news = true;
            self.shared.wake.notify_one();
        }
    }

    fn command(&self, command: Command) {
        lock(&self.shared.inbox).commands.push(command);
        self.shared.wake.notify_one();
    }
}

impl FeedThread {
    /// The way to it.
    #[must_use]
    pub fn feeds(&self) -> Feeds {
        self.feeds.clone()
    }

    /// Notes what is settled and ends the thread. Call it when no client is connected any more and
    /// before the journal is closed. Whoever releases the journal must be done before the answer
    /// is dropped.
    pub fn stop(self) -> HeldForFeeds {
        lock(&self.feeds.shared.inbox).is_stopping = true;
        self.feeds.shared.wake.notify_one();
        // A panic of it has ended the process.
        let _runner = self.thread.join().ok();
        HeldForFeeds { _runner }
    }
}

/// A lock whose holder panicked is as good as another: nothing here is left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a>(shared: &'a Shared, timeout: Duration) -> MutexGuard<'a, Inbox> {
    let inbox = lock(&shared.inbox);
    let is_idle = |inbox: &mut Inbox| {
        inbox.commands.is_empty()
            && inbox.settled.is_empty()
            && !inbox.is_durable_news
            && !inbox.is_stopping
    };
    let woken = shared.wake.wait_timeout_while(inbox, timeout, is_idle);
    woken.unwrap_or_else(PoisonError::into_inner).0
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
