//! SEC-73: whichever listener a client comes by, the same holds.

use std::time::Instant;

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, VERSIONS, Version, log_in, reason},
    web::SERVED,
    wire::{ANSWER_LIMIT, Wire},
};

const DOORS: [&str; 4] = ["mqtt", "mqtts", "ws", "wss"];

fn wire(broker: &Broker, door: &str) -> Wire {
    match door {
        "mqtt" => broker.wire(),
        "mqtts" => broker.wire_tls(),
        "ws" => broker.wire_ws(),
        _ => broker.wire_wss(),
    }
}

/// Waits for the end; over a WebSocket it ends in a Close.
fn expect_end(wire: &mut Wire, door: &str) {
    wire.expect_close();
    if door.starts_with("ws") {
        assert_eq!(wire.web().close, Some(1000), "{door}");
    }
}

#[test]
fn sec_20_sec_73_s_28_half_of_the_credentials_is_none_by_any_door() {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    let cut = &token[..token.len() - 1];
    for door in DOORS {
        for version in VERSIONS {
            let bad = if version == Version::V5 { 0x86 } else { 5 };
            for shown in [cut, "", "wrong"] {
                let mut wire = wire(&broker, door);
                wire.send(&Connect::with_token(version, "a", shown).encode());
                let connack = wire.packet();
                assert_eq!(connack[0], 0x20);
                assert_ne!(connack[3], 0, "{door} {version:?} {shown:?}");
                if shown == cut {
                    assert_eq!(connack[3], bad, "{door} {version:?}");
                }
                expect_end(&mut wire, door);
            }
            let mut wire = wire(&broker, door);
            log_in(&mut wire, &Connect::with_token(version, "a", &token));
        }
    }
}

#[test]
fn sec_24_sec_73_sessions_go_from_door_to_door() {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    for version in VERSIONS {
        for (from, to) in [
            ("mqtt", "ws"),
            ("ws", "mqtt"),
            ("wss", "ws"),
            ("mqtts", "wss"),
        ] {
            let mut older = wire(&broker, from);
            log_in(&mut older, &Connect::with_token(version, "a", &token));
            let mut newer = wire(&broker, to);
            log_in(&mut newer, &Connect::with_token(version, "a", &token));
            if version == Version::V5 {
                let disconnect = older.packet();
                assert_eq!((disconnect[0], reason(&disconnect)), (0xe0, 0x8e));
            }
            expect_end(&mut older, from);
            newer.expect_alive();
        }
    }
    // What waited on one listener comes on another.
    let app = |name: &str| {
        let wanted = [
            "app",
            "create",
            name,
            "--publish",
            "t/#",
            "--subscribe",
            "t/#",
            "--json",
        ];
        let made = broker.cli_json(&wanted);
        made["token"].as_str().expect("a token").to_owned()
    };
    let (reader, writer) = (app("reader"), app("writer"));
    let kept = || Connect::with_token(Version::V5, "kept", &reader).kept();
    let mut client = Client::over(broker.wire(), &kept());
    assert_eq!(client.subscribe("t/#", 1), 1);
    client.disconnect();
    let mut writer = Client::over(
        broker.wire_wss(),
        &Connect::with_token(Version::V5, "w", &writer),
    );
    assert_eq!(writer.publish(1, "t/1", b"waited"), 0);
    let mut client = Client::over(broker.wire_ws(), &kept());
    assert!(client.is_present());
    assert_eq!(client.take().text(), "waited");
}

#[test]
fn sec_34_sec_73_revoking_a_device_ends_it_at_every_door() {
    let per_client = ("TOLLGATE_DEVICE_SESSIONS", "per_client_id");
    let broker = Broker::start_with(&[SERVED[0], SERVED[1], per_client]);
    for version in VERSIONS {
        let name = format!("{version:?}");
        let token = broker.create_device(&name);
        let mut wires = DOORS.map(|door| {
            let mut wire = wire(&broker, door);
            log_in(&mut wire, &Connect::with_token(version, door, &token));
            wire
        });
        let receipt = broker.revoke(&name);
        assert_eq!(receipt["receipt"]["connections"], 4, "{receipt}");
        for (door, wire) in DOORS.into_iter().zip(&mut wires) {
            if version == Version::V5 {
                let disconnect = wire.packet();
                assert_eq!((disconnect[0], reason(&disconnect)), (0xe0, 0x98), "{door}");
            }
            expect_end(wire, door);
            let mut again = crate::doors::wire(&broker, door);
            again.send(&Connect::with_token(version, door, &token).encode());
            assert_ne!(again.packet()[3], 0, "{door}");
        }
    }
}

/// SEC-81: one count for all listeners.
#[test]
fn sec_73_sec_81_an_address_has_as_many_connections_by_all_doors_together() {
    let broker = Broker::start_with(&[
        SERVED[0],
        SERVED[1],
        ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", ""),
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_ADDRESS_MAX", "2"),
        ("TOLLGATE_DEVICE_SESSIONS", "per_client_id"),
    ]);
    let token = broker.create_device("a");
    let from = |door: &str| Wire::connect_from("127.0.0.2", broker.address(door));
    let mut plain = from("mqtt");
    log_in(&mut plain, &Connect::with_token(Version::V5, "1", &token));
    let mut web = from("ws").upgrade("/mqtt", &[]).expect("the second");
    log_in(&mut web, &Connect::with_token(Version::V5, "2", &token));
    for door in ["mqtt", "ws"] {
        from(door).expect_close();
    }
    drop(plain);
    let until = Instant::now() + ANSWER_LIMIT;
    let mut again = loop {
        match from("ws").upgrade("/mqtt", &[]) {
            Ok(wire) => break wire,
            Err(_) => assert!(Instant::now() < until, "its place is not given up"),
        }
    };
    log_in(&mut again, &Connect::with_token(Version::V5, "3", &token));
}

/// The audit says by which door a client came.
#[test]
fn sec_56_sec_73_the_audit_names_the_door() {
    let broker = Broker::start_with(&SERVED);
    let token = broker.create_device("a");
    for (door, over) in DOORS.into_iter().zip(["tcp", "tls", "ws", "wss"]) {
        let mut wire = wire(&broker, door);
        log_in(&mut wire, &Connect::with_token(Version::V5, door, &token));
        let is_told = || {
            let told = broker.cli_ok(&["audit", "--json", "--events", "connected"]);
            told.lines()
                .any(|line| line.contains(&format!("\"over\":\"{over}\"")))
        };
        let until = Instant::now() + ANSWER_LIMIT;
        while !is_told() {
            assert!(Instant::now() < until, "{over} is not in the audit");
        }
    }
}
