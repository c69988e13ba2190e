//! The filters of a shard: who subscribed to each, and the share groups on it.
//!
//! A filter is here as long as it has a subscriber or a group, a group as long as it has a member.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};

use slab::Slab;

use super::delivery::Delivery;
use super::subscribers::Subscribers;

/// Members of a share group that one match names at most. The caller takes the first that can
/// take the message; when none of so many can, it waits with the first.
pub const CANDIDATES_MAX: usize = 8;

/// Bytes that a filter takes beside its text: itself, its slot in a table, the allocator's share.
pub(super) const FILTER_BYTES: usize = size_of::<FilterEntry>() + 12 + 16;

/// Bytes that a share group takes beside its name.
pub(super) const GROUP_BYTES: usize = size_of::<Group>() + 48;

/// Filters and groups by number.
#[derive(Debug, Default)]
pub(super) struct Filters {
    filters: Slab<FilterEntry>,
    groups: Slab<Group>,
}

/// A filter without `$share/{name}/`.
#[derive(Debug)]
struct FilterEntry {
    text: Box<str>,
    subscribers: Subscribers,
    groups: Option<Box<GroupNumbers>>,
}

const _: () = assert!(size_of::<FilterEntry>() == 40);

#[derive(Debug, Default)]
struct GroupNumbers(Vec<usize>);

/// One share group: a name on a filter.
#[derive(Debug)]
pub(super) struct Group {
    name: Box<str>,
    filter: usize,
    /// Tells this group from a later one with the same number.
    serial: u32,
    /// How many of the members, the first ones, have a connection.
    connected: usize,
    /// Grows by one with each message, so that members take turns.
    turn: AtomicU32,
    members: Vec<Delivery>,
}

