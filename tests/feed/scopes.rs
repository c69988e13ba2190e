//! A change of an application's scope: what goes, what stays, and that a crash changes nothing.

use crate::{
    common::broker::Broker,
    site::{ALL, Client, Counter, Options, create_app, id_of},
};

/// A stored session by its client id.
fn kept(client_id: &str) -> Options<'_> {
    Options {
        client_id,
        ..Options::KEPT
    }
}

#[test]
fn sec_36_a_narrowing_ends_what_is_outside_of_it_and_a_widening_nothing() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let one = format!("v1/devices/{}/telemetry", id_of(&broker, "d"));
    let token = create_app(&broker, "a", &[&one]);
    let mut counter = Counter::connect(&broker, &device);
    let mut first = Client::connect(&broker, &token, &kept("one"));
    assert_eq!(first.subscribe(&one), 1);
    assert_eq!(first.subscribe(ALL), 0x87);

    let wider = broker.cli_json(&["app", "scope", "a", "--subscribe", ALL, "x/#", "--json"]);
    assert_eq!(wider["receipt"]["connections"], 0, "{wider}");
    first.wire.expect_alive();
    assert_eq!(first.subscribe("x/y"), 1, "new rights are there at once");
    let mut all = Client::connect(&broker, &token, &kept("all"));
    assert_eq!(all.subscribe(ALL), 1);
    counter.send(3);
    assert_eq!(first.take_numbers(3), [1, 2, 3]);
    assert_eq!(all.take_numbers(2), [1, 2]);
    let mut away = Client::connect(&broker, &token, &kept("away"));
    assert_eq!(away.subscribe(&one), 1);
    away.disconnect();

    // Outside: x/y of the first, the feed of all devices.
    let narrower = broker.cli_json(&["app", "scope", "a", "--subscribe", &one, "--json"]);
    assert_eq!(narrower["receipt"]["connections"], 0, "{narrower}");
    assert_eq!(narrower["receipt"]["sessions"], 0, "{narrower}");
    assert_eq!(narrower["receipt"]["subscriptions"], 2, "{narrower}");
    assert_eq!(narrower["app"]["generation"], 2, "{narrower}");
    counter.send(1);
    assert_eq!(first.take().number(), 4);
    assert_eq!(all.subscribe(ALL), 0x87);
    first.disconnect();
    all.disconnect();
    // The sessions are there, and go on with what they may.
    let mut all = Client::connect(&broker, &token, &kept("all"));
    assert!(all.is_present);
    assert_eq!(all.subscribe(ALL), 0x87);
    counter.send(1);
    for (client_id, next) in [("one", 5), ("away", 4)] {
        let mut client = Client::connect(&broker, &token, &kept(client_id));
        assert!(client.is_present, "{client_id}");
        assert_eq!(client.take().number(), next, "{client_id}");
    }
    // What came meanwhile does not come when the right does.
    broker.cli_ok(&["app", "scope", "a", "--subscribe", ALL]);
    assert_eq!(all.subscribe(ALL), 1);
    counter.send(1);
    assert_eq!(all.take().number(), 6);
}

#[test]
fn sec_34_a_narrowing_survives_a_kill_right_behind_the_reply() {
    let mut broker = Broker::start();
    let token = create_app(&broker, "a", &[ALL]);
    let one = format!("v1/devices/{}/telemetry", id_of(&broker, "first-device"));
    for _ in 0..3 {
        broker.cli_ok(&["app", "scope", "a", "--subscribe", ALL]);
        let mut client = Client::connect(&broker, &token, &Options::KEPT);
        assert_eq!(client.subscribe(ALL), 1);
        client.disconnect();
        broker.cli_ok(&["app", "scope", "a", "--subscribe", &one]);
        broker.kill9();
        broker.restart();
        // Whether or not it was on disk, the session goes on without the subscription (SEC-38).
        let mut client = Client::connect(&broker, &token, &Options::KEPT);
        assert!(client.is_present);
        assert_eq!(client.subscribe(ALL), 0x87);
        assert_eq!(client.subscribe(&one), 1);
        client.disconnect();
    }
}
