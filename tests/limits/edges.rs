//! Clients that take little, read nothing, or stop sending: what they get, and when they are let
//! go.

use std::time::{Duration, Instant};

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason, subscribe},
    wire::{ANSWER_LIMIT, Wire, hex, show},
};

/// [MQTT-3.1.2-24]: no packet is longer than the client takes; without CONNACK no session.
#[test]
fn a_client_that_takes_no_connack_is_told_so_or_closed() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for (takes, answer) in [(4, None), (5, Some(0x95)), (16, Some(0x95)), (18, Some(0))] {
        let mut wire = broker.wire();
        let connect = Connect {
            properties: hex(&format!("27 000000{takes:02x}")),
            ..Connect::with_token(Version::V5, "a", &token)
        };
        wire.send(&connect.encode());
        let connack = wire.packet_or_close(ANSWER_LIMIT);
        let code = connack.as_ref().map(|connack| reason(connack));
        assert_eq!(code, answer, "takes {takes}: {connack:02x?}");
        assert!(connack.is_none_or(|connack| connack.len() <= takes));
    }
    let reason = r#"tollgate_connects_refused_total{reason="packet_too_large"}"#;
    broker.wait_metric(reason, 3.0);
    assert_eq!(broker.metric(reason), 3.0);
}

#[test]
fn a_client_that_takes_no_suback_is_told_so_and_closed() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut wire = broker.wire();
    let connect = Connect {
        properties: hex("27 00000020"),
        ..Connect::with_token(Version::V5, "a", &token)
    };
    log_in(&mut wire, &connect);
    let filters = [("v1/devices/me/attributes", 1); 24];
    wire.send(&subscribe(Version::V5, 1, &filters));
    assert_eq!(show(&wire.packet())[..2], *"90");
    wire.send(&subscribe(
        Version::V5,
        2,
        &[filters.as_slice(), &filters[..2]].concat(),
    ));
    let last = wire.packet();
    assert_eq!((last[0], reason(&last)), (0xe0, 0x95));
    assert!(last.len() <= 32);
    wire.expect_close();
}

/// Small clients send a value and end their side behind it: they get their acknowledgements.
#[test]
fn a_client_that_ends_its_side_gets_its_acknowledgements() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for version in VERSIONS {
        for n in 0..10_u16 {
            let mut wire = broker.wire();
            let connect = Connect::with_token(version, "a", &token);
            let mut bytes = connect.encode();
            for id in 1..=5 {
                let payload = format!("{{\"ts\":{n},\"values\":{{\"{version:?} {id}\":1}}}}");
                bytes.extend(publish(version, 1, id, TELEMETRY, payload.as_bytes()));
            }
            wire.send(&bytes);
            wire.half_close();
            let packets = wire.packets_until_close();
            let firsts: Vec<u8> = packets.iter().map(|packet| packet[0]).collect();
            assert_eq!(firsts, [0x20, 0x40, 0x40, 0x40, 0x40, 0x40]);
        }
    }
    for id in 1..=5 {
        assert_eq!(broker.values("a", &format!("V311 {id}")).len(), 10);
    }
    broker.wait_metric_until("tollgate_connections", |held| held == 0.0);
}

/// SEC-82: more waits for a client that reads nothing than may.
#[test]
fn sec_82_a_client_that_does_not_read_is_cut_off_by_bytes() {
    let broker = Broker::start_with(&[("TOLLGATE_LIMITS_UNSENT_MAX_BYTES", "65536")]);
    let mut wire = deaf(&broker);
    flood(&mut wire, 1 << 24);
    broker.wait_metric(r#"tollgate_slow_readers_total{reason="bytes"}"#, 1.0);
    broker.wait_metric_until("tollgate_connections", |held| held == 0.0);
}

/// SEC-82: what waits does not go, for too long.
#[test]
fn sec_82_a_client_that_does_not_read_is_cut_off_by_time() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_LIMITS_UNSENT_MAX_BYTES", "1073741824"),
        ("TOLLGATE_LIMITS_UNSENT_TIMEOUT_S", "1"),
    ]);
    let mut wire = deaf(&broker);
    let since = Instant::now();
    flood(&mut wire, 1 << 24);
    broker.wait_metric(r#"tollgate_slow_readers_total{reason="time"}"#, 1.0);
    assert!(since.elapsed() >= Duration::from_secs(1));
    broker.wait_metric_until("tollgate_connections", |held| held == 0.0);
}

/// A client that will read nothing any more.
fn deaf(broker: &Broker) -> Wire {
    let token = broker.create_device("deaf");
    let mut wire = broker.wire();
    log_in(
        &mut wire,
        &Connect::with_token(Version::V311, "deaf", &token),
    );
    wire
}

/// PINGREQs, until so many bytes are sent or the broker has closed. Each is answered with as
/// many bytes, of which the system's buffers on both sides hold a few MiB.
fn flood(wire: &mut Wire, bytes: usize) {
    let pings = [0xc0, 0].repeat(32 * 1024);
    for _ in 0..bytes / pings.len() {
        wire.send(&pings);
    }
}
