//! Both books against what a crash, a hand and a small limit can do to them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::chain::{Chain, Entry, Opened};
use super::scan::{self, NO_HEAD};
use super::*;
use crate::metrics::Metrics;

const LARGE: u64 = 256 << 20;

fn open(dir: &Path, bytes_max: u64) -> Opened {
    Chain::open(dir, Book::Admin, bytes_max, None).unwrap()
}

fn append(chain: &mut Chain, count: u64) {
    let from = chain.head().number;
    let members: Vec<String> = (0..count)
        .map(|n| format!(",\"change\":{},\"name\":\"device {n}\"", from + n + 1))
        .collect();
    let entry = |members| Entry {
        time_ms: 1_769_860_800_000,
        event: "created",
        members,
    };
    chain
        .append(members.iter().map(|members| entry(members)))
        .unwrap();
    chain.sync().unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let files = scan::files(dir, Book::Admin).unwrap();
    files.into_iter().map(|file| file.path).collect()
}

/// What was seen of the records before.
fn noted(heads: &[Head]) -> Expected<'_> {
    Expected {
        noted: heads,
        ..Expected::default()
    }
}

fn faults(dir: &Path) -> Vec<FaultKind> {
    let found = verify(dir, Book::Admin, Expected::default()).unwrap();
    found.faults.into_iter().map(|fault| fault.what).collect()
}

#[test]
fn sec_56_a_chain_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path(), LARGE);
    assert_eq!((opened.chain.head(), opened.change), (NO_HEAD, 0));
    append(&mut opened.chain, 3);
    let head = opened.chain.head();
    drop(opened);
    let mut opened = open(dir.path(), LARGE);
    assert_eq!((opened.chain.head(), opened.change), (head, 3));
    assert!(opened.events.is_empty());
    append(&mut opened.chain, 2);
    let found = verify(dir.path(), Book::Admin, noted(&[head])).unwrap();
    assert_eq!((found.files, found.records, found.first), (1, 5, 1));
    assert_eq!((found.head.number, found.faults), (5, Vec::new()));
}

/// Whatever bit of the files is turned, whatever byte is taken out or put in, and wherever a record
/// is cut out: it is found. The one thing that a chain alone cannot know is where it ended.
#[test]
fn sec_56_every_change_of_a_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), LARGE).chain, 4);
    let [path] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(path).unwrap();
    let is_found = |bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        !faults(dir.path()).is_empty()
    };
    assert!(!is_found(&whole));
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(is_found(&bad), "turned a bit of byte {at}");
        let mut bad = whole.clone();
        bad.remove(at);
        assert!(is_found(&bad), "took byte {at} out");
        let mut bad = whole.clone();
        bad.insert(at, b'0');
        assert!(is_found(&bad), "put one before byte {at}");
    }
    let head = verify_whole(dir.path(), path, &whole);
    for at in 0..whole.len() {
        fs::write(path, &whole[..at]).unwrap();
        let is_end_of_record = at == 0 || whole[at - 1] == b'\n';
        assert_eq!(
            faults(dir.path()).is_empty(),
            is_end_of_record,
            "cut at {at}"
        );
        let found = verify(dir.path(), Book::Admin, noted(&[head])).unwrap();
        assert!(
            !found.faults.is_empty(),
            "the head that was noted tells of a cut at {at}"
        );
    }
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for (a, b) in [(0, 1), (1, 2), (0, 3)] {
        let mut swapped = lines.clone();
        swapped.swap(a, b);
        assert!(is_found(&swapped.concat()), "swapped {a} and {b}");
        let mut without = lines.clone();
        without.remove(a);
        assert!(is_found(&without.concat()), "without {a}");
        let mut twice = lines.clone();
        twice.insert(a, lines[a]);
        assert!(is_found(&twice.concat()), "{a} twice");
    }
}

fn verify_whole(dir: &Path, path: &Path, whole: &[u8]) -> Head {
    fs::write(path, whole).unwrap();
    let found = verify(dir, Book::Admin, Expected::default()).unwrap();
    assert_eq!(found.faults, []);
    found.head
}

