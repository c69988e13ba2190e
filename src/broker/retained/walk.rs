//! One step of a walk over the topics that a filter matches.

use std::ops::Bound;
use std::sync::Arc;

use super::{Found, Held, Progress, State, scan};
use crate::mqtt::topic::{Filter, Topic};

/// Work of one step of a walk: a topic looked at costs 1, a jump [`JUMP_COST`]. 20 µs, and 0.1 ms
/// where nothing is in the caches: `retained_one_step_of_all` in benches/tree.rs.
pub const STEP_COST_MAX: usize = 256;

/// A jump searches from the root of the map: as much as looking at so many topics.
const JUMP_COST: usize = 8;

/// Topics in a row without a match that are walked over before a jump is tried.
const WALK_BEFORE_JUMP: usize = 4;

/// One step of a walk.
pub(super) struct Walk<'a> {
    filter: Filter<'a>,
    before_serial: u64,
    now_ms: u64,
    next: String,
    spare: String,
    budget: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(
        filter: Filter<'a>,
        before_serial: u64,
        now_ms: u64,
        next: String,
        spare: String,
    ) -> Walk<'a> {
        Walk {
            filter,
            before_serial,
            now_ms,
            next,
            spare,
            budget: STEP_COST_MAX,
        }
    }

    /// Where it goes on, and a buffer to be used again.
    pub(super) fn into_places(self) -> (String, String) {
        (self.next, self.spare)
    }

    /// The one topic of a filter without wildcards.
    pub(super) fn look_up(&self, state: &State, found: &mut Vec<Found>) {
        if let Some((topic, held)) = state.messages.get_key_value(self.filter.matched()) {
            self.emit(state, topic, held, found);
        }
    }

    pub(super) fn run(&mut self, state: &State, found: &mut Vec<Found>) -> Progress {
        while let Some(left) = self.budget.checked_sub(JUMP_COST) {
            self.budget = left;
            if !self.stretch(state, found) {
                return Progress::Done;
            }
        }
        Progress::More
    }

    /// Walks from `next` until a jump pays or the budget ends, and puts `next` there. False when
    /// nothing behind it can match.
    fn stretch(&mut self, state: &State, found: &mut Vec<Found>) -> bool {
        let from = (Bound::Included(self.next.as_str()), Bound::Unbounded);
        let mut misses = 0;
        // The last topic that was looked at, and whether it was matched.
        let mut last = None;
        for (topic, held) in state.messages.range::<str, _>(from) {
            let is_match = Topic::new(topic).is_ok_and(|topic| self.filter.matches(topic));
            if is_match {
                self.emit(state, topic, held, found);
                misses = 0;
            } else {
                misses += 1;
            }
            last = Some((topic, is_match));
            self.budget = self.budget.saturating_sub(1);
            if self.budget == 0 || misses > WALK_BEFORE_JUMP {
                break;
            }
        }
        match last {
            None => return false,
            Some((topic, true)) => scan::follow(topic, &mut self.spare),
            Some((topic, false)) => {
                if !scan::skip(self.filter, topic, &mut self.spare) {
                    return false;
                }
            }
        }
        std::mem::swap(&mut self.next, &mut self.spare);
        true
    }

    fn emit(&self, state: &State, topic: &Arc<str>, held: &Held, found: &mut Vec<Found>) {
        if held.serial < self.before_serial && state.is_found(&held.message, self.now_ms) {
            found.push(Found {
                topic: Arc::clone(topic),
                message: Arc::clone(&held.message),
                offset: held.offset,
            });
        }
    }
}
