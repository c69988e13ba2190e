//! The subscription tree: from a topic to the sessions that get the message.
//!
//! One for the whole broker, read by every worker for every PUBLISH to an ordinary topic, changed
//! by SUBSCRIBE and UNSUBSCRIBE. Filters without wildcards lie in a hash table, in shards by the
//! hash of the whole filter; filters with wildcards in tries, in shards by their first level, and
//! those that begin with a wildcard in one trie of their own, which topics that begin with `$`
//! never ask [MQTT-4.7.2-1].
//!
//! - **Cost.** A match hashes the topic once and then looks only at filters that share a beginning
//!   with it; how many others there are does not matter. The worst case, `+` and literal levels
//!   mixed so that everything shares a beginning, is linear in the levels of all filters, which
//!   the limit on subscriptions of an identity bounds. Subscribing costs a search and moves at
//!   most 12 KiB.
//! - **Order.** The subscribers of a filter are kept in order of worker and slot, so that a match
//!   is grouped by worker; several filters are merged in one pass, in which a session that
//!   matches more than once becomes one delivery with the highest QoS and all identifiers.
//! - **Locks** are leaves: one shard at a time, nothing called from inside, nothing awaited.
//!   A match is no snapshot over shards: a subscription made meanwhile is found or not, but one
//!   that was made before and one that is being replaced is always found [MQTT-3.8.4-4].
//! - **Memory.** 12 bytes for a subscription in the tree and 4 in its session; a filter takes
//!   about 70 bytes and its text, a level of a wildcard filter that no other shares the same.
//!   Measured with the cost of everything above: `docs/decisions/subscription-tree.md`.
//! - **Ownership.** What a session has in the tree is listed in its [`Subscriptions`], which its
//!   home worker owns. The tree has no index by session.
//!
//! Not here: who may subscribe (the permit), what is sent (the session), Retain Handling.

mod delivery;
mod filters;
mod groups;
mod matches;
mod shard;
mod subscribers;
mod subscriptions;
mod table;
mod trie;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::mqtt::topic::{Filter, Topic};
use crate::mqtt::wire::SubscriptionOptions;

pub use delivery::{Delivery, SUBSCRIPTION_ID_MAX, Subscriber, WORKERS_MAX};
pub use filters::CANDIDATES_MAX;
pub use matches::{DELIVERIES_KEPT_MAX, Matches, Share};
pub use subscriptions::{Held, Subscriptions};

use shard::{Footprint, Inner, NoNumberLeft, Shard};
use subscriptions::Handle;

/// Shards of filters without wildcards.
const EXACT_SHARDS: usize = 64;
/// Shards of filters with a wildcard behind the first level.
const WILD_SHARDS: usize = 32;
/// The shard of filters that begin with a wildcard.
const OPEN_SHARD: usize = EXACT_SHARDS + WILD_SHARDS;

const _: () = assert!(OPEN_SHARD < subscriptions::SHARDS_MAX);

/// What the tree may grow to. Beyond it new subscriptions are refused, [`TreeFull`]; those that
/// replace one are taken, and nothing that was granted is ever dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeLimits {
    /// Subscriptions of all sessions together. Exact.
    pub subscriptions_max: usize,
    /// Bytes the filters may take (texts, tables, tries, share groups), as
    /// [`TreeFigures::filter_bytes`] counts them. A filter or group is let in while the sum is
    /// below: every worker may pass it by one.
    pub filter_bytes_max: usize,
}

impl Default for TreeLimits {
    /// 10 million subscriptions, 4 GiB of filters: far beyond one machine's sessions, near enough
    /// to stop a runaway client fleet before memory ends.
    fn default() -> TreeLimits {
        TreeLimits {
            subscriptions_max: 10_000_000,
            filter_bytes_max: 4 << 30,
        }
    }
}

/// The size of the tree now, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeFigures {
    /// Subscriptions of all sessions, shared ones included.
    pub subscriptions: usize,
    /// Different filters, without `$share/{name}/`.
    pub filters: usize,
    /// Bytes that the filters take: an estimate, within a third of what is allocated.
    pub filter_bytes: usize,
}

