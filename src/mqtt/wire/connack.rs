//! CONNACK (MQTT 5 section 3.2).

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketType, QoS, Version};

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// An older session goes on; never beside an error [MQTT-3.2.2-6].
    pub session_present: bool,
    /// MQTT 5: a reason code. Before: a return code, 0 to 5.
    pub code: u8,
    /// What MQTT 5 adds.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of CONNACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Seconds, when it differs from what the client asked for.
    pub session_expiry_s: Option<u32>,
    /// QoS 1 and 2 messages the server takes at once, not 0; absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// At most once or at least once; absent is exactly once [MQTT-3.2.2-9].
    pub maximum_qos: Option<QoS>,
    /// Absent is yes.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet the server takes, not 0; absent is no limit.
    pub packet_size_max: Option<u32>,
    /// The client identifier the server chose [MQTT-3.2.2-16].
    pub assigned_client_id: Option<&'a str>,
    /// Topic aliases the server takes; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// For people, not for programs.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
    /// Absent is yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent is yes.
    pub subscription_ids_available: Option<bool>,
    /// Absent is yes.
    pub shared_subscription_available: Option<bool>,
    /// Seconds, in place of what the client asked for [MQTT-3.2.2-21].
    pub server_keep_alive_s: Option<u16>,
    /// Where response topics may lie.
    pub response_information: Option<&'a str>,
    /// Where to go instead.
    pub server_reference: Option<&'a str>,
    /// The method of CONNECT.
    pub authentication_method: Option<&'a str>,
    /// What the method defines.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAck<'a> {
    /// A CONNACK without properties and without session: `code` as in [`ConnAck::code`].
    #[must_use]
    pub fn new(code: u8) -> ConnAck<'a> {
        ConnAck {
            session_present: false,
            code,
            properties: ConnAckProperties::default(),
        }
    }

    /// Appends the packet to `out`. Before MQTT 5 the properties are left out.
    ///
    /// # Errors
    /// A code the version does not have, Session Present beside an error, a property out of range,
    /// a string that is too long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<ConnAck<'a>, WireError> {
        let found = reader.byte("CONNACK flags")?;
        let code = reader.byte("CONNACK code")?;
        if !allows(version, code) {
            return Err(WireError::ReasonCode {
                packet: PacketType::ConnAck,
                found: code,
            });
        }
        // [MQTT-3.2.2-1], [MQTT-3.2.2-6]; MQTT 3.1 leaves the byte unused.
        if version != Version::V31 && (found > 1 || (found == 1 && code != 0)) {
            return Err(WireError::ConnAckFlags { found });
        }
        let properties = match version {
            Version::V5 => ConnAckProperties::decode(&mut reader)?,
            _ => ConnAckProperties::default(),
        };
        reader.finish(PacketType::ConnAck)?;
        let session_present = version != Version::V31 && found == 1;
        Ok(ConnAck {
            session_present,
            code,
            properties,
        })
    }
}

