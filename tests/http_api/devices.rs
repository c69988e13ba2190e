//! Devices and tokens: what each endpoint does, and what it refuses.

use std::io::Write;

use serde_json::json;
use tollgate::store::Transaction;

use crate::harness::{Server, Worker, wait_until};

#[test]
fn a_device_lives_from_creation_to_deletion() {
    let server = Server::start();
    let body = Some(r#"{"name":"boiler 1"}"#);
    let reply = server.request(
        "POST",
        "/admin/v1/devices",
        &[&server.authorization()],
        body,
    );
    assert_eq!(reply.status, 201, "{reply:?}");
    let created = reply.json();
    let (id, token) = (
        created["device"]["id"].as_str().unwrap(),
        created["token"].as_str().unwrap(),
    );
    assert_eq!(
        reply.header("location"),
        Some(format!("/admin/v1/devices/{id}").as_str())
    );
    assert!(token.starts_with("tgd_") && token.len() == 40, "{token}");
    assert_eq!(
        server
            .registry
            .authenticate(token)
            .unwrap()
            .identity
            .to_string(),
        id
    );

    for path in [
        format!("/admin/v1/devices/{id}"),
        "/admin/v1/devices/boiler%201".to_owned(),
    ] {
        let (status, shown) = server.call("GET", &path, None);
        assert_eq!((status, &shown), (200, &created["device"]));
    }
    assert_eq!(created["device"]["credentials"][0]["kind"], "access_token");
    assert_eq!(created["device"]["credentials"][0]["chosen"], false);

    let (status, deleted) = server.call("DELETE", &format!("/admin/v1/devices/{id}"), None);
    assert_eq!(status, 200, "{deleted}");
    assert_eq!(deleted["device"]["name"], "boiler 1");
    assert_eq!(deleted["receipt"]["connections"], 1);
    assert!(server.next_change().drops_state);
    assert!(server.registry.authenticate(token).is_none());
    for (method, path) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/revoke"),
        ("POST", "/rotate"),
    ] {
        let path = format!("/admin/v1/devices/{id}{path}");
        let (status, refusal) = server.call(method, &path, None);
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (404, &json!("device_not_found"))
        );
        assert_eq!(refusal["error"]["target"], "device");
    }
}

