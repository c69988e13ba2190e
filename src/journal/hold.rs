//! What readers still need: segments with held records stay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::record::Offset;
use super::shared::lock;

/// A reader's claim on everything from an offset on: [`super::Journal::release`] keeps it until
/// the claim moves on or is dropped. One per reader that must miss nothing.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Mutex<Holds>>,
    number: u64,
}

/// The claims of all readers.
#[derive(Debug, Default)]
pub(super) struct Holds {
    next: u64,
    from: HashMap<u64, Offset>,
}

impl Holds {
    /// The first record somebody still needs.
    pub(super) fn first(&self) -> Option<Offset> {
        self.from.values().copied().min()
    }
}

impl Hold {
    pub(super) fn new(shared: &Arc<Mutex<Holds>>, from: Offset) -> Self {
        let mut holds = lock(shared);
        let number = holds.next;
        holds.next += 1;
        holds.from.insert(number, from);
        drop(holds);
        Self {
            holds: Arc::clone(shared),
            number,
        }
    }

    /// Gives up everything before `from`. Going back has no effect: what was given up may be gone.
    pub fn advance(&self, from: Offset) {
        let mut holds = lock(&self.holds);
        if let Some(held) = holds.from.get_mut(&self.number) {
            *held = from.max(*held);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.holds).from.remove(&self.number);
    }
}
