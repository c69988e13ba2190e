//! The history of every device: what was acknowledged, as it can be asked for.
//!
//! ```text
//! journal → store-reader → head: active │ sealing → store-seal → files → store-compact
//!                          (memory)                  _manifest.json, _latest-N.checkpoint
//! ```
//!
//! A thread follows the journal and appends its samples to the *active* generation of the head in
//! memory. When that is full or old, it becomes the *sealing* one and a new one is begun; the seal
//! thread sorts it by (device, key, time) and writes it as a Parquet file named by its offsets
//! (layout: `docs/history-format.md`). Only then may the journal let go of these records. Small
//! files are merged into larger ones. After a start the head is filled again from the end of the
//! last file on.
//!
//! # Invariants
//! 1. Only durable records are ever seen here, as the journal's reader returns no others.
//! 2. The files of the manifest hold every sample up to `sealed`, the head those behind it up to
//!    `read`. A change of both is one step under one lock, so a query sees each sample once.
//! 3. A file is complete and synced before it has its name, is in the manifest before it is used,
//!    and is used before the journal lets go of what it holds. A crash leaves nothing out and
//!    nothing twice: what is not in the manifest is removed at the next start.
//! 4. A query sees every record that was durable when it was asked (section 3 of the architecture:
//!    read your writes, TB-24), or fails with [`QueryError::Behind`].
//! 5. Of equal (device, key, time) the record with the later offset counts; within one record the
//!    later place.
//! 6. Every byte read from a file was checked against a CRC-32C.
//!
//! Damage is reported (log and status) and the rest is served. When files cannot be written, the
//! head fills up and the journal keeps what does not fit; queries then read it there.

mod aggregate;
mod best;
mod checked;
mod columns;
mod compact;
mod cursor;
mod encode;
mod file;
mod files;
mod follow;
mod hasher;
mod head;
mod latest;
mod manifest;
mod merge;
mod options;
mod pages;
mod plan;
mod publish;
mod query;
mod rows;
mod run;
mod seal;
mod shared;
mod suspects;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

use super::sample::OwnedValue;
use crate::journal::{Damage, Journal, JournalError, Offset};
use shared::Shared;

pub use aggregate::{Aggregate, Aggregation, BUCKETS_MAX, Bucket};
pub use options::{HistoryOptions, OnStep};
pub use suspects::{Suspect, SuspectMark};
pub use verify::{FileVerdict, StoreReport, verify_files};

/// Longest wait of a query for the store to have read what is durable. Beyond it the store cannot
/// keep up, and a caller does better to come again than to hold a connection.
const BARRIER_MAX: Duration = Duration::from_secs(5);

/// Most bytes the points of one query may take, counted with keys and text. Beyond it the query
/// fails with [`QueryError::TooLarge`]: a smaller limit or range is needed.
pub const RESULT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Damage reports kept for [`HistoryStatus`]; more are only counted and logged.
pub const DAMAGE_KEPT_MAX: usize = 100;

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
    /// But for what these mark. Where an older value of the same place is still kept, that shows.
    pub left_out: Vec<Suspect>,
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

/// A file of the history that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDamage {
    /// The file.
    pub file: PathBuf,
    /// What does not fit, for people.
    pub what: String,
}

