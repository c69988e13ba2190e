//! Tokens of the admin API: each with a name, a scope and, if wanted, an end (SEC-75).
//!
//! # Invariants
//! 1. Only the keyed digest of a token is kept, in the database and here (SEC-51); the text is in
//!    the reply that makes it and nowhere else. The digest has a label of its own, so that no such
//!    token opens the door to MQTT.
//! 2. A token is found by the first half of its digest and compared whole in constant time.
//! 3. A revoked or expired token is nobody's from that moment on; so are requests that last.
//!
//! The token in the secrets directory is none of these: it has every right and no row.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::deeds;
use super::key::{self, Digest};
use super::registry::now_ms;
use super::token::TOKEN_BYTES_MAX;
use super::{AdminToken, DeviceName, Page, Registry, RegistryError};
use crate::audit::What;
use crate::store::admin_tokens::{self, AdminTokenRow};
use crate::store::{Store, Transaction};

/// Admin tokens there are at most: one for each person and program that looks after the broker.
pub const ADMIN_TOKENS_MAX: usize = 1_000;

/// The latest end of a token: the last millisecond of the year 9999.
const EXPIRES_MS_MAX: u64 = 253_402_300_799_999;

/// What an admin token allows; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminScope {
    /// To look: lists, history, the state of things.
    Read,
    /// To run the fleet: create, change, revoke and delete devices and applications.
    Operate,
    /// Everything: admin tokens, keys of back ends, backups.
    Admin,
}

impl AdminScope {
    /// Every scope, the smallest first.
    pub const ALL: [AdminScope; 3] = [AdminScope::Read, AdminScope::Operate, AdminScope::Admin];

    /// The scope of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<AdminScope> {
        let mut all = AdminScope::ALL.into_iter();
        all.find(|scope| scope.as_str() == text)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AdminScope::Read => "read",
            AdminScope::Operate => "operate",
            AdminScope::Admin => "admin",
        }
    }

    const fn number(self) -> u8 {
        match self {
            AdminScope::Read => 0,
            AdminScope::Operate => 1,
            AdminScope::Admin => 2,
        }
    }

    /// The database holds no other number; if it did, the smallest scope is the safe one.
    const fn from_number(number: u8) -> AdminScope {
        match number {
            1 => AdminScope::Operate,
            2 => AdminScope::Admin,
            _ => AdminScope::Read,
        }
    }
}

impl fmt::Display for AdminScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The number of its token; `None` for the one in the secrets directory.
    pub number: Option<u64>,
    /// The name of its token.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: AdminScope,
}

impl Admin {
    /// Who shows the token in the secrets directory: everything is allowed.
    #[must_use]
    pub fn built_in() -> Admin {
        Admin {
            number: None,
            name: "admin.token".into(),
            scope: AdminScope::Admin,
        }
    }
}

/// An admin token as operators see it; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTokenInfo {
    /// Unique.
    pub name: String,
    /// What it allows.
    pub scope: AdminScope,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Wall clock, ms; `None` if it does not end by itself.
    pub expires_ms: Option<u64>,
    /// Whether that time is over: it opens nothing any more, and goes when it is revoked.
    pub is_expired: bool,
}

impl From<AdminTokenRow> for AdminTokenInfo {
    fn from(row: AdminTokenRow) -> AdminTokenInfo {
        AdminTokenInfo {
            scope: AdminScope::from_number(row.scope),
            created_ms: row.created_ms,
            expires_ms: row.expires_ms,
            is_expired: row.expires_ms.is_some_and(|end| end <= now_ms()),
            name: row.name,
        }
    }
}

/// The part of a digest that a token is looked up by.
type Lookup = [u8; 16];

/// The tokens there are, in memory. A leaf lock: written by the database's writer thread, read for
/// every request.
pub(super) struct AdminTokens(RwLock<HashMap<Lookup, Held>>);

#[derive(Clone)]
struct Held {
    digest: Digest,
    number: u64,
    name: Arc<str>,
    scope: AdminScope,
    expires_ms: Option<u64>,
}

impl Held {
    fn new(row: &AdminTokenRow, digest: Digest) -> Held {
        Held {
            digest,
            number: row.number,
            name: row.name.as_str().into(),
            scope: AdminScope::from_number(row.scope),
            expires_ms: row.expires_ms,
        }
    }

    fn is_live(&self, at_ms: u64) -> bool {
        self.expires_ms.is_none_or(|end| at_ms < end)
    }
}

impl AdminTokens {
    /// Reads them all.
    pub(super) fn open(store: &Store) -> Result<AdminTokens, RegistryError> {
        let mut held = HashMap::new();
        store.read(|connection| {
            admin_tokens::each(connection, |row, digest| {
                held.insert(lookup(&digest), Held::new(&row, digest));
            })
        })?;
        Ok(AdminTokens(RwLock::new(held)))
    }

