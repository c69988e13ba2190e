//! Rotation with overlap (SEC-53): both tokens for a while, then the new one alone; and the way
//! back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, Version, log_in},
    wire::{Wire, show},
};

const REFUSED: [u8; 2] = [5, 0x86];
const NOT_AUTHORIZED: u8 = 0x87;
const ADMINISTRATIVE: u8 = 0x98;

/// A limit for what hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Devices with several connections, so that both tokens can be seen at once.
fn broker() -> Broker {
    Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")])
}

fn wire(broker: &Broker, is_tls: bool) -> Wire {
    if is_tls {
        broker.wire_tls()
    } else {
        broker.wire()
    }
}

/// A kept session.
fn connect(broker: &Broker, is_tls: bool, id: &str, version: Version, token: &str) -> Client {
    let connect = Connect::with_token(version, id, token).kept_for(600);
    Client::over(wire(broker, is_tls), &connect)
}

fn expect_refused(broker: &Broker, is_tls: bool, version: Version, token: &str) {
    let mut wire = wire(broker, is_tls);
    wire.send(&Connect::with_token(version, "r", token).encode());
    let connack = wire.packet();
    assert!(REFUSED.contains(&connack[3]), "{}", show(&connack));
    wire.expect_close();
}

/// What ended by itself is on disk a moment before it opens no door.
fn until_refused(broker: &Broker, version: Version, token: &str) {
    let limit = Instant::now() + LIMIT;
    loop {
        let mut wire = wire(broker, false);
        wire.send(&Connect::with_token(version, "r", token).encode());
        if REFUSED.contains(&wire.packet()[3]) {
            return;
        }
        assert!(Instant::now() < limit, "it opens the door still");
    }
}

fn rotate(broker: &Broker, name: &str, options: &[&str]) -> (Value, String) {
    let arguments = [&["device", "rotate", name, "--json"][..], options].concat();
    let reply = broker.cli_json(&arguments);
    let token = reply["token"].as_str().expect("the new token").to_owned();
    (reply, token)
}

fn credentials(broker: &Broker, name: &str) -> Vec<Value> {
    let shown = broker.cli_json(&["device", "show", name, "--json"]);
    shown["credentials"].as_array().expect("a list").clone()
}

fn live(broker: &Broker, name: &str) -> usize {
    let credentials = credentials(broker, name);
    credentials
        .iter()
        .filter(|held| held["revoked_ms"].is_null())
        .count()
}

fn wait_until_live(broker: &Broker, name: &str, wanted: usize) {
    let limit = Instant::now() + LIMIT;
    while live(broker, name) != wanted {
        assert!(Instant::now() < limit, "{:?}", credentials(broker, name));
    }
}

