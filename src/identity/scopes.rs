//! Who has a scope, in memory, and the permit that comes of it.
//!
//! Most devices have none: they share one permit and take no memory here. Scopes that are alike
//! are kept once, however many devices have them: about 90 bytes for each device, and the filters
//! once. Where no placeholder is in a scope, its permit is compiled once too; else it is compiled
//! when somebody connects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use uuid::Uuid;

use super::scope::{self, Owner};
use super::{IdentityKind, Permit, RegistryError};
use crate::store::scopes::Filters;

/// Bytes that all different scopes may take; another one is refused. Devices that share a scope,
/// as with placeholders, count once.
pub const SCOPES_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a scope costs beside its text: entry, permit, allocations. Rounded up.
const SCOPE_COST_BYTES: u64 = 512;

/// The scopes of all identities.
pub(super) struct Scopes {
    held: DashMap<Uuid, Held>,
    // A leaf lock, taken by the writer thread and when the registry is loaded.
    known: Mutex<Known>,
    bytes_max: u64,
}

/// The scope of one identity.
#[derive(Clone)]
struct Held {
    scope: Arc<Common>,
    /// Only where it is put in for a placeholder.
    name: Option<Box<str>>,
}

/// A scope that any number of identities have.
pub(super) struct Common {
    kind: IdentityKind,
    filters: Filters,
    uses_name: bool,
    /// `None` with placeholders.
    permit: Option<Arc<Permit>>,
}

#[derive(Default)]
struct Known {
    devices: HashMap<Filters, Arc<Common>>,
    applications: HashMap<Filters, Arc<Common>>,
    bytes: u64,
}

impl Scopes {
    pub(super) fn new(bytes_max: u64) -> Scopes {
        Scopes {
            held: DashMap::new(),
            known: Mutex::default(),
            bytes_max,
        }
    }

    /// The permit of an identity that has a scope.
    pub(super) fn permit(&self, id: Uuid) -> Option<Arc<Permit>> {
        // Copied out: the guard is a lock and must not outlive this line.
        let held = self.held.get(&id)?.value().clone();
        Some(held.scope.permit(id, held.name.as_deref().unwrap_or("")))
    }

    /// Identities that have a scope.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Different scopes.
    #[cfg(test)]
    pub(super) fn different(&self) -> usize {
        let known = self.known();
        known.devices.len() + known.applications.len()
    }

    /// The scope with these filters, kept once. Nobody has it yet.
    pub(super) fn common(&self, kind: IdentityKind, filters: &Filters) -> Arc<Common> {
        let mut known = self.known();
        if let Some(common) = known.of(kind).get(filters) {
            return Arc::clone(common);
        }
        let common = Arc::new(Common::new(kind, filters.clone()));
        known.of(kind).insert(filters.clone(), Arc::clone(&common));
        known.bytes += cost(filters);
        common
    }

    /// Gives an identity a scope in place of the one it had.
    pub(super) fn hold(&self, id: Uuid, name: &str, scope: Arc<Common>) {
        let name = scope.uses_name.then(|| name.into());
        let before = self.held.insert(id, Held { scope, name });
        self.release(before);
    }

    /// Takes the scope of an identity away.
    pub(super) fn remove(&self, id: Uuid) {
        let before = self.held.remove(&id);
        self.release(before.map(|(_, held)| held));
    }

    /// Refuses more different scopes than there is memory for: `more` that are not known yet.
    pub(super) fn check_room<'f>(
        &self,
        kind: IdentityKind,
        more: impl IntoIterator<Item = &'f Filters>,
    ) -> Result<(), RegistryError> {
        let mut known = self.known();
        let mut bytes = known.bytes;
        for filters in more {
            if !known.of(kind).contains_key(filters) {
                bytes += cost(filters);
            }
        }
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(RegistryError::ScopesFull {
            limit: self.bytes_max,
        })
    }

    fn release(&self, held: Option<Held>) {
        let Some(Held { scope, .. }) = held else {
            return;
        };
        let mut known = self.known();
        // This one and the one that is known: nobody else has it. Both counts change on one
        // thread only.
        if Arc::strong_count(&scope) == 2 && known.of(scope.kind).remove(&scope.filters).is_some() {
            known.bytes = known.bytes.saturating_sub(cost(&scope.filters));
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn of(&mut self, kind: IdentityKind) -> &mut HashMap<Filters, Arc<Common>> {
        match kind {
            IdentityKind::Device => &mut self.devices,
            // Users have none: their tokens say what they may.
            IdentityKind::Application | IdentityKind::User => &mut self.applications,
        }
    }
}

impl Common {
    fn new(kind: IdentityKind, filters: Filters) -> Common {
        let (has_any, uses_name) = scope::placeholders(kind, &filters);
        let permit = (!has_any).then(|| Arc::new(scope::compile(kind, &filters, None)));
        Common {
            kind,
            filters,
            uses_name,
            permit,
        }
    }

    fn permit(&self, id: Uuid, name: &str) -> Arc<Permit> {
        match &self.permit {
            Some(permit) => Arc::clone(permit),
            None => Arc::new(scope::compile(
                self.kind,
                &self.filters,
                Some(Owner { id, name }),
            )),
        }
    }
}

/// The text is kept twice: as the key, and in what it leads to.
fn cost(filters: &Filters) -> u64 {
    2 * filters.bytes() as u64 + SCOPE_COST_BYTES
}
