//! What the server writes of its own: answers to SUBSCRIBE and PING, and the last word.

use super::{Close, Replies, Session};
use crate::mqtt::wire::{
    Disconnect, DisconnectProperties, Packet, PacketId, ReasonProperties, SubAck, UnsubAck, Version,
};

/// PINGRESP [MQTT-3.12.4-1]; it acknowledges no fact and waits for none.
pub(super) fn pingresp(replies: &mut Replies) {
    replies.prompt.extend_from_slice(&[0xD0, 0x00]);
}

/// SUBACK with one code per filter, in the order of the filters [MQTT-3.8.4-6].
pub(super) fn suback(version: Version, packet_id: PacketId, codes: &[u8], replies: &mut Replies) {
    let packet = Packet::SubAck(SubAck {
        packet_id,
        codes,
        properties: ReasonProperties::default(),
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

impl Session {
    /// The server's last word: MQTT 5 gets DISCONNECT with the reason, others nothing
    /// [MQTT-3.14.0-1].
    pub fn disconnect(&self, close: Close, out: &mut Vec<u8>) {
        if self.version != Version::V5 {
            return;
        }
        let packet = Packet::Disconnect(Disconnect {
            reason: close.reason,
            properties: DisconnectProperties::default(),
        });
        packet
            .encode(self.version, out)
            .expect("a DISCONNECT without properties always fits");
    }
}
