//! What clients do: told live, on TCP and TLS; alarms; the table of refused clients.

use std::time::Instant;

use serde_json::Value;

use super::records::{Followed, LIMIT, records, verify};
use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, VERSIONS, Version, log_in},
    wire::Wire,
};

fn connect(wire: &mut Wire, version: Version, client_id: &str, token: &str) {
    wire.send(&Connect::with_token(version, client_id, token).encode());
    wire.packet();
}

#[test]
fn sec_56_clients_are_told_live_on_tcp_and_tls() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    // The marker says that the follower is there: what comes behind it is not missed.
    let mut followed =
        Followed::start(broker.command(&["audit", "--follow", "--json", "--since", "1h"]));
    followed.until(|record| record["name"] == "boiler");
    for (version, client) in VERSIONS.into_iter().zip(["v31", "v311", "v5"]) {
        for over in ["tcp", "tls"] {
            let open = || {
                if over == "tls" {
                    broker.wire_tls()
                } else {
                    broker.wire()
                }
            };
            let mut first = open();
            log_in(&mut first, &Connect::with_token(version, client, &token));
            let told = followed.until(|r| r["event"] == "connected" && r["client_id"] == client);
            assert_eq!(
                (&told["over"], &told["kind"]),
                (&over.into(), &"device".into())
            );
            assert!(
                told["credential"].is_u64() && told["from"] == "127.0.0.1",
                "{told}"
            );
            let mut second = open();
            log_in(&mut second, &Connect::with_token(version, client, &token));
            let told = followed.until(|record| record["event"] == "taken_over");
            assert_eq!(
                (&told["client_id"], &told["before"]),
                (&client.into(), &"127.0.0.1".into())
            );
            connect(&mut open(), version, client, "unknown");
            let told = followed.until(|record| record["event"] == "refused");
            assert_eq!(
                (&told["reason"], &told["client_id"]),
                (&"bad_credential".into(), &client.into())
            );
        }
    }
    verify(&broker);
}

/// Behind one address, without a client id: whose token it was is told of each by itself.
#[test]
fn clients_without_an_id_are_not_taken_for_each_other() {
    let broker = Broker::start();
    let tokens = ["one", "two"].map(|name| broker.create_device(name));
    let mut followed =
        Followed::start(broker.command(&["audit", "--follow", "--json", "--since", "1h"]));
    for name in ["one", "two"] {
        broker.revoke(name);
    }
    let shown = [&tokens[0], &tokens[1], "nobody-has-this", &tokens[0]];
    for (token, name) in shown.into_iter().zip(["one", "two", "", "one"]) {
        connect(&mut broker.wire(), Version::V311, "", token);
        let told = followed.until(|record| record["event"] == "refused");
        assert_eq!(told["name"].as_str().unwrap_or(""), name, "{told}");
    }
    let list = broker.cli_json(&["refused", "--json"]);
    let rows = list["refused"].as_array().unwrap();
    let counts: Vec<_> = rows.iter().map(|row| row["count"].as_u64()).collect();
    assert_eq!(counts, [Some(1), Some(1), Some(2)], "{list}");
}

/// A device that does not connect: the table says why, and whose token it was.
#[test]
fn a_refused_client_is_listed_with_reason_and_whose_token_it_was() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    broker.revoke("boiler");
    for _ in 0..3 {
        connect(&mut broker.wire(), Version::V311, "sensor-7", &token);
    }
    connect(
        &mut broker.wire_tls(),
        Version::V5,
        "stranger",
        "nobody-has-this",
    );
    let list = broker.cli_json(&["refused", "--json"]);
    let rows = list["refused"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{list}");
    assert_eq!(
        (&rows[0]["client_id"], &rows[0]["count"]),
        (&"sensor-7".into(), &3.into())
    );
    assert_eq!(
        (&rows[0]["name"], &rows[0]["reason"]),
        (&"boiler".into(), &"bad_credential".into())
    );
    assert!(
        rows[0]["ended_ms"].is_u64() && rows[0]["credential"].is_u64(),
        "{list}"
    );
    assert_eq!(
        (&rows[1]["client_id"], &rows[1]["name"]),
        (&"stranger".into(), &Value::Null)
    );
    let shown = broker.cli_ok(&["refused"]);
    assert!(
        shown.contains("sensor-7") && shown.contains("of boiler, ended "),
        "{shown}"
    );
    let mut followed = Followed::start(broker.command(&["refused", "--follow", "--json"]));
    followed.until(|row| row["client_id"] == "stranger");
    connect(&mut broker.wire(), Version::V311, "late", "unknown");
    followed.until(|row| row["client_id"] == "late");
}

