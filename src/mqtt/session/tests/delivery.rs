//! What goes to the client: the queue, QoS 1 and 2, reconnects, aliases, wills.

use super::*;
use crate::mqtt::message::{Content, Message, Publisher};
use crate::mqtt::wire::{Publish, PublishProperties, Will, WillProperties};

pub(super) const NOW_MS: u64 = 1_000_000;

pub(super) fn message(topic: &str, payload: &str, qos: QoS) -> Arc<Message> {
    published(topic, payload, qos, PublishProperties::default())
}

pub(super) fn published(
    topic: &str,
    payload: &str,
    qos: QoS,
    properties: PublishProperties<'_>,
) -> Arc<Message> {
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: None,
        properties,
        payload: payload.as_bytes(),
    };
    let topic = Topic::new(topic).unwrap();
    Message::of_publish(&publish, topic, Publisher::default(), NOW_MS)
}

fn how(qos: QoS, offset: u64) -> Delivered {
    Delivered {
        qos,
        offset,
        ..Delivered::default()
    }
}

impl Client {
    /// Offers `payload` on topic "top/ic", at `qos`, with this offset.
    pub(super) fn offer(&mut self, payload: &str, qos: QoS, offset: u64) {
        let message = message("top/ic", payload, qos);
        self.session.offer(message, how(qos, offset)).unwrap();
    }

    /// Everything that goes now, a line for each step.
    pub(super) fn outgoing(&mut self) -> Vec<String> {
        self.outgoing_at(NOW_MS)
    }

    fn outgoing_at(&mut self, now_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut out = Vec::new();
            let may = |topic: Topic<'_>| topic.as_str() != "secret";
            let outgoing = self.session.next_outgoing(now_ms, may, &mut out);
            lines.push(match outgoing {
                Outgoing::Publish { .. } | Outgoing::Release => self.line(&out),
                Outgoing::Assign { offset, packet_id } => format!("assign {offset} {packet_id}"),
                Outgoing::LeftOut { offset, why } => format!("left out {offset} {why:?}"),
                Outgoing::Nothing => return lines,
            });
        }
    }

    fn line(&self, packet: &[u8]) -> String {
        line(self.session.version(), packet)
    }

    /// The same client again, after its connection was lost.
    fn reconnected(self) -> Self {
        let mut session = self.session;
        let wish = Connect {
            clean_start: false,
            ..connect(session.version())
        };
        Self::opened(&wish, Some(session.take_state()))
    }
}

/// "publish ID QOS [dup] [retain] TOPIC PAYLOAD [ids]", or what else it is.
pub(super) fn line(version: Version, packet: &[u8]) -> String {
    match decode(version, Sender::Server, packet).unwrap() {
        Packet::Publish(publish) => {
            let id = publish.packet_id.map_or(0, PacketId::get);
            let mut line = format!("publish {id} qos {}", publish.qos.as_u8());
            for (is, word) in [(publish.dup, " dup"), (publish.retain, " retain")] {
                if is {
                    line.push_str(word);
                }
            }
            let payload = String::from_utf8_lossy(publish.payload);
            line.push_str(&format!(" {} {payload}", publish.topic));
            let PublishProperties {
                topic_alias,
                message_expiry_s,
                ..
            } = publish.properties;
            for (value, word) in [
                (topic_alias.map(u32::from), "alias"),
                (message_expiry_s, "expiry"),
            ] {
                if let Some(value) = value {
                    line.push_str(&format!(" {word} {value}"));
                }
            }
            for id in publish.properties.subscription_ids.iter() {
                line.push_str(&format!(" id {id}"));
            }
            line
        }
        Packet::PubRel(ack) => format!("pubrel {}", ack.packet_id),
        other => format!("{other:?}"),
    }
}

const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

