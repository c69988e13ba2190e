//! One live session per device, and what ends the older one.

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason},
    wire::{Wire, show},
};

/// MQTT 5: session taken over.
const TAKEN_OVER: u8 = 0x8e;

#[test]
fn tb_06_a_second_connection_closes_the_first() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for old_version in VERSIONS {
        for (new_version, new_id) in [(Version::V311, "same"), (Version::V5, "other")] {
            let mut old = connect(&broker, old_version, "same", &token);
            let mut new = connect(&broker, new_version, new_id, &token);
            expect_taken_over(&mut old, old_version);
            new.expect_alive();
        }
    }
}

#[test]
fn tb_06_holds_between_listeners() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut plain = connect(&broker, Version::V5, "a", &token);
    let mut tls = broker.wire_tls();
    log_in(&mut tls, &Connect::with_token(Version::V5, "b", &token));
    expect_taken_over(&mut plain, Version::V5);
    let mut plain = connect(&broker, Version::V5, "a", &token);
    expect_taken_over(&mut tls, Version::V5);
    plain.expect_alive();
}

#[test]
fn tb_06_equal_client_ids_of_different_devices_do_not_meet() {
    let broker = Broker::start();
    let (one, other) = (broker.create_device("one"), broker.create_device("other"));
    for version in VERSIONS {
        let mut of_one = connect(&broker, version, "the-same", &one);
        let mut of_other = connect(&broker, version, "the-same", &other);
        of_one.expect_alive();
        of_other.expect_alive();
        of_one.send(&publish(version, 1, 1, TELEMETRY, br#"{"of":"one"}"#));
        of_other.send(&publish(version, 1, 1, TELEMETRY, br#"{"of":"other"}"#));
        of_one.expect("40020001");
        of_other.expect("40020001");
    }
    assert!(
        broker
            .values("one", "of")
            .iter()
            .all(|value| value == "one")
    );
    assert!(
        broker
            .values("other", "of")
            .iter()
            .all(|value| value == "other")
    );
}

/// Of many connections of one device, only the last one lives; nothing acknowledged is lost.
#[test]
fn tb_06_a_storm_leaves_one() {
    const CONNECTIONS: usize = 50;
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut wires = Vec::new();
    for number in 0..CONNECTIONS {
        let mut wire = connect(&broker, Version::V5, &format!("id-{number}"), &token);
        let payload = format!(r#"{{"storm {number}":1}}"#);
        wire.send(&publish(Version::V5, 1, 1, TELEMETRY, payload.as_bytes()));
        wire.expect("40020001");
        wires.push(wire);
    }
    let mut last = wires.pop().expect("there is a last one");
    for wire in &mut wires {
        expect_taken_over(wire, Version::V5);
    }
    last.expect_alive();
    assert_eq!(broker.points("a").len(), CONNECTIONS);
}

#[test]
fn sessions_per_client_id_live_side_by_side_when_asked_for() {
    let broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let token = broker.create_device("a");
    let mut one = connect(&broker, Version::V5, "one", &token);
    let mut other = connect(&broker, Version::V311, "other", &token);
    one.expect_alive();
    other.expect_alive();
    let mut again = connect(&broker, Version::V5, "one", &token);
    expect_taken_over(&mut one, Version::V5);
    other.expect_alive();
    again.expect_alive();
}

/// A failed CONNECT touches nothing (SEC-21; S-09 as far as a device can see it).
#[test]
fn sec_21_a_refused_connect_takes_nothing_over() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for version in VERSIONS {
        let mut live = connect(&broker, version, "a", &token);
        let mut stranger = broker.wire();
        stranger.send(&Connect::with_token(version, "a", "wrong").encode());
        assert_ne!(reason(&stranger.packet()), 0);
        stranger.expect_close();
        live.expect_alive();
    }
}

/// MQTT 5's session expiry and 3.1.1's clean session keep state or do not; CONNACK says so.
#[test]
fn a_session_is_present_only_where_it_was_kept() {
    let broker = Broker::start();
    let (v3, v5) = (broker.create_device("v3"), broker.create_device("v5"));
    // Clean, session expiry in seconds (MQTT 5), session present in the answer.
    let table = [
        (false, 60, 0),
        (false, 60, 1),
        (true, 60, 0),
        (false, 0, 1),
        (false, 60, 0),
    ];
    for (clean, expiry_s, present) in table {
        let mut connect = Connect::with_token(Version::V5, "a", &v5);
        connect.clean = clean;
        connect.properties.push(0x11);
        connect.properties.extend(u32::to_be_bytes(expiry_s));
        let mut wire = broker.wire();
        let connack = log_in(&mut wire, &connect);
        assert_eq!(
            connack[2],
            present,
            "{clean} {expiry_s}: {}",
            show(&connack)
        );
        wire.send_hex("e000");
        wire.expect_close();
    }
    for (clean, present) in [(false, 0), (false, 1), (true, 0), (false, 0), (false, 1)] {
        let connect = Connect {
            clean,
            ..Connect::with_token(Version::V311, "a", &v3)
        };
        let mut wire = broker.wire();
        let connack = log_in(&mut wire, &connect);
        assert_eq!(connack[2], present, "{clean}: {}", show(&connack));
        wire.send_hex("e000");
        wire.expect_close();
    }
}

fn connect(broker: &Broker, version: Version, client_id: &str, token: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, client_id, token));
    wire
}

fn expect_taken_over(wire: &mut Wire, version: Version) {
    if version == Version::V5 {
        let packet = wire.packet();
        assert_eq!(
            (packet[0], reason(&packet)),
            (0xe0, TAKEN_OVER),
            "{}",
            show(&packet)
        );
    }
    wire.expect_close();
}
