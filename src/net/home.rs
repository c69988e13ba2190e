//! Sessions at their home worker: arrival, take-over, resume, and every way they end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::connection::{Clocks, Connection, End, Inner};
use super::handshake::{Arrival, CONNECT_TIMEOUT, metric, say_goodbye};
use super::linger::linger;
use super::outbox::Purpose;
use super::output::Output;
use super::publish::Recorded;
use super::stream::Stream;
use super::worker::Worker;
use crate::broker::{NoPlace, Receipt, Reserved, Stored, record};
use crate::identity::{Change, IdentityKind};
use crate::journal::{RecordHeader, RecordKind};
use crate::metrics::SlowReader;
use crate::mqtt::session::{Close, ConnectRefusal, Replies, Session, SessionState};
use crate::mqtt::wire::ReasonCode;

/// Clients of one worker that may wait for their session to be recorded; one more is refused with
/// 0x97 (3.1.1: 3).
const ARRIVALS_WAITING_MAX: usize = 1_024;

/// A client that was let in arrives at its session's home.
pub(super) fn arrive(worker: &Rc<Worker>, arrival: Arrival) {
    let records = arrival.opening.expiry_s > 0 || worker.sessions.borrow().is_known(&arrival.key);
    if !records || worker.make_room(arrival.record_bytes(), Purpose::Session) {
        return open(worker, arrival);
    }
    // The journal is behind, and even the reserve for sessions is used up: CONNACK has to wait.
    if worker.arrivals_waiting.get() >= ARRIVALS_WAITING_MAX {
        return turn_away(worker, arrival, ConnectRefusal::StorageFull);
    }
    worker
        .arrivals_waiting
        .set(worker.arrivals_waiting.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let room = async {
            loop {
                let progress = worker.progress.notified();
                if worker.make_room(arrival.record_bytes(), Purpose::Session) {
                    return;
                }
                progress.await;
            }
        };
        let has_room = tokio::time::timeout(CONNECT_TIMEOUT, room).await.is_ok();
        worker
            .arrivals_waiting
            .set(worker.arrivals_waiting.get() - 1);
        if has_room {
            open(&worker, arrival);
        } else {
            turn_away(&worker, arrival, ConnectRefusal::StorageFull);
        }
    });
}

/// Refuses a client that was let in before its session opened: nothing of it took effect.
fn turn_away(worker: &Rc<Worker>, arrival: Arrival, refusal: ConnectRefusal) {
    worker.count_connect_refused(metric(refusal));
    let mut connack = Vec::new();
    refusal.write(arrival.opening.version, &mut connack);
    match Stream::attach(arrival.stream) {
        Ok(stream) => {
            let place = arrival.place;
            tokio::task::spawn_local(async move {
                say_goodbye(stream, &connack).await;
                drop(place);
            });
        }
        Err(error) => tracing::debug!(%error, "a connection was lost on its way home"),
    }
}

/// Applies a committed change of rights to everything that lives here.
pub(super) fn apply(worker: &Worker, change: &Change) -> Receipt {
    let mut receipt = Receipt::default();
    let slots: Vec<u32> = worker.sessions.borrow().live_of(change.identity).collect();
    for slot in slots {
        let connection = worker.connections.borrow().get(slot as usize).cloned();
        let Some(connection) = connection else {
            continue;
        };
        if !worker.shared.registry.is_current(&connection.principal) {
            // TB-07: a client whose credential ended is told so where it can be told.
            let close = Close::because(ReasonCode::AdministrativeAction);
            if connection.session_number == 0 {
                // Nothing of it is stored: it goes with the connection. What is stored counts
                // below, where it is dropped.
                receipt.unfinished += unfinished(connection.inner.borrow().session.state());
            }
            worker.end(&connection, End::Closed(close));
            receipt.connections += 1;
        }
    }
    if change.drops_state {
        for stored in worker.sessions.borrow_mut().take_stored_of(change.identity) {
            record_end(worker, change.identity, &stored);
            receipt.sessions += 1;
            receipt.unfinished += unfinished(&stored.state);
        }
    }
    worker.hand_over_soon();
    receipt
}

/// Ends stored sessions whose time is over.
pub(super) fn drop_expired(worker: &Worker, now: Instant) {
    let expired = worker.sessions.borrow_mut().take_expired(now);
    for (identity, stored) in expired {
        record_end(worker, identity, &stored);
    }
}

