//! Health, metrics, the API's description, and how the server ends.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde_json::json;

use crate::harness::{ANSWER_LIMIT, Server, Worker, read_reply, read_to_end};

#[test]
fn sec_77_health_needs_no_token_and_names_nothing() {
    let server = Server::start();
    let (id, token) = server.create("boiler");
    for path in ["/healthz", "/readyz"] {
        let reply = server.request("GET", path, &[], None);
        assert_eq!(reply.status, 200, "{reply:?}");
        let health = reply.json();
        assert_eq!(
            (&health["status"], &health["journal"]),
            (&json!("ok"), &json!("running"))
        );
        assert_eq!(
            health.as_object().unwrap().len(),
            3,
            "status, journal, message: {health}"
        );
        for secret in [
            id.to_string().as_str(),
            &token,
            "boiler",
            &server.address.to_string(),
        ] {
            assert!(!reply.body.contains(secret), "{reply:?}");
        }
    }
}

#[test]
fn rel_02_health_says_when_nothing_is_acknowledged() {
    let server = Server::start();
    server.journal.close().unwrap();
    for path in ["/healthz", "/readyz"] {
        let reply = server.request("GET", path, &[], None);
        assert_eq!(
            (reply.status, &reply.json()["journal"]),
            (503, &json!("closed"))
        );
    }
}

#[test]
fn sec_77_metrics_need_no_token_and_name_nothing() {
    let mut server = Server::start();
    let (id, token) = server.create("boiler");
    server.publish(id, r#"{"temperature":1}"#);
    // Waits until the history has read the record, so that its lag is known.
    server.call("GET", "/admin/v1/devices/boiler/telemetry", None);
    let reply = server.request("GET", "/metrics", &[], None);
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for row in [
        "tollgate_journal_durable_offset 1\n",
        "tollgate_journal_state{state=\"running\"} 1\n",
        "tollgate_history_lag_records 0\n",
        "tollgate_http_requests_total{status=\"2xx\"} 2\n",
        "tollgate_http_connections 1\n",
    ] {
        assert!(reply.body.contains(row), "{row} in\n{}", reply.body);
    }
    let address = server.address.to_string();
    for name in [
        id.to_string().as_str(),
        &token,
        "boiler",
        "temperature",
        "v1/",
        &address,
    ] {
        assert!(!reply.body.contains(name), "{name} in\n{}", reply.body);
    }
}

#[test]
fn the_description_is_served_as_it_stands_in_the_repository() {
    let server = Server::start();
    let path = "/admin/v1/openapi.yaml";
    let reply = server.request("GET", path, &[&server.authorization()], None);
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/yaml"))
    );
    assert!(
        reply.body == include_str!("../../docs/openapi.yaml"),
        "another description"
    );
}

#[test]
fn the_threads_have_names() {
    let server = Server::start();
    server.create("boiler"); // a registry call, so a thread for blocking work
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    for name in ["http-0", "http-1"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
}

#[test]
fn a_stop_answers_what_is_under_way_and_closes_the_rest() {
    let mut server = Server::start_with(Worker::Waits, Vec::new());
    server.create("boiler");
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).unwrap(); // served, and kept alive
    let mut busy = server.connect();
    let request = format!(
        "POST /admin/v1/devices/boiler/revoke HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n",
        server.authorization()
    );
    busy.write_all(request.as_bytes()).unwrap();
    server.next_change();
    server.let_confirm();
    let elapsed = server.stop(ANSWER_LIMIT);
    assert!(
        elapsed < ANSWER_LIMIT,
        "nobody was left to wait for: {elapsed:?}"
    );
    assert_eq!(read_to_end(&mut busy).status, 200);
    idle.read_to_end(&mut Vec::new()).unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_stop_does_not_wait_longer_than_it_may() {
    let took = || {
        let mut server = Server::start_with(Worker::Sleeps, Vec::new());
        server.create("boiler");
        let mut busy = server.connect();
        let request = format!(
            "POST /admin/v1/devices/boiler/revoke HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n",
            server.authorization()
        );
        busy.write_all(request.as_bytes()).unwrap();
        server.next_change();
        let started = Instant::now();
        server.stop(Duration::from_millis(100));
        started.elapsed()
    };
    // The request would be answered after 5 s. Once may be the machine's doing.
    let quickest = (0..3).map(|_| took()).min().unwrap();
    assert!(quickest < Duration::from_secs(3), "{quickest:?}");
}

#[test]
fn sec_73_the_same_is_answered_over_tls() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = pair.cert.der().clone();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let server = Server::start_secured(Arc::new(config));

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(client, server.connect());
    for (header, status) in [
        (server.authorization().as_str(), 200),
        ("X-Nothing: at all", 401),
    ] {
        let request = format!("GET /admin/v1/devices HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        let close = if status == 401 {
            "Connection: close\r\n"
        } else {
            ""
        };
        stream
            .write_all(format!("{request}{close}\r\n").as_bytes())
            .unwrap();
        let reply = read_reply(&mut stream);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    }
    // A client that speaks no TLS there gets nothing.
    let mut plain = server.connect();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes); // an alert, then the end, perhaps as a reset
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
}
