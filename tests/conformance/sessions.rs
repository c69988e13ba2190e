//! Chapters 4.1 to 4.6 and 4.9: session state, the flows of QoS, resending, order, flow control.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    common::{
        client::{Client, Message},
        packets::{VERSIONS, Version, packet},
        wire::show,
    },
    site::{Site, in_time},
};

fn kept_subscriber(site: &Site, version: Version, topic: &str) -> Client {
    let mut subscriber = site.kept(version, "s");
    assert_eq!(subscriber.subscribe(topic, 2), 2);
    subscriber
}

#[test]
fn mqtt_4_1_0_1_state_is_kept_while_the_connection_is_open() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        // Kept for no longer than its connection, which is open.
        let mut client = site.client(version, "c");
        assert_eq!(client.subscribe(&topic, 2), 2);
        client.send_publish(4, 7, &topic, &[], b"p");
        assert_eq!(client.expect_ack(0x50, 7), 0);
        let message = client.next();
        client.wire.expect_alive();
        client.acknowledge(&message);
        client.wire.send_hex("62020007");
        assert_eq!(client.expect_ack(0x70, 7), 0);
        client.expect_only_own_marker(2, &topic);
    }
}

#[test]
fn mqtt_4_1_0_2_a_session_ends_when_its_time_is_over() {
    let site = Site::new();
    let connect = site.connect(Version::V5, "c").kept_for(1);
    site.log_in(&connect).disconnect();
    let begin = Instant::now();
    // A second one, of the same length and later, shows by its will that the time is over.
    let topic = site.topic("will");
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&topic, 1), 1);
    let mut later = site
        .connect(Version::V5, "later")
        .kept_for(1)
        .will_delay(60);
    later.will = Some((1, false, &topic, b"over"));
    site.log_in(&later).wire.reset();
    assert_eq!(watcher.take().text(), "over");
    assert!(begin.elapsed().as_millis() >= 900);
    assert!(!site.kept(Version::V5, "c").is_present());
}

#[test]
fn mqtt_4_3_1_1_qos_0_is_sent_once_without_id() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = kept_subscriber(&site, version, &topic);
        assert_eq!(subscriber.publish(0, &topic, b"p"), 0);
        let message = subscriber.next();
        assert_eq!((message.qos, message.dup, message.id), (0, false, 0));
        subscriber.wire.reset();
        let mut subscriber = site.kept(version, "s");
        subscriber.expect_only_own_marker(0, &topic);
    }
}

/// Delivery at QoS 1 and 2, byte by byte.
#[test]
fn mqtt_4_3_2_and_4_3_3_the_broker_as_sender() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = kept_subscriber(&site, version, &topic);
        let mut publisher = site.client(version, "publisher");
        let empty_block = if version == Version::V5 { "00" } else { "" };
        for (qos, first_byte) in [(1, "32"), (2, "34")] {
            assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
            let bytes = subscriber.wire.packet();
            let id = show(&Message::read(version, &bytes).id.to_be_bytes());
            let length = show(&bytes[1..2]);
            let topic = format!("00{:02x}{}", topic.len(), show(topic.as_bytes()));
            let expected = format!("{first_byte}{length}{topic}{id}{empty_block}70");
            assert_eq!(show(&bytes), expected, "{version:?}");
            if qos == 1 {
                subscriber.wire.send_hex(&format!("4002{id}"));
                continue;
            }
            subscriber.wire.send_hex(&format!("5002{id}"));
            subscriber.wire.expect(&format!("6202{id}")); // [MQTT-4.3.3-4]
            // Sent again it is answered again, and the message is not.
            subscriber.wire.send_hex(&format!("5002{id}"));
            subscriber.wire.expect(&format!("6202{id}"));
            subscriber.wire.send_hex(&format!("7002{id}"));
        }
        subscriber.expect_only_marker(&mut publisher, 2, &topic);
    }
}

