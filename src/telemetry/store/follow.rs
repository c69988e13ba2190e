//! Reading the journal: following its end, verifying it once, and looking at what has no room.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::QueryError;
use super::rows::Row;
use super::shared::Shared;
use crate::journal::{Entry, Offset, Record, RecordBatch, RecordHeader, RecordKind};
use crate::telemetry::flat::{Shapes, scan_into};
use crate::telemetry::sample::{Sample, ScanOptions};
use crate::telemetry::{PARSER_VERSION, PayloadError};

/// Longest wait for new records before looking whether the broker stops.
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// How long new records may gather before they are read, while no query waits for them. Each read
/// wakes a thread and asks the system; one for every commit would cost what pacing the commits
/// saves.
const STRIDE: Duration = Duration::from_millis(20);

/// Pause after the journal could not be read.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Samples handed to the head at a time: bounds the memory beside the head, whatever a batch
/// holds, but for one record.
const STAGED_SAMPLES_MAX: usize = 512;

/// The verification rests this many times as long as it works, so that it takes a fifth of a core.
const VERIFY_REST: u32 = 4;

/// Longest single rest of the verification.
const VERIFY_REST_MAX: Duration = Duration::from_millis(200);

/// Follows the journal from `from` on until the store stops.
pub(super) fn follow(shared: &Shared, from: Offset) {
    read(shared, from);
    shared.lock().reader_ended = true;
    shared.turned.notify_all();
}

fn read(shared: &Shared, from: Offset) {
    let mut reader = shared.journal.reader(from);
    let mut shapes = Shapes::default();
    while !shared.is_stopping() {
        match reader.next() {
            Ok(Some(Entry::Batch(batch))) => take_batch(shared, &batch, &mut shapes),
            Ok(Some(Entry::Damage(damage))) => {
                shared.report(&damage);
                shared.advance(damage.next, 0);
            }
            Ok(None) => {
                let read = shared.lock().read;
                let _durable = shared.journal.wait_past(read, IDLE_WAIT);
                shared.pause(STRIDE);
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot read the journal and tries again");
                rest(shared, RETRY_WAIT);
            }
        }
    }
}

/// Reads the whole journal once, slowly, so that damage in old segments is known before somebody
/// needs what they held.
pub(super) fn verify(shared: &Shared) {
    let end = shared.journal.durable();
    let mut reader = shared.journal.reader(shared.journal.first());
    while reader.position() <= end {
        let begin = Instant::now();
        match reader.next() {
            Ok(Some(Entry::Batch(_))) => {}
            Ok(Some(Entry::Damage(damage))) => shared.report(&damage),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the verification of the journal ends early");
                return;
            }
        }
        rest(shared, (begin.elapsed() * VERIFY_REST).min(VERIFY_REST_MAX));
        if shared.is_stopping() {
            return;
        }
    }
    shared.lock().told.verified = true;
    tracing::debug!(end = end.number(), "the journal was verified");
}

/// Calls `visit` for the samples of a device in the journal from `from` to `last`, both included.
///
/// # Errors
/// Those of `visit`, [`QueryError::Journal`], [`QueryError::Stopping`].
pub(super) fn visit_unread(
    shared: &Shared,
    device: Uuid,
    (from, last): (Offset, Offset),
    mut visit: impl FnMut(&Row<'_>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let mut reader = shared.journal.reader(from.max(shared.journal.first()));
    let mut shapes = Shapes::default();
    while reader.position() <= last {
        if shared.is_refusing() {
            return Err(QueryError::Stopping);
        }
        match reader.next()? {
            Some(Entry::Batch(batch)) => {
                let wanted = |record: &Record<'_>| {
                    record.header.device == device && (from..=last).contains(&record.offset)
                };
                for record in batch.iter().filter(wanted) {
                    visit_record(&record, &mut shapes, &mut visit)?;
                }
            }
            Some(Entry::Damage(damage)) => shared.report(&damage),
            None => break,
        }
    }
    Ok(())
}

