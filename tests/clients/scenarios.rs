//! The same scenarios from clients that we did not write, over TCP and over TLS.
//!
//! Each client has a program (or for command line clients a module) that plays a scenario and says
//! what it saw; what it must have seen stands here, once for all clients. `docs/clients.md` shows
//! [`CLIENTS`] to users and is checked against it.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, process::Command, thread};

use serde_json::{Value, json};

use crate::{
    common::{
        broker::Broker,
        tools::{clients_dir, printed, repository, run, tool},
    },
    scenarios_mosquitto, scenarios_paho_c,
};

/// A name, what is shown, and the versions of MQTT that have it.
const SCENARIOS: &[(&str, &str, &[&str])] = &[
    ("retained", "retained: kept, replaced, cleared", ALL),
    ("filters", "`+`, `#`, unsubscribing", ALL),
    ("will", "wills: connection lost, or closed well", ALL),
    (
        "shared",
        "`$share`: each message once, fairly; a member goes",
        ALL,
    ),
    (
        "session",
        "kept sessions: what came meanwhile; clean start",
        ALL,
    ),
    ("resend", "not acknowledged: again, with DUP", ALL),
    ("qos2", "QoS 2: once, in order", ALL),
    ("flow_out", "flow control: 300 messages at once", V5),
    ("flow_in", "Receive Maximum of the client", V5),
    ("alias_to", "topic aliases of the client", V5),
    ("alias_from", "topic aliases of the broker", V5),
    (
        "will_delay",
        "will delay: back in time, session ends, waited for",
        V5,
    ),
    ("request", "request and response, properties", V5),
    ("identifiers", "several subscription identifiers", V5),
    (
        "options",
        "No Local, Retain As Published, Retain Handling",
        V5,
    ),
];

const ALL: &[&str] = &["3.1", "3.1.1", "5"];
const V5: &[&str] = &["5"];

/// What every client must see.
fn expected(scenario: &str, version: &str) -> Value {
    let numbers: Vec<u32> = (0..10).collect();
    match scenario {
        "retained" => json!({
            "first": [["kept", true], ["live", false], ["", false]],
            "second": [["marker", false]],
        }),
        "filters" => json!({"got": ["a/x", "b", "b/c/d", "c/x"]}),
        "will" => json!({"got": ["gone", "marker"]}),
        "will_delay" => json!({"got": ["ended", "waited"], "waited": true}),
        "shared" => json!({"plain": true, "shared": true, "fair": true, "rest": true}),
        "session" => json!({
            "present": [false, version != "3.1", false], // CONNACK of 3.1 has no word for it
            "got": [["one", 1], ["two", 1], ["three", 2]],
            "anew": ["marker"],
        }),
        "resend" => json!({"got": [["again", false], ["again", true], ["next", false]]}),
        "qos2" => json!({"in order, once": true, "qos": [2]}),
        "flow_out" => json!({"all": true}),
        "flow_in" => json!({"beyond 3": 0, "got": numbers}),
        "alias_to" => json!({
            "got": [["a", "1"], ["b", "2"], ["a", "3"], ["b", "4"], ["c", "5"], ["c", "6"]],
        }),
        "alias_from" => json!({
            "got": [["a", "1"], ["b", "1"], ["c", "1"], ["a", "2"], ["b", "2"], ["c", "2"]],
            "aliases": [1, 2],
            "used": true,
        }),
        "request" => json!({
            "user": [["a", "1"], ["a", "2"]],
            "type": "text/plain",
            "format": 1,
            "expiry": true,
            "answer": "pong",
            "correlation": "c-1",
        }),
        "identifiers" => json!({"got": [["both", [1, 268_435_455]], ["one", [1]]]}),
        "options" => json!({"got": [["live", true], ["", true]]}),
        other => panic!("no scenario {other}"),
    }
}

