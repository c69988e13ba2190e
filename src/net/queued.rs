//! What is written down of the messages in the queues of kept sessions: packet ids, what clients
//! have received, what is settled; and what happens when messages are durable.

use super::connection::{Clocks, Connection, Inner};
use super::outbox::Purpose;
use super::pending::Pending;
use super::worker::Worker;
use crate::broker::record::queue;
use crate::journal::RecordKind;
use crate::mqtt::wire::PacketId;

/// Settlements that wait to be written down, in bytes; the oldest go beyond it: after a crash
/// their messages are sent once more.
const SETTLED_BYTES_MAX: usize = queue::ENTRIES_MAX * queue::ENTRY_BYTES;

/// Room for a record of one entry, in bytes.
pub(super) const ENTRY_ROOM_BYTES: usize = 16;

impl Worker {
    /// The message at `offset` is out of the queue of `session` for good. No ack waits for that.
    pub(super) fn settle(&self, session: u32, offset: u64) {
        if session == 0 || offset == 0 {
            return;
        }
        let settled = &mut *self.settled.borrow_mut();
        if settled.len() + queue::ENTRY_BYTES > SETTLED_BYTES_MAX {
            settled.drain(..queue::ENTRY_BYTES);
        }
        queue::put(settled, session, offset);
        self.has_routed.set(true);
    }

    /// Writes down what was settled, as soon as there is room.
    pub(super) fn write_settled(&self) {
        let settled = &mut *self.settled.borrow_mut();
        if settled.is_empty() || !self.make_room(settled.len(), Purpose::Message) {
            return;
        }
        let header = queue::header(RecordKind::Settled, Clocks::read().wall_ms);
        if self.record(&header, settled) {
            settled.clear();
        }
    }

    /// Connections that found no room for a packet id try again.
    pub(super) fn feed_starved(&self) {
        let starved = std::mem::take(&mut *self.starved.borrow_mut());
        for (slot, generation) in starved {
            if let Some(connection) = self.connection(slot, generation) {
                connection.mark_dirty(self, &mut connection.inner.borrow_mut());
            }
        }
    }

    /// The connection goes on when there is room in the journal.
    pub(super) fn starve(&self, connection: &Connection) {
        let starved = &mut *self.starved.borrow_mut();
        starved.push((connection.slot, connection.generation));
    }

    /// Walks that wait for retained messages look whether they have arrived.
    pub(super) fn feed_walkers(&self) {
        let walkers = std::mem::take(&mut *self.walkers.borrow_mut());
        for (slot, generation) in walkers {
            if let Some(connection) = self.connection(slot, generation) {
                connection.mark_dirty(self, &mut connection.inner.borrow_mut());
            }
        }
    }

    /// Messages that are durable go to their sessions, and what waited for them happens.
    pub(super) fn apply_due(&self, mut due: Pending) {
        let router = &self.shared.router;
        let changes = due.apply(&router.retained, self.outbox.borrow().applier());
        if changes > 0 {
            let changes = u64::try_from(changes).unwrap_or(u64::MAX);
            router.under_way.arrived(self.index, changes);
        }
        let parcels = &mut *self.parcels.borrow_mut();
        for (open, parcel) in parcels.iter_mut().zip(due.parcels()) {
            if !parcel.is_empty() {
                open.append(parcel);
                self.has_routed.set(true);
            }
        }
        for (slot, generation, packet_id) in due.assigned() {
            if let Some(connection) = self.connection(slot, generation) {
                let inner = &mut *connection.inner.borrow_mut();
                match packet_id {
                    Some(packet_id) => inner.session.assigned(packet_id),
                    None => inner.walk_waits = false,
                }
                connection.mark_dirty(self, inner);
            }
        }
    }
}

impl Connection {
    /// True if there is room to write down what sending the next message may need.
    pub(super) fn can_assign(&self, worker: &Worker) -> bool {
        if self.session_number == 0 || worker.make_room(ENTRY_ROOM_BYTES, Purpose::Message) {
            return true;
        }
        worker.starve(self);
        false
    }

    /// Writes down which packet id a QoS 2 message has; it is sent when that is durable.
    pub(super) fn record_assigned(
        &self,
        worker: &Worker,
        offset: u64,
        packet_id: PacketId,
        now_ms: u64,
    ) {
        let mut body = Vec::with_capacity(queue::ASSIGNED_BYTES);
        queue::put_assigned(&mut body, self.session_number, offset, packet_id);
        let header = queue::header(RecordKind::Assigned, now_ms);
        if worker.record(&header, &body) {
            let outbox = &mut *worker.outbox.borrow_mut();
            outbox
                .pending()
                .assign(self.slot, self.generation, Some(packet_id));
        }
    }

    /// Writes down that the client has a QoS 2 message: PUBREL waits for that. True if it was.
    pub(super) fn record_received(&self, worker: &Worker, offset: u64, clocks: Clocks) -> bool {
        if offset == 0 || self.session_number == 0 {
            return false;
        }
        let mut body = Vec::with_capacity(queue::ENTRY_BYTES);
        queue::put(&mut body, self.session_number, offset);
        let header = queue::header(RecordKind::Received, clocks.wall_ms);
        worker.record(&header, &body)
    }

    /// What acknowledged messages make room for is sent at the end of the turn.
    pub(super) fn has_room_again(&self, worker: &Worker, inner: &mut Inner) {
        if !inner.session.state().queue.is_empty() || !inner.walks.is_empty() {
            self.mark_dirty(worker, inner);
        }
    }
}
