//! CONNECT and its answer.

use crate::common::{
    broker::Broker,
    packets::{
        Connect, Property, TELEMETRY, VERSIONS, Version, connack_properties, log_in, publish,
        reason,
    },
    wire::show,
};

const ASSIGNED_CLIENT_ID: u8 = 0x12;
const SERVER_KEEP_ALIVE: u8 = 0x13;
const RECEIVE_MAXIMUM: u8 = 0x21;
const PACKET_SIZE_MAX: u8 = 0x27;

#[test]
fn tb_01_the_token_is_the_user_name_and_nothing_else_counts() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let long_id = "x".repeat(100);
    for version in VERSIONS {
        for client_id in ["", "a", "ä/+#", &long_id] {
            if client_id.is_empty() && version == Version::V31 {
                continue; // 3.1 knows no empty client id
            }
            for password in [None, Some(&b""[..]), Some(b"ignored"), Some(&[0, 255])] {
                let connect = Connect {
                    password,
                    ..Connect::with_token(version, client_id, &token)
                };
                let connack = log_in(&mut broker.wire(), &connect);
                assert_eq!(connack[2], 0, "no session was there: {}", show(&connack));
                if version != Version::V5 {
                    assert_eq!(show(&connack), "20020000");
                }
            }
        }
    }
}

#[test]
fn tb_01_a_token_of_ones_own_choice_works() {
    let broker = Broker::start();
    broker.create_device_with_token("chosen", "A1 ümlaut & space");
    for version in VERSIONS {
        let connect = Connect::with_token(version, "a", "A1 ümlaut & space");
        log_in(&mut broker.wire(), &connect);
        let close_by = Connect::with_token(version, "a", "A1 ümlaut & space ");
        refused(&broker, &close_by, 0x86, 5);
    }
}

/// S-28 is in it: half of the credentials, and empty ones.
#[test]
fn tb_04_every_refusal_has_its_code() {
    let broker = Broker::start();
    let revoked = broker.create_device("revoked");
    broker.revoke("revoked");
    for version in VERSIONS {
        let anonymous = Connect::anonymous(version, "meter-17");
        let wrong = Connect::with_token(version, "meter-17", "wrong");
        let table = [
            (Connect { ..wrong.clone() }, 0x86, 5),
            (
                Connect {
                    password: Some(b"secret"),
                    ..wrong.clone()
                },
                0x86,
                5,
            ),
            (
                Connect {
                    user_name: Some(""),
                    ..wrong.clone()
                },
                0x86,
                5,
            ),
            (
                Connect {
                    user_name: Some(""),
                    password: Some(b""),
                    ..wrong.clone()
                },
                0x86,
                5,
            ),
            (
                Connect {
                    user_name: Some(&revoked),
                    ..wrong.clone()
                },
                0x86,
                5,
            ),
            (anonymous.clone(), 0x85, 2),
        ];
        for (connect, v5, v3) in table {
            refused(&broker, &connect, v5, v3);
        }
        if version != Version::V31 {
            refused(&broker, &Connect::anonymous(version, ""), 0x87, 5);
        }
    }
    // Only MQTT 5 can send a password without a user name.
    let password_only = Connect {
        password: Some(b"secret"),
        ..Connect::anonymous(Version::V5, "meter-17")
    };
    refused(&broker, &password_only, 0x86, 5);
}

/// MQTT 3.1.1, 3.1.3.1: a client without an id cannot ask for a session that is kept.
#[test]
fn an_empty_client_id_with_clean_session_0_is_refused_in_3_1_1() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let connect = Connect {
        clean: false,
        ..Connect::with_token(Version::V311, "", &token)
    };
    refused(&broker, &connect, 0, 2);
}

#[test]
fn tb_05_an_empty_client_id_gets_an_assigned_one() {
    let broker = Broker::start();
    let tokens = [broker.create_device("a"), broker.create_device("b")];
    let mut assigned = Vec::new();
    for token in &tokens {
        let connect = Connect::with_token(Version::V5, "", token);
        let connack = log_in(&mut broker.wire(), &connect);
        match property(&connack, ASSIGNED_CLIENT_ID) {
            Some(Property::Text(id)) => assigned.push(id),
            other => panic!("no client id assigned: {other:?}"),
        }
    }
    assert!(assigned.iter().all(|id| !id.is_empty()), "{assigned:?}");
    assert_ne!(assigned[0], assigned[1]);
    let connect = Connect::with_token(Version::V5, "mine", &tokens[0]);
    let connack = log_in(&mut broker.wire(), &connect);
    assert_eq!(property(&connack, ASSIGNED_CLIENT_ID), None);
}

