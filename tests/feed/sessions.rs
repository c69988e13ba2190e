//! One application's own feed: what comes, in which order, and what comes again.

use std::time::Duration;

use crate::{
    common::{broker::Broker, packets::Version},
    site::{ALL, Client, Counter, Options, create_app, id_of},
};

#[test]
fn every_version_and_qos_gets_what_devices_send() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let topic = format!("v1/devices/{}/telemetry", id_of(&broker, "d"));
    let mut counter = Counter::connect(&broker, &device);
    let mut sent = 0;
    for version in [Version::V311, Version::V5] {
        for qos in [0, 1, 2] {
            for filter in [ALL, &topic] {
                let options = Options {
                    version,
                    ..Options::V5
                };
                let mut client = Client::connect(&broker, &token, &options);
                assert_eq!(client.subscribe_with(filter, qos, &[]), qos.min(1));
                counter.send(3);
                for number in 1..=3 {
                    let message = client.take();
                    assert_eq!(message.number(), sent + number);
                    assert_eq!((&message.topic, message.dup), (&topic, false));
                    assert_eq!(message.qos, qos.min(1));
                    let offset = message.property("offset");
                    assert_eq!(offset.is_some(), version == Version::V5);
                    assert_eq!(message.property("ts").is_some(), version == Version::V5);
                }
                sent += 3;
                client.disconnect();
            }
        }
    }
}

#[test]
fn an_unacknowledged_message_comes_again_with_its_id_and_the_rest_behind_it() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    for version in [Version::V311, Version::V5] {
        let options = Options {
            version,
            client_id: if version == Version::V5 { "new" } else { "old" },
            ..Options::KEPT
        };
        let mut client = Client::connect(&broker, &token, &options);
        assert!(!client.is_present);
        assert_eq!(client.subscribe(ALL), 1);
        counter.send(10);
        let messages: Vec<_> = (0..10).map(|_| client.next()).collect();
        for place in [0, 1, 2, 4] {
            client.ack(&messages[place]);
        }
        client.disconnect();
        counter.send(5);
        let mut client = Client::connect(&broker, &token, &options);
        assert!(client.is_present);
        for place in [3, 5, 6, 7, 8, 9] {
            let again = client.take();
            let first = &messages[place];
            assert_eq!((again.id, again.dup), (first.id, true), "{version:?}");
            assert_eq!(again.payload, first.payload);
        }
        let last = messages[9].number();
        for number in last + 1..=last + 5 {
            let message = client.take();
            assert_eq!((message.number(), message.dup), (number, false));
        }
        // To subscribe again changes nothing.
        assert_eq!(client.subscribe(ALL), 1);
        counter.send(1);
        assert_eq!(client.take().number(), last + 6);
        client.disconnect();
        let mut client = Client::connect(&broker, &token, &options);
        counter.send(1);
        assert_eq!(client.take().number(), last + 7, "nothing twice");
    }
}

#[test]
fn nothing_is_missing_after_a_kill_and_nothing_comes_twice_after_a_stop() {
    let mut broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe(ALL), 1);
    // Killed before anything was delivered: the place of the subscription is on disk.
    counter.send(5);
    broker.kill9();
    broker.restart();
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert!(client.is_present);
    assert_eq!(client.take_numbers(5), [1, 2, 3, 4, 5]);
    client.disconnect();
    assert_eq!(broker.stop(), 0);
    broker.restart();
    let mut counter = Counter::connect(&broker, &device);
    counter.send(4);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert!(client.is_present);
    assert_eq!(client.take_numbers(2), [1, 2], "of the new connection");
    broker.kill9();
    broker.restart();
    let mut counter = Counter::connect(&broker, &device);
    counter.send(1);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    let mut numbers = vec![client.take().number()];
    while numbers.len() < 2 || numbers[numbers.len() - 2] != 4 {
        numbers.push(client.take().number());
    }
    assert!(numbers.contains(&3), "{numbers:?}");
    assert_eq!(*numbers.last().expect("some"), 1, "{numbers:?}");
}

#[test]
fn receive_maximum_and_packet_size_are_kept() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let options = Options {
        receive_maximum: Some(3),
        packet_size_max: Some(200),
        ..Options::V5
    };
    let mut client = Client::connect(&broker, &token, &options);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(10);
    let open: Vec<_> = (0..3).map(|_| client.next()).collect();
    // What comes behind PINGRESP would have come before it.
    client.wire.expect_alive();
    client.ack(&open[0]);
    let fourth = client.next();
    assert_eq!(fourth.number(), 4);
    client.wire.expect_alive();
    for message in open[1..].iter().chain([&fourth]) {
        client.ack(message);
    }
    assert_eq!(client.take_numbers(6), [5, 6, 7, 8, 9, 10]);
    let long = format!("{{\"long\":\"{}\"}}", "x".repeat(200));
    let packet = crate::common::packets::publish(
        Version::V311,
        1,
        9,
        crate::common::packets::TELEMETRY,
        long.as_bytes(),
    );
    counter.wire.send(&packet);
    assert_eq!(counter.wire.packet()[0], 0x40);
    counter.send(1);
    assert_eq!(client.take().number(), 11, "what is too long is left out");
    let metrics = broker.metrics();
    let row = "tollgate_feed_dropped_total{reason=\"too_large\"} 1";
    assert!(metrics.contains(row), "{metrics}");
}

#[test]
fn unsubscribing_ends_the_feed() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(2);
    assert_eq!(client.take_numbers(2), [1, 2]);
    let unsubscribe = crate::common::packets::unsubscribe(Version::V5, 4, &[ALL]);
    client.wire.send(&unsubscribe);
    assert_eq!(client.wire.packet()[0], 0xb0);
    counter.send(2);
    client.wire.expect_alive();
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(1);
    assert_eq!(client.take().number(), 5);
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_of_memory() {
    const MESSAGES: u32 = 1_500;
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut client = Client::connect(&broker, &token, &Options::V5);
    assert_eq!(client.subscribe(ALL), 1);
    let mut wire = broker.wire();
    let connect = crate::common::packets::Connect::with_token(Version::V311, "d", &device);
    crate::common::packets::log_in(&mut wire, &connect);
    let before = broker.rss_kib();
    // Nothing that the history keeps: its memory is not what is measured here.
    let filler = " ".repeat(30_000);
    for number in 1..=MESSAGES {
        let payload = format!("{{\"n\":{number}{filler}}}");
        let topic = crate::common::packets::TELEMETRY;
        let packet =
            crate::common::packets::publish(Version::V311, 1, 1, topic, payload.as_bytes());
        wire.send(&packet);
        assert_eq!(wire.packet()[0], 0x40);
    }
    let grown = broker.rss_kib().saturating_sub(before);
    // 45 MB went through; 1 MiB is for the client, 4 for what is shared, 4 are buffers.
    assert!(grown < 20 * 1024, "{grown} KiB");
    for number in 1..=MESSAGES {
        assert_eq!(client.take().number(), number);
    }
    assert_eq!(client.take_within(Duration::from_millis(1)), None);
}
