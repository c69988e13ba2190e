//! The registry: devices and their tokens, durable in the state database, recognised in memory.
//!
//! # Invariants
//! 1. A change is committed and synced, then applied to the index on the database's writer thread,
//!    then answered: changes reach the index in the order of their commits, so that no older
//!    change can bring an ended token back.
//! 2. Every end of a credential raises the identity's generation. A [`Principal`] with an older
//!    generation is not current, however it was found.
//! 3. A token that was ended is not given out again while it is remembered.

mod import;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use serde::Serialize;
use uuid::Uuid;

use super::applications::permit_of;
use super::changes::{self, As};
use super::index::{TokenEntry, TokenIndex};
use super::key::{self, Digest, RegistryKey};
use super::token::{self, TOKEN_BYTES_MAX};
use super::{
    CredentialKind, Device, DeviceName, DevicePage, DeviceToken, IdentityKind, Page, Permit,
    Principal, ProfileFlags, RegistryError, Secrets, TokenHint,
};
pub use import::{IMPORT_FAULTS_MAX, IMPORT_ROWS_MAX, Import, ImportRow, Imported, RowFault};

pub use crate::store::bulk::ListedDevice;

use crate::store::devices::{self, NewCredential};
use crate::store::{Connection, Store, Transaction, applications};

/// Devices the registry holds at most: at about 95 bytes of memory each, 400 MB. More are refused;
/// requests that share the commit which reaches the limit still get in.
pub const DEVICES_MAX: u64 = 4_000_000;

/// The `meta` entry that recognises the registry key.
const KEY_CHECK: &str = "registry_key_check";

/// Devices, credentials and the token index. Clones share everything.
///
/// [`Registry::authenticate`] and [`Registry::is_current`] touch memory only. All else blocks on
/// the disk and must not be called from an async task.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    shared: Arc<Shared>,
}

/// What lives in memory.
pub(super) struct Shared {
    pub(super) key: RegistryKey,
    pub(super) index: TokenIndex,
    /// One for all plain devices.
    permit: Arc<Permit>,
    /// One for each application.
    pub(super) permits: DashMap<Uuid, Arc<Permit>>,
    pub(super) devices: AtomicU64,
    devices_max: u64,
    // A leaf lock: pushed to by the writer thread, copied by readers.
    pub(super) tombstones: RwLock<Vec<(Uuid, u64)>>,
}

/// What the broker has to do everywhere after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The device.
    pub identity: Uuid,
    /// Its generation from now on.
    pub generation: u32,
    /// Credentials that are no longer valid; their connections end, their wills are not published.
    pub credentials_ended: Vec<u64>,
    /// Whether live connections of those credentials end now.
    pub ends_sessions: bool,
    /// Whether the identity's stored state (subscriptions, queue, QoS 2 ids, retained messages)
    /// goes too: so when it is revoked or deleted, not when its token is rotated (SEC-35, SEC-53).
    pub drops_state: bool,
}

/// What is known about a token; never holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TokenReport {
    /// A device can connect with it.
    Live {
        /// Whether a device or an application.
        kind: IdentityKind,
        /// Its name.
        device: String,
        /// Its id.
        id: Uuid,
        /// The credential's id.
        credential: u64,
        /// Wall clock, ms.
        since_ms: u64,
    },
    /// It was valid once.
    Revoked {
        /// Whether a device or an application.
        kind: IdentityKind,
        /// Its name.
        device: String,
        /// Its id.
        id: Uuid,
        /// The credential's id.
        credential: u64,
        /// Wall clock, ms.
        since_ms: u64,
        /// When it ended; wall clock, ms.
        at_ms: u64,
    },
    /// No device has it, or had it lately.
    Unknown {
        /// What its form tells.
        hint: Option<TokenHint>,
    },
}

impl Registry {
    /// Loads the index and checks that the registry key is the one that made it.
    ///
    /// # Errors
    /// [`RegistryError::WrongKey`], or what the database says.
    pub fn open(store: Store, secrets: &Secrets) -> Result<Registry, RegistryError> {
        Registry::open_with(store, secrets, DEVICES_MAX)
    }

    pub(super) fn open_with(
        store: Store,
        secrets: &Secrets,
        devices_max: u64,
    ) -> Result<Registry, RegistryError> {
        check_key(&store, secrets)?;
        let (devices, tombstones, index, permits) = store.read(|connection| {
            let devices = devices::count(connection)?;
            // One token each is the rule. Too few or too many is only a question of speed.
            let index = TokenIndex::with_capacity(usize::try_from(devices).unwrap_or(0));
            devices::each_live(connection, |live| {
                let entry = TokenEntry {
                    identity: live.device,
                    credential: live.id,
                    generation: live.generation,
                    kind: live.kind,
                };
                index.insert(&live.digest, entry);
            })?;
            let permits = DashMap::new();
            applications::each(connection, |id, filters| {
                permits.insert(id, Arc::new(permit_of(id, &filters)));
            })?;
            let tombstones = devices::tombstones(connection)?;
            Ok((devices, tombstones, index, permits))
        })?;
        let shared = Arc::new(Shared {
            key: secrets.key().clone(),
            index,
            permit: Arc::new(Permit::device()),
            permits,
            devices: AtomicU64::new(devices),
            devices_max,
            tombstones: RwLock::new(tombstones),
        });
        Ok(Registry { store, shared })
    }

