//! Chapter 3.1: will messages.

use std::time::Instant;

use crate::{
    common::{
        client::{Client, property_text, user_property},
        packets::{Connect, VERSIONS, Version},
    },
    site::{Site, in_time},
};

/// A will of QoS 1 on that topic.
fn with_will<'a>(mut connect: Connect<'a>, topic: &'a str) -> Connect<'a> {
    connect.will = Some((1, false, topic, b"will"));
    connect
}

fn watcher(site: &Site, filter: &str) -> Client {
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(filter, 2), 2);
    watcher
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_however_the_connection_fails() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("will");
        let mut watcher = watcher(&site, &topic);
        let open = || site.log_in(&with_will(site.connect(version, "c"), &topic));
        let mut ends: Vec<(&str, Client)> = Vec::new();
        let reset = open();
        reset.wire.reset();
        assert_eq!(watcher.take().text(), "will", "{version:?} reset");
        drop(open());
        assert_eq!(
            watcher.take().text(),
            "will",
            "{version:?} end without DISCONNECT"
        );
        let mut broken = open();
        broken.wire.send_hex("0000");
        assert_eq!(
            watcher.take().text(),
            "will",
            "{version:?} malformed packet"
        );
        broken.wire.skip_until_close();
        if version == Version::V5 {
            let mut leaving = open();
            leaving.wire.send_hex("e00104");
            assert_eq!(watcher.take().text(), "will", "DISCONNECT with will");
            ends.push(("with will", leaving));
        }
        let old = open();
        let new = site.client(version, "c");
        assert_eq!(watcher.take().text(), "will", "{version:?} take-over");
        ends.push(("taken over", old));
        ends.push(("took over", new));
        watcher.expect_only_own_marker(1, &topic);
    }
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_when_keep_alive_runs_out() {
    let site = Site::new();
    let topic = site.topic("will");
    let mut watcher = watcher(&site, &topic);
    let mut silent = Vec::new();
    for (version, id) in VERSIONS.into_iter().zip(["a", "b", "c"]) {
        let mut connect = with_will(site.connect(version, id), &topic);
        connect.keep_alive_s = 1;
        silent.push(site.log_in(&connect));
    }
    assert_eq!(watcher.take_texts(3), ["will"; 3]);
}

#[test]
fn mqtt_3_1_2_10_disconnect_removes_the_will() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("will");
        let mut watcher = watcher(&site, &topic);
        for kept in [false, true] {
            let mut connect = with_will(site.connect(version, "c"), &topic);
            if kept {
                connect = connect.kept();
            }
            site.log_in(&connect).disconnect();
        }
        watcher.expect_only_own_marker(1, &topic);
        // Nor later: the session comes back and its connection fails.
        let again = site.kept(version, "c");
        again.wire.reset();
        site.client(version, "c").disconnect();
        watcher.expect_only_own_marker(1, &topic);
    }
}

#[test]
fn mqtt_3_1_2_10_a_will_is_published_once() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("will");
        let mut watcher = watcher(&site, &topic);
        let connect = with_will(site.connect(version, "c"), &topic).kept();
        site.log_in(&connect).wire.reset();
        assert_eq!(watcher.take().text(), "will");
        site.kept(version, "c").wire.reset();
        site.client(version, "c").disconnect();
        watcher.expect_only_own_marker(1, &topic);
    }
}

#[test]
fn mqtt_3_1_2_12_and_14_and_15_qos_and_retain_of_a_will_are_its_own() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("will");
        let mut watcher = watcher(&site, &topic);
        for (qos, retain) in [
            (0, false),
            (1, false),
            (2, false),
            (0, true),
            (1, true),
            (2, true),
        ] {
            watcher.retain(1, &topic, b"");
            assert!(watcher.take().payload.is_empty());
            let payload = format!("{qos} {retain}");
            let mut connect = site.connect(version, "c");
            connect.will = Some((qos, retain, &topic, payload.as_bytes()));
            site.log_in(&connect).wire.reset();
            let message = watcher.take();
            assert_eq!(
                (message.qos, message.text()),
                (qos, payload.clone()),
                "{version:?}"
            );
            let left = site.retained(&topic);
            let expected = retain.then_some((topic.clone(), payload));
            assert_eq!(left, expected.into_iter().collect(), "{version:?} {qos}");
        }
    }
}

