//! What devices and applications may publish and receive: how it is set, refused and changed.

use serde_json::{Value, json};
use tollgate::identity::Action;
use tollgate::mqtt::topic::Topic;

use crate::harness::{Server, Worker};

fn may(server: &Server, token: &str, action: Action, topic: &str) -> bool {
    let principal = server.registry.authenticate(token).unwrap();
    principal.permit.allows(action, Topic::new(topic).unwrap())
}

fn patch(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    server.call(
        "PATCH",
        &format!("/admin/v1/{path}/scope"),
        Some(&body.to_string()),
    )
}

#[test]
fn sec_30_a_scope_is_given_at_creation_and_changed_later() {
    let server = Server::start();
    let body = json!({"name": "pump", "publish": ["site/%d/#"], "subscribe": ["all/+"]});
    let (status, created) = server.call("POST", "/admin/v1/devices", Some(&body.to_string()));
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["device"]["publish"], json!(["site/%d/#"]));
    let id = created["device"]["id"].as_str().unwrap();
    let token = created["token"].as_str().unwrap();
    let own = format!("site/{id}/x");
    assert!(may(&server, token, Action::Publish, &own));
    assert!(!may(&server, token, Action::Publish, "site/other/x"));
    assert!(!may(&server, token, Action::Receive, &own), "two lists");
    assert!(may(&server, token, Action::Receive, "all/x"));

    // A list that is not named stays; names and ids both name it.
    let (status, changed) = patch(&server, "devices/pump", &json!({"subscribe": ["%n/in"]}));
    assert_eq!(status, 200, "{changed}");
    assert_eq!(changed["device"]["publish"], json!(["site/%d/#"]));
    assert_eq!(changed["receipt"]["connections"], 1);
    assert!(may(&server, token, Action::Receive, "pump/in"));
    assert!(!may(&server, token, Action::Receive, "all/x"));
    let change = server.next_change();
    assert_eq!((change.drops_state, change.generation), (false, 2));
    let empty = json!({"publish": [], "subscribe": []});
    let (_, cleared) = patch(&server, &format!("devices/{id}"), &empty);
    assert!(cleared["device"].get("publish").is_none(), "{cleared}");
    assert!(!may(&server, token, Action::Publish, &own));
    assert!(may(
        &server,
        token,
        Action::Publish,
        "v1/devices/me/telemetry"
    ));
    let (_, shown) = server.call("GET", "/admin/v1/devices/pump", None);
    assert_eq!(shown, cleared["device"]);
    assert!(
        server
            .request("GET", "/metrics", &[], None)
            .body
            .contains("tollgate_scopes 0\n")
    );
}

#[test]
fn an_application_is_narrowed_and_widened_and_shows_no_words_of_a_device() {
    let server = Server::start();
    let body = json!({"name": "app", "subscribe": ["a/#", "$SYS/#"]}).to_string();
    let (status, created) = server.call("POST", "/admin/v1/apps", Some(&body));
    assert_eq!(status, 201, "{created}");
    let token = created["token"].as_str().unwrap();
    assert!(created["app"].get("profile").is_none(), "{created}");
    assert!(may(&server, token, Action::Receive, "$SYS/broker/uptime"));
    let (status, narrowed) = patch(&server, "apps/app", &json!({"subscribe": ["a/b"]}));
    assert_eq!((status, &narrowed["app"]["generation"]), (200, &json!(2)));
    assert!(!may(&server, token, Action::Receive, "a/c"));
    let (_, wide) = patch(
        &server,
        "apps/app",
        &json!({"publish": ["#"], "subscribe": ["a/#"]}),
    );
    assert_eq!(wide["app"]["generation"], 2, "a widening ends nothing");
    assert!(may(&server, token, Action::Publish, "any"));
    assert!(!may(&server, token, Action::Publish, "$SYS/x"));
    // Not an application's, not a device's.
    for (path, code) in [
        ("devices/app", "device_not_found"),
        ("apps/nobody", "app_not_found"),
    ] {
        let (status, refusal) = patch(&server, path, &json!({"publish": ["a"]}));
        assert_eq!((status, &refusal["error"]["code"]), (404, &json!(code)));
    }
    let (_, nothing) = patch(
        &server,
        "apps/app",
        &json!({"publish": [], "subscribe": []}),
    );
    assert_eq!(nothing["app"]["publish"], json!([]));
    assert!(
        server.registry.authenticate(token).is_some(),
        "it may come in"
    );
}