/// What becomes of a session whose connection is over.
pub(super) fn keep_or_end(worker: &Worker, connection: &Connection) {
    connection.leave_feeds(worker, &mut connection.inner.borrow_mut());
    let inner = &mut *connection.inner.borrow_mut();
    let session = &mut inner.session;
    let (number, expiry_s) = (connection.session_number, session.expiry_s());
    let clocks = Clocks::read();
    if number == 0 {
        worker.sessions.borrow_mut().remove(&connection.key);
        if let Some(mut own) = inner.subscriptions.take() {
            worker.shared.router.tree.clear(&mut own);
        }
        return;
    }
    let stored = Stored::new(number, session.take_state(), expiry_s, clocks.now);
    if expiry_s == 0 {
        worker.sessions.borrow_mut().remove(&connection.key);
        record_end(worker, connection.key.identity, &stored);
        return;
    }
    if expiry_s != connection.expiry_recorded_s {
        let header = connection.header(worker, RecordKind::SessionChange, None, clocks);
        let mut body = Vec::new();
        let subscriptions = &stored.state.subscriptions;
        record::encode(
            expiry_s,
            &connection.key.client_id,
            subscriptions,
            &mut body,
        );
        note(worker, &header, &body);
    }
    worker.sessions.borrow_mut().store(&connection.key, stored);
    worker.session_stored(number, &connection.key);
}

fn open(worker: &Rc<Worker>, arrival: Arrival) {
    // The credential may have ended on the way (SEC-34). A change that is applied later finds the
    // session registered: both happen on this thread.
    if !worker.shared.registry.is_current(&arrival.principal) {
        return turn_away(worker, arrival, ConnectRefusal::BadCredentials);
    }
    let reserved = worker.sessions.borrow().reserve(&arrival.key);
    match reserved {
        Ok(reserved) => connect(worker, arrival, reserved),
        Err(NoPlace::Connections) => {
            turn_away(worker, arrival, ConnectRefusal::TooManyConnections);
        }
        Err(NoPlace::Sessions) => turn_away(worker, arrival, ConnectRefusal::TooManySessions),
    }
}

/// Opens the session of a client that has a place among its identity's.
fn connect(worker: &Rc<Worker>, arrival: Arrival, reserved: Reserved) {
    let Arrival {
        stream,
        principal,
        opening,
        key,
        leftover,
        assigned,
        mut place,
    } = arrival;
    let stream = match Stream::attach(stream) {
        Ok(stream) => stream,
        Err(error) => {
            worker.sessions.borrow().give_back(&key, reserved);
            return tracing::debug!(%error, "a connection was lost on its way home");
        }
    };
    place.let_in();
    let clocks = Clocks::read();
    take_over(worker, &key);
    let slot = u32::try_from(worker.connections.borrow().vacant_key())
        .expect("a process has far fewer than 2^32 sockets");
    let stored = worker.sessions.borrow_mut().connect(&key, slot, reserved);
    let (ended, resumed) = if opening.clean_start {
        (stored, None)
    } else {
        (None, stored)
    };
    let is_resumed = resumed.is_some();
    let (begins, number) = match &resumed {
        Some(resumed) => (false, resumed.number),
        None if opening.expiry_s > 0 => (true, worker.next_session_number()),
        None => (false, 0),
    };
    let recorded_s = resumed.as_ref().map(|resumed| resumed.expiry_s);
    let state = resumed.map(|resumed| resumed.state);
    let session = Session::open(&opening, worker.shared.limits, state, clocks.now);
    let expiry_s = session.expiry_s();
    let connection = Rc::new(Connection {
        slot,
        generation: worker.next_generation(),
        principal,
        key,
        session_number: number,
        expiry_recorded_s: expiry_s,
        is_over: Cell::new(false),
        _place: place,
        inner: RefCell::new(Inner::new(
            session,
            Output::new(stream, worker.shared.guards.unsent.bytes_max),
        )),
    });
    worker
        .connections
        .borrow_mut()
        .insert(Rc::clone(&connection));
    worker.count(|counters| counters.connected());
    let is_changed = recorded_s.is_some_and(|before| before != expiry_s);
    let change = (begins.then_some(RecordKind::SessionBegin))
        .or(is_changed.then_some(RecordKind::SessionChange));
    let recorded = record_opening(worker, &connection, ended.as_ref(), change, clocks);
    if is_resumed {
        worker.session_connected(number, &connection);
    }
    connection.resume_feeds(worker, &mut connection.inner.borrow_mut());
    let known = (is_resumed, assigned.as_deref());
    welcome(worker, &connection, &opening, known, recorded, &leftover);
    serve(worker, connection);
}

/// Starts the connection's task: it reads until the end, then drains.
fn serve(worker: &Rc<Worker>, connection: Rc<Connection>) {
    let worker = Rc::clone(worker);
    worker.tasks.set(worker.tasks.get() + 1);
    tokio::task::spawn_local(async move {
        let end = std::future::poll_fn(|cx| connection.poll(&worker, cx)).await;
        worker.end(&connection, end);
        linger(connection).await;
        worker.tasks.set(worker.tasks.get() - 1);
        worker.progress.notify_waiters();
    });
}

