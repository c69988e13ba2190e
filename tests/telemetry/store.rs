//! The store on a real disk: random writes against a plain model, crashes between any two steps,
//! damage, and what the files hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tollgate::journal::{
    Journal, JournalOptions, Offset, RealDisk, RecordHeader, RecordKind, Submitter,
};
use tollgate::telemetry::{
    Aggregate, Aggregation, History, HistoryOptions, HistoryStatus, OnStep, OwnedValue,
    PARSER_VERSION, Point, Query, verify_files,
};
use uuid::Uuid;

/// Longest wait for something that the store does in the background.
const PATIENCE: Duration = Duration::from_secs(120);

/// A journal and a history in one directory, as in the broker.
struct Bench {
    dir: TempDir,
    journal: Journal,
    submitter: Submitter,
    history: Option<History>,
    options: HistoryOptions,
}

/// Directories as a crash would have left them, one for each step of the store.
#[derive(Default)]
struct Crashes {
    copies: Mutex<Vec<(&'static str, TempDir)>>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut HistoryOptions)) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), change)
    }

    fn in_dir(dir: TempDir, change: impl FnOnce(&mut HistoryOptions)) -> Self {
        let options = JournalOptions {
            segment_bytes: 64 * 1024,
            ballast_bytes: 0,
            ..JournalOptions::new(dir.path().join("journal"))
        };
        let on_failure = Box::new(|error: &_| panic!("the journal failed: {error}"));
        let (journal, _) = Journal::open(Arc::new(RealDisk), options, on_failure).unwrap();
        let mut options = HistoryOptions {
            head_bytes_max: 16 * 1024,
            seal_idle: Duration::from_millis(50),
            sweep_interval: Duration::from_millis(100),
            ..HistoryOptions::new(dir.path().join("history"))
        };
        change(&mut options);
        let mut bench = Self {
            submitter: journal.submitter(Arc::new(|| {})),
            dir,
            journal,
            history: None,
            options,
        };
        bench.open([]);
        bench
    }

    fn open(&mut self, tombstones: impl IntoIterator<Item = (Uuid, Offset)>) {
        let history = History::start(self.journal.clone(), self.options.clone(), tombstones);
        self.history = Some(history.unwrap());
    }

    fn history(&self) -> &History {
        self.history.as_ref().unwrap()
    }

    /// A clean stop of all of it; the directory stays.
    fn close(mut self) -> TempDir {
        let history = self.history.take().unwrap();
        history.close();
        drop(history);
        self.journal.close().unwrap();
        self.dir
    }

    /// Writes payloads durably, one record each.
    fn write(&mut self, records: &[(Uuid, String)]) -> Offset {
        let mut last = Offset::ZERO;
        for records in records.chunks(200) {
            let mut batch = self.submitter.take_batch();
            for (device, payload) in records {
                let header = RecordHeader {
                    kind: RecordKind::Telemetry,
                    qos: 1,
                    profile_flags: 0,
                    parser_version: PARSER_VERSION,
                    received_ms: 1,
                    device: *device,
                    credential: 5,
                    generation: 2,
                    session: 0,
                    packet_id: 0,
                };
                batch.push(&header, payload.as_bytes()).unwrap();
            }
            let end = Instant::now() + PATIENCE;
            loop {
                match self.submitter.submit(batch) {
                    Ok(offset) => break last = offset,
                    Err(refused) => batch = refused,
                }
                assert!(Instant::now() < end, "the journal is full");
                std::thread::yield_now();
            }
            let before = Offset::new(last.number() - 1);
            assert!(self.journal.wait_past(before, PATIENCE) >= last);
        }
        last
    }

    fn wait_for(&self, what: impl Fn(&HistoryStatus) -> bool) -> HistoryStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.history().status();
            if what(&status) {
                return status;
            }
            assert!(Instant::now() < end, "never came: {status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_until_sealed(&self) -> HistoryStatus {
        let last = self.journal.durable();
        self.wait_for(|status| status.sealed >= last)
    }

    fn all(&self, device: Uuid) -> Vec<Point> {
        self.history().query(&everything(device)).unwrap()
    }
}

