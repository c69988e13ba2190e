//! Chapters 3.3 to 3.7: PUBLISH and its acknowledgements, retained messages, aliases, properties.

use std::time::{Duration, Instant};

use crate::{
    common::{
        client::{Client, Message, property_text, publish_bytes, read_properties, user_property},
        packets::{VERSIONS, Version, packet, reason},
        wire::{hex, show},
    },
    site::Site,
};

/// How long something that takes its time (an expiry of a second) may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Retain handling and retain as published, as bits of the options of SUBSCRIBE.
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAINED_IF_NEW: u8 = 0x10;
const RETAINED_NEVER: u8 = 0x20;

fn pair(site: &Site, version: Version, filter: &str, qos: u8) -> (Client, Client) {
    let mut subscriber = site.client(version, "subscriber");
    assert_eq!(subscriber.subscribe(filter, qos), qos);
    (site.client(version, "publisher"), subscriber)
}

/// Byte by byte, [MQTT-2.2.1-2] and [MQTT-2.2.2-1] in it.
#[test]
fn mqtt_3_3_1_2_a_delivery_of_qos_0_is_the_packet_of_its_version() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let (mut publisher, mut subscriber) = pair(&site, version, &topic, 2);
        assert_eq!(publisher.publish(0, &topic, b"payload"), 0);
        let expected = publish_bytes(version, 0, 0, &topic, &[], b"payload");
        assert_eq!(
            show(&subscriber.wire.packet()),
            show(&expected),
            "{version:?}"
        );
    }
}

#[test]
fn mqtt_3_3_1_1_what_is_sent_again_has_dup() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        let mut subscriber = site.kept(version, "s");
        assert_eq!(subscriber.subscribe(&topic, 2), 2);
        for qos in [1, 2] {
            assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
        }
        let first: Vec<_> = (0..2).map(|_| subscriber.next()).collect();
        assert!(
            first.iter().all(|message| !message.dup),
            "[MQTT-4.3.2-2] [MQTT-4.3.3-2]"
        );
        subscriber.wire.reset();
        let mut subscriber = site.kept(version, "s");
        for message in first {
            let again = subscriber.take();
            assert_eq!(
                again,
                Message {
                    dup: true,
                    ..message
                },
                "{version:?}"
            );
        }
        subscriber.expect_only_marker(&mut publisher, 1, &topic);
    }
}

#[test]
fn mqtt_3_3_1_3_dup_is_not_passed_on() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let (mut publisher, mut subscriber) = pair(&site, version, &topic, 2);
        for qos in [1, 2] {
            assert_eq!(publisher.publish_with(8 | qos << 1, &topic, &[], b"p"), 0);
            let message = subscriber.take();
            assert_eq!((message.dup, message.qos), (false, qos), "{version:?}");
        }
    }
}

#[test]
fn mqtt_3_3_1_5_a_retained_message_is_stored_and_replaced() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        for (qos, payload) in [(0, "zero"), (1, "one"), (2, "two"), (0, "zero again")] {
            assert_eq!(publisher.retain(qos, &topic, payload.as_bytes()), 0);
            // QoS 0 has no acknowledgement: that of the next one says that it is stored.
            assert_eq!(publisher.publish(1, &site.topic("behind"), b"p"), 0);
            let mut subscriber = site.client(version, "subscriber");
            assert_eq!(subscriber.subscribe(&topic, 2), 2);
            let message = subscriber.take();
            let told = (message.qos, message.retain, message.text());
            assert_eq!(told, (qos, true, payload.to_owned()), "{version:?}");
            subscriber.expect_only_marker(&mut publisher, qos, &topic);
        }
        // It stays when the session that published it is gone (3.1.1: 3.1.2-7).
        publisher.disconnect();
        let held = [(topic.clone(), "zero again".to_owned())].into();
        assert_eq!(site.retained(&topic), held);
    }
}

