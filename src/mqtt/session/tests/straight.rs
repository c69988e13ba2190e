//! QoS 1 past the queue: a session that ends with its connection need not hold what it wrote.

use super::delivery::{NOW_MS, line, message, published};
use super::*;
use crate::mqtt::message::Message;
use crate::mqtt::session::outbound::queue::QueueLimits;
use crate::mqtt::wire::PublishProperties;

const ONE: QoS = QoS::AtLeastOnce;

/// A client, and what a message is encoded with.
struct Receiver {
    client: Client,
    encoded: Encoded,
}

impl Receiver {
    fn new(wish: &Connect<'_>) -> Self {
        Self {
            client: Client::opened(wish, None),
            encoded: Encoded::default(),
        }
    }

    /// "MustWait", why it is left out, or the packet that was written.
    fn straight(&mut self, payload: &str) -> String {
        self.encoded.begin();
        self.message(&message("top/ic", payload, ONE), &[])
    }

    fn message(&mut self, message: &Message, ids: &[u32]) -> String {
        let mut out = Vec::new();
        let session = &mut self.client.session;
        let how = (false, ids);
        let sent = session.send_qos_1(message, how, NOW_MS, &mut self.encoded, &mut out);
        match sent {
            Straight::Sent => line(session.version(), &out),
            other => {
                assert!(out.is_empty(), "{other:?}");
                format!("{other:?}")
            }
        }
    }
}

fn window(receive_maximum: u16) -> Connect<'static> {
    let mut wish = connect(Version::V5);
    wish.properties.receive_maximum = Some(receive_maximum);
    wish
}

#[test]
fn mqtt_4_9_0_1_a_straight_message_takes_a_place_until_it_is_acknowledged() {
    for version in [Version::V311, Version::V5] {
        let mut receiver = Receiver::new(&connect(version));
        assert_eq!(receiver.straight("a"), "publish 1 qos 1 top/ic a");
        assert_eq!(receiver.straight("b"), "publish 2 qos 1 top/ic b");
        assert!(receiver.client.session.state().queue.is_empty());
        assert!(!receiver.client.session.has_outgoing());
        assert_eq!(receiver.client.send("4002 0001").unwrap(), "settled 0");
        assert_eq!(receiver.client.send("4002 0001").unwrap(), "done");
    }
    let mut receiver = Receiver::new(&window(2));
    for (payload, expected) in [("a", 1), ("b", 2)] {
        let expected = format!("publish {expected} qos 1 top/ic {payload}");
        assert_eq!(receiver.straight(payload), expected);
    }
    assert_eq!(receiver.straight("c"), "MustWait");
    assert_eq!(receiver.client.send("4002 0001").unwrap(), "settled 0");
    assert_eq!(receiver.straight("d"), "publish 3 qos 1 top/ic d");
}

#[test]
fn mqtt_4_6_0_5_nothing_goes_past_what_waits() {
    let mut receiver = Receiver::new(&window(3));
    assert_eq!(receiver.straight("a"), "publish 1 qos 1 top/ic a");
    receiver.client.offer("b", QoS::ExactlyOnce, 0);
    assert_eq!(receiver.straight("c"), "MustWait");
    receiver.client.offer("c", ONE, 0);
    assert_eq!(
        receiver.client.outgoing(),
        ["publish 2 qos 2 top/ic b", "publish 3 qos 1 top/ic c"]
    );
    // Those are sent, not acknowledged: they wait for nothing that would come before a third.
    assert_eq!(receiver.straight("d"), "MustWait", "the window is full");
    assert_eq!(receiver.client.send("4002 0003").unwrap(), "settled 0");
    assert_eq!(receiver.straight("d"), "publish 4 qos 1 top/ic d");
    assert_eq!(receiver.client.send("4002 0004").unwrap(), "settled 0");
    assert_eq!(receiver.client.send("4002 0001").unwrap(), "settled 0");
    assert_eq!(receiver.client.session.state().queue.len(), 1, "QoS 2");
}

