//! Journal format 1, schema version 12: the last one whose tokens are bound to no certificates,
//! with an audit, MQTT Basic credentials, and a client's certificate.

use std::{fs, time::SystemTime};

use rcgen::{CertificateParams, KeyPair};

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, Version},
};
use crate::fixture::{copy, copy_secrets, cut_segments, folder, setup};

const NAME: &str = "journal-1-schema-12";
const BOILER: &str = "fixture-token-of-the-boiler";
const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// How the fixture was made, by a program of that schema (`TOLLGATE_TEST_PROGRAM`). Only ever run
/// for a new format, under a new name.
#[test]
#[ignore = "makes the fixture if it is not there"]
fn make_the_fixture() {
    assert!(!folder(NAME).exists(), "a fixture never changes");
    let mut broker = Broker::start();
    let create = ["device", "create", "boiler", "--token", BOILER];
    broker.cli_ok(&[&create[..], &["--rate", "50", "--from", "127.0.0.0/8"]].concat());
    let mut boiler = Client::connect(&broker, &Connect::with_token(Version::V5, "c", BOILER));
    let payload = br#"{"ts":1,"values":{"n":1}}"#;
    assert_eq!(boiler.publish(1, TELEMETRY, payload), 0);
    broker.create_device("pump");
    let add = ["device", "credential", "add", "pump"];
    let names = ["--user-name", "line-3", "--password", "words"];
    broker.cli_ok(&[&add[..], &names].concat());
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.not_after =
        (SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000)).into();
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let file = broker.dir().join("pump.pem");
    fs::write(&file, pem).expect("a file");
    let file = file.to_str().expect("temporary paths are UTF-8");
    broker.cli_ok(&[&add[..], &["--certificate", file]].concat());
    broker.kill9();
    let data = broker.dir().join("data");
    cut_segments(&data);
    copy(&data, &folder(NAME).join("data"));
    copy_secrets(&broker, NAME);
}

#[test]
fn rel_10_credentials_of_schema_12_are_there_and_tokens_can_be_bound() {
    let mut broker = setup(NAME).start();
    assert_is_served(&broker);
    broker.restart();
    assert_is_served(&broker);
    broker.cli_ok(&["device", "limit", "boiler", "--bound-to", FINGERPRINT]);
    broker.restart();
    let told = broker.cli_ok(&["token", "check", BOILER]);
    for part in ["127.0.0.0/8", "50", FINGERPRINT] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V5, "c", BOILER).encode());
    assert_eq!(wire.packet()[3], 0x86);
    broker.cli_ok(&["audit", "verify"]);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

fn assert_is_served(broker: &Broker) {
    let by_token = Connect::with_token(Version::V5, "c", BOILER);
    let mut boiler = Client::connect(broker, &by_token);
    let payload = br#"{"ts":2,"values":{"n":2}}"#;
    assert_eq!(boiler.publish(1, TELEMETRY, payload), 0);
    let by_name = Connect {
        password: Some(b"words"),
        ..Connect::with_token(Version::V5, "c", "line-3")
    };
    let _pump = Client::connect(broker, &by_name);
    let list = broker.cli_json(&["device", "credential", "list", "pump", "--json"]);
    let kinds: Vec<_> = (list.as_array().expect("a list").iter())
        .map(|held| held["kind"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["access_token", "mqtt_basic", "x509"], "{list}");
    let told = broker.cli_ok(&["audit"]);
    assert!(told.contains("credential_added"), "{told}");
}
