//! QoS 1 and 2 to the client, and sessions that come back.

use crate::common::packets::{Connect, VERSIONS, Version, packet};
use crate::site::{Client, site};

/// A session that is kept for an hour.
fn keeps<'a>(version: Version, name: &'a str, token: &'a str) -> Connect<'a> {
    Connect {
        clean: false,
        properties: vec![0x11, 0, 0, 14, 16],
        ..Connect::with_token(version, name, token)
    }
}

#[test]
fn mqtt_3_8_4_8_each_copy_has_the_lower_qos_of_message_and_subscription() {
    for version in VERSIONS {
        let (broker, token) = site();
        let mut publisher = Client::connect(&broker, version, "p", &token);
        let mut subscribers: Vec<Client> = (0..3_u8)
            .map(|qos| {
                let name = format!("s{qos}");
                let mut client = Client::connect(&broker, version, &name, &token);
                assert_eq!(client.subscribe(&[("t/#", qos)]), [qos]);
                client
            })
            .collect();
        for qos in 0..3_u8 {
            publisher.publish(qos << 1, "t/x", &qos.to_string());
        }
        for (granted, client) in (0_u8..).zip(&mut subscribers) {
            for qos in 0..3_u8 {
                client.expect(granted.min(qos), "t/x", &qos.to_string());
            }
        }
    }
}

#[test]
fn mqtt_3_3_4_9_no_more_is_sent_than_the_receive_maximum() {
    let (broker, token) = site();
    let connect = Connect {
        properties: vec![0x21, 0, 2],
        ..Connect::with_token(Version::V5, "s", &token)
    };
    let (mut client, _) = Client::with(&broker, &connect);
    client.subscribe(&[("t", 1), ("marker", 0)]);
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    for n in 0..10 {
        publisher.publish(2, "t", &n.to_string());
    }
    let first = client.next_unacknowledged();
    let second = client.next_unacknowledged();
    client.expect_nothing_before(&mut publisher, "marker");
    client.acknowledge(&second);
    client.acknowledge(&first);
    for n in 2..10 {
        client.expect(1, "t", &n.to_string());
    }
}

#[test]
fn mqtt_4_4_0_1_what_is_unacknowledged_is_sent_again_in_order_with_its_id() {
    for version in VERSIONS {
        let (broker, token) = site();
        let connect = keeps(version, "s", &token);
        let (mut client, connack) = Client::with(&broker, &connect);
        assert_eq!(connack[2], 0, "no session before");
        client.subscribe(&[("t", 2)]);
        let mut publisher = Client::connect(&broker, version, "p", &token);
        for n in 0..4_u8 {
            publisher.publish(2 + 2 * (n % 2), "t", &n.to_string());
        }
        let sent: Vec<_> = (0..4).map(|_| client.next_unacknowledged()).collect();
        client.acknowledge(&sent[0]);
        client.disconnect();
        publisher.publish(2, "t", "while away");
        publisher.publish(0, "t", "lost: QoS 0 is not kept");
        broker.wait_metric("tollgate_deliveries_dropped_total{reason=\"gone\"}", 1.0);
        let (mut client, connack) = Client::with(&broker, &connect);
        // MQTT 3.1 has no word for it.
        let present = u8::from(version != Version::V31);
        assert_eq!(connack[2], present, "the session is there");
        let again: Vec<_> = (1..4).map(|_| client.next_unacknowledged()).collect();
        let away = client.next_unacknowledged();
        for (before, again) in sent[1..].iter().zip(&again) {
            assert!(again.dup, "{again:?}");
            assert_eq!((again.id, &again.payload), (before.id, &before.payload));
            client.acknowledge(again);
        }
        assert_eq!((away.dup, away.payload.as_str()), (false, "while away"));
        client.acknowledge(&away);
        client.subscribe(&[("marker", 0)]);
        client.expect_nothing_before(&mut publisher, "marker");
    }
}

#[test]
fn mqtt_4_3_3_a_released_message_goes_on_with_pubrel() {
    let (broker, token) = site();
    let connect = keeps(Version::V5, "s", &token);
    let (mut client, _) = Client::with(&broker, &connect);
    client.subscribe(&[("t", 2)]);
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(4, "t", "once");
    let got = client.next_unacknowledged();
    let id = got.id.to_be_bytes();
    client.wire.send(&packet(0x50, &id));
    assert_eq!(client.wire.packet()[0], 0x62);
    client.disconnect();
    let (mut client, _) = Client::with(&broker, &connect);
    let pubrel = client.wire.packet();
    assert_eq!((pubrel[0], &pubrel[2..4]), (0x62, &id[..]));
    client.wire.send(&packet(0x70, &id));
    client.subscribe(&[("marker", 0)]);
    client.expect_nothing_before(&mut publisher, "marker");
}

#[test]
fn a_message_sent_to_itself_at_every_qos_comes_back() {
    let (broker, token) = site();
    let mut client = Client::connect(&broker, Version::V311, "s", &token);
    client.subscribe(&[("t", 2)]);
    client.publish(0, "t", "0");
    client.expect(0, "t", "0");
    // The acknowledgement may come before or behind the message.
    client.wire.send(&crate::common::packets::publish(
        Version::V311,
        1,
        9,
        "t",
        b"1",
    ));
    let mut types = [client.wire.packet()[0] >> 4, client.wire.packet()[0] >> 4];
    types.sort_unstable();
    assert_eq!(types, [3, 4]);
}

#[test]
fn p_41_the_queue_takes_the_oldest_and_says_what_it_drops() {
    let (broker, token) = crate::site::site_with(&[("TOLLGATE_LIMITS_QUEUE_MESSAGES_MAX", "3")]);
    let connect = keeps(Version::V5, "s", &token);
    let (mut client, _) = Client::with(&broker, &connect);
    client.subscribe(&[("t", 1)]);
    client.disconnect();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    for n in 0..5 {
        publisher.publish(2, "t", &n.to_string());
    }
    let full = "tollgate_deliveries_dropped_total{reason=\"queue_full\"}";
    broker.wait_metric(full, 2.0);
    let (mut client, _) = Client::with(&broker, &connect);
    for n in 0..3 {
        client.expect(1, "t", &n.to_string());
    }
    publisher.publish(2, "t", "again room");
    client.expect(1, "t", "again room");
}
