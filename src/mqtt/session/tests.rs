//! The session against a virtual clock: packets in, bytes and steps out.

mod delivery;
mod model;
mod straight;
mod subscriptions;
mod withdrawal;

use std::time::{Duration, Instant};

use super::*;
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{Connect, ConnectProperties, QoS, Sender, decode};

const LIMITS: SessionLimits = SessionLimits {
    packet_size_max: 262_144,
    receive_maximum: 3,
    keep_alive_max_s: 7_200,
    session_expiry_max_s: 604_800,
    subscriptions_max: 100,
    filters_per_packet_max: 100,
    unreleased_max: 3,
    topic_aliases_max: 4,
    queue: QueueLimits {
        messages_max: 5,
        bytes_max: 10_000,
    },
};

struct Client {
    session: Session,
    replies: Replies,
    now: Instant,
}

impl Client {
    fn connected(version: Version) -> Self {
        Self::opened(&connect(version), None)
    }

    fn opened(connect: &Connect<'_>, state: Option<SessionState>) -> Self {
        let now = Instant::now();
        let opening = Opening::new(connect).unwrap();
        let session = Session::open(&opening, LIMITS, state, now);
        Self {
            session,
            replies: Replies::default(),
            now,
        }
    }

    fn send(&mut self, hex: &str) -> Result<String, Close> {
        let bytes = bytes(hex);
        let packet = decode(self.session.version(), Sender::Client, &bytes).unwrap();
        let step = self.session.handle(&packet, self.now, &mut self.replies)?;
        Ok(match step {
            Step::Publish(publish, aliased) => {
                let topic = aliased
                    .as_ref()
                    .map_or(publish.topic, |it| it.topic().as_str());
                format!("publish {:?} {topic}", publish.qos)
            }
            Step::Release(id) => format!("release {id}"),
            Step::Done => "done".to_owned(),
            Step::ReleasedBefore => "released before".to_owned(),
            Step::Settled(item) => format!("settled {}", item.order),
            Step::Received { offset, packet_id } => format!("received {offset} as {packet_id}"),
            Step::Repeated => "repeated".to_owned(),
            Step::Subscribe(_) => "subscribe".to_owned(),
            Step::Unsubscribe(_) => "unsubscribe".to_owned(),
            Step::Disconnected { with_will } => format!("disconnected {with_will}"),
        })
    }

    fn settle(&mut self, qos: QoS, id: u16, verdict: Verdict) -> Result<(), Close> {
        self.session
            .settle(qos, PacketId::new(id), verdict, &mut self.replies)
    }

    fn ordered(&mut self) -> String {
        hex(&std::mem::take(&mut self.replies.ordered))
    }
}

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "c",
        will: None,
        user_name: Some("token"),
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const REFUSED: Verdict = Verdict::Refused(Refused {
    reason: ReasonCode::PayloadFormatInvalid,
    ending: Ending::ClosesUntold,
});
const DROPPED: Verdict = Verdict::Refused(Refused {
    reason: ReasonCode::TopicNameInvalid,
    ending: Ending::Stays,
});

#[test]
fn qos_1_is_acknowledged_after_the_verdict_only() {
    let mut client = Client::connected(Version::V311);
    assert_eq!(
        client.send("3206 0001 74 0007 78").unwrap(),
        "publish AtLeastOnce t"
    );
    assert_eq!(client.ordered(), "");
    client
        .settle(QoS::AtLeastOnce, 7, Verdict::Accepted)
        .unwrap();
    assert_eq!(client.ordered(), "40020007");
}

#[test]
fn qos_2_is_taken_once_until_it_is_released() {
    let mut client = Client::connected(Version::V311);
    assert_eq!(
        client.send("3406 0001 74 0007 78").unwrap(),
        "publish ExactlyOnce t"
    );
    client
        .settle(QoS::ExactlyOnce, 7, Verdict::Accepted)
        .unwrap();
    assert_eq!(client.send("3c06 0001 74 0007 78").unwrap(), "repeated");
    assert_eq!(client.ordered(), "50020007 50020007".replace(' ', ""));
    assert_eq!(client.send("6202 0007").unwrap(), "release 7");
    client
        .session
        .released(PacketId::new(7).unwrap(), &mut client.replies);
    assert_eq!(client.ordered(), "70020007");
    assert_eq!(
        client.send("3406 0001 74 0007 78").unwrap(),
        "publish ExactlyOnce t"
    );
}

