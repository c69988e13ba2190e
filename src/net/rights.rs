//! What a change of rights ends on one worker, and what it would end.
//!
//! A revocation closes connections and drops what is kept. A narrowing leaves connections and
//! sessions where they are and takes away what lies outside of the new rights: subscriptions, and
//! messages that wait or are not acknowledged (SEC-36). From then on the one gate, the connection's
//! permit, is the new one.
//!
//! # Invariants
//! 1. What is counted is counted by one function, in the same step and before anything ends: a dry
//!    run and the change itself give the same figures for the same state.
//! 2. One change is one step: no packet is handled and nothing is delivered between its parts.
//! 3. When a change is confirmed, nothing of the old right is left on this worker (SEC-34). What a
//!    crash keeps from the disk is made good at the next start, before anybody is let in.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Clocks, Connection, End};
use super::durables::is_ordinary;
use super::feed::source_of;
use super::leave;
use super::worker::Worker;
use crate::broker::{Receipt, SessionKey, Stored, record};
use crate::identity::{Action, Change, IdentityKind, Permit, Quota, TokenRefusal};
use crate::journal::{RecordHeader, RecordKind};
use crate::metrics::{DeliveryDrop, WillEnd};
use crate::mqtt::session::{Close, SessionState, Withdrawn};
use crate::mqtt::topic::{Filter, FilterBuf, Topic};
use crate::mqtt::wire::ReasonCode;

/// Changes of one call that are applied before clients get their turn. Most end one connection or
/// two, each by a write to its socket.
const CHANGES_PER_TURN: usize = 16;

/// Applies committed changes to everything that lives here, in order; with `is_dry` only counts.
/// What each ended, or would end.
pub(super) async fn apply_all(worker: &Worker, changes: &[Change], is_dry: bool) -> Vec<Receipt> {
    let mut receipts = Vec::with_capacity(changes.len());
    for some in changes.chunks(CHANGES_PER_TURN) {
        if !receipts.is_empty() {
            tokio::task::yield_now().await;
        }
        for change in some {
            let receipt = tally(worker, change);
            if !is_dry {
                apply(worker, change, &receipt);
            }
            receipts.push(receipt);
        }
    }
    receipts
}

/// Stored sessions of the last run that hold more than their identities may have now: the end of
/// it was not on disk when the process was killed.
pub(super) fn prune_restored(worker: &Worker) {
    let registry = &worker.shared.registry;
    let permit = |key: &SessionKey, stored: &Stored| {
        registry.permit_of(key.identity, stored.publisher.credential)
    };
    let outside: Vec<SessionKey> = {
        let sessions = worker.sessions.borrow();
        let stored = sessions.stored();
        stored
            .filter(|(key, stored)| !lies_inside(&stored.state, &permit(key, stored)))
            .map(|(key, _)| key)
            .collect()
    };
    for key in outside {
        // What a user may is said by the token that comes next.
        if registry.is_user(key.identity) {
            continue;
        }
        if let Some(stored) = worker.sessions.borrow_mut().stored_mut(&key) {
            let permit = permit(&key, stored);
            prune(worker, &key, stored, &permit);
        }
    }
}

/// Whether all its subscriptions may still be made.
pub(super) fn lies_inside(state: &SessionState, permit: &Permit) -> bool {
    state
        .subscriptions
        .iter()
        .all(|held| is_inside(&held.filter, permit))
}

/// Takes from a session without connection what lies outside of these rights.
pub(super) fn prune(worker: &Worker, key: &SessionKey, stored: &mut Stored, permit: &Permit) {
    let ended = outside(&stored.state, permit);
    for filter in ended.iter().map(FilterBuf::as_filter) {
        let text = filter.as_str();
        stored.state.subscriptions.remove(text);
        if !is_ordinary(&filter) {
            worker.shared.feeds.end_subscription(stored.number, text);
            stored.state.in_flight.forget(source_of(text));
            continue;
        }
        worker.unsubscribe_stored(stored.number, filter);
        if filter.share_name().is_some() {
            let taken = stored.state.take_shared(|held| held == text, true);
            worker.route_shared(stored.number, taken);
        }
    }
    let withdrawn = stored
        .state
        .withdraw(|topic| permit.allows(Action::Receive, topic));
    withdraw(worker, stored.number, withdrawn);
    if ended.is_empty() {
        return;
    }
    let header = RecordHeader {
        received_ms: Clocks::read().wall_ms,
        ..leave::of_session(RecordKind::SessionChange, key.identity, stored)
    };
    let (subscriptions, mut body) = (&stored.state.subscriptions, Vec::new());
    record::encode(stored.expiry_s, &key.client_id, subscriptions, &mut body);
    leave::note(worker, &header, &body);
}