/// Clients that use their token as their client id: it is not told (SEC-55).
#[test]
fn sec_55_a_client_id_that_is_the_token_is_not_told() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    broker.create_device_with_token("chosen", "WfC9HrDTnV6hX1oOQ2sK");
    let unknown = "kQ8dJw2ZsT0yLb5vRmXe";
    let pairs = [
        (token.as_str(), token.as_str()),
        ("WfC9HrDTnV6hX1oOQ2sK", "x-WfC9HrDTnV6hX1oOQ2sK"),
        (unknown, unknown),
        ("other", &token),
    ];
    for (token, client_id) in pairs {
        connect(&mut broker.wire(), Version::V5, client_id, token);
        // The second takes the first one's session over, where there is one.
        connect(&mut broker.wire(), Version::V5, client_id, token);
    }
    let text = broker.cli_ok(&["audit", "--json"]) + &broker.cli_ok(&["refused", "--json"]);
    for secret in [&token, "WfC9HrDTnV6hX1oOQ2sK", unknown] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("(hidden: it holds a token)"), "{text}");
}

/// Two clients with one token, from two addresses, each coming back when it is cut off.
#[test]
fn an_alarm_tells_of_one_token_at_two_addresses() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    let url = format!("{}/admin/v1/events", broker.admin_url());
    let admin = std::fs::read_to_string(broker.dir().join("secrets/admin.token")).unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-sN",
        "-H",
        &format!("Authorization: Bearer {}", admin.trim()),
        &url,
    ]);
    let mut events = Followed::start(curl);
    // A refusal that comes shows that the stream is there.
    let deadline = Instant::now() + LIMIT;
    while !events.has_come(|event| event["client_id"] == "marker") {
        assert!(Instant::now() < deadline, "no event came");
        connect(&mut broker.wire(), Version::V311, "marker", "unknown");
    }
    let address = broker.address("mqtt");
    let mut held = Vec::new();
    for source in ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"] {
        let mut wire = Wire::connect_from(source, address);
        log_in(&mut wire, &Connect::with_token(Version::V311, "c", &token));
        held.push(wire);
    }
    let alarm = events.until(|event| event["event"] == "alarm");
    assert_eq!(alarm["alarm"], "token_two_addresses");
    assert_eq!(
        (&alarm["before"], &alarm["from"]),
        (&"127.0.0.1".into(), &"127.0.0.2".into())
    );
    broker.wait_metric("tollgate_alarms_total{alarm=\"token_two_addresses\"}", 1.0);
}

/// SEC-27: a source over its limit is an alarm, once.
#[test]
fn sec_27_a_throttled_source_is_an_alarm() {
    let broker = Setup::new()
        .set("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "")
        .set("TOLLGATE_LIMITS_FAILURES_PER_MINUTE_MAX", "3")
        .start();
    for _ in 0..6 {
        connect(&mut broker.wire(), Version::V5, "c", "unknown");
    }
    broker.wait_metric("tollgate_alarms_total{alarm=\"source_throttled\"}", 1.0);
    let records = records(&broker);
    let alarms: Vec<_> = records.iter().filter(|r| r["event"] == "alarm").collect();
    assert_eq!(alarms.len(), 1, "{records:#?}");
    assert_eq!(alarms[0]["from"], "127.0.0.1");
    let list = broker.cli_json(&["refused", "--json"]);
    let reasons: Vec<_> = list["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["reason"])
        .collect();
    assert_eq!(reasons, ["bad_credential", "throttled"]);
}

/// More than a hundred in a second are told in part, and counted in whole.
#[test]
fn sec_56_a_storm_of_connects_is_sampled_with_a_count() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    let wanted = 400;
    for _ in 0..wanted {
        log_in(
            &mut broker.wire(),
            &Connect::with_token(Version::V311, "c", &token),
        );
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let records = records(&broker);
        let told = records.iter().filter(|r| r["event"] == "connected").count() as u64;
        let left_out = records
            .iter()
            .filter(|r| r["event"] == "left_out" && r["of"] == "connected");
        let left_out: u64 = left_out
            .map(|record| record["count"].as_u64().unwrap())
            .sum();
        if told + left_out == wanted {
            println!("{told} told, {left_out} counted");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{told} told, {left_out} counted of {wanted}"
        );
    }
    verify(&broker);
}