#[test]
fn mqtt_4_3_2_qos_1_is_sent_until_it_is_acknowledged() {
    let mut client = Client::connected(Version::V311);
    client.offer("a", ONE, 71);
    client.offer("b", ONE, 72);
    assert_eq!(
        client.outgoing(),
        ["publish 1 qos 1 top/ic a", "publish 2 qos 1 top/ic b"]
    );
    assert_eq!(client.send("4002 0001").unwrap(), "settled 71");
    assert_eq!(client.send("4002 0001").unwrap(), "done", "only once");
    assert!(client.outgoing().is_empty());
    // [MQTT-4.4.0-1]: the same id, with DUP [MQTT-3.3.1-1].
    let mut client = client.reconnected();
    client.offer("c", ONE, 73);
    assert_eq!(
        client.outgoing(),
        ["publish 2 qos 1 dup top/ic b", "publish 3 qos 1 top/ic c"]
    );
    assert_eq!(client.send("4002 0002").unwrap(), "settled 72");
    assert_eq!(client.send("4002 0003").unwrap(), "settled 73");
    assert!(client.session.state().queue.is_empty());
    assert!(client.session.state().in_flight.is_empty());
}

#[test]
fn mqtt_4_3_3_qos_2_waits_for_its_record_then_pubrec_pubrel_pubcomp() {
    let mut client = Client::connected(Version::V5);
    client.offer("a", TWO, 71);
    assert_eq!(client.outgoing(), ["assign 71 1"]);
    assert!(client.outgoing().is_empty(), "not before it is durable");
    client.session.assigned(PacketId::new(1).unwrap());
    assert_eq!(client.outgoing(), ["publish 1 qos 2 top/ic a"]);
    assert_eq!(client.send("5002 0001").unwrap(), "received 71 as 1");
    assert_eq!(client.ordered(), "62020001", "PUBREL, behind the record");
    assert_eq!(
        client.session.state().queue.bytes(),
        0,
        "the message is let go"
    );
    // PUBREC again: PUBREL again.
    assert_eq!(client.send("5002 0001").unwrap(), "done");
    assert_eq!(client.ordered(), "62020001");
    assert_eq!(client.send("7002 0001").unwrap(), "settled 71");
    assert_eq!(client.send("7002 0001").unwrap(), "done");
    assert!(client.session.state().in_flight.is_empty());
}

#[test]
fn a_message_without_a_record_goes_at_once_at_qos_2() {
    let mut client = Client::connected(Version::V311);
    client.offer("a", TWO, 0);
    assert_eq!(client.outgoing(), ["publish 1 qos 2 top/ic a"]);
    assert_eq!(client.send("5002 0001").unwrap(), "received 0 as 1");
    assert_eq!(client.send("7002 0001").unwrap(), "settled 0");
}

#[test]
fn mqtt_4_4_0_1_what_was_released_is_released_again_before_the_rest() {
    let mut client = Client::connected(Version::V5);
    for (payload, qos) in [("a", TWO), ("b", ONE), ("c", TWO)] {
        client.offer(payload, qos, 0);
    }
    client.outgoing();
    // PUBREC of the last comes first: PUBRELs keep that order [MQTT-4.6.0-4].
    client.send("5002 0003").unwrap();
    client.send("5002 0001").unwrap();
    assert_eq!(client.ordered(), "6202000362020001");
    let mut client = client.reconnected();
    assert_eq!(
        client.outgoing(),
        ["pubrel 3", "pubrel 1", "publish 2 qos 1 dup top/ic b"]
    );
    // And again, as nothing was acknowledged.
    let mut client = client.reconnected();
    assert_eq!(client.send("7002 0003").unwrap(), "settled 0");
    assert_eq!(
        client.outgoing(),
        ["pubrel 1", "publish 2 qos 1 dup top/ic b"]
    );
}

#[test]
fn mqtt_4_3_3_4_a_pubrec_with_an_error_ends_the_message() {
    let mut client = Client::connected(Version::V5);
    client.offer("a", TWO, 0);
    client.outgoing();
    assert_eq!(client.send("5003 0001 97").unwrap(), "settled 0");
    assert_eq!(client.ordered(), "", "no PUBREL");
    assert!(client.reconnected().outgoing().is_empty());
}