/// Somebody who rewrites the end of the chain, digests and all, is found by a head noted before.
#[test]
fn sec_56_a_chain_written_anew_is_found_by_a_head_noted_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(dir.path(), LARGE).chain;
    append(&mut chain, 4);
    let head = chain.head();
    drop(chain);
    fs::remove_file(&files(dir.path())[0]).unwrap();
    let mut chain = open(dir.path(), LARGE).chain;
    chain
        .append((0..6).map(|_| Entry {
            time_ms: 1,
            event: "created",
            members: "",
        }))
        .unwrap();
    drop(chain);
    assert_eq!(faults(dir.path()), []);
    let found = verify(dir.path(), Book::Admin, noted(&[head])).unwrap();
    assert_eq!(found.faults[0].what, FaultKind::Replaced { number: 4 });
}

/// A crash leaves any beginning of what was written last.
#[test]
fn rel_06_half_a_record_is_cut_off_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(dir.path(), LARGE).chain;
    append(&mut chain, 3);
    let head = chain.head();
    let [path] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let three = fs::metadata(path).unwrap().len();
    append(&mut chain, 1);
    drop(chain);
    let whole = fs::read(path).unwrap();
    let three = usize::try_from(three).unwrap();
    for at in three + 1..whole.len() {
        fs::write(path, &whole[..at]).unwrap();
        let mut opened = open(dir.path(), LARGE);
        assert_eq!(opened.chain.head(), head, "cut at {at}");
        assert_eq!(opened.events.len(), 1);
        assert_eq!(opened.events[0].what(), What::Cut);
        assert!(
            opened.events[0]
                .members()
                .contains(&format!("\"offset\":{three}"))
        );
        append(&mut opened.chain, 1);
        assert_eq!(faults(dir.path()), [], "cut at {at}");
    }
}

/// What was damaged stays as it is, and the chain goes on in a file of its own.
#[test]
fn sec_56_damage_is_told_with_its_place_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), LARGE).chain, 4);
    let [path] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for at in [second + 30, whole.len() - 2, whole.len() - 1, 3] {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        fs::write(path, &bad).unwrap();
        for later in files(dir.path()).iter().skip(1) {
            fs::remove_file(later).unwrap();
        }
        let mut opened = open(dir.path(), LARGE);
        let told = &opened.events[0];
        let is_end = at == whole.len() - 1; // without its end it is as a crash leaves it
        assert_eq!(
            told.what(),
            if is_end { What::Cut } else { What::Damaged },
            "at {at}"
        );
        append(&mut opened.chain, 2);
        if is_end {
            continue;
        }
        assert_eq!(
            fs::read(path).unwrap(),
            bad,
            "the damaged file is not touched"
        );
        let found = verify(dir.path(), Book::Admin, Expected::default()).unwrap();
        assert_eq!(found.files, 2);
        let fault = &found.faults[0];
        let line_at = bad[..at]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |end| end + 1);
        assert_eq!(
            (&fault.file, fault.offset),
            (path, line_at as u64),
            "at {at}"
        );
        assert_eq!(files(dir.path())[0], *path);
    }
}

#[test]
fn sec_56_a_file_in_which_nothing_can_be_read_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), LARGE).chain, 2);
    fs::write(&files(dir.path())[0], b"no record\nand none\n").unwrap();
    let mut opened = open(dir.path(), LARGE);
    append(&mut opened.chain, 1);
    drop(opened);
    append(&mut open(dir.path(), LARGE).chain, 1);
    assert!(!faults(dir.path()).is_empty());
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn rel_07_files_are_full_at_their_limit_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let mut chain = open(dir.path(), bytes_max).chain;
    let mut removed = Vec::new();
    for _ in 0..100 {
        append(&mut chain, 100);
        removed.extend(chain.trim());
        chain.remove_leaving();
        let on_disk: u64 = files(dir.path())
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        assert_eq!(on_disk, chain.bytes());
        assert!(on_disk <= bytes_max, "{on_disk}");
    }
    assert!(removed.iter().all(|event| event.what() == What::Removed));
    let found = verify(dir.path(), Book::Admin, Expected::default()).unwrap();
    assert_eq!(found.faults, []);
    assert_eq!(found.head.number, 10_000);
    assert_eq!(found.first + found.records - 1, 10_000);
    assert!(found.first > 1 && found.files > 8, "{found:?}");
    let last = removed.last().unwrap().members();
    assert!(
        last.contains(&format!("\"last\":{}", found.first - 1)),
        "{last}"
    );
    // Under a smaller limit nothing goes that is not told first.
    let mut chain = open(dir.path(), bytes_max / 2).chain;
    let before = files(dir.path());
    let leaving = chain.trim();
    assert!(!leaving.is_empty() && files(dir.path()) == before);
    assert_eq!(chain.trim(), [], "each is told once");
    chain.remove_leaving();
    assert_eq!(files(dir.path()), before[leaving.len()..]);
    // A file in the middle that is gone is found.
    fs::remove_file(&files(dir.path())[3]).unwrap();
    assert!(matches!(faults(dir.path())[..], [FaultKind::Number { .. }]));
}

