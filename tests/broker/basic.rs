//! MQTT Basic credentials: TB-02, table 1.2, and the codes of table 1.4.

use std::{io::Write as _, process::Stdio};

use serde_json::Value;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason},
    secrets,
    wire::Wire,
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
        (("any-id", Some("only-this-name"), Some("any-password")), 0),
        (("any-id", Some("Only-this-name"), None), bad),
        // User name and password.
        (("any", Some("name-and-word"), Some("right-password")), 0),
        (("any", Some("name-and-word"), Some("wrong-password")), bad),
        (("any", Some("name-and-word"), Some("")), bad),
        (("any", Some("name-and-word"), None), bad),
        (("any", Some("name-and-wor"), Some("right-password")), bad),
        // Both names: exactly these two, any password.
        (("client-1", Some("name-of-both"), None), 0),
        (("client-1", Some("name-of-both"), Some("any-password")), 0),
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
        let payload = format!(r#"{{"ts":{},"values":{{"named":1}}}}"#, version as u8);
        named.send(&publish(version, 1, 7, TELEMETRY, payload.as_bytes()));
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
    let arguments = [
        "device",
        "credential",
        "remove",
        "boiler",
        &number,
        "--json",
    ];
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
    let pipe = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = pipe.spawn().expect("the program runs");
    secrets::used(b"pump-password-1");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"pump-password-1\n").expect("it reads");
    drop(input);
    assert!(child.wait().expect("it ends").success());
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

/// A device that is let in with its names and a password, and a client that came in so.
fn named(broker: &Broker, device: &str) -> (String, Client) {
    broker.create_device(device);
    let (name, password) = (format!("{device}-user"), format!("{device}-password"));
    add(
        broker,
        device,
        &["--user-name", &name, "--password", &password],
    );
    let shown = ("c", Some(name.as_str()), Some(password.as_str()));
    let client = Client::connect(broker, &connect(Version::V5, shown));
    (name, client)
}

fn password_of(device: &str) -> String {
    format!("{device}-password")
}

/// MQTT 5: administrative action.
const ENDED: u8 = 0x98;

/// MQTT 5: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;

