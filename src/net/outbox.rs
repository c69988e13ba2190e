//! What a worker has promised and not yet kept: records on their way to the journal, and the
//! acknowledgements that wait for them.

use std::collections::VecDeque;
use std::time::Instant;

use super::handshake::CONNECT_BYTES_MAX;
use super::ledger::{Acks, LEDGER_BYTES_MAX, Ledger};
use super::pending::Pending;
use crate::broker::retained::Applier;
use crate::journal::{
    BATCH_BYTES_MAX, Batch, Offset, RECORD_BODY_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader,
    Submitter,
};
use crate::limits::PACKET_BYTES_MAX;
use crate::mqtt::wire::QoS;

/// Part of a batch, in bytes, that only session records may use: a worker whose journal is behind
/// can still note who comes and goes, some hundreds of times. Telemetry waits outside
/// (back-pressure).
const SESSION_RESERVE_BYTES: usize = 64 * 1024;

// A payload is stored whole in one record,
const _: () = assert!(PACKET_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
// a record fits into an empty batch beside the reserve,
const _: () =
    assert!(RECORD_HEADER_BYTES + PACKET_BYTES_MAX + SESSION_RESERVE_BYTES <= BATCH_BYTES_MAX);
// and what a session's first record holds came in one CONNECT.
const _: () = assert!(CONNECT_BYTES_MAX as usize + 1_024 <= BATCH_BYTES_MAX);

/// What a record is about; it decides how much of a batch it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A device's message or its release.
    Message,
    /// A session's begin, change or end.
    Session,
}

/// One worker's open batch of records with the ledger of its acks.
pub(super) struct Outbox {
    submitter: Submitter,
    batch: Batch,
    ledger: Ledger,
    /// What happens when the open batch is durable,
    pending: Pending,
    /// and those that are on their way. Their records bound their number.
    sealed: VecDeque<(Offset, Pending)>,
    /// How far this worker is with what is retained.
    applier: Applier,
    /// Last record handed over: what acks without a record of their own wait for.
    handed_over: Offset,
}

impl Outbox {
    pub(super) fn new(mut submitter: Submitter, applier: Applier) -> Self {
        let batch = submitter.take_batch();
        let handed_over = submitter.durable();
        Self {
            submitter,
            batch,
            ledger: Ledger::default(),
            pending: Pending::default(),
            sealed: VecDeque::new(),
            applier,
            handed_over,
        }
    }

    /// Makes sure that a record with `body` bytes fits, handing over in mid-turn if it must.
    /// False while the journal is behind: then the message has to wait outside.
    pub(super) fn make_room(&mut self, body: usize, purpose: Purpose) -> bool {
        self.has_room(body, purpose) || (self.hand_over() && self.has_room(body, purpose))
    }

    /// Appends a record. False if there is no room for it.
    pub(super) fn record(&mut self, header: &RecordHeader, body: &[u8]) -> bool {
        self.batch.push(header, body).is_ok()
    }

    /// As [`Outbox::record`], of a body in several parts; answers the record's place in the batch.
    pub(super) fn record_parts(&mut self, header: &RecordHeader, body: &[&[u8]]) -> Option<u64> {
        let place = self.batch.records();
        self.batch.push_parts(header, body).ok()?;
        Some(u64::from(place))
    }

    /// An ordinary message was recorded; it counts as stored when that is durable.
    pub(super) fn stored(&mut self, qos: QoS, now: Instant) {
        self.ledger.recorded(qos, now);
    }

    /// What happens when the open batch is durable.
    pub(super) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    /// The last record on disk. It grows at any moment: what happens, and which acks leave, is
    /// decided by one look at it.
    pub(super) fn durable(&self) -> Offset {
        self.submitter.durable()
    }

    /// What happens now, as its records are durable; to be asked before the acks are released.
    pub(super) fn due(&mut self, durable: Offset) -> Option<Pending> {
        let (last, _) = self.sealed.front()?;
        if *last > durable {
            return None;
        }
        self.sealed.pop_front().map(|(_, due)| due)
    }

    /// How far this worker is with what is retained.
    pub(super) fn applier(&self) -> &Applier {
        &self.applier
    }

    /// Appends a message's record; the one copy of its payload. False if there is no room.
    pub(super) fn message(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        qos: QoS,
        now: Instant,
    ) -> bool {
        let is_recorded = self.record(header, payload);
        if is_recorded {
            self.ledger.recorded(qos, now);
        }
        is_recorded
    }

    /// Queues acks of one connection behind the records of the open batch.
    pub(super) fn acknowledge(&mut self, slot: u32, generation: u32, bytes: &[u8], places: u16) {
        self.ledger.push(slot, generation, bytes, places);
    }

    /// Gives the open batch to the committer and seals its acks. False while enough batches wait
    /// or the journal takes nothing; call again when it wakes this worker.
    pub(super) fn hand_over(&mut self) -> bool {
        // Acks without a record of their own wait for the last one.
        let mut with = self.handed_over;
        if !self.batch.is_empty() {
            let records = u64::from(self.batch.records());
            if !self.pending.is_empty() {
                let durable = self.submitter.durable().number();
                self.pending.submits(&self.applier, durable);
            }
            let Some(done) = self.submitter.hand_over(&mut self.batch) else {
                self.pending.stays(&self.applier);
                return false;
            };
            self.handed_over = done.last;
            if !done.joined {
                with = done.last;
            }
            self.seal_pending(done.last, records);
        }
        self.ledger.seal(self.handed_over, with);
        true
    }

    fn seal_pending(&mut self, last: Offset, records: u64) {
        if self.pending.is_empty() {
            return;
        }
        let mut sealed = std::mem::take(&mut self.pending);
        let first = last.number().saturating_sub(records) + 1;
        sealed.seal(first, last.number());
        self.sealed.push_back((last, sealed));
    }

    /// The next acks whose records are durable; give them back with [`Outbox::recycle`].
    pub(super) fn release(&mut self, durable: Offset) -> Option<Acks> {
        self.ledger.release(durable)
    }

    pub(super) fn recycle(&mut self, acks: Acks) {
        self.ledger.recycle(acks);
    }

    /// True if there is something to hand over.
    pub(super) fn is_pending(&self) -> bool {
        !self.batch.is_empty() || !self.ledger.is_open_empty()
    }

    /// True if every promise is kept.
    pub(super) fn is_settled(&self) -> bool {
        self.batch.is_empty()
            && self.ledger.is_empty()
            && self.sealed.is_empty()
            && self.submitter.durable() >= self.handed_over
    }

    fn has_room(&self, body: usize, purpose: Purpose) -> bool {
        let reserve = match purpose {
            Purpose::Message => SESSION_RESERVE_BYTES,
            Purpose::Session => 0,
        };
        self.ledger.bytes() + reserve <= LEDGER_BYTES_MAX
            && self.batch.bytes_len() + RECORD_HEADER_BYTES + body + reserve <= BATCH_BYTES_MAX
    }
}
