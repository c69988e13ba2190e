//! Chapters 3.12, 3.14, 3.15 and 4.12, 4.13: PING, DISCONNECT, AUTH, and errors.

use crate::{
    common::{
        client::property_text,
        packets::{Connect, VERSIONS, Version, reason},
        wire::show,
    },
    site::Site,
};

#[test]
fn mqtt_3_12_4_1_every_pingreq_is_answered() {
    let site = Site::new();
    for version in VERSIONS {
        let mut client = site.client(version, "c");
        client.wire.send(&[0xc0, 0].repeat(50));
        for _ in 0..50 {
            client.wire.expect("d000");
        }
    }
}

/// A client that is not let in hears CONNACK or nothing: never DISCONNECT.
#[test]
fn mqtt_3_14_0_1_no_disconnect_before_connack() {
    let site = Site::new();
    let refused = [
        Connect::with_token(Version::V5, "c", "wrong").encode(),
        Connect::anonymous(Version::V5, "").encode(),
        b"\xe0\x00".to_vec(),
        b"\x10\x00".to_vec(),
    ];
    for bytes in refused {
        let mut wire = site.broker.wire();
        wire.send(&bytes);
        for packet in wire.packets_until_close() {
            assert_eq!(packet[0], 0x20, "{}", show(&packet));
        }
    }
}

#[test]
fn mqtt_3_14_1_1_disconnect_has_no_flags_and_no_body_before_mqtt_5() {
    let site = Site::new();
    for version in VERSIONS {
        for flags in 1..16 {
            let mut client = site.client(version, "c");
            client.wire.send(&[0xe0 | flags, 0]);
            client.expect_end(&[0x81, 0x82]);
        }
    }
    let mut client = site.client(Version::V311, "c");
    client.wire.send_hex("e00100");
    client.wire.expect_close();
}

/// The last packet: nothing behind it is handled, and the broker closes.
#[test]
fn mqtt_3_14_4_1_and_2_nothing_behind_disconnect_is_handled() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut watcher = site.client(version, "watcher");
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        let mut client = site.client(version, "c");
        client.wire.send_hex("e000");
        client.send_publish(0, 0, &topic, &[], b"late");
        client.wire.expect_close();
        watcher.expect_only_own_marker(1, &topic);
    }
}

/// Every form that MQTT 5 allows, with and without reason and properties.
#[test]
fn mqtt_3_14_2_1_disconnects_of_clients_are_understood() {
    let site = Site::new();
    let table = [
        "e000",
        "e00100",
        "e00104",
        "e0020000",
        "e00180",
        "e00181",
        "e00182",
        "e00183",
        "e00190",
        "e00193",
        "e00194",
        "e00195",
        "e00196",
        "e00197",
        "e00199",
        "e007 00 05 1100000000",
        "e006 00 04 1f0001 78",
        "e009 00 07 26 0001 61 0001 62",
    ];
    for bytes in table {
        let mut client = site.client(Version::V5, "c");
        client.wire.send_hex(bytes);
        client.wire.expect_close();
    }
}

/// The end of the session can be said at the end; it cannot be begun there.
#[test]
fn mqtt_3_14_2_2_disconnect_can_change_the_expiry() {
    let site = Site::new();
    for (bytes, is_kept) in [
        ("e000", true),
        ("e0070005 1100000000", false),
        ("e0070005 110000000a", true),
    ] {
        let mut client = site.log_in(&site.connect(Version::V5, "c").kept_for(30));
        client.wire.send_hex(bytes);
        client.wire.expect_close();
        let again = site.log_in(&site.connect(Version::V5, "c").kept_for(0));
        assert_eq!(again.is_present(), is_kept, "{bytes}");
        again.disconnect();
    }
    let mut client = site.client(Version::V5, "c");
    client.wire.send_hex("e0070005 110000000a"); // P-49
    client.expect_end(&[0x82]);
}

/// What the broker says at the end has no session expiry.
#[test]
fn mqtt_3_14_2_2_the_brokers_disconnect_holds_no_expiry() {
    let site = Site::new();
    let mut old = site.kept(Version::V5, "c");
    let _new = site.kept(Version::V5, "c");
    let packet = old.answer(0xe0);
    assert_eq!(reason(&packet), 0x8e);
    if packet.len() > 4 {
        let block = crate::common::client::read_properties(&packet[4..]);
        assert!(
            block.iter().all(|(id, _)| [0x1f, 0x26].contains(id)),
            "{}",
            show(&packet)
        );
    }
    old.wire.expect_close();
}

#[test]
fn mqtt_3_15_1_1_and_3_15_2_1_auth_without_a_method_is_an_error() {
    let site = Site::new();
    for bytes in ["f000", "f00118", "f0021800", "f00119", "f100", "f001ff"] {
        let mut client = site.client(Version::V5, "c");
        client.wire.send_hex(bytes);
        client.expect_end(&[0x81, 0x82]);
    }
    // Even one that names a method: CONNECT had none [MQTT-4.12.0-7].
    let mut client = site.client(Version::V5, "c");
    client.wire.send_hex("f006 18 04 15 0001 78");
    client.expect_end(&[0x82, 0x8c]);
}

#[test]
fn mqtt_4_12_0_1_a_method_we_do_not_know_is_refused() {
    let site = Site::new();
    for method in ["SCRAM-SHA-1", "K", ""] {
        let mut connect = site.connect(Version::V5, "c");
        connect.properties = property_text(0x15, method.as_bytes());
        connect.properties.extend(property_text(0x16, b"data"));
        let mut wire = site.broker.wire();
        let mut bytes = connect.encode();
        bytes.extend([0xf0, 0]);
        wire.send(&bytes);
        let connack = wire.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0x8c), "{}", show(&connack));
        wire.expect_close();
    }
    let mut connect = site.connect(Version::V5, "c");
    connect.properties = property_text(0x16, b"data without a method");
    let mut wire = site.broker.wire();
    wire.send(&connect.encode());
    for connack in wire.packets_until_close() {
        assert_eq!(reason(&connack), 0x82, "{}", show(&connack));
    }
}

#[test]
fn mqtt_4_12_0_6_without_a_method_there_is_none_in_connack() {
    let site = Site::new();
    let client = site.client(Version::V5, "c");
    let has = |wanted| client.announced().iter().any(|(id, _)| *id == wanted);
    assert!(!has(0x15) && !has(0x16));
}

#[test]
fn mqtt_4_13_1_1_after_an_error_the_connection_is_closed_and_nothing_else_handled() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut watcher = site.client(version, "watcher");
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        for bad in ["0000", "c00100", "62020000", "36050001610001"] {
            let mut client = site.client(version, "c");
            let mut bytes = crate::common::wire::hex(bad);
            bytes.extend(crate::common::client::publish_bytes(
                version,
                0,
                0,
                &topic,
                &[],
                b"late",
            ));
            client.wire.send(&bytes);
            client.expect_end(&[0x81, 0x82]);
        }
        watcher.expect_only_own_marker(1, &topic);
    }
}
