//! A message on disk, and the stored sessions that get it: the body of `Message`.
//!
//! The header says who published it, when, with which QoS; for a QoS 2 publish of a stored session
//! also that session and the packet id, as a telemetry record does.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1: retain it, or, without a payload, clear; 2: it ends the header's session's will |
//! | 8 | when it expires, milliseconds since the Unix epoch; 0 is never |
//! | 2 + n | topic |
//! | 4 + n | properties that are passed on, as MQTT 5 writes them: length, bytes |
//! | 4 + n | targets: length, bytes |
//! | the rest | payload |
//!
//! A target is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | QoS it is sent with, 1 or 2; 4: Retain flag; 8: ids follow; 16: of the group named last |
//! | 4 | session |
//! | with 8: 2 + 4 each | subscription ids: their number, each id |
//!
//! and before the first target of a share group stands a byte 128 with the group's whole filter:
//! 2 + n. So a replay needs no tree and repeats no choice.
//!
//! A message with more targets than one record takes ([`TARGETS_BYTES_MAX`]) is written in several,
//! each with all of it, an offset of its own and its share of the targets. Only the last one has
//! the retain mark and the packet id: what is cut off before it was not acknowledged and comes
//! again.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::bytes::{
    len_u32, put_text, take_long, take_text, take_u8, take_u16, take_u32, take_u64,
};
use crate::journal::{RECORD_BODY_BYTES_MAX, RecordHeader, RecordKind};
use crate::limits::PACKET_BYTES_MAX;
use crate::mqtt::message::{Content, Message, Publisher};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{PacketId, QoS};

/// Bytes of targets that one record takes: what the largest message leaves. Some 60,000 targets
/// without subscription ids.
pub const TARGETS_BYTES_MAX: usize = 320 * 1024;

/// Marks, expiry and three lengths.
const FIXED_BYTES: usize = 1 + 8 + 2 + 4 + 4;

// Properties and payload came in one packet, the topic perhaps by an alias.
const _: () = assert!(
    FIXED_BYTES + u16::MAX as usize + PACKET_BYTES_MAX + TARGETS_BYTES_MAX <= RECORD_BODY_BYTES_MAX
);

const RETAIN: u8 = 1;
const WILL: u8 = 2;

const QOS: u8 = 0b11;
const WITH_RETAIN: u8 = 4;
const WITH_IDS: u8 = 8;
const SHARED: u8 = 16;
const GROUP: u8 = 128;

/// What a message's record says of it beside what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It is the topic's retained message from now on; with an empty payload the topic has none.
    pub retain: bool,
    /// It is the will of the header's session, which has none any more.
    pub will: bool,
}

/// A stored session that gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its number.
    pub session: u32,
    /// What it is sent with: 1 or 2.
    pub qos: QoS,
    /// The Retain flag it is sent with.
    pub retain: bool,
    /// Subscription ids, in the order in which they are sent.
    pub ids: Ids<'a>,
    /// The whole filter of the share group for which it gets the message.
    pub group: Option<&'a str>,
}

/// Subscription ids, as a list or as they are written.
#[derive(Clone, Copy)]
pub struct Ids<'a>(Listed<'a>);

#[derive(Clone, Copy)]
enum Listed<'a> {
    Numbers(&'a [u32]),
    Written(&'a [[u8; 4]]),
}

/// The targets of one record, encoded as they are added. Used again and again: after the first
/// messages nothing is allocated.
#[derive(Debug, Default)]
pub struct Targets {
    bytes: Vec<u8>,
    len: usize,
    /// Where the name of the last group stands in `bytes`.
    group: Option<(usize, usize)>,
    /// Its sessions, from the first question for one on.
    sessions: HashSet<u32>,
    knows_sessions: bool,
}

/// The fixed fields of a body, as they are written.
#[derive(Debug, Default)]
pub struct Fixed {
    /// Marks, expiry, length of the topic.
    head: [u8; 11],
    properties_len: [u8; 4],
    targets_len: [u8; 4],
}

/// A message's record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// What it says beside the message.
    pub flags: Flags,
    /// When the message expires, Unix time in milliseconds.
    pub expires_ms: Option<u64>,
    /// The topic's name.
    pub topic: Topic<'a>,
    /// Properties that are passed on.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    targets: &'a [u8],
}

