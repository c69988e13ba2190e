//! The checkpoint of stored sessions: what a start would replay behind it stays in the journal,
//! and a checkpoint that moves on lets go of the rest.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::{
    broker::{Checkpointer, RestoreError, Restored, retained::RetainedLimits},
    journal::{Journal, JournalOptions, Offset, RealDisk, RecordHeader, RecordKind, Submitter},
    store::Store,
};
use uuid::Uuid;

/// How long something that happens every second may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Small, so that there are many.
const SEGMENT_BYTES: u64 = 64 * 1024;

#[test]
fn rel_06_what_a_start_would_replay_stays_in_the_journal() {
    let dir = TempDir::with_prefix("tollgate-checkpoint-").expect("a temporary directory");
    let store = Store::open(&dir.path().join("data")).expect("a new database");
    let options = JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        ballast_bytes: 0,
        ..JournalOptions::new(dir.path().join("journal"))
    };
    let failed = |error: &_| panic!("the journal failed: {error}");
    let (journal, _) =
        Journal::open(Arc::new(RealDisk), options, Box::new(failed)).expect("a new journal");
    let (_, checkpointer) = start(&store, &journal).expect("it starts");
    let mut submitter = journal.submitter(Arc::new(|| {}));

    // The first growth leads to a checkpoint, behind one segment at least: it may go.
    write(&journal, &mut submitter, 1);
    write(&journal, &mut submitter, 9);
    let checkpoint = journal.durable();
    let began = Instant::now();
    while journal.release(checkpoint.next()).expect("files go") == Offset::new(1) {
        assert!(began.elapsed() < LIMIT, "there is no checkpoint");
        thread::sleep(Duration::from_millis(10));
    }
    // More, and far less than what makes a checkpoint old: all of it stays.
    write(&journal, &mut submitter, 30);
    for _ in 0..3 {
        let first = journal.release(journal.durable().next()).expect("files go");
        assert!(first <= checkpoint.next(), "{first} is behind {checkpoint}");
    }
    // A stop writes the last one.
    checkpointer.stop();
    let first = journal.release(journal.durable().next()).expect("files go");
    assert!(first > checkpoint.next(), "{first} is still kept");
    let (restored, checkpointer) = start(&store, &journal).expect("it starts");
    assert_eq!(restored.sessions.len(), 0);
    checkpointer.stop();
    journal.close().expect("a clean end");
}

/// A follower of sessions passes over telemetry of QoS 0 and 1, and over nothing else.
#[test]
fn only_records_of_no_session_are_passed_over() {
    let dir = TempDir::with_prefix("tollgate-checkpoint-").expect("a temporary directory");
    let open = || {
        let options = JournalOptions {
            ballast_bytes: 0,
            ..JournalOptions::new(dir.path().join("journal"))
        };
        let failed = |error: &_| panic!("the journal failed: {error}");
        Journal::open(Arc::new(RealDisk), options, Box::new(failed)).expect("it opens")
    };
    let (journal, _) = open();
    let mut submitter = journal.submitter(Arc::new(|| {}));
    let plain = header(RecordKind::Telemetry, 0);
    let mut last = Offset::ZERO;
    for (kind, packet_id) in [
        (RecordKind::Telemetry, 7),
        (RecordKind::Release, 7),
        (RecordKind::SessionBegin, 0),
        (RecordKind::SessionChange, 0),
        (RecordKind::SessionEnd, 0),
        (RecordKind::Message, 0),
        (RecordKind::Assigned, 0),
        (RecordKind::Received, 0),
        (RecordKind::Settled, 0),
        (RecordKind::Will, 0),
    ] {
        let before = last;
        let record = header(kind, packet_id);
        let of_session = submit(&journal, &mut submitter, &[plain, record, plain]);
        assert_eq!(journal.no_sessions_behind(before), None, "{kind:?}");
        last = submit(&journal, &mut submitter, &[plain]);
        assert_eq!(journal.no_sessions_behind(before), None, "{kind:?}");
        assert_eq!(
            journal.no_sessions_behind(of_session),
            Some(last),
            "{kind:?}"
        );
    }
    // What an earlier process wrote is read.
    drop(submitter);
    journal.close().expect("a clean end");
    drop(journal);
    let (journal, _) = open();
    let before = Offset::new(last.number() - 1);
    assert_eq!(journal.no_sessions_behind(before), None);
    assert_eq!(journal.no_sessions_behind(last), Some(last));
}

fn start(store: &Store, journal: &Journal) -> Result<(Restored, Checkpointer), RestoreError> {
    Checkpointer::start(store, journal, RetainedLimits::default(), Instant::now())
}

/// Fills so many segments, with a commit each.
fn write(journal: &Journal, submitter: &mut Submitter, segments: usize) {
    for _ in 0..segments {
        let records = [header(RecordKind::Telemetry, 0); 12];
        submit(journal, submitter, &records);
    }
}

/// Has these records on disk.
fn submit(journal: &Journal, submitter: &mut Submitter, records: &[RecordHeader]) -> Offset {
    let mut batch = submitter.take_batch();
    for header in records {
        batch.push(header, &[b' '; 4_000]).expect("there is room");
    }
    let offset = submitter.submit(batch).expect("nothing else is under way");
    let durable = journal.wait_past(Offset::new(offset.number() - 1), LIMIT);
    assert_eq!(durable, offset);
    offset
}

fn header(kind: RecordKind, packet_id: u16) -> RecordHeader {
    RecordHeader {
        kind,
        qos: 0,
        profile_flags: 0,
        parser_version: 1,
        received_ms: 1,
        device: Uuid::from_u128(1),
        credential: 1,
        generation: 1,
        session: 0,
        packet_id,
    }
}
