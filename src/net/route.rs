//! From a publisher to the home workers of those who get its message.
//!
//! A message is matched on the worker of its publisher. Copies at QoS 0, and all for sessions that
//! end with their connection, go into one parcel for each worker, this one included; the end of
//! the turn delivers the own one and puts the others into their inboxes. Copies at QoS 1 and 2 for
//! kept sessions are named in the message's record and go when that is durable, as do changes of
//! what is retained ([`super::pending`]).
//!
//! While a parcel finds no room its worker takes no further ordinary message: the clients that
//! have one are parked, as for a full journal. Telemetry goes on.

use std::sync::Arc;
use std::time::Instant;

use super::layers::{Layers, MORE_RECORDS_MAX};
use super::outbox::Purpose;
use super::worker::Worker;
use crate::broker::record::message::{self as record, Fixed, Flags, Target, Targets};
use crate::broker::router::Parcel;
use crate::broker::tree::{Delivery, Matches, Share, Subscriber};
use crate::mqtt::message::Message;
use crate::mqtt::topic::{Filter, Topic};
use crate::mqtt::wire::{PacketId, QoS};

/// Bytes that may be routed in one turn to one worker, or wait for its inbox. One message more may
/// pass it.
const PARCEL_BYTES_MAX: usize = 1024 * 1024;

/// A message that is to be routed.
#[derive(Clone, Copy)]
pub(super) struct Routing<'a> {
    pub(super) topic: Topic<'a>,
    pub(super) qos: QoS,
    /// It is to be retained, or with an empty payload clears what is.
    pub(super) retain: bool,
    /// The session it comes from, for No Local.
    pub(super) from: Option<Subscriber>,
    /// The kept session and packet id of a QoS 2 publish, which must be on disk.
    pub(super) packet: Option<(u32, PacketId)>,
    /// The kept session whose will it is.
    pub(super) will_of: Option<u32>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is under way to those who subscribed, if anybody did.
    Routed,
    /// The same, and its record is on its way to the journal.
    Recorded,
    /// Nothing happened: no room for its record.
    NoRoom,
    /// Nothing happened: as much is retained as may be.
    RetainedFull,
}

