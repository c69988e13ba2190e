//! MQTT Basic credentials: client id, user name and password, as specified in TB-02.
//!
//! | what it asks for | found by |
//! |---|---|
//! | client id | the client id of a CONNECT without a user name |
//! | user name, perhaps password | the user name, like an access token: one name is one credential |
//! | client id and user name, perhaps password | both together, before anything else |
//!
//! # Invariants
//! 1. Of all three only keyed digests are kept (SEC-51): without a password the names alone open the
//!    door. A password's digest is that of the password with the credential's own, so that equal
//!    passwords look different.
//! 2. What both names find is decided there: a wrong password does not go on to look for the user
//!    name alone.
//! 3. Whoever finds the credential in the index finds what it is compared with: that is noted
//!    before, and forgotten after.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use uuid::Uuid;

use super::changes::{self, As};
use super::index::TokenKey;
use super::key::{self, Digest, RegistryKey};
use super::principal::UNKNOWN;
use super::registry::{Shared, now_ms};
use super::{
    Change, CredentialInfo, CredentialKind, DeviceToken, NotAdmitted, Principal, Registry,
    RegistryError, TOKEN_BYTES_MAX,
};
use crate::store::basic::{self, BasicRow};
use crate::store::devices::{self, DeviceRow, NewCredential};
use crate::store::terms::{self as terms_rows, LiveRow, TermsRow};
use crate::store::{Connection, StoreError, Transaction};

/// Live credentials that a device or an application can have.
pub const CREDENTIALS_MAX: usize = 16;

/// What a client showed at CONNECT.
#[derive(Clone, Copy)]
pub struct Shown<'c> {
    /// Perhaps empty.
    pub client_id: &'c str,
    /// None and empty are the same.
    pub user_name: Option<&'c str>,
    /// None and empty are the same.
    pub password: Option<&'c [u8]>,
}

/// What a credential asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicInfo {
    /// It is compared with the client id.
    pub client_id: bool,
    /// It is compared with the user name.
    pub user_name: bool,
    /// It is compared with the password.
    pub password: bool,
}

/// A credential to be added; checked.
pub struct NewBasic {
    form: Form,
    client_id: String,
    user_name: String,
    password: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    ClientId = 1,
    UserName = 2,
    Both = 3,
}

impl Form {
    /// The database holds no other number; if it did, nobody would be asked for less.
    const fn from_number(number: u8) -> Form {
        match number {
            1 => Form::ClientId,
            2 => Form::UserName,
            _ => Form::Both,
        }
    }
}

impl From<BasicRow> for BasicInfo {
    fn from(row: BasicRow) -> BasicInfo {
        let form = Form::from_number(row.form);
        BasicInfo {
            client_id: form != Form::UserName,
            user_name: form != Form::ClientId,
            password: row.password.is_some(),
        }
    }
}

impl NewBasic {
    /// Checks what a credential is to ask for. An empty text is none.
    ///
    /// # Errors
    /// Neither client id nor user name, a password without a user name, or a text that no client
    /// could send or that has a meaning of its own.
    pub fn new(
        client_id: Option<&str>,
        user_name: Option<&str>,
        password: Option<&str>,
    ) -> Result<NewBasic, RegistryError> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (client_id, user_name) = (text(client_id), text(user_name));
        let password = password.filter(|password| !password.is_empty());
        let form = match (client_id.as_str(), user_name.as_str()) {
            ("", "") => return Err(invalid("user_name", "or client_id must be given")),
            ("", _) => Form::UserName,
            (_, "") if password.is_some() => {
                return Err(invalid("user_name", "must be given with a password"));
            }
            (_, "") => Form::ClientId,
            (_, _) => Form::Both,
        };
        for (field, text) in [("client_id", &client_id), ("user_name", &user_name)] {
            if !text.is_empty() {
                // The same texts mean something else at CONNECT, or cannot be sent.
                DeviceToken::chosen(text).map_err(|error| invalid(field, &error.to_string()))?;
            }
        }
        if password.is_some_and(|password| password.len() > TOKEN_BYTES_MAX) {
            return Err(invalid("password", "has more than 256 bytes"));
        }
        Ok(NewBasic {
            form,
            client_id,
            user_name,
            password: password.map(str::to_owned),
        })
    }

    fn digest(&self, key: &RegistryKey) -> Digest {
        match self.form {
            Form::ClientId => key.client_id_digest(&self.client_id),
            Form::UserName => key.token_digest(&self.user_name),
            Form::Both => key.both_digest(&self.client_id, &self.user_name),
        }
    }
}

