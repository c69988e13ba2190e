//! Chapters 3.1 and 3.2: CONNECT, CONNACK and the session they open.

use crate::{
    common::{
        client::{Client, property_text},
        packets::{Connect, VERSIONS, Version, log_in, reason},
        wire::{CLOSE_LIMIT, show},
    },
    site::{Site, create_app},
};

#[test]
fn mqtt_3_1_2_4_clean_start_ends_the_old_session() {
    for version in VERSIONS {
        let site = Site::new();
        let (topic, marker) = (site.topic("t"), site.topic("marker"));
        let mut publisher = site.client(version, "publisher");
        let mut old = site.kept(version, "s");
        assert_eq!(old.subscribe(&topic, 1), 1);
        old.disconnect();
        assert_eq!(publisher.publish(1, &topic, b"queued"), 0);
        let mut new = site.client(version, "s");
        assert!(!new.is_present(), "{version:?}");
        assert_eq!(new.subscribe(&marker, 1), 1);
        assert_eq!(publisher.publish(1, &topic, b"live"), 0);
        new.expect_only_marker(&mut publisher, 1, &marker);
        // And the clean session itself was not kept.
        new.disconnect();
        assert!(!site.kept(version, "s").is_present(), "{version:?}");
    }
}

#[test]
fn mqtt_3_1_2_5_a_session_goes_on_where_it_was() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        let mut session = site.kept(version, "s");
        assert_eq!(session.subscribe(&topic, 2), 2);
        session.disconnect();
        for (qos, payload) in [(1, "one"), (2, "two"), (1, "three")] {
            assert_eq!(publisher.publish(qos, &topic, payload.as_bytes()), 0);
        }
        let mut session = site.kept(version, "s");
        assert!(session.is_present() || version == Version::V31);
        let seen: Vec<_> = (0..3).map(|_| session.take()).collect();
        let told: Vec<_> = seen.iter().map(|m| (m.qos, m.dup, m.text())).collect();
        let expected =
            [(1, "one"), (2, "two"), (1, "three")].map(|(q, p)| (q, false, p.to_owned()));
        assert_eq!(told, expected, "{version:?}");
        // The subscription is still there.
        session.expect_only_marker(&mut publisher, 1, &topic);
    }
}

#[test]
fn mqtt_3_1_2_6_without_a_session_a_new_one_begins() {
    for version in VERSIONS {
        let site = Site::new();
        let mut first = site.kept(version, "s");
        assert!(!first.is_present(), "{version:?}");
        assert_eq!(first.subscribe(&site.topic("t"), 1), 1);
        first.expect_only_own_marker(1, &site.topic("t"));
    }
}

/// Expiry 0, absent (MQTT 5) and clean session 1 (before) end it with the connection.
#[test]
fn mqtt_3_1_2_23_a_session_is_kept_only_if_it_was_asked_for() {
    let site = Site::new();
    for (expiry_s, is_kept) in [(None, false), (Some(0), false), (Some(60), true)] {
        let mut connect = site.connect(Version::V5, "s");
        if let Some(expiry_s) = expiry_s {
            connect = connect.kept_for(expiry_s);
        }
        site.log_in(&connect).disconnect();
        let connect = site.connect(Version::V5, "s").kept_for(0);
        let again = site.log_in(&connect);
        assert_eq!(again.is_present(), is_kept, "{expiry_s:?}");
        again.disconnect();
    }
}

#[test]
fn mqtt_3_1_2_24_and_25_what_is_too_long_for_the_client_is_as_if_sent() {
    let site = Site::new();
    let topic = site.topic("t");
    // Fixed header 2, topic 2 + n, packet id 2, property length 1.
    let room = |limit: usize| limit - 2 - 2 - topic.len() - 2 - 1;
    for qos in [1, 2] {
        let connect = site.connect(Version::V5, "s").kept();
        let mut subscriber = site.log_in(&connect.packet_size_max(100).receive_maximum(1));
        assert_eq!(subscriber.subscribe(&topic, 2), 2);
        let mut publisher = site.client(Version::V5, "publisher");
        // One byte too long; with a Receive Maximum of 1 it must not hold the only place.
        let too_long = vec![b'x'; room(100) + 1];
        let fits = vec![b'y'; room(100)];
        for payload in [&too_long, &fits, &too_long, &too_long, &fits] {
            assert_eq!(publisher.publish(qos, &topic, payload), 0);
        }
        for _ in 0..2 {
            let message = subscriber.take();
            assert_eq!(message.payload, fits, "QoS {qos}");
        }
        subscriber.expect_only_marker(&mut publisher, qos, &topic);
        // Nothing is left for a connection that would take it.
        subscriber.disconnect();
        let mut subscriber = site.kept(Version::V5, "s");
        subscriber.expect_only_marker(&mut publisher, qos, &topic);
        site.client(Version::V5, "s").disconnect();
    }
}

