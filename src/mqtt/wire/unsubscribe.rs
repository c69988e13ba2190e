//! UNSUBSCRIBE and UNSUBACK (MQTT 5 sections 3.10 and 3.11).

use std::fmt;

use crate::mqtt::topic::Filter;

use super::ack::ReasonProperties;
use super::error::{EncodeError, WireError};
use super::property::{self, Place};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketId, PacketType, Version};

/// The end of a wish for messages: at least one filter [MQTT-3.10.3-2].
#[derive(Clone, Copy)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK repeats.
    pub packet_id: PacketId,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
    filters: Filters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// An UNSUBSCRIBE to be written, without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: &'a [Filter<'a>]) -> Unsubscribe<'a> {
        Unsubscribe {
            packet_id,
            user_properties: UserProperties::default(),
            filters: Filters::Items(filters),
        }
    }

    /// The filters in their order, at least one. What was read was checked as a whole before; each
    /// call walks over the bytes again.
    pub fn filters(&self) -> impl Iterator<Item = Filter<'a>> + use<'a> {
        let (bytes, items): (&'a [u8], &'a [Filter<'a>]) = match self.filters {
            Filters::Read(bytes) => (bytes, &[]),
            Filters::Items(items) => (&[], items),
        };
        let mut reader = Reader::new(bytes);
        let read = std::iter::from_fn(move || match reader.is_empty() {
            true => None,
            false => reader.filter().ok(),
        });
        read.chain(items.iter().copied())
    }

    /// Appends the packet to `out`. Before MQTT 5 user properties are left out.
    ///
    /// # Errors
    /// No filter, or a string that is too long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<Unsubscribe<'a>, WireError> {
        let packet_id = reader.packet_id(PacketType::Unsubscribe)?;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let block = property::block(&mut reader)?;
            let budget = &mut Budget::default();
            user_properties = property::walk(block, Place::UNSUBSCRIBE, budget, |_, _| Ok(()))?;
        }
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(WireError::NoFilters {
                packet: PacketType::Unsubscribe,
            });
        }
        let mut filters = Reader::new(bytes);
        while !filters.is_empty() {
            filters.filter()?;
        }
        Ok(Unsubscribe {
            packet_id,
            user_properties,
            filters: Filters::Read(bytes),
        })
    }
}

impl PartialEq for Unsubscribe<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.packet_id == other.packet_id
            && self.user_properties == other.user_properties
            && self.filters().eq(other.filters())
    }
}

impl Eq for Unsubscribe<'_> {}

impl fmt::Debug for Unsubscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsubscribe")
            .field("packet_id", &self.packet_id)
            .field("user_properties", &self.user_properties)
            .field("filters", &self.filters().collect::<Vec<_>>())
            .finish()
    }
}

/// The answer to UNSUBSCRIBE: in MQTT 5 one code for each filter, in order [MQTT-3.11.3-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason codes; neither written nor read before MQTT 5.
    pub codes: &'a [u8],
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// Appends the packet to `out`. Before MQTT 5 only the packet identifier is written.
    ///
    /// # Errors
    /// In MQTT 5: no code, a code UNSUBACK cannot carry, a string that is too long; nothing is
    /// written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<UnsubAck<'a>, WireError> {
        let packet_id = reader.packet_id(PacketType::UnsubAck)?;
        if version < Version::V5 {
            reader.finish(PacketType::UnsubAck)?;
            return Ok(UnsubAck {
                packet_id,
                codes: &[],
                properties: ReasonProperties::default(),
            });
        }
        let properties = ReasonProperties::decode(&mut reader, Place::SUBACK)?;
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(WireError::Truncated {
                field: "UNSUBACK codes",
                needed: 1,
                left: 0,
            });
        }
        match codes.iter().find(|&&code| !allows(code)) {
            Some(&found) => Err(WireError::ReasonCode {
                packet: PacketType::UnsubAck,
                found,
            }),
            None => Ok(UnsubAck {
                packet_id,
                codes,
                properties,
            }),
        }
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Unsubscribe)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.two(self.packet_id.get());
        if version == Version::V5 {
            sink.properties(self);
        }
        let mut none = true;
        for filter in self.filters() {
            none = false;
            sink.prefixed("topic filter", filter.as_str().as_bytes());
        }
        if none {
            sink.refuse(EncodeError::Value {
                field: "topic filter",
            });
        }
    }
}

impl Properties for Unsubscribe<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        self.user_properties.put(sink);
    }
}

impl Body for UnsubAck<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::UnsubAck)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.two(self.packet_id.get());
        if version < Version::V5 {
            return;
        }
        if self.codes.is_empty() || self.codes.iter().any(|&code| !allows(code)) {
            sink.refuse(EncodeError::Value {
                field: "UNSUBACK codes",
            });
        }
        sink.properties(&self.properties);
        sink.raw(self.codes);
    }
}

/// The filters of an UNSUBSCRIBE: read and checked, or about to be written.
#[derive(Clone, Copy)]
enum Filters<'a> {
    Read(&'a [u8]),
    Items(&'a [Filter<'a>]),
}

/// The reason codes of section 3.11.3.
fn allows(code: u8) -> bool {
    matches!(
        ReasonCode::from_u8(code),
        Some(
            ReasonCode::Success
                | ReasonCode::NoSubscriptionExisted
                | ReasonCode::UnspecifiedError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::NotAuthorized
                | ReasonCode::TopicFilterInvalid
                | ReasonCode::PacketIdentifierInUse
        )
    )
}
