//! The registry: devices and their tokens, durable in the state database, recognised in memory.
//!
//! # Invariants
//! 1. A change is committed and synced, then applied to the index on the database's writer thread,
//!    then answered: changes reach the index in the order of their commits, so that no older
//!    change can bring an ended token back.
//! 2. The end of a credential takes it out of the index, and a [`super::Principal`] of it is not
//!    current from then on. The end of all that an identity has raises its generation.
//! 3. What the audit is to tell of a change is committed with it ([`Registry::change`]).
//! 4. A token that was ended is not given out again while it is remembered.

mod import;
mod load;
mod told;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use serde::Serialize;
use uuid::Uuid;

use super::admin_tokens::AdminTokens;
use super::basic::Basics;
use super::changes::{self, As, Identified, Outfit};
use super::deeds;
use super::index::TokenIndex;
use super::key::{self, RegistryKey};
use super::marks::Marks;
use super::scopes::Scopes;
use super::terms::{Terms, TermsTable};
use super::users::Users;
use super::{
    APPLICATIONS_MAX, CredentialKind, Device, DeviceName, DevicePage, DeviceToken, IdentityKind,
    LastUse, Page, Permit, RegistryError, Rights, Scope, Secrets, TermsChange, USERS_MAX,
    UserTopics,
};
pub use import::{IMPORT_FAULTS_MAX, IMPORT_ROWS_MAX, Import, ImportRow, Imported, RowFault};

pub use crate::store::bulk::ListedDevice;

use crate::audit::{Audit, Caller};
use crate::store::devices::{self, NewCredential};
use crate::store::terms::LiveRow;
use crate::store::{Connection, Store, Transaction};

/// Devices the registry holds at most: at about 65 bytes of memory each, with one token and no
/// scope, 1 GB. More are refused; requests that share the commit which reaches the limit still get
/// in.
pub const DEVICES_MAX: u64 = 16_000_000;

/// The `meta` entry that recognises the registry key.
const KEY_CHECK: &str = "registry_key_check";

/// Devices, credentials and the token index. Clones share everything.
///
/// [`Registry::admit`], [`Registry::readmit`] and [`Registry::is_current`] touch memory only. All
/// else blocks on the disk and must not be called from an async task.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    shared: Arc<Shared>,
    /// Who asks, for the audit.
    caller: Option<Arc<Caller>>,
}

/// What lives in memory.
pub(super) struct Shared {
    pub(super) key: RegistryKey,
    pub(super) index: TokenIndex,
    /// What MQTT Basic credentials are compared with.
    pub(super) basics: Basics,
    /// Of the tokens that have any beside an end.
    pub(super) terms: TermsTable,
    /// When the next token ends by itself; wall clock, ms; `u64::MAX` if none does. Set by the
    /// writer thread.
    pub(super) next_end_ms: AtomicU64,
    /// Credentials that were used and end others, until the clock of tokens comes by. A leaf lock.
    pub(super) first_uses: Mutex<HashSet<u64>>,
    /// When tokens were shown last whose place another took.
    pub(super) uses: DashMap<u64, LastUse>,
    /// Of plain devices: one for every combination of rights that a token can have.
    pub(super) permits: [OnceLock<Arc<Permit>>; Rights::COUNT],
    /// Of every application, and of the devices that have one.
    pub(super) scopes: Scopes,
    pub(super) devices: AtomicU64,
    pub(super) applications: AtomicU64,
    devices_max: u64,
    /// Set once, before anybody is served.
    audit: OnceLock<Audit>,
    /// Of the identity service.
    pub(super) users: Users,
    /// Who may ask the admin API for what.
    pub(super) admins: AdminTokens,
    /// What is perhaps somebody else's.
    pub(super) marks: Marks,
    // A leaf lock: pushed to by the writer thread, copied by readers.
    pub(super) tombstones: RwLock<Vec<(Uuid, u64)>>,
}

/// What the broker has to do everywhere after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The device, application or user.
    pub identity: Uuid,
    /// Which of them.
    pub kind: IdentityKind,
    /// Its generation from now on.
    pub generation: u32,
    /// Credentials that are no longer valid; their connections end, their wills are not published.
    pub credentials_ended: Vec<u64>,
    /// Whether live connections of those credentials end now.
    pub ends_sessions: bool,
    /// Whether the identity's stored state (subscriptions, queue, QoS 2 ids, retained messages)
    /// goes too: so when it is revoked or deleted, not when its token is rotated (SEC-35, SEC-53).
    pub drops_state: bool,
    /// It was the time that ended them, and connections are told so (SEC-40).
    pub expired: bool,
}

