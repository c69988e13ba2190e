//! HTTP in front of a WebSocket: what is refused, with which answer, and what that costs nobody.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in},
    web::{self, BINARY, SERVED},
    wire::{ANSWER_LIMIT, Wire},
};

/// SEC-70: TLS handshake, upgrade and CONNECT have one deadline.
const DEADLINE: Duration = Duration::from_secs(10);

fn asked(broker: &Broker, target: &str, headers: &[&str]) -> Result<Wire, String> {
    let headers: Vec<String> = headers.iter().map(|line| (*line).to_owned()).collect();
    Wire::connect(broker.address("ws")).upgrade(target, &headers)
}

/// The first line of what `bytes` are answered with.
fn status(listener: &str, broker: &Broker, bytes: &[u8]) -> String {
    let mut wire = match listener {
        "wss" => Wire::connect_tls(broker.address("wss"), &broker.ca_file()),
        _ => Wire::connect(broker.address("ws")),
    };
    wire.send(bytes);
    let answer = wire.http_answer();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn mqtt_6_0_0_4_the_answer_is_what_clients_can_read() {
    let broker = Broker::start_with(&SERVED);
    let mut wire = Wire::connect(broker.address("ws"));
    wire.send(&web::request(
        "/mqtt",
        &["Sec-WebSocket-Protocol: chat, mqtt".to_owned()],
    ));
    let answer = wire.http_answer();
    let lines: Vec<&str> = answer.trim_end().lines().collect();
    assert_eq!(
        lines,
        [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol: mqtt",
        ]
    );
}

/// What is asked for, with the first line of the answer and the reason that is counted.
fn not_served() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        web::request("/mqtt", &lines)
    };
    let posted = |text: &str| text.as_bytes().to_vec();
    let refused = "HTTP/1.1 400 Bad Request";
    let upgrade = "HTTP/1.1 426 Upgrade Required";
    vec![
        ("HTTP/1.1 404 Not Found", web::request("/", &[]), "path"),
        (
            "HTTP/1.1 404 Not Found",
            web::request("/metrics", &[]),
            "path",
        ),
        (
            "HTTP/1.1 404 Not Found",
            web::request("/clients/mqtt/hubs/h", &[]),
            "path",
        ),
        (
            "HTTP/1.1 405 Method Not Allowed",
            posted("POST /mqtt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
            "method",
        ),
        (
            upgrade,
            posted("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"),
            "no_upgrade",
        ),
        (upgrade, with(&["Sec-WebSocket-Version: 8"]), "no_upgrade"),
        (upgrade, with(&["Upgrade: h2c"]), "no_upgrade"),
        (refused, with(&["Sec-WebSocket-Key: short"]), "no_upgrade"),
        (
            refused,
            with(&["Sec-WebSocket-Protocol: chat"]),
            "subprotocol",
        ),
        (
            refused,
            posted(
                "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            ),
            "subprotocol",
        ),
        (
            "HTTP/1.1 431 Request Header Fields Too Large",
            with(&[&format!("X: {}", "x".repeat(8 * 1024))]),
            "head_too_long",
        ),
        (
            refused,
            posted("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            "not_http",
        ),
        (
            refused,
            [with(&[]), web::frame(BINARY, b"early")].concat(),
            "no_upgrade",
        ),
    ]
}

#[test]
fn s_31_sec_73_what_is_not_served_is_told_and_touches_nothing() {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    let mut live = broker.wire();
    log_in(&mut live, &Connect::with_token(Version::V5, "a", &token));
    let rows = not_served();
    for listener in ["ws", "wss"] {
        for (expected, bytes, reason) in &rows {
            let name = format!("tollgate_websocket_failures_total{{reason=\"{reason}\"}}");
            let before = broker.metric(&name);
            assert_eq!(
                status(listener, &broker, bytes),
                *expected,
                "{listener} {reason}"
            );
            broker.wait_metric(&name, before + 1.0);
        }
    }
    let told = broker.metric(r#"tollgate_connects_refused_total{reason="bad_upgrade"}"#);
    assert_eq!(told, 2.0 * rows.len() as f64);
    assert_eq!(broker.metric("tollgate_connections"), 1.0);
    live.expect_alive();
}

/// SEC-17: what is not for this port is known at its first bytes.
#[test]
fn sec_17_other_protocols_are_let_go_at_once() {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    for bytes in [
        &Connect::with_token(Version::V5, "a", &token).encode()[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 8083\r\n",
    ] {
        let since = Instant::now();
        assert_eq!(status("ws", &broker, bytes), "HTTP/1.1 400 Bad Request");
        assert!(since.elapsed() < DEADLINE, "only at the deadline");
    }
    // HTTP on the ports of MQTT is closed without a word.
    let mut wire = broker.wire();
    wire.send(&web::request("/mqtt", &[]));
    wire.expect_close();
}

/// SEC-70: whatever of it comes late, and however slowly, it is one deadline.
#[test]
fn sec_70_sec_74_s_40_a_slow_upgrade_ends_at_the_deadline() {
    let broker = Broker::start_with(&SERVED);
    let request = web::request("/mqtt", &[]);
    let mut nothing = Wire::connect(broker.address("ws"));
    let mut half = Wire::connect(broker.address("ws"));
    half.send(&request[..request.len() - 2]);
    let mut no_connect = broker.wire_ws();
    let mut half_frame = broker.wire_wss();
    half_frame.send_raw(&web::frame(BINARY, b"\x10\x20\x00\x04MQTT")[..7]);
    let since = Instant::now();
    let mut dripping = Wire::connect(broker.address("ws"));
    for byte in &request {
        dripping.send(&[*byte]);
        if !dripping.is_open() {
            break;
        }
        thread::sleep(Duration::from_millis(100)); // the client's pace
    }
    let early = Duration::from_millis(100); // the broker's clock
    let took = since.elapsed();
    assert!(took + early >= DEADLINE, "{took:?}");
    for wire in [
        &mut dripping,
        &mut nothing,
        &mut half,
        &mut no_connect,
        &mut half_frame,
    ] {
        wire.expect_close();
    }
    assert!(since.elapsed() < ANSWER_LIMIT, "{:?}", since.elapsed());
    broker.wait_metric(r#"tollgate_connects_refused_total{reason="timeout"}"#, 5.0);
}

/// Who is refused while the deadline passes is refused once: a bad token is held back for a second,
/// and then its answer is waited for.
#[test]
fn sec_70_sec_27_a_refusal_at_the_deadline_is_counted_once() {
    let broker = Broker::start_with(&[
        SERVED[0],
        ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", ""),
        ("TOLLGATE_LIMITS_FAILURES_PER_MINUTE_MAX", "1"),
    ]);
    let request = web::request("/mqtt", &["Authorization: Bearer eyJ.a.b".to_owned()]);
    let (begin, end) = request.split_at(request.len() - 2);
    let address = broker.address("ws");
    let mut first = Wire::connect_from("127.0.0.2", address);
    first.send(&request);
    first.skip_until_close();
    let since = Instant::now();
    let mut wires = [(); 6].map(|()| Wire::connect_from("127.0.0.2", address));
    for wire in &mut wires {
        wire.send(begin);
    }
    let mut at = DEADLINE - Duration::from_millis(1_500);
    for wire in &mut wires {
        thread::sleep(at.saturating_sub(since.elapsed())); // the client's pace
        wire.send(end);
        at += Duration::from_millis(250);
    }
    for wire in &mut wires {
        wire.skip_until_close();
    }
    let refused = broker.metric_sum("tollgate_connects_refused_total");
    assert_eq!(refused, 7.0, "{}", broker.metrics());
}

#[test]
fn sec_74_only_the_pages_that_are_listed_may_connect() {
    let origins = (
        "TOLLGATE_WS_ORIGINS",
        "https://fleet.example,http://localhost:3000",
    );
    let broker = Broker::start_with(&[SERVED[0], SERVED[1], origins]);
    for fine in [
        "Origin: https://fleet.example",
        "Origin: http://localhost:3000",
        "X: none",
    ] {
        assert!(asked(&broker, "/mqtt", &[fine]).is_ok(), "{fine}");
    }
    for bad in [
        "Origin: https://elsewhere.example",
        "Origin: null",
        "Origin: http://localhost",
    ] {
        let Err(answer) = asked(&broker, "/mqtt", &[bad]) else {
            panic!("taken: {bad}");
        };
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    }
}

/// Compression is off: an extension that is offered is not taken up.
#[test]
fn sec_74_no_extension_is_taken_up() {
    let broker = Broker::start_with(&SERVED);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned();
    let mut wire = Wire::connect(broker.address("ws"));
    wire.send(&web::request("/mqtt", &[offer]));
    let answer = wire.http_answer();
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && !answer.contains("Extensions"),
        "{answer}"
    );
}

#[test]
fn sec_81_the_proxy_header_comes_before_the_request() {
    let broker = Broker::start_with(&[
        SERVED[0],
        SERVED[1],
        ("TOLLGATE_WS_PROXY_PROTOCOL_FROM", "127.0.0.8/31"),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_ADDRESS_MAX", "1"),
    ]);
    let through = |source: &str| {
        let mut wire = Wire::connect_from(source, broker.address("ws"));
        wire.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 8083\r\n");
        wire.upgrade("/mqtt", &[])
    };
    let first = through("127.0.0.8").expect("the address in the header has none yet");
    let mut second = Wire::connect_from("127.0.0.9", broker.address("ws"));
    second.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 8083\r\n");
    second.expect_close();
    let mut bare = Wire::connect_from("127.0.0.8", broker.address("ws"));
    bare.send(&web::request("/mqtt", &[]));
    bare.expect_close();
    let reason = r#"tollgate_connects_refused_total{reason="address_connections"}"#;
    broker.wait_metric(reason, 1.0);
    drop(first);
}