/// How far the store is, for metrics and health.
#[derive(Clone, Debug, Default)]
pub struct HistoryStatus {
    /// Everything up to this offset can be asked for.
    pub read: Offset,
    /// When the last record read had come in, milliseconds since the Unix epoch; 0 before the
    /// first one.
    pub read_received_ms: u64,
    /// Everything up to this offset is in files.
    pub sealed: Offset,
    /// The first offset whose samples are in memory.
    pub head_first: Offset,
    /// Bytes the samples in memory take, of both generations, and storage kept for the next one.
    pub head_bytes: usize,
    /// Files of samples.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Samples in them.
    pub file_rows: u64,
    /// Damaged files, at most [`DAMAGE_KEPT_MAX`] entries.
    pub file_damage: Vec<FileDamage>,
    /// All damaged files, counted beyond that limit too.
    pub file_damage_total: u64,
    /// Files written from the head since the start.
    pub seals: u64,
    /// How long the last one took.
    pub seal_last: Duration,
    /// Why the last one failed, if it did; it is tried again.
    pub seal_failure: Option<String>,
    /// Files merged or rewritten since the start.
    pub compactions: u64,
    /// How long the last one took.
    pub compaction_last: Duration,
    /// Deleted devices whose bytes may still be in files.
    pub unpurged: usize,
    /// Bytes the latest values take in memory.
    pub latest_bytes: usize,
    /// Devices whose latest values were dropped from memory.
    pub latest_evictions: u64,
    /// Damage met in the journal, at most [`DAMAGE_KEPT_MAX`] entries.
    pub damage: Vec<Damage>,
    /// All damage met, counted beyond that limit too; and, as one, records that the journal no
    /// longer has and the history never had.
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
    /// Environment: a file of the history cannot be opened.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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
    /// Opens the directory of the history, made when missing, and starts to follow the journal
    /// behind what is sealed. `tombstones`: see [`Self::forget`]. Returns when the list of files
    /// is read, however large they or the journal are.
    ///
    /// # Errors
    /// When the directory cannot be used or was written by a later version, or a thread cannot be
    /// started.
    pub fn start(
        journal: Journal,
        options: HistoryOptions,
        tombstones: impl IntoIterator<Item = (Uuid, Offset)>,
    ) -> io::Result<Self> {
        let (shared, from) = Shared::open(journal, options, tombstones.into_iter().collect())?;
        let mut threads = Threads {
            shared: Arc::new(shared),
            running: Vec::new(),
        };
        threads.spawn("store-reader", move |shared| follow::follow(&shared, from))?;
        threads.spawn("store-verify", |shared| follow::verify(&shared))?;
        threads.spawn("store-seal", |shared| seal::run(&shared))?;
        threads.spawn("store-compact", |shared| compact::run(&shared))?;
        threads.spawn("store-latest", |shared| latest::load(&shared))?;
        Ok(Self {
            threads: Arc::new(threads),
        })
    }

    /// The points a query asks for. Blocking: waits until what is durable now has been read, then
    /// reads what the indexes of the files do not rule out. Bounded in memory, not in time.
    ///
    /// # Errors
    /// See [`QueryError`]; damage is none.
    pub fn query(&self, query: &Query) -> Result<Vec<Point>, QueryError> {
        query::points(&self.threads.shared, query)
    }

    /// One value for each stretch of time and series, from the points of these stretches.
    /// Blocking, bounded in memory.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn aggregate(&self, aggregate: &Aggregate) -> Result<Vec<Bucket>, QueryError> {
        aggregate::buckets(&self.threads.shared, aggregate)
    }

    /// The point with the greatest time of each series of a device, by key. `keys`: only these.
    /// Blocking as [`Self::query`]; from memory, unless there are more devices than the limit
    /// set for it allows.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn latest(&self, device: Uuid, keys: Option<&[String]>) -> Result<Vec<Point>, QueryError> {
        latest::points(&self.threads.shared, device, keys)
    }

    /// Hides all records of the device before `before` for good, everywhere: the device was
    /// deleted when that offset was the next one. An earlier tombstone of the device that reaches
    /// further stays. Its bytes go with a later compaction.
    pub fn forget(&self, device: Uuid, before: Offset) {
        self.threads.shared.forget(device, before);
    }

    /// Writes the file of marks anew, for those who read the files without Tollgate. Durable on
    /// return.
    ///
    /// # Errors
    /// What the system says; the file is as it was.
    pub fn write_suspects(&self, marks: &[SuspectMark]) -> io::Result<()> {
        suspects::write(&self.threads.shared.options.dir, marks)
    }

    /// Makes queries end with [`QueryError::Stopping`], those that run included. For a stop of the
    /// broker while an answer is being gathered.
    pub fn stop(&self) {
        self.threads.shared.refuse();
    }

    /// Stops, writes what is in memory to a file if that is possible, and ends the threads; what
    /// cannot be written stays in the journal. Calling it again does nothing.
    pub fn close(&self) {
        self.threads.close();
    }

    /// How far the store is and what it met.
    pub fn status(&self) -> HistoryStatus {
        self.threads.shared.status()
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

    fn close(&self) {
        self.shared.refuse();
        self.shared.catch_up();
        self.shared.stop();
        self.shared.wait_until_closed();
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
