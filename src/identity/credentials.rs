//! Credentials besides tokens: how they are added, replaced and ended one by one.
//!
//! # Invariants
//! 1. Whatever ends a token ends these too: rotate, revoke, delete, the end of their time. Here
//!    only one of several ends, and with the last one goes what is kept of the identity.
//! 2. Names that ended open no door again with what was shown before: they are free again only for
//!    another password.
//! 3. One that takes the place of another does so in one transaction, and the state of sessions
//!    stays; connections end with the one that they showed.

use std::sync::Arc;

use uuid::Uuid;

use super::basic::NewBasic;
use super::certificate::NewCertificate;
use super::changes::{self, As, ENDED_CREDENTIALS_KEPT};
use super::deeds;
use super::key::{Digest, RegistryKey};
use super::registry::{Shared, now_ms};
use super::{
    Change, CredentialInfo, CredentialKind, IdentityKind, LIVE_TOKENS_MAX, Registry, RegistryError,
    Terms, TermsChange,
};
use crate::store::Transaction;
use crate::store::basic::{self, BasicRow};
use crate::store::certificate;
use crate::store::devices::{self, CredentialRow, DeviceRow, NewCredential};
use crate::store::terms::{self as rows, LiveRow};

/// Of a certificate that is to be bound to another one.
pub(super) const BOUND_TO_ITSELF: &str =
    "is what a token or password can be bound to; a certificate stands for itself";

/// How a credential is added.
#[derive(Clone, Debug, Default)]
pub struct Adding {
    /// Its terms; where it takes the place of another, what is to be different from those of that.
    pub terms: TermsChange,
    /// It may take the place of a live one of the same identity that has the same names.
    pub replaces: bool,
}

/// A credential that was added.
#[derive(Debug)]
pub struct Added {
    /// It, without what it is compared with.
    pub credential: CredentialInfo,
    /// It was not there before.
    pub is_new: bool,
    /// What the broker has to do about the one whose place it took.
    pub change: Option<Change>,
}

/// What a transaction left.
struct Done {
    shown: Vec<CredentialRow>,
    owner: (Uuid, u32),
    name: String,
    id: u64,
    made: Option<LiveRow>,
    replaced: Option<u64>,
}

/// What stands where a credential is to be.
enum Place {
    Free,
    /// The same one.
    Taken(u64),
    /// One that ended and asked for another password.
    Ended(u64),
    /// A live one that it may take the place of.
    Replaced(LiveRow),
}

