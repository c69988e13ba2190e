//! REL-28, REL-29, REL-04: full disks and failing calls.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use tollgate::journal::{
    BATCH_BYTES_MAX, Entry, FullReason, JournalError, JournalOptions, JournalStatus, Offset,
    Submitter,
};

use super::fault_disk::{Call, FaultDisk, Refusal, Unsynced};
use super::support::{Bench, SEGMENT_BYTES, open, open_with, options, sample, until};

/// Batches of one record of 1,000 bytes with sample `n` at offset `n`; ends when one is refused or
/// is not durable. Answers what is durable.
fn write_until_refused(bench: &Bench, batches: u64) -> u64 {
    let first = bench.recovery.last.number() + 1;
    write_until_refused_from(bench, &mut bench.submitter(), first, batches)
}

/// The same, with samples and offsets from `first` on.
fn write_until_refused_from(
    bench: &Bench,
    submitter: &mut Submitter,
    first: u64,
    batches: u64,
) -> u64 {
    for number in first..first + batches {
        match bench.submit(submitter, &[(number, 1_000)]) {
            Some(offset) if bench.wait(offset) => {}
            _ => break,
        }
    }
    bench.journal.durable().number()
}

fn check(bench: &Bench, acked: u64, what: &str) {
    let last = bench.recovery.last.number();
    assert!(
        last >= acked,
        "{what}: {acked} was acknowledged, {last} came back"
    );
    let (records, damage) = bench.read_all();
    assert_eq!(damage, [], "{what}");
    let expected: Vec<_> = (1..=last).map(|n| (Offset::new(n), n)).collect();
    assert_eq!(records, expected, "{what}");
}

/// Each call site, once and for good. After a failed write or sync of a segment: one report, no
/// later ack; after a restart (with the cache as the failed sync left it) and even after a power
/// loss on top, everything acknowledged is there.
#[test]
fn rel_29_every_call_fails_once_and_for_good() {
    let calls = [
        Call::Create,
        Call::Write,
        Call::Sync,
        Call::SyncDir,
        Call::Rename,
    ];
    let mut poisoned = 0;
    for call in calls {
        for nth in 1..=30 {
            for sticky in [false, true] {
                let what = format!("{call:?} number {nth} fails, for good: {sticky}");
                let disk = FaultDisk::new(nth);
                disk.fail(call, nth, ErrorKind::Other, sticky);
                let acked = match open_with(&disk, options()) {
                    Ok(bench) => {
                        let acked = write_until_refused(&bench, 40);
                        let failed = bench.journal.status() == JournalStatus::Failed;
                        let reports = bench.failures.load(Ordering::SeqCst);
                        assert_eq!(reports, u64::from(failed), "{what}");
                        poisoned += reports;
                        if failed {
                            let mut submitter = bench.submitter();
                            assert_eq!(bench.submit(&mut submitter, &[(1, 1)]), None, "{what}");
                            assert!(bench.journal.close().is_err(), "{what}");
                            assert_eq!(bench.journal.durable().number(), acked, "{what}");
                        }
                        acked
                    }
                    Err(JournalError::Io { .. }) => 0,
                    Err(error) => panic!("{what}: {error}"),
                };
                let disk = disk.kill();
                let bench = open(&disk);
                check(&bench, acked, &what);
                let last = bench.recovery.last.number();
                drop(bench);
                let disk = disk.power_loss(Unsynced::Dropped);
                check(&open(&disk), last, &what);
            }
        }
    }
    assert!(poisoned > 100, "only {poisoned} runs failed");
}

/// REL-04: what a failed sync left in the system's cache is not on the medium, and looks clean.
/// The next start reads it, so it must put it there before it calls it durable.
#[test]
fn rel_04_a_batch_whose_sync_failed_is_written_again() {
    for seed in 0..40 {
        let disk = FaultDisk::new(seed);
        let bench = open(&disk);
        let mut submitter = bench.submitter();
        bench.write(&mut submitter, &[(1, 700)]);
        until("the next segment is prepared", || {
            bench.journal.usage().bytes == 2 * SEGMENT_BYTES
        });
        disk.fail(Call::Sync, 1, ErrorKind::Other, false);
        let offset = bench.submit(&mut submitter, &[(2, 700)]).unwrap();
        assert!(!bench.wait(offset));
        drop(bench);
        let disk = disk.kill();
        let last = open(&disk).recovery.last;
        assert_eq!(last, Offset::new(2), "the cache shows the batch");
        let bench = open(&disk.power_loss(Unsynced::Dropped));
        check(&bench, last.number(), "after the power loss");
    }
}