/// The header of a message's record. `session` is its publisher's, with the packet id of a QoS 2
/// publish, or the one whose will it is; else 0.
#[must_use]
pub fn header(message: &Message, session: u32, packet_id: Option<PacketId>) -> RecordHeader {
    let publisher = message.publisher();
    RecordHeader {
        kind: RecordKind::Message,
        qos: message.content().qos().as_u8(),
        profile_flags: 0,
        parser_version: 0,
        received_ms: message.received_ms(),
        device: Uuid::from_u128(publisher.identity),
        credential: publisher.credential,
        generation: publisher.generation,
        session,
        packet_id: packet_id.map_or(0, PacketId::get),
    }
}

/// Bytes of the body, to ask for room before anything is written.
#[must_use]
pub fn body_len(message: &Message, targets: &Targets) -> usize {
    let content = message.content();
    FIXED_BYTES
        + content.topic().as_str().len()
        + content.properties().len()
        + targets.bytes.len()
        + content.payload().len()
}

/// The body in its parts, for [`crate::journal::Batch::push_parts`]: nothing is copied before.
#[must_use]
pub fn parts<'a>(
    message: &'a Message,
    flags: Flags,
    targets: &'a Targets,
    fixed: &'a mut Fixed,
) -> [&'a [u8]; 7] {
    let content = message.content();
    let topic = content.topic().as_str();
    let topic_len = u16::try_from(topic.len()).expect("a topic name has at most 65,535 bytes");
    let marks = (u8::from(flags.retain) * RETAIN) | (u8::from(flags.will) * WILL);
    let expires = message.expires_ms().unwrap_or(0).to_le_bytes();
    let [low, high] = topic_len.to_le_bytes();
    fixed.head[0] = marks;
    fixed.head[1..9].copy_from_slice(&expires);
    fixed.head[9] = low;
    fixed.head[10] = high;
    fixed.properties_len = len_u32(content.properties());
    fixed.targets_len = len_u32(&targets.bytes);
    [
        &fixed.head,
        topic.as_bytes(),
        &fixed.properties_len,
        content.properties(),
        &fixed.targets_len,
        &targets.bytes,
        content.payload(),
    ]
}

impl Targets {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
        self.group = None;
        self.sessions.clear();
        self.knows_sessions = false;
    }

    /// Adds a target. False if it must go into another record: write this one, clear, and add it
    /// there. The record is full; or the session stands in it already, and gets the message once
    /// more through a share group: a message is named by its session and offset. Sessions that get
    /// it without a group come first, each once.
    #[must_use]
    pub fn push(&mut self, target: &Target<'_>) -> bool {
        if target.group.is_some() && self.has(target.session) {
            return false;
        }
        let before = (self.bytes.len(), self.group);
        let mut marks = target.qos.as_u8() | (u8::from(target.retain) * WITH_RETAIN);
        if let Some(group) = target.group {
            self.name(group);
            marks |= SHARED;
        }
        if !target.ids.is_empty() {
            marks |= WITH_IDS;
        }
        self.bytes.push(marks);
        self.bytes.extend_from_slice(&target.session.to_le_bytes());
        if !target.ids.is_empty() {
            // A session has far fewer subscriptions; more ids than that are cut, not mixed up.
            let count = u16::try_from(target.ids.len()).unwrap_or(u16::MAX);
            self.bytes.extend_from_slice(&count.to_le_bytes());
            for id in target.ids.iter().take(usize::from(count)) {
                self.bytes.extend_from_slice(&id.to_le_bytes());
            }
        }
        let fits = self.bytes.len() <= TARGETS_BYTES_MAX;
        if fits {
            self.len += 1;
            if self.knows_sessions {
                self.sessions.insert(target.session);
            }
        } else {
            self.bytes.truncate(before.0);
            self.group = before.1;
        }
        fits
    }

    /// Targets added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any target.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the session stands in it. The first question since it was empty costs a walk over
    /// what is there, the others nothing.
    #[must_use]
    pub fn has(&mut self, session: u32) -> bool {
        if !self.knows_sessions {
            let mut walk = Walk::new(&self.bytes);
            let targets = std::iter::from_fn(|| walk.step().flatten());
            self.sessions.extend(targets.map(|target| target.session));
            self.knows_sessions = true;
        }
        self.sessions.contains(&session)
    }

    fn name(&mut self, group: &str) {
        let last = self.group.and_then(|(from, to)| self.bytes.get(from..to));
        if last == Some(group.as_bytes()) {
            return;
        }
        self.bytes.push(GROUP);
        put_text(&mut self.bytes, group);
        self.group = Some((self.bytes.len() - group.len(), self.bytes.len()));
    }
}

