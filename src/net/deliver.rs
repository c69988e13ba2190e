//! The home worker's side of routing: what came for its sessions goes into their output, behind
//! the one gate. What a turn delivers to a client is one write at its end.
//!
//! A client that does not read costs what is in its output and its queue, nothing more: QoS 0 is
//! dropped beyond half of what may wait for it, QoS 1 and 2 wait in the session's queue. At QoS 1
//! a message goes past the queue if nothing waits there and nobody would need it again.

use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::connection::{Clocks, Connection, Inner};
use super::durables::Place;
use super::worker::Worker;
use crate::broker::SessionKey;
use crate::broker::router::{Parcel, Routed, Target};
use crate::broker::tree::Subscriber;
use crate::identity::{Action, Permit};
use crate::metrics::DeliveryDrop;
use crate::mqtt::message::Message;
use crate::mqtt::session::{Delivered, Encoded, Ids, LeftOut, Outgoing, Straight};
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
        let connections = &*self.connections.borrow();
        let mut encoded = self.encoded.borrow_mut();
        let mut delivering = Delivering {
            worker: self,
            connections,
            encoded: &mut encoded,
            now_ms: Clocks::read().wall_ms,
            sent: [0; 2],
            astray: Vec::new(),
        };
        for routed in parcel.iter() {
            delivering.message(&routed);
        }
        let Delivering { sent, astray, .. } = delivering;
        for (qos, sent) in (0_u8..).zip(sent) {
            self.counters.borrow_mut().delivered(qos, sent);
        }
        for (number, taken) in astray {
            self.route_shared(number, vec![taken]);
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
                let mut has_more = connection.send_queue(self, inner, now_ms);
                if !inner.walks.is_empty() {
                    connection.walk(self, inner, now_ms);
                    has_more = connection.send_queue(self, inner, now_ms);
                }
                inner.output.flush(&mut self.lent.borrow_mut());
                if has_more && inner.output.is_clear() {
                    // It takes all it is given: the rest goes when the others had their turn.
                    connection.mark_dirty(self, inner);
                }
            }
        }
        let more = &mut *self.dirty.borrow_mut();
        if more.is_empty() {
            *more = dirty;
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

    pub(super) fn count_undelivered(&self, why: DeliveryDrop) {
        self.counters.borrow_mut().undelivered(why);
    }
}

/// Who gets a copy.
enum Receiver<'w> {
    Live(&'w Connection),
    Stored(SessionKey),
}

/// A parcel on its way into outputs and queues.
struct Delivering<'w> {
    worker: &'w Worker,
    connections: &'w Slab<Rc<Connection>>,
    encoded: &'w mut Encoded,
    now_ms: u64,
    /// Copies written, at QoS 0 and 1.
    sent: [u64; 2],
    /// For members of share groups that left while their messages were on the way, by session.
    astray: Vec<(u32, (Arc<Message>, Delivered))>,
}

/// What the gate said of one message. Sessions of one scope share a permit, which never changes:
/// the same question to the same permit is asked once for those that stand behind each other. None
/// goes away while one message is delivered, so that its address names it.
struct Gate<'m> {
    topic: Topic<'m>,
    last: Option<(*const Permit, bool)>,
}

impl Gate<'_> {
    /// SEC-31: whether a copy may go to this connection.
    #[inline]
    fn allows(&mut self, connection: &Connection) -> bool {
        let permit = connection.permit.borrow();
        let this = Arc::as_ptr(&permit);
        match self.last {
            Some((last, answer)) if std::ptr::eq(last, this) => answer,
            _ => {
                let answer = permit.allows(Action::Receive, self.topic);
                self.last = Some((this, answer));
                answer
            }
        }
    }
}

impl<'w> Delivering<'w> {
    fn message(&mut self, routed: &Routed<'_>) {
        self.encoded.begin();
        let mut gate = Gate {
            topic: routed.message.topic(),
            last: None,
        };
        for target in routed.targets {
            let outcome = match self.receiver(target.to) {
                Some(Receiver::Live(connection)) => {
                    self.give(connection, routed, target, &mut gate)
                }
                Some(Receiver::Stored(key)) if target.qos > QoS::AtMostOnce => {
                    self.worker.deliver_stored(&key, routed, target)
                }
                Some(Receiver::Stored(_)) | None => Err(DeliveryDrop::Gone),
            };
            if let Err(why) = outcome {
                let session = target.to.number().unwrap_or(0);
                let is_shared = routed.share.is_some() && target.qos > QoS::AtMostOnce;
                if is_shared && why == DeliveryDrop::Gone {
                    let taken = (Arc::clone(routed.message), how(routed, target));
                    self.astray.push((session, taken));
                    continue;
                }
                self.worker.settle(session, routed.offset);
                self.worker.count_undelivered(why);
            }
        }
    }