#[test]
fn sec_53_s_20_both_tokens_work_for_the_grace_time_then_the_old_connection_is_cut_off() {
    let broker = broker();
    for (version, is_tls) in [
        (Version::V311, false),
        (Version::V311, true),
        (Version::V5, false),
        (Version::V5, true),
    ] {
        let name = format!("{version:?}-{is_tls}");
        let old = broker.create_device(&name);
        let mut with_old = connect(&broker, is_tls, "a", version, &old);
        let (reply, new) = rotate(&broker, &name, &["--grace", "1h"]);
        assert_eq!(reply["receipt"]["connections"], 0, "{reply}");
        assert_eq!(with_old.publish(1, TELEMETRY, br#"{"old":1}"#), 0);
        let mut with_new = connect(&broker, is_tls, "b", version, &new);
        assert_eq!(with_new.publish(1, TELEMETRY, br#"{"new":1}"#), 0);
        // S-20: and the old one lets in too.
        drop(connect(&broker, is_tls, "c", version, &old));
        let keys: Vec<_> = broker
            .points(&name)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys.len(), 2, "{keys:?}");

        // A short one, in which the old one need do nothing: it may be over before the command has
        // returned.
        let name = format!("{name}-short");
        let old = broker.create_device(&name);
        let mut with_old = connect(&broker, is_tls, "a", version, &old);
        let filter = "v1/devices/me/attributes";
        assert_eq!(with_old.subscribe(filter, 1), 1);
        let before = Instant::now();
        let (_, new) = rotate(&broker, &name, &["--grace", "3s"]);
        let mut with_new = connect(&broker, is_tls, "b", version, &new);
        with_old.expect_end(&[NOT_AUTHORIZED]);
        assert!(before.elapsed() > Duration::from_secs(2), "before its time");
        expect_refused(&broker, is_tls, version, &old);
        with_new.wire.expect_alive();
        // The session that the old one had goes on with the new one.
        let resumed = connect(&broker, is_tls, "a", version, &new);
        assert!(resumed.is_present(), "{}", show(&resumed.connack));
        wait_until_live(&broker, &name, 1);
    }
}

#[test]
fn sec_53_the_first_use_of_the_new_token_can_end_the_old_one() {
    let broker = broker();
    for is_tls in [false, true] {
        let name = format!("d-{is_tls}");
        let old = broker.create_device(&name);
        let mut with_old = connect(&broker, is_tls, "a", Version::V5, &old);
        let (reply, new) = rotate(&broker, &name, &["--grace", "1h", "--retire-on-use"]);
        let shown = &reply["device"]["credentials"];
        assert_eq!(shown[1]["retires_older"], true, "{reply}");
        assert_eq!(shown[0]["superseded_by"], shown[1]["id"], "{reply}");
        with_old.wire.expect_alive();
        drop(connect(&broker, is_tls, "b", Version::V5, &old));
        assert_eq!(live(&broker, &name), 2, "the old one's use ends nothing");
        let mut with_new = connect(&broker, is_tls, "c", Version::V5, &new);
        with_old.expect_end(&[NOT_AUTHORIZED]);
        expect_refused(&broker, is_tls, Version::V5, &old);
        with_new.wire.expect_alive();
        assert!(connect(&broker, is_tls, "a", Version::V5, &new).is_present());
        wait_until_live(&broker, &name, 1);
        let explained = broker.cli_ok(&["token", "check", &old]);
        assert!(explained.starts_with("revoked"), "{explained}");
    }
}

#[test]
fn sec_53_a_rotation_can_be_taken_back_while_the_old_token_lives() {
    let broker = broker();
    let make = [
        "device",
        "create",
        "d",
        "--token",
        "old",
        "--expires",
        "1h",
        "--json",
    ];
    let before = broker.cli_json(&make)["device"]["credentials"][0].clone();
    for is_tls in [false, true] {
        let mut with_old = connect(&broker, is_tls, "a", Version::V5, "old");
        let (_, new) = rotate(&broker, "d", &["--grace", "10m", "--retire-on-use"]);
        let short = credentials(&broker, "d")[0]["expires_ms"].as_u64();
        assert!(short < before["expires_ms"].as_u64(), "{short:?}");
        let (_, newer) = rotate(&broker, "d", &["--grace", "10m"]);
        let mut with_newer = connect(&broker, is_tls, "b", Version::V5, &newer);
        broker.cli_ok(&["device", "rollback", "d"]);
        with_newer.expect_end(&[ADMINISTRATIVE]);
        expect_refused(&broker, is_tls, Version::V5, &newer);
        assert_eq!(live(&broker, "d"), 2, "one step back");
        broker.cli_ok(&["device", "rollback", "d"]);
        expect_refused(&broker, is_tls, Version::V5, &new);
        with_old.wire.expect_alive();
        assert_eq!(credentials(&broker, "d")[0], before, "as it was");
    }
    let output = broker.cli(&["device", "rollback", "d"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nothing to go back to"), "{said}");
}

/// The old token ends in time, whatever happens to the broker.
#[test]
fn sec_53_the_grace_time_ends_through_kills_and_while_the_broker_is_off() {
    let mut broker = broker();
    let old = broker.create_device("killed");
    let (_, new) = rotate(&broker, "killed", &["--grace", "2s"]);
    broker.kill9();
    broker.restart();
    wait_until_live(&broker, "killed", 1);
    expect_refused(&broker, false, Version::V5, &old);
    drop(connect(&broker, false, "a", Version::V5, &new));

    let old = broker.create_device("off");
    let (reply, new) = rotate(&broker, "off", &["--grace", "1s"]);
    broker.stop();
    let end = reply["device"]["credentials"][0]["expires_ms"]
        .as_u64()
        .expect("an end");
    let now_ms = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_millis()
    };
    while now_ms() <= u128::from(end) {
        std::thread::sleep(Duration::from_millis(10));
    }
    broker.restart();
    assert_eq!(
        live(&broker, "off"),
        1,
        "written down before the first client"
    );
    expect_refused(&broker, true, Version::V311, &old);
    drop(connect(&broker, true, "a", Version::V311, &new));

    // Killed right behind the first use: it is noted with the next one at the latest.
    let old = broker.create_device("used");
    let (_, new) = rotate(&broker, "used", &["--retire-on-use"]);
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "a", &new),
    );
    broker.kill9();
    broker.restart();
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "a", &new),
    );
    wait_until_live(&broker, "used", 1);
    until_refused(&broker, Version::V5, &old);
}

