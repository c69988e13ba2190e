//! Chapters 1.5 and 2: strings, numbers, headers, packet ids.

use std::collections::BTreeSet;

use crate::{
    common::{
        client::{Message, property_text, publish_bytes, user_property},
        packets::{VERSIONS, Version, packet, property_block, text},
        wire::{CLOSE_LIMIT, hex},
    },
    site::Site,
};

/// Ill-formed UTF-8: half a sequence, overlong forms, surrogates, above U+10FFFF; and U+0000.
const BAD_TEXT: [&[u8]; 7] = [
    b"\xc3\x28",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"a\0b",
];

fn bytes_with_length(out: &mut Vec<u8>, bytes: &[u8]) {
    crate::common::packets::binary(out, bytes);
}

/// The four packets of a connected client that hold text outside of properties.
fn packets_with(version: Version, bad: &[u8]) -> [Vec<u8>; 3] {
    let v5 = version == Version::V5;
    let mut publish = Vec::new();
    bytes_with_length(&mut publish, bad);
    let mut subscribe = vec![0, 1];
    let mut unsubscribe = vec![0, 1];
    if v5 {
        publish.push(0);
        subscribe.push(0);
        unsubscribe.push(0);
    }
    bytes_with_length(&mut subscribe, bad);
    subscribe.push(0);
    bytes_with_length(&mut unsubscribe, bad);
    [
        packet(0x30, &publish),
        packet(0x82, &subscribe),
        packet(0xa2, &unsubscribe),
    ]
}

#[test]
fn mqtt_1_5_4_1_and_2_text_that_is_none_closes() {
    let site = Site::new();
    for version in VERSIONS {
        for bad in BAD_TEXT {
            for bytes in packets_with(version, bad) {
                let mut client = site.client(version, "c");
                client.wire.send(&bytes);
                client.expect_end(&[0x81, 0x82, 0x8f, 0x90]);
            }
        }
    }
}

#[test]
fn mqtt_1_5_4_1_and_2_and_1_5_7_1_text_of_properties_is_checked_too() {
    let site = Site::new();
    for bad in BAD_TEXT {
        let mut pair_name = property_text(0x26, bad);
        text(&mut pair_name, "v");
        let mut pair_value = property_text(0x26, b"n");
        bytes_with_length(&mut pair_value, bad);
        for property in [
            property_text(0x03, bad),
            property_text(0x08, bad),
            pair_name,
            pair_value,
        ] {
            let mut client = site.client(Version::V5, "c");
            client.send_publish(0, 0, &site.topic("t"), &property, b"p");
            client.expect_end(&[0x81, 0x82, 0x90]);
        }
    }
}

#[test]
fn mqtt_1_5_4_1_text_of_connect_is_checked_before_it_is_believed() {
    let site = Site::new();
    for (version, head) in [
        (Version::V311, "00044d5154540482003c"),
        (Version::V5, "00044d5154540582003c00"),
    ] {
        for bad in BAD_TEXT {
            for is_client_id in [true, false] {
                let mut body = hex(head);
                bytes_with_length(&mut body, if is_client_id { bad } else { b"c" });
                bytes_with_length(
                    &mut body,
                    if is_client_id {
                        site.token.as_bytes()
                    } else {
                        bad
                    },
                );
                let mut wire = site.broker.wire();
                wire.send(&packet(0x10, &body));
                if let Some(connack) = wire.packet_or_close(CLOSE_LIMIT) {
                    assert_eq!((version, connack[0]), (Version::V5, 0x20));
                    assert!([0x81, 0x82, 0x85].contains(&connack[3]), "{connack:02x?}");
                    wire.expect_close();
                }
            }
        }
    }
}

#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_a_character() {
    for version in VERSIONS {
        let site = Site::new();
        let (plain, marked) = (site.topic("t"), site.topic("\u{feff}t"));
        let mut client = site.client(version, "c");
        assert_eq!(client.subscribe(&marked, 1), 1);
        assert_eq!(client.publish(1, &plain, b"p"), 0);
        client.expect_only_own_marker(1, &marked);
    }
}

#[test]
fn mqtt_1_5_5_1_lengths_have_no_bytes_to_spare() {
    let site = Site::new();
    // The property length 0 in two bytes, a subscription identifier in two, lengths of five.
    for bad in [
        "3006 0001 61 8000 70",
        "8209 0001 03 0b8100 0001 61 00",
        "3009 0001 61 8080808001 70",
        "30 8080808001",
    ] {
        let mut client = site.client(Version::V5, "c");
        client.wire.send_hex(bad);
        client.expect_end(&[0x81, 0x82, 0x95]);
    }
}

