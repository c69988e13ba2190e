//! The messages of a session's queue: what waits at QoS 1 and 2, and what was sent and is not
//! received yet.
//!
//! - **Order.** Messages are sent in the order in which they came, whatever their QoS; after a
//!   reconnect those that were sent come first, in the same order [MQTT-4.6.0-1], [MQTT-4.6.0-5].
//! - **Limits.** Messages and bytes, both of all that is held here. Where one is reached the
//!   *newest* is not taken: old work is never dropped. A message shared with other sessions counts
//!   in full.
//! - **Expiry.** A message whose time is over is left out when its turn comes, not before; one that
//!   was sent is finished [MQTT-3.3.2-5], [MQTT-4.3.3-7].
//! - **Straight** messages (QoS 1, to a session that ends with its connection) are sent when they
//!   come, if nothing waits: they are counted, and of them too only an id is left.
//! - **Released** messages (PUBREC came) are no longer here: of them an id and an offset are left,
//!   in [`super::in_flight`].

mod withdraw;

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::in_flight::{InFlight, Item, Open, QUEUE};
use crate::mqtt::message::Message;
use crate::mqtt::wire::{PacketId, QoS};
pub use withdraw::Withdrawn;

/// How a message is delivered to one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The QoS it is sent with: the lower one of its own and the subscription's [MQTT-3.8.4-8].
    pub qos: QoS,
    /// The Retain flag it is sent with.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub ids: Ids,
    /// Its record in the journal; 0 if it has none. What has one is settled there too.
    pub offset: u64,
    /// The whole shared filter through which it came; `None` for other subscriptions.
    pub share: Option<Arc<str>>,
}

/// Subscription identifiers of one delivery, in the order of the subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// None of the subscriptions has one.
    #[default]
    None,
    /// One.
    One(NonZeroU32),
    /// Several.
    Several(Box<[u32]>),
}

/// Why a message was not taken into the queue. It is the newest one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many messages wait as may.
    Messages,
    /// They take as many bytes as they may.
    Bytes,
}

/// What a queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages that wait or are not received.
    pub messages_max: usize,
    /// Bytes of them, as [`Message::bytes`] counts.
    pub bytes_max: usize,
}

/// How far a message of the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has no packet id.
    Waiting,
    /// It has this packet id and was, or may have been, sent.
    Sent(PacketId),
    /// QoS 2: the client has it, PUBCOMP is missing.
    Received(PacketId),
}

/// One message of the queue that is not settled: what is stored of a session, and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The message; `None` once the client has received it.
    pub message: Option<Arc<Message>>,
    /// How it is delivered.
    pub how: Delivered,
    /// How far it is.
    pub progress: Progress,
}

/// The queue. The default one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    slots: VecDeque<Slot>,
    next_number: u64,
    bytes: usize,
    /// Slots, from the front, that have an id.
    assigned: usize,
    /// Slots, from the front, that were sent on this connection.
    sent: usize,
    /// Messages that were sent straight and are not acknowledged.
    straight: usize,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u64,
    pub(super) message: Arc<Message>,
    pub(super) how: Delivered,
    /// Its id, once it has one.
    pub(super) packet_id: Option<PacketId>,
    /// Its assignment is durable, or need not be.
    pub(super) is_recorded: bool,
    /// It was, or may have been, sent before.
    pub(super) was_sent: bool,
}

impl Delivered {
    /// A delivery of `message` to a subscription of at most `granted`. `retain` as published is
    /// kept only where the subscription asks for it [MQTT-3.3.1-12], [MQTT-3.3.1-13].
    #[must_use]
    pub fn live(message: &Message, granted: QoS, retain_as_published: bool) -> Self {
        Self {
            qos: message.content().qos().min(granted),
            retain: retain_as_published && message.content().retain(),
            ..Self::default()
        }
    }

    /// A delivery of the retained `message` because of a SUBSCRIBE: its Retain flag is set
    /// [MQTT-3.3.1-8].
    #[must_use]
    pub fn retained(message: &Message, granted: QoS) -> Self {
        Self {
            qos: message.content().qos().min(granted),
            retain: true,
            ..Self::default()
        }
    }

    /// The packet id it gets must be durable before it is sent: a client that has received it
    /// must not get it again under another id [MQTT-4.3.3-1].
    pub(super) const fn needs_record(&self) -> bool {
        self.offset != 0 && matches!(self.qos, QoS::ExactlyOnce)
    }
}

