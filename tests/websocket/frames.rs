//! MQTT in frames: however they are cut, and whatever in them ends the connection.

use std::time::Instant;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, VERSIONS, Version, log_in, publish, subscribe},
    web::{self, BINARY, CLOSE, FIRST, LAST, MIDDLE, PING, SERVED, TEXT},
    wire::{ANSWER_LIMIT, Wire},
};

const TELEMETRY: &str = "v1/devices/me/telemetry";

/// The bytes of CONNECT and of what follows, as frames.
type Way = fn(&[u8], &[u8]) -> Vec<u8>;

/// A broker that serves WebSockets, and a device's token.
fn broker() -> (Broker, String) {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    (broker, token)
}

fn connected(broker: &Broker, version: Version, token: &str) -> Wire {
    let mut wire = broker.wire_ws();
    log_in(&mut wire, &Connect::with_token(version, "a", token));
    wire
}

/// A value with a time of its own.
fn valued(value: usize) -> String {
    format!(
        "{{\"ts\":{},\"values\":{{\"n\":{value}}}}}",
        1_700_000_000_000 + value
    )
}

fn telemetry(version: Version, id: u16, value: usize) -> Vec<u8> {
    let payload = valued(value);
    publish(version, 1, id, TELEMETRY, payload.as_bytes())
}

/// The PUBACK of MQTT 3.1.1.
fn puback(id: u16) -> Vec<u8> {
    [&[0x40, 2][..], &id.to_be_bytes()].concat()
}

#[test]
fn mqtt_6_0_0_1_telemetry_is_stored_and_acknowledged_over_ws_and_wss() {
    let (broker, token) = broker();
    let mut sent = 0;
    for version in VERSIONS {
        for wire in [broker.wire_ws(), broker.wire_wss()] {
            let mut client = Client::over(wire, &Connect::with_token(version, "a", &token));
            for qos in [0, 1, 2] {
                let payload = valued(sent);
                assert_eq!(client.publish(qos, TELEMETRY, payload.as_bytes()), 0);
                sent += 1;
            }
            client.disconnect();
        }
    }
    let values = broker.values("a", "n");
    let values: Vec<u64> = values
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    assert_eq!(values.len(), sent, "{values:?}");
    broker.expect_balanced_ledger();
}

#[test]
fn mqtt_6_0_0_2_s_39_packets_and_frames_are_not_aligned() {
    let (broker, token) = broker();
    let connect = Connect::with_token(Version::V311, "a", &token).encode();
    let ways: [Way; 5] = [
        // CONNECT in three frames, three packets in one.
        |connect, packets| {
            let mut out = Vec::new();
            for part in connect.chunks(connect.len().div_ceil(3)) {
                out.extend(web::frame(BINARY, part));
            }
            out.extend(web::frame(BINARY, packets));
            out
        },
        // A byte per frame.
        |connect, packets| {
            let bytes = connect.iter().chain(packets);
            bytes
                .flat_map(|byte| web::frame(BINARY, &[*byte]))
                .collect()
        },
        // All in one.
        |connect, packets| web::frame(BINARY, &[connect, packets].concat()),
        // One message of fragments, with a ping and empty fragments between.
        |connect, packets| {
            let all = [connect, packets].concat();
            let (first, rest) = all.split_at(5);
            let (middle, last) = rest.split_at(rest.len() - 1);
            [
                web::frame(FIRST, first),
                web::frame(PING, b"are you there?"),
                web::frame(MIDDLE, b""),
                web::frame(MIDDLE, middle),
                web::frame(LAST, last),
            ]
            .concat()
        },
        // A frame that ends in the middle of a packet, whose rest begins the next.
        |connect, packets| {
            let all = [connect, packets].concat();
            let (one, two) = all.split_at(connect.len() + 7);
            [web::frame(BINARY, one), web::frame(BINARY, two)].concat()
        },
    ];
    let mut stored = 0;
    for (n, way) in ways.into_iter().enumerate() {
        for wire in [&mut broker.wire_ws(), &mut broker.wire_wss()] {
            let packets: Vec<u8> = (1..=3)
                .flat_map(|id| telemetry(Version::V311, id, stored + usize::from(id)))
                .collect();
            // As the client's system cuts it: at once, and byte by byte.
            let bytes = way(&connect, &packets);
            let size = if n % 2 == 0 { bytes.len() } else { 1 };
            bytes.chunks(size).for_each(|part| wire.send_raw(part));
            assert_eq!(wire.packet(), [0x20, 2, 0, 0], "way {n}");
            for id in 1..=3 {
                assert_eq!(wire.packet(), puback(id), "way {n}");
            }
            stored += 3;
            assert_eq!(broker.values("a", "n").len(), stored, "way {n}");
            if n == 3 {
                assert_eq!(wire.pong(), b"are you there?");
            }
        }
    }
}

#[test]
fn a_large_packet_comes_over_many_frames_and_goes_as_some() {
    let broker = Broker::start_with(&SERVED);
    let wanted = [
        "app",
        "create",
        "b",
        "--publish",
        "big/#",
        "--subscribe",
        "big/#",
        "--json",
    ];
    let made = broker.cli_json(&wanted);
    let token = made["token"].as_str().expect("a token").to_owned();
    let payload: Vec<u8> = (0..=250).cycle().take(200_000).collect();
    let packet = publish(Version::V5, 1, 7, "big/one", &payload);
    for mut wire in [broker.wire_ws(), broker.wire_wss()] {
        log_in(&mut wire, &Connect::with_token(Version::V5, "b", &token));
        let filters = [("big/#", 1)];
        wire.send(&subscribe(Version::V5, 1, &filters));
        assert_eq!(wire.packet()[0], 0x90);
        let before = wire.web().frames;
        let mut parts = packet.chunks(1_000).peekable();
        let mut first = FIRST;
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { LAST } else { 0 };
            wire.send_raw(&web::frame(first | last, part));
            first = MIDDLE;
        }
        let mut came = [wire.packet(), wire.packet()];
        came.sort_by_key(Vec::len);
        assert_eq!(came[0][0], 0x40, "its PUBACK");
        assert!(came[1].ends_with(&payload), "and the message itself");
        let frames = wire.web().frames - before;
        assert!((4..20).contains(&frames), "{frames} frames");
    }
}

