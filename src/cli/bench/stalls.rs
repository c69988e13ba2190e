//! Whether merging files makes anybody wait: acks and queries while it runs, and otherwise.
//!
//! One thread writes at a steady rate, each batch when the one before is durable, as a worker of
//! the broker does; another asks for the newest points of one device after the other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cost::Sample;
use super::error::BenchError;
use super::latency::Latencies;
use super::store::{self, PATIENCE, Store};
use crate::journal::{Journal, Offset};
use crate::telemetry::{History, Query};

/// Time from batch to batch.
const BATCH_INTERVAL: Duration = Duration::from_millis(2);
/// Records of a batch at most, when the writer is behind.
const BATCH_RECORDS_MAX: u64 = 4_096;
/// Time from query to query.
const QUERY_INTERVAL: Duration = Duration::from_millis(5);
/// Points of a query.
const QUERY_POINTS: usize = 100;

/// Something that somebody waited for.
struct Wait {
    began: Instant,
    ended: Instant,
}

/// What the thread that asks has seen.
struct Asked {
    queries: Vec<Wait>,
    merges: Vec<Wait>,
}

/// Runs it and prints the figures.
pub(super) fn run(
    options: &Store,
    rate: u32,
    journal: &Journal,
    history: &History,
) -> Result<(), BenchError> {
    let is_over = AtomicBool::new(false);
    let (begin, before) = (Instant::now(), Sample::take(std::process::id())?);
    let (acks, asked) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(options, history, &is_over));
        let acks = write(options, rate, journal);
        is_over.store(true, Ordering::Relaxed);
        let asked = asking.join();
        let asked = asked.unwrap_or_else(|_| Err(io::Error::other("the reader ended").into()));
        Ok::<_, BenchError>((acks?, asked?))
    })?;
    let elapsed = begin.elapsed();
    let behind = journal.durable().number() - history.status().read.number();
    let store_ns = Sample::take(std::process::id())?.store_ns_since(&before);
    let samples = options.samples.max(1);
    let (merges, status) = (&asked.merges, history.status());
    println!("samples            {samples} in {elapsed:.1?}, {rate} a second were asked for");
    println!("records not read   {behind} at the end");
    println!("CPU of store-*     {} ns a sample", store_ns / samples);
    let merged: Duration = merges.iter().map(|merge| merge.ended - merge.began).sum();
    println!(
        "merges             {} in {merged:.1?}; {} files",
        merges.len(),
        status.files
    );
    for (name, waits) in [("acks", &acks), ("queries", &asked.queries)] {
        let (beside, quiet) = split(waits, merges);
        tell(&format!("{name}, quiet"), &quiet);
        tell(&format!("{name}, merging"), &beside);
    }
    Ok(())
}

fn write(options: &Store, rate: u32, journal: &Journal) -> Result<Vec<Wait>, BenchError> {
    let mut submitter = journal.submitter(std::sync::Arc::new(|| {}));
    let records = options.samples / 2;
    let (began, mut next, mut waits) = (Instant::now(), 0, Vec::new());
    while next < records {
        let since = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = since.saturating_mul(u64::from(rate)) / 2_000_000;
        let end = due.min(next + BATCH_RECORDS_MAX).min(records);
        if end > next {
            let mut batch = submitter.take_batch();
            for number in next..end {
                store::push(&mut batch, options, number, number % options.devices.max(1))?;
            }
            next = end;
            let began = Instant::now();
            let last = submitter.submit(batch);
            let last = last.map_err(|_| io::Error::other("the journal takes no batch"))?;
            wait_until_durable(journal, last)?;
            waits.push(Wait {
                began,
                ended: Instant::now(),
            });
        }
        if due < next + BATCH_RECORDS_MAX {
            thread::sleep(BATCH_INTERVAL);
        }
    }
    Ok(waits)
}

fn wait_until_durable(journal: &Journal, last: Offset) -> Result<(), BenchError> {
    let before = Offset::new(last.number().saturating_sub(1));
    if journal.wait_past(before, PATIENCE) < last {
        return Err(io::Error::other("the journal does not commit").into());
    }
    Ok(())
}

fn ask(options: &Store, history: &History, is_over: &AtomicBool) -> Result<Asked, BenchError> {
    let (mut queries, mut merges) = (Vec::new(), Vec::new());
    let (mut number, mut known) = (0_u64, 0);
    while !is_over.load(Ordering::Relaxed) {
        let query = Query {
            // No order that a cache would like.
            device: store::device(number * 7_919 % options.devices.max(1)),
            keys: None,
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            limit: QUERY_POINTS,
            newest_first: true,
            left_out: Vec::new(),
        };
        number += 1;
        let began = Instant::now();
        let points = history.query(&query);
        points.map_err(|error| BenchError::System(io::Error::other(error)))?;
        let ended = Instant::now();
        queries.push(Wait { began, ended });
        let status = history.status();
        if status.compactions > known {
            known = status.compactions;
            // It ended a short while ago.
            let began = ended.checked_sub(status.compaction_last + QUERY_INTERVAL);
            merges.push(Wait {
                began: began.unwrap_or(ended),
                ended,
            });
        }
        thread::sleep(QUERY_INTERVAL);
    }
    Ok(Asked { queries, merges })
}

/// Those beside a merge, and the others.
fn split(waits: &[Wait], merges: &[Wait]) -> (Latencies, Latencies) {
    let (mut beside, mut quiet) = (Latencies::new(), Latencies::new());
    for wait in waits {
        let overlaps = |merge: &Wait| wait.began < merge.ended && merge.began < wait.ended;
        let us = u32::try_from((wait.ended - wait.began).as_micros()).unwrap_or(u32::MAX);
        match merges.iter().any(overlaps) {
            true => beside.add(us),
            false => quiet.add(us),
        }
    }
    (beside, quiet)
}

fn tell(name: &str, waits: &Latencies) {
    match waits.times() {
        None => println!("{name:<18} none"),
        Some(times) => println!(
            "{name:<18} {}: p50 {} us, p99 {} us, max {} us",
            waits.total(),
            times.p50,
            times.p99,
            times.max
        ),
    }
}