    /// Who shows this token as its user name; `None` for everybody unknown (SEC-20). Allocates
    /// nothing.
    #[must_use]
    pub fn authenticate(&self, user_name: &str) -> Option<Principal> {
        if user_name.is_empty() || user_name.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let entry = self
            .shared
            .index
            .find(&self.shared.key.token_digest(user_name))?;
        let kind = IdentityKind::from_number(entry.kind);
        let permit = match kind {
            IdentityKind::Device => Arc::clone(&self.shared.permit),
            // Copied out of the guard, which is a lock. Without a permit: deleted a moment ago.
            IdentityKind::Application => Arc::clone(&*self.shared.permits.get(&entry.identity)?),
        };
        Some(Principal {
            identity: entry.identity,
            kind,
            credential: entry.credential,
            generation: entry.generation,
            profile: ProfileFlags::default(),
            permit,
            expires_at_ms: None,
        })
    }

    /// What an identity may do now, whoever asks for it later: for messages of stored sessions
    /// and delayed wills. Memory only.
    #[must_use]
    pub fn permit(&self, identity: Uuid) -> Arc<Permit> {
        // Copied out of the guard, which is a lock.
        let held = self.shared.permits.get(&identity);
        held.map_or_else(|| Arc::clone(&self.shared.permit), |held| Arc::clone(&held))
    }

    /// Whether a principal that [`Registry::authenticate`] gave is still who it was: asked again
    /// after the connection was registered, so that a change in between is not missed (SEC-34).
    #[must_use]
    pub fn is_current(&self, principal: &Principal) -> bool {
        self.shared
            .index
            .is_current(principal.identity, principal.generation)
    }

