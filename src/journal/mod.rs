//! The durable log: the one way telemetry becomes durable.
//!
//! # Format (all of it: `docs/journal-format.md`)
//!
//! ```text
//! 00000000000000000001.journal     a segment, named by its first offset; 64 MiB, zero-filled ahead
//!   0      segment header (64 B)   magic, format version, salt, first offset, CRC-32C
//!   4096   the same again
//!   8192   batch, batch, …         each at a multiple of 8
//!            header (40 B)         salt, number, first offset, records, length, CRC-32C of these,
//!                                  CRC-32C of header and records
//!            record, record, …     header (52 B), body; offsets are implied by place
//!          zeros
//! next.prepared  ballast  lock
//! ```
//!
//! Little endian. A batch is a commit: all that the workers had handed over, one write, one sync.
//!
//! # Invariants
//!
//! 1. A file gets its name when it is zero-filled and has its headers, synced; the directory is
//!    synced before the first batch.
//! 2. Batch n+1 is written only after batch n was synced: at most the last one can be torn.
//! 3. `durable` moves after the sync, over whole batches, never back (REL-01).
//! 4. After a failed write or sync in a segment nothing more is written and `durable` never moves
//!    again (REL-04).
//! 5. No file is continued by a later process: a start cuts the last one and makes a new one with
//!    a new salt, so that nothing behind a cut is ever taken for a batch.
//! 6. Offsets are consecutive from file to file, and none that was durable is given twice.
//! 7. Bytes are a batch only with the file's salt, the number and offset that follow, and both
//!    checksums.
//!
//! # Damage
//!
//! A bad batch with a good one behind it (in any file) is damage: reported with file and position,
//! the rest served. A bad one at the very end is a torn tail: cut and reported (REL-05). What fails
//! a check is never served, and nothing is skipped without a report.
//!
//! # Threads
//!
//! `journal` commits ([`Submitter::submit`] wakes it); `journal-prep` zero-fills the next segment
//! and keeps the ballast. Power loss, kill -9 and a failed sync cost nothing that was durable.

mod committer;
mod cursor;
mod disk;
mod error;
mod format;
mod hold;
mod index;
mod options;
mod prefix;
mod prepare;
mod queue;
mod reader;
mod record;
mod recovery;
mod segment;
mod shared;
mod slow;
mod submit;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::prepare::{BALLAST_NAME, Ballast, PREPARED_NAME, Preparation};
use self::shared::{Shared, lock};

pub use disk::{BLOCK_BYTES, Disk, DiskFile, DiskLock, FileEntry, RealDisk};
pub use error::JournalError;
pub use hold::Hold;
pub use options::{
    Cut, DAMAGE_REPORTS_MAX, Damage, FullReason, JournalOptions, JournalStatus, JournalUsage,
    OnCommit, Recovery, Verification,
};
pub use prefix::PrefixPart;
pub use queue::{BATCHES_WAITING_MAX, HandedOver};
pub use reader::{Entry, Reader};
pub use record::{
    BATCH_BYTES_MAX, Batch, BatchFull, Offset, RECORD_BODY_BYTES_MAX, RECORD_HEADER_BYTES, Record,
    RecordBatch, RecordHeader, RecordKind, Records,
};
pub use slow::SlowDisk;
pub use submit::{Submitter, Wake};

/// Called once, on the journal's thread, after the write or sync that failed (REL-04).
pub type OnFailure = Box<dyn FnOnce(&JournalError) + Send>;

/// Held by the process that has the journal open (REL-09).
const LOCK_NAME: &str = "lock";

/// The journal. Clones are handles on the same one; the last one dropped closes it.
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    committer: JoinHandle<Result<(), JournalError>>,
    helper: JoinHandle<()>,
    lock: Box<dyn DiskLock>,
}