/// What is compared, by the number of the credential. About 80 bytes each; there are as many as
/// [`CREDENTIALS_MAX`] and the registry's own limits allow.
#[derive(Default)]
pub(super) struct Basics {
    held: DashMap<u64, BasicRow>,
    /// How many are found by the client id, so that nobody's is digested for nothing.
    by_client_id: AtomicUsize,
    /// How many are found by both.
    by_both: AtomicUsize,
}

impl Basics {
    /// Reads all live ones.
    pub(super) fn read(connection: &Connection) -> Result<Basics, StoreError> {
        let basics = Basics::default();
        basic::each_live(connection, |credential, row| basics.hold(credential, row))?;
        Ok(basics)
    }

    fn hold(&self, credential: u64, row: BasicRow) {
        if self.held.insert(credential, row).is_none() {
            self.count(row, |count| {
                count.fetch_add(1, Ordering::Release);
            });
        }
    }

    /// Forgets credentials that ended, whatever kind they were of.
    pub(super) fn forget(&self, credentials: impl IntoIterator<Item = u64>) {
        for credential in credentials {
            if let Some((_, row)) = self.held.remove(&credential) {
                self.count(row, |count| {
                    count.fetch_sub(1, Ordering::Release);
                });
            }
        }
    }

    fn count(&self, row: BasicRow, change: impl FnOnce(&AtomicUsize)) {
        match Form::from_number(row.form) {
            Form::ClientId => change(&self.by_client_id),
            Form::Both => change(&self.by_both),
            Form::UserName => {}
        }
    }

    /// Whether the password that was shown is the one that a credential asks for, if it does.
    pub(super) fn fits(
        &self,
        key: &RegistryKey,
        (credential, digest): (u64, &Digest),
        password: Option<&[u8]>,
    ) -> bool {
        // Copied out: the guard is a lock.
        let wanted = self.held.get(&credential).and_then(|row| row.password);
        let Some(wanted) = wanted else {
            return true;
        };
        let shown = password.unwrap_or_default();
        !shown.is_empty() && key::equal(&key.password_digest(digest, shown), &wanted)
    }
}

impl Registry {
    /// Who shows this at CONNECT, from this address: an access token as its user name, or MQTT Basic
    /// credentials. Touches memory only; without credentials of that kind it costs what
    /// [`Registry::admit`] costs.
    ///
    /// # Errors
    /// As there.
    pub fn admit_client(&self, shown: Shown<'_>, from: IpAddr) -> Result<Principal, NotAdmitted> {
        let shared = self.shared();
        let user_name = shown.user_name.unwrap_or_default();
        if user_name.len() > TOKEN_BYTES_MAX {
            return Err(UNKNOWN);
        }
        let has_client_id = (1..=TOKEN_BYTES_MAX).contains(&shown.client_id.len());
        let is_used = |count: &AtomicUsize| has_client_id && count.load(Ordering::Acquire) > 0;
        let digest = if user_name.is_empty() {
            if !is_used(&shared.basics.by_client_id) {
                return Err(UNKNOWN);
            }
            shared.key.client_id_digest(shown.client_id)
        } else {
            let both = is_used(&shared.basics.by_both)
                .then(|| shared.key.both_digest(shown.client_id, user_name))
                .filter(|digest| shared.index.find(TokenKey::new(digest)).is_some());
            both.unwrap_or_else(|| shared.key.token_digest(user_name))
        };
        shared.admit(&digest, shown.password, Some(from))
    }