#[test]
fn mqtt_3_1_2_24_answers_fit_the_client_too() {
    let site = Site::new();
    for limit in [1, 2, 4, 5, 8, 11, 16, 24, 32, 48, 64] {
        let connect = site.connect(Version::V5, "").packet_size_max(limit);
        let mut wire = site.broker.wire();
        wire.send(&connect.encode());
        // Behind CONNACK: what is answered with a reason, then what ends the connection.
        wire.send_hex("32070003 24782f79 0001 00 8206000200000100 00 0000");
        for packet in wire.packets_until_close() {
            assert!(
                packet.len() <= usize::try_from(limit).expect("small"),
                "limit {limit}: {}",
                show(&packet)
            );
        }
    }
}

#[test]
fn mqtt_3_1_2_26_the_broker_uses_no_alias_above_the_maximum() {
    let site = Site::new();
    let mut subscriber = site.log_in(&site.connect(Version::V5, "s").alias_maximum(2));
    assert_eq!(subscriber.subscribe(&site.topic("+"), 1), 1);
    let mut publisher = site.client(Version::V5, "publisher");
    let mut aliases = std::collections::BTreeMap::new();
    let mut was_short = false;
    for round in 0..3 {
        for name in ["a", "b", "c", "d"] {
            let topic = site.topic(name);
            assert_eq!(publisher.publish(round % 2, &topic, name.as_bytes()), 0);
            let message = subscriber.take();
            let alias = message.number(0x23);
            let resolved = match (message.topic.as_str(), alias) {
                ("", Some(alias)) => {
                    was_short = true;
                    String::clone(&aliases[&alias])
                }
                (_, None) => message.topic.clone(),
                (topic, Some(alias)) => {
                    aliases.insert(alias, topic.to_owned());
                    topic.to_owned()
                }
            };
            assert_eq!(resolved, topic);
            assert!(
                alias.is_none_or(|alias| (1..=2).contains(&alias)),
                "{alias:?}"
            );
        }
    }
    assert!(was_short, "an alias that was set is used");
}

#[test]
fn mqtt_3_1_2_27_without_a_maximum_the_broker_uses_no_alias() {
    let site = Site::new();
    for maximum in [None, Some(0)] {
        let mut connect = site.connect(Version::V5, "s");
        if let Some(maximum) = maximum {
            connect = connect.alias_maximum(maximum);
        }
        let mut subscriber = site.log_in(&connect);
        assert_eq!(subscriber.subscribe(&site.topic("t"), 0), 0);
        for _ in 0..3 {
            assert_eq!(subscriber.publish(0, &site.topic("t"), b"p"), 0);
            let message = subscriber.next();
            assert_eq!(
                (message.topic, message.properties),
                (site.topic("t"), vec![])
            );
        }
    }
}

/// Our choice: response information is never made up.
#[test]
fn mqtt_3_1_2_28_response_information_is_not_returned() {
    let site = Site::new();
    for asked in [0, 1] {
        let mut connect = site.connect(Version::V5, "s");
        connect.properties.extend([0x19, asked]);
        let client = site.log_in(&connect);
        assert!(client.announced().iter().all(|(id, _)| *id != 0x1a));
    }
}

#[test]
fn mqtt_3_1_2_29_without_problem_information_acks_hold_the_code_alone() {
    let site = Site::new();
    let inside = site.topic("#");
    let token = create_app(&site.broker, &site.topic("narrow"), &[&inside], &[&inside]);
    let mut connect = Connect::with_token(Version::V5, "c", &token);
    connect.properties.extend([0x17, 0]);
    let mut client = site.log_in(&connect);
    for (flags, kind) in [(2, 0x40), (4, 0x50)] {
        client.send_publish(flags, 7, "elsewhere", &[], b"p");
        let ack = client.answer(kind);
        let short = [kind, 3, 0, 7, 0x87];
        let long = [kind, 4, 0, 7, 0x87, 0];
        assert!(ack == short || ack == long, "{}", show(&ack));
    }
    client.wire.send_hex("8207 0008 00 0001 78 00");
    let suback = client.answer(0x90);
    assert_eq!(show(&suback), "900400080087");
    client.wire.send_hex("a206 0009 00 0001 78");
    let unsuback = client.answer(0xb0);
    assert_eq!(unsuback[2..5], [0, 9, 0], "{}", show(&unsuback));
}

