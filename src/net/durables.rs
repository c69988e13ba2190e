//! Sessions that outlive their connections and are in the subscription tree, by their number: the
//! address under which deliveries come for them, wherever they are.
//!
//! A session is here from its first ordinary subscription to its end. Sessions that end with
//! their connection are addressed by its slot, and keep their list in it.

use std::collections::HashMap;
use std::time::Instant;

use super::connection::Connection;
use super::worker::Worker;
use crate::broker::tree::{Subscriber, Subscriptions};
use crate::broker::{SessionKey, Stored};
use crate::device_api;
use crate::mqtt::session::Subscribed;
use crate::mqtt::topic::Filter;

/// The sessions of one worker.
#[derive(Debug, Default)]
pub(super) struct Durables {
    by_number: HashMap<u32, Durable>,
}

/// One of them.
#[derive(Debug)]
struct Durable {
    subscriptions: Subscriptions,
    place: Place,
}

/// Where a session is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Connected, in this slot and generation.
    Live(u32, u32),
    /// In the table, under this key.
    Stored(SessionKey),
}

impl Durables {
    /// Where the session with this number is.
    pub(super) fn place(&self, number: u32) -> Option<&Place> {
        self.by_number.get(&number).map(|held| &held.place)
    }
}

impl Worker {
    /// What the connection's session has in the tree.
    pub(super) fn with_subscriptions<T>(
        &self,
        connection: &Connection,
        own: &mut Option<Box<Subscriptions>>,
        with: impl FnOnce(&mut Subscriptions) -> T,
    ) -> Option<T> {
        let subscriber = connection.subscriber(self)?;
        let new = || Subscriptions::new(subscriber, true);
        let Some(number) = subscriber.number() else {
            let held = own.get_or_insert_with(|| Box::new(new()));
            return Some(with(held));
        };
        let durables = &mut *self.durables.borrow_mut();
        let place = Place::Live(connection.slot, connection.generation);
        let held = durables.by_number.entry(number).or_insert_with(|| Durable {
            subscriptions: new(),
            place,
        });
        Some(with(&mut held.subscriptions))
    }

    /// A stored session is connected again.
    pub(super) fn session_connected(&self, number: u32, connection: &Connection) {
        if let Some(held) = self.durables.borrow_mut().by_number.get_mut(&number) {
            held.place = Place::Live(connection.slot, connection.generation);
            let tree = &self.shared.router.tree;
            tree.set_connected(&mut held.subscriptions, true);
        }
    }

    /// A session lost its connection and is kept.
    pub(super) fn session_stored(&self, number: u32, key: &SessionKey) {
        if let Some(held) = self.durables.borrow_mut().by_number.get_mut(&number) {
            held.place = Place::Stored(key.clone());
            let tree = &self.shared.router.tree;
            tree.set_connected(&mut held.subscriptions, false);
        }
    }

    /// A kept session without connection does not hold this subscription any more.
    pub(super) fn unsubscribe_stored(&self, number: u32, filter: Filter<'_>) {
        if let Some(held) = self.durables.borrow_mut().by_number.get_mut(&number) {
            let tree = &self.shared.router.tree;
            tree.unsubscribe(&mut held.subscriptions, filter);
        }
    }

    /// A kept session ends: it is in the tree no longer.
    pub(super) fn session_ended(&self, number: u32) {
        if let Some(mut held) = self.durables.borrow_mut().by_number.remove(&number) {
            self.shared.router.tree.clear(&mut held.subscriptions);
        }
    }

    /// Puts the sessions of the last run into the tree.
    pub(super) fn restore_all(&self) {
        let now = Instant::now();
        for (key, stored) in self.sessions.borrow().stored() {
            self.restore(&key, stored);
            self.restore_will(&key, stored, now);
        }
    }

    fn restore(&self, key: &SessionKey, stored: &Stored) {
        let home = u16::try_from(self.index).ok();
        let subscriber = home.and_then(|home| Subscriber::durable(home, stored.number));
        let Some(subscriber) = subscriber else {
            return;
        };
        let mut subscriptions = Subscriptions::new(subscriber, false);
        for held in &stored.state.subscriptions {
            self.enter(&mut subscriptions, held);
        }
        if !subscriptions.is_empty() {
            let place = Place::Stored(key.clone());
            let durable = Durable {
                subscriptions,
                place,
            };
            let durables = &mut *self.durables.borrow_mut();
            durables.by_number.insert(stored.number, durable);
        }
    }

    fn enter(&self, subscriptions: &mut Subscriptions, held: &Subscribed) {
        let Some(filter) = Filter::new(&held.filter).ok().filter(is_ordinary) else {
            return;
        };
        let tree = &self.shared.router.tree;
        let entered = tree.subscribe(subscriptions, filter, held.options, held.id);
        if let Err(error) = entered {
            tracing::warn!(%error, "a subscription of a kept session finds no room: it is lost");
        }
    }
}

/// Whether a filter is for the subscription tree: no name of the platform, which neither the feed
/// nor the virtual topics of devices take.
pub(super) fn is_ordinary(filter: &Filter<'_>) -> bool {
    !device_api::is_virtual(filter.matched()) && !filter.matched().starts_with("v1/devices/")
}
