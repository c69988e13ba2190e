//! A feed over clean stops: the history lets go of the journal when it is closed, and of nothing
//! that a kept session has not settled. One load for both, since the journal's files are large.

use crate::{
    common::{
        broker::{Broker, Setup},
        packets::{Connect, TELEMETRY, Version, log_in, publish},
    },
    site::{ALL, Client, Options, create_app},
};

/// More than a file of the journal (64 MiB) holds.
const MESSAGES: u32 = 1_200;

/// Bytes of a message; nearly all of it is blank, so that the history keeps next to nothing.
const MESSAGE_BYTES: usize = 60_000;

/// What the session settles before all of it is there.
const SETTLED: u32 = 5;

#[test]
fn a_stop_keeps_what_a_feed_has_not_settled_and_no_more_than_may_be_pinned() {
    let setup = Setup::new().set("TOLLGATE_FEED_KEEP_SIZE_BYTES", "0");
    let broker = setup.start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let connect = |broker: &Broker| Client::connect(broker, &token, &Options::KEPT);
    let mut client = connect(&broker);
    assert_eq!(client.subscribe(ALL), 1);
    send(&broker, &device, 1..=SETTLED);
    assert_eq!(client.take_numbers(SETTLED), [1, 2, 3, 4, 5]);
    client.disconnect();
    send(&broker, &device, SETTLED + 1..=MESSAGES);
    assert_eq!(broker.metric("tollgate_journal_segments"), 2.0);

    // Everything is in files of the history now, and the feed's place is still in the journal.
    let broker = broker.into_setup().start();
    let mut client = connect(&broker);
    assert!(client.is_present);
    for number in SETTLED + 1..=100 {
        let message = client.take();
        assert_eq!(message.number(), number);
        assert_eq!(message.property("missed_from"), None, "{number}");
    }
    client.disconnect();

    // Nothing may be pinned any more: the claim is lost, and the next stop lets the journal go.
    let setup = broker.into_setup();
    let broker = setup.set("TOLLGATE_FEED_PIN_SIZE_MAX_BYTES", "0").start();
    broker.wait_metric("tollgate_feed_cuts_total", 1.0);
    assert!(
        broker
            .stderr()
            .contains("pins more than feed.pin_size_max_bytes")
    );
    // It looks at the journal when it has read something.
    send(&broker, &device, MESSAGES + 1..=MESSAGES + 1);
    let broker = broker.into_setup().start();
    let mut client = connect(&broker);
    assert!(client.is_present);
    let first = client.take();
    assert!(first.number() > 101, "{}", first.number());
    assert!(first.property("missed_from").is_some(), "{first:?}");
    for number in first.number() + 1..=MESSAGES + 1 {
        let message = client.take();
        assert_eq!(message.number(), number);
        assert_eq!(message.property("missed_from"), None, "{number}");
    }
}

/// Publishes these numbers, and waits until they are acknowledged.
fn send(broker: &Broker, device: &str, numbers: std::ops::RangeInclusive<u32>) {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "d", device));
    let numbers: Vec<u32> = numbers.collect();
    for some in numbers.chunks(50) {
        for number in some {
            let blank = " ".repeat(MESSAGE_BYTES);
            let payload = format!("{{\"n\":{number}{blank}}}");
            let id = u16::try_from(*number).expect("few");
            wire.send(&publish(
                Version::V311,
                1,
                id,
                TELEMETRY,
                payload.as_bytes(),
            ));
        }
        for _ in some {
            assert_eq!(wire.packet()[0], 0x40);
        }
    }
}