#[test]
fn mqtt_3_1_3_2_equal_client_ids_are_compared_byte_for_byte() {
    let site = Site::new();
    site.kept(Version::V5, "client").disconnect();
    // Another case, a longer one, and the same letter composed differently.
    site.kept(Version::V5, "caf\u{e9}").disconnect();
    for other in ["Client", "client ", "clien", "cafe\u{301}"] {
        let client = site.kept(Version::V5, other);
        assert!(!client.is_present(), "{other}");
    }
    assert!(site.kept(Version::V5, "client").is_present());
    assert!(site.kept(Version::V5, "caf\u{e9}").is_present());
}

#[test]
fn mqtt_3_1_3_5_ids_of_1_to_23_letters_and_digits_are_allowed() {
    let site = Site::new();
    let ids = [
        "0",
        "01234567890123456789012",
        "abcdefghijklmnopqrstuvw",
        "xyzABCDEFGHIJKLMNOPQRST",
        "UVWXYZ",
    ];
    for version in VERSIONS {
        for id in ids {
            site.client(version, id).wire.expect_alive();
        }
    }
}

/// MQTT 5 is told the id; 3.1.1 has no place for it. Either way it is nobody else's.
#[test]
fn mqtt_3_1_3_6_and_7_an_empty_id_gets_one_that_is_used() {
    let site = Site::new();
    let mut assigned = Vec::new();
    for _ in 0..3 {
        let client = site.log_in(&site.connect(Version::V5, "").kept());
        let ids = client.announced();
        let id = ids.iter().find(|(id, _)| *id == 0x12).expect("an id");
        assigned.push(String::from_utf8(id.1[2..].to_vec()).expect("UTF-8"));
        client.disconnect();
    }
    for id in &assigned {
        assert!(site.kept(Version::V5, id).is_present(), "{id}");
    }
    assigned.sort_unstable();
    assigned.dedup();
    assert_eq!(assigned.len(), 3, "[MQTT-3.2.2-16]");
    let mut one = site.client(Version::V311, "");
    let mut other = site.client(Version::V311, "");
    one.wire.expect_alive();
    other.wire.expect_alive();
}

#[test]
fn mqtt_3_1_4_3_a_take_over_ends_the_old_connection_and_moves_the_session() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut publisher = site.client(version, "publisher");
        let mut old = site.kept(version, "s");
        assert_eq!(old.subscribe(&topic, 1), 1);
        assert_eq!(publisher.publish(1, &topic, b"in flight"), 0);
        let first = old.next();
        let mut new = site.kept(version, "s");
        assert!(new.is_present() || version == Version::V31);
        // It was told and closed before the CONNACK that we have seen.
        old.expect_end(&[0x8e]);
        let again = new.take();
        assert_eq!((again.id, again.text()), (first.id, first.text()));
        assert!(again.dup, "[MQTT-3.3.1-1]");
        new.expect_only_marker(&mut publisher, 1, &topic);
    }
}

#[test]
fn mqtt_3_1_4_6_nothing_behind_a_refused_connect_is_handled() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut watcher = site.client(version, "watcher");
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        let mut wire = site.broker.wire();
        let mut bytes = Connect::with_token(version, "x", "wrong").encode();
        let publish = crate::common::client::publish_bytes(version, 0, 0, &topic, &[], b"late");
        bytes.extend(publish);
        wire.send(&bytes);
        let connack = wire.packet();
        assert_ne!(reason(&connack), 0);
        assert_eq!(connack[2], 0, "[MQTT-3.2.2-6]");
        wire.expect_close(); // [MQTT-3.2.2-7]
        watcher.expect_only_own_marker(1, &topic);
    }
}

#[test]
fn mqtt_3_2_2_6_a_refusal_says_nothing_of_the_session() {
    for version in VERSIONS {
        let site = Site::new();
        site.kept(version, "s").disconnect();
        let mut connect = Connect::with_token(version, "s", "wrong");
        connect.clean = false;
        let mut wire = site.broker.wire();
        wire.send(&connect.encode());
        let connack = wire.packet();
        assert_eq!((connack[0], connack[2]), (0x20, 0), "{}", show(&connack));
        assert_ne!(connack[3], 0);
        wire.expect_close();
    }
}

