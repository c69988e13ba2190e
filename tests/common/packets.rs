//! Packets as clients send them, written independently of the code under test.

use super::{
    secrets,
    wire::{Wire, hex},
};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V31,
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// All three, for tests that must hold for each.
pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// The topic on which a device publishes telemetry.
pub(crate) const TELEMETRY: &str = "v1/devices/me/telemetry";

/// A CONNECT to be built. The default is what a plain client sends: clean, keep alive 60 s.
#[derive(Clone)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    /// QoS, retain, topic, payload.
    pub(crate) will: Option<(u8, bool, &'a str, &'a [u8])>,
    /// MQTT 5 properties, without their length.
    pub(crate) properties: Vec<u8>,
    /// Those of the will.
    pub(crate) will_properties: Vec<u8>,
}

impl<'a> Connect<'a> {
    /// With a token as the user name and no password.
    pub(crate) fn with_token(version: Version, client_id: &'a str, token: &'a str) -> Connect<'a> {
        Connect {
            user_name: Some(token),
            ..Connect::anonymous(version, client_id)
        }
    }

    /// With neither user name nor password.
    pub(crate) fn anonymous(version: Version, client_id: &'a str) -> Connect<'a> {
        Connect {
            version,
            client_id,
            user_name: None,
            password: None,
            clean: true,
            keep_alive_s: 60,
            will: None,
            properties: Vec::new(),
            will_properties: Vec::new(),
        }
    }

    /// The packet.
    pub(crate) fn encode(&self) -> Vec<u8> {
        secrets::shown_at_connect(self.user_name, self.password);
        let mut body = match self.version {
            Version::V31 => hex("00064d514973647003"),
            Version::V311 => hex("00044d51545404"),
            Version::V5 => hex("00044d51545405"),
        };
        let mut flags = u8::from(self.clean) << 1;
        if let Some((qos, retain, ..)) = self.will {
            flags |= 0x04 | (qos << 3) | (u8::from(retain) << 5);
        }
        flags |= u8::from(self.password.is_some()) << 6;
        flags |= u8::from(self.user_name.is_some()) << 7;
        body.push(flags);
        body.extend(self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            property_block(&mut body, &self.properties);
        }
        text(&mut body, self.client_id);
        if let Some((_, _, topic, payload)) = self.will {
            if self.version == Version::V5 {
                property_block(&mut body, &self.will_properties);
            }
            text(&mut body, topic);
            binary(&mut body, payload);
        }
        if let Some(user_name) = self.user_name {
            text(&mut body, user_name);
        }
        if let Some(password) = self.password {
            binary(&mut body, password);
        }
        packet(0x10, &body)
    }
}

/// Sends CONNECT and expects to be let in; returns the CONNACK.
pub(crate) fn log_in(wire: &mut Wire, connect: &Connect<'_>) -> Vec<u8> {
    wire.send(&connect.encode());
    let connack = wire.packet();
    assert_eq!(connack[0], 0x20, "CONNACK expected: {connack:02x?}");
    assert_eq!(
        connack[3], 0,
        "CONNACK with a reason to refuse: {connack:02x?}"
    );
    connack
}

/// PUBLISH; `packet_id` is written for QoS 1 and 2 only.
pub(crate) fn publish(
    version: Version,
    qos: u8,
    packet_id: u16,
    topic: &str,
    payload: &[u8],
) -> Vec<u8> {
    publish_flags(version, qos << 1, packet_id, topic, payload)
}

/// PUBLISH with all flags of the fixed header (retain 1, QoS 2 and 4, DUP 8).
pub(crate) fn publish_flags(
    version: Version,
    flags: u8,
    packet_id: u16,
    topic: &str,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if flags & 0x06 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// SUBSCRIBE to filters, each with its options byte.
pub(crate) fn subscribe(version: Version, packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for (filter, options) in filters {
        text(&mut body, filter);
        body.push(*options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE from filters.
pub(crate) fn unsubscribe(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
    }
    packet(0xa2, &body)
}

/// PUBREL, in the short form that both versions share.
pub(crate) fn pubrel(packet_id: u16) -> Vec<u8> {
    packet(0x62, &packet_id.to_be_bytes())
}

/// A packet from its first byte and its body.
pub(crate) fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first_byte];
    variable_length(&mut out, body.len());
    out.extend(body);
    out
}

/// Property block: its length, then the properties.
pub(crate) fn property_block(out: &mut Vec<u8>, properties: &[u8]) {
    variable_length(out, properties.len());
    out.extend(properties);
}

/// A UTF-8 string with its length.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    binary(out, text.as_bytes());
}

/// Binary data with its length.
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("tests write short strings");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

fn variable_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length % 128).expect("a remainder of 128");
        length /= 128;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// What a refusal, acknowledgement or close says: the reason code of a MQTT 5 packet or the
/// return code of a CONNACK. DISCONNECT without a reason is 0.
pub(crate) fn reason(packet: &[u8]) -> u8 {
    let at = match packet[0] >> 4 {
        2 => 3,
        4..=7 => 4,
        14 => 2,
        other => panic!("packet type {other} has no single reason"),
    };
    packet.get(at).copied().unwrap_or(0)
}

/// The properties of a MQTT 5 CONNACK: identifier and value, as numbers or text.
pub(crate) fn connack_properties(packet: &[u8]) -> Vec<(u8, Property)> {
    let mut rest = &packet[5..]; // fixed header, flags, reason, a length below 128
    assert_eq!(
        usize::from(packet[4]),
        rest.len(),
        "the block fills the packet"
    );
    let mut properties = Vec::new();
    while let [id, after @ ..] = rest {
        let (value, used) = match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => (Property::Number(u32::from(after[0])), 1),
            0x13 | 0x21 | 0x22 => (
                Property::Number(u32::from(u16::from_be_bytes([after[0], after[1]]))),
                2,
            ),
            0x11 | 0x27 => {
                let bytes = [after[0], after[1], after[2], after[3]];
                (Property::Number(u32::from_be_bytes(bytes)), 4)
            }
            0x12 | 0x1a | 0x1c | 0x1f => {
                let length = usize::from(u16::from_be_bytes([after[0], after[1]]));
                let text = String::from_utf8_lossy(&after[2..2 + length]).into_owned();
                (Property::Text(text), 2 + length)
            }
            other => panic!("no CONNACK of ours has property {other:#04x}"),
        };
        properties.push((*id, value));
        rest = &after[used..];
    }
    properties
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// Of one, two or four bytes.
    Number(u32),
    /// A string.
    Text(String),
}
