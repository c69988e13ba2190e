//! The durable log: the one way telemetry becomes durable.

mod disk;
mod error;
mod format;
mod options;
mod reader;
mod record;
mod submit;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use disk::{Disk, DiskFile, DiskLock, FileEntry, RealDisk};
pub use error::JournalError;
pub use options::{
    Cut, DAMAGE_REPORTS_MAX, Damage, FullReason, JournalOptions, JournalStatus, JournalUsage,
    Recovery, Verification,
};
pub use reader::{Entry, Reader};
pub use record::{
    BATCH_BYTES_MAX, Batch, BatchFull, Offset, RECORD_BODY_BYTES_MAX, RECORD_HEADER_BYTES, Record,
    RecordBatch, RecordHeader, RecordKind, Records,
};
pub use submit::{Submitter, Wake};

/// Called once, on the journal's thread, after the write or sync that failed (REL-04).
pub type OnFailure = Box<dyn FnOnce(&JournalError) + Send>;

/// The journal. Clones are handles on the same one.
#[derive(Clone)]
pub struct Journal {
    _disk: Arc<dyn Disk>,
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
        let _ = (options, on_failure);
        let elapsed = Instant::now().elapsed();
        let recovery = Recovery {
            first: Offset::new(1),
            last: Offset::ZERO,
            cut: None,
            damage: Vec::new(),
            elapsed,
        };
        Ok((Journal { _disk: disk }, recovery))
    }

    /// A new submitter, one per worker; `wake` is called once per sync that made something of this
    /// submitter durable, and when space returns.
    #[must_use]
    pub fn submitter(&self, wake: Wake) -> Submitter {
        Submitter::new(wake)
    }

    /// Every record up to this offset is on stable storage. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset::ZERO
    }

    /// The oldest record kept; one after [`Journal::durable`] when there is none.
    #[must_use]
    pub fn first(&self) -> Offset {
        Offset::new(1)
    }

    /// Whether the journal takes new records.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        JournalStatus::Running
    }

    /// Figures for metrics.
    #[must_use]
    pub fn usage(&self) -> JournalUsage {
        JournalUsage::default()
    }

    /// Blocks until something after `offset` is durable or the time is over; answers what is
    /// durable then.
    #[must_use]
    pub fn wait_past(&self, offset: Offset, timeout: Duration) -> Offset {
        let _ = (offset, timeout);
        self.durable()
    }

    /// A reader whose first record is the one at `from` (or the oldest kept, if that is later).
    /// It returns durable records only.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        Reader::new(from)
    }

    /// Reads and checks everything that is durable. Blocking; takes as long as reading the files.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be read.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        Ok(Verification::default())
    }

    /// Removes the segments whose records all come before `before`, oldest first; answers the
    /// oldest record kept. The newest segment always stays.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be removed.
    pub fn release(&self, before: Offset) -> Result<Offset, JournalError> {
        let _ = before;
        Ok(self.first())
    }

    /// Gives the ballast's space back to the file system, for a write more important than
    /// telemetry. True if there was a ballast. It is made again when there is room.
    #[must_use]
    pub fn release_ballast(&self) -> bool {
        false
    }

    /// Commits what was submitted, stops the threads and releases the lock. Later submits are
    /// refused; readers go on. Calling it again does nothing.
    ///
    /// # Errors
    /// [`JournalError::Unwritten`] when there was no space for the last records (they were never
    /// acknowledged), [`JournalError::Failed`] when the journal has failed.
    pub fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
