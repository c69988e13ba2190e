//! The history on a real journal: read your writes, restart, eviction, damage, tombstones.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::journal::{
    Disk, DiskFile, DiskLock, FileEntry, Journal, JournalOptions, Offset, RealDisk, RecordHeader,
    RecordKind,
};
use tollgate::telemetry::{
    History, HistoryOptions, HistoryStatus, OwnedValue, PARSER_VERSION, Point, Query, QueryError,
    ScanOptions,
};
use uuid::Uuid;

/// Longest wait for something that the store does in the background.
const PATIENCE: Duration = Duration::from_secs(120);

/// Records of one commit: with them stands and falls one checksum.
const COMMIT_RECORDS: usize = 100;

/// When the test records came in.
const RECEIVED_MS: u64 = 1_700_000_000_000;

/// A journal in a directory of its own, and a writer.
struct Bench {
    journal: Journal,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: TempDir) -> Self {
        Self::on_disk(Arc::new(RealDisk), dir)
    }

    fn on_disk(disk: Arc<dyn Disk>, dir: TempDir) -> Self {
        let options = JournalOptions {
            segment_bytes: 64 * 1024,
            ballast_bytes: 0,
            ..JournalOptions::new(dir.path())
        };
        let on_failure = Box::new(|error: &_| panic!("the journal failed: {error}"));
        let (journal, _) = Journal::open(disk, options, on_failure).unwrap();
        Self { journal, dir }
    }

    /// The same directory after a stop.
    fn reopened(self) -> Self {
        self.journal.close().unwrap();
        drop(self.journal);
        Self::in_dir(self.dir)
    }

    /// The same directory after a stop, with something done to its files in between.
    fn reopened_after(self, change: impl FnOnce(&Path)) -> Self {
        self.journal.close().unwrap();
        drop(self.journal);
        change(self.dir.path());
        Self::in_dir(self.dir)
    }

    fn history(&self, head_bytes_max: usize) -> History {
        self.history_without(head_bytes_max, [])
    }

    fn history_without<const N: usize>(
        &self,
        head_bytes_max: usize,
        tombstones: [(Uuid, Offset); N],
    ) -> History {
        // A directory for each size of the head: a test may have several on one journal.
        let name = format!("history-{head_bytes_max}");
        let options = HistoryOptions {
            head_bytes_max,
            ..HistoryOptions::new(self.dir.path().join(name))
        };
        History::start(self.journal.clone(), options, tombstones).unwrap()
    }

    /// Writes one record per payload, at most [`COMMIT_RECORDS`] with one commit, and waits until
    /// all are durable: then an acknowledgement would be on its way.
    fn write(&self, device: Uuid, payloads: &[&str]) -> Offset {
        let records: Vec<_> = payloads
            .iter()
            .map(|payload| (telemetry(device), *payload))
            .collect();
        self.write_records(&records)
    }

    fn write_records(&self, records: &[(RecordHeader, &str)]) -> Offset {
        let (woken, wake) = std::sync::mpsc::channel();
        let woken = std::sync::Mutex::new(woken);
        let notify = move || {
            let _ = woken.lock().unwrap().send(());
        };
        let mut submitter = self.journal.submitter(Arc::new(notify));
        let mut last = Offset::ZERO;
        for commit in records.chunks(COMMIT_RECORDS) {
            let mut batch = submitter.take_batch();
            for (header, body) in commit {
                batch.push(header, body.as_bytes()).unwrap();
            }
            last = submitter.submit(batch).expect("nothing else waits");
            while submitter.durable() < last {
                wake.recv_timeout(PATIENCE).unwrap();
            }
        }
        last
    }
}

fn telemetry(device: Uuid) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Telemetry,
        qos: 1,
        profile_flags: 0,
        parser_version: PARSER_VERSION,
        received_ms: RECEIVED_MS,
        device,
        credential: 1,
        generation: 1,
        session: 0,
        packet_id: 0,
    }
}