fn apply(worker: &Worker, change: &Change, receipt: &Receipt) {
    for connection in live_of(worker, change) {
        if let Some(reason) = ends(worker, change, &connection) {
            close(worker, change, &connection, reason);
        } else if let Some(permit) = rights_now(worker, change, connection.principal.credential) {
            narrow(worker, &connection, permit);
        }
    }
    drop_wills(worker, change);
    if receipt.wills > 0 {
        worker.count(|counters| counters.wills(WillEnd::Revoked, receipt.wills));
    }
    if change.drops_state {
        drop_state(worker, change);
    } else {
        prune_stored(worker, change);
    }
    worker.hand_over_soon();
}

/// What the change ends here.
fn tally(worker: &Worker, change: &Change) -> Receipt {
    let mut receipt = Receipt::default();
    for connection in live_of(worker, change) {
        let inner = connection.inner.borrow();
        let state = inner.session.state();
        let credential = connection.principal.credential;
        if ends(worker, change, &connection).is_none() {
            count_outside(&mut receipt, state, rights_now(worker, change, credential));
            continue;
        }
        receipt.connections += 1;
        receipt.wills += u64::from(change.ends_will_of(credential) && state.will.is_some());
        let is_kept = connection.session_number != 0 && inner.session.expiry_s() != 0;
        if change.drops_state || !is_kept {
            count_session(&mut receipt, state);
        } else {
            count_outside(&mut receipt, state, rights_now(worker, change, credential));
        }
    }
    for stored in worker.sessions.borrow().stored_of(change.identity) {
        let credential = stored.publisher.credential;
        let ends_will = change.ends_will_of(credential) && stored.state.will.is_some();
        receipt.wills += u64::from(ends_will);
        if change.drops_state {
            count_session(&mut receipt, &stored.state);
        } else {
            let rights = rights_now(worker, change, credential);
            count_outside(&mut receipt, &stored.state, rights);
        }
    }
    // One worker says it for all: the index is shared.
    if change.drops_state && worker.index == 0 {
        let index = &worker.shared.router.retained;
        receipt.retained = count(index.messages_of(change.identity.as_u128()));
    }
    receipt
}

fn count_session(receipt: &mut Receipt, state: &SessionState) {
    receipt.sessions += 1;
    receipt.subscriptions += count(state.subscriptions.len());
    receipt.queued += count(state.queue.waiting());
    receipt.in_flight += count(state.in_flight.len());
    receipt.unfinished += count(state.unreleased.len());
}

