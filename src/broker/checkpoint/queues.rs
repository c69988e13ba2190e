//! What happened to the queues of stored sessions since the last checkpoint.
//!
//! The queues themselves stand in the state database and, with a broker that runs, in the memory
//! of the workers; here is only what differs. A message that came and was settled since the last
//! checkpoint leaves nothing. Its body is held as long as one of its entries is new.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use crate::broker::record::Target;
use crate::mqtt::message::Message;
use crate::mqtt::session::Ids;
use crate::mqtt::wire::{PacketId, QoS};

/// What an entry takes beside its message, in bytes: for the sum that makes a checkpoint due.
const ENTRY_BYTES: usize = 160;

/// Names a message in a session's queue: session, offset.
pub(super) type Key = (u32, u64);

/// One message in one session's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It came since the last checkpoint.
    New { how: How, step: Step },
    /// It is in the database, and its delivery went on since then.
    Moved(Step),
    /// It is settled; the database may have it.
    Gone,
}

/// How a message is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct How {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: Ids,
    pub(super) share: Option<Arc<str>>,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// `None`: none, or the one that the database has.
    pub(super) packet_id: Option<PacketId>,
    pub(super) is_received: bool,
    /// Where the record of this stands: the order in which the deliveries came so far.
    pub(super) place: u64,
}

/// A message with new entries.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) message: Arc<Message>,
    /// New entries that name it.
    uses: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    pub(super) entries: HashMap<Key, Entry>,
    pub(super) bodies: HashMap<u64, Body>,
    bytes: usize,
    /// A checkpoint was cut off: the database may have entries that are new here.
    pub(super) is_partly_written: bool,
}

impl How {
    /// As a record says it; the group's name is shared with `last` where it is the same.
    pub(super) fn of(target: &Target<'_>, last: &mut Option<Arc<str>>) -> How {
        let ids: Vec<u32> = target.ids.iter().collect();
        let share = target.group.map(|group| match last {
            Some(held) if **held == *group => Arc::clone(held),
            _ => Arc::clone(last.insert(group.into())),
        });
        How {
            qos: target.qos,
            retain: target.retain,
            ids: Ids::new(&ids),
            share,
        }
    }
}

impl Queues {
    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.saturating_add(self.entries.len() * ENTRY_BYTES)
    }

    /// A message came for a session.
    pub(super) fn add(&mut self, key: Key, how: How, message: &Arc<Message>) {
        let step = Step::default();
        let before = self.entries.insert(key, Entry::New { how, step });
        if matches!(before, Some(Entry::New { .. })) {
            return;
        }
        match self.bodies.entry(key.1) {
            Place::Occupied(mut held) => held.get_mut().uses += 1,
            Place::Vacant(vacant) => {
                self.bytes += message.bytes();
                vacant.insert(Body {
                    message: Arc::clone(message),
                    uses: 1,
                });
            }
        }
    }

    /// A delivery went on. What has no entry here is in the database, or nowhere: its message's
    /// record may be lost, or its session over.
    pub(super) fn step(&mut self, key: Key, now: Step) {
        match self.entries.get_mut(&key) {
            Some(Entry::New { step, .. } | Entry::Moved(step)) => *step = step.then(now),
            Some(Entry::Gone) => {}
            None => {
                self.entries.insert(key, Entry::Moved(now));
            }
        }
    }

    /// A message left a queue.
    pub(super) fn settle(&mut self, key: Key) {
        if let Some(Entry::New { .. }) = self.entries.insert(key, Entry::Gone) {
            self.let_go(key.1);
            if !self.is_partly_written {
                self.entries.remove(&key);
            }
        }
    }

    /// Entries of these sessions are of no use: they are over.
    pub(super) fn end(&mut self, is_over: impl Fn(u32) -> bool) {
        let mut gone = Vec::new();
        self.entries.retain(|key, entry| {
            let stays = !is_over(key.0);
            if !stays && matches!(entry, Entry::New { .. }) {
                gone.push(key.1);
            }
            stays
        });
        for offset in gone {
            self.let_go(offset);
        }
    }

    fn let_go(&mut self, offset: u64) {
        if let Place::Occupied(mut held) = self.bodies.entry(offset) {
            held.get_mut().uses -= 1;
            if held.get().uses == 0 {
                self.bytes -= held.get().message.bytes();
                held.remove();
            }
        }
    }
}

impl Step {
    /// This one, and then `now`.
    pub(super) fn then(self, now: Step) -> Step {
        Step {
            packet_id: now.packet_id.or(self.packet_id),
            ..now
        }
    }
}