#[test]
fn a_release_of_nothing_is_answered_and_not_recorded() {
    let mut client = Client::connected(Version::V5);
    assert_eq!(client.send("6202 0009").unwrap(), "released before");
    assert_eq!(client.ordered(), "7003000992");
}

#[test]
fn sec_39_a_refused_qos_2_message_is_refused_again() {
    let mut client = Client::connected(Version::V5);
    for hex in ["3407 0001 74 0007 00 78", "3c07 0001 74 0007 00 78"] {
        assert_eq!(client.send(hex).unwrap(), "publish ExactlyOnce t");
        client.settle(QoS::ExactlyOnce, 7, REFUSED).unwrap();
        assert_eq!(client.ordered(), "5003000799");
    }
    assert!(client.session.state().unreleased.is_empty());
}

#[test]
fn tb_16_a_bad_payload_is_told_or_ends_the_connection() {
    let close = Err(Close::because(ReasonCode::PayloadFormatInvalid));
    let mut v5 = Client::connected(Version::V5);
    v5.send("3207 0001 74 0007 00 78").unwrap();
    assert_eq!(v5.settle(QoS::AtLeastOnce, 7, REFUSED), Ok(()));
    assert_eq!(v5.ordered(), "4003000799");
    assert_eq!(v5.settle(QoS::AtMostOnce, 0, REFUSED), close);
    let mut v3 = Client::connected(Version::V311);
    v3.send("3206 0001 74 0007 78").unwrap();
    assert_eq!(v3.settle(QoS::AtLeastOnce, 7, REFUSED), close);
    assert_eq!(v3.ordered(), "");
}

#[test]
fn tb_14_an_unknown_topic_leaves_the_connection_alone() {
    let mut v5 = Client::connected(Version::V5);
    v5.send("3207 0001 74 0007 00 78").unwrap();
    v5.settle(QoS::AtLeastOnce, 7, DROPPED).unwrap();
    assert_eq!(v5.ordered(), "4003000790");
    v5.settle(QoS::AtMostOnce, 0, DROPPED).unwrap();
    let mut v3 = Client::connected(Version::V31);
    v3.send("3206 0001 74 0007 78").unwrap();
    v3.settle(QoS::AtLeastOnce, 7, DROPPED).unwrap();
    assert_eq!(v3.ordered(), "40020007");
}

#[test]
fn receive_maximum_counts_until_the_acknowledgement_has_left() {
    let mut client = Client::connected(Version::V5);
    for id in 1..=3_u16 {
        client
            .send(&format!("3207 0001 74 {id:04x} 00 78"))
            .unwrap();
        client
            .settle(QoS::AtLeastOnce, id, Verdict::Accepted)
            .unwrap();
    }
    let close = Close::because(ReasonCode::ReceiveMaximumExceeded);
    assert_eq!(client.send("3207 0001 74 0004 00 78"), Err(close));
    client.session.acknowledged(1);
    assert!(client.send("3207 0001 74 0004 00 78").is_ok());
}

#[test]
fn sec_28_unfinished_qos_2_ids_are_bounded_for_old_versions_too() {
    let mut client = Client::connected(Version::V311);
    for id in 1..=3_u16 {
        client.send(&format!("3406 0001 74 {id:04x} 78")).unwrap();
        client
            .settle(QoS::ExactlyOnce, id, Verdict::Accepted)
            .unwrap();
    }
    assert!(client.send("3406 0001 74 0004 78").is_err());
    assert_eq!(client.send("3c06 0001 74 0003 78").unwrap(), "repeated");
}