impl<'a> ConnAckProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<ConnAckProperties<'a>, WireError> {
        let block = property::block(reader)?;
        let mut properties = ConnAckProperties::default();
        let user_properties = property::walk(
            block,
            Place::CONNACK,
            &mut Budget::default(),
            |property, value| {
                match value {
                    Value::Byte(byte) => properties.set_byte(property, byte),
                    Value::Two(two) => properties.set_two(property, two),
                    Value::Four(four) => properties.set_four(property, four),
                    Value::Text(text) => properties.set_text(property, text),
                    Value::Binary(data) => properties.authentication_data = Some(data),
                    Value::Variable(_) => {}
                }
                Ok(())
            },
        )?;
        properties.user_properties = user_properties;
        Ok(properties)
    }

    fn set_byte(&mut self, property: Property, byte: u8) {
        let yes = Some(byte == 1);
        match property {
            Property::MaximumQos => self.maximum_qos = QoS::from_u8(byte),
            Property::RetainAvailable => self.retain_available = yes,
            Property::WildcardSubscriptionAvailable => self.wildcard_subscription_available = yes,
            Property::SubscriptionIdentifierAvailable => self.subscription_ids_available = yes,
            Property::SharedSubscriptionAvailable => self.shared_subscription_available = yes,
            _ => {}
        }
    }

    fn set_two(&mut self, property: Property, two: u16) {
        match property {
            Property::ReceiveMaximum => self.receive_maximum = Some(two),
            Property::TopicAliasMaximum => self.topic_alias_maximum = Some(two),
            Property::ServerKeepAlive => self.server_keep_alive_s = Some(two),
            _ => {}
        }
    }

    fn set_four(&mut self, property: Property, four: u32) {
        match property {
            Property::SessionExpiryInterval => self.session_expiry_s = Some(four),
            Property::MaximumPacketSize => self.packet_size_max = Some(four),
            _ => {}
        }
    }

    fn set_text(&mut self, property: Property, text: &'a str) {
        match property {
            Property::AssignedClientIdentifier => self.assigned_client_id = Some(text),
            Property::ReasonString => self.reason_string = Some(text),
            Property::ResponseInformation => self.response_information = Some(text),
            Property::ServerReference => self.server_reference = Some(text),
            Property::AuthenticationMethod => self.authentication_method = Some(text),
            _ => {}
        }
    }
}

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::ConnAck)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        if !allows(version, self.code) {
            sink.refuse(EncodeError::Value {
                field: "CONNACK code",
            });
        }
        if self.session_present && self.code != 0 {
            sink.refuse(EncodeError::Value {
                field: "Session Present",
            });
        }
        // MQTT 3.1 has no Session Present.
        sink.byte(u8::from(self.session_present && version != Version::V31));
        sink.byte(self.code);
        if version == Version::V5 {
            sink.properties(&self.properties);
        }
    }
}

impl Properties for ConnAckProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_four(Property::SessionExpiryInterval, self.session_expiry_s);
        sink.property_two(Property::ReceiveMaximum, self.receive_maximum);
        sink.property_byte(Property::MaximumQos, self.maximum_qos.map(QoS::as_u8));
        sink.property_bool(Property::RetainAvailable, self.retain_available);
        sink.property_four(Property::MaximumPacketSize, self.packet_size_max);
        sink.property_text(Property::AssignedClientIdentifier, self.assigned_client_id);
        sink.property_two(Property::TopicAliasMaximum, self.topic_alias_maximum);
        sink.property_text(Property::ReasonString, self.reason_string);
        self.user_properties.put(sink);
        let wildcard = self.wildcard_subscription_available;
        sink.property_bool(Property::WildcardSubscriptionAvailable, wildcard);
        let ids = self.subscription_ids_available;
        sink.property_bool(Property::SubscriptionIdentifierAvailable, ids);
        let shared = self.shared_subscription_available;
        sink.property_bool(Property::SharedSubscriptionAvailable, shared);
        sink.property_two(Property::ServerKeepAlive, self.server_keep_alive_s);
        sink.property_text(Property::ResponseInformation, self.response_information);
        sink.property_text(Property::ServerReference, self.server_reference);
        sink.property_text(Property::AuthenticationMethod, self.authentication_method);
        sink.property_binary(Property::AuthenticationData, self.authentication_data);
    }
}

/// The reason codes of section 3.2.2.2; before MQTT 5 the return codes 0 to 5.
fn allows(version: Version, code: u8) -> bool {
    if version < Version::V5 {
        return code <= 5;
    }
    match ReasonCode::from_u8(code) {
        None => false,
        Some(ReasonCode::Success) => true,
        Some(
            ReasonCode::ServerShuttingDown
            | ReasonCode::KeepAliveTimeout
            | ReasonCode::SessionTakenOver
            | ReasonCode::TopicFilterInvalid
            | ReasonCode::PacketIdentifierInUse
            | ReasonCode::PacketIdentifierNotFound
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::AdministrativeAction
            | ReasonCode::SharedSubscriptionsNotSupported
            | ReasonCode::MaximumConnectTime
            | ReasonCode::SubscriptionIdentifiersNotSupported
            | ReasonCode::WildcardSubscriptionsNotSupported,
        ) => false,
        Some(other) => other.is_error(),
    }
}