#[test]
fn mqtt_3_1_3_9_a_client_that_is_back_in_time_leaves_no_will() {
    in_time(|delay_s| {
        let site = Site::new();
        let topics = [site.topic("will/back"), site.topic("will/away")];
        let mut watcher = watcher(&site, &site.topic("will/+"));
        let begin = Instant::now();
        for (id, topic) in ["back", "away"].into_iter().zip(&topics) {
            let connect = with_will(site.connect(Version::V5, id), topic);
            let connect = connect.kept().will_delay(delay_s);
            site.log_in(&connect).wire.reset();
        }
        let back = site.kept(Version::V5, "back");
        if begin.elapsed().as_secs() >= u64::from(delay_s) {
            return false;
        }
        assert!(back.is_present());
        // That of the other comes at its time; that of this one would have come before it.
        assert_eq!(watcher.take().topic, topics[1]);
        let took = begin.elapsed().as_millis() + 100;
        assert!(took >= u128::from(delay_s) * 1_000, "{took}");
        watcher.expect_only_own_marker(1, &topics[0]);
        true
    });
}

/// With clean start the session ends, and so its will is published at once.
#[test]
fn mqtt_3_1_2_8_the_end_of_the_session_ends_the_delay() {
    let site = Site::new();
    let topic = site.topic("will");
    let mut watcher = watcher(&site, &topic);
    let connect = with_will(site.connect(Version::V5, "c"), &topic);
    let connect = connect.kept().will_delay(3600);
    // The connection failed before.
    site.log_in(&connect).wire.reset();
    site.client(Version::V5, "c").disconnect();
    assert_eq!(watcher.take().text(), "will");
    // It is taken over.
    let old = site.log_in(&connect);
    site.client(Version::V5, "c").disconnect();
    assert_eq!(watcher.take().text(), "will");
    drop(old);
    // A take-over that resumes the session leaves it waiting.
    let old = site.log_in(&connect);
    site.kept(Version::V5, "c").disconnect();
    drop(old);
    site.client(Version::V5, "c").disconnect();
    watcher.expect_only_own_marker(1, &topic);
}

/// The session is over with the connection, so there is nothing to wait for.
#[test]
fn mqtt_3_1_2_8_a_delay_without_a_session_is_none() {
    let site = Site::new();
    let topic = site.topic("will");
    let mut watcher = watcher(&site, &topic);
    let connect = with_will(site.connect(Version::V5, "c"), &topic).will_delay(3600);
    site.log_in(&connect).wire.reset();
    assert_eq!(watcher.take().text(), "will");
}

#[test]
fn s_36_a_will_comes_when_the_session_expires_before_its_delay_is_over() {
    let site = Site::new();
    let topic = site.topic("will");
    let mut watcher = watcher(&site, &topic);
    let connect = with_will(site.connect(Version::V5, "c"), &topic);
    let begin = Instant::now();
    site.log_in(&connect.kept_for(1).will_delay(3600))
        .wire
        .reset();
    assert_eq!(watcher.take().text(), "will");
    assert!(begin.elapsed().as_millis() >= 900, "{:?}", begin.elapsed());
    assert!(!site.kept(Version::V5, "c").is_present(), "[MQTT-4.1.0-2]");
    watcher.expect_only_own_marker(1, &topic);
}

#[test]
fn mqtt_3_1_3_10_properties_of_a_will_are_passed_on_in_order() {
    let site = Site::new();
    let topic = site.topic("will");
    let mut watcher = watcher(&site, &topic);
    let mut connect = with_will(site.connect(Version::V5, "c"), &topic);
    let mut properties = vec![0x01, 1];
    properties.extend(property_text(0x03, b"text/plain"));
    properties.extend(property_text(0x08, b"answer/here"));
    properties.extend(property_text(0x09, &[0, 1, 255]));
    for (name, value) in [("z", "1"), ("a", "2"), ("z", "1"), ("", "")] {
        properties.extend(user_property(name, value));
    }
    connect.will_properties = properties.clone();
    connect.will_properties.extend([0x02, 0, 0, 1, 0]);
    site.log_in(&connect).wire.reset();
    let mut message = watcher.take();
    let expiry = message.number(0x02).expect("an expiry");
    assert!((250..=256).contains(&expiry), "{expiry}");
    message.properties.retain(|(id, _)| *id != 0x02);
    message.properties.sort_by_key(|(id, _)| *id); // stable: the order of user properties stays
    let expected = crate::common::client::read_properties(&properties);
    assert_eq!(message.properties, expected);
}

/// 3.1.1, 3.1.2-12: no will flag, no will.
#[test]
fn mqtt_3_1_2_11_without_the_flag_nothing_is_published() {
    for version in VERSIONS {
        let site = Site::new();
        let mut watcher = watcher(&site, &site.topic("#"));
        site.client(version, "c").wire.reset();
        site.client(version, "c").disconnect();
        watcher.expect_only_own_marker(1, &site.topic("marker"));
    }
}
