//! REL-10: the format is what `docs/journal-format.md` says, old ones are read, newer ones refused
//! before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tollgate::journal::{Journal, JournalError, JournalOptions, Offset, RealDisk, Recovery};

use super::support::{read, sample};

/// What the fixture of format 1 holds: sample `n` at offset `n`, four to a batch.
const FIXTURE_RECORDS: u64 = 60;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-v1")
}

fn body_len(number: u64) -> usize {
    (number * 29 % 500) as usize
}

fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        segment_bytes: 16 * 1024,
        ballast_bytes: 0,
        ..JournalOptions::new(dir)
    }
}

fn open(dir: &Path) -> Result<(Journal, Recovery), JournalError> {
    Journal::open(
        Arc::new(RealDisk),
        options(dir),
        Box::new(|error| panic!("{error}")),
    )
}

fn copy_of_fixture() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files(&fixture()) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let journals = entries.filter(|path| path.extension().is_some_and(|end| end == "journal"));
    let file = |path: PathBuf| {
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read(&path).unwrap(),
        )
    };
    journals.map(file).collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// How the fixture was made. Only ever run for a new format version, into a new directory.
#[test]
#[ignore = "makes tests/data/journal-v1 if it is not there"]
fn make_the_fixture() {
    let dir = fixture();
    assert!(files(&dir).is_empty(), "a fixture never changes");
    let (journal, _) = open(&dir).unwrap();
    let mut submitter = journal.submitter(Arc::new(|| {}));
    for first in (1..=FIXTURE_RECORDS).step_by(4) {
        let mut batch = submitter.take_batch();
        for number in first..first + 4 {
            let (header, body) = sample(number, body_len(number));
            batch.push(&header, &body).unwrap();
        }
        let offset = submitter.submit(batch).unwrap();
        let before = Offset::new(offset.number() - 1);
        assert!(journal.wait_past(before, super::support::PATIENCE) >= offset);
    }
    journal.close().unwrap();
    // Opening it again cuts the unused rest off.
    open(&dir).unwrap().0.close().unwrap();
    fs::remove_file(dir.join(format!("{:020}.journal", FIXTURE_RECORDS + 1))).unwrap();
    for name in ["lock", "next.prepared"] {
        let _ = fs::remove_file(dir.join(name));
    }
}

#[test]
fn rel_10_format_1_is_read() {
    let dir = copy_of_fixture();
    let (journal, recovery) = open(dir.path()).unwrap();
    assert_eq!(
        (recovery.first, recovery.last.number()),
        (Offset::new(1), FIXTURE_RECORDS)
    );
    assert_eq!((recovery.cut, recovery.damage), (None, vec![]));
    let (records, damage) = read(&journal, Offset::ZERO);
    let expected: Vec<_> = (1..=FIXTURE_RECORDS).map(|n| (Offset::new(n), n)).collect();
    assert_eq!((records, damage), (expected, vec![]));
    // Old segments go on with new ones behind them.
    let mut submitter = journal.submitter(Arc::new(|| {}));
    let mut batch = submitter.take_batch();
    let (header, body) = sample(FIXTURE_RECORDS + 1, 9);
    batch.push(&header, &body).unwrap();
    assert_eq!(
        submitter.submit(batch).unwrap().number(),
        FIXTURE_RECORDS + 1
    );
    journal.close().unwrap();
    assert_eq!(
        read(&journal, Offset::ZERO).0.len() as u64,
        FIXTURE_RECORDS + 1
    );
}

