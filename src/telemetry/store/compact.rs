//! The thread that keeps the files few and clean (`store-compact`).
//!
//! It merges neighbours as `plan` says, rewrites files that hold bytes of deleted devices, and
//! removes files that are too old. Memory: what is being decoded of 16 files at most, one row
//! group, and the footer of what is written. It runs at a lower priority than everything else, its
//! disk access too. A file that is damaged is left as it is.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::encode::Encoder;
use super::file::{FileError, OpenFile, Wanted};
use super::files::DataFile;
use super::follow::rest;
use super::manifest::UNFINISHED;
use super::merge::merge_stretches;
use super::pages::Plain;
use super::plan::{self, Candidate};
use super::publish::{self, Change, Steps};
use super::shared::Shared;
use crate::journal::Offset;

/// How much nicer the thread is than others (0 to 19). The system derives the priority of disk
/// access from it.
const NICE: i32 = 15;

/// Pause after a failure; a full disk is the usual cause.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Longest wait before looking whether there is something to do.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A file may hold this part of the retention at most, so that it does not keep old samples long.
const RETENTION_PARTS: u32 = 8;

/// Sweeps after which a deleted device's bytes are gone: a file may have been sealed during the
/// first one.
const SWEEPS: u8 = 2;

const STEPS: Steps = Steps {
    written: "a merged file is written",
    named: "a merged file has its name",
};

/// Why a merge came to nothing.
enum Failure {
    /// A source is damaged: it is reported, and left out of the next plan.
    Damaged(FileError),
    /// The new file cannot be written.
    Write(io::Error),
    Stopping,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Damaged(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// The thread.
pub(super) fn run(shared: &Shared) {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "compaction runs at the priority of all");
    }
    let mut swept: Option<Instant> = None;
    while !shared.is_stopping() {
        let is_sweep_due =
            swept.is_none_or(|swept| swept.elapsed() >= shared.options.sweep_interval);
        let result = if is_sweep_due {
            swept = Some(Instant::now());
            sweep(shared)
        } else {
            merge_next(shared)
        };
        match result {
            Ok(true) => {}
            Ok(false) => {
                let wait = LOOK_INTERVAL.min(shared.options.sweep_interval);
                let state = shared.lock();
                if !shared.is_stopping() {
                    drop(shared.wait_for_turn(state, wait));
                }
            }
            Err(Failure::Stopping) => return,
            Err(Failure::Damaged(error)) => {
                report(shared, &error);
            }
            Err(Failure::Write(error)) => {
                tracing::warn!(%error, "a compaction cannot write and is tried again");
                rest(shared, RETRY_WAIT);
            }
        }
    }
}

/// Merges what the plan says; false if that is nothing.
fn merge_next(shared: &Shared) -> Result<bool, Failure> {
    let files = Arc::clone(&shared.lock().files);
    let candidates: Vec<_> = files.iter().map(|file| candidate(file)).collect();
    let retention = shared.options.retention;
    let span = retention.map(|retention| milliseconds(retention / RETENTION_PARTS));
    let Some(range) = plan::next(&candidates, span) else {
        return Ok(false);
    };
    let chosen = files.get(range).unwrap_or_default();
    rewrite(shared, chosen)?;
    Ok(true)
}

fn candidate(file: &DataFile) -> Candidate {
    Candidate {
        bytes: file.entry.bytes,
        times: (file.entry.least_ts, file.entry.greatest_ts),
        is_fixed: file.is_damaged.load(Ordering::Relaxed),
    }
}

/// Removes old files, and the bytes of deleted devices.
fn sweep(shared: &Shared) -> Result<bool, Failure> {
    remove_old(shared)?;
    let pending: Vec<(Uuid, Offset)> = {
        let state = shared.lock();
        let pending = state.unpurged.keys();
        pending
            .map(|device| (*device, state.hidden_before(*device)))
            .collect()
    };
    if pending.is_empty() {
        return Ok(true);
    }
    let files = Arc::clone(&shared.lock().files);
    for file in files.iter() {
        if !file.is_damaged.load(Ordering::Relaxed) && holds_any(shared, file, &pending)? {
            // It may have been merged into another since the list was taken; then that is found
            // by the next sweep.
            let is_listed = shared
                .lock()
                .files
                .iter()
                .any(|listed| Arc::ptr_eq(listed, file));
            if is_listed {
                rewrite(shared, std::slice::from_ref(file))?;
            }
        }
    }
    let mut state = shared.lock();
    for (device, _) in pending {
        if let Some(sweeps) = state.unpurged.get_mut(&device) {
            *sweeps += 1;
            if *sweeps >= SWEEPS {
                state.unpurged.remove(&device);
            }
        }
    }
    Ok(true)
}