    fn find(&self, digest: &Digest, at_ms: u64) -> Option<Admin> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let held = tokens.get(&lookup(digest))?;
        let is_right = key::equal(&held.digest, digest);
        (is_right && held.is_live(at_ms)).then(|| Admin {
            number: Some(held.number),
            name: Arc::clone(&held.name),
            scope: held.scope,
        })
    }

    fn is_live(&self, number: u64, at_ms: u64) -> bool {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut held = tokens.values();
        held.any(|held| held.number == number && held.is_live(at_ms))
    }

    fn insert(&self, held: Held) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(lookup(&held.digest), held);
    }

    fn remove(&self, digest: &Digest) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(&lookup(digest));
    }

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Registry {
    /// Who shows this text as a token of the admin API; `None` for everybody unknown, and for
    /// whoever's token has ended. Touches memory only.
    #[must_use]
    pub fn admin(&self, presented: &str) -> Option<Admin> {
        if presented.is_empty() || presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest = self.shared().key.admin_digest(presented);
        self.shared().admins.find(&digest, now_ms())
    }

    /// Whether the token that somebody was let in with is still one: for requests that last.
    #[must_use]
    pub fn is_live_admin(&self, admin: &Admin) -> bool {
        let is_live = |number| self.shared().admins.is_live(number, now_ms());
        admin.number.is_none_or(is_live)
    }

    /// How many admin tokens there are, those expired included; for metrics.
    #[must_use]
    pub fn admin_tokens_total(&self) -> usize {
        self.shared().admins.len()
    }

    /// Makes an admin token. Durable on return. `expires_ms`: when it ends by itself, wall clock.
    ///
    /// # Errors
    /// The name is taken, the end is not in the future, there are too many, or the database failed.
    pub fn create_admin_token(
        &self,
        name: &DeviceName,
        scope: AdminScope,
        expires_ms: Option<u64>,
    ) -> Result<(AdminTokenInfo, AdminToken), RegistryError> {
        let created_ms = now_ms();
        check_end(expires_ms, created_ms)?;
        let token = AdminToken::generate();
        let digest = self.shared().key.admin_digest(token.expose());
        let new = AdminTokenRow {
            number: 0,
            name: name.as_str().to_owned(),
            scope: scope.number(),
            created_ms,
            expires_ms,
        };
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            held.check_audit()?;
            let name = new.name.clone();
            if admin_tokens::by_name(transaction, &name)?.is_some() {
                return Err(RegistryError::AdminTokenExists { name });
            }
            let limit = ADMIN_TOKENS_MAX;
            if usize::try_from(admin_tokens::count(transaction)?).is_ok_and(|held| held >= limit) {
                return Err(RegistryError::AdminTokensFull { limit });
            }
            let number = admin_tokens::insert(transaction, &new, &digest)?;
            Ok(AdminTokenRow {
                number,
                ..new.clone()
            })
        };
        let told = |row: &AdminTokenRow| {
            let info = row.clone().into();
            deeds::admin_token(What::AdminTokenCreated, row.number, &info)
        };
        let made = self.change(told, work, move |row: AdminTokenRow, shared| {
            shared.admins.insert(Held::new(&row, digest));
            row
        })?;
        Ok((made.into(), token))
    }

    /// A part of the list of admin tokens, by name, and whether there are more behind it.
    ///
    /// # Errors
    /// The database failed.
    pub fn admin_tokens(&self, page: &Page) -> Result<(Vec<AdminTokenInfo>, bool), RegistryError> {
        let limit = page.limit.clamp(1, Page::LIMIT_MAX);
        self.ask(|snapshot| {
            // One more than asked tells whether there is a next page.
            let mut rows = admin_tokens::page(snapshot, page.after.as_deref(), limit + 1)?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            Ok((rows.into_iter().map(AdminTokenInfo::from).collect(), more))
        })
    }

    /// One admin token.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub fn admin_token(&self, name: &str) -> Result<AdminTokenInfo, RegistryError> {
        self.ask(|snapshot| Ok(found(admin_tokens::by_name(snapshot, name)?, name)?.into()))
    }

    /// Ends an admin token. It opens nothing any more when this returns, and that is durable.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub fn revoke_admin_token(&self, name: &str) -> Result<AdminTokenInfo, RegistryError> {
        let name = name.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let row = found(admin_tokens::by_name(transaction, &name)?, &name)?;
            Ok((row, admin_tokens::remove(transaction, &name)?))
        };
        let told = |(row, _): &(AdminTokenRow, _)| {
            let info = row.clone().into();
            deeds::admin_token(What::AdminTokenRevoked, row.number, &info)
        };
        let gone = self.change(told, work, |(row, digest): (AdminTokenRow, _), shared| {
            if let Some(digest) = digest {
                shared.admins.remove(&digest);
            }
            row
        })?;
        Ok(gone.into())
    }
}

fn check_end(expires_ms: Option<u64>, now_ms: u64) -> Result<(), RegistryError> {
    let what = match expires_ms {
        Some(end) if end <= now_ms => "is over already; give a time in the future",
        Some(end) if end > EXPIRES_MS_MAX => "is after the year 9999",
        Some(_) | None => return Ok(()),
    };
    Err(RegistryError::Invalid {
        field: "expires_ms",
        what: what.to_owned(),
    })
}

fn found(row: Option<AdminTokenRow>, name: &str) -> Result<AdminTokenRow, RegistryError> {
    row.ok_or_else(|| RegistryError::NoAdminToken {
        name: name.to_owned(),
    })
}

fn lookup(digest: &Digest) -> Lookup {
    let (first, _) = digest.split_at(size_of::<Lookup>());
    first.try_into().unwrap_or_default()
}
