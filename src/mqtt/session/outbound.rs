//! What the server writes of its own: answers to SUBSCRIBE and PING, and the last word.
//!
//! Messages to the client: [`queue`] holds them, [`in_flight`] gives them packet ids and knows
//! what is not acknowledged, [`delivery`] sends them, [`encoded`] is what the subscribers of one
//! message share.

pub mod delivery;
pub mod encoded;
pub mod in_flight;
pub mod queue;

use super::{Close, Replies, Session};
use crate::mqtt::wire::{
    Ack, AckKind, Disconnect, DisconnectProperties, Packet, PacketId, ReasonCode, ReasonProperties,
    SubAck, UnsubAck, Version,
};

/// PINGRESP [MQTT-3.12.4-1]; it acknowledges no fact and waits for none.
pub(super) fn pingresp(replies: &mut Replies) {
    replies.prompt.extend_from_slice(&[0xD0, 0x00]);
}

/// SUBACK with one code per filter, in the order of the filters [MQTT-3.8.4-6].
pub(super) fn suback(
    version: Version,
    packet_id: PacketId,
    codes: &[u8],
    words: Option<&str>,
    replies: &mut Replies,
) {
    let packet = Packet::SubAck(SubAck {
        packet_id,
        codes,
        properties: with_words(words),
    });
    packet
        .encode(version, &mut replies.ordered)
        .expect("codes are as many as one packet's filters");
}

/// UNSUBACK; 3.1.1 carries no codes.
pub(super) fn unsuback(version: Version, packet_id: PacketId, codes: &[u8], replies: &mut Replies) {
    let packet = Packet::UnsubAck(UnsubAck {
        packet_id,
        codes,
        properties: ReasonProperties::default(),
    });
    packet
        .encode(version, &mut replies.ordered)
        .expect("codes are as many as one packet's filters");
}

/// PUBACK or PUBREC of MQTT 5 that says its reason in words.
pub(super) fn ack_with_words(
    kind: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
    words: Option<&str>,
    out: &mut Vec<u8>,
) {
    let ack = Ack {
        packet_id,
        reason,
        properties: with_words(words),
    };
    ack.encode(kind, Version::V5, out)
        .expect("an acknowledgement with one short string always fits");
}

fn with_words(words: Option<&str>) -> ReasonProperties<'_> {
    ReasonProperties {
        reason_string: words,
        ..ReasonProperties::default()
    }
}

impl Session {
    /// The words for a refusal, where the client asked for them and takes so long a packet
    /// [MQTT-3.1.2-29], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.9.2-1].
    #[inline]
    pub(super) fn words(&self, reason: ReasonCode) -> Option<&'static str> {
        let has_room = self.client_packet_size_max >= LAST_WORD_BYTES_MAX;
        (self.wants_reasons && reason.is_error() && has_room).then(|| words(reason))
    }

    /// The server's last word: MQTT 5 gets DISCONNECT with the reason, others nothing
    /// [MQTT-3.14.0-1].
    pub fn disconnect(&self, close: Close, out: &mut Vec<u8>) {
        if self.version != Version::V5 {
            return;
        }
        // [MQTT-3.14.2-3]; whether the client asked for reason strings does not matter here
        // [MQTT-3.1.2-29]. Some clients read the reason only where a property follows it.
        let has_room = self.client_packet_size_max >= LAST_WORD_BYTES_MAX;
        let packet = Packet::Disconnect(Disconnect {
            reason: close.reason,
            properties: DisconnectProperties {
                reason_string: has_room.then(|| words(close.reason)),
                ..DisconnectProperties::default()
            },
        });
        packet
            .encode(self.version, out)
            .expect("a reason that DISCONNECT can say, and one short string, always fit");
    }
}

/// Longest packet with a reason in words, in bytes; a SUBACK's codes come on top.
const LAST_WORD_BYTES_MAX: u32 = 127;

/// What a person who looks at the client's log should know, in at most 100 bytes.
fn words(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::SessionTakenOver => "another connection has taken this session over",
        ReasonCode::AdministrativeAction => "the credential was revoked or replaced",
        ReasonCode::PayloadFormatInvalid => "the payload is not telemetry that can be read",
        ReasonCode::PacketTooLarge => "the packet or its payload is longer than allowed",
        ReasonCode::KeepAliveTimeout => "nothing was heard for one and a half keep alives",
        ReasonCode::QuotaExceeded => "the storage is full, or a limit of one packet is exceeded",
        ReasonCode::ReceiveMaximumExceeded => "more messages are unacknowledged than allowed",
        ReasonCode::TopicAliasInvalid => "a topic alias stands for nothing, or was not offered",
        ReasonCode::TopicFilterInvalid => "nothing can be subscribed to under this filter",
        ReasonCode::TopicNameInvalid => "nothing can be published to this topic",
        ReasonCode::NotAuthorized => "the scope of the credential does not cover it",
        ReasonCode::ServerShuttingDown => "the server stops",
        ReasonCode::MalformedPacket => "a packet could not be decoded",
        _ => "the protocol was broken",
    }
}
