//! What one session has in the tree: its own list, which its home worker keeps beside it.

use std::mem;

use crate::mqtt::topic::{Filter, FilterBuf};
use crate::mqtt::wire::SubscriptionOptions;

use super::delivery::{Delivery, Subscriber};

/// Shards a handle can tell apart.
pub(super) const SHARDS_MAX: usize = 128;

/// Filters, and share groups, that one shard can number.
const NUMBERS_MAX: u32 = 1 << NUMBER_BITS;
const NUMBER_BITS: u32 = 24;
const SHARED: u32 = 1 << 31;

const _: () = assert!(SHARDS_MAX == 1 << (31 - NUMBER_BITS));

/// The subscriptions of a session: four bytes each beside what the tree keeps.
///
/// It must be emptied by [`super::SubscriptionTree::clear`] when the session ends: the tree goes
/// on delivering to whoever forgot that. It belongs to one tree.
#[derive(Debug)]
pub struct Subscriptions {
    subscriber: Subscriber,
    is_connected: bool,
    shared: u32,
    handles: Vec<Handle>,
}

/// One subscription of a session, as [`super::SubscriptionTree::list`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The whole filter, with `$share/{name}/`.
    pub filter: FilterBuf,
    /// What was granted. Retain Handling is not kept and stands as
    /// [`crate::mqtt::wire::RetainHandling::Send`].
    pub options: SubscriptionOptions,
    /// The subscription identifier.
    pub id: Option<u32>,
}

/// Names a filter, or a share group, of a shard for as long as the session is subscribed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handle(u32);

impl Subscriptions {
    /// Nothing yet, for the session at this place. `is_connected` is false for a session that is
    /// read back from disk.
    #[must_use]
    pub const fn new(subscriber: Subscriber, is_connected: bool) -> Subscriptions {
        Subscriptions {
            subscriber,
            is_connected,
            shared: 0,
            handles: Vec::new(),
        }
    }

    /// The session.
    #[must_use]
    pub const fn subscriber(&self) -> Subscriber {
        self.subscriber
    }

    /// How many subscriptions there are, shared ones included: what a limit per session counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// True without any subscription.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Notes it; true if it changes anything in the tree.
    pub(super) fn set_connected(&mut self, is_connected: bool) -> bool {
        mem::replace(&mut self.is_connected, is_connected) != is_connected && self.shared > 0
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    pub(super) fn shared(&self) -> impl Iterator<Item = Handle> {
        self.handles
            .iter()
            .copied()
            .filter(|handle| handle.is_shared())
    }

    pub(super) fn add(&mut self, handle: Handle) {
        self.shared += u32::from(handle.is_shared());
        self.handles.push(handle);
    }

    /// Takes the handle out; false if it is not there.
    pub(super) fn take(&mut self, handle: Handle) -> bool {
        let Some(at) = self.handles.iter().position(|&held| held == handle) else {
            return false;
        };
        self.handles.swap_remove(at);
        self.shared -= u32::from(handle.is_shared());
        true
    }

    pub(super) fn take_all(&mut self) -> Vec<Handle> {
        self.shared = 0;
        mem::take(&mut self.handles)
    }
}

impl Held {
    pub(super) fn new(share: Option<&str>, filter: &str, delivery: &Delivery) -> Option<Held> {
        let text = match share {
            Some(name) => format!("$share/{name}/{filter}"),
            None => filter.to_owned(),
        };
        Some(Held {
            filter: Filter::new(&text).ok()?.into(),
            options: delivery.options(),
            id: (delivery.id != 0).then_some(delivery.id),
        })
    }
}

impl Handle {
    pub(super) fn plain(shard: usize, filter: usize) -> Option<Handle> {
        let shard = u32::try_from(shard).ok()?;
        let number = Handle::number_that_fits(filter)?;
        Some(Handle(shard << NUMBER_BITS | number))
    }

    pub(super) fn shared(shard: usize, group: usize) -> Option<Handle> {
        Some(Handle(Handle::plain(shard, group)?.0 | SHARED))
    }

    pub(super) fn number_that_fits(number: usize) -> Option<u32> {
        u32::try_from(number)
            .ok()
            .filter(|&number| number < NUMBERS_MAX)
    }

    pub(super) const fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    pub(super) fn shard(self) -> usize {
        usize::try_from((self.0 & !SHARED) >> NUMBER_BITS).unwrap_or(usize::MAX)
    }

    pub(super) fn number(self) -> usize {
        usize::try_from(self.0 % NUMBERS_MAX).unwrap_or(usize::MAX)
    }
}
