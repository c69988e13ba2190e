//! What an earlier process left open, put back.

use super::{Entry, IDS, InFlight, Item, QUEUE, State};
use crate::mqtt::wire::PacketId;

/// A message of an earlier process, as it is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The id it was given.
    pub packet_id: PacketId,
    /// The message.
    pub item: Item,
    /// It is of QoS 2.
    pub is_exact: bool,
    /// Its PUBREC has come.
    pub is_received: bool,
}

impl InFlight {
    /// Puts back what an earlier process left open, in any order but those of `is_received` in
    /// the order of their PUBRECs. Only for one that holds nothing; of two with one id the first
    /// counts.
    pub(in super::super) fn restore(&mut self, open: &[Open]) {
        let mut ids: Vec<u16> = open.iter().map(|open| open.packet_id.get()).collect();
        ids.sort_unstable();
        ids.dedup();
        let Some((first, last)) = span(&ids) else {
            return;
        };
        let done = Entry {
            item: Item {
                source: QUEUE,
                number: 0,
                order: 0,
            },
            state: State::Done,
            is_exact: false,
        };
        let len = usize::from(distance(first, last)) + 1;
        self.entries = std::iter::repeat_n(done, len).collect();
        self.given = last % IDS;
        for open in open {
            let Some(entry) = self.entry(open.packet_id) else {
                continue;
            };
            if entry.state != State::Done {
                continue;
            }
            *entry = Entry {
                item: open.item,
                state: if open.is_received {
                    State::Received
                } else {
                    State::Waiting
                },
                is_exact: open.is_exact,
            };
            if open.is_received {
                self.received.push(open.packet_id);
            }
        }
        self.connect(self.window);
    }
}

/// How many ids after `first` the id `last` is given, 0 to 65,534.
fn distance(first: u16, last: u16) -> u16 {
    if last >= first {
        last - first
    } else {
        IDS - (first - last)
    }
}

/// First and last of ascending ids in the order in which they were given: ids go round, so the
/// first is the one behind the widest gap.
fn span(ids: &[u16]) -> Option<(u16, u16)> {
    let (&lowest, &highest) = (ids.first()?, ids.last()?);
    let mut widest = (distance(highest, lowest), lowest, highest);
    for pair in ids.windows(2) {
        let &[before, after] = pair else { continue };
        let gap = after - before;
        if gap > widest.0 {
            widest = (gap, after, before);
        }
    }
    Some((widest.1, widest.2))
}
