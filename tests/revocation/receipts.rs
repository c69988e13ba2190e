//! The receipt of a revocation, its dry run, and several in one call.

use serde_json::{Value, json};

use crate::{
    common::{
        broker::Broker,
        packets::{Connect, Version, reason},
    },
    place::{Everything, Over, all_of_it, ask, ask_ok, create_app, figures},
};

fn connack(broker: &Broker, over: Over, token: &str) -> u8 {
    let mut wire = over.wire(broker);
    wire.send(&Connect::with_token(Version::V5, "again", token).encode());
    reason(&wire.packet())
}

/// Every figure of the receipt, each of one thing; the dry run before it has the same and leaves
/// everything as it is.
#[test]
fn sec_35_a_receipt_counts_all_that_ended_and_a_dry_run_foresees_it() {
    let broker = Broker::start();
    let other = create_app(&broker, "other", &["#"]);
    for over in Over::BOTH {
        let name = format!("{over:?}");
        let token = create_app(&broker, &name, &["#"]);
        let Everything {
            mut live,
            mut short,
            other: mut publisher,
        } = Everything::make(&broker, over, (&name, &token), &other);
        Everything::wait(&broker, &name);
        let before = ask_ok(&broker, "GET", &format!("apps/{name}"), &Value::Null);
        let said = broker.cli_ok(&["app", "revoke", &name, "--dry-run"]);
        assert!(
            said.starts_with(&format!("would revoke {name} (")) && said.ends_with(WOULD),
            "{said}"
        );
        let path = format!("apps/{name}?dry_run=true");
        let foreseen = ask_ok(&broker, "DELETE", &path, &Value::Null);
        assert_eq!(figures(&foreseen["receipt"]), all_of_it());
        assert_eq!(foreseen["receipt"]["dry_run"], true);
        assert_eq!(foreseen["app"], before, "it is shown as it is");
        let after = ask_ok(&broker, "GET", &format!("apps/{name}"), &Value::Null);
        assert_eq!(after, before);
        // All of it is still there: connections, tokens, wills, queues.
        live.wire.expect_alive();
        short.wire.expect_alive();
        let new = Connect::with_token(Version::V5, "new", &token);
        over.connect(&broker, &new).disconnect();
        assert_eq!(publisher.subscribe(&format!("{name}/#"), 1), 1);
        for number in 0..2 {
            let retained = publisher.take();
            assert_eq!(retained.topic, format!("{name}/retained/{number}"));
        }
        let path = format!("apps/{name}/revoke");
        let revoked = ask_ok(&broker, "POST", &path, &Value::Null);
        assert_eq!(figures(&revoked["receipt"]), all_of_it(), "{revoked}");
        assert!(revoked["receipt"].get("dry_run").is_none(), "{revoked}");
        assert!(revoked["receipt"]["milliseconds"].is_u64());
        live.expect_end(&[0x98]);
        short.expect_end(&[0x98]);
        assert_eq!(connack(&broker, over, &token), 0x86);
        // No will, and nothing to end a second time.
        publisher.expect_only_own_marker(1, &format!("{name}/marker"));
        let again = ask_ok(&broker, "POST", &path, &Value::Null)["receipt"].clone();
        for figure in ["connections", "sessions", "queued", "in_flight", "wills"] {
            assert_eq!(again[figure], 0, "{again}");
        }
    }
}

const WOULD: &str = "2 connections closed; 3 sessions, 4 subscriptions, 5 queued, 1 in-flight and \
                     2 unfinished messages, 2 wills and 2 retained messages dropped; nothing was \
                     changed\n";

/// What a rotation ends: connections and what ends with them, and the wills, not the kept sessions.
#[test]
fn sec_53_a_rotation_leaves_what_is_kept() {
    let broker = Broker::start();
    let other = create_app(&broker, "other", &["#"]);
    let token = create_app(&broker, "a", &["#"]);
    let mut all = Everything::make(&broker, Over::Tcp, ("a", &token), &other);
    Everything::wait(&broker, "a");
    let rotated = ask_ok(&broker, "POST", "apps/a/rotate", &json!({"grace_s": 0}));
    let expected = json!({
        "connections": 2, "sessions": 1, "subscriptions": 1, "queued": 0, "in_flight": 0,
        "unfinished": 0, "wills": 2, "retained": 0,
    });
    assert_eq!(figures(&rotated["receipt"]), expected, "{rotated}");
    all.live.expect_end(&[0x98]);
    let token = rotated["token"].as_str().expect("a token");
    for client_id in ["live", "away"] {
        let connect = Connect::with_token(Version::V5, client_id, token).kept();
        let client = Over::Tcp.connect(&broker, &connect);
        assert!(client.is_present(), "{client_id}");
    }
}

