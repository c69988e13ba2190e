//! MQTT Basic credentials: TB-02, table 1.2, and the codes of table 1.4.

use serde_json::Value;

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason},
};

/// What a client shows: client id, user name, password.
type Shown<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

fn connect<'a>(version: Version, (client_id, user_name, password): Shown<'a>) -> Connect<'a> {
    Connect {
        user_name,
        password: password.map(str::as_bytes),
        ..Connect::anonymous(version, client_id)
    }
}

fn code(broker: &Broker, version: Version, shown: Shown<'_>) -> u8 {
    let mut wire = broker.wire();
    wire.send(&connect(version, shown).encode());
    let connack = wire.packet();
    assert_eq!(connack[0], 0x20);
    connack[3]
}

/// The code of MQTT 5, and that the older versions say the same in their words.
fn refusal(broker: &Broker, shown: Shown<'_>) -> u8 {
    let expected = |v5: u8| match v5 {
        0 => 0,
        0x85 => 2,
        _ => 5,
    };
    let v5 = code(broker, Version::V5, shown);
    for old in [Version::V311, Version::V31] {
        let is_possible = !shown.0.is_empty() && (shown.2.is_none() || shown.1.is_some());
        if is_possible {
            assert_eq!(code(broker, old, shown), expected(v5), "{old:?}");
        }
    }
    v5
}

fn add(broker: &Broker, device: &str, arguments: &[&str]) -> Value {
    let all = [
        &["device", "credential", "add", device, "--json"],
        arguments,
    ]
    .concat();
    broker.cli_json(&all)["credential"].clone()
}