impl Registry {
    /// Loads the index and checks that the registry key is the one that made it.
    ///
    /// # Errors
    /// [`RegistryError::WrongKey`], or what the database says.
    pub fn open(store: Store, secrets: &Secrets) -> Result<Registry, RegistryError> {
        let registry = Registry::open_for(store, secrets, UserTopics::default())?;
        registry.end_all_due()?;
        Ok(registry)
    }

    /// As [`Registry::open`], with these topics for the scopes of users' tokens. What ended before
    /// this run is written down by [`Registry::audited_by`], so that it is told.
    ///
    /// # Errors
    /// As there.
    pub fn open_for(
        store: Store,
        secrets: &Secrets,
        topics: UserTopics,
    ) -> Result<Registry, RegistryError> {
        Registry::open_with(store, secrets, DEVICES_MAX, topics)
    }

    pub(super) fn open_with(
        store: Store,
        secrets: &Secrets,
        devices_max: u64,
        topics: UserTopics,
    ) -> Result<Registry, RegistryError> {
        check_key(&store, secrets)?;
        let loaded = load::load(&store)?;
        let counts = loaded.counts;
        let key = secrets.key();
        let users = Users::open(&store, key, secrets.signer(), topics, counts.users)?;
        let admins = AdminTokens::open(&store)?;
        let shared = Arc::new(Shared {
            key: key.clone(),
            index: loaded.index,
            basics: loaded.basics,
            terms: loaded.terms,
            next_end_ms: AtomicU64::new(loaded.next_end_ms.unwrap_or(u64::MAX)),
            first_uses: Mutex::default(),
            uses: DashMap::new(),
            permits: Default::default(),
            scopes: loaded.scopes,
            devices: AtomicU64::new(counts.devices),
            applications: AtomicU64::new(counts.applications),
            devices_max,
            audit: OnceLock::new(),
            users,
            admins,
            marks: loaded.marks,
            tombstones: RwLock::new(loaded.tombstones),
        });
        Ok(Registry {
            store,
            shared,
            caller: None,
        })
    }

    /// Adds a device with one token, a fresh one without `token`, and no scope. Durable on return.
    ///
    /// # Errors
    /// The name or the token is taken, the registry is full, or the database failed.
    pub fn create_device(
        &self,
        name: &DeviceName,
        token: Option<DeviceToken>,
    ) -> Result<(Device, DeviceToken), RegistryError> {
        self.create_scoped_device(name, &Scope::default(), token)
    }

    /// As [`Registry::create_device`], with a scope.
    ///
    /// # Errors
    /// As there; the scope puts the name in where it cannot stand.
    pub fn create_scoped_device(
        &self,
        name: &DeviceName,
        scope: &Scope,
        token: Option<DeviceToken>,
    ) -> Result<(Device, DeviceToken), RegistryError> {
        self.create_as(changes::DEVICE, name, scope, &TermsChange::default(), token)
    }