#[test]
fn sec_53_what_cannot_be_rotated_is_told_and_changes_nothing() {
    let broker = broker();
    let old = broker.create_device("d");
    let (_, other) = ("other", broker.create_device("other"));
    for (options, what) in [
        (&["--grace", "91d"][..], "the longest is 7776000 (90 days)"),
        (
            &["--grace", "soon"],
            "allowed is a number with ms, s, m, h, d or w",
        ),
        (
            &["--token", &other],
            "is in use already by device \"other\"",
        ),
        (&["--token", &old], "is in use already by device \"d\""),
        (&["--expires", "2020-01-01T00:00:00Z"], "is over already"),
    ] {
        let output = broker.cli(&[&["device", "rotate", "d"][..], options].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(what),
            "{options:?}: {said}"
        );
    }
    assert_eq!(live(&broker, "d"), 1);
    // No more than eight side by side; a rotation that ends the others at once is always possible.
    for _ in 0..7 {
        rotate(&broker, "d", &["--grace", "1h"]);
    }
    let output = broker.cli(&["device", "rotate", "d"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has 8, which is the limit"), "{said}");
    rotate(&broker, "d", &["--grace", "0s", "--token", "chosen"]);
    assert_eq!(live(&broker, "d"), 1);
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "a", "chosen"),
    );
    expect_refused(&broker, false, Version::V5, &old);
}

/// A revocation in the middle of an overlap ends both.
#[test]
fn sec_34_a_revocation_ends_old_and_new() {
    let broker = broker();
    let old = broker.create_device("d");
    let (_, new) = rotate(&broker, "d", &[]);
    let mut both = [("a", &old), ("b", &new)]
        .map(|(id, token)| connect(&broker, false, id, Version::V5, token));
    let receipt = broker.revoke("d");
    assert_eq!(receipt["receipt"]["connections"], 2, "{receipt}");
    for (client, token) in both.iter_mut().zip([&old, &new]) {
        client.expect_end(&[ADMINISTRATIVE]);
        expect_refused(&broker, true, Version::V5, token);
    }
}

/// Who still uses the old token, since when, from where.
#[test]
fn sec_53_token_usage_tells_who_still_uses_the_old_token() {
    let broker = broker();
    let usage = |options: &[&str]| {
        let arguments = [&["token", "usage", "--json"][..], options].concat();
        let reply = broker.cli_json(&arguments);
        reply["tokens"].as_array().expect("a list").clone()
    };
    let plain = broker.cli_ok(&["token", "usage"]);
    assert_eq!(plain, "no old token is live\n");
    let old = broker.create_device("used");
    let quiet = broker.create_device("quiet");
    let address = broker.address("mqtt");
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let connect_from = |source: &str, id: &str, token: &str| {
        let connect = Connect::with_token(Version::V5, id, token);
        Client::over(Wire::connect_from(source, address), &connect)
    };
    let with_old = connect_from("127.0.0.2", "a", &old);
    let (_, new) = rotate(&broker, "used", &["--grace", "1h"]);
    rotate(&broker, "quiet", &["--grace", "1h"]);
    let _with_new = connect_from("127.0.0.3", "b", &new);
    let all = usage(&[]);
    assert_eq!(all.len(), 2, "{all:?}");
    let [used] = &usage(&["used"])[..] else {
        panic!("one device: {all:?}");
    };
    assert_eq!(used["name"], "used");
    assert_eq!(
        used["superseded_by"].as_u64(),
        used["credential"].as_u64().map(|id| id + 2)
    );
    assert_eq!(used["connections_new"], 1, "{used}");
    let connection = &used["connections"][0];
    assert_eq!(
        (&connection["client_id"], &connection["from"]),
        (&"a".into(), &"127.0.0.2".into())
    );
    let since = connection["since_ms"].as_u64().expect("a time");
    assert!(u128::from(since) >= before.as_millis(), "{used}");
    assert!(
        used["last_used_ms"].is_null(),
        "it came before the rotation: {used}"
    );
    let shown = broker.cli_ok(&["token", "usage"]);
    assert!(shown.contains("from 127.0.0.2"), "{shown}");
    // Gone again, it is told when and from where it was last.
    drop(connect_from("127.0.0.4", "q", &quiet));
    with_old.disconnect();
    let limit = Instant::now() + LIMIT;
    loop {
        let all = usage(&[]);
        let last = all
            .iter()
            .find(|held| held["name"] == "quiet")
            .expect("it is there");
        assert_eq!(last["last_used_from"], "127.0.0.4", "{last}");
        if last["connections"] == Value::Array(Vec::new()) {
            break;
        }
        assert!(Instant::now() < limit, "{last}");
    }
    broker.cli_ok(&["device", "rollback", "used"]);
    broker.cli_ok(&["device", "rotate", "quiet", "--grace", "0s"]);
    assert_eq!(usage(&[]), [Value::Null; 0]);
    assert!(!broker.cli(&["token", "usage", "nobody"]).status.success());
}