/// A client.
struct Client {
    /// As users know it.
    name: &'static str,
    /// The file below `tests/clients` that fixes its version and the text there; None for what
    /// the system's packages have.
    pinned: Option<(&'static str, &'static str)>,
    versions: &'static [&'static str],
    player: Player,
    limits: &'static [Limit],
}

/// Who plays its scenarios.
enum Player {
    /// A program in a language with an interpreter, and its file.
    Script(&'static str, &'static str),
    /// Its command line programs, driven from here.
    Programs(fn(&Way, &str) -> Value),
}

/// What a client cannot do of a scenario, or does otherwise.
struct Limit {
    scenario: &'static str,
    why: &'static str,
    seen: Seen,
}

enum Seen {
    /// It is not played.
    Nothing,
    /// These fields are missing.
    Without(&'static [&'static str]),
    /// This JSON.
    Instead(&'static str),
}

const CLIENTS: &[Client] = &[
    Client {
        name: "paho-mqtt 2.1.0",
        pinned: Some(("requirements.txt", "paho-mqtt==2.1.0")),
        versions: ALL,
        player: Player::Script("python", "scenarios_paho.py"),
        limits: &[],
    },
    Client {
        name: "gmqtt 0.8.0",
        pinned: Some(("requirements.txt", "gmqtt==0.8.0")),
        versions: &["3.1.1", "5"],
        player: Player::Script("python", "scenarios_gmqtt.py"),
        limits: &[Limit {
            scenario: "alias_from",
            why: "gmqtt takes aliases, but does not show whether one was used",
            seen: Seen::Without(&["aliases", "used"]),
        }],
    },
    Client {
        name: "MQTT.js 5.16.0",
        pinned: Some(("package.json", "\"mqtt\": \"5.16.0\"")),
        versions: ALL,
        player: Player::Script("node", "scenarios_mqttjs.mjs"),
        limits: &[
            Limit {
                scenario: "flow_in",
                why: "MQTT.js reads the next message when the last one is acknowledged",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "flow_out",
                why: "MQTT.js does not heed the broker's Receive Maximum: with more than 100 \
                      publishes of QoS 1 and 2 under way it is disconnected with 0x93. Wait for \
                      some, or raise `mqtt.receive_maximum`",
                seen: Seen::Nothing,
            },
        ],
    },
    Client {
        name: "mosquitto_pub, _sub, _rr",
        pinned: None,
        versions: ALL,
        player: Player::Programs(scenarios_mosquitto::play),
        limits: &[
            Limit {
                scenario: "session",
                why: "mosquitto_sub does not show Session Present",
                seen: Seen::Without(&["present"]),
            },
            Limit {
                scenario: "resend",
                why: "mosquitto_sub acknowledges at once",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "flow_in",
                why: "mosquitto_sub acknowledges at once: with a Receive Maximum of 1, all come",
                seen: Seen::Without(&["beyond 3"]),
            },
            Limit {
                scenario: "alias_to",
                why: "mosquitto_pub has one topic and one alias",
                seen: Seen::Instead(r#"{"got": [["a", "1"], ["a", "2"], ["a", "3"]]}"#),
            },
            Limit {
                scenario: "alias_from",
                why: "mosquitto_sub takes no aliases",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "identifiers",
                why: "mosquitto_sub has one identifier for all its filters",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "options",
                why: "mosquitto_sub 2.0 has Retain As Published, and not the others",
                seen: Seen::Instead(r#"{"got": [["kept", true], ["live", true]]}"#),
            },
        ],
    },
    Client {
        name: "Paho C (paho_c_pub, _sub)",
        pinned: None,
        versions: ALL,
        player: Player::Programs(scenarios_paho_c::play),
        limits: &[
            Limit {
                scenario: "session",
                why: "paho_c_sub always begins with a clean session",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "resend",
                why: "paho_c_sub acknowledges at once",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "flow_out",
                why: "paho_c_pub publishes one message",
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "flow_in",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "alias_to",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "alias_from",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "will_delay",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "request",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "identifiers",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
            Limit {
                scenario: "options",
                why: NO_OPTION,
                seen: Seen::Nothing,
            },
        ],
    },
];

/// Why the example programs of Paho C do not play some.
const NO_OPTION: &str = "the example programs have no option for it";

#[test]
fn paho_mqtt_plays_every_scenario() {
    play_all("paho-mqtt");
}

#[test]
fn gmqtt_plays_every_scenario() {
    play_all("gmqtt");
}

#[test]
fn mqttjs_plays_every_scenario() {
    play_all("MQTT.js");
}

#[test]
fn paho_c_plays_every_scenario() {
    play_all("Paho C");
}

#[test]
fn mosquitto_plays_every_scenario() {
    play_all("mosquitto");
}

/// How a client reaches the broker, and below which topic it may do anything.
pub(crate) struct Way {
    pub(crate) port: u16,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) version: &'static str,
    pub(crate) token: String,
    /// Of its topics and client ids.
    pub(crate) prefix: String,
}

/// Every scenario with every version of a client, over TCP and TLS at the same time.
fn play_all(name: &str) {
    let client = CLIENTS.iter().find(|client| client.name.starts_with(name));
    let client = client.expect("it is in the table");
    let broker = Broker::start();
    let ways: Vec<Way> = client
        .versions
        .iter()
        .flat_map(|version| [(version, false), (version, true)])
        .map(|(version, tls)| way(&broker, version, tls))
        .collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let played: Vec<_> = ways
            .iter()
            .map(|way| scope.spawn(|| play_way(client, way)))
            .collect();
        let played = played.into_iter();
        played
            .flat_map(|one| one.join().expect("it says what is wrong"))
            .collect()
    });
    assert!(wrong.is_empty(), "{name}\n{}", wrong.join("\n"));
}