fn count_outside(receipt: &mut Receipt, state: &SessionState, rights: Option<Arc<Permit>>) {
    let Some(permit) = rights else { return };
    for held in &state.subscriptions {
        if !is_inside(&held.filter, &permit) {
            receipt.subscriptions += 1;
            receipt.in_flight += count(state.in_flight.len_of(source_of(&held.filter)));
        }
    }
    let (queued, in_flight) = state.outside(|topic| permit.allows(Action::Receive, topic));
    receipt.queued += count(queued);
    receipt.in_flight += count(in_flight);
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// What the holder of a credential may do now, where a change leaves it anything. What a user may
/// is said by its token, which does not change.
fn rights_now(worker: &Worker, change: &Change, credential: u64) -> Option<Arc<Permit>> {
    let is_said = change.kind != IdentityKind::User && !change.drops_state;
    let registry = &worker.shared.registry;
    is_said.then(|| registry.permit_of(change.identity, credential))
}

/// The connections of an identity.
fn live_of(worker: &Worker, change: &Change) -> Vec<Rc<Connection>> {
    let (sessions, connections) = (worker.sessions.borrow(), worker.connections.borrow());
    let live = sessions.live_of(change.identity);
    live.filter_map(|slot| connections.get(slot as usize))
        .cloned()
        .collect()
}

/// Why a connection ends with a change, as its client is told (TB-07): its credential ended, or is
/// not to be used any more, or not from where the client is (SEC-40, SEC-54). One that goes on
/// does so until its credential's end as it is now.
fn ends(worker: &Worker, change: &Change, connection: &Connection) -> Option<ReasonCode> {
    if change.ends(&connection.principal) {
        let is_told = change.expired || change.kind == IdentityKind::User; // ID-30
        return Some(match is_told {
            true => ReasonCode::NotAuthorized,
            false => ReasonCode::AdministrativeAction,
        });
    }
    let registry = &worker.shared.registry;
    match registry.readmit(&connection.principal, connection.from) {
        Ok(now) => {
            connection.expires_at_ms.set(now.expires_at_ms);
            let mut place = connection.quota.borrow_mut();
            let is_same = match (&*place, &now.quota) {
                (Some(place), Some(quota)) => place.is_of(quota),
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                // Connections that are there are counted, and stay.
                *place = now.quota.as_ref().map(Quota::count);
            }
            None
        }
        // What ended it comes as a change of its own.
        Err(refused) if refused.why == TokenRefusal::Unknown => None,
        Err(refused) => {
            if refused.why == TokenRefusal::Expired {
                connection.expires_at_ms.set(Some(0));
            }
            Some(ReasonCode::NotAuthorized)
        }
    }
}

fn close(worker: &Worker, change: &Change, connection: &Connection, reason: ReasonCode) {
    let close = Close::because(reason);
    if change.expired {
        worker.shared.metrics.connection_expired();
    }
    if change.ends_will_of(connection.principal.credential) {
        let _ = connection.inner.borrow_mut().session.take_will();
    }
    worker.end(connection, End::Closed(close));
}

/// Gives a connection the rights of now and takes away what lies outside of them.
fn narrow(worker: &Worker, connection: &Connection, permit: Arc<Permit>) {
    let inner = &mut *connection.inner.borrow_mut();
    let ended = outside(inner.session.state(), &permit);
    if !ended.is_empty() {
        let ended: Vec<Filter<'_>> = ended.iter().map(FilterBuf::as_filter).collect();
        for filter in &ended {
            inner.session.end_subscription(filter.as_str());
        }
        connection.unsubscribed(worker, inner, &ended);
        if connection.session_number != 0 {
            let clocks = Clocks::read();
            let header = connection.header(worker, RecordKind::SessionChange, None, clocks);
            let (session, mut body) = (&inner.session, Vec::new());
            let subscriptions = &session.state().subscriptions;
            let client_id = &connection.key.client_id;
            record::encode(session.expiry_s(), client_id, subscriptions, &mut body);
            leave::note(worker, &header, &body);
        }
    }
    let may = |topic: Topic<'_>| permit.allows(Action::Receive, topic);
    let withdrawn = inner.session.withdraw(may);
    withdraw(worker, connection.session_number, withdrawn);
    connection.permit.replace(permit);
    connection.has_room_again(worker, inner);
}

/// Messages left a queue for good.
fn withdraw(worker: &Worker, session: u32, withdrawn: Withdrawn) {
    for offset in withdrawn.offsets {
        worker.settle(session, offset);
        worker.count_undelivered(DeliveryDrop::NotAuthorized);
    }
    worker.route_shared(session, withdrawn.shared);
}

/// Subscriptions that may not be made any more.
fn outside(state: &SessionState, permit: &Permit) -> Vec<FilterBuf> {
    let held = state.subscriptions.iter();
    let outside = held.filter(|held| !is_inside(&held.filter, permit));
    outside
        .filter_map(|held| Filter::new(&held.filter).ok().map(FilterBuf::from))
        .collect()
}

fn is_inside(filter: &str, permit: &Permit) -> bool {
    Filter::new(filter).is_ok_and(|filter| permit.allows_filter(&filter))
}

/// Wills that wait for their moment and came with a credential that ended.
fn drop_wills(worker: &Worker, change: &Change) {
    let mut sessions = worker.sessions.borrow_mut();
    for (_, stored) in sessions.stored_of_mut(change.identity) {
        let ends = change.ends_will_of(stored.publisher.credential);
        if ends && stored.state.will.take().is_some() {
            worker.wills.borrow_mut().cancel(stored.number);
            leave::note_will(worker, change.identity, stored);
        }
    }
}

/// Everything that is stored of an identity.
fn drop_state(worker: &Worker, change: &Change) {
    let dropped = worker
        .sessions
        .borrow_mut()
        .take_stored(change.identity, |_| true);
    for mut stored in dropped {
        leave::finish(worker, change.identity, &mut stored);
    }
    // One worker says it for all: the index is shared.
    if worker.index == 0 {
        let publisher = change.identity.as_u128();
        let index = &worker.shared.router.retained;
        index.end_publisher(publisher, change.generation);
        worker.sweeps.borrow_mut().add(publisher);
    }
}

fn prune_stored(worker: &Worker, change: &Change) {
    let mut sessions = worker.sessions.borrow_mut();
    for (client_id, stored) in sessions.stored_of_mut(change.identity) {
        if let Some(permit) = rights_now(worker, change, stored.publisher.credential) {
            let key = SessionKey {
                identity: change.identity,
                client_id: client_id.into(),
            };
            prune(worker, &key, stored, &permit);
        }
    }
}
