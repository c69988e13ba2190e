//! The packets of a run, encoded once by mqttbytes, a codec that is not the broker's own.

use bytes::BytesMut;
use mqttbytes::{QoS, v4, v5};

use crate::cli::bench::{
    BenchError,
    payload::{Patch, Payload},
    target::Version,
};

/// What is sent to ask for a sign that everything before it was read.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
/// A clean end.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Life of a kept session behind its connection in MQTT 5, in seconds: longer than any run takes
/// to end it.
const KEPT_S: u32 = 3600;
/// Ids run from 1 to this and start again.
const IDS: u64 = 65_535;
/// Bytes of a block at most: one write of this size is as cheap per message as a larger one.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The same for blocks that belong to one connection each: 60,000 of them are 240 MB.
const OWN_BLOCK_BYTES_MAX: usize = 4 * 1024;

/// One PUBLISH many times over, so that a refill is one write.
pub(super) struct Block {
    bytes: Vec<u8>,
    message_len: usize,
    id_at: Option<usize>,
    /// Places in a message that are written anew each time.
    patches: Vec<Patch>,
    random: u64,
}

/// What a block is made of.
pub(super) struct Recipe<'a> {
    pub(super) version: Version,
    pub(super) qos: u8,
    pub(super) topic: &'a str,
    pub(super) payload: &'a Payload,
    /// Messages that one write may have.
    pub(super) messages: u32,
    /// True when each connection has a block of its own, which is smaller then.
    pub(super) is_own: bool,
    /// Starts the sequence of what is random.
    pub(super) seed: u64,
}

impl Block {
    /// As many messages as are wanted and fit into one write, at least one.
    pub(super) fn new(recipe: &Recipe<'_>) -> Result<Block, BenchError> {
        let one = publish(recipe)?;
        let bytes_max = match recipe.is_own {
            true => OWN_BLOCK_BYTES_MAX,
            false => BLOCK_BYTES_MAX,
        };
        let fit = (bytes_max / one.len()).max(1);
        let copies = usize::try_from(recipe.messages)
            .unwrap_or(fit)
            .clamp(1, fit);
        let header_len = 1 + one.iter().skip(1).take_while(|&&b| b >= 0x80).count() + 1;
        let payload_at = one.len() - recipe.payload.text.len();
        let patches = recipe.payload.patches.iter();
        Ok(Block {
            bytes: one.repeat(copies),
            message_len: one.len(),
            id_at: (recipe.qos > 0).then_some(header_len + 2 + recipe.topic.len()),
            patches: patches.map(|patch| patch.moved(payload_at)).collect(),
            random: recipe.seed | 1,
        })
    }

    /// The bytes of the messages with the numbers from `first` on, at most `count` of them, and
    /// how many they are.
    pub(super) fn messages(&mut self, first: u64, count: u64, now_us: u32) -> (&[u8], u64) {
        let fit = (self.bytes.len() / self.message_len) as u64;
        let count = count.min(fit);
        let len = usize::try_from(count).map_or(0, |count| count * self.message_len);
        let bytes = self.bytes.get_mut(..len).unwrap_or_default();
        if self.id_at.is_none() && self.patches.is_empty() {
            return (bytes, count);
        }
        for (number, message) in (first..).zip(bytes.chunks_exact_mut(self.message_len)) {
            let id_at = self.id_at.and_then(|at| message.get_mut(at..at + 2));
            if let Some(id) = id_at {
                id.copy_from_slice(&id_of(number).to_be_bytes());
            }
            for patch in &self.patches {
                patch.write(message, now_us, &mut self.random);
            }
        }
        (bytes, count)
    }
}

/// The packet id of a connection's message with this number, counted from 0.
pub(super) fn id_of(number: u64) -> u16 {
    u16::try_from(number % IDS + 1).expect("a rest of 65,535 plus one fits")
}

/// CONNECT without keep-alive: an idle connection costs nothing. With `is_kept` the session
/// outlives the connection, otherwise it is a clean one that does not.
pub(super) fn connect(
    version: Version,
    client_id: &str,
    (user_name, password): (&str, &str),
    is_kept: bool,
) -> Result<BytesMut, BenchError> {
    let mut out = BytesMut::new();
    let has_login = !user_name.is_empty() || !password.is_empty();
    match version {
        Version::V31 | Version::V311 => {
            let mut packet = v4::Connect::new(client_id);
            packet.keep_alive = 0;
            packet.clean_session = !is_kept;
            if has_login {
                packet.set_login(user_name, password);
            }
            packet.write(&mut out)
        }
        Version::V5 => {
            let mut packet = v5::Connect::new(client_id);
            packet.keep_alive = 0;
            packet.clean_session = !is_kept;
            if is_kept {
                packet.properties = Some(v5::ConnectProperties {
                    session_expiry_interval: Some(KEPT_S),
                    receive_maximum: None,
                    max_packet_size: None,
                    topic_alias_max: None,
                    request_response_info: None,
                    request_problem_info: None,
                    user_properties: Vec::new(),
                    authentication_method: None,
                    authentication_data: None,
                });
            }
            if has_login {
                packet.set_login(user_name, password);
            }
            packet.write(&mut out)
        }
    }
    .map_err(|error| BenchError::Encode(format!("{error:?}")))?;
    Ok(if version == Version::V31 {
        as_version_31(&out)
    } else {
        out
    })
}