#[test]
fn mqtt_3_3_1_6_and_7_an_empty_payload_clears() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let (mut publisher, mut subscriber) = pair(&site, version, &topic, 1);
        for qos in [0, 1, 2] {
            assert_eq!(publisher.retain(1, &topic, b"held"), 0);
            assert_eq!(subscriber.take().text(), "held");
            assert_eq!(publisher.retain(qos, &topic, b""), 0);
            // Handled as any message: those who are subscribed get it.
            let message = subscriber.take();
            assert_eq!((message.payload.len(), message.retain), (0, false));
            assert_eq!(site.retained(&topic), [].into(), "{version:?} QoS {qos}");
        }
    }
}

#[test]
fn mqtt_3_3_1_8_without_the_flag_nothing_is_stored_replaced_or_removed() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        assert_eq!(publisher.publish(1, &topic, b"passing"), 0);
        assert_eq!(site.retained(&topic), [].into());
        assert_eq!(publisher.retain(1, &topic, b"held"), 0);
        for payload in ["other", ""] {
            assert_eq!(publisher.publish(1, &topic, payload.as_bytes()), 0);
            let held = [(topic.clone(), "held".to_owned())].into();
            assert_eq!(site.retained(&topic), held, "{version:?}");
        }
    }
}

#[test]
fn mqtt_3_3_1_9_to_11_retain_handling() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let mut client = site.client(Version::V5, "c");
    assert_eq!(client.retain(1, &topic, b"held"), 0);
    assert_eq!(client.subscribe(&marker, 1), 1);
    // Never.
    assert_eq!(client.subscribe(&topic, 1 | RETAINED_NEVER), 1);
    client.expect_only_own_marker(1, &marker);
    // Only if it is new: it is not.
    assert_eq!(client.subscribe(&topic, 1 | RETAINED_IF_NEW), 1);
    client.expect_only_own_marker(1, &marker);
    // Always.
    for _ in 0..2 {
        assert_eq!(client.subscribe(&topic, 1), 1);
        let message = client.take();
        assert_eq!((message.text().as_str(), message.retain), ("held", true));
    }
    // Only if it is new: it is.
    assert_eq!(client.unsubscribe(&[&topic]), [0]);
    assert_eq!(client.subscribe(&topic, 1 | RETAINED_IF_NEW), 1);
    assert_eq!(client.take().text(), "held");
    client.expect_only_own_marker(1, &marker);
}

/// A subscription that came back with its session is not new.
#[test]
fn mqtt_3_3_1_10_a_resumed_subscription_is_not_new() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.kept(Version::V5, "c");
    assert_eq!(client.retain(1, &topic, b"held"), 0);
    assert_eq!(client.subscribe(&topic, 1 | RETAINED_IF_NEW), 1);
    assert_eq!(client.take().text(), "held");
    client.disconnect();
    let mut client = site.kept(Version::V5, "c");
    assert_eq!(client.subscribe(&topic, 1 | RETAINED_IF_NEW), 1);
    client.expect_only_own_marker(1, &topic);
}

#[test]
fn mqtt_3_3_1_12_and_13_retain_as_published() {
    let site = Site::new();
    let topic = site.topic("t");
    let (mut publisher, mut plain) = pair(&site, Version::V5, &topic, 1);
    let mut as_published = site.client(Version::V5, "as published");
    assert_eq!(as_published.subscribe(&topic, 1 | RETAIN_AS_PUBLISHED), 1);
    for (flag, qos) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        publisher.publish_with(qos << 1 | u8::from(flag), &topic, &[], b"p");
        assert!(!plain.take().retain);
        assert_eq!(as_published.take().retain, flag);
    }
    // 3.1.1 has no such option: live messages come without the flag.
    let mut old = site.client(Version::V311, "old");
    assert_eq!(old.subscribe(&topic, 1), 1);
    assert!(old.take().retain, "what was retained comes with it");
    publisher.retain(1, &topic, b"p");
    assert!(!old.take().retain);
}

#[test]
fn mqtt_3_3_2_3_the_topic_comes_as_it_was_published() {
    let site = Site::new();
    let (mut publisher, mut subscriber) = pair(&site, Version::V5, &site.topic("#"), 0);
    for rest in [
        "a", "a/b", "a//b", "/", "a/", " ", "\u{feff}", "\u{e9}", "e\u{301}",
    ] {
        let topic = site.topic(rest);
        assert_eq!(publisher.publish(0, &topic, b"p"), 0);
        assert_eq!(subscriber.take().topic, topic);
    }
}

