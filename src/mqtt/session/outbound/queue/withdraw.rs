//! What leaves a queue because the right to it ended: whatever has not reached the client never
//! does, and what has is not sent again.

use std::sync::Arc;

use super::super::in_flight::InFlight;
use super::{Delivered, Queue};
use crate::mqtt::message::Message;
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

/// What was taken out of a queue for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Messages that had no packet id.
    pub queued: usize,
    /// Messages that had one.
    pub in_flight: usize,
    /// Records of them in the journal, 0 for those that have none: to be recorded as settled.
    pub offsets: Vec<u64>,
    /// Those that came through a share group, and are another member's now.
    pub shared: Vec<(Arc<Message>, Delivered)>,
}

impl Queue {
    /// Takes out what `may` does not let through any more. What was sent on this connection keeps
    /// its packet id until the client acknowledges it, as its place in the client's Receive Maximum
    /// is taken till then; it is not sent again.
    pub(in crate::mqtt::session::outbound) fn withdraw(
        &mut self,
        in_flight: &mut InFlight,
        may: impl Fn(Topic<'_>) -> bool,
        is_connected: bool,
    ) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        let mut place = 0;
        while let Some(slot) = self.slots.get(place) {
            if may(slot.message.topic()) {
                place += 1;
                continue;
            }
            let is_with_client = is_connected && place < self.sent;
            let Some(slot) = self.remove_at(place) else {
                break;
            };
            match slot.packet_id {
                Some(_) if is_with_client => {
                    self.straight += usize::from(slot.how.qos == QoS::AtLeastOnce);
                    withdrawn.in_flight += 1;
                }
                Some(packet_id) => {
                    in_flight.let_go(packet_id);
                    withdrawn.in_flight += 1;
                }
                None => withdrawn.queued += 1,
            }
            let is_with_client_for_good = slot.was_sent && slot.how.qos == QoS::ExactlyOnce;
            if slot.how.share.is_some() && !is_with_client_for_good {
                withdrawn.shared.push((slot.message, slot.how));
            } else {
                withdrawn.offsets.push(slot.how.offset);
            }
        }
        withdrawn
    }

    /// What [`Queue::withdraw`] would take out: waiting, and with a packet id.
    pub(in crate::mqtt::session::outbound) fn outside(
        &self,
        may: impl Fn(Topic<'_>) -> bool,
    ) -> (usize, usize) {
        let outside = self.slots.iter().filter(|slot| !may(slot.message.topic()));
        outside.fold((0, 0), |(waiting, in_flight), slot| {
            match slot.packet_id.is_some() {
                true => (waiting, in_flight + 1),
                false => (waiting + 1, in_flight),
            }
        })
    }

    /// The connection is over: of what is not held here no acknowledgement can come any more.
    pub(in crate::mqtt::session::outbound) fn disconnect(&mut self, in_flight: &mut InFlight) {
        self.straight = 0;
        let slots = &self.slots;
        in_flight.forget_unless(|number| {
            slots
                .binary_search_by_key(&number, |slot| slot.number)
                .is_ok()
        });
    }
}
