//! A stretch in the middle of the journal is lost: what stands before and behind it is restored,
//! and nothing in between is half there.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;
use tollgate::broker::record::queue;
use tollgate::journal::{Entry, Offset, RecordHeader, RecordKind};
use tollgate::mqtt::session::Progress;
use tollgate::mqtt::wire::PacketId;
use uuid::Uuid;

use crate::place::{Place, files};

/// Stands in one record alone.
const LOST: &str = "lost-in-the-middle";

/// Breaks the batch that holds these bytes: a text that stands in one record alone.
fn damage(dir: &TempDir, text: &str) {
    let mut found = 0;
    for path in files(&dir.path().join("data/journal")) {
        let bytes = std::fs::read(&path).expect("a segment");
        let text = text.as_bytes();
        let Some(at) = bytes.windows(text.len()).position(|some| some == text) else {
            continue;
        };
        let file = OpenOptions::new().write(true).open(&path).expect("a file");
        let at = u64::try_from(at).expect("a position");
        file.write_all_at(b"!", at).expect("it is written");
        found += 1;
    }
    assert_eq!(found, 1, "{text}");
}

/// Writes a history whose middle is one commit: a message, one that is retained, and the release
/// of a packet id. Answers the commit's first offset.
fn write_history(place: &mut Place, device: Uuid) -> u64 {
    // The first growth leads to a checkpoint; what follows stands in the journal alone.
    place.begin(9, device, None);
    let filler = place.header(RecordKind::Telemetry, device, 0);
    for _ in 0..9 {
        place.write(&[(filler, vec![b' '; 30_000])]);
    }
    place.until_released_past(1);
    place.begin(1, device, Some("gone"));
    let held = RecordHeader {
        packet_id: 77,
        ..place.header(RecordKind::Telemetry, device, 1)
    };
    place.write(&[(held, b"{}".to_vec())]);
    let messages = [
        place.message(device, "t", "before", false, &[1]),
        place.message(device, "r/1", "kept", true, &[]),
        place.message(device, "r/2", "older", true, &[]),
    ];
    place.write(&messages);
    let release = RecordHeader {
        kind: RecordKind::Release,
        ..held
    };
    let lost = [
        place.message(device, "t", LOST, false, &[1]),
        place.message(device, "r/2", "newer", true, &[]),
        (release, Vec::new()),
    ];
    let lost = place.write(&lost);
    // What was said of the lost message later.
    let mut body = Vec::new();
    let id = PacketId::new(5).expect("not 0");
    queue::put_assigned(&mut body, 1, lost, id);
    place.write(&[(queue::header(RecordKind::Assigned, 1), body)]);
    let after = place.message(device, "t", "after", false, &[1]);
    place.write(&[after]);
    lost
}

#[test]
fn rel_05_what_damage_took_is_nowhere_and_the_rest_is_whole() {
    let mut place = Place::new();
    let device = place.device("pump");
    let lost = write_history(&mut place, device);
    let killed = place.killed();
    // What has a packet id goes first.
    assert_eq!(killed.queued(1), [LOST, "before", "after"]);
    killed.stop();
    let dir = place.copy();
    damage(&dir, LOST);
    let again = Place::open(dir);
    let mut reader = again.journal.reader(Offset::new(lost));
    let Ok(Some(Entry::Damage(report))) = reader.next() else {
        panic!("the journal reports it");
    };
    assert_eq!(
        (report.first.number(), report.next.number()),
        (lost, lost + 3)
    );
    drop(reader);
    assert_eq!(again.queued(1), ["before", "after"]);
    let state = &again.stored(1).expect("it is kept").state;
    let is_waiting = |progress| progress == Progress::Waiting;
    assert!(state.unsettled().all(|held| is_waiting(held.progress)));
    // Released or not, nobody knows: it counts as released, so that no message is lost.
    assert!(state.unreleased.is_empty());
    assert!(state.will.is_some());
    let texts = again.retained().into_iter().map(|(_, text)| text);
    assert_eq!(texts.collect::<Vec<_>>(), ["kept", "older"]);
    // The same from the checkpoint.
    let again = again.restart();
    assert_eq!(again.queued(1), ["before", "after"]);
    assert!(
        again
            .stored(1)
            .expect("it is kept")
            .state
            .unreleased
            .is_empty()
    );
    again.stop();
    place.stop();
}