/// What SUBSCRIBE did, which Retain Handling 1 asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// The session had no subscription with this filter.
    New,
    /// It had one, which now has the new options.
    Replaced,
}

/// The tree has no room for a new subscription: reason code 0x97 for this filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeFull {
    /// [`TreeLimits::subscriptions_max`].
    #[error(
        "the broker holds {0} subscriptions, as many as it may: unsubscribe elsewhere, or raise \
         the limit"
    )]
    Subscriptions(usize),
    /// [`TreeLimits::filter_bytes_max`], or 16 million filters in one of 97 shards.
    #[error(
        "the filters of all subscriptions take {0} bytes, as many as they may: use fewer different \
         filters, or raise the limit"
    )]
    Filters(usize),
}

/// Names a share group for as long as it has members; a later group of the same name is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId {
    handle: Handle,
    serial: u32,
}

/// The subscriptions of all sessions. See the module's page.
#[derive(Debug)]
pub struct SubscriptionTree {
    shards: Box<[Shard]>,
    /// Secret: names come from clients, who could otherwise choose ones that collide.
    hasher: RandomState,
    limits: TreeLimits,
    subscriptions: AtomicUsize,
    filter_bytes: AtomicUsize,
    /// Filters with wildcards; 0 lets a match skip all tries.
    wild_filters: AtomicUsize,
    group_serials: AtomicU32,
}

impl SubscriptionTree {
    /// An empty tree.
    #[must_use]
    pub fn new(limits: TreeLimits) -> SubscriptionTree {
        let exact = (0..EXACT_SHARDS).map(|_| Shard::exact());
        let wild = (EXACT_SHARDS..=OPEN_SHARD).map(|_| Shard::wild());
        SubscriptionTree {
            shards: exact.chain(wild).collect(),
            hasher: RandomState::new(),
            limits,
            subscriptions: AtomicUsize::new(0),
            filter_bytes: AtomicUsize::new(0),
            wild_filters: AtomicUsize::new(0),
            group_serials: AtomicU32::new(0),
        }
    }

