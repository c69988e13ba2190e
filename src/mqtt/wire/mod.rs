//! Frames and packets of MQTT 3.1, 3.1.1 and 5.
//!
//! [`frame()`] finds a packet's end from its fixed header; [`decode`] reads the whole packet and
//! borrows everything from it; each packet's `encode` appends to a `Vec<u8>`. Reading a PUBLISH
//! and [`write_ack`] allocate nothing. "Not enough bytes" inside a whole packet is an error of the
//! peer, never a reason to wait.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod forward;
mod frame;
mod property;
mod publish;
mod reader;
mod reason;
mod subscribe;
mod unsubscribe;
mod user_property;
mod writer;

use std::fmt;
use std::num::NonZeroU16;

pub use ack::{Ack, AckKind, ReasonProperties, write_ack};
pub use auth::{Auth, AuthProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties, decode_connect};
pub use disconnect::{Disconnect, DisconnectProperties};
pub use error::{EncodeError, WireError};
pub use forward::{Forward, write_passed_on};
pub use frame::{Frame, first_frame, frame};
pub use property::Property;
pub use publish::{Publish, PublishProperties};
pub use reason::ReasonCode;
pub use subscribe::{RetainHandling, SubAck, Subscribe, Subscription, SubscriptionOptions};
pub use unsubscribe::{UnsubAck, Unsubscribe};
pub use user_property::{
    SubscriptionIds, USER_PROPERTIES_BYTES_MAX, USER_PROPERTIES_MAX, UserProperties,
};

use reader::Reader;
use writer::{Body, Sink};

/// A protocol version; its number is the level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, "MQIsdp", level 3.
    V31 = 3,
    /// MQTT 3.1.1, level 4.
    V311 = 4,
    /// MQTT 5, level 5.
    V5 = 5,
}

/// How surely a message arrives (MQTT 5 section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: not acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: PUBACK.
    AtLeastOnce = 1,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS as a number, 0 to 2.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The QoS with this number; `None` above 2.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<QoS> {
        match number {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier; 0 does not exist [MQTT-2.2.1-3].
pub type PacketId = NonZeroU16;

/// Whose packets are being decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Packets a client sends.
    Client,
    /// Packets a server sends.
    Server,
}

/// The packet types by the standard's numbers (MQTT 5 section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's, section 2.1.2")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type in the upper four bits of a first byte.
    ///
    /// # Errors
    /// Type 0 is reserved (SEC-07).
    #[inline]
    pub const fn from_first_byte(first_byte: u8) -> Result<PacketType, WireError> {
        Ok(match first_byte >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            number => return Err(WireError::UnknownType { number }),
        })
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PacketType::Connect => "CONNECT",
            PacketType::ConnAck => "CONNACK",
            PacketType::Publish => "PUBLISH",
            PacketType::PubAck => "PUBACK",
            PacketType::PubRec => "PUBREC",
            PacketType::PubRel => "PUBREL",
            PacketType::PubComp => "PUBCOMP",
            PacketType::Subscribe => "SUBSCRIBE",
            PacketType::SubAck => "SUBACK",
            PacketType::Unsubscribe => "UNSUBSCRIBE",
            PacketType::UnsubAck => "UNSUBACK",
            PacketType::PingReq => "PINGREQ",
            PacketType::PingResp => "PINGRESP",
            PacketType::Disconnect => "DISCONNECT",
            PacketType::Auth => "AUTH",
        })
    }
}

