//! What the tests share: random numbers, records that can be told apart, a journal in the small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::journal::{
    Damage, Disk, Entry, Journal, JournalError, JournalOptions, JournalStatus, Offset, Record,
    RecordHeader, RecordKind, Recovery, Submitter,
};
use uuid::Uuid;

use super::fault_disk::FaultDisk;

/// Longest time for anything that must happen at all. Nothing waits so long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Directory of the journals on a disk in memory.
pub(crate) const DIR: &str = "data";

/// Bytes of a segment in these tests: a handful of batches.
pub(crate) const SEGMENT_BYTES: u64 = 24 * 1024;

/// Random numbers that a seed repeats (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Seeds for a random test: the one of `TOLLGATE_SEED`, 20 times because threads differ from run
/// to run, or as many as fit in `TOLLGATE_MODEL_SECONDS` after a start that differs every time.
pub(crate) fn for_each_seed(test: impl Fn(u64)) {
    if let Some(seed) = variable("TOLLGATE_SEED") {
        (0..20).for_each(|_| test(seed));
        return;
    }
    let seconds = variable("TOLLGATE_MODEL_SECONDS").unwrap_or(10);
    let end = Instant::now() + Duration::from_secs(seconds);
    let start = u64::from(Uuid::new_v4().as_fields().0) << 16;
    let mut runs = 0;
    while Instant::now() < end {
        let seed = start + runs;
        // Shown when the test fails.
        println!("TOLLGATE_SEED={seed}");
        test(seed);
        runs += 1;
    }
    println!("{runs} seeds");
    assert!(runs > 0);
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

/// A record that is told from every other one by its number.
pub(crate) fn sample(number: u64, body_len: usize) -> (RecordHeader, Vec<u8>) {
    let mut random = Random::new(number);
    let header = RecordHeader {
        kind: RecordKind::from_u8(1 + (number % 4) as u8).unwrap(),
        qos: (number % 3) as u8,
        profile_flags: random.next() as u8,
        parser_version: 1,
        received_ms: random.next(),
        device: Uuid::from_u128(random.next().into()),
        credential: number,
        generation: random.next() as u32,
        session: random.next() as u32,
        packet_id: random.next() as u16,
    };
    let body = (0..body_len).map(|_| random.next() as u8).collect();
    (header, body)
}

/// True if the record is the sample that it says it is.
pub(crate) fn is_sample(record: &Record<'_>) -> bool {
    let (header, body) = sample(record.header.credential, record.body.len());
    record.header == header && record.body == body
}

pub(crate) fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        commit_interval: Duration::ZERO,
        ballast_bytes: 0,
        ..JournalOptions::new(DIR)
    }
}

/// A journal with what the tests want to know about it.
pub(crate) struct Bench {
    pub(crate) journal: Journal,
    pub(crate) recovery: Recovery,
    pub(crate) failures: Arc<AtomicU64>,
    /// Set when any submitter of this bench is woken.
    pub(crate) woken: Arc<AtomicBool>,
}

pub(crate) fn open(disk: &FaultDisk) -> Bench {
    open_with(disk, options()).expect("a journal always starts")
}

pub(crate) fn open_with(disk: &FaultDisk, options: JournalOptions) -> Result<Bench, JournalError> {
    let failures = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&failures);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let on_failure = Box::new(move |_: &JournalError| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let (journal, recovery) = Journal::open(disk, options, on_failure)?;
    let woken = Arc::new(AtomicBool::new(false));
    Ok(Bench {
        journal,
        recovery,
        failures,
        woken,
    })
}

impl Bench {
    pub(crate) fn submitter(&self) -> Submitter {
        let woken = Arc::clone(&self.woken);
        self.journal
            .submitter(Arc::new(move || woken.store(true, Ordering::SeqCst)))
    }

    /// Submits samples as one batch; the offset of the last, if it was taken.
    pub(crate) fn submit(
        &self,
        submitter: &mut Submitter,
        samples: &[(u64, usize)],
    ) -> Option<Offset> {
        let mut batch = submitter.take_batch();
        for (number, body_len) in samples {
            let (header, body) = sample(*number, *body_len);
            batch.push(&header, &body).expect("a small record");
        }
        submitter.submit(batch).ok()
    }

    /// Waits until `offset` is durable (true) or never will be, or has to wait for space (false).
    pub(crate) fn wait(&self, offset: Offset) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let before = Offset::new(offset.number().saturating_sub(1));
        loop {
            if self.journal.wait_past(before, Duration::from_millis(1)) >= offset {
                return true;
            }
            if self.journal.status() != JournalStatus::Running {
                return self.journal.durable() >= offset;
            }
            assert!(Instant::now() < deadline, "{offset} is not durable in time");
        }
    }

    /// Writes samples as one batch and waits until they are durable.
    pub(crate) fn write(&self, submitter: &mut Submitter, samples: &[(u64, usize)]) -> Offset {
        let offset = self.submit(submitter, samples).expect("room for a batch");
        assert!(self.wait(offset), "durable");
        offset
    }

    /// Everything that a reader returns.
    pub(crate) fn read_all(&self) -> (Vec<(Offset, u64)>, Vec<Damage>) {
        read(&self.journal, Offset::ZERO)
    }
}

/// The offsets and numbers of all records from `from` on, each checked to be what was written,
/// and all damage.
pub(crate) fn read(journal: &Journal, from: Offset) -> (Vec<(Offset, u64)>, Vec<Damage>) {
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    let mut reader = journal.reader(from);
    while let Some(entry) = reader.next().expect("readable") {
        match entry {
            Entry::Batch(batch) => {
                for record in &batch {
                    assert!(is_sample(&record), "a wrong record at {}", record.offset);
                    records.push((record.offset, record.header.credential));
                }
            }
            Entry::Damage(found) => damage.push(found),
        }
    }
    (records, damage)
}

/// Waits until something is so.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}
