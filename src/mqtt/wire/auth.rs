//! AUTH (MQTT 5 section 3.15); it does not exist before.

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketType, Version};

/// A step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// The authentication itself.
    pub properties: AuthProperties<'a>,
}

/// The properties of AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthProperties<'a> {
    /// Name of the method; there unless the packet is empty.
    pub authentication_method: Option<&'a str>,
    /// What the method defines.
    pub authentication_data: Option<&'a [u8]>,
    /// For people, not for programs.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// A version before MQTT 5, a reason AUTH cannot carry, no method, a property that is too
    /// long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(mut reader: Reader<'a>) -> Result<Auth<'a>, WireError> {
        // An empty AUTH says success (section 3.15.2.1).
        if reader.is_empty() {
            return Ok(Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            });
        }
        let found = reader.byte("reason code")?;
        let reason = ReasonCode::from_u8(found)
            .filter(|&reason| allows(reason))
            .ok_or(WireError::ReasonCode {
                packet: PacketType::Auth,
                found,
            })?;
        let block = property::block(&mut reader)?;
        let mut properties = AuthProperties::default();
        properties.user_properties = property::walk(
            block,
            Place::AUTH,
            &mut Budget::default(),
            |property, value| {
                match (property, value) {
                    (Property::AuthenticationMethod, Value::Text(method)) => {
                        properties.authentication_method = Some(method);
                    }
                    (Property::AuthenticationData, Value::Binary(data)) => {
                        properties.authentication_data = Some(data);
                    }
                    (Property::ReasonString, Value::Text(text)) => {
                        properties.reason_string = Some(text);
                    }
                    _ => {}
                }
                Ok(())
            },
        )?;
        reader.finish(PacketType::Auth)?;
        let auth = Auth { reason, properties };
        // It is a Protocol Error to leave the method out (section 3.15.2.2.2); but success without
        // properties may be left out altogether (section 3.15.2.1), so it may be written too.
        if auth.properties.authentication_method.is_none() && !auth.is_empty() {
            return Err(WireError::PropertyMissing {
                property: Property::AuthenticationMethod,
            });
        }
        Ok(auth)
    }

    fn is_empty(&self) -> bool {
        self.reason == ReasonCode::Success && self.properties == AuthProperties::default()
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Auth)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        if version < Version::V5 {
            sink.refuse(EncodeError::NotInVersion {
                packet: PacketType::Auth,
            });
        }
        if !allows(self.reason) {
            sink.refuse(EncodeError::Value {
                field: "reason code",
            });
        }
        if self.is_empty() {
            return;
        }
        if self.properties.authentication_method.is_none() {
            sink.refuse(EncodeError::Value {
                field: Property::AuthenticationMethod.name(),
            });
        }
        sink.byte(self.reason.as_u8());
        sink.properties(&self.properties);
    }
}

impl Properties for AuthProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_text(Property::AuthenticationMethod, self.authentication_method);
        sink.property_binary(Property::AuthenticationData, self.authentication_data);
        sink.property_text(Property::ReasonString, self.reason_string);
        self.user_properties.put(sink);
    }
}

/// The reason codes of section 3.15.2.1.
const fn allows(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success | ReasonCode::ContinueAuthentication | ReasonCode::ReAuthenticate
    )
}
