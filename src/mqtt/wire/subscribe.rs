//! SUBSCRIBE and SUBACK (MQTT 5 sections 3.8 and 3.9).

use std::fmt;

use crate::mqtt::topic::Filter;

use super::ack::ReasonProperties;
use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{PacketId, PacketType, QoS, Version};

/// A wish for messages: at least one filter [MQTT-3.8.3-2].
#[derive(Clone, Copy)]
pub struct Subscribe<'a> {
    /// What SUBACK repeats.
    pub packet_id: PacketId,
    /// 1 to 268,435,455; stands beside every message that comes of this SUBSCRIBE.
    pub subscription_id: Option<u32>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
    filters: Filters<'a>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// What it matches.
    pub filter: Filter<'a>,
    /// How messages are sent.
    pub options: SubscriptionOptions,
}

/// How messages of a subscription are sent (section 3.8.3.1). Before MQTT 5 only the QoS is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS.
    pub qos: QoS,
    /// Not to the connection that published; never with a shared filter [MQTT-3.8.3-4].
    pub no_local: bool,
    /// Keep the publisher's Retain flag.
    pub retain_as_published: bool,
    /// Whether retained messages are sent at once.
    pub retain_handling: RetainHandling,
}

/// Whether retained messages are sent when a subscription is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: always.
    #[default]
    Send = 0,
    /// 1: only when the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

impl<'a> Subscribe<'a> {
    /// A SUBSCRIBE to be written, without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: &'a [Subscription<'a>]) -> Subscribe<'a> {
        Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: Filters::Items(filters),
        }
    }

    /// The filters in their order, at least one. What was read was checked as a whole before; each
    /// call walks over the bytes again.
    pub fn filters(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let (bytes, version, items): (&'a [u8], _, &'a [Subscription<'a>]) = match self.filters {
            Filters::Read { bytes, version } => (bytes, version, &[]),
            Filters::Items(items) => (&[], Version::V5, items),
        };
        let mut reader = Reader::new(bytes);
        let read = std::iter::from_fn(move || match reader.is_empty() {
            true => None,
            false => Subscription::decode(version, &mut reader).ok(),
        });
        read.chain(items.iter().copied())
    }

    /// Appends the packet to `out`. Before MQTT 5 everything but filters and QoS is left out.
    ///
    /// # Errors
    /// No filter, No Local on a shared one, a property out of range; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<Subscribe<'a>, WireError> {
        let packet_id = reader.packet_id(PacketType::Subscribe)?;
        let mut subscription_id = None;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let block = property::block(&mut reader)?;
            let budget = &mut Budget::default();
            user_properties =
                property::walk(block, Place::SUBSCRIBE, budget, |property, value| {
                    if let (Property::SubscriptionIdentifier, Value::Variable(id)) =
                        (property, value)
                    {
                        subscription_id = Some(id);
                    }
                    Ok(())
                })?;
        }
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(WireError::NoFilters {
                packet: PacketType::Subscribe,
            });
        }
        let mut filters = Reader::new(bytes);
        while !filters.is_empty() {
            Subscription::decode(version, &mut filters)?;
        }
        let filters = Filters::Read { bytes, version };
        Ok(Subscribe {
            packet_id,
            subscription_id,
            user_properties,
            filters,
        })
    }
}

impl PartialEq for Subscribe<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.packet_id == other.packet_id
            && self.subscription_id == other.subscription_id
            && self.user_properties == other.user_properties
            && self.filters().eq(other.filters())
    }
}

impl Eq for Subscribe<'_> {}

impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe")
            .field("packet_id", &self.packet_id)
            .field("subscription_id", &self.subscription_id)
            .field("user_properties", &self.user_properties)
            .field("filters", &self.filters().collect::<Vec<_>>())
            .finish()
    }
}

impl<'a> Subscription<'a> {
    fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Subscription<'a>, WireError> {
        let filter = reader.filter()?;
        let options = SubscriptionOptions::decode(version, reader.byte("subscription options")?)?;
        if options.no_local && filter.share_name().is_some() {
            return Err(WireError::NoLocalOnShared); // [MQTT-3.8.3-4]
        }
        Ok(Subscription { filter, options })
    }
}

