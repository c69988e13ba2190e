//! How users, their tokens and the access keys come and go. Durable on return, each of them.

use std::fmt;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::rand;
use uuid::Uuid;

use super::access_keys::{AccessKey, AccessKeyInfo, AccessKeyName, AccessKeyText};
use super::{Terms, USER_TOKENS_MAX, UserScope, UserScopes, id};
use crate::audit::{Event, What};
use crate::identity::changes::{self, Changed, Ended};
use crate::identity::deeds;
use crate::identity::device::User;
use crate::identity::ends::After;
use crate::identity::index::TokenEntry;
use crate::identity::key::Digest;
use crate::identity::registry::{Shared, now_ms};
use crate::identity::{Change, CredentialKind, IdentityKind, Registry, RegistryError};
use crate::store::devices::{self, DeviceRow};
use crate::store::users::{self, EndedToken, NewToken};
use crate::store::{Connection, Transaction};

/// Expired tokens that one issue clears away: more than it adds, so that they do not pile up.
const CLEARED_AT_ONCE: u32 = 64;

/// What a new token is to be.
#[derive(Clone, Copy, Debug)]
pub struct WantedToken {
    /// What it allows.
    pub scopes: UserScopes,
    /// How long, in seconds. Whoever asks from outside gets whole minutes within
    /// [`super::LIFE_MINUTES`].
    pub life_s: u32,
}

/// A token that was issued. The text is overwritten when it is dropped, as well as safe code can.
pub struct UserToken {
    text: String,
    /// When it ends; seconds since the Unix epoch.
    pub expires_s: u64,
    /// Its credential, which is the token's `jti`.
    pub credential: u64,
}

impl UserToken {
    /// The text. Whoever calls this shows it to its owner, once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl Drop for UserToken {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        bytes.fill(0);
        black_box(&bytes);
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserToken({}, redacted)", self.credential)
    }
}

/// An access key that was made, and what ended with the one before it.
#[derive(Debug)]
pub struct RenewedKey {
    /// What is known of it from now on.
    pub info: AccessKeyInfo,
    /// The key, shown once.
    pub text: AccessKeyText,
    /// For each user who had a token by the old one.
    pub changes: Vec<Change>,
}

/// A token on its way from the transaction to the index.
struct Issued {
    token: UserToken,
    user: Uuid,
    generation: u32,
    digest: Digest,
    terms: Terms,
    cleared: Ended,
}

impl Issued {
    fn told(&self, event: Event) -> Event {
        event
            .number("credential", self.token.credential)
            .text("scopes", &self.terms.scopes.listed())
            .number("expires_ms", self.terms.expires_ms)
    }
}