impl Ids {
    /// The identifiers in `ids`; a 0 is none.
    #[must_use]
    pub fn new(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            &[id] => NonZeroU32::new(id).map_or(Self::None, Self::One),
            several => Self::Several(several.into()),
        }
    }

    /// Calls `with` with them as a slice.
    pub fn with<T>(&self, with: impl FnOnce(&[u32]) -> T) -> T {
        match self {
            Self::None => with(&[]),
            Self::One(id) => with(&[id.get()]),
            Self::Several(ids) => with(ids),
        }
    }
}

impl Queue {
    /// Messages that wait or are not received, without those that were sent straight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Those of them that have no packet id yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.slots.len() - self.assigned
    }

    /// Bytes they take, as [`Message::bytes`] counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if something could be sent, or given an id.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.slots.len()
    }

    /// Takes a message of QoS 1 or 2.
    ///
    /// # Errors
    /// A limit; the message is not taken.
    pub fn offer(
        &mut self,
        limits: QueueLimits,
        message: Arc<Message>,
        how: Delivered,
    ) -> Result<(), Full> {
        let bytes = self.bytes.saturating_add(message.bytes());
        if self.is_full(limits) {
            return Err(Full::Messages);
        }
        if bytes > limits.bytes_max {
            return Err(Full::Bytes);
        }
        self.push(message, how, None);
        Ok(())
    }

    /// True if no further message is taken or sent straight.
    #[inline]
    pub(super) fn is_full(&self, limits: QueueLimits) -> bool {
        self.slots.len().saturating_add(self.straight) >= limits.messages_max
    }

    /// The number of the message that comes next.
    pub(super) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The message that came now was sent at once, and is not held.
    pub(super) fn sent_straight(&mut self) {
        self.next_number += 1;
        self.straight += 1;
    }

    /// The QoS 1 message with this number is acknowledged: one that was sent straight, or one that
    /// is held.
    #[inline]
    pub(super) fn acknowledged(&mut self, number: u64) {
        let is_straight = self.slots.front().is_none_or(|slot| number < slot.number);
        if is_straight || self.remove(number).is_none() {
            self.straight = self.straight.saturating_sub(1);
        }
    }

    /// A new connection: all of it is to be sent, first what was sent before.
    pub(in crate::mqtt::session) fn connect(&mut self) {
        self.sent = 0;
        // A session is resumed behind everything that was recorded for it.
        for slot in self.slots.iter_mut().take(self.assigned) {
            slot.is_recorded = true;
        }
    }

    /// The next message to be sent, if its id is durable.
    pub(super) fn to_send(&self) -> Option<&Slot> {
        let slot = self.slots.get(self.sent)?;
        (slot.packet_id.is_some() && slot.is_recorded).then_some(slot)
    }

    /// The next message was sent.
    pub(super) fn sent(&mut self) {
        if let Some(slot) = self.slots.get_mut(self.sent) {
            slot.was_sent = true;
            self.sent += 1;
        }
    }

    /// The next message that has no id.
    pub(super) fn to_assign(&self) -> Option<&Slot> {
        self.slots.get(self.assigned)
    }

    /// It has this id now; true if that must be durable before it is sent.
    pub(super) fn assign(&mut self, packet_id: PacketId) -> bool {
        let Some(slot) = self.slots.get_mut(self.assigned) else {
            return false;
        };
        slot.packet_id = Some(packet_id);
        slot.is_recorded = !slot.how.needs_record();
        self.assigned += 1;
        !slot.is_recorded
    }

    /// Ids up to this one are durable.
    pub(super) fn recorded(&mut self, packet_id: PacketId) {
        let Some(last) = self
            .slots
            .iter()
            .take(self.assigned)
            .rposition(|slot| slot.packet_id == Some(packet_id))
        else {
            return;
        };
        for slot in self.slots.iter_mut().take(last + 1) {
            slot.is_recorded = true;
        }
    }

    /// Takes out the message with this number.
    pub(super) fn remove(&mut self, number: u64) -> Option<Slot> {
        let place = self.slots.binary_search_by_key(&number, |slot| slot.number);
        self.remove_at(place.ok()?)
    }

    /// Takes out what came through a share group that `which` names: what waits, and with
    /// `and_sent` what was sent at QoS 1 and is not acknowledged. What was sent at QoS 2 stays: it
    /// belongs to this client [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    pub(super) fn take_shared(
        &mut self,
        in_flight: &mut InFlight,
        which: impl Fn(&str) -> bool,
        and_sent: bool,
    ) -> Vec<(Arc<Message>, Delivered)> {
        let mut taken = Vec::new();
        let mut place = 0;
        while let Some(slot) = self.slots.get(place) {
            let is_meant = slot.how.share.as_deref().is_some_and(&which);
            let is_free = !slot.was_sent || (and_sent && slot.how.qos != QoS::ExactlyOnce);
            if !is_meant || !is_free {
                place += 1;
                continue;
            }
            let Some(slot) = self.remove_at(place) else {
                break;
            };
            if let Some(packet_id) = slot.packet_id {
                in_flight.let_go(packet_id);
            }
            taken.push((slot.message, slot.how));
        }
        taken
    }

    /// What is not settled, in the order in which it is to be sent.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = Unsettled> + '_ {
        self.slots.iter().map(|slot| Unsettled {
            message: Some(Arc::clone(&slot.message)),
            how: slot.how.clone(),
            progress: slot.packet_id.map_or(Progress::Waiting, Progress::Sent),
        })
    }

    /// Puts back what was stored; see [`super::super::SessionState::restore`].
    pub(super) fn restore(&mut self, in_flight: &mut InFlight, all: Vec<Unsettled>) {
        let mut all = with_fresh_ids(all);
        // What has an id was sent before what has none.
        all.sort_by_key(|(held, fresh)| held.progress == Progress::Waiting && fresh.is_none());
        let mut ids = BTreeSet::new();
        let mut open = Vec::new();
        for (unsettled, fresh) in all {
            let Unsettled {
                message,
                how,
                progress,
            } = unsettled;
            let (packet_id, is_received) = match progress {
                Progress::Waiting => (fresh, false),
                Progress::Sent(packet_id) => (Some(packet_id), false),
                Progress::Received(packet_id) => (Some(packet_id), true),
            };
            // Neither is ever stored: two messages with one id, one to be sent that is not there.
            let is_id_taken = packet_id.is_some_and(|packet_id| !ids.insert(packet_id));
            if is_id_taken || (message.is_none() && !is_received) {
                continue;
            }
            let number = self.next_number;
            if let Some(packet_id) = packet_id {
                open.push(Open {
                    packet_id,
                    item: Item {
                        source: QUEUE,
                        number,
                        order: how.offset,
                    },
                    is_exact: how.qos == QoS::ExactlyOnce,
                    is_received,
                });
            }
            match message {
                Some(message) if !is_received => {
                    self.push(message, how, packet_id);
                    if let (Some(_), Some(slot)) = (fresh, self.slots.back_mut()) {
                        slot.was_sent = false;
                    }
                }
                _ => self.next_number += 1,
            }
        }
        in_flight.restore(&open);
    }

    fn push(&mut self, message: Arc<Message>, how: Delivered, packet_id: Option<PacketId>) {
        self.bytes = self.bytes.saturating_add(message.bytes());
        if packet_id.is_some() {
            self.assigned += 1;
        }
        self.slots.push_back(Slot {
            number: self.next_number,
            message,
            how,
            packet_id,
            is_recorded: true,
            was_sent: packet_id.is_some(),
        });
        self.next_number += 1;
    }

    fn remove_at(&mut self, place: usize) -> Option<Slot> {
        let slot = self.slots.remove(place)?;
        if place < self.sent {
            self.sent -= 1;
        }
        if place < self.assigned {
            self.assigned -= 1;
        }
        self.bytes = self.bytes.saturating_sub(slot.message.bytes());
        if self.slots.is_empty() {
            self.slots.shrink_to(SLOTS_KEPT);
        }
        Some(slot)
    }
}

