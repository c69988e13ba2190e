//! The scope of a device, as far as a client meets it.

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason},
    wire::show,
};

/// SEC-37: the right to a will's topic is asked at CONNECT; here it comes from the scope.
#[test]
fn sec_37_a_will_needs_a_topic_in_the_scope() {
    let broker = Broker::start();
    let made = [
        "device",
        "create",
        "pump",
        "--publish",
        "site/%d/+",
        "by/%n",
        "--json",
    ];
    let created = broker.cli_json(&made);
    let token = created["token"].as_str().expect("a token");
    let id = created["device"]["id"].as_str().expect("an id");
    let own = format!("site/{id}/gone");
    let try_will = |version, topic: &str| {
        let connect = Connect {
            will: Some((1, false, topic, b"x")),
            ..Connect::with_token(version, "w", token)
        };
        let mut wire = broker.wire();
        wire.send(&connect.encode());
        wire.packet()[3]
    };
    for version in VERSIONS {
        let refused = if version == Version::V5 { 0x87 } else { 5 };
        for (topic, code) in [
            (&*own, 0),
            ("by/pump", 0),
            (TELEMETRY, 0),
            ("site/%d/gone", refused),
            ("site/other/gone", refused),
            ("by/other", refused),
            ("$SYS/x", refused),
        ] {
            assert_eq!(try_will(version, topic), code, "{version:?} {topic}");
        }
    }
    broker.cli_ok(&["device", "scope", "pump", "--publish", "by/%n"]);
    assert_eq!(try_will(Version::V5, &own), 0x87);
    assert_eq!(try_will(Version::V5, "by/pump"), 0);
}

#[test]
fn sec_34_a_narrowed_device_comes_back_with_less_and_a_widened_one_stays() {
    let mut broker = Broker::start();
    let token = broker.create_device("pump");
    for version in VERSIONS {
        let mut wire = broker.wire();
        log_in(&mut wire, &Connect::with_token(version, "a", &token));
        broker.cli_ok(&["device", "scope", "pump", "--publish", "a/%d"]);
        wire.expect_alive();
        let changed = broker.cli_json(&["device", "scope", "pump", "--clear", "--json"]);
        assert_eq!(changed["receipt"]["connections"], 1, "{changed}");
        let packets = wire.packets_until_close();
        if version == Version::V5 {
            let last = packets.last().expect("a last word");
            assert_eq!((last[0], reason(last)), (0xe0, 0x98), "{}", show(last));
        }
        // Its own topics are its own, whatever the scope says.
        let mut wire = broker.wire();
        log_in(&mut wire, &Connect::with_token(version, "a", &token));
        wire.send(&publish(version, 1, 1, TELEMETRY, br#"{"a":1}"#));
        assert_eq!(wire.packet()[0], 0x40);
    }
    broker.cli_ok(&["device", "scope", "pump", "--subscribe", "in/%n"]);
    broker.kill9();
    broker.restart();
    let shown = broker.cli_ok(&["device", "show", "pump"]);
    assert!(shown.contains("subscribe  in/%n\n"), "{shown}");
}