fn device(number: u128) -> Uuid {
    // Far from one another, as real ones are.
    Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn everything(device: Uuid) -> Query {
    Query {
        device,
        keys: None,
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        limit: 1_000_000,
        newest_first: false,
        left_out: Vec::new(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), target) {
            // Removed since it was listed, by the other thread of the store.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join("history"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"))
        .collect();
    files.sort();
    files
}

/// What is written, and what should be read.
#[derive(Clone, Default)]
struct Model {
    points: BTreeMap<(u128, i64, String), (Offset, OwnedValue)>,
}

impl Model {
    fn write(&mut self, device: u128, offset: Offset, key: &str, ts_ms: i64, value: OwnedValue) {
        self.points
            .insert((device, ts_ms, key.to_owned()), (offset, value));
    }

    fn forget(&mut self, device: u128) {
        self.points.retain(|(of, _, _), _| *of != device);
    }

    fn all(&self, device: u128) -> Vec<Point> {
        let own = self.points.iter().filter(|((of, _, _), _)| *of == device);
        own.map(|((_, ts_ms, key), (offset, value))| Point {
            key: key.clone(),
            ts_ms: *ts_ms,
            value: value.clone(),
            offset: *offset,
        })
        .collect()
    }

    fn latest(&self, device: u128) -> Vec<Point> {
        let mut latest = BTreeMap::new();
        for point in self.all(device) {
            latest.insert(point.key.clone(), point);
        }
        latest.into_values().collect()
    }

    fn count(&self, device: u128) -> BTreeMap<(String, i64), i64> {
        let mut counts = BTreeMap::new();
        for point in self.all(device) {
            *counts
                .entry((point.key, point.ts_ms.div_euclid(10)))
                .or_default() += 1;
        }
        counts
    }
}

/// Asks everything there is to ask about a few devices.
fn compare(history: &History, model: &Model, devices: u128) {
    for number in 0..devices {
        let id = device(number);
        let all = model.all(number);
        assert_eq!(history.query(&everything(id)).unwrap(), all, "{number}");
        let newest = Query {
            limit: 7,
            newest_first: true,
            ..everything(id)
        };
        let expected: Vec<_> = all.iter().rev().take(7).cloned().collect();
        assert_eq!(
            history.query(&newest).unwrap(),
            expected,
            "newest of {number}"
        );
        let some = Query {
            keys: Some(vec!["b".to_owned()]),
            from_ms: 10,
            to_ms: 40,
            ..everything(id)
        };
        let within = |point: &&Point| point.key == "b" && (10..40).contains(&point.ts_ms);
        let expected: Vec<_> = all.iter().filter(within).cloned().collect();
        assert_eq!(history.query(&some).unwrap(), expected, "some of {number}");
        assert_eq!(history.latest(id, None).unwrap(), model.latest(number));
        let counted = history.aggregate(&Aggregate {
            device: id,
            keys: None,
            from_ms: -1_000,
            to_ms: 100_000,
            origin_ms: 0,
            interval_ms: 10,
            aggregation: Aggregation::Count,
            left_out: Vec::new(),
        });
        let counted = counted.unwrap().into_iter().map(|bucket| {
            let OwnedValue::Long(count) = bucket.value else {
                panic!("{bucket:?}");
            };
            ((bucket.key, bucket.start_ms.div_euclid(10)), count)
        });
        let counted: BTreeMap<_, _> = counted.collect();
        assert_eq!(counted, model.count(number), "counts of {number}");
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Records of a device: key, time, value.
    Write(Vec<(u128, char, i64, i64)>),
    Forget(u128),
    Seal,
    Restart,
    Compare,
}

const DEVICES: u128 = 5;

fn action() -> impl Strategy<Value = Action> {
    let sample = (
        0..DEVICES,
        prop::char::range('a', 'c'),
        0_i64..60,
        any::<i64>(),
    );
    let write = prop::collection::vec(sample, 1..150).prop_map(Action::Write);
    prop_oneof![
        10 => write,
        1 => (0..DEVICES).prop_map(Action::Forget),
        3 => Just(Action::Seal),
        2 => Just(Action::Restart),
        2 => Just(Action::Compare),
    ]
}

fn payload(key: char, ts_ms: i64, value: i64) -> (String, OwnedValue) {
    let (text, value) = match value.rem_euclid(5) {
        0 => (value.to_string(), OwnedValue::Long(value)),
        1 => ("0.5".to_owned(), OwnedValue::Double(0.5)),
        2 => ("true".to_owned(), OwnedValue::Bool(true)),
        3 => (
            format!("\"x{value}\""),
            OwnedValue::Text(format!("x{value}")),
        ),
        _ => (format!("[{value}]"), OwnedValue::Json(format!("[{value}]"))),
    };
    (format!("{{ts:{ts_ms},values:{{{key}:{text}}}}}"), value)
}

fn write(bench: &mut Bench, model: &mut Model, samples: &[(u128, char, i64, i64)]) {
    let mut records = Vec::new();
    let mut values = Vec::new();
    for (number, key, ts_ms, value) in samples {
        let (text, value) = payload(*key, *ts_ms, *value);
        records.push((device(*number), text));
        values.push((*number, key.to_string(), *ts_ms, value));
    }
    let last = bench.write(&records);
    let first = last.number() + 1 - u64::try_from(values.len()).unwrap();
    for (offset, (number, key, ts_ms, value)) in (first..).zip(values) {
        model.write(number, Offset::new(offset), &key, ts_ms, value);
    }
}

/// Random writes with equal times, deletions, seals, compactions and restarts.
#[test]
fn answers_are_those_of_a_plain_model_whatever_the_store_does_meanwhile() {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    });
    let actions = prop::collection::vec(action(), 1..40);
    let result = runner.run(&actions, |actions| {
        let mut bench = Bench::new(|_| {});
        let mut model = Model::default();
        let mut tombstones = Vec::new();
        for action in actions {
            match action {
                Action::Write(samples) => write(&mut bench, &mut model, &samples),
                Action::Forget(number) => {
                    let before = bench.journal.durable().next();
                    bench.history().forget(device(number), before);
                    tombstones.push((device(number), before));
                    model.forget(number);
                }
                Action::Seal => {
                    bench.wait_until_sealed();
                }
                Action::Restart => {
                    bench.history = None;
                    bench.open(tombstones.iter().copied());
                }
                Action::Compare => compare(bench.history(), &model, DEVICES),
            }
        }
        compare(bench.history(), &model, DEVICES);
        bench.wait_until_sealed();
        compare(bench.history(), &model, DEVICES);
        let report = verify_files(&bench.options.dir).unwrap();
        assert_eq!(report.wrong(), 0, "{report:?}");
        Ok(())
    });
    result.unwrap();
}

/// A copy of the directory at every step of seals and compactions is what a crash leaves there:
/// nothing missing, nothing twice.
#[test]
fn rel_01_a_crash_at_any_step_leaves_nothing_out_and_nothing_twice() {
    let crashes = Arc::new(Crashes::default());
    let root = tempfile::tempdir().unwrap();
    let from = root.path().to_path_buf();
    let taking = Arc::clone(&crashes);
    let on_step = move |step: &'static str| {
        let mut copies = taking.copies.lock().unwrap();
        if copies.iter().filter(|(known, _)| *known == step).count() < 3 {
            let dir = tempfile::tempdir().unwrap();
            copy(&from, dir.path());
            copies.push((step, dir));
        }
    };
    let mut bench = Bench::in_dir(root, |options| {
        options.on_step = Some(OnStep(Arc::new(on_step)));
    });
    let mut model = Model::default();
    // All is durable before the first step that is looked at matters: what a copy must hold is
    // what was written by then, which the journal's copy tells.
    for round in 0..30_i64 {
        let samples: Vec<_> = (0..100)
            .map(|number| {
                (
                    number % 4,
                    'a',
                    round * 50 + i64::try_from(number).unwrap(),
                    5 * round,
                )
            })
            .collect();
        write(&mut bench, &mut model, &samples);
    }
    bench.wait_until_sealed();
    bench.wait_for(|status| status.compactions >= 2);
    compare(bench.history(), &model, 4);
    drop(bench.close());
    let copies = std::mem::take(&mut *crashes.copies.lock().unwrap());
    let mut steps: Vec<_> = copies.iter().map(|(step, _)| *step).collect();
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps.len(), 7, "{steps:?}");
    for (step, dir) in copies {
        let crashed = Bench::in_dir(dir, |_| {});
        let end = crashed.journal.durable();
        let mut expected = model.clone();
        expected.points.retain(|_, (offset, _)| *offset <= end);
        assert!(!expected.points.is_empty());
        println!("after {step:?}, with {end} records");
        compare(crashed.history(), &expected, 4);
        let status = crashed.wait_until_sealed();
        assert_eq!(status.file_damage_total, 0, "{step}: {status:?}");
        compare(crashed.history(), &expected, 4);
        let dir = crashed.close();
        let report = verify_files(&dir.path().join("history")).unwrap();
        assert_eq!(report.wrong(), 0, "{step}: {report:?}");
        assert_eq!(
            report.files.len(),
            parquet_files(dir.path()).len(),
            "{step}"
        );
    }
}