#[test]
fn mqtt_3_2_0_1_connack_comes_first_and_once() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut publisher = site.client(Version::V5, "publisher");
    let mut session = site.kept(Version::V5, "s");
    assert_eq!(session.subscribe(&topic, 1), 1);
    session.disconnect();
    for _ in 0..20 {
        assert_eq!(publisher.publish(1, &topic, b"queued"), 0);
    }
    // Packets behind CONNECT are answered behind CONNACK, and so is what was queued.
    let mut wire = site.broker.wire();
    let mut bytes = site.connect(Version::V5, "s").kept().encode();
    bytes.extend([0xc0, 0, 0xc0, 0]);
    wire.send(&bytes);
    assert_eq!(wire.packet()[0], 0x20);
    let (mut pongs, mut messages) = (0, 0);
    while pongs < 2 || messages < 20 {
        match wire.packet()[0] >> 4 {
            13 => pongs += 1,
            3 => messages += 1,
            other => panic!("type {other}"),
        }
    }
}

/// The whole of CONNACK, so that nothing undocumented is announced; our values by default.
#[test]
fn mqtt_3_2_2_connack_announces_what_there_is() {
    let site = Site::new();
    let client = site.client(Version::V5, "c");
    let ids: Vec<u8> = client.announced().iter().map(|(id, _)| *id).collect();
    for absent in [0x24, 0x25, 0x28, 0x29, 0x2a] {
        let at = ids.iter().position(|id| *id == absent);
        let value = at.map(|at| client.announced()[at].1.clone());
        // Absent is: QoS 2, retain, wildcards, identifiers and shares are there.
        assert!(
            value.is_none() || (absent != 0x24 && value == Some(vec![1])),
            "{absent:#04x}: {value:?}"
        );
    }
    for property in client.announced() {
        assert!(
            [0x11, 0x21, 0x22, 0x27, 0x28, 0x29, 0x2a, 0x25].contains(&property.0),
            "{property:02x?}"
        );
    }
}

#[test]
fn mqtt_3_2_2_8_refusals_have_codes_of_the_table() {
    const CODES: [u8; 21] = [
        0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
        0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
    ];
    let site = Site::new();
    let mut method = site.connect(Version::V5, "c");
    method.properties.extend(property_text(0x15, b"SCRAM"));
    let mut twice = site.connect(Version::V5, "c");
    twice.properties.extend([0x17, 0, 0x17, 0]);
    let table = [
        Connect::with_token(Version::V5, "c", "wrong").encode(),
        Connect::anonymous(Version::V5, "c").encode(),
        method.encode(),
        twice.encode(),
    ];
    for bytes in table {
        let mut wire = site.broker.wire();
        wire.send(&bytes);
        if let Some(connack) = wire.packet_or_close(CLOSE_LIMIT) {
            assert!(CODES.contains(&connack[3]), "{}", show(&connack));
            wire.expect_close();
        }
    }
}

/// A keep alive below our maximum is the client's own: no Server Keep Alive.
#[test]
fn mqtt_3_2_2_22_without_server_keep_alive_the_clients_own_holds() {
    let site = Site::new();
    let connect = Connect {
        keep_alive_s: 1,
        ..site.connect(Version::V5, "c")
    };
    let begin = std::time::Instant::now();
    let mut client = site.log_in(&connect);
    assert!(client.announced().iter().all(|(id, _)| *id != 0x13));
    client.expect_end(&[0x8d]);
    assert!(
        begin.elapsed().as_millis() >= 1_400,
        "{:?}",
        begin.elapsed()
    );
}

/// 3.1.1: 3.1.2-8 and 3.1.3-8 in its own words; a client id that cannot be kept.
#[test]
fn mqtt_311_3_1_3_8_an_empty_id_needs_a_clean_session() {
    let site = Site::new();
    let connect = Connect {
        clean: false,
        ..site.connect(Version::V311, "")
    };
    let mut wire = site.broker.wire();
    wire.send(&connect.encode());
    wire.expect("20020002");
    wire.expect_close();
}

/// The fields in their order, with all of them there.
#[test]
fn mqtt_3_1_3_1_all_fields_of_connect_have_their_place() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("gone");
        let mut watcher = site.client(version, "watcher");
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        let mut connect = site.connect(version, "all fields");
        connect.will = Some((1, false, &topic, b"bye"));
        connect.password = Some(b"");
        let mut wire = site.broker.wire();
        log_in(&mut wire, &connect);
        wire.reset();
        assert_eq!(watcher.take().text(), "bye");
    }
}

/// Keeps the helper honest: a client that is let in twice under one id is one session.
#[test]
fn mqtt_3_2_2_2_session_present_is_0_after_clean_start() {
    for version in [Version::V311, Version::V5] {
        let site = Site::new();
        site.kept(version, "s").disconnect();
        let again: Client = site.kept(version, "s");
        assert!(again.is_present(), "[MQTT-3.2.2-3]");
        again.disconnect();
        assert!(!site.client(version, "s").is_present());
    }
}
