//! Retained messages for a new subscription: walked in steps behind its SUBACK, as the client takes
//! them, so that `#` over a million of them delays nobody.

use std::sync::Arc;

use super::connection::{Connection, Inner};
use super::deliver::QUEUE_WRITE_BYTES;
use super::worker::Worker;
use crate::broker::retained::{Cursor, Found, Progress};
use crate::broker::router::Moment;
use crate::identity::Action;
use crate::metrics::DeliveryDrop;
use crate::mqtt::session::{Delivered, Ids, Taken};
use crate::mqtt::topic::Filter;
use crate::mqtt::wire::QoS;

/// Messages that may wait in the session's queue while a walk adds to it.
const QUEUED_MAX: usize = 64;

/// What was retained when a subscription was made, on its way.
#[derive(Debug)]
pub(super) struct Walk {
    cursor: Cursor,
    /// It has not seen everything.
    has_more: bool,
    qos: QoS,
    id: Option<u32>,
    /// Found and not sent, the next one last.
    found: Vec<Found>,
    /// Runs of acks that must have left: SUBACK is in the last of them. `None` until it is known.
    behind: Option<u32>,
    /// What was under way when the subscription was made.
    since: Moment,
}

impl Walk {
    /// What a subscription that was just granted gets.
    pub(super) fn new(taken: &Taken<'_>, since: Moment) -> Walk {
        Walk {
            cursor: Cursor::new(taken.filter, since.serial()),
            has_more: true,
            qos: taken.options.qos,
            id: taken.id,
            found: Vec::new(),
            behind: None,
            since,
        }
    }

    /// Whether it is for this filter.
    pub(super) fn is_for(&self, filter: &Filter<'_>) -> bool {
        self.cursor.filter().as_str() == filter.as_str()
    }

    /// SUBACK leaves with this run, counted from the start of the connection.
    pub(super) fn goes_behind(&mut self, run: u32) {
        self.behind.get_or_insert(run);
    }
}

/// What became of a message of a walk.
enum Went {
    On,
    /// There is no room for it now.
    NotNow(Found),
}

impl Connection {
    /// Goes on with the walks of this connection, as far as the client takes what they find. Of a
    /// kept session one step at a time is on its way to the disk.
    pub(super) fn walk(&self, worker: &Worker, inner: &mut Inner, now_ms: u64) {
        if inner.walk_waits {
            return;
        }
        let mut walks = std::mem::take(&mut inner.walks);
        let mut is_stopped = false;
        walks.retain_mut(|walk| {
            let released = inner.runs_pushed.wrapping_sub(inner.runs_waiting());
            let is_due = walk
                .behind
                .is_some_and(|run| released.wrapping_sub(run) <= u32::MAX / 2);
            if is_stopped || !is_due {
                return true;
            }
            if !worker
                .shared
                .router
                .under_way
                .is_over(&walk.since, worker.index)
            {
                worker
                    .walkers
                    .borrow_mut()
                    .push((self.slot, self.generation));
                is_stopped = true;
                return true;
            }
            let is_done = self.step(worker, inner, walk, now_ms);
            is_stopped = !is_done;
            !is_done
        });
        inner.walks = walks;
    }

    /// One step of a walk; true when it is over.
    fn step(&self, worker: &Worker, inner: &mut Inner, walk: &mut Walk, now_ms: u64) -> bool {
        let index = &worker.shared.router.retained;
        if walk.found.is_empty() && walk.has_more {
            let progress = index.step(&mut walk.cursor, now_ms, &mut walk.found);
            walk.has_more = progress == Progress::More;
            walk.found.reverse();
        }
        while let Some(found) = walk.found.pop() {
            match self.send_retained(worker, inner, walk, found, now_ms) {
                Went::On => {}
                Went::NotNow(found) => {
                    walk.found.push(found);
                    return false;
                }
            }
        }
        if walk.has_more && !inner.walk_waits {
            // The others get their turn first.
            self.mark_dirty(worker, inner);
        }
        !walk.has_more
    }

    fn send_retained(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        walk: &Walk,
        found: Found,
        now_ms: u64,
    ) -> Went {
        let message = &found.message;
        // SEC-31.
        if !self.may(Action::Receive, message.topic()) {
            worker.count_undelivered(DeliveryDrop::NotAuthorized);
            return Went::On;
        }
        let is_full = inner.output.waiting() >= QUEUE_WRITE_BYTES
            || inner.session.state().queue.len() >= QUEUED_MAX;
        if is_full {
            return Went::NotNow(found);
        }
        let ids = walk.id;
        let mut how = Delivered::retained(message, walk.qos);
        if how.qos == QoS::AtMostOnce {
            let encoded = &mut *worker.encoded.borrow_mut();
            encoded.begin();
            let lent = &mut *worker.lent.borrow_mut();
            let out = inner.output.turn(lent);
            let ids = ids.as_slice();
            let sent = inner
                .session
                .send_qos_0(message, (true, ids), now_ms, encoded, out);
            self.mark_dirty(worker, inner);
            match sent {
                Ok(()) => self.count_delivered(worker, QoS::AtMostOnce),
                Err(why) => worker.count_undelivered(super::deliver::drop_of(why)),
            }
            return Went::On;
        }
        let kept = self.subscriber(worker).filter(|to| to.number().is_some());
        if let Some(to) = kept {
            if worker.keep_for(message, to, (how.qos, true, ids)) {
                if !std::mem::replace(&mut inner.walk_waits, true) {
                    // In the batch of the record that was just written.
                    let outbox = &mut *worker.outbox.borrow_mut();
                    outbox.pending().assign(self.slot, self.generation, None);
                }
                return Went::On;
            }
            worker.starve(self);
            return Went::NotNow(found);
        }
        how.ids = Ids::new(ids.as_slice());
        let taken = inner.session.offer(Arc::clone(message), how);
        if taken.is_err() {
            worker.count_undelivered(DeliveryDrop::QueueFull);
        }
        self.mark_dirty(worker, inner);
        Went::On
    }
}
