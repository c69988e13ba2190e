//! What a match found, in buffers that are used again: each subscriber once, grouped by worker.

use std::iter;
use std::mem;

use super::GroupId;
use super::delivery::{Delivery, Subscriber};
use super::filters::Group;
use super::trie::Levels;

/// Deliveries a buffer keeps room for between matches (0.75 MiB). What a larger fan-out took is
/// given back before the next match.
pub const DELIVERIES_KEPT_MAX: usize = 65_536;

/// The result of a match and its scratch. One for each worker, used again and again: after the
/// first matches nothing is allocated.
#[derive(Debug, Default)]
pub struct Matches {
    deliveries: Vec<Delivery>,
    /// Where the subscribers of each matching filter begin; empty for one filter or none.
    runs: Vec<usize>,
    merged: Vec<Delivery>,
    merged_runs: Vec<usize>,
    id_lists: Vec<u32>,
    groups: Vec<GroupRange>,
    candidates: Vec<Delivery>,
    pub(super) levels: Levels,
    pub(super) stack: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct GroupRange {
    group: GroupId,
    end: usize,
}

/// A share group that is to get the message once [MQTT-4.8.2-4].
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// Which group; for [`super::SubscriptionTree::candidates`] when the message must go to
    /// another member later.
    pub group: GroupId,
    /// Up to [`super::CANDIDATES_MAX`] members, in the order in which they should be asked: those
    /// with a connection first, in turns; at least one.
    pub candidates: &'a [Delivery],
}

impl Matches {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Matches {
        Matches::default()
    }

    /// True if nobody is to get the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.groups.is_empty()
    }

    /// Every session that gets the message by a subscription that is not shared, once, in order
    /// of worker and slot.
    #[must_use]
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// The same by worker, each worker once: O(workers × log deliveries).
    pub fn by_worker(&self) -> impl Iterator<Item = (u16, &[Delivery])> {
        let mut rest = self.deliveries.as_slice();
        iter::from_fn(move || {
            let worker = rest.first()?.worker();
            let end = rest.partition_point(|delivery| delivery.worker() == worker);
            let (group, others) = rest.split_at(end);
            rest = others;
            Some((worker, group))
        })
    }

    /// The share groups that get the message, once each.
    pub fn shares(&self) -> impl Iterator<Item = Share<'_>> {
        let mut start = 0;
        self.groups.iter().filter_map(move |range| {
            let candidates = self.candidates.get(start..range.end)?;
            start = range.end;
            Some(Share {
                group: range.group,
                candidates,
            })
        })
    }

    /// The subscription identifiers that go with a delivery of this match [MQTT-3.3.4-4]; one that
    /// was given to several matching subscriptions stands there as often. A candidate of a share
    /// has one at most.
    #[must_use]
    pub fn ids<'a>(&'a self, delivery: &'a Delivery) -> &'a [u32] {
        delivery.ids(&self.id_lists)
    }

    pub(super) fn clear(&mut self) {
        for buffer in [&mut self.deliveries, &mut self.merged] {
            buffer.clear();
            if buffer.capacity() > DELIVERIES_KEPT_MAX {
                *buffer = Vec::new();
            }
        }
        if self.id_lists.capacity() > DELIVERIES_KEPT_MAX {
            self.id_lists = Vec::new();
        }
        self.runs.clear();
        self.id_lists.clear();
        self.groups.clear();
        self.candidates.clear();
    }

    /// Takes in what `copy` appends: the subscribers of one more filter.
    #[inline]
    pub(super) fn add_run(
        &mut self,
        from: Option<Subscriber>,
        copy: impl FnOnce(&mut Vec<Delivery>),
    ) {
        let start = self.deliveries.len();
        copy(&mut self.deliveries);
        if let Some(publisher) = from {
            self.leave_out(start, publisher);
        }
        if self.deliveries.len() > start {
            self.runs.push(start);
        }
    }

    pub(super) fn add_share(&mut self, id: GroupId, group: &Group) {
        group.copy_candidates(&mut self.candidates);
        let end = self.candidates.len();
        self.groups.push(GroupRange { group: id, end });
    }

    /// Makes one ordered list, one delivery for each session, of the runs: pairs of them, then
    /// pairs of pairs. O(n log k) for n deliveries of k filters; nothing to do for one filter.
    pub(super) fn merge(&mut self) {
        while self.runs.len() > 1 {
            self.merged.clear();
            self.merged_runs.clear();
            for (pair, starts) in self.runs.chunks(2).enumerate() {
                let start = starts.first().copied().unwrap_or(0);
                let end = self.runs.get(2 * pair + 2).copied();
                let end = end.unwrap_or(self.deliveries.len());
                let middle = starts.get(1).copied().unwrap_or(end);
                let left = self.deliveries.get(start..middle).unwrap_or_default();
                let right = self.deliveries.get(middle..end).unwrap_or_default();
                self.merged_runs.push(self.merged.len());
                merge_pair(left, right, &mut self.merged, &mut self.id_lists);
            }
            mem::swap(&mut self.deliveries, &mut self.merged);
            mem::swap(&mut self.runs, &mut self.merged_runs);
        }
    }

    /// The session's own messages do not come back to it by a subscription with No Local
    /// [MQTT-3.8.3-3]; by another one they do. One binary search in each run.
    fn leave_out(&mut self, start: usize, publisher: Subscriber) {
        let run = self.deliveries.get(start..).unwrap_or_default();
        let Ok(at) = run.binary_search_by_key(&publisher.key(), Delivery::key) else {
            return;
        };
        if run.get(at).is_some_and(Delivery::no_local) {
            self.deliveries.remove(start + at);
        }
    }
}

fn merge_pair(
    mut left: &[Delivery],
    mut right: &[Delivery],
    out: &mut Vec<Delivery>,
    id_lists: &mut Vec<u32>,
) {
    while let ([a, rest_left @ ..], [b, rest_right @ ..]) = (left, right) {
        let (a_key, b_key) = (a.key(), b.key());
        if a_key == b_key {
            out.push(a.merged(*b, id_lists));
            (left, right) = (rest_left, rest_right);
        } else if a_key < b_key {
            out.push(*a);
            left = rest_left;
        } else {
            out.push(*b);
            right = rest_right;
        }
    }
    out.extend_from_slice(left);
    out.extend_from_slice(right);
}
