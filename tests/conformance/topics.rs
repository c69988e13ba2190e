//! Chapter 4.7: topic names and filters, each pair through the broker.

use crate::{
    common::{
        client::{Client, publish_bytes},
        packets::{VERSIONS, Version, packet},
        wire::{ANSWER_LIMIT, show},
    },
    site::Site,
};

/// Filter, topics that it matches, topics that it does not.
const MATCHES: &[(&str, &[&str], &[&str])] = &[
    (
        "sport/#",
        &["sport", "sport/", "sport/a", "sport/a/b"],
        &["sports", "Sport", "/sport"],
    ),
    (
        "sport/+",
        &["sport/", "sport/a"],
        &["sport", "sport/a/b", "sports/a"],
    ),
    ("+/a", &["/a", "b/a"], &["a", "b/a/", "b/b/a"]),
    ("/+", &["/", "/a"], &["a", "a/b", "/a/b"]),
    ("+/+", &["/", "a/b", "/a", "a/"], &["a", "a/b/c"]),
    ("+", &["a", "\u{e9}", " "], &["/", "a/b", "/a"]),
    ("#", &["a", "/", "a/b/c", "/a"], &["$a", "$a/b"]),
    ("a//b", &["a//b"], &["a/b", "a/x/b"]),
    ("a/+/b", &["a//b", "a/x/b"], &["a/b", "a/x/y/b"]),
    ("+/b/#", &["a/b", "/b/c"], &["b", "$a/b", "a/c/b"]),
    (
        "caf\u{e9}",
        &["caf\u{e9}"],
        &["cafe\u{301}", "cafe", "CAF\u{c9}"],
    ),
    ("a b", &["a b"], &["a%20b", "ab", "a  b", "a b "]),
];

/// A broker that nobody else publishes to: these filters begin with wildcards.
#[test]
fn mqtt_4_7_1_1_to_4_7_3_4_filters_match_what_they_say() {
    let site = Site::alone(&[]);
    for version in VERSIONS {
        let mut subscriber = site.client(version, "s");
        let mut publisher = site.client(version, "publisher");
        assert_eq!(subscriber.subscribe("marker", 1), 1);
        for (filter, matching, others) in MATCHES {
            assert_eq!(subscriber.subscribe(filter, 1), 1, "{filter}");
            for topic in *matching {
                assert_eq!(publisher.publish(1, topic, b"p"), 0, "{topic}");
                assert_eq!(subscriber.take().topic, *topic, "{filter} {version:?}");
            }
            for topic in *others {
                let _ = publisher.publish_at_all(topic);
            }
            // The marker itself matches some of them: it comes once.
            subscriber.expect_only_marker(&mut publisher, 1, "marker");
            subscriber.unsubscribe(&[filter]);
        }
    }
}

impl Client {
    /// Publishes at QoS 1 on a topic that may be refused; whether the connection goes on.
    fn publish_at_all(&mut self, topic: &str) -> bool {
        if self.version != Version::V5 && topic.starts_with('$') {
            return true; // a client of 3.1.1 would be cut off
        }
        self.publish(1, topic, b"p") < 0x80
    }
}

#[test]
fn mqtt_4_7_0_1_wildcards_are_for_filters() {
    let site = Site::new();
    for version in VERSIONS {
        for topic in ["a/+", "+", "#", "a/#", "a+b", "a#"] {
            let mut client = site.client(version, "c");
            client.send_publish(0, 0, topic, &[], b"p");
            client.expect_end(&[0x81, 0x82, 0x90]);
        }
    }
}

#[test]
fn mqtt_4_7_1_1_and_2_wildcards_fill_their_level_and_hash_is_last() {
    let site = Site::new();
    for version in VERSIONS {
        for filter in ["a#", "a/#/b", "#/a", "a+", "+a", "a/b+/c", "##", "a/++"] {
            let mut client = site.client(version, "c");
            let bytes = crate::common::packets::subscribe(version, 1, &[(filter, 0)]);
            client.wire.send(&bytes);
            if let Some(answer) = client.wire.packet_or_close(ANSWER_LIMIT) {
                let code = *answer.last().expect("a code");
                match answer[0] {
                    0x90 if version == Version::V5 => assert_eq!(code, 0x8f, "{filter}"),
                    0x90 => assert_eq!(code, 0x80, "{filter}"),
                    0xe0 => assert!([0x81, 0x82, 0x8f].contains(&answer[2]), "{}", show(&answer)),
                    _ => panic!("{filter}: {}", show(&answer)),
                }
            }
        }
    }
}

