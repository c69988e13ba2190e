//! Terms of tokens (SEC-54): in their time, from their networks, with their rights; and their end
//! in the live session (SEC-40).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason},
    wire::{Wire, client_config, show, socket_from},
};

/// TB-04: what is wrong with a token is not told.
const REFUSED: [u8; 2] = [5, 0x86];

/// MQTT 5: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;

/// TCP and TLS.
const WAYS: [bool; 2] = [false, true];

fn wire(broker: &Broker, is_tls: bool) -> Wire {
    if is_tls {
        broker.wire_tls()
    } else {
        broker.wire()
    }
}

fn wire_from(broker: &Broker, is_tls: bool, source: &str) -> Wire {
    if !is_tls {
        return Wire::connect_from(source, broker.address("mqtt"));
    }
    let socket = socket_from(source, broker.address("mqtts"));
    Wire::over_tls(client_config(&broker.ca_file()), "localhost", socket)
}

fn connect(broker: &Broker, is_tls: bool, version: Version, token: &str) -> Client {
    Client::over(
        wire(broker, is_tls),
        &Connect::with_token(version, "c", token),
    )
}

fn expect_refused(mut wire: Wire, version: Version, token: &str) {
    wire.send(&Connect::with_token(version, "c", token).encode());
    let connack = wire.packet();
    assert!(REFUSED.contains(&connack[3]), "{}", show(&connack));
    wire.expect_close();
}

/// A device with these options, and its token.
fn device(broker: &Broker, name: &str, options: &[&str]) -> String {
    let arguments = [&["device", "create", name, "--json"][..], options].concat();
    token_of(&broker.cli_json(&arguments))
}

fn token_of(reply: &Value) -> String {
    reply["token"].as_str().expect("a token").to_owned()
}

/// Sees what is published under `site/`.
fn watcher(broker: &Broker) -> Client {
    let arguments = [
        "app",
        "create",
        "watcher",
        "--publish",
        "site/#",
        "--subscribe",
        "site/#",
    ];
    let token = token_of(&broker.cli_json(&[&arguments[..], &["--json"]].concat()));
    let mut watcher = Client::connect(broker, &Connect::with_token(Version::V5, "w", &token));
    assert_eq!(watcher.subscribe("site/#", 1), 1);
    watcher
}

#[test]
fn sec_40_a_live_session_ends_with_its_token_without_its_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    for (number, (version, is_tls)) in VERSIONS
        .into_iter()
        .flat_map(|version| WAYS.map(|is_tls| (version, is_tls)))
        .enumerate()
    {
        let name = format!("d{number}");
        let token = device(&broker, &name, &["--publish", "site/#"]);
        let connect = Connect {
            will: Some((0, false, "site/will", b"will")),
            ..Connect::with_token(version, "c", &token)
        };
        let mut client = Client::over(wire(&broker, is_tls), &connect);
        let began = Instant::now();
        broker.cli_ok(&["device", "limit", &name, "--expires", "2s"]);
        client.expect_end(&[NOT_AUTHORIZED]);
        assert!(began.elapsed() > Duration::from_secs(1), "too early");
        expect_refused(wire(&broker, is_tls), version, &token);
        watcher.expect_only_own_marker(1, "site/marker");
    }
    let shown = broker.cli_json(&["device", "show", "d0", "--json"]);
    let credential = &shown["credentials"][0];
    assert_eq!(
        credential["revoked_ms"], credential["expires_ms"],
        "{shown}"
    );
    assert!(broker.metric("tollgate_connections_expired_total") >= 1.0);
}

#[test]
fn sec_40_a_token_may_have_its_end_from_the_start() {
    let broker = Broker::start();
    let mut life_s = 2;
    // On a busy machine it may be over before CONNECT is read: then one that lives longer.
    let (token, mut client) = loop {
        let name = format!("d{life_s}");
        let token = device(&broker, &name, &["--expires", &format!("{life_s}s")]);
        let mut wire = broker.wire();
        wire.send(&Connect::with_token(Version::V5, "c", &token).encode());
        if wire.packet()[3] == 0 {
            break (token, wire);
        }
        life_s *= 2;
        assert!(life_s < 100, "never let in");
    };
    let goodbye = client.packet();
    assert_eq!((goodbye[0], reason(&goodbye)), (0xe0, NOT_AUTHORIZED));
    client.expect_close();
    expect_refused(broker.wire(), Version::V5, &token);
}