/// A failing read at start is an error, not a cut; the next start is as if nothing had been.
#[test]
fn a_read_error_at_start_cuts_nothing() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let acked = write_until_refused(&bench, 5);
    drop(bench);
    for nth in 1..20 {
        let disk = disk.kill();
        disk.fail(Call::Read, nth, ErrorKind::Other, false);
        match open_with(&disk, options()) {
            Ok(bench) => assert_eq!(bench.recovery.cut, None),
            Err(JournalError::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    check(&open(&disk.kill()), acked, "after failed starts");
}

/// No file descriptor is left where a segment ends: no damage, and no end of the journal. What was
/// taken waits, and goes on by itself.
#[test]
fn rel_28_no_descriptor_for_the_next_segment_is_waited_for() {
    for call in [Call::SyncDir, Call::Create] {
        for errno in [Errno::MFILE, Errno::NFILE] {
            let disk = FaultDisk::new(1);
            let bench = open(&disk);
            let mut submitter = bench.submitter();
            bench.write(&mut submitter, &[(1, 10)]);
            disk.fail(call, 1, Refusal::Os(errno.raw_os_error()), true);
            let acked = write_until_refused_from(&bench, &mut submitter, 2, 1_000);
            let JournalStatus::Full { reason, .. } = bench.journal.status() else {
                panic!("{call:?}: {:?}", bench.journal.status())
            };
            assert_eq!(reason, FullReason::NoDescriptor, "{call:?}");
            assert_eq!(bench.failures.load(Ordering::SeqCst), 0);
            disk.heal();
            until("a descriptor is noticed", || {
                bench.journal.status() == JournalStatus::Running
            });
            assert!(bench.wait(Offset::new(acked + 1)), "what waited");
            bench.write(&mut submitter, &[(acked + 2, 10)]);
            drop(submitter);
            bench.journal.close().unwrap();
            check(&open(&disk.kill()), acked + 2, &format!("{call:?}"));
        }
    }
}

/// A stop does not wait for a descriptor: what was never acknowledged is said.
#[test]
fn rel_28_a_close_without_a_descriptor_ends_and_says_so() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    bench.write(&mut submitter, &[(1, 10)]);
    disk.fail(
        Call::SyncDir,
        1,
        Refusal::Os(Errno::MFILE.raw_os_error()),
        true,
    );
    let acked = write_until_refused_from(&bench, &mut submitter, 2, 1_000);
    let error = bench.journal.close().unwrap_err();
    assert!(
        matches!(error, JournalError::Unwritten { records: 1 }),
        "{error}"
    );
    check(&open(&disk.kill()), acked, "after the close");
}

/// REL-28: no space for the next segment. What is there is used up, then new work is refused and
/// what was taken waits; when space is back all goes on by itself.
#[test]
fn rel_28_full_disk_waits_and_goes_on() {
    for quota in [false, true] {
        let disk = FaultDisk::new(1);
        // One segment and not quite another; with a quota only the write says so.
        disk.set_capacity(2 * SEGMENT_BYTES - 1);
        let bench = open(&disk);
        if quota {
            until("the first segment", || bench.journal.usage().segments == 1);
            disk.set_capacity(u64::MAX);
            let kind = ErrorKind::QuotaExceeded;
            disk.fail(Call::Write, 1, kind, true);
            until("a try", || disk.changes() > 20);
            disk.heal();
            disk.set_capacity(2 * SEGMENT_BYTES - 1);
        }
        let acked = write_until_refused(&bench, 1_000);
        assert!(acked >= 12, "only {acked} fitted");
        let JournalStatus::Full { reason, .. } = bench.journal.status() else {
            panic!("{:?}", bench.journal.status())
        };
        assert_eq!(reason, FullReason::NoSpace);
        let mut submitter = bench.submitter();
        assert!(!submitter.can_submit(1));
        assert_eq!(bench.submit(&mut submitter, &[(1, 1)]), None);
        assert_eq!(bench.failures.load(Ordering::SeqCst), 0);
        bench.woken.store(false, Ordering::SeqCst);
        disk.set_capacity(u64::MAX);
        until("space is noticed", || {
            bench.journal.status() == JournalStatus::Running
        });
        until("the wake", || bench.woken.load(Ordering::SeqCst));
        // The batch that waited was not lost.
        assert!(bench.wait(Offset::new(acked + 1)));
        bench.write(&mut submitter, &[(acked + 2, 10)]);
        let (records, damage) = bench.read_all();
        assert_eq!((records.len() as u64, damage), (acked + 2, vec![]));
    }
}

#[test]
fn rel_28_closing_a_full_journal_says_what_was_not_written() {
    let disk = FaultDisk::new(1);
    disk.set_capacity(SEGMENT_BYTES);
    let bench = open(&disk);
    let acked = write_until_refused(&bench, 1_000);
    let result = bench.journal.close();
    assert!(
        matches!(result, Err(JournalError::Unwritten { records: 1 })),
        "{result:?}"
    );
    assert_eq!(bench.journal.durable().number(), acked);
    let bench = open(&disk.kill());
    assert_eq!(bench.recovery.last.number(), acked);
    check(&bench, acked, "after the restart");
}

#[test]
fn a_full_disk_at_start_does_not_stop_the_start() {
    let disk = FaultDisk::new(1);
    disk.set_capacity(0);
    let bench = open(&disk);
    until("full", || {
        matches!(bench.journal.status(), JournalStatus::Full { .. })
    });
    disk.set_capacity(u64::MAX);
    until("running", || {
        bench.journal.status() == JournalStatus::Running
    });
    bench.write(&mut bench.submitter(), &[(1, 1)]);
}

/// At the size cap new work is refused, old work is never dropped; releasing makes room.
#[test]
fn the_size_cap_refuses_until_segments_are_released() {
    let disk = FaultDisk::new(1);
    let capped = JournalOptions {
        size_max_bytes: 3 * SEGMENT_BYTES,
        ..options()
    };
    let bench = open_with(&disk, capped).unwrap();
    let acked = write_until_refused(&bench, 1_000);
    let JournalStatus::Full { reason, .. } = bench.journal.status() else {
        panic!("{:?}", bench.journal.status())
    };
    assert_eq!(reason, FullReason::SizeMax);
    assert_eq!(bench.journal.usage().segments, 3);
    assert!(disk.used() <= 3 * SEGMENT_BYTES);
    assert_eq!(bench.read_all().0.len() as u64, acked);
    // Nothing is whole before offset 2.
    assert_eq!(
        bench.journal.release(Offset::new(2)).unwrap(),
        Offset::new(1)
    );
    assert!(matches!(bench.journal.status(), JournalStatus::Full { .. }));
    let first = bench.journal.release(Offset::new(acked)).unwrap();
    assert!(first > Offset::new(1) && first <= Offset::new(acked));
    until("running", || {
        bench.journal.status() == JournalStatus::Running
    });
    assert!(bench.wait(Offset::new(acked + 1)));
    let (records, damage) = bench.read_all();
    assert_eq!(damage, []);
    assert_eq!(
        records[0].0, first,
        "a reader from the start starts with what is kept"
    );
    // The same after a restart.
    let bench = open(&disk.kill());
    assert_eq!(bench.recovery.first, first);
    assert_eq!(bench.recovery.last, Offset::new(acked + 1));
    assert_eq!(bench.read_all().0, records);
}

/// The ballast's space is for others: the journal does not take it for a segment, and makes the
/// ballast again when there is room for both.
#[test]
fn the_ballast_is_given_back_and_made_again() {
    let disk = FaultDisk::new(1);
    let ballasted = JournalOptions {
        ballast_bytes: SEGMENT_BYTES,
        ..options()
    };
    disk.set_capacity(3 * SEGMENT_BYTES);
    let bench = open_with(&disk, ballasted).unwrap();
    until("segment, ballast, segment", || {
        disk.used() == 3 * SEGMENT_BYTES
    });
    until("the ballast", || bench.journal.release_ballast());
    assert_eq!(disk.used(), 2 * SEGMENT_BYTES);
    assert!(!bench.journal.release_ballast(), "there is none now");
    let acked = write_until_refused(&bench, 1_000);
    assert!(matches!(bench.journal.status(), JournalStatus::Full { .. }));
    assert_eq!(
        disk.used(),
        2 * SEGMENT_BYTES,
        "the journal took the space it gave back"
    );
    disk.set_capacity(6 * SEGMENT_BYTES);
    until("running", || {
        bench.journal.status() == JournalStatus::Running
    });
    assert!(bench.wait(Offset::new(acked + 1)));
    until("the ballast again", || bench.journal.release_ballast());
}

/// What one commit holds: 256 batches, 8 MiB. The rest is the next commit.
#[test]
fn the_limits_of_a_commit() {
    for (submitters, body_len, commits) in [(130, 10, 2), (17, 500_000, 3), (100, 10, 1)] {
        let disk = FaultDisk::new(1);
        let large = JournalOptions {
            segment_bytes: 32 * 1024 * 1024,
            ..options()
        };
        let bench = open_with(&disk, large).unwrap();
        let mut all: Vec<_> = (0..submitters).map(|_| bench.submitter()).collect();
        let mut first = bench.submitter();
        let mut number = 1;
        hold_a_commit(&disk, &bench, &mut first, 32 * 1024 * 1024);
        for _ in 0..2 {
            for submitter in &mut all {
                number += 1;
                assert!(bench.submit(submitter, &[(number, body_len)]).is_some());
            }
        }
        disk.hold_syncs(false);
        assert!(bench.wait(Offset::new(number)));
        assert_eq!(
            bench.journal.usage().commits,
            1 + commits,
            "{submitters} submitters"
        );
        let (records, damage) = bench.read_all();
        assert_eq!((records.len() as u64, damage), (number, vec![]));
    }
}

/// Leaves the committer in the sync of offset 1.
fn hold_a_commit(disk: &FaultDisk, bench: &Bench, submitter: &mut Submitter, segment_bytes: u64) {
    // Then nothing but the committer touches the disk.
    until("the next segment is prepared", || {
        let usage = bench.journal.usage();
        usage.segments == 1 && usage.bytes == 2 * segment_bytes && disk.used() == usage.bytes
    });
    disk.hold_syncs(true);
    let writes = disk.changes();
    bench.submit(submitter, &[(1, 10)]).unwrap();
    until("the write", || disk.changes() > writes);
}

/// While a sync is under way, as much as a full batch has is taken, and no more; another submitter
/// is not held up, and all that waited is one commit. Nothing is durable before its sync.
#[test]
fn what_comes_during_a_sync_is_bounded_and_goes_with_the_next_one() {
    let segment_bytes = 32 * 1024 * 1024;
    let large = JournalOptions {
        segment_bytes,
        ..options()
    };
    let disk = FaultDisk::new(1);
    let bench = open_with(&disk, large).unwrap();
    let (mut one, mut other) = (bench.submitter(), bench.submitter());
    hold_a_commit(&disk, &bench, &mut one, segment_bytes);
    let (header, body) = sample(21, 60_000);
    let mut number = 1;
    let mut bytes = 0;
    let mut another = loop {
        let mut batch = one.take_batch();
        batch.push(&header, &body).unwrap();
        let more = batch.bytes_len();
        assert_eq!(one.can_submit(more), bytes + more <= BATCH_BYTES_MAX);
        match one.submit(batch) {
            Ok(offset) => {
                number += 1;
                bytes += more;
                assert_eq!(offset, Offset::new(number));
            }
            Err(back) => break back,
        }
    };
    assert_eq!((number, another.records()), (18, 1));
    for number in [number + 1, number + 2] {
        let taken = bench.submit(&mut other, &[(number, 10)]);
        assert_eq!(taken, Some(Offset::new(number)));
    }
    assert_eq!(bench.journal.durable(), Offset::ZERO);
    assert_eq!(bench.read_all(), (vec![], vec![]));
    assert!(!bench.woken.load(Ordering::SeqCst));
    disk.hold_syncs(false);
    assert!(bench.wait(Offset::new(number + 2)));
    assert_eq!(bench.journal.usage().commits, 2);
    while let Err(back) = one.submit(another) {
        another = back;
        std::thread::yield_now();
    }
}

/// What turns hand over during a sync is one batch, in the order in which it came.
#[test]
fn small_batches_of_a_sync_become_one() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    hold_a_commit(&disk, &bench, &mut submitter, SEGMENT_BYTES);
    for number in 2..=100 {
        let taken = bench.submit(&mut submitter, &[(number, 1)]);
        assert_eq!(taken, Some(Offset::new(number)));
    }
    disk.hold_syncs(false);
    assert!(bench.wait(Offset::new(100)));
    assert_eq!(bench.journal.usage().commits, 2);
    let expected: Vec<_> = (1..=100).map(|n| (Offset::new(n), n)).collect();
    assert_eq!(bench.read_all(), (expected, vec![]));
}

