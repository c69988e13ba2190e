//! Messages sent to the client at QoS 1 and not acknowledged: packet ids, the client's Receive
//! Maximum, order, and what is sent again after a reconnect.
//!
//! What a message is, its source knows: here it is a number of that source. A source gives its
//! messages in the same order again after a reconnect; each then gets the packet id it had, with
//! DUP [MQTT-4.4.0-1].
//!
//! Ids are given out one after the other, so that an acknowledgement finds its message by its
//! place. An acknowledged message keeps its place until those before it are acknowledged too: a
//! client that leaves one open is sent no more than its Receive Maximum behind it.

use std::collections::VecDeque;

use crate::mqtt::wire::PacketId;

/// A message: whose it is, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The source it came from: a subscription, a queue.
    pub source: u64,
    /// Its number there, the same whenever it is sent; ascending in the order of sending.
    pub number: u64,
    /// Its place in what the source gave this connection, from 0.
    pub order: u64,
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

/// The messages, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    entries: VecDeque<Entry>,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of an earlier connection.
    Waiting,
    Sent,
    Done,
}

/// Packet ids there are: 1 to 65,535.
const IDS: u16 = u16::MAX;

impl InFlight {
    /// A new connection, whose client takes `window` unacknowledged messages: everything that is
    /// not acknowledged is to be sent again.
    pub fn connect(&mut self, window: u16) {
        self.window = window.max(1);
        self.open = 0;
        self.waiting = 0;
        for entry in &mut self.entries {
            if entry.state != State::Done {
                entry.state = State::Waiting;
                self.waiting = self.waiting.saturating_add(1);
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

    /// Takes a message that is to be sent. One that was sent on an earlier connection keeps its
    /// id; of its source, what should have come again before it will not come any more.
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
        let is_full = self.entries.len() >= usize::from(self.window);
        let Some(packet_id) = self.next_id().filter(|_| !is_full) else {
            return Sending::Later;
        };
        self.given = (self.given + 1) % IDS;
        self.open = self.open.saturating_add(1);
        self.entries.push_back(Entry {
            item,
            state: State::Sent,
        });
        Sending::Now {
            packet_id,
            is_again: false,
        }
    }

    /// The client acknowledged `packet_id`: the message, if one with this id was open.
    pub fn acknowledge(&mut self, packet_id: PacketId) -> Option<Item> {
        let last = u32::from(self.given);
        // Ids run from 1; `given` is the id given last, or 0 for 65,535.
        let behind = (last + u32::from(IDS) - u32::from(packet_id.get())) % u32::from(IDS);
        let place = self.entries.len().checked_sub(1 + behind as usize)?;
        let entry = self.entries.get_mut(place)?;
        if entry.state != State::Sent {
            return None;
        }
        entry.state = State::Done;
        let item = entry.item;
        self.open = self.open.saturating_sub(1);
        self.trim();
        Some(item)
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

    /// Lets go of everything of `source`: it is not sent again.
    pub fn forget(&mut self, source: u64) {
        self.end(|item| item.source == source);
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
            *entry = Entry {
                item,
                state: State::Sent,
            };
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
        for entry in self.entries.iter_mut().filter(|entry| which(&entry.item)) {
            match entry.state {
                State::Waiting => self.waiting = self.waiting.saturating_sub(1),
                State::Sent => self.open = self.open.saturating_sub(1),
                State::Done => {}
            }
            entry.state = State::Done;
        }
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
mod tests {
    use super::*;

    fn item(number: u64) -> Item {
        Item {
            source: 1,
            number,
            order: number,
        }
    }

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    fn now(number: u16, is_again: bool) -> Sending {
        Sending::Now {
            packet_id: id(number),
            is_again,
        }
    }

    fn connected(window: u16) -> InFlight {
        let mut in_flight = InFlight::default();
        in_flight.connect(window);
        in_flight
    }

    #[test]
    fn no_more_is_sent_than_the_client_takes() {
        let mut flight = connected(2);
        assert_eq!(flight.send(item(10)), now(1, false));
        assert_eq!(flight.send(item(11)), now(2, false));
        assert_eq!(flight.send(item(12)), Sending::Later);
        assert_eq!(flight.acknowledge(id(2)).map(|item| item.number), Some(11));
        assert_eq!(flight.send(item(12)), Sending::Later, "the first is open");
        assert_eq!(flight.done(1).collect::<Vec<_>>(), [11]);
        assert_eq!(flight.first_open(1), Some(10));
        assert!(flight.acknowledge(id(1)).is_some());
        assert_eq!(flight.acknowledge(id(1)), None, "only once");
        assert_eq!(flight.send(item(12)), now(3, false));
    }

    #[test]
    fn what_is_open_is_sent_again_in_order_with_its_id() {
        let mut flight = connected(10);
        for number in 1..=4 {
            flight.send(item(number));
        }
        flight.acknowledge(id(2));
        flight.connect(2);
        assert_eq!(flight.acknowledge(id(1)), None, "not sent on this one yet");
        assert_eq!(flight.send(item(1)), now(1, true));
        assert_eq!(flight.send(item(3)), now(3, true));
        assert_eq!(flight.send(item(4)), Sending::Later);
        flight.acknowledge(id(1));
        assert_eq!(flight.send(item(4)), now(4, true));
        flight.acknowledge(id(3));
        flight.acknowledge(id(4));
        assert!(flight.is_empty());
        assert_eq!(flight.send(item(5)), now(5, false));
    }

    #[test]
    fn what_does_not_come_again_gives_its_place_back() {
        let mut flight = connected(2);
        flight.send(item(1));
        flight.send(item(2));
        flight.connect(2);
        assert_eq!(flight.send(item(3)), now(3, false));
        assert_eq!(flight.len(), 1);
        flight.forget(1);
        assert!(flight.is_empty());
    }

    #[test]
    fn ids_go_round_without_zero() {
        let mut flight = connected(3);
        let mut expected = 0_u32;
        for number in 0..200_000 {
            expected = expected % 65_535 + 1;
            let given = flight.send(item(number));
            let wanted = id(u16::try_from(expected).unwrap());
            let is_again = false;
            assert_eq!(
                given,
                Sending::Now {
                    packet_id: wanted,
                    is_again
                }
            );
            assert_eq!(
                flight.acknowledge(wanted).map(|item| item.number),
                Some(number)
            );
            if number % 1_000 == 0 {
                // Again with an open one before it.
                flight.connect(3);
            }
        }
    }
}
