//! The history of every device: what was acknowledged, as it can be asked for.
//!
//! A thread follows the journal and keeps the newest samples in a bounded head in memory
//! ([`head`]); what is older is found by reading the journal again. The head is filled from the
//! journal's tail at every start, so it needs no file of its own and no clean stop.
//!
//! Invariants:
//! 1. Only durable records are ever seen here, as the journal's reader returns no others.
//! 2. The head holds every sample of the records from `head.first` to `read`; so head and journal
//!    before `head.first` together are everything, and nothing is in both.
//! 3. A query sees every record that was durable when it was asked (section 3 of the architecture:
//!    read your writes, TB-24), or fails with [`QueryError::Behind`].
//! 4. Of equal (device, key, time) the record with the later offset counts; within one record the
//!    later place.
//!
//! Damage in the journal is reported (log and status) and the rest is served. Price of this first
//! form: a query that reaches behind the head reads the whole journal before it, as devices choose
//! their times freely.

mod best;
mod follow;
mod head;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use uuid::Uuid;

use super::sample::OwnedValue;
use crate::journal::{Damage, Journal, JournalError, Offset};
use best::Best;
use head::Head;

/// Longest wait of a query for the store to have read what is durable. Beyond it the store cannot
/// keep up, and a caller does better to come again than to hold a connection.
pub const BARRIER_MAX: Duration = Duration::from_secs(5);

/// Most bytes the points of one query may take, counted with keys and text. Beyond it the query
/// fails with [`QueryError::TooLarge`]: a smaller limit or range is needed.
pub const RESULT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Damage reports kept for [`HistoryStatus`]; more are only counted and logged.
pub const DAMAGE_KEPT_MAX: usize = 100;

/// What the operator sets.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// Bytes of samples in memory. At the limit the records of the oldest offsets leave, in pieces
    /// of a sixteenth; they are still found, through the journal.
    pub head_bytes_max: usize,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A question for the points of one device.
#[derive(Clone, Debug)]
pub struct Query {
    /// The device.
    pub device: Uuid,
    /// Only these series; `None` means all, an empty list none.
    pub keys: Option<Vec<String>>,
    /// First time wanted, in milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// End of the times wanted; a point at exactly this time is not wanted.
    pub to_ms: i64,
    /// Most points of the whole answer (not of each key), counted in its order.
    pub limit: usize,
    /// Order of the answer by (time, key): false from the least on, true from the greatest on.
    pub newest_first: bool,
}

/// One stored value.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the series.
    pub key: String,
    /// Milliseconds since the Unix epoch.
    pub ts_ms: i64,
    /// The value.
    pub value: OwnedValue,
    /// The journal record it came with.
    pub offset: Offset,
}

/// How far the store is, for metrics and health.
#[derive(Clone, Debug, Default)]
pub struct HistoryStatus {
    /// Everything up to this offset can be asked for.
    pub read: Offset,
    /// The first offset whose samples are in memory.
    pub head_first: Offset,
    /// Bytes the samples in memory take.
    pub head_bytes: usize,
    /// Damage met in the journal, at most [`DAMAGE_KEPT_MAX`] entries.
    pub damage: Vec<Damage>,
    /// All damage met, counted beyond that limit too.
    pub damage_total: u64,
    /// Records met in the journal whose payload this version cannot read (written by a later one).
    pub unreadable: u64,
    /// The whole journal was read once since the start.
    pub verified: bool,
}

/// Why a query has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Environment: the store has not read everything that was durable; come again.
    #[error("the store has read up to {read}, the answer needs {wanted}: try again")]
    Behind {
        /// Where the store is.
        read: Offset,
        /// What was durable when it was asked.
        wanted: Offset,
    },
    /// Caller: the answer is too large for the memory of one query.
    #[error("the answer has more than {RESULT_BYTES_MAX} bytes: ask for less at a time")]
    TooLarge,
    /// Environment: the journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The broker is stopping.
    #[error("the store is stopping")]
    Stopping,
}

/// The store. Clones are handles on the same one; with the last one its threads end.
#[derive(Clone)]
pub struct History {
    threads: Arc<Threads>,
}

