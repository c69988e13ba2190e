//! The thread that writes the head to files (`store-seal`).
//!
//! A generation is written when it is full, after [`HistoryOptions::seal_busy`] with many samples,
//! after [`HistoryOptions::seal_idle`] with any, and at a clean stop. A file that cannot be written
//! is tried again for as long as it takes: meanwhile the head fills up and the journal keeps.
//!
//! [`HistoryOptions::seal_busy`]: super::HistoryOptions::seal_busy
//! [`HistoryOptions::seal_idle`]: super::HistoryOptions::seal_idle

use std::fs;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::encode::{Encoder, Written};
use super::files::DataFile;
use super::follow::rest;
use super::head::Generation;
use super::latest::Newest;
use super::manifest::{self, FileEntry, UNFINISHED};
use super::shared::{Sealing, Shared, State};
use crate::journal::Offset;

/// Samples from which on a head counts as busy: fewer make a file that is hardly worth its name.
const BUSY_SAMPLES: usize = 100_000;

/// How often the age of the head is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Pauses between attempts to write a file that cannot be written.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Records without a sample after which the journal may let go of them all the same.
const EMPTY_RECORDS: u64 = 100_000;

/// The thread: seals until the store stops, and then once more.
pub(super) fn run(shared: &Shared) {
    let mut wait = RETRY_WAITS.0;
    while !shared.is_stopping() {
        let Some(sealing) = next(shared, is_due) else {
            continue;
        };
        match seal(shared, &sealing) {
            Ok(()) => wait = RETRY_WAITS.0,
            Err(error) => {
                failed(shared, &error);
                rest(shared, wait);
                wait = (wait * 2).min(RETRY_WAITS.1);
            }
        }
    }
    last(shared);
    shared.lock().seal_ended = true;
    shared.turned.notify_all();
}

/// What is left when the store stops. A failure costs nothing: the journal has it.
fn last(shared: &Shared) {
    let mut state = shared.lock();
    while !state.reader_ended {
        state = shared.wait_for_turn(state, LOOK_INTERVAL);
    }
    drop(state);
    // The one that was being sealed, and the one that grew.
    for _ in 0..2 {
        let Some(sealing) = next(shared, |_| true) else {
            break;
        };
        if let Err(error) = seal(shared, &sealing) {
            tracing::warn!(%error, "the newest history is in the journal, not in files");
            return;
        }
    }
    shared
        .latest
        .save(&shared.options.dir, shared.lock().sealed);
}

/// The generation to seal, once there is one or it is time to look again.
fn next(shared: &Shared, is_due: impl Fn(&State) -> bool) -> Option<Arc<Sealing>> {
    let busy = shared.options.seal_busy.min(shared.options.seal_idle);
    let mut state = shared.lock();
    if state.sealing.is_none() {
        if !is_due_now(&state, shared, &is_due) && !shared.is_stopping() {
            state = shared.wait_for_turn(state, LOOK_INTERVAL.min(busy));
        }
        if state.sealing.is_none() && is_due_now(&state, shared, &is_due) {
            let next = Generation::new(state.read.next());
            let full = std::mem::replace(&mut state.active, next);
            state.active_since = None;
            let last = state.read;
            state.sealing = Some(Arc::new(Sealing {
                samples: full,
                last,
            }));
        }
    }
    state.sealing.clone()
}

fn is_due_now(state: &State, shared: &Shared, is_due: &impl Fn(&State) -> bool) -> bool {
    let has_something = state.read > state.sealed;
    let unsealed = state.read.number().saturating_sub(state.sealed.number());
    let age = state.active_since.map(|since| since.elapsed());
    let is_old = age.is_some_and(|age| {
        age >= shared.options.seal_idle
            || (age >= shared.options.seal_busy && state.active.len() >= BUSY_SAMPLES)
    });
    has_something
        && (is_due(state) || is_old || (state.active.is_empty() && unsealed >= EMPTY_RECORDS))
}

fn is_due(_: &State) -> bool {
    false
}

/// Writes a generation: file, manifest, and only then the journal may let go of it.
fn seal(shared: &Shared, sealing: &Sealing) -> io::Result<()> {
    let begin = Instant::now();
    let dir = &shared.options.dir;
    let range = (sealing.samples.first(), sealing.last);
    let tombstones = shared.lock().tombstones.clone();
    let is_hidden = |device: Uuid, offset: u64| {
        let hidden = tombstones.get(&device);
        hidden.is_some_and(|hidden| offset < hidden.number())
    };
    let unfinished = dir.join(format!("_seal{UNFINISHED}"));
    let written = write(shared, sealing, &unfinished, is_hidden).inspect_err(|_| {
        // What is left of it would only take room that is wanted.
        let _ = fs::remove_file(&unfinished);
    })?;
    let commit = shared.commit.lock().unwrap_or_else(PoisonError::into_inner);
    let file = match written {
        None => None,
        Some(written) => {
            let name = free_name(shared, range);
            shared.options.step("a file is written");
            fs::rename(&unfinished, dir.join(&name))?;
            manifest::sync_dir(dir)?;
            shared.options.step("a file has its name");
            Some(DataFile::new(dir, FileEntry::new(name, &written)))
        }
    };
    let has_file = file.is_some();
    shared.replace_files(&[], file, Some(sealing.last), |state| {
        state.sealing = None;
        state.told.seal_failure = None;
        if has_file {
            state.told.seals += 1;
            state.told.seal_last = begin.elapsed();
        }
    })?;
    drop(commit);
    shared.hold.advance(sealing.last.next());
    if let Err(error) = shared.journal.release(sealing.last.next()) {
        tracing::warn!(%error, "old segments of the journal stay");
    }
    shared.options.step("the journal is released");
    shared.latest.save_if_due(dir, sealing.last);
    Ok(())
}

/// Writes the samples, and brings the newest of each series to the latest values.
fn write(
    shared: &Shared,
    sealing: &Sealing,
    path: &std::path::Path,
    is_hidden: impl Fn(Uuid, u64) -> bool,
) -> io::Result<Option<Written>> {
    if sealing.samples.is_empty() {
        return Ok(None);
    }
    let mut encoder = Encoder::create(path)?;
    let mut newest = Newest::new(&shared.latest);
    sealing.samples.visit_sorted(is_hidden, |row| {
        newest.add(row);
        encoder.push(row)
    })?;
    newest.finish();
    if encoder.rows() == 0 {
        fs::remove_file(path)?;
        return Ok(None);
    }
    encoder.finish().map(Some)
}

/// A name that no file has: the offsets, and a number where a journal that was replaced gives the
/// same ones again.
pub(super) fn free_name(shared: &Shared, range: (Offset, Offset)) -> String {
    let files = Arc::clone(&shared.lock().files);
    (0..)
        .map(|again| manifest::file_name(range, again))
        .find(|name| files.iter().all(|file| file.entry.name != *name))
        .unwrap_or_default()
}

fn failed(shared: &Shared, error: &io::Error) {
    let mut state = shared.lock();
    let is_new = state.told.seal_failure.is_none();
    state.told.seal_failure = Some(error.to_string());
    drop(state);
    if is_new {
        tracing::warn!(
            %error,
            "the history cannot write a file and tries again; the journal keeps what is new"
        );
    }
}