impl<'a> MessageRecord<'a> {
    /// Reads a body; `None` if it is not one.
    #[must_use]
    pub fn decode(mut body: &'a [u8]) -> Option<MessageRecord<'a>> {
        let marks = take_u8(&mut body).filter(|marks| marks & !(RETAIN | WILL) == 0)?;
        let expires_ms = take_u64(&mut body)?;
        let topic = Topic::new(take_text(&mut body)?).ok()?;
        let properties = take_long(&mut body)?;
        let targets = take_long(&mut body)?;
        let mut walk = Walk::new(targets);
        while walk.step()?.is_some() {}
        Some(MessageRecord {
            flags: Flags {
                retain: marks & RETAIN != 0,
                will: marks & WILL != 0,
            },
            expires_ms: (expires_ms != 0).then_some(expires_ms),
            topic,
            properties,
            payload: body,
            targets,
        })
    }

    /// Who gets it.
    pub fn targets(&self) -> impl Iterator<Item = Target<'a>> + use<'a> {
        let mut walk = Walk::new(self.targets);
        std::iter::from_fn(move || walk.step().flatten())
    }

    /// True if nobody gets it: it is there for being retained, or for its packet id.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// The message itself; `header` is the record's. `None` if the header has no QoS of MQTT.
    #[must_use]
    pub fn message(&self, header: &RecordHeader) -> Option<Arc<Message>> {
        let qos = QoS::from_u8(header.qos)?;
        let content = Content::from_parts(
            self.topic,
            self.properties,
            self.payload,
            qos,
            self.flags.retain,
        );
        let publisher = Publisher {
            identity: header.device.as_u128(),
            credential: header.credential,
            generation: header.generation,
        };
        let message = Message::restored(content, publisher, header.received_ms, self.expires_ms);
        Some(Arc::new(message))
    }
}

/// A walk over encoded targets.
struct Walk<'a> {
    rest: &'a [u8],
    group: Option<&'a str>,
}

impl<'a> Walk<'a> {
    const fn new(rest: &'a [u8]) -> Walk<'a> {
        Walk { rest, group: None }
    }

    /// The next target; `Some(None)` at the end, `None` for bytes that are none.
    fn step(&mut self) -> Option<Option<Target<'a>>> {
        loop {
            if self.rest.is_empty() {
                return Some(None);
            }
            let marks = take_u8(&mut self.rest)?;
            if marks != GROUP {
                return self.target(marks).map(Some);
            }
            self.group = Some(take_text(&mut self.rest)?);
        }
    }

    fn target(&mut self, marks: u8) -> Option<Target<'a>> {
        if marks & !(QOS | WITH_RETAIN | WITH_IDS | SHARED) != 0 {
            return None;
        }
        let qos = QoS::from_u8(marks & QOS).filter(|qos| *qos != QoS::AtMostOnce)?;
        let session = take_u32(&mut self.rest)?;
        let mut ids: &[[u8; 4]] = &[];
        if marks & WITH_IDS != 0 {
            let count = usize::from(take_u16(&mut self.rest)?);
            let (listed, rest) = self.rest.split_at_checked(count * 4)?;
            self.rest = rest;
            ids = listed.as_chunks().0;
        }
        let group = match marks & SHARED {
            0 => None,
            _ => Some(self.group?),
        };
        Some(Target {
            session,
            qos,
            retain: marks & WITH_RETAIN != 0,
            ids: Ids(Listed::Written(ids)),
            group,
        })
    }
}

impl<'a> Ids<'a> {
    /// Number of ids.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Listed::Numbers(ids) => ids.len(),
            Listed::Written(ids) => ids.len(),
        }
    }

    /// True without any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids in their order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (numbers, written): (&'a [u32], &'a [[u8; 4]]) = match self.0 {
            Listed::Numbers(ids) => (ids, &[]),
            Listed::Written(ids) => (&[], ids),
        };
        let written = written.iter().map(|id| u32::from_le_bytes(*id));
        numbers.iter().copied().chain(written)
    }
}

impl<'a> From<&'a [u32]> for Ids<'a> {
    fn from(ids: &'a [u32]) -> Ids<'a> {
        Ids(Listed::Numbers(ids))
    }
}

impl PartialEq for Ids<'_> {
    fn eq(&self, other: &Ids<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Ids<'_> {}

impl std::fmt::Debug for Ids<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