#[test]
fn keep_alive_is_one_and_a_half_times_what_was_granted() {
    let client = Client::connected(Version::V311);
    assert_eq!(
        client.session.keep_alive_deadline() - client.now,
        Duration::from_secs(90)
    );
    let forever = Connect {
        keep_alive_s: 0,
        ..connect(Version::V311)
    };
    let client = Client::opened(&forever, None);
    assert_eq!(
        client.session.keep_alive_deadline() - client.now,
        Duration::from_secs(10_800)
    );
}

#[test]
fn a_packet_moves_the_keep_alive_deadline() {
    let mut client = Client::connected(Version::V311);
    let before = client.session.keep_alive_deadline();
    client.now += Duration::from_secs(30);
    assert_eq!(client.send("c000").unwrap(), "done");
    assert_eq!(hex(&client.replies.prompt), "d000");
    assert_eq!(
        client.session.keep_alive_deadline() - before,
        Duration::from_secs(30)
    );
}

#[test]
fn p_49_an_expiry_of_zero_cannot_be_raised_at_the_end() {
    let mut client = Client::connected(Version::V5);
    let close = Close::because(ReasonCode::ProtocolError);
    assert_eq!(client.send("e007 00 05 11 0000000a"), Err(close));
    assert_eq!(client.send("e001 04").unwrap(), "disconnected true");
}

#[test]
fn a_resumed_session_keeps_its_ids_and_its_places() {
    let unreleased = (1..=3).filter_map(PacketId::new).collect();
    let state = SessionState {
        unreleased,
        ..SessionState::default()
    };
    let mut client = Client::opened(&connect(Version::V5), Some(state));
    assert_eq!(client.send("3c07 0001 74 0002 00 78").unwrap(), "repeated");
    assert!(
        client.send("3207 0001 74 0009 00 78").is_err(),
        "all places are taken"
    );
}

#[test]
fn connack_tells_mqtt_5_what_the_server_changed() {
    let wish = Connect {
        keep_alive_s: 0,
        clean_start: false,
        ..connect(Version::V5)
    };
    let mut client = Client::opened(&wish, None);
    let opening = Opening::new(&wish).unwrap();
    client
        .session
        .accept(&opening, true, false, Some("given"), &mut client.replies);
    let connack = std::mem::take(&mut client.replies.ordered);
    let Packet::ConnAck(connack) = decode(Version::V5, Sender::Server, &connack).unwrap() else {
        panic!("no CONNACK");
    };
    assert!(connack.session_present);
    assert_eq!(connack.properties.server_keep_alive_s, Some(7_200));
    assert_eq!(connack.properties.assigned_client_id, Some("given"));
    assert_eq!(connack.properties.receive_maximum, Some(3));
    let mut old = Client::connected(Version::V311);
    let opening = Opening::new(&connect(Version::V311)).unwrap();
    old.session
        .accept(&opening, false, false, None, &mut old.replies);
    assert_eq!(old.ordered(), "20020000");
}

#[test]
fn tb_04_refusals_in_both_languages() {
    for (refusal, v5, v3) in [
        (ConnectRefusal::BadCredentials, 0x86, 0x05),
        (ConnectRefusal::UnknownClientId, 0x85, 0x02),
        (ConnectRefusal::NoCredentials, 0x87, 0x05),
        (ConnectRefusal::Unavailable, 0x88, 0x03),
        (ConnectRefusal::RateExceeded, 0x9F, 0x03),
        (ConnectRefusal::MissingUserName, 0x86, 0x04),
    ] {
        assert_eq!(refusal.code(Version::V5), v5, "{refusal:?}");
        assert_eq!(refusal.code(Version::V311), v3, "{refusal:?}");
        let mut connack = Vec::new();
        refusal.write(Version::V31, &mut connack);
        assert_eq!(connack, [0x20, 2, 0, v3]);
    }
}

#[test]
fn sec_26_and_empty_ids_are_refused_before_anything_opens() {
    let mut wish = connect(Version::V5);
    wish.properties.authentication_method = Some("SCRAM");
    assert_eq!(
        Opening::new(&wish).unwrap_err(),
        ConnectRefusal::BadAuthenticationMethod
    );
    let nameless = Connect {
        client_id: "",
        clean_start: false,
        ..connect(Version::V311)
    };
    assert_eq!(
        Opening::new(&nameless).unwrap_err(),
        ConnectRefusal::ClientIdRequired
    );
    let clean = Connect {
        clean_start: true,
        ..nameless
    };
    assert!(Opening::new(&clean).is_ok());
}