/// Publishes of a client at QoS 1: the id is free again after PUBACK, DUP or not.
#[test]
fn mqtt_4_3_2_4_and_5_the_broker_as_receiver_of_qos_1() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = kept_subscriber(&site, version, &topic);
        let mut publisher = site.client(version, "publisher");
        for flags in [2, 2, 10] {
            publisher.send_publish(flags, 5, &topic, &[], b"p");
            assert_eq!(publisher.expect_ack(0x40, 5), 0);
            assert_eq!(subscriber.take().text(), "p");
        }
        subscriber.expect_only_marker(&mut publisher, 1, &topic);
    }
}

#[test]
fn mqtt_4_3_3_8_to_12_the_broker_as_receiver_of_qos_2() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = kept_subscriber(&site, version, &topic);
        let mut publisher = site.kept(version, "publisher");
        publisher.send_publish(4, 5, &topic, &[], b"first");
        assert_eq!(publisher.expect_ack(0x50, 5), 0);
        assert_eq!(subscriber.take().text(), "first");
        // Again, with DUP and without, also after a reconnect: one message.
        for flags in [12, 4] {
            publisher.send_publish(flags, 5, &topic, &[], b"first");
            assert_eq!(publisher.expect_ack(0x50, 5), 0);
        }
        publisher.wire.reset();
        let mut publisher = site.kept(version, "publisher");
        publisher.send_publish(12, 5, &topic, &[], b"first");
        assert_eq!(publisher.complete(2, 5), 0);
        // PUBREL again is answered again.
        publisher.wire.send_hex("62020005");
        let _ = publisher.expect_ack(0x70, 5);
        // Now the id means a new message.
        publisher.send_publish(4, 5, &topic, &[], b"second");
        assert_eq!(publisher.complete(2, 5), 0);
        assert_eq!(subscriber.take().text(), "second");
        subscriber.expect_only_marker(&mut publisher, 2, &topic);
    }
}

/// Refused, the id is free at once.
#[test]
fn mqtt_4_3_3_9_after_a_pubrec_with_an_error_the_id_is_free() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut subscriber = kept_subscriber(&site, Version::V5, &topic);
    let mut publisher = site.client(Version::V5, "publisher");
    publisher.send_publish(4, 5, "$closed/t", &[], b"p");
    assert!(publisher.expect_ack(0x50, 5) >= 0x80);
    publisher.send_publish(4, 5, &topic, &[], b"p");
    assert_eq!(publisher.complete(2, 5), 0);
    assert_eq!(subscriber.take().text(), "p");
}

#[test]
fn mqtt_4_3_3_7_and_13_what_was_sent_does_not_expire() {
    in_time(|expiry_s| {
        let site = Site::new();
        let (topic, timer) = (site.topic("t"), site.topic("timer"));
        let mut subscriber = kept_subscriber(&site, Version::V5, &topic);
        let mut publisher = site.client(Version::V5, "publisher");
        let soon = [&[0x02][..], &expiry_s.to_be_bytes()].concat();
        let (begin, expiry) = (Instant::now(), Duration::from_secs(expiry_s.into()));
        for flags in [4, 4, 2] {
            assert_eq!(publisher.publish_with(flags, &topic, &soon, b"p"), 0);
        }
        let all = (0..3).map_while(|_| subscriber.next_within(expiry));
        let open: Vec<_> = all.collect();
        if begin.elapsed() >= expiry {
            return false;
        }
        assert_eq!(open.len(), 3, "{open:?}");
        subscriber
            .wire
            .send(&packet(0x50, &open[1].id.to_be_bytes()));
        assert_eq!(subscriber.expect_ack(0x62, open[1].id), 0);
        subscriber.wire.reset();
        // A retained message of the same age shows that the time is over.
        assert_eq!(publisher.publish_with(3, &timer, &soon, b"p"), 0);
        while site.retained(&timer) != [].into() {}
        let mut subscriber = site.kept(Version::V5, "s");
        let again = subscriber.next();
        assert_eq!((again.id, again.dup, again.qos), (open[0].id, true, 2));
        assert_eq!(subscriber.expect_ack(0x62, open[1].id), 0);
        subscriber
            .wire
            .send(&packet(0x70, &open[1].id.to_be_bytes()));
        subscriber.acknowledge(&again);
        true
    });
}