#[test]
fn p_41_p_42_acknowledgements_of_nothing() {
    let mut client = Client::connected(Version::V5);
    assert_eq!(client.send("4002 1234").unwrap(), "done");
    assert_eq!(client.send("7002 1234").unwrap(), "done");
    assert_eq!(client.send("5002 1234").unwrap(), "done");
    assert_eq!(hex(&client.replies.prompt), "6203123492");
    client.replies.clear();
    assert_eq!(client.send("5003 1234 80").unwrap(), "done");
    assert_eq!(hex(&client.replies.prompt), "", "an error wants no PUBREL");
    let mut old = Client::connected(Version::V311);
    old.send("5002 1234").unwrap();
    assert_eq!(hex(&old.replies.prompt), "62021234");
}

#[test]
fn an_acknowledgement_of_the_wrong_qos_ends_the_connection() {
    let close = Err(Close::because(ReasonCode::ProtocolError));
    for (qos, hex) in [
        (TWO, "4002 0001"),
        (ONE, "5002 0001"),
        (ONE, "5003 0001 80"),
        (ONE, "7002 0001"),
        (TWO, "7002 0001"),
    ] {
        let mut client = Client::connected(Version::V5);
        client.offer("a", qos, 0);
        client.outgoing();
        assert_eq!(client.send(hex), close, "{hex} for {qos:?}");
    }
}

#[test]
fn mqtt_3_3_4_9_no_more_are_open_than_the_client_takes() {
    let mut wish = connect(Version::V5);
    wish.properties.receive_maximum = Some(2);
    let mut client = Client::opened(&wish, None);
    for (payload, qos) in [("a", TWO), ("b", ONE), ("c", ONE), ("d", ONE)] {
        client.offer(payload, qos, 0);
    }
    assert_eq!(client.outgoing().len(), 2);
    assert_eq!(client.send("4002 0002").unwrap(), "settled 0");
    let third = client.outgoing();
    assert_eq!(third, ["publish 3 qos 1 top/ic c"], "one was open");
    client.send("5002 0001").unwrap();
    assert!(client.outgoing().is_empty(), "until PUBCOMP [MQTT-4.9.0-2]");
    client.send("7002 0001").unwrap();
    assert_eq!(client.outgoing(), ["publish 4 qos 1 top/ic d"]);
}

#[test]
fn a_smaller_receive_maximum_holds_back_what_is_sent_again() {
    let mut client = Client::connected(Version::V5);
    for payload in ["a", "b", "c"] {
        client.offer(payload, ONE, 0);
    }
    client.outgoing();
    let mut wish = connect(Version::V5);
    wish.clean_start = false;
    wish.properties.receive_maximum = Some(1);
    let mut client = Client::opened(&wish, Some(client.session.take_state()));
    for id in 1..=3 {
        let payload = ["a", "b", "c"][id - 1];
        assert_eq!(
            client.outgoing(),
            [format!("publish {id} qos 1 dup top/ic {payload}")]
        );
        client.send(&format!("4002 000{id}")).unwrap();
    }
}

#[test]
fn mqtt_4_6_0_5_nothing_overtakes_a_message_that_waits_for_its_record() {
    let mut client = Client::connected(Version::V5);
    for (payload, qos, offset) in [("a", TWO, 71), ("b", ONE, 72), ("c", TWO, 73)] {
        client.offer(payload, qos, offset);
    }
    // Ids are given ahead, so that one sync serves them all.
    assert_eq!(client.outgoing(), ["assign 71 1", "assign 73 3"]);
    client.session.assigned(PacketId::new(1).unwrap());
    assert_eq!(
        client.outgoing(),
        ["publish 1 qos 2 top/ic a", "publish 2 qos 1 top/ic b"]
    );
    client.session.assigned(PacketId::new(3).unwrap());
    assert_eq!(client.outgoing(), ["publish 3 qos 2 top/ic c"]);
}