    /// Adds a device with one token, a fresh one without `token`. Durable on return.
    ///
    /// # Errors
    /// The name or the token is taken, the registry is full, or the database failed.
    pub fn create_device(
        &self,
        name: &DeviceName,
        token: Option<DeviceToken>,
    ) -> Result<(Device, DeviceToken), RegistryError> {
        let token = token.unwrap_or_else(DeviceToken::generate);
        let new = self.new_credential(&token);
        let name = name.clone();
        let shared = Arc::clone(&self.shared);
        let work = move |transaction: &Transaction<'_>| {
            let room = shared.devices.load(Ordering::Relaxed) < shared.devices_max;
            if !room {
                return Err(RegistryError::Full {
                    kind: IdentityKind::Device,
                    limit: shared.devices_max,
                });
            }
            changes::create(transaction, &name, &new)
        };
        let device = self.change(work, move |(device, credential), shared| {
            shared.devices.fetch_add(1, Ordering::Relaxed);
            shared.add(&new.digest, &device, IdentityKind::Device, credential);
            device
        })?;
        Ok((device, token))
    }

    /// One device, by its name or its id.
    ///
    /// # Errors
    /// There is none, or the database failed.
    pub fn device(&self, name_or_id: &str) -> Result<Device, RegistryError> {
        self.one(changes::DEVICE, name_or_id)
    }

    /// A part of the list of devices, by name.
    ///
    /// # Errors
    /// A limit outside 1 to [`Page::LIMIT_MAX`], or the database failed.
    pub fn devices(&self, page: Page) -> Result<DevicePage, RegistryError> {
        let (devices, more) = self.page(changes::DEVICE, page)?;
        let next = devices
            .last()
            .filter(|_| more)
            .map(|device| device.name.clone());
        Ok(DevicePage { devices, next })
    }

    pub(super) fn one<T>(&self, whose: As<T>, name_or_id: &str) -> Result<T, RegistryError> {
        self.ask(|snapshot| {
            let row = changes::find(snapshot, whose.kind, name_or_id)?;
            changes::read(snapshot, whose, row)
        })
    }

    /// A page, and whether there are more behind it.
    pub(super) fn page<T>(
        &self,
        whose: As<T>,
        page: Page,
    ) -> Result<(Vec<T>, bool), RegistryError> {
        if !(1..=Page::LIMIT_MAX).contains(&page.limit) {
            let what = format!("is {}, it must be 1 to {}", page.limit, Page::LIMIT_MAX);
            return Err(RegistryError::Invalid {
                field: "limit",
                what,
            });
        }
        let Page { after, limit } = page;
        let mut found: Vec<T> = self.ask(|snapshot| {
            // One more than asked tells whether there is a next page.
            let kind = whose.kind.number();
            let rows = devices::page(snapshot, kind, after.as_deref(), limit + 1)?;
            rows.into_iter()
                .map(|row| changes::read(snapshot, whose, row))
                .collect()
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// What is known about a token that an operator shows.
    ///
    /// # Errors
    /// The database failed.
    pub fn check_token(&self, token: &str) -> Result<TokenReport, RegistryError> {
        let digest = self.shared.key.token_digest(token);
        let owner = self
            .store
            .read(|connection| devices::owner_of(connection, &digest))?;
        Ok(match owner {
            None => TokenReport::Unknown {
                hint: token::hint(token),
            },
            Some((device, credential)) => {
                let (id, since_ms) = (device.id, credential.created_ms);
                let kind = IdentityKind::from_number(device.kind);
                let (device, number) = (device.name, credential.id);
                match credential.revoked_ms {
                    None => TokenReport::Live {
                        kind,
                        device,
                        id,
                        credential: number,
                        since_ms,
                    },
                    Some(at_ms) => TokenReport::Revoked {
                        kind,
                        device,
                        id,
                        credential: number,
                        since_ms,
                        at_ms,
                    },
                }
            }
        })
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices_total(&self) -> u64 {
        self.shared.devices.load(Ordering::Relaxed)
    }

    /// Whether there is no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.devices.load(Ordering::Relaxed) == 0
    }

    /// Whether this identity was deleted since the broker started: nothing of it is delivered any
    /// more. What was deleted before is in [`Registry::tombstones`].
    #[must_use]
    pub fn is_deleted(&self, identity: Uuid) -> bool {
        self.shared.index.is_deleted(identity)
    }

    /// Whether somebody can still connect as this identity.
    #[must_use]
    pub fn is_live(&self, identity: Uuid) -> bool {
        let credentials = self.store.read(|connection| {
            let row = devices::by_id(connection, identity)?;
            row.map(|row| devices::credentials(connection, &row))
                .transpose()
        });
        let credentials = credentials.ok().flatten().unwrap_or_default();
        credentials.iter().any(|held| held.revoked_ms.is_none())
    }

    /// Live tokens, for metrics.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.shared.index.len()
    }

    /// Deleted devices and the journal offsets up to which their records are dead.
    #[must_use]
    pub fn tombstones(&self) -> Vec<(Uuid, u64)> {
        self.shared
            .tombstones
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The name of a device; `None` if there is none or the database cannot be read.
    #[must_use]
    pub fn device_name(&self, id: Uuid) -> Option<String> {
        let row = self.store.read(|connection| devices::by_id(connection, id));
        row.ok().flatten().map(|row| row.name)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs `work` in a transaction; once it is on disk, `then` changes the memory, on the
    /// writer thread (invariant 1).
    pub(super) fn change<T, R>(
        &self,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
        then: impl FnOnce(T, &Shared) -> R + Send + 'static,
    ) -> Result<R, RegistryError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // A refusal of ours comes before the first statement that writes: there is nothing to
        // roll back. A refusal of the database goes out as an error and is rolled back.
        let work = move |transaction: &Transaction<'_>| match work(transaction) {
            Err(RegistryError::Store(error)) => Err(error),
            decided => Ok(decided),
        };
        self.store
            .write_then(work, move |done| done.map(|value| then(value, &shared)))?
    }

    /// Reads from one snapshot.
    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.store.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            match question(&snapshot) {
                Err(RegistryError::Store(error)) => Err(error),
                answered => Ok(answered),
            }
        })?
    }

    pub(super) fn new_credential(&self, token: &DeviceToken) -> NewCredential {
        NewCredential {
            kind: CredentialKind::ACCESS_TOKEN,
            digest: self.shared.key.token_digest(token.expose()),
            chosen: token.is_chosen(),
            created_ms: now_ms(),
        }
    }
}

impl Shared {
    pub(super) fn add(
        &self,
        digest: &Digest,
        identity: &Device,
        kind: IdentityKind,
        credential: u64,
    ) {
        let entry = TokenEntry {
            identity: identity.id,
            credential,
            generation: identity.generation,
            kind: kind.number(),
        };
        self.index.insert(digest, entry);
    }
}

/// Refuses a key that did not make the digests; remembers the key while nothing depends on it.
fn check_key(store: &Store, secrets: &Secrets) -> Result<(), RegistryError> {
    let expected = secrets.key().check_value();
    let found = store.read(|connection| devices::meta(connection, KEY_CHECK))?;
    if found.is_some_and(|found| key::equal(&found, &expected)) {
        return Ok(());
    }
    if !store.is_empty()? {
        return Err(RegistryError::WrongKey {
            key: secrets.key_path(),
        });
    }
    store.write(move |connection| devices::set_meta(connection, KEY_CHECK, &expected))?;
    Ok(())
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
