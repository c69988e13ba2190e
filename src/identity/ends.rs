//! How credentials and identities end: rotate, revoke, delete; of devices and applications alike.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::changes::{self, As, Changed};
use super::index::TokenEntry;
use super::key::Digest;
use super::registry::{Shared, now_ms};
use super::{Change, Device, DeviceToken, IdentityKind, Registry, RegistryError};
use crate::store::Transaction;

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
        let token = token.unwrap_or_else(DeviceToken::generate);
        self.rotate_as(changes::DEVICE, name_or_id, token)
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

    pub(super) fn rotate_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        token: DeviceToken,
    ) -> Result<(T, DeviceToken, Change), RegistryError> {
        let new = self.new_credential(&token);
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::rotate(transaction, whose, &name_or_id, &new)
        };
        let (shown, change) = self.change(work, move |(changed, credential), shared| {
            let change = shared.end(&changed, After::StateStays);
            let entry = TokenEntry {
                identity: changed.id,
                credential,
                generation: changed.generation,
                kind: whose.kind.number(),
            };
            shared.index.insert(&new.digest, entry);
            (changed.shown, change)
        })?;
        Ok((shown, token, change))
    }

    pub(super) fn revoke_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::revoke(transaction, whose, &name_or_id, now_ms())
        };
        self.change(work, |changed, shared| {
            let change = shared.end(&changed, After::StateGoes);
            (changed.shown, change)
        })
    }

    pub(super) fn delete_as<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        at: u64,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            changes::delete(transaction, whose, &name_or_id, at, now_ms())
        };
        self.change(work, move |changed, shared| {
            match whose.kind {
                IdentityKind::Device => {
                    shared.devices.fetch_sub(1, Ordering::Relaxed);
                }
                IdentityKind::Application => {
                    shared.permits.remove(&changed.id);
                }
            }
            let change = shared.end(&changed, After::DeviceGoes);
            let mut tombstones = shared
                .tombstones
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            tombstones.push((changed.id, at));
            (changed.shown, change)
        })
    }
}

/// What is left of an identity after its credentials ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    StateStays,
    StateGoes,
    DeviceGoes,
}

impl Shared {
    fn end<T>(&self, changed: &Changed<T>, after: After) -> Change {
        let digests: Vec<Digest> = changed.ended.iter().map(|(_, digest)| *digest).collect();
        let left = (after != After::DeviceGoes).then_some(changed.generation);
        self.index.end(changed.id, left, &digests);
        Change {
            identity: changed.id,
            generation: changed.generation,
            credentials_ended: changed.ended.iter().map(|(id, _)| *id).collect(),
            ends_sessions: true,
            drops_state: after != After::StateStays,
        }
    }
}
