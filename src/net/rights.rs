//! What a change of rights ends on one worker, and what it would end.
//!
//! # Invariants
//! 1. What is counted is counted by one function, in the same step and before anything ends: a dry
//!    run and the change itself give the same figures for the same state.
//! 2. One change is one step: no packet is handled and nothing is delivered between its parts.
//! 3. When a change is confirmed, nothing of the old right is left on this worker (SEC-34).

use super::connection::{Connection, End};
use super::leave::{self, lies_inside};
use super::worker::Worker;
use crate::broker::{Receipt, Stored};
use crate::identity::{Change, IdentityKind, Permit};
use crate::metrics::WillEnd;
use crate::mqtt::session::{Close, SessionState};
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

fn apply(worker: &Worker, change: &Change, receipt: &Receipt) {
    for connection in connections_of(worker, change) {
        // TB-07: a client whose credential ended is told so where it can be told.
        let close = Close::because(match change.kind {
            IdentityKind::User => ReasonCode::NotAuthorized, // ID-30
            IdentityKind::Device | IdentityKind::Application => ReasonCode::AdministrativeAction,
        });
        if change.ends_will_of(connection.principal.credential) {
            let _ = connection.inner.borrow_mut().session.take_will();
        }
        worker.end(&connection, End::Closed(close));
    }
    drop_wills(worker, change);
    if receipt.wills > 0 {
        worker.count(|counters| counters.wills(WillEnd::Revoked, receipt.wills));
    }
    drop_state(worker, change);
    worker.hand_over_soon();
}

/// What the change ends here.
fn tally(worker: &Worker, change: &Change) -> Receipt {
    let mut receipt = Receipt::default();
    let narrowed = Narrowed::of(worker, change);
    for connection in connections_of(worker, change) {
        let inner = connection.inner.borrow();
        let state = inner.session.state();
        receipt.connections += 1;
        if change.ends_will_of(connection.principal.credential) && state.will.is_some() {
            receipt.wills += 1;
        }
        let is_kept = connection.session_number != 0 && inner.session.expiry_s() != 0;
        if change.drops_state || !is_kept || narrowed.drops(state) {
            count_session(&mut receipt, state);
        }
    }
    for stored in worker.sessions.borrow().stored_of(change.identity) {
        let ends_will = change.ends_will_of(stored.publisher.credential);
        receipt.wills += u64::from(ends_will && stored.state.will.is_some());
        if change.drops_state || narrowed.drops(&stored.state) {
            count_session(&mut receipt, &stored.state);
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

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The connections here that end with a change.
fn connections_of(worker: &Worker, change: &Change) -> Vec<std::rc::Rc<Connection>> {
    let (sessions, connections) = (worker.sessions.borrow(), worker.connections.borrow());
    let live = sessions.live_of(change.identity);
    let live = live.filter_map(|slot| connections.get(slot as usize));
    live.filter(|connection| change.ends(&connection.principal))
        .cloned()
        .collect()
}

/// Wills that wait for their moment and came with a credential that ended.
fn drop_wills(worker: &Worker, change: &Change) {
    let mut sessions = worker.sessions.borrow_mut();
    for stored in sessions.stored_of_mut(change.identity) {
        let ends = change.ends_will_of(stored.publisher.credential);
        if ends && stored.state.will.take().is_some() {
            worker.wills.borrow_mut().cancel(stored.number);
            leave::note_will(worker, change.identity, stored);
        }
    }
}

/// What is stored of an identity and goes with its rights: everything, or the sessions that hold
/// a subscription outside of the rights it has now (SEC-36).
fn drop_state(worker: &Worker, change: &Change) {
    let narrowed = Narrowed::of(worker, change);
    let goes = |stored: &Stored| change.drops_state || narrowed.drops(&stored.state);
    let dropped = worker
        .sessions
        .borrow_mut()
        .take_stored(change.identity, goes);
    for mut stored in dropped {
        // Of a narrowing: what was revoked has lost it above.
        worker.publish_will(change.identity, &mut stored);
        leave::finish(worker, change.identity, &mut stored);
    }
    // One worker says it for all: the index is shared.
    if change.drops_state && worker.index == 0 {
        let publisher = change.identity.as_u128();
        let index = &worker.shared.router.retained;
        index.end_publisher(publisher, change.generation);
        worker.sweeps.borrow_mut().add(publisher);
    }
}

/// The rights that an identity has now, where a change may have left sessions outside of them.
struct Narrowed(Option<std::sync::Arc<Permit>>);

impl Narrowed {
    fn of(worker: &Worker, change: &Change) -> Narrowed {
        // What a user may is said by the token that comes next: it is asked when that resumes.
        let is_said = change.kind != IdentityKind::User && !change.drops_state;
        Narrowed(is_said.then(|| worker.shared.registry.permit(change.identity)))
    }

    fn drops(&self, state: &SessionState) -> bool {
        self.0
            .as_ref()
            .is_some_and(|permit| !lies_inside(state, permit))
    }
}