#[test]
fn the_journal_is_let_go_of_when_it_is_in_files_and_not_before() {
    let mut bench = Bench::new(|options| {
        options.seal_idle = Duration::from_secs(3_600);
        options.head_bytes_max = 64 << 20;
    });
    let mut model = Model::default();
    for round in 0..20_i64 {
        let samples: Vec<_> = (0..200).map(|at| (0, 'a', round * 200 + at, at)).collect();
        write(&mut bench, &mut model, &samples);
    }
    compare(bench.history(), &model, 1);
    assert_eq!(bench.journal.first(), Offset::new(1));
    let dir = bench.close();
    // The stop has sealed; the start has nothing to read again.
    let bench = Bench::in_dir(dir, |_| {});
    let status = bench.history().status();
    assert_eq!(
        (status.sealed, status.head_first),
        (Offset::new(4_000), Offset::new(4_001))
    );
    assert!(
        bench.journal.first() > Offset::new(1),
        "nothing was let go of"
    );
    compare(bench.history(), &model, 1);
}

#[test]
fn the_bytes_of_a_deleted_device_are_gone_from_the_files() {
    let mut bench = Bench::new(|_| {});
    let mut model = Model::default();
    let secret = "kept-secret-value";
    for round in 0..5_i64 {
        let records: Vec<_> = (0..200)
            .map(|at| {
                let (ts_ms, of) = (round * 1_000 + at, at % 2);
                let payload = format!("{{ts:{ts_ms},values:{{t:\"{secret}{of}\"}}}}");
                (device(u128::from(of.unsigned_abs())), payload)
            })
            .collect();
        bench.write(&records);
        write(&mut bench, &mut model, &[(0, 'a', round, 0)]);
    }
    bench.wait_until_sealed();
    let rows = |bench: &Bench| bench.history().status().file_rows;
    bench
        .history()
        .forget(device(1), bench.journal.durable().next());
    assert_eq!(bench.all(device(1)), []);
    bench.wait_for(|status| status.unpurged == 0);
    assert_eq!(bench.all(device(1)), []);
    assert_eq!(
        rows(&bench),
        505,
        "those of the other device, and they alone"
    );
    assert_eq!(bench.all(device(0)).len(), 505);
}