impl History {
    /// Starts to follow the journal on the thread `store-reader`, from its tail on, and to verify
    /// all of it once on the thread `store-verify`. `tombstones`: see [`Self::forget`]. Returns
    /// at once, however large the journal is.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        journal: Journal,
        options: HistoryOptions,
        tombstones: impl IntoIterator<Item = (Uuid, Offset)>,
    ) -> io::Result<Self> {
        let from = follow::tail(&journal, options.head_bytes_max);
        let state = State {
            head: Head::new(options.head_bytes_max, from),
            read: Offset::new(from.number().saturating_sub(1)),
            tombstones: tombstones.into_iter().collect(),
            damage: Vec::new(),
            damage_total: 0,
            unreadable: 0,
            verified: false,
            waiting: 0,
        };
        let shared = Arc::new(Shared {
            journal,
            state: Mutex::new(state),
            advanced: Condvar::new(),
            asked: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let mut threads = Threads {
            shared: Arc::clone(&shared),
            running: Vec::new(),
        };
        threads.spawn("store-reader", move |shared| follow::follow(&shared, from))?;
        threads.spawn("store-verify", |shared| follow::verify(&shared))?;
        Ok(Self {
            threads: Arc::new(threads),
        })
    }

    /// The points a query asks for. Blocking: waits until what is durable now has been read, then
    /// reads the journal as far as the head does not reach. Bounded in memory, not in time.
    ///
    /// # Errors
    /// See [`QueryError`]; damage in the journal is none.
    pub fn query(&self, query: &Query) -> Result<Vec<Point>, QueryError> {
        let shared = &self.threads.shared;
        if query.limit == 0 || query.from_ms >= query.to_ms {
            return Ok(Vec::new());
        }
        let mut best = Best::new(query);
        let state = shared.wait_until_read(shared.journal.durable())?;
        // Head and tombstones are this module's own; their methods call nothing outside it.
        let head_first = state.head.first();
        let hidden = state.hidden_before(query.device);
        state.head.collect(query, hidden, &mut best)?;
        drop(state);
        follow::collect_past(shared, query, hidden, head_first, &mut best)?;
        // Reading the past takes a while, and a device can be forgotten meanwhile.
        let hidden = shared.lock().hidden_before(query.device);
        Ok(best.into_points(hidden))
    }

    /// Hides all records of the device before `before` for good, in memory and in the journal: the
    /// device was deleted when that offset was the next one. An earlier tombstone of the device
    /// that reaches further stays.
    pub fn forget(&self, device: Uuid, before: Offset) {
        let mut state = self.threads.shared.lock();
        let hidden = state.tombstones.entry(device).or_default();
        *hidden = before.max(*hidden);
    }

    /// Makes queries end with [`QueryError::Stopping`], those that run included, and the threads
    /// come to an end. For a stop of the broker while an answer is being gathered.
    pub fn stop(&self) {
        self.threads.shared.stop();
    }

    /// How far the store is and what it met.
    pub fn status(&self) -> HistoryStatus {
        let state = self.threads.shared.lock();
        HistoryStatus {
            read: state.read,
            head_first: state.head.first(),
            head_bytes: state.head.bytes(),
            damage: state.damage.clone(),
            damage_total: state.damage_total,
            unreadable: state.unreadable,
            verified: state.verified,
        }
    }
}

/// What the threads and the queries share.
struct Shared {
    journal: Journal,
    /// A std mutex, as it is held for short work and never across a wait but the barrier's own.
    state: Mutex<State>,
    /// `read` has grown, or everything stops.
    advanced: Condvar,
    /// A query waits, or everything stops.
    asked: Condvar,
    stopping: AtomicBool,
}

struct State {
    head: Head,
    /// Every record up to this one is in the head, or was and has left it again.
    read: Offset,
    /// Devices deleted; as many as the registry holds.
    tombstones: HashMap<Uuid, Offset>,
    damage: Vec<Damage>,
    damage_total: u64,
    unreadable: u64,
    verified: bool,
    /// Queries at the read barrier.
    waiting: usize,
}

impl State {
    /// Records of the device before this offset are not to be seen.
    fn hidden_before(&self, device: Uuid) -> Offset {
        self.tombstones.get(&device).copied().unwrap_or_default()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half-way through a change, so a poisoned state is a good one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The read barrier: ends when everything up to `wanted` has been read.
    fn wait_until_read(&self, wanted: Offset) -> Result<MutexGuard<'_, State>, QueryError> {
        let deadline = Instant::now() + BARRIER_MAX;
        let mut state = self.lock();
        state.waiting += 1;
        self.asked.notify_one();
        let result = loop {
            if self.is_stopping() {
                break Err(QueryError::Stopping);
            }
            if state.read >= wanted {
                break Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let read = state.read;
                break Err(QueryError::Behind { read, wanted });
            }
            let waited = self.advanced.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        result.map(|()| state)
    }

    /// Lets some time pass, but no longer than until a query waits or everything stops.
    fn pause(&self, time: Duration) {
        let state = self.lock();
        let undisturbed = |state: &mut State| state.waiting == 0 && !self.is_stopping();
        let waited = self.asked.wait_timeout_while(state, time, undisturbed);
        drop(waited);
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Under the lock, or a thread could miss it between its look and its sleep.
        drop(self.lock());
        self.advanced.notify_all();
        self.asked.notify_all();
    }

    /// Notes damage and tells the operator; each place once, whoever meets it.
    fn report(&self, damage: &Damage) {
        let mut state = self.lock();
        let same = |known: &Damage| known.file == damage.file && known.position == damage.position;
        if state.damage.iter().any(same) {
            return;
        }
        state.damage_total += 1;
        let kept = state.damage.len() < DAMAGE_KEPT_MAX;
        if kept {
            state.damage.push(damage.clone());
        }
        drop(state);
        if kept {
            tracing::warn!(
                file = %damage.file.display(),
                position = damage.position,
                first = damage.first.number(),
                next = damage.next.number(),
                what = %damage.what,
                "the journal is damaged; the records before `next` are lost, all others are served"
            );
        }
    }
}

/// Ends the threads with the last handle.
struct Threads {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(Arc<Shared>) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(shared))?;
        self.running.push(thread);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}
