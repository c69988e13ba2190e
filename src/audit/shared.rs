//! What those who tell something and the audit's thread share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::event::Event;
use super::gate::Gate;
use super::notice::{Connected, Notice, RefusedClientNotice, TakenOver};
use super::record;
use super::refused::{Known, RefusedClient, Table};
use super::scan::{Head, NO_HEAD};
use super::{Book, LookUp, Written};
use crate::metrics::{AuditFigures, AuditLoss};

/// A notice or an event, and its wall clock in ms.
pub(super) type Timed<T> = (u64, T);

pub(super) struct Shared {
    pub(super) directory: PathBuf,
    /// Of clients.
    pub(super) notices: SyncSender<Timed<Notice>>,
    /// Of everything else: a flood of clients does not fill it.
    pub(super) events: SyncSender<Timed<Event>>,
    /// Holds the registry, which holds this: let go of at the end.
    look_up: Mutex<Option<Arc<LookUp>>>,
    pub(super) figures: AuditFigures,
    pub(super) gates: Gates,
    /// The last change whose event is committed in the state database.
    staged: AtomicU64,
    /// The last changes and records that are synced in the books. A leaf lock.
    on_disk: Mutex<(u64, [Head; 2])>,
    pub(super) table: Mutex<Table>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    thread: OnceLock<Thread>,
    join: Mutex<Option<JoinHandle<()>>>,
    /// The thread sleeps until it is woken.
    is_idle: AtomicBool,
    is_stopping: AtomicBool,
}

/// How many events of each sort are told one by one.
pub(super) struct Gates {
    pub(super) connected: Gate,
    pub(super) refused: Gate,
    pub(super) taken_over: Gate,
    pub(super) calls: Gate,
}

#[derive(Default)]
struct Progress {
    /// Rounds that somebody waits for: the thread answers with the number it began with.
    asked: u64,
    answered: u64,
    written: Written,
    is_over: bool,
}

