//! Reading the journal: following its end, verifying it once, and looking into its past.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::best::{Best, Order};
use super::{Query, QueryError, Shared};
use crate::journal::{Entry, Journal, Offset, Record, RecordBatch, RecordKind};
use crate::telemetry::payload::scan;
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

/// Bytes a record of telemetry takes in the head at least, with two samples. Says how far back a
/// start begins: a smaller number reads more than fits, a greater one leaves the head half empty.
const HEAD_BYTES_PER_RECORD: u64 = 64;

/// Samples handed to the head at a time: bounds the memory beside the head, whatever a batch
/// holds, but for one record.
const STAGED_SAMPLES_MAX: usize = 4_096;

/// The verification rests this many times as long as it works, so that it takes a fifth of a core.
const VERIFY_REST: u32 = 4;

/// Longest single rest of the verification.
const VERIFY_REST_MAX: Duration = Duration::from_millis(200);

/// Where a start begins to follow: as far back as the head can hold, however long the journal is.
pub(super) fn tail(journal: &Journal, head_bytes_max: usize) -> Offset {
    let records = u64::try_from(head_bytes_max).unwrap_or(u64::MAX) / HEAD_BYTES_PER_RECORD;
    let from = journal.durable().next().number().saturating_sub(records);
    Offset::new(from).max(journal.first())
}

/// Follows the journal from `from` on until the store stops.
pub(super) fn follow(shared: &Shared, from: Offset) {
    let mut reader = shared.journal.reader(from);
    while !shared.is_stopping() {
        match reader.next() {
            Ok(Some(Entry::Batch(batch))) => take_batch(shared, &batch),
            Ok(Some(Entry::Damage(damage))) => {
                shared.report(&damage);
                advance(shared, damage.next);
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
    shared.lock().verified = true;
    tracing::debug!(end = end.number(), "the journal was verified");
}

/// Offers what the journal holds of the query's device from `hidden` up to (not including) `end`.
///
/// # Errors
/// [`QueryError::TooLarge`], [`QueryError::Journal`], [`QueryError::Stopping`].
pub(super) fn collect_past(
    shared: &Shared,
    query: &Query,
    hidden: Offset,
    end: Offset,
    best: &mut Best<'_>,
) -> Result<(), QueryError> {
    let from = hidden.max(shared.journal.first());
    let mut reader = shared.journal.reader(from);
    while from < end && reader.position() < end {
        if shared.is_stopping() {
            return Err(QueryError::Stopping);
        }
        match reader.next()? {
            Some(Entry::Batch(batch)) => {
                let wanted = |record: &Record<'_>| {
                    record.header.device == query.device && (from..end).contains(&record.offset)
                };
                for record in batch.iter().filter(wanted) {
                    collect_record(&record, best)?;
                }
            }
            Some(Entry::Damage(damage)) => shared.report(&damage),
            None => break,
        }
    }
    Ok(())
}

fn collect_record(record: &Record<'_>, best: &mut Best<'_>) -> Result<(), QueryError> {
    let mut result = Ok(());
    let visited = visit_samples(record, |sample| {
        if result.is_ok() && best.wants(&sample.key, sample.ts_ms) {
            let place = (&*sample.key, sample.ts_ms);
            let value = sample.value.into_owned();
            result = best.offer(place, record.offset, Order::Ascending, value);
        }
    });
    // Counted where the follower meets it; in the past it is only left out.
    let _: Result<(), Unreadable> = visited;
    result
}

/// Why a record of the journal gives no samples.
enum Unreadable {
    /// A later version of the rules accepted it.
    Version(u8),
    /// It breaks the rules it was accepted by: a bug.
    Payload(PayloadError),
}

/// Calls `visit` for the samples of a record; those of other kinds have none.
fn visit_samples<'a>(record: &Record<'a>, visit: impl FnMut(Sample<'a>)) -> Result<(), Unreadable> {
    let header = &record.header;
    if header.kind != RecordKind::Telemetry {
        return Ok(());
    }
    if header.parser_version > PARSER_VERSION {
        return Err(Unreadable::Version(header.parser_version));
    }
    let options = ScanOptions::from_profile_flags(header.profile_flags);
    scan(record.body, options, header.received_ms, visit).map_err(Unreadable::Payload)
}

/// Brings a batch into the head.
fn take_batch(shared: &Shared, batch: &RecordBatch<'_>) {
    let mut samples: Vec<Sample<'_>> = Vec::new();
    let mut staged: Vec<(Uuid, Offset, Range<usize>)> = Vec::new();
    for record in batch {
        let start = samples.len();
        if let Err(why) = visit_samples(&record, |sample| samples.push(sample)) {
            leave_out(shared, record.offset, &why);
            continue;
        }
        if samples.len() > start {
            staged.push((record.header.device, record.offset, start..samples.len()));
        }
        if samples.len() >= STAGED_SAMPLES_MAX {
            append(shared, &staged, &samples);
            staged.clear();
            samples.clear();
        }
    }
    append(shared, &staged, &samples);
    advance(shared, batch.next());
}

fn append(shared: &Shared, staged: &[(Uuid, Offset, Range<usize>)], samples: &[Sample<'_>]) {
    let mut state = shared.lock();
    for (device, offset, range) in staged {
        if *offset >= state.hidden_before(*device) {
            state.head.append(
                *device,
                *offset,
                samples.get(range.clone()).unwrap_or_default(),
            );
        }
    }
}

/// Everything before `next` has been read: queries that wait for it go on.
fn advance(shared: &Shared, next: Offset) {
    let mut state = shared.lock();
    state.read = state.read.max(Offset::new(next.number().saturating_sub(1)));
    drop(state);
    shared.advanced.notify_all();
}

fn leave_out(shared: &Shared, offset: Offset, why: &Unreadable) {
    let mut state = shared.lock();
    state.unreadable += 1;
    let first = state.unreadable == 1;
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
fn rest(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while !shared.is_stopping() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(IDLE_WAIT));
    }
}