fn device(number: u128) -> Uuid {
    Uuid::from_u128(number)
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

/// Points as text, for short tests.
fn told(points: &[Point]) -> Vec<String> {
    let tell = |point: &Point| match &point.value {
        OwnedValue::Long(value) => format!("{}@{}={value}", point.key, point.ts_ms),
        value => format!("{}@{}={value:?}", point.key, point.ts_ms),
    };
    points.iter().map(tell).collect()
}

fn wait_for(history: &History, what: impl Fn(&HistoryStatus) -> bool) -> HistoryStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = history.status();
        if what(&status) {
            return status;
        }
        assert!(Instant::now() < end, "never came: {status:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A payload with one point whose time is its number.
fn numbered(number: usize) -> String {
    format!("{{ts:{number},values:{{n:{number}}}}}")
}

fn write_numbered(bench: &Bench, device: Uuid, numbers: std::ops::Range<usize>) -> Offset {
    let payloads: Vec<String> = numbers.map(numbered).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    bench.write(device, &payloads)
}

fn numbers(points: &[Point]) -> Vec<i64> {
    points.iter().map(|point| point.ts_ms).collect()
}

#[test]
fn tb_24_what_is_durable_is_read_at_once() {
    let bench = Bench::new();
    let history = bench.history(1 << 20);
    for number in 0..200_usize {
        bench.write(device(1), &[&numbered(number)]);
        let points = history.query(&everything(device(1))).unwrap();
        assert_eq!(points.len(), number + 1);
    }
    assert_eq!(history.query(&everything(device(2))).unwrap(), []);
}

#[test]
fn tb_23_untimed_samples_have_the_time_the_record_came_in() {
    let bench = Bench::new();
    let history = bench.history(1 << 20);
    let offset = bench.write(device(1), &["{temperature:25}"]);
    let points = history.query(&everything(device(1))).unwrap();
    let expected = Point {
        key: "temperature".to_owned(),
        ts_ms: 1_700_000_000_000,
        value: OwnedValue::Long(25),
        offset,
    };
    assert_eq!(points, [expected]);
}

#[test]
fn only_telemetry_is_telemetry_and_is_read_as_it_was_accepted() {
    let bench = Bench::new();
    let history = bench.history(1 << 20);
    let keep_strings = ScanOptions {
        cast_strings: false,
        ..ScanOptions::default()
    };
    let with = |change: &dyn Fn(&mut RecordHeader)| {
        let mut header = telemetry(device(1));
        change(&mut header);
        header
    };
    bench.write_records(&[
        (with(&|_| {}), r#"{ts:1,values:{a:"1"}}"#),
        (
            with(&|header| header.profile_flags = keep_strings.profile_flags()),
            r#"{ts:2,values:{a:"1"}}"#,
        ),
        (
            with(&|header| header.kind = RecordKind::Release),
            "{ts:3,values:{a:1}}",
        ),
        (
            with(&|header| header.kind = RecordKind::SessionBegin),
            "{ts:4,values:{a:1}}",
        ),
        (
            with(&|header| header.parser_version = PARSER_VERSION + 1),
            "{ts:5,values:{a:1}}",
        ),
        (with(&|_| {}), "not a payload"),
        (with(&|_| {}), "{ts:6,values:{a:1}}"),
    ]);
    let points = history.query(&everything(device(1))).unwrap();
    assert_eq!(told(&points), ["a@1=1", "a@2=Text(\"1\")", "a@6=1"]);
    assert_eq!(history.status().unreadable, 2);
}

#[test]
fn queries_choose_range_keys_order_and_limit() {
    let bench = Bench::new();
    bench.write(
        device(1),
        &["[{ts:1,values:{a:1,b:2}},{ts:2,values:{b:3}},{ts:3,values:{a:4}}]"],
    );
    bench.write(device(1), &["{ts:-5,values:{c:5}}", "{ts:2,values:{a:6}}"]);
    bench.write(device(2), &["{ts:2,values:{a:7}}"]);
    let all = |change: &dyn Fn(&mut Query)| {
        let mut query = everything(device(1));
        change(&mut query);
        query
    };
    let keys = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect());
    let asked: [(Query, &[&str]); 10] = [
        (
            all(&|_| {}),
            &["c@-5=5", "a@1=1", "b@1=2", "a@2=6", "b@2=3", "a@3=4"],
        ),
        (
            all(&|query| query.newest_first = true),
            &["a@3=4", "b@2=3", "a@2=6", "b@1=2", "a@1=1", "c@-5=5"],
        ),
        // The end of the range is not in it, its beginning is.
        (
            all(&|query| (query.from_ms, query.to_ms) = (1, 2)),
            &["a@1=1", "b@1=2"],
        ),
        (all(&|query| (query.from_ms, query.to_ms) = (2, 2)), &[]),
        (all(&|query| (query.from_ms, query.to_ms) = (3, 1)), &[]),
        (
            all(&|query| query.keys = keys(&["c", "b", "z"])),
            &["c@-5=5", "b@1=2", "b@2=3"],
        ),
        (all(&|query| query.keys = keys(&[])), &[]),
        // The limit is one for all keys together.
        (all(&|query| query.limit = 2), &["c@-5=5", "a@1=1"]),
        (
            all(&|query| (query.limit, query.newest_first) = (3, true)),
            &["a@3=4", "b@2=3", "a@2=6"],
        ),
        (all(&|query| query.limit = 0), &[]),
    ];
    // The second history holds next to nothing in memory: the same answers through files.
    for history in [bench.history(1 << 20), bench.history(1)] {
        for (query, expected) in &asked {
            assert_eq!(told(&history.query(query).unwrap()), *expected, "{query:?}");
        }
    }
}

#[test]
fn of_equal_times_the_later_record_counts() {
    let bench = Bench::new();
    let large = bench.history(1 << 20);
    let tiny = bench.history(1);
    let ask = |history: &History| told(&history.query(&everything(device(1))).unwrap());
    bench.write(
        device(1),
        &[
            "{ts:1,values:{a:1}}",
            "[{ts:1,values:{a:2}},{ts:1,values:{a:3}}]",
        ],
    );
    assert_eq!(ask(&large), ["a@1=3"]);
    assert_eq!(ask(&tiny), ["a@1=3"]);
    // An older time that comes later is one more point, not a replacement.
    bench.write(device(1), &["{ts:0,values:{a:4}}", "{ts:1,values:{a:5}}"]);
    assert_eq!(ask(&large), ["a@0=4", "a@1=5"]);
    assert_eq!(ask(&tiny), ["a@0=4", "a@1=5"]);
    // Partly in memory, partly not: the later one still counts.
    write_numbered(&bench, device(2), 0..500);
    let middle = bench.history(12 * 1024);
    bench.write(device(1), &["{ts:1,values:{a:6}}"]);
    assert_eq!(ask(&middle), ["a@0=4", "a@1=6"]);
    let status = middle.status();
    assert!(
        status.head_first > Offset::new(4),
        "nothing was evicted: {status:?}"
    );
}

#[test]
fn a_restart_forgets_nothing() {
    let bench = Bench::new();
    let history = bench.history(1 << 20);
    write_numbered(&bench, device(1), 0..50);
    let before = history.query(&everything(device(1))).unwrap();
    drop(history);
    let bench = bench.reopened();
    let history = bench.history(1 << 20);
    assert_eq!(history.query(&everything(device(1))).unwrap(), before);
    write_numbered(&bench, device(1), 50..60);
    let after = history.query(&everything(device(1))).unwrap();
    assert_eq!(numbers(&after), (0..60).collect::<Vec<_>>());
}

#[test]
fn what_has_left_the_head_is_found_in_the_journal() {
    const HEAD_BYTES: usize = 16 * 1024;
    let bench = Bench::new();
    let history = bench.history(HEAD_BYTES);
    let other = "x".repeat(300);
    for round in 0..20_usize {
        write_numbered(&bench, device(1), round * 100..round * 100 + 100);
        bench.write(device(2), &[&format!("{{a:{other}}}")]);
        assert!(history.status().head_bytes <= HEAD_BYTES);
    }
    let points = history.query(&everything(device(1))).unwrap();
    assert_eq!(numbers(&points), (0..2_000).collect::<Vec<_>>());
    let status = history.status();
    assert!(
        status.head_first > Offset::new(1_000),
        "nothing was evicted: {status:?}"
    );
    assert!(status.head_bytes > 0);
    // The limit is applied to both together, whichever end it takes.
    let all = everything(device(1));
    let oldest = history
        .query(&Query {
            limit: 5,
            ..all.clone()
        })
        .unwrap();
    assert_eq!(numbers(&oldest), [0, 1, 2, 3, 4]);
    let newest = Query {
        limit: 3,
        newest_first: true,
        ..all.clone()
    };
    assert_eq!(
        numbers(&history.query(&newest).unwrap()),
        [1_999, 1_998, 1_997]
    );
    let across = Query {
        limit: 2_000,
        newest_first: true,
        ..all
    };
    assert_eq!(history.query(&across).unwrap().len(), 2_000);
    // After a restart the head begins at the journal's tail, and still nothing is missing.
    drop(history);
    let bench = bench.reopened();
    let history = bench.history(HEAD_BYTES);
    let status = history.status();
    assert!(
        status.head_first > Offset::new(1_000),
        "a start reads it all: {status:?}"
    );
    assert_eq!(history.query(&everything(device(1))).unwrap(), points);
}

#[test]
fn a_device_that_was_forgotten_is_not_seen_again() {
    let bench = Bench::new();
    let large = bench.history(1 << 20);
    let tiny = bench.history(1);
    let deleted = write_numbered(&bench, device(1), 0..30).next();
    write_numbered(&bench, device(2), 0..30);
    for history in [&large, &tiny] {
        history.forget(device(1), deleted);
        assert_eq!(history.query(&everything(device(1))).unwrap(), []);
        assert_eq!(history.query(&everything(device(2))).unwrap().len(), 30);
    }
    // The tombstone is an offset: what comes later is seen.
    write_numbered(&bench, device(1), 30..33);
    for history in [&large, &tiny] {
        // A tombstone that reaches less far takes nothing back.
        history.forget(device(1), Offset::new(1));
        assert_eq!(
            numbers(&history.query(&everything(device(1))).unwrap()),
            [30, 31, 32]
        );
    }
    // What is hidden takes no place in an answer either.
    for history in [&large, &tiny] {
        let first = Query {
            limit: 1,
            ..everything(device(1))
        };
        assert_eq!(numbers(&history.query(&first).unwrap()), [30]);
    }
    drop((large, tiny));
    let bench = bench.reopened();
    for head_bytes_max in [1, 1 << 20] {
        let history = bench.history_without(head_bytes_max, [(device(1), deleted)]);
        assert_eq!(
            numbers(&history.query(&everything(device(1))).unwrap()),
            [30, 31, 32]
        );
        assert_eq!(history.query(&everything(device(2))).unwrap().len(), 30);
    }
}

#[test]
fn damage_is_reported_and_the_rest_is_served() {
    let bench = Bench::new();
    write_numbered(&bench, device(1), 0..3_000);
    let oldest = |dir: &Path| {
        let files = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = files
            .filter(|path| std::fs::metadata(path).unwrap().len() >= 64 * 1024)
            .collect();
        segments.sort();
        segments.remove(0)
    };
    let path = oldest(bench.dir.path());
    let bench = bench.reopened_after(|_| {
        // One bit in the middle of the oldest segment.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 32 * 1024).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 32 * 1024).unwrap();
    });
    let history = bench.history(16 * 1024);
    // Found in the background, before anybody asks for what was there.
    let status = wait_for(&history, |status| status.verified);
    let [damage] = &status.damage[..] else {
        panic!("{:?}", status.damage)
    };
    assert_eq!((&damage.file, status.damage_total), (&path, 1));
    assert!(
        damage.position <= 32 * 1024 && damage.next > damage.first,
        "{damage:?}"
    );
    let lost = damage.first.number()..damage.next.number();
    // Record n holds point n - 1.
    let expected: Vec<i64> = (0..3_000)
        .filter(|number: &i64| !lost.contains(&(number.unsigned_abs() + 1)))
        .collect();
    // A commit is lost as a whole.
    assert_eq!(expected.len(), 3_000 - COMMIT_RECORDS);
    assert_eq!(
        numbers(&history.query(&everything(device(1))).unwrap()),
        expected
    );
    // Met again by the query, told once.
    assert_eq!(history.status().damage_total, 1);
}

#[test]
fn a_segment_that_is_missing_keeps_no_query_waiting() {
    let bench = Bench::new();
    write_numbered(&bench, device(1), 0..3_000);
    let history = bench.history(1 << 20);
    let path = {
        let files = std::fs::read_dir(bench.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = files
            .filter(|path| path.file_name().unwrap().to_string_lossy().contains("0000"))
            .filter(|path| std::fs::metadata(path).unwrap().len() >= 64 * 1024)
            .collect();
        segments.sort();
        segments.remove(1)
    };
    drop(history);
    // A whole segment is gone, and everything behind it is there.
    let bench = bench.reopened_after(|_| std::fs::remove_file(&path).unwrap());
    let history = bench.history(1 << 20);
    let found = numbers(&history.query(&everything(device(1))).unwrap());
    assert!(
        found.len() < 3_000 && found.len() > 1_000,
        "{}",
        found.len()
    );
    assert_eq!((found.first(), found.last()), (Some(&0), Some(&2_999)));
    assert_eq!(wait_for(&history, |status| status.verified).damage_total, 1);
    let last = write_numbered(&bench, device(1), 3_000..3_001);
    assert_eq!(
        history.query(&everything(device(1))).unwrap().len(),
        found.len() + 1
    );
    assert_eq!(history.status().read, last);
}

#[test]
fn a_store_that_stops_ends_its_threads() {
    let bench = Bench::new();
    write_numbered(&bench, device(1), 0..100);
    let begin = Instant::now();
    drop(bench.history(1 << 20));
    assert!(begin.elapsed() < PATIENCE);
    // Nothing holds the journal any more but the test itself.
    bench.journal.close().unwrap();
}

#[test]
fn a_journal_that_cannot_be_read_is_said_and_not_hidden() {
    let disk = Arc::new(UnreadableDisk::default());
    let bench = Bench::on_disk(Arc::clone(&disk) as _, tempfile::tempdir().unwrap());
    write_numbered(&bench, device(1), 0..10);
    let (tiny, large) = (bench.history(1), bench.history(1 << 20));
    for history in [&tiny, &large] {
        assert_eq!(history.query(&everything(device(1))).unwrap().len(), 10);
    }
    disk.unreadable.store(true, Ordering::Relaxed);
    // What is in memory or in files needs no journal.
    for history in [&tiny, &large] {
        assert_eq!(history.query(&everything(device(1))).unwrap().len(), 10);
    }
    // What is durable and cannot be read yet is waited for, but not for ever.
    let last = write_numbered(&bench, device(1), 10..11);
    let result = large.query(&everything(device(1)));
    let Err(QueryError::Behind { read, wanted }) = result else {
        panic!("{result:?}")
    };
    assert_eq!((read, wanted), (Offset::new(10), last));
    // Once it can be read again, nothing is missing.
    disk.unreadable.store(false, Ordering::Relaxed);
    wait_for(&large, |status| status.read == last);
    assert_eq!(large.query(&everything(device(1))).unwrap().len(), 11);
}

#[test]
fn a_query_that_waits_ends_when_the_store_stops() {
    let disk = Arc::new(UnreadableDisk::default());
    let bench = Bench::on_disk(Arc::clone(&disk) as _, tempfile::tempdir().unwrap());
    let history = bench.history(1 << 20);
    disk.unreadable.store(true, Ordering::Relaxed);
    write_numbered(&bench, device(1), 0..1);
    let waiting = std::thread::spawn({
        let history = history.clone();
        move || history.query(&everything(device(1)))
    });
    history.stop();
    let result = waiting.join().unwrap();
    assert!(matches!(result, Err(QueryError::Stopping)), "{result:?}");
}

/// The real disk, whose files cannot be read for a while.
#[derive(Default)]
struct UnreadableDisk {
    unreadable: Arc<AtomicBool>,
}

struct UnreadableFile {
    file: Arc<dyn DiskFile>,
    unreadable: Arc<AtomicBool>,
}

impl UnreadableDisk {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(UnreadableFile {
            file,
            unreadable: Arc::clone(&self.unreadable),
        })
    }
}

impl Disk for UnreadableDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.create(path)?))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        RealDisk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for UnreadableFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self.unreadable.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the test does not allow it")),
            false => self.file.read_at(buffer, position),
        }
    }
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.file.write_at(slices, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}
