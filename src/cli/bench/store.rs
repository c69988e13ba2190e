//! `tollgate bench store`: what the history costs, from the journal to sealed files, and how long
//! it takes to ask it. No broker: a journal and a history in a directory of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use uuid::Uuid;

use super::cost::Sample;
use super::error::BenchError;
use super::stalls;
use crate::journal::{Batch, Journal, JournalOptions, Offset, RealDisk, RecordHeader, RecordKind};
use crate::telemetry::{History, HistoryOptions, HistoryStatus, PARSER_VERSION, Query};

/// Records in a batch.
const BATCH_RECORDS: u64 = 1_000;

/// Memory of the head of a paced run.
const PACED_HEAD_BYTES: usize = 8 * 1024 * 1024;

/// Longest wait for the store to catch up.
pub(super) const PATIENCE: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
pub(super) struct Store {
    /// Samples to write, two in each message
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub(super) samples: u64,
    /// Devices that send them, in turn; the first one has a series of 100,000 points if there are
    /// enough samples
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) devices: u64,
    /// Samples a second, evenly paced, while somebody asks for series: how long acks and queries
    /// take while files are merged, and otherwise. The head is small, so that there is much to
    /// merge
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    rate: Option<u32>,
    /// An empty directory to work in; what is made there stays
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs it and prints the figures.
pub(super) fn run(options: &Store) -> Result<(), BenchError> {
    let on_failure = Box::new(|error: &crate::journal::JournalError| {
        eprintln!("tollgate: the journal failed: {error}");
    });
    let journal = JournalOptions::new(options.dir.join("journal"));
    let opened = Journal::open(Arc::new(RealDisk), journal, on_failure);
    let (journal, _) = opened.map_err(std::io::Error::other)?;
    let mut history = HistoryOptions {
        seal_idle: Duration::from_secs(1),
        ..HistoryOptions::new(options.dir.join("history"))
    };
    if options.rate.is_some() {
        history.head_bytes_max = PACED_HEAD_BYTES;
    }
    let history = History::start(journal.clone(), history, [])?;
    if let Some(rate) = options.rate {
        return stalls::run(options, rate, &journal, &history);
    }
    let (begin, before) = (Instant::now(), Sample::take(std::process::id())?);
    let records = write(options, &journal)?;
    let last = Offset::new(records);
    // The last head is sealed when it is a second old.
    let status = wait_for(&history, |status| status.sealed >= last)?;
    let store_ns = Sample::take(std::process::id())?.store_ns_since(&before);
    let elapsed = begin.elapsed();
    let samples = status.file_rows.max(1);
    println!("samples            {samples} in {records} records, {elapsed:.1?}");
    println!("CPU of store-*     {} ns a sample", store_ns / samples);
    println!(
        "files              {} with {} bytes",
        status.files, status.file_bytes
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = status.file_bytes as f64 / samples as f64;
    println!("bytes              {bytes:.2} a sample");
    println!("compactions        {}", status.compactions);
    ask(options, &history)
}

pub(super) fn device(number: u64) -> Uuid {
    // Spread as random ids are, and the same in every run.
    Uuid::from_u128(
        (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    )
}

fn write(options: &Store, journal: &Journal) -> Result<u64, BenchError> {
    let mut submitter = journal.submitter(Arc::new(|| {}));
    let records = options.samples / 2;
    let frequent = records / 100_000;
    let mut next = 0;
    while next < records {
        let mut batch = submitter.take_batch();
        for number in next..records.min(next + BATCH_RECORDS) {
            // One record in so many is the first device's, whatever the number of devices.
            let of = if frequent > 1 && number % frequent == 0 {
                0
            } else {
                number % options.devices.max(1)
            };
            push(&mut batch, options, number, of)?;
        }
        next = records.min(next + BATCH_RECORDS);
        loop {
            match submitter.submit(batch) {
                Ok(last) => {
                    // Not more than a few batches ahead of the disk.
                    let behind = Offset::new(last.number().saturating_sub(20 * BATCH_RECORDS));
                    let _durable = journal.wait_past(behind, PATIENCE);
                    break;
                }
                Err(refused) => batch = refused,
            }
            let _durable = journal.wait_past(journal.durable(), Duration::from_millis(100));
        }
    }
    Ok(records)
}

/// Adds a message of a device; two samples that change slowly.
pub(super) fn push(
    batch: &mut Batch,
    options: &Store,
    number: u64,
    of: u64,
) -> Result<(), BenchError> {
    let header = RecordHeader {
        kind: RecordKind::Telemetry,
        qos: 1,
        profile_flags: 0,
        parser_version: PARSER_VERSION,
        received_ms: 1_700_000_000_000 + number,
        device: device(of),
        credential: of + 1,
        generation: 1,
        session: 0,
        packet_id: 0,
    };
    let tenths = (number / options.devices.max(1) + of) % 400;
    let (whole, tenth) = (tenths / 10, tenths % 10);
    let body = format!("{{\"temperature\":{whole}.{tenth},\"humidity\":{whole}}}");
    let pushed = batch.push(&header, body.as_bytes());
    pushed.map_err(|_| std::io::Error::other("a batch is too small").into())
}

fn ask(options: &Store, history: &History) -> Result<(), BenchError> {
    let failed = |error| BenchError::System(std::io::Error::other(error));
    for run in ["first", "again"] {
        let query = Query {
            device: device(0),
            keys: Some(vec!["temperature".to_owned()]),
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            limit: 100_000,
            newest_first: false,
            left_out: Vec::new(),
        };
        let begin = Instant::now();
        let points = history.query(&query).map_err(failed)?.len();
        println!(
            "one series, {run}  {points} points in {:.1?}",
            begin.elapsed()
        );
    }
    let count = options.devices.min(10_000);
    let begin = Instant::now();
    let mut points = 0;
    for number in 0..count {
        points += history.latest(device(number), None).map_err(failed)?.len();
    }
    println!(
        "latest values      {points} of {count} devices in {:.1?}",
        begin.elapsed()
    );
    Ok(())
}

fn wait_for(
    history: &History,
    what: impl Fn(&HistoryStatus) -> bool,
) -> Result<HistoryStatus, BenchError> {
    let begin = Instant::now();
    loop {
        let status = history.status();
        if what(&status) {
            return Ok(status);
        }
        if begin.elapsed() > PATIENCE {
            return Err(std::io::Error::other("the store does not catch up").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