    /// Adds a device or an application with one token, a fresh one without `token`, and the terms
    /// that it has in the beginning. Durable on return.
    ///
    /// # Errors
    /// The name or the token is taken, scope or terms cannot be, the registry is full, or the
    /// database failed.
    pub fn create_as<T: Identified + Send + 'static>(
        &self,
        whose: As<T>,
        name: &DeviceName,
        scope: &Scope,
        terms: &TermsChange,
        token: Option<DeviceToken>,
    ) -> Result<(T, DeviceToken), RegistryError> {
        let kind = whose.kind;
        scope.check_name(name.as_str())?;
        let terms = terms.of(Terms::default(), kind, now_ms())?;
        let token = token.unwrap_or_else(whose.fresh_token);
        let outfit = Arc::new(Outfit {
            scope: scope.0.clone(),
            credential: self.new_credential(&token),
            terms,
        });
        let (name, held, given) = (name.clone(), Arc::clone(&self.shared), Arc::clone(&outfit));
        let work = move |transaction: &Transaction<'_>| {
            held.check_room_for(kind)?;
            held.scopes.check_room(kind, [&given.scope])?;
            changes::create(transaction, whose, &name, &given)
        };
        let given = Arc::clone(&outfit);
        let told = move |(made, credential): &(T, LiveRow)| {
            deeds::created(kind, made.identified(), &given, credential.id)
        };
        let made = self.change(told, work, move |(made, credential), shared| {
            let (id, name) = made.identified();
            // The scope first: whoever finds the token finds it too.
            if kind != IdentityKind::Device || !outfit.scope.is_empty() {
                let scope = shared.scopes.common(kind, &outfit.scope);
                shared.scopes.hold(id, name, scope);
            }
            shared.count(kind, 1);
            shared.ends_too_at(credential.expires_ms);
            shared.learn(kind, (id, 1), &credential);
            made
        })?;
        Ok((made, token))
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
        let (devices, more) = self.page_of(changes::DEVICE, page)?;
        let next = devices
            .last()
            .filter(|_| more)
            .map(|device| device.name.clone());
        Ok(DevicePage { devices, next })
    }

    /// One device or application, by its name or its id.
    ///
    /// # Errors
    /// There is none, or the database failed.
    pub fn one<T>(&self, whose: As<T>, name_or_id: &str) -> Result<T, RegistryError> {
        self.ask(|snapshot| {
            let row = changes::find(snapshot, whose.kind, name_or_id)?;
            Ok(changes::read(snapshot, whose, row)?.0)
        })
    }

    /// A part of the list of devices or applications, by name, and whether there are more behind
    /// it. Ends early at about [`Page::BYTES_MAX`].
    ///
    /// # Errors
    /// A limit outside 1 to [`Page::LIMIT_MAX`], or the database failed.
    pub fn page_of<T>(&self, whose: As<T>, page: Page) -> Result<(Vec<T>, bool), RegistryError> {
        let Page { after, limit } = page;
        if !(1..=Page::LIMIT_MAX).contains(&limit) {
            let what = format!("is {limit}, it must be 1 to {}", Page::LIMIT_MAX);
            return Err(RegistryError::Invalid {
                field: "limit",
                what,
            });
        }
        self.ask(|snapshot| {
            // One more than asked tells whether there is a next page.
            let kind = whose.kind.number();
            let rows = devices::page(snapshot, kind, after.as_deref(), limit + 1)?;
            let (mut found, mut bytes) = (Vec::with_capacity(rows.len()), 0);
            for row in rows {
                if found.len() == limit || bytes > Page::BYTES_MAX {
                    return Ok((found, true));
                }
                let (shown, size) = changes::read(snapshot, whose, row)?;
                bytes += size;
                found.push(shown);
            }
            Ok((found, false))
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

    /// Devices and applications that have a scope, for metrics.
    #[must_use]
    pub fn scopes(&self) -> usize {
        self.shared.scopes.len()
    }

    /// Live tokens, for metrics.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.shared.index.len()
    }

    /// Live tokens with terms beside an end, for metrics.
    #[must_use]
    pub fn tokens_with_terms(&self) -> usize {
        self.shared.terms.len()
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

    /// Reads from one snapshot.
    pub(super) fn ask<T>(
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
            expires_ms: None,
        }
    }
}

impl Shared {
    /// Refuses one more of a kind than there may be.
    pub(super) fn check_room_for(&self, kind: IdentityKind) -> Result<(), RegistryError> {
        let (held, limit) = match kind {
            IdentityKind::Device => (&self.devices, self.devices_max),
            IdentityKind::Application => (&self.applications, APPLICATIONS_MAX),
            IdentityKind::User => (self.users.count(), USERS_MAX),
        };
        self.check_audit()?;
        if held.load(Ordering::Relaxed) < limit {
            return Ok(());
        }
        Err(RegistryError::Full { kind, limit })
    }

    pub(super) fn count(&self, kind: IdentityKind, more: i64) {
        let held = match kind {
            IdentityKind::Device => &self.devices,
            IdentityKind::Application => &self.applications,
            IdentityKind::User => self.users.count(),
        };
        // Two's complement: adding a negative number this way takes away.
        held.fetch_add(more.cast_unsigned(), Ordering::Relaxed);
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
