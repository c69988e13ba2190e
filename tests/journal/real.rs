//! On the real file system: the lock, the limits of the API, readers beside writers, speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::journal::{
    BATCH_BYTES_MAX, Entry, Journal, JournalError, JournalOptions, JournalStatus, Offset,
    RECORD_BODY_BYTES_MAX, RealDisk, Recovery, SlowDisk,
};

use super::support::{PATIENCE, is_sample, read, sample, until};

fn small(dir: &TempDir) -> JournalOptions {
    JournalOptions {
        segment_bytes: 2 * 1024 * 1024,
        ballast_bytes: 1024 * 1024,
        ..JournalOptions::new(dir.path().join("journal"))
    }
}

fn open(options: JournalOptions) -> Result<(Journal, Recovery), JournalError> {
    Journal::open(
        Arc::new(RealDisk),
        options,
        Box::new(|error| panic!("{error}")),
    )
}

#[test]
fn rel_09_a_second_open_is_refused() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    let refused = open(small(&dir)).err();
    assert!(
        matches!(refused, Some(JournalError::Locked { .. })),
        "{refused:?}"
    );
    // From another process too: flock(1) asks the system the same question.
    let taken = std::process::Command::new("flock")
        .args(["--nonblock", "--conflict-exit-code", "9"])
        .arg(dir.path().join("journal/lock"))
        .arg("true")
        .status()
        .expect("flock(1) of util-linux");
    assert_eq!(taken.code(), Some(9));
    journal.close().unwrap();
    open(small(&dir)).expect("the lock is free again");
}

#[test]
fn what_was_written_comes_back_after_a_clean_stop() {
    let dir = TempDir::new().unwrap();
    let mut count = 0;
    for start in 0..3 {
        let (journal, recovery) = open(small(&dir)).unwrap();
        assert_eq!(recovery.last.number(), count);
        assert_eq!(
            (recovery.cut, recovery.damage),
            (None, vec![]),
            "start {start}"
        );
        let (records, damage) = read(&journal, Offset::ZERO);
        assert_eq!((records.len() as u64, damage), (count, vec![]));
        let mut submitter = journal.submitter(Arc::new(|| {}));
        for _ in 0..50 {
            let mut batch = submitter.take_batch();
            for _ in 0..100 {
                count += 1;
                let (header, body) = sample(count, (count % 1000) as usize);
                batch.push(&header, &body).unwrap();
            }
            until("room", || submitter.can_submit(batch.bytes_len()));
            let offset = submitter.submit(batch).unwrap();
            assert_eq!(offset.number(), count);
        }
        journal.close().unwrap();
        assert_eq!(
            journal.durable().number(),
            count,
            "close commits what was submitted"
        );
        assert_eq!(journal.status(), JournalStatus::Closed);
        assert!(submitter.submit(submitter_batch(count)).is_err());
        journal.close().expect("a second close does nothing");
    }
}

fn submitter_batch(number: u64) -> tollgate::journal::Batch {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    let mut batch = journal.submitter(Arc::new(|| {})).take_batch();
    let (header, body) = sample(number, 10);
    batch.push(&header, &body).unwrap();
    batch
}

#[test]
fn limits_of_a_batch() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    let mut submitter = journal.submitter(Arc::new(|| {}));
    let (header, _) = sample(1, 0);
    let mut batch = submitter.take_batch();
    let largest = vec![7; RECORD_BODY_BYTES_MAX];
    let mut longer = largest.clone();
    longer.push(7);
    assert!(batch.push(&header, &longer).is_err());
    assert!(batch.is_empty());
    batch.push(&header, &largest).unwrap();
    let before = batch.bytes_len();
    assert!(batch.push(&header, &largest).is_err(), "over 1 MiB");
    assert_eq!((batch.records(), batch.bytes_len()), (1, before));
    let rest = BATCH_BYTES_MAX - before - 52;
    batch.push(&header, &largest[..rest]).unwrap();
    assert_eq!(batch.bytes_len(), BATCH_BYTES_MAX);
    assert!(batch.push(&header, &[]).is_err(), "full to the byte");
    assert_eq!(submitter.submit(submitter_empty()).ok(), Some(Offset::ZERO));
    assert_eq!(submitter.submit(batch).unwrap(), Offset::new(2));
    assert_eq!(journal.wait_past(Offset::new(1), PATIENCE), Offset::new(2));
    assert_eq!(
        journal.wait_past(Offset::new(2), Duration::ZERO),
        Offset::new(2)
    );
    // A batch that is over the limit of a journal with small segments comes back.
    let (header, body) = sample(1, 20_000);
    let mut batch = submitter.take_batch();
    batch.push(&header, &body).unwrap();
    let tiny = TempDir::new().unwrap();
    let options = JournalOptions {
        segment_bytes: 16 * 1024,
        ..small(&tiny)
    };
    let (journal, _) = open(options).unwrap();
    assert!(journal.submitter(Arc::new(|| {})).submit(batch).is_err());
}

