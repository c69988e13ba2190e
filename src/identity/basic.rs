//! MQTT Basic credentials: client id, user name and password, as specified in TB-02.
//!
//! | what it asks for | found by |
//! |---|---|
//! | client id | the client id of a CONNECT without a user name |
//! | user name, perhaps password | the user name, like a token: one name is one credential |
//! | both names, perhaps password | both together, before anything else |
//!
//! # Invariants
//! 1. What opens the door is kept as keyed digests only (SEC-51): a password, and names that open
//!    it without one. Names beside a password are kept as they are too, so that credentials can be
//!    told apart. A password's digest is that of the password with the credential's own, so that
//!    equal passwords look different.
//! 2. What both names find is decided there: a wrong password does not go on to look for the user
//!    name alone.
//! 3. Whoever finds the credential in the index finds what it is compared with: that is noted
//!    before, and forgotten after. Who finds nothing any more is refused.
//! 4. A CONNECT costs the same digests whether its names are known or not, and whether its password
//!    is right or not (SEC-20); there is no slow hash, so that no thread waits for one
//!    (`docs/decisions/passwords.md`).

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use super::certificate::Origin;
use super::index::TokenKey;
use super::key::{self, Digest, RegistryKey};
use super::principal::UNKNOWN;
use super::registry::Shared;
use super::{DeviceToken, NotAdmitted, Principal, Registry, RegistryError, TOKEN_BYTES_MAX};
use crate::store::basic::{self, BasicRow, NamesRow};
use crate::store::{Connection, StoreError};

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

    /// What it is found by.
    pub(super) fn digest(&self, key: &RegistryKey) -> Digest {
        match self.form {
            Form::ClientId => key.client_id_digest(&self.client_id),
            Form::UserName => key.token_digest(&self.user_name),
            Form::Both => key.both_digest(&self.client_id, &self.user_name),
        }
    }

    /// What of its names may be shown again: nothing where they open the door alone.
    pub(super) fn names(&self) -> NamesRow {
        let shown = |name: &String| {
            let is_shown = self.password.is_some() && !name.is_empty();
            is_shown.then(|| name.clone())
        };
        NamesRow {
            client_id: shown(&self.client_id),
            user_name: shown(&self.user_name),
        }
    }

    /// What is written down of it; `found_by` is its digest.
    pub(super) fn row(&self, key: &RegistryKey, found_by: &Digest) -> BasicRow {
        let password = self.password.as_deref();
        BasicRow {
            form: self.form as u8,
            password: password.map(|text| key.password_digest(found_by, text.as_bytes())),
        }
    }
}

impl fmt::Debug for NewBasic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewBasic(redacted)")
    }
}

/// What is compared, by the number of the credential. About 80 bytes each; there are as many as
/// [`super::LIVE_TOKENS_MAX`] and the registry's own limits allow.
#[derive(Default)]
pub(super) struct Basics {
    held: DashMap<u64, BasicRow>,
    /// How many are found by the client id, so that nobody's is digested for nothing.
    by_client_id: AtomicUsize,
    /// How many are found by both.
    by_both: AtomicUsize,
    /// How many ask for a password.
    with_password: AtomicUsize,
}

impl Basics {
    /// Reads all live ones.
    pub(super) fn read(connection: &Connection) -> Result<Basics, StoreError> {
        let basics = Basics::default();
        basic::each_live(connection, |credential, row| basics.hold(credential, row))?;
        Ok(basics)
    }

    /// Keeps what a live credential is compared with; before the index knows the credential.
    pub(super) fn hold(&self, credential: u64, row: BasicRow) {
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

    fn count(&self, row: BasicRow, change: impl Fn(&AtomicUsize)) {
        match Form::from_number(row.form) {
            Form::ClientId => change(&self.by_client_id),
            Form::Both => change(&self.by_both),
            Form::UserName => {}
        }
        if row.password.is_some() {
            change(&self.with_password);
        }
    }

    /// Whether the password that was shown is the one that a credential asks for, if it does.
    fn fits(&self, credential: u64, shown: Option<&Digest>) -> bool {
        // Copied out: the guard is a lock.
        match self.held.get(&credential).map(|row| row.password) {
            Some(Some(wanted)) => shown.is_some_and(|shown| key::equal(shown, &wanted)),
            Some(None) => true,
            // It ended a moment ago.
            None => false,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Registry {
    /// Live MQTT Basic credentials, for metrics.
    #[must_use]
    pub fn basic_credentials(&self) -> usize {
        self.shared().basics.len()
    }

    /// Who shows this at CONNECT, coming from there: an access token as its user name, or MQTT
    /// Basic credentials. Touches memory only; without credentials of that kind it costs what
    /// [`Registry::admit`] costs.
    ///
    /// # Errors
    /// As there.
    pub fn admit_client(&self, shown: Shown<'_>, origin: Origin) -> Result<Principal, NotAdmitted> {
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
            // Both are made, so that it takes as long whichever is found.
            let by_name = shared.key.token_digest(user_name);
            let both = is_used(&shared.basics.by_both)
                .then(|| shared.key.both_digest(shown.client_id, user_name))
                .filter(|digest| shared.index.find(TokenKey::new(digest)).is_some());
            both.unwrap_or(by_name)
        };
        shared.admit(&digest, shown.password, origin)
    }
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
        origin: Origin,
    ) -> Result<Principal, NotAdmitted> {
        let key = TokenKey::new(digest);
        // Before anything is known, so that it takes as long for names that nobody has.
        let password = password
            .filter(|text| (1..=TOKEN_BYTES_MAX).contains(&text.len()))
            .filter(|_| self.basics.with_password.load(Ordering::Acquire) > 0)
            .map(|text| self.key.password_digest(digest, text));
        let entry = self.index.find(key).ok_or(UNKNOWN)?;
        if entry.is_basic && !self.basics.fits(entry.credential, password.as_ref()) {
            return Err(UNKNOWN);
        }
        self.principal(key, entry, origin)
    }
}