/// P-50 and S-13's kind: `$` is closed, and no wildcard of the first level reaches it.
#[test]
fn mqtt_4_7_2_1_dollar_topics_are_not_for_clients() {
    let site = Site::alone(&[]);
    let mut watcher = site.client(Version::V5, "watcher");
    for filter in ["#", "+/x", "+/#"] {
        assert_eq!(watcher.subscribe(filter, 2), 2);
    }
    let mut client = site.client(Version::V5, "c");
    for topic in ["$SYS/x", "$foo/x", "$share/g/x", "$"] {
        for qos in [1, 2] {
            assert_eq!(client.publish(qos, topic, b"p"), 0x87, "{topic}");
        }
        assert_eq!(client.publish_with(0, topic, &[], b"p"), 0);
    }
    watcher.expect_only_marker(&mut client, 1, "a/b");
    for version in [Version::V31, Version::V311] {
        // Acknowledged and dropped, or closed; never delivered.
        let mut old = site.client(version, "old");
        old.send_publish(2, 1, "$SYS/x", &[], b"p");
        let _ = old.wire.packet_or_close(ANSWER_LIMIT);
        watcher.expect_only_own_marker(1, "a/b");
    }
}

#[test]
fn mqtt_4_7_3_1_to_3_names_have_a_character_and_an_end() {
    let site = Site::new();
    for version in VERSIONS {
        for topic in ["", "a\0b"] {
            let mut client = site.client(version, "c");
            client
                .wire
                .send(&publish_bytes(version, 0, 0, topic, &[], b"p"));
            client.expect_end(&[0x81, 0x82, 0x90]);
            let mut client = site.client(version, "c");
            let bytes = crate::common::packets::subscribe(version, 1, &[(topic, 0)]);
            client.wire.send(&bytes);
            client.expect_end(&[0x81, 0x82, 0x8f]);
        }
    }
    // Our own limits are below 65,535: 4,096 bytes and 128 levels.
    let mut client = site.client(Version::V5, "c");
    let head = site.topic("");
    let longest = format!("{head}{}", "x".repeat(4096 - head.len()));
    let deepest = format!("{head}{}", "/".repeat(126));
    for topic in [&longest, &deepest] {
        assert_eq!(client.subscribe(topic, 1), 1);
        client.expect_only_own_marker(1, topic);
    }
    for topic in [format!("{longest}x"), format!("{deepest}/")] {
        let mut client = site.client(Version::V5, "c");
        client
            .wire
            .send(&publish_bytes(Version::V5, 2, 1, &topic, &[], b"p"));
        let answer = client.wire.packet();
        assert!(
            (answer[0] == 0x40 && answer[4] == 0x90) || answer[0] == 0xe0,
            "{}",
            show(&answer)
        );
    }
}

/// Case, blanks, and letters composed in different ways are different.
#[test]
fn mqtt_4_7_3_4_nothing_is_normalised() {
    for version in VERSIONS {
        let site = Site::new();
        let mut client = site.client(version, "c");
        let filter = site.topic("Caf\u{e9}/\u{212b}");
        assert_eq!(client.subscribe(&filter, 1), 1);
        for rest in [
            "caf\u{e9}/\u{212b}",
            "Cafe\u{301}/\u{212b}",
            "Caf\u{e9}/\u{c5}",
            "Caf\u{e9}/A\u{30a}",
        ] {
            assert_eq!(client.publish(1, &site.topic(rest), b"p"), 0);
        }
        client.expect_only_own_marker(1, &filter);
    }
}

/// A SUBSCRIBE whose filter is longer than ours may be is refused without harm.
#[test]
fn mqtt_4_7_3_3_a_filter_of_65535_bytes_is_refused() {
    let site = Site::new();
    let mut body = vec![0, 1, 0];
    crate::common::packets::text(&mut body, &"x".repeat(65_535));
    body.push(0);
    let mut client = site.client(Version::V5, "c");
    client.wire.send(&packet(0x82, &body));
    let answer = client.wire.packet();
    match answer[0] {
        0x90 => assert!(*answer.last().expect("a code") >= 0x80),
        _ => assert_eq!(answer[0], 0xe0, "{}", show(&answer)),
    }
}