fn way(broker: &Broker, version: &'static str, tls: bool) -> Way {
    let prefix = format!("{}-{version}", if tls { "tls" } else { "tcp" });
    let filter = format!("{prefix}/#");
    let created = broker.cli_json(&[
        "app",
        "create",
        &prefix,
        "--json",
        "--publish",
        &filter,
        "--subscribe",
        &filter,
    ]);
    Way {
        port: if tls {
            broker.mqtts_port()
        } else {
            broker.mqtt_port()
        },
        ca_file: tls.then(|| broker.ca_file()),
        version,
        token: created["token"].as_str().expect("a token").to_owned(),
        prefix,
    }
}

/// What went wrong, one line for each scenario.
fn play_way(client: &Client, way: &Way) -> Vec<String> {
    let played: Vec<_> = SCENARIOS
        .iter()
        .map(|(name, ..)| *name)
        .filter(|name| is_played(client, name, way.version))
        .collect();
    let seen = match client.player {
        Player::Script(interpreter, file) => play_script(interpreter, file, way, &played),
        Player::Programs(play) => {
            let seen = played
                .iter()
                .map(|name| ((*name).to_owned(), play(way, name)));
            seen.collect()
        }
    };
    let mut wrong = Vec::new();
    for name in played {
        let expected = expected_of(client, name, way.version);
        let seen = seen.get(name).unwrap_or(&Value::Null);
        if *seen != expected {
            wrong.push(format!(
                "{} {name}: {seen} instead of {expected}",
                way.prefix
            ));
        }
    }
    wrong
}

fn play_script(
    interpreter: &str,
    file: &str,
    way: &Way,
    scenarios: &[&str],
) -> BTreeMap<String, Value> {
    let mut errand = json!({
        "port": way.port,
        "version": way.version,
        "token": way.token,
        "prefix": way.prefix,
        "scenarios": scenarios,
    });
    if let Some(ca_file) = &way.ca_file {
        errand["ca_file"] = json!(ca_file);
    }
    let mut command = Command::new(tool(interpreter));
    command
        .arg(clients_dir().join(file))
        .arg(errand.to_string());
    let (stdout, stderr) = printed(&run(&mut command));
    let lines = stdout.lines().map(|line| {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{stderr}"));
        let name = line["scenario"].as_str().expect("a name").to_owned();
        let seen = line.get("seen").unwrap_or(&line["error"]).clone();
        (name, seen)
    });
    lines.collect()
}

