//! What a worker looks at twice a second: silent clients, slow readers, expired tokens and
//! sessions, delayed wills, expired messages.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::{Clocks, Connection, End};
use super::worker::Worker;
use super::{home, leave};
use crate::broker::retained::{Progress, Sweep};
use crate::identity::IdentityKind;
use crate::metrics::{RoutingFigures, SlowReader, WillEnd};
use crate::mqtt::session::{Close, ConnectRefusal};
use crate::mqtt::wire::{ReasonCode, Version};

/// How often a worker looks for silent clients and expired sessions. It is the precision of
/// both; keep-alive counts in seconds.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// A sweep that is late by this much shows that the process did not run.
const PAUSE_NOTICED: Duration = Duration::from_secs(1);

pub(super) async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        // After a pause of this process, what clients sent meanwhile is read first: they were not
        // silent, we were.
        let was_paused = now - last > SWEEP_INTERVAL + PAUSE_NOTICED;
        last = now;
        if !was_paused {
            worker.sweep_at(now);
        }
        worker.flush();
    }
}

/// Where passes over what is retained stand.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    expired: Sweep,
    /// Identities that ended, with the pass for the first of them.
    ended: VecDeque<u128>,
    of_ended: Sweep,
}

impl Sweeps {
    /// The retained messages of an identity are to give their memory back.
    pub(super) fn add(&mut self, publisher: u128) {
        self.ended.push_back(publisher);
    }
}

/// Steps over what is retained for each sweep: 16,384 topics twice a second.
const STEPS_PER_SWEEP: usize = 64;

impl Worker {
    /// Removes retained messages that expired or whose publisher ended, and tells the figures. The
    /// first worker does it for all.
    fn sweep_retained(&self) {
        if self.index != 0 {
            return;
        }
        let now_ms = Clocks::read().wall_ms;
        let router = &self.shared.router;
        let (tree, inboxes) = (router.tree.figures(), router.inboxes());
        let (index, retained) = (&router.retained, router.retained.figures());
        self.shared.metrics.set_routing(RoutingFigures {
            subscriptions: tree.subscriptions,
            filters: tree.filters,
            filter_bytes: tree.filter_bytes,
            retained_messages: retained.messages,
            retained_bytes: retained.bytes,
            inbox_bytes: inboxes.bytes,
            inbox_waits: inboxes.waits,
        });
        let sweeps = &mut *self.sweeps.borrow_mut();
        for _ in 0..STEPS_PER_SWEEP {
            let Some(&publisher) = sweeps.ended.front() else {
                break;
            };
            if index.sweep_publisher(&mut sweeps.of_ended, publisher).1 == Progress::Done {
                sweeps.ended.pop_front();
            }
        }
        for _ in 0..STEPS_PER_SWEEP {
            if index.sweep_expired(&mut sweeps.expired, now_ms).1 == Progress::Done {
                break;
            }
        }
    }

    /// Ends the connection of a token whose time is over, without its will (SEC-40).
    fn expire(&self, connection: &Connection) {
        let will = connection.inner.borrow_mut().session.take_will();
        if will.is_some() {
            self.count(|counters| counters.will(WillEnd::Revoked));
        }
        self.shared.metrics.connection_expired();
        let close = Close::because(ReasonCode::NotAuthorized);
        self.end(connection, End::Closed(close));
    }

    /// Cuts off silent clients and those whose token expired, drops expired sessions, tells MQTT 5
    /// clients of a stuck journal.
    fn sweep_at(&self, now: Instant) {
        let is_stuck = self.is_stuck();
        let (mut over, mut refused, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        let mut expired = Vec::new();
        let wall_ms = Clocks::read().wall_ms;
        for (_, connection) in self.connections.borrow().iter() {
            let inner = connection.inner.borrow();
            let is_v5 = inner.session.version() == Version::V5;
            let is_user = connection.principal.kind == IdentityKind::User;
            if connection.has_expired(wall_ms) && (!is_user || self.shared.cut_at_expiry) {
                expired.push(Rc::clone(connection));
            } else if is_stuck && inner.waits_for_connack() {
                refused.push(Rc::clone(connection));
            } else if is_stuck && is_v5 && inner.is_waiting_for_journal() {
                // Its acknowledgements cannot be taken back one by one without overtaking those
                // before them, so the connection says it for all [MQTT-4.6.0-2].
                over.push((Rc::clone(connection), ReasonCode::QuotaExceeded));
            } else if !inner.is_stalled() && inner.session.keep_alive_deadline() <= now {
                over.push((Rc::clone(connection), ReasonCode::KeepAliveTimeout));
            } else if inner
                .output
                .is_stuck(now, self.shared.guards.unsent.timeout)
            {
                slow.push(Rc::clone(connection));
            } else if inner.output.is_broken() {
                inner.output.wake();
            }
        }
        for connection in expired {
            self.expire(&connection);
        }
        for (connection, reason) in over {
            self.end(&connection, End::Closed(Close::because(reason)));
        }
        for connection in slow {
            home::cut_off(self, &connection, SlowReader::Time);
        }
        for connection in refused {
            home::refuse(self, &connection, ConnectRefusal::StorageFull);
        }
        leave::drop_expired(self, now);
        self.publish_due_wills(now);
        self.sweep_retained();
        self.publish_statistics(now, self.shared.statistics_every);
    }
}