#[test]
fn an_id_that_was_recorded_but_never_used_is_used_after_the_reconnect() {
    let mut client = Client::connected(Version::V5);
    client.offer("a", TWO, 71);
    assert_eq!(client.outgoing(), ["assign 71 1"]);
    // CONNACK waits for everything recorded, so the id is durable; and it was never sent: no DUP.
    assert_eq!(
        client.reconnected().outgoing(),
        ["publish 1 qos 2 top/ic a"]
    );
}

#[test]
fn the_newest_message_is_the_one_that_does_not_fit() {
    let mut client = Client::connected(Version::V5);
    for payload in ["a", "b", "c", "d", "e"] {
        client.offer(payload, ONE, 0);
    }
    let one_more = message("top/ic", "f", ONE);
    let session = &mut client.session;
    assert_eq!(
        session.offer(Arc::clone(&one_more), how(ONE, 0)),
        Err(Full::Messages)
    );
    client.outgoing();
    client.send("4002 0001").unwrap();
    let large = message("top/ic", &"x".repeat(10_000), ONE);
    assert_eq!(client.session.offer(large, how(ONE, 0)), Err(Full::Bytes));
    assert_eq!(client.session.offer(one_more, how(ONE, 0)), Ok(()));
    assert_eq!(client.outgoing(), ["publish 6 qos 1 top/ic f"]);
}

#[test]
fn mqtt_3_3_2_5_and_6_expiry_is_counted_down_and_ends_what_waits() {
    let expiring = PublishProperties {
        message_expiry_s: Some(10),
        ..PublishProperties::default()
    };
    let mut client = Client::connected(Version::V5);
    for (payload, offset) in [("a", 71), ("b", 72)] {
        let message = published("top/ic", payload, ONE, expiring);
        client.session.offer(message, how(ONE, offset)).unwrap();
    }
    let mut out = Vec::new();
    client
        .session
        .next_outgoing(NOW_MS + 3_001, |_| true, &mut out);
    assert_eq!(client.line(&out), "publish 1 qos 1 top/ic a expiry 7");
    assert_eq!(client.outgoing_at(NOW_MS + 10_000), ["left out 72 Expired"]);
    // What was sent is finished, expired or not.
    let mut client = client.reconnected();
    assert_eq!(
        client.outgoing_at(NOW_MS + 10_000),
        ["publish 1 qos 1 dup top/ic a expiry 0"]
    );
    let message = published("top/ic", "z", QoS::AtMostOnce, expiring);
    let mut encoded = Encoded::default();
    let sent = client.session.send_qos_0(
        &message,
        (false, &[]),
        NOW_MS + 10_000,
        &mut encoded,
        &mut Vec::new(),
    );
    assert_eq!(sent, Err(LeftOut::Expired));
}

#[test]
fn mqtt_3_1_2_25_what_is_too_large_counts_as_sent() {
    let mut wish = connect(Version::V5);
    wish.properties.packet_size_max = Some(50);
    let mut client = Client::opened(&wish, None);
    client.offer(&"x".repeat(50), ONE, 71);
    client.offer("b", ONE, 72);
    assert_eq!(
        client.outgoing(),
        ["left out 71 TooLarge", "publish 2 qos 1 top/ic b"]
    );
    let large = message("top/ic", &"x".repeat(50), QoS::AtMostOnce);
    let mut encoded = Encoded::default();
    let mut out = Vec::new();
    for ids in [&[][..], &[1]] {
        let session = &mut client.session;
        let sent = session.send_qos_0(&large, (false, ids), NOW_MS, &mut encoded, &mut out);
        assert_eq!(sent, Err(LeftOut::TooLarge));
    }
    assert!(out.is_empty());
}

