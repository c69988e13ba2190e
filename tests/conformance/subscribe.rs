//! Chapters 3.8 to 3.11: SUBSCRIBE and UNSUBSCRIBE.

use crate::{
    common::{
        client::{Message, property_text},
        packets::{Connect, VERSIONS, Version, packet},
        wire::show,
    },
    site::{Site, create_app},
};

const NO_LOCAL: u8 = 0x04;

#[test]
fn mqtt_3_8_3_3_no_local_holds_back_ones_own_messages_alone() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let mut client = site.client(Version::V5, "c");
    let mut other = site.client(Version::V5, "other");
    assert_eq!(client.subscribe(&topic, 2 | NO_LOCAL), 2);
    assert_eq!(client.subscribe(&marker, 2), 2);
    for qos in [0, 1, 2] {
        assert_eq!(client.publish(qos, &topic, b"own"), 0);
        client.expect_only_own_marker(qos, &marker);
        assert_eq!(other.publish(qos, &topic, b"other"), 0);
        assert_eq!(client.take().text(), "other");
    }
    // A subscription without it, beside: then one's own come.
    assert_eq!(client.subscribe(&site.topic("+"), 0), 0);
    assert_eq!(client.publish(0, &topic, b"own"), 0);
    assert_eq!(client.take().text(), "own");
    // Retained messages, even of this client, are no forwarding: they are asked for.
    assert_eq!(client.unsubscribe(&[&site.topic("+"), &topic]), [0, 0]);
    assert_eq!(client.retain(1, &topic, b"held"), 0);
    client.expect_only_own_marker(1, &marker);
}

/// It belongs to the session: also what is published after a reconnect is one's own.
#[test]
fn mqtt_3_8_3_3_no_local_is_kept_with_the_session() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let mut client = site.kept(Version::V5, "c");
    assert_eq!(client.subscribe(&topic, 1 | NO_LOCAL), 1);
    assert_eq!(client.subscribe(&marker, 1), 1);
    client.disconnect();
    let mut client = site.kept(Version::V5, "c");
    assert_eq!(client.publish(1, &topic, b"own"), 0);
    client.expect_only_own_marker(1, &marker);
}

/// Before MQTT 5 there is no such bit.
#[test]
fn mqtt_311_3_8_3_4_reserved_bits_of_the_options_close() {
    let site = Site::new();
    for version in [Version::V311, Version::V31] {
        for options in [0x04, 0x08, 0x10, 0x80, 0x03] {
            let mut client = site.client(version, "c");
            let body = [0, 1, 0, 1, b'a', options];
            client.wire.send(&packet(0x82, &body));
            client.wire.expect_close();
        }
    }
}

#[test]
fn mqtt_3_8_3_5_reserved_bits_of_the_options_are_malformed() {
    let site = Site::new();
    for options in [0x40, 0x80, 0x30, 0x03] {
        let mut client = site.client(Version::V5, "c");
        let body = [0, 1, 0, 0, 1, b'a', options];
        client.wire.send(&packet(0x82, &body));
        client.expect_end(&[0x81, 0x82]);
    }
}

#[test]
fn mqtt_3_8_4_1_and_2_suback_has_the_id_of_subscribe() {
    for version in VERSIONS {
        let site = Site::new();
        let mut client = site.client(version, "c");
        for id in [1, 0x1234, u16::MAX] {
            let bytes = crate::common::packets::subscribe(version, id, &[(&site.topic("t"), 1)]);
            client.wire.send(&bytes);
            let suback = client.answer(0x90);
            assert_eq!(suback[2..4], id.to_be_bytes());
            assert_eq!(suback.last(), Some(&1));
        }
    }
}