/// Whatever ends a token ends MQTT Basic credentials as well, at once and also after a restart.
#[test]
fn sec_34_rotate_revoke_and_delete_end_those_who_came_in_with_a_password() {
    let mut broker = Broker::start();
    let verbs: [(&str, &[&str]); 4] = [
        ("revoke", &["device", "revoke"]),
        ("rotate", &["device", "rotate", "--grace", "0s"]),
        ("delete", &["device", "delete"]),
        ("several", &["device", "revoke", "other"]),
    ];
    broker.create_device("other");
    let mut names = Vec::new();
    for (device, verb) in verbs {
        let (name, mut client) = named(&broker, device);
        assert_eq!(client.publish(1, TELEMETRY, br#"{"a":1}"#), 0);
        broker.cli_ok(&[verb, &[device]].concat());
        client.expect_end(&[ENDED]);
        names.push((name, password_of(device)));
    }
    let expect_out = |broker: &Broker| {
        for (name, password) in &names {
            let shown = ("c", Some(name.as_str()), Some(password.as_str()));
            assert_eq!(code(broker, Version::V5, shown), 0x86, "{name}");
        }
    };
    expect_out(&broker);
    broker.kill9();
    broker.restart();
    expect_out(&broker);
}

/// The old ones live on for the grace time of a rotation, and end with its roll-forward.
#[test]
fn sec_53_a_rotation_takes_the_place_of_a_password_too() {
    let broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let (name, mut client) = named(&broker, "kiln");
    let rotate = ["device", "rotate", "kiln", "--retire-on-use", "--json"];
    let rotated = broker.cli_json(&rotate);
    let token = rotated["token"].as_str().expect("a token");
    let password = password_of("kiln");
    let shown = ("d", Some(name.as_str()), Some(password.as_str()));
    assert_eq!(code(&broker, Version::V5, shown), 0);
    assert_eq!(client.publish(1, TELEMETRY, br#"{"a":1}"#), 0);
    let by_token = Connect::with_token(Version::V5, "t", token);
    let _new = Client::connect(&broker, &by_token);
    client.expect_end(&[NOT_AUTHORIZED]);
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
}

#[test]
fn sec_40_a_password_has_an_end_networks_and_quotas_like_a_token() {
    let broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let (name, mut client) = named(&broker, "dryer");
    let password = password_of("dryer");
    let shown = ("d", Some(name.as_str()), Some(password.as_str()));
    let limit = |options: &[&str]| {
        broker.cli_ok(&[&["device", "limit", "dryer"], options].concat());
    };
    limit(&["--connections", "1"]);
    let quota_exceeded = 0x97;
    assert_eq!(code(&broker, Version::V5, shown), quota_exceeded);
    limit(&["--connections", "any", "--from", "127.0.0.2"]);
    client.expect_end(&[NOT_AUTHORIZED]);
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
    let mut wire = Wire::connect_from("127.0.0.2", broker.address("mqtt"));
    log_in(&mut wire, &connect(Version::V5, shown));
    limit(&["--from", "anywhere", "--expires", "2s"]);
    let last = wire.packet();
    assert_eq!((last[0], reason(&last)), (0xe0, NOT_AUTHORIZED));
    wire.expect_close();
    assert_eq!(code(&broker, Version::V5, shown), 0x86);
}

/// A new password ends those who came with the old one; their session waits for them.
#[test]
fn sec_53_a_new_password_replaces_the_old_one_and_sessions_stay() {
    let broker = Broker::start();
    broker.create_device("press");
    let with = |password| ["--user-name", "press-user", "--password", password];
    let old = add(&broker, "press", &with("first-password"));
    let shown = |password| ("c", Some("press-user"), Some(password));
    let kept = |password| connect(Version::V5, shown(password)).kept();
    let mut client = Client::connect(&broker, &kept("first-password"));
    let taken = [
        &["device", "credential", "add", "press"][..],
        &with("second-password"),
    ];
    let output = broker.cli(&taken.concat());
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let mut arguments = taken.concat();
    arguments.extend(["--replace", "--json"]);
    let replaced = broker.cli_json(&arguments);
    assert_eq!(replaced["receipt"]["connections"], 1, "{replaced}");
    assert_ne!(replaced["credential"]["id"], old["id"]);
    client.expect_end(&[ENDED]);
    assert_eq!(code(&broker, Version::V5, shown("first-password")), 0x86);
    let client = Client::connect(&broker, &kept("second-password"));
    assert!(client.is_present(), "the session stays");
    // What ended comes back with another password only.
    let id = replaced["credential"]["id"].to_string();
    broker.cli_ok(&["device", "credential", "remove", "press", &id]);
    let output = broker.cli(&taken.concat());
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    add(&broker, "press", &with("third-password"));
    assert_eq!(code(&broker, Version::V5, shown("second-password")), 0x86);
    assert_eq!(code(&broker, Version::V5, shown("third-password")), 0);
}

/// The last credential takes with it what is kept of the device, as a revocation does.
#[test]
fn sec_35_the_end_of_the_last_credential_ends_the_session() {
    let broker = Broker::start();
    let (name, client) = named(&broker, "oven");
    client.disconnect();
    let password = password_of("oven");
    let shown = ("c", Some(name.as_str()), Some(password.as_str()));
    drop(Client::connect(
        &broker,
        &connect(Version::V5, shown).kept(),
    ));
    let shown_credentials = broker.cli_json(&["device", "credential", "list", "oven", "--json"]);
    let all = shown_credentials.as_array().expect("a list");
    assert_eq!(all.len(), 2, "{shown_credentials}");
    let sessions: f64 = all
        .iter()
        .map(|held| {
            let id = held["id"].to_string();
            let arguments = ["device", "credential", "remove", "oven", &id, "--json"];
            let removed = broker.cli_json(&arguments);
            removed["receipt"]["sessions"].as_f64().expect("a number")
        })
        .sum();
    assert_eq!(sessions, 1.0);
    assert_eq!(broker.metric("tollgate_basic_credentials"), 0.0);
    // The device of the first start has one.
    assert_eq!(broker.metric("tollgate_tokens"), 1.0);
}

/// Names beside a password tell credentials apart; without one they are the secret.
#[test]
fn sec_51_names_are_shown_where_a_password_is_asked_for_too_and_nowhere_else() {
    let mut broker = Broker::start();
    broker.create_device("pump");
    let names = ["--client-id", "8C1F64-shown", "--user-name", "line-3-shown"];
    add(
        &broker,
        "pump",
        &[&names[..], &["--password", "words-of-pump"]].concat(),
    );
    let alone = ["--client-id", "hidden-client", "--user-name", "hidden-user"];
    add(&broker, "pump", &alone);
    let more = [
        "--user-name",
        "line-4-shown",
        "--password",
        "more-words-of-pump",
    ];
    let last = add(&broker, "pump", &more);
    assert_eq!(last["user_name"], "line-4-shown", "{last}");
    assert!(last["client_id"].is_null(), "{last}");
    for _ in 0..2 {
        let list = broker.cli_ok(&["device", "credential", "list", "pump"]);
        for part in [
            "(client id 8C1F64-shown, user name line-3-shown, password)",
            "(client id, user name)",
            "(user name line-4-shown, password)",
        ] {
            assert!(list.contains(part), "{part} is not in {list}");
        }
        assert!(
            !list.contains("hidden") && !list.contains("words"),
            "{list}"
        );
        broker.restart();
    }
    // What it opens, and that it does so only with a password.
    let told = broker.cli_ok(&["token", "check", "line-4-shown"]);
    let expected = "live, but opens no door as it is: it is a user name, and the password is \
                    needed too; it belongs to device pump (";
    assert!(told.starts_with(expected), "{told}");
}

/// Messages say what is in the way and name what was typed.
#[test]
fn what_cannot_be_done_with_credentials_is_said_in_words_that_help() {
    let broker = Broker::start();
    broker.create_device("pump");
    let fails = |arguments: &[&str]| {
        let output = broker.cli(arguments);
        assert_eq!(output.status.code(), Some(6), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for number in 1..8 {
        let name = format!("name-{number}");
        add(
            &broker,
            "pump",
            &["--user-name", &name, "--password", "words-of-pump"],
        );
    }
    let said = fails(&["device", "rotate", "pump"]);
    assert!(
        said.contains("--grace leaves too many") && said.contains("rotate with --grace 0s"),
        "{said}"
    );
    let said = fails(&[
        "device",
        "limit",
        "pump",
        "--expires",
        "2001-01-01T00:00:00Z",
    ]);
    assert!(said.contains("--expires is over already"), "{said}");
    broker.cli_ok(&["device", "rotate", "pump", "--grace", "0s"]);
    broker.revoke("pump");
    let said = fails(&["device", "limit", "pump", "--rate", "5"]);
    assert!(
        said.contains("has no live one, so there is nothing to limit; rotate it"),
        "{said}"
    );
    let said = fails(&["device", "show", "pomp"]);
    assert!(said.contains("`tollgate device list` names all"), "{said}");
    let said = fails(&["device", "credential", "remove", "pump", "99"]);
    assert!(said.contains("`tollgate device show`"), "{said}");
}
