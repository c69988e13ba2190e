//! What can be wrong with bytes a peer sent, and with a packet we were asked to write.

use crate::mqtt::topic::{FilterError, TopicError};

use super::{PacketType, Property, ReasonCode};

/// Why bytes are not a packet we take. Every variant is the peer's fault.
///
/// [`WireError::reason`] is the one place that maps an error to what a MQTT 5 peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first packet of a connection is not a CONNECT (SEC-02) [MQTT-3.1.0-1].
    #[error("the first packet must be CONNECT, found first byte {first_byte:#04x}")]
    NotConnect {
        /// The byte that came instead of 0x10.
        first_byte: u8,
    },
    /// A CONNECT of a protocol level we do not speak. The session answers CONNACK 0x01 or 0x84.
    #[error("protocol level {level} is not supported, expected 3, 4 or 5")]
    UnsupportedVersion {
        /// The level the client asked for.
        level: u8,
    },
    /// The packet type is reserved, or does not exist in this version (SEC-07).
    #[error("packet type {number} is not one of this version")]
    UnknownType {
        /// Packet type, 0 to 15.
        number: u8,
    },
    /// A packet only the other side may send (SEC-07).
    #[error("{packet} came from the side that must not send it")]
    WrongSender {
        /// What came.
        packet: PacketType,
    },
    /// Flags in the fixed header that the type does not allow (SEC-06) [MQTT-2.1.3-1].
    #[error("{packet} with header flags {found:#06b}")]
    HeaderFlags {
        /// What came.
        packet: PacketType,
        /// The lower four bits of the first byte.
        found: u8,
    },
    /// A variable byte integer of more than four bytes, or not in its shortest form (SEC-04)
    /// [MQTT-1.5.5-1].
    #[error("{field} is not a variable byte integer of 1 to 4 bytes in its shortest form")]
    VariableByteInteger {
        /// Where it stood.
        field: &'static str,
    },
    /// The whole packet is larger than we take (SEC-03) [MQTT-3.1.2-24].
    #[error("a packet of {size} bytes, at most {maximum} are taken")]
    PacketTooLarge {
        /// Size of the whole packet in bytes, fixed header included.
        size: u32,
        /// The limit in bytes.
        maximum: u32,
    },
    /// A field runs over the end of the packet or of its property block (SEC-05).
    #[error("{field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// Bytes behind the last field (SEC-05).
    #[error("{packet} with {count} bytes behind its last field")]
    TrailingBytes {
        /// What came.
        packet: PacketType,
        /// Bytes too many.
        count: usize,
    },
    /// A string that is not well-formed UTF-8 (SEC-08) [MQTT-1.5.4-1].
    #[error("{field} is not well-formed UTF-8")]
    Utf8 {
        /// Which string.
        field: &'static str,
    },
    /// A string with U+0000, or with a control or non-character where those are refused (SEC-08)
    /// [MQTT-1.5.4-2].
    #[error("{field} contains U+{character:04X}")]
    Character {
        /// Which string.
        field: &'static str,
        /// The code point.
        character: u32,
    },
    /// The protocol name is neither "MQTT" nor "MQIsdp" [MQTT-3.1.2-1].
    #[error("unknown protocol name")]
    ProtocolName,
    /// CONNECT flags that contradict each other or set the reserved bit (SEC-06) [MQTT-3.1.2-3].
    #[error("CONNECT flags {found:#010b}: {rule}")]
    ConnectFlags {
        /// The flags byte.
        found: u8,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// No client identifier where the version demands one [MQTT-3.1.3-8]: CONNACK 0x02.
    #[error("the client identifier is empty")]
    ClientIdEmpty,
    /// A packet identifier of 0 (SEC-06) [MQTT-2.2.1-3].
    #[error("{packet} with packet identifier 0")]
    PacketIdZero {
        /// What came.
        packet: PacketType,
    },
    /// A topic name that breaks the rules (SEC-09) [MQTT-3.3.2-2].
    #[error("{field}: {error}")]
    Topic {
        /// Which topic.
        field: &'static str,
        /// What is wrong.
        error: TopicError,
    },
    /// A PUBLISH of MQTT 5 with an empty topic and no topic alias (SEC-12).
    #[error("PUBLISH without topic and without topic alias")]
    TopicMissing,
    /// Topic Alias 0 (SEC-12) [MQTT-3.3.2-8].
    #[error("topic alias 0")]
    TopicAliasZero,
    /// A topic filter that breaks the rules (SEC-09, SEC-10).
    #[error("topic filter: {0}")]
    Filter(FilterError),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT-3.8.3-2] [MQTT-3.10.3-2].
    #[error("{packet} without a topic filter")]
    NoFilters {
        /// What came.
        packet: PacketType,
    },
    /// Reserved bits, QoS 3 or Retain Handling 3 in the options of a subscription (SEC-06).
    #[error("subscription options {found:#010b}")]
    SubscriptionOptions {
        /// The options byte.
        found: u8,
    },
    /// No Local on a shared subscription (SEC-10) [MQTT-3.8.3-4].
    #[error("No Local on a shared subscription")]
    NoLocalOnShared,
    /// A reason or return code the packet cannot carry.
    #[error("{packet} with reason code {found:#04x}")]
    ReasonCode {
        /// What came.
        packet: PacketType,
        /// The code.
        found: u8,
    },
    /// CONNACK flags with reserved bits, or Session Present beside an error [MQTT-3.2.2-1].
    #[error("CONNACK flags {found:#010b}")]
    ConnAckFlags {
        /// The flags byte.
        found: u8,
    },
    /// An identifier that is no property of MQTT 5 (SEC-11).
    #[error("{identifier:#04x} is no property")]
    UnknownProperty {
        /// What stood there.
        identifier: u32,
    },
    /// A property that does not belong into this packet (SEC-11).
    #[error("{property} is not allowed here")]
    PropertyNotAllowed {
        /// Which one.
        property: Property,
    },
    /// A property that may stand only once (SEC-11).
    #[error("{property} stands twice")]
    PropertyRepeated {
        /// Which one.
        property: Property,
    },
    /// A property with a value out of its range (SEC-11).
    #[error("{property} cannot be {value}")]
    PropertyValue {
        /// Which one.
        property: Property,
        /// The value.
        value: u32,
    },
    /// A property without another one it needs: Authentication Data without a method.
    #[error("{property} is missing")]
    PropertyMissing {
        /// The one that is missing.
        property: Property,
    },
    /// More user properties than we take (SEC-11).
    #[error("{count} user properties with {bytes} bytes in one packet")]
    UserProperties {
        /// How many, up to the one that went over a limit.
        count: usize,
        /// Their bytes on the wire, up to the one that went over a limit.
        bytes: usize,
    },
}

