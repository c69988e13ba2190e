//! Journal format 1, schema version 6: the first with messages between clients and with users.
//!
//! Left behind by a kill, so that much of it stands in the journal only.

use std::fs;

use serde_json::json;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, Version},
};
use crate::fixture::{copy, copy_secrets, folder, setup};

const NAME: &str = "journal-1-schema-6";
const PUMP: &str = "fixture-token-of-the-pump";
const PANEL: &str = "fixture-token-of-the-panel";
const NARROW: &str = "fixture-token-of-the-narrow-one";

fn panel(id: &str, version: Version) -> Connect<'_> {
    Connect::with_token(version, id, PANEL)
}

/// The one who waits for messages, and left a will that never comes: its end was clean.
fn absent() -> Connect<'static> {
    panel("absent", Version::V5).kept_for(u32::MAX - 1)
}

/// The texts of what waits or is retained, in the order in which it comes.
fn texts(client: &mut Client, count: usize) -> Vec<(String, String)> {
    let mut came: Vec<(String, String)> = (0..count)
        .map(|_| client.take())
        .map(|message| (message.topic.clone(), message.text()))
        .collect();
    came.sort();
    came
}

fn pair(topic: &str, text: &str) -> (String, String) {
    (topic.to_owned(), text.to_owned())
}

/// How the fixture was made. Only ever run for a new format, under a new name.
#[test]
#[ignore = "makes the fixture if it is not there"]
fn make_the_fixture() {
    assert!(!folder(NAME).exists(), "a fixture never changes");
    let mut broker = Broker::start_with(&[("TOLLGATE_LIMITS_SESSION_EXPIRY_MAX_S", "4294967294")]);
    broker.create_device_with_token("pump", PUMP);
    let scope = ["--publish", "status/%d", "--subscribe", "orders/%d/#"];
    broker.cli_ok(&[&["device", "scope", "pump"][..], &scope].concat());
    for (name, token, filter) in [("panel", PANEL, "#"), ("narrow", NARROW, "only/#")] {
        let scope = ["--publish", filter, "--subscribe", filter];
        broker.cli_ok(&[&["app", "create", name, "--token", token][..], &scope].concat());
    }
    let renew = ["identity", "key", "renew", "primary", "--endpoint"];
    let link = broker.cli_ok(&[&renew[..], &[&broker.admin_url()]].concat());
    let create = ["identity", "user", "create", "--connection-string"];
    broker.cli_ok(&[&create[..], &[link.trim_end()]].concat());
    // Half of it is in the database, by the stop; the other half only in the journal.
    let mut sender = Client::connect(&broker, &panel("sender", Version::V311));
    let mut waits = Client::connect(&broker, &absent());
    assert_eq!(waits.subscribe("wait/#", 2), 2);
    waits.disconnect();
    sender.publish(1, "wait/1", b"before the stop");
    sender.retain(1, "kept/1", b"before the stop");
    sender.retain(1, "kept/2", b"replaced");
    assert_eq!(broker.stop(), 0);
    broker.restart();
    let mut sender = Client::connect(&broker, &panel("sender", Version::V5));
    sender.publish(2, "wait/2", b"after it");
    sender.retain(2, "kept/2", b"after it");
    sender.retain(1, "kept/3", b"cleared");
    sender.retain(1, "kept/3", b"");
    let will = Connect {
        will: Some((1, true, "last/words", b"of a killed one")),
        ..panel("mortal", Version::V5)
    };
    let _mortal = Client::connect(&broker, &will.kept().will_delay(1));
    broker.kill9();
    let data = broker.dir().join("data");
    for entry in fs::read_dir(data.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        // What a segment or the ballast is filled ahead with.
        let end = bytes.iter().rposition(|byte| *byte != 0);
        match end {
            Some(end) if path.extension().is_some_and(|ending| ending == "journal") => {
                bytes.truncate((end + 4096) & !4095);
                fs::write(&path, bytes).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
    }
    copy(&data, &folder(NAME).join("data"));
    copy_secrets(&broker, NAME);
}

#[test]
fn rel_10_sessions_messages_and_users_of_schema_6_are_there() {
    let mut broker = setup(NAME).start();
    assert_is_served(&broker);
    // And again after this program has written to it.
    broker.restart();
    let mut panel = Client::connect(&broker, &panel("again", Version::V5));
    panel.subscribe("kept/#", 2);
    let kept = [
        pair("kept/1", "before the stop"),
        pair("kept/2", "after it"),
    ];
    assert_eq!(texts(&mut panel, 2), kept);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

fn assert_is_served(broker: &Broker) {
    // What the absent one waits for, in order and with its QoS.
    let mut waits = Client::connect(broker, &absent());
    assert!(waits.is_present());
    assert_eq!(waits.take_texts(2), ["before the stop", "after it"]);
    // Retained messages; the will of the one that was killed with the broker.
    let mut reader = Client::connect(broker, &panel("reader", Version::V5));
    reader.subscribe("kept/#", 2);
    let kept = [
        pair("kept/1", "before the stop"),
        pair("kept/2", "after it"),
    ];
    assert_eq!(texts(&mut reader, 2), kept);
    reader.subscribe("last/#", 2);
    assert_eq!(reader.take().text(), "of a killed one");
    // Rights.
    let mut narrow = Client::connect(broker, &Connect::with_token(Version::V5, "n", NARROW));
    assert_eq!(narrow.subscribe("only/this", 1), 1);
    assert_eq!(narrow.subscribe("kept/#", 1), 0x87);
    let mut pump = Client::connect(broker, &Connect::with_token(Version::V5, "p", PUMP));
    assert_eq!(pump.subscribe("orders/+/a", 1), 0x8f);
    let id = broker.cli_json(&["device", "show", "pump", "--json"])["id"].clone();
    let own = format!("orders/{}/a", id.as_str().expect("an id"));
    assert_eq!(pump.subscribe(&own, 1), 1);
    let service = broker.cli_json(&["identity", "key", "list", "--json"]);
    assert_eq!(
        (&service["users"], &service["keys"][0]["name"]),
        (&json!(1), &json!("primary"))
    );
}