#[test]
fn mqtt_3_3_2_4_and_15_to_20_properties_are_passed_on_unaltered_and_in_order() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut properties = vec![0x01, 1];
    properties.extend(property_text(0x03, "text/plain; \u{e9}".as_bytes()));
    properties.extend(property_text(0x08, b"answer/here"));
    properties.extend(property_text(0x09, &[0, 1, 0xff, 0xfe]));
    for (name, value) in [
        ("z", "1"),
        ("a", "2"),
        ("z", "1"),
        ("", ""),
        ("\u{feff}", "x"),
    ] {
        properties.extend(user_property(name, value));
    }
    let expected = read_properties(&properties);
    let (mut publisher, mut live) = pair(&site, Version::V5, &topic, 2);
    let mut queued = site.kept(Version::V5, "queued");
    assert_eq!(queued.subscribe(&topic, 2), 2);
    queued.disconnect();
    let check = |mut message: Message| {
        message.properties.sort_by_key(|(id, _)| *id); // stable
        assert_eq!(message.properties, expected);
    };
    for flags in [0, 2, 5] {
        assert_eq!(publisher.publish_with(flags, &topic, &properties, b"p"), 0);
        check(live.take());
    }
    let mut queued = site.kept(Version::V5, "queued");
    check(queued.take());
    check(queued.take());
    let mut late = site.client(Version::V5, "late");
    assert_eq!(late.subscribe(&topic, 0), 0);
    check(late.take());
    // A client of 3.1.1 gets the message without them.
    let mut old = site.client(Version::V311, "old");
    assert_eq!(old.subscribe(&topic, 0), 0);
    assert_eq!(old.take().payload, b"p");
}

#[test]
fn mqtt_3_3_2_5_what_has_expired_is_not_delivered() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut queued = site.kept(Version::V5, "queued");
    assert_eq!(queued.subscribe(&topic, 1), 1);
    queued.disconnect();
    let mut publisher = site.client(Version::V5, "publisher");
    let soon = [0x02, 0, 0, 0, 1];
    assert_eq!(publisher.publish_with(2, &topic, &soon, b"queued"), 0);
    let begin = Instant::now();
    assert_eq!(publisher.publish_with(3, &topic, &soon, b"retained"), 0);
    let found = site.retained(&topic);
    let held = [(topic.clone(), "retained".to_owned())].into();
    // On a busy machine its second may be over.
    assert!(found == held || begin.elapsed().as_secs() >= 1, "{found:?}");
    let deadline = Instant::now() + LIMIT;
    while site.retained(&topic) != [].into() {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    // What was queued is as old.
    let mut queued = site.kept(Version::V5, "queued");
    assert!(queued.is_present());
    queued.expect_only_marker(&mut publisher, 1, &topic);
}