#[test]
fn sec_31_the_gate_is_asked_for_what_waits_and_for_what_is_sent_again() {
    let mut client = Client::connected(Version::V5);
    let secret = message("secret", "s", ONE);
    client.session.offer(secret, how(ONE, 71)).unwrap();
    client.offer("b", ONE, 0);
    assert_eq!(
        client.outgoing(),
        ["left out 71 NotAllowed", "publish 1 qos 1 top/ic b"]
    );
    let mut client = client.reconnected();
    let outgoing = client
        .session
        .next_outgoing(NOW_MS, |_| false, &mut Vec::new());
    let (offset, why) = (0, LeftOut::NotAllowed);
    assert_eq!(outgoing, Outgoing::LeftOut { offset, why });
    assert!(client.session.state().in_flight.is_empty());
}

#[test]
fn mqtt_3_8_4_8_and_3_3_1_12_the_lower_qos_and_the_retain_flag() {
    let retained = Content::from_parts(Topic::new("t").unwrap(), &[], b"x", TWO, true);
    let retained = Message::new(retained, Publisher::default(), NOW_MS, None);
    for (granted, rap, qos, retain) in [
        (ONE, false, ONE, false),
        (ONE, true, ONE, true),
        (TWO, false, TWO, false),
    ] {
        let how = Delivered::live(&retained, granted, rap);
        assert_eq!((how.qos, how.retain), (qos, retain));
    }
    let how = Delivered::retained(&message("t", "x", ONE), TWO);
    assert_eq!((how.qos, how.retain), (ONE, true), "[MQTT-3.3.1-8]");
}

#[test]
fn mqtt_3_3_4_4_every_identifier_stands_in_the_packet_and_none_before_mqtt_5() {
    for (version, expected) in [
        (
            Version::V5,
            "publish 1 qos 1 retain top/ic a id 7 id 200 id 7",
        ),
        (Version::V311, "publish 1 qos 1 retain top/ic a"),
    ] {
        let mut client = Client::connected(version);
        let how = Delivered {
            retain: true,
            ids: Ids::new(&[7, 200, 7]),
            ..how(ONE, 0)
        };
        let session = &mut client.session;
        session.offer(message("top/ic", "a", ONE), how).unwrap();
        assert_eq!(client.outgoing(), [expected]);
    }
    assert_eq!(Ids::new(&[0]), Ids::None);
    assert_eq!(Ids::new(&[5]).with(<[u32]>::to_vec), [5]);
}

#[test]
fn mqtt_3_3_2_properties_are_passed_on_as_they_came() {
    let pairs = [("b", "1"), ("a", "2"), ("b", "3")];
    let properties = PublishProperties {
        payload_format_is_utf8: Some(true),
        content_type: Some("text/plain"),
        response_topic: Some("answers/7"),
        correlation_data: Some(&[1, 2]),
        user_properties: crate::mqtt::wire::UserProperties::new(&pairs),
        // Not passed on: it is the publisher's connection's.
        topic_alias: Some(3),
        ..PublishProperties::default()
    };
    let mut client = Client::connected(Version::V5);
    let message = published("top/ic", "a", ONE, properties);
    client.session.offer(message, how(ONE, 0)).unwrap();
    let mut out = Vec::new();
    client.session.next_outgoing(NOW_MS, |_| true, &mut out);
    let Packet::Publish(publish) = decode(Version::V5, Sender::Server, &out).unwrap() else {
        panic!("no PUBLISH");
    };
    let passed_on = PublishProperties {
        topic_alias: None,
        ..properties
    };
    assert_eq!(publish.properties, passed_on);
    assert_eq!(publish.payload, b"a");
}