#[test]
fn tb_02_each_form_lets_in_whom_it_says_and_nobody_else() {
    // One device each, and the throttle of wrong passwords out of the way.
    let broker = Broker::start_with(&[("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "127.0.0.0/8")]);
    for device in ["by-id", "by-name", "by-password", "by-both", "by-all"] {
        broker.create_device(device);
    }
    let id = add(&broker, "by-id", &["--client-id", "only-this-client"]);
    assert_eq!(id["kind"], "mqtt_basic");
    assert_eq!(id["asks_for"], serde_json::json!(["client_id"]));
    add(&broker, "by-name", &["--user-name", "only-this-name"]);
    let pass = [
        "--user-name",
        "name-and-word",
        "--password",
        "right-password",
    ];
    let named = add(&broker, "by-password", &pass);
    assert_eq!(
        named["asks_for"],
        serde_json::json!(["user_name", "password"])
    );
    add(
        &broker,
        "by-both",
        &["--client-id", "client-1", "--user-name", "name-of-both"],
    );
    let all = [
        "--client-id",
        "client-2",
        "--user-name",
        "name-of-all",
        "--password",
        "all-password",
    ];
    add(&broker, "by-all", &all);

    let bad = 0x86;
    for (shown, expected) in [
        // Client id only: without a user name, whatever the password.
        (("only-this-client", None, None), 0),
        (("only-this-client", Some(""), None), 0),
        (("only-this-client", Some("x-other"), None), bad),
        (("only-this-clienT", None, None), 0x85),
        (("", None, None), 0x87),
        // User name only: any client id, any password.
        (("", Some("only-this-name"), None), 0),
        (("anything", Some("only-this-name"), Some("anything")), 0),
        (("anything", Some("Only-this-name"), None), bad),
        // User name and password.
        (("any", Some("name-and-word"), Some("right-password")), 0),
        (("any", Some("name-and-word"), Some("wrong-password")), bad),
        (("any", Some("name-and-word"), Some("")), bad),
        (("any", Some("name-and-word"), None), bad),
        (("any", Some("name-and-wor"), Some("right-password")), bad),
        // Both names: exactly these two, any password.
        (("client-1", Some("name-of-both"), None), 0),
        (("client-1", Some("name-of-both"), Some("anything")), 0),
        (("client-2", Some("name-of-both"), None), bad),
        (("client-1", Some("name-of-all"), Some("all-password")), bad),
        // All three.
        (("client-2", Some("name-of-all"), Some("all-password")), 0),
        (("client-2", Some("name-of-all"), Some("all-passwor")), bad),
        (("client-2", Some("name-of-all"), None), bad),
        (("client-3", Some("name-of-all"), Some("all-password")), bad),
    ] {
        assert_eq!(refusal(&broker, shown), expected, "{shown:?}");
    }
}

/// What both names find is decided there: the token of another device is no way around it.
#[test]
fn tb_02_a_wrong_password_does_not_fall_through_to_the_user_name() {
    let broker = Broker::start();
    broker.create_device_with_token("older", "a-shared-user-name");
    broker.create_device("newer");
    let both = [
        "--client-id",
        "c-7",
        "--user-name",
        "a-shared-user-name",
        "--password",
        "word-of-c7",
    ];
    add(&broker, "newer", &both);
    for (shown, expected) in [
        (("c-7", Some("a-shared-user-name"), Some("word-of-c7")), 0),
        (("c-7", Some("a-shared-user-name"), Some("wrong")), 0x86),
        (("c-8", Some("a-shared-user-name"), None), 0),
    ] {
        assert_eq!(code(&broker, Version::V5, shown), expected, "{shown:?}");
    }
    // A user name and an access token are one name.
    let taken = [
        "device",
        "credential",
        "add",
        "newer",
        "--user-name",
        "a-shared-user-name",
    ];
    let output = broker.cli(&taken);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(
        said.contains("in use already by device \"older\""),
        "{said}"
    );
}

#[test]
fn sec_35_the_end_of_one_credential_ends_its_connection_and_no_other() {
    let broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let token = broker.create_device("boiler");
    let pass = [
        "--user-name",
        "boiler-name",
        "--password",
        "boiler-password",
    ];
    let added = add(&broker, "boiler", &pass);
    // The same again is the same credential.
    assert_eq!(add(&broker, "boiler", &pass)["id"], added["id"]);
    let shown = ("by-name", Some("boiler-name"), Some("boiler-password"));
    for version in VERSIONS {
        let mut named = broker.wire();
        log_in(&mut named, &connect(version, shown));
        named.send(&publish(version, 1, 7, TELEMETRY, br#"{"named":1}"#));
        assert_eq!(reason(&named.packet()), 0);
    }
    let mut named = broker.wire();
    log_in(&mut named, &connect(Version::V5, shown));
    let mut by_token = broker.wire();
    log_in(
        &mut by_token,
        &Connect::with_token(Version::V5, "by-token", &token),
    );
    let number = added["id"].to_string();
    let arguments = ["device", "credential", "end", "boiler", &number, "--json"];
    let ended = broker.cli_json(&arguments);
    assert_eq!(ended["receipt"]["connections"], 1, "{ended}");
    let last = named.packet();
    assert_eq!((last[0], last[2]), (0xe0, 0x98), "{last:02x?}");
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
    by_token.send(&publish(Version::V5, 1, 1, TELEMETRY, br#"{"token":1}"#));
    assert_eq!(reason(&by_token.packet()), 0);
    assert_eq!(broker.values("boiler", "named").len(), 3);
    // Gone after a restart too, and the token goes on.
    let mut broker = broker;
    assert_eq!(broker.stop(), 0);
    broker.restart();
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
    assert_eq!(code(&broker, Version::V5, ("t", Some(&token), None)), 0);
}

#[test]
fn sec_51_basic_credentials_are_there_after_a_restart_and_only_as_digests() {
    let mut broker = Broker::start();
    broker.create_device("pump");
    let all = [
        "--client-id",
        "pump-client",
        "--user-name",
        "pump-user-name",
        "--password",
        "-",
    ];
    let arguments = [&["device", "credential", "add", "pump"][..], &all].concat();
    let mut command = broker.command(&arguments);
    let output = crate::common::tools::run_with_input(&mut command, b"pump-password-1\n");
    assert!(output.status.success(), "{output:?}");
    let shown = (
        "pump-client",
        Some("pump-user-name"),
        Some("pump-password-1"),
    );
    assert_eq!(code(&broker, Version::V5, shown), 0);
    assert_eq!(broker.stop(), 0);
    broker.restart();
    assert_eq!(code(&broker, Version::V5, shown), 0);
    assert_eq!(
        code(&broker, Version::V5, ("pump-client", shown.1, None)),
        0x86
    );
    // The search for secrets at the end of this broker looks for all three in its data.
    broker.revoke("pump");
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
}