#[test]
fn mqtt_3_3_2_6_the_expiry_is_counted_down() {
    let site = Site::new();
    let topic = site.topic("t");
    let (mut publisher, mut live) = pair(&site, Version::V5, &topic, 1);
    let mut queued = site.kept(Version::V5, "queued");
    assert_eq!(queued.subscribe(&topic, 1), 1);
    queued.disconnect();
    let expiry = [0x02, 0, 0, 0, 100];
    let begin = Instant::now();
    assert_eq!(publisher.publish_with(3, &topic, &expiry, b"p"), 0);
    let first = live
        .take()
        .number(0x02)
        .expect("it stays a message that expires");
    let least = 99_u64.saturating_sub(begin.elapsed().as_secs());
    assert!((least..=100).contains(&u64::from(first)), "{first}");
    // Until it shows.
    let deadline = begin + LIMIT;
    let mut held = first;
    while held > 98 {
        assert!(
            Instant::now() < deadline,
            "{held} after {:?}",
            begin.elapsed()
        );
        let mut late = site.client(Version::V5, "late");
        assert_eq!(late.subscribe(&topic, 0), 0);
        held = late.take().number(0x02).expect("an expiry");
        assert!(held <= first);
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let mut queued = site.kept(Version::V5, "queued");
    let message = queued.take();
    assert!(
        message.number(0x02).expect("an expiry") <= 98,
        "{message:?}"
    );
    // One without an expiry stays so.
    assert_eq!(publisher.publish(1, &topic, b"p"), 0);
    assert_eq!(queued.take().number(0x02), None);
}

/// What CONNACK announces; the default is not 0.
fn alias_maximum(client: &Client) -> u16 {
    let found = client.announced().into_iter().find(|(id, _)| *id == 0x22);
    let value = found.expect("a Topic Alias Maximum is announced").1;
    u16::from_be_bytes([value[0], value[1]])
}

#[test]
fn mqtt_3_3_2_8_and_9_an_alias_is_from_1_to_the_maximum() {
    let site = Site::new();
    let maximum = alias_maximum(&site.client(Version::V5, "c"));
    for alias in [0, maximum + 1, u16::MAX] {
        let mut client = site.client(Version::V5, "c");
        let mut property = vec![0x23];
        property.extend(alias.to_be_bytes());
        client.send_publish(0, 0, &site.topic("t"), &property, b"p");
        client.expect_end(&[0x94]);
    }
}

#[test]
fn mqtt_3_3_2_12_every_alias_up_to_the_maximum_is_taken() {
    let site = Site::new();
    let (mut publisher, mut subscriber) = pair(&site, Version::V5, &site.topic("#"), 1);
    let maximum = alias_maximum(&publisher);
    let property = |alias: u16| {
        let mut property = vec![0x23];
        property.extend(alias.to_be_bytes());
        property
    };
    for alias in 1..=maximum {
        let topic = site.topic(&alias.to_string());
        assert_eq!(
            publisher.publish_with(2, &topic, &property(alias), b"set"),
            0
        );
        let message = subscriber.take();
        // An alias is between two; it is not passed on.
        assert_eq!((message.topic, message.properties), (topic, vec![]));
    }
    for alias in (1..=maximum).rev() {
        assert_eq!(publisher.publish_with(2, "", &property(alias), b"used"), 0);
        let message = subscriber.take();
        assert_eq!(message.topic, site.topic(&alias.to_string()));
    }
    // Set again, it is the other topic's.
    assert_eq!(
        publisher.publish_with(0, &site.topic("new"), &property(1), b"set"),
        0
    );
    assert_eq!(publisher.publish_with(0, "", &property(1), b"used"), 0);
    for _ in 0..2 {
        assert_eq!(subscriber.take().topic, site.topic("new"));
    }
}

#[test]
fn mqtt_3_3_2_7_aliases_end_with_the_connection() {
    let site = Site::new();
    let mut publisher = site.kept(Version::V5, "publisher");
    assert_eq!(
        publisher.publish_with(2, &site.topic("t"), &[0x23, 0, 1], b"set"),
        0
    );
    publisher.disconnect();
    let mut publisher = site.kept(Version::V5, "publisher");
    assert!(publisher.is_present());
    publisher.send_publish(2, 1, "", &[0x23, 0, 1], b"used");
    publisher.expect_end(&[0x82, 0x94]);
    // Those of the broker too: a resumed session gets the whole topic again.
    let topic = site.topic("t");
    let mut publisher = site.client(Version::V5, "publisher");
    for round in 0..2 {
        let connect = site
            .connect(Version::V5, "subscriber")
            .kept()
            .alias_maximum(5);
        let mut subscriber = site.log_in(&connect);
        if round == 0 {
            assert_eq!(subscriber.subscribe(&topic, 1), 1);
        }
        assert_eq!(publisher.publish(1, &topic, b"p"), 0);
        assert_eq!(subscriber.take().topic, topic);
        subscriber.disconnect();
    }
}

#[test]
fn mqtt_3_3_2_13_and_14_a_response_topic_is_a_topic_name() {
    let site = Site::new();
    for bad in [&b"a/#"[..], b"+", b"\xc3\x28", b"a\0b"] {
        let mut client = site.client(Version::V5, "c");
        client.send_publish(0, 0, &site.topic("t"), &property_text(0x08, bad), b"p");
        client.expect_end(&[0x81, 0x82, 0x90]);
    }
}

#[test]
fn mqtt_3_3_4_1_each_qos_has_its_answer() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut client = site.client(version, "c");
        client.send_publish(0, 0, &topic, &[], b"p");
        client.send_publish(2, 17, &topic, &[], b"p");
        client.wire.expect("40020011");
        client.send_publish(4, 18, &topic, &[], b"p");
        client.wire.expect("50020012");
        client.wire.send_hex("62020012");
        client.wire.expect("70020012");
    }
}