impl Shared {
    pub(super) fn new(
        directory: PathBuf,
        notices: SyncSender<Timed<Notice>>,
        events: SyncSender<Timed<Event>>,
        figures: AuditFigures,
        (change, heads): (u64, [Head; 2]),
    ) -> Shared {
        let now = Instant::now();
        Shared {
            directory,
            notices,
            events,
            look_up: Mutex::new(None),
            figures,
            gates: Gates {
                connected: Gate::new(now),
                refused: Gate::new(now),
                taken_over: Gate::new(now),
                calls: Gate::new(now),
            },
            staged: AtomicU64::new(change),
            on_disk: Mutex::new((change, heads)),
            table: Mutex::default(),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            thread: OnceLock::new(),
            join: Mutex::new(None),
            is_idle: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn started(&self, thread: JoinHandle<()>) {
        let _ = self.thread.set(thread.thread().clone()); // set once, here
        *held(&self.join) = Some(thread);
    }

    // What others tell.

    pub(super) fn connected(&self, now: Instant, describe: impl FnOnce() -> Connected) {
        if self.gates.connected.admits(now) {
            self.send(Notice::Connected(describe()));
        }
    }

    pub(super) fn refused(&self, client: RefusedClientNotice) {
        self.send(Notice::Refused(client));
    }

    pub(super) fn taken_over(&self, what: TakenOver) {
        self.send(Notice::TakenOver(what));
    }

    pub(super) fn call_refused(&self, now: Instant, describe: impl FnOnce() -> Event) {
        if self.gates.calls.admits(now) {
            self.send(Notice::Event(describe()));
        }
    }

    pub(super) fn note(&self, event: Event) {
        debug_assert!(event.what().book() == Book::Admin, "others have their gate");
        if self.events.try_send((now_ms(), event)).is_err() {
            self.figures.lost(AuditLoss::QueueFull, 1);
        }
        self.stir();
    }

    fn send(&self, notice: Notice) {
        if self.notices.try_send((now_ms(), notice)).is_err() {
            self.figures.lost(AuditLoss::QueueFull, 1);
        }
        self.stir();
    }

    pub(super) fn committed(&self, number: u64) {
        self.staged.fetch_max(number, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the thread if it sleeps for good; if it only pauses, it comes by itself soon. So a
    /// thousand clients in a moment cost one call of the system.
    fn stir(&self) {
        // Behind the sending, as the thread looks at the queue once more behind saying it is idle.
        fence(Ordering::SeqCst);
        if self.is_idle.load(Ordering::SeqCst) && self.is_idle.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    // What others ask.

    pub(super) fn on_disk(&self) -> (u64, [Head; 2]) {
        *held(&self.on_disk)
    }

    pub(super) fn waiting(&self) -> u64 {
        let (written, _) = self.on_disk();
        self.staged().saturating_sub(written)
    }

    pub(super) fn refused_after(&self, sequence: u64) -> Vec<RefusedClient> {
        held(&self.table).after(sequence)
    }

    pub(super) fn catch_up(&self, within: Duration) {
        let mut progress = held(&self.progress);
        progress.asked += 1;
        let wanted = progress.asked;
        self.wake();
        let is_waiting = |progress: &mut Progress| progress.answered < wanted && !progress.is_over;
        let waited = self
            .progressed
            .wait_timeout_while(progress, within, is_waiting);
        // Late, or a panic elsewhere: what is there is shown.
        drop(waited);
    }

    pub(super) fn written(&self, since: Option<u64>, within: Duration) -> Written {
        let progress = held(&self.progress);
        let Some(since) = since else {
            return progress.written;
        };
        let is_waiting =
            |progress: &mut Progress| progress.written.round <= since && !progress.is_over;
        let waited = self
            .progressed
            .wait_timeout_while(progress, within, is_waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.written
    }

    pub(super) fn look_up_with(&self, look_up: LookUp) {
        *held(&self.look_up) = Some(Arc::new(look_up));
    }

    pub(super) fn look_up(&self, digest: &[u8; 32]) -> Option<Known> {
        let look_up = held(&self.look_up).clone()?;
        look_up(digest)
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.wake();
        let thread = held(&self.join).take();
        *held(&self.look_up) = None;
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit's thread had panicked");
        }
    }

    // What the thread says.

    pub(super) fn staged(&self) -> u64 {
        self.staged.load(Ordering::SeqCst)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub(super) fn asked(&self) -> u64 {
        held(&self.progress).asked
    }

    pub(super) fn synced(&self, change: u64, heads: [Head; 2]) {
        *held(&self.on_disk) = (change, heads);
    }

    /// A round is over that began when `asked` was asked for; the books end there now.
    pub(super) fn answered(&self, asked: u64, ends: [Option<(u64, u64)>; 2]) {
        let mut progress = held(&self.progress);
        progress.answered = asked;
        if progress.written.ends != ends {
            progress.written.ends = ends;
            progress.written.round += 1;
        }
        drop(progress);
        self.progressed.notify_all();
    }

    pub(super) fn over(&self) {
        held(&self.progress).is_over = true;
        self.progressed.notify_all();
    }

    /// Says that the thread is about to sleep for good, or is not any more.
    pub(super) fn idle(&self, is_idle: bool) {
        self.is_idle.store(is_idle, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}

/// Whole values stand behind every lock here, whatever panicked while it was held.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock, ms since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The heads as the state database keeps them.
pub(super) fn packed(heads: &[Head; 2]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80);
    for head in heads {
        bytes.extend_from_slice(&head.number.to_le_bytes());
        bytes.extend_from_slice(&head.digest);
    }
    bytes
}

/// Reads what [`packed`] wrote.
pub(super) fn unpacked(bytes: &[u8]) -> Option<[Head; 2]> {
    let mut heads = [NO_HEAD; 2];
    let mut rest = bytes;
    for head in &mut heads {
        let (number, behind) = rest.split_first_chunk::<8>()?;
        let (digest, behind) = behind.split_first_chunk::<{ size_of::<record::Digest>() }>()?;
        *head = Head {
            number: u64::from_le_bytes(*number),
            digest: *digest,
        };
        rest = behind;
    }
    rest.is_empty().then_some(heads)
}