/// Whoever takes the oldest files away hides how a thing began; the limit on disk says what it
/// removes.
#[test]
fn sec_56_oldest_files_that_go_untold_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join(DIRECTORY);
    let open = |book| Chain::open(&audit, book, 1 << 20, None).unwrap().chain;
    let [mut admin, mut access] = Book::ALL.map(open);
    for _ in 0..60 {
        append(&mut admin, 100);
        append(&mut access, 100);
        let leaving = [admin.trim(), access.trim()].concat();
        let told = leaving.iter().map(|event| Entry {
            time_ms: 1,
            event: event.what().as_str(),
            members: event.members(),
        });
        admin.append(told).unwrap();
        admin.sync().unwrap();
        // A crash here leaves files of which it is told that they went.
        assert_eq!(all_faults(dir.path()), [const { Vec::new() }; 2]);
        admin.remove_leaving();
        access.remove_leaving();
    }
    assert_eq!(all_faults(dir.path()), [const { Vec::new() }; 2]);
    for (place, book) in Book::ALL.into_iter().enumerate() {
        let all = scan::files(&audit, book).unwrap();
        assert!(all[0].first > 1, "{all:?}");
        let aside = dir.path().join("aside");
        fs::rename(&all[0].path, &aside).unwrap();
        let mut expected = [const { Vec::new() }; 2];
        expected[place].push(FaultKind::Beginning {
            first: all[1].first,
        });
        assert_eq!(all_faults(dir.path()), expected);
        fs::rename(&aside, &all[0].path).unwrap();
    }
}

fn all_faults(data_dir: &Path) -> [Vec<FaultKind>; 2] {
    let found = verify_all(data_dir, [Expected::default(); 2]).unwrap();
    found.map(|book| book.faults.into_iter().map(|fault| fault.what).collect())
}

#[test]
fn sec_56_the_end_that_is_missing_is_found_by_what_the_database_knows() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(dir.path(), LARGE).chain;
    append(&mut chain, 5);
    let noted = chain.head();
    drop(chain);
    let [path] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(path).unwrap();
    let third = whole
        .split_inclusive(|b| *b == b'\n')
        .take(3)
        .map(<[u8]>::len)
        .sum::<usize>();
    fs::write(path, &whole[..third]).unwrap();
    let mut opened = Chain::open(dir.path(), Book::Admin, LARGE, Some(noted)).unwrap();
    assert_eq!(opened.events[0].what(), What::Damaged);
    assert_eq!(opened.chain.head(), noted, "numbers are not used again");
    append(&mut opened.chain, 1);
    let kinds = faults(dir.path());
    assert_eq!(
        kinds,
        [FaultKind::Number {
            expected: 4,
            found: 6
        }]
    );
}

#[test]
fn sec_78_the_audit_is_for_this_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("audit");
    append(&mut open(&inside, LARGE).chain, 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    assert_eq!(mode(&files(&inside)[0]), 0o600);
}

struct Running {
    dir: tempfile::TempDir,
    store: Store,
    metrics: Metrics,
    audit: Audit,
}

const LIMITS: AuditLimits = AuditLimits {
    admin_bytes_max: LARGE,
    access_bytes_max: LARGE,
};