fn submitter_empty() -> tollgate::journal::Batch {
    let dir = TempDir::new().unwrap();
    open(small(&dir))
        .unwrap()
        .0
        .submitter(Arc::new(|| {}))
        .take_batch()
}

/// Nobody else reads the devices' data.
#[test]
fn sec_78_directory_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    until("the first segment", || journal.usage().segments == 1);
    journal.close().unwrap();
    let path = dir.path().join("journal");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in path.read_dir().unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = TempDir::new().unwrap();
    let wrong = [
        (
            "segment_bytes",
            JournalOptions {
                segment_bytes: 1024,
                ..small(&dir)
            },
        ),
        (
            "segment_bytes",
            JournalOptions {
                segment_bytes: u64::MAX,
                ..small(&dir)
            },
        ),
        (
            "size_max_bytes",
            JournalOptions {
                size_max_bytes: 3 << 20,
                ..small(&dir)
            },
        ),
        (
            "commit_interval",
            JournalOptions {
                commit_interval: Duration::from_secs(2),
                ..small(&dir)
            },
        ),
    ];
    for (name, options) in wrong {
        match open(options) {
            Err(JournalError::Option { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
    assert!(!dir.path().join("journal").exists());
}

/// The broker on a slower disk: nothing is durable before the sync and its delay.
#[test]
fn syncs_take_longer_where_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let delay = Duration::from_millis(30);
    let disk = Arc::new(SlowDisk::new(delay));
    let opened = Journal::open(disk, small(&dir), Box::new(|error| panic!("{error}")));
    let (journal, _) = opened.unwrap();
    let mut submitter = journal.submitter(Arc::new(|| {}));
    for number in 1..=3 {
        let mut batch = submitter.take_batch();
        let (header, body) = sample(number, 10);
        batch.push(&header, &body).unwrap();
        let start = Instant::now();
        let offset = submitter.submit(batch).unwrap();
        let durable = journal.wait_past(Offset::new(number - 1), PATIENCE);
        assert!(durable >= offset && start.elapsed() >= delay);
    }
    let (records, damage) = read(&journal, Offset::ZERO);
    assert_eq!((records.len(), damage), (3, vec![]));
    journal.close().unwrap();
    open(small(&dir)).expect("the same files");
}

/// One wake per submitter and sync, and only for what the sync made durable.
#[test]
fn each_submitter_is_woken_once_per_sync() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    let wakes = Arc::new(AtomicU64::new(0));
    let idle_wakes = Arc::new(AtomicU64::new(0));
    let count = |counter: &Arc<AtomicU64>| {
        let counter = Arc::clone(counter);
        Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
    };
    let mut busy = journal.submitter(count(&wakes));
    let _idle = journal.submitter(count(&idle_wakes));
    for number in 1..=20u64 {
        let mut batch = busy.take_batch();
        let (header, body) = sample(number, 10);
        batch.push(&header, &body).unwrap();
        let offset = busy.submit(batch).unwrap();
        until("the wake", || wakes.load(Ordering::SeqCst) == number);
        assert!(busy.durable() >= offset, "woken before it was durable");
    }
    assert_eq!(journal.usage().commits, 20);
    journal.close().unwrap();
    assert_eq!(
        (
            wakes.load(Ordering::SeqCst),
            idle_wakes.load(Ordering::SeqCst)
        ),
        (20, 0)
    );
}

/// Readers follow from segment to segment while two submitters write.
#[test]
fn readers_beside_writers() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(small(&dir)).unwrap();
    const RECORDS: u64 = 40_000;
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let mut submitter = journal.submitter(Arc::new(|| {}));
            scope.spawn(move || {
                let mut number = writer * RECORDS;
                while number < (writer + 1) * RECORDS {
                    let mut batch = submitter.take_batch();
                    for _ in 0..200 {
                        let (header, body) = sample(number, (number % 300) as usize);
                        batch.push(&header, &body).unwrap();
                        number += 1;
                    }
                    while let Err(back) = submitter.submit(batch) {
                        batch = back;
                        std::thread::yield_now();
                    }
                }
            });
        }
        for from in [0u64, 1, 7_777, 60_001] {
            let journal = journal.clone();
            scope.spawn(move || {
                let mut reader = journal.reader(Offset::new(from));
                let mut expected = Offset::new(from.max(1));
                let mut next = [0, RECORDS];
                let deadline = Instant::now() + PATIENCE;
                while expected.number() <= 2 * RECORDS {
                    assert!(Instant::now() < deadline, "at {expected}");
                    let durable = journal.wait_past(reader.position(), Duration::from_millis(5));
                    match reader.next().unwrap() {
                        None => {}
                        Some(Entry::Damage(damage)) => panic!("{damage:?}"),
                        Some(Entry::Batch(batch)) => {
                            assert_eq!(batch.first(), expected);
                            for record in &batch {
                                assert!(is_sample(&record));
                                let number = record.header.credential;
                                let writer = (number / RECORDS) as usize;
                                // Each submitter's records in its order, each once.
                                if from <= 1 {
                                    assert_eq!(number, next[writer]);
                                }
                                next[writer] = number + 1;
                            }
                            expected = batch.next();
                            assert!(expected <= journal.durable().next(), "{durable}");
                        }
                    }
                }
            });
        }
    });
    let verification = journal.verify().unwrap();
    assert_eq!(
        (verification.records, verification.damage_total),
        (2 * RECORDS, 0)
    );
    assert!(journal.usage().segments > 5);
}

