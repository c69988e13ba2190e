//! Share groups by themselves: their name, and their members outside of a match.

use super::delivery::Delivery;
use super::{GroupId, SubscriptionTree};
use crate::mqtt::topic::Filter;

impl SubscriptionTree {
    /// The whole filter of a group, with `$share/{name}/`; `None` if it has no members any more.
    #[must_use]
    pub fn group_filter(&self, group: GroupId) -> Option<String> {
        let shard = self.shards.get(group.handle.shard())?;
        shard.read(|inner| {
            let held = inner.filters.group(group.handle.number())?;
            let is_it = held.serial() == group.serial;
            let text = inner.filters.text(held.filter()).filter(|_| is_it)?;
            Some(format!("$share/{}/{text}", held.name()))
        })
    }

    /// As [`SubscriptionTree::candidates`], for the group of this filter. Appends to `found`;
    /// false if it has no members.
    pub fn members(&self, filter: Filter<'_>, found: &mut Vec<Delivery>) -> bool {
        let place = self.place(filter);
        let (Some(name), Some(shard)) = (filter.share_name(), self.shards.get(place.shard)) else {
            return false;
        };
        shard.read(|inner| {
            let number = inner.find(&self.hasher, place.hash, filter.matched());
            let mut groups = number
                .into_iter()
                .flat_map(|at| inner.filters.groups_of(at));
            match groups.find(|(_, group)| group.name() == name) {
                Some((_, group)) => {
                    group.copy_candidates(found);
                    true
                }
                None => false,
            }
        })
    }
}
