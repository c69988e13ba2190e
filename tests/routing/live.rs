//! From publisher to subscriber while both are connected.

use crate::common::packets::{VERSIONS, Version};
use crate::site::{Client, create_app, site};

/// Clients of one token, on both workers.
fn clients(count: usize, version: Version) -> (crate::common::broker::Broker, Vec<Client>) {
    let (broker, token) = site();
    let clients = (0..count)
        .map(|n| Client::connect(&broker, version, &format!("client {n}"), &token))
        .collect();
    (broker, clients)
}

#[test]
fn a_message_reaches_every_subscriber_on_every_worker() {
    for version in VERSIONS {
        let (_broker, mut clients) = clients(8, version);
        let mut publisher = clients.pop().unwrap();
        for client in &mut clients {
            assert_eq!(client.subscribe(&[("a/+", 0)]), [0]);
        }
        for qos in 0..3_u8 {
            for n in 0..20 {
                publisher.publish(qos << 1, "a/b", &format!("{qos} {n}"));
            }
        }
        for client in &mut clients {
            for qos in 0..3_u8 {
                for n in 0..20 {
                    client.expect(0, "a/b", &format!("{qos} {n}"));
                }
            }
        }
    }
}

#[test]
fn a_publisher_gets_its_own_message_unless_it_says_no_local() {
    let (_broker, mut clients) = clients(1, Version::V5);
    let own = &mut clients[0];
    own.subscribe(&[("a", 0), ("b", 4)]);
    own.publish(0, "b", "not this");
    own.publish(0, "a", "this");
    own.expect(0, "a", "this");
}

#[test]
fn sec_30_sec_31_scopes_hold_for_publishing_and_for_each_delivery() {
    let (broker, token) = site();
    let narrow = create_app(&broker, "narrow", &["mine/#"], &["mine/#", "+/shared"]);
    let mut narrow = Client::connect(&broker, Version::V5, "n", &narrow);
    let mut all = Client::connect(&broker, Version::V5, "a", &token);
    assert_eq!(
        narrow.subscribe(&[("#", 0), ("mine/#", 0), ("+/shared", 0)]),
        [0x87, 0, 0]
    );
    assert_eq!(narrow.try_publish(2, &[], "other/x", "no"), 0x87);
    all.subscribe(&[("#", 0)]);
    narrow.publish(2, "mine/x", "yes");
    all.expect(0, "mine/x", "yes");
    all.publish(0, "other/x", "no");
    all.publish(0, "other/shared", "yes");
    narrow.expect(0, "mine/x", "yes");
    narrow.expect(0, "other/shared", "yes");
}

#[test]
fn mqtt_4_7_2_1_wildcards_do_not_see_dollar_topics_and_nobody_publishes_there() {
    let (broker, token) = site();
    let mut client = Client::connect(&broker, Version::V5, "c", &token);
    assert_eq!(client.try_publish(2, &[], "$SYS/x", "no"), 0x87);
    assert_eq!(client.try_publish(2, &[], "v2/t", "no"), 0x87);
}

#[test]
fn an_unsubscribed_filter_gets_nothing_more() {
    let (_broker, mut clients) = clients(2, Version::V5);
    let (a, b) = clients.split_at_mut(1);
    a[0].subscribe(&[("x", 0), ("marker", 0)]);
    b[0].publish(0, "x", "1");
    a[0].expect(0, "x", "1");
    assert_eq!(a[0].unsubscribe("x"), [0, 0]);
    assert_eq!(a[0].unsubscribe("x"), [0, 0x11]);
    b[0].publish(0, "x", "2");
    a[0].expect_nothing_before(&mut b[0], "marker");
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let (_broker, mut clients) = clients(2, Version::V5);
    let (a, b) = clients.split_at_mut(1);
    a[0].subscribe_with(&[0x0b, 7], &[("x/#", 0)]);
    a[0].subscribe_with(&[0x0b, 9], &[("x/+", 0)]);
    a[0].subscribe(&[("x/y", 0)]);
    b[0].publish(0, "x/y", "1");
    let got = a[0].expect(0, "x/y", "1");
    let mut ids: Vec<u8> = got.properties.chunks(2).map(|pair| pair[1]).collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 9], "{got:?}");
    b[0].publish(0, "x/y", "2");
    a[0].expect(0, "x/y", "2");
}
