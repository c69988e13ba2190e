//! Journal format 1, schema version 1: what the first Tollgate with a history wrote.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::common::{
    broker::Broker,
    packets::{
        Connect, TELEMETRY, Version, log_in, publish, publish_flags, pubrel, reason, subscribe,
    },
};
use crate::fixture::{copy, copy_secrets, folder, setup};

const NAME: &str = "journal-1-schema-1";
const PUMP: &str = "fixture-token-of-the-pump";
const VALVE: &str = "fixture-token-of-the-valve";
const REVOKED: &str = "fixture-token-that-was-revoked";
const DELETED: &str = "fixture-token-of-a-deleted-device";
/// The QoS 2 message of the pump's session that was never released.
const UNRELEASED: u16 = 77;

/// The session that is to be kept: MQTT 3.1.1, clean session 0.
fn kept(token: &str) -> Vec<u8> {
    let connect = Connect {
        clean: false,
        ..Connect::with_token(Version::V311, "kept", token)
    };
    connect.encode()
}

/// How the fixture was made. Only ever run for a new format, under a new name.
#[test]
#[ignore = "makes the fixture if it is not there"]
fn make_the_fixture() {
    assert!(!folder(NAME).exists(), "a fixture never changes");
    let mut broker = Broker::start();
    for (name, token) in [
        ("pump", PUMP),
        ("Ventil 1/ä", VALVE),
        ("revoked", REVOKED),
        ("deleted", DELETED),
    ] {
        broker.create_device_with_token(name, token);
    }
    let mut wire = broker.wire();
    wire.send(&kept(PUMP));
    wire.expect("20020000");
    wire.send(&subscribe(
        Version::V311,
        9,
        &[("v1/devices/me/attributes", 1)],
    ));
    wire.expect("9003000901");
    for at in 1..=20_u16 {
        let payload = format!(
            r#"{{"ts":{},"values":{{"t":{at}.5,"on":{},"text":"n{at}","j":{{"a":[{at}]}}}}}}"#,
            1_700_000_000_000_u64 + u64::from(at),
            at % 2 == 0
        );
        wire.send(&publish(
            Version::V311,
            1,
            at,
            TELEMETRY,
            payload.as_bytes(),
        ));
        assert_eq!(wire.packet()[0], 0x40);
    }
    let payload = br#"{"ts":1700000000100,"values":{"once":1}}"#;
    wire.send(&publish(Version::V311, 2, UNRELEASED, TELEMETRY, payload));
    wire.expect("5002004d");
    broker.revoke("revoked");
    broker.cli_ok(&["device", "delete", "deleted"]);
    assert_eq!(broker.stop(), 0);
    // A second run cuts what the first one had filled ahead.
    broker.restart();
    assert_eq!(broker.stop(), 0);
    let data = broker.dir().join("data");
    let mut segments: Vec<PathBuf> = fs::read_dir(data.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    for path in &segments {
        if fs::metadata(path).unwrap().len() > 1 << 20 || path.ends_with("lock") {
            fs::remove_file(path).unwrap();
        }
    }
    copy(&data, &folder(NAME).join("data"));
    copy_secrets(&broker, NAME);
}

#[test]
fn rel_10_a_data_directory_of_format_1_is_opened_and_served() {
    let mut broker = setup(NAME).start();
    assert_is_served(&mut broker);
    // And again after this program has written to it.
    broker.restart();
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "other", VALVE),
    );
    assert_eq!(broker.values("pump", "once"), [json!(1)]);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

fn assert_is_served(broker: &mut Broker) {
    let devices = broker.cli_json(&["device", "list", "--json"]);
    let names: Vec<&str> = devices["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Ventil 1/ä", "first-device", "pump", "revoked"]);
    // Telemetry, in every type.
    let points = broker.points("pump");
    assert_eq!(points.len(), 20 * 4 + 1);
    assert_eq!(broker.values("pump", "t")[6], json!(7.5));
    assert_eq!(broker.values("pump", "on")[1], json!(true));
    assert_eq!(broker.values("pump", "text")[0], json!("n1"));
    assert_eq!(broker.values("pump", "j")[19], json!({"a": [20]}));
    // Credentials, live and ended.
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V311, "v", VALVE),
    );
    for token in [REVOKED, DELETED] {
        let mut wire = broker.wire();
        wire.send(&Connect::with_token(Version::V5, "x", token).encode());
        assert_eq!(reason(&wire.packet()), 0x86, "{token}");
    }
    let report = broker.cli_json(&["token", "check", REVOKED, "--json"]);
    assert_eq!(report["state"], "revoked", "{report}");
    // The session: present, and its QoS 2 message is known.
    let mut wire = broker.wire();
    wire.send(&kept(PUMP));
    wire.expect("20020100");
    let again = br#"{"ts":1700000000100,"values":{"once":1}}"#;
    wire.send(&publish_flags(
        Version::V311,
        0x0c,
        UNRELEASED,
        TELEMETRY,
        again,
    ));
    wire.expect("5002004d");
    wire.send(&pubrel(UNRELEASED));
    wire.expect("7002004d");
    assert_eq!(broker.values("pump", "once"), [json!(1)]);
    // New work on old data.
    wire.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"new":1}"#));
    wire.expect("40020001");
    assert_eq!(broker.values("pump", "new"), [json!(1)]);
}