/// A new end reaches those who are connected: earlier (above), later, and none at all.
#[test]
fn sec_40_an_end_that_is_put_off_or_taken_away_does_not_cut() {
    let broker = Broker::start();
    for is_tls in WAYS {
        let names = ["short", "later", "never"].map(|name| format!("{name}-{is_tls}"));
        let tokens = names.each_ref().map(|name| device(&broker, name, &[]));
        let mut clients = tokens
            .each_ref()
            .map(|token| connect(&broker, is_tls, Version::V5, token));
        for name in &names {
            broker.cli_ok(&["device", "limit", name, "--expires", "20s"]);
        }
        broker.cli_ok(&["device", "limit", &names[1], "--expires", "1h"]);
        broker.cli_ok(&["device", "limit", &names[2], "--expires", "never"]);
        broker.cli_ok(&["device", "limit", &names[0], "--expires", "1s"]);
        let [short, later, never] = &mut clients;
        short.expect_end(&[NOT_AUTHORIZED]);
        later.wire.expect_alive();
        never.wire.expect_alive();
    }
}

#[test]
fn sec_54_a_token_is_bound_to_its_networks() {
    let broker = Broker::start();
    for (version, is_tls) in [(Version::V311, false), (Version::V5, true)] {
        let name = format!("d-{is_tls}");
        let token = device(&broker, &name, &["--from", "127.0.0.2", "2001:db8::/32"]);
        expect_refused(wire(&broker, is_tls), version, &token);
        let connect = Connect::with_token(version, "c", &token);
        let mut inside = Client::over(wire_from(&broker, is_tls, "127.0.0.2"), &connect);
        // Those who are connected stay only as far as they are inside of new ones.
        broker.cli_ok(&["device", "limit", &name, "--from", "127.0.0.2/31"]);
        inside.wire.expect_alive();
        broker.cli_ok(&["device", "limit", &name, "--from", "127.0.0.3"]);
        inside.expect_end(&[NOT_AUTHORIZED]);
        expect_refused(wire_from(&broker, is_tls, "127.0.0.2"), version, &token);
        broker.cli_ok(&["device", "limit", &name, "--from", "anywhere"]);
        log_in(&mut wire(&broker, is_tls), &connect);
    }
    let refused = broker.metric("tollgate_connects_refused_total{reason=\"token_network\"}");
    assert!(refused >= 4.0, "{refused}");
}

/// A token that lives on for its grace time is one of the device's too.
#[test]
fn sec_54_new_networks_bind_the_old_token_in_its_grace_time_too() {
    let broker = Broker::start();
    let old = device(&broker, "d", &[]);
    broker.cli_ok(&["device", "rotate", "d", "--grace", "1h"]);
    let ends = |broker: &Broker| {
        let shown = broker.cli_json(&["device", "show", "d", "--json"]);
        let credentials = shown["credentials"].as_array().expect("a list").clone();
        credentials[0]["expires_ms"].as_u64()
    };
    let end = ends(&broker);
    assert!(end.is_some());
    broker.cli_ok(&[
        "device",
        "limit",
        "d",
        "--from",
        "10.0.0.0/8",
        "--expires",
        "90d",
    ]);
    expect_refused(broker.wire(), Version::V5, &old);
    assert_eq!(ends(&broker), end, "it lives no longer");
}

#[test]
fn sec_54_a_token_is_good_from_its_beginning_on() {
    let broker = Broker::start();
    for (version, is_tls) in [(Version::V311, true), (Version::V5, false)] {
        let name = format!("d-{is_tls}");
        let token = device(&broker, &name, &["--not-before", "1h"]);
        expect_refused(wire(&broker, is_tls), version, &token);
        let explained = broker.cli_ok(&["token", "check", &token]);
        assert!(
            explained.contains("opens no door as it is: its time has not begun"),
            "{explained}"
        );
        broker.cli_ok(&["device", "limit", &name, "--not-before", "now"]);
        let mut client = connect(&broker, is_tls, version, &token);
        broker.cli_ok(&["device", "limit", &name, "--not-before", "1h"]);
        client.expect_end(&[NOT_AUTHORIZED]);
    }
    let refused = broker.metric("tollgate_connects_refused_total{reason=\"token_not_yet\"}");
    assert!(refused >= 2.0, "{refused}");
}

