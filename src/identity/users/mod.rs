//! Users of the identity service: identities with any number of tokens that end by themselves.
//!
//! # Invariants
//! 1. A token is a signed JWT for its holder and a digest for the broker: it opens the door only
//!    while its row is in the database and its digest in the index. What was never issued here, was
//!    changed by a letter, revoked or deleted is not found, whatever its signature says.
//! 2. A token exists only with the generation that its user had in the transaction that made it:
//!    revoking and issuing have one order, that of the writer thread, and no clock decides.
//! 3. Rights belong to the token, not to the user: `terms` has them for each live token, and a
//!    token without terms is not current.
//! 4. An expired token is refused by its time; its row and digest go with a later issue.

mod access_keys;
mod changes;
mod figures;
mod id;
mod scopes;
mod signer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use uuid::Uuid;

pub use access_keys::{AccessKeyInfo, AccessKeyName, AccessKeyText, content_hash};
pub use changes::{RenewedKey, UserToken, WantedToken};
pub use figures::{UserCounts, UserFigures};
pub use id::USER_ID_PREFIX;
pub use scopes::{USER_FILTERS_MAX, UserScope, UserScopes, UserTopics};
pub(super) use signer::Signer;

use super::index::TokenKey;
use super::key::RegistryKey;
use super::registry::now_ms;
use super::{IdentityKind, Permit, Principal, ProfileFlags, Registry, RegistryError};
use crate::store::users::{self, TokenTerms};
use crate::store::{Store, StoreError, devices};
use access_keys::AccessKeys;

/// Users the registry holds at most.
pub const USERS_MAX: u64 = 4_000_000;

/// Live tokens of all users together: about 150 bytes of memory each.
pub const USER_TOKENS_MAX: usize = 4_000_000;

/// Bytes a token may have that is looked up at all. Ours have about 800.
pub const USER_TOKEN_BYTES_MAX: usize = 8_192;

/// Shortest and longest life of a token, and what it is unless asked otherwise, in minutes.
pub const LIFE_MINUTES: std::ops::RangeInclusive<u32> = 60..=1_440;

/// The `meta` entry with the id of this installation's resource.
const RESOURCE: &str = "identity_resource";

/// What of the identity service lives in memory.
pub(super) struct Users {
    resource: Uuid,
    signer: Arc<Signer>,
    topics: UserTopics,
    // A leaf lock: set by the writer thread, read for every signature.
    keys: RwLock<AccessKeys>,
    /// What each live token allows, by its credential.
    terms: DashMap<u64, Terms>,
    /// Of users about whom there was something to count; bounded by [`USERS_MAX`].
    figures: DashMap<Uuid, Arc<UserFigures>>,
    count: AtomicU64,
    totals: Totals,
}

/// What a token allows, and how long.
#[derive(Clone, Copy)]
struct Terms {
    expires_ms: u64,
    scopes: UserScopes,
}

/// Counts since the start, which stay when a user is deleted.
#[derive(Default)]
struct Totals {
    /// Tokens issued with each scope.
    issued: [AtomicU64; 5],
    revocations: AtomicU64,
}

/// The figures of the identity service as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserTotals {
    /// Users in the registry.
    pub users: u64,
    /// Their tokens, those expired that were not cleared away yet included.
    pub tokens: u64,
    /// Tokens issued since the start, for each of [`UserScope::ALL`].
    pub issued: [u64; 5],
    /// Users whose tokens were revoked since the start.
    pub revocations: u64,
}

impl Users {
    /// Reads what the database holds of the service; makes the resource's id where there is none.
    /// `count` users are in the registry.
    pub(super) fn open(
        store: &Store,
        key: &RegistryKey,
        signer: Arc<Signer>,
        topics: UserTopics,
        count: u64,
    ) -> Result<Users, RegistryError> {
        let resource = resource(store)?;
        let terms = DashMap::new();
        let rows = store.read(|connection| {
            users::each_terms(connection, |held| {
                terms.insert(held.id, Terms::new(held));
            })?;
            users::access_keys(connection)
        })?;
        let keys = AccessKeys::open(rows, key);
        Ok(Users {
            resource,
            signer,
            topics,
            keys: RwLock::new(keys),
            terms,
            figures: DashMap::new(),
            count: AtomicU64::new(count),
            totals: Totals::default(),
        })
    }

    /// Whether a token is one of the live ones; what has expired may still be among them.
    pub(super) fn knows(&self, credential: u64) -> bool {
        self.terms.contains_key(&credential)
    }

    pub(super) fn count(&self) -> &AtomicU64 {
        &self.count
    }

    /// Forgets tokens that ended.
    pub(super) fn forget_tokens(&self, credentials: impl IntoIterator<Item = u64>) {
        for credential in credentials {
            self.terms.remove(&credential);
        }
    }

    /// What a token allows now; `None` when it ended or expired.
    fn permit_of(&self, user: Uuid, credential: u64, now_ms: u64) -> Option<(Terms, Arc<Permit>)> {
        // Copied out: the guard is a lock and must not outlive this line.
        let terms = *self.terms.get(&credential)?;
        (terms.expires_ms > now_ms).then(|| {
            let permit = self.topics.compile(terms.scopes, self.resource, user);
            (terms, Arc::new(permit))
        })
    }

