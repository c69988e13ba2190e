//! What the handles and threads of one journal have in common. Every lock here is a leaf: no
//! other lock is taken, no file touched and nothing outside called while one is held. They are
//! std mutexes because each is held for a few instructions, on threads that may block.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::OnFailure;
use super::disk::Disk;
use super::error::JournalError;
use super::hold::Holds;
use super::index::Index;
use super::options::{FullReason, JournalOptions, JournalStatus};
use super::prepare::Preparation;
use super::queue::Queue;

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: JournalOptions,
    /// Bytes of records in one batch at most.
    pub(super) batch_bytes_max: usize,
    /// Every record up to this offset is on stable storage. Written by the committer only.
    durable: AtomicU64,
    /// The last record of the last commit with something of a session; see
    /// [`super::Journal::no_sessions_behind`].
    pub(super) sessions: AtomicU64,
    pub(super) queue: Mutex<Queue>,
    /// The committer waits here for work, under `queue`.
    pub(super) work: Condvar,
    pub(super) index: Mutex<Index>,
    /// What readers still need.
    pub(super) holds: Arc<Mutex<Holds>>,
    pub(super) preparation: Mutex<Preparation>,
    /// Committer and helper wait here for one another, under `preparation`.
    pub(super) preparation_changed: Condvar,
    /// Ends the helper, in the middle of a segment too.
    pub(super) stop_helper: AtomicBool,
    /// How many wait for `durable` to move.
    waiting: Mutex<usize>,
    advanced: Condvar,
    on_failure: Mutex<Option<OnFailure>>,
    pub(super) commits: AtomicU64,
    pub(super) commit_bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        batch_bytes_max: usize,
        next: u64,
        index: Index,
        preparation: Preparation,
        on_failure: OnFailure,
    ) -> Shared {
        Shared {
            disk,
            options,
            batch_bytes_max,
            durable: AtomicU64::new(next - 1),
            // What an earlier process wrote may be of sessions.
            sessions: AtomicU64::new(next - 1),
            queue: Mutex::new(Queue::new(next, batch_bytes_max)),
            work: Condvar::new(),
            index: Mutex::new(index),
            holds: Arc::default(),
            preparation: Mutex::new(preparation),
            preparation_changed: Condvar::new(),
            stop_helper: AtomicBool::new(false),
            waiting: Mutex::new(0),
            advanced: Condvar::new(),
            on_failure: Mutex::new(Some(on_failure)),
            commits: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
        }
    }

    /// Every record up to this offset is on stable storage.
    pub(super) fn durable(&self) -> u64 {
        // Acquire: whoever sees the offset also sees what the committer did before.
        self.durable.load(Ordering::Acquire)
    }

    /// Says that everything up to `offset` was synced.
    pub(super) fn publish(&self, offset: u64) {
        self.durable.store(offset, Ordering::Release);
        // The waiters look at `durable` under this lock, so none misses it and sleeps.
        if *lock(&self.waiting) > 0 {
            self.advanced.notify_all();
        }
    }

    /// Blocks until `durable` is past `offset` or the time is over.
    pub(super) fn wait_past(&self, offset: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now().checked_add(timeout);
        let mut waiting = lock(&self.waiting);
        *waiting += 1;
        loop {
            let durable = self.durable();
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if durable > offset || left.is_zero() {
                *waiting -= 1;
                return durable;
            }
            let woken = self.advanced.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Refuses new work until there is room.
    pub(super) fn full(&self, reason: FullReason) {
        lock(&self.queue).full(reason);
        tracing::warn!(?reason, "no room for the journal: new records wait");
    }

    /// After a failed write or sync nothing is accepted and `durable` never moves again (REL-04).
    pub(super) fn fail(&self, error: &JournalError) {
        lock(&self.queue).status = JournalStatus::Failed;
        tracing::error!(%error, "the journal failed");
        let on_failure = lock(&self.on_failure).take();
        if let Some(on_failure) = on_failure {
            on_failure(error);
        }
    }
}

/// A lock whose holder panicked is as good as another: no state here is left half-changed, and
/// a panic on one of the journal's threads ends in [`Shared::fail`].
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition for a while, or without limit.
pub(super) fn wait<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, T> {
    match timeout {
        None => condition
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            let woken = condition.wait_timeout(guard, timeout);
            woken.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

impl Shared {
    /// Path of a file in the journal's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.options.dir.join(name)
    }
}
