//! What happens when records are durable: messages that were written down go to their sessions,
//! retained messages change, assigned packet ids are used. It happens before the acks of the same
//! batch leave, in the order of the records.

use std::sync::Arc;

use crate::broker::retained::{Applier, RetainedIndex};
use crate::broker::router::Parcel;
use crate::mqtt::message::Message;
use crate::mqtt::wire::PacketId;

/// What waits for the records of one batch.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Messages for the sessions of each worker; until the batch is handed over their offsets are
    /// places in it.
    parcels: Vec<Parcel>,
    /// Messages that set or clear what is retained, with their places and serials.
    retained: Vec<(Arc<Message>, u64, u64)>,
    /// Connections and the packet ids that were assigned there; without one, a walk goes on.
    assigned: Vec<(u32, u32, Option<PacketId>)>,
    /// Offset of the first record of the batch, once it has one.
    first: u64,
    /// Of the last one.
    last: u64,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.retained.is_empty()
            && self.assigned.is_empty()
            && self.parcels.iter().all(Parcel::is_empty)
    }

    /// The parcel for a worker.
    pub(super) fn parcel(&mut self, worker: usize) -> &mut Parcel {
        if self.parcels.len() <= worker {
            self.parcels.resize_with(worker + 1, Parcel::default);
        }
        let last = self.parcels.len() - 1;
        self.parcels
            .get_mut(worker.min(last))
            .expect("it was made just now")
    }

    /// The message of the record at `place` sets or clears what its topic retains.
    pub(super) fn retain(&mut self, message: Arc<Message>, place: u64, serial: u64) {
        self.retained.push((message, place, serial));
    }

    /// The connection may use a packet id; without one, it goes on with its walks.
    pub(super) fn assign(&mut self, slot: u32, generation: u32, packet_id: Option<PacketId>) {
        self.assigned.push((slot, generation, packet_id));
    }

    /// The batch is about to be handed over, with `durable` on disk.
    pub(super) fn submits(&self, applier: &Applier, durable: u64) {
        if !self.retained.is_empty() {
            applier.submits(durable);
        }
    }

    /// It was not handed over after all.
    pub(super) fn stays(&self, applier: &Applier) {
        if !self.retained.is_empty() {
            applier.applied(0);
        }
    }

    /// The batch has its offsets.
    pub(super) fn seal(&mut self, first: u64, last: u64) {
        (self.first, self.last) = (first, last);
        for parcel in &mut self.parcels {
            parcel.rebase(first);
        }
    }

    /// Changes what is retained; answers how many messages did.
    pub(super) fn apply(&mut self, index: &RetainedIndex, applier: &Applier) -> usize {
        let changes = self.retained.len();
        if changes == 0 {
            return 0;
        }
        for (message, place, serial) in self.retained.drain(..) {
            index.apply(&message, self.first.saturating_add(place), serial);
        }
        applier.applied(self.last);
        changes
    }

    /// The parcels, by worker.
    pub(super) fn parcels(&mut self) -> impl Iterator<Item = &mut Parcel> {
        self.parcels.iter_mut()
    }

    /// Connections and their packet ids.
    pub(super) fn assigned(&mut self) -> impl Iterator<Item = (u32, u32, Option<PacketId>)> {
        self.assigned.drain(..)
    }
}
