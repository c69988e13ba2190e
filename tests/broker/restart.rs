//! What survives the end of the process, asked for or not.

use crate::common::{
    broker::Broker,
    packets::{
        Connect, TELEMETRY, VERSIONS, Version, log_in, publish, publish_flags, pubrel, reason,
    },
    wire::{Wire, show},
};

/// MQTT 5: server shutting down.
const SHUTTING_DOWN: u8 = 0x8b;

/// The exit code for a data directory that another broker holds.
const START_REFUSED: i32 = 4;

#[test]
fn rel_01_what_was_acknowledged_survives_a_kill() {
    const MESSAGES: u16 = 100;
    let mut broker = Broker::start();
    let token = broker.create_device("a");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "a", &token));
    for id in 1..=MESSAGES {
        let payload = format!(r#"{{"kept {id}":1}}"#);
        wire.send(&publish(
            Version::V311,
            1,
            id,
            TELEMETRY,
            payload.as_bytes(),
        ));
    }
    for _ in 1..=MESSAGES {
        assert_eq!(wire.packet()[0], 0x40);
    }
    broker.kill9();
    broker.restart();
    assert_eq!(broker.points("a").len(), usize::from(MESSAGES));
    // And the credential as well.
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "a", &token),
    );
}

/// S-34: the process dies between PUBREC and PUBREL.
#[test]
fn s_34_qos_2_is_stored_once_across_a_kill_before_pubrel() {
    let mut broker = Broker::start();
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut wire = session(&broker, version, &token, 0);
        wire.send(&publish(version, 2, 5, TELEMETRY, br#"{"once":1}"#));
        wire.expect("50020005");
        broker.kill9();
        broker.restart();
        // The PUBREC may have been lost on the way: the client sends the message again.
        let mut wire = session(&broker, version, &token, 1);
        wire.send(&publish_flags(
            version,
            0x0c,
            5,
            TELEMETRY,
            br#"{"once":1}"#,
        ));
        wire.expect("50020005");
        broker.kill9();
        broker.restart();
        // Or it has arrived: the client goes on with PUBREL.
        let mut wire = session(&broker, version, &token, 1);
        wire.send(&pubrel(5));
        wire.expect("70020005");
        // The id is free: this is another message.
        wire.send(&publish(version, 2, 5, TELEMETRY, br#"{"next":1}"#));
        wire.expect("50020005");
        let mut keys: Vec<_> = broker
            .points(&name)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, ["next", "once"], "{version:?}");
    }
}

/// S-34: the process dies between PUBREL and PUBCOMP.
#[test]
fn s_34_qos_2_is_stored_once_across_a_kill_after_pubrel() {
    let mut broker = Broker::start();
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut wire = session(&broker, version, &token, 0);
        wire.send(&publish(version, 2, 5, TELEMETRY, br#"{"once":1}"#));
        wire.expect("50020005");
        // Its answer is not awaited: whether the release was recorded is left to chance.
        wire.send(&pubrel(5));
        broker.kill9();
        broker.restart();
        let mut wire = session(&broker, version, &token, 1);
        wire.send(&pubrel(5));
        let pubcomp = wire.packet();
        assert_eq!(
            (pubcomp[0], &pubcomp[2..4]),
            (0x70, &[0, 5][..]),
            "{}",
            show(&pubcomp)
        );
        assert!(
            [0, 0x92].contains(&reason_of_ack(&pubcomp)),
            "{}",
            show(&pubcomp)
        );
        // PUBCOMP was seen, so the release is on disk: after another kill the id is still free.
        broker.kill9();
        broker.restart();
        let mut wire = session(&broker, version, &token, 1);
        wire.send(&publish(version, 2, 5, TELEMETRY, br#"{"next":1}"#));
        wire.expect("50020005");
        let mut keys: Vec<_> = broker
            .points(&name)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, ["next", "once"], "{version:?}");
    }
}

/// S-34: another connection takes the session over and sends the message again.
#[test]
fn s_34_qos_2_is_stored_once_across_a_takeover() {
    let broker = Broker::start();
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut old = session(&broker, version, &token, 0);
        old.send(&publish(version, 2, 5, TELEMETRY, br#"{"once":1}"#));
        old.expect("50020005");
        let mut new = session(&broker, version, &token, 1);
        new.send(&publish_flags(
            version,
            0x0c,
            5,
            TELEMETRY,
            br#"{"once":1}"#,
        ));
        new.expect("50020005");
        new.send(&pubrel(5));
        new.expect("70020005");
        assert_eq!(broker.points(&name).len(), 1);
    }
}

/// A clean session keeps no packet ids: the same id is a new message.
#[test]
fn a_clean_session_keeps_no_packet_ids() {
    let mut broker = Broker::start();
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        for (key, ends) in [("first", true), ("second", false)] {
            let mut wire = broker.wire();
            let connack = log_in(&mut wire, &Connect::with_token(version, "a", &token));
            assert_eq!(connack[2], 0);
            let payload = format!(r#"{{"{key}":1}}"#);
            wire.send(&publish(version, 2, 5, TELEMETRY, payload.as_bytes()));
            wire.expect("50020005");
            if ends {
                broker.kill9();
                broker.restart();
            }
        }
        assert_eq!(broker.points(&name).len(), 2);
    }
}

#[test]
fn rel_09_a_clean_stop_tells_clients_and_ends_with_0() {
    let mut broker = Broker::start();
    let tokens = VERSIONS.map(|version| broker.create_device(&format!("{version:?}")));
    let mut wires: Vec<_> = VERSIONS
        .iter()
        .zip(&tokens)
        .map(|(version, token)| {
            let mut wire = broker.wire();
            log_in(&mut wire, &Connect::with_token(*version, "a", token));
            wire.send(&publish(*version, 1, 1, TELEMETRY, br#"{"before":1}"#));
            wire.expect("40020001");
            wire
        })
        .collect();
    assert_eq!(broker.stop(), 0);
    for (version, wire) in VERSIONS.iter().zip(&mut wires) {
        if *version == Version::V5 {
            let packet = wire.packet();
            assert_eq!(
                (packet[0], reason(&packet)),
                (0xe0, SHUTTING_DOWN),
                "{}",
                show(&packet)
            );
        }
        wire.expect_close();
    }
    broker.restart();
    for version in VERSIONS {
        assert_eq!(broker.values(&format!("{version:?}"), "before"), [1]);
    }
}

#[test]
fn rel_09_a_second_broker_on_the_same_directory_is_refused() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let second = broker.start_second();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(START_REFUSED), "{said}");
    assert!(said.contains("data"), "it names the directory: {said}");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V5, "a", &token));
    wire.expect_alive();
}

/// Connects with a session that is kept; `present` is what CONNACK must say.
fn session(broker: &Broker, version: Version, token: &str, present: u8) -> Wire {
    let mut connect = Connect {
        clean: false,
        ..Connect::with_token(version, "a", token)
    };
    if version == Version::V5 {
        connect.properties = vec![0x11, 0, 0, 0x0e, 0x10]; // session expiry 3,600 s
    }
    let mut wire = broker.wire();
    let connack = log_in(&mut wire, &connect);
    // 3.1 has no such flag; its byte is reserved.
    if version != Version::V31 {
        assert_eq!(connack[2], present, "session present: {}", show(&connack));
    }
    wire
}

/// The reason of an acknowledgement; the short form means success.
fn reason_of_ack(packet: &[u8]) -> u8 {
    packet.get(4).copied().unwrap_or(0)
}
