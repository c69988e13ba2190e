//! A message that is on its way to subscribers, owned and shared: what a PUBLISH or a will said,
//! who published it and when.
//!
//! - **Memory.** One allocation for topic, properties and payload together; whoever has the
//!   message holds an `Arc` of it. [`Message::bytes`] is what limits count.
//! - **Properties** that are passed on stand there encoded, in their order; a receiver before
//!   MQTT 5 gets none of them. The payload's format is passed on and not checked: the standard
//!   leaves that open (section 3.3.2.3.2), and the receiver has to look anyway.
//! - **Expiry** is a moment in Unix time. What a receiver is told is what is left then, rounded up
//!   to whole seconds [MQTT-3.3.2-6].

use std::sync::Arc;

use super::topic::Topic;
use super::wire::{self, Forward, Publish, QoS};

/// What is sent to everybody alike: topic, properties that are passed on, payload; and with which
/// QoS and Retain flag it was published.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Topic, properties, payload.
    data: Box<[u8]>,
    topic_len: u16,
    properties_len: u32,
    qos: QoS,
    retain: bool,
}

/// Who published a message: what decides whether it may still be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publisher {
    /// The identity's UUID as a number.
    pub identity: u128,
    /// Number of the credential.
    pub credential: u64,
    /// Generation of the identity then.
    pub generation: u32,
}

/// A published message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    content: Content,
    publisher: Publisher,
    received_ms: u64,
    /// 0 is never.
    expires_ms: u64,
}

/// A will: what becomes a message when the connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Will {
    /// What will be published.
    pub content: Content,
    /// Seconds between the end of the connection and the message, unless the session ends before
    /// [MQTT-3.1.2-8].
    pub delay_s: u32,
    /// Seconds the message lives, counted from its publication.
    pub expiry_s: Option<u32>,
}

impl Content {
    /// Takes what `publish` says, under `topic` (where it came with an alias, the alias's).
    #[must_use]
    pub fn of_publish(publish: &Publish<'_>, topic: Topic<'_>) -> Content {
        let mut data = Vec::with_capacity(topic.as_str().len() + publish.payload.len());
        data.extend_from_slice(topic.as_str().as_bytes());
        wire::write_passed_on(&publish.properties, &mut data);
        let properties = data.len() - topic.as_str().len();
        data.extend_from_slice(publish.payload);
        Content::new(data, topic, properties, publish.qos, publish.retain)
    }

    /// Takes a will's message. `None` only for a topic that is no topic name, which no CONNECT
    /// that was read has.
    #[must_use]
    pub fn of_will(will: &wire::Will<'_>) -> Option<Content> {
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            packet_id: None,
            properties: will.properties.as_publish(),
            payload: will.payload,
        };
        Some(Content::of_publish(&publish, Topic::new(will.topic).ok()?))
    }

    /// Puts together what was taken apart by the accessors. `properties` must be what
    /// [`Content::properties`] gave: nothing is checked again.
    #[must_use]
    pub fn from_parts(
        topic: Topic<'_>,
        properties: &[u8],
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Content {
        let text = topic.as_str().as_bytes();
        let mut data = Vec::with_capacity(text.len() + properties.len() + payload.len());
        data.extend_from_slice(text);
        data.extend_from_slice(properties);
        data.extend_from_slice(payload);
        Content::new(data, topic, properties.len(), qos, retain)
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> Topic<'_> {
        let text = self.data.get(..usize::from(self.topic_len));
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        Topic::checked(text.unwrap_or_default())
    }

    /// The properties that are passed on, as MQTT 5 encodes them, without their length.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let (start, end) = self.bounds();
        self.data.get(start..end).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.data.get(self.bounds().1..).unwrap_or_default()
    }

    /// The QoS it was published with.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// The Retain flag it was published with.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.retain
    }

    fn new(data: Vec<u8>, topic: Topic<'_>, properties: usize, qos: QoS, retain: bool) -> Content {
        Content {
            data: data.into_boxed_slice(),
            // A topic has at most TOPIC_BYTES_MAX, properties stand in one packet.
            topic_len: u16::try_from(topic.as_str().len()).unwrap_or(u16::MAX),
            properties_len: u32::try_from(properties).unwrap_or(u32::MAX),
            qos,
            retain,
        }
    }

    fn bounds(&self) -> (usize, usize) {
        let start = usize::from(self.topic_len);
        let properties = usize::try_from(self.properties_len).unwrap_or(usize::MAX);
        (start, start.saturating_add(properties))
    }
}