/// The same CONNECT with the protocol name and level of MQTT 3.1, which the codec has no word for.
fn as_version_31(connect: &[u8]) -> BytesMut {
    let header_len = 2 + connect.iter().skip(1).take_while(|&&b| b >= 0x80).count();
    let body = connect.get(header_len + 7..).unwrap_or_default(); // 0 4 M Q T T 4
    let mut out = BytesMut::with_capacity(connect.len() + 8);
    out.extend_from_slice(&[0x10]);
    let mut len = body.len() + 9;
    loop {
        let low = u8::try_from(len & 0x7f).expect("seven bits fit");
        len >>= 7;
        out.extend_from_slice(&[if len > 0 { low | 0x80 } else { low }]);
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(b"\x00\x06MQIsdp\x03");
    out.extend_from_slice(body);
    out
}

/// SUBSCRIBE with packet id 1.
pub(super) fn subscribe(version: Version, filter: &str, qos: u8) -> Result<BytesMut, BenchError> {
    let mut out = BytesMut::new();
    match version {
        Version::V31 | Version::V311 => {
            let mut packet = v4::Subscribe::new(filter, quality(qos));
            packet.pkid = 1;
            packet.write(&mut out)
        }
        Version::V5 => {
            let mut packet = v5::Subscribe::new(filter, quality(qos));
            packet.pkid = 1;
            packet.write(&mut out)
        }
    }
    .map_err(|error| BenchError::Encode(format!("{error:?}")))?;
    Ok(out)
}

/// True when a message to `topic` goes to a subscriber of `filter`.
pub(super) fn matches(topic: &str, filter: &str) -> bool {
    mqttbytes::matches(topic, filter)
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn publish(recipe: &Recipe<'_>) -> Result<BytesMut, BenchError> {
    let (qos, payload) = (quality(recipe.qos), recipe.payload.text.as_str());
    let mut out = BytesMut::new();
    match recipe.version {
        Version::V31 | Version::V311 => {
            let mut packet = v4::Publish::new(recipe.topic, qos, payload);
            packet.pkid = 1;
            packet.write(&mut out)
        }
        Version::V5 => {
            let mut packet = v5::Publish::new(recipe.topic, qos, payload);
            packet.pkid = 1;
            packet.write(&mut out)
        }
    }
    .map_err(|error| BenchError::Encode(format!("{error:?}")))?;
    Ok(out)
}

/// A block in which nothing but the ids changes.
#[cfg(test)]
pub(super) fn plain_block(
    version: Version,
    qos: u8,
    topic: &str,
    payload: &str,
    messages: u32,
) -> Result<Block, BenchError> {
    Block::new(&Recipe {
        version,
        qos,
        topic,
        payload: &crate::cli::bench::payload::Template::new(payload).render(0),
        messages,
        is_own: false,
        seed: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::{
        frame,
        payload::{self, Template},
    };

    #[test]
    fn a_block_holds_whole_messages_with_ids_in_turn() {
        for version in [Version::V311, Version::V5] {
            let payload = payload::of_size(200);
            let mut block = plain_block(version, 1, "a/b", &payload, 3).unwrap();
            let (bytes, count) = block.messages(65_534, 9, 0);
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
        let mut block = plain_block(Version::V311, 0, "a", "{\"t\":1}", u32::MAX).unwrap();
        let before = block.messages(0, 2, 0).0.to_vec();
        assert_eq!(block.messages(7, 2, 0).0, before);
        assert_eq!(before.len(), 2 * block.message_len);
    }

    #[test]
    fn what_changes_is_written_into_each_message() {
        let template = Template::new("{\"c\":{connection},\"t\":{time},\"r\":{random}}");
        let payload = template.render(7);
        let recipe = Recipe {
            version: Version::V5,
            qos: 1,
            topic: "a",
            payload: &payload,
            messages: 50,
            is_own: true,
            seed: 7,
        };
        let mut block = Block::new(&recipe).unwrap();
        let bytes = block.messages(0, 50, 1234).0.to_vec();
        let messages = bytes.chunks_exact(block.message_len);
        let payload_at = block.message_len - payload.text.len();
        let texts: Vec<&[u8]> = messages.map(|message| &message[payload_at..]).collect();
        let mut values = Vec::new();
        for text in &texts {
            let value: serde_json::Value = serde_json::from_slice(text).unwrap();
            assert_eq!(value["c"], 7);
            assert_eq!(value["t"], 1_000_000_001_234_u64);
            values.push(value["r"].as_u64().unwrap());
        }
        assert!(values.iter().all(|value| (100..1000).contains(value)));
        values.dedup();
        assert!(values.len() > 40, "{values:?}");
    }

    #[test]
    fn version_3_1_differs_in_name_and_level() {
        let token = "t".repeat(150); // the length takes two bytes
        let new = connect(Version::V311, "id", (&token, ""), false).unwrap();
        let old = connect(Version::V31, "id", (&token, ""), false).unwrap();
        let (new, old) = (frame::split(&new).unwrap(), frame::split(&old).unwrap());
        assert_eq!((old.first, old.rest.len()), (0x10, 0));
        assert_eq!(&old.body[..9], b"\0\x06MQIsdp\x03");
        assert_eq!(old.body[9..], new.body[7..]);
    }

    #[test]
    fn a_kept_session_is_asked_for() {
        let flags = |version, is_kept| {
            let bytes = connect(version, "id", ("token", ""), is_kept).unwrap();
            let body = frame::split(&bytes).unwrap().body;
            let name_len = usize::from(body[1]);
            (body[3 + name_len] & 2, body[6 + name_len..].to_vec())
        };
        for version in [Version::V31, Version::V311, Version::V5] {
            assert_eq!(flags(version, false).0, 2, "clean");
            assert_eq!(flags(version, true).0, 0, "not clean");
        }
        // Property 17, Session Expiry Interval: 3,600 s.
        let (_, rest) = flags(Version::V5, true);
        assert_eq!(rest[..6], [5, 17, 0, 0, 0x0e, 0x10]);
    }
}
