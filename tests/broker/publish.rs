//! PUBLISH: the acknowledgement flows, what is refused, and what is stored.

use std::time::{Duration, Instant};

use crate::common::{
    broker::Broker,
    packets::{
        Connect, TELEMETRY, VERSIONS, Version, log_in, packet, property_block, publish,
        publish_flags, pubrel, reason, subscribe, text,
    },
    wire::{Wire, show},
};

const TOPIC_NAME_INVALID: u8 = 0x90;
const PACKET_TOO_LARGE: u8 = 0x95;
const BAD_PAYLOAD: u8 = 0x99;
const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
const DISCONNECT: u8 = 0xe0;

/// Payloads that are no telemetry (3.1, 3.2 of the device platform's specification).
const BAD_PAYLOADS: [&[u8]; 11] = [
    b"",
    b"{",
    b"{\"a\":}",
    b"[1]",
    b"\"x\"",
    b"5",
    b"null",
    b"{\"a\":1}x",
    b"{\"a\":1}{\"a\":1}",
    b"{\"a\":\"\xc3\x28\"}",
    b"\xff\xfe",
];

/// The start of a packet comes with the end of the one before, the rest only when that was
/// acknowledged: so it is another read, and more of them for the longer ones.
#[test]
fn a_packet_may_come_in_pieces_of_any_length() {
    let (broker, token) = site();
    let version = Version::V311;
    let mut wire = connect(&broker, version, &token);
    let cuts = [
        1, 2, 3, 60, 4_095, 4_096, 4_097, 4_098, 9_000, 40_000, 1, 50_000,
    ];
    let mut rest = Vec::new();
    for (number, cut) in (1..).zip(cuts) {
        let filler = "x".repeat(cut + 10);
        // A time for each: of two values of one millisecond the later one counts.
        let values = format!(r#"{{"filler":"{filler}","number":{number}}}"#);
        let payload = format!(r#"{{"ts":{number},"values":{values}}}"#);
        let bytes = publish(version, 1, number, TELEMETRY, payload.as_bytes());
        let (start, end) = bytes.split_at(cut);
        rest.extend_from_slice(start);
        wire.send(&rest);
        if number > 1 {
            wire.expect(&format!("4002{:04x}", number - 1));
        }
        rest = end.to_vec();
    }
    wire.send(&rest);
    wire.expect(&format!("4002{:04x}", cuts.len()));
    let mut stored: Vec<_> = broker.values("a", "number");
    stored.sort_unstable_by_key(|value| value.as_u64());
    assert_eq!(
        stored,
        (1..=12).collect::<Vec<u64>>(),
        "each of them, whole"
    );
}

#[test]
fn tb_13_every_qos_has_its_flow() {
    let (broker, token) = site();
    for (version, name) in VERSIONS.into_iter().zip(["v31", "v311", "v5"]) {
        let mut wire = connect(&broker, version, &token);
        for qos in [0, 1, 2_u8] {
            let payload = format!(r#"{{"{name} qos {qos}":{qos}}}"#);
            wire.send(&publish(
                version,
                qos,
                0x1234,
                TELEMETRY,
                payload.as_bytes(),
            ));
            match qos {
                0 => wire.expect_alive(),
                1 => wire.expect("40021234"),
                _ => {
                    wire.expect("50021234");
                    wire.send(&pubrel(0x1234));
                    wire.expect("70021234");
                }
            }
        }
        for qos in [0, 1, 2] {
            assert_eq!(broker.values("a", &format!("{name} qos {qos}")), [qos]);
        }
    }
}

/// [MQTT-3.3.2-10]: telemetry under an alias is telemetry.
#[test]
fn sec_12_telemetry_under_an_alias_is_stored() {
    let (broker, token) = site();
    let mut wire = connect(&broker, Version::V5, &token);
    let payloads = [1, 2].map(|id| format!(r#"{{"ts":{id},"values":{{"alias":{id}}}}}"#));
    for (id, topic, payload) in [(1, TELEMETRY, &payloads[0]), (2, "", &payloads[1])] {
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend([0, id]);
        property_block(&mut body, &[0x23, 0, 32]);
        body.extend(payload.as_bytes());
        wire.send(&packet(0x32, &body));
        wire.expect(&format!("4002000{id}"));
    }
    assert_eq!(broker.values("a", "alias"), [1, 2]);
}

#[test]
fn sec_15_hundreds_of_packets_in_one_segment_are_all_answered_in_order() {
    const MESSAGES: u16 = 500;
    let (broker, token) = site();
    let mut wire = connect(&broker, Version::V311, &token);
    let mut bytes = Vec::new();
    for id in 1..=MESSAGES {
        let payload = format!(r#"{{"many {id}":1}}"#);
        bytes.extend(publish(Version::V311, 1, id, TELEMETRY, payload.as_bytes()));
    }
    wire.send(&bytes);
    for id in 1..=MESSAGES {
        let [high, low] = id.to_be_bytes();
        wire.expect(&format!("4002{high:02x}{low:02x}"));
    }
    assert_eq!(broker.points("a").len(), usize::from(MESSAGES));
}

/// S-37: one message, however often it comes, and no memory for the rest.
#[test]
fn s_37_qos_2_with_the_same_id_is_one_message() {
    const TIMES: usize = 10_000;
    const AT_ONCE: usize = 100;
    let (broker, token) = site();
    for version in [Version::V311, Version::V5] {
        let mut wire = connect(&broker, version, &token);
        let payload = format!(r#"{{"once {version:?}":1}}"#);
        let again = publish_flags(version, 0x0c, 5, TELEMETRY, payload.as_bytes());
        wire.send(&publish(version, 2, 5, TELEMETRY, payload.as_bytes()));
        wire.expect("50020005");
        let before = resident_bytes(&broker);
        for _ in 0..TIMES / AT_ONCE {
            wire.send(&again.repeat(AT_ONCE));
            for _ in 0..AT_ONCE {
                wire.expect("50020005");
            }
        }
        let grown = resident_bytes(&broker).saturating_sub(before);
        assert!(
            grown < 8 << 20,
            "{grown} bytes more after {TIMES} repetitions"
        );
        wire.send(&pubrel(5));
        wire.expect("70020005");
    }
    assert_eq!(broker.points("a").len(), 2, "{:?}", broker.points("a"));
}

/// The ledger: received = stored + refused + repeated + in flight, also for what comes again.
#[test]
fn a_message_that_comes_again_is_received_and_repeated() {
    let (broker, token) = site();
    let mut wire = connect(&broker, Version::V311, &token);
    let message = publish(Version::V311, 2, 5, TELEMETRY, br#"{"once":1}"#);
    for _ in 0..3 {
        wire.send(&message);
        wire.expect("50020005");
    }
    let expected = [
        "tollgate_messages_received_total{qos=\"2\"} 3",
        "tollgate_messages_stored_total{qos=\"2\"} 1",
        "tollgate_messages_repeated_total 2",
        "tollgate_messages_in_flight 0",
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let reply = ureq::get(format!("{}/metrics", broker.admin_url())).call();
        let mut reply = reply.expect("the broker answers");
        let text = reply.body_mut().read_to_string().expect("metrics are text");
        if expected
            .iter()
            .all(|line| text.lines().any(|told| told == *line))
        {
            return;
        }
        assert!(Instant::now() < deadline, "{expected:?} is not in {text}");
        std::thread::sleep(Duration::from_millis(50)); // the API answers 100 requests a second
    }
}

/// What the broker says last is written before it closes, also on a socket that is as new as this.
#[test]
fn a_bad_payload_right_behind_connect_is_answered_before_the_close() {
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = broker.wire();
        let mut bytes = Connect::with_token(version, "a", &token).encode();
        bytes.extend(publish(version, 0, 0, TELEMETRY, b"{no json"));
        wire.send(&bytes);
        let packets = wire.packets_until_close();
        let types: Vec<u8> = packets.iter().map(|packet| packet[0]).collect();
        if version == Version::V5 {
            assert_eq!(types, [0x20, DISCONNECT]);
            assert_eq!(reason(&packets[1]), 0x99);
        } else {
            assert_eq!(types, [0x20]);
        }
    }
}

/// After PUBCOMP the id is free: the same packet is a new message.
#[test]
fn a_released_packet_id_is_used_again() {
    let (broker, token) = site();
    let mut wire = connect(&broker, Version::V311, &token);
    for value in [1, 2] {
        let payload = format!(r#"{{"ts":{value},"values":{{"reused":{value}}}}}"#);
        wire.send(&publish(Version::V311, 2, 5, TELEMETRY, payload.as_bytes()));
        wire.expect("50020005");
        wire.send(&pubrel(5));
        wire.expect("70020005");
    }
    assert_eq!(broker.values("a", "reused"), [1, 2]);
}

/// SEC-28: a hundred messages of QoS 2 may be unfinished at once, and no more (MQTT 5: 0x93).
#[test]
fn sec_28_unfinished_qos_2_messages_are_counted() {
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        for id in 1..=100 {
            wire.send(&publish(version, 2, id, TELEMETRY, b"{}"));
            assert_eq!(wire.packet()[0], 0x50);
        }
        // One of them finished makes room for one.
        wire.send(&pubrel(1));
        wire.expect("70020001");
        wire.send(&publish(version, 2, 1, TELEMETRY, b"{}"));
        wire.expect("50020001");
        wire.send(&publish(version, 2, 101, TELEMETRY, b"{}"));
        if version == Version::V5 {
            expect_disconnect(&mut wire, RECEIVE_MAXIMUM_EXCEEDED);
        } else {
            wire.expect_close();
        }
    }
}

/// MQTT 5 says that the id is unknown; 3.1.1 has one answer to every PUBREL.
#[test]
fn pubrel_for_an_unknown_id_is_answered() {
    let (broker, token) = site();
    for (version, answer) in [(Version::V311, "70020009"), (Version::V5, "7003000992")] {
        let mut wire = connect(&broker, version, &token);
        wire.send(&pubrel(9));
        let packet = wire.packet();
        assert_eq!(show(&packet[2..]), answer[4..], "{}", show(&packet));
    }
}

#[test]
fn tb_14_an_unknown_topic_is_refused_and_the_connection_stays() {
    let (broker, token) = site();
    let payload = br#"{"lost":1}"#;
    for topic in [
        "some/topic",
        "v1/devices/me/telemetry/",
        "v1/devices/other/telemetry",
        "/",
    ] {
        for version in VERSIONS {
            let mut wire = connect(&broker, version, &token);
            wire.send(&publish(version, 0, 0, topic, payload));
            wire.send(&publish(version, 1, 1, topic, payload));
            expect_ack(&mut wire, 0x40, 1, told(version, TOPIC_NAME_INVALID));
            wire.send(&publish(version, 2, 2, topic, payload));
            expect_ack(&mut wire, 0x50, 2, told(version, TOPIC_NAME_INVALID));
            if version != Version::V5 {
                wire.send(&pubrel(2));
                wire.expect("70020002");
            }
            expect_marker(&mut wire, version);
        }
    }
    assert_eq!(broker.values("a", "lost"), [0_u8; 0]);
}

/// P-50, SEC-33: the `$` trees are closed; either answer, and nothing is stored.
#[test]
fn p_50_system_topics_are_closed() {
    let (broker, token) = site();
    for topic in ["$SYS/x", "$foo/x", "$share/g/v1/devices/me/telemetry"] {
        let mut wire = connect(&broker, Version::V5, &token);
        wire.send(&publish(Version::V5, 1, 1, topic, br#"{"lost":1}"#));
        expect_ack(&mut wire, 0x40, 1, 0x87);
        expect_marker(&mut wire, Version::V5);
    }
    assert_eq!(broker.values("a", "lost"), [0_u8; 0]);
}

/// S-17, SEC-39: what was refused once is refused again when it comes as a duplicate.
#[test]
fn s_17_a_refused_qos_2_message_is_refused_again() {
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        for flags in [0x04, 0x0c] {
            wire.send(&publish_flags(
                version,
                flags,
                5,
                "not/mine",
                br#"{"lost":1}"#,
            ));
            expect_ack(&mut wire, 0x50, 5, told(version, TOPIC_NAME_INVALID));
        }
        wire.send(&pubrel(5));
        let pubcomp = wire.packet();
        assert_eq!(
            (pubcomp[0], &pubcomp[2..4]),
            (0x70, &[0, 5][..]),
            "{}",
            show(&pubcomp)
        );
        expect_marker(&mut wire, version);
    }
    assert_eq!(broker.values("a", "lost"), [0_u8; 0]);
}

/// The retain flag means nothing here, and a will is never published.
#[test]
fn tb_15_retain_and_will_have_no_effect() {
    let (broker, token) = site();
    let other = broker.create_device("other");
    for version in VERSIONS {
        let will = Some((1, true, TELEMETRY, &br#"{"from the will":1}"#[..]));
        let connect_with_will = Connect {
            will,
            ..Connect::with_token(version, "a", &token)
        };
        let mut wire = broker.wire();
        log_in(&mut wire, &connect_with_will);
        // Retain with QoS 1.
        wire.send(&publish_flags(
            version,
            0x03,
            1,
            TELEMETRY,
            br#"{"retained":1}"#,
        ));
        wire.expect("40020001");
        wire.send(&publish_flags(
            version,
            0x03,
            2,
            "v1/devices/me/attributes",
            b"{}",
        ));
        assert_eq!(wire.packet()[0], 0x40);
        wire.reset();
        // The same device again, so that the broker has noticed the reset for sure.
        let mut wire = connect(&broker, version, &token);
        expect_marker(&mut wire, version);
        let mut listener = connect(&broker, version, &other);
        listener.send(&subscribe(version, 1, &[("v1/devices/me/attributes", 1)]));
        assert_eq!(listener.packet()[0], 0x90);
        listener.expect_alive();
    }
    assert_eq!(broker.values("a", "from the will"), [0_u8; 0]);
    assert!(!broker.values("a", "retained").is_empty());
}

#[test]
fn tb_16_a_bad_payload_is_told_where_it_can_be_told() {
    let (broker, token) = site();
    for payload in BAD_PAYLOADS {
        let mut wire = connect(&broker, Version::V5, &token);
        wire.send(&publish(Version::V5, 1, 1, TELEMETRY, payload));
        expect_ack(&mut wire, 0x40, 1, BAD_PAYLOAD);
        wire.send(&publish(Version::V5, 2, 2, TELEMETRY, payload));
        expect_ack(&mut wire, 0x50, 2, BAD_PAYLOAD);
        expect_marker(&mut wire, Version::V5);
        wire.send(&publish(Version::V5, 0, 0, TELEMETRY, payload));
        expect_disconnect(&mut wire, BAD_PAYLOAD);
        for version in [Version::V31, Version::V311] {
            for qos in [0, 1, 2] {
                let mut wire = connect(&broker, version, &token);
                wire.send(&publish(version, 1, 1, TELEMETRY, br#"{"before":1}"#));
                wire.expect("40020001");
                wire.send(&publish(version, qos, 2, TELEMETRY, payload));
                wire.send(&publish(version, 1, 3, TELEMETRY, br#"{"behind":1}"#));
                wire.expect_close();
            }
        }
    }
    let mut keys: Vec<_> = broker.points("a").into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys, ["before", "marker"]);
}

/// The profile's switch `sendAckOnValidationException`.
#[test]
fn tb_16_the_switch_acknowledges_what_it_drops() {
    let broker =
        Broker::start_with(&[("TOLLGATE_DEVICE_SEND_ACK_ON_VALIDATION_EXCEPTION", "true")]);
    let token = broker.create_device("a");
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        for payload in BAD_PAYLOADS {
            wire.send(&publish(version, 0, 0, TELEMETRY, payload));
            wire.send(&publish(version, 1, 1, TELEMETRY, payload));
            wire.expect("40020001");
            wire.send(&publish(version, 2, 2, TELEMETRY, payload));
            wire.expect("50020002");
            wire.send(&pubrel(2));
            wire.expect("70020002");
        }
        expect_marker(&mut wire, version);
    }
    assert!(broker.points("a").iter().all(|(key, _)| key == "marker"));
}

#[test]
fn tb_17_a_payload_over_65536_bytes_ends_the_connection() {
    let (broker, token) = site();
    for version in VERSIONS {
        for qos in [0, 1, 2] {
            let mut wire = connect(&broker, version, &token);
            wire.send(&publish(
                version,
                1,
                1,
                TELEMETRY,
                &payload_of(65_536, "fits"),
            ));
            wire.expect("40020001");
            wire.send(&publish(
                version,
                qos,
                2,
                TELEMETRY,
                &payload_of(65_537, "lost"),
            ));
            if version == Version::V5 {
                expect_disconnect(&mut wire, PACKET_TOO_LARGE);
            } else {
                wire.expect_close();
            }
        }
    }
    assert_eq!(broker.values("a", "lost"), [0_u8; 0]);
    assert!(!broker.values("a", "fits").is_empty());
}

/// SEC-03: decided on the header; the body never comes.
#[test]
fn sec_03_a_packet_over_the_announced_size_is_not_awaited() {
    const SIZE_MAX: usize = 262_144;
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        // Where it may be long, it is not the payload's length that decides.
        let empty = publish(version, 1, 1, "some/topic", b"").len() + 2; // two more length bytes
        let longest = publish(version, 1, 1, "some/topic", &vec![b' '; SIZE_MAX - empty]);
        assert_eq!(longest.len(), SIZE_MAX);
        wire.send(&longest);
        expect_ack(&mut wire, 0x40, 1, told(version, TOPIC_NAME_INVALID));
        // One byte more, in the header of 4 bytes.
        wire.send_hex("30 fdff0f");
        if version == Version::V5 {
            expect_disconnect(&mut wire, PACKET_TOO_LARGE);
        } else {
            wire.expect_close();
        }
    }
}

fn site() -> (Broker, String) {
    let broker = Broker::start();
    let token = broker.create_device("a");
    (broker, token)
}

fn connect(broker: &Broker, version: Version, token: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, "a", token));
    wire
}

/// 3.1 and 3.1.1 acknowledgements carry no reason.
fn told(version: Version, reason: u8) -> u8 {
    if version == Version::V5 { reason } else { 0 }
}

fn expect_ack(wire: &mut Wire, first_byte: u8, id: u8, code: u8) {
    let packet = wire.packet();
    let found = (packet[0], packet[3], reason(&packet));
    assert_eq!(found, (first_byte, id, code), "{}", show(&packet));
}

fn expect_disconnect(wire: &mut Wire, code: u8) {
    let packet = wire.packet();
    assert_eq!(
        (packet[0], reason(&packet)),
        (DISCONNECT, code),
        "{}",
        show(&packet)
    );
    wire.expect_close();
}

/// A good message at the end: its PUBACK comes next, so no other acknowledgement was on its way.
fn expect_marker(wire: &mut Wire, version: Version) {
    wire.send(&publish(version, 1, 0x0f0f, TELEMETRY, br#"{"marker":1}"#));
    wire.expect("40020f0f");
}

/// An object of exactly this many bytes.
fn payload_of(length: usize, key: &str) -> Vec<u8> {
    let frame = format!(r#"{{"{key}":""}}"#).len();
    format!(r#"{{"{key}":"{}"}}"#, "x".repeat(length - frame)).into_bytes()
}

/// What the broker's process holds in memory.
fn resident_bytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("Linux tells this about every process");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("it has memory");
    let kib = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse::<u64>();
    kib.expect("a number") * 1024
}
