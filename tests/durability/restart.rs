//! Stops, kills and starts: queues, wills and retained messages are what they were, and the journal
//! is not kept for them.

use std::time::{Duration, Instant};

use tollgate::broker::record::queue;
use tollgate::journal::RecordKind;
use tollgate::mqtt::session::Progress;
use tollgate::mqtt::wire::{PacketId, QoS};
use uuid::Uuid;

use crate::place::Place;

/// A filler that is nobody's: as much as a segment, several times.
fn fill(place: &mut Place, device: Uuid) {
    for _ in 0..12 {
        let header = place.header(RecordKind::Telemetry, device, 0);
        place.write(&[(header, vec![b' '; 30_000])]);
    }
}

#[test]
fn rel_06_a_message_for_an_absent_client_does_not_hold_the_journal() {
    let mut place = Place::new();
    let device = place.device("pump");
    place.begin(1, device, Some("gone"));
    let waits = place.message(device, "t", "waits", false, &[1]);
    let kept = place.message(device, "kept", "text", true, &[]);
    let offset = place.write(&[waits, kept]);
    fill(&mut place, device);
    place.until_released_past(offset + 1);

    // Its record is gone; and what came behind the checkpoint is replayed.
    let later = place.message(device, "t", "later", false, &[1]);
    place.write(&[later]);
    for place in [place.killed(), place.restart()] {
        assert!(place.journal.first().number() > offset);
        assert_eq!(place.queued(1), ["waits", "later"]);
        assert_eq!(place.retained(), [("kept".to_owned(), "text".to_owned())]);
        let stored = place.stored(1).expect("it is kept");
        let will = stored.state.will.as_ref().expect("a will");
        assert_eq!((will.content.payload(), will.delay_s), (&b"gone"[..], 7));
        assert_eq!(stored.publisher.credential, 1);
        let held = stored.state.subscriptions.get("#").expect("subscribed");
        assert!(held.options.no_local && held.id == Some(4));
        place.stop();
    }
}

/// QoS 2 is exactly once: what the client may have keeps its packet id, whatever is killed when.
#[test]
fn rel_06_packet_ids_are_the_same_after_a_kill_at_any_step() {
    let mut place = Place::new();
    let device = place.device("pump");
    place.begin(1, device, None);
    let texts = ["a", "b", "c"];
    let messages = texts.map(|text| place.message(device, "t", text, false, &[1]));
    let first = place.write(&messages);
    let id = |n: u16| PacketId::new(n).expect("not 0");
    let entry = |place: &mut Place, kind, offsets: &[u64]| {
        let mut body = Vec::new();
        for (offset, n) in offsets.iter().zip(7..) {
            match kind {
                RecordKind::Assigned => queue::put_assigned(&mut body, 1, *offset, id(n)),
                _ => queue::put(&mut body, 1, *offset),
            }
        }
        place.write(&[(queue::header(kind, 1), body)]);
    };
    let progress = |place: &Place| {
        let killed = place.killed();
        let state = &killed.stored(1).expect("it is kept").state;
        let progress = state.unsettled().map(|unsettled| unsettled.progress);
        let progress: Vec<Progress> = progress.collect();
        killed.stop();
        progress
    };
    let waiting = Progress::Waiting;
    assert_eq!(progress(&place), [waiting; 3]);
    entry(&mut place, RecordKind::Assigned, &[first, first + 1]);
    let sent = [Progress::Sent(id(7)), Progress::Sent(id(8)), waiting];
    assert_eq!(progress(&place), sent);
    entry(&mut place, RecordKind::Received, &[first + 1]);
    let received = [Progress::Received(id(8)), Progress::Sent(id(7)), waiting];
    assert_eq!(progress(&place), received);
    entry(&mut place, RecordKind::Settled, &[first + 1]);
    assert_eq!(progress(&place), [Progress::Sent(id(7)), waiting]);
    let place = place.restart();
    assert_eq!(progress(&place), [Progress::Sent(id(7)), waiting]);
    place.stop();
}