impl Message {
    /// A message that arrived at `received_ms` (Unix time) and lives for `expiry_s` seconds from
    /// then on; `None` is for ever.
    #[must_use]
    pub fn new(
        content: Content,
        publisher: Publisher,
        received_ms: u64,
        expiry_s: Option<u32>,
    ) -> Message {
        let expires_ms = expiry_s.map(|s| received_ms.saturating_add(u64::from(s) * 1_000));
        Message::restored(content, publisher, received_ms, expires_ms)
    }

    /// A message that was stored, with the moment at which it expires.
    #[must_use]
    pub fn restored(
        content: Content,
        publisher: Publisher,
        received_ms: u64,
        expires_ms: Option<u64>,
    ) -> Message {
        Message {
            content,
            publisher,
            received_ms,
            expires_ms: expires_ms.map_or(0, |moment| moment.max(1)),
        }
    }

    /// What `publish` says, under `topic`.
    #[must_use]
    pub fn of_publish(
        publish: &Publish<'_>,
        topic: Topic<'_>,
        publisher: Publisher,
        received_ms: u64,
    ) -> Arc<Message> {
        let content = Content::of_publish(publish, topic);
        let expiry_s = publish.properties.message_expiry_s;
        Arc::new(Message::new(content, publisher, received_ms, expiry_s))
    }

    /// Topic, properties, payload.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> Topic<'_> {
        self.content.topic()
    }

    /// Who published it.
    #[must_use]
    pub const fn publisher(&self) -> Publisher {
        self.publisher
    }

    /// When it arrived, Unix time in milliseconds.
    #[must_use]
    pub const fn received_ms(&self) -> u64 {
        self.received_ms
    }

    /// When it expires, Unix time in milliseconds; `None` is never.
    #[must_use]
    pub const fn expires_ms(&self) -> Option<u64> {
        match self.expires_ms {
            0 => None,
            moment => Some(moment),
        }
    }

    /// Whether its time is over [MQTT-3.3.2-5].
    #[must_use]
    pub const fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    /// Seconds it has left, rounded up; `None` if it does not expire.
    #[must_use]
    pub fn expiry_left_s(&self, now_ms: u64) -> Option<u32> {
        let left_ms = self.expires_ms()?.saturating_sub(now_ms);
        Some(u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// Bytes it takes in memory, with what is kept around it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.content.data.len() + MESSAGE_BYTES
    }

    /// The message as a PUBLISH to a client, at QoS 0, without subscription identifiers and alias.
    #[must_use]
    pub fn forward(&self, retain: bool, now_ms: u64) -> Forward<'_> {
        Forward {
            dup: false,
            qos: QoS::AtMostOnce,
            retain,
            topic: self.topic().as_str(),
            packet_id: None,
            expiry_s: self.expiry_left_s(now_ms),
            topic_alias: None,
            subscription_ids: &[],
            passed_on: self.content.properties(),
            payload: self.content.payload(),
        }
    }
}

impl Will {
    /// The will of a CONNECT; `None` as for [`Content::of_will`].
    #[must_use]
    pub fn of_connect(will: &wire::Will<'_>) -> Option<Will> {
        Some(Will {
            content: Content::of_will(will)?,
            delay_s: will.properties.delay_s.unwrap_or(0),
            expiry_s: will.properties.message_expiry_s,
        })
    }

    /// The message that is published, at `now_ms`.
    #[must_use]
    pub fn publish(&self, publisher: Publisher, now_ms: u64) -> Arc<Message> {
        let content = self.content.clone();
        Arc::new(Message::new(content, publisher, now_ms, self.expiry_s))
    }

    /// Seconds between the end of the connection and the will, of a session that is kept for
    /// `session_expiry_s`: the will is published when the session ends at the latest
    /// [MQTT-3.1.2-8].
    #[must_use]
    pub fn due_after_s(&self, session_expiry_s: u32) -> u32 {
        self.delay_s.min(session_expiry_s)
    }
}

/// Payloads are not logged.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("topic", &self.topic())
            .field("properties_bytes", &self.properties_len)
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("content", &self.content)
            .field("publisher", &self.publisher)
            .field("received_ms", &self.received_ms)
            .field("expires_ms", &self.expires_ms())
            .finish()
    }
}