/// What ends a WebSocket, and what Close says then.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let many = |first: u8| web::frame(first, b"").repeat(1_000);
    vec![
        ("text", web::frame(TEXT, b"\x10\x00"), 1003),
        ("unmasked", vec![BINARY, 2, 0xc0, 0], 1002),
        ("protocol", web::frame(0xc2, b"compressed"), 1002),
        ("protocol", web::frame(LAST, b"of nothing"), 1002),
        ("protocol", web::frame(PING, &[0; 126]), 1002),
        ("too_long", web::announce(BINARY, 17 << 20), 1009),
        ("too_long", web::announce(BINARY, u64::MAX), 1009),
        ("flood", many(PING), 1008),
        (
            "flood",
            [web::frame(FIRST, b""), many(MIDDLE)].concat(),
            1008,
        ),
    ]
}

#[test]
fn mqtt_6_0_0_1_sec_74_what_no_client_may_send_ends_it_and_close_says_why() {
    let (broker, token) = broker();
    for (n, (reason, bytes, code)) in violations().into_iter().enumerate() {
        let name = format!("tollgate_websocket_failures_total{{reason=\"{reason}\"}}");
        let counted = broker.metric(&name);
        for mut wire in [broker.wire_ws(), broker.wire_wss()] {
            wire.send_raw(&bytes);
            wire.expect_close();
            assert_eq!(wire.web().close, Some(code), "{reason}, before CONNECT");
        }
        for version in [Version::V311, Version::V5] {
            let mut wire = connected(&broker, version, &token);
            wire.send_raw(&bytes);
            wire.skip_until_close();
            assert_eq!(wire.web().close, Some(code), "{reason}, connected");
        }
        // What came before it counts.
        let mut wire = connected(&broker, Version::V311, &token);
        let value = web::frame(BINARY, &telemetry(Version::V311, 9, n));
        wire.send_raw(&[value, bytes].concat());
        wire.skip_until_close();
        assert_eq!(wire.web().close, Some(code), "{reason}, behind a message");
        broker.wait_metric(&name, counted + 5.0);
        // Nobody waits for its acknowledgement any more: it may become durable behind the close.
        let until = Instant::now() + ANSWER_LIMIT;
        while broker.values("a", "n").len() <= n {
            assert!(Instant::now() < until, "{reason}: what came before is lost");
        }
    }
}

#[test]
fn a_close_is_answered_and_disconnect_ends_in_one() {
    let (broker, token) = broker();
    for version in VERSIONS {
        for (payload, code) in [(&b""[..], 0), (&[0x03, 0xe8], 1000), (b"\x03\xe9", 1001)] {
            let mut wire = connected(&broker, version, &token);
            let value = telemetry(version, 3, 1);
            wire.send_raw(&[web::frame(BINARY, &value), web::frame(CLOSE, payload)].concat());
            assert_eq!(
                wire.packet()[0],
                0x40,
                "what was sent before is acknowledged"
            );
            wire.expect_close();
            assert_eq!(wire.web().close, Some(code), "{version:?}");
        }
        let mut wire = connected(&broker, version, &token);
        wire.send(&[0xe0, 0]);
        wire.expect_close();
        assert_eq!(wire.web().close, Some(1000), "{version:?}");
    }
    // Before CONNECT too.
    let mut wire = broker.wire_ws();
    wire.send_raw(&web::frame(CLOSE, &[0x03, 0xe8]));
    wire.expect_close();
    assert_eq!(wire.web().close, Some(1000));
    // And behind what is no CONNECT.
    let mut wire = broker.wire_ws();
    wire.send(&[0xc0, 0]);
    wire.expect_close();
    assert_eq!(wire.web().close, Some(1000));
}

#[test]
fn pings_are_answered_and_a_few_in_a_second_are_no_flood() {
    let (broker, token) = broker();
    let mut wire = connected(&broker, Version::V5, &token);
    for n in 0..50_u8 {
        wire.send_raw(&web::frame(PING, &[n; 125]));
        assert_eq!(wire.pong(), [n; 125]);
    }
    wire.send_raw(&web::frame(0x8a, b"a pong that nobody asked for"));
    wire.expect_alive();
}

/// Each packet to the client stays whole behind another, also while the client does not read.
#[test]
fn a_client_that_reads_late_gets_whole_frames() {
    let (broker, token) = broker();
    for mut wire in [broker.wire_ws(), broker.wire_wss()] {
        log_in(&mut wire, &Connect::with_token(Version::V311, "a", &token));
        // More answers than the system's buffers hold would take a thousand times as many: what is
        // shown is that pings in between break nothing.
        let mut bytes = Vec::new();
        for id in 1..=90 {
            bytes.extend(web::frame(BINARY, &telemetry(Version::V311, id, id.into())));
            if id % 30 == 0 {
                bytes.extend(web::frame(PING, &id.to_be_bytes()));
            }
        }
        wire.send_raw(&bytes);
        for id in 1..=90 {
            assert_eq!(wire.packet(), puback(id));
        }
        wire.expect_alive();
    }
}
