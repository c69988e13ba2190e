//! Share groups: every sample to one of them, and to another when that one goes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{
    common::{broker::Broker, packets::Version, wire::ANSWER_LIMIT},
    site::{ALL, Client, Counter, Options, create_app},
};

fn group() -> String {
    format!("$share/g/{ALL}")
}

fn member<'a>(client_id: &'a str, is_kept: bool) -> Options<'a> {
    Options {
        client_id,
        is_kept,
        ..Options::V5
    }
}

#[test]
fn members_share_the_messages_and_each_comes_once() {
    let broker = Broker::start_with(&[("TOLLGATE_WORKERS_COUNT", "3")]);
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let names = ["one", "two", "three", "four"];
    let mut members: Vec<_> = names
        .iter()
        .map(|name| {
            let mut options = member(name, false);
            options.receive_maximum = Some(5);
            let mut client = Client::connect(&broker, &token, &options);
            assert_eq!(client.subscribe(&group()), 1);
            client
        })
        .collect();
    let mut counter = Counter::connect(&broker, &device);
    counter.send(20);
    // Each may have five, so each has five.
    let mut numbers: Vec<u32> = members
        .iter_mut()
        .flat_map(|client| (0..5).map(|_| client.next().number()).collect::<Vec<_>>())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[test]
fn what_a_member_did_not_acknowledge_goes_to_another() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    for is_kept in [false, true] {
        let mut first = Client::connect(&broker, &token, &member("first", is_kept));
        assert_eq!(first.subscribe(&group()), 1);
        let mut counter = Counter::connect(&broker, &device);
        counter.send(100);
        let mut taken: BTreeSet<u32> = (0..30).map(|_| first.take().number()).collect();
        let open: Vec<_> = (0..20).map(|_| first.next()).collect();
        let mut second = Client::connect(&broker, &token, &member("second", is_kept));
        assert_eq!(second.subscribe(&group()), 1);
        // The last of them out of order, which counts all the same.
        first.ack(&open[19]);
        taken.insert(open[19].number());
        first.wire.send(&[0xc0, 0]);
        while first.wire.packet()[0] != 0xd0 {}
        first.wire.reset();
        while taken.len() < 100 {
            let message = second.take();
            assert!(
                taken.insert(message.number()),
                "twice: {}",
                message.number()
            );
        }
        second.wire.expect_alive();
        second.disconnect();
        if is_kept {
            // Both are away: the group waits for either.
            counter.send(10);
            let mut first = Client::connect(&broker, &token, &member("first", true));
            assert!(first.is_present);
            assert_eq!(first.take_numbers(10), (101..=110).collect::<Vec<_>>());
        }
    }
}

/// One of two applications is killed again and again, and the broker too.
#[test]
fn nothing_is_missing_whoever_is_killed() {
    const ROUNDS: u32 = 6;
    let mut broker = Broker::start_with(&[("TOLLGATE_WORKERS_COUNT", "2")]);
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let filter = format!("$share/g@earliest/{ALL}");
    let mut seen: Vec<u32> = Vec::new();
    let mut sent = 0;
    for round in 0..ROUNDS {
        let mut pair = ["one", "two"].map(|name| {
            let mut client = Client::connect(&broker, &token, &member(name, true));
            assert_eq!(client.is_present, round > 0);
            if !client.is_present {
                assert_eq!(client.subscribe(&filter), 1);
            }
            client
        });
        let mut wire = broker.wire();
        let connect = crate::common::packets::Connect::with_token(Version::V311, "d", &device);
        crate::common::packets::log_in(&mut wire, &connect);
        for _ in 0..200 {
            sent += 1;
            let payload = format!("{{\"n\":{sent}}}");
            let topic = crate::common::packets::TELEMETRY;
            let packet =
                crate::common::packets::publish(Version::V311, 1, 1, topic, payload.as_bytes());
            wire.send(&packet);
            assert_eq!(wire.packet()[0], 0x40);
        }
        // The first one takes some without saying so, and is gone.
        let [one, two] = &mut pair;
        for _ in 0..round * 5 {
            one.wire.packet_within(Duration::from_millis(20));
        }
        if round % 2 == 1 {
            for _ in 0..50 {
                seen.extend(
                    two.take_within(Duration::from_millis(50))
                        .map(|m| m.number()),
                );
            }
            broker.kill9();
            broker.restart();
        } else {
            let [one, mut two] = pair;
            one.wire.reset();
            while let Some(message) = two.take_within(Duration::from_millis(500)) {
                seen.push(message.number());
            }
        }
    }
    // What nobody has acknowledged comes to the one who is there, in the end.
    let mut last = Client::connect(&broker, &token, &member("one", true));
    let mut distinct: BTreeSet<u32> = seen.into_iter().collect();
    let all: BTreeSet<u32> = (1..=sent).collect();
    while distinct != all {
        let message = last.take_within(ANSWER_LIMIT);
        let missing = all.difference(&distinct).collect::<Vec<_>>();
        let message = message.unwrap_or_else(|| panic!("missing: {missing:?}"));
        distinct.insert(message.number());
    }
}
