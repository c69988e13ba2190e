//! How credentials, rights and identities end: rotate, revoke, delete, change of scope; of devices
//! and applications alike.

use std::sync::{Arc, PoisonError};

use super::changes::{self, As, Changed, Rescoped};
use super::deeds;
use super::registry::{Shared, now_ms};
use super::{
    Change, Device, DeviceToken, IdentityKind, Registry, RegistryError, ScopeChange, TermsChange,
};
use crate::audit::What;
use crate::store::Transaction;
use crate::store::terms::LiveRow;

impl Registry {
    /// Gives a device a new token, a fresh one without `token`, and ends all it had at once. The
    /// state of its sessions stays (SEC-53 with a grace time of 0).
    ///
    /// # Errors
    /// There is no such device, the token is taken, or the database failed.
    pub fn rotate(
        &self,
        name_or_id: &str,
        token: Option<DeviceToken>,
    ) -> Result<(Device, DeviceToken, Change), RegistryError> {
        self.rotate_as(changes::DEVICE, name_or_id, token, TermsChange::default())
    }

    /// Ends all credentials of a device and its stored sessions; the device stays. May be
    /// repeated, to have the change confirmed again.
    ///
    /// # Errors
    /// There is no such device, or the database failed.
    pub fn revoke(&self, name_or_id: &str) -> Result<(Device, Change), RegistryError> {
        self.revoke_as(changes::DEVICE, name_or_id)
    }

    /// Removes a device, its credentials and its stored sessions. `at` is the journal's offset:
    /// its records up to there are dead. Returns the device as it was last.
    ///
    /// # Errors
    /// There is no such device, or the database failed.
    pub fn delete(&self, name_or_id: &str, at: u64) -> Result<(Device, Change), RegistryError> {
        self.delete_as(changes::DEVICE, name_or_id, at)
    }

    /// As [`Registry::rotate`], for devices or applications. The new token has the terms of the one
    /// before, but for the changes that are wanted; its life is as long, and begins now.
    ///
    /// # Errors
    /// As there.
    pub fn rotate_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        token: Option<DeviceToken>,
        wanted: TermsChange,
    ) -> Result<(T, DeviceToken, Change), RegistryError> {
        let token = token.unwrap_or_else(whose.fresh_token);
        let new = self.new_credential(&token);
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::rotate(transaction, whose, &name_or_id, &new, &wanted)
        };
        let told = move |(changed, credential): &(Changed<T>, LiveRow)| {
            deeds::rotated(whose, changed, credential)
        };
        let (shown, change) = self.change(told, work, move |(changed, credential), shared| {
            let change = shared.end(whose.kind, &changed, After::StateStays);
            let owner = (changed.id, changed.generation);
            shared.ends_too_at(credential.expires_ms);
            shared.learn(whose.kind, owner, &credential);
            (changed.shown, change)
        })?;
        Ok((shown, token, change))
    }

    /// As [`Registry::revoke`], for devices or applications.
    ///
    /// # Errors
    /// As there.
    pub fn revoke_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::revoke(transaction, whose, &name_or_id, now_ms())
        };
        let told = move |changed: &Changed<T>| deeds::ended(What::Revoked, whose, changed);
        self.change(told, work, move |changed, shared| {
            let change = shared.end(whose.kind, &changed, After::StateGoes);
            (changed.shown, change)
        })
    }

    /// As [`Registry::delete`], for devices or applications.
    ///
    /// # Errors
    /// As there.
    pub fn delete_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        at: u64,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::delete(transaction, whose, &name_or_id, at, now_ms())
        };
        let told = move |changed: &Changed<T>| deeds::ended(What::Deleted, whose, changed);
        self.change(told, work, move |changed, shared| {
            shared.count(whose.kind, -1);
            shared.scopes.remove(changed.id);
            shared.marks.forget(changed.id);
            let change = shared.end(whose.kind, &changed, After::IdentityGoes);
            let mut tombstones = shared
                .tombstones
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            tombstones.push((changed.id, at));
            (changed.shown, change)
        })
    }

    /// Changes what a device or an application may do. Durable on return. If anything is no longer
    /// allowed, the generation has grown; connections and credentials stay, and workers take away
    /// what lies outside (SEC-36). May be repeated, to have the change confirmed again.
    ///
    /// # Errors
    /// There is none with that name or id, a filter is wrong, or the database failed.
    pub fn set_scope<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        wanted: ScopeChange,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            let has_room = |filters: &_| held.scopes.check_room(whose.kind, [filters]);
            changes::rescope(transaction, whose, &name_or_id, &wanted, has_room)
        };
        let told = move |done: &Rescoped<T>| deeds::rescoped(whose.kind, done);
        self.change(told, work, move |done, shared| {
            shared.rescope(whose.kind, done)
        })
    }
}

/// What is left of an identity after its credentials ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    StateStays,
    StateGoes,
    IdentityGoes,
}

impl Shared {
    fn rescope<T>(&self, kind: IdentityKind, done: Rescoped<T>) -> (T, Change) {
        let Changed { id, generation, .. } = done.changed;
        let hold = || {
            if done.filters.is_empty() && kind == IdentityKind::Device {
                self.scopes.remove(id);
            } else {
                let scope = self.scopes.common(kind, &done.filters);
                self.scopes.hold(id, &done.name, scope);
            }
        };
        hold();
        if done.narrows {
            for held in &done.live {
                self.learn(kind, (id, generation), held);
            }
        }
        let change = Change::of_terms(kind, (id, generation));
        (done.changed.shown, change)
    }

    pub(super) fn end<T>(&self, kind: IdentityKind, changed: &Changed<T>, after: After) -> Change {
        if after == After::IdentityGoes {
            self.index.delete(changed.id);
        }
        self.index
            .end(changed.ended.iter().map(|(_, digest)| digest));
        let ended = changed.ended.iter().map(|(id, _)| *id);
        if kind == IdentityKind::User {
            self.users.forget_tokens(ended);
        } else {
            self.forget_tokens(ended);
        }
        Change {
            identity: changed.id,
            kind,
            generation: changed.generation,
            credentials_ended: changed.ended.iter().map(|(id, _)| *id).collect(),
            ends_sessions: true,
            drops_state: after != After::StateStays,
            expired: false,
        }
    }
}
