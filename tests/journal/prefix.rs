//! A prefix of the journal, copied while it grows, opens as a journal that ends there (REL-44).

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;
use tollgate::journal::{Journal, JournalOptions, Offset, RealDisk, Recovery};

use super::support::{PATIENCE, read, sample};

fn open(dir: &Path) -> (Journal, Recovery) {
    let options = JournalOptions {
        segment_bytes: 16 * 1024,
        ballast_bytes: 0,
        ..JournalOptions::new(dir)
    };
    let panic = |error: &_| panic!("{error}");
    Journal::open(Arc::new(RealDisk), options, Box::new(panic)).unwrap()
}

fn append(journal: &Journal, from: u64, to: u64) {
    let mut submitter = journal.submitter(Arc::new(|| {}));
    for number in from..=to {
        let mut batch = submitter.take_batch();
        let (header, body) = sample(number, (number * 37 % 700) as usize);
        batch.push(&header, &body).unwrap();
        let offset = submitter.submit(batch).unwrap();
        let before = Offset::new(offset.number() - 1);
        assert!(journal.wait_past(before, PATIENCE) >= offset);
    }
}

fn copy_of(journal: &Journal, last: Offset) -> TempDir {
    let dir = TempDir::new().unwrap();
    for part in journal.prefix(last).unwrap() {
        let mut bytes = Vec::new();
        let file = File::open(&part.path).unwrap();
        file.take(part.bytes).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, part.bytes);
        fs::write(dir.path().join(&part.name), bytes).unwrap();
    }
    dir
}

/// Opens the copy: it ends with `last`, nothing is cut, and new records follow it.
fn assert_ends(copy: &TempDir, first: u64, last: u64) {
    let (journal, recovery) = open(copy.path());
    assert_eq!(recovery.last.number(), last);
    assert_eq!((&recovery.cut, &recovery.damage), (&None, &vec![]));
    let numbers: Vec<u64> = read(&journal, Offset::ZERO)
        .0
        .iter()
        .map(|(_, n)| *n)
        .collect();
    assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    append(&journal, last + 1, last + 1);
    journal.close().unwrap();
}

#[test]
fn rel_44_every_prefix_opens_and_ends_where_it_was_cut() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, 1, 120);
    assert!(journal.usage().segments > 3);
    for last in (1..=120).step_by(7).chain([0, 119, 120]) {
        let copy = copy_of(&journal, Offset::new(last));
        if last == 0 {
            let (copy, recovery) = open(copy.path());
            assert_eq!(recovery.last, Offset::ZERO);
            copy.close().unwrap();
        } else {
            assert_ends(&copy, 1, last);
        }
    }
    journal.close().unwrap();
}

/// With all records gone, the copy still knows where the journal goes on.
#[test]
fn a_journal_whose_records_are_all_released_goes_on_at_its_offset() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, 1, 40);
    journal.close().unwrap();
    let (journal, _) = open(dir.path());
    // The first commit of a run needs a new segment; without one the old ones stay.
    append(&journal, 41, 41);
    journal.release(Offset::new(41)).unwrap();
    let first = journal.first().number();
    let copy = copy_of(&journal, journal.durable());
    assert_ends(&copy, first, 41);
    journal.close().unwrap();
}

#[test]
fn rel_44_a_prefix_taken_while_it_grows_holds_all_that_was_durable() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    append(&journal, 1, 1);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 2;
            while !stop.load(Ordering::Relaxed) {
                append(&journal, next, next);
                next += 1;
            }
        });
        for _ in 0..30 {
            let _hold = journal.hold(journal.first());
            let last = journal.durable();
            let copy = copy_of(&journal, last);
            assert_ends(&copy, 1, last.number());
            let _ = journal.wait_past(last, PATIENCE);
        }
        stop.store(true, Ordering::Relaxed);
    });
    journal.close().unwrap();
}