#[test]
fn one_encoding_serves_all_subscribers_of_a_version() {
    let first = message("top/ic", "a", QoS::AtMostOnce);
    let mut encoded = Encoded::default();
    for version in [Version::V31, Version::V311, Version::V5] {
        for retain in [false, true] {
            let mut client = Client::connected(version);
            let mut out = Vec::new();
            for _ in 0..2 {
                let session = &mut client.session;
                let how = (retain, &[][..]);
                session
                    .send_qos_0(&first, how, NOW_MS, &mut encoded, &mut out)
                    .unwrap();
            }
            let (one, two) = out.split_at(out.len() / 2);
            assert_eq!(one, two);
            let word = if retain { " retain" } else { "" };
            assert_eq!(
                line(version, one),
                format!("publish 0 qos 0{word} top/ic a")
            );
        }
    }
    // Another message: nothing of the last one is left.
    encoded.begin();
    let other = message("top/ic", "other", QoS::AtMostOnce);
    let how = (QoS::AtMostOnce, false);
    let packet = encoded.packet(&other, Version::V5, how, NOW_MS).unwrap();
    let mut out = Vec::new();
    packet.append(&mut out);
    assert_eq!(line(Version::V5, &out), "publish 0 qos 0 top/ic other");
}

#[test]
fn mqtt_3_1_2_26_and_27_aliases_go_only_to_clients_that_take_them() {
    let mut wish = connect(Version::V5);
    wish.properties.topic_alias_maximum = Some(1);
    let mut client = Client::opened(&wish, None);
    for payload in ["a", "b"] {
        client.offer(payload, ONE, 0);
    }
    let other = message("another/topic", "c", ONE);
    client.session.offer(other, how(ONE, 0)).unwrap();
    assert_eq!(
        client.outgoing(),
        [
            "publish 1 qos 1 top/ic a alias 1",
            "publish 2 qos 1  b alias 1",
            "publish 3 qos 1 another/topic c",
        ]
    );
    let mut out = Vec::new();
    let fourth = message("top/ic", "d", QoS::AtMostOnce);
    let session = &mut client.session;
    session
        .send_qos_0(
            &fourth,
            (false, &[]),
            NOW_MS,
            &mut Encoded::default(),
            &mut out,
        )
        .unwrap();
    assert_eq!(client.line(&out), "publish 0 qos 0  d alias 1");
    // Each connection has its own: this one takes none.
    let again = client.reconnected().outgoing();
    assert_eq!(again[1], "publish 2 qos 1 dup top/ic b");
}

#[test]
fn an_alias_is_not_given_with_a_packet_that_does_not_leave() {
    let mut wish = connect(Version::V5);
    wish.properties.topic_alias_maximum = Some(9);
    wish.properties.packet_size_max = Some(40);
    let mut client = Client::opened(&wish, None);
    client.offer(&"x".repeat(40), ONE, 71);
    client.offer("b", ONE, 0);
    assert_eq!(
        client.outgoing(),
        ["left out 71 TooLarge", "publish 2 qos 1 top/ic b alias 1"]
    );
}

#[test]
fn mqtt_3_3_2_7_to_9_aliases_of_the_client() {
    let mut client = Client::connected(Version::V5);
    // "t" gets alias 3, then goes by it; "u" takes it over.
    assert_eq!(
        client.send("3008 0001 74 03 230003 78").unwrap(),
        "publish AtMostOnce t"
    );
    let by_alias = "3007 0000 03 230003 78";
    assert_eq!(client.send(by_alias).unwrap(), "publish AtMostOnce t");
    client.send("3008 0001 75 03 230003 78").unwrap();
    assert_eq!(client.send(by_alias).unwrap(), "publish AtMostOnce u");
    // Unknown; beyond the maximum of 4.
    let close = Err(Close::because(ReasonCode::TopicAliasInvalid));
    assert_eq!(client.send("3007 0000 03 230002 78"), close);
    assert_eq!(client.send("3008 0001 74 03 230005 78"), close);
    // [MQTT-3.3.2-7]: it ends with the connection.
    assert_eq!(client.reconnected().send(by_alias), close);
}

#[test]
fn an_alias_counts_even_where_its_message_is_a_repetition() {
    let mut client = Client::connected(Version::V5);
    client.send("3407 0001 74 0007 00 78").unwrap();
    client.settle(TWO, 7, Verdict::Accepted).unwrap();
    assert_eq!(
        client.send("3c0a 0001 74 0007 03 230001 78").unwrap(),
        "repeated"
    );
    assert_eq!(
        client.send("3007 0000 03 230001 78").unwrap(),
        "publish AtMostOnce t"
    );
}