/// Resent after a reconnect, with the same ids, in order; never on a connection that lasts.
#[test]
fn mqtt_4_4_0_1_open_handshakes_go_on_after_a_reconnect_only() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscriber = kept_subscriber(&site, version, &topic);
        let mut publisher = site.client(version, "publisher");
        for (qos, payload) in [(2, b"a"), (1, b"b"), (2, b"c"), (1, b"d")] {
            assert_eq!(publisher.publish(qos, &topic, payload), 0);
        }
        let open: Vec<_> = (0..4).map(|_| subscriber.next()).collect();
        subscriber
            .wire
            .send(&packet(0x50, &open[0].id.to_be_bytes()));
        assert_eq!(subscriber.expect_ack(0x62, open[0].id), 0);
        assert!(!subscriber.has_message());
        for _ in 0..2 {
            subscriber.wire.reset();
            subscriber = site.kept(version, "s");
            // [MQTT-4.3.3-6]: PUBREL, not the message.
            let mut released = false;
            let mut again = Vec::new();
            while again.len() < 3 || !released {
                let bytes = subscriber.wire.packet();
                if bytes[0] == 0x62 {
                    assert_eq!(bytes[2..4], open[0].id.to_be_bytes());
                    released = true;
                    continue;
                }
                again.push(Message::read(version, &bytes));
            }
            let expected: Vec<Message> = open[1..]
                .iter()
                .map(|message| Message {
                    dup: true,
                    ..message.clone()
                })
                .collect();
            assert_eq!(again, expected, "{version:?} [MQTT-4.6.0-1]");
        }
        subscriber
            .wire
            .send(&packet(0x70, &open[0].id.to_be_bytes()));
        for message in &open[1..] {
            subscriber.acknowledge(message);
        }
        subscriber.expect_only_marker(&mut publisher, 2, &topic);
    }
}

/// A reconnect while every place is taken: what waits stays behind what is sent again.
#[test]
fn mqtt_4_6_0_1_and_4_9_0_2_the_queue_stays_behind_what_is_sent_again() {
    let site = Site::new();
    let topic = site.topic("t");
    let connect = || site.connect(Version::V5, "s").kept().receive_maximum(2);
    let mut subscriber = site.log_in(&connect());
    assert_eq!(subscriber.subscribe(&topic, 2), 2);
    let mut publisher = site.client(Version::V5, "publisher");
    for number in 0..6_u8 {
        assert_eq!(publisher.publish(1 + number % 2, &topic, &[number]), 0);
    }
    let open = [subscriber.next(), subscriber.next()];
    subscriber.wire.reset();
    let mut subscriber = site.log_in(&connect());
    for message in open {
        assert_eq!(
            subscriber.next(),
            Message {
                dup: true,
                ..message.clone()
            }
        );
    }
    assert!(
        !subscriber.has_message(),
        "there are two places [MQTT-4.9.0-1]"
    );
    // Fewer places than are open: still no more than the client takes now.
    subscriber.wire.reset();
    let mut subscriber = site.log_in(&site.connect(Version::V5, "s").kept().receive_maximum(1));
    for number in 0..6 {
        let message = subscriber.next();
        assert_eq!(message.payload, [number]);
        assert!(!subscriber.has_message());
        subscriber.acknowledge(&message);
    }
}

#[test]
fn mqtt_4_5_0_1_every_session_that_subscribed_gets_it() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut subscribers = Vec::new();
    for (at, version) in VERSIONS.into_iter().cycle().take(30).enumerate() {
        let mut subscriber = site.client(version, &format!("s{at}"));
        let filter = [topic.clone(), site.topic("+"), site.topic("#")][at % 3].clone();
        let qos = u8::try_from(at / 3 % 3).expect("small");
        assert_eq!(subscriber.subscribe(&filter, qos), qos);
        subscribers.push(subscriber);
    }
    let mut publisher = site.client(Version::V5, "publisher");
    for qos in 0..3 {
        assert_eq!(publisher.publish(qos, &topic, &[qos]), 0);
    }
    for subscriber in &mut subscribers {
        let payloads: BTreeSet<u8> = (0..3).map(|_| subscriber.take().payload[0]).collect();
        assert_eq!(payloads, [0, 1, 2].into());
    }
}

