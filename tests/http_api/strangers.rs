//! What strangers, broken clients and web pages get: SEC-75.

use std::io::{ErrorKind, Read as _, Write as _};

use tollgate::http::CONNECTIONS_MAX;

use crate::harness::{Server, Worker, read_reply, read_to_end, wait_until};

const DEVICES: &str = "/admin/v1/devices";

#[test]
fn nothing_but_health_and_metrics_is_told_without_the_token() {
    let server = Server::start();
    let (_, device_token) = server.create("boiler");
    let cut = &server.admin_token[..server.admin_token.len() - 1];
    let mut wrong = vec![
        String::new(),
        "Authorization: Bearer".to_owned(),
        format!("Authorization: Bearer {device_token}"),
        format!("Authorization: Bearer {cut}"),
        format!("Authorization: Basic {}", server.admin_token),
        format!("Cookie: token={}", server.admin_token),
    ];
    wrong[0] = "X-Nothing: at all".to_owned();
    for header in &wrong {
        for (method, path) in [
            ("GET", DEVICES),
            ("POST", DEVICES),
            ("DELETE", "/admin/v1/devices/boiler"),
            ("POST", "/admin/v1/devices/boiler/revoke"),
            ("GET", "/admin/v1/devices/boiler/telemetry"),
            ("GET", "/admin/v1/openapi.yaml"),
            ("GET", "/no/such/thing"),
            ("OPTIONS", DEVICES),
            ("GET", "/admin/v1/../../healthz"),
        ] {
            let reply = server.request(method, path, &[header], None);
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (401, "unauthorized"),
                "{path}"
            );
            assert_eq!(
                reply.header("www-authenticate"),
                Some("Bearer realm=\"tollgate\"")
            );
            assert!(!reply.body.contains(&server.admin_token), "{reply:?}");
        }
        // 9 requests by 6 headers stay below the 100 of a second.
    }
    let in_address = format!("{DEVICES}?access_token={}", server.admin_token);
    assert_eq!(server.request("GET", &in_address, &[], None).status, 401);
    assert!(server.registry.device("boiler").is_ok());
}

#[test]
fn a_wrong_host_is_refused_even_with_the_token_and_a_set_name_is_not() {
    let server = Server::start_with(Worker::Confirms, vec!["gate.example".to_owned()]);
    let token = server.authorization();
    for (host, status) in [
        ("Host: evil.example", 403),
        ("Host: evil.example:8080", 403),
        ("Host: 10.1.2.3", 403),
        ("Host: gate.example", 200),
        ("Host: localhost:1", 200),
        ("Host: [::1]", 200),
    ] {
        for path in [DEVICES, "/healthz", "/metrics"] {
            let reply = server.request("GET", path, &[&token, host], None);
            assert_eq!(reply.status, status, "{host} {path}: {reply:?}");
            if status == 403 {
                assert_eq!(reply.code(), "host_refused");
            }
        }
    }
    let mut stream = server.connect();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_to_end(&mut stream).status, 400);
}

#[test]
fn a_web_page_gets_no_cors_headers_and_no_cookie() {
    let server = Server::start();
    let origin = [
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
    ];
    let token = server.authorization();
    for (method, path, headers) in [
        ("OPTIONS", DEVICES, vec![origin[0], origin[1]]),
        ("OPTIONS", DEVICES, vec![origin[0], origin[1], &token]),
        ("GET", DEVICES, vec![origin[0], &token]),
        ("GET", "/healthz", vec![origin[0]]),
        ("GET", "/metrics", vec![origin[0]]),
    ] {
        let reply = server.request(method, path, &headers, None);
        for (name, _) in &reply.headers {
            assert!(
                !name.starts_with("access-control") && name != "set-cookie",
                "{reply:?}"
            );
        }
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn what_does_not_exist_is_said_to_those_who_may_know() {
    let server = Server::start();
    let token = server.authorization();
    let reply = server.request("GET", "/admin/v2", &[&token], None);
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    let reply = server.request("PUT", DEVICES, &[&token], None);
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (405, "method_not_allowed")
    );
    let mut allowed: Vec<&str> = reply
        .header("allow")
        .unwrap()
        .split(',')
        .map(str::trim)
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let reply = server.request("GET", "/admin/v1/devices/%FF", &[&token], None);
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "bad_parameter")
    );
    let form = ["Content-Type: application/x-www-form-urlencoded", &token];
    let reply = server.request("POST", DEVICES, &form, Some("name=a"));
    assert_eq!((reply.status, reply.code().as_str()), (415, "not_json"));
    let charset = ["Content-Type: Application/JSON; charset=utf-8", &token];
    let reply = server.request("POST", DEVICES, &charset, Some("{\"name\":\"a\"}"));
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[test]
fn a_body_of_10_mib_is_refused_and_the_refusal_can_be_read() {
    let server = Server::start();
    let head = format!(
        "POST {DEVICES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}\r\n",
        server.authorization()
    );
    let length = 10 * 1024 * 1024;
    let declared = format!(
        "{head}Content-Length: {length}\r\n\r\n{}",
        " ".repeat(length)
    );
    let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(length));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    for request in [declared, chunked] {
        let mut stream = server.connect();
        // A simple client sends everything before it looks for an answer.
        stream.write_all(request.as_bytes()).unwrap();
        let reply = read_to_end(&mut stream);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (413, "body_too_large")
        );
    }
    let at_the_limit = format!("{{\"name\":\"a\"}}{}", " ".repeat(1024 * 1024 - 12));
    assert_eq!(server.call("POST", DEVICES, Some(&at_the_limit)).0, 201);
    let beyond = format!("{at_the_limit} ");
    assert_eq!(server.call("POST", DEVICES, Some(&beyond)).0, 413);
}

