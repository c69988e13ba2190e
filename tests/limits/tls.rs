//! SEC-70: TLS that fails is counted by reason and explained; what a client may send without data
//! is bounded; many handshakes at once keep nobody waiting.

use std::{io::Read as _, sync::Arc, thread, time::Instant};

use rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, TELEMETRY, Version, log_in, publish},
    web,
    wire::{ANSWER_LIMIT, Wire, client_config, client_config_with, hex, socket},
};

/// How often a client of a storm comes before it gives up.
const ATTEMPTS_MAX: usize = 20;

#[test]
fn sec_70_tls_failures_are_counted_by_reason() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let address = broker.address("mqtts");
    let tls = |reason: &str| {
        broker.wait_metric(&failures(reason), 1.0);
        assert_eq!(broker.metric(&failures(reason)), 1.0, "{reason}");
    };

    let mut plain = Wire::connect(address);
    plain.send(&Connect::with_token(Version::V5, "a", &token).encode());
    plain.skip_until_close();
    tls("not_tls");

    // A ClientHello of TLS 1.0 with one old suite (AES-128-CBC with SHA).
    let mut old = Wire::connect(address);
    old.send(&client_hello("0301", "002f"));
    old.skip_until_close();
    tls("no_shared_version");

    // TLS 1.2 without a suite that has ECDHE and an AEAD.
    let mut weak = Wire::connect(address);
    weak.send(&client_hello("0303", "002f"));
    weak.skip_until_close();
    tls("no_shared_cipher");

    let mut stranger = Wire::over_tls(Arc::new(trusts_nobody()), "localhost", socket(address));
    let stream = stranger.tls();
    while stream.conn.complete_io(&mut stream.sock).is_ok() && stream.conn.is_handshaking() {}
    tls("certificate_rejected");

    drop({
        let mut gone = Wire::connect(address);
        gone.send_hex("16030100c8010000c40303");
        gone
    });
    tls("closed");
    // A ClientHello that is announced with 60,000 bytes, in records of 16 KiB.
    let mut flood = Wire::connect(address);
    let mut record = hex("1603014000 0100ea60 0303");
    record.resize(5 + 0x4000, 0);
    for _ in 0..3 {
        flood.send(&record);
    }
    flood.skip_until_close();
    tls("flood");

    let refused = r#"tollgate_connects_refused_total{reason="tls_failed"}"#;
    broker.wait_metric(refused, 6.0);
    assert_eq!(broker.metric(refused), 6.0);
    let log = broker.stderr();
    // One line for each that an operator can do something about.
    let advice = [
        "update their firmware",
        "they do not trust the certificate",
        "mqtt.listen",
        "need ECDHE",
    ];
    for words in advice {
        assert_eq!(log.matches(words).count(), 1, "{words} in\n{log}");
    }
    let mut good = broker.wire_tls();
    log_in(&mut good, &Connect::with_token(Version::V5, "a", &token));
}

/// What is said is what an operator can do about it: of the listener that they came to, and of what
/// is set.
#[test]
fn sec_70_the_advice_is_of_the_listener_and_of_what_is_set() {
    let setup = || {
        Setup::new()
            .set("TOLLGATE_WSS_LISTEN", "127.0.0.1:0")
            .set("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", "required")
    };
    let with_authority = setup();
    let authority = with_authority.dir().join("clients.pem");
    let made = rcgen::generate_simple_self_signed(["clients".to_owned()]).expect("a certificate");
    std::fs::write(&authority, made.cert.pem()).expect("a file");
    let authority = authority.to_str().expect("temporary paths are UTF-8");
    let with_authority = with_authority.set("TOLLGATE_MQTTS_CLIENT_AUTHORITY", authority);
    for (setup, named) in [(setup(), false), (with_authority, true)] {
        let broker = setup.start();
        for (listener, bytes) in [
            ("wss", web::request("/mqtt", &[])),
            ("mqtts", Connect::anonymous(Version::V5, "a").encode()),
        ] {
            let mut plain = Wire::connect(broker.address(listener));
            plain.send(&bytes);
            plain.skip_until_close();
        }
        let config = client_config(&broker.ca_file());
        let mut nothing = Wire::over_tls(config, "localhost", socket(broker.address("mqtts")));
        let answer = nothing.tls().read(&mut [0; 4]);
        assert!(!matches!(answer, Ok(1..)), "{answer:?}");
        broker.wait_metric(&failures("not_tls"), 2.0);
        broker.wait_metric(&failures("client_certificate"), 1.0);
        let log = broker.stderr();
        for (words, times) in [
            ("addresses begin with wss:// or https:// here", 1),
            ("(ws.listen)", 1),
            ("(mqtt.listen)", 1),
            (
                "they show no certificate, or none of mqtts.client_authority",
                usize::from(named),
            ),
            ("they show no usable certificate", usize::from(!named)),
        ] {
            assert_eq!(log.matches(words).count(), times, "{words} in\n{log}");
        }
    }
}

