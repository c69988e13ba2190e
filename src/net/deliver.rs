//! The home worker's side of routing: what came for its sessions goes into their output, behind
//! the one gate. What a turn delivers to a client is one write at its end.
//!
//! A client that does not read costs what is in its output and its queue, nothing more: QoS 0 is
//! dropped beyond half of what may wait for it, QoS 1 and 2 wait in the session's queue.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Clocks, Connection, Inner};
use super::durables::Place;
use super::worker::Worker;
use crate::broker::SessionKey;
use crate::broker::router::{Parcel, Routed, Target};
use crate::broker::tree::Subscriber;
use crate::identity::Action;
use crate::metrics::DeliveryDrop;
use crate::mqtt::session::{Delivered, Encoded, Ids, LeftOut, Outgoing};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

/// What of a queue is written while so much waits in the output: the rest goes when the client has
/// read. One packet more may be in it.
pub(super) const QUEUE_WRITE_BYTES: usize = 64 * 1024;

/// Parcels delivered before other tasks get their turn.
const PARCELS_PER_TURN: usize = 8;

/// Delivers what other workers put into this one's inbox.
pub(super) async fn run(worker: Rc<Worker>) {
    let Some(inbox) = worker.shared.router.inbox(worker.index) else {
        return;
    };
    loop {
        inbox.came().await;
        let mut delivered = 0;
        while let Some(parcel) = inbox.take() {
            worker.deliver(&parcel);
            inbox.recycle(parcel);
            delivered += 1;
            if delivered % PARCELS_PER_TURN == 0 {
                worker.flush();
                tokio::task::yield_now().await;
            }
        }
        worker.flush();
    }
}

impl Worker {
    /// Delivers a parcel to the sessions at home here.
    pub(super) fn deliver(&self, parcel: &Parcel) {
        if parcel.is_empty() {
            return;
        }
        let now_ms = Clocks::read().wall_ms;
        let encoded = &mut *self.encoded.borrow_mut();
        for routed in parcel.iter() {
            encoded.begin();
            for target in routed.targets {
                self.deliver_to(&routed, target, encoded, now_ms);
            }
        }
        self.has_routed.set(true);
    }

    /// Writes what was delivered in this turn, one write for each client, and what the queues
    /// have for clients that take it.
    pub(super) fn write_dirty(&self) {
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        if dirty.is_empty() {
            return;
        }
        let now_ms = Clocks::read().wall_ms;
        for (slot, generation) in dirty.drain(..) {
            if let Some(connection) = self.connection(slot, generation) {
                let inner = &mut *connection.inner.borrow_mut();
                inner.is_dirty = false;
                connection.send_queue(self, inner, now_ms);
                if !inner.walks.is_empty() {
                    connection.walk(self, inner, now_ms);
                    connection.send_queue(self, inner, now_ms);
                }
                inner.output.flush(&mut self.lent.borrow_mut());
            }
        }
        let more = &mut *self.dirty.borrow_mut();
        if more.is_empty() {
            *more = dirty;
        }
    }

    fn deliver_to(&self, routed: &Routed<'_>, target: &Target, encoded: &mut Encoded, now_ms: u64) {
        let outcome = match self.receiver(target.to) {
            Some(Receiver::Live(connection)) => {
                connection.deliver(self, routed, target, encoded, now_ms)
            }
            Some(Receiver::Stored(key)) if target.qos > QoS::AtMostOnce => {
                self.deliver_stored(&key, routed, target)
            }
            Some(Receiver::Stored(_)) | None => Err(DeliveryDrop::Gone),
        };
        if let Err(why) = outcome {
            self.settle(target.to.number().unwrap_or(0), routed.offset);
            self.count_undelivered(why);
        }
    }

    /// Puts a copy into the queue of a session without connection.
    fn deliver_stored(
        &self,
        key: &SessionKey,
        routed: &Routed<'_>,
        target: &Target,
    ) -> Result<(), DeliveryDrop> {
        let sessions = &mut *self.sessions.borrow_mut();
        let stored = sessions.stored_mut(key).ok_or(DeliveryDrop::Gone)?;
        let limits = self.shared.limits.queue;
        let message = Arc::clone(routed.message);
        let taken = stored.state.offer(limits, message, how(routed, target));
        taken.map_err(|_| DeliveryDrop::QueueFull)
    }