#[test]
fn connack_says_no_to_nothing_but_groups_that_cannot_be_joined() {
    let wish = connect(Version::V5);
    let mut client = Client::opened(&wish, None);
    let opening = Opening::new(&wish).unwrap();
    for is_sharing in [true, false] {
        client.replies.clear();
        let session = &client.session;
        session.accept(&opening, false, is_sharing, None, &mut client.replies);
        let Packet::ConnAck(connack) =
            decode(Version::V5, Sender::Server, &client.replies.ordered).unwrap()
        else {
            panic!("no CONNACK");
        };
        let properties = connack.properties;
        assert_eq!(properties.topic_alias_maximum, Some(4));
        assert_eq!(properties.maximum_qos, None, "[MQTT-3.2.2-9]");
        assert_eq!(properties.retain_available, None);
        assert_eq!(properties.wildcard_subscription_available, None);
        assert_eq!(properties.subscription_ids_available, None);
        let expected = (!is_sharing).then_some(false);
        assert_eq!(properties.shared_subscription_available, expected);
        // [MQTT-3.1.2-28] allows none, whatever the client asks for.
        assert_eq!(properties.response_information, None);
    }
}

#[test]
fn mqtt_3_1_2_29_reasons_in_words_go_to_clients_that_ask_for_them() {
    let refusals = |wants: Option<bool>, packet_size_max: Option<u32>| {
        let mut wish = connect(Version::V5);
        wish.properties.request_problem_information = wants;
        wish.properties.packet_size_max = packet_size_max;
        let mut client = Client::opened(&wish, None);
        client.send("3207 0001 74 0007 00 78").unwrap();
        client.settle(QoS::AtLeastOnce, 7, DROPPED).unwrap();
        client.send("3407 0001 74 0008 00 78").unwrap();
        client.settle(QoS::ExactlyOnce, 8, REFUSED).unwrap();
        client.send("3207 0001 74 0009 00 78").unwrap();
        client
            .settle(QoS::AtLeastOnce, 9, Verdict::Accepted)
            .unwrap();
        let replies = std::mem::take(&mut client.replies.ordered);
        let mut rest = &replies[..];
        let mut words = Vec::new();
        while let Some(frame) = crate::mqtt::wire::frame(rest, u32::MAX).unwrap() {
            let packet = decode(Version::V5, Sender::Server, frame.packet(rest).unwrap()).unwrap();
            rest = &rest[frame.total_len()..];
            let (Packet::PubAck(ack) | Packet::PubRec(ack)) = packet else {
                panic!("{packet:?}");
            };
            words.push((ack.packet_id.get(), ack.properties.reason_string.is_some()));
        }
        words
    };
    assert_eq!(
        refusals(Some(true), None),
        [(7, true), (8, true), (9, false)]
    );
    for (wants, packet_size_max) in [(Some(false), None), (None, None), (Some(true), Some(100))] {
        let words = refusals(wants, packet_size_max);
        assert_eq!(words, [(7, false), (8, false), (9, false)], "{wants:?}");
    }
}

#[test]
fn only_a_normal_goodbye_takes_the_will_away() {
    let mut client = Client::connected(Version::V5);
    for (hex, with_will) in [
        ("e000", false),
        ("e00100", false),
        ("e00104", true),
        ("e00180", true),
    ] {
        let said = client.send(hex).unwrap();
        assert_eq!(said, format!("disconnected {with_will}"), "{hex}");
    }
}

#[test]
fn mqtt_4_12_0_7_an_auth_that_nobody_agreed_on_ends_the_connection() {
    let mut client = Client::connected(Version::V5);
    let close = Close::because(ReasonCode::ProtocolError);
    assert_eq!(client.send("f000"), Err(close));
    // Re-authenticate, method "X".
    assert_eq!(client.send("f006 19 04 15 0001 58"), Err(close));
}
