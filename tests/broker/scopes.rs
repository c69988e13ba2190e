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

/// SEC-36: the connection stays, whatever its scope loses or gets, and has the new rights at once.
#[test]
fn sec_36_a_device_stays_connected_and_has_the_rights_of_now() {
    let mut broker = Broker::start();
    let token = broker.create_device("pump");
    for version in VERSIONS {
        let mut wire = broker.wire();
        log_in(&mut wire, &Connect::with_token(version, "a", &token));
        let mut try_publish = |id, topic: &str| {
            wire.send(&publish(version, 1, id, topic, br#"{"a":1}"#));
            let ack = wire.packet();
            assert_eq!(
                (ack[0], ack[3]),
                (0x40, u8::try_from(id).unwrap()),
                "{}",
                show(&ack)
            );
            if version == Version::V5 {
                reason(&ack)
            } else {
                0
            }
        };
        let refused = if version == Version::V5 { 0x90 } else { 0 };
        assert_eq!(try_publish(1, "a/x"), refused);
        broker.cli_ok(&["device", "scope", "pump", "--publish", "a/+"]);
        assert_eq!(try_publish(2, "a/x"), 0);
        let changed = broker.cli_json(&["device", "scope", "pump", "--clear", "--json"]);
        assert_eq!(changed["receipt"]["connections"], 0, "{changed}");
        assert_eq!(try_publish(3, "a/x"), refused);
        // Its own topics are its own, whatever the scope says.
        assert_eq!(try_publish(4, TELEMETRY), 0);
        wire.expect_alive();
    }
    assert_eq!(
        broker.metric("tollgate_messages_refused_total{reason=\"unknown_topic\"}"),
        6.0
    );
    broker.cli_ok(&["device", "scope", "pump", "--subscribe", "in/%n"]);
    broker.kill9();
    broker.restart();
    let shown = broker.cli_ok(&["device", "show", "pump"]);
    assert!(shown.contains("subscribe  in/%n\n"), "{shown}");
}