    /// Where a session is.
    fn receiver(&self, to: Subscriber) -> Option<Receiver> {
        let connections = self.connections.borrow();
        match to.number() {
            None => {
                let held = connections.get(to.slot() as usize)?;
                let is_it = Subscriber::mark(held.generation) == to.generation();
                (is_it && held.session_number == 0).then(|| Receiver::Live(Rc::clone(held)))
            }
            Some(number) => match self.durables.borrow().place(number)? {
                Place::Live(slot, generation) => {
                    let held = connections.get(*slot as usize)?;
                    let is_it = held.generation == *generation;
                    is_it.then(|| Receiver::Live(Rc::clone(held)))
                }
                Place::Stored(key) => Some(Receiver::Stored(key.clone())),
            },
        }
    }

    pub(super) fn count_undelivered(&self, why: DeliveryDrop) {
        self.counters.borrow_mut().undelivered(why);
    }
}

/// Who gets a copy.
enum Receiver {
    Live(Rc<Connection>),
    Stored(SessionKey),
}

fn how(routed: &Routed<'_>, target: &Target) -> Delivered {
    Delivered {
        qos: target.qos,
        retain: target.retain,
        ids: Ids::new(routed.ids(target)),
        offset: routed.offset,
        share: routed.share.cloned(),
    }
}

impl Connection {
    /// Delivers one copy: QoS 0 into the output of this turn, QoS 1 and 2 into the queue.
    fn deliver(
        &self,
        worker: &Worker,
        routed: &Routed<'_>,
        target: &Target,
        encoded: &mut Encoded,
        now_ms: u64,
    ) -> Result<(), DeliveryDrop> {
        let message = routed.message;
        // SEC-31: the one gate. What is queued is asked about when it is sent.
        let is_allowed = || {
            self.principal
                .permit
                .allows(Action::Receive, message.topic())
        };
        let inner = &mut *self.inner.borrow_mut();
        if target.qos > QoS::AtMostOnce {
            let taken = inner
                .session
                .offer(Arc::clone(message), how(routed, target));
            self.mark_dirty(worker, inner);
            return taken.map_err(|_| DeliveryDrop::QueueFull);
        }
        if !is_allowed() {
            return Err(DeliveryDrop::NotAuthorized);
        }
        if inner.waits_for_connack() {
            return Err(DeliveryDrop::Gone);
        }
        let unsent_max = worker.shared.guards.unsent.bytes_max / 2;
        if inner.output.waiting() + message.bytes() > unsent_max {
            return Err(DeliveryDrop::SlowReader);
        }
        let how = (target.retain, routed.ids(target));
        let lent = &mut *worker.lent.borrow_mut();
        let out = inner.output.turn(lent);
        let sent = inner.session.send_qos_0(message, how, now_ms, encoded, out);
        self.mark_dirty(worker, inner);
        sent.map_err(drop_of)?;
        self.count_delivered(worker, QoS::AtMostOnce);
        Ok(())
    }

    /// Counts a copy that was written to the client.
    pub(super) fn count_delivered(&self, worker: &Worker, qos: QoS) {
        worker.counters.borrow_mut().delivered(qos.as_u8(), 1);
        if let Some(figures) = &self.principal.figures {
            figures.delivered();
        }
    }

    /// Writes what the queue has, as far as the client takes it.
    pub(super) fn send_queue(&self, worker: &Worker, inner: &mut Inner, now_ms: u64) {
        if inner.waits_for_connack() || self.is_over.get() {
            return;
        }
        let permit = &self.principal.permit;
        while inner.output.waiting() < QUEUE_WRITE_BYTES && self.can_assign(worker) {
            let lent = &mut *worker.lent.borrow_mut();
            let out = inner.output.turn(lent);
            let may = |topic: Topic<'_>| permit.allows(Action::Receive, topic);
            match inner.session.next_outgoing(now_ms, may, out) {
                Outgoing::Publish { qos, is_again } => {
                    self.count_delivered(worker, qos);
                    let counters = &mut *worker.counters.borrow_mut();
                    counters.delivered_again(u64::from(is_again));
                }
                Outgoing::Release => {}
                Outgoing::Assign { packet_id, offset } => {
                    self.record_assigned(worker, offset, packet_id, now_ms);
                }
                Outgoing::LeftOut { why, offset } => {
                    worker.settle(self.session_number, offset);
                    worker.count_undelivered(drop_of(why));
                }
                Outgoing::Nothing => return,
            }
        }
    }

    /// Notes that something is to be written at the end of the turn.
    pub(super) fn mark_dirty(&self, worker: &Worker, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.is_dirty, true) {
            worker.dirty.borrow_mut().push((self.slot, self.generation));
            worker.has_routed.set(true);
        }
    }
}

pub(super) fn drop_of(why: LeftOut) -> DeliveryDrop {
    match why {
        LeftOut::Expired => DeliveryDrop::Expired,
        LeftOut::TooLarge => DeliveryDrop::TooLarge,
        LeftOut::NotAllowed => DeliveryDrop::NotAuthorized,
    }
}