#[test]
fn sec_82_straight_messages_count_among_those_that_wait() {
    let mut receiver = Receiver::new(&connect(Version::V311));
    let QueueLimits { messages_max, .. } = LIMITS.queue;
    for _ in 0..messages_max {
        assert!(receiver.straight("x").starts_with("publish"));
    }
    assert_eq!(receiver.straight("x"), "MustWait");
    let offer = |receiver: &mut Receiver| {
        let how = Delivered {
            qos: ONE,
            ..Delivered::default()
        };
        let session = &mut receiver.client.session;
        session.offer(message("top/ic", "y", ONE), how)
    };
    assert_eq!(offer(&mut receiver), Err(Full::Messages));
    assert_eq!(receiver.client.send("4002 0001").unwrap(), "settled 0");
    assert_eq!(offer(&mut receiver), Ok(()));
    assert_eq!(offer(&mut receiver), Err(Full::Messages));
    // The one that waited is a message like any other.
    let outgoing = receiver.client.outgoing();
    let id = u16::try_from(messages_max + 1).unwrap();
    assert_eq!(outgoing, [format!("publish {id} qos 1 top/ic y")]);
    assert_eq!(receiver.straight("z"), "MustWait");
    let ack = format!("4002 {id:04x}");
    assert_eq!(receiver.client.send(&ack).unwrap(), "settled 0");
    assert!(receiver.straight("z").starts_with("publish"));
}

#[test]
fn mqtt_3_1_2_25_what_is_too_large_or_too_old_takes_no_place() {
    let mut wish = window(1);
    wish.properties.packet_size_max = Some(50);
    let mut receiver = Receiver::new(&wish);
    for ids in [&[][..], &[7]] {
        receiver.encoded.begin();
        let large = message("top/ic", &"x".repeat(50), ONE);
        assert_eq!(receiver.message(&large, ids), "LeftOut(TooLarge)");
    }
    let expiring = PublishProperties {
        message_expiry_s: Some(0),
        ..PublishProperties::default()
    };
    let old = published("top/ic", "old", ONE, expiring);
    assert_eq!(receiver.message(&old, &[]), "LeftOut(Expired)");
    assert_eq!(receiver.straight("a"), "publish 3 qos 1 top/ic a");
}

#[test]
fn one_encoding_at_qos_1_has_each_subscribers_own_id() {
    let mut encoded = Encoded::default();
    let shared = message("top/ic", "a", ONE);
    for version in [Version::V311, Version::V5] {
        let mut first = Client::connected(version);
        let mut second = Client::connected(version);
        let mut send = |client: &mut Client, ids: &[u32]| {
            let mut out = Vec::new();
            let session = &mut client.session;
            let sent = session.send_qos_1(&shared, (false, ids), NOW_MS, &mut encoded, &mut out);
            assert_eq!(sent, Straight::Sent);
            line(version, &out)
        };
        assert_eq!(send(&mut first, &[]), "publish 1 qos 1 top/ic a");
        assert_eq!(send(&mut first, &[]), "publish 2 qos 1 top/ic a");
        assert_eq!(send(&mut second, &[]), "publish 1 qos 1 top/ic a");
        // Identifiers are each subscriber's own: nothing shared.
        if version == Version::V5 {
            assert_eq!(send(&mut second, &[9]), "publish 2 qos 1 top/ic a id 9");
        }
        assert_eq!(send(&mut first, &[]), "publish 3 qos 1 top/ic a");
    }
}

#[test]
fn mqtt_3_3_2_9_aliases_serve_straight_messages_too() {
    let mut wish = window(9);
    wish.properties.topic_alias_maximum = Some(1);
    let mut receiver = Receiver::new(&wish);
    assert_eq!(receiver.straight("a"), "publish 1 qos 1 top/ic a alias 1");
    assert_eq!(receiver.straight("b"), "publish 2 qos 1  b alias 1");
}