impl Registry {
    /// Adds MQTT Basic credentials to a device or an application. Durable on return. The same ones
    /// a second time change nothing.
    ///
    /// # Errors
    /// There is no such identity, somebody has or had the names, the terms cannot be, the identity
    /// has too many credentials, or the database failed.
    pub fn add_basic<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        new: &NewBasic,
        how: Adding,
    ) -> Result<Added, RegistryError> {
        let key = self.shared().key.clone();
        let digest = new.digest(&key);
        let (row, names) = (new.row(&key, &digest), new.names());
        let (name_or_id, held) = (name_or_id.to_owned(), Arc::clone(self.shared()));
        let work = move |transaction: &Transaction<'_>| {
            held.check_audit()?;
            let owner = changes::find(transaction, whose.kind, &name_or_id)?;
            let place = place(transaction, &owner, &digest, row, how.replaces)?;
            let new = NewCredential {
                kind: CredentialKind::MQTT_BASIC,
                digest,
                chosen: true,
                created_ms: now_ms(),
                expires_ms: None,
            };
            let done = put(transaction, (whose.kind, &owner), place, (&new, &how), &key)?;
            if let Some(made) = &done.made {
                basic::insert(transaction, made.id, &row, &names)?;
            }
            done.read(transaction, &owner)
        };
        let told = move |done: &Done| {
            let made = done.made.iter();
            let owner = (done.owner.0, &*done.name);
            made.map(|made| {
                deeds::credential_added(whose.kind, owner, made, (row.into(), done.replaced))
            })
            .collect()
        };
        let (shown, is_new, change) = self.change_all(told, work, move |done, shared| {
            let change = done
                .replaced
                .map(|id| shared.replaced(whose.kind, done.owner, id));
            if let Some(made) = &done.made {
                // What it asks for first: whoever finds it finds that too.
                shared.basics.hold(made.id, row);
                shared.ends_too_at(made.expires_ms);
                shared.learn(whose.kind, done.owner, made);
            }
            (done.shown, done.made.is_some(), change)
        })?;
        let shown = CredentialInfo::from_rows(shown).pop();
        Ok(Added {
            credential: shown.ok_or_else(|| invalid("credential", "is gone already"))?,
            is_new,
            change,
        })
    }

    /// Lets a device or an application in with a certificate. Durable on return. The same one a
    /// second time changes nothing.
    ///
    /// # Errors
    /// As [`Registry::add_basic`]; one that ended is not taken again while it is remembered.
    pub fn add_certificate<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        new: NewCertificate,
        how: Adding,
    ) -> Result<Added, RegistryError> {
        let key = self.shared().key.clone();
        let digest = key.certificate_digest(&new.fingerprint.0);
        if matches!(how.terms.certificate, Some(Some(_))) {
            return Err(invalid("certificate", BOUND_TO_ITSELF));
        }
        let (name_or_id, held) = (name_or_id.to_owned(), Arc::clone(self.shared()));
        let work = move |transaction: &Transaction<'_>| {
            held.check_audit()?;
            let owner = changes::find(transaction, whose.kind, &name_or_id)?;
            let place = place_of_certificate(transaction, &owner, &digest)?;
            let credential = NewCredential {
                kind: CredentialKind::CERTIFICATE,
                digest,
                chosen: false,
                created_ms: now_ms(),
                expires_ms: Some(new.ends_ms),
            };
            let done = put(
                transaction,
                (whose.kind, &owner),
                place,
                (&credential, &how),
                &key,
            )?;
            if let Some(made) = &done.made {
                certificate::insert(transaction, made.id, &new.row())?;
            }
            done.read(transaction, &owner)
        };
        let told = move |done: &Done| {
            let owner = (done.owner.0, &*done.name);
            let made = done.made.iter();
            made.map(|made| deeds::certificate_added(whose.kind, owner, made, new.fingerprint))
                .collect()
        };
        let (shown, is_new) = self.change_all(told, work, move |done, shared| {
            if let Some(made) = &done.made {
                shared.ends_too_at(made.expires_ms);
                shared.learn(whose.kind, done.owner, made);
            }
            (done.shown, done.made.is_some())
        })?;
        let shown = CredentialInfo::from_rows(shown).pop();
        Ok(Added {
            credential: shown.ok_or_else(|| invalid("credential", "is gone already"))?,
            is_new,
            change: None,
        })
    }

    /// Ends one credential of a device or an application, of any kind, and its connections; those
    /// of others stay, and what is kept of the identity, until its last one ends. Durable on
    /// return.
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
            let mut live = rows::live(transaction, &row)?;
            let place = live.iter().position(|held| held.id == credential);
            let ended = place.map(|place| live.swap_remove(place));
            let ended = ended.ok_or_else(|| RegistryError::NoCredential {
                kind: whose.kind,
                name: row.name.clone(),
                credential,
            })?;
            rows::end(transaction, credential, now_ms())?;
            devices::forget_ended(transaction, &row, ENDED_CREDENTIALS_KEPT)?;
            let is_live = !live.is_empty();
            if !is_live {
                row.generation = row.generation.saturating_add(1);
                devices::set_generation(transaction, &row, row.generation)?;
                devices::drop_sessions(transaction, row.id)?;
            }
            let owner = (row.id, row.generation);
            let shown = changes::read(transaction, whose, row)?.0;
            Ok((shown, owner, ended.digest, is_live))
        };
        let told = move |(shown, owner, ..): &(T, (Uuid, u32), Digest, bool)| {
            deeds::credential_ended(whose, *owner, shown, credential)
        };
        self.change(
            told,
            work,
            move |(shown, owner, digest, is_live), shared| {
                shared.index.end([&digest]);
                shared.forget_tokens([credential]);
                let change = Change {
                    credentials_ended: vec![credential],
                    ends_sessions: !is_live,
                    drops_state: !is_live,
                    ..Change::of_terms(whose.kind, owner)
                };
                (shown, change)
            },
        )
    }
}

