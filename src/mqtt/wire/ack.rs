//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape (MQTT 5 sections 3.4 to 3.7).

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketId, PacketType, Version};

/// Which of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckKind {
    /// The packet type.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        match self {
            AckKind::PubAck => PacketType::PubAck,
            AckKind::PubRec => PacketType::PubRec,
            AckKind::PubRel => PacketType::PubRel,
            AckKind::PubComp => PacketType::PubComp,
        }
    }

    /// The reason codes the standard lists for the packet.
    const fn allows(self, reason: ReasonCode) -> bool {
        match self {
            AckKind::PubAck | AckKind::PubRec => matches!(
                reason,
                ReasonCode::Success
                    | ReasonCode::NoMatchingSubscribers
                    | ReasonCode::UnspecifiedError
                    | ReasonCode::ImplementationSpecificError
                    | ReasonCode::NotAuthorized
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::PacketIdentifierInUse
                    | ReasonCode::QuotaExceeded
                    | ReasonCode::PayloadFormatInvalid
            ),
            AckKind::PubRel | AckKind::PubComp => {
                matches!(
                    reason,
                    ReasonCode::Success | ReasonCode::PacketIdentifierNotFound
                )
            }
        }
    }
}

/// An acknowledgement. Before MQTT 5 the reason is always [`ReasonCode::Success`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The packet identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// What became of it.
    pub reason: ReasonCode,
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Appends the packet to `out`. Before MQTT 5 reason and properties are left out.
    ///
    /// # Errors
    /// A reason the packet cannot carry, or a property that is too long; nothing is written.
    pub fn encode(
        &self,
        kind: AckKind,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        writer::write(&Kinded { kind, ack: self }, version, out)
    }

    pub(super) fn decode(
        kind: AckKind,
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<Ack<'a>, WireError> {
        let packet = kind.packet_type();
        let mut ack = Ack {
            packet_id: reader.packet_id(packet)?,
            reason: ReasonCode::Success,
            properties: ReasonProperties::default(),
        };
        // Without reason: success. Without property length: no properties (section 3.4.2.2.1).
        if version == Version::V5 && !reader.is_empty() {
            let found = reader.byte("reason code")?;
            ack.reason = ReasonCode::from_u8(found)
                .filter(|&reason| kind.allows(reason))
                .ok_or(WireError::ReasonCode { packet, found })?;
            if !reader.is_empty() {
                ack.properties = ReasonProperties::decode(&mut reader, Place::ACK)?;
            }
        }
        reader.finish(packet)?;
        Ok(ack)
    }
}

/// What acknowledgements may carry: the properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and
/// UNSUBACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonProperties<'a> {
    /// For people, not for programs.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> ReasonProperties<'a> {
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        place: Place,
    ) -> Result<ReasonProperties<'a>, WireError> {
        let block = property::block(reader)?;
        let mut reason_string = None;
        let user_properties =
            property::walk(block, place, &mut Budget::default(), |property, value| {
                if let (Property::ReasonString, Value::Text(text)) = (property, value) {
                    reason_string = Some(text);
                }
                Ok(())
            })?;
        Ok(ReasonProperties {
            reason_string,
            user_properties,
        })
    }

    fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl Properties for ReasonProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_text(Property::ReasonString, self.reason_string);
        self.user_properties.put(sink);
    }
}

/// Appends an acknowledgement without properties: the hot path, which cannot fail and allocates
/// nothing when `out` has 5 bytes of room.
///
/// Before MQTT 5 the reason is left out; so it is in MQTT 5 when it is success (section 3.4.2.1).
/// `reason` must be one the packet can carry: the others would make the peer close.
#[inline]
pub fn write_ack(
    out: &mut Vec<u8>,
    kind: AckKind,
    version: Version,
    packet_id: PacketId,
    reason: ReasonCode,
) {
    debug_assert!(kind.allows(reason), "{kind:?} cannot carry {reason:?}");
    let first_byte = writer::first_byte(kind.packet_type());
    let [high, low] = packet_id.get().to_be_bytes();
    if version == Version::V5 && reason != ReasonCode::Success {
        out.extend_from_slice(&[first_byte, 3, high, low, reason.as_u8()]);
    } else {
        out.extend_from_slice(&[first_byte, 2, high, low]);
    }
}

/// An acknowledgement that knows which one it is.
struct Kinded<'a, 'b> {
    kind: AckKind,
    ack: &'b Ack<'a>,
}

impl Body for Kinded<'_, '_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(self.kind.packet_type())
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.two(self.ack.packet_id.get());
        if !self.kind.allows(self.ack.reason) {
            sink.refuse(EncodeError::Value {
                field: "reason code",
            });
        }
        let plain = self.ack.properties.is_empty();
        if version < Version::V5 || (plain && self.ack.reason == ReasonCode::Success) {
            return;
        }
        sink.byte(self.ack.reason.as_u8());
        if !plain {
            sink.properties(&self.ack.properties);
        }
    }
}