/// Ids of QoS 1 are not on disk: its messages stay where they were, between those of QoS 2.
#[test]
fn mqtt_4_6_0_1_the_order_is_that_of_the_journal_across_both_qos() {
    let mut place = Place::new();
    let device = place.device("pump");
    place.begin(1, device, None);
    let mut offsets = Vec::new();
    for (text, qos) in ["a", "b", "c", "d", "e"].into_iter().zip([1, 2, 1, 2, 1]) {
        place.qos = QoS::from_u8(qos).expect("a QoS");
        let message = place.message(device, "t", text, false, &[1]);
        offsets.push(place.write(&[message]));
    }
    let mut body = Vec::new();
    for (offset, id) in [(offsets[1], 7), (offsets[3], 9)] {
        queue::put_assigned(&mut body, 1, offset, PacketId::new(id).expect("not 0"));
    }
    place.write(&[(queue::header(RecordKind::Assigned, 1), body)]);
    for place in [place.killed(), place.restart()] {
        assert_eq!(place.queued(1), ["a", "b", "c", "d", "e"]);
        let state = &place.stored(1).expect("it is kept").state;
        let ids = state.unsettled().map(|held| match held.progress {
            Progress::Sent(id) => id.get(),
            _ => 0,
        });
        assert_eq!(ids.collect::<Vec<_>>(), [10, 7, 11, 9, 0]);
        place.stop();
    }
}

#[test]
fn sec_34_a_kill_right_behind_a_revocation_brings_nothing_back() {
    for is_checkpointed in [false, true] {
        let mut place = Place::new();
        let (pump, valve) = (place.device("pump"), place.device("valve"));
        place.begin(1, pump, Some("gone"));
        place.begin(2, valve, None);
        let own = place.message(valve, "own", "valve's", true, &[1]);
        let theirs = place.message(pump, "theirs", "pump's", true, &[1, 2]);
        let last = place.write(&[own, theirs]) + 1;
        if is_checkpointed {
            fill(&mut place, pump);
            place.until_released_past(last);
        }
        place.registry.revoke("pump").expect("it is there");
        place.registry.rotate("pump", None).expect("a new token");
        let place = place.killed();
        assert!(place.stored(1).is_none());
        // What was published and acknowledged before is its receivers'.
        assert_eq!(place.queued(2), ["pump's"]);
        let own = ("own".to_owned(), "valve's".to_owned());
        assert_eq!(place.retained(), [own]);
        let place = place.restart();
        assert!(place.stored(1).is_none());
        assert_eq!(place.retained().len(), 1);
        place.stop();
    }
}

#[test]
fn sec_53_a_rotation_keeps_sessions_queues_and_retained_messages() {
    let mut place = Place::new();
    let pump = place.device("pump");
    place.begin(1, pump, Some("gone"));
    let message = place.message(pump, "t", "text", true, &[1]);
    place.write(&[message]);
    place.registry.rotate("pump", None).expect("a new token");
    let place = place.restart();
    assert_eq!(place.queued(1), ["text"]);
    assert_eq!(place.retained().len(), 1);
    place.stop();
}

/// More than may be held at once is written in between, at a start too.
#[test]
fn rel_07_a_long_queue_is_restored_although_it_is_more_than_is_held() {
    // A commit has to fit into a segment.
    let mut place = Place::new_with(8 * 1024 * 1024);
    let device = place.device("pump");
    place.begin(1, device, None);
    let text = "x".repeat(200_000);
    let mut last = 0;
    for _ in 0..100 {
        let messages = [0; 4].map(|_| place.message(device, "t", &text, false, &[1]));
        last = place.write(&messages);
    }
    let killed = place.killed();
    assert_eq!(killed.queued(1).len(), 400);
    killed.stop();
    // The newest segments stay.
    place.until_released_past(last / 2);
    let place = place.restart();
    let queue = &place.stored(1).expect("it is kept").state.queue;
    assert_eq!(queue.len(), 400);
    assert!(queue.bytes() > 80_000_000);
    place.stop();
}

/// `cargo test --release --test durability a_million -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes; shows how long a start takes with a million retained messages"]
fn a_start_with_a_million_retained_messages_takes_less_than_ten_seconds() {
    const TOPICS: usize = 1_000_000;
    let mut place = Place::new_with(64 * 1024 * 1024);
    let devices: Vec<Uuid> = (0..1_000)
        .map(|n| place.device(&format!("device-{n}")))
        .collect();
    let text = "x".repeat(100);
    let topics: Vec<usize> = (0..TOPICS).collect();
    for topics in topics.chunks(2_000) {
        let messages = topics.iter().map(|n| {
            // All over the place, as devices send.
            let n = n * 7_919 % TOPICS;
            let topic = format!("site/{:04}/device/{:06}/state", n / 1_000, n);
            place.message(devices[n % devices.len()], &topic, &text, true, &[])
        });
        let messages: Vec<_> = messages.collect();
        place.write(&messages);
    }
    let dir = place.stop();
    let began = Instant::now();
    let place = Place::open(dir);
    let took = began.elapsed();
    println!("1,000,000 retained messages of 100 bytes: a start takes {took:.2?}");
    assert_eq!(place.restored.retained.figures().messages, TOPICS);
    place.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
}