fn visit_record(
    record: &Record<'_>,
    shapes: &mut Shapes,
    visit: &mut impl FnMut(&Row<'_>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let mut samples = Vec::new();
    // One that cannot be read is counted where the follower meets it; here it is only left out.
    let _: Result<(), Unreadable> = read_samples(record, shapes, &mut samples);
    samples.into_iter().try_for_each(|sample| {
        visit(&Row {
            device: record.header.device.into_bytes(),
            key: &sample.key,
            ts_ms: sample.ts_ms,
            value: sample.value,
            offset: record.offset.number(),
            credential: record.header.credential,
            generation: record.header.generation,
        })
    })
}

/// Why a record of the journal gives no samples.
enum Unreadable {
    /// A later version of the rules accepted it.
    Version(u8),
    /// It breaks the rules it was accepted by: a bug.
    Payload(PayloadError),
}

/// Adds the samples of a record to a list; those of other kinds have none, and nor has one that
/// cannot be read.
fn read_samples<'a>(
    record: &Record<'a>,
    shapes: &mut Shapes,
    samples: &mut Vec<Sample<'a>>,
) -> Result<(), Unreadable> {
    let header = &record.header;
    if header.kind != RecordKind::Telemetry {
        return Ok(());
    }
    if header.parser_version > PARSER_VERSION {
        return Err(Unreadable::Version(header.parser_version));
    }
    let options = ScanOptions::from_profile_flags(header.profile_flags);
    scan_into(record.body, options, header.received_ms, shapes, samples)
        .map_err(Unreadable::Payload)
}

/// Samples of one record in a list, and what is known of the record.
type Staged = (RecordHeader, Offset, Range<usize>);

/// Brings a batch into the head.
fn take_batch(shared: &Shared, batch: &RecordBatch<'_>, shapes: &mut Shapes) {
    let records = batch.len().min(STAGED_SAMPLES_MAX);
    let mut samples: Vec<Sample<'_>> = Vec::with_capacity(records * 2);
    let mut staged: Vec<Staged> = Vec::with_capacity(records);
    let mut received_ms = 0;
    for record in batch {
        received_ms = record.header.received_ms;
        let start = samples.len();
        if let Err(why) = read_samples(&record, shapes, &mut samples) {
            leave_out(shared, record.offset, &why);
            continue;
        }
        if samples.len() > start {
            staged.push((record.header, record.offset, start..samples.len()));
        }
        if samples.len() >= STAGED_SAMPLES_MAX {
            if !append(shared, &staged, &samples) {
                return;
            }
            staged.clear();
            samples.clear();
        }
    }
    // What was not taken must not count as read: it would be let go of without being in a file.
    if append(shared, &staged, &samples) {
        shared.advance(batch.next(), received_ms);
    }
}

/// False if the store stops before there was room for all.
fn append(shared: &Shared, staged: &[Staged], samples: &[Sample<'_>]) -> bool {
    let bytes_max = shared.options.head_bytes_max / 2;
    let mut state = shared.lock();
    let devices = staged.iter().map(|(header, _, _)| header.device);
    state.active.touch_senders(devices);
    for (header, offset, range) in staged {
        if *offset < state.hidden_before(header.device) {
            continue;
        }
        let samples = samples.get(range.clone()).unwrap_or_default();
        while !state.active.has_room(*offset, samples, bytes_max) {
            if state.sealing.is_none() {
                let last = Offset::new(offset.number().saturating_sub(1));
                state.turn(*offset, last);
                shared.turned.notify_all();
            } else if shared.is_stopping() {
                // What has no room stays in the journal, and is read again after the start.
                return false;
            } else {
                let _ = state.stalled_since.get_or_insert_with(Instant::now);
                state = shared.wait_for_turn(state, IDLE_WAIT);
            }
        }
        state.stalled_since = None;
        if state.active.is_empty() {
            state.active_since = Some(Instant::now());
        }
        state.active.append(header, *offset, samples);
        // Queries that read the journal themselves begin behind this record.
        state.read = state.read.max(*offset);
    }
    true
}

fn leave_out(shared: &Shared, offset: Offset, why: &Unreadable) {
    let mut state = shared.lock();
    state.told.unreadable += 1;
    let first = state.told.unreadable == 1;
    drop(state);
    if !first {
        return;
    }
    match why {
        Unreadable::Version(version) => tracing::warn!(
            offset = offset.number(),
            version,
            supported = PARSER_VERSION,
            "a record was written by a later version and is left out; further ones are counted"
        ),
        Unreadable::Payload(error) => tracing::error!(
            offset = offset.number(),
            %error,
            "a record that was acknowledged cannot be read; further ones are counted"
        ),
    }
}

/// Waits, but not longer than until the store stops.
pub(super) fn rest(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while !shared.is_stopping() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(IDLE_WAIT));
    }
}