#[test]
fn files_older_than_the_retention_are_removed_whole() {
    let day = 24 * 3_600 * 1_000;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let mut bench = Bench::new(|options| {
        options.retention = Some(Duration::from_secs(10 * 24 * 3_600));
    });
    let mut model = Model::default();
    write(&mut bench, &mut model, &[(0, 'a', now - 11 * day, 0)]);
    bench.wait_until_sealed();
    bench.wait_for(|status| status.files == 0);
    assert_eq!(bench.all(device(0)), []);
    write(&mut bench, &mut model, &[(0, 'a', now - 9 * day, 0)]);
    let sweeps = Duration::from_millis(300);
    bench.wait_until_sealed();
    std::thread::sleep(sweeps); // that something stays has no event of its own
    assert_eq!(bench.all(device(0)).len(), 1);
}

/// Every kind of damage to a file is found by reading, reported, and the rest is served.
#[test]
fn rel_29_a_damaged_file_is_reported_and_nothing_false_is_served() {
    let mut bench = Bench::new(|options| options.seal_idle = Duration::from_secs(3_600));
    let mut model = Model::default();
    let samples: Vec<_> = (0..3_000)
        .map(|at| (at % 2, 'a', i64::try_from(at).unwrap(), 5))
        .collect();
    write(&mut bench, &mut model, &samples);
    let dir = bench.close();
    let files = parquet_files(dir.path());
    assert!(files.len() > 1, "{files:?}");
    let whole = fs::read(&files[0]).unwrap();
    let step = whole.len() / 60;
    for place in (0..whole.len()).step_by(step.max(1)) {
        let damaged = tempfile::tempdir().unwrap();
        copy(dir.path(), damaged.path());
        let file = damaged
            .path()
            .join("history")
            .join(files[0].file_name().unwrap());
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let report = verify_files(&damaged.path().join("history")).unwrap();
        assert_eq!(report.wrong(), 1, "byte {place}: {report:?}");
        let bench = Bench::in_dir(damaged, |options| {
            options.seal_idle = Duration::from_secs(3_600);
        });
        for number in 0..2 {
            let found = bench.all(device(number));
            let expected = model.all(number);
            assert!(
                !found.is_empty() && found.len() < expected.len(),
                "byte {place}"
            );
            assert!(
                found.iter().all(|point| expected.contains(point)),
                "byte {place}"
            );
        }
        let status = bench.history().status();
        assert_eq!(status.file_damage_total, 1, "byte {place}: {status:?}");
        assert_eq!(status.file_damage[0].file, file);
    }
}