    /// What a token allows now, for what waits in its name; `None` if it is no live token.
    pub(super) fn permit_now(&self, user: Uuid, credential: u64) -> Option<Arc<Permit>> {
        let held = self.permit_of(user, credential, now_ms());
        held.map(|(_, permit)| permit)
    }

    /// Counts that all tokens of a user were revoked.
    pub(super) fn count_revocation(&self, user: Uuid) {
        self.figures_of(user).revoked();
        self.totals.revocations.fetch_add(1, Ordering::Relaxed);
    }

    fn figures_of(&self, user: Uuid) -> Arc<UserFigures> {
        Arc::clone(&self.figures.entry(user).or_default())
    }
}

impl Terms {
    fn new(row: TokenTerms) -> Terms {
        Terms {
            expires_ms: row.expires_ms,
            scopes: UserScopes::from_bits(row.scopes),
        }
    }
}

impl Registry {
    /// Who shows this token of a user, as a password or bearer; `user_name` is empty or must be
    /// the user's id. `None` for every kind of bad token, so that nothing can be told apart
    /// (SEC-20). Touches memory only.
    #[must_use]
    pub fn authenticate_user(&self, user_name: &str, token: &[u8]) -> Option<Principal> {
        let found = self.find_user(user_name, token);
        if found.is_none()
            && let Some(user) = id::parse(self.users().resource, user_name)
            && let Some(figures) = self.users().figures.get(&user)
        {
            figures.refused();
        }
        found
    }

    fn find_user(&self, user_name: &str, token: &[u8]) -> Option<Principal> {
        if token.len() > USER_TOKEN_BYTES_MAX {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let shared = self.shared();
        let key = TokenKey::new(&shared.key.user_digest(token));
        let entry = shared.index.find(key)?;
        let kind = IdentityKind::from_number(entry.kind);
        let user = entry.identity;
        let is_named = user_name.is_empty() || user_name == self.user_id(user);
        if kind != IdentityKind::User || !is_named {
            return None;
        }
        let users = self.users();
        let (terms, permit) = users.permit_of(user, entry.credential, now_ms())?;
        Some(Principal {
            identity: user,
            kind,
            credential: entry.credential,
            generation: entry.generation,
            profile: ProfileFlags::default(),
            permit,
            expires_at_ms: Some(terms.expires_ms),
            certificate: None,
            figures: Some(users.figures_of(user)),
            quota: None,
            is_watched: false,
            key,
        })
    }

    /// The id of a user as the world writes it.
    #[must_use]
    pub fn user_id(&self, user: Uuid) -> String {
        id::text(self.users().resource, user)
    }

    /// The user that an id names, whether there is one or not; `None` if it is malformed or of
    /// another installation.
    #[must_use]
    pub fn parse_user_id(&self, id: &str) -> Option<Uuid> {
        id::parse(self.users().resource, id)
    }

    /// The id of the resource that users of this installation belong to.
    #[must_use]
    pub fn resource(&self) -> Uuid {
        self.users().resource
    }

    /// The public key of tokens, as a JSON Web Key Set.
    #[must_use]
    pub fn public_keys(&self) -> String {
        self.users().signer.public_keys()
    }

    /// The version of the access key that signed `text`, `None` for any other signature.
    #[must_use]
    pub fn verify_signature(&self, text: &str, signature: &[u8]) -> Option<u32> {
        let keys = self.users().keys.read();
        keys.unwrap_or_else(PoisonError::into_inner)
            .version_of(text, signature)
    }

    /// The access keys in use, without their texts.
    #[must_use]
    pub fn access_keys(&self) -> Vec<AccessKeyInfo> {
        let keys = self.users().keys.read();
        keys.unwrap_or_else(PoisonError::into_inner).infos()
    }

    /// What was counted of a user since the start.
    #[must_use]
    pub fn user_counts(&self, user: Uuid) -> UserCounts {
        let held = self.users().figures.get(&user);
        held.map_or_else(UserCounts::default, |figures| figures.read())
    }

    /// The figures of all users together.
    #[must_use]
    pub fn user_totals(&self) -> UserTotals {
        let users = self.users();
        let mut issued = [0; 5];
        for (count, counter) in issued.iter_mut().zip(&users.totals.issued) {
            *count = counter.load(Ordering::Relaxed);
        }
        UserTotals {
            users: users.count.load(Ordering::Relaxed),
            tokens: u64::try_from(users.terms.len()).unwrap_or(u64::MAX),
            issued,
            revocations: users.totals.revocations.load(Ordering::Relaxed),
        }
    }

    fn users(&self) -> &Users {
        &self.shared().users
    }
}

fn resource(store: &Store) -> Result<Uuid, StoreError> {
    let read = |connection: &_| devices::meta(connection, RESOURCE);
    if let Some(bytes) = store.read(read)? {
        return Uuid::from_slice(&bytes)
            .map_err(|_| StoreError::Failed("the id of the resource is no UUID".into()));
    }
    let fresh = Uuid::new_v4();
    store.write(move |connection| devices::set_meta(connection, RESOURCE, fresh.as_bytes()))?;
    Ok(fresh)
}
