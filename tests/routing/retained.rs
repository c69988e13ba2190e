//! Retained messages.

use crate::common::packets::{Connect, VERSIONS, Version};
use crate::site::{Client, create_app, site, site_with};

#[test]
fn mqtt_3_3_1_a_retained_message_comes_with_each_new_subscription_until_it_is_cleared() {
    for version in VERSIONS {
        let (broker, token) = site();
        let mut publisher = Client::connect(&broker, version, "p", &token);
        publisher.publish(3, "r/1", "old");
        publisher.publish(3, "r/1", "one");
        publisher.publish(5, "r/2", "two");
        publisher.publish(2, "r/3", "not retained");
        let mut client = Client::connect(&broker, version, "s", &token);
        assert_eq!(client.subscribe(&[("r/#", 2)]), [2]);
        let first = client.expect(1, "r/1", "one");
        let second = client.expect(2, "r/2", "two");
        assert!(first.retain && second.retain, "{first:?} {second:?}");
        publisher.publish(3, "r/1", "live");
        let live = client.expect(1, "r/1", "live");
        assert!(!live.retain, "[MQTT-3.3.1-12]: {live:?}");
        publisher.publish(3, "r/1", "");
        client.expect(1, "r/1", "");
        let mut later = Client::connect(&broker, version, "l", &token);
        later.subscribe(&[("r/1", 1), ("r/2", 0)]);
        later.expect(0, "r/2", "two");
    }
}

#[test]
fn mqtt_3_3_1_9_retain_handling_says_when_they_come() {
    let (broker, token) = site();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(3, "r", "kept");
    let mut client = Client::connect(&broker, Version::V5, "s", &token);
    client.subscribe(&[("marker", 0)]);
    // Never.
    client.subscribe(&[("r", 0x20)]);
    client.expect_nothing_before(&mut publisher, "marker");
    // Only with a new subscription.
    client.subscribe(&[("r", 0x10)]);
    client.expect_nothing_before(&mut publisher, "marker");
    client.unsubscribe("r");
    client.subscribe(&[("r", 0x10)]);
    client.expect(0, "r", "kept");
    // Always, and with the Retain flag of live messages too.
    client.subscribe(&[("r", 0x08)]);
    assert!(client.expect(0, "r", "kept").retain);
    publisher.publish(1, "r", "live");
    assert!(client.expect(0, "r", "live").retain, "[MQTT-3.3.1-13]");
    // Never for a share group.
    client.subscribe(&[("$share/g/r", 0)]);
    client.expect_nothing_before(&mut publisher, "marker");
}

#[test]
fn sec_31_a_retained_message_is_given_to_those_who_may_receive_it() {
    let (broker, token) = site();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(3, "a/x", "secret");
    publisher.publish(3, "b/x", "open");
    let narrow = create_app(&broker, "narrow", &[], &["b/#", "a/y"]);
    let mut client = Client::connect(&broker, Version::V5, "s", &narrow);
    assert_eq!(client.subscribe(&[("+/x", 0)]), [0x87]);
    assert_eq!(client.subscribe(&[("b/+", 0)]), [0]);
    client.expect(0, "b/x", "open");
}

#[test]
fn sec_41_more_than_may_be_retained_is_refused_and_not_routed() {
    let (broker, token) = site();
    let mut client = Client::connect(&broker, Version::V5, "c", &token);
    for n in 0..100 {
        client.publish(3, &format!("r/{n}"), "x");
    }
    assert_eq!(client.try_publish(3, &[], "r/100", "x"), 0x97);
    client.publish(3, "r/7", "");
    client.publish(3, "r/100", "x");
}

#[test]
fn mqtt_3_3_2_5_an_expired_message_is_not_given_out_and_its_time_counts_down() {
    let (broker, token) = site();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    assert_eq!(
        publisher.try_publish(3, &[2, 0, 0, 0, 1], "r/short", "x"),
        0
    );
    assert_eq!(
        publisher.try_publish(3, &[2, 0, 0, 0x10, 0], "r/long", "x"),
        0
    );
    broker.wait_metric_until("tollgate_retained_messages", |held| held == 1.0);
    let mut client = Client::connect(&broker, Version::V5, "s", &token);
    client.subscribe(&[("r/#", 0)]);
    let got = client.expect(0, "r/long", "x");
    assert_eq!(got.properties[..3], [2, 0, 0]);
    let left = u16::from_be_bytes([got.properties[3], got.properties[4]]);
    assert!((0x0f00..0x1000).contains(&left), "{left} seconds are left");
}

#[test]
fn many_retained_messages_come_as_fast_as_the_client_takes_them() {
    let (broker, token) = site_with(&[("TOLLGATE_LIMITS_RETAINED_PER_IDENTITY_MAX", "5000")]);
    let mut publisher = Client::connect(&broker, Version::V311, "p", &token);
    for n in 0..2_000 {
        publisher.publish(1, &format!("m/{n:04}"), "x");
    }
    publisher.publish(2, "done", "");
    let connect = Connect {
        properties: vec![0x21, 0, 10],
        ..Connect::with_token(Version::V5, "s", &token)
    };
    let (mut client, _) = Client::with(&broker, &connect);
    broker.wait_metric_until("tollgate_retained_messages", |held| held >= 2_000.0);
    client.subscribe(&[("m/+", 1)]);
    for n in 0..2_000 {
        client.expect(0, &format!("m/{n:04}"), "x");
    }
}

#[test]
fn rel_06_retained_messages_are_there_after_kill_9() {
    let (mut broker, token) = site();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(3, "r/1", "one");
    publisher.publish(3, "r/2", "two");
    publisher.publish(3, "r/1", "");
    publisher.publish(3, "r/3", "three");
    broker.kill9();
    broker.restart();
    let mut client = Client::connect(&broker, Version::V5, "s", &token);
    client.subscribe(&[("r/#", 1)]);
    client.expect(1, "r/2", "two");
    client.expect(1, "r/3", "three");
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(3, "r/2", "");
    client.expect(1, "r/2", "");
}