#[test]
fn sec_54_telemetry_and_filters_need_their_right() {
    let broker = Broker::start();
    for version in VERSIONS {
        for is_tls in WAYS {
            let name = format!("{version:?}-{is_tls}");
            let options = ["--allow", "rpc", "--publish", "site/%n"];
            let token = device(&broker, &name, &options);
            let mut client = connect(&broker, is_tls, version, &token);
            let expected = if version == Version::V5 {
                NOT_AUTHORIZED
            } else {
                0
            };
            for qos in [0, 1, 2] {
                let code = client.publish(qos, TELEMETRY, br#"{"forbidden":1}"#);
                assert_eq!(code, if qos == 0 { 0 } else { expected }, "QoS {qos}");
            }
            let site = format!("site/{name}");
            assert!(client.publish(1, &site, b"x") < 0x80, "its scope goes on");
            let refused = if version == Version::V31 {
                None
            } else {
                Some(0x80)
            };
            let granted = client.subscribe("v1/devices/me/rpc/request/+", 1);
            let denied = client.subscribe("v1/devices/me/attributes", 1);
            assert_eq!(granted, 1);
            if let Some(refused) = refused {
                assert!(denied >= refused, "{denied:02x}");
            }
            // Nothing of it is stored; with the right it is.
            broker.cli_ok(&["device", "limit", &name, "--allow", "telemetry", "rpc"]);
            let mut client = connect(&broker, is_tls, version, &token);
            assert_eq!(client.publish(1, TELEMETRY, br#"{"allowed":1}"#), 0);
            let keys: Vec<_> = broker
                .points(&name)
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            assert_eq!(keys, ["allowed"]);
            // And without it nothing more is taken on the connection that was there.
            broker.cli_ok(&["device", "limit", &name, "--allow", "rpc"]);
            client
                .wire
                .send(&publish(version, 1, 9, TELEMETRY, br#"{"late":1}"#));
            let mut client = connect(&broker, is_tls, version, &token);
            client.wire.expect_alive();
            assert_eq!(broker.points(&name).len(), 1);
        }
    }
}

/// Durable before the reply: killed right behind it, the terms hold.
#[test]
fn sec_54_terms_survive_a_kill_behind_the_reply() {
    let mut broker = Broker::start();
    let names: Vec<String> = (0..5).map(|number| format!("d{number}")).collect();
    for (name, options) in names.iter().zip([
        ["--from", "10.0.0.0/8"],
        ["--not-before", "1h"],
        ["--expires", "1s"],
        ["--allow", "none"],
        ["--expires", "1h"],
    ]) {
        let token = device(&broker, name, &[]);
        let connect = Connect::with_token(Version::V5, "c", &token);
        log_in(&mut broker.wire(), &connect);
        broker.cli_ok(&[&["device", "limit", name][..], &options].concat());
        broker.kill9();
        broker.restart();
        match options {
            ["--allow", _] => {
                let mut client = Client::connect(&broker, &connect);
                assert_eq!(client.publish(1, TELEMETRY, b"{\"a\":1}"), NOT_AUTHORIZED);
            }
            ["--expires", "1h"] => drop(Client::connect(&broker, &connect)),
            ["--expires", _] => {
                // Off or on, it ends; under load the restart may be quicker than the second.
                let limit = Instant::now() + Duration::from_secs(60);
                loop {
                    let shown = broker.cli_json(&["device", "show", name, "--json"]);
                    if shown["credentials"][0]["revoked_ms"].is_u64() {
                        break;
                    }
                    assert!(Instant::now() < limit, "{shown}");
                }
                expect_refused(broker.wire(), Version::V5, &token);
            }
            _ => expect_refused(broker.wire(), Version::V5, &token),
        }
    }
}

/// SEC-37: a will that waits is not published when its token has ended meanwhile, whether the
/// broker was there at that moment or not.
#[test]
fn sec_37_a_delayed_will_of_a_token_that_ended_is_not_published() {
    let mut broker = Broker::start();
    for is_restarted in [false, true] {
        let (short, long) = (
            format!("short-{is_restarted}"),
            format!("long-{is_restarted}"),
        );
        let tokens = [&short, &long].map(|name| device(&broker, name, &["--publish", "site/#"]));
        // Retained, for whoever comes late on a busy machine.
        for (token, will) in tokens.iter().zip([&b"of an ended token"[..], b"marker"]) {
            let topic = format!("site/{}/{}", will.len(), is_restarted);
            let connect = Connect {
                will: Some((1, true, &topic, will)),
                ..Connect::with_token(Version::V5, "c", token)
            };
            // The marker comes behind.
            let delay_s = if will == b"marker" { 6 } else { 4 };
            let connect = connect.kept().will_delay(delay_s);
            Client::connect(&broker, &connect).wire.reset();
        }
        broker.cli_ok(&["device", "limit", &short, "--expires", "1s"]);
        if is_restarted {
            broker.kill9();
            broker.restart();
        }
        // The application stays on as long as the broker does.
        let watcher_token = if is_restarted {
            token_of(&broker.cli_json(&["app", "rotate", "watcher", "--json"]))
        } else {
            let create = [
                "app",
                "create",
                "watcher",
                "--subscribe",
                "site/#",
                "--json",
            ];
            token_of(&broker.cli_json(&create))
        };
        let connect = Connect::with_token(Version::V5, "w", &watcher_token);
        let mut watcher = Client::connect(&broker, &connect);
        let filter = format!("site/+/{is_restarted}");
        assert_eq!(watcher.subscribe(&filter, 1), 1);
        assert_eq!(watcher.take().text(), "marker");
    }
}

/// What `token check` tells, and that it never tells the token.
#[test]
fn sec_55_a_token_is_explained_without_being_shown() {
    let broker = Broker::start();
    let options = [
        "--expires",
        "90d",
        "--from",
        "10.0.0.0/8",
        "--allow",
        "telemetry",
        "--publish",
        "site/#",
    ];
    let token = device(&broker, "pump", &options);
    let explained = broker.cli_ok(&["token", "check", &token]);
    for part in [
        "live: opens the door for device pump (",
        "\n  until 20",
        "\n  only from 10.0.0.0/8\n",
        "\n  only for telemetry\n",
        "\n  may publish to site/#\n",
    ] {
        assert!(explained.contains(part), "{part:?} is not in\n{explained}");
    }
    assert!(!explained.contains(&token));
    let shown = broker.cli_ok(&["device", "show", "pump"]);
    assert!(
        shown.contains("live; until 20") && shown.contains("only for telemetry"),
        "{shown}"
    );
    for (options, what) in [
        (&["--expires", "tomorrow"][..], "how far from now"),
        (&["--expires", "2020-01-01T00:00:00Z"], "is over already"),
        (&["--from", "10.0.0.1/8"], "not a network"),
        (&["--from", "anywhere", "10.0.0.0/8"], "says it all"),
        (&["--allow", "everything"], "is no right"),
        (&[], "give what is to change"),
    ] {
        let output = broker.cli(&[&["device", "limit", "pump"][..], options].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(what),
            "{options:?}: {said}"
        );
    }
    broker.revoke("pump");
    let explained = broker.cli_ok(&["token", "check", &token]);
    assert!(
        explained.starts_with("revoked: was of device pump ("),
        "{explained}"
    );
}

/// SEC-28 for one token: connections at once, over all of its client ids.
#[test]
fn sec_54_a_token_has_as_many_connections_as_its_quota() {
    let broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let token = device(&broker, "d", &["--connections", "2"]);
    let open = |is_tls, id: &str| {
        let connect = Connect::with_token(Version::V5, id, &token);
        Client::over(wire(&broker, is_tls), &connect)
    };
    let (first, mut second) = (open(false, "a"), open(true, "b"));
    let refuse = || {
        let mut third = broker.wire_tls();
        third.send(&Connect::with_token(Version::V5, "x", &token).encode());
        assert_eq!(third.packet()[3], 0x97);
        third.expect_close();
    };
    refuse();
    // A client that comes again takes its own place.
    let again = open(false, "a");
    refuse();
    drop(first);
    again.disconnect();
    let third = open(true, "c");
    refuse();
    // A lower quota ends nobody, and none lets everybody in.
    broker.cli_ok(&["device", "limit", "d", "--connections", "1"]);
    second.wire.expect_alive();
    third.disconnect();
    refuse();
    broker.cli_ok(&["device", "limit", "d", "--connections", "any"]);
    drop((open(false, "c"), open(true, "d")));
    // What was there before there was a quota counts too.
    broker.cli_ok(&["device", "limit", "d", "--connections", "1"]);
    refuse();
}

#[test]
fn sec_54_a_token_sends_as_much_as_its_rate() {
    let broker = Broker::start();
    for is_tls in WAYS {
        let name = format!("d-{is_tls}");
        let token = device(&broker, &name, &["--rate", "5"]);
        let mut client = connect(&broker, is_tls, Version::V5, &token);
        let mut all = Vec::new();
        for id in 1..=90 {
            let qos = u8::from(id % 2 == 0) + 1;
            let payload = format!(r#"{{"a{id}":1}}"#);
            all.extend(publish(Version::V5, qos, id, TELEMETRY, payload.as_bytes()));
        }
        client.wire.send(&all);
        let codes: Vec<u8> = (0..90).map(|_| reason(&client.wire.packet())).collect();
        let taken = codes.iter().filter(|code| **code == 0).count();
        let refused = codes.iter().filter(|code| **code == 0x97).count();
        assert_eq!(taken + refused, 90, "{codes:02x?}");
        assert!(
            taken >= 5 && refused > 0,
            "{taken} taken, {refused} refused"
        );
        assert_eq!(broker.points(&name).len(), taken);
        // 3.1.1 cannot be told: the connection ends, and nothing was taken for stored.
        let mut client = connect(&broker, is_tls, Version::V311, &token);
        client.wire.send(&all_of_version_3());
        client.wire.skip_until_close();
        broker.cli_ok(&["device", "limit", &name, "--rate", "any"]);
        let mut client = connect(&broker, is_tls, Version::V5, &token);
        client.wire.send(&all);
        let codes: Vec<u8> = (0..90).map(|_| reason(&client.wire.packet())).collect();
        assert_eq!(codes, vec![0; 90]);
    }
}

fn all_of_version_3() -> Vec<u8> {
    let one = |id| publish(Version::V311, 1, id, TELEMETRY, br#"{"b":1}"#);
    (1..=90).flat_map(one).collect()
}