impl WireError {
    /// What a MQTT 5 peer is told, in CONNACK or DISCONNECT.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            WireError::UnsupportedVersion { .. } | WireError::ProtocolName => {
                ReasonCode::UnsupportedProtocolVersion
            }
            WireError::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            WireError::ClientIdEmpty => ReasonCode::ClientIdentifierNotValid,
            // U+0000 makes any string malformed [MQTT-1.5.4-2]; the others of SEC-08 go with it.
            WireError::Topic {
                error: TopicError::Character(_),
                ..
            }
            | WireError::Filter(FilterError::Text(TopicError::Character(_))) => {
                ReasonCode::MalformedPacket
            }
            WireError::Topic { .. } => ReasonCode::TopicNameInvalid,
            WireError::Filter(_) => ReasonCode::TopicFilterInvalid,
            WireError::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            WireError::UserProperties { .. } => ReasonCode::QuotaExceeded,
            WireError::NotConnect { .. }
            | WireError::WrongSender { .. }
            | WireError::TopicMissing
            | WireError::NoFilters { .. }
            | WireError::NoLocalOnShared
            | WireError::PropertyNotAllowed { .. }
            | WireError::PropertyRepeated { .. }
            | WireError::PropertyValue { .. }
            | WireError::PropertyMissing { .. }
            | WireError::PacketIdZero { .. } => ReasonCode::ProtocolError,
            WireError::UnknownType { .. }
            | WireError::HeaderFlags { .. }
            | WireError::VariableByteInteger { .. }
            | WireError::Truncated { .. }
            | WireError::TrailingBytes { .. }
            | WireError::Utf8 { .. }
            | WireError::Character { .. }
            | WireError::ConnectFlags { .. }
            | WireError::SubscriptionOptions { .. }
            | WireError::ReasonCode { .. }
            | WireError::ConnAckFlags { .. }
            | WireError::UnknownProperty { .. } => ReasonCode::MalformedPacket,
        }
    }
}

/// Why a packet cannot be written. Every variant is our own mistake; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary value over 65,535 bytes.
    #[error("{field} has {length} bytes, at most 65535 can be written")]
    FieldTooLong {
        /// Which one.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// The packet is over the 268,435,455 bytes a Remaining Length can say.
    #[error("a body of {length} bytes, at most 268435455 can be written")]
    PacketTooLarge {
        /// Length of the body in bytes.
        length: usize,
    },
    /// The version has no such packet: AUTH, or a DISCONNECT of the server, before MQTT 5.
    #[error("{packet} does not exist in this version")]
    NotInVersion {
        /// Which one.
        packet: PacketType,
    },
    /// A value the standard forbids; writing it would make the peer close the connection.
    #[error("{field} has a value that cannot be written")]
    Value {
        /// Which field.
        field: &'static str,
    },
}