    /// Where a session is.
    #[inline]
    fn receiver(&self, to: Subscriber) -> Option<Receiver<'w>> {
        let Some(number) = to.number() else {
            let held = self.connections.get(to.slot() as usize)?;
            let is_it = Subscriber::mark(held.generation) == to.generation();
            return (is_it && held.session_number == 0).then_some(Receiver::Live(held));
        };
        match self.worker.durables.borrow().place(number)? {
            Place::Live(slot, generation) => {
                let held = self.connections.get(*slot as usize)?;
                (held.generation == *generation).then_some(Receiver::Live(held))
            }
            Place::Stored(key) => Some(Receiver::Stored(key.clone())),
        }
    }

    /// Delivers one copy to a client that is connected: into its output at QoS 0, and at QoS 1 if
    /// nothing of it outlives the connection and nothing waits; else into its queue.
    fn give(
        &mut self,
        connection: &'w Connection,
        routed: &Routed<'_>,
        target: &Target,
        gate: &mut Gate<'_>,
    ) -> Result<(), DeliveryDrop> {
        let inner = &mut *connection.inner.borrow_mut();
        match target.qos {
            QoS::AtMostOnce => self.qos_0(connection, inner, (routed, target), gate)?,
            QoS::AtLeastOnce if connection.goes_straight(inner, routed) => {
                if !self.qos_1(connection, inner, (routed, target), gate)? {
                    return connection.queue(self.worker, inner, routed, target);
                }
            }
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                return connection.queue(self.worker, inner, routed, target);
            }
        }
        connection.mark_dirty(self.worker, inner);
        if inner.output.is_turn_full() {
            inner.output.flush(&mut self.worker.lent.borrow_mut());
        }
        Ok(())
    }

    fn qos_0(
        &mut self,
        connection: &'w Connection,
        inner: &mut Inner,
        (routed, target): (&Routed<'_>, &Target),
        gate: &mut Gate<'_>,
    ) -> Result<(), DeliveryDrop> {
        if !gate.allows(connection) {
            return Err(DeliveryDrop::NotAuthorized);
        }
        if inner.waits_for_connack() {
            return Err(DeliveryDrop::Gone);
        }
        let message = &**routed.message;
        let unsent_max = self.worker.shared.guards.unsent.bytes_max / 2;
        if inner.output.waiting() + message.bytes() > unsent_max {
            return Err(DeliveryDrop::SlowReader);
        }
        let how = (target.retain, routed.ids(target));
        let out = inner.output.turn(&mut self.worker.lent.borrow_mut());
        let sent = inner
            .session
            .send_qos_0(message, how, self.now_ms, self.encoded, out);
        sent.map_err(drop_of)?;
        self.sent[0] += 1;
        connection.count_for_user();
        Ok(())
    }

    /// Writes it at once; false if it must wait in the queue.
    fn qos_1(
        &mut self,
        connection: &'w Connection,
        inner: &mut Inner,
        (routed, target): (&Routed<'_>, &Target),
        gate: &mut Gate<'_>,
    ) -> Result<bool, DeliveryDrop> {
        if !gate.allows(connection) {
            return Err(DeliveryDrop::NotAuthorized);
        }
        let how = (target.retain, routed.ids(target));
        let out = inner.output.turn(&mut self.worker.lent.borrow_mut());
        let session = &mut inner.session;
        match session.send_qos_1(routed.message, how, self.now_ms, self.encoded, out) {
            Straight::Sent => {
                self.sent[1] += 1;
                connection.count_for_user();
                Ok(true)
            }
            Straight::MustWait => Ok(false),
            Straight::LeftOut(why) => Err(drop_of(why)),
        }
    }
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
    /// Counts a copy that was written to a user, by its own figures.
    #[inline]
    fn count_for_user(&self) {
        if let Some(figures) = &self.principal.figures {
            figures.delivered();
        }
    }

    /// Counts a copy that was written to the client.
    pub(super) fn count_delivered(&self, worker: &Worker, qos: QoS) {
        worker.counters.borrow_mut().delivered(qos.as_u8(), 1);
        self.count_for_user();
    }

    /// Whether a copy at QoS 1 need not be held once it is written: the session ends with this
    /// connection, and no other member of a share group would get it then.
    #[inline]
    fn goes_straight(&self, inner: &Inner, routed: &Routed<'_>) -> bool {
        self.session_number == 0
            && routed.share.is_none()
            && !inner.waits_for_connack()
            && inner.output.waiting() < QUEUE_WRITE_BYTES
    }

    /// Puts one copy into the queue; it is written at the end of the turn, if the client takes it.
    /// The gate is asked then.
    fn queue(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        routed: &Routed<'_>,
        target: &Target,
    ) -> Result<(), DeliveryDrop> {
        let message = Arc::clone(routed.message);
        let taken = inner.session.offer(message, how(routed, target));
        self.mark_dirty(worker, inner);
        taken.map_err(|_| DeliveryDrop::QueueFull)
    }

    /// Writes what the queue has, as far as the client takes it. True if it has more than is
    /// written at a time.
    pub(super) fn send_queue(&self, worker: &Worker, inner: &mut Inner, now_ms: u64) -> bool {
        let has_more = inner.session.has_outgoing();
        if !has_more || inner.waits_for_connack() || self.is_over.get() {
            return false;
        }
        while inner.output.waiting() < QUEUE_WRITE_BYTES {
            if !self.can_assign(worker) {
                return false;
            }
            let lent = &mut *worker.lent.borrow_mut();
            let out = inner.output.turn(lent);
            let may = |topic: Topic<'_>| self.may(Action::Receive, topic);
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
                Outgoing::Nothing => return false,
            }
        }
        true
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
