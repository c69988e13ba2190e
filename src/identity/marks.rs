//! Which records are perhaps somebody else's (`revoke --since`), in memory: asked for each record
//! that goes to an application or a tail. On disk they are `store::suspects`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use uuid::Uuid;

use crate::store::suspects::SuspectRow;

/// First record and last credential of a mark.
type Mark = (u64, u64);

/// All marks; as many as the database has (`store::suspects::SUSPECTS_MAX`).
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Whether there ever was one: who asks takes no lock before.
    any: AtomicBool,
    // A leaf lock: written by the writer thread, in the order of commits.
    of: RwLock<HashMap<Uuid, Vec<Mark>>>,
}

impl Marks {
    /// Takes the marks of a device, or of several, in place of those that it had.
    pub(super) fn set(&self, rows: &[SuspectRow]) {
        if rows.is_empty() {
            return;
        }
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            of.remove(&row.device);
        }
        for row in rows {
            let mark = (row.first_offset, row.credential_max);
            of.entry(row.device).or_default().push(mark);
        }
        self.any.store(true, Ordering::Release);
    }

    /// The device is gone.
    pub(super) fn forget(&self, device: Uuid) {
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        of.remove(&device);
    }

    /// Whether a record that this credential of the device wrote is marked.
    pub(super) fn hold(&self, device: Uuid, credential: u64, offset: u64) -> bool {
        let is_marked = |(first, last): &Mark| offset >= *first && credential <= *last;
        self.any.load(Ordering::Acquire)
            && self
                .read()
                .get(&device)
                .is_some_and(|marks| marks.iter().any(is_marked))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Uuid, Vec<Mark>>> {
        self.of.read().unwrap_or_else(PoisonError::into_inner)
    }
}
