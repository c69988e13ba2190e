//! The life of tokens: each deed has its record, whoever did it.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use super::records::{LIMIT, records, verify};
use crate::common::{
    broker::{Broker, Setup},
    client::Client,
    packets::{Connect, Version},
};

/// A step of a token's life: the command, its event, and what the record has to say beside.
struct Deed {
    command: &'static [&'static str],
    event: &'static str,
    says: &'static [&'static str],
}

const fn deed(
    command: &'static [&'static str],
    event: &'static str,
    says: &'static [&'static str],
) -> Deed {
    Deed {
        command,
        event,
        says,
    }
}

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const DEEDS: &[Deed] = &[
    deed(
        &[
            "device",
            "create",
            "d",
            "--publish",
            "a/%n",
            "--rate",
            "7",
            "--from",
            "10.0.0.0/8",
        ],
        "created",
        &[
            r#""publish":["a/%n"]"#,
            r#""messages_max":7"#,
            r#""networks":["10.0.0.0/8"]"#,
        ],
    ),
    deed(
        &[
            "device",
            "limit",
            "d",
            "--connections",
            "3",
            "--allow",
            "telemetry",
            "--from",
            "anywhere",
            "--bound-to",
            FINGERPRINT,
        ],
        "terms_changed",
        &[
            r#""connections_max":3"#,
            r#""bound_to":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff""#,
            r#""rights":"telemetry""#,
            r#""messages_max":7"#,
        ],
    ),
    deed(
        &["device", "rotate", "d", "--grace", "1h", "--retire-on-use"],
        "rotated",
        &[
            r#""older":["#,
            r#""older_until_ms":"#,
            r#""older_until_used":true"#,
            r#""rights":"telemetry""#,
        ],
    ),
    deed(
        &["device", "rollback", "d"],
        "rolled_back",
        &[r#""ended":["#, r#""live":["#],
    ),
    deed(
        &["device", "scope", "d", "--clear"],
        "scope_changed",
        &[r#""scope":"narrower""#],
    ),
    deed(
        &["device", "rotate", "d", "--grace", "0s", "--expires", "30d"],
        "rotated",
        &[r#""ended":["#, r#""expires_ms":"#],
    ),
    deed(
        &["device", "revoke", "d", "--since", "1h"],
        "revoked",
        &[
            r#""ended":["#,
            r#""suspect_from_ms":"#,
            r#""suspect_from_offset":"#,
        ],
    ),
    deed(
        &[
            "device",
            "credential",
            "add",
            "d",
            "--user-name",
            "fixed-name",
            "--password",
            "a-password-of-d",
            "--rate",
            "9",
        ],
        "credential_added",
        &[r#""asks":["user_name","password"]"#, r#""messages_max":9"#],
    ),
    deed(&["device", "delete", "d"], "deleted", &[]),
    deed(
        &["app", "create", "d", "--subscribe", "b/#"],
        "created",
        &[r#""subscribe":["b/#"]"#],
    ),
    deed(
        &["app", "limit", "d", "--expires", "1d"],
        "terms_changed",
        &[r#""expires_ms":"#],
    ),
    deed(
        &["app", "rotate", "d", "--grace", "1h"],
        "rotated",
        &[r#""older":["#],
    ),
    deed(&["app", "rollback", "d"], "rolled_back", &[r#""live":["#]),
    deed(&["app", "revoke", "d"], "revoked", &[r#""ended":["#]),
    deed(&["app", "delete", "d"], "deleted", &[]),
    deed(
        &[
            "admin-token",
            "create",
            "d",
            "--scope",
            "read",
            "--expires",
            "1d",
        ],
        "admin_token_created",
        &[r#""scope":"read""#, r#""expires_ms":"#],
    ),
    deed(
        &["admin-token", "revoke", "d"],
        "admin_token_revoked",
        &[r#""scope":"read""#],
    ),
];

/// The records of changes, as they stand.
fn changes(broker: &Broker) -> Vec<Value> {
    let mut all = records(broker);
    all.retain(|record| record["change"].is_u64());
    all
}

/// The first record that is as it should be; what happens by itself takes its time.
fn told_of(broker: &Broker, is_right: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let told = changes(broker);
        if let Some(found) = told.iter().find(|record| is_right(record)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{told:#?}");
    }
}

/// One command, one record, with the name of who asked: an admin token that may do just that.
#[test]
fn sec_56_each_deed_in_the_life_of_a_token_has_its_record() {
    let broker = Broker::start();
    let create = ["admin-token", "create", "ci", "--scope", "admin", "--json"];
    let ours = broker.cli_json(&create);
    let number = changes(&broker).last().expect("it is told")["admin_token"].clone();
    let by = format!("admin token {number} ci");
    let before = changes(&broker).len();
    for deed in DEEDS {
        let mut command = broker.command(deed.command);
        command.env(
            "TOLLGATE_ADMIN_TOKEN",
            ours["token"].as_str().expect("a token"),
        );
        let output = command.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {stderr}", deed.command);
    }
    let told = changes(&broker);
    let told = &told[before..];
    assert_eq!(told.len(), DEEDS.len(), "{told:#?}");
    for (deed, record) in DEEDS.iter().zip(told) {
        assert_eq!(record["event"], deed.event, "{:?}: {record}", deed.command);
        assert_eq!(record["name"], "d", "{record}");
        assert_eq!(record["by"], by.as_str(), "{record}");
        assert_eq!(record["from"], "127.0.0.1", "{record}");
        let text = record.to_string();
        for says in deed.says {
            assert!(text.contains(says), "{:?}: {says} in {text}", deed.command);
        }
    }
    let of = |at: usize, member: &str| told[at][member].clone();
    // Which is which: the rotation's new token is the one that the way back ended.
    assert_eq!(of(2, "older"), json!([of(0, "credential")]));
    assert_eq!(of(3, "ended"), json!([of(2, "credential")]));
    assert_eq!(of(3, "live"), of(2, "older"));
    assert_eq!(of(5, "ended"), of(3, "live"));
    assert_eq!(of(6, "ended"), json!([of(5, "credential")]));
    verify(&broker);
}

/// One credential of several: by its number, and as the one whose place another takes.
#[test]
fn sec_56_a_credential_that_ends_alone_is_told() {
    let broker = Broker::start();
    broker.create_device("d");
    let add = |password: &'static str| {
        let names = [
            "device",
            "credential",
            "add",
            "d",
            "--user-name",
            "fixed-name",
        ];
        broker.cli_ok(&[&names[..], &["--replace", "--password", password]].concat());
        changes(&broker).pop().expect("it is told")
    };
    let (first, second) = (add("a-password-of-d"), add("another-password-of-d"));
    assert_eq!(
        (&first["event"], &first["ended"]),
        (&"credential_added".into(), &Value::Null)
    );
    assert_eq!(second["ended"], json!([first["credential"]]));
    let number = second["credential"].to_string();
    broker.cli_ok(&["device", "credential", "remove", "d", &number]);
    let ended = changes(&broker).pop().expect("it is told");
    assert_eq!(
        (&ended["event"], &ended["name"]),
        (&"credential_ended".into(), &"d".into())
    );
    assert_eq!(ended["ended"], json!([second["credential"]]));
}

/// What is refused is no change, and told as a call alone.
#[test]
fn sec_75_what_a_token_has_no_right_to_is_told_with_its_name() {
    let broker = Broker::start();
    let create = [
        "admin-token",
        "create",
        "looks",
        "--scope",
        "read",
        "--json",
    ];
    let looks = broker.cli_json(&create);
    let before = changes(&broker);
    let number = before.last().expect("it is told")["admin_token"].clone();
    for command in [["device", "create", "d"], ["admin-token", "list", "--json"]] {
        let mut command = broker.command(&command);
        command.env(
            "TOLLGATE_ADMIN_TOKEN",
            looks["token"].as_str().expect("a token"),
        );
        assert!(!command.output().expect("it runs").status.success());
    }
    assert_eq!(changes(&broker), before);
    let by = format!("admin token {number} looks");
    let told = records(&broker);
    let mut ours = told.iter().filter(|record| record["by"] == by.as_str());
    let refused = ours
        .clone()
        .find(|record| record["event"] == "call_refused");
    let refused = refused.unwrap_or_else(|| panic!("{told:#?}"));
    assert_eq!(refused["endpoint"], "/admin/v1/admin-tokens");
    assert_eq!(refused["reason"], "scope_missing");
    let call = ours
        .find(|record| record["event"] == "call")
        .expect("a call");
    assert_eq!(call["status"], 403);
}

/// Tokens that end by themselves: with the first use of another, by time, and while the broker was
/// off.
#[test]
fn sec_56_what_ends_by_itself_is_told() {
    let mut broker = Broker::start();
    let first = broker.create_device("d");
    let rotate = [
        "device",
        "rotate",
        "d",
        "--grace",
        "1h",
        "--retire-on-use",
        "--json",
    ];
    let second = broker.cli_json(&rotate);
    let second = second["token"].as_str().expect("a token").to_owned();
    let _before = Client::connect(&broker, &Connect::with_token(Version::V5, "d", &first));
    let _after = Client::connect(&broker, &Connect::with_token(Version::V5, "d", &second));
    let replaced = told_of(&broker, |record| record["event"] == "replaced");
    let all = changes(&broker);
    let made = |event: &str| all.iter().find(|r| r["event"] == event && r["name"] == "d");
    let number = |event: &str| made(event).expect("it is told")["credential"].clone();
    assert_eq!(replaced["used"], number("rotated"));
    assert_eq!(replaced["ended"], json!([number("created")]));
    assert_eq!(
        (&replaced["by"], &replaced["from"]),
        (&"tollgate".into(), &Value::Null)
    );

    broker.cli_ok(&["device", "create", "soon", "--expires", "1s"]);
    let expired = told_of(&broker, |record| record["event"] == "expired");
    assert_eq!(expired["name"], "soon");
    broker.cli_ok(&["app", "create", "off", "--expires", "1s"]);
    // Ends are whole seconds.
    let at = now_ms() + 2_000;
    broker.kill9();
    while now_ms() <= at {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    broker.restart();
    told_of(&broker, |r| r["event"] == "expired" && r["name"] == "off");
    verify(&broker);
}

fn now_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(since.as_millis()).expect("a time")
}

/// The identity service: users, their tokens, the keys of back ends; who asked is an access key.
#[test]
fn sec_56_what_back_ends_do_is_told_with_their_key() {
    let broker = Setup::new().start();
    let renew = ["identity", "key", "renew", "primary", "--json"];
    let key = broker.cli_json(&renew)["access_key"].clone();
    let key = key.as_str().expect("a key");
    let by = format!("Endpoint={}/;AccessKey={key}", broker.admin_url());
    let run = |arguments: &[&str]| {
        let mut command = broker.command(arguments);
        command.env("AZURE_COMMUNICATION_CONNECTION_STRING", &by);
        let output = command.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    };
    let user = run(&["identity", "user", "create"]);
    let user = user.trim_end();
    let issued = run(&[
        "identity", "token", "issue", "--scope", "chat", "--user", user, "--json",
    ]);
    let issued: Value = serde_json::from_str(&issued).expect("JSON");
    run(&["identity", "token", "revoke", "--user", user]);
    broker.cli_ok(&["identity", "user", "revoke", "--user", user]);
    run(&["identity", "user", "delete", "--user", user]);
    broker.cli_ok(&renew);

    let told = changes(&broker);
    check_service(&told[1..], user); // behind the first device
    let token = issued["token"].as_str();
    let token = token.or(issued["accessToken"]["token"].as_str());
    let token = token.unwrap_or_else(|| panic!("{issued}"));
    for path in super::records::files(&broker, "") {
        let text = fs::read_to_string(path).expect("a file");
        assert!(!text.contains(token) && !text.contains(key));
    }
    verify(&broker);
}

fn check_service(of_service: &[Value], user: &str) {
    let events: Vec<_> = of_service
        .iter()
        .map(|r| r["event"].as_str().expect("text"))
        .collect();
    let expected = [
        "access_key_renewed",
        "created",
        "token_issued",
        "revoked",
        "revoked",
        "deleted",
        "access_key_renewed",
    ];
    assert_eq!(events, expected);
    let of_user = &of_service[1..6];
    for record in of_user {
        assert_eq!(
            (&record["kind"], &record["name"]),
            (&"user".into(), &user.into())
        );
    }
    let who: Vec<_> = of_user
        .iter()
        .map(|r| r["by"].as_str().expect("text"))
        .collect();
    assert_eq!(
        who,
        [
            "access key 1",
            "access key 1",
            "access key 1",
            "admin",
            "access key 1"
        ]
    );
    assert_eq!(of_user[1]["scopes"], "chat");
    assert_eq!(of_user[2]["ended"], json!([of_user[1]["credential"]]));
    assert_eq!(of_service[6]["key"], "primary");
}
