//! One shard of the tree: its lock, its filters, and how they are found by their text.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::delivery::Delivery;
use super::filters::{FILTER_BYTES, Filters, GROUP_BYTES};
use super::subscriptions::{Handle, Held};
use super::table::{Table, fold};
use super::trie::{Levels, Trie};

/// A shard. Aligned so that the locks of two shards do not share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    /// Filters in it, written under the lock: a match does not lock an empty shard.
    filters: AtomicUsize,
    inner: RwLock<Inner>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) filters: Filters,
    index: Index,
}

#[derive(Debug)]
enum Index {
    Exact(Table),
    Wild(Trie),
}

/// What a change added to the shard, or took away.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Footprint {
    pub(super) filters: usize,
    pub(super) bytes: usize,
}

/// The shard has as many filters, groups or nodes as it can number.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoNumberLeft;

impl Shard {
    /// A shard of filters without wildcards.
    pub(super) fn exact() -> Shard {
        Shard::new(Index::Exact(Table::default()))
    }

    /// A shard of filters with wildcards.
    pub(super) fn wild() -> Shard {
        Shard::new(Index::Wild(Trie::new()))
    }

    fn new(index: Index) -> Shard {
        let filters = Filters::default();
        Shard {
            filters: AtomicUsize::new(0),
            inner: RwLock::new(Inner { filters, index }),
        }
    }

    /// False if there is nothing to find. A subscription that was made before, in the order of
    /// cause and effect, is seen: the count changes before its lock is released.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.filters.load(Ordering::Acquire) > 0
    }

    pub(super) fn filter_count(&self) -> usize {
        self.filters.load(Ordering::Relaxed)
    }

    /// Looks, under the read lock. A std lock: nothing awaits here, and writers are not starved.
    #[inline]
    pub(super) fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes, under the write lock.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut inner);
        self.filters.store(inner.filters.count(), Ordering::Release);
        outcome
    }
}

impl Inner {
    /// The filter with this text, `hash` being that of the whole text.
    #[inline]
    pub(super) fn find(&self, hasher: &RandomState, hash: u64, text: &str) -> Option<usize> {
        let number = match &self.index {
            Index::Exact(table) => table.find(fold(hash), |number| {
                usize::try_from(number).is_ok_and(|n| self.filters.text(n) == Some(text))
            })?,
            Index::Wild(trie) => trie.find(hasher, text)?,
        };
        usize::try_from(number).ok()
    }

    /// Calls `hit` with every filter with wildcards that matches; returns the cost in nodes.
    #[inline]
    pub(super) fn visit(
        &self,
        hasher: &RandomState,
        topic: (&mut Levels, &str),
        stack: &mut Vec<(u32, u32)>,
        mut hit: impl FnMut(usize),
    ) -> usize {
        let Index::Wild(trie) = &self.index else {
            return 0;
        };
        trie.visit(hasher, topic, stack, |number| {
            if let Ok(number) = usize::try_from(number) {
                hit(number);
            }
        })
    }

    /// Adds a filter that is not there. The caller subscribes to it, or calls
    /// [`Inner::drop_unused`].
    pub(super) fn add(
        &mut self,
        hasher: &RandomState,
        hash: u64,
        text: &str,
    ) -> Result<(usize, Footprint), NoNumberLeft> {
        let filter = self.filters.add(text);
        let entered = Handle::number_that_fits(filter).and_then(|number| match &mut self.index {
            Index::Exact(table) => {
                table.insert(fold(hash), number);
                Some(0)
            }
            Index::Wild(trie) => trie.insert(hasher, text, number),
        });
        let Some(nodes) = entered else {
            self.filters.remove_unused(filter);
            return Err(NoNumberLeft);
        };
        let bytes = FILTER_BYTES + text.len() + nodes;
        Ok((filter, Footprint { filters: 1, bytes }))
    }

    /// The handle of the session's subscription, plain or of a share group, if it has one.
    pub(super) fn held(
        &self,
        shard: usize,
        filter: usize,
        share: Option<&str>,
        key: u64,
    ) -> Option<Handle> {
        let Some(name) = share else {
            self.filters.subscriber(filter, key)?;
            return Handle::plain(shard, filter);
        };
        let group = self.filters.group_named(filter, name)?;
        self.filters.group(group)?.member(key)?;
        Handle::shared(shard, group)
    }

    /// True if the filter has a share group of this name, or none is asked for.
    pub(super) fn has_group(&self, filter: usize, share: Option<&str>) -> bool {
        share.is_none_or(|name| self.filters.group_named(filter, name).is_some())
    }

    /// Makes or replaces a subscription. `serial` numbers a new share group. Returns the handle
    /// and the bytes of a new group.
    pub(super) fn put(
        &mut self,
        shard: usize,
        filter: usize,
        share: Option<&str>,
        new: Delivery,
        serial: impl FnOnce() -> u32,
    ) -> Result<(Handle, usize), NoNumberLeft> {
        let Some(name) = share else {
            let handle = Handle::plain(shard, filter).ok_or(NoNumberLeft)?;
            self.filters.subscribe(filter, new);
            return Ok((handle, 0));
        };
        let known = self.filters.group_named(filter, name);
        let group = known.unwrap_or_else(|| self.filters.next_group());
        let handle = Handle::shared(shard, group).ok_or(NoNumberLeft)?;
        let mut bytes = 0;
        if known.is_none() {
            self.filters.add_group(filter, name, serial());
            bytes = GROUP_BYTES + name.len();
        }
        self.filters.join(group, new);
        Ok((handle, bytes))
    }

    /// Ends the subscription of a session. Returns what went with it; `None` if there was none.
    pub(super) fn remove(
        &mut self,
        hasher: &RandomState,
        handle: Handle,
        key: u64,
    ) -> Option<Footprint> {
        let (filter, group_bytes) = if handle.is_shared() {
            self.filters.leave(handle.number(), key)?
        } else {
            self.filters.unsubscribe(handle.number(), key)?;
            (handle.number(), 0)
        };
        let Footprint { filters, bytes } = self.drop_unused(hasher, filter);
        Some(Footprint {
            filters,
            bytes: bytes + group_bytes,
        })
    }

    /// Removes the filter if nobody is subscribed to it.
    pub(super) fn drop_unused(&mut self, hasher: &RandomState, filter: usize) -> Footprint {
        let Some(text) = self.filters.remove_unused(filter) else {
            return Footprint::default();
        };
        let nodes = match (&mut self.index, Handle::number_that_fits(filter)) {
            (Index::Exact(table), Some(number)) => {
                table.remove(fold(hasher.hash_one(&*text)), number);
                0
            }
            (Index::Wild(trie), _) => trie.remove(hasher, &text),
            (Index::Exact(_), None) => 0, // such a number was never given out
        };
        let bytes = FILTER_BYTES + text.len() + nodes;
        Footprint { filters: 1, bytes }
    }

    /// True if the index holds nothing but what an empty one holds.
    #[cfg(test)]
    pub(super) fn is_pruned(&self) -> bool {
        match &self.index {
            Index::Exact(table) => table.is_empty(),
            Index::Wild(trie) => trie.is_empty(),
        }
    }

    /// A session's subscription in words.
    pub(super) fn describe(&self, handle: Handle, key: u64) -> Option<Held> {
        if handle.is_shared() {
            let group = self.filters.group(handle.number())?;
            let text = self.filters.text(group.filter())?;
            return Held::new(Some(group.name()), text, group.member(key)?);
        }
        let text = self.filters.text(handle.number())?;
        Held::new(None, text, self.filters.subscriber(handle.number(), key)?)
    }
}
