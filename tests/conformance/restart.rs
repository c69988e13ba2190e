//! REL-06: what the standard keeps is kept through `kill -9`.

use std::sync::Arc;

use crate::{
    common::{
        client::{Client, Message},
        packets::{VERSIONS, Version, packet},
    },
    site::Site,
};

/// A site whose broker can be killed and started again; nobody else holds it.
fn restart(site: &mut Site) {
    Arc::get_mut(&mut site.broker)
        .expect("nobody else holds it")
        .restart();
}

#[test]
fn mqtt_4_1_0_1_sessions_with_all_they_hold_survive_a_kill() {
    for version in VERSIONS {
        let mut site = Site::alone(&[]);
        let (topic, marker) = (site.topic("t"), site.topic("marker"));
        let mut publisher = site.client(version, "publisher");
        let mut subscriber = site.kept(version, "s");
        assert_eq!(subscriber.subscribe_as(7, &topic, 2), 2);
        assert_eq!(subscriber.subscribe(&marker, 1), 1);
        for (qos, payload) in [(1, "open"), (2, "open 2"), (2, "received")] {
            assert_eq!(publisher.publish(qos, &topic, payload.as_bytes()), 0);
        }
        let open: Vec<Message> = (0..3).map(|_| subscriber.next()).collect();
        subscriber
            .wire
            .send(&packet(0x50, &open[2].id.to_be_bytes()));
        assert_eq!(subscriber.expect_ack(0x62, open[2].id), 0);
        subscriber.disconnect();
        for (qos, payload) in [(1, "queued"), (2, "queued 2")] {
            assert_eq!(publisher.publish(qos, &topic, payload.as_bytes()), 0);
        }
        restart(&mut site);
        let mut subscriber = site.kept(version, "s");
        assert!(subscriber.is_present() || version == Version::V31);
        let (mut seen, mut released) = (Vec::new(), false);
        while seen.len() < 4 || !released {
            let bytes = subscriber.wire.packet();
            if bytes[0] == 0x62 {
                assert_eq!(bytes[2..4], open[2].id.to_be_bytes(), "QoS 2 keeps its id");
                released = true;
                continue;
            }
            seen.push(Message::read(version, &bytes));
        }
        // Each QoS in its order; of QoS 1 the ids are new ones, QoS 2 goes on under its id.
        let of = |qos| {
            let of_qos = seen.iter().filter(move |message| message.qos == qos);
            of_qos
                .map(|message| (message.text(), message.dup))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(1).iter().map(|(text, _)| text).collect::<Vec<_>>(),
            ["open", "queued"]
        );
        let expected = [("open 2".to_owned(), true), ("queued 2".to_owned(), false)];
        assert_eq!(of(2), expected, "{version:?}");
        let again = seen.iter().find(|message| message.text() == "open 2");
        assert_eq!(again.map(|message| message.id), Some(open[1].id));
        if version == Version::V5 {
            assert!(seen.iter().all(|message| message.subscription_ids() == [7]));
        }
        subscriber
            .wire
            .send(&packet(0x70, &open[2].id.to_be_bytes()));
        for message in &seen {
            subscriber.acknowledge(message);
        }
        // The subscriptions are there.
        let mut publisher = site.client(version, "publisher");
        subscriber.expect_only_marker(&mut publisher, 1, &marker);
        subscriber.disconnect();
        // What was acknowledged stays so.
        restart(&mut site);
        let mut subscriber = site.kept(version, "s");
        subscriber.expect_only_own_marker(1, &marker);
    }
}

#[test]
fn mqtt_3_3_1_5_retained_messages_survive_a_kill() {
    let mut site = Site::alone(&[]);
    let mut publisher = site.client(Version::V5, "publisher");
    for (qos, rest, payload) in [
        (0, "zero", "held"),
        (1, "one", "old"),
        (1, "one", "held"),
        (2, "two", "held"),
        (1, "cleared", "old"),
        (1, "cleared", ""),
    ] {
        assert_eq!(
            publisher.retain(qos, &site.topic(rest), payload.as_bytes()),
            0
        );
    }
    // An acknowledgement behind it: what came before is recorded.
    publisher.wire.expect_alive();
    assert_eq!(publisher.publish(1, &site.topic("last"), b"p"), 0);
    let expected = ["one", "two", "zero"].map(|rest| (site.topic(rest), "held".to_owned()));
    for _ in 0..2 {
        restart(&mut site);
        assert_eq!(site.retained(&site.topic("#")), expected.clone().into());
    }
}

