//! The PROXY protocol: the address that a proxy names counts, and only a proxy may name one.

use std::io::Write;

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in},
    wire::{Wire, client_config, socket_from},
};

/// 127.0.0.8 and 127.0.0.9 are proxies.
fn broker() -> (Broker, String) {
    let broker = Broker::start_with(&[
        ("TOLLGATE_MQTT_PROXY_PROTOCOL_FROM", "127.0.0.8/31"),
        ("TOLLGATE_MQTTS_PROXY_PROTOCOL_FROM", "127.0.0.8/31"),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_ADDRESS_MAX", "1"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    (broker, token)
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 1883\r\n";

/// PROXY, IPv4 over TCP, from 192.0.2.2, with a TLV of five bytes.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x02\xc6\x33\x64\x01\xc3\x50\x07\x5b\x04\0\x02xx";

/// LOCAL: the proxy looks whether we are there.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn sec_81_the_address_in_the_header_counts() {
    let (broker, token) = broker();
    let mut held = Vec::new();
    for (n, header) in [V1, V2].into_iter().enumerate() {
        let mut wire = Wire::connect_from("127.0.0.8", broker.address("mqtt"));
        let name = n.to_string();
        let connect = Connect::with_token(Version::V5, &name, &token);
        wire.send(&[header, &connect.encode()].concat());
        assert_eq!(wire.packet()[3], 0, "header and CONNECT in one segment");
        held.push(wire);
        let mut second = Wire::connect_from("127.0.0.9", broker.address("mqtt"));
        second.send(header);
        second.expect_close();
    }
    let reason = r#"tollgate_connects_refused_total{reason="address_connections"}"#;
    broker.wait_metric(reason, 2.0);
    assert_eq!(broker.metric(reason), 2.0);
    for wire in &mut held {
        wire.expect_alive();
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_before_tls() {
    let (broker, token) = broker();
    let mut wire = Wire::connect_from("127.0.0.8", broker.address("mqtt"));
    for byte in V1 {
        wire.send(&[*byte]);
    }
    log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
    let mut socket = socket_from("127.0.0.8", broker.address("mqtts"));
    socket.write_all(V2).expect("it is open");
    let mut tls = Wire::over_tls(client_config(&broker.ca_file()), "localhost", socket);
    log_in(&mut tls, &Connect::with_token(Version::V311, "b", &token));
    tls.expect_alive();
}

#[test]
fn a_proxy_may_speak_for_itself() {
    let (broker, token) = broker();
    for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut wire = Wire::connect_from("127.0.0.8", broker.address("mqtt"));
        wire.send(header);
        log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
    }
}

#[test]
fn a_proxy_without_a_header_and_a_header_from_elsewhere_are_closed() {
    let (broker, token) = broker();
    let connect = Connect::with_token(Version::V5, "a", &token).encode();
    let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
    let unreadable = b"PROXY TCP4 one two 1 2\r\n".to_vec();
    for bytes in [connect.clone(), long, unreadable] {
        let mut wire = Wire::connect_from("127.0.0.8", broker.address("mqtt"));
        wire.send(&bytes);
        wire.expect_close();
    }
    let proxy_header = r#"tollgate_connects_refused_total{reason="proxy_header"}"#;
    broker.wait_metric(proxy_header, 3.0);
    assert_eq!(broker.metric(proxy_header), 3.0);
    for header in [V1, V2] {
        let mut wire = Wire::connect_from("127.0.0.7", broker.address("mqtt"));
        wire.send(&[header, &connect].concat());
        wire.expect_close();
    }
    let bad_connect = r#"tollgate_connects_refused_total{reason="bad_connect"}"#;
    broker.wait_metric(bad_connect, 2.0);
    assert_eq!(broker.metric(bad_connect), 2.0);
    let mut wire = Wire::connect_from("127.0.0.7", broker.address("mqtt"));
    wire.send(&connect);
    assert_eq!(wire.packet()[3], 0);
}