/// The oldest segment of the journal is gone before the history had it: that is counted as damage,
/// and what is there is served.
#[test]
fn rel_29_records_that_are_gone_from_the_front_of_the_journal_are_counted() {
    let unsealed = |options: &mut HistoryOptions| {
        options.head_bytes_max = 64 * 1024 * 1024;
        options.seal_busy = PATIENCE;
        options.seal_idle = PATIENCE;
    };
    let mut bench = Bench::new(unsealed);
    let mut model = Model::default();
    let samples: Vec<_> = (0..3_000).map(|at| (0, 'b', at, 5)).collect();
    write(&mut bench, &mut model, &samples);
    let starts = bench.journal.segment_starts();
    assert!(starts.len() > 2, "{starts:?}");
    assert_eq!(bench.history().status().sealed, Offset::ZERO);
    let dir = tempfile::tempdir().unwrap();
    copy(bench.dir.path(), dir.path());
    let journal = fs::read_dir(dir.path().join("journal")).unwrap();
    let files = journal.map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|end| end == "journal"));
    fs::remove_file(segments.min().unwrap()).unwrap();
    let again = Bench::in_dir(dir, unsealed);
    assert_eq!(again.journal.first(), starts[1]);
    let last = again.journal.durable();
    let status = again.wait_for(|status| status.read >= last);
    assert_eq!(status.damage_total, 1, "{status:?}");
    let mut left = model.all(0);
    left.retain(|point| point.offset >= starts[1]);
    assert_eq!(again.all(device(0)), left);
    assert_eq!(bench.history().status().damage_total, 0);
}

#[test]
fn a_manifest_that_is_lost_is_made_again_from_the_files() {
    let mut bench = Bench::new(|_| {});
    let mut model = Model::default();
    let samples: Vec<_> = (0..2_000)
        .map(|at| (at % 3, 'b', i64::try_from(at).unwrap(), 5))
        .collect();
    write(&mut bench, &mut model, &samples);
    bench.wait_until_sealed();
    let dir = bench.close();
    let manifest = dir.path().join("history/_manifest.json");
    for damage in [None, Some("{}")] {
        match damage {
            None => fs::remove_file(&manifest).unwrap(),
            Some(text) => fs::write(&manifest, text).unwrap(),
        }
        let again = tempfile::tempdir().unwrap();
        copy(dir.path(), again.path());
        let bench = Bench::in_dir(again, |_| {});
        compare(bench.history(), &model, 3);
        assert_eq!(bench.history().status().file_damage_total, 0);
    }
}

#[test]
fn latest_values_beyond_the_limit_are_looked_up_in_the_files() {
    let mut bench = Bench::new(|options| options.latest_bytes_max = 20_000);
    let mut model = Model::default();
    for round in 0..4_i64 {
        let samples: Vec<_> = (0..300).map(|at| (at, 'c', round, round)).collect();
        write(&mut bench, &mut model, &samples);
    }
    bench.wait_until_sealed();
    let status = bench.history().status();
    assert!(
        status.latest_bytes <= 20_000 && status.latest_evictions > 0,
        "{status:?}"
    );
    for number in [0, 1, 150, 299] {
        let found = bench.history().latest(device(number), None).unwrap();
        assert_eq!(found, model.latest(number));
        let other = [String::from("none")];
        assert_eq!(
            bench
                .history()
                .latest(device(number), Some(&other))
                .unwrap(),
            []
        );
    }
}

