//! How sessions leave: kept when their connection ends, or over; with them their wills, their
//! places in the tree, and what share groups gave them.

use std::time::Instant;

use super::connection::{Clocks, Connection};
use super::outbox::Purpose;
use super::wills::publisher_of;
use super::worker::Worker;
use crate::broker::{SessionKey, Stored, record};
use crate::journal::{RecordHeader, RecordKind};

/// Ends stored sessions whose time is over.
pub(super) fn drop_expired(worker: &Worker, now: Instant) {
    let expired = worker.sessions.borrow_mut().take_expired(now);
    for (identity, mut stored) in expired {
        worker.publish_will(identity, &mut stored);
        finish(worker, identity, &mut stored);
    }
}

/// What becomes of a session whose connection is over.
pub(super) fn keep_or_end(worker: &Worker, connection: &Connection) {
    connection.leave_feeds(worker, &mut connection.inner.borrow_mut());
    let inner = &mut *connection.inner.borrow_mut();
    inner.walks.clear();
    let session = &mut inner.session;
    let (number, expiry_s) = (connection.session_number, session.expiry_s());
    let clocks = Clocks::read();
    let mut state = session.take_state();
    if number == 0 {
        worker.sessions.borrow_mut().remove(&connection.key);
        if let Some(mut own) = inner.subscriptions.take() {
            worker.shared.router.tree.clear(&mut own);
            worker.hand_to_others(0, &mut state, |_| true);
        }
        return;
    }
    let key = &connection.key;
    let mut stored = Stored::new(number, state, expiry_s, clocks.now);
    stored.publisher = publisher_of(&connection.principal);
    stored.publisher_ends_ms = connection.expires_at_ms.get();
    if expiry_s == 0 {
        worker.sessions.borrow_mut().remove(key);
        return end_session(worker, key, stored);
    }
    if expiry_s != connection.expiry_recorded_s {
        let header = connection.header(worker, RecordKind::SessionChange, None, clocks);
        let mut body = Vec::new();
        let subscriptions = &stored.state.subscriptions;
        record::encode(expiry_s, &key.client_id, subscriptions, &mut body);
        note(worker, &header, &body);
    }
    if connection.has_will && stored.state.will.is_none() {
        note_will(worker, key.identity, &stored);
    }
    worker.leave_will(key, &mut stored, clocks.now);
    worker.session_stored(number, key);
    worker.hand_to_connected(number, &mut stored.state);
    worker.sessions.borrow_mut().store(key, stored);
}

/// A session is over, and its will is due.
pub(super) fn end_session(worker: &Worker, key: &SessionKey, mut stored: Stored) {
    worker.publish_will(key.identity, &mut stored);
    finish(worker, key.identity, &mut stored);
}

/// Takes a session out of everything it is in.
pub(super) fn finish(worker: &Worker, identity: uuid::Uuid, stored: &mut Stored) {
    worker.wills.borrow_mut().cancel(stored.number);
    worker.shared.feeds.end_session(stored.number);
    worker.session_ended(stored.number);
    worker.hand_to_others(stored.number, &mut stored.state, |_| true);
    let header = RecordHeader {
        received_ms: Clocks::read().wall_ms,
        ..of_session(RecordKind::SessionEnd, identity, stored)
    };
    note(worker, &header, &[]);
}

/// Records the will of a session that has just opened, or that it has none any more.
pub(super) fn record_will(worker: &Worker, connection: &Connection, clocks: Clocks) -> bool {
    let inner = connection.inner.borrow();
    let mut body = Vec::new();
    if let Some(will) = &inner.session.state().will {
        record::will::encode(will, &mut body);
    }
    let header = connection.header(worker, RecordKind::Will, None, clocks);
    worker.record(&header, &body)
}

/// Records that a stored session has no will any more.
pub(super) fn note_will(worker: &Worker, identity: uuid::Uuid, stored: &Stored) {
    let header = RecordHeader {
        received_ms: Clocks::read().wall_ms,
        ..of_session(RecordKind::Will, identity, stored)
    };
    note(worker, &header, &[]);
}

pub(super) fn of_session(kind: RecordKind, identity: uuid::Uuid, stored: &Stored) -> RecordHeader {
    RecordHeader {
        kind,
        qos: 0,
        profile_flags: 0,
        parser_version: 0,
        received_ms: 0,
        device: identity,
        credential: stored.publisher.credential,
        generation: stored.publisher.generation,
        session: stored.number,
        packet_id: 0,
    }
}

/// Ends of sessions and of wills that found no room and wait for it; about 60 KiB.
const OWED_MAX: usize = 1_024;

/// Records what found no room before, as far as there is room now. True if nothing is owed.
#[inline]
pub(super) fn write_owed(worker: &Worker) -> bool {
    let owed = &mut *worker.owed.borrow_mut();
    while let Some(header) = owed.front() {
        let outbox = &mut *worker.outbox.borrow_mut();
        if !outbox.make_room(0, Purpose::Session) || !outbox.record(header, &[]) {
            return false;
        }
        owed.pop_front();
    }
    true
}

/// Records what no acknowledgement waits for.
pub(super) fn note(worker: &Worker, header: &RecordHeader, body: &[u8]) -> bool {
    let noted = worker.make_room(body.len(), Purpose::Session) && worker.record(header, body);
    let owed = &mut *worker.owed.borrow_mut();
    if !noted && body.is_empty() && owed.len() < OWED_MAX {
        owed.push_back(*header);
    } else if !noted {
        // After a restart the session may be there again until it expires: nothing is lost.
        tracing::warn!(
            session = header.session,
            "the journal is full: a session's end is not on disk"
        );
    }
    worker.hand_over_soon();
    noted
}
