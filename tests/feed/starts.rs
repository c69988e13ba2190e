//! Where a feed starts.

use crate::{
    common::{broker::Broker, packets::Version},
    site::{ALL, Client, Counter, Options, create_app},
};

#[test]
fn a_feed_starts_now_at_the_oldest_at_an_offset_or_at_a_time() {
    let mut broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    counter.send(4);
    broker.restart();
    let mut counter = Counter::connect(&broker, &device);
    // The second run's messages are 1 and 2 again, later.
    counter.send(2);
    let client = || Client::connect(&broker, &token, &Options::V5);
    let mut all = client();
    assert_eq!(all.subscribe_with(ALL, 1, &[("start", "earliest")]), 1);
    let messages: Vec<_> = (0..6).map(|_| all.take()).collect();
    let numbers: Vec<u32> = messages.iter().map(|message| message.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 1, 2]);
    drop(all);
    let offset = messages[2].property("offset").expect("an offset");
    let mut some = client();
    assert_eq!(some.subscribe_with(ALL, 1, &[("start", offset)]), 1);
    assert_eq!(some.take_numbers(4), [3, 4, 1, 2]);
    drop(some);
    let ts = messages[4].property("ts").expect("a time");
    let ms: i128 = ts.parse().expect("a number");
    let moment = time_text(ms);
    for start in [ts, &moment] {
        let mut late = client();
        assert_eq!(late.subscribe_with(ALL, 1, &[("start", start)]), 1);
        assert_eq!(late.take_numbers(2), [1, 2], "{start}");
        assert!(
            late.take_within(std::time::Duration::from_millis(1))
                .is_none()
        );
        drop(late);
        // An older client says it by the name of a group.
        let options = Options {
            version: Version::V311,
            ..Options::V5
        };
        let mut old = Client::connect(&broker, &token, &options);
        assert_eq!(old.subscribe(&format!("$share/g{start}@{start}/{ALL}")), 1);
        assert_eq!(old.take_numbers(2), [1, 2], "{start}");
    }
    let mut now = client();
    assert_eq!(now.subscribe(ALL), 1);
    counter.send(1);
    assert_eq!(now.take().number(), 3);
    // To say a start again is to start again.
    assert_eq!(now.subscribe_with(ALL, 1, &[("start", "earliest")]), 1);
    assert_eq!(now.take_numbers(7), [1, 2, 3, 4, 1, 2, 3]);
}

#[test]
fn a_start_in_the_past_survives_a_kill_until_it_is_read() {
    let mut broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    Counter::connect(&broker, &device).send(3);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe_with(ALL, 1, &[("start", "earliest")]), 1);
    broker.kill9();
    broker.restart();
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert!(client.is_present);
    assert_eq!(client.take_numbers(3), [1, 2, 3]);
}

/// A kept session that says a start again starts again there, instead of where it was.
#[test]
fn a_kept_session_can_start_again() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(3);
    assert_eq!(client.take_numbers(3), [1, 2, 3]);
    assert_eq!(client.subscribe_with(ALL, 1, &[("start", "earliest")]), 1);
    assert_eq!(client.take_numbers(3), [1, 2, 3]);
}

/// RFC 3339 with milliseconds.
fn time_text(ms: i128) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).expect("a time");
    let format = &time::format_description::well_known::Rfc3339;
    moment.format(format).expect("a text")
}
