//! One message, encoded once for many subscribers.

use crate::mqtt::message::Message;
use crate::mqtt::wire::{Forward, PacketId, QoS, Version};

/// The packets of one message at QoS 0 and 1, one for each way to write it: MQTT 5 or before, QoS,
/// with and without Retain. A worker has one and reuses its memory; [`Encoded::begin`] goes before
/// each message's subscribers.
#[derive(Debug, Default)]
pub struct Encoded {
    packets: [Packet; 8],
}

#[derive(Debug, Default)]
struct Packet {
    bytes: Vec<u8>,
    /// Where the packet id stands, at QoS 1.
    id_at: Option<usize>,
    is_filled: bool,
}

/// A PUBLISH that is the same for all who get it, but for the packet id.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    bytes: &'a [u8],
    id_at: Option<usize>,
}

impl Encoded {
    /// Another message comes.
    pub fn begin(&mut self) {
        for packet in &mut self.packets {
            packet.is_filled = false;
        }
    }

    /// The PUBLISH of `message` at QoS 0 or 1 without identifiers and alias; `None` if no packet
    /// can be so long. What it has left to live is as of the first call since [`Encoded::begin`].
    pub fn packet(
        &mut self,
        message: &Message,
        version: Version,
        (qos, retain): (QoS, bool),
        now_ms: u64,
    ) -> Option<Shared<'_>> {
        let has_id = qos > QoS::AtMostOnce;
        let is_version_5 = version == Version::V5;
        let place = usize::from(is_version_5) * 4 + usize::from(has_id) * 2 + usize::from(retain);
        let packet = self.packets.get_mut(place)?;
        if !packet.is_filled {
            packet.fill(message, version, (has_id, retain), now_ms)?;
        }
        Some(Shared {
            bytes: &packet.bytes,
            id_at: packet.id_at,
        })
    }
}

impl Packet {
    fn fill(
        &mut self,
        message: &Message,
        version: Version,
        (has_id, retain): (bool, bool),
        now_ms: u64,
    ) -> Option<()> {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        let mut forward = message.forward(retain, now_ms);
        if has_id {
            // Any id: each subscriber's own is written over it.
            forward = Forward {
                qos: QoS::AtLeastOnce,
                packet_id: PacketId::new(1),
                ..forward
            };
        }
        forward.packet_size(version)?;
        forward.write(version, &mut self.bytes);
        self.id_at = forward.packet_id_at(version);
        self.is_filled = true;
        Some(())
    }
}

impl Shared<'_> {
    /// Bytes of the packet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a packet has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends the packet at QoS 0, the same bytes for everybody.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes);
    }

    /// Appends the packet at QoS 1 with the id it has for one subscriber.
    #[inline]
    pub fn append_with(&self, packet_id: PacketId, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        let id_at = self.id_at.map(|at| start + at);
        if let Some(id) = id_at.and_then(|at| out.get_mut(at..at + 2)) {
            id.copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }
}

/// Memory a packet's buffer keeps between messages, in bytes: beyond it a message of unusual size
/// would stay there for ever, eight times for each worker.
const KEPT_BYTES: usize = 64 * 1024;
