//! Sessions at their home worker: arrival, take-over, resume.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::admit::{metric, say_goodbye};
use super::connection::{Clocks, Connection, End, Inner};
use super::durables::is_ordinary;
use super::handshake::{Arrival, CONNECT_TIMEOUT};
use super::leave;
use super::linger::linger;
use super::outbox::Purpose;
use super::output::Output;
use super::publish::Recorded;
use super::rights;
use super::stream::Stream;
use super::told::{Newcomer, Shown};
use super::worker::Worker;
use crate::audit::ClientId;
use crate::broker::{NoPlace, Reserved, SessionKey, Stored, record, vital};
use crate::identity::{IdentityKind, Principal, QuotaPlace};
use crate::journal::RecordKind;
use crate::metrics::SlowReader;
use crate::mqtt::session::{Close, ConnectRefusal, Opening, Replies, Session};
use crate::mqtt::wire::ReasonCode;

/// Clients of one worker that may wait for their session to be recorded; one more is refused with
/// 0x97 (3.1.1: 3).
const ARRIVALS_WAITING_MAX: usize = 1_024;

/// A client that was let in arrives at its session's home.
pub(super) fn arrive(worker: &Rc<Worker>, arrival: Arrival) {
    let is_kept = arrival.opening.expiry_s > 0 || arrival.opening.will.is_some();
    let records = is_kept || worker.sessions.borrow().is_known(&arrival.key);
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
    worker.refused(arrival.from, metric(refusal), Shown::arriving(&arrival));
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

fn open(worker: &Rc<Worker>, mut arrival: Arrival) {
    // The credential may have ended on the way, or lost rights (SEC-34). A change that is applied
    // later finds the session registered: both happen on this thread.
    let registry = &worker.shared.registry;
    match registry.readmit(&arrival.principal, arrival.from) {
        Ok(principal) => arrival.principal = principal,
        Err(_) => return turn_away(worker, arrival, ConnectRefusal::BadCredentials),
    }
    let Some(quota) = enter_quota(worker, &arrival) else {
        return turn_away(worker, arrival, ConnectRefusal::TooManyConnections);
    };
    arrival.quota = quota;
    let reserved = worker.sessions.borrow().reserve(&arrival.key);
    match reserved {
        Ok(reserved) => connect(worker, arrival, reserved),
        Err(NoPlace::Connections) => {
            turn_away(worker, arrival, ConnectRefusal::TooManyConnections);
        }
        Err(NoPlace::Sessions) => turn_away(worker, arrival, ConnectRefusal::TooManySessions),
    }
}

/// A place in the quota of its credential, if that has one; the outer `None` is for one too many.
/// An older connection of the same session, which is about to be taken over, makes room.
fn enter_quota(worker: &Worker, arrival: &Arrival) -> Option<Option<QuotaPlace>> {
    let Some(quota) = &arrival.principal.quota else {
        return Some(None);
    };
    let older = worker.sessions.borrow().live(&arrival.key);
    let older = older.and_then(|slot| worker.connections.borrow().get(slot as usize).cloned());
    if let Some(older) = older {
        let mut place = older.quota.borrow_mut();
        place.take_if(|place| place.is_of(quota));
    }
    quota.enter().map(Some)
}

/// Opens the session of a client that has a place among its identity's.
fn connect(worker: &Rc<Worker>, arrival: Arrival, reserved: Reserved) {
    let Arrival {
        stream,
        from,
        told_id,
        principal,
        opening,
        key,
        leftover,
        assigned,
        mut place,
        quota,
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
    take_over(worker, &key, &Newcomer::new(&principal, from, &told_id));
    let slot = u32::try_from(worker.connections.borrow().vacant_key())
        .expect("a process has far fewer than 2^32 sockets");
    let stored = worker.sessions.borrow_mut().connect(&key, slot, reserved);
    let (ended, resumed) = match stored {
        Some(stored) if may_resume(&stored, &opening, &principal, clocks) => {
            (None, Some(pruned(worker, &key, stored, &principal)))
        }
        ended => (ended, None),
    };
    let (before, number) = Before::of(worker, &opening, resumed.as_ref());
    let state = resumed.map(|resumed| resumed.state);
    let session = Session::open(&opening, worker.shared.limits, state, clocks.now);
    let connection = Rc::new(Connection {
        slot,
        generation: worker.next_generation(),
        expires_at_ms: Cell::new(principal.expires_at_ms),
        since_ms: clocks.wall_ms,
        quota: RefCell::new(quota),
        permit: RefCell::new(Arc::clone(&principal.permit)),
        principal,
        from,
        key,
        session_number: number,
        expiry_recorded_s: session.expiry_s(),
        has_will: opening.will.is_some(),
        is_over: Cell::new(false),
        _place: place,
        inner: RefCell::new(Inner::new(
            session,
            Output::new(stream, worker.shared.guards.unsent.bytes_max),
        )),
    });
    let_in(worker, &connection, &told_id);
    let recorded = record_opening(worker, &connection, ended, before, clocks);
    if before.is_resumed {
        worker.session_connected(number, &connection);
    }
    let known = (before.is_resumed, assigned.as_deref());
    match recorded {
        Some(recorded) => greet(worker, &connection, &opening, known, recorded, &leftover),
        // What CONNACK would promise is not on its way to the disk.
        None => refuse(worker, &connection, ConnectRefusal::StorageFull),
    }
    serve(worker, connection);
}

/// Lets a client in whose session is on its way to the disk.
fn greet(
    worker: &Worker,
    connection: &Connection,
    opening: &Opening,
    known: (bool, Option<&str>),
    recorded: Recorded,
    leftover: &[u8],
) {
    let registry = &worker.shared.registry;
    registry.note_use(&connection.principal, connection.from);
    connection.resume_feeds(worker, &mut connection.inner.borrow_mut());
    welcome(worker, connection, opening, known, recorded, leftover);
}

/// A session as it goes on with the rights of who connects (SEC-38).
fn pruned(worker: &Worker, key: &SessionKey, mut stored: Stored, who: &Principal) -> Stored {
    rights::prune(worker, key, &mut stored, &who.permit);
    stored
}

/// Whether the session goes on with this CONNECT.
fn may_resume(stored: &Stored, opening: &Opening, who: &Principal, clocks: Clocks) -> bool {
    // [MQTT-4.1.0-2], also where the sweep has not come by yet.
    let is_over = stored.expires.is_some_and(|end| end <= clocks.now);
    // A user's rights come with its token: with those of another one it begins anew.
    let is_same = who.kind != IdentityKind::User || rights::lies_inside(&stored.state, &who.permit);
    !opening.clean_start && !is_over && is_same
}

/// Takes a connection in, counts it and tells of it.
fn let_in(worker: &Worker, connection: &Rc<Connection>, told_id: &ClientId) {
    let mut connections = worker.connections.borrow_mut();
    connections.insert(Rc::clone(connection));
    drop(connections);
    worker.count(|counters| counters.connected());
    worker.tell_connected(connection, told_id, &connection.inner.borrow().output);
    if let Some(figures) = &connection.principal.figures {
        figures.connected();
    }
}

/// What of a session there was before its connection.
#[derive(Clone, Copy)]
struct Before {
    is_resumed: bool,
    /// The journal is to be told that it begins.
    begins: bool,
    /// The expiry that the journal knows.
    expiry_s: Option<u32>,
    /// The journal knows a will of it.
    had_will: bool,
}

impl Before {
    /// With the session's number: 0 if nothing of it outlives the connection.
    fn of(worker: &Worker, opening: &Opening, resumed: Option<&Stored>) -> (Before, u32) {
        // A will must survive a crash, and so must its session.
        let is_kept = opening.expiry_s > 0 || opening.will.is_some();
        let number = match resumed {
            Some(resumed) => resumed.number,
            None if is_kept => worker.next_session_number(),
            None => 0,
        };
        // [MQTT-3.1.3-9]: back in time.
        worker.wills.borrow_mut().cancel(number);
        let before = Before {
            is_resumed: resumed.is_some(),
            begins: resumed.is_none() && is_kept,
            expiry_s: resumed.map(|resumed| resumed.expiry_s),
            had_will: resumed.is_some_and(|resumed| resumed.state.will.is_some()),
        };
        (before, number)
    }
}

/// Starts the connection's task: it reads until the end, then drains.
fn serve(worker: &Rc<Worker>, connection: Rc<Connection>) {
    let worker = Rc::clone(worker);
    worker.tasks.set(worker.tasks.get() + 1);
    tokio::task::spawn_local(async move {
        let served = |cx: &mut Context<'_>| {
            let polled = worker.guarded(&connection, || connection.poll(&worker, cx));
            polled.unwrap_or_else(Poll::Ready)
        };
        let end = std::future::poll_fn(served).await;
        vital::run("network", || worker.end(&connection, end));
        linger(connection, end).await;
        worker.tasks.set(worker.tasks.get() - 1);
        worker.progress.notify_waiters();
    });
}

/// Records what opening a session changes; its CONNACK waits for that. `None` if there is no room.
fn record_opening(
    worker: &Worker,
    connection: &Connection,
    ended: Option<Stored>,
    before: Before,
    clocks: Clocks,
) -> Option<Recorded> {
    // A resumed session's records may still be on their way, even where nothing changes.
    let mut any = connection.session_number != 0 || ended.is_some();
    if let Some(ended) = ended {
        leave::end_session(worker, &connection.key, ended);
    }
    let recorded_s = before.expiry_s;
    let is_changed = recorded_s.is_some_and(|before| before != connection.expiry_recorded_s);
    let change = (before.begins.then_some(RecordKind::SessionBegin))
        .or(is_changed.then_some(RecordKind::SessionChange));
    if let Some(kind) = change {
        any = true;
        if !record_state(worker, connection, kind, clocks) {
            return None;
        }
    }
    if before.had_will || connection.has_will {
        any = true;
        if !leave::record_will(worker, connection, clocks) {
            return None;
        }
    }
    Some(Recorded { any, connack: any })
}

/// The older connection of the same session goes first, so that its state moves once (TB-06).
fn take_over(worker: &Worker, key: &SessionKey, newcomer: &Newcomer<'_>) {
    let older = worker.sessions.borrow().live(key);
    let older = older.and_then(|slot| worker.connections.borrow().get(slot as usize).cloned());
    if let Some(older) = older {
        worker.count(|counters| counters.taken_over());
        worker.tell_taken_over(&older, newcomer);
        worker.end(
            &older,
            End::Closed(Close::because(ReasonCode::SessionTakenOver)),
        );
    }
}

fn welcome(
    worker: &Worker,
    connection: &Connection,
    opening: &Opening,
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
        let is_sharing = may_share(&connection.principal);
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
    if !leftover.is_empty() {
        let received = worker.guarded(connection, || connection.received(worker, inner, leftover));
        if let Err(end) = received.unwrap_or_else(Err) {
            inner.ends_with(end);
        }
    }
}

/// Whether the client could join any share group. A scope that changes later says so at the next
/// CONNECT.
fn may_share(principal: &Principal) -> bool {
    let permit = &principal.permit;
    match principal.kind {
        IdentityKind::Application => permit.receives(|_| true),
        // A device's own topics are never shared.
        IdentityKind::Device | IdentityKind::User => permit.receives(is_ordinary),
    }
}

/// Ends a connection whose CONNACK has not left: with a CONNACK that says why, and nothing else
/// [MQTT-3.2.0-1]. Its session is kept or ends like any other.
pub(super) fn refuse(worker: &Worker, connection: &Connection, refusal: ConnectRefusal) {
    {
        let inner = &mut *connection.inner.borrow_mut();
        // SEC-37: the will of a CONNECT that is refused is never published.
        let _ = inner.session.take_will();
        let mut connack = Vec::new();
        refusal.write(inner.session.version(), &mut connack);
        inner.output.write(&connack);
        inner.output.shutdown();
        inner.output.wake();
    }
    let shown = Shown::default().with_principal(&connection.principal);
    worker.refused(connection.from, metric(refusal), shown);
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
    // A resumed session brings more than its CONNECT did, for which room was made.
    worker.make_room(body.len(), Purpose::Session)
        && worker.record(&connection.header(worker, kind, None, clocks), &body)
}
