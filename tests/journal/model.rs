//! Random actions and faults against a model: what was acknowledged comes back exactly once and in
//! order, nothing comes back that was not submitted, a start ends at the end of a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use tollgate::journal::{
    Entry, JournalError, JournalOptions, JournalStatus, Offset, Reader, Submitter,
};

use super::fault_disk::{Call, FaultDisk, Unsynced};
use super::support::{
    Bench, Random, SEGMENT_BYTES, for_each_seed, is_sample, open_with, options, until,
};

const ACTIONS: u64 = 80;

/// What the journal must hold.
#[derive(Default)]
struct Model {
    /// Number of the sample at each offset that was submitted and may come back.
    records: BTreeMap<u64, u64>,
    /// Offsets at which a batch ends.
    ends: BTreeSet<u64>,
    /// The highest offset that was ever called durable.
    acked: u64,
    next_number: u64,
}

struct Run {
    what: String,
    random: Random,
    model: Model,
    disk: FaultDisk,
    bench: Bench,
    submitters: Vec<Submitter>,
    reader: Reader,
    /// True when a call was made to fail, so that the journal may have stopped.
    faulty: bool,
}

#[test]
fn random_actions_against_a_model() {
    for_each_seed(|seed| {
        let mut run = Run::new(seed);
        for action in 0..ACTIONS {
            run.what = format!("TOLLGATE_SEED={seed} action {action}");
            run.act();
        }
        run.restart_after_power_loss();
    });
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = FaultDisk::new(seed);
        let bench = open_with(&disk, Run::options()).unwrap();
        let reader = bench.journal.reader(Offset::ZERO);
        Run {
            what: String::new(),
            random: Random::new(seed),
            model: Model::default(),
            disk,
            bench,
            submitters: Vec::new(),
            reader,
            faulty: false,
        }
    }

    fn options() -> JournalOptions {
        JournalOptions {
            size_max_bytes: 12 * SEGMENT_BYTES,
            ballast_bytes: SEGMENT_BYTES / 2,
            ..options()
        }
    }

    fn act(&mut self) {
        match self.random.below(100) {
            0..50 => self.submit(),
            50..62 => self.read(),
            62..70 => self.settle(),
            70..74 => self.restart_after_power_loss(),
            74..78 => self.restart_after_kill(),
            78..81 => self.restart_cleanly(),
            81..87 => self.fail_something(),
            87..91 => self.fill_and_free(),
            91..95 => self.release(),
            95..97 => self.disk.set_short_writes(self.random.chance(50)),
            97..98 => self.submitters.truncate(1),
            _ => {
                let _ = self.bench.journal.release_ballast();
            }
        }
        self.note_durable();
    }

    fn note_durable(&mut self) {
        let durable = self.bench.journal.durable().number();
        assert!(
            durable >= self.model.acked,
            "{}: durable moved back",
            self.what
        );
        let last = self
            .model
            .records
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.model.acked);
        assert!(
            durable <= last,
            "{}: {durable} is durable, {last} was submitted",
            self.what
        );
        self.model.acked = durable;
    }

    fn submit(&mut self) {
        if self.submitters.is_empty() || (self.submitters.len() < 4 && self.random.chance(20)) {
            self.submitters.push(self.bench.submitter());
        }
        let count = self.submitters.len() as u64;
        let submitter = &mut self.submitters[self.random.below(count) as usize];
        let mut batch = submitter.take_batch();
        let mut numbers = Vec::new();
        let records = self.random.below(8);
        let body_max = if self.random.chance(10) { 14_000 } else { 400 };
        for _ in 0..records {
            let number = self.model.next_number;
            let body_len = self.random.below(body_max) as usize;
            let (header, body) = super::support::sample(number, body_len);
            if batch.push(&header, &body).is_err() {
                break;
            }
            self.model.next_number += 1;
            numbers.push(number);
        }
        let Ok(last) = submitter.submit(batch) else {
            return;
        };
        let last = last.number();
        let first = last + 1 - numbers.len() as u64;
        for (offset, number) in (first..).zip(&numbers) {
            let before = self.model.records.insert(offset, *number);
            assert_eq!(
                before, None,
                "{}: offset {offset} is given twice",
                self.what
            );
        }
        self.model.ends.insert(last);
    }

    /// Waits until what was submitted is durable, or cannot be.
    fn settle(&mut self) {
        let last = self.model.records.keys().next_back().copied().unwrap_or(0);
        let durable = self.bench.wait(Offset::new(last));
        let status = self.bench.journal.status();
        let excused = self.faulty || matches!(status, JournalStatus::Full { .. });
        assert!(
            durable || excused,
            "{}: {last} is not durable: {status:?}",
            self.what
        );
        assert!(
            self.faulty || status != JournalStatus::Failed,
            "{}",
            self.what
        );
    }

    /// The reader goes on from where it was.
    fn read(&mut self) {
        if self.random.chance(20) {
            let from = self.random.below(self.model.acked + 2);
            self.reader = self.bench.journal.reader(Offset::new(from));
        }
        for _ in 0..self.random.below(6) {
            if !self.read_entry() {
                break;
            }
        }
    }

    fn read_entry(&mut self) -> bool {
        let position = self.reader.position();
        match self.reader.next() {
            Ok(None) => return false,
            // A failing read, or a disk without power.
            Err(_) => assert!(self.faulty, "{}", self.what),
            Ok(Some(Entry::Damage(damage))) => panic!("{}: {damage:?}", self.what),
            Ok(Some(Entry::Batch(batch))) => {
                let first = self.bench.journal.first().max(position);
                assert!(
                    batch.first() == position || batch.first() <= first,
                    "{}",
                    self.what
                );
                assert!(
                    batch.next() <= self.bench.journal.durable().next(),
                    "{}",
                    self.what
                );
                for record in &batch {
                    let expected = self.model.records.get(&record.offset.number());
                    assert_eq!(expected, Some(&record.header.credential), "{}", self.what);
                    assert!(is_sample(&record), "{}", self.what);
                }
            }
        }
        true
    }

    fn fail_something(&mut self) {
        let calls = [
            Call::Create,
            Call::Write,
            Call::Sync,
            Call::SyncDir,
            Call::Rename,
        ];
        let call = calls[self.random.below(5) as usize];
        let kind = if self.random.chance(30) {
            ErrorKind::StorageFull
        } else {
            ErrorKind::Other
        };
        let nth = 1 + self.random.below(6);
        self.disk.fail(call, nth, kind, self.random.chance(20));
        self.faulty = true;
    }

    fn fill_and_free(&mut self) {
        if self.random.chance(50) {
            let free = self.random.below(2 * SEGMENT_BYTES);
            self.disk.set_capacity(self.disk.used() + free);
            return;
        }
        self.disk.set_capacity(u64::MAX);
        if !self.faulty {
            let journal = &self.bench.journal;
            until("space is noticed", || match journal.status() {
                JournalStatus::Full { reason, .. } => {
                    reason == tollgate::journal::FullReason::SizeMax
                }
                _ => true,
            });
        }
    }

    fn release(&mut self) {
        let before = self.random.below(self.model.acked + 2);
        let first = self.bench.journal.first();
        match self.bench.journal.release(Offset::new(before)) {
            Ok(kept) => {
                let allowed = first.max(Offset::new(before));
                assert!(kept >= first && kept <= allowed, "{}: {kept}", self.what);
            }
            Err(_) => assert!(self.faulty, "{}", self.what),
        }
    }

    fn restart_after_power_loss(&mut self) {
        let unsynced = match self.random.below(4) {
            0 => Unsynced::Dropped,
            1 => Unsynced::Kept,
            2 => Unsynced::Mixed(512),
            _ => Unsynced::Mixed(4096),
        };
        self.note_durable();
        let disk = self.disk.power_loss(unsynced);
        self.start(disk);
    }

    fn restart_after_kill(&mut self) {
        self.note_durable();
        // What the process did between the last look and its end counts too.
        let disk = self.disk.kill();
        self.start(disk);
    }

    fn restart_cleanly(&mut self) {
        let last = self
            .model
            .records
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.model.acked);
        match self.bench.journal.close() {
            Ok(()) => assert_eq!(self.bench.journal.durable().number(), last, "{}", self.what),
            Err(JournalError::Unwritten { records }) => {
                let durable = self.bench.journal.durable().number();
                assert_eq!(durable + records, last, "{}", self.what);
            }
            Err(error) => assert!(self.faulty, "{}: {error}", self.what),
        }
        self.note_durable();
        let disk = self.disk.kill();
        self.start(disk);
    }

    fn start(&mut self, disk: FaultDisk) {
        // Both calls come before the old journal is dropped, which closes it: a dead process
        // does nothing, and the disk of its life sees to that.
        self.disk = disk;
        let mut first_try = self.random.chance(10);
        let bench = loop {
            if std::mem::take(&mut first_try) {
                self.disk.fail(Call::Sync, 1, ErrorKind::Other, false);
                self.disk.fail(Call::SetLen, 1, ErrorKind::Other, false);
            }
            match open_with(&self.disk, Run::options()) {
                Ok(bench) => break bench,
                Err(JournalError::Io { .. }) => self.disk = self.disk.kill(),
                Err(error) => panic!("{}: {error}", self.what),
            }
        };
        // A fault that the start did not meet may still come.
        self.faulty = true;
        self.disk.heal();
        self.faulty = bench.journal.status() == JournalStatus::Failed;
        self.submitters.clear();
        self.reader = bench.journal.reader(Offset::ZERO);
        self.bench = bench;
        self.check_start();
    }

    fn check_start(&mut self) {
        let (recovery, what) = (&self.bench.recovery, &self.what);
        let last = recovery.last.number();
        let acked = self.model.acked;
        assert!(
            last >= acked,
            "{what}: {acked} was acknowledged, {last} came back"
        );
        assert!(
            last == acked || self.model.ends.contains(&last),
            "{what}: {last} is no end"
        );
        assert!(recovery.damage.is_empty(), "{what}: {:?}", recovery.damage);
        self.model.records.split_off(&(last + 1));
        self.model.ends.split_off(&(last + 1));
        self.model.acked = last;
        let first = self.bench.journal.first().number();
        let mut reader = self.bench.journal.reader(Offset::ZERO);
        let mut expected = first;
        while let Some(entry) = reader.next().expect("readable") {
            let Entry::Batch(batch) = entry else {
                panic!("{what}: {entry:?}")
            };
            for record in &batch {
                assert_eq!(record.offset.number(), expected, "{what}");
                let number = self.model.records.get(&expected);
                assert_eq!(number, Some(&record.header.credential), "{what}");
                assert!(is_sample(&record), "{what}");
                expected += 1;
            }
        }
        assert_eq!(expected, last + 1, "{what}");
    }
}
