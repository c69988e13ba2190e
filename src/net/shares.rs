//! Messages of share groups that a member leaves behind: they go to another one, as long as there
//! is one (MQTT 5 section 4.8.2). What was sent at QoS 2 stays with its session.

use std::sync::Arc;

use super::worker::Worker;
use crate::metrics::DeliveryDrop;
use crate::mqtt::message::Message;
use crate::mqtt::session::{Delivered, SessionState};
use crate::mqtt::topic::Filter;

impl Worker {
    /// The session is over, or no longer in the group: what it has of `which` groups goes to their
    /// other members. It is out of the tree already.
    pub(super) fn hand_to_others(
        &self,
        number: u32,
        state: &mut SessionState,
        which: impl Fn(&str) -> bool,
    ) {
        if state.queue.is_empty() {
            return;
        }
        let taken = state.take_shared(which, true);
        self.route_shared(number, taken);
    }

    /// A kept session lost its connection: members that are connected get what it has.
    pub(super) fn hand_to_connected(&self, number: u32, state: &mut SessionState) {
        if state.queue.is_empty() {
            return;
        }
        let tree = &self.shared.router.tree;
        let has_other = |filter: &str| {
            let mut members = Vec::new();
            let parsed = Filter::new(filter).ok();
            parsed.is_some_and(|filter| tree.members(filter, &mut members))
                && members.first().is_some_and(|one| one.is_connected())
        };
        let taken = state.take_shared(has_other, true);
        self.route_shared(number, taken);
    }

    /// Gives messages that were taken out of a session to other members of their groups.
    pub(super) fn route_shared(&self, number: u32, taken: Vec<(Arc<Message>, Delivered)>) {
        for (message, how) in taken {
            let goes_on = how
                .share
                .is_some_and(|filter| self.route_to_member(&message, &filter));
            if !goes_on {
                self.count_undelivered(DeliveryDrop::SessionEnded);
            }
            self.settle(number, how.offset);
        }
        self.hand_over_soon();
    }
}