impl Registry {
    /// Adds a user, with a token if one is wanted. `access_key` is the version of the key that
    /// asked for it.
    ///
    /// # Errors
    /// There are too many users or tokens, the access key was replaced, or the database failed.
    pub fn create_user(
        &self,
        wanted: Option<WantedToken>,
        access_key: u32,
    ) -> Result<(Uuid, Option<UserToken>), RegistryError> {
        let user = Uuid::new_v4();
        let name = self.user_id(user);
        let name_told = name.clone();
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            held.check_room_for(IdentityKind::User)?;
            held.check_issue(transaction, access_key)?;
            let now = now_ms();
            let kind = IdentityKind::User.number();
            let row = devices::insert_identity(transaction, kind, user, &name, now)?;
            let token = wanted.map(|wanted| held.issue(transaction, &row, wanted, access_key, now));
            token.transpose()
        };
        let told = move |issued: &Option<Issued>| {
            let event = deeds::of(What::Created, IdentityKind::User, user, &name_told);
            match issued {
                Some(issued) => issued.told(event),
                None => event,
            }
            .number("access_key", u64::from(access_key))
        };
        let token = self.change(told, work, move |issued, shared| {
            shared.count(IdentityKind::User, 1);
            issued.map(|issued| shared.take_up(issued))
        })?;
        Ok((user, token))
    }

    /// Gives a user one more token; those it has stay.
    ///
    /// # Errors
    /// There is no such user, there are too many tokens, the access key was replaced, or the
    /// database failed.
    pub fn issue_token(
        &self,
        user: Uuid,
        wanted: WantedToken,
        access_key: u32,
    ) -> Result<UserToken, RegistryError> {
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            let row = find(transaction, user)?;
            held.check_issue(transaction, access_key)?;
            held.issue(transaction, &row, wanted, access_key, now_ms())
        };
        let name = self.user_id(user);
        let told = move |issued: &Issued| {
            let event = deeds::of(What::TokenIssued, IdentityKind::User, user, &name);
            issued
                .told(event)
                .number("access_key", u64::from(access_key))
        };
        self.change(told, work, |issued, shared| shared.take_up(issued))
    }

    /// Ends all tokens of a user that were issued so far; the user and its sessions' state stay.
    /// May be repeated, to have the change confirmed again.
    ///
    /// # Errors
    /// There is no such user, or the database failed.
    pub fn revoke_tokens(&self, user: Uuid) -> Result<Change, RegistryError> {
        let work = move |transaction: &Transaction<'_>| {
            let row = find(transaction, user)?;
            let (row, ended) = changes::end_credentials(transaction, row, now_ms())?;
            Ok((row.generation, ended))
        };
        let name = self.user_id(user);
        let told = move |(_, ended): &(u32, Ended)| {
            let event = deeds::of(What::Revoked, IdentityKind::User, user, &name);
            event.numbers("ended", &deeds::numbers(ended))
        };
        self.change(told, work, move |(generation, ended), shared| {
            shared.users.count_revocation(user);
            let changed = Changed {
                shown: (),
                id: user,
                generation,
                ended,
            };
            shared.end(IdentityKind::User, &changed, After::StateStays)
        })
    }

    /// Removes a user with all that belongs to it. `at` is the journal's offset: its records up to
    /// there are dead. May be repeated, to have the change confirmed again.
    ///
    /// # Errors
    /// There never was such a user, or the database failed.
    pub fn delete_user(&self, user: Uuid, at: u64) -> Result<Change, RegistryError> {
        let name = user.to_string();
        let work = move |transaction: &Transaction<'_>| {
            let deleted = changes::delete(transaction, changes::USER, &name, at, now_ms());
            match deleted {
                Ok(changed) => Ok(Some(changed)),
                Err(RegistryError::NotFound { .. }) if users::is_buried(transaction, user)? => {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let known = self.user_id(user);
        let told = move |changed: &Option<Changed<User>>| match changed {
            Some(changed) => deeds::ended(What::Deleted, changes::USER, changed),
            // Confirmed once more: it was gone before.
            None => deeds::of(What::Deleted, IdentityKind::User, user, &known),
        };
        self.change(told, work, move |changed: Option<Changed<User>>, shared| {
            let Some(changed) = changed else {
                return gone(user);
            };
            shared.count(IdentityKind::User, -1);
            let change = shared.end(IdentityKind::User, &changed, After::IdentityGoes);
            shared.users.figures.remove(&user);
            change
        })
    }

    /// Makes an access key. The one with that name before is refused from now on, and the tokens
    /// that it asked for end.
    ///
    /// # Errors
    /// The database failed.
    pub fn renew_access_key(&self, name: AccessKeyName) -> Result<RenewedKey, RegistryError> {
        let text = Arc::new(AccessKeyText::generate());
        let (sealed, held) = (Arc::clone(&text), Arc::clone(self.shared()));
        let work = move |transaction: &Transaction<'_>| {
            let info = AccessKeyInfo {
                name,
                version: users::next_key_version(transaction)?,
                created_ms: now_ms(),
            };
            let (key, row) = AccessKey::sealed(&sealed, info, &held.key);
            let before = users::replace_access_key(transaction, &row)?;
            let ended = before.map(|version| users::end_tokens_of_key(transaction, version));
            Ok((info, key, ended.transpose()?.unwrap_or_default()))
        };
        let told = |(info, _, ended): &(AccessKeyInfo, AccessKey, Vec<EndedToken>)| {
            Event::new(What::AccessKeyRenewed)
                .text("key", info.name.as_str())
                .number("version", u64::from(info.version))
                .number("tokens_ended", ended.len() as u64)
        };
        let (info, changes) = self.change(told, work, |(info, key, ended), shared| {
            let mut keys = shared
                .users
                .keys
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            keys.set(key);
            drop(keys);
            (info, shared.end_tokens(&ended))
        })?;
        // The other holder was the work, which is over.
        let text = Arc::try_unwrap(text)
            .unwrap_or_else(|shared| AccessKeyText::parse(shared.expose()).expect("it is a key"));
        Ok(RenewedKey {
            info,
            text,
            changes,
        })
    }
}

/// What there is to confirm of a user that was deleted before.
fn gone(user: Uuid) -> Change {
    Change {
        identity: user,
        kind: IdentityKind::User,
        generation: u32::MAX,
        credentials_ended: Vec::new(),
        ends_sessions: true,
        drops_state: true,
        expired: false,
    }
}

fn find(connection: &Connection, user: Uuid) -> Result<DeviceRow, RegistryError> {
    changes::find(connection, IdentityKind::User, &user.to_string())
}