impl Running {
    fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let metrics = Metrics::new();
        let audit = Audit::start(dir.path(), &store, LIMITS, &metrics).unwrap();
        Running {
            dir,
            store,
            metrics,
            audit,
        }
    }

    fn restart(&mut self) {
        self.audit.stop();
        self.audit = Audit::start(self.dir.path(), &self.store, LIMITS, &self.metrics).unwrap();
    }

    /// As a change does it; `taken` whether the audit's thread is told.
    fn change(&self, name: &str, taken: bool) {
        let (audit, event) = (
            self.audit.clone(),
            Event::new(What::Created).text("name", name),
        );
        let told = self.audit.clone();
        let work = move |transaction: &Transaction<'_>| {
            audit.stage(transaction, std::slice::from_ref(&event))
        };
        let then = move |number: Option<u64>| {
            if taken {
                told.committed(number.unwrap());
            }
        };
        self.store.write_then(work, then).unwrap();
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        self.audit.catch_up(Duration::from_secs(60));
        let written = self.audit.written(None, Duration::ZERO);
        let mut reader = Reader::new(self.audit.directory(), None).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reader.next(Some(&written)).unwrap() {
            lines.push(serde_json::from_slice(&line.text).unwrap());
        }
        lines
    }

    fn names(&self) -> Vec<String> {
        let lines = self.lines();
        let names = lines.iter().filter_map(|line| line["name"].as_str());
        names.map(str::to_owned).collect()
    }

    fn is_whole(&self) {
        for book in Book::ALL {
            let expected = Expected {
                is_live: true,
                ..Expected::default()
            };
            let found = verify(self.audit.directory(), book, expected).unwrap();
            assert_eq!(found.faults, []);
        }
    }
}

#[test]
fn sec_56_changes_are_told_in_the_order_of_their_commits_and_once() {
    let mut running = Running::start();
    let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
    for name in &names[..25] {
        running.change(name, true);
    }
    running.restart();
    for name in &names[25..] {
        running.change(name, true);
    }
    assert_eq!(running.names(), names);
    running.restart();
    assert_eq!(running.names(), names);
    running.is_whole();
}

/// The process ended behind the commit: nobody told the thread.
#[test]
fn rel_06_a_change_that_a_crash_kept_from_the_file_is_told_at_the_next_start() {
    let mut running = Running::start();
    running.change("before", true);
    assert_eq!(running.names(), ["before"]);
    running.change("lost", false);
    running.change("too", false);
    running.restart();
    assert_eq!(running.names(), ["before", "lost", "too"]);
    running.restart();
    assert_eq!(running.names(), ["before", "lost", "too"]);
    running.is_whole();
}

/// Restored from a backup, the database may be older than the audit beside it.
#[test]
fn rel_06_numbers_of_an_older_database_are_not_mistaken_for_what_is_told() {
    let mut running = Running::start();
    for n in 0..5 {
        running.change(&format!("n{n}"), true);
    }
    running.audit.stop();
    let empty = tempfile::tempdir().unwrap();
    running.store = Store::open(empty.path()).unwrap();
    running.restart();
    running.change("new", true);
    assert_eq!(running.names().last().unwrap(), "new");
    assert_eq!(running.names().len(), 6);
}

fn refused(from: [u8; 4], client_id: &str) -> RefusedClientNotice {
    RefusedClientNotice {
        from: IpAddr::from(from),
        client_id: ClientId::new(client_id),
        reason: "bad_credential",
        is_throttled: false,
        digests: vec![[7; 32]],
        known: None,
    }
}

#[test]
fn sec_56_a_hundred_refusals_a_second_are_told_and_all_are_counted() {
    let running = Running::start();
    let known = Known {
        credential: 4,
        identity: uuid::Uuid::nil(),
        name: Some("boiler".into()),
        ended_ms: Some(9),
    };
    running.audit.look_up_with(Box::new(move |digest| {
        (*digest == [7; 32]).then(|| known.clone())
    }));
    for _ in 0..1_000 {
        running.audit.refused(refused([192, 0, 2, 1], "a\nb"));
    }
    running.audit.catch_up(Duration::from_secs(60));
    let rows = running.audit.refused_after(0);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].count, &*rows[0].client_id), (1_000, "a\nb"));
    assert_eq!(rows[0].known.as_ref().unwrap().credential, 4);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let lines = running.lines();
        let told = lines
            .iter()
            .filter(|line| line["event"] == "refused")
            .count() as u64;
        let left_out: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
        if told + left_out == 1_000 {
            assert!(told >= 100 && left_out > 0, "{told}");
            assert_eq!(lines[0]["client_id"], "a\nb");
            assert_eq!(lines[0]["name"], "boiler");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "told {told}, left out {left_out}"
        );
    }
    running.is_whole();
}