#[test]
fn what_is_stored_of_a_session_is_put_back() {
    let mut client = Client::connected(Version::V5);
    for (payload, qos, offset) in [
        ("a", TWO, 71),
        ("b", TWO, 72),
        ("c", ONE, 73),
        ("d", ONE, 74),
    ] {
        client.offer(payload, qos, offset);
    }
    client.outgoing();
    client.session.assigned(PacketId::new(2).unwrap());
    client.outgoing();
    client.send("5002 0002").unwrap();
    client.send("4002 0003").unwrap();
    client.offer("e", TWO, 75);
    let state = client.session.take_state();
    let stored: Vec<Unsettled> = state.unsettled().collect();
    let progress: Vec<_> = stored
        .iter()
        .map(|held| (held.how.offset, held.progress))
        .collect();
    let id = |number| PacketId::new(number).unwrap();
    assert_eq!(
        progress,
        [
            (72, Progress::Received(id(2))),
            (71, Progress::Sent(id(1))),
            (74, Progress::Sent(id(4))),
            (75, Progress::Waiting),
        ]
    );
    // Another process; what has an id may stand anywhere.
    let mut restored = SessionState::default();
    let mut shuffled = stored;
    shuffled.swap(1, 3);
    restored.restore(shuffled);
    let mut client = Client::opened(&connect(Version::V5), Some(restored));
    assert_eq!(
        client.outgoing(),
        [
            "pubrel 2",
            "publish 4 qos 1 dup top/ic d",
            "publish 1 qos 2 dup top/ic a",
            "assign 75 5",
        ]
    );
    assert_eq!(client.send("7002 0002").unwrap(), "settled 72");
    assert_eq!(client.send("4002 0004").unwrap(), "settled 74");
}

/// Ids of QoS 1 are not stored: what was sent before a message of QoS 2 stays before it, with an id
/// of its own and without DUP.
#[test]
fn mqtt_4_6_0_1_a_restart_keeps_the_order_across_both_qos() {
    let id = |number| PacketId::new(number).unwrap();
    let held = |payload, qos, offset, progress| Unsettled {
        message: Some(message("top/ic", payload, qos)),
        how: how(qos, offset),
        progress,
    };
    let mut restored = SessionState::default();
    restored.restore(vec![
        held("a", ONE, 71, Progress::Waiting),
        held("b", TWO, 72, Progress::Sent(id(65_535))),
        held("c", ONE, 73, Progress::Waiting),
        held("d", TWO, 74, Progress::Sent(id(1))),
        held("e", ONE, 75, Progress::Waiting),
    ]);
    let mut client = Client::opened(&connect(Version::V5), Some(restored));
    assert_eq!(
        client.outgoing(),
        [
            "publish 2 qos 1 top/ic a",
            "publish 65535 qos 2 dup top/ic b",
            "publish 3 qos 1 top/ic c",
            "publish 1 qos 2 dup top/ic d",
            "publish 4 qos 1 top/ic e",
        ]
    );
    assert_eq!(client.send("4002 0003").unwrap(), "settled 73");
    assert_eq!(client.send("4002 0002").unwrap(), "settled 71");
}

