//! REL-28, REL-29, REL-04: full disks and failing calls.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use tollgate::journal::{FullReason, JournalError, JournalOptions, JournalStatus, Offset};

use super::fault_disk::{Call, FaultDisk, Unsynced};
use super::support::{Bench, SEGMENT_BYTES, open, open_with, options, until};

/// Batches of one record of 1,000 bytes with sample `n` at offset `n`; ends when one is refused or
/// is not durable. Answers what is durable.
fn write_until_refused(bench: &Bench, batches: u64) -> u64 {
    let mut submitter = bench.submitter();
    let first = bench.recovery.last.number() + 1;
    for number in first..first + batches {
        match bench.submit(&mut submitter, &[(number, 1_000)]) {
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
        assert!(!submitter.can_submit());
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
