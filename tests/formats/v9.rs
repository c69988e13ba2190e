//! Journal format 1, schema version 9: the last one without an audit, with the terms of tokens,
//! marks of what revoked tokens wrote, and admin tokens.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, Version},
};
use crate::fixture::{copy, copy_secrets, cut_segments, folder, setup};

const NAME: &str = "journal-1-schema-9";
const BOILER: &str = "fixture-token-of-the-boiler";
const BEFORE: &str = "fixture-token-before-rotation";
const AFTER: &str = "fixture-token-after-rotation";
const BRIEF: &str = "fixture-token-that-is-over";
/// The admin token's file.
const LOOKS: &str = "secrets/looks.token";

fn connect(broker: &Broker, token: &str) -> Client {
    Client::connect(broker, &Connect::with_token(Version::V5, "c", token))
}

/// How the fixture was made, by a program of that schema (`TOLLGATE_TEST_PROGRAM`). Only ever run
/// for a new format, under a new name.
#[test]
#[ignore = "makes the fixture if it is not there"]
fn make_the_fixture() {
    assert!(!folder(NAME).exists(), "a fixture never changes");
    let mut broker = Broker::start();
    let create = ["device", "create", "boiler", "--token", BOILER];
    let terms = [
        "--allow",
        "telemetry",
        "--from",
        "127.0.0.0/8",
        "--rate",
        "50",
    ];
    let end = ["--expires", "2100-01-01T00:00:00Z"];
    broker.cli_ok(&[&create[..], &terms, &end].concat());
    let mut boiler = connect(&broker, BOILER);
    assert_eq!(
        boiler.publish(1, TELEMETRY, br#"{"ts":1,"values":{"n":1}}"#),
        0
    );
    broker.create_device_with_token("pump", BEFORE);
    let mut pump = connect(&broker, BEFORE);
    assert_eq!(
        pump.publish(1, TELEMETRY, br#"{"ts":1,"values":{"n":1}}"#),
        0
    );
    // All that came so far is known to have come before.
    thread::sleep(Duration::from_secs(3));
    let since = "1s";
    assert_eq!(
        pump.publish(1, TELEMETRY, br#"{"ts":2,"values":{"n":2}}"#),
        0
    );
    broker.cli_ok(&["device", "revoke", "pump", "--since", since]);
    let rotate = [
        "device",
        "rotate",
        "pump",
        "--grace",
        "90d",
        "--retire-on-use",
    ];
    broker.cli_ok(&[&rotate[..], &["--token", AFTER]].concat());
    let create = [
        "device",
        "create",
        "brief",
        "--token",
        BRIEF,
        "--expires",
        "3s",
    ];
    broker.cli_ok(&create);
    let create = [
        "admin-token",
        "create",
        "looks",
        "--scope",
        "read",
        "--json",
    ];
    let looks = broker.cli_json(&create)["token"].clone();
    broker.kill9();
    let data = broker.dir().join("data");
    cut_segments(&data);
    copy(&data, &folder(NAME).join("data"));
    copy_secrets(&broker, NAME);
    fs::write(folder(NAME).join(LOOKS), looks.as_str().unwrap()).unwrap();
}

#[test]
fn rel_10_terms_marks_and_admin_tokens_of_schema_9_are_there() {
    let mut broker = setup(NAME).start();
    assert_is_served(&broker);
    // The audit begins here: with what had ended by itself before.
    let told = broker.cli_ok(&["audit", "--json"]);
    let first: Value = serde_json::from_str(told.lines().next().expect("a record")).unwrap();
    assert_eq!(
        (&first["n"], &first["change"]),
        (&json!(1), &json!(1)),
        "{told}"
    );
    assert_eq!(
        (&first["event"], &first["name"]),
        (&json!("expired"), &json!("brief"))
    );
    // And again after this program has written to it.
    broker.restart();
    assert_is_served(&broker);
    broker.cli_ok(&["audit", "verify"]);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

fn assert_is_served(broker: &Broker) {
    let mut boiler = connect(broker, BOILER);
    assert_eq!(
        boiler.publish(1, TELEMETRY, br#"{"ts":2,"values":{"n":2}}"#),
        0
    );
    assert_eq!(boiler.subscribe("v1/devices/me/attributes", 1), 0x87);
    let told = broker.cli_ok(&["token", "check", BOILER]);
    for part in ["127.0.0.0/8", "2100", "50", "telemetry"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // What ended stays so, and why is known.
    for (token, why) in [(BEFORE, "revoked"), (BRIEF, "expired")] {
        let told = broker.cli_ok(&["token", "check", token]);
        assert!(told.contains(why), "{why} in {told}");
    }
    let _pump = connect(broker, AFTER);
    let values = |more: &[&str]| {
        let query = [&["query", "pump", "--json"], more].concat();
        broker.cli_json(&query)["points"].as_array().map(Vec::len)
    };
    assert_eq!(
        (values(&[]), values(&["--without-suspect"])),
        (Some(2), Some(1))
    );
    let looks = fs::read_to_string(folder(NAME).join(LOOKS)).unwrap();
    for (command, works) in [
        (&["device", "list"][..], true),
        (&["device", "create", "one-more"], false),
    ] {
        let mut command = broker.command(command);
        let output = command
            .env("TOLLGATE_ADMIN_TOKEN", &looks)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), works, "{output:?}");
    }
}