/// 3.3.4-2 to -5: our choice is one delivery, at the highest QoS, with all identifiers.
#[test]
fn mqtt_3_3_4_2_to_5_overlapping_subscriptions_make_one_delivery() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("a/b");
        let filters = [("a/b", 0), ("a/+", 2), ("a/#", 1), ("+/b", 1)];
        let mut subscriber = site.client(version, "s");
        for ((rest, qos), id) in filters.into_iter().zip(1..) {
            assert_eq!(subscriber.subscribe_as(id, &site.topic(rest), qos), qos);
        }
        let mut publisher = site.client(version, "publisher");
        for qos in [2, 1, 0] {
            assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
            let message = subscriber.take();
            assert_eq!(message.qos, qos, "{version:?}");
            if version == Version::V5 {
                assert_eq!(message.subscription_ids(), [1, 2, 3, 4]);
            }
            subscriber.expect_only_marker(&mut publisher, qos, &topic);
        }
    }
}

#[test]
fn mqtt_3_3_4_3_subscription_identifiers_come_with_their_messages() {
    let site = Site::new();
    let mut client = site.client(Version::V5, "c");
    // The longest identifier has four bytes; the last subscription has none.
    let id = hex("0bffffff7f");
    assert_eq!(client.subscribe_all(&[(&site.topic("a"), 0)], &id), [0]);
    assert_eq!(client.subscribe_as(9, &site.topic("b"), 0), 0);
    assert_eq!(client.subscribe(&site.topic("c"), 0), 0);
    for (rest, expected) in [("a", vec![268_435_455]), ("b", vec![9]), ("c", vec![])] {
        assert_eq!(client.publish(0, &site.topic(rest), b"p"), 0);
        assert_eq!(client.take().subscription_ids(), expected);
    }
    // Subscribed again without one (or with another), that is what holds.
    assert_eq!(client.subscribe(&site.topic("a"), 0), 0);
    assert_eq!(client.subscribe_as(7, &site.topic("b"), 0), 0);
    for (rest, expected) in [("a", vec![]), ("b", vec![7])] {
        assert_eq!(client.publish(0, &site.topic(rest), b"p"), 0);
        assert_eq!(client.take().subscription_ids(), expected);
    }
    // They belong to the session, and retained messages have them too.
    let mut kept = site.kept(Version::V5, "kept");
    assert_eq!(kept.subscribe_as(11, &site.topic("k"), 1), 1);
    kept.disconnect();
    assert_eq!(client.retain(1, &site.topic("k"), b"p"), 0);
    let mut kept = site.kept(Version::V5, "kept");
    assert_eq!(kept.take().subscription_ids(), [11]);
    assert_eq!(kept.subscribe_as(12, &site.topic("k"), 1), 1);
    assert_eq!(kept.take().subscription_ids(), [12]);
}

#[test]
fn mqtt_3_3_4_6_a_client_sends_no_subscription_identifier() {
    let site = Site::new();
    let mut client = site.client(Version::V5, "c");
    client.send_publish(0, 0, &site.topic("t"), &[0x0b, 1], b"p");
    client.expect_end(&[0x82]);
}

#[test]
fn mqtt_3_3_4_7_more_than_receive_maximum_ends_the_connection() {
    let site = Site::alone(&[("TOLLGATE_MQTT_RECEIVE_MAXIMUM", "5")]);
    let mut client = site.client(Version::V5, "c");
    for id in 1..=5 {
        client.send_publish(4, id, &site.topic("t"), &[], b"p");
        assert_eq!(client.expect_ack(0x50, id), 0);
    }
    // Until they are released they count.
    client.send_publish(2, 6, &site.topic("t"), &[], b"p");
    client.expect_end(&[0x93]);
}

