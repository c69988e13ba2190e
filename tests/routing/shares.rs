//! Share groups.

use std::collections::BTreeSet;

use crate::common::packets::{Connect, Version};
use crate::site::{Client, Got, site};

fn members(count: usize) -> (crate::common::broker::Broker, Client, Vec<Client>) {
    let (broker, token) = site();
    let members = (0..count)
        .map(|n| {
            let name = format!("m{n}");
            let mut member = Client::connect(&broker, Version::V5, &name, &token);
            assert_eq!(
                member.subscribe(&[("$share/g/s/+", 2), ("marker", 2)]),
                [2, 2]
            );
            member
        })
        .collect();
    let publisher = Client::connect(&broker, Version::V5, "p", &token);
    (broker, publisher, members)
}

/// Everything until the marker.
fn until_marker(client: &mut Client) -> Vec<Got> {
    let mut all = Vec::new();
    loop {
        let got = client.next_unacknowledged();
        if got.topic == "marker" {
            return all;
        }
        all.push(got);
    }
}

#[test]
fn mqtt_4_8_2_4_each_message_goes_to_one_member_and_members_take_turns() {
    let (_broker, mut publisher, mut members) = members(3);
    for n in 0..30 {
        publisher.publish(0, "s/x", &n.to_string());
    }
    publisher.publish(2, "marker", "");
    let shares: Vec<Vec<Got>> = members.iter_mut().map(until_marker).collect();
    let all: BTreeSet<&str> = shares
        .iter()
        .flatten()
        .map(|got| got.payload.as_str())
        .collect();
    assert_eq!(all.len(), 30);
    assert!(shares.iter().all(|share| share.len() == 10), "fair shares");
}

#[test]
fn mqtt_4_8_2_5_what_a_member_leaves_unacknowledged_goes_to_another() {
    let (_broker, mut publisher, mut members) = members(2);
    for n in 0..10 {
        publisher.publish(2, "s/x", &n.to_string());
    }
    publisher.publish(2, "marker", "");
    let mut seen = BTreeSet::new();
    let left = members.pop().unwrap();
    let mut stays = members.pop().unwrap();
    for got in until_marker(&mut stays) {
        stays.acknowledge(&got);
        seen.insert(got.payload);
    }
    assert_eq!(seen.len(), 5);
    left.disconnect();
    for _ in 0..5 {
        let got = stays.next();
        assert!(!got.dup, "it is new to this member: {got:?}");
        seen.insert(got.payload);
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn a_group_without_a_connected_member_keeps_messages_for_a_kept_one() {
    let (broker, token) = site();
    let keeps = Connect {
        clean: false,
        properties: vec![0x11, 0, 0, 14, 16],
        ..Connect::with_token(Version::V5, "k", &token)
    };
    let (mut kept, _) = Client::with(&broker, &keeps);
    kept.subscribe(&[("$share/g/s/+", 1)]);
    kept.disconnect();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(2, "s/x", "1");
    let (mut kept, _) = Client::with(&broker, &keeps);
    kept.expect(1, "s/x", "1");
    // With a connected member it gets nothing while it is away.
    kept.disconnect();
    let mut other = Client::connect(&broker, Version::V5, "o", &token);
    other.subscribe(&[("$share/g/s/+", 1)]);
    for n in 0..5 {
        publisher.publish(2, "s/x", &n.to_string());
        other.expect(1, "s/x", &n.to_string());
    }
}

#[test]
fn sec_32_a_group_gives_no_more_than_its_filter() {
    let (broker, _) = site();
    let narrow = crate::site::create_app(&broker, "narrow", &[], &["mine/#"]);
    let mut client = Client::connect(&broker, Version::V5, "n", &narrow);
    assert_eq!(
        client.subscribe(&[("$share/g/#", 0), ("$share/g/mine/x", 1)]),
        [0x87, 1]
    );
}

#[test]
fn mqtt_4_8_2_a_clean_start_gives_what_was_open_to_the_others() {
    let (broker, token) = site();
    for version in [Version::V311, Version::V5] {
        let keeps = Connect {
            clean: false,
            properties: vec![0x11, 0, 0, 14, 16],
            ..Connect::with_token(version, "k", &token)
        };
        let (mut kept, _) = Client::with(&broker, &keeps);
        kept.subscribe(&[("$share/g/s/+", 1)]);
        let mut publisher = Client::connect(&broker, version, "p", &token);
        for n in 0..10 {
            publisher.publish(2, "s/x", &n.to_string());
        }
        for _ in 0..10 {
            kept.next_unacknowledged();
        }
        let mut other = Client::connect(&broker, version, "o", &token);
        other.subscribe(&[("$share/g/s/+", 1)]);
        let clean = Connect {
            clean: true,
            ..keeps.clone()
        };
        let (kept, _) = Client::with(&broker, &clean);
        let mut all: Vec<u32> = (0..10)
            .map(|_| other.next().payload.parse().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        kept.disconnect();
        other.disconnect();
    }
}
