//! What applications may do, and how it ends.

use crate::{
    common::{
        broker::Broker,
        packets::{Connect, VERSIONS, Version, publish, reason},
        wire::show,
    },
    site::{ALL, Client, Counter, Options, create_app, id_of},
};

#[test]
fn sec_32_a_subscription_needs_the_whole_filter_in_the_scope() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let id = id_of(&broker, "d");
    let one = format!("v1/devices/{id}/telemetry");
    let narrow = create_app(&broker, "narrow", &[&one]);
    let wide = create_app(&broker, "wide", &["v1/devices/+/telemetry", "other/#"]);
    let mut narrow = Client::connect(&broker, &narrow, &Options::V5);
    assert_eq!(narrow.subscribe(ALL), 0x87);
    assert_eq!(narrow.subscribe(&format!("$share/g/{ALL}")), 0x87);
    assert_eq!(narrow.subscribe("#"), 0x87);
    assert_eq!(narrow.subscribe(&one), 1);
    let mut client = Client::connect(&broker, &wide, &Options::V5);
    for (filter, code) in [
        ("#", 0x87),
        ("v1/devices/#", 0x87),
        ("other/x", 1),
        ("other/#", 1),
        ("v1/devices/+/attributes", 0x87),
        ("v1/devices/me/telemetry", 0x87), // no scope covers the device topics
        ("$share/g@nonsense/v1/devices/+/telemetry", 0x8f),
        (&one.to_uppercase(), 0x87),
        (ALL, 1),
    ] {
        assert_eq!(client.subscribe(filter), code, "{filter}");
    }
    assert_eq!(client.subscribe_with(ALL, 1, &[("start", "soon")]), 0x83);
    let old = Options {
        version: Version::V311,
        client_id: "old",
        ..Options::V5
    };
    let mut old = Client::connect(&broker, &wide, &old);
    assert_eq!(old.subscribe("#"), 0x80);
    let mut device = Client::connect(&broker, &device, &Options::V5);
    assert_eq!(device.subscribe(ALL), 0x8f, "a device has no feed");
}

#[test]
fn sec_30_an_application_publishes_nothing_it_may_not() {
    let broker = Broker::start();
    let arguments = ["app", "create", "a", "--json", "--publish", "mine/#"];
    let created = broker.cli_json(&arguments);
    let token = created["token"].as_str().expect("a token");
    let mut client = Client::connect(&broker, token, &Options::V5);
    for (topic, code) in [
        ("v1/devices/me/telemetry", 0x87),
        ("other", 0x87),
        ("$SYS/x", 0x87),
        ("mine/x", 0),
    ] {
        client
            .wire
            .send(&publish(Version::V5, 1, 1, topic, b"{\"a\":1}"));
        let puback = client.wire.packet();
        assert_eq!((puback[0], reason(&puback)), (0x40, code), "{topic}");
    }
    // A will is authorised when it is left.
    for (topic, code) in [("other", 0x87), ("mine/x", 0)] {
        let connect = Connect {
            will: Some((0, false, topic, b"x")),
            ..Connect::with_token(Version::V5, "w", token)
        };
        let mut wire = broker.wire();
        wire.send(&connect.encode());
        assert_eq!(wire.packet()[3], code, "{topic}");
    }
}

#[test]
fn sec_34_revoking_ends_the_feed_at_once() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(50);
    assert_eq!(client.take_numbers(20), (1..=20).collect::<Vec<_>>());
    broker.wait_metric("tollgate_feed_cursors", 1.0);
    let revoked = broker.cli_json(&["app", "revoke", "a", "--json"]);
    assert_eq!(revoked["receipt"]["connections"], 1, "{revoked}");
    assert_eq!(revoked["receipt"]["sessions"], 1, "{revoked}");
    counter.send(50);
    let packets = client.wire.packets_until_close();
    let last = packets.last().expect("a last word");
    assert_eq!((last[0], reason(last)), (0xe0, 0x98), "{}", show(last));
    assert!(packets.len() <= 31, "nothing of what came later");
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V5, "c", &token).encode());
    assert_eq!(wire.packet()[3], 0x86);
    broker.wait_metric_until("tollgate_feed_cursors", |cursors| cursors == 0.0);
}