/// SEC-03, SEC-80: what a client must know is in CONNACK.
#[test]
fn connack_announces_the_limits() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let table = [
        (0, Some(7200)),
        (60, None),
        (7200, None),
        (7201, Some(7200)),
        (65535, Some(7200)),
    ];
    for (keep_alive_s, announced) in table {
        let connect = Connect {
            keep_alive_s,
            ..Connect::with_token(Version::V5, "a", &token)
        };
        let connack = log_in(&mut broker.wire(), &connect);
        assert_eq!(
            property(&connack, PACKET_SIZE_MAX),
            Some(Property::Number(262_144))
        );
        assert_eq!(
            property(&connack, RECEIVE_MAXIMUM),
            Some(Property::Number(100))
        );
        let keep_alive = property(&connack, SERVER_KEEP_ALIVE);
        assert_eq!(
            keep_alive,
            announced.map(Property::Number),
            "{keep_alive_s}"
        );
    }
}

/// SEC-15 as well: CONNECT, a hundred PUBLISHes and DISCONNECT behind each other.
///
/// All values have one time stamp, of which the last one handled wins: it shows the order.
#[test]
fn tb_08_packets_before_connack_are_handled_in_order() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for (version, key) in [(Version::V311, "v311"), (Version::V5, "v5")] {
        let mut bytes = Connect::with_token(version, "a", &token).encode();
        for id in 1..=100_u16 {
            let values = format!(r#"{{"{key} last":{id},"{key} each {id}":1}}"#);
            let payload = format!(r#"{{"ts":1000,"values":{values}}}"#);
            bytes.extend(publish(version, 1, id, TELEMETRY, payload.as_bytes()));
        }
        let mut wire = broker.wire();
        wire.send(&bytes);
        assert_eq!(reason(&wire.packet()), 0);
        for id in 1..=100_u16 {
            let [high, low] = id.to_be_bytes();
            wire.expect(&format!("4002{high:02x}{low:02x}"));
        }
        assert_eq!(broker.values("a", &format!("{key} last")), [100]);
        let points = broker.points("a");
        let each = points
            .iter()
            .filter(|(of, _)| of.starts_with(&format!("{key} each")));
        assert_eq!(each.count(), 100);
    }
}

#[test]
fn sec_15_one_byte_a_segment_works() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for version in VERSIONS {
        let mut bytes = Connect::with_token(version, "a", &token).encode();
        bytes.extend(publish(version, 1, 7, TELEMETRY, br#"{"slow":1}"#));
        bytes.extend([0xc0, 0]);
        let mut wire = broker.wire();
        for byte in bytes {
            wire.send(&[byte]);
        }
        assert_eq!(reason(&wire.packet()), 0);
        let mut answers = [show(&wire.packet()), show(&wire.packet())];
        answers.sort_unstable(); // PINGRESP need not wait for the disk
        assert_eq!(answers, ["40020007", "d000"]);
    }
}

#[test]
fn tls_is_the_same_protocol_behind_it() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for version in VERSIONS {
        let mut wire = broker.wire_tls();
        log_in(&mut wire, &Connect::with_token(version, "a", &token));
        wire.send(&publish(version, 1, 1, TELEMETRY, br#"{"tls":1}"#));
        wire.expect("40020001");
        wire.send_hex("e000");
        wire.expect_close();
        let mut wire = broker.wire_tls();
        wire.send(&Connect::with_token(version, "a", "wrong").encode());
        assert_ne!(reason(&wire.packet()), 0);
        wire.expect_close();
    }
    assert!(!broker.values("a", "tls").is_empty());
}

/// The CONNECT is answered with this code and the connection closed.
fn refused(broker: &Broker, connect: &Connect<'_>, v5: u8, v3: u8) {
    let mut wire = broker.wire();
    wire.send(&connect.encode());
    let connack = wire.packet();
    let what = format!("{:?} {:?}", connect.version, connect.user_name);
    assert_eq!(connack[0], 0x20, "{what}: {}", show(&connack));
    assert_eq!(
        connack[2],
        0,
        "{what}: session present with a refusal: {}",
        show(&connack)
    );
    let code = if connect.version == Version::V5 {
        v5
    } else {
        v3
    };
    assert_eq!(connack[3], code, "{what}: {}", show(&connack));
    wire.expect_close();
}

fn property(connack: &[u8], id: u8) -> Option<Property> {
    let mut properties = connack_properties(connack).into_iter();
    properties.find(|(of, _)| *of == id).map(|(_, value)| value)
}
