//! What nobody should send, sent to every endpoint there is: always a refusal that names what is
//! wrong, never a fault of ours.

use serde_json::Value;

use crate::admins::{endpoints, filled};
use crate::harness::Server;

const JSON: &str = "Content-Type: application/json";

/// Bodies that no endpoint takes.
fn bodies() -> Vec<(&'static str, String)> {
    let deep = "[".repeat(100_000);
    let members = format!("{{{}}}", r#""a":{"#.repeat(50_000));
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
    let bodies = [
        "{",
        "[]",
        "null",
        "\"x\"",
        "5",
        "{} {}",
        r#"{"no_such_field":1}"#,
    ];
    let bodies = bodies.into_iter().map(str::to_owned);
    let hostile = [
        r#"{"name":{"name":1},"token":[],"scope":7,"publish":"x","subscribe":{},"expires_ms":"x"}"#,
        r#"{"name":"\u0000","scope":"root","passphrase":"","token":"\ud83d","scopes":[1]}"#,
        r#"{"name":"a","name":"b","scope":"read","scope":"admin","publish":["\u0000"]}"#,
    ];
    let hostile = hostile.into_iter().map(str::to_owned);
    let sized = [deep, members, long];
    bodies
        .chain(hostile)
        .chain(sized)
        .map(|body| (JSON, body))
        .chain([("Content-Type: text/plain", "{}".to_owned())])
        .chain([(
            "Content-Type: application/x-ndjson",
            "\u{1}\n{\"name\":".to_owned(),
        )])
        .collect()
}

/// Parameters that no endpoint knows, or that are out of range.
const QUERIES: [&str; 7] = [
    "limit=0",
    "limit=99999999999999999999",
    "no_such_parameter=1",
    "after=%FF",
    "keys=%",
    "limit=1&limit=1",
    "from=yesterday",
];

/// Steps that name nothing, each in the place of what a path names.
const STEPS: [&str; 5] = [
    "%FF",
    "%00",
    "..%2F..%2Fetc%2Fpasswd",
    "%E2%80%AE",
    "%27%20OR%201",
];

/// That a reply is a refusal in the form of those whom the path belongs to.
fn expect_refusal(context: &str, path: &str, status: u16, body: &str) {
    assert!((400..500).contains(&status), "{context}: {status} {body}");
    let parsed: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{context}: {body}"));
    if path.starts_with("/api/") {
        assert_eq!(parsed["status"], status, "{context}: {body}");
        assert!(parsed["message"].is_string(), "{context}: {body}");
        return;
    }
    let error = &parsed["error"];
    let is_text = |part: &str| error[part].as_str().is_some_and(|text| !text.is_empty());
    assert!(is_text("code") && is_text("message"), "{context}: {body}");
    let is_signed = path.starts_with("/identities") || path.starts_with("/teamsUser");
    assert!(is_signed || is_text("target"), "{context}: {body}");
}

#[test]
fn rubbish_gets_a_refusal_with_code_message_and_target_on_every_endpoint() {
    let server = Server::start_unlimited();
    let token = server.authorization();
    let bodies = bodies();
    let mut sent = 0;
    for (method, template, needs) in endpoints(&server) {
        let path = filled(&template);
        let mut send = |what: &str, path: &str, headers: &[&str], body: Option<&str>| {
            let reply = server.request(&method, path, headers, body);
            let context = format!("{method} {path} with {what}");
            // What is open takes anything, and says how the broker is.
            if needs == "none" && reply.status == 200 {
                return;
            }
            expect_refusal(&context, path, reply.status, &reply.body);
            sent += 1;
        };
        if !path.contains('?') {
            for query in QUERIES {
                send(query, &format!("{path}?{query}"), &[&token], None);
            }
        }
        if ["POST", "PATCH"].contains(&method.as_str()) {
            for (kind, body) in &bodies {
                let part: String = body.chars().take(60).collect();
                send(&part, &path, &[&token, kind], Some(body));
            }
        }
        for step in STEPS {
            let named = template.split('/').map(|part| match part {
                "{entityType}" => "DEVICE",
                part if part.starts_with('{') => step,
                part => part,
            });
            let named = named.collect::<Vec<_>>().join("/");
            if named != template {
                send(step, &named, &[&token], None);
            }
        }
    }
    assert!(sent > 500, "{sent} requests");
    // Nothing of all that was done, and nothing broke.
    assert!(server.registry.is_empty());
    assert_eq!(server.registry.admin_tokens_total(), 0);
    assert_eq!(server.call("GET", "/admin/v1/devices", None).0, 200);
}

#[test]
fn rubbish_before_an_endpoint_is_found_is_refused_in_the_same_form() {
    let server = Server::start();
    let token = server.authorization();
    for (method, path, status) in [
        ("GET", "/admin/v1/nothing", 404),
        ("GET", "/admin/v2/devices", 404),
        ("GET", "/api/nothing", 404),
        ("PUT", "/admin/v1/devices", 405),
        ("PATCH", "/admin/v1/tokens/check", 405),
        (
            "DELETE",
            "/api/plugins/telemetry/DEVICE/x/keys/timeseries",
            405,
        ),
        ("BREW", "/admin/v1/devices", 405),
    ] {
        let reply = server.request(method, path, &[&token], None);
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        expect_refusal(path, path, reply.status, &reply.body);
    }
}