/// Devices, applications and users by one call: one commit, a receipt for each and for all.
#[test]
fn sec_35_several_are_revoked_together_or_none() {
    let broker = Broker::start_with(&[]);
    let other = create_app(&broker, "other", &["#"]);
    let app = create_app(&broker, "app", &["#"]);
    let devices = ["d0", "d1", "d2"].map(|name| (name, broker.create_device(name)));
    let all = Everything::make(&broker, Over::Tls, ("app", &app), &other);
    Everything::wait(&broker, "app");
    let mut wires: Vec<_> = devices
        .iter()
        .map(|(_, token)| {
            let connect = Connect::with_token(Version::V5, "d", token);
            Over::Tcp.connect(&broker, &connect)
        })
        .collect();
    expect_refused(&broker);
    for client in &mut wires {
        client.wire.expect_alive();
    }
    let id = ask_ok(&broker, "GET", "devices/d1", &Value::Null)["id"].clone();
    let wanted = json!({"devices": ["d0", id, "d1"], "apps": ["app"]});
    let mut dry = wanted.clone();
    dry["dry_run"] = json!(true);
    let foreseen = ask_ok(&broker, "POST", "revocations", &dry);
    let revoked = ask_ok(&broker, "POST", "revocations", &wanted);
    assert_eq!(names(&foreseen), names(&revoked));
    let one = json!({
        "connections": 1, "sessions": 1, "subscriptions": 0, "queued": 0, "in_flight": 0,
        "unfinished": 0, "wills": 0, "retained": 0,
    });
    let expected = [
        ("device", "d0", one.clone()),
        ("device", "d1", one),
        ("application", "app", all_of_it()),
    ];
    let expected =
        expected.map(|(kind, name, receipt)| (kind.to_owned(), name.to_owned(), receipt));
    assert_eq!(names(&revoked), expected);
    assert_eq!(revoked["receipt"]["connections"], 4, "{revoked}");
    assert_eq!(revoked["receipt"]["sessions"], 5, "{revoked}");
    let Everything { mut live, .. } = all;
    live.expect_end(&[0x98]);
    for (client, is_over) in wires.iter_mut().zip([true, true, false]) {
        match is_over {
            true => client.expect_end(&[0x98]),
            false => client.wire.expect_alive(),
        }
    }
    let said = broker.cli_ok(&["device", "revoke", "d1", "d2"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(
        said.contains("\nall together: 1 connections closed; 1 sessions,"),
        "{said}"
    );
}

/// One that is not there, or a mistake: nobody is touched.
fn expect_refused(broker: &Broker) {
    for (path, wanted, code) in [
        (
            "revocations",
            json!({"devices": ["d0", "x"]}),
            "device_not_found",
        ),
        (
            "revocations",
            json!({"devices": ["d0"], "apps": ["d1"]}),
            "app_not_found",
        ),
        (
            "revocations",
            json!({"devices": ["d0"], "users": ["u"]}),
            "user_not_found",
        ),
        ("revocations", json!({}), "bad_field"),
        ("revocations", json!({"device": ["d0"]}), "bad_field"),
        (
            "revocations",
            json!({"devices": vec!["d0"; 10_001]}),
            "bad_field",
        ),
        ("devices/d0/revoke", json!({"dryrun": true}), "bad_field"),
    ] {
        let (status, refused) = ask(broker, "POST", path, &wanted);
        assert!((400..500).contains(&status), "{status} {refused}");
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    let (status, refused) = ask(broker, "DELETE", "devices/d0?dry_run=yes", &Value::Null);
    assert_eq!(
        (status, &refused["error"]["target"]),
        (400, &json!("dry_run"))
    );
}

/// Kind, name and receipt of each.
fn names(reply: &Value) -> Vec<(String, String, Value)> {
    let all = reply["revoked"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    all.map(|one| {
        let receipt = figures(&one["receipt"]);
        (text(&one["kind"]), text(&one["name"]), receipt)
    })
    .collect()
}