impl SubscriptionOptions {
    fn decode(version: Version, found: u8) -> Result<SubscriptionOptions, WireError> {
        let error = WireError::SubscriptionOptions { found };
        // [MQTT-3.8.3-5]; before MQTT 5 all bits but the QoS are reserved [MQTT-3-8.3-4].
        let reserved = if version == Version::V5 {
            0b1100_0000
        } else {
            0b1111_1100
        };
        if found & reserved != 0 {
            return Err(error);
        }
        Ok(SubscriptionOptions {
            qos: QoS::from_u8(found & 0b11).ok_or(error)?,
            no_local: found & 0b0100 != 0,
            retain_as_published: found & 0b1000 != 0,
            retain_handling: match found >> 4 & 0b11 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(error),
            },
        })
    }

    const fn as_u8(self, version: Version) -> u8 {
        let qos = self.qos.as_u8();
        match version {
            Version::V5 => {
                qos | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
            _ => qos,
        }
    }
}

/// The answer to SUBSCRIBE: one code for each filter, in order [MQTT-3.8.4-6].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5: reason codes. Before: 0, 1, 2 or 0x80.
    pub codes: &'a [u8],
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// Appends the packet to `out`. Before MQTT 5 the properties are left out.
    ///
    /// # Errors
    /// No code, a code the version does not have, a string that is too long; nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, version, out)
    }

    pub(super) fn decode(
        version: Version,
        mut reader: Reader<'a>,
    ) -> Result<SubAck<'a>, WireError> {
        let packet_id = reader.packet_id(PacketType::SubAck)?;
        let properties = match version {
            Version::V5 => ReasonProperties::decode(&mut reader, Place::SUBACK)?,
            _ => ReasonProperties::default(),
        };
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(WireError::Truncated {
                field: "SUBACK codes",
                needed: 1,
                left: 0,
            });
        }
        match codes.iter().find(|&&code| !allows(version, code)) {
            Some(&found) => Err(WireError::ReasonCode {
                packet: PacketType::SubAck,
                found,
            }),
            None => Ok(SubAck {
                packet_id,
                codes,
                properties,
            }),
        }
    }
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Subscribe)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.two(self.packet_id.get());
        if version == Version::V5 {
            sink.properties(self);
        }
        let mut none = true;
        for Subscription { filter, options } in self.filters() {
            none = false;
            if options.no_local && filter.share_name().is_some() {
                sink.refuse(EncodeError::Value { field: "No Local" });
            }
            sink.prefixed("topic filter", filter.as_str().as_bytes());
            sink.byte(options.as_u8(version));
        }
        if none {
            sink.refuse(EncodeError::Value {
                field: "topic filter",
            });
        }
    }
}

impl Properties for Subscribe<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_variable(Property::SubscriptionIdentifier, self.subscription_id);
        self.user_properties.put(sink);
    }
}

impl Body for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::SubAck)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        if self.codes.is_empty() || self.codes.iter().any(|&code| !allows(version, code)) {
            sink.refuse(EncodeError::Value {
                field: "SUBACK codes",
            });
        }
        sink.two(self.packet_id.get());
        if version == Version::V5 {
            sink.properties(&self.properties);
        }
        sink.raw(self.codes);
    }
}

/// The filters of a SUBSCRIBE: read and checked, or about to be written.
#[derive(Clone, Copy)]
enum Filters<'a> {
    Read { bytes: &'a [u8], version: Version },
    Items(&'a [Subscription<'a>]),
}

/// The reason codes of section 3.9.3; before MQTT 5 the granted QoS or 0x80.
fn allows(version: Version, code: u8) -> bool {
    if version < Version::V5 {
        return matches!(code, 0..=2 | 0x80);
    }
    matches!(
        ReasonCode::from_u8(code),
        Some(
            ReasonCode::GRANTED_QOS_0
                | ReasonCode::GrantedQos1
                | ReasonCode::GrantedQos2
                | ReasonCode::UnspecifiedError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::NotAuthorized
                | ReasonCode::TopicFilterInvalid
                | ReasonCode::PacketIdentifierInUse
                | ReasonCode::QuotaExceeded
                | ReasonCode::SharedSubscriptionsNotSupported
                | ReasonCode::SubscriptionIdentifiersNotSupported
                | ReasonCode::WildcardSubscriptionsNotSupported
        )
    )
}
