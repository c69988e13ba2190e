//! The packets of a run, encoded once by mqttbytes, a codec that is not the broker's own.

use bytes::BytesMut;
use mqttbytes::{QoS, v4, v5};

use crate::cli::bench::{BenchError, options::Version};

/// What is sent to ask for a sign that everything before it was read.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
/// Ids run from 1 to this and start again.
const IDS: u64 = 65_535;
/// Bytes of a block at most: one write of this size is as cheap per message as a larger one.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// One PUBLISH many times over, so that a refill is one write.
pub(super) struct Block {
    bytes: Vec<u8>,
    message_len: usize,
    id_at: Option<usize>,
}

impl Block {
    /// As many messages as `messages` wants and fit into one write, at least one.
    pub(super) fn new(
        version: Version,
        qos: u8,
        topic: &str,
        payload: &str,
        messages: u32,
    ) -> Result<Block, BenchError> {
        let one = publish(version, qos, topic, payload)?;
        let fit = (BLOCK_BYTES_MAX / one.len()).max(1);
        let copies = usize::try_from(messages).unwrap_or(fit).clamp(1, fit);
        let header_len = 1 + one.iter().skip(1).take_while(|&&b| b >= 0x80).count() + 1;
        Ok(Block {
            bytes: one.repeat(copies),
            message_len: one.len(),
            id_at: (qos > 0).then_some(header_len + 2 + topic.len()),
        })
    }

    /// The bytes of the messages with the numbers from `first` on, at most `count` of them, and
    /// how many they are.
    pub(super) fn messages(&mut self, first: u64, count: u64) -> (&[u8], u64) {
        let fit = (self.bytes.len() / self.message_len) as u64;
        let count = count.min(fit);
        let len = usize::try_from(count).map_or(0, |count| count * self.message_len);
        let bytes = self.bytes.get_mut(..len).unwrap_or_default();
        if let Some(at) = self.id_at {
            for (number, message) in (first..).zip(bytes.chunks_exact_mut(self.message_len)) {
                if let Some(id) = message.get_mut(at..at + 2) {
                    id.copy_from_slice(&id_of(number).to_be_bytes());
                }
            }
        }
        (bytes, count)
    }
}

/// The packet id of a connection's message with this number, counted from 0.
pub(super) fn id_of(number: u64) -> u16 {
    u16::try_from(number % IDS + 1).expect("a rest of 65,535 plus one fits")
}

/// CONNECT with a clean session and without keep-alive: an idle connection costs nothing.
pub(super) fn connect(
    version: Version,
    client_id: &str,
    user_name: &str,
    password: &str,
) -> Result<BytesMut, BenchError> {
    let mut out = BytesMut::new();
    let has_login = !user_name.is_empty() || !password.is_empty();
    match version {
        Version::V311 => {
            let mut packet = v4::Connect::new(client_id);
            packet.keep_alive = 0;
            if has_login {
                packet.set_login(user_name, password);
            }
            packet.write(&mut out)
        }
        Version::V5 => {
            let mut packet = v5::Connect::new(client_id);
            packet.keep_alive = 0;
            if has_login {
                packet.set_login(user_name, password);
            }
            packet.write(&mut out)
        }
    }
    .map_err(|error| BenchError::Encode(format!("{error:?}")))?;
    Ok(out)
}

/// JSON of exactly `len` bytes, at least 7: a number and, where there is room, a text.
pub(super) fn payload(len: usize) -> String {
    const START: &str = "{\"temperature\":21.5,\"text\":\"";
    const END: &str = "\"}";
    match len.checked_sub(START.len() + END.len()) {
        Some(room) => format!("{START}{}{END}", "x".repeat(room)),
        None => format!("{{\"t\":{:0<width$}}}", 1, width = len.saturating_sub(6)),
    }
}

fn publish(version: Version, qos: u8, topic: &str, payload: &str) -> Result<BytesMut, BenchError> {
    let qos = match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let mut out = BytesMut::new();
    match version {
        Version::V311 => {
            let mut packet = v4::Publish::new(topic, qos, payload);
            packet.pkid = 1;
            packet.write(&mut out)
        }
        Version::V5 => {
            let mut packet = v5::Publish::new(topic, qos, payload);
            packet.pkid = 1;
            packet.write(&mut out)
        }
    }
    .map_err(|error| BenchError::Encode(format!("{error:?}")))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::frame;

    #[test]
    fn payloads_are_json_of_the_length_asked_for() {
        for len in 7..300 {
            let payload = payload(len);
            assert_eq!(payload.len(), len);
            let value: serde_json::Value = serde_json::from_str(&payload).unwrap();
            assert!(value.is_object(), "{payload}");
        }
    }

    #[test]
    fn a_block_holds_whole_messages_with_ids_in_turn() {
        for version in [Version::V311, Version::V5] {
            let mut block = Block::new(version, 1, "a/b", &payload(200), 3).unwrap();
            let (bytes, count) = block.messages(65_534, 9);
            assert_eq!(count, 3);
            let mut ids = Vec::new();
            let mut rest = bytes;
            while let Some(frame) = frame::split(rest) {
                assert_eq!((frame.first, &frame.body[..5]), (0x32, &b"\0\x03a/b"[..]));
                ids.push(u16::from_be_bytes([frame.body[5], frame.body[6]]));
                rest = frame.rest;
            }
            assert_eq!((ids, rest.len()), (vec![65_535, 1, 2], 0));
        }
    }

    #[test]
    fn qos_0_has_no_id() {
        let mut block = Block::new(Version::V311, 0, "a", "{\"t\":1}", u32::MAX).unwrap();
        let before = block.messages(0, 2).0.to_vec();
        assert_eq!(block.messages(7, 2).0, before);
        assert_eq!(before.len(), 2 * block.message_len);
    }
}
