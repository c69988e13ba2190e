//! Messages sent to the client at QoS 1 and 2 and not acknowledged: packet ids, the client's
//! Receive Maximum, order, and what is sent again after a reconnect.
//!
//! What a message is, its source knows: here it is a number of that source. A source gives its
//! messages in the same order again after a reconnect; each then gets the packet id it had, with
//! DUP [MQTT-4.4.0-1].
//!
//! Ids are given out one after the other, so that an acknowledgement finds its message by its
//! place. An acknowledged message keeps its place until those before it are acknowledged too: a
//! client that leaves one open is sent no more than its Receive Maximum, at least 1,024, behind it.
//!
//! At QoS 2 a message is open until PUBCOMP: PUBREC releases it, and from then on it is its PUBREL
//! that is sent again, in the order in which the PUBRECs came [MQTT-4.6.0-4].

mod restore;

use std::collections::VecDeque;

use crate::mqtt::wire::PacketId;

pub use restore::Open;

/// The source number of a session's own queue. Other sources have other numbers:
/// [`source_number`].
pub const QUEUE: u64 = 0;

/// A source's number, from a hash: any but [`QUEUE`].
#[must_use]
pub const fn source_number(hash: u64) -> u64 {
    if hash == QUEUE { 1 } else { hash }
}

/// A message: whose it is, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The source it came from: a subscription, or [`QUEUE`].
    pub source: u64,
    /// Its number there, the same whenever it is sent; ascending in the order of sending.
    pub number: u64,
    /// Its place in what the source gave this connection, from 0; for [`QUEUE`] its offset in the
    /// journal, 0 if it has none.
    pub order: u64,
}

impl Item {
    /// The offset in the journal of a message of the session's queue, 0 if it has none; `None`
    /// for a message of another source.
    #[must_use]
    pub const fn queued_offset(&self) -> Option<u64> {
        if self.source == QUEUE {
            Some(self.order)
        } else {
            None
        }
    }
}

/// What becomes of a message that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It goes with this id.
    Now {
        /// Its packet id.
        packet_id: PacketId,
        /// It was sent before.
        is_again: bool,
    },
    /// The client has as many unacknowledged as it takes.
    Later,
}

/// What a PUBREC is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The client has the message now: PUBREL is to be sent.
    New(Item),
    /// It said so before: PUBREL is to be sent again.
    Again,
    /// Nothing is open under this id.
    Unknown,
    /// A QoS 1 message is open under this id.
    WrongQos,
}

/// The messages, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    entries: VecDeque<Entry>,
    /// Ids whose PUBREC has come and whose PUBCOMP has not, in the order of the PUBRECs.
    received: Vec<PacketId>,
    /// How many of `received`, from the front, have their PUBREL on this connection.
    released: usize,
    /// Ids given out so far, modulo [`IDS`].
    given: u16,
    /// The client's Receive Maximum.
    window: u16,
    /// Messages of an earlier connection that were not sent again yet.
    waiting: u16,
    /// Messages sent on this connection and not acknowledged.
    open: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    item: Item,
    state: State,
    is_exact: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of an earlier connection.
    Waiting,
    /// It has its id and goes when its turn comes.
    Assigned,
    Sent,
    /// PUBREC has come.
    Received,
    Done,
}

/// Places that are kept behind a message that stays open, whatever the client's Receive Maximum:
/// one that it has not answered does not stop what it acknowledges behind it.
const PLACES_MIN: usize = 1_024;

/// Packet ids there are: 1 to 65,535.
const IDS: u16 = u16::MAX;

impl InFlight {
    /// A new connection, whose client takes `window` unacknowledged messages: everything that is
    /// not acknowledged is to be sent again.
    pub fn connect(&mut self, window: u16) {
        self.window = window.max(1);
        self.open = 0;
        self.waiting = 0;
        self.released = 0;
        for entry in &mut self.entries {
            match entry.state {
                State::Done => continue,
                // What is sent again is its PUBREL; it holds its place until PUBCOMP.
                State::Received => self.open = self.open.saturating_add(1),
                State::Waiting | State::Assigned | State::Sent => {
                    entry.state = State::Waiting;
                    self.waiting = self.waiting.saturating_add(1);
                }
            }
        }
    }

