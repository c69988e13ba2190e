//! SEC-36: a narrowing takes away what lies outside of the new rights, counts it, and leaves
//! connections and sessions where they are.

use serde_json::{Value, json};

use crate::{
    common::{
        broker::Broker,
        client::Client,
        packets::{Connect, Version, packet},
    },
    place::{Over, ask_ok, create_app, figures, wait_until},
};

/// From now on it may only this.
fn narrow(broker: &Broker, app: &str, filters: &[&str]) -> Value {
    let wanted = json!({"publish": filters, "subscribe": filters});
    let changed = ask_ok(broker, "PATCH", &format!("apps/{app}/scope"), &wanted);
    figures(&changed["receipt"])
}

fn receipt(subscriptions: u32, queued: u32, in_flight: u32) -> Value {
    json!({
        "connections": 0, "sessions": 0, "subscriptions": subscriptions, "queued": queued,
        "in_flight": in_flight, "unfinished": 0, "wills": 0, "retained": 0,
    })
}

/// Behind it everything that the client sent before is handled.
fn expect_handled(client: &mut Client) {
    client.wire.expect_alive();
}

/// A live session with two messages of a topic in flight and more waiting, and one that is away.
#[test]
fn sec_36_s_02_s_03_what_lies_outside_ends_and_is_counted_and_connections_stay() {
    let broker = Broker::start();
    let other = create_app(&broker, "other", &["#"]);
    for over in Over::BOTH {
        let name = format!("{over:?}");
        let topic = |rest: &str| format!("{name}/{rest}");
        let (lost, kept) = (topic("lost"), topic("kept"));
        let wide = topic("#");
        let token = create_app(&broker, &name, &[&wide]);
        let connect = |id| Connect::with_token(Version::V5, id, &token).kept();
        let mut away = over.connect(&broker, &connect("away"));
        assert_eq!(away.subscribe(&lost, 1), 1);
        assert_eq!(away.subscribe(&kept, 2), 2);
        away.disconnect();
        let mut live = over.connect(&broker, &connect("live").receive_maximum(3));
        assert_eq!(live.subscribe(&wide, 2), 2);
        assert_eq!(live.subscribe(&kept, 2), 2);
        let mut other = over.connect(&broker, &Connect::with_token(Version::V5, "o", &other));
        for qos in [1, 2] {
            assert_eq!(
                other.publish(qos, &lost, format!("lost {qos}").as_bytes()),
                0
            );
        }
        assert_eq!(other.publish(1, &kept, b"kept 1"), 0);
        assert_eq!(other.publish(2, &lost, b"lost 3"), 0);
        assert_eq!(other.publish(2, &kept, b"kept 2"), 0);
        let first: Vec<_> = (0..3).map(|_| live.next()).collect();
        assert_eq!(first[1].text(), "lost 2");
        wait_until_queued(&broker, &name);

        let ended = narrow(&broker, &name, &[&kept]);
        assert_eq!(ended, receipt(2, 4, 2), "{over:?}");
        assert_eq!(narrow(&broker, &name, &[&kept]), receipt(0, 0, 0), "once");
        // Three places are taken until the client acknowledges: nothing new comes before that.
        assert!(!live.has_message());
        // What it has it may acknowledge; a message that is gone is released like any other.
        live.acknowledge(&first[0]);
        let kept_2 = live.next();
        assert_eq!(kept_2.text(), "kept 2");
        live.wire.send(&packet(0x50, &first[1].id.to_be_bytes()));
        assert_eq!(live.answer(0x62)[2..4], first[1].id.to_be_bytes());
        expect_handled(&mut live);
        // Neither by the old subscription nor by a new one; publishing has ended, too.
        assert_eq!(other.publish(1, &lost, b"too late"), 0);
        assert_eq!(live.subscribe(&lost, 1), 0x87);
        assert_eq!(live.publish(1, &lost, b"not allowed"), 0x87);
        assert_eq!(live.publish(1, &kept, b"own"), 0);
        live.acknowledge(&first[2]);
        live.acknowledge(&kept_2);
        assert_eq!(live.take().text(), "own");
        // It comes back with the rights, but not with what was lost, also not what was in flight.
        narrow(&broker, &name, &[&wide]);
        let mut live = over.connect(&broker, &connect("live").receive_maximum(3));
        assert!(live.is_present());
        assert_eq!(
            live.answer(0x62)[2..4],
            first[1].id.to_be_bytes(),
            "it has this one"
        );
        live.wire.send(&packet(0x70, &first[1].id.to_be_bytes()));
        live.expect_only_marker(&mut other, 1, &kept);
        let mut away = over.connect(&broker, &connect("away"));
        assert!(away.is_present());
        for expected in ["kept 1", "kept 2", "own", "marker"] {
            assert_eq!(away.take().text(), expected);
        }
        away.expect_only_marker(&mut other, 1, &kept);
    }
}

/// Waits until all is in the queues: of `live` 3 in flight and 2 waiting, of `away` 5 waiting.
fn wait_until_queued(broker: &Broker, name: &str) {
    let path = format!("apps/{name}/revoke");
    wait_until("the queues", || {
        let foreseen = ask_ok(broker, "POST", &path, &json!({"dry_run": true}));
        let receipt = &foreseen["receipt"];
        (receipt["queued"] == 7 && receipt["in_flight"] == 3).then_some(())
    });
}

/// SEC-34, SEC-38: right behind the reply of a narrowing, with a session that is away.
#[test]
fn sec_36_a_narrowing_holds_after_a_kill_right_behind_the_reply() {
    let mut broker = Broker::start();
    let other = create_app(&broker, "other", &["#"]);
    let token = create_app(&broker, "app", &["t/#"]);
    let kept = |id| Connect::with_token(Version::V5, id, &token).kept();
    for kill in 0..3 {
        narrow(&broker, "app", &["t/#"]);
        let mut away = Client::connect(&broker, &kept("away"));
        assert_eq!(away.subscribe("t/lost", 1), 1);
        assert_eq!(away.subscribe("t/kept", 1), 1);
        away.disconnect();
        let mut live = Client::connect(&broker, &kept("live"));
        assert_eq!(live.subscribe("t/lost", 1), 1);
        let publisher = |broker: &Broker| {
            Client::connect(broker, &Connect::with_token(Version::V5, "o", &other))
        };
        assert_eq!(publisher(&broker).publish(1, "t/lost", b"before"), 0);
        narrow(&broker, "app", &["t/kept"]);
        broker.kill9();
        broker.restart();
        // The subscriptions are gone, also for what is published before anybody comes back and
        // after the right did.
        let mut publisher = publisher(&broker);
        assert_eq!(publisher.publish(1, "t/lost", b"meanwhile"), 0);
        narrow(&broker, "app", &["t/#"]);
        for id in ["away", "live"] {
            let mut client = Client::connect(&broker, &kept(id));
            assert!(client.is_present(), "kill {kill}");
            assert_eq!(client.subscribe("t/marker", 1), 1);
            if id == "away" {
                client.expect_only_marker(&mut publisher, 1, "t/kept");
            }
            client.expect_only_marker(&mut publisher, 1, "t/marker");
            assert_eq!(client.unsubscribe(&["t/lost", "t/marker"]), [0x11, 0]);
            client.disconnect();
        }
    }
}
