//! A journal that was damaged while nobody looked: what can be served is served, what cannot is
//! said (REL-05, REL-27).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, Version, log_in, publish},
};

/// One bit flips in a record that has valid ones behind it: the start works, says which file is
/// damaged from which position, and everything else is served; nothing false is.
#[test]
fn rel_05_a_flipped_bit_is_reported_with_its_place_and_the_rest_is_served() {
    let mut broker = Broker::start();
    publish_each(&broker, 0..6);
    broker.kill9();
    let (file, at) = find_value(&broker, 3);
    flip(&file, at);
    broker.restart();
    // Damage is found where it is read: by the start, or by what follows the journal.
    let values = broker.values("pump", "marker");
    let mut numbers: Vec<i64> = values.iter().filter_map(|value| value.as_i64()).collect();
    numbers.sort_unstable();
    let expected: Vec<i64> = [0, 1, 2, 4, 5].map(|n| 1_000_000 + n).to_vec();
    assert_eq!(numbers, expected, "{}", broker.stderr());
    let position = reported(&broker, &file, "damage");
    assert!(
        position <= at && at - position < 4_096,
        "{position} for {at}"
    );
    // It goes on.
    publish_each(&broker, 6..7);
    assert_eq!(broker.values("pump", "marker").len(), 6);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

/// The same in the last record, after a clean stop: that was acknowledged, so it is damage and not
/// a torn tail.
#[test]
fn rel_05_damage_in_the_last_record_after_a_clean_stop_is_not_taken_for_a_torn_tail() {
    let mut broker = Broker::start();
    publish_each(&broker, 0..3);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    let (file, at) = find_value(&broker, 2);
    flip(&file, at);
    // The stop has brought all of it to files, where it would be served from.
    fs::remove_dir_all(broker.dir().join("data/history")).expect("the history is there");
    broker.restart();
    assert_eq!(broker.values("pump", "marker").len(), 2);
    let position = reported(&broker, &file, "damage");
    assert!(position <= at, "{position} for {at}");
}

/// The last commit was cut off by the crash: it was never acknowledged, it is cut, and the start
/// says so; all before it is there.
#[test]
fn rel_26_a_torn_tail_is_cut_and_said() {
    let mut broker = Broker::start();
    publish_each(&broker, 0..4);
    broker.kill9();
    let (file, at) = find_value(&broker, 3);
    let mut bytes = fs::read(&file).expect("the segment can be read");
    let at_index = usize::try_from(at).expect("segments are small");
    bytes[at_index..].fill(0);
    fs::write(&file, bytes).expect("the segment can be written");
    broker.restart();
    assert_eq!(broker.values("pump", "marker").len(), 3);
    let position = reported(&broker, &file, "cut off");
    assert!(position < at, "{position} for {at}");
    publish_each(&broker, 4..5);
    assert_eq!(broker.values("pump", "marker").len(), 4);
}

/// REL-10: a journal of a newer version is refused before anything is changed.
#[test]
fn rel_10_a_journal_of_a_newer_version_is_refused_untouched() {
    let mut broker = Broker::start();
    publish_each(&broker, 0..1);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    let (file, _) = find_value(&broker, 0);
    let newer = newer_format(&fs::read(&file).expect("the segment can be read"));
    fs::write(&file, &newer).expect("the segment can be written");
    let output = broker.start_second();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    for words in [text(&file), "format", "newer version"] {
        assert!(last.contains(words), "{words:?} is not in: {last}");
    }
    assert_eq!(
        fs::read(&file).expect("it is there"),
        newer,
        "it was changed"
    );
}

/// Publishes numbers that are easy to find in a file, each in a commit of its own.
fn publish_each(broker: &Broker, numbers: std::ops::Range<u64>) {
    let token = match numbers.start {
        0 => broker.create_device("pump"),
        _ => {
            let rotated = broker.cli_json(&["device", "rotate", "pump", "--grace", "0s", "--json"]);
            rotated["token"].as_str().expect("a token").to_owned()
        }
    };
    let mut wire = broker.wire();
    log_in(
        &mut wire,
        &Connect::with_token(Version::V311, "pump", &token),
    );
    for n in numbers {
        wire.send(&publish(
            Version::V311,
            1,
            1,
            TELEMETRY,
            payload(n).as_bytes(),
        ));
        assert_eq!(wire.packet()[0], 0x40);
    }
}

fn payload(n: u64) -> String {
    let (ts, value) = (1_700_000_000_000 + n, 1_000_000 + n);
    format!(r#"{{"ts":{ts},"values":{{"marker":{value}}}}}"#)
}

/// The segment that holds a payload, and where in it.
fn find_value(broker: &Broker, n: u64) -> (PathBuf, u64) {
    let payload = payload(n);
    let folder = broker.dir().join("data/journal");
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        let bytes = fs::read(&path).expect("the file can be read");
        let windows = bytes.windows(payload.len());
        if let Some(at) = windows
            .enumerate()
            .find(|(_, at)| *at == payload.as_bytes())
        {
            return (path, u64::try_from(at.0).expect("segments are small"));
        }
    }
    panic!("no file of the journal holds {payload}");
}

fn flip(file: &Path, at: u64) {
    let mut bytes = fs::read(file).expect("the segment can be read");
    bytes[usize::try_from(at).expect("segments are small")] ^= 0x10;
    fs::write(file, bytes).expect("the segment can be written");
}

/// The position in the log line that names this file and has these words.
fn reported(broker: &Broker, file: &Path, words: &str) -> u64 {
    let log = broker.stderr();
    let line = log
        .lines()
        .find(|line| line.contains(words) && line.contains(text(file)))
        .unwrap_or_else(|| panic!("{words:?} of {} is not said: {log}", file.display()));
    let (_, rest) = line.split_once("position=").expect("a position is named");
    let digits = rest.split(' ').next().expect("a position is named");
    digits.parse().expect("a position is a number")
}

/// The segment with the next format version in both copies of its header, checksums as they must
/// be: the places of version and checksum are the same in every version.
fn newer_format(segment: &[u8]) -> Vec<u8> {
    let mut newer = segment.to_vec();
    for copy in newer[..8192].chunks_mut(4096) {
        copy[8] += 1;
        let check = crc32c::crc32c(&copy[..60]);
        copy[60..64].copy_from_slice(&check.to_le_bytes());
    }
    newer
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