#[test]
fn mqtt_3_8_4_3_the_same_filter_again_replaces_the_subscription() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut client = site.client(version, "c");
        for qos in [0, 2, 1] {
            assert_eq!(client.subscribe(&topic, qos), qos);
            assert_eq!(client.publish(2, &topic, b"p"), 0);
            assert_eq!(client.take().qos, qos, "{version:?}");
            // Once, not once for each SUBSCRIBE.
            client.expect_only_own_marker(2, &topic);
        }
        client.unsubscribe(&[&topic]);
        assert_eq!(client.subscribe(&site.topic("marker"), 1), 1);
        assert_eq!(client.publish(1, &topic, b"p"), 0);
        client.expect_only_own_marker(1, &site.topic("marker"));
    }
}

#[test]
fn mqtt_3_8_4_4_replacing_a_subscription_loses_nothing() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = site.client(version, "s");
        let mut publisher = site.client(version, "publisher");
        assert_eq!(subscriber.subscribe(&topic, 1), 1);
        assert_eq!(publisher.retain(1, &topic, b"held"), 0);
        assert_eq!(subscriber.take().text(), "held");
        let (mut live, mut retained) = (Vec::new(), 0);
        for number in 0..30_u8 {
            let bytes = crate::common::packets::subscribe(version, 999, &[(&topic, 1)]);
            subscriber.wire.send(&bytes);
            assert_eq!(publisher.publish(1, &topic, &[number]), 0);
        }
        let mut answers = 0;
        while live.len() < 30 || retained < 30 || answers < 30 {
            let bytes = subscriber.wire.packet();
            if bytes[0] == 0x90 {
                answers += 1;
                continue;
            }
            let message = Message::read(version, &bytes);
            subscriber.acknowledge(&message);
            if message.retain {
                assert_eq!(message.text(), "held");
                retained += 1;
            } else {
                live.push(message.payload[0]);
            }
        }
        assert_eq!(live, (0..30).collect::<Vec<_>>(), "{version:?}");
    }
}

#[test]
fn mqtt_3_8_4_5_to_7_every_filter_has_its_code_in_order() {
    for version in VERSIONS {
        let site = Site::new();
        let inside = site.topic("#");
        let token = create_app(&site.broker, &site.topic("narrow"), &[], &[&inside]);
        let mut client = site.log_in(&Connect::with_token(version, "c", &token));
        let (a, b) = (site.topic("a"), site.topic("b/+"));
        let filters = [
            (&*a, 2),
            ("elsewhere", 1),
            (&*b, 0),
            ("#", 0),
            (&*inside, 1),
        ];
        let refused = if version == Version::V5 { 0x87 } else { 0x80 };
        let codes = client.subscribe_all(&filters, &[]);
        assert_eq!(codes, [2, refused, 0, refused, 1], "{version:?}");
    }
}

/// As if they had come one by one: a filter that is there twice ends with the last options.
#[test]
fn mqtt_3_8_4_5_filters_of_one_packet_are_a_sequence() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut client = site.client(version, "c");
        let codes = client.subscribe_all(&[(&topic, 2), (&topic, 0)], &[]);
        assert_eq!(codes, [2, 0]);
        assert_eq!(client.publish(2, &topic, b"p"), 0);
        assert_eq!(client.take().qos, 0);
    }
}

#[test]
fn mqtt_3_8_4_8_the_qos_is_the_lower_of_both() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        let mut kept = site.kept(version, "kept");
        for granted in 0..=2 {
            let mut subscriber = site.client(version, "s");
            assert_eq!(subscriber.subscribe(&topic, granted), granted);
            for published in 0..=2 {
                assert_eq!(publisher.publish(published, &topic, b"p"), 0);
                assert_eq!(subscriber.take().qos, granted.min(published), "{version:?}");
                assert_eq!(publisher.retain(published, &site.topic("r"), b"p"), 0);
                assert_eq!(publisher.publish(1, &site.topic("behind"), b"p"), 0);
                assert_eq!(subscriber.subscribe(&site.topic("r"), granted), granted);
                assert_eq!(subscriber.take().qos, granted.min(published), "retained");
                subscriber.unsubscribe(&[&site.topic("r")]);
            }
        }
        // From a queue too: QoS 0 is not queued.
        for (rest, granted) in [("q/0", 0), ("q/1", 1), ("q/2", 2)] {
            assert_eq!(kept.subscribe(&site.topic(rest), granted), granted);
        }
        kept.disconnect();
        for rest in ["q/0", "q/1", "q/2"] {
            for published in 0..=2 {
                assert_eq!(publisher.publish(published, &site.topic(rest), b"p"), 0);
            }
        }
        let mut kept = site.kept(version, "kept");
        // QoS 0 between two workers may be so late that the client is back.
        let queued = std::iter::repeat_with(|| kept.take().qos).filter(|qos| *qos > 0);
        let seen: Vec<u8> = queued.take(4).collect();
        assert_eq!(seen, [1, 1, 1, 2], "{version:?}");
    }
}