impl Journal {
    /// Opens the journal in `options.dir` (made when missing), locks it, cuts a torn tail off, and
    /// starts its threads. Says in [`Recovery`] what it found.
    ///
    /// `on_failure` is called once, on the journal's thread, after a failed write or sync: nothing
    /// is accepted or acknowledged from then on (REL-04), the process should end.
    ///
    /// # Errors
    /// [`JournalError::Locked`], [`JournalError::NewerFormat`] (nothing was changed),
    /// [`JournalError::Option`], or [`JournalError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        on_failure: OnFailure,
    ) -> Result<(Journal, Recovery), JournalError> {
        let start = Instant::now();
        options.check()?;
        let dir = options.dir.as_path();
        disk.create_dir(dir)
            .map_err(|e| JournalError::io("create", dir, e))?;
        let path = dir.join(LOCK_NAME);
        let lock = disk
            .lock(&path)
            .map_err(|e| JournalError::io("lock", &path, e))?;
        let lock = lock.ok_or(JournalError::Locked { path })?;
        let found = recovery::recover(&*disk, dir)?;
        let ballast = left_over(&*disk, &options)?;
        let recovery = Recovery {
            first: Offset::new(
                found
                    .segments
                    .first()
                    .map_or(found.next, |oldest| oldest.first),
            ),
            last: Offset::new(found.next - 1),
            cut: found.cut,
            damage: found.damage,
            elapsed: start.elapsed(),
        };
        let batch_bytes_max = BATCH_BYTES_MAX.min(segment::capacity(options.segment_bytes));
        let shared = Arc::new(Shared::new(
            disk,
            options,
            batch_bytes_max,
            found.next,
            index::Index::new(found.segments),
            Preparation::new(ballast),
            on_failure,
        ));
        let threads = Mutex::new(Some(Threads::start(&shared, lock)?));
        Ok((
            Journal {
                handle: Arc::new(Handle { shared, threads }),
            },
            recovery,
        ))
    }

    /// A new submitter, one per worker; `wake` is called once per sync that made something of this
    /// submitter durable, and when space returns.
    #[must_use]
    pub fn submitter(&self, wake: Wake) -> Submitter {
        Submitter::new(Arc::clone(self.shared()), wake)
    }

    /// Every record up to this offset is on stable storage. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset::new(self.shared().durable())
    }

    /// The durable offset, if nothing durable behind `offset` is of a session (see
    /// [`RecordHeader::is_of_session`]): then a follower of sessions need not read that far.
    #[must_use]
    pub fn no_sessions_behind(&self, offset: Offset) -> Option<Offset> {
        // In this order: a commit's sessions are told before the commit is.
        let durable = self.durable();
        let sessions = self.shared().sessions.load(Ordering::Relaxed);
        (sessions <= offset.number()).then_some(durable)
    }

    /// The oldest record kept; one after [`Journal::durable`] when there is none.
    #[must_use]
    pub fn first(&self) -> Offset {
        let first = lock(&self.shared().index).first();
        first.map_or_else(|| self.durable().next(), Offset::new)
    }

    /// Whether the journal takes new records.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        lock(&self.shared().queue).status
    }

    /// Figures for metrics.
    #[must_use]
    pub fn usage(&self) -> JournalUsage {
        let shared = self.shared();
        let (bytes, segments) = lock(&shared.index).size();
        let prepared = lock(&shared.preparation).is_ready();
        JournalUsage {
            bytes: bytes
                + if prepared {
                    shared.options.segment_bytes
                } else {
                    0
                },
            segments,
            commits: shared.commits.load(Ordering::Relaxed),
            commit_bytes: shared.commit_bytes.load(Ordering::Relaxed),
        }
    }

    /// Blocks until something after `offset` is durable or the time is over; answers what is
    /// durable then.
    #[must_use]
    pub fn wait_past(&self, offset: Offset, timeout: Duration) -> Offset {
        Offset::new(self.shared().wait_past(offset.number(), timeout))
    }

    /// A reader whose first record is the one at `from` (or the oldest kept, if that is later).
    /// It returns durable records only. A reader that is overtaken by [`Journal::release`] goes on
    /// with the oldest record kept.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        Reader::new(Arc::clone(self.shared()), from)
    }

    /// Reads and checks everything that is durable now. Blocking; takes as long as reading the
    /// files.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be read.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        let mut reader = self.reader(Offset::ZERO);
        let last = self.durable();
        let mut verification = Verification::default();
        while reader.position() <= last {
            match reader.next()? {
                Some(Entry::Batch(batch)) => {
                    verification.batches += 1;
                    verification.records += batch.len() as u64;
                }
                Some(Entry::Damage(damage)) => {
                    verification.damage_total += 1;
                    if verification.damage.len() < DAMAGE_REPORTS_MAX {
                        verification.damage.push(damage);
                    }
                }
                None => break,
            }
        }
        Ok(verification)
    }

    /// Keeps everything from `from` on until the [`Hold`] moves or is dropped. What was released
    /// before is gone: compare with [`Journal::first`].
    #[must_use]
    pub fn hold(&self, from: Offset) -> Hold {
        Hold::new(&self.shared().holds, from)
    }

    /// First offsets of all segments kept, oldest first.
    #[must_use]
    pub fn segment_starts(&self) -> Vec<Offset> {
        let starts = lock(&self.shared().index).starts();
        starts.into_iter().map(Offset::new).collect()
    }

    /// Where the newest segments begin that have at least `bytes` together; the oldest record kept
    /// if all have less.
    #[must_use]
    pub fn tail_start(&self, bytes: u64) -> Offset {
        let first = lock(&self.shared().index).tail(bytes);
        first.map_or_else(|| self.durable().next(), Offset::new)
    }

    /// Bytes of files that hold the records from `offset` on.
    #[must_use]
    pub fn bytes_from(&self, offset: Offset) -> u64 {
        lock(&self.shared().index).bytes_from(offset.number())
    }

    /// Removes the segments whose records all come before `before` and before every [`Hold`],
    /// oldest first; answers the oldest record kept. The newest segment always stays.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be removed.
    pub fn release(&self, before: Offset) -> Result<Offset, JournalError> {
        let shared = self.shared();
        let dir = shared.options.dir.as_path();
        let held = lock(&shared.holds).first();
        let before = held.map_or(before, |held| held.min(before));
        loop {
            // Out of the index first: no new reader looks for the file.
            let segment = lock(&shared.index).take_before(before.number());
            let Some(segment) = segment else { break };
            remove(&*shared.disk, &segment.path)?;
            // One by one, so that a power loss leaves no hole between the files that stay.
            shared
                .disk
                .sync_dir(dir)
                .map_err(|e| JournalError::io("sync", dir, e))?;
        }
        Ok(self.first())
    }

    /// Gives the ballast's space back to the file system, for a write more important than
    /// telemetry. True if there was a ballast. It is made again when there is room.
    #[must_use]
    pub fn release_ballast(&self) -> bool {
        let shared = self.shared();
        let mut preparation = lock(&shared.preparation);
        if preparation.ballast != Ballast::Present {
            return false;
        }
        preparation.ballast = Ballast::Changing;
        drop(preparation);
        tracing::warn!(
            bytes = shared.options.ballast_bytes,
            "the disk is full: the ballast is given up for what must be written all the same"
        );
        let removed = remove(&*shared.disk, &shared.path(BALLAST_NAME));
        lock(&shared.preparation).ballast = if removed.is_ok() {
            Ballast::Absent
        } else {
            Ballast::Present
        };
        shared.preparation_changed.notify_all();
        removed.is_ok()
    }

    /// Commits what was submitted, stops the threads and releases the lock. Later submits are
    /// refused; readers go on. Calling it again does nothing.
    ///
    /// # Errors
    /// [`JournalError::Unwritten`] when there was no space for the last records (they were never
    /// acknowledged); what stopped the journal, when it has failed.
    pub fn close(&self) -> Result<(), JournalError> {
        self.handle.close()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl Handle {
    fn close(&self) -> Result<(), JournalError> {
        let Some(threads) = lock(&self.threads).take() else {
            return Ok(());
        };
        let mut queue = lock(&self.shared.queue);
        if queue.status != JournalStatus::Failed {
            queue.status = JournalStatus::Closed;
        }
        drop(queue);
        self.shared.work.notify_all();
        lock(&self.shared.preparation).closing = true;
        self.shared.preparation_changed.notify_all();
        let panicked = |thread| JournalError::Panicked { thread };
        // The helper goes last: the committer may need one more segment.
        let committed = threads.committer.join();
        self.shared.stop_helper.store(true, Ordering::Relaxed);
        // Under the lock, or the helper could miss it between its look and its sleep.
        drop(lock(&self.shared.preparation));
        self.shared.preparation_changed.notify_all();
        let helped = threads.helper.join();
        drop(threads.lock);
        committed.unwrap_or(Err(panicked(committer::THREAD)))?;
        helped.map_err(|_| panicked(prepare::THREAD))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the journal was not closed cleanly");
        }
    }
}