impl Filters {
    /// Adds a filter nobody has subscribed to yet. The caller subscribes at once.
    pub(super) fn add(&mut self, text: &str) -> usize {
        self.filters.insert(FilterEntry {
            text: text.into(),
            subscribers: Subscribers::None,
            groups: None,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.filters.len()
    }

    /// The number that the next group will have.
    pub(super) fn next_group(&self) -> usize {
        self.groups.vacant_key()
    }

    /// Removes the filter if nobody is subscribed, and returns its text.
    pub(super) fn remove_unused(&mut self, filter: usize) -> Option<Box<str>> {
        let entry = self.filters.get(filter)?;
        if !entry.subscribers.is_empty() || entry.groups.is_some() {
            return None;
        }
        let entry = self.filters.try_remove(filter)?;
        if self.filters.is_empty() {
            self.filters = Slab::new(); // gives back what the peak took
        }
        Some(entry.text)
    }

    pub(super) fn text(&self, filter: usize) -> Option<&str> {
        self.filters.get(filter).map(|entry| &*entry.text)
    }

    pub(super) fn subscribe(&mut self, filter: usize, new: Delivery) -> Option<Delivery> {
        self.filters.get_mut(filter)?.subscribers.insert(new)
    }

    pub(super) fn unsubscribe(&mut self, filter: usize, key: u64) -> Option<Delivery> {
        self.filters.get_mut(filter)?.subscribers.remove(key)
    }

    pub(super) fn subscriber(&self, filter: usize, key: u64) -> Option<&Delivery> {
        self.filters.get(filter)?.subscribers.get(key)
    }

    /// The group of this name on the filter.
    pub(super) fn group_named(&self, filter: usize, name: &str) -> Option<usize> {
        let groups = self.filters.get(filter)?.groups.as_ref()?;
        let is_named = |group: &&usize| self.groups.get(**group).is_some_and(|g| *g.name == *name);
        groups.0.iter().find(is_named).copied()
    }

    /// Adds a group without members. The caller joins at once.
    pub(super) fn add_group(&mut self, filter: usize, name: &str, serial: u32) -> usize {
        let group = self.groups.insert(Group {
            name: name.into(),
            filter,
            serial,
            connected: 0,
            turn: AtomicU32::new(0),
            members: Vec::new(),
        });
        if let Some(entry) = self.filters.get_mut(filter) {
            entry.groups.get_or_insert_default().0.push(group);
        }
        group
    }

    pub(super) fn group(&self, group: usize) -> Option<&Group> {
        self.groups.get(group)
    }

    pub(super) fn join(&mut self, group: usize, new: Delivery) -> Option<Delivery> {
        self.groups.get_mut(group)?.join(new)
    }

    /// Takes a member out, and the group with its last one. Returns the filter it is on and the
    /// bytes that went with the group.
    pub(super) fn leave(&mut self, group: usize, key: u64) -> Option<(usize, usize)> {
        let held = self.groups.get_mut(group)?;
        held.leave(key)?;
        let filter = held.filter;
        let mut bytes = 0;
        if held.members.is_empty() {
            bytes = GROUP_BYTES + held.name.len();
            self.groups.try_remove(group);
            if self.groups.is_empty() {
                self.groups = Slab::new(); // gives back what the peak took
            }
            let entry = self.filters.get_mut(filter)?;
            if let Some(numbers) = &mut entry.groups {
                numbers.0.retain(|&number| number != group);
                if numbers.0.is_empty() {
                    entry.groups = None;
                }
            }
        }
        Some((filter, bytes))
    }

    pub(super) fn set_connected(&mut self, group: usize, key: u64, is_connected: bool) {
        if let Some(group) = self.groups.get_mut(group) {
            group.set_connected(key, is_connected);
        }
    }

    /// Appends the subscribers of a filter, in order.
    #[inline]
    pub(super) fn copy_subscribers(&self, filter: usize, out: &mut Vec<Delivery>) {
        if let Some(entry) = self.filters.get(filter) {
            entry.subscribers.copy_to(out);
        }
    }

    /// The groups on a filter, with their numbers.
    #[inline]
    pub(super) fn groups_of(&self, filter: usize) -> impl Iterator<Item = (usize, &Group)> {
        let numbers = self.filters.get(filter).and_then(|f| f.groups.as_ref());
        let numbers = numbers.into_iter().flat_map(|numbers| &numbers.0);
        numbers.filter_map(|&number| Some((number, self.groups.get(number)?)))
    }
}

impl Group {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn filter(&self) -> usize {
        self.filter
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn member(&self, key: u64) -> Option<&Delivery> {
        self.members.get(self.position(key)?)
    }

    /// Appends up to [`CANDIDATES_MAX`] members: those with a connection first, beginning with
    /// the one whose turn it is, then those without.
    pub(super) fn copy_candidates(&self, out: &mut Vec<Delivery>) {
        // Relaxed: a counter; nothing is read because of its value.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let turn = usize::try_from(turn).unwrap_or(0);
        let (connected, away) = self
            .members
            .split_at(self.connected.min(self.members.len()));
        rotated(connected, turn, CANDIDATES_MAX, out);
        rotated(
            away,
            turn,
            CANDIDATES_MAX.saturating_sub(connected.len()),
            out,
        );
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.members.iter().position(|member| member.key() == key)
    }

    fn join(&mut self, new: Delivery) -> Option<Delivery> {
        if let Some(at) = self.position(new.key()) {
            let held = self.members.get_mut(at)?;
            let new = new.connected(held.is_connected());
            return Some(mem::replace(held, new));
        }
        let is_connected = new.is_connected();
        self.members.push(new.connected(false));
        if is_connected {
            self.set_connected(new.key(), true);
        }
        None
    }

    fn leave(&mut self, key: u64) -> Option<Delivery> {
        self.set_connected(key, false);
        let at = self.position(key)?;
        let found = self.members.swap_remove(at);
        if self.members.capacity() / 4 > self.members.len() {
            self.members.shrink_to(self.members.len() * 2);
        }
        Some(found)
    }

    /// Moves the member over the border between the connected and the others.
    fn set_connected(&mut self, key: u64, is_connected: bool) {
        let Some(at) = self.position(key) else {
            return;
        };
        let border = match (is_connected, at < self.connected) {
            (true, false) => {
                self.connected += 1;
                self.connected - 1
            }
            (false, true) => {
                self.connected -= 1;
                self.connected
            }
            _ => return,
        };
        self.members.swap(at, border);
        if let Some(member) = self.members.get_mut(border) {
            *member = member.connected(is_connected);
        }
    }
}

/// Appends up to `most` members, from the one at `turn` around.
fn rotated(members: &[Delivery], turn: usize, most: usize, out: &mut Vec<Delivery>) {
    if let Some(start) = turn.checked_rem(members.len()) {
        let (before, from) = members.split_at(start);
        out.extend(from.iter().chain(before).take(most));
    }
}