/// Removes files whose newest sample is older than the retention.
fn remove_old(shared: &Shared) -> Result<(), Failure> {
    let Some(retention) = shared.options.retention else {
        return Ok(());
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let oldest = milliseconds(now.unwrap_or_default()).saturating_sub(milliseconds(retention));
    let files = Arc::clone(&shared.lock().files);
    let old: Vec<_> = files
        .iter()
        .filter(|file| file.entry.greatest_ts < oldest)
        .cloned()
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let _commit = shared.commit.lock().unwrap_or_else(PoisonError::into_inner);
    let removed = shared.replace_files(&old, None, None, |_| {});
    removed.map_err(Failure::Write)?;
    tracing::info!(files = old.len(), "old files of the history were removed");
    Ok(())
}

/// Whether a file holds samples that are to be gone.
fn holds_any(
    shared: &Shared,
    file: &DataFile,
    pending: &[(Uuid, Offset)],
) -> Result<bool, Failure> {
    for (device, hidden) in pending {
        let wanted = Wanted {
            device: Some(*device),
            ..Wanted::ALL
        };
        if file.rules_out(*device, wanted.times) {
            continue;
        }
        if shared.is_stopping() {
            return Err(Failure::Stopping);
        }
        let open = shared.footers.open(file).map_err(Failure::Damaged)?;
        let mut cursor = open.read(wanted, false).map_err(Failure::Damaged)?;
        while cursor.advance_to(wanted).map_err(Failure::Damaged)? {
            if cursor.row().is_some_and(|row| row.offset < hidden.number()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Makes one file of several, without what is not to be seen any more.
fn rewrite(shared: &Shared, chosen: &[Arc<DataFile>]) -> Result<(), Failure> {
    let begin = Instant::now();
    let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else {
        return Ok(());
    };
    let unfinished = shared.options.dir.join(format!("_compact{UNFINISHED}"));
    let written = publish::write(&unfinished, |encoder| fill(shared, chosen, encoder))?;
    let change = Change {
        range: (first.entry.offsets().0, last.entry.offsets().1),
        removed: chosen,
        sealed: None,
        steps: STEPS,
    };
    publish::publish(shared, &unfinished, written.as_ref(), &change, |state| {
        state.told.compactions += 1;
        state.told.compaction_last = begin.elapsed();
    })?;
    shared.options.step("merged files are removed");
    Ok(())
}

fn fill(shared: &Shared, chosen: &[Arc<DataFile>], encoder: &mut Encoder) -> Result<(), Failure> {
    let mut files = Vec::new();
    for file in chosen {
        let open = OpenFile::open_for_all(&file.path, file.entry.tail_crc32c)?;
        files.push(open.pages()?);
    }
    let mut hidden: Option<([u8; 16], u64)> = None;
    let mut stretches: u32 = 0;
    let mut plain = Plain::new()?;
    merge_stretches(files, &mut plain, |batch, rows| {
        stretches = stretches.wrapping_add(1);
        if stretches.is_multiple_of(256) && shared.is_stopping() {
            return Err(Failure::Stopping);
        }
        let device = batch.device(rows.start).unwrap_or_default();
        let before = match hidden {
            Some((of, before)) if of == device => before,
            _ => {
                let before = shared.lock().hidden_before(Uuid::from_bytes(device));
                before.number()
            }
        };
        hidden = Some((device, before));
        let mut from = rows.start;
        for seen in batch.offsets(&rows).chunk_by(|one, other| {
            (one.cast_unsigned() < before) == (other.cast_unsigned() < before)
        }) {
            let stretch = from..from + seen.len();
            from = stretch.end;
            if seen
                .first()
                .is_some_and(|offset| offset.cast_unsigned() >= before)
            {
                encoder.push_stretch(batch, &stretch)?;
            }
        }
        Ok(())
    })
}

fn report(shared: &Shared, error: &FileError) {
    let (FileError::Damaged { path, .. } | FileError::Open { path, .. }) = error;
    let files = Arc::clone(&shared.lock().files);
    for file in files.iter().filter(|file| file.path == *path) {
        shared.report_file(file, error);
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
