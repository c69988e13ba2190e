//! The `journal` thread: takes all that waits, one write, one sync, says so.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::disk::{DiskFile, is_no_descriptor};
use super::error::JournalError;
use super::format::{SegmentHeader, segment_name};
use super::index::Segment;
use super::options::{FullReason, JournalStatus, OnCommit};
use super::prepare::{PREPARED_NAME, is_no_space};
use super::queue::{Pending, interval_behind};
use super::segment::SegmentWriter;
use super::shared::{Shared, lock, wait};
use super::submit::Wake;

/// Name of the thread.
pub(super) const THREAD: &str = "journal";

/// Time between two tries to give a prepared segment its name on a full disk, or without a free
/// file descriptor.
const NAME_RETRY: Duration = Duration::from_millis(100);

/// State of the thread. Its vectors keep their capacity: at steady state nothing is allocated.
struct Committer {
    shared: Arc<Shared>,
    segment: Option<SegmentWriter>,
    /// Offset of the next record to be written.
    next: u64,
    /// What was taken from the queue and is not written yet.
    taken: Vec<Pending>,
    wakes: Vec<Wake>,
}

/// The body of the thread: commits until the journal is closed or has failed.
pub(super) fn run(shared: &Arc<Shared>) -> Result<(), JournalError> {
    let next = shared.durable() + 1;
    let mut committer = Committer {
        shared: Arc::clone(shared),
        segment: None,
        next,
        taken: Vec::new(),
        wakes: Vec::new(),
    };
    let unwind = std::panic::AssertUnwindSafe(|| committer.commit_until_closed());
    let result =
        std::panic::catch_unwind(unwind).unwrap_or(Err(JournalError::Panicked { thread: THREAD }));
    match result {
        // The records were not acknowledged and no file is in doubt.
        Ok(()) | Err(JournalError::Unwritten { records: 0 }) => Ok(()),
        Err(error @ JournalError::Unwritten { .. }) => Err(error),
        Err(error) => {
            shared.fail(&error);
            Err(error)
        }
    }
}

impl Committer {
    fn commit_until_closed(&mut self) -> Result<(), JournalError> {
        // Before there is work, so that the first commit does not wait for a segment.
        self.next_segment()?;
        while self.wait_for_work() {
            let start = Instant::now();
            lock(&self.shared.queue).take(&mut self.taken);
            let interval = self.shared.options.commit_interval;
            let next_start = start + interval_behind(&self.taken, interval);
            while !self.taken.is_empty() {
                self.commit()?;
            }
            // In this thread, not by the runtime's timers: those have steps of 1 ms. And before
            // work is looked for: while clients send, there is some by then, and nobody had to
            // wake this thread for it.
            std::thread::sleep(next_start.saturating_duration_since(Instant::now()));
        }
        self.segment
            .as_mut()
            .map_or(Ok(()), |segment| segment.close(self.next))
    }

