//! Chapter 4.8: shared subscriptions.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    common::{
        client::Client,
        packets::{VERSIONS, Version, packet},
        wire::{ANSWER_LIMIT, show},
    },
    site::Site,
};

/// Members of one group on one topic, at that QoS.
fn group(site: &Site, version: Version, names: &[&str], qos: u8) -> Vec<Client> {
    let filter = format!(
        "$share/{}/{}",
        site.topic("g").replace('/', "-"),
        site.topic("t")
    );
    let join = |name: &&str| {
        let mut member = site.kept(version, name);
        assert_eq!(member.subscribe(&filter, qos), qos, "{filter}");
        member
    };
    names.iter().map(join).collect()
}

/// Each message to one of them: who got what, in order, all acknowledged.
fn collect(members: &mut [Client], count: usize) -> BTreeMap<usize, Vec<u8>> {
    let mut seen: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let mut open = count;
    let deadline = Instant::now() + ANSWER_LIMIT;
    while open > 0 {
        assert!(
            Instant::now() < deadline,
            "{open} of {count} are missing: {seen:?}"
        );
        for (at, member) in members.iter_mut().enumerate() {
            while member.has_message() {
                let message = member.take();
                seen.entry(at).or_default().push(message.payload[0]);
                open -= 1;
            }
        }
    }
    seen
}

#[test]
fn mqtt_4_8_2_1_and_2_a_shared_filter_has_a_name_and_a_filter() {
    let site = Site::new();
    for version in VERSIONS {
        for filter in [
            "$share//t",
            "$share/g",
            "$share/g/",
            "$share/",
            "$share/+/t",
            "$share/g#/t",
            "$share/a+b/t",
            "$share/g/a#",
            "$share/g/#/a",
        ] {
            let mut client = site.client(version, "c");
            let bytes = crate::common::packets::subscribe(version, 1, &[(filter, 0)]);
            client.wire.send(&bytes);
            if let Some(answer) = client.wire.packet_or_close(ANSWER_LIMIT) {
                let code = *answer.last().expect("a code");
                match answer[0] {
                    0x90 if version == Version::V5 => assert_eq!(code, 0x8f, "{filter}"),
                    0x90 => assert_eq!(code, 0x80, "{filter}"),
                    _ => assert_eq!(answer[0], 0xe0, "{filter}: {}", show(&answer)),
                }
            }
        }
    }
}

#[test]
fn mqtt_4_8_2_each_message_goes_to_one_member_in_turn() {
    for version in VERSIONS {
        let site = Site::new();
        let mut members = group(&site, version, &["a", "b", "c"], 2);
        let mut publisher = site.client(version, "publisher");
        for qos in 0..3 {
            for number in 0..30 {
                assert_eq!(publisher.publish(qos, &site.topic("t"), &[number]), 0);
            }
            let seen = collect(&mut members, 30);
            let mut all: Vec<u8> = seen.values().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(
                all,
                (0..30).collect::<Vec<_>>(),
                "{version:?} QoS {qos}: {seen:?}"
            );
            // Fair: a third each, more or less.
            assert!(
                seen.values().all(|of| (5..=15).contains(&of.len())),
                "{seen:?}"
            );
        }
        for member in &mut members {
            assert!(!member.has_message());
        }
    }
}

#[test]
fn mqtt_4_8_2_groups_and_plain_subscribers_do_not_share_with_each_other() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut publisher = site.client(Version::V5, "publisher");
    let mut subscribers = Vec::new();
    for (name, filter) in [
        ("one", format!("$share/one/{topic}")),
        ("other", format!("$share/other/{topic}")),
        ("wild", format!("$share/one/{}", site.topic("+"))),
        ("plain", topic.clone()),
    ] {
        let mut subscriber = site.client(Version::V5, name);
        assert_eq!(subscriber.subscribe(&filter, 1), 1);
        subscribers.push(subscriber);
    }
    for number in 0..5 {
        assert_eq!(publisher.publish(1, &topic, &[number]), 0);
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.take().payload, [number]);
        }
    }
}

#[test]
fn mqtt_4_8_2_3_the_granted_qos_of_the_member_holds() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut publisher = site.client(Version::V5, "publisher");
    for granted in 0..=2 {
        let mut member = site.client(Version::V5, "member");
        assert_eq!(
            member.subscribe(&format!("$share/g/{topic}"), granted),
            granted
        );
        for published in 0..=2 {
            assert_eq!(publisher.publish(published, &topic, b"p"), 0);
            assert_eq!(member.take().qos, granted.min(published));
        }
    }
}

/// Sent, not acknowledged, and then the session is over: another member gets it.
#[test]
fn mqtt_4_8_2_qos_1_goes_on_to_another_member() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut members = group(&site, version, &["a"], 1);
        let mut first = members.remove(0);
        let mut publisher = site.client(version, "publisher");
        for number in 0..10 {
            assert_eq!(publisher.publish(1, &topic, &[number]), 0);
        }
        for number in 0..10 {
            assert_eq!(first.next().payload, [number]);
        }
        let mut members = group(&site, version, &["b"], 1);
        first.wire.reset();
        site.client(version, "a").disconnect(); // clean: the session of `a` is over
        let seen = collect(&mut members, 10);
        assert_eq!(seen[&0], (0..10).collect::<Vec<_>>(), "{version:?}");
    }
}