    /// Places of Receive Maximum the client gave, 1 to 65,535.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Messages that are not acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.open) + usize::from(self.waiting)
    }

    /// True if every message is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a QoS 1 message that is to be sent. One that was sent on an earlier connection keeps
    /// its id; of its source, what should have come again before it will not come any more.
    pub fn send(&mut self, item: Item) -> Sending {
        if self.waiting > 0 {
            self.forget_before(item);
            let again = self.entries.iter().position(|entry| {
                let held = entry.item;
                entry.state == State::Waiting
                    && (held.source, held.number) == (item.source, item.number)
            });
            if let Some(place) = again {
                return self.send_again(place, item);
            }
        }
        match self.push(item, false, State::Sent) {
            Some(packet_id) => Sending::Now {
                packet_id,
                is_again: false,
            },
            None => Sending::Later,
        }
    }

    /// Gives a new message an id, without sending it; `None` if the client takes no more.
    pub(super) fn assign(&mut self, item: Item, is_exact: bool) -> Option<PacketId> {
        self.push(item, is_exact, State::Assigned)
    }

    /// Gives a new QoS 1 message an id, to be sent at once; `None` if the client takes no more.
    #[inline]
    pub(super) fn start(&mut self, item: Item) -> Option<PacketId> {
        self.push(item, false, State::Sent)
    }

    /// The turn of a message that has an id: of one that was assigned, or that an earlier
    /// connection left open. False if the client takes no more now.
    pub(super) fn begin(&mut self, packet_id: PacketId) -> bool {
        let window = self.window;
        let open = self.open;
        let Some(entry) = self.entry(packet_id) else {
            return false;
        };
        match entry.state {
            State::Assigned => entry.state = State::Sent,
            State::Waiting if open < window => {
                entry.state = State::Sent;
                self.open = self.open.saturating_add(1);
                self.waiting = self.waiting.saturating_sub(1);
            }
            State::Waiting | State::Sent | State::Received | State::Done => return false,
        }
        true
    }

    /// The client acknowledged `packet_id`: the message, if one of QoS 1 with this id was open.
    pub fn acknowledge(&mut self, packet_id: PacketId) -> Option<Item> {
        self.finish(packet_id, |entry| {
            entry.state == State::Sent && !entry.is_exact
        })
    }

    /// Whether what is open under this id, and was sent on this connection, is of QoS 2.
    #[must_use]
    pub(super) fn is_exact(&self, packet_id: PacketId) -> Option<bool> {
        let entry = self.entries.get(self.place(packet_id)?)?;
        let is_open = matches!(entry.state, State::Sent | State::Received);
        is_open.then_some(entry.is_exact)
    }

    /// PUBREC came for `packet_id`, without an error.
    pub(super) fn receive(&mut self, packet_id: PacketId) -> Received {
        let Some(entry) = self.entry(packet_id) else {
            return Received::Unknown;
        };
        match entry.state {
            State::Sent if !entry.is_exact => Received::WrongQos,
            State::Sent => {
                entry.state = State::Received;
                let item = entry.item;
                // Its PUBREL goes at once; those of earlier connections went first.
                self.released = self.released.saturating_add(1);
                self.received.push(packet_id);
                Received::New(item)
            }
            State::Received => Received::Again,
            State::Waiting | State::Assigned | State::Done => Received::Unknown,
        }
    }

    /// PUBREC came with an error: the message is over [MQTT-4.3.3-4].
    pub(super) fn refuse(&mut self, packet_id: PacketId) -> Option<Item> {
        self.finish(packet_id, |entry| {
            entry.state == State::Sent && entry.is_exact
        })
    }

    /// PUBCOMP came: the message, if its PUBREC had come.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Option<Item> {
        let item = self.finish(packet_id, |entry| entry.state == State::Received)?;
        if let Some(place) = self.received.iter().position(|&held| held == packet_id) {
            self.received.remove(place);
            if place < self.released {
                self.released -= 1;
            }
        }
        Some(item)
    }

    /// True if [`InFlight::next_release`] has one.
    #[inline]
    pub(super) fn has_releases(&self) -> bool {
        self.released < self.received.len()
    }

    /// The next PUBREL that an earlier connection left without PUBCOMP.
    pub(super) fn next_release(&mut self) -> Option<PacketId> {
        let packet_id = *self.received.get(self.released)?;
        self.released += 1;
        Some(packet_id)
    }

    /// Lets go of a message that will not be sent.
    pub(super) fn let_go(&mut self, packet_id: PacketId) -> Option<Item> {
        self.finish(packet_id, |entry| entry.state != State::Done)
    }

    /// The place, in what `source` gave this connection, of the first message that is not
    /// acknowledged; `None` if all that was sent is.
    #[must_use]
    pub fn first_open(&self, source: u64) -> Option<u64> {
        let mut entries = self.entries.iter();
        let is_open = |entry: &&Entry| entry.state == State::Sent && entry.item.source == source;
        entries.find(is_open).map(|entry| entry.item.order)
    }

    /// Numbers of messages of `source`, sent on this connection and acknowledged, although one
    /// before them is not.
    pub fn done(&self, source: u64) -> impl Iterator<Item = u64> + '_ {
        let is_done =
            move |entry: &&Entry| entry.state == State::Done && entry.item.source == source;
        self.entries
            .iter()
            .filter(is_done)
            .map(|entry| entry.item.number)
    }

    /// Messages whose PUBREC has come and whose PUBCOMP has not, in the order of the PUBRECs.
    pub(super) fn received(&self) -> impl Iterator<Item = (PacketId, Item)> + '_ {
        self.received.iter().filter_map(|&packet_id| {
            let entry = self.entries.get(self.place(packet_id)?)?;
            Some((packet_id, entry.item))
        })
    }

    /// Lets go of everything of `source`: it is not sent again.
    pub fn forget(&mut self, source: u64) {
        self.end(|item| item.source == source);
    }

    /// Messages of `source` that are not acknowledged.
    #[must_use]
    pub fn len_of(&self, source: u64) -> usize {
        let is_open = |entry: &&Entry| entry.state != State::Done && entry.item.source == source;
        self.entries.iter().filter(is_open).count()
    }

    /// Lets go of messages of the session's queue that it does not hold, unless the client has
    /// received them: their PUBREL goes again.
    pub(super) fn forget_unless(&mut self, holds: impl Fn(u64) -> bool) {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in &mut entries {
            let is_open = !matches!(entry.state, State::Received | State::Done);
            if is_open && entry.item.source == QUEUE && !holds(entry.item.number) {
                self.ended(entry.state);
                entry.state = State::Done;
            }
        }
        self.entries = entries;
        self.trim();
    }

    fn push(&mut self, item: Item, is_exact: bool, state: State) -> Option<PacketId> {
        let places = usize::from(self.window).max(PLACES_MIN);
        let is_full = self.len() >= usize::from(self.window) || self.entries.len() >= places;
        let packet_id = self.next_id().filter(|_| !is_full)?;
        self.given = (self.given + 1) % IDS;
        self.open = self.open.saturating_add(1);
        self.entries.push_back(Entry {
            item,
            state,
            is_exact,
        });
        Some(packet_id)
    }

    fn finish(&mut self, packet_id: PacketId, which: impl Fn(&Entry) -> bool) -> Option<Item> {
        let entry = self.entry(packet_id).filter(|entry| which(entry))?;
        let (state, item) = (entry.state, entry.item);
        entry.state = State::Done;
        self.ended(state);
        self.trim();
        Some(item)
    }

    /// One entry left this state for good.
    fn ended(&mut self, state: State) {
        match state {
            State::Waiting => self.waiting = self.waiting.saturating_sub(1),
            State::Assigned | State::Sent | State::Received => {
                self.open = self.open.saturating_sub(1);
            }
            State::Done => {}
        }
    }

    fn entry(&mut self, packet_id: PacketId) -> Option<&mut Entry> {
        let place = self.place(packet_id)?;
        self.entries.get_mut(place)
    }

    fn place(&self, packet_id: PacketId) -> Option<usize> {
        let last = u32::from(self.given);
        // Ids run from 1; `given` is the id given last, or 0 for 65,535.
        let behind = (last + u32::from(IDS) - u32::from(packet_id.get())) % u32::from(IDS);
        self.entries.len().checked_sub(1 + behind as usize)
    }

    fn send_again(&mut self, place: usize, item: Item) -> Sending {
        if self.open >= self.window {
            return Sending::Later;
        }
        let behind = self.entries.len() - 1 - place;
        let Some(packet_id) = self.id_behind_last(behind) else {
            return Sending::Later;
        };
        if let Some(entry) = self.entries.get_mut(place) {
            entry.item = item;
            entry.state = State::Sent;
        }
        self.open = self.open.saturating_add(1);
        self.waiting = self.waiting.saturating_sub(1);
        Sending::Now {
            packet_id,
            is_again: true,
        }
    }

    /// Messages of the source of `item` that were to come again before it are gone there.
    fn forget_before(&mut self, item: Item) {
        let mut gone = 0;
        for entry in &mut self.entries {
            let held = entry.item;
            if entry.state == State::Waiting
                && held.source == item.source
                && held.number < item.number
            {
                entry.state = State::Done;
                gone += 1;
            }
        }
        self.waiting = self.waiting.saturating_sub(gone);
        self.trim();
    }

    fn end(&mut self, which: impl Fn(&Item) -> bool) {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.iter_mut().filter(|entry| which(&entry.item)) {
            self.ended(entry.state);
            entry.state = State::Done;
        }
        self.entries = entries;
        self.trim();
    }

    fn trim(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.state == State::Done)
        {
            self.entries.pop_front();
        }
        if self.entries.is_empty() && self.entries.capacity() > usize::from(u8::MAX) {
            self.entries.shrink_to(usize::from(u8::MAX));
        }
    }

    fn next_id(&self) -> Option<PacketId> {
        PacketId::new(self.given % IDS + 1)
    }

    /// The id of the entry that many places before the last one.
    fn id_behind_last(&self, behind: usize) -> Option<PacketId> {
        let last = usize::from(if self.given == 0 { IDS } else { self.given });
        let ids = usize::from(IDS);
        let id = (last + ids - behind % ids - 1) % ids + 1;
        PacketId::new(u16::try_from(id).ok()?)
    }
}

#[cfg(test)]
mod tests;