#[test]
fn devices_are_listed_a_page_at_a_time() {
    let server = Server::start();
    for name in ["c", "a", "b", "ä"] {
        server.create(name);
    }
    let mut names = Vec::new();
    let mut path = "/admin/v1/devices?limit=3".to_owned();
    loop {
        let (status, page) = server.call("GET", &path, None);
        assert_eq!(status, 200, "{page}");
        let devices = page["devices"].as_array().unwrap();
        names.extend(
            devices
                .iter()
                .map(|device| device["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/admin/v1/devices?limit=3&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "ä"]);
    for query in [
        "limit=0",
        "limit=10001",
        "limit=x",
        "limt=1",
        "limit=1&limit=2",
        "after=%FF",
    ] {
        let (status, refusal) = server.call("GET", &format!("/admin/v1/devices?{query}"), None);
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (400, &json!("bad_parameter")),
            "{query}"
        );
    }
}

#[test]
fn sec_51_a_rotated_token_is_shown_once_and_replaces_the_old_one() {
    let server = Server::start();
    let (id, old) = server.create("boiler");
    let (status, rotated) = server.call(
        "POST",
        "/admin/v1/devices/boiler/rotate",
        Some(r#"{"grace_s":0}"#),
    );
    assert_eq!(status, 200, "{rotated}");
    let new = rotated["token"].as_str().unwrap();
    assert!(server.registry.authenticate(&old).is_none());
    assert_eq!(server.registry.authenticate(new).unwrap().identity, id);
    let receipt = &rotated["receipt"];
    assert_eq!(
        (&receipt["connections"], &receipt["sessions"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(receipt["unfinished"], 3);
    let change = server.next_change();
    assert_eq!((change.identity, change.drops_state), (id, false));

    let chosen = Some(r#"{"token":"a word of mine","grace_s":0}"#);
    let (status, rotated) = server.call("POST", "/admin/v1/devices/boiler/rotate", chosen);
    assert_eq!((status, &rotated["token"]), (200, &json!("a word of mine")));
    assert!(server.registry.authenticate("a word of mine").is_some());
    let (_, shown) = server.call("GET", "/admin/v1/devices/boiler", None);
    let (_, listed) = server.call("GET", "/admin/v1/devices", None);
    let text = format!("{shown}{listed}");
    for token in [old.as_str(), new, "a word of mine", &server.admin_token] {
        assert!(!text.contains(token), "{text}");
    }
}

#[test]
fn sec_34_a_revocation_is_durable_then_confirmed_then_answered() {
    let server = Server::start_with(Worker::Waits, Vec::new());
    let (id, token) = server.create("boiler");
    std::thread::scope(|scope| {
        let revoked = scope.spawn(|| server.call("POST", "/admin/v1/devices/boiler/revoke", None));
        let change = server.next_change();
        assert_eq!((change.identity, change.drops_state), (id, true));
        // The worker has the change: by now it must be durable and the index must know.
        assert!(server.registry.authenticate(&token).is_none());
        assert!(
            server.registry.device("boiler").unwrap().credentials[0]
                .revoked_ms
                .is_some()
        );
        assert!(
            !revoked.is_finished(),
            "answered before the worker confirmed"
        );
        server.let_confirm();
        let (status, revoked) = revoked.join().unwrap();
        assert_eq!(status, 200, "{revoked}");
        assert!(revoked["device"]["credentials"][0]["revoked_ms"].is_u64());
        assert_eq!(revoked["receipt"]["sessions"], 2);
    });
}

#[test]
fn sec_34_a_caller_who_hangs_up_does_not_stop_a_revocation() {
    let server = Server::start_with(Worker::Waits, Vec::new());
    let names = ["a", "b", "c"];
    let ids = names.map(|name| server.create(name).0);
    // One change is with the worker, one fills its lane, one waits for a place in the lane.
    let mut callers = Vec::new();
    for name in names {
        let mut caller = server.connect();
        let request = format!(
            "POST /admin/v1/devices/{name}/revoke HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n",
            server.authorization()
        );
        caller.write_all(request.as_bytes()).unwrap();
        callers.push(caller);
        let is_revoked = || {
            let device = server.registry.device(name).unwrap();
            device.credentials[0].revoked_ms.is_some()
        };
        wait_until("the revocation is durable", is_revoked);
    }
    let mut seen = vec![server.next_change().identity];
    drop(callers);
    wait_until("the server knows that they are gone", || {
        server
            .metrics
            .render()
            .contains("tollgate_http_connections 0\n")
    });
    for _ in 0..2 {
        server.let_confirm();
        seen.push(server.next_change().identity);
    }
    server.let_confirm();
    seen.sort_unstable();
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn sec_34_what_not_every_worker_confirmed_is_said_to_be_so() {
    let server = Server::start_with(Worker::Sleeps, Vec::new());
    let (_, token) = server.create("boiler");
    let path = "/admin/v1/devices/boiler/revoke";
    let reply = server.request("POST", path, &[&server.authorization()], None);
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "not_confirmed")
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(
        reply.body.contains("durable, not yet confirmed everywhere"),
        "{reply:?}"
    );
    assert!(server.registry.authenticate(&token).is_none());
}

#[test]
fn a_token_is_looked_up_without_being_repeated() {
    let server = Server::start();
    let (id, token) = server.create("boiler");
    let check = |token: &str| {
        let body = json!({ "token": token }).to_string();
        let (status, report) = server.call("POST", "/admin/v1/tokens/check", Some(&body));
        assert_eq!(status, 200, "{report}");
        assert!(!report.to_string().contains(token), "{report}");
        report
    };
    let report = check(&token);
    assert_eq!(
        (&report["state"], &report["device"]),
        (&json!("live"), &json!(id))
    );
    assert_eq!(report["name"], "boiler");
    server.call("POST", "/admin/v1/devices/boiler/revoke", None);
    let report = check(&token);
    assert_eq!(
        (&report["state"], &report["name"]),
        (&json!("revoked"), &json!("boiler"))
    );
    assert!(report["revoked_ms"].is_u64());
    assert_eq!(check("never seen"), json!({"state": "unknown"}));
    let mistyped = format!("{}x", &token[..39]);
    let report = check(if mistyped == token {
        "tgd_x"
    } else {
        &mistyped
    });
    assert!(
        report["hint"].as_str().unwrap().contains("mistyped"),
        "{report}"
    );
    assert!(
        check(&server.admin_token)["hint"]
            .as_str()
            .unwrap()
            .contains("admin")
    );
}

#[test]
fn what_is_taken_or_unusable_is_refused_with_its_field() {
    let server = Server::start();
    let (_, token) = server.create("boiler");
    for (body, status, code, target) in [
        (json!({"name": "boiler"}), 409, "name_taken", "name"),
        (
            json!({"name": "b", "token": token}),
            409,
            "token_taken",
            "token",
        ),
        (json!({"name": ""}), 422, "bad_field", "name"),
        (json!({"name": "a\u{7}"}), 422, "bad_field", "name"),
        (json!({"name": "x".repeat(256)}), 422, "bad_field", "name"),
        (json!({"name": "b", "token": ""}), 422, "bad_field", "token"),
        (
            json!({"name": "b", "token": "x".repeat(257)}),
            422,
            "bad_field",
            "token",
        ),
        (json!({"name": 5}), 422, "bad_field", "name"),
        (json!({"nam": "b"}), 422, "bad_field", "nam"),
        (json!({}), 422, "bad_field", "name"),
    ] {
        let (found, refusal) = server.call("POST", "/admin/v1/devices", Some(&body.to_string()));
        let error = &refusal["error"];
        assert_eq!(
            (found, &error["code"]),
            (status, &json!(code)),
            "{body}: {refusal}"
        );
        assert_eq!(error["target"], target, "{body}: {refusal}");
        assert!(!refusal.to_string().contains(&token), "{refusal}");
    }
    for body in ["", "{", "[1]", "\"tgd_x\"", "{\"name\":\"a\"}x", "\u{1}"] {
        let (status, refusal) = server.call("POST", "/admin/v1/devices", Some(body));
        let is_json = matches!(body, "[1]" | "\"tgd_x\"");
        let expected = if is_json {
            (422, "bad_field")
        } else {
            (400, "bad_json")
        };
        let code = refusal["error"]["code"].as_str().unwrap();
        assert_eq!((status, code), expected, "{body:?}: {refusal}");
    }
    let (_, page) = server.call("GET", "/admin/v1/devices", None);
    assert_eq!(
        page["devices"].as_array().unwrap().len(),
        1,
        "something was created: {page}"
    );
}

#[test]
fn sec_75_a_request_that_takes_too_long_is_told_so_and_its_work_is_finished() {
    let server = Server::start();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // Ends with the scope, so that a failed assertion does not wait for the writer for ever.
        let release = release;
        // Nothing is committed while this one is.
        scope.spawn(|| {
            let wait = move |_: &Transaction<'_>| {
                begin.send(()).unwrap();
                let _ = released.recv();
                Ok(())
            };
            server.store.write(wait).unwrap();
        });
        begun.recv().unwrap();
        let (status, refusal) = server.call("POST", "/admin/v1/devices", Some(r#"{"name":"a"}"#));
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (503, &json!("request_timeout"))
        );
        release.send(()).unwrap();
    });
    wait_until("the device is there", || {
        server.registry.device("a").is_ok()
    });
}