/// Looks what stands in the way; refuses what must not be.
fn place(
    transaction: &Transaction<'_>,
    owner: &DeviceRow,
    digest: &Digest,
    row: BasicRow,
    replaces: bool,
) -> Result<Place, RegistryError> {
    let Some((holder, held)) = devices::owner_of(transaction, digest)? else {
        return Ok(Place::Free);
    };
    let is_own = holder.id == owner.id;
    match (held.revoked_ms, held.basic) {
        (None, Some(asked)) if is_own && asked == row => return Ok(Place::Taken(held.id)),
        (None, Some(_)) if is_own && replaces => {
            let live = rows::live(transaction, owner)?;
            if let Some(live) = live.into_iter().find(|live| live.id == held.id) {
                return Ok(Place::Replaced(live));
            }
        }
        (Some(_), Some(asked)) if asks_for_another(asked, row) => return Ok(Place::Ended(held.id)),
        _ => {}
    }
    Err(RegistryError::NamesTaken {
        kind: IdentityKind::from_number(holder.kind),
        owner: holder.name,
        ended: held.revoked_ms.is_some(),
    })
}

fn place_of_certificate(
    transaction: &Transaction<'_>,
    owner: &DeviceRow,
    digest: &Digest,
) -> Result<Place, RegistryError> {
    match devices::owner_of(transaction, digest)? {
        None => Ok(Place::Free),
        Some((holder, held)) if holder.id == owner.id && held.revoked_ms.is_none() => {
            Ok(Place::Taken(held.id))
        }
        Some((holder, held)) => Err(RegistryError::CertificateTaken {
            kind: IdentityKind::from_number(holder.kind),
            owner: holder.name,
            ended: held.revoked_ms.is_some(),
        }),
    }
}

/// Whether whoever knew what ended knows nothing of the new one.
fn asks_for_another(ended: BasicRow, new: BasicRow) -> bool {
    new.password.is_some() && ended.password.is_some() && ended.password != new.password
}

/// Writes a credential down in its place.
fn put(
    transaction: &Transaction<'_>,
    (kind, owner): (IdentityKind, &DeviceRow),
    place: Place,
    (new, how): (&NewCredential, &Adding),
    key: &RegistryKey,
) -> Result<Done, RegistryError> {
    let mut done = Done {
        shown: Vec::new(),
        owner: (owner.id, owner.generation),
        name: owner.name.clone(),
        id: 0,
        made: None,
        replaced: None,
    };
    let (before, old) = match place {
        Place::Taken(id) => return Ok(Done { id, ..done }),
        Place::Free => (Terms::default(), None),
        Place::Ended(old) => (Terms::default(), Some(old)),
        Place::Replaced(old) => {
            done.replaced = Some(old.id);
            (Terms::from_row(&old.terms, old.expires_ms), Some(old.id))
        }
    };
    let mut terms = how.terms.of(before, kind, new.created_ms)?;
    if let Some(ends_ms) = new.expires_ms {
        terms = terms.until(ends_ms);
    }
    if done.replaced.is_none() {
        check_room(transaction, kind, owner)?;
    }
    if let Some(old) = old {
        rows::end(transaction, old, new.created_ms)?;
        let released = key.released_digest(&new.digest, old);
        devices::set_digest(transaction, old, &released)?;
    }
    let made = changes::add_credential(transaction, owner, new, &terms)?;
    devices::forget_ended(transaction, owner, ENDED_CREDENTIALS_KEPT)?;
    done.id = made.id;
    done.made = Some(made);
    Ok(done)
}

fn check_room(
    transaction: &Transaction<'_>,
    kind: IdentityKind,
    owner: &DeviceRow,
) -> Result<(), RegistryError> {
    if rows::live(transaction, owner)?.len() < LIVE_TOKENS_MAX {
        return Ok(());
    }
    let what = format!(
        "is one too many: {kind} {:?} has {LIVE_TOKENS_MAX} live ones, which is the limit; end one",
        owner.name
    );
    Err(invalid("credential", &what))
}

fn invalid(field: &'static str, what: &str) -> RegistryError {
    let what = what.to_owned();
    RegistryError::Invalid { field, what }
}

impl Done {
    /// With the credential as it stands now.
    fn read(
        mut self,
        transaction: &Transaction<'_>,
        owner: &DeviceRow,
    ) -> Result<Done, RegistryError> {
        self.shown = devices::credentials(transaction, owner)?;
        self.shown.retain(|held| held.id == self.id);
        Ok(self)
    }
}

impl Shared {
    /// Forgets a credential whose place another takes.
    fn replaced(&self, kind: IdentityKind, owner: (Uuid, u32), credential: u64) -> Change {
        self.forget_tokens([credential]);
        Change {
            credentials_ended: vec![credential],
            ..Change::of_terms(kind, owner)
        }
    }
}