/// One packet, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant's type says what it is")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The packet's type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`. A CONNECT is written in its own version.
    ///
    /// # Errors
    /// What the packet's own `encode` refuses; nothing is written then (SEC-13).
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::ConnAck(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::PubAck(ack) => ack.encode(AckKind::PubAck, version, out),
            Packet::PubRec(ack) => ack.encode(AckKind::PubRec, version, out),
            Packet::PubRel(ack) => ack.encode(AckKind::PubRel, version, out),
            Packet::PubComp(ack) => ack.encode(AckKind::PubComp, version, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::SubAck(suback) => suback.encode(version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::UnsubAck(unsuback) => unsuback.encode(version, out),
            Packet::PingReq => writer::write(&Empty(PacketType::PingReq), version, out),
            Packet::PingResp => writer::write(&Empty(PacketType::PingResp), version, out),
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }
}

/// Reads one whole packet, fixed header included, that `sender` sent on a connection of `version`.
///
/// Everything borrows from `packet`; nothing is allocated. A CONNECT must be of `version`, where
/// 3.1 and 3.1.1 count as one: [`decode_connect`] is for the first packet of a connection.
///
/// # Errors
/// SEC-04 to SEC-12: see [`WireError`]. Bytes that are missing are the peer's mistake, as are bytes
/// behind the packet.
#[inline]
pub fn decode(version: Version, sender: Sender, packet: &[u8]) -> Result<Packet<'_>, WireError> {
    let (Frame { first_byte, .. }, reader) = whole_frame(packet)?;
    let packet_type = PacketType::from_first_byte(first_byte)?;
    if packet_type == PacketType::Publish {
        return Publish::decode(version, sender, first_byte, reader, "").map(Packet::Publish);
    }
    check_sender(version, sender, packet_type, first_byte)?;
    match packet_type {
        PacketType::Connect => {
            let is_v5 = version == Version::V5;
            Connect::decode(reader, |found| (found == Version::V5) == is_v5).map(Packet::Connect)
        }
        PacketType::ConnAck => ConnAck::decode(version, reader).map(Packet::ConnAck),
        PacketType::Publish => {
            Publish::decode(version, sender, first_byte, reader, "").map(Packet::Publish)
        }
        PacketType::PubAck => Ack::decode(AckKind::PubAck, version, reader).map(Packet::PubAck),
        PacketType::PubRec => Ack::decode(AckKind::PubRec, version, reader).map(Packet::PubRec),
        PacketType::PubRel => Ack::decode(AckKind::PubRel, version, reader).map(Packet::PubRel),
        PacketType::PubComp => Ack::decode(AckKind::PubComp, version, reader).map(Packet::PubComp),
        PacketType::Subscribe => Subscribe::decode(version, reader).map(Packet::Subscribe),
        PacketType::SubAck => SubAck::decode(version, reader).map(Packet::SubAck),
        PacketType::Unsubscribe => Unsubscribe::decode(version, reader).map(Packet::Unsubscribe),
        PacketType::UnsubAck => UnsubAck::decode(version, reader).map(Packet::UnsubAck),
        PacketType::PingReq => reader.finish(packet_type).map(|()| Packet::PingReq),
        PacketType::PingResp => reader.finish(packet_type).map(|()| Packet::PingResp),
        PacketType::Disconnect => {
            Disconnect::decode(version, sender, reader).map(Packet::Disconnect)
        }
        PacketType::Auth => Auth::decode(reader).map(Packet::Auth),
    }
}

/// [`decode`] for the hot path: `None` if the packet is no PUBLISH. A [`Packet`] is large, and
/// moving it costs as much as reading one. `expected` is a valid topic name that most packets have
/// (or empty): it is compared, where others are checked.
///
/// # Errors
/// As [`decode`].
#[inline]
pub fn decode_publish<'a>(
    version: Version,
    sender: Sender,
    packet: &'a [u8],
    expected: &'a str,
) -> Option<Result<Publish<'a>, WireError>> {
    let first_byte = *packet.first()?;
    if first_byte >> 4 != PacketType::Publish as u8 {
        return None;
    }
    Some(whole_frame(packet).and_then(|(frame, reader)| {
        Publish::decode(version, sender, frame.first_byte, reader, expected)
    }))
}

/// The frame of a packet that must be whole, and its body.
#[inline]
fn whole_frame(packet: &[u8]) -> Result<(Frame, Reader<'_>), WireError> {
    let field = "packet";
    let left = packet.len();
    let frame = frame(packet, u32::MAX)?.ok_or(WireError::Truncated {
        field,
        needed: left + 1,
        left,
    })?;
    let total = frame.total_len();
    match packet.get(frame.header_len..) {
        Some(body) if body.len() == frame.remaining_len => Ok((frame, Reader::new(body))),
        Some(body) if body.len() > frame.remaining_len => Err(WireError::TrailingBytes {
            packet: PacketType::from_first_byte(frame.first_byte)?,
            count: body.len() - frame.remaining_len,
        }),
        _ => Err(WireError::Truncated {
            field,
            needed: total,
            left,
        }),
    }
}

/// Whether `sender` may send the packet in this version at all (SEC-07), and the flags that only
/// MQTT 3.1 allows.
fn check_sender(
    version: Version,
    sender: Sender,
    packet: PacketType,
    first_byte: u8,
) -> Result<(), WireError> {
    let by_client = match packet {
        PacketType::Auth if version < Version::V5 => {
            return Err(WireError::UnknownType {
                number: packet as u8,
            });
        }
        PacketType::Connect
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq => true,
        PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
            false
        }
        // Before MQTT 5 only a client says goodbye.
        PacketType::Disconnect if version < Version::V5 => true,
        _ => sender == Sender::Client,
    };
    if by_client != (sender == Sender::Client) {
        return Err(WireError::WrongSender { packet });
    }
    // `frame` let DUP pass: MQTT 3.1 section 2.1 has it in PUBREL, SUBSCRIBE and UNSUBSCRIBE.
    let found = first_byte & 0x0F;
    if found & 0b1000 != 0 && version != Version::V31 {
        return Err(WireError::HeaderFlags { packet, found });
    }
    Ok(())
}

/// A packet of two bytes.
struct Empty(PacketType);

impl Body for Empty {
    fn first_byte(&self) -> u8 {
        writer::first_byte(self.0)
    }

    fn put<S: Sink>(&self, _version: Version, _sink: &mut S) {}
}