/// REL-24: a start with a journal of 1 GiB takes well under 5 s.
#[test]
#[ignore = "writes 1 GiB"]
fn rel_24_start_with_one_gib() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = || JournalOptions::new(dir.path());
    let (journal, _) = open(options()).unwrap();
    let mut submitter = journal.submitter(Arc::new(|| {}));
    let (header, _) = sample(1, 0);
    let body = vec![1; 4000];
    while journal.usage().commit_bytes < 1 << 30 {
        let mut batch = submitter.take_batch();
        while batch.push(&header, &body).is_ok() {}
        until("room", || submitter.can_submit(batch.bytes_len()));
        submitter.submit(batch).unwrap();
    }
    // No clean stop: the last segment is left as it is.
    let copy = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let (_journal, recovery) = open(JournalOptions::new(copy.path())).unwrap();
    println!(
        "start with {} records: {:?}",
        recovery.last, recovery.elapsed
    );
    assert!(recovery.elapsed < Duration::from_secs(5));
}

/// Prints records/s; two submitters, records of 100 bytes with their header.
#[test]
#[ignore = "a measurement, not a test"]
fn speed() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (journal, _) = open(JournalOptions {
        ballast_bytes: 0,
        ..JournalOptions::new(dir.path())
    })
    .unwrap();
    let per_batch: u64 = std::env::var("BATCH").map_or(500, |text| text.parse().unwrap());
    let seconds = 3;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (sender, receiver) = std::sync::mpsc::sync_channel(2);
            let wake = move || {
                let _ = sender.try_send(());
            };
            let mut submitter = journal.submitter(Arc::new(wake));
            scope.spawn(move || {
                let (header, body) = sample(1, 48);
                while start.elapsed() < Duration::from_secs(seconds) {
                    let mut batch = submitter.take_batch();
                    for _ in 0..per_batch {
                        batch.push(&header, &body).unwrap();
                    }
                    while let Err(back) = submitter.submit(batch) {
                        batch = back;
                        receiver.recv().unwrap();
                    }
                }
            });
        }
    });
    let (elapsed, usage) = (start.elapsed().as_secs_f64(), journal.usage());
    let records = journal.durable().number() as f64;
    println!(
        "{per_batch} records a batch: {:.0} records/s, {:.0} commits/s, {:.1} records a commit, \
         {:.0} MB/s",
        records / elapsed,
        usage.commits as f64 / elapsed,
        records / usage.commits as f64,
        usage.commit_bytes as f64 / elapsed / 1e6,
    );
}