#[test]
fn an_alarm_is_raised_where_two_clients_take_turns() {
    let running = Running::start();
    let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    for (before, from) in [(a, b), (b, a), (a, b), (b, a)] {
        running.audit.taken_over(TakenOver {
            identity: uuid::Uuid::nil(),
            credential: 3,
            before,
            from,
            client_id: ClientId::new("c"),
        });
    }
    running.audit.refused(RefusedClientNotice {
        is_throttled: true,
        ..refused([1, 2, 3, 4], "")
    });
    let lines = running.lines();
    let alarms: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "alarm")
        .collect();
    assert_eq!(alarms.len(), 2);
    assert_eq!(
        (&alarms[0]["alarm"], &alarms[0]["credential"]),
        (&"token_two_addresses".into(), &3.into())
    );
    assert_eq!(
        (&alarms[1]["alarm"], &alarms[1]["from"]),
        (&"source_throttled".into(), &"1.2.3.4".into())
    );
    let shown = running.metrics.render();
    assert!(
        shown.contains("tollgate_alarms_total{alarm=\"token_two_addresses\"} 1"),
        "{shown}"
    );
}

/// Nothing can be written: changes wait in the database, the rest is counted, nobody waits.
#[test]
fn rel_28_while_nothing_can_be_written_changes_wait_and_nothing_is_lost() {
    let running = Running::start();
    // A directory that is gone stands for a full disk; a real one is in tests/faults.
    let path = running.audit.directory().to_owned();
    fs::remove_dir(&path).unwrap();
    running.change("while", true);
    running.audit.refused(refused([192, 0, 2, 1], "c"));
    running.audit.catch_up(Duration::from_secs(60));
    assert_eq!(
        running.audit.refused_after(0).len(),
        1,
        "the table needs no disk"
    );
    let shown = running.metrics.render();
    assert!(shown.contains("tollgate_audit_failed 1"), "{shown}");
    assert!(
        shown.contains("tollgate_audit_waiting_changes 1"),
        "{shown}"
    );
    fs::create_dir(&path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while running.audit.shared.waiting() > 0 {
        assert!(Instant::now() < deadline);
        running.audit.catch_up(Duration::from_millis(100));
    }
    assert_eq!(running.names(), ["while"]);
    running.is_whole();
}

#[test]
fn two_books_are_read_in_the_order_of_time_and_from_a_time_on() {
    let dir = tempfile::tempdir().unwrap();
    for (book, times) in [(Book::Admin, [1, 4, 5]), (Book::Access, [2, 3, 6])] {
        let mut chain = Chain::open(dir.path(), book, LARGE, None).unwrap().chain;
        let entries = times.iter().map(|second| Entry {
            time_ms: second * 1_000,
            event: "x",
            members: "",
        });
        chain.append(entries).unwrap();
    }
    let read = |since: Option<u64>| {
        let since = since.map(record::shown_time);
        let mut reader = Reader::new(dir.path(), since.as_deref()).unwrap();
        let lines = std::iter::from_fn(|| reader.next(None).unwrap());
        lines
            .map(|line| record::read(&line.text).unwrap().time_ms / 1_000)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(None), [1, 2, 3, 4, 5, 6]);
    assert_eq!(read(Some(3_000)), [3, 4, 5, 6]);
    assert!(read(Some(7_000)).is_empty());
    // Half a record at the end is not there yet.
    let mut file = OpenOptions::new()
        .append(true)
        .open(&files(dir.path())[0])
        .unwrap();
    file.write_all(b"{\"n\":4,\"time\"").unwrap();
    assert_eq!(read(None), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_reader_goes_from_file_to_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(dir.path(), 1 << 20).chain;
    for _ in 0..20 {
        append(&mut chain, 100);
    }
    assert!(files(dir.path()).len() > 5);
    let mut reader = Reader::new(dir.path(), None).unwrap();
    let lines = std::iter::from_fn(|| reader.next(None).unwrap());
    let numbers: Vec<u64> = lines
        .map(|line| record::read(&line.text).unwrap().number)
        .collect();
    assert_eq!(numbers, (1..=2_000).collect::<Vec<_>>());
    append(&mut chain, 100);
    let lines = std::iter::from_fn(|| reader.next(None).unwrap());
    assert_eq!(lines.count(), 100);
}