fn limit(client: &Client, scenario: &str) -> Option<&'static Limit> {
    client
        .limits
        .iter()
        .find(|limit| limit.scenario == scenario)
}

fn versions_of(scenario: &str) -> &'static [&'static str] {
    let found = SCENARIOS.iter().find(|(name, ..)| *name == scenario);
    found.expect("it is in the table").2
}

fn is_played(client: &Client, scenario: &str, version: &str) -> bool {
    let cannot = limit(client, scenario).is_some_and(|limit| matches!(limit.seen, Seen::Nothing));
    !cannot && client.versions.contains(&version) && versions_of(scenario).contains(&version)
}

fn expected_of(client: &Client, scenario: &str, version: &str) -> Value {
    let mut expected = expected(scenario, version);
    match limit(client, scenario).map(|limit| &limit.seen) {
        Some(Seen::Instead(other)) => serde_json::from_str(other).expect("JSON"),
        Some(Seen::Without(missing)) => {
            let fields = expected.as_object_mut().expect("an object");
            fields.retain(|name, _| !missing.contains(&name.as_str()));
            expected
        }
        Some(Seen::Nothing) | None => expected,
    }
}

/// `TOLLGATE_TEST_UPDATE=1` writes the page anew.
#[test]
fn the_page_shows_what_is_played() {
    const BEGIN: &str = "<!-- the table, made by tests/clients/scenarios.rs -->\n";
    let path = repository().join("docs/clients.md");
    let page = fs::read_to_string(&path).expect("docs/clients.md");
    let (before, shown) = page.split_once(BEGIN).expect("the mark before the table");
    let table = table();
    if std::env::var_os("TOLLGATE_TEST_UPDATE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}")).expect("it can be written");
        return;
    }
    assert_eq!(shown, table, "run it again with TOLLGATE_TEST_UPDATE=1");
}

#[test]
fn every_scenario_is_played_by_two_clients_and_versions_are_fixed() {
    for (scenario, ..) in SCENARIOS {
        let can = |client: &&Client| {
            let limit = limit(client, scenario);
            !limit.is_some_and(|limit| matches!(limit.seen, Seen::Nothing))
        };
        assert!(CLIENTS.iter().filter(can).count() >= 2, "{scenario}");
    }
    for client in CLIENTS {
        for limit in client.limits {
            versions_of(limit.scenario);
        }
        if let Some((file, text)) = client.pinned {
            let pins = fs::read_to_string(clients_dir().join(file)).expect("it is there");
            assert!(pins.contains(text), "{file} has no {text}");
        }
    }
}

/// The table of the page and its notes.
fn table() -> String {
    let mut notes: Vec<&str> = Vec::new();
    let mut table = String::from("| |");
    for client in CLIENTS {
        write!(table, " {} |", client.name).expect("memory");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(CLIENTS.len()));
    for (scenario, what, versions) in SCENARIOS {
        write!(table, "\n| {what} |").expect("memory");
        for client in CLIENTS {
            let both = versions.iter().filter(|one| client.versions.contains(one));
            let mut cell = both.copied().collect::<Vec<_>>().join(", ");
            if let Some(limit) = limit(client, scenario) {
                if !notes.contains(&limit.why) {
                    notes.push(limit.why);
                }
                let note = notes.iter().position(|why| *why == limit.why);
                if matches!(limit.seen, Seen::Nothing) {
                    cell = "-".to_owned();
                }
                write!(cell, " [{}]", note.expect("it is there") + 1).expect("memory");
            }
            write!(table, " {cell} |").expect("memory");
        }
    }
    table.push('\n');
    for (at, note) in notes.iter().enumerate() {
        write!(table, "\n{}. {note}.", at + 1).expect("memory");
    }
    table.push('\n');
    table
}
