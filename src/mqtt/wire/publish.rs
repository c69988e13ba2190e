//! PUBLISH (MQTT 5 section 3.3): the hot path.

use crate::mqtt::topic::{Topic, TopicError};

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::user_property::{Budget, SubscriptionIds, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketId, PacketType, QoS, Sender, Version};

/// An application message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before; never set at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// How surely it arrives.
    pub qos: QoS,
    /// Kept for later subscribers, or: is such a kept message.
    pub retain: bool,
    /// A valid topic name; empty only in MQTT 5 and only beside a topic alias.
    pub topic: &'a str,
    /// There if and only if the QoS is 1 or 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// What MQTT 5 adds.
    pub properties: PublishProperties<'a>,
    /// The message, 0 bytes or more.
    pub payload: &'a [u8],
}

/// The properties of PUBLISH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// The payload is said to be UTF-8; nobody has checked it.
    pub payload_format_is_utf8: Option<bool>,
    /// Seconds until the message is worthless.
    pub message_expiry_s: Option<u32>,
    /// 1 to 65,535; the session knows its own maximum [MQTT-3.3.2-9].
    pub topic_alias: Option<u16>,
    /// A valid topic name [MQTT-3.3.2-14].
    pub response_topic: Option<&'a str>,
    /// The requester's mark.
    pub correlation_data: Option<&'a [u8]>,
    /// Only from a server to a client [MQTT-3.3.4-6].
    pub subscription_ids: SubscriptionIds<'a>,
    /// Free text, by convention a MIME type.
    pub content_type: Option<&'a str>,
    /// Name and value pairs, in order [MQTT-3.3.2-18].
    pub user_properties: UserProperties<'a>,
}

impl<'a> Publish<'a> {
    /// The topic name as the type that was checked; `None` when only an alias says it.
    ///
    /// Only for packets that [`super::decode`] has read: nothing is checked again.
    #[must_use]
    #[inline]
    pub fn topic_name(&self) -> Option<Topic<'a>> {
        if self.topic.is_empty() {
            None
        } else {
            Some(Topic::checked(self.topic))
        }
    }

    /// Appends the packet to `out`. Before MQTT 5 the properties are left out.
    ///
    /// # Errors
    /// A packet identifier at QoS 0 or none above, DUP at QoS 0, an empty topic without alias, a
    /// property out of range, a string that is too long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    #[inline]
    pub(super) fn decode(
        version: Version,
        sender: Sender,
        first_byte: u8,
        mut reader: Reader<'a>,
        expected: &'a str,
    ) -> Result<Publish<'a>, WireError> {
        // [MQTT-3.3.1-4]; the frame was checked, this is for the type's sake.
        let qos = QoS::from_u8(first_byte >> 1 & 0b11).ok_or(WireError::HeaderFlags {
            packet: PacketType::Publish,
            found: first_byte & 0x0F,
        })?;
        let topic = reader.topic_or_empty("topic name", expected)?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(reader.packet_id(PacketType::Publish)?),
        };
        let mut properties = PublishProperties::default();
        if version == Version::V5 {
            let block = property::block(&mut reader)?;
            if !block.is_empty() {
                properties.decode(sender, block)?;
            }
        }
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(match version {
                Version::V5 => WireError::TopicMissing,
                _ => WireError::Topic {
                    field: "topic name",
                    error: TopicError::Empty,
                },
            });
        }
        Ok(Publish {
            dup: first_byte & 0b1000 != 0,
            qos,
            retain: first_byte & 0b0001 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }
}

impl<'a> PublishProperties<'a> {
    fn decode(&mut self, sender: Sender, block: &'a [u8]) -> Result<(), WireError> {
        self.user_properties = property::walk(
            block,
            Place::PUBLISH,
            &mut Budget::default(),
            |property, value| {
                match (property, value) {
                    (Property::PayloadFormatIndicator, Value::Byte(byte)) => {
                        self.payload_format_is_utf8 = Some(byte == 1);
                    }
                    (Property::MessageExpiryInterval, Value::Four(seconds)) => {
                        self.message_expiry_s = Some(seconds);
                    }
                    (Property::TopicAlias, Value::Two(alias)) => self.topic_alias = Some(alias),
                    (Property::ResponseTopic, Value::Text(text)) => {
                        self.response_topic = Some(response_topic(text)?);
                    }
                    (Property::CorrelationData, Value::Binary(data)) => {
                        self.correlation_data = Some(data);
                    }
                    (Property::SubscriptionIdentifier, _) if sender == Sender::Client => {
                        // [MQTT-3.3.4-6]
                        return Err(WireError::PropertyNotAllowed { property });
                    }
                    (Property::SubscriptionIdentifier, _) => {
                        self.subscription_ids = SubscriptionIds::in_block(block);
                    }
                    (Property::ContentType, Value::Text(text)) => self.content_type = Some(text),
                    _ => {}
                }
                Ok(())
            },
        )?;
        Ok(())
    }
}

impl Body for Publish<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Publish)
            | u8::from(self.dup) << 3
            | self.qos.as_u8() << 1
            | u8::from(self.retain)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        if self.dup && self.qos == QoS::AtMostOnce {
            sink.refuse(EncodeError::Value { field: "DUP" });
        }
        if self.packet_id.is_some() == (self.qos == QoS::AtMostOnce) {
            sink.refuse(EncodeError::Value {
                field: "packet identifier",
            });
        }
        if self.topic.is_empty() && (version < Version::V5 || self.properties.topic_alias.is_none())
        {
            sink.refuse(EncodeError::Value {
                field: "topic name",
            });
        }
        sink.prefixed("topic name", self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            sink.two(packet_id.get());
        }
        if version == Version::V5 {
            sink.properties(&self.properties);
        }
        sink.raw(self.payload);
    }
}

impl Properties for PublishProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_bool(
            Property::PayloadFormatIndicator,
            self.payload_format_is_utf8,
        );
        sink.property_four(Property::MessageExpiryInterval, self.message_expiry_s);
        sink.property_two(Property::TopicAlias, self.topic_alias);
        sink.property_text(Property::ResponseTopic, self.response_topic);
        sink.property_binary(Property::CorrelationData, self.correlation_data);
        self.subscription_ids.put(sink);
        sink.property_text(Property::ContentType, self.content_type);
        self.user_properties.put(sink);
    }
}

/// Checks a response topic: it is a topic name (SEC-09) [MQTT-3.3.2-14].
pub(super) fn response_topic(text: &str) -> Result<&str, WireError> {
    match Topic::new(text) {
        Ok(topic) => Ok(topic.as_str()),
        Err(error) => Err(WireError::Topic {
            field: "response topic",
            error,
        }),
    }
}