#[test]
fn mqtt_2_1_3_1_reserved_flags_are_what_the_table_says() {
    let site = Site::new();
    for version in [Version::V311, Version::V5] {
        for (kind, right) in [
            (4, 0),
            (5, 0),
            (6, 2),
            (7, 0),
            (8, 2),
            (10, 2),
            (12, 0),
            (14, 0),
        ] {
            for flags in (0..16).filter(|flags| *flags != right) {
                let body: &[u8] = match kind {
                    4..=7 => &[0, 1],
                    _ => &[],
                };
                let mut client = site.client(version, "c");
                client.wire.send(&packet(kind << 4 | flags, body));
                client.expect_end(&[0x81]);
            }
        }
    }
}

#[test]
fn mqtt_2_2_1_4_the_broker_uses_ids_that_are_free_and_not_0() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut subscriber = site.log_in(&site.connect(Version::V5, "s").receive_maximum(500));
    assert_eq!(subscriber.subscribe(&topic, 2), 2);
    let mut publisher = site.client(Version::V5, "publisher");
    let mut open = Vec::new();
    for round in 0..40_u8 {
        for qos in [1, 2] {
            assert_eq!(publisher.publish(qos, &topic, &[round]), 0);
            open.push(subscriber.next());
        }
        let ids: BTreeSet<u16> = open.iter().map(|message| message.id).collect();
        assert_eq!(ids.len(), open.len(), "an id is used twice");
        assert!(!ids.contains(&0));
        if open.len() > 40 {
            // Those in the middle first: ids become free in any order.
            let message = open.swap_remove(17);
            subscriber.acknowledge(&message);
            let message = open.remove(0);
            subscriber.acknowledge(&message);
        }
    }
}

/// After 65,535 messages it begins again, without 0.
#[test]
fn mqtt_2_2_1_4_ids_go_round() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.client(Version::V311, "c");
    assert_eq!(client.subscribe(&topic, 1), 1);
    let batch: Vec<u8> = (1..=50)
        .flat_map(|id| publish_bytes(Version::V311, 2, id, &topic, &[], b"p"))
        .collect();
    let mut last = 0;
    let mut rounds = 0;
    for _ in 0..1_400 {
        client.wire.send(&batch);
        let (mut acks, mut messages) = (0, 0);
        let mut answers = Vec::new();
        while acks < 50 || messages < 50 {
            let bytes = client.wire.packet();
            if bytes[0] == 0x40 {
                acks += 1;
                continue;
            }
            messages += 1;
            let id = Message::read(Version::V311, &bytes).id;
            assert_ne!(id, 0);
            rounds += u32::from(id < last);
            last = id;
            answers.extend(packet(0x40, &id.to_be_bytes()));
        }
        client.wire.send(&answers);
    }
    assert_eq!(rounds, 1, "70,000 messages go round once");
}

#[test]
fn mqtt_2_2_1_5_and_6_acks_have_the_id_of_what_they_answer() {
    for version in VERSIONS {
        let site = Site::new();
        let mut client = site.client(version, "c");
        for id in [1, 0x0100, 0x7fff, u16::MAX] {
            client.send_publish(2, id, &site.topic("t"), &[], b"p");
            assert_eq!(client.expect_ack(0x40, id), 0);
            client.send_publish(4, id, &site.topic("t"), &[], b"p");
            assert_eq!(client.complete(2, id), 0);
        }
    }
}

/// A property block that fills the packet, with many pairs: none is lost.
#[test]
fn mqtt_2_2_2_2_many_properties_are_passed_on() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.client(Version::V5, "c");
    assert_eq!(client.subscribe(&topic, 0), 0);
    let mut properties = Vec::new();
    for number in 0..64 {
        properties.extend(user_property(
            &format!("name {number}"),
            &"v".repeat(number),
        ));
    }
    let mut block = Vec::new();
    property_block(&mut block, &properties);
    assert!(block[0] & 0x80 != 0, "its length needs two bytes");
    assert_eq!(client.publish_with(0, &topic, &properties, b"p"), 0);
    let message = client.next();
    assert_eq!(
        message.properties,
        crate::common::client::read_properties(&properties)
    );
}