/// Of one publisher on one topic at one QoS, to subscribers of any QoS, in one burst.
#[test]
fn mqtt_4_6_0_5_messages_come_in_the_order_they_were_published() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut subscribers: Vec<Client> = ["a", "b", "c"]
            .into_iter()
            .zip(0..)
            .map(|(id, qos)| {
                let mut subscriber = site.kept(version, id);
                assert_eq!(subscriber.subscribe(&topic, qos), qos);
                subscriber
            })
            .collect();
        let mut publisher = site.client(version, "publisher");
        for qos in 0..3_u8 {
            let mut bytes = Vec::new();
            for number in 0..90_u8 {
                let id = u16::from(number) + 1;
                bytes.extend(crate::common::client::publish_bytes(
                    version,
                    qos << 1,
                    id,
                    &topic,
                    &[],
                    &[number],
                ));
            }
            publisher.wire.send(&bytes);
            // [MQTT-4.6.0-2] and -3 hold for the broker's acks as well.
            for id in 1..=90 {
                match qos {
                    0 => {}
                    1 => assert_eq!(publisher.expect_ack(0x40, id), 0),
                    _ => assert_eq!(publisher.expect_ack(0x50, id), 0),
                }
            }
            for id in 1..=90_u16 {
                if qos == 2 {
                    publisher.wire.send(&packet(0x62, &id.to_be_bytes()));
                }
            }
            for id in 1..=90 {
                if qos == 2 {
                    assert_eq!(publisher.expect_ack(0x70, id), 0);
                }
            }
            for subscriber in &mut subscribers {
                let seen: Vec<u8> = (0..90).map(|_| subscriber.take().payload[0]).collect();
                assert_eq!(seen, (0..90).collect::<Vec<_>>(), "{version:?} QoS {qos}");
            }
        }
    }
}

#[test]
fn mqtt_4_6_0_4_pubrels_leave_in_the_order_of_pubrecs() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut subscriber = kept_subscriber(&site, Version::V5, &topic);
    let mut publisher = site.client(Version::V5, "publisher");
    for _ in 0..10 {
        assert_eq!(publisher.publish(2, &topic, b"p"), 0);
    }
    let open: Vec<Message> = (0..10).map(|_| subscriber.next()).collect();
    let mut bytes = Vec::new();
    for message in open.iter().rev() {
        bytes.extend(packet(0x50, &message.id.to_be_bytes()));
    }
    subscriber.wire.send(&bytes);
    for message in open.iter().rev() {
        assert_eq!(subscriber.expect_ack(0x62, message.id), 0);
        subscriber
            .wire
            .send(&packet(0x70, &message.id.to_be_bytes()));
    }
}

/// A full window holds back deliveries, not answers.
#[test]
fn mqtt_4_9_0_3_a_full_window_delays_nothing_else() {
    let site = Site::new();
    let (topic, other) = (site.topic("t"), site.topic("other"));
    let mut client = site.log_in(&site.connect(Version::V5, "c").receive_maximum(1));
    assert_eq!(client.subscribe(&topic, 1), 1);
    for _ in 0..3 {
        assert_eq!(client.publish(1, &topic, b"p"), 0);
    }
    let first = client.next();
    assert_eq!(client.subscribe(&other, 0), 0);
    assert_eq!(client.publish(2, &other, b"p"), 0);
    assert_eq!(client.next().topic, other);
    assert_eq!(client.unsubscribe(&[&other]), [0]);
    client.wire.expect_alive();
    client.acknowledge(&first);
    assert_eq!(client.take().text(), "p");
}