/// A bug in a wake ends the journal as a failed write does; it is not lost with its thread.
#[test]
fn a_panic_on_the_journals_thread_is_a_failure() {
    let bench = open(&FaultDisk::new(1));
    let mut submitter = bench
        .journal
        .submitter(Arc::new(|| panic!("a wake must not panic")));
    bench.submit(&mut submitter, &[(1, 1)]).unwrap();
    until("the failure", || bench.failures.load(Ordering::SeqCst) == 1);
    assert_eq!(bench.journal.status(), JournalStatus::Failed);
    let result = bench.journal.close();
    assert!(
        matches!(result, Err(JournalError::Panicked { thread: "journal" })),
        "{result:?}"
    );
}

/// A reader that meets a failing read goes on where it was.
#[test]
fn a_failing_read_is_tried_again() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let acked = write_until_refused(&bench, 60);
    let mut reader = bench.journal.reader(Offset::ZERO);
    let (mut errors, mut expected) = (0, 1);
    while expected <= acked {
        if expected % 7 == 0 && errors < expected / 7 {
            disk.fail(Call::Read, 1, ErrorKind::Other, false);
        }
        match reader.next() {
            Ok(Some(Entry::Batch(batch))) => {
                assert_eq!(batch.first().number(), expected);
                expected = batch.next().number();
            }
            Ok(other) => panic!("{other:?}"),
            Err(JournalError::Io { action, .. }) => {
                assert!(matches!(action, "read" | "open"));
                errors += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(errors > 0);
}

/// A reader overtaken by a release goes on with what is kept, and calls nothing damage.
#[test]
fn a_reader_overtaken_by_a_release() {
    let bench = open(&FaultDisk::new(1));
    let acked = write_until_refused(&bench, 100);
    let mut reader = bench.journal.reader(Offset::ZERO);
    assert!(matches!(reader.next(), Ok(Some(Entry::Batch(_)))));
    let first = bench.journal.release(Offset::new(acked)).unwrap();
    let mut last = reader.position();
    while let Some(entry) = reader.next().unwrap() {
        let Entry::Batch(batch) = entry else {
            panic!("{entry:?}")
        };
        assert!(batch.first() == last || batch.first() == first);
        last = batch.next();
    }
    assert_eq!(last.number(), acked + 1);
}

#[test]
fn what_a_reader_holds_is_not_released() {
    let disk = FaultDisk::new(1);
    let capped = JournalOptions {
        size_max_bytes: 3 * SEGMENT_BYTES,
        ..options()
    };
    let bench = open_with(&disk, capped).unwrap();
    let acked = write_until_refused(&bench, 1_000);
    let (slow, quick) = (
        bench.journal.hold(Offset::new(1)),
        bench.journal.hold(Offset::new(1)),
    );
    quick.advance(Offset::new(acked));
    let release = || bench.journal.release(Offset::new(acked)).unwrap();
    assert_eq!(release(), Offset::new(1), "the slow one needs the first");
    slow.advance(Offset::new(2));
    slow.advance(Offset::new(1)); // no way back
    assert_eq!(release(), Offset::new(1), "nothing is whole before 2");
    drop(slow);
    assert!(release() > Offset::new(1));
}

/// The zeros of a segment to come are not in the system's cache: a reader that follows the end
/// would fetch the whole file from the disk before it is written.
#[test]
fn a_reader_at_the_end_reads_no_further_than_what_is_written() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    let mut reader = bench.journal.reader(Offset::ZERO);
    disk.forbid_far_reads();
    let mut found = 0;
    for number in 1..=200 {
        let offset = bench.submit(&mut submitter, &[(number, (number * 37 % 900) as usize)]);
        assert!(bench.wait(offset.unwrap()));
        // Not after each: then there is more than one batch to read.
        while number % 3 == 0
            && let Some(Entry::Batch(batch)) = reader.next().unwrap()
        {
            found += batch.len();
        }
    }
    assert_eq!(found, 198);
    assert!(bench.journal.usage().segments > 2);
}