#[test]
fn mqtt_3_10_4_1_to_5_unsubscribe_ends_what_is_named_exactly() {
    for version in VERSIONS {
        let site = Site::new();
        let (topic, marker) = (site.topic("a/b"), site.topic("marker"));
        let mut client = site.client(version, "c");
        for filter in [&topic, &site.topic("a/+"), &marker] {
            assert_eq!(client.subscribe(filter, 1), 1);
        }
        // Filters that match the same topics are others.
        let codes = client.unsubscribe(&[&site.topic("a/#"), &site.topic("A/b"), &topic]);
        let expected: &[u8] = if version == Version::V5 {
            &[0x11, 0x11, 0]
        } else {
            &[]
        };
        assert_eq!(codes, expected);
        assert_eq!(client.publish(1, &topic, b"p"), 0);
        assert_eq!(client.take().text(), "p", "by the other filter");
        client.unsubscribe(&[&site.topic("a/+")]);
        assert_eq!(client.publish(1, &topic, b"p"), 0);
        client.expect_only_own_marker(1, &marker);
        // Nothing left to end: it is answered all the same.
        let codes = client.unsubscribe(&[&topic]);
        let expected: &[u8] = if version == Version::V5 { &[0x11] } else { &[] };
        assert_eq!(codes, expected, "{version:?}");
    }
}

#[test]
fn mqtt_3_10_4_3_unsubscribe_leaves_what_is_on_its_way() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = site.kept(version, "s");
        assert_eq!(subscriber.subscribe(&topic, 2), 2);
        let mut publisher = site.client(version, "publisher");
        for qos in [1, 2] {
            assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
        }
        let open = [subscriber.next(), subscriber.next()];
        subscriber.unsubscribe(&[&topic]);
        subscriber.wire.reset();
        let mut subscriber = site.kept(version, "s");
        for message in open {
            let again = subscriber.take();
            assert_eq!((again.id, again.dup), (message.id, true), "{version:?}");
        }
    }
}

#[test]
fn mqtt_3_10_4_6_filters_of_one_unsubscribe_are_a_sequence() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.client(Version::V5, "c");
    assert_eq!(client.subscribe(&topic, 1), 1);
    assert_eq!(client.unsubscribe(&[&topic, &topic]), [0, 0x11]);
}

#[test]
fn mqtt_3_11_3_1_unsuback_is_exact() {
    let site = Site::new();
    for (version, expected) in [
        (Version::V31, "b002fffe"),
        (Version::V311, "b002fffe"),
        (Version::V5, "b004fffe0011"),
    ] {
        let mut client = site.client(version, "c");
        let bytes = crate::common::packets::unsubscribe(version, 0xfffe, &[&site.topic("t")]);
        client.wire.send(&bytes);
        assert_eq!(show(&client.answer(0xb0)), expected, "{version:?}");
    }
}

/// User properties of SUBSCRIBE have no meaning of ours on ordinary topics and do no harm.
#[test]
fn mqtt_3_8_2_user_properties_of_subscribe_are_taken() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.client(Version::V5, "c");
    let mut properties = property_text(0x26, b"name");
    properties.extend([0, 1, b'v']);
    assert_eq!(client.subscribe_all(&[(&topic, 1)], &properties), [1]);
    client.expect_only_own_marker(1, &topic);
}
