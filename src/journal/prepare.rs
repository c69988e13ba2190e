//! The `journal-prep` thread: has the next segment zero-filled before it is needed, and keeps the
//! ballast. Nothing it does is part of a promise yet, so its failures are retried, never poison.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{DiskFile, is_no_descriptor};
use super::error::JournalError;
use super::options::FullReason;
use super::segment::fill;
use super::shared::{Shared, lock, wait};

/// Name of the thread.
pub(super) const THREAD: &str = "journal-prep";

/// The file that becomes the next segment.
pub(super) const PREPARED_NAME: &str = "next.prepared";

/// The file whose space can be given back.
pub(super) const BALLAST_NAME: &str = "ballast";

/// Time between tries while there is no room: doubles from the first to the last, so that acks
/// come within 1 s after space is back.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Where the next segment is.
enum Next {
    /// To be made.
    Wanted,
    Ready(Arc<dyn DiskFile>),
    /// With the committer, still under its first name.
    Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ballast {
    /// None is asked for.
    Off,
    Absent,
    Present,
    /// Being made or removed.
    Changing,
}

/// What committer and helper tell one another.
pub(super) struct Preparation {
    next: Next,
    /// Why the last try to make a segment failed.
    stall: Option<FullReason>,
    pub(super) ballast: Ballast,
    /// The journal is being closed: the committer does not wait for room any more.
    pub(super) closing: bool,
}

impl Preparation {
    pub(super) fn new(ballast: Ballast) -> Preparation {
        Preparation {
            next: Next::Wanted,
            stall: None,
            ballast,
            closing: false,
        }
    }

    /// The prepared file, if it is ready. The next one is made once [`Preparation::wanted`] says
    /// that this one has another name.
    pub(super) fn take(&mut self) -> Option<Arc<dyn DiskFile>> {
        match std::mem::replace(&mut self.next, Next::Taken) {
            Next::Ready(file) => Some(file),
            other => {
                self.next = other;
                None
            }
        }
    }

    pub(super) fn wanted(&mut self) {
        self.next = Next::Wanted;
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.next, Next::Ready(_) | Next::Taken)
    }

    /// Why there is no segment, while there is none.
    pub(super) fn stalled(&self) -> Option<FullReason> {
        self.stall.filter(|_| matches!(self.next, Next::Wanted))
    }
}

/// When to try again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn new() -> Retry {
        Retry {
            at: Instant::now(),
            pause: RETRY_MIN,
        }
    }

    fn note(&mut self, success: bool) {
        if success {
            *self = Retry::new();
        } else {
            self.at = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(RETRY_MAX);
        }
    }
}

/// The body of the thread.
pub(super) fn run(shared: &Shared) {
    let unwind = std::panic::AssertUnwindSafe(|| prepare_until_stopped(shared));
    if std::panic::catch_unwind(unwind).is_err() {
        // Or the committer would wait for a segment for ever.
        lock(&shared.preparation).stall = Some(FullReason::Refused(io::ErrorKind::Other));
        shared.preparation_changed.notify_all();
        shared.fail(&JournalError::Panicked { thread: THREAD });
    }
}

enum Job {
    Segment,
    Ballast,
}

fn prepare_until_stopped(shared: &Shared) {
    let (mut segment, mut ballast) = (Retry::new(), Retry::new());
    while let Some(job) = wait_for_job(shared, &segment, &ballast) {
        match job {
            Job::Segment => segment.note(prepare_segment(shared)),
            Job::Ballast => ballast.note(make_ballast(shared)),
        }
    }
}

/// What is due; the segment first, since acks wait for it. `None` = stop.
fn wait_for_job(shared: &Shared, segment: &Retry, ballast: &Retry) -> Option<Job> {
    let mut preparation = lock(&shared.preparation);
    loop {
        if shared.stop_helper.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let segment_at = matches!(preparation.next, Next::Wanted).then_some(segment.at);
        let ballast_at = (preparation.ballast == Ballast::Absent).then_some(ballast.at);
        if segment_at.is_some_and(|at| at <= now) {
            return Some(Job::Segment);
        }
        if ballast_at.is_some_and(|at| at <= now) {
            preparation.ballast = Ballast::Changing;
            return Some(Job::Ballast);
        }
        let due = [segment_at, ballast_at].into_iter().flatten().min();
        let timeout = due.map(|due| due.saturating_duration_since(now));
        preparation = wait(&shared.preparation_changed, preparation, timeout);
    }
}

fn prepare_segment(shared: &Shared) -> bool {
    let result = room_for_segment(shared).and_then(|()| {
        zero_file(shared, PREPARED_NAME, shared.options.segment_bytes)
            .map_err(|error| full_reason(&error))
    });
    let success = result.is_ok();
    let mut preparation = lock(&shared.preparation);
    match result {
        Ok(file) => {
            preparation.next = Next::Ready(file);
            preparation.stall = None;
        }
        Err(reason) => preparation.stall = Some(reason),
    }
    drop(preparation);
    shared.preparation_changed.notify_all();
    success
}

/// Whether one more segment keeps within the size cap, and leaves the ballast its space.
fn room_for_segment(shared: &Shared) -> Result<(), FullReason> {
    let options = &shared.options;
    let (bytes, _) = lock(&shared.index).size();
    if bytes.saturating_add(options.segment_bytes) > options.size_max_bytes {
        return Err(FullReason::SizeMax);
    }
    // Asked before the ballast is: were that given back in between, its space would look free.
    let free = free_bytes(shared);
    // Space that was given back for a revocation is not for telemetry.
    let ballast = match lock(&shared.preparation).ballast {
        Ballast::Off | Ballast::Present => 0,
        Ballast::Absent | Ballast::Changing => options.ballast_bytes,
    };
    if free < options.segment_bytes.saturating_add(ballast) {
        return Err(FullReason::NoSpace);
    }
    Ok(())
}

fn make_ballast(shared: &Shared) -> bool {
    let options = &shared.options;
    let room = free_bytes(shared) >= options.ballast_bytes.saturating_add(options.segment_bytes);
    let made = room && zero_file(shared, BALLAST_NAME, options.ballast_bytes).is_ok();
    lock(&shared.preparation).ballast = if made {
        Ballast::Present
    } else {
        Ballast::Absent
    };
    made
}

/// Asked first so that a full disk is not filled to the last byte, again and again. A file system
/// that cannot say is tried.
fn free_bytes(shared: &Shared) -> u64 {
    shared
        .disk
        .free_bytes(&shared.options.dir)
        .unwrap_or(u64::MAX)
}

/// A new file of zeros that occupy space; none is left behind after an error.
fn zero_file(shared: &Shared, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let path = shared.path(name);
    // What an earlier try or an earlier process may have left.
    match shared.disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = shared.disk.create(&path)?;
    match fill(&*file, bytes, &shared.stop_helper) {
        Ok(()) => Ok(file),
        Err(error) => {
            // Its space is of more use to others; if this fails, the next try removes it.
            let _ = shared.disk.remove(&path);
            Err(error)
        }
    }
}

fn full_reason(error: &io::Error) -> FullReason {
    if is_no_space(error) {
        FullReason::NoSpace
    } else if is_no_descriptor(error) {
        FullReason::NoDescriptor
    } else {
        FullReason::Refused(error.kind())
    }
}

/// No space, no quota or no inode.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