impl Threads {
    fn start(shared: &Arc<Shared>, lock: Box<dyn DiskLock>) -> Result<Threads, JournalError> {
        let failed = |e| JournalError::io("start a thread for", &shared.options.dir, e);
        let state = Arc::clone(shared);
        let helper = std::thread::Builder::new()
            .name(prepare::THREAD.to_owned())
            .spawn(move || prepare::run(&state))
            .map_err(failed)?;
        let state = Arc::clone(shared);
        let committer = std::thread::Builder::new()
            .name(committer::THREAD.to_owned())
            .spawn(move || committer::run(&state))
            .inspect_err(|_| shared.stop_helper.store(true, Ordering::Relaxed))
            .map_err(failed)?;
        Ok(Threads {
            committer,
            helper,
            lock,
        })
    }
}

/// Removes what an earlier process was preparing, and says whether its ballast is still whole.
fn left_over(disk: &dyn Disk, options: &JournalOptions) -> Result<Ballast, JournalError> {
    let dir = options.dir.as_path();
    let entries = disk
        .list(dir)
        .map_err(|e| JournalError::io("list", dir, e))?;
    let mut ballast = if options.ballast_bytes == 0 {
        Ballast::Off
    } else {
        Ballast::Absent
    };
    for entry in entries {
        let is_ballast = entry.name == BALLAST_NAME;
        if is_ballast && ballast == Ballast::Absent && entry.len == options.ballast_bytes {
            ballast = Ballast::Present;
        } else if is_ballast || entry.name == PREPARED_NAME {
            remove(disk, &dir.join(&entry.name))?;
        }
    }
    Ok(ballast)
}

fn remove(disk: &dyn Disk, path: &std::path::Path) -> Result<(), JournalError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