#[test]
fn s_34_a_message_of_qos_2_is_delivered_once_across_a_kill() {
    for version in VERSIONS {
        let mut site = Site::alone(&[]);
        let topic = site.topic("t");
        let mut subscriber = site.kept(version, "s");
        assert_eq!(subscriber.subscribe(&topic, 2), 2);
        subscriber.disconnect();
        let mut publisher = site.kept(version, "publisher");
        // Killed between PUBREC and PUBREL, and between PUBREL and PUBCOMP (whether or not it
        // was handled).
        publisher.send_publish(4, 1, &topic, &[], b"one");
        assert_eq!(publisher.expect_ack(0x50, 1), 0);
        publisher.send_publish(4, 2, &topic, &[], b"two");
        assert_eq!(publisher.expect_ack(0x50, 2), 0);
        publisher.wire.send_hex("62020002");
        restart(&mut site);
        let mut publisher = site.kept(version, "publisher");
        publisher.send_publish(12, 1, &topic, &[], b"one");
        assert_eq!(publisher.complete(2, 1), 0);
        publisher.wire.send_hex("62020002");
        let _ = publisher.expect_ack(0x70, 2);
        let mut subscriber = site.kept(version, "s");
        assert_eq!(subscriber.take_texts(2), ["one", "two"], "{version:?}");
        subscriber.expect_only_marker(&mut publisher, 2, &topic);
    }
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_after_a_kill_and_once() {
    let mut site = Site::alone(&[]);
    let topic = site.topic("will");
    let mut watcher = site.kept(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&topic, 2), 2);
    let mut connect = site.connect(Version::V5, "at once");
    connect.will = Some((2, false, &topic, b"at once"));
    let _at_once = site.log_in(&connect);
    connect.client_id = "delayed";
    connect.will = Some((2, false, &topic, b"delayed"));
    let _delayed = site.log_in(&connect.clone().kept().will_delay(1));
    connect.client_id = "gone";
    site.log_in(&connect).disconnect();
    // Its end is on disk when that of a later session with its id is.
    let _gone = site.kept(Version::V5, "gone");
    restart(&mut site);
    let mut watcher = site.kept(Version::V5, "watcher");
    let mut seen = watcher.take_texts(2);
    seen.sort_unstable();
    assert_eq!(seen, ["at once", "delayed"]);
    watcher.disconnect();
    restart(&mut site);
    let mut watcher: Client = site.kept(Version::V5, "watcher");
    watcher.expect_only_own_marker(2, &topic);
}

/// A will that was recorded but whose right is gone, a kill between: nothing.
#[test]
fn sec_37_a_revocation_outlives_a_kill_for_wills_and_retained_messages() {
    let mut site = Site::alone(&[]);
    let topic = site.topic("t");
    let token = crate::site::create_app(&site.broker, "a", &["#"], &["#"]);
    let mut connect = crate::common::packets::Connect::with_token(Version::V5, "a", &token);
    connect.will = Some((1, true, &topic, b"will"));
    let mut a = site.log_in(&connect.clone().kept().will_delay(1));
    assert_eq!(a.retain(1, &site.topic("held"), b"held"), 0);
    a.wire.reset();
    crate::site::revoke_app(&site.broker, "a");
    restart(&mut site);
    // A control will of the same delay, that counts from the start too.
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&site.topic("#"), 1), 1);
    let control = site.topic("control");
    let mut connect = site.connect(Version::V5, "control").kept().will_delay(2);
    connect.will = Some((1, false, &control, b"control"));
    site.log_in(&connect).wire.reset();
    assert_eq!(watcher.take().topic, control);
    assert_eq!(site.retained(&site.topic("#")), [].into());
}

/// A broker that starts again has nothing to say of sessions that ended.
#[test]
fn mqtt_3_1_2_23_ended_sessions_do_not_come_back() {
    let mut site = Site::alone(&[]);
    let topic = site.topic("t");
    let mut ended = site.kept(Version::V5, "ended");
    assert_eq!(ended.subscribe(&topic, 1), 1);
    ended.disconnect();
    site.client(Version::V5, "ended").disconnect();
    let mut cut = site.client(Version::V5, "cut off by the kill");
    assert_eq!(cut.subscribe(&topic, 1), 1);
    let mut short = site.log_in(&site.connect(Version::V5, "short").kept_for(1));
    assert_eq!(short.subscribe(&topic, 1), 1);
    short.disconnect();
    restart(&mut site);
    for id in ["ended", "cut off by the kill"] {
        assert!(!site.kept(Version::V5, id).is_present(), "{id}");
    }
    // A will that waits for the end of a session of the same length shows that the time is over.
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&topic, 1), 1);
    let mut connect = site
        .connect(Version::V5, "control")
        .kept_for(1)
        .will_delay(60);
    connect.will = Some((1, false, &topic, b"over"));
    site.log_in(&connect).wire.reset();
    assert_eq!(watcher.take().text(), "over");
    assert!(!site.kept(Version::V5, "short").is_present());
}
