//! DISCONNECT (MQTT 5 section 3.14); before MQTT 5 it is empty and only a client sends it.

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketType, Sender, Version};

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; [`ReasonCode::NORMAL_DISCONNECTION`] deletes the will [MQTT-3.14.4-3].
    pub reason: ReasonCode,
    /// What MQTT 5 adds.
    pub properties: DisconnectProperties<'a>,
}

/// The properties of DISCONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties<'a> {
    /// Seconds the session lives on; a server must not send it [MQTT-3.14.2-2].
    pub session_expiry_s: Option<u32>,
    /// For people, not for programs.
    pub reason_string: Option<&'a str>,
    /// Where to go instead.
    pub server_reference: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Disconnect<'a> {
        Disconnect {
            reason,
            properties: DisconnectProperties::default(),
        }
    }

    /// Whether a DISCONNECT can have this reason code.
    #[must_use]
    pub const fn can_say(reason: ReasonCode) -> bool {
        allows(reason)
    }

    /// Appends the packet to `out`. Before MQTT 5 reason and properties are left out.
    ///
    /// # Errors
    /// A reason DISCONNECT cannot carry or a property that is too long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        sender: Sender,
        mut reader: Reader<'a>,
    ) -> Result<Disconnect<'a>, WireError> {
        let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        // Lengths 0 and 1 are legal (section 3.14.2.1, 3.14.2.2.1).
        if version == Version::V5 && !reader.is_empty() {
            let found = reader.byte("reason code")?;
            disconnect.reason = ReasonCode::from_u8(found)
                .filter(|&reason| allows(reason))
                .ok_or(WireError::ReasonCode {
                    packet: PacketType::Disconnect,
                    found,
                })?;
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::decode(&mut reader)?;
            }
        }
        reader.finish(PacketType::Disconnect)?;
        // [MQTT-3.14.2-2]
        if sender == Sender::Server && disconnect.properties.session_expiry_s.is_some() {
            let property = Property::SessionExpiryInterval;
            return Err(WireError::PropertyNotAllowed { property });
        }
        Ok(disconnect)
    }
}

impl<'a> DisconnectProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<DisconnectProperties<'a>, WireError> {
        let block = property::block(reader)?;
        let mut properties = DisconnectProperties::default();
        properties.user_properties = property::walk(
            block,
            Place::DISCONNECT,
            &mut Budget::default(),
            |property, value| {
                match (property, value) {
                    (Property::SessionExpiryInterval, Value::Four(seconds)) => {
                        properties.session_expiry_s = Some(seconds);
                    }
                    (Property::ReasonString, Value::Text(text)) => {
                        properties.reason_string = Some(text);
                    }
                    (Property::ServerReference, Value::Text(reference)) => {
                        properties.server_reference = Some(reference);
                    }
                    _ => {}
                }
                Ok(())
            },
        )?;
        Ok(properties)
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Disconnect)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        if !allows(self.reason) {
            sink.refuse(EncodeError::Value {
                field: "reason code",
            });
        }
        let plain = self.properties == DisconnectProperties::default();
        if version < Version::V5 || (plain && self.reason == ReasonCode::NORMAL_DISCONNECTION) {
            return;
        }
        sink.byte(self.reason.as_u8());
        if !plain {
            sink.properties(&self.properties);
        }
    }
}

impl Properties for DisconnectProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_four(Property::SessionExpiryInterval, self.session_expiry_s);
        sink.property_text(Property::ReasonString, self.reason_string);
        sink.property_text(Property::ServerReference, self.server_reference);
        self.user_properties.put(sink);
    }
}

/// The reason codes of section 3.14.2.1, of clients and servers alike.
const fn allows(reason: ReasonCode) -> bool {
    match reason {
        ReasonCode::Success | ReasonCode::DisconnectWithWillMessage => true,
        ReasonCode::UnsupportedProtocolVersion
        | ReasonCode::ClientIdentifierNotValid
        | ReasonCode::BadUserNameOrPassword
        | ReasonCode::ServerUnavailable
        | ReasonCode::Banned
        | ReasonCode::BadAuthenticationMethod
        | ReasonCode::PacketIdentifierInUse
        | ReasonCode::PacketIdentifierNotFound => false,
        other => other.is_error(),
    }
}
