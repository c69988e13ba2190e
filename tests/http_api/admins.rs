//! Admin tokens: their scopes on every route, their end, and where their text is (nowhere).

use std::{fs, io::Read as _, io::Write as _, path::Path};

use serde_json::{Value, json};

use crate::harness::{Server, now_ms, read_some};

const TOKENS: &str = "/admin/v1/admin-tokens";

/// The endpoints as the broker describes them: method, path, and what `x-scope` says.
pub(crate) fn endpoints(server: &Server) -> Vec<(String, String, String)> {
    let token = server.authorization();
    let reply = server.request("GET", "/admin/v1/openapi.yaml", &[&token], None);
    let (mut path, mut method) = (String::new(), String::new());
    let mut found = Vec::new();
    for line in reply.body.lines() {
        if line.starts_with("  /") {
            path = line.trim().trim_end_matches(':').to_owned();
        } else if line.starts_with("    ") && !line.starts_with("     ") {
            method = line.trim().trim_end_matches(':').to_uppercase();
        } else if let Some(scope) = line.strip_prefix("      x-scope: ") {
            found.push((method.clone(), path.clone(), scope.to_owned()));
        }
    }
    assert!(found.len() > 40, "the description was read: {found:?}");
    found
}

/// A path with something in its variable parts that does not exist.
pub(crate) fn filled(path: &str) -> String {
    let steps = path.split('/').map(|step| match step {
        "{entityType}" => "DEVICE",
        "{id}" => "00000000-0000-4000-8000-000000000000",
        step if step.starts_with('{') => "nothing",
        step => step,
    });
    let path = steps.collect::<Vec<_>>().join("/");
    // Without it these go on for ever.
    let query = match path.rsplit('/').next() {
        Some("tail") => "?devices=nothing",
        Some("events") => "?events=nothing",
        _ => "",
    };
    path + query
}

fn create(server: &Server, name: &str, scope: &str) -> String {
    let body = json!({"name": name, "scope": scope}).to_string();
    let (status, made) = server.call("POST", TOKENS, Some(&body));
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["admin_token"]["scope"], scope);
    assert_eq!(made["admin_token"]["expired"], false);
    made["token"].as_str().unwrap().to_owned()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn sec_75_each_scope_opens_its_endpoints_and_no_other() {
    let server = Server::start_unlimited();
    let scopes = ["read", "operate", "admin"];
    let tokens = scopes.map(|scope| create(&server, scope, scope));
    let rank = |scope: &str| scopes.iter().position(|known| *known == scope);
    for (method, path, needs) in endpoints(&server) {
        let path = filled(&path);
        for (held, token) in tokens.iter().enumerate() {
            let reply = server.request(&method, &path, &[&bearer(token)], None);
            let context = format!("{method} {path} needs {needs}, shown {}", scopes[held]);
            match (needs.as_str(), rank(&needs)) {
                ("none", _) => assert_eq!(reply.status, 200, "{context}"),
                // An admin token is no signature.
                ("signature", _) => assert_eq!(reply.status, 401, "{context}"),
                (_, Some(needed)) if held >= needed => {
                    assert!(![401, 403].contains(&reply.status), "{context}: {reply:?}");
                }
                (_, Some(_)) => {
                    assert_eq!(reply.status, 403, "{context}: {reply:?}");
                    let is_platform = path.starts_with("/api/");
                    assert!(is_platform || reply.code() == "scope_missing", "{context}");
                }
                (_, None) => panic!("{context}: no such scope"),
            }
        }
        if !["none", "signature"].contains(&needs.as_str()) {
            let reply = server.request(&method, &path, &[&bearer("tga_wrong")], None);
            assert_eq!(reply.status, 401, "{method} {path}");
        }
    }
}

