//! SEC-28: what one identity may have, whichever workers its clients are at home on.

use crate::common::{
    broker::Broker,
    packets::{
        Connect, Property, Version, connack_properties, log_in, publish, reason, subscribe,
        unsubscribe,
    },
    wire::{Wire, hex, show},
};

const PER_CLIENT_ID: (&str, &str) = ("TOLLGATE_DEVICE_SESSIONS", "per_client_id");
const WORKERS: (&str, &str) = ("TOLLGATE_WORKERS_COUNT", "4");

#[test]
fn sec_28_an_identity_has_ten_connections_over_all_workers() {
    let broker = Broker::start_with(&[PER_CLIENT_ID, WORKERS]);
    let token = broker.create_device("a");
    let other = broker.create_device("b");
    let names: Vec<String> = (0..30).map(|n| format!("client {n}")).collect();
    let mut clients: Vec<Wire> = names[..10]
        .iter()
        .map(|name| open(&broker, &token, name))
        .collect();
    for (version, code) in [(Version::V5, 0x97), (Version::V311, 3)] {
        for name in &names[10..20] {
            assert_eq!(refused(&broker, version, &token, name, true), code);
        }
    }
    assert_eq!(
        broker.metric(r#"tollgate_connects_refused_total{reason="identity_sessions"}"#),
        20.0
    );
    open(&broker, &other, "its own").expect_alive();
    // Taking over needs no place.
    let mut again = open(&broker, &token, &names[3]);
    assert_eq!(reason(&clients[3].packet()), 0x8e);
    again.expect_alive();
    // A session that ends gives its place to another; `e0 07 …` sets its expiry to 0.
    clients[0].send_hex("e007 0005 1100000000");
    clients[0].expect_close();
    open(&broker, &token, &names[20]).expect_alive();
}

#[test]
fn sec_28_stored_sessions_count_and_survive_a_restart() {
    let mut broker = Broker::start_with(&[
        PER_CLIENT_ID,
        WORKERS,
        ("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "4"),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "2"),
    ]);
    let token = broker.create_device("a");
    for name in ["1", "2", "3", "4"] {
        let mut wire = broker.wire();
        let connect = Connect {
            clean: false,
            ..Connect::with_token(Version::V311, name, &token)
        };
        log_in(&mut wire, &connect);
        wire.send_hex("e000");
        wire.expect_close();
    }
    for _ in 0..2 {
        assert_eq!(refused(&broker, Version::V311, &token, "5", true), 3);
        // Those that are stored can come back, two at a time.
        let _one = open(&broker, &token, "1");
        let _two = open(&broker, &token, "2");
        assert_eq!(refused(&broker, Version::V5, &token, "3", false), 0x97);
        let reason = r#"tollgate_connects_refused_total{reason="identity_connections"}"#;
        assert_eq!(broker.metric(reason), 1.0);
        drop((_one, _two));
        // `open` is clean in nothing: the sessions go on. The next round is after a restart.
        broker.wait_metric_until("tollgate_connections", |held| held == 0.0);
        broker.restart();
    }
}

#[test]
fn sec_28_session_expiry_has_a_longest_time() {
    let broker = Broker::start_with(&[("TOLLGATE_LIMITS_SESSION_EXPIRY_MAX_S", "100")]);
    let token = broker.create_device("a");
    let mut wire = broker.wire();
    let connect = Connect {
        properties: hex("11ffffffff"),
        ..Connect::with_token(Version::V5, "a", &token)
    };
    let connack = log_in(&mut wire, &connect);
    let properties = connack_properties(&connack);
    assert!(
        properties.contains(&(0x11, Property::Number(100))),
        "{properties:?}"
    );
}

#[test]
fn sec_28_subscriptions_and_filters_of_one_packet_are_limited() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX", "3"),
        ("TOLLGATE_LIMITS_FILTERS_PER_PACKET_MAX", "2"),
    ]);
    let token = broker.create_device("a");
    let known = [
        "v1/devices/me/attributes",
        "v1/devices/me/attributes/response/+",
        "v1/devices/me/rpc/request/+",
        "v1/devices/me/rpc/response/+",
    ];
    for (version, code) in [(Version::V5, 0x97), (Version::V311, 0x80)] {
        let mut wire = open_as(&broker, version, &token, "a");
        wire.send(&subscribe(
            version,
            1,
            &[(known[0], 1), (known[1], 1), (known[2], 1)],
        ));
        let codes = wire.packet();
        assert_eq!(codes[codes.len() - 3..], [1, 1, code], "{}", show(&codes));
        wire.send(&subscribe(version, 2, &[(known[2], 1), (known[3], 1)]));
        let codes = wire.packet();
        assert_eq!(codes[codes.len() - 2..], [1, code], "{}", show(&codes));
        wire.send(&unsubscribe(version, 3, &known[..2]));
        assert_eq!(wire.packet()[0], 0xb0);
        wire.send(&unsubscribe(version, 4, &known[..3]));
        if version == Version::V5 {
            assert_eq!(reason(&wire.packet()), 0x97);
        }
        wire.expect_close();
    }
}

#[test]
fn sec_28_unfinished_qos_2_ids_have_a_limit_of_their_own() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_MQTT_RECEIVE_MAXIMUM", "3"),
        ("TOLLGATE_LIMITS_UNFINISHED_QOS2_MAX", "4"),
    ]);
    let token = broker.create_device("a");
    let mut wire = open_as(&broker, Version::V311, &token, "a");
    let message = |id| {
        publish(
            Version::V311,
            2,
            id,
            "v1/devices/me/telemetry",
            br#"{"a":1}"#,
        )
    };
    for id in 1..=4 {
        wire.send(&message(id));
        assert_eq!(wire.packet()[0], 0x50);
    }
    wire.send(&message(2)); // held already: the same message again
    assert_eq!(wire.packet()[0], 0x50);
    wire.send(&message(5));
    wire.expect_close();
}

/// A limit below what clients are told could never be kept to.
#[test]
fn sec_28_the_limit_of_qos_2_ids_is_not_below_receive_maximum() {
    let setup =
        crate::common::broker::Setup::new().set("TOLLGATE_LIMITS_UNFINISHED_QOS2_MAX", "99");
    let Err((_, refusal)) = setup.try_start() else {
        panic!("it started");
    };
    assert_eq!(refusal.code, Some(2));
    assert!(
        refusal.stderr.contains("mqtt.receive_maximum = 100"),
        "{refusal:?}"
    );
}

fn open(broker: &Broker, token: &str, client_id: &str) -> Wire {
    let mut wire = broker.wire();
    let connect = Connect {
        clean: false,
        properties: hex("1100000e10"),
        ..Connect::with_token(Version::V5, client_id, token)
    };
    log_in(&mut wire, &connect);
    wire
}

fn open_as(broker: &Broker, version: Version, token: &str, client_id: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, client_id, token));
    wire
}

fn refused(broker: &Broker, version: Version, token: &str, client_id: &str, clean: bool) -> u8 {
    let mut wire = broker.wire();
    let connect = Connect {
        clean,
        ..Connect::with_token(version, client_id, token)
    };
    wire.send(&connect.encode());
    let connack = wire.packet();
    assert_eq!(connack[0], 0x20);
    wire.expect_close();
    reason(&connack)
}