#[test]
fn a_head_of_more_than_16_kib_is_refused() {
    let server = Server::start();
    let fits = format!("X-Long: {}", "x".repeat(15 * 1024));
    assert_eq!(
        server.request("GET", "/healthz", &[&fits], None).status,
        200
    );
    let mut stream = server.connect();
    let long = "x".repeat(17 * 1024);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    assert!(read_reply(&mut stream).starts_with("HTTP/1.1 431"));
}

#[test]
fn a_slow_body_is_cut_off_with_408() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = format!(
        "POST {DEVICES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n{}\r\n\r\n{{",
        server.authorization()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let reply = read_to_end(&mut stream);
    assert_eq!((reply.status, reply.code().as_str()), (408, "body_timeout"));
}

#[test]
fn a_slow_head_and_an_idle_connection_are_closed() {
    let server = Server::start();
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc")
        .unwrap();
    let mut silent = server.connect();
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    for stream in [&mut slow, &mut silent, &mut idle] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap(); // the end comes before the read's own limit
    }
}

#[test]
fn the_101st_request_of_a_second_is_refused_and_the_operator_is_not_locked_out() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{}{last}", request.repeat(399)).as_bytes())
        .unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.matches("HTTP/1.1 ").count(), 400);
    assert!(replies.matches("HTTP/1.1 200").count() >= 100);
    assert!(
        replies.contains("HTTP/1.1 429"),
        "400 requests at once were all answered"
    );
    assert!(replies.contains("retry-after: 1") && replies.contains("too_many_requests"));
    assert_eq!(server.call("GET", DEVICES, None).0, 200);
}

#[test]
fn what_is_no_http_harms_nobody() {
    let server = Server::start();
    for bytes in [
        &b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..], // a MQTT CONNECT
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",      // a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        let reply = String::from_utf8_lossy(&reply);
        assert!(!reply.starts_with("HTTP/1.1 2"), "{bytes:?}: {reply}");
    }
    assert_eq!(server.request("GET", "/healthz", &[], None).status, 200);
}

#[test]
fn more_connections_than_the_limit_wait_for_one_to_close() {
    let server = Server::start();
    let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| server.connect()).collect();
    let full = format!("tollgate_http_connections {CONNECTIONS_MAX}\n");
    wait_until("all are accepted", || {
        server.metrics.render().contains(&full)
    });
    let mut waiting = server.connect();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    waiting.write_all(request).unwrap();
    open.pop();
    let reply = read_to_end(&mut waiting);
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains(&full), "one came for one that went");
}

#[test]
fn who_asks_and_does_not_read_is_cut_off() {
    let mut server = Server::start();
    let (id, _) = server.create("boiler");
    // More than the buffers of both sockets hold.
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    for ts in 0..200 {
        server.publish(id, &format!("{{\"ts\":{ts},\"values\":{payload}}}"));
    }
    let mut greedy = server.connect();
    let request = format!(
        "GET {DEVICES}/boiler/telemetry HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n",
        server.authorization()
    );
    greedy.write_all(request.as_bytes()).unwrap();
    let answered = "tollgate_http_requests_total{status=\"2xx\"} 2\n";
    wait_until("it is answered", || {
        server.metrics.render().contains(answered)
    });
    let none = "tollgate_http_connections 0\n";
    wait_until("it is cut off", || server.metrics.render().contains(none));
}