#[test]
fn mqtt_3_3_4_9_no_more_than_the_clients_receive_maximum_is_on_its_way() {
    let site = Site::new();
    let topic = site.topic("t");
    for maximum in [1, 3] {
        let connect = site.connect(Version::V5, "s").receive_maximum(maximum);
        let mut subscriber = site.log_in(&connect);
        assert_eq!(subscriber.subscribe(&topic, 2), 2);
        let mut publisher = site.client(Version::V5, "publisher");
        for number in 0..8_u8 {
            assert_eq!(publisher.publish(1 + number % 2, &topic, &[number]), 0);
        }
        let mut open: Vec<Message> = (0..maximum).map(|_| subscriber.next()).collect();
        let mut expected = 0;
        loop {
            // PINGRESP comes all the same [MQTT-3.3.4-10], and nothing before it but the answer.
            assert!(!subscriber.has_message(), "more than {maximum}");
            let first = open.remove(0);
            assert_eq!(first.payload, [expected]);
            subscriber.acknowledge(&first);
            expected += 1;
            if expected == 8 {
                break;
            }
            if usize::from(expected) + open.len() < 8 {
                open.push(subscriber.next());
            }
        }
        // QoS 0 is not counted.
        assert_eq!(publisher.publish(0, &topic, b"free"), 0);
        assert_eq!(subscriber.next().text(), "free");
    }
}

/// 3.4 to 3.7: the codes of acknowledgements, for what is unknown too.
#[test]
fn mqtt_3_6_2_1_and_3_7_2_1_unknown_ids_are_answered_with_their_code() {
    let site = Site::new();
    let mut client = site.client(Version::V5, "c");
    client.wire.send_hex("62020063");
    let pubcomp = client.answer(0x70);
    assert_eq!((&pubcomp[2..4], reason(&pubcomp)), (&[0, 0x63][..], 0x92));
    client.wire.send_hex("50020063");
    let pubrel = client.answer(0x62);
    assert_eq!((&pubrel[2..4], reason(&pubrel)), (&[0, 0x63][..], 0x92));
    // PUBACK and PUBCOMP for unknown ids end nothing.
    client.wire.send_hex("40020063 70020063");
    client.wire.expect_alive();
}

#[test]
fn mqtt_3_5_2_1_a_pubrec_with_an_error_ends_the_delivery() {
    let site = Site::new();
    let topic = site.topic("t");
    let connect = site.connect(Version::V5, "s").kept().receive_maximum(1);
    let mut subscriber = site.log_in(&connect);
    assert_eq!(subscriber.subscribe(&topic, 2), 2);
    let mut publisher = site.client(Version::V5, "publisher");
    for payload in ["refused", "next"] {
        assert_eq!(publisher.publish(2, &topic, payload.as_bytes()), 0);
    }
    let refused = subscriber.next();
    assert_eq!(refused.text(), "refused");
    let id = refused.id.to_be_bytes();
    subscriber.wire.send(&packet(0x50, &[id[0], id[1], 0x83]));
    // No PUBREL for it: the next packet is the next message.
    let next = Message::read(Version::V5, &subscriber.wire.packet());
    assert_eq!(next.text(), "next");
    subscriber.acknowledge(&next);
    subscriber.disconnect();
    // And it does not come again [MQTT-4.4.0-2].
    let mut subscriber = site.kept(Version::V5, "s");
    subscriber.expect_only_marker(&mut publisher, 2, &topic);
}

#[test]
fn mqtt_3_4_2_1_a_puback_with_an_error_is_one() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut subscriber = site.kept(Version::V5, "s");
    assert_eq!(subscriber.subscribe(&topic, 1), 1);
    let mut publisher = site.client(Version::V5, "publisher");
    assert_eq!(publisher.publish(1, &topic, b"refused"), 0);
    let id = subscriber.next().id.to_be_bytes();
    subscriber.wire.send(&packet(0x40, &[id[0], id[1], 0x97]));
    subscriber.disconnect();
    let mut subscriber = site.kept(Version::V5, "s");
    subscriber.expect_only_marker(&mut publisher, 1, &topic);
}