/// Ids of QoS 1 are not stored: what stands before a message that has its id was given one, and
/// gets another one now, behind all that are taken, so that it stays where it is.
fn with_fresh_ids(all: Vec<Unsettled>) -> Vec<(Unsettled, Option<PacketId>)> {
    let id_of = |held: &Unsettled| match held.progress {
        Progress::Waiting => None,
        Progress::Sent(id) | Progress::Received(id) => Some(id),
    };
    let taken: BTreeSet<PacketId> = all.iter().filter_map(id_of).collect();
    let is_sent = |held: &Unsettled| matches!(held.progress, Progress::Sent(_));
    let last = all.iter().rposition(is_sent);
    let newest = last.and_then(|last| id_of(all.get(last)?));
    let mut behind = newest.map_or(0, PacketId::get);
    // Each id once; where none is left, the message goes last.
    let mut left = usize::from(u16::MAX).saturating_sub(taken.len());
    let mut next = || loop {
        behind = behind.wrapping_add(1);
        match PacketId::new(behind) {
            _ if left == 0 => return None,
            Some(id) if !taken.contains(&id) => {
                left -= 1;
                return Some(id);
            }
            _ => {}
        }
    };
    let all = all.into_iter().enumerate();
    all.map(|(place, held)| {
        let is_before = Some(place) < last && held.progress == Progress::Waiting;
        let fresh = (is_before && held.how.qos == QoS::AtLeastOnce).then(&mut next);
        (held, fresh.flatten())
    })
    .collect()
}

/// Places an empty queue keeps.
const SLOTS_KEPT: usize = 64;
