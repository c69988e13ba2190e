//! SEC-81: connections in all, per address, before CONNECT; file descriptors.

use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, TELEMETRY, Version, log_in, publish},
    wire::{ANSWER_LIMIT, Wire, show},
};

const NOBODY_TRUSTED: (&str, &str) = ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "");

#[test]
fn sec_81_an_address_has_a_limited_number_of_connections() {
    let broker = Broker::start_with(&[
        NOBODY_TRUSTED,
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_ADDRESS_MAX", "3"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    let mut clients: Vec<Wire> = (0..3)
        .map(|n| connected(&broker, "127.0.0.2", &token, &n.to_string()))
        .collect();
    let mut refused = Wire::connect_from("127.0.0.2", broker.address("mqtt"));
    refused.expect_close();
    assert_eq!(broker.metric(&refusals("address_connections")), 1.0);
    let _elsewhere = connected(&broker, "127.0.0.3", &token, "3");
    for client in &mut clients {
        client.expect_alive();
    }
    let mut last = clients.pop().expect("there are three");
    last.send_hex("e000");
    last.expect_close();
    broker.wait_metric_until("tollgate_connections", |held| held < 4.0);
    retry(|| {
        let mut wire = Wire::connect_from("127.0.0.2", broker.address("mqtt"));
        let connect = Connect::with_token(Version::V5, "again", &token);
        wire.send(&connect.encode());
        wire.packet_or_close(ANSWER_LIMIT).map(|_| wire)
    });
}

#[test]
fn sec_81_an_address_has_a_limited_number_before_connect() {
    let broker = Broker::start_with(&[
        NOBODY_TRUSTED,
        ("TOLLGATE_LIMITS_HANDSHAKES_PER_ADDRESS_MAX", "2"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    let silent = ["mqtt", "mqtts"].map(|name| {
        let address = broker.address(name);
        Wire::connect_from("127.0.0.2", address)
    });
    broker.wait_metric("tollgate_handshakes", 2.0);
    Wire::connect_from("127.0.0.2", broker.address("mqtt")).expect_close();
    assert_eq!(broker.metric(&refusals("address_handshakes")), 1.0);
    // Who is let in counts no more: behind one address there may be a whole site.
    let mut site: Vec<Wire> = (0..5)
        .map(|n| connected(&broker, "127.0.0.3", &token, &n.to_string()))
        .collect();
    for client in &mut site {
        client.expect_alive();
    }
    drop(silent);
    retry(|| {
        let mut wire = Wire::connect_from("127.0.0.2", broker.address("mqtt"));
        let connect = Connect::with_token(Version::V5, "again", &token);
        wire.send(&connect.encode());
        wire.packet_or_close(ANSWER_LIMIT)
    });
}

#[test]
fn sec_81_all_together_have_a_limit_that_established_ones_do_not_notice() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_LIMITS_CONNECTIONS_MAX", "3"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    let mut clients: Vec<Wire> = (0..3)
        .map(|n| connected(&broker, "127.0.0.1", &token, &n.to_string()))
        .collect();
    for _ in 0..20 {
        broker.wire().expect_close();
    }
    assert_eq!(broker.metric(&refusals("too_many_connections")), 20.0);
    for client in &mut clients {
        client.send(&publish(Version::V5, 1, 1, TELEMETRY, br#"{"a":1}"#));
        assert_eq!(show(&client.packet())[..8], *"40020001");
    }
}

#[test]
fn sec_81_trusted_networks_have_no_limit_per_address() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut silent: Vec<Wire> = (0..120).map(|_| broker.wire()).collect();
    broker.wait_metric("tollgate_handshakes", 120.0);
    connected(&broker, "127.0.0.1", &token, "a").expect_alive();
    assert!(silent.iter_mut().all(Wire::is_open));
}

#[test]
fn sec_81_connections_before_connect_have_a_limited_memory() {
    // Half of it is for sockets of 2 KiB: 256 of them.
    let broker = Broker::start_with(&[("TOLLGATE_LIMITS_HANDSHAKE_MEMORY_MAX_BYTES", "1048576")]);
    let token = broker.create_device("a");
    let mut established = connected(&broker, "127.0.0.1", &token, "a");
    let silent: Vec<Wire> = (0..256).map(|_| broker.wire()).collect();
    broker.wait_metric("tollgate_handshakes", 256.0);
    assert_eq!(broker.metric("tollgate_handshake_bytes"), 524_288.0);
    broker.wire().expect_close();
    assert_eq!(broker.metric(&refusals("handshake_memory")), 1.0);
    established.expect_alive();
    drop(silent);
    broker.wait_metric_until("tollgate_handshakes", |held| held == 0.0);
    assert_eq!(broker.metric("tollgate_handshake_bytes"), 0.0);
    connected(&broker, "127.0.0.1", &token, "a").expect_alive();
}

/// A CONNECT near the limit of 64 KiB, in pieces, is charged and served.
#[test]
fn sec_81_a_long_connect_is_charged_and_served() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let filler = [0x26, 0, 1, b'k', 0, 250]
        .iter()
        .copied()
        .chain([b'v'; 250]);
    let filler: Vec<u8> = filler.collect();
    let connect = Connect {
        password: Some(&[b'p'; 50_000]),
        properties: filler.repeat(20),
        ..Connect::with_token(Version::V5, "long", &token)
    };
    let bytes = connect.encode();
    let mut wire = broker.wire();
    for piece in bytes.chunks(1_000) {
        wire.send(piece);
    }
    assert_eq!(wire.packet()[3], 0);
    broker.wait_metric_until("tollgate_handshake_bytes", |held| held == 0.0);
}

/// Some descriptors are kept for the broker's own files: clients wait, and nothing is lost.
#[test]
fn sec_81_all_descriptors_for_clients_in_use_pauses_accept() {
    let broker = Setup::new().limit_files(256).start();
    let token = broker.create_device("a");
    let mut established = connected(&broker, "127.0.0.1", &token, "a");
    let mut silent: Vec<Wire> = (0..191).map(|_| broker.wire()).collect();
    broker.wait_metric("tollgate_handshakes", 191.0);
    let mut waiting = broker.wire();
    waiting.send(&Connect::with_token(Version::V5, "b", &token).encode());
    broker.wait_metric(r#"tollgate_accept_pauses_total{reason="descriptors"}"#, 2.0);
    established.send(&publish(Version::V5, 1, 7, TELEMETRY, br#"{"a":1}"#));
    assert_eq!(show(&established.packet())[..8], *"40020007");
    assert!(waiting.is_open());
    silent.truncate(180);
    // The device's second connection takes over.
    assert_eq!(waiting.packet()[3], 0);
    let (warnings, log) = (
        broker.stderr().matches("accepting rests").count(),
        broker.stderr(),
    );
    assert_eq!(warnings, 1, "one line, however long it lasts: {log}");
}

/// No descriptor at all is left: accepting rests, and goes on as soon as there is one.
#[test]
fn sec_81_no_descriptor_left_loses_nothing() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let mut established = connected(&broker, "127.0.0.1", &token, "a");
    let pid = Pid::from_raw(i32::try_from(broker.pid()).expect("small")).expect("not zero");
    // The first message begins the first segment, which needs descriptors of its own.
    established.send(&publish(Version::V5, 1, 1, TELEMETRY, br#"{"a":1}"#));
    assert_eq!(established.packet()[0], 0x40);
    let none = Rlimit {
        current: Some(1), // those that are open stay open
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(Some(pid), Resource::Nofile, none).expect("the process is ours");
    let mut waiting = broker.wire();
    waiting.send(&Connect::with_token(Version::V5, "b", &token).encode());
    for n in 1..50_u8 {
        established.send(&publish(Version::V5, 1, n.into(), TELEMETRY, br#"{"a":1}"#));
        assert_eq!(established.packet()[0], 0x40);
    }
    assert!(waiting.is_open());
    prlimit(Some(pid), Resource::Nofile, before).expect("the process is ours");
    assert_eq!(waiting.packet()[3], 0);
    assert!(broker.metric(r#"tollgate_accept_pauses_total{reason="descriptors"}"#) >= 1.0);
}

/// Faster than may be accepted: connections come in at the rate, and none is lost.
#[test]
fn sec_81_the_accept_rate_delays_and_loses_nothing() {
    let broker = Broker::start_with(&[
        ("TOLLGATE_LIMITS_ACCEPTS_PER_SECOND_MAX", "50"),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "100"),
        ("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "100"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    let since = std::time::Instant::now();
    let mut clients: Vec<Wire> = (0..80).map(|_| broker.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&Connect::with_token(Version::V5, &n.to_string(), &token).encode());
    }
    for client in &mut clients {
        assert_eq!(client.packet()[3], 0, "let in");
    }
    assert!(
        since.elapsed().as_millis() >= 1_300,
        "{:?}",
        since.elapsed()
    );
    assert!(broker.metric(r#"tollgate_accept_pauses_total{reason="rate"}"#) >= 1.0);
}

fn refusals(reason: &str) -> String {
    format!("tollgate_connects_refused_total{{reason=\"{reason}\"}}")
}

fn connected(broker: &Broker, source: &str, token: &str, client_id: &str) -> Wire {
    let mut wire = Wire::connect_from(source, broker.address("mqtt"));
    log_in(
        &mut wire,
        &Connect::with_token(Version::V5, client_id, token),
    );
    wire
}

/// Places come back when the broker has noticed that a client is gone, a moment later.
/// So that a storm of handshakes does not delay what connected clients send.
#[test]
fn letting_in_has_a_lower_priority_than_all_else() {
    let broker = Broker::start_with(&[("TOLLGATE_WORKERS_COUNT", "2")]);
    let tasks = format!("/proc/{}/task", broker.pid());
    let (_, own) = niceness(Path::new(&tasks).parent().expect("the process")).expect("it runs");
    let below = retry(|| {
        // A thread that ends meanwhile is none of them.
        let threads = std::fs::read_dir(&tasks).expect("it runs").flatten();
        let all = threads.filter_map(|thread| niceness(&thread.path()));
        // Others may be nicer too; the network's and the journal's must not.
        let all = all.filter(|(name, _)| name.starts_with("net-") || name == "journal");
        let mut below: Vec<_> = all.filter(|(_, niceness)| *niceness != own).collect();
        below.sort();
        (below.len() >= 3).then_some(below)
    });
    let nicer = (own + 5).min(19);
    let expected = ["net-accept", "net-hello-0", "net-hello-1"].map(|n| (n.to_owned(), nicer));
    assert_eq!(below, expected);
}

/// Name and niceness of a process or thread, from its `stat`.
fn niceness(of: &Path) -> Option<(String, i32)> {
    let stat = std::fs::read_to_string(of.join("stat")).ok()?;
    let (name, rest) = stat.rsplit_once(')')?;
    let (_, name) = name.split_once('(')?;
    // The 19th value; the name is the second.
    let niceness = rest.split_whitespace().nth(16)?;
    Some((name.to_owned(), niceness.parse().ok()?))
}

fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + ANSWER_LIMIT;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the place never came back"
        );
    }
}
