//! A kill right behind the reply.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    common::{
        broker::Broker,
        client::Client,
        packets::{Connect, TELEMETRY, Version, publish, reason},
    },
    place::{Everything, Over, all_of_it, ask_ok, create_app, figures},
};

/// Says how often the broker is killed; without it often enough to see that the test works.
const KILLS: &str = "TOLLGATE_REVOKE_KILLS";
const KILLS_DEFAULT: u64 = 4;

/// How long an ack may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// SEC-34, SEC-35: an application with everything that can end and a device under load are revoked
/// by one call, and the process is gone as soon as the reply is there.
#[test]
fn sec_34_what_was_revoked_stays_so_after_a_kill_right_behind_the_reply() {
    let kills = std::env::var(KILLS).map_or(KILLS_DEFAULT, |kills| {
        kills.parse().expect("a number of kills")
    });
    let mut broker = Broker::start();
    let other = create_app(&broker, "other", &["#"]);
    let steady = broker.create_device("steady");
    let witness = Connect::with_token(Version::V5, "witness", &other).kept();
    assert_eq!(Client::connect(&broker, &witness).subscribe("+/will", 1), 1);
    for kill in 0..kills {
        let over = Over::BOTH[usize::from(kill % 2 == 1)];
        let (app, device) = (format!("app-{kill}"), format!("device-{kill}"));
        let app_token = create_app(&broker, &app, &["#"]);
        let device_token = broker.create_device(&device);
        let everything = Everything::make(&broker, over, (&app, &app_token), &other);
        Everything::wait(&broker, &app);
        let sent = revoke_and_kill(&mut broker, over, (&app, &device), (&steady, &device_token));
        broker.restart();
        drop(everything);
        for over in Over::BOTH {
            for token in [&app_token, &device_token] {
                let mut wire = over.wire(&broker);
                wire.send(&Connect::with_token(Version::V5, "live", token).encode());
                assert_eq!(reason(&wire.packet()), 0x86, "kill {kill}");
            }
        }
        // Nothing that the device sent behind the reply is there.
        for (_, value) in broker.points(&device) {
            assert!(
                value.as_u64().expect("a number") < sent,
                "kill {kill}: {value} of {sent}"
            );
        }
        expect_nothing_left(&broker, &app, &other, kill);
        eprintln!("kill {} of {kills}: nothing came back", kill + 1);
    }
    // Wills would have come before the marker.
    let mut witness = Client::connect(&broker, &witness);
    assert!(witness.is_present());
    witness.expect_only_own_marker(1, "marker/will");
}

/// Revokes both while the device sends, and kills. How many messages it had begun to send when the
/// reply was there.
fn revoke_and_kill(
    broker: &mut Broker,
    over: Over,
    (app, device): (&str, &str),
    (steady, doomed): (&str, &str),
) -> u64 {
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut others, mut own) = (
        over.connect(broker, &Connect::with_token(Version::V311, "s", steady)),
        over.connect(broker, &Connect::with_token(Version::V311, "d", doomed)),
    );
    let send = |client: &mut Client, number: u64| {
        let id = u16::try_from(number % 60_000 + 1).expect("below 65,536");
        let payload = format!(r#"{{"n":{number}}}"#);
        let packet = publish(Version::V311, 1, id, TELEMETRY, payload.as_bytes());
        client.wire.send(&packet);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                send(&mut others, number);
                let _ = others.wire.packet_or_close(LIMIT);
            }
        });
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                sent.store(number + 1, Ordering::SeqCst);
                send(&mut own, number);
                if own.wire.packet_or_close(LIMIT).is_none() {
                    return;
                }
            }
        });
        while sent.load(Ordering::SeqCst) < 10 {
            std::thread::yield_now();
        }
        let wanted = json!({"apps": [app], "devices": [device]});
        let revoked = ask_ok(broker, "POST", "revocations", &wanted);
        let at_reply = sent.load(Ordering::SeqCst);
        broker.kill9();
        is_over.store(true, Ordering::SeqCst);
        let both = revoked["revoked"].as_array().expect("a list");
        assert_eq!(figures(&both[1]["receipt"]), all_of_it(), "{revoked}");
        assert_eq!(both[0]["receipt"]["connections"], 1, "{revoked}");
        at_reply
    })
}

/// Neither what it retained nor its sessions.
fn expect_nothing_left(broker: &Broker, app: &str, other: &str, kill: u64) {
    let mut reader = Connect::with_token(Version::V5, "reader", other);
    reader.clean = true;
    let mut reader = Client::connect(broker, &reader);
    assert_eq!(reader.subscribe(&format!("{app}/#"), 1), 1);
    reader.expect_only_own_marker(1, &format!("{app}/marker"));
    reader.disconnect();
    let rotated = ask_ok(broker, "POST", &format!("apps/{app}/rotate"), &Value::Null);
    assert_eq!(rotated["receipt"]["sessions"], 0, "{rotated}");
    let token = rotated["token"].as_str().expect("a token");
    for client_id in ["live", "away"] {
        let connect = Connect::with_token(Version::V5, client_id, token).kept();
        let mut client = Client::connect(broker, &connect);
        assert!(!client.is_present(), "kill {kill}: {client_id}");
        client.wire.expect_alive();
    }
    // Out of the way of the next one.
    ask_ok(broker, "DELETE", &format!("apps/{app}"), &Value::Null);
}