    /// Adds MQTT Basic credentials to a device or an application. Durable on return. The same ones
    /// a second time change nothing; the flag says whether they were added.
    ///
    /// # Errors
    /// There is no such identity, somebody has or had the names, the identity has too many, or the
    /// database failed.
    pub fn add_basic<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        new: &NewBasic,
    ) -> Result<(CredentialInfo, bool), RegistryError> {
        let key = &self.shared().key;
        let digest = new.digest(key);
        let password = new.password.as_deref();
        let row = BasicRow {
            form: new.form as u8,
            password: password.map(|text| key.password_digest(&digest, text.as_bytes())),
        };
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let owner = changes::find(transaction, whose.kind, &name_or_id)?;
            let known = same(transaction, &owner, &digest, row)?;
            let added = match known {
                Some(_) => None,
                None => Some(add(transaction, &owner, &digest, row)?),
            };
            let id = known.or(added.as_ref().map(|live| live.id));
            let mut all = devices::credentials(transaction, &owner)?;
            all.retain(|held| Some(held.id) == id);
            Ok((all, (owner.id, owner.generation), added))
        };
        let (all, is_new) = self.change(work, move |(all, of, added), shared| {
            let is_new = added.is_some();
            if let Some(live) = added {
                // What it asks for first: whoever finds it finds that too.
                shared.basics.hold(live.id, row);
                shared.learn(whose.kind, of, &live);
            }
            (all, is_new)
        })?;
        let shown = CredentialInfo::from_rows(all).pop();
        let missing = || invalid("credential", "is gone already");
        Ok((shown.ok_or_else(missing)?, is_new))
    }

    /// Ends one credential of a device or an application, of any kind, and its connections; those of
    /// others stay, and what is kept of the identity, until its last one ends. Durable on return.
    ///
    /// # Errors
    /// There is no such identity or it has no such live credential, or the database failed.
    pub fn end_credential<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        credential: u64,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let mut row = changes::find(transaction, whose.kind, &name_or_id)?;
            let digest = basic::end_one(transaction, row.number, credential, now_ms())?;
            let digest = digest.ok_or_else(|| {
                let what = format!("{credential} is no live credential of {:?}", row.name);
                invalid("credential", &what)
            })?;
            let is_live = !terms_rows::live(transaction, &row)?.is_empty();
            if !is_live {
                row.generation = row.generation.saturating_add(1);
                devices::set_generation(transaction, &row, row.generation)?;
                devices::drop_sessions(transaction, row.id)?;
            }
            let of = (row.id, row.generation);
            let shown = changes::read(transaction, whose, row)?.0;
            Ok((shown, of, digest, is_live))
        };
        self.change(work, move |(shown, of, digest, is_live), shared| {
            shared.index.end([&digest]);
            shared.terms.forget([credential]);
            shared.basics.forget([credential]);
            let (identity, generation): (Uuid, u32) = of;
            let change = Change {
                identity,
                kind: whose.kind,
                generation,
                credentials_ended: vec![credential],
                ends_sessions: !is_live,
                drops_state: !is_live,
                expired: false,
            };
            (shown, change)
        })
    }
}

/// The number of a live credential of this identity that asks for the same.
fn same(
    transaction: &Transaction<'_>,
    owner: &DeviceRow,
    digest: &Digest,
    row: BasicRow,
) -> Result<Option<u64>, RegistryError> {
    let Some((holder, held)) = devices::owner_of(transaction, digest)? else {
        return Ok(None);
    };
    let is_same = holder.id == owner.id
        && held.revoked_ms.is_none()
        && basic::of(transaction, held.id)? == Some(row);
    Ok(is_same.then_some(held.id))
}

fn add(
    transaction: &Transaction<'_>,
    owner: &DeviceRow,
    digest: &Digest,
    row: BasicRow,
) -> Result<LiveRow, RegistryError> {
    changes::refuse_taken(transaction, digest)?;
    if terms_rows::live(transaction, owner)?.len() >= CREDENTIALS_MAX {
        let what = format!("has {CREDENTIALS_MAX} live credentials, which is the limit: end one");
        return Err(invalid("credential", &what));
    }
    let new = NewCredential {
        kind: CredentialKind::MQTT_BASIC,
        digest: *digest,
        chosen: true,
        created_ms: now_ms(),
        expires_ms: None,
    };
    let id = devices::insert_credential(transaction, owner, &new)?;
    basic::insert(transaction, id, &row)?;
    Ok(LiveRow {
        id,
        digest: *digest,
        expires_ms: None,
        terms: TermsRow::default(),
        superseded_by: None,
        retires_older: false,
    })
}

fn invalid(field: &'static str, what: &str) -> RegistryError {
    let what = what.to_owned();
    RegistryError::Invalid { field, what }
}

impl Shared {
    /// Whoever is found there, if the password fits.
    pub(super) fn admit(
        &self,
        digest: &Digest,
        password: Option<&[u8]>,
        from: Option<IpAddr>,
    ) -> Result<Principal, NotAdmitted> {
        let key = TokenKey::new(digest);
        let entry = self.index.find(key).ok_or(UNKNOWN)?;
        if !self.basics.fits(&self.key, (entry.credential, digest), password) {
            return Err(UNKNOWN);
        }
        self.principal(key, entry, from)
    }
}