/// What a message takes beside its text, in bytes: its numbers and the counters of its `Arc`.
const MESSAGE_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::wire::{
        PacketId, PublishProperties, SubscriptionIds, UserProperties, Version,
    };

    proptest! {
        /// The short way to the wire writes what the long one does.
        #[test]
        fn a_forwarded_message_is_encoded_like_any_publish(
            (qos, retain, dup) in (0_u8..3, any::<bool>(), any::<bool>()),
            payload in prop::collection::vec(any::<u8>(), 0..300),
            text in prop::option::of("[a-z/]{0,20}"),
            pairs in prop::collection::vec(("[a-z]{0,5}", "[a-z]{0,90}"), 0..4),
            (expiry_s, alias) in (prop::option::of(0_u32..100_000), prop::option::of(1_u16..9)),
            ids in prop::collection::vec(1_u32..268_435_455, 0..4),
        ) {
            let qos = QoS::from_u8(qos).unwrap();
            let pairs: Vec<(&str, &str)> =
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let properties = PublishProperties {
                payload_format_is_utf8: text.as_ref().map(|text| text.len() > 9),
                content_type: text.as_deref(),
                response_topic: text.as_deref().filter(|text| !text.is_empty()),
                correlation_data: text.as_ref().map(String::as_bytes),
                user_properties: UserProperties::new(&pairs),
                message_expiry_s: expiry_s,
                ..PublishProperties::default()
            };
            let publish = Publish {
                dup: false, qos, retain, topic: "a/b", packet_id: None, properties,
                payload: &payload,
            };
            let topic = Topic::new("a/b").unwrap();
            let message = Message::of_publish(&publish, topic, Publisher::default(), 5_000);
            let packet_id = PacketId::new(7).filter(|_| qos > QoS::AtMostOnce);
            let dup = dup && qos > QoS::AtMostOnce;
            for version in [Version::V31, Version::V311, Version::V5] {
                let alias = alias.filter(|_| version == Version::V5);
                let forward = Forward {
                    dup, qos, packet_id, topic_alias: alias, subscription_ids: &ids,
                    ..message.forward(retain, 5_000)
                };
                let expected = Publish {
                    dup, qos, packet_id,
                    properties: PublishProperties {
                        topic_alias: alias,
                        subscription_ids: SubscriptionIds::new(&ids),
                        ..properties
                    },
                    ..publish
                };
                let (mut short, mut long) = (Vec::new(), Vec::new());
                forward.write(version, &mut short);
                expected.encode(version, &mut long).unwrap();
                prop_assert_eq!(short.len(), forward.packet_size(version).unwrap() as usize);
                // Properties may stand in another order.
                let read = |bytes| wire::decode(version, wire::Sender::Server, bytes).unwrap();
                prop_assert_eq!(read(&short), read(&long));
            }
        }
    }

    #[test]
    fn a_message_is_taken_apart_and_put_together() {
        let properties = PublishProperties {
            content_type: Some("text"),
            message_expiry_s: Some(2),
            ..PublishProperties::default()
        };
        let publish = Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "a",
            packet_id: None,
            properties,
            payload: b"xyz",
        };
        let publisher = Publisher {
            identity: 1 << 100,
            credential: 2,
            generation: 3,
        };
        let topic = Topic::new("a").unwrap();
        let message = Message::of_publish(&publish, topic, publisher, 1_000);
        assert_eq!(message.expires_ms(), Some(3_000));
        let content = message.content();
        let again = Content::from_parts(
            content.topic(),
            content.properties(),
            content.payload(),
            content.qos(),
            content.retain(),
        );
        let again = Message::restored(again, publisher, 1_000, Some(3_000));
        assert_eq!(again, *message);
        assert!(
            !format!("{message:?}").contains("xyz"),
            "payloads are not logged"
        );
    }

    #[test]
    fn mqtt_3_3_2_6_what_is_left_is_rounded_up_to_whole_seconds() {
        let content =
            || Content::from_parts(Topic::new("a").unwrap(), &[], b"", QoS::AtMostOnce, false);
        let message = Message::new(content(), Publisher::default(), 1_000, Some(10));
        for (now_ms, left_s) in [
            (1_000, 10),
            (1_001, 10),
            (2_000, 9),
            (10_999, 1),
            (12_000, 0),
        ] {
            assert_eq!(message.expiry_left_s(now_ms), Some(left_s), "at {now_ms}");
        }
        assert!(!message.is_expired(10_999));
        assert!(message.is_expired(11_000));
        let lasting = Message::new(content(), Publisher::default(), 1_000, None);
        assert_eq!(lasting.expiry_left_s(u64::MAX), None);
        assert!(!lasting.is_expired(u64::MAX));
        // A clock that was set back: no more than it came with.
        assert_eq!(message.expiry_left_s(0), Some(11));
    }
}