/// Byte by byte as the documentation's tables, with none of the journal's own code.
#[test]
fn format_1_is_what_the_documentation_says() {
    let mut offset = 1;
    for (name, file) in files(&fixture()) {
        assert_eq!(name, format!("{offset:020}.journal"));
        for copy in [0, 4096] {
            assert_eq!(&file[copy..copy + 8], b"TOLLJRNL");
            assert_eq!(number(&file[copy + 8..copy + 12]), 1);
            assert_eq!(file[copy + 16..copy + 24], file[16..24]);
            assert_eq!(number(&file[copy + 24..copy + 32]), offset);
            let check = u64::from(crc32c::crc32c(&file[copy..copy + 60]));
            assert_eq!(number(&file[copy + 60..copy + 64]), check);
            assert!(file[copy + 64..copy + 4096].iter().all(|byte| *byte == 0));
        }
        let (mut at, mut sequence) = (8192, 1);
        while file
            .get(at..at + 8)
            .is_some_and(|salt| *salt == file[16..24])
        {
            let header = &file[at..at + 40];
            assert_eq!(
                (number(&header[8..16]), number(&header[16..24])),
                (sequence, offset)
            );
            let records = number(&header[24..28]);
            let len = number(&header[28..32]) as usize;
            assert_eq!(
                number(&header[32..36]),
                u64::from(crc32c::crc32c(&header[..32]))
            );
            let end = (at + 40 + len).next_multiple_of(8);
            let check = crc32c::crc32c_append(crc32c::crc32c(&header[..36]), &file[at + 40..end]);
            assert_eq!(number(&header[36..40]), u64::from(check));
            let mut body = &file[at + 40..at + 40 + len];
            for _ in 0..records {
                let (expected, payload) = sample(offset, body_len(offset));
                let (record, rest) = body.split_at(52);
                assert_eq!(number(&record[0..4]) as usize, payload.len());
                assert_eq!(record[4], expected.kind as u8);
                assert_eq!(record[5], expected.profile_flags);
                assert_eq!(record[6], expected.parser_version);
                assert_eq!(record[7], expected.qos);
                assert_eq!(number(&record[8..16]), expected.received_ms);
                assert_eq!(record[16..32], *expected.device.as_bytes());
                assert_eq!(number(&record[32..40]), expected.credential);
                assert_eq!(number(&record[40..44]), u64::from(expected.generation));
                assert_eq!(number(&record[44..46]), u64::from(expected.packet_id));
                assert_eq!(record[46..48], [0, 0]);
                assert_eq!(number(&record[48..52]), u64::from(expected.session));
                assert_eq!(rest[..payload.len()], payload);
                body = &rest[payload.len()..];
                offset += 1;
            }
            assert!(body.is_empty());
            (at, sequence) = (end, sequence + 1);
        }
    }
    assert_eq!(offset, FIXTURE_RECORDS + 1);
}

#[test]
fn rel_10_a_newer_format_is_refused_untouched() {
    for newer in 0..files(&fixture()).len() {
        let dir = copy_of_fixture();
        let name = files(dir.path()).into_keys().nth(newer).unwrap();
        let path = dir.path().join(&name);
        let mut bytes = fs::read(&path).unwrap();
        for copy in [0, 4096] {
            bytes[copy + 8] = 2;
            let check = crc32c::crc32c(&bytes[copy..copy + 60]);
            bytes[copy + 60..copy + 64].copy_from_slice(&check.to_le_bytes());
        }
        fs::write(&path, bytes).unwrap();
        fs::write(dir.path().join("next.prepared"), b"left over").unwrap();
        let before = files(dir.path());
        match open(dir.path()) {
            Err(
                error @ JournalError::NewerFormat {
                    found: 2,
                    supported: 1,
                    ..
                },
            ) => {
                let text = error.to_string();
                assert!(
                    text.contains(&name) && text.contains("nothing was changed"),
                    "{text}"
                );
            }
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(files(dir.path()), before);
        assert_eq!(
            fs::read(dir.path().join("next.prepared")).unwrap(),
            b"left over"
        );
    }
}

/// A later version may write kinds that this one does not know: skipped, their offsets stay taken.
#[test]
fn unknown_kinds_are_skipped() {
    let dir = copy_of_fixture();
    let (name, mut bytes) = files(dir.path()).into_iter().next().unwrap();
    // The second record of the first batch.
    let len = number(&bytes[8192 + 28..8192 + 32]) as usize;
    bytes[8192 + 40 + 52 + body_len(1) + 4] = 200;
    let end = (8192 + 40 + len).next_multiple_of(8);
    let header = crc32c::crc32c(&bytes[8192..8192 + 36]);
    let check = crc32c::crc32c_append(header, &bytes[8192 + 40..end]);
    bytes[8192 + 36..8192 + 40].copy_from_slice(&check.to_le_bytes());
    fs::write(dir.path().join(name), bytes).unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    let (records, damage) = read(&journal, Offset::ZERO);
    assert_eq!(damage, []);
    let expected: Vec<_> = (1..=FIXTURE_RECORDS)
        .filter(|n| *n != 2)
        .map(|n| (Offset::new(n), n))
        .collect();
    assert_eq!(records, expected);
}