/// Records what opening a session changes; its CONNACK waits for that.
fn record_opening(
    worker: &Worker,
    connection: &Connection,
    ended: Option<&Stored>,
    change: Option<RecordKind>,
    clocks: Clocks,
) -> Recorded {
    // A resumed session's records may still be on their way, even where nothing changes.
    let mut any = connection.session_number != 0;
    if let Some(ended) = ended {
        any |= record_end(worker, connection.key.identity, ended);
    }
    if let Some(kind) = change {
        any |= record_state(worker, connection, kind, clocks);
    }
    Recorded { any, connack: any }
}

/// The older connection of the same session goes first, so that its state moves once (TB-06).
fn take_over(worker: &Worker, key: &crate::broker::SessionKey) {
    let older = worker.sessions.borrow().live(key);
    let older = older.and_then(|slot| worker.connections.borrow().get(slot as usize).cloned());
    if let Some(older) = older {
        worker.count(|counters| counters.taken_over());
        worker.end(
            &older,
            End::Closed(Close::because(ReasonCode::SessionTakenOver)),
        );
    }
}

fn welcome(
    worker: &Worker,
    connection: &Connection,
    opening: &crate::mqtt::session::Opening,
    (is_resumed, assigned): (bool, Option<&str>),
    recorded: Recorded,
    leftover: &[u8],
) {
    let inner = &mut *connection.inner.borrow_mut();
    {
        let replies: &mut Replies = &mut worker.replies.borrow_mut();
        replies.clear();
        // [MQTT-3.1.3-6] [MQTT-3.2.2-16]: only MQTT 5 can be told the name it was given.
        let assigned = assigned.filter(|_| opening.version == crate::mqtt::wire::Version::V5);
        let is_sharing = connection.principal.kind == IdentityKind::Application;
        inner
            .session
            .accept(opening, is_resumed, is_sharing, assigned, replies);
        connection.reply(worker, inner, replies, recorded);
    }
    if is_resumed {
        // What the queue has, once CONNACK has left.
        connection.mark_dirty(worker, inner);
        worker.hand_over_soon();
    }
    // TB-08: what came behind CONNECT is handled now, in order.
    if !leftover.is_empty()
        && let Err(end) = connection.received(worker, inner, leftover)
    {
        inner.ends_with(end);
    }
}

/// Ends a connection whose CONNACK has not left: with a CONNACK that says why, and nothing else
/// [MQTT-3.2.0-1]. Its session is kept or ends like any other.
pub(super) fn refuse(worker: &Worker, connection: &Connection, refusal: ConnectRefusal) {
    {
        let inner = &mut *connection.inner.borrow_mut();
        let mut connack = Vec::new();
        refusal.write(inner.session.version(), &mut connack);
        inner.output.write(&connack);
        inner.output.shutdown();
        inner.output.wake();
    }
    worker.count_connect_refused(metric(refusal));
    worker.end(connection, End::Lost);
}

/// Lets go of a client that does not read: there is nothing to say to it (SEC-82).
pub(super) fn cut_off(worker: &Worker, connection: &Connection, why: SlowReader) {
    worker.shared.metrics.door().slow_reader(why);
    worker.end(connection, End::Lost);
}

fn record_state(
    worker: &Worker,
    connection: &Connection,
    kind: RecordKind,
    clocks: Clocks,
) -> bool {
    let inner = connection.inner.borrow();
    let mut body = Vec::new();
    let subscriptions = &inner.session.state().subscriptions;
    record::encode(
        inner.session.expiry_s(),
        &connection.key.client_id,
        subscriptions,
        &mut body,
    );
    worker.record(&connection.header(worker, kind, None, clocks), &body)
}

fn record_end(worker: &Worker, identity: uuid::Uuid, stored: &Stored) -> bool {
    worker.shared.feeds.end_session(stored.number);
    worker.session_ended(stored.number);
    let header = RecordHeader {
        kind: RecordKind::SessionEnd,
        qos: 0,
        profile_flags: 0,
        parser_version: 0,
        received_ms: Clocks::read().wall_ms,
        device: identity,
        credential: 0,
        generation: 0,
        session: stored.number,
        packet_id: 0,
    };
    note(worker, &header, &[])
}

/// Records what no acknowledgement waits for.
fn note(worker: &Worker, header: &RecordHeader, body: &[u8]) -> bool {
    let noted = worker.make_room(body.len(), Purpose::Session) && worker.record(header, body);
    if !noted {
        // After a restart the session may be there again until it expires: nothing is lost.
        tracing::warn!(
            session = header.session,
            "the journal is full: a session's end is not on disk"
        );
    }
    worker.hand_over_soon();
    noted
}

fn unfinished(state: &SessionState) -> u64 {
    u64::try_from(state.unreleased.len() + state.in_flight.len()).unwrap_or(u64::MAX)
}
