//! The thread that writes the head to files (`store-seal`).
//!
//! A generation is written when it is full, after [`HistoryOptions::seal_busy`] with many samples,
//! after [`HistoryOptions::seal_idle`] with any, and at a clean stop. A file that cannot be written
//! is tried again for as long as it takes: meanwhile the head fills up and the journal keeps.
//!
//! [`HistoryOptions::seal_busy`]: super::HistoryOptions::seal_busy
//! [`HistoryOptions::seal_idle`]: super::HistoryOptions::seal_idle

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::encode::Encoder;
use super::follow::rest;
use super::latest::Newest;
use super::manifest::UNFINISHED;
use super::publish::{self, Change, Steps};
use super::shared::{Sealing, Shared, State};

/// Samples from which on a head counts as busy: fewer make a file that is hardly worth its name.
const BUSY_SAMPLES: usize = 100_000;

/// How long storage waits for the next generation: a quiet broker needs little.
const SPARE_MAX: Duration = Duration::from_secs(60);

/// How often the age of the head is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Pauses between attempts to write a file that cannot be written.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Records without a sample after which the journal may let go of them all the same.
const EMPTY_RECORDS: u64 = 100_000;

const STEPS: Steps = Steps {
    written: "a file is written",
    named: "a file has its name",
};

/// The thread: seals until the store stops, and then once more.
pub(super) fn run(shared: &Shared) {
    let mut wait = RETRY_WAITS.0;
    while !shared.is_stopping() {
        let Some(sealing) = next(shared, is_due) else {
            continue;
        };
        match seal(shared, sealing) {
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
        if let Err(error) = seal(shared, sealing) {
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
    if state
        .spare
        .as_ref()
        .is_some_and(|(_, since)| since.elapsed() >= SPARE_MAX)
    {
        state.spare = None;
    }
    if state.sealing.is_none() {
        if !is_due_now(&state, shared, &is_due) && !shared.is_stopping() {
            state = shared.wait_for_turn(state, LOOK_INTERVAL.min(busy));
        }
        if state.sealing.is_none() && is_due_now(&state, shared, &is_due) {
            let last = state.read;
            state.turn(last.next(), last);
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
fn seal(shared: &Shared, sealing: Arc<Sealing>) -> io::Result<()> {
    let begin = Instant::now();
    let dir = &shared.options.dir;
    let unfinished = dir.join(format!("_seal{UNFINISHED}"));
    let written = if sealing.samples.is_empty() {
        None
    } else {
        publish::write(&unfinished, |encoder| fill(shared, &sealing, encoder))?
    };
    let (first, last) = (sealing.samples.first(), sealing.last);
    let has_file = written.is_some();
    let change = Change {
        range: (first, last),
        removed: &[],
        sealed: Some(last),
        steps: STEPS,
    };
    publish::publish(shared, &unfinished, written.as_ref(), &change, |state| {
        state.sealing = None;
        // Its storage is for the next generation, which may begin as soon as this lock is free. A
        // query that still reads it drops it later.
        let spare = Arc::into_inner(sealing).and_then(|sealing| sealing.samples.emptied());
        let spare = spare.map(|spare| (spare, Instant::now()));
        state.spare = state.spare.take().or(spare);
        state.told.seal_failure = None;
        if has_file {
            state.told.seals += 1;
            state.told.seal_last = begin.elapsed();
        }
    })?;
    shared.hold.advance(last.next());
    if let Err(error) = shared.journal.release(last.next()) {
        tracing::warn!(%error, "old segments of the journal stay");
    }
    shared.options.step("the journal is released");
    shared.latest.save_if_due(dir, last);
    Ok(())
}

/// Writes the samples, and brings the newest of each series to the latest values.
fn fill(shared: &Shared, sealing: &Sealing, encoder: &mut Encoder) -> io::Result<()> {
    let tombstones = shared.lock().tombstones.clone();
    let hidden_before = |device: Uuid| tombstones.get(&device).copied().unwrap_or_default();
    let mut newest = Newest::new(&shared.latest);
    sealing.samples.visit_runs(hidden_before, |run| {
        if let Some(row) = run.row(run.rows().saturating_sub(1)) {
            newest.add(&row);
        }
        encoder.push_run(run)
    })?;
    newest.finish();
    Ok(())
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
