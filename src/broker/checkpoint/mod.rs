//! What outlives a process beside the registry: stored sessions with their queues and wills, and
//! retained messages. A reader of the journal keeps tables of the state database a little behind
//! it, and a start catches up.
//!
//! The journal's records are the truth ([`super::record`]). The [`Checkpointer`] applies them to a
//! *shadow*: all sessions, and of everything else what changed since the last checkpoint. When
//! that is old or large enough, it is written to the database together with the offset reached;
//! then the journal need not keep it, so that a message that waits for an absent client holds no
//! segment. A start loads the tables and replays the rest of the journal, so its time does not
//! grow with the journal. After a crash a session counts as disconnected at the start.
//!
//! - **Memory.** Sessions; and of messages, retained ones and wills what came since the last
//!   checkpoint and is not settled, at most [`HELD_BYTES_MAX`] by about a commit. A message that is
//!   delivered and acknowledged meanwhile never reaches the database.
//! - **Full disk.** No checkpoint can be written: it is tried again every second, the journal is
//!   kept from the last one on, and not followed further than the memory allows.
//! - **Damage.** What is lost is reported with its place; see `Shadow::pass_over`.
//! - **Revocation** is durable in the registry, whatever the journal says: see `save` (SEC-34).

mod changes;
mod queues;
mod restore;
mod save;
mod session;
mod shadow;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::restore::Now;
use self::shadow::{Followed, Shadow};
use super::feed::RestoredFeed;
use super::retained::{RetainedIndex, RetainedLimits};
use super::sessions::{SessionKey, Stored};
use crate::journal::{Hold, Journal, JournalError, Offset};
use crate::store::{Store, StoreError, messages, sessions};

/// How often the journal is followed; between two looks it only grows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A checkpoint is written when this many records were passed since the last one: it bounds what a
/// start replays and costs a few transactions.
const CHECKPOINT_RECORDS: u64 = 1_000_000;

/// And also when this many bytes were committed since then, so that large records do not make it
/// long.
const CHECKPOINT_BYTES: u64 = 256 * 1024 * 1024;

/// And when so many bytes of messages, retained messages and wills are held.
pub const DUE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of these that are held at most while checkpoints cannot be written.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(DUE_BYTES < HELD_BYTES_MAX);

/// What the last run left.
#[derive(Debug)]
pub struct Restored {
    /// Stored sessions with their queues and wills; their clock starts now.
    pub sessions: Vec<(SessionKey, Stored)>,
    /// The first session number that was never used.
    pub next_number: u32,
    /// The feeds of these sessions.
    pub feeds: Vec<RestoredFeed>,
    /// Retained messages.
    pub retained: Arc<RetainedIndex>,
}

impl Default for Restored {
    /// Nothing: a first start.
    fn default() -> Self {
        Self {
            sessions: Vec::new(),
            next_number: 1,
            feeds: Vec::new(),
            retained: Arc::new(RetainedIndex::new(RetainedLimits::default())),
        }
    }
}