/// Nothing can be written: what is new stays in the journal and is answered from there.
#[test]
fn rel_28_while_no_file_can_be_written_the_journal_keeps_and_answers() {
    let mut bench = Bench::new(|_| {});
    let mut model = Model::default();
    write(&mut bench, &mut model, &[(0, 'a', 0, 0)]);
    bench.wait_until_sealed();
    let dir = bench.dir.path().join("history");
    let away = bench.dir.path().join("history.away");
    // Without the directory no file can be made, whoever runs the test.
    fs::rename(&dir, &away).unwrap();
    for round in 0..20_i64 {
        let samples: Vec<_> = (0..200).map(|at| (1, 'a', round * 200 + at, at)).collect();
        write(&mut bench, &mut model, &samples);
    }
    let status = bench.wait_for(|status| status.seal_failure.is_some());
    assert!(
        status.head_bytes <= bench.options.head_bytes_max,
        "{status:?}"
    );
    assert_eq!(bench.all(device(1)), model.all(1));
    assert_eq!(
        bench.history().latest(device(1), None).unwrap(),
        model.latest(1)
    );
    fs::rename(&away, &dir).unwrap();
    let status = bench.wait_until_sealed();
    assert_eq!(status.seal_failure, None);
    compare(bench.history(), &model, 2);
}

/// What is made of the rows below, by buckets of 20 ms.
const AGGREGATED: [(Aggregation, &[&str]); 5] = [
    (
        Aggregation::Average,
        &[
            "m[0,20)=Double(1.75)",
            "n[0,20)=Double(0.6666666666666666)",
            "n[20,30)=Double(7.0)",
            "x[0,20)=Double(1.0)",
        ],
    ),
    (
        Aggregation::Minimum,
        &[
            "m[0,20)=Double(1.0)",
            "n[0,20)=Long(-3)",
            "n[20,30)=Long(7)",
            "t[0,20)=Text(\"a\")",
            "x[0,20)=Long(1)",
        ],
    ),
    (
        Aggregation::Maximum,
        &[
            "m[0,20)=Double(2.5)",
            "n[0,20)=Long(4)",
            "n[20,30)=Long(7)",
            "t[0,20)=Text(\"c\")",
            "x[0,20)=Long(1)",
        ],
    ),
    (
        Aggregation::Sum,
        &[
            "m[0,20)=Double(3.5)",
            "n[0,20)=Long(2)",
            "n[20,30)=Long(7)",
            "x[0,20)=Long(1)",
        ],
    ),
    (
        Aggregation::Count,
        &[
            "m[0,20)=Long(2)",
            "n[0,20)=Long(3)",
            "n[20,30)=Long(1)",
            "t[0,20)=Long(3)",
            "x[0,20)=Long(2)",
        ],
    ),
];

#[test]
fn tb_94_values_are_aggregated_by_their_kind() {
    let mut bench = Bench::new(|options| options.seal_idle = Duration::from_secs(3_600));
    let id = device(0);
    let rows = [
        "{ts:0,values:{n:1,m:1,t:b,x:1}}",
        "{ts:5,values:{n:4,m:2.5,t:a,x:a}}",
        "{ts:10,values:{n:-3,t:c}}",
        "{ts:29,values:{n:7}}",
        "{ts:30,values:{n:100}}",
    ];
    let records: Vec<_> = rows.iter().map(|row| (id, (*row).to_owned())).collect();
    bench.write(&records);
    let ask = |bench: &Bench, aggregation| -> Vec<String> {
        let wanted = Aggregate {
            device: id,
            keys: None,
            from_ms: 0,
            to_ms: 30,
            origin_ms: 0,
            interval_ms: 20,
            aggregation,
            left_out: Vec::new(),
        };
        let buckets = bench.history().aggregate(&wanted).unwrap();
        let tell = |bucket: tollgate::telemetry::Bucket| {
            let (start, end) = (bucket.start_ms, bucket.end_ms);
            format!("{}[{start},{end})={:?}", bucket.key, bucket.value)
        };
        buckets.into_iter().map(tell).collect()
    };
    for (aggregation, buckets) in AGGREGATED {
        assert_eq!(ask(&bench, aggregation), buckets, "{aggregation:?}");
    }
    // The same from files, and of equal times only the later value.
    let dir = bench.close();
    let mut bench = Bench::in_dir(dir, |options| {
        options.seal_idle = Duration::from_secs(3_600);
    });
    bench.write(&[(id, "{ts:5,values:{n:5}}".to_owned())]);
    let sums = ask(&bench, Aggregation::Sum);
    assert!(sums.contains(&"n[0,20)=Long(3)".to_owned()), "{sums:?}");
}
