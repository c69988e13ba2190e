//! What the operator sets, and what the journal reports about itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::JournalError;
use super::format::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::record::Offset;

/// Largest `commit_interval`: an ack waits that long.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How the journal is set up.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Directory of the segment files; made when missing. Nothing else belongs in it.
    pub dir: PathBuf,
    /// Bytes of a segment file, 16 KiB..=4 GiB.
    pub segment_bytes: u64,
    /// Bytes of all segment files together, at least two segments. At the cap new work is refused,
    /// old work is never dropped. The ballast does not count.
    pub size_max_bytes: u64,
    /// Least time between the starts of two commits, at most 1 s; half of it behind a commit of one
    /// record. A lone message never waits.
    pub commit_interval: Duration,
    /// Bytes of the ballast file, 0 = none: space that [`super::Journal::release_ballast`] gives
    /// back, so that a revocation can be written on a full disk.
    pub ballast_bytes: u64,
    /// Told how long each commit took: write and sync.
    pub on_commit: Option<OnCommit>,
}

/// Called on the journal's thread after each commit; it must be short and must not panic.
#[derive(Clone)]
pub struct OnCommit(pub Arc<dyn Fn(Duration) + Send + Sync>);

impl std::fmt::Debug for OnCommit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OnCommit")
    }
}

impl JournalOptions {
    /// The defaults for a directory: segments of 64 MiB, no size cap, 1 ms, ballast of 64 MiB.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> JournalOptions {
        JournalOptions {
            dir: dir.into(),
            segment_bytes: 64 * 1024 * 1024,
            size_max_bytes: u64::MAX,
            commit_interval: Duration::from_micros(1000),
            ballast_bytes: 64 * 1024 * 1024,
            on_commit: None,
        }
    }

    /// # Errors
    /// [`JournalError::Option`] for the first one outside its range.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        let wrong = |option, value, allowed| {
            Err(JournalError::Option {
                option,
                value,
                allowed,
            })
        };
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let allowed = format!("{SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
            return wrong("segment_bytes", self.segment_bytes, allowed);
        }
        let size_min = self.segment_bytes * 2;
        if self.size_max_bytes < size_min {
            return wrong(
                "size_max_bytes",
                self.size_max_bytes,
                format!("from {size_min}"),
            );
        }
        if self.commit_interval > COMMIT_INTERVAL_MAX {
            let micros = u64::try_from(self.commit_interval.as_micros()).unwrap_or(u64::MAX);
            let allowed = format!("up to {} µs", COMMIT_INTERVAL_MAX.as_micros());
            return wrong("commit_interval", micros, allowed);
        }
        Ok(())
    }
}

/// Whether the journal takes new records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalStatus {
    /// It does.
    Running,
    /// Not now: there is no room for a segment. It goes on by itself once there is.
    Full {
        /// Since when.
        since: Instant,
        /// Why.
        reason: FullReason,
    },
    /// Never again: a write or sync failed (REL-04).
    Failed,
    /// Not any more: [`super::Journal::close`] was called.
    Closed,
}

/// Why no segment can be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullReason {
    /// The file system has no space (or no quota, or no inode) for another segment.
    NoSpace,
    /// The journal has reached `size_max_bytes`.
    SizeMax,
    /// The process, or the whole machine, has no file descriptor left.
    NoDescriptor,
    /// The system refused for another reason; it is tried again all the same.
    Refused(std::io::ErrorKind),
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalUsage {
    /// Bytes of all segment files, the prepared one included.
    pub bytes: u64,
    /// Segment files in use.
    pub segments: u64,
    /// Commits (write + sync) since the start.
    pub commits: u64,
    /// Bytes written by these commits.
    pub commit_bytes: u64,
}

/// A stretch of the journal that cannot be served. It is reported, never skipped in silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Byte position in it at which the first bad batch (or header) starts.
    pub position: u64,
    /// Offset of the first record that is lost.
    pub first: Offset,
    /// Offset of the first record after the loss; equal to `first` when no record is lost.
    pub next: Offset,
    /// What is wrong, for people.
    pub what: String,
}

/// An unfinished commit at the end of the journal that was cut off: never acknowledged (REL-05).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: PathBuf,
    /// Byte position of the cut.
    pub position: u64,
    /// Bytes from the cut to the last byte that was written.
    pub bytes: u64,
}

/// What [`super::Journal::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest record kept; one after `last` when there is none.
    pub first: Offset,
    /// The newest record; [`Offset::ZERO`] when there never was one.
    pub last: Offset,
    /// The torn tail that was cut off.
    pub cut: Option<Cut>,
    /// Damage seen: in the last segment, and in the headers of the others.
    pub damage: Vec<Damage>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What [`super::Journal::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Good batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Damage, at most [`DAMAGE_REPORTS_MAX`] entries.
    pub damage: Vec<Damage>,
    /// All damage, counted beyond that limit too.
    pub damage_total: u64,
}

/// Entries of a damage report that are kept; more are only counted, so that a journal that is all
/// damage does not become a report of the same size.
pub const DAMAGE_REPORTS_MAX: usize = 1_000;
