//! Clients that do not read, and what they cost others: nothing.

use crate::common::packets::{Connect, Version, publish, subscribe};
use crate::site::{Client, create_app, site_with};

#[test]
fn sec_82_a_slow_reader_loses_qos_0_and_nobody_else_does() {
    let (broker, token) = site_with(&[]);
    let mut slow = Client::connect(&broker, Version::V311, "slow", &token);
    slow.subscribe(&[("big/#", 0)]);
    let mut quick = Client::connect(&broker, Version::V311, "quick", &token);
    quick.subscribe(&[("big/#", 0)]);
    let mut publisher = Client::connect(&broker, Version::V311, "p", &token);
    let payload = "x".repeat(100_000);
    let dropped = "tollgate_deliveries_dropped_total{reason=\"slow_reader\"}";
    let mut sent = 0;
    while broker.metric(dropped) == 0.0 {
        publisher.publish(2, "big/x", &payload);
        quick.expect(0, "big/x", &payload);
        sent += 1;
        assert!(sent < 1_000, "nothing is ever dropped");
    }
    // It reads what was kept for it, and goes on.
    publisher.publish(2, "big/last", "");
    let mut got = slow.next();
    while got.topic != "big/last" {
        assert_eq!(got.payload.len(), payload.len());
        publisher.publish(0, "big/last", "");
        got = slow.next();
    }
}

#[test]
fn qos_1_waits_for_a_client_that_does_not_read() {
    let (broker, token) = site_with(&[]);
    let connect = Connect::with_token(Version::V5, "slow", &token);
    let (mut slow, _) = Client::with(&broker, &connect);
    slow.subscribe(&[("big/#", 1)]);
    let mut publisher = Client::connect(&broker, Version::V311, "p", &token);
    let payload = "x".repeat(100_000);
    for n in 0..60 {
        publisher.publish(2, &format!("big/{n}"), &payload);
    }
    for n in 0..60 {
        slow.expect(1, &format!("big/{n}"), &payload);
    }
}

/// More than one write takes: what is left does not wait for an acknowledgement, and keeps its
/// order whichever way it went.
#[test]
fn a_burst_comes_whole_and_in_order_to_a_client_that_acknowledges_nothing() {
    let (broker, token) = site_with(&[]);
    for (qos, filter) in [
        (0, "burst/#"),
        (1, "burst/#"),
        (2, "burst/#"),
        (1, "$share/group/burst/#"),
    ] {
        let name = format!("s{qos}{}", filter.len());
        let mut client = Client::connect(&broker, Version::V311, &name, &token);
        client.subscribe(&[(filter, qos)]);
        let mut publisher = Client::connect(&broker, Version::V311, "p", &token);
        let payload = [b'x'; 4_000];
        let mut flood = Vec::new();
        for id in 1..=90 {
            let topic = format!("burst/{id}");
            flood.extend(publish(Version::V311, qos, id, &topic, &payload));
        }
        publisher.wire.send(&flood);
        for id in 1..=90_u16 {
            let got = client.next_unacknowledged();
            assert_eq!(got.topic, format!("burst/{id}"), "{qos} {filter}");
            assert_eq!((got.qos, got.payload.len()), (qos, 4_000));
        }
    }
}

#[test]
fn a_full_inbox_stops_its_publishers_and_loses_nothing() {
    // One message fills the smallest inbox; what comes behind has to wait and is not lost.
    let (broker, token) = site_with(&[("TOLLGATE_LIMITS_INBOX_MAX_BYTES", "1048576")]);
    let mut subscribers: Vec<Client> = (0..6)
        .map(|n| {
            let mut client = Client::connect(&broker, Version::V5, &format!("s{n}"), &token);
            client
                .wire
                .send(&subscribe(Version::V5, 1, &[("flood/#", 1)]));
            client.wire.packet();
            client
        })
        .collect();
    let other = create_app(&broker, "other", &["flood/#"], &[]);
    let mut publisher = Client::connect(&broker, Version::V311, "p", &other);
    let payload = [b'x'; 60_000];
    let mut flood = Vec::new();
    for id in 1..=90 {
        flood.extend(publish(
            Version::V311,
            1,
            id,
            &format!("flood/{id}"),
            &payload,
        ));
    }
    publisher.wire.send(&flood);
    for id in 1..=90_u16 {
        for client in &mut subscribers {
            let got = client.next();
            assert_eq!(got.topic, format!("flood/{id}"));
        }
        let puback = publisher.wire.packet();
        assert_eq!(puback[2..4], id.to_be_bytes());
    }
}