/// Buffers for what one message needs; used again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    found: Matches,
    targets: Targets,
    /// Copies that wait for the message's record, by worker.
    kept: Vec<Parcel>,
    members: Vec<Delivery>,
    layers: Layers,
    /// Of the message, if it is to be retained ([`crate::broker::router::UnderWay`]).
    serial: u64,
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

    /// Brings a message to everybody who gets it; `make` makes it if anybody does.
    pub(super) fn route(
        &self,
        routing: Routing<'_>,
        now: Instant,
        make: impl FnOnce() -> Arc<Message>,
    ) -> Sent {
        let sent = self.match_and_send(routing, now, make);
        if routing.retain && sent != Sent::Recorded {
            self.shared.router.under_way.withdrawn(self.index);
        }
        sent
    }

    fn match_and_send(
        &self,
        routing: Routing<'_>,
        now: Instant,
        make: impl FnOnce() -> Arc<Message>,
    ) -> Sent {
        let scratch = &mut *self.scratch.borrow_mut();
        if routing.retain {
            scratch.serial = self.shared.router.under_way.begins(self.index);
        }
        let tree = &self.shared.router.tree;
        tree.matches(routing.topic, routing.from, &mut scratch.found);
        let must_record = routing.retain || routing.packet.is_some() || routing.will_of.is_some();
        if scratch.found.is_empty() && !must_record {
            return Sent::Routed;
        }
        let message = make();
        let retained = &self.shared.router.retained;
        if routing.retain && retained.admit(&message).is_err() {
            return Sent::RetainedFull;
        }
        let recorded = self.record_message(scratch, &message, routing, must_record);
        if recorded == Some(false) {
            if routing.retain {
                retained.withdraw(&message);
            }
            return Sent::NoRoom;
        }
        self.send_unrecorded(&scratch.found, &message, routing);
        if recorded.is_none() {
            return Sent::Routed;
        }
        if routing.will_of.is_none() {
            self.outbox.borrow_mut().stored(routing.qos, now);
        }
        Sent::Recorded
    }

    /// Writes the message down, with the kept sessions that get it at QoS 1 or 2. `None` if there
    /// is no reason to, false if there is no room.
    fn record_message(
        &self,
        scratch: &mut Scratch,
        message: &Arc<Message>,
        routing: Routing<'_>,
        must_record: bool,
    ) -> Option<bool> {
        let Scratch {
            found,
            targets,
            kept,
            layers,
            serial,
            ..
        } = scratch;
        targets.clear();
        kept.iter_mut().for_each(Parcel::clear);
        for delivery in found.deliveries() {
            let is_written = self.keep(found, targets, kept, message, routing, (delivery, None));
            if !is_written {
                return Some(false);
            }
        }
        seal_open(kept, message);
        if !self.keep_shares(found, targets, kept, layers, message, routing) {
            return Some(false);
        }
        if targets.is_empty() && !must_record {
            return None;
        }
        let flags = Flags {
            retain: routing.retain,
            will: routing.will_of.is_some(),
        };
        let of = routing.packet.map(|(session, id)| (session, Some(id)));
        let of = of.or(routing.will_of.map(|session| (session, None)));
        let place = self.write_message(message, flags, of.unwrap_or((0, None)), targets, kept);
        if let Some(place) = place.filter(|_| routing.retain) {
            let outbox = &mut *self.outbox.borrow_mut();
            outbox.pending().retain(Arc::clone(message), place, *serial);
        }
        Some(place.is_some())
    }

    /// Adds the copies of share groups, in layers: a record names a session once. False if one was
    /// full and found no room.
    fn keep_shares(
        &self,
        found: &Matches,
        targets: &mut Targets,
        kept: &mut Vec<Parcel>,
        layers: &mut Layers,
        message: &Arc<Message>,
        routing: Routing<'_>,
    ) -> bool {
        let to_keep = |share: &Share<'_>| {
            let chosen = share.candidates.first().copied();
            chosen.filter(|chosen| is_kept(chosen, routing.qos))
        };
        layers.clear();
        for chosen in found.shares().filter_map(|share| to_keep(&share)) {
            layers.add(chosen.subscriber().number().unwrap_or(0), targets);
        }
        for layer in 0..layers.count() {
            let shares = found.shares().filter_map(|share| {
                let chosen = to_keep(&share)?;
                Some((share.group, chosen))
            });
            for ((group, chosen), its) in shares.zip(layers.of_copies()) {
                if its != layer {
                    continue;
                }
                let filter = self.shared.router.tree.group_filter(group).map(Arc::from);
                if layer > MORE_RECORDS_MAX {
                    self.send_shared(found, message, routing, (&chosen, filter));
                    continue;
                }
                let share = (&chosen, filter.as_ref());
                if !self.keep(found, targets, kept, message, routing, share) {
                    return false;
                }
            }
        }
        true
    }

    /// Adds a kept session to the message's record; false if one was full and found no room.
    fn keep(
        &self,
        found: &Matches,
        targets: &mut Targets,
        kept: &mut Vec<Parcel>,
        message: &Arc<Message>,
        routing: Routing<'_>,
        (delivery, share): (&Delivery, Option<&Arc<str>>),
    ) -> bool {
        let to = delivery.subscriber();
        let Some(session) = to.number().filter(|_| is_kept(delivery, routing.qos)) else {
            return true;
        };
        let (qos, retain) = sent_with(delivery, routing);
        let target = Target {
            session,
            qos,
            retain,
            ids: found.ids(delivery).into(),
            group: share.map(|share| &**share),
        };
        if !targets.push(&target) {
            seal_open(kept, message);
            let place = self.write_message(message, Flags::default(), (0, None), targets, kept);
            if place.is_none() {
                return false;
            }
            targets.clear();
            if !targets.push(&target) {
                return false;
            }
        }
        let worker = usize::from(to.worker());
        if kept.len() <= worker {
            kept.resize_with(worker + 1, Parcel::default);
        }
        if let Some(parcel) = kept.get_mut(worker) {
            parcel.push(to, qos, retain, found.ids(delivery));
            if share.is_some() {
                parcel.seal(Arc::clone(message), 0, share.cloned());
            }
        }
        true
    }

    /// Writes one record, behind which the copies in `kept` wait; answers its place in the batch.
    /// `None` if it finds no room.
    fn write_message(
        &self,
        message: &Arc<Message>,
        flags: Flags,
        (session, packet_id): (u32, Option<PacketId>),
        targets: &Targets,
        kept: &mut [Parcel],
    ) -> Option<u64> {
        let bytes = record::body_len(message, targets);
        // Room for the packet was made before it was handled. What its targets take may use the
        // reserve.
        if !self.make_room(bytes, Purpose::Message) && !self.make_room(bytes, Purpose::Session) {
            return None;
        }
        let header = record::header(message, session, packet_id);
        let mut fixed = Fixed::default();
        let parts = record::parts(message, flags, targets, &mut fixed);
        let outbox = &mut *self.outbox.borrow_mut();
        let place = outbox.record_parts(&header, &parts)?;
        let pending = outbox.pending();
        for (worker, parcel) in kept.iter_mut().enumerate() {
            if !parcel.is_empty() {
                parcel.rebase(place);
                pending.parcel(worker).append(parcel);
            }
        }
        Some(place)
    }

    /// Sends the copies that no record names.
    fn send_unrecorded(&self, found: &Matches, message: &Arc<Message>, routing: Routing<'_>) {
        let parcels = &mut *self.parcels.borrow_mut();
        for (worker, deliveries) in found.by_worker() {
            let Some(parcel) = parcels.get_mut(usize::from(worker)) else {
                continue;
            };
            for delivery in deliveries.iter().filter(|one| !is_kept(one, routing.qos)) {
                let (qos, retain) = sent_with(delivery, routing);
                parcel.push(delivery.subscriber(), qos, retain, found.ids(delivery));
            }
            if parcel.is_open() {
                parcel.seal(Arc::clone(message), 0, None);
            }
        }
        for share in found.shares() {
            let chosen = share.candidates.first();
            let Some(chosen) = chosen.filter(|one| !is_kept(one, routing.qos)) else {
                continue;
            };
            let Some(parcel) = parcels.get_mut(usize::from(chosen.worker())) else {
                continue;
            };
            let (qos, retain) = sent_with(chosen, routing);
            parcel.push(chosen.subscriber(), qos, retain, found.ids(chosen));
            let is_queued = qos > QoS::AtMostOnce;
            let tree = &self.shared.router.tree;
            let filter = is_queued.then(|| tree.group_filter(share.group)).flatten();
            parcel.seal(Arc::clone(message), 0, filter.map(Arc::from));
        }
        let is_full = parcels.iter().any(|one| one.bytes() > PARCEL_BYTES_MAX);
        self.is_route_full.set(is_full);
        self.has_routed.set(true);
    }

    /// Sends a copy of a share group that no record names.
    fn send_shared(
        &self,
        found: &Matches,
        message: &Arc<Message>,
        routing: Routing<'_>,
        (chosen, filter): (&Delivery, Option<Arc<str>>),
    ) {
        let parcels = &mut *self.parcels.borrow_mut();
        if let Some(parcel) = parcels.get_mut(usize::from(chosen.worker())) {
            let (qos, retain) = sent_with(chosen, routing);
            parcel.push(chosen.subscriber(), qos, retain, found.ids(chosen));
            parcel.seal(Arc::clone(message), 0, filter);
            self.has_routed.set(true);
        }
    }

    /// Gives a message of a share group to another member. False if there is none.
    pub(super) fn route_to_member(&self, message: &Arc<Message>, filter: &Arc<str>) -> bool {
        let scratch = &mut *self.scratch.borrow_mut();
        scratch.members.clear();
        let Ok(parsed) = Filter::new(filter) else {
            return false;
        };
        let tree = &self.shared.router.tree;
        if !tree.members(parsed, &mut scratch.members) {
            return false;
        }
        let Some(chosen) = scratch.members.first().copied() else {
            return false;
        };
        let content = message.content();
        let routing = Routing {
            topic: message.topic(),
            qos: content.qos(),
            retain: content.retain(),
            from: None,
            packet: None,
            will_of: None,
        };
        scratch.targets.clear();
        scratch.kept.iter_mut().for_each(Parcel::clear);
        if is_kept(&chosen, routing.qos) {
            let Scratch {
                found,
                targets,
                kept,
                ..
            } = scratch;
            let share = (&chosen, Some(filter));
            return self.keep(found, targets, kept, message, routing, share)
                && self
                    .write_message(message, Flags::default(), (0, None), targets, kept)
                    .is_some();
        }
        let (qos, retain) = sent_with(&chosen, routing);
        let parcels = &mut *self.parcels.borrow_mut();
        if let Some(parcel) = parcels.get_mut(usize::from(chosen.worker())) {
            parcel.push(chosen.subscriber(), qos, retain, chosen.id().as_slice());
            parcel.seal(Arc::clone(message), 0, Some(Arc::clone(filter)));
        }
        self.has_routed.set(true);
        true
    }

    /// Writes a message down that one kept session gets, and lets it go there when that is
    /// durable. False if there is no room.
    pub(super) fn keep_for(
        &self,
        message: &Arc<Message>,
        to: Subscriber,
        (qos, retain, id): (QoS, bool, Option<u32>),
    ) -> bool {
        let scratch = &mut *self.scratch.borrow_mut();
        let Some(session) = to.number() else {
            return false;
        };
        scratch.targets.clear();
        let target = Target {
            session,
            qos,
            retain,
            ids: id.as_slice().into(),
            group: None,
        };
        let mut parcel = Parcel::default();
        parcel.push(to, qos, retain, id.as_slice());
        parcel.seal(Arc::clone(message), 0, None);
        let mut kept: Vec<Parcel> = (0..to.worker()).map(|_| Parcel::default()).collect();
        kept.push(parcel);
        let targets = &mut scratch.targets;
        targets.push(&target)
            && self
                .write_message(message, Flags::default(), (0, None), targets, &mut kept)
                .is_some()
    }

    /// The end of a turn: what was routed leaves.
    pub(super) fn deliver_turn(&self) {
        let own = self
            .parcels
            .borrow_mut()
            .get_mut(self.index)
            .map(std::mem::take);
        if let Some(mut own) = own {
            self.deliver(&own);
            own.clear();
            // Unless a message of a share group came back and goes to another member here.
            let mut parcels = self.parcels.borrow_mut();
            if let Some(place) = parcels.get_mut(self.index).filter(|one| one.is_empty()) {
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
    pub(super) fn hand_on(&self) -> bool {
        let parcels = &mut *self.parcels.borrow_mut();
        let mut is_blocked = false;
        let others = parcels.iter_mut().enumerate();
        for (worker, parcel) in others.filter(|(worker, _)| *worker != self.index) {
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

/// Whether a copy is named in the message's record.
fn is_kept(delivery: &Delivery, published: QoS) -> bool {
    let qos = delivery.qos().min(published);
    qos > QoS::AtMostOnce && delivery.subscriber().number().is_some()
}

/// QoS and Retain flag of a copy [MQTT-3.3.1-12] [MQTT-3.3.1-13].
fn sent_with(delivery: &Delivery, routing: Routing<'_>) -> (QoS, bool) {
    let retain = routing.retain && delivery.retain_as_published();
    (delivery.qos().min(routing.qos), retain)
}

fn seal_open(kept: &mut [Parcel], message: &Arc<Message>) {
    for parcel in kept.iter_mut().filter(|parcel| parcel.is_open()) {
        parcel.seal(Arc::clone(message), 0, None);
    }
}