impl Shared {
    /// Refuses a token more than there may be, or for a key that is gone.
    fn check_issue(&self, connection: &Connection, access_key: u32) -> Result<(), RegistryError> {
        self.check_audit()?;
        if self.users.terms.len() >= USER_TOKENS_MAX {
            return Err(RegistryError::TokensFull {
                limit: USER_TOKENS_MAX,
            });
        }
        if !users::has_access_key(connection, access_key)? {
            return Err(RegistryError::KeyReplaced);
        }
        Ok(())
    }

    /// Makes a token in the transaction: what it says of the user is what is true there.
    fn issue(
        &self,
        transaction: &Transaction<'_>,
        user: &DeviceRow,
        wanted: WantedToken,
        access_key: u32,
        now_ms: u64,
    ) -> Result<Issued, RegistryError> {
        let cleared = users::remove_expired(transaction, now_ms, CLEARED_AT_ONCE)?;
        let issued_s = now_ms / 1_000;
        let expires_s = issued_s + u64::from(wanted.life_s);
        let new = NewToken {
            kind: CredentialKind::USER_TOKEN,
            created_ms: now_ms,
            expires_ms: expires_s * 1_000,
            scopes: wanted.scopes.bits(),
            access_key,
        };
        let mut placeholder = Digest::default();
        rand::fill(&mut placeholder).expect("without random numbers no token may be made");
        let credential = users::insert_token(transaction, user, &new, &placeholder)?;
        let claims = Claims {
            resource: self.users.resource,
            user: user.id,
            scopes: wanted.scopes,
            issued_s,
            expires_s,
            credential,
            generation: user.generation,
            access_key,
        };
        let text = self.users.signer.sign(&claims.json());
        let digest = self.key.user_digest(&text);
        users::set_digest(transaction, credential, &digest)?;
        let token = UserToken {
            text,
            expires_s,
            credential,
        };
        Ok(Issued {
            token,
            user: user.id,
            generation: user.generation,
            digest,
            terms: Terms {
                expires_ms: new.expires_ms,
                scopes: wanted.scopes,
            },
            cleared,
        })
    }

    /// Makes an issued token known.
    fn take_up(&self, issued: Issued) -> UserToken {
        self.index
            .end(issued.cleared.iter().map(|(_, digest)| digest));
        self.users
            .forget_tokens(issued.cleared.iter().map(|(id, _)| *id));
        let credential = issued.token.credential;
        // The terms first: whoever finds the token finds them too.
        self.users.terms.insert(credential, issued.terms);
        let entry = TokenEntry {
            identity: issued.user,
            credential,
            generation: issued.generation,
            kind: IdentityKind::User.number(),
            expires_s: 0,
            has_terms: false,
            is_basic: false,
            is_watched: false,
        };
        self.index.insert(&issued.digest, entry);
        self.users.figures_of(issued.user).issued();
        let all = UserScope::ALL.into_iter().zip(&self.users.totals.issued);
        for (scope, counter) in all {
            if issued.terms.scopes.has(scope) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        issued.token
    }

    /// Ends tokens whose access key was replaced: a change for each user, whose others stay.
    fn end_tokens(&self, ended: &[EndedToken]) -> Vec<Change> {
        let mut changes = Vec::new();
        for of_user in ended.chunk_by(|a, b| a.user == b.user) {
            let Some(first) = of_user.first() else {
                continue;
            };
            let (user, generation) = (first.user, first.generation);
            self.users
                .forget_tokens(of_user.iter().map(|token| token.id));
            self.index.end(of_user.iter().map(|token| &token.digest));
            changes.push(Change {
                identity: user,
                kind: IdentityKind::User,
                generation,
                credentials_ended: of_user.iter().map(|token| token.id).collect(),
                ends_sessions: true,
                drops_state: false,
                expired: false,
            });
        }
        changes
    }
}

/// What a token says.
struct Claims {
    resource: Uuid,
    user: Uuid,
    scopes: UserScopes,
    issued_s: u64,
    expires_s: u64,
    credential: u64,
    generation: u32,
    access_key: u32,
}

impl Claims {
    /// Numbers, ids and names of scopes: nothing in it needs to be escaped.
    fn json(&self) -> String {
        let sub = id::text(self.resource, self.user);
        let skypeid = sub.strip_prefix("8:").unwrap_or(&sub);
        let resource = self.resource;
        let mut text = String::with_capacity(640);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"iss":"tollgate:{resource}","aud":"tollgate:{resource}","sub":"{sub}","#
        );
        let _ = write!(
            text,
            r#""skypeid":"{skypeid}","scp":1792,"acsScope":"{}","resourceId":"{resource}","#,
            self.scopes.listed()
        );
        let _ = write!(
            text,
            r#""iat":{},"exp":{},"jti":"{}","gen":{},"kv":{}}}"#,
            self.issued_s, self.expires_s, self.credential, self.generation, self.access_key
        );
        text
    }
}