/// Why the state of the last run could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint could not be read.
    #[error("the stored sessions cannot be read from the state database: {0}")]
    Store(#[from] StoreError),
    /// The journal could not be read.
    #[error("the stored sessions cannot be replayed from the journal: {0}")]
    Journal(#[from] JournalError),
    /// The thread could not be made.
    #[error("cannot start the thread that follows the stored sessions: {0}")]
    Thread(io::Error),
}

/// The reader that keeps the tables up to date; its thread is named `state-sessions`.
#[derive(Debug)]
pub struct Checkpointer {
    /// A message asks for a checkpoint, its end for the last one.
    wishes: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// How far the state database is.
struct Checkpoint {
    offset: Offset,
    /// Bytes that this process had committed to the journal then; `None` for a checkpoint of an
    /// earlier process, behind which nobody knows how much there is.
    bytes: Option<u64>,
    /// What is behind it stays in the journal.
    hold: Hold,
}

impl Checkpointer {
    /// Restores what the last run left and starts to follow the journal. What belongs to
    /// identities whose state was dropped is left out. `limits` are those of the retained messages
    /// from now on: what is there stays.
    ///
    /// # Errors
    /// The checkpoint or the journal could not be read.
    pub fn start(
        store: &Store,
        journal: &Journal,
        limits: RetainedLimits,
        now: Instant,
    ) -> Result<(Restored, Self), RestoreError> {
        let (rows, offset, is_partly_written) = store.read(|connection| {
            let offset = sessions::offset(connection)?;
            let is_partly_written = messages::is_partly_written(connection, offset)?;
            Ok((sessions::load(connection)?, offset, is_partly_written))
        })?;
        let written = Offset::new(offset);
        // A start needs everything behind the last checkpoint.
        let mut last = Checkpoint {
            offset: written,
            bytes: None,
            hold: journal.hold(written.next()),
        };
        let mut shadow = Shadow::new(rows, written);
        shadow.changes.queues.is_partly_written = is_partly_written;
        catch_up(&mut shadow, &mut last, store, journal)?;
        let now = Now {
            instant: now,
            wall_ms: wall_ms(),
        };
        let at = last.offset.number();
        let restored =
            store.read(|connection| restore::restored(&mut shadow, connection, at, limits, now))?;
        let (wishes, wished) = mpsc::channel();
        let (store, journal) = (store.clone(), journal.clone());
        let thread = std::thread::Builder::new()
            .name("state-sessions".to_owned())
            .spawn(move || run(shadow, last, &store, &journal, &wished))
            .map_err(RestoreError::Thread)?;
        Ok((restored, Self { wishes, thread }))
    }

    /// Asks for a checkpoint soon, although none is due.
    pub fn checkpoint(&self) {
        // A thread that is gone was reported.
        let _ = self.wishes.send(());
    }

    /// Writes a last checkpoint and ends the thread. Call it when the journal grows no more.
    pub fn stop(self) {
        drop(self.wishes);
        // A panic was reported by the thread itself; the next start replays a little more.
        let _ = self.thread.join();
    }
}

/// Applies everything durable. Where that is more than may be held, a checkpoint comes in between;
/// a start must succeed without one, too.
fn catch_up(
    shadow: &mut Shadow,
    last: &mut Checkpoint,
    store: &Store,
    journal: &Journal,
) -> Result<(), JournalError> {
    let mut bytes_max = HELD_BYTES_MAX;
    while shadow.follow(journal, bytes_max)? == Followed::Full {
        if let Err(error) = save::save(shadow, store, wall_ms()) {
            tracing::warn!(%error, "stored sessions: no checkpoint at the start; going on without");
            bytes_max = usize::MAX;
        } else {
            last.moves_to(shadow.applied, None);
        }
    }
    Ok(())
}

fn run(
    mut shadow: Shadow,
    mut last: Checkpoint,
    store: &Store,
    journal: &Journal,
    wished: &mpsc::Receiver<()>,
) {
    loop {
        let wish = wished.recv_timeout(FOLLOW_INTERVAL);
        let (is_wished, is_last) = match wish {
            Ok(()) => (true, false),
            Err(RecvTimeoutError::Timeout) => (false, false),
            Err(RecvTimeoutError::Disconnected) => (true, true),
        };
        while step(&mut shadow, &mut last, store, journal, is_wished) == Followed::Full {}
        if is_last {
            return;
        }
    }
}

/// Follows the journal, and writes a checkpoint if one is due. [`Followed::Full`] if it can go on
/// at once.
fn step(
    shadow: &mut Shadow,
    last: &mut Checkpoint,
    store: &Store,
    journal: &Journal,
    is_wished: bool,
) -> Followed {
    let followed = shadow
        .follow(journal, HELD_BYTES_MAX)
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "stored sessions: the journal cannot be read; trying again");
            Followed::All
        });
    let bytes = journal.usage().commit_bytes;
    let is_due = is_wished
        || followed == Followed::Full
        || shadow.changes.bytes() >= DUE_BYTES
        || last.is_old(shadow.applied, bytes);
    if shadow.applied > last.offset && is_due {
        match save::save(shadow, store, wall_ms()) {
            Ok(()) => last.moves_to(shadow.applied, Some(bytes)),
            Err(error) => {
                tracing::warn!(%error, "stored sessions: no checkpoint; trying again");
                return Followed::All;
            }
        }
    }
    followed
}

impl Checkpoint {
    /// True if a start would have much to replay behind this one.
    fn is_old(&self, applied: Offset, bytes: u64) -> bool {
        let records = applied.number().saturating_sub(self.offset.number());
        records >= CHECKPOINT_RECORDS
            || self
                .bytes
                .is_none_or(|before| bytes.saturating_sub(before) >= CHECKPOINT_BYTES)
    }

    fn moves_to(&mut self, offset: Offset, bytes: Option<u64>) {
        self.offset = offset;
        self.bytes = bytes;
        self.hold.advance(offset.next());
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
