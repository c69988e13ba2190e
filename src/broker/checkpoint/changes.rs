//! What happened since the last checkpoint: what it has to write, and no more.
//!
//! Bounded by bytes ([`super::DUE_BYTES`]): a checkpoint is due when they are reached, and while
//! it cannot be written, the journal is not followed further than [`super::HELD_BYTES_MAX`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::queues::Queues;
use crate::mqtt::message::{Message, Publisher, Will};

/// What a topic or a will takes beside its content, in bytes.
const PLACE_BYTES: usize = 128;

/// Everything that differs from the database.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Sessions, new or changed.
    pub(super) changed: HashSet<u32>,
    /// Sessions that are over.
    pub(super) ended: HashSet<u32>,
    pub(super) queues: Queues,
    /// The last of each topic that changed.
    retained: HashMap<Box<str>, Last>,
    /// The will of each session whose will changed; `None`: it has none.
    wills: HashMap<u32, Option<HeldWill>>,
    /// What `retained` and `wills` take.
    bytes: usize,
}

/// The last retained message of a topic; `None`: cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) offset: u64,
    pub(super) message: Option<Arc<Message>>,
}

/// A will, and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldWill {
    pub(super) will: Arc<Will>,
    pub(super) publisher: Publisher,
}

impl Changes {
    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.saturating_add(self.queues.bytes())
    }

    pub(super) fn retain(&mut self, topic: &str, last: Last) {
        self.bytes += last.bytes(topic);
        if let Some(before) = self.retained.insert(topic.into(), last) {
            self.bytes -= before.bytes(topic);
        }
    }

    pub(super) fn retained(&self) -> &HashMap<Box<str>, Last> {
        &self.retained
    }

    pub(super) fn set_will(&mut self, session: u32, will: Option<HeldWill>) {
        self.bytes += will_bytes(will.as_ref());
        if let Some(before) = self.wills.insert(session, will) {
            self.bytes -= will_bytes(before.as_ref());
        }
    }

    pub(super) fn wills(&self) -> &HashMap<u32, Option<HeldWill>> {
        &self.wills
    }

    /// A session is over.
    pub(super) fn end(&mut self, session: u32) {
        self.changed.remove(&session);
        self.ended.insert(session);
        if let Some(before) = self.wills.remove(&session) {
            self.bytes -= will_bytes(before.as_ref());
        }
    }

    /// Lets go of what belongs to sessions that are over.
    pub(super) fn forget_ended(&mut self) {
        let Self { queues, ended, .. } = self;
        if !ended.is_empty() {
            queues.end(|session| ended.contains(&session));
        }
    }
}

impl Last {
    fn bytes(&self, topic: &str) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes());
        PLACE_BYTES + topic.len() + message
    }
}

fn will_bytes(will: Option<&HeldWill>) -> usize {
    let content = will.map_or(0, |held| {
        let content = &held.will.content;
        content.properties().len() + content.payload().len() + content.topic().as_str().len()
    });
    PLACE_BYTES + content
}