#[test]
fn sec_51_an_admin_token_is_shown_once_and_kept_nowhere() {
    let server = Server::start();
    let token = create(&server, "deploy", "operate");
    assert!(token.starts_with("tga_") && token.len() == 40, "a token");
    assert!(
        server.registry.authenticate(&token).is_none(),
        "no way to MQTT"
    );
    let (_, shown) = server.call("GET", &format!("{TOKENS}/deploy"), None);
    let (_, listed) = server.call("GET", TOKENS, None);
    assert_eq!(listed["admin_tokens"], json!([shown]));
    let check = json!({"token": token}).to_string();
    let (_, checked) = server.call("POST", "/admin/v1/tokens/check", Some(&check));
    assert_eq!(checked["state"], "unknown");
    for reply in [&shown, &listed, &checked] {
        assert!(!reply.to_string().contains(&token[4..]), "{reply}");
    }
    for file in files(&server.dir().join("data")) {
        let bytes = fs::read(&file).unwrap();
        let is_in = bytes.windows(36).any(|part| part == &token.as_bytes()[4..]);
        assert!(!is_in, "{}", file.display());
    }
    // The name is its own, and no application may carry the token.
    let body = json!({"name": "deploy", "scope": "read"}).to_string();
    let (status, refusal) = server.call("POST", TOKENS, Some(&body));
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (409, &json!("name_taken"))
    );
    let body = json!({"name": "app", "token": token}).to_string();
    let (status, refusal) = server.call("POST", "/admin/v1/apps", Some(&body));
    assert_eq!(
        (status, &refusal["error"]["target"]),
        (422, &json!("token"))
    );
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_revoked_admin_token_opens_nothing_and_a_tail_that_it_began_ends() {
    let mut server = Server::start();
    let token = create(&server, "watch", "read");
    let (device, _) = server.create("boiler");
    let mut tail = server.connect();
    let request = format!(
        "GET /admin/v1/telemetry/tail HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n",
        server.address,
        bearer(&token)
    );
    tail.write_all(request.as_bytes()).unwrap();
    // Headers first: from there on what is published is in it.
    let mut some = [0; 4096];
    let count = read_some(&mut tail, &mut some).unwrap();
    assert!(some[..count].starts_with(b"HTTP/1.1 200"));
    server.publish(device, r#"{"a":1}"#);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(r#"{"a":1}"#) {
        let count = read_some(&mut tail, &mut some).unwrap();
        assert!(count > 0, "the tail goes on while its token is one");
        seen.extend_from_slice(&some[..count]);
    }

    let (status, gone) = server.call("DELETE", &format!("{TOKENS}/watch"), None);
    assert_eq!((status, &gone["name"]), (200, &json!("watch")));
    let mut rest = Vec::new();
    tail.read_to_end(&mut rest).expect("it ends, and in order");
    let reply = server.request("GET", "/admin/v1/devices", &[&bearer(&token)], None);
    assert_eq!(reply.status, 401);
    for method in ["DELETE", "GET"] {
        let (status, refusal) = server.call(method, &format!("{TOKENS}/watch"), None);
        let code = &refusal["error"]["code"];
        assert_eq!((status, code), (404, &json!("admin_token_not_found")));
    }
}

#[test]
fn an_admin_token_ends_by_itself() {
    let server = Server::start();
    let wanted = |end: Value| json!({"name": "short", "scope": "read", "expires_ms": end});
    for past in [json!(1), json!(now_ms()), json!(u64::MAX)] {
        let (status, refusal) = server.call("POST", TOKENS, Some(&wanted(past).to_string()));
        assert_eq!(
            (status, &refusal["error"]["target"]),
            (422, &json!("expires_ms"))
        );
    }
    // Far enough away that a busy machine makes it before it is over.
    let body = wanted(json!(now_ms() + 3_000)).to_string();
    let (status, made) = server.call("POST", TOKENS, Some(&body));
    assert_eq!(status, 201, "{made}");
    let token = bearer(made["token"].as_str().unwrap());
    crate::harness::wait_until("the token ends", || {
        let reply = server.request("GET", "/admin/v1/openapi.yaml", &[&token], None);
        assert!([200, 401, 429].contains(&reply.status), "{reply:?}");
        reply.status == 401
    });
    let (_, shown) = server.call("GET", &format!("{TOKENS}/short"), None);
    assert_eq!(shown["expired"], true);
}

