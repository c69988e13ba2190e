//! A small set of packet ids. Clients have a handful of QoS 2 messages open at once, so a sorted
//! vector beats a tree, and an empty one owns no memory.

use crate::mqtt::wire::PacketId;

/// A set of packet ids, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacketIds {
    ids: Vec<PacketId>,
}

impl PacketIds {
    /// Number of ids held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// True if `id` is held.
    #[must_use]
    pub fn contains(&self, id: PacketId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Adds `id`; false if it was there.
    pub fn insert(&mut self, id: PacketId) -> bool {
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(place) => {
                self.ids.insert(place, id);
                true
            }
        }
    }

    /// Removes `id`; false if it was not there.
    pub fn remove(&mut self, id: PacketId) -> bool {
        match self.ids.binary_search(&id) {
            Ok(place) => {
                self.ids.remove(place);
                true
            }
            Err(_) => false,
        }
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.ids.iter().copied()
    }
}

impl FromIterator<PacketId> for PacketIds {
    fn from_iter<I: IntoIterator<Item = PacketId>>(ids: I) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}
