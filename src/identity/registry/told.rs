//! How a change of the registry is made: in the database, in the audit, then in memory.
//!
//! The event of a change is committed with it, so that the audit tells of every change that was
//! made and of no other, in their order, whenever the process ends.

use std::sync::Arc;

use super::{Registry, Shared};
use crate::audit::{Audit, Caller, Event};
use crate::identity::RegistryError;
use crate::store::{StoreError, Transaction};

impl Registry {
    /// Tells all changes from now on to this audit, the first of them that the time of tokens was
    /// over before this run. The first audit stays.
    ///
    /// # Errors
    /// The database failed.
    pub fn audited_by(&self, audit: Audit) -> Result<(), RegistryError> {
        let _ = self.shared.audit.set(audit);
        self.end_all_due()
    }

    /// The same registry, whose changes are told as those of this caller.
    #[must_use]
    pub fn by(&self, caller: Option<Arc<Caller>>) -> Registry {
        Registry {
            caller,
            ..self.clone()
        }
    }

    /// Runs `work` in a transaction; once it is on disk, `then` changes the memory, on the
    /// writer thread (invariant 1). What `told` makes of it is committed with it (invariant 3).
    pub(in crate::identity) fn change<T, R>(
        &self,
        told: impl Fn(&T) -> Event + Send + 'static,
        work: impl FnMut(&Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
        then: impl FnOnce(T, &Shared) -> R + Send + 'static,
    ) -> Result<R, RegistryError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        self.change_all(move |done| vec![told(done)], work, then)
    }

    /// As [`Registry::change`], for a change of which several things are told.
    pub(in crate::identity) fn change_all<T, R>(
        &self,
        told: impl Fn(&T) -> Vec<Event> + Send + 'static,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
        then: impl FnOnce(T, &Shared) -> R + Send + 'static,
    ) -> Result<R, RegistryError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let (shared, teller) = (Arc::clone(&self.shared), self.teller());
        // A refusal of ours comes before the first statement that writes: there is nothing to
        // roll back. A refusal of the database goes out as an error and is rolled back.
        let work = move |transaction: &Transaction<'_>| match work(transaction) {
            Err(RegistryError::Store(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
            Ok(done) => {
                let number = teller.stage(transaction, || told(&done))?;
                Ok(Ok((done, number)))
            }
        };
        let then = move |done: Result<(T, Option<u64>), RegistryError>| {
            done.map(|(value, number)| {
                shared.told(number);
                then(value, &shared)
            })
        };
        self.store.write_then(work, then)?
    }

    pub(super) fn teller(&self) -> Teller {
        Teller {
            audit: self.shared.audit.get().cloned(),
            caller: self.caller.clone(),
        }
    }
}

/// Tells the audit of a change, within its transaction.
pub(super) struct Teller {
    audit: Option<Audit>,
    caller: Option<Arc<Caller>>,
}

impl Teller {
    /// Answers the number of the last event, for [`Shared::told`].
    pub(super) fn stage(
        &self,
        transaction: &Transaction<'_>,
        told: impl FnOnce() -> Vec<Event>,
    ) -> Result<Option<u64>, StoreError> {
        let Some(audit) = &self.audit else {
            return Ok(None);
        };
        let events = told().into_iter();
        let events: Vec<_> = events
            .map(|event| event.by(self.caller.as_deref()))
            .collect();
        if events.is_empty() {
            return Ok(None);
        }
        audit.stage(transaction, &events)
    }
}

impl Shared {
    /// The transaction with the events up to this one is on disk.
    pub(super) fn told(&self, number: Option<u64>) {
        if let Some((audit, number)) = self.audit.get().zip(number) {
            audit.committed(number);
        }
    }

    /// Refuses what gives rights while too much of what was done before is not in the audit.
    pub(in crate::identity) fn check_audit(&self) -> Result<(), RegistryError> {
        match self.audit.get() {
            Some(audit) if audit.is_behind() => Err(RegistryError::AuditBehind),
            _ => Ok(()),
        }
    }
}