    /// Makes or replaces a subscription of the session. Once this returned, every match on any
    /// thread that begins later finds it.
    ///
    /// `id` is the subscription identifier, 1 to [`SUBSCRIPTION_ID_MAX`]. No Local on a shared
    /// filter is for the caller to refuse [MQTT-3.8.3-4].
    ///
    /// # Errors
    /// A new subscription over [`TreeLimits`]; nothing is changed.
    pub fn subscribe(
        &self,
        own: &mut Subscriptions,
        filter: Filter<'_>,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) -> Result<Subscribed, TreeFull> {
        let new = Delivery::new(own.subscriber(), options, id).connected(own.is_connected());
        let place = self.place(filter);
        let has_room = self.reserve();
        let outcome = match self.shards.get(place.shard) {
            Some(shard) => shard.write(|inner| self.enter(inner, place, filter, new, has_room)),
            None => Err(TreeFull::Filters(0)),
        };
        let is_new = outcome.is_ok_and(|entered| entered.is_new);
        if has_room && !is_new {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        let entered = outcome?;
        if !entered.is_new {
            return Ok(Subscribed::Replaced);
        }
        own.add(entered.handle);
        Ok(Subscribed::New)
    }

    /// Ends a subscription of the session; false if there is none with this filter (reason code
    /// 0x11).
    pub fn unsubscribe(&self, own: &mut Subscriptions, filter: Filter<'_>) -> bool {
        let place = self.place(filter);
        let key = own.subscriber().key();
        let found = self.shards.get(place.shard).and_then(|shard| {
            shard.read(|inner| {
                let number = inner.find(&self.hasher, place.hash, filter.matched())?;
                inner.held(place.shard, number, filter.share_name(), key)
            })
        });
        match found {
            Some(handle) => own.take(handle) && self.remove(handle, key),
            None => false,
        }
    }

    /// Ends all subscriptions of the session, when it ends itself. Returns how many there were.
    pub fn clear(&self, own: &mut Subscriptions) -> usize {
        let key = own.subscriber().key();
        let handles = own.take_all();
        for &handle in &handles {
            self.remove(handle, key);
        }
        handles.len()
    }

    /// Says that the session lost or got back its connection: share groups ask those with a
    /// connection first. Costs nothing for a session without shared subscriptions.
    pub fn set_connected(&self, own: &mut Subscriptions, is_connected: bool) {
        let key = own.subscriber().key();
        if !own.set_connected(is_connected) {
            return;
        }
        for handle in own.shared() {
            if let Some(shard) = self.shards.get(handle.shard()) {
                shard.write(|inner| {
                    inner
                        .filters
                        .set_connected(handle.number(), key, is_connected);
                });
            }
        }
    }

    /// What the session holds, in no particular order: for the admin view and for checkpoints.
    #[must_use]
    pub fn list(&self, own: &Subscriptions) -> Vec<Held> {
        let key = own.subscriber().key();
        let held = own.handles().iter().filter_map(|&handle| {
            let shard = self.shards.get(handle.shard())?;
            shard.read(|inner| inner.describe(handle, key))
        });
        held.collect()
    }

    /// Finds all who get a message to `topic`. `from` is the session that published it, for
    /// No Local; `None` for messages that come from no session.
    ///
    /// Takes three read locks at most, for as long as it takes to copy 12 bytes for each
    /// subscriber. Allocates only while `found` grows.
    pub fn matches(&self, topic: Topic<'_>, from: Option<Subscriber>, found: &mut Matches) {
        found.clear();
        let text = topic.as_str();
        let hash = self.hasher.hash_one(text);
        let number = exact_shard(hash);
        if let Some(shard) = self.shards.get(number).filter(|shard| shard.is_used()) {
            shard.read(|inner| {
                if let Some(filter) = inner.find(&self.hasher, hash, text) {
                    collect(inner, number, filter, from, found);
                }
            });
        }
        // Acquire: see where it is raised.
        if self.wild_filters.load(Ordering::Acquire) > 0 {
            self.match_wild(topic, from, found);
        }
        found.merge();
    }

    /// The members of a group that should be asked now, as [`Share::candidates`]: for a message
    /// that the member it went to did not acknowledge before it left. Appends to `found`; false
    /// if the group has no members any more.
    pub fn candidates(&self, group: GroupId, found: &mut Vec<Delivery>) -> bool {
        let Some(shard) = self.shards.get(group.handle.shard()) else {
            return false;
        };
        shard.read(|inner| match inner.filters.group(group.handle.number()) {
            Some(held) if held.serial() == group.serial => {
                held.copy_candidates(found);
                true
            }
            _ => false,
        })
    }

    /// The size of the tree. Reads a counter of each shard.
    #[must_use]
    pub fn figures(&self) -> TreeFigures {
        TreeFigures {
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
            filters: self.shards.iter().map(Shard::filter_count).sum(),
            filter_bytes: self.filter_bytes.load(Ordering::Relaxed),
        }
    }

    fn match_wild(&self, topic: Topic<'_>, from: Option<Subscriber>, found: &mut Matches) {
        let text = topic.as_str();
        found.levels.read(text);
        let first = found
            .levels
            .get(&self.hasher, text, 0)
            .map_or(0, |(_, hash)| hash);
        // [MQTT-4.7.2-1]
        let open = (!topic.is_dollar()).then_some(OPEN_SHARD);
        for number in [Some(wild_shard(first)), open].into_iter().flatten() {
            let Some(shard) = self.shards.get(number).filter(|shard| shard.is_used()) else {
                continue;
            };
            let mut levels = std::mem::take(&mut found.levels);
            let mut stack = std::mem::take(&mut found.stack);
            shard.read(|inner| {
                inner.visit(&self.hasher, (&mut levels, text), &mut stack, |filter| {
                    collect(inner, number, filter, from, found);
                });
            });
            found.levels = levels;
            found.stack = stack;
        }
    }

    /// Puts the subscription into its shard, and what it adds into the books.
    fn enter(
        &self,
        inner: &mut Inner,
        place: Place,
        filter: Filter<'_>,
        new: Delivery,
        has_room: bool,
    ) -> Result<Entered, TreeFull> {
        let (text, share) = (filter.matched(), filter.share_name());
        let known = inner.find(&self.hasher, place.hash, text);
        let held = known.and_then(|known| inner.held(place.shard, known, share, new.key()));
        if held.is_none() && !has_room {
            return Err(TreeFull::Subscriptions(self.limits.subscriptions_max));
        }
        let bytes = self.filter_bytes.load(Ordering::Relaxed);
        let full = |_: NoNumberLeft| TreeFull::Filters(bytes);
        let adds_none = known.is_some_and(|known| inner.has_group(known, share));
        if !adds_none && bytes >= self.limits.filter_bytes_max {
            return Err(TreeFull::Filters(bytes));
        }
        let (number, added) = match known {
            Some(number) => (number, Footprint::default()),
            None => inner.add(&self.hasher, place.hash, text).map_err(full)?,
        };
        let serial = || self.group_serials.fetch_add(1, Ordering::Relaxed);
        let (handle, group_bytes) = match inner.put(place.shard, number, share, new, serial) {
            Ok(done) => done,
            Err(error) => {
                inner.drop_unused(&self.hasher, number);
                return Err(full(error));
            }
        };
        let bytes = added.bytes + group_bytes;
        self.filter_bytes.fetch_add(bytes, Ordering::Relaxed);
        if place.shard >= EXACT_SHARDS {
            // Under the shard's lock, like its own count: whoever finds this filter there and
            // subscribes to it as well may count on it.
            self.wild_filters
                .fetch_add(added.filters, Ordering::Release);
        }
        Ok(Entered {
            handle,
            is_new: held.is_none(),
        })
    }

    /// Takes one subscription out of its shard.
    fn remove(&self, handle: Handle, key: u64) -> bool {
        let Some(shard) = self.shards.get(handle.shard()) else {
            return false;
        };
        let is_gone = shard.write(|inner| {
            let gone = inner.remove(&self.hasher, handle, key)?;
            self.filter_bytes.fetch_sub(gone.bytes, Ordering::Relaxed);
            if handle.shard() >= EXACT_SHARDS {
                self.wild_filters.fetch_sub(gone.filters, Ordering::Release);
            }
            Some(())
        });
        if is_gone.is_some() {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        is_gone.is_some()
    }

    /// Takes a place for one more subscription; false if there is none.
    fn reserve(&self) -> bool {
        let before = self.subscriptions.fetch_add(1, Ordering::Relaxed);
        let has_room = before < self.limits.subscriptions_max;
        if !has_room {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }

    fn place(&self, filter: Filter<'_>) -> Place {
        let text = filter.matched();
        if !filter.has_wildcard() {
            let hash = self.hasher.hash_one(text);
            return Place {
                shard: exact_shard(hash),
                hash,
            };
        }
        let first = text.split('/').next().unwrap_or_default();
        let hash = self.hasher.hash_one(first);
        let shard = match first {
            "+" | "#" => OPEN_SHARD,
            _ => wild_shard(hash),
        };
        Place { shard, hash }
    }
}

/// Where a filter belongs.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    /// Of the whole filter, where it has no wildcard.
    hash: u64,
}

/// A subscription that is in its shard now.
#[derive(Clone, Copy)]
struct Entered {
    handle: Handle,
    is_new: bool,
}

/// The tables below use the lower bits.
fn exact_shard(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) % EXACT_SHARDS
}

fn wild_shard(hash: u64) -> usize {
    EXACT_SHARDS + usize::try_from(hash >> 32).unwrap_or(0) % WILD_SHARDS
}

/// Takes in the subscribers and groups of one matching filter.
#[inline]
fn collect(
    inner: &Inner,
    shard: usize,
    filter: usize,
    from: Option<Subscriber>,
    found: &mut Matches,
) {
    found.add_run(from, |out| inner.filters.copy_subscribers(filter, out));
    for (number, group) in inner.filters.groups_of(filter) {
        if let Some(handle) = Handle::shared(shard, number) {
            let serial = group.serial();
            found.add_share(GroupId { handle, serial }, group);
        }
    }
}

#[cfg(test)]
mod tests;