#[test]
fn a_refusal_names_the_filter_and_changes_nothing() {
    let server = Server::start();
    let (_, token) = server.create("a+b");
    let good = json!({"publish": ["x/%d"]});
    assert_eq!(patch(&server, "devices/a+b", &good).0, 200);
    for (body, target, words) in [
        (
            json!({"publish": ["ok", "a/#/b"]}),
            "publish",
            r#"filter "a/#/b" contains"#,
        ),
        (
            json!({"subscribe": ["v2/#"]}),
            "subscribe",
            "lies in the device topics",
        ),
        (
            json!({"subscribe": ["$SYS/#"]}),
            "subscribe",
            "closed to devices",
        ),
        (
            json!({"subscribe": ["x/%n"]}),
            "subscribe",
            "use %d, its id",
        ),
        (
            json!({"publish": ["x/%u"]}),
            "publish",
            "unknown placeholder %u",
        ),
        (json!({}), "publish", "give the list that is to change"),
    ] {
        let (status, refusal) = patch(&server, "devices/a+b", &body);
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (422, &json!("bad_field")),
            "{refusal}"
        );
        assert_eq!(refusal["error"]["target"], target);
        let message = refusal["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    let (status, refusal) = patch(&server, "devices/a+b", &json!({"publsh": ["a"]}));
    assert_eq!(
        (status, &refusal["error"]["target"]),
        (422, &json!("publsh")),
        "{refusal}"
    );
    assert!(may(
        &server,
        &token,
        Action::Publish,
        &format!("x/{}", id_of(&server))
    ));
    let body = json!({"name": "c/d", "publish": ["x/%n"]}).to_string();
    let (status, refusal) = server.call("POST", "/admin/v1/devices", Some(&body));
    assert_eq!(
        (status, &refusal["error"]["target"]),
        (422, &json!("publish"))
    );
}

fn id_of(server: &Server) -> String {
    server.registry.device("a+b").unwrap().id.to_string()
}

#[test]
fn sec_34_a_narrowing_is_durable_then_confirmed_then_answered() {
    let server = Server::start_with(Worker::Waits, Vec::new());
    let (id, token) = server.create("pump");
    let before = server.registry.authenticate(&token).unwrap();
    std::thread::scope(|scope| {
        let widen = scope.spawn(|| patch(&server, "devices/pump", &json!({"publish": ["a/#"]})));
        assert_eq!(server.next_change().generation, 1);
        server.let_confirm();
        assert_eq!(widen.join().unwrap().0, 200);
        assert!(
            server.registry.is_current(&before),
            "a widening ends nothing"
        );

        let wide = server.registry.authenticate(&token).unwrap();
        let narrow = scope.spawn(|| patch(&server, "devices/pump", &json!({"publish": ["a/b"]})));
        let change = server.next_change();
        assert_eq!((change.identity, change.generation), (id, 2));
        assert!(!change.ends_sessions && !change.drops_state);
        // The worker has the change: by now it is durable, and the old right is no more.
        let from = std::net::Ipv4Addr::LOCALHOST.into();
        let narrowed = server.registry.readmit(&wide, from).unwrap();
        assert!(!narrowed.permit.covers(&wide.permit));
        assert_eq!(server.registry.device("pump").unwrap().publish, ["a/b"]);
        let now = server.registry.authenticate(&token).unwrap();
        assert!(server.registry.is_current(&now), "the token stays");
        assert!(
            !now.permit
                .allows(Action::Publish, Topic::new("a/c").unwrap())
        );
        assert!(
            !narrow.is_finished(),
            "answered before the worker confirmed"
        );
        server.let_confirm();
        assert_eq!(narrow.join().unwrap().0, 200);

        // The same again has it confirmed again, and changes nothing.
        let again = scope.spawn(|| patch(&server, "devices/pump", &json!({"publish": ["a/b"]})));
        let change = server.next_change();
        assert_eq!((change.identity, change.generation), (id, 2));
        server.let_confirm();
        assert_eq!(again.join().unwrap().0, 200);
    });
}

#[test]
fn a_page_with_long_scopes_ends_early() {
    let server = Server::start();
    let long: Vec<String> = (0..8)
        .map(|n| format!("{n}{}", "x".repeat(1_000)))
        .collect();
    let rows = (0..1_100).map(|n| {
        let token = format!("token-of-device-{n:04}");
        let row = json!({"name": format!("d{n:04}"), "token": token, "publish": long});
        format!("{row}\n")
    });
    let body: String = rows.collect();
    let header = "Content-Type: application/x-ndjson";
    let authorization = server.authorization();
    let path = "/admin/v1/bulk/devices";
    let reply = server.request("POST", path, &[&authorization, header], Some(&body));
    assert_eq!(reply.status, 200, "{reply:?}");
    let (mut seen, mut pages, mut after) = (0, 0, String::new());
    loop {
        let path = format!("/admin/v1/devices?limit=10000{after}");
        let (_, page) = server.call("GET", &path, None);
        let devices = page["devices"].as_array().unwrap();
        seen += devices.len();
        pages += 1;
        assert_eq!(devices[0]["publish"].as_array().unwrap().len(), 8);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((seen, pages), (1_100, 2));
}