#[test]
fn sec_53_a_rotated_token_keeps_the_session() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let mut client = Client::connect(&broker, &token, &Options::KEPT);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(3);
    assert_eq!(client.take_numbers(2), [1, 2]);
    let rotated = broker.cli_json(&["app", "rotate", "a", "--grace", "0s", "--json"]);
    client.wire.skip_until_close();
    let token = rotated["token"].as_str().expect("a token");
    let mut client = Client::connect(&broker, token, &Options::KEPT);
    assert!(client.is_present);
    assert_eq!(client.take().number(), 3);
}

#[test]
fn what_a_deleted_device_sent_is_not_fed() {
    let mut broker = Broker::start();
    let (gone, stays) = (broker.create_device("gone"), broker.create_device("stays"));
    let token = create_app(&broker, "a", &[ALL]);
    Counter::connect(&broker, &gone).send(5);
    Counter::connect(&broker, &stays).send(1);
    broker.cli_ok(&["device", "delete", "gone"]);
    for _ in 0..2 {
        let mut client = Client::connect(&broker, &token, &Options::V5);
        assert_eq!(client.subscribe_with(ALL, 1, &[("start", "earliest")]), 1);
        let stays = id_of(&broker, "stays");
        assert_eq!(client.take().topic, format!("v1/devices/{stays}/telemetry"));
        broker.restart();
    }
}

#[test]
fn sec_28_an_application_has_as_many_sessions_as_it_may() {
    let broker = Broker::start_with(&[("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "3")]);
    let token = create_app(&broker, "a", &[ALL]);
    let options = |client_id| Options {
        client_id,
        ..Options::V5
    };
    let mut held: Vec<_> = ["1", "2", ""]
        .map(|id| Client::connect(&broker, &token, &options(id)))
        .into();
    for version in VERSIONS {
        let mut wire = broker.wire();
        wire.send(&Connect::with_token(version, "4", &token).encode());
        let code = if version == Version::V5 { 0x97 } else { 3 };
        assert_eq!(wire.packet()[3], code);
    }
    for client in &mut held {
        client.wire.expect_alive();
    }
    held.swap_remove(0).disconnect();
    Client::connect(&broker, &token, &options("4"));
}

#[test]
fn an_application_is_shown_and_its_token_is_told() {
    let broker = Broker::start();
    let token = create_app(&broker, "a", &[ALL, "x/#"]);
    assert!(token.starts_with("tga_"), "{token}");
    let shown = broker.cli_ok(&["app", "show", "a"]);
    assert!(
        shown.contains("subscribe  v1/devices/+/telemetry x/#"),
        "{shown}"
    );
    assert!(!shown.contains(&token));
    let listed = broker.cli_json(&["app", "list", "--json"]);
    assert_eq!(listed["apps"][0]["name"], "a");
    let devices = broker.cli_json(&["device", "list", "--json"]);
    let names: Vec<_> = devices["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(
        names.iter().all(|device| device["name"] != "a"),
        "{devices}"
    );
    let report = broker.cli_json(&["token", "check", &token, "--json"]);
    assert_eq!(
        (&report["state"], &report["kind"]),
        (&"live".into(), &"application".into())
    );
    refuses_what_makes_no_sense(&broker, &token);
    let chosen = [
        "app",
        "create",
        "b",
        "--token",
        "my own app token",
        "--json",
    ];
    assert_eq!(broker.cli_json(&chosen)["token"], "my own app token");
    broker.cli_ok(&["app", "delete", "b"]);
    let report = broker.cli_json(&["token", "check", "my own app token", "--json"]);
    assert_eq!(report["state"], "unknown");
}

fn refuses_what_makes_no_sense(broker: &Broker, token: &str) {
    for (arguments, word) in [
        (&["app", "create", "a"][..], "exists already"),
        (&["device", "create", "a"], "application \"a\" exists"),
        (
            &["app", "create", "b", "--token", token],
            "in use already by application",
        ),
        (
            &["app", "create", "b", "--subscribe", "a/#/b"],
            "subscribe filter",
        ),
        (
            &["app", "create", "b", "--subscribe", "$share/g/a"],
            "share group",
        ),
        (&["app", "create", "b", "--publish", "$SYS/#"], "closed"),
        (&["app", "show", "first-device"], "no application"),
        (&["device", "show", "a"], "no device"),
    ] {
        let output = broker.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let admin = std::fs::read_to_string(broker.dir().join("secrets/admin.token")).expect("a file");
    let output = broker.cli(&["app", "create", "b", "--token", admin.trim()]);
    assert_eq!(
        output.status.code(),
        Some(6),
        "the admin token opens too much"
    );
}