    /// False when the journal is closed and nothing waits any more.
    fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.shared.queue);
        while !queue.has_work() {
            if matches!(queue.status, JournalStatus::Closed | JournalStatus::Failed) {
                return false;
            }
            queue.committer_idle = true;
            queue = wait(&self.shared.work, queue, None);
            queue.committer_idle = false;
        }
        true
    }

    /// Writes and syncs as much of what was taken as one commit holds, then says so.
    fn commit(&mut self) -> Result<(), JournalError> {
        let fitting = self
            .segment
            .as_ref()
            .map_or(0, |segment| segment.fitting(&self.taken));
        if fitting == 0 {
            return self.next_segment();
        }
        let (Some(segment), Some(batches)) = (self.segment.as_mut(), self.taken.get(..fitting))
        else {
            return Ok(());
        };
        let began = Instant::now();
        let bytes = segment.commit(self.next, batches)?;
        if let Some(OnCommit(told)) = &self.shared.options.on_commit {
            told(began.elapsed());
        }
        self.next += batches
            .iter()
            .map(|p| u64::from(p.batch.records()))
            .sum::<u64>();
        let shared = &self.shared;
        shared.commits.fetch_add(1, Ordering::Relaxed);
        shared.commit_bytes.fetch_add(bytes, Ordering::Relaxed);
        if batches.iter().any(|p| p.batch.has_sessions()) {
            // Before `durable`, whose release orders it.
            shared.sessions.store(self.next - 1, Ordering::Relaxed);
        }
        // The fact is there: now, and not before, it may be told (REL-01, REL-02).
        shared.publish(self.next - 1);
        lock(&shared.queue).done(self.taken.drain(..fitting), &mut self.wakes);
        self.wake();
        Ok(())
    }

    /// Outside of every lock.
    fn wake(&mut self) {
        for wake in self.wakes.drain(..) {
            wake();
        }
    }

    /// Gives the prepared file its header and its name, durably, before any batch goes into it.
    fn next_segment(&mut self) -> Result<(), JournalError> {
        let file = self.wait_for_prepared()?;
        let shared = Arc::clone(&self.shared);
        let from = shared.path(PREPARED_NAME);
        let path: Arc<Path> = shared.path(&segment_name(self.next)).into();
        let bytes = shared.options.segment_bytes;
        let header = SegmentHeader {
            salt: salt(),
            first: self.next,
        };
        let segment = SegmentWriter::start(file, Arc::clone(&path), header, bytes)
            .map_err(|e| JournalError::io("write the header of", &from, e))?;
        while let Err(error) = shared.disk.rename(&from, &path) {
            // A new name may need space in the directory: wait for it, as for the file's own.
            let reason = is_no_space(&error).then_some(FullReason::NoSpace);
            self.wait_for_name("rename", &from, reason, error)?;
        }
        let dir = &shared.options.dir;
        while let Err(error) = shared.disk.sync_dir(dir) {
            // The directory was not opened, so nothing of it is in doubt. Any other error is.
            let reason = is_no_descriptor(&error).then_some(FullReason::NoDescriptor);
            self.wait_for_name("sync", dir, reason, error)?;
        }
        let written = segment.written();
        self.segment = Some(segment);
        let salt = Some(header.salt);
        lock(&shared.index).push(Segment {
            first: self.next,
            path,
            salt,
            bytes,
            written,
        });
        lock(&shared.preparation).wanted();
        shared.preparation_changed.notify_all();
        let full_since = lock(&shared.queue).room(&mut self.wakes);
        if let Some(since) = full_since {
            tracing::info!(
                seconds = since.elapsed().as_secs(),
                "room for the journal again"
            );
        }
        self.wake();
        Ok(())
    }

    /// The helper's file. Says that the journal is full while there is none for lack of room.
    fn wait_for_prepared(&self) -> Result<Arc<dyn DiskFile>, JournalError> {
        let shared = &self.shared;
        let mut told = None;
        let mut preparation = lock(&shared.preparation);
        loop {
            if let Some(file) = preparation.take() {
                return Ok(file);
            }
            match preparation.stalled() {
                Some(_) if preparation.closing => return Err(self.unwritten()),
                reason if reason.is_some() && reason != told => {
                    drop(preparation);
                    told = reason;
                    reason.into_iter().for_each(|reason| shared.full(reason));
                    preparation = lock(&shared.preparation);
                }
                _ => preparation = wait(&shared.preparation_changed, preparation, None),
            }
        }
    }

    /// What was tried is tried again a moment later, if there is a reason for which it may work
    /// then; without one it is the journal's end.
    fn wait_for_name(
        &self,
        action: &'static str,
        path: &Path,
        reason: Option<FullReason>,
        error: io::Error,
    ) -> Result<(), JournalError> {
        let Some(reason) = reason else {
            return Err(JournalError::io(action, path, error));
        };
        if lock(&self.shared.preparation).closing {
            return Err(self.unwritten());
        }
        self.shared.full(reason);
        std::thread::sleep(NAME_RETRY);
        Ok(())
    }

    fn unwritten(&self) -> JournalError {
        let records = lock(&self.shared.queue).next - self.next;
        JournalError::Unwritten { records }
    }
}

/// 64 random bits; the version bits of one half are hidden by random ones of the other.
fn salt() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}
