//! The end of a worker's turn: what was recorded goes to the committer, what was delivered to the
//! sockets, and after a sync the acks leave. The last turn of all is the stop.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::End;
use super::leave;
use super::ledger::Acks;
use super::linger::LINGER;
use super::worker::Worker;
use crate::mqtt::session::Close;
use crate::mqtt::wire::ReasonCode;

/// How long a stop waits for the journal before it says goodbye.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a stop waits for the records that the goodbyes make.
const LAST_RECORDS_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn flush_each_turn(worker: Rc<Worker>) {
    loop {
        worker.flush.notified().await;
        worker.flush();
        if !worker.dirty.borrow().is_empty() {
            // A queue had more than one portion: the others come first.
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn release_after_sync(worker: Rc<Worker>) {
    loop {
        worker.durable.notified().await;
        worker.shared.feeds.durable();
        worker.release();
        // Room may have come back with the sync.
        worker.flush();
    }
}

impl Worker {
    /// Hands over what is pending; wakes parked connections when there is room again; delivers
    /// what was routed.
    pub(super) fn flush(&self) {
        self.write_settled();
        self.hand_over();
        if !self.walkers.borrow().is_empty() {
            self.feed_walkers();
        }
        if self.has_routed.replace(false) {
            self.deliver_turn();
            // Packet ids were assigned, messages left out.
            self.write_settled();
            let is_pending = self.outbox.borrow().is_pending() && self.behind_since.get().is_none();
            if is_pending || !self.dirty.borrow().is_empty() {
                self.flush.notify_one();
            }
        }
    }

    fn hand_over(&self) {
        if !self.outbox.borrow().is_pending() && self.behind_since.get().is_none() {
            // As after most syncs: nothing came meanwhile, and nobody waits for room.
            self.counters.borrow_mut().flush();
            return;
        }
        let handed_over = self.outbox.borrow_mut().hand_over();
        if handed_over {
            self.behind_since.set(None);
            self.progress.notify_waiters();
            leave::write_owed(self);
            self.hand_over_soon();
            self.feed_starved();
            self.resume_parked();
            // Acks that came without a record of their own may wait for nothing any more, and
            // then no sync follows that would release them.
            self.release();
        } else if self.behind_since.get().is_none() {
            self.behind_since.set(Some(Instant::now()));
        }
        self.counters.borrow_mut().flush();
    }

    /// Does what waited for records that are durable now, then writes their acks.
    pub(super) fn release(&self) {
        let durable = self.outbox.borrow().durable();
        let mut is_any = false;
        loop {
            let Some(due) = self.outbox.borrow_mut().due(durable) else {
                break;
            };
            self.apply_due(due);
            is_any = true;
        }
        if is_any && self.has_routed.get() {
            // Before the acks: whoever publishes because of one comes behind it, at every worker.
            self.hand_on();
        }
        loop {
            let Some(acks) = self.outbox.borrow_mut().release(durable) else {
                break;
            };
            for (run, bytes) in acks.iter() {
                if let Some(connection) = self.connection(run.slot, run.generation) {
                    connection.acknowledge(self, bytes, run.places);
                }
            }
            self.count_stored(&acks);
            self.outbox.borrow_mut().recycle(acks);
        }
        self.progress.notify_waiters();
    }

    fn count_stored(&self, acks: &Acks) {
        let counters = &mut *self.counters.borrow_mut();
        for (qos, messages) in (0_u8..).zip(acks.messages()) {
            if messages > 0 {
                counters.stored(qos, u64::from(messages));
            }
        }
        if let Some((runs, wait)) = acks.wait(Instant::now()) {
            counters.acknowledged(wait, runs);
        }
    }

    /// Goes on with parked clients, oldest first, as far as the journal has room. Those that wait
    /// for another worker's inbox let the others pass.
    pub(super) fn resume_parked(&self) {
        let waiting = self.parked.borrow().len();
        for _ in 0..waiting {
            let Some((slot, generation)) = self.parked.borrow_mut().pop_front() else {
                return;
            };
            let is_through = match self.connection(slot, generation) {
                Some(connection) => {
                    let resumed = self.guarded(&connection, || connection.resume(self));
                    resumed.unwrap_or_else(Err).unwrap_or_else(|end| {
                        self.end(&connection, end);
                        true
                    })
                }
                None => true,
            };
            if is_through {
                continue;
            }
            if self.behind_since.get().is_some() {
                return self.parked.borrow_mut().push_front((slot, generation));
            }
            self.parked.borrow_mut().push_back((slot, generation));
        }
    }

    /// Says goodbye to everybody once what they were promised is durable.
    pub(super) async fn stop(self: &Rc<Self>) {
        self.is_stopping.set(true);
        // A journal that takes nothing does not keep clients from hearing that the server stops:
        // what is not acknowledged then was never promised.
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, self.all_kept()).await;
        let all: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .map(|(_, held)| Rc::clone(held))
            .collect();
        for connection in all {
            self.end(
                &connection,
                End::Closed(Close::because(ReasonCode::ServerShuttingDown)),
            );
        }
        // The ends of sessions are records too.
        let _ = tokio::time::timeout(LAST_RECORDS_TIMEOUT, self.all_kept()).await;
        let drained = async {
            while self.tasks.get() > 0 {
                self.progress.notified().await;
            }
        };
        // What is still open after that is closed with the runtime.
        let _ = tokio::time::timeout(LINGER, drained).await;
    }

    /// Waits until every record is durable and every ack of it written.
    async fn all_kept(&self) {
        loop {
            self.flush();
            self.release();
            // Made behind both, which notify: nothing else runs between this and the await.
            let progress = self.progress.notified();
            if self.outbox.borrow().is_settled() {
                return;
            }
            progress.await;
        }
    }
}
