//! From a publisher to the home workers of those who get its message.
//!
//! A message is matched on the worker of its publisher. What it finds goes into one parcel for
//! each worker, this one included; the end of the turn delivers the own one and puts the others
//! into their inboxes. While a parcel finds no room its worker takes no further ordinary message:
//! the clients that have one are parked, as for a full journal. Telemetry goes on.

use std::sync::Arc;

use super::worker::Worker;
use crate::broker::router::Parcel;
use crate::broker::tree::{Delivery, Matches, Subscriber};
use crate::mqtt::message::Message;
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

/// Bytes that may be routed in one turn to one worker, or wait for its inbox. One message more may
/// pass it.
const PARCEL_BYTES_MAX: usize = 1024 * 1024;

/// What is known of a message before it is made.
#[derive(Clone, Copy)]
pub(super) struct Routing<'a> {
    pub(super) topic: Topic<'a>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// The session it comes from, for No Local.
    pub(super) from: Option<Subscriber>,
}

impl Worker {
    /// Whether ordinary messages are taken now; a client with one is parked if not, and goes on
    /// when there is room.
    pub(super) fn can_route(&self) -> bool {
        let parcels = self.parcels.borrow();
        let is_full = parcels.iter().any(|one| one.bytes() > PARCEL_BYTES_MAX);
        self.is_route_full.set(is_full);
        !is_full
    }

    /// Finds who gets a message; `make` makes it if anybody does. False if nobody does.
    pub(super) fn route(
        &self,
        routing: Routing<'_>,
        make: impl FnOnce() -> Arc<Message>,
    ) -> bool {
        let found = &mut *self.matches.borrow_mut();
        let tree = &self.shared.router.tree;
        tree.matches(routing.topic, routing.from, found);
        if found.is_empty() {
            return false;
        }
        let message = make();
        let parcels = &mut *self.parcels.borrow_mut();
        for (worker, deliveries) in found.by_worker() {
            if let Some(parcel) = parcels.get_mut(usize::from(worker)) {
                for delivery in deliveries {
                    address(parcel, found, delivery, routing);
                }
                parcel.seal(Arc::clone(&message), 0, None);
            }
        }
        for share in found.shares() {
            let Some(chosen) = share.candidates.first() else {
                continue;
            };
            if let Some(parcel) = parcels.get_mut(usize::from(chosen.worker())) {
                address(parcel, found, chosen, routing);
                let kept = routing.qos > QoS::AtMostOnce && chosen.qos() > QoS::AtMostOnce;
                let filter = kept.then(|| tree.group_filter(share.group)).flatten();
                parcel.seal(Arc::clone(&message), 0, filter.map(Arc::from));
            }
        }
        let is_full = parcels.iter().any(|one| one.bytes() > PARCEL_BYTES_MAX);
        self.is_route_full.set(is_full);
        self.has_routed.set(true);
        true
    }

    /// The end of a turn: what was routed leaves.
    pub(super) fn deliver_turn(&self) {
        let own = self.parcels.borrow_mut().get_mut(self.index).map(std::mem::take);
        if let Some(mut own) = own {
            self.deliver(&own);
            own.clear();
            if let Some(place) = self.parcels.borrow_mut().get_mut(self.index) {
                *place = own;
            }
        }
        let is_blocked = self.hand_on();
        self.write_dirty();
        if is_blocked {
            self.has_routed.set(true);
        }
        if self.is_route_full.get() && self.can_route() {
            self.resume_parked();
        }
    }

    /// Puts what is for other workers into their inboxes; true if one has no room.
    fn hand_on(&self) -> bool {
        let parcels = &mut *self.parcels.borrow_mut();
        let mut is_blocked = false;
        for (worker, parcel) in parcels.iter_mut().enumerate() {
            let inbox = self.shared.router.inbox(worker);
            let Some(inbox) = inbox.filter(|_| !parcel.is_empty()) else {
                continue;
            };
            match inbox.put(self.index, std::mem::take(parcel)) {
                Ok(spare) => *parcel = spare,
                Err(back) => {
                    *parcel = back;
                    is_blocked = true;
                }
            }
        }
        is_blocked
    }
}

fn address(parcel: &mut Parcel, found: &Matches, delivery: &Delivery, routing: Routing<'_>) {
    let qos = delivery.qos().min(routing.qos);
    // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    let retain = routing.retain && delivery.retain_as_published();
    parcel.push(delivery.subscriber(), qos, retain, found.ids(delivery));
}