#[test]
fn mqtt_4_8_2_what_a_share_member_did_not_get_goes_to_another() {
    let share: Arc<str> = "$share/g/top/#".into();
    let mut client = Client::connected(Version::V5);
    for (payload, qos) in [("a", ONE), ("b", TWO)] {
        let how = Delivered {
            share: Some(Arc::clone(&share)),
            ..how(qos, 0)
        };
        let message = message("top/ic", payload, qos);
        client.session.offer(message, how).unwrap();
    }
    client.offer("own", ONE, 0);
    client.outgoing();
    let how = Delivered {
        share: Some(Arc::clone(&share)),
        ..how(TWO, 74)
    };
    client
        .session
        .offer(message("top/ic", "c", TWO), how)
        .unwrap();
    let payloads = |taken: Vec<(Arc<Message>, Delivered)>| -> Vec<String> {
        let text = |message: &Message| String::from_utf8_lossy(message.content().payload()).into();
        taken.iter().map(|(message, _)| text(message)).collect()
    };
    // It leaves the group: what waits goes. Its session ends: what is open at QoS 1 goes too;
    // what was sent at QoS 2 is this client's [MQTT-4.8.2-4].
    let of_group = |filter: &str| filter == "$share/g/top/#";
    assert!(client.session.take_shared(|_| false, true).is_empty());
    assert_eq!(payloads(client.session.take_shared(of_group, false)), ["c"]);
    assert_eq!(payloads(client.session.take_shared(of_group, true)), ["a"]);
    assert_eq!(
        client.reconnected().outgoing(),
        [
            "publish 2 qos 2 dup top/ic b",
            "publish 3 qos 1 dup top/ic own"
        ]
    );
}

#[test]
fn the_feed_and_the_queue_share_ids_and_places() {
    let mut wish = connect(Version::V5);
    wish.properties.receive_maximum = Some(3);
    let mut client = Client::opened(&wish, None);
    let fed = |number| Item {
        source: source_number(0),
        number,
        order: number,
    };
    client.offer("a", ONE, 71);
    assert_eq!(client.outgoing(), ["publish 1 qos 1 top/ic a"]);
    let id = PacketId::new(2).unwrap();
    assert_eq!(
        client.session.in_flight().send(fed(500)),
        Sending::Now {
            packet_id: id,
            is_again: false
        }
    );
    client.offer("b", TWO, 0);
    client.offer("c", ONE, 0);
    assert_eq!(
        client.outgoing(),
        ["publish 3 qos 2 top/ic b"],
        "no place left"
    );
    assert_eq!(client.send("4002 0002").unwrap(), "settled 500");
    assert_eq!(client.session.state().queue.len(), 3);
    let mut client = client.reconnected();
    assert_eq!(client.outgoing().len(), 3);
    client.session.in_flight().forget(source_number(0));
    assert_eq!(client.session.in_flight().len(), 3);
}

#[test]
fn wills_are_kept_until_the_client_says_goodbye() {
    let will = Will {
        qos: ONE,
        retain: true,
        topic: "gone",
        payload: b"x",
        properties: WillProperties {
            delay_s: Some(30),
            message_expiry_s: Some(10),
            content_type: Some("text"),
            ..WillProperties::default()
        },
    };
    let wish = Connect {
        will: Some(will),
        ..connect(Version::V5)
    };
    let mut client = Client::opened(&wish, None);
    let held = client.session.state().will.clone().unwrap();
    assert_eq!(held.due_after_s(20), 20, "[MQTT-3.1.2-8]");
    assert_eq!(held.due_after_s(u32::MAX), 30);
    let message = held.publish(Publisher::default(), NOW_MS);
    assert_eq!(message.expires_ms(), Some(NOW_MS + 10_000));
    assert_eq!(message.topic().as_str(), "gone");
    assert_eq!(
        (message.content().qos(), message.content().retain()),
        (ONE, true)
    );
    assert_eq!(
        message.content().properties(),
        [3, 0, 4, b't', b'e', b'x', b't']
    );
    // [MQTT-3.14.4-3]: goodbye, with the will, then without.
    client.send("e001 04").unwrap();
    assert!(client.session.state().will.is_some());
    client.send("e000").unwrap();
    assert!(client.session.state().will.is_none());
    // The next connection's will takes its place, also if it has none.
    let state = Client::opened(&wish, None).session.take_state();
    assert!(state.will.is_some());
    let next = Client::opened(&connect(Version::V5), Some(state));
    assert!(next.session.state().will.is_none());
}
