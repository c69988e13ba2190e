//! One message, encoded once for many subscribers.

use crate::mqtt::message::Message;
use crate::mqtt::wire::Version;

/// The packets of one message at QoS 0, one for each way to write it: MQTT 5 or before, with and
/// without Retain. A worker has one and reuses its memory; [`Encoded::begin`] goes before each
/// message's subscribers.
#[derive(Debug, Default)]
pub struct Encoded {
    packets: [Packet; 4],
}

#[derive(Debug, Default)]
struct Packet {
    bytes: Vec<u8>,
    is_filled: bool,
}

impl Encoded {
    /// Another message comes.
    pub fn begin(&mut self) {
        for packet in &mut self.packets {
            packet.is_filled = false;
        }
    }

    /// The PUBLISH of `message` at QoS 0 without identifiers and alias; `None` if no packet can be
    /// so long. What it has left to live is as of the first call since [`Encoded::begin`].
    pub fn packet(
        &mut self,
        message: &Message,
        version: Version,
        retain: bool,
        now_ms: u64,
    ) -> Option<&[u8]> {
        let place = usize::from(version == Version::V5) * 2 + usize::from(retain);
        let packet = self.packets.get_mut(place)?;
        if !packet.is_filled {
            packet.bytes.clear();
            packet.bytes.shrink_to(KEPT_BYTES);
            let forward = message.forward(retain, now_ms);
            forward.packet_size(version)?;
            forward.write(version, &mut packet.bytes);
            packet.is_filled = true;
        }
        Some(&packet.bytes)
    }
}

/// Memory a packet's buffer keeps between messages, in bytes: beyond it a message of unusual size
/// would stay there for ever, four times for each worker.
const KEPT_BYTES: usize = 64 * 1024;
