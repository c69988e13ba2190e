//! Which record of a message names which of its copies for share groups. A record names a session
//! once; a session that gets the message through several groups stands in several.
//!
//! A hundred groups of one subscriber would make a hundred records of each message: there is no
//! room for those, and its publishers would be refused. So a message has [`MORE_RECORDS_MAX`]
//! records more for that reason, and further copies of a session are delivered without one: not
//! through a crash.

use std::collections::HashMap;

use crate::broker::record::Targets;

/// Records that one message takes more because sessions get it through several groups.
pub(super) const MORE_RECORDS_MAX: u32 = 3;

/// Sessions for which memory is kept from one message to the next.
const SESSIONS_KEPT_MAX: usize = 4_096;

/// How many copies of its session stand before each copy.
#[derive(Debug, Default)]
pub(super) struct Layers {
    of_copies: Vec<u32>,
    of_sessions: HashMap<u32, u32>,
}

impl Layers {
    /// Empties it and keeps some of its memory.
    pub(super) fn clear(&mut self) {
        self.of_copies.clear();
        self.of_sessions.clear();
        if self.of_sessions.capacity() > 2 * SESSIONS_KEPT_MAX {
            *self = Self::default();
        }
    }

    /// One more copy for a session, which `targets` may hold already. Those that no record will
    /// name stand together behind the others.
    pub(super) fn add(&mut self, session: u32, targets: &mut Targets) {
        let held = self.of_sessions.entry(session);
        let copies = held.or_insert_with(|| u32::from(targets.has(session)));
        self.of_copies.push(*copies);
        *copies = (*copies + 1).min(MORE_RECORDS_MAX + 1);
    }

    /// Layers there are.
    pub(super) fn count(&self) -> u32 {
        self.of_copies.iter().max().map_or(0, |last| last + 1)
    }

    /// The layer of each copy, in the order in which they were added.
    pub(super) fn of_copies(&self) -> impl Iterator<Item = u32> + '_ {
        self.of_copies.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_in_a_layer_once_but_for_the_last() {
        let mut layers = Layers::default();
        for session in [1, 1, 2, 1, 1, 1, 1, 2] {
            layers.add(session, &mut Targets::default());
        }
        let of_copies: Vec<u32> = layers.of_copies().collect();
        assert_eq!(of_copies, [0, 1, 0, 2, 3, 4, 4, 1]);
        assert_eq!(layers.count(), 5);
        layers.clear();
        assert_eq!(layers.count(), 0);
    }
}
