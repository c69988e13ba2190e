//! Wills: kept with their sessions, published when connections end badly (MQTT 5 section 3.1.2.5).
//!
//! A will makes its session one that is kept in the journal, however short its expiry: it must
//! survive a crash. It is published by one record, which also takes it away, so once. Rights are
//! asked at CONNECT and again now (SEC-37). A delayed will waits with its stored session and goes
//! when that is resumed [MQTT-3.1.3-9].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::connection::Clocks;
use super::route::{Routing, Sent};
use super::worker::Worker;
use crate::broker::{SessionKey, Stored};
use crate::device_api;
use crate::identity::Action;
use crate::metrics::WillEnd;
use crate::mqtt::message::{Message, Publisher, Will};

/// Wills that wait for room in the journal; the oldest goes beyond it, which is counted.
const WAITING_MAX: usize = 10_000;

/// Wills whose delay runs, and those that wait for room.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// By moment and session number.
    due: BTreeMap<(Instant, u32), SessionKey>,
    /// The moment of each session.
    moments: HashMap<u32, Instant>,
    waiting: VecDeque<(u32, Arc<Message>)>,
}

impl Wills {
    fn add(&mut self, number: u32, due: Instant, key: SessionKey) {
        self.cancel(number);
        self.moments.insert(number, due);
        self.due.insert((due, number), key);
    }

    /// The session is connected again, or over.
    pub(super) fn cancel(&mut self, number: u32) {
        if let Some(due) = self.moments.remove(&number) {
            self.due.remove(&(due, number));
        }
    }

    fn take_due(&mut self, now: Instant) -> Option<(u32, SessionKey)> {
        let (&(due, number), _) = self.due.first_key_value()?;
        if due > now {
            return None;
        }
        self.moments.remove(&number);
        let key = self.due.remove(&(due, number))?;
        Some((number, key))
    }
}

impl Worker {
    /// The will of a session whose connection is over: published now, or after its delay.
    pub(super) fn leave_will(&self, key: &SessionKey, stored: &mut Stored, now: Instant) {
        let Some(will) = stored.state.will.clone() else {
            return;
        };
        let delay_s = will.due_after_s(stored.expiry_s);
        if delay_s == 0 {
            return self.publish_will(key.identity, stored);
        }
        let due = now.checked_add(Duration::from_secs(u64::from(delay_s)));
        if let Some(due) = due {
            self.wills.borrow_mut().add(stored.number, due, key.clone());
        }
    }

    /// Publishes the will of a session without connection, if it has one and may.
    pub(super) fn publish_will(&self, identity: Uuid, stored: &mut Stored) {
        self.wills.borrow_mut().cancel(stored.number);
        let Some(will) = stored.state.will.take() else {
            return;
        };
        let registry = &self.shared.registry;
        let topic = will.content.topic();
        let now_ms = Clocks::read().wall_ms;
        // The clock of tokens is up to half a second behind.
        let has_ended = stored.publisher_ends_ms.is_some_and(|at| at <= now_ms);
        let may = !registry.is_deleted(identity)
            && !has_ended
            && !device_api::is_platform(topic.as_str())
            && registry
                .permit_of(identity, stored.publisher.credential)
                .allows(Action::Publish, topic);
        if !may {
            return self.count(|counters| counters.will(WillEnd::NotAuthorized));
        }
        self.send_will(stored.number, will.publish(stored.publisher, now_ms));
    }

    /// Publishes the wills whose delay is over.
    pub(super) fn publish_due_wills(&self, now: Instant) {
        let waiting = std::mem::take(&mut self.wills.borrow_mut().waiting);
        for (number, message) in waiting {
            self.send_will(number, message);
        }
        loop {
            let due = self.wills.borrow_mut().take_due(now);
            let Some((number, key)) = due else {
                return;
            };
            let mut sessions = self.sessions.borrow_mut();
            let stored = sessions.stored_mut(&key);
            if let Some(stored) = stored.filter(|stored| stored.number == number) {
                self.publish_will(key.identity, stored);
            }
        }
    }

    /// The wills of the last run: their delays begin again with the start.
    pub(super) fn restore_will(&self, key: &SessionKey, stored: &Stored, now: Instant) {
        if let Some(will) = &stored.state.will {
            let delay_s = will.due_after_s(stored.expiry_s);
            if let Some(due) = now.checked_add(Duration::from_secs(u64::from(delay_s))) {
                self.wills.borrow_mut().add(stored.number, due, key.clone());
            }
        }
    }

    fn send_will(&self, number: u32, message: Arc<Message>) {
        let content = message.content();
        let routing = Routing {
            topic: message.topic(),
            qos: content.qos(),
            retain: content.retain(),
            from: None,
            packet: None,
            will_of: Some(number),
        };
        let sent = self.route(routing, Instant::now(), || Arc::clone(&message));
        self.hand_over_soon();
        let end = match sent {
            Sent::Routed | Sent::Recorded => WillEnd::Published,
            Sent::RetainedFull => WillEnd::RetainedFull,
            Sent::NoRoom => {
                let waiting = &mut self.wills.borrow_mut().waiting;
                if waiting.len() < WAITING_MAX {
                    return waiting.push_back((number, message));
                }
                WillEnd::StorageFull
            }
        };
        self.count(|counters| counters.will(end));
    }
}

/// Whose will it would be.
pub(super) fn publisher_of(principal: &crate::identity::Principal) -> Publisher {
    Publisher {
        identity: principal.identity.as_u128(),
        credential: principal.credential,
        generation: principal.generation,
    }
}

/// A will that is kept: on the platform's topics it is allowed and has no effect (TB-15).
pub(super) fn is_kept(will: &Will) -> bool {
    !device_api::is_platform(will.content.topic().as_str())
}
