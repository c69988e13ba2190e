//! The end of a credential: at once, for good, and without a will.

use std::time::{Duration, Instant};

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, reason, subscribe},
    wire::{Wire, show},
};

/// MQTT 5: administrative action.
const ADMINISTRATIVE: u8 = 0x98;

/// TB-04: a revoked token is a wrong token.
const REFUSED: [u8; 2] = [5, 0x86];

#[test]
fn s_01_tb_07_a_revoked_device_is_cut_off() {
    let broker = Broker::start();
    let mut quickest = Duration::MAX;
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut wire = connect(&broker, version, &token);
        wire.send(&publish(version, 1, 1, TELEMETRY, br#"{"before":1}"#));
        wire.expect("40020001");
        let receipt = broker.revoke(&name);
        let replied = Instant::now();
        assert_eq!(receipt["receipt"]["connections"], 1, "{receipt}");
        // Nothing that comes after the reply is taken.
        wire.send(&publish(version, 1, 2, TELEMETRY, br#"{"after":1}"#));
        expect_cut_off(&mut wire, version);
        quickest = quickest.min(replied.elapsed());
        expect_refused(&broker, version, &token);
        let keys: Vec<_> = broker
            .points(&name)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["before"]);
    }
    // Within 1 s; once may be the machine's doing.
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
}

#[test]
fn tb_07_rotating_and_deleting_cut_off_too() {
    let broker = Broker::start();
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut wire = connect(&broker, version, &token);
        let rotated = broker.cli_json(&["device", "rotate", &name, "--grace", "0s", "--json"]);
        expect_cut_off(&mut wire, version);
        expect_refused(&broker, version, &token);
        let token = rotated["token"].as_str().expect("the new token").to_owned();
        let mut wire = connect(&broker, version, &token);
        broker.cli_ok(&["device", "delete", &name]);
        expect_cut_off(&mut wire, version);
        expect_refused(&broker, version, &token);
    }
}

/// Somebody else's revocation is nobody's business.
#[test]
fn a_revocation_leaves_others_alone() {
    let broker = Broker::start();
    let (stays, goes) = (broker.create_device("stays"), broker.create_device("goes"));
    for version in VERSIONS {
        let mut of_other = connect(&broker, version, &stays);
        broker.revoke("goes");
        expect_refused(&broker, version, &goes);
        of_other.expect_alive();
    }
}

/// S-05, SEC-35: a will is not published, neither at the cut nor later.
#[test]
fn s_05_a_revoked_device_leaves_no_will() {
    let broker = Broker::start();
    let listener_token = broker.create_device("listener");
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut listener = connect(&broker, version, &listener_token);
        listener.send(&subscribe(version, 1, &[("v1/devices/me/attributes", 1)]));
        assert_eq!(listener.packet()[0], 0x90);
        for topic in [TELEMETRY, "v1/devices/me/attributes"] {
            let token = if topic == TELEMETRY {
                token.clone()
            } else {
                let rotated =
                    broker.cli_json(&["device", "rotate", &name, "--grace", "0s", "--json"]);
                rotated["token"].as_str().expect("the new token").to_owned()
            };
            let will = Some((1, false, topic, &br#"{"will":1}"#[..]));
            let mut wire = broker.wire();
            log_in(
                &mut wire,
                &Connect {
                    will,
                    ..Connect::with_token(version, "a", &token)
                },
            );
            broker.revoke(&name);
            expect_cut_off(&mut wire, version);
        }
        listener.expect_alive();
        assert_eq!(broker.points(&name), []);
    }
}

/// S-08: the will of a CONNECT that failed.
#[test]
fn s_08_a_refused_connect_leaves_no_will() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    for version in VERSIONS {
        let will = Some((1, true, TELEMETRY, &br#"{"will":1}"#[..]));
        let connect = Connect {
            will,
            ..Connect::with_token(version, "a", "wrong")
        };
        let mut wire = broker.wire();
        wire.send(&connect.encode());
        assert_ne!(reason(&wire.packet()), 0);
        wire.expect_close();
        let mut wire = self::connect(&broker, version, &token);
        wire.expect_alive();
    }
    assert_eq!(broker.points("a"), []);
}

/// SEC-34: durable when the command returns, so it holds after a kill right behind it.
#[test]
fn sec_34_a_revocation_survives_a_kill() {
    let mut broker = Broker::start();
    let token = broker.create_device("a");
    let kept = Connect {
        clean: false,
        ..Connect::with_token(Version::V311, "a", &token)
    };
    log_in(&mut broker.wire(), &kept);
    broker.revoke("a");
    broker.kill9();
    broker.restart();
    for version in VERSIONS {
        expect_refused(&broker, version, &token);
    }
}

/// SEC-35: state that was kept for a token goes with it; a new token finds nothing of it.
#[test]
fn sec_35_a_revocation_drops_the_session() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let kept = |token| Connect {
        clean: false,
        ..Connect::with_token(Version::V311, "a", token)
    };
    let mut wire = broker.wire();
    log_in(&mut wire, &kept(&token));
    wire.send(&publish(Version::V311, 2, 5, TELEMETRY, br#"{"held":1}"#));
    wire.expect("50020005");
    broker.revoke("a");
    expect_cut_off(&mut wire, Version::V311);
    let rotated = broker.cli_json(&["device", "rotate", "a", "--grace", "0s", "--json"]);
    let token = rotated["token"].as_str().expect("the new token");
    let connack = log_in(&mut broker.wire(), &kept(token));
    assert_eq!(show(&connack), "20020000", "no session present");
}

fn connect(broker: &Broker, version: Version, token: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, "a", token));
    wire
}

fn expect_cut_off(wire: &mut Wire, version: Version) {
    if version == Version::V5 {
        let packet = wire.packet();
        assert_eq!(
            (packet[0], reason(&packet)),
            (0xe0, ADMINISTRATIVE),
            "{}",
            show(&packet)
        );
    }
    wire.expect_close();
}

fn expect_refused(broker: &Broker, version: Version, token: &str) {
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(version, "a", token).encode());
    let connack = wire.packet();
    let code = REFUSED[usize::from(version == Version::V5)];
    assert_eq!(
        (connack[0], reason(&connack)),
        (0x20, code),
        "{}",
        show(&connack)
    );
    wire.expect_close();
}