#[test]
fn rel_01_admin_tokens_are_there_after_a_restart_and_in_pages() {
    let server = Server::start();
    let token = create(&server, "a b/ü", "read");
    create(&server, "second", "admin");
    let (_, page) = server.call("GET", &format!("{TOKENS}?limit=1"), None);
    assert_eq!(page["admin_tokens"].as_array().unwrap().len(), 1);
    assert_eq!(page["next"], "a b/ü");
    let (_, page) = server.call("GET", &format!("{TOKENS}?after=a%20b%2F%C3%BC"), None);
    assert_eq!(page["admin_tokens"][0]["name"], "second");
    assert!(page.get("next").is_none());
    let (status, _) = server.call("GET", &format!("{TOKENS}/a%20b%2F%C3%BC"), None);
    assert_eq!(status, 200);

    let secrets = tollgate::identity::Secrets::open(&server.dir().join("secrets"), false).unwrap();
    let again = tollgate::identity::Registry::open(server.store.clone(), &secrets).unwrap();
    let admin = again.admin(&token).expect("read from the database");
    assert_eq!((&*admin.name, admin.scope.as_str()), ("a b/ü", "read"));
    assert!(again.admin("").is_none() && again.admin(&"x".repeat(300)).is_none());
}

#[test]
fn sec_75_one_that_looks_too_often_keeps_nobody_else_waiting() {
    // So few that a slow machine asks more often too.
    let server = Server::start_limited(10);
    let read = bearer(&create(&server, "dashboard", "read"));
    let path = "/admin/v1/identity";
    let limited = (0..1_000).any(|_| {
        let status = server.request("GET", path, &[&read], None).status;
        assert!([200, 429].contains(&status), "{status}");
        status == 429
    });
    assert!(limited, "10 a second");
    assert_eq!(server.call("GET", path, None).0, 200);
}

/// S-22. The search of every broker's output and data (tests/common) looks for more than this.
#[test]
fn s_22_a_secret_is_in_the_first_reply_and_in_no_other() {
    let server = Server::start();
    let (_, device) = server.create("boiler");
    let admin = create(&server, "deploy", "admin");
    let token = server.authorization();
    let backup = json!({"passphrase": "a passphrase of some length"}).to_string();
    for (method, path, body) in [
        ("GET", "/admin/v1/devices/boiler", None),
        ("GET", "/admin/v1/devices", None),
        ("GET", "/admin/v1/bulk/devices", None),
        ("GET", "/admin/v1/admin-tokens/deploy", None),
        ("GET", "/admin/v1/admin-tokens", None),
        ("GET", "/admin/v1/identity", None),
        ("GET", "/metrics", None),
    ] {
        let reply = server.request(method, path, &[&token], body);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        for secret in [&device, &admin, &server.admin_token] {
            assert!(!reply.body.contains(&secret[4..]), "{path}");
        }
    }
    let mut stream = server.connect();
    let request = format!(
        "POST /admin/v1/backup HTTP/1.1\r\nHost: {}\r\n{token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{backup}",
        server.address,
        backup.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200") && bytes.len() > 4_096);
    for secret in [&device, &admin, &server.admin_token] {
        let secret = &secret.as_bytes()[4..];
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
}

/// S-35.
#[test]
fn s_35_every_misuse_of_the_admin_api_has_its_refusal() {
    let server = Server::start();
    let read = bearer(&create(&server, "reader", "read"));
    let device = bearer(&server.create("boiler").1);
    let full = server.authorization();
    let (path, body) = ("/admin/v1/devices", Some(r#"{"name":"x"}"#));
    let origin = "Origin: https://evil.example";
    for (method, headers, status) in [
        ("POST", vec![], 401),
        ("POST", vec![device.as_str()], 401),
        ("POST", vec![read.as_str()], 403),
        ("POST", vec![full.as_str(), "Host: evil.example"], 403),
        // What a page of another origin can send without asking, and its asking.
        (
            "POST",
            vec![full.as_str(), origin, "Content-Type: text/plain"],
            415,
        ),
        (
            "OPTIONS",
            vec![origin, "Access-Control-Request-Method: POST"],
            401,
        ),
        ("GET", vec![full.as_str(), origin], 200),
    ] {
        let body = body.filter(|_| method == "POST");
        let reply = server.request(method, path, &headers, body);
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
        let allows = reply.header("access-control-allow-origin");
        assert!(allows.is_none(), "{reply:?}");
    }
    let head = |length: u32| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{full}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n",
            server.address
        )
    };
    for (sent, status) in [(head(10 << 20), "413"), (head(100) + "{", "408")] {
        let mut stream = server.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        let reply = crate::harness::read_reply(&mut stream);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    }
    assert!(server.registry.device("x").is_err());
}
