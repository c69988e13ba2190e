//! A message on its way to a client: a PUBLISH whose passed-on properties stand there encoded.
//!
//! Before MQTT 5 the properties are left out. What is written here was checked when it came in:
//! topic, properties and payload are copied as they are.

use super::property::Property;
use super::publish::PublishProperties;
use super::reader::VARIABLE_BYTE_INTEGER_MAX;
use super::writer::{self, Sink};
use super::{PacketId, PacketType, QoS, Version, WillProperties};

/// A PUBLISH to a client.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Sent before; never at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// The QoS it is sent with.
    pub qos: QoS,
    /// The Retain flag it is sent with.
    pub retain: bool,
    /// A valid topic name; empty where an alias that the client knows stands for it.
    pub topic: &'a str,
    /// There if and only if the QoS is 1 or 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// Seconds the message has left [MQTT-3.3.2-6].
    pub expiry_s: Option<u32>,
    /// 1 to the client's Topic Alias Maximum [MQTT-3.3.2-9].
    pub topic_alias: Option<u16>,
    /// One for each subscription that matched and has one [MQTT-3.3.4-4].
    pub subscription_ids: &'a [u32],
    /// As [`write_passed_on`] writes them.
    pub passed_on: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

impl Forward<'_> {
    /// Bytes of the whole packet; `None` if no packet can be so long.
    #[must_use]
    pub fn packet_size(&self, version: Version) -> Option<u32> {
        let remaining = self.remaining(version);
        if remaining > VARIABLE_BYTE_INTEGER_MAX as usize {
            return None;
        }
        u32::try_from(1 + variable_len(remaining) + remaining).ok()
    }

    /// Appends the packet to `out`; allocates nothing where `out` has room for it. It must be one
    /// that can be written: [`Forward::packet_size`] is not `None`.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        let remaining = self.remaining(version);
        out.reserve(5 + remaining);
        let flags = u8::from(self.dup) << 3 | self.qos.as_u8() << 1 | u8::from(self.retain);
        let mut out = writer::Writer(out);
        out.byte(writer::first_byte(PacketType::Publish) | flags);
        out.variable(number(remaining));
        out.prefixed("topic name", self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            out.two(packet_id.get());
        }
        if version == Version::V5 {
            out.variable(number(self.properties_len()));
            out.property_four(Property::MessageExpiryInterval, self.expiry_s);
            out.property_two(Property::TopicAlias, self.topic_alias);
            for &id in self.subscription_ids {
                out.property_variable(Property::SubscriptionIdentifier, Some(id));
            }
            out.raw(self.passed_on);
        }
        out.raw(self.payload);
    }

    /// Where in the packet its id stands; `None` if it has none.
    #[must_use]
    pub fn packet_id_at(&self, version: Version) -> Option<usize> {
        self.packet_id?;
        Some(1 + variable_len(self.remaining(version)) + 2 + self.topic.len())
    }

    fn remaining(&self, version: Version) -> usize {
        let mut remaining = 2 + self.topic.len() + self.payload.len();
        if self.packet_id.is_some() {
            remaining += 2;
        }
        if version == Version::V5 {
            let properties = self.properties_len();
            remaining += variable_len(properties) + properties;
        }
        remaining
    }

    fn properties_len(&self) -> usize {
        let ids = self.subscription_ids.iter();
        let ids: usize = ids.map(|&id| 1 + variable_len(id as usize)).sum();
        let expiry = self.expiry_s.map_or(0, |_| 5);
        let alias = self.topic_alias.map_or(0, |_| 3);
        ids + expiry + alias + self.passed_on.len()
    }
}

/// Appends the properties that a server passes on as they are: Payload Format Indicator
/// [MQTT-3.3.2-4], Response Topic [MQTT-3.3.2-15], Correlation Data [MQTT-3.3.2-16], Content Type
/// [MQTT-3.3.2-20] and User Properties in their order [MQTT-3.3.2-17], [MQTT-3.3.2-18].
///
/// Message Expiry Interval, Topic Alias and Subscription Identifier differ for each receiver.
pub fn write_passed_on(properties: &PublishProperties<'_>, out: &mut Vec<u8>) {
    let mut out = writer::Writer(out);
    out.property_bool(
        Property::PayloadFormatIndicator,
        properties.payload_format_is_utf8,
    );
    out.property_text(Property::ResponseTopic, properties.response_topic);
    out.property_binary(Property::CorrelationData, properties.correlation_data);
    out.property_text(Property::ContentType, properties.content_type);
    properties.user_properties.put(&mut out);
}

impl<'a> WillProperties<'a> {
    /// The same as the properties of the PUBLISH that the will becomes.
    #[must_use]
    pub fn as_publish(&self) -> PublishProperties<'a> {
        PublishProperties {
            payload_format_is_utf8: self.payload_format_is_utf8,
            message_expiry_s: self.message_expiry_s,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            content_type: self.content_type,
            user_properties: self.user_properties,
            ..PublishProperties::default()
        }
    }
}

/// Bytes of a variable byte integer.
const fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x001F_FFFF => 3,
        _ => 4,
    }
}

fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