/// A member that is away gets nothing new as long as another one is there.
#[test]
fn mqtt_4_8_2_the_connected_members_go_first() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut members = group(&site, version, &["a", "b"], 1);
        members.remove(0).disconnect();
        let mut publisher = site.client(version, "publisher");
        for number in 0..10 {
            assert_eq!(publisher.publish(1, &topic, &[number]), 0);
        }
        assert_eq!(collect(&mut members, 10)[&0].len(), 10, "{version:?}");
        // Nobody there: it is kept for one of them.
        members.remove(0).disconnect();
        for number in 10..20 {
            assert_eq!(publisher.publish(1, &topic, &[number]), 0);
        }
        let mut members: Vec<_> = ["a", "b"].map(|name| site.kept(version, name)).into();
        let seen = collect(&mut members, 10);
        let mut all: Vec<u8> = seen.values().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (10..20).collect::<Vec<_>>(), "{version:?}");
    }
}

#[test]
fn mqtt_4_8_2_4_qos_2_that_was_sent_is_completed_by_its_member() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut members = group(&site, Version::V5, &["a"], 2);
    let mut publisher = site.client(Version::V5, "publisher");
    for payload in [b"a", b"b"] {
        assert_eq!(publisher.publish(2, &topic, payload), 0);
    }
    let mut first = members.remove(0);
    let open = [first.next(), first.next()];
    first.wire.send(&packet(0x50, &open[0].id.to_be_bytes()));
    assert_eq!(first.expect_ack(0x62, open[0].id), 0);
    first.wire.reset();
    let mut others = group(&site, Version::V5, &["b"], 2);
    let mut first = site.kept(Version::V5, "a");
    let again = first.next();
    assert_eq!((again.dup, again.id), (true, open[1].id));
    assert_eq!(first.expect_ack(0x62, open[0].id), 0);
    first.wire.send(&packet(0x70, &open[0].id.to_be_bytes()));
    first.acknowledge(&again);
    // Alone, the other one gets the marker, and nothing of what was the first one's.
    first.wire.send(&[0xe0, 0]);
    first.wire.skip_until_close();
    others[0].expect_only_marker(&mut publisher, 2, &topic);
}

#[test]
fn mqtt_4_8_2_5_qos_2_that_was_sent_goes_to_nobody_else() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut members = group(&site, Version::V5, &["a"], 2);
    let mut publisher = site.client(Version::V5, "publisher");
    assert_eq!(publisher.publish(2, &topic, b"p"), 0);
    let mut first = members.remove(0);
    assert_eq!(first.next().text(), "p");
    let mut others = group(&site, Version::V5, &["b"], 2);
    first.wire.reset();
    site.client(Version::V5, "a").disconnect();
    others[0].expect_only_marker(&mut publisher, 2, &topic);
}

#[test]
fn mqtt_4_8_2_6_what_a_member_refuses_is_done() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut members = group(&site, Version::V5, &["a", "b"], 2);
    let mut publisher = site.client(Version::V5, "publisher");
    for (qos, kind) in [(1, 0x40), (1, 0x40), (2, 0x50), (2, 0x50)] {
        assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
        let mut chosen = None;
        let deadline = Instant::now() + ANSWER_LIMIT;
        while chosen.is_none() {
            assert!(Instant::now() < deadline, "nobody has it");
            chosen = members.iter_mut().position(Client::has_message);
        }
        let member = &mut members[chosen.expect("one of them")];
        let id = member.next().id.to_be_bytes();
        member.wire.send(&packet(kind, &[id[0], id[1], 0x83]));
        member.wire.expect_alive();
    }
    assert_eq!(publisher.publish(1, &topic, b"last"), 0);
    let seen = collect(&mut members, 1);
    assert_eq!(seen.values().flatten().count(), 1, "{seen:?}");
}

#[test]
fn mqtt_3_3_1_9_shares_get_nothing_retained() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut client = site.client(Version::V5, "c");
    assert_eq!(client.retain(1, &topic, b"held"), 0);
    assert_eq!(client.subscribe(&format!("$share/g/{topic}"), 1), 1);
    client.expect_only_own_marker(1, &topic);
}

#[test]
fn mqtt_3_10_4_1_leaving_a_share_ends_it() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let filter = format!("$share/g/{topic}");
    let mut client = site.client(Version::V5, "c");
    assert_eq!(client.subscribe(&filter, 1), 1);
    assert_eq!(client.subscribe(&marker, 1), 1);
    // Neither the filter alone nor another group's is this subscription.
    let codes = client.unsubscribe(&[&topic, &format!("$share/h/{topic}")]);
    assert_eq!(codes, [0x11, 0x11]);
    assert_eq!(client.publish(1, &topic, b"p"), 0);
    assert_eq!(client.take().text(), "p");
    assert_eq!(client.unsubscribe(&[&filter]), [0]);
    assert_eq!(client.publish(1, &topic, b"p"), 0);
    client.expect_only_own_marker(1, &marker);
}

#[test]
fn mqtt_3_8_3_4_no_local_has_no_place_in_a_share() {
    let site = Site::new();
    let mut client = site.client(Version::V5, "c");
    let bytes = crate::common::packets::subscribe(Version::V5, 1, &[("$share/g/t", 4)]);
    client.wire.send(&bytes);
    client.expect_end(&[0x82]);
}