fn trusts_nobody() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// A client gets the AES that costs least, whichever it names first; and none if it names another
/// cipher first.
#[test]
fn sec_70_a_client_without_aes_gets_what_it_asks_for() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for (first, expected) in [
        ("TLS13_AES_256", "TLS13_AES_128_GCM_SHA256"),
        ("TLS13_AES_128", "TLS13_AES_128_GCM_SHA256"),
        ("TLS13_CHACHA20", "TLS13_CHACHA20_POLY1305_SHA256"),
    ] {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let is_first = |name: &str| name.starts_with(first);
        let suites = &mut provider.cipher_suites;
        suites.sort_by_key(|suite| !is_first(&format!("{:?}", suite.suite())));
        let mut wire = Wire::over_tls(
            client_config_with(&broker.ca_file(), provider),
            "localhost",
            socket(broker.address("mqtts")),
        );
        log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
        let suite = wire.tls().conn.negotiated_cipher_suite();
        let suite = suite.expect("the handshake is done").suite();
        assert_eq!(format!("{suite:?}"), expected);
    }
}

/// S-33: thousands of key updates per second.
#[test]
fn s_33_a_flood_of_key_updates_is_cut_off() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut wire = broker.wire_tls();
    log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
    // A few now and then are the client's right.
    for _ in 0..20 {
        wire.tls()
            .conn
            .refresh_traffic_keys()
            .expect("the handshake is done");
    }
    wire.expect_alive();
    let mut sent = 0;
    while wire.is_open() {
        for _ in 0..100 {
            wire.tls()
                .conn
                .refresh_traffic_keys()
                .expect("the handshake is done");
        }
        sent += 100;
        wire.send(&[]);
        assert!(sent < 100_000, "nobody minds");
    }
    broker.wait_metric(&failures("flood"), 1.0);
    broker.wait_metric_until("tollgate_connections", |held| held == 0.0);
}

/// SEC-70: a device that comes back needs no full handshake, in either version.
#[test]
fn sec_70_a_device_comes_back_without_a_full_handshake() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let config = client_config(&broker.ca_file());
    for expected in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let mut wire = Wire::over_tls(
            Arc::clone(&config),
            "localhost",
            socket(broker.address("mqtts")),
        );
        log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
        wire.expect_alive();
        assert_eq!(wire.tls().conn.handshake_kind(), Some(expected));
    }
}

/// Reconnect storm: 300 clients begin their handshakes together; all are back in time, and a
/// connected client's messages are acknowledged throughout.
#[test]
fn sec_81_a_reconnect_storm_lets_connected_clients_go_on() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "1000"),
        ("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "1000"),
    ]);
    let token = broker.create_device("a");
    let mut established = broker.wire();
    log_in(
        &mut established,
        &Connect::with_token(Version::V311, "one", &token),
    );
    let (config, address) = (client_config(&broker.ca_file()), broker.address("mqtts"));
    let clients: Vec<_> = (0..6)
        .map(|thread| {
            let (config, token) = (Arc::clone(&config), token.clone());
            thread::spawn(move || {
                let open = || Wire::over_tls(Arc::clone(&config), "localhost", socket(address));
                let ask = |wire: &mut Wire, n: usize| {
                    let name = format!("{thread} {n}");
                    wire.send(&Connect::with_token(Version::V311, &name, &token).encode());
                };
                let mut wires: Vec<Wire> = (0..50).map(|_| open()).collect();
                for (n, wire) in wires.iter_mut().enumerate() {
                    ask(wire, n);
                }
                for (n, wire) in wires.iter_mut().enumerate() {
                    // Whom a slow machine keeps waiting for more than 10 s comes again.
                    let connack = (0..ATTEMPTS_MAX).find_map(|attempt| {
                        if attempt > 0 {
                            *wire = open();
                            ask(wire, n);
                        }
                        wire.packet_or_close(ANSWER_LIMIT)
                    });
                    assert_eq!(connack, Some(hex("20020000")));
                }
                wires
            })
        })
        .collect();
    let storm = thread::spawn(move || {
        let since = Instant::now();
        let wires: Vec<_> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        (since.elapsed(), wires)
    });
    // How short the waits are is for `tollgate bench connect --at-once` on a quiet machine; that
    // handshakes take turns is tested in `src/net/turnstile.rs`.
    let mut waits = Vec::new();
    // It ends by a panic too, which `join` passes on.
    while waits.is_empty() || !storm.is_finished() {
        let since = Instant::now();
        established.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"a":1}"#));
        established.expect("40020001");
        waits.push(since.elapsed());
    }
    let (took, _wires) = storm.join().unwrap();
    waits.sort();
    println!(
        "{took:?}, {} messages, median {:?}, slowest {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
}

fn failures(reason: &str) -> String {
    format!("tollgate_tls_failures_total{{reason=\"{reason}\"}}")
}

/// A ClientHello without extensions but groups and signature schemes.
fn client_hello(version: &str, suite: &str) -> Vec<u8> {
    let extensions = "000a0004 0002 001d 000d0004 0002 0403".replace(' ', "");
    let random = "11".repeat(32);
    let extensions_len = format!("{:04x}", extensions.len() / 2);
    let body = format!("{version}{random}00 0002{suite} 0100 {extensions_len}{extensions}");
    let body = hex(&body);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    message.extend(body);
    let mut record = hex("160301");
    record.extend(u16::try_from(message.len()).expect("short").to_be_bytes());
    record.extend(message);
    record
}

/// A CONNECT that fills more than a record comes right behind the handshake: it is no flood.
#[test]
fn sec_70_a_long_connect_right_behind_the_handshake_is_let_in() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let text = vec![b'x'; 60_000];
    let connect = Connect {
        will: Some((0, false, "v1/devices/me/telemetry", &text)),
        ..Connect::with_token(Version::V5, "a", &token)
    };
    for _ in 0..5 {
        log_in(&mut broker.wire_tls(), &connect);
    }
}
