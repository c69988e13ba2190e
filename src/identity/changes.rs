//! What each change of the registry does to the state database. Every function refuses before its
//! first statement that writes, so that a refusal leaves nothing behind.

use uuid::Uuid;

use super::key::Digest;
use super::scope::{self, Owner};
use super::terms::whole_seconds;
use super::{
    Application, Device, DeviceName, DeviceToken, IdentityKind, RegistryError, Scope, ScopeChange,
    Terms, TermsChange, User,
};
use crate::store::devices::{self, CredentialRow, DeviceRow, NewCredential};
use crate::store::scopes::{self, Filters};
use crate::store::terms::{self, LiveRow};
use crate::store::{Connection, Transaction};

/// Ended credentials remembered for each device, so that a token can be told to be revoked and its
/// text is not used again; older ones are forgotten.
pub const ENDED_CREDENTIALS_KEPT: u32 = 16;

/// Credentials that a change ended: id and digest.
pub(super) type Ended = Vec<(u64, Digest)>;

/// A kind of identity, and how one of that kind is read and shown.
#[derive(Debug)]
pub struct As<T> {
    pub(super) kind: IdentityKind,
    read: fn(DeviceRow, &Filters, Vec<CredentialRow>) -> T,
    pub(super) fresh_token: fn() -> DeviceToken,
    pub(super) name: fn(&T) -> &str,
}

impl<T> Clone for As<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for As<T> {}

/// What has an id and a name.
pub trait Identified {
    /// Both of them.
    fn identified(&self) -> (Uuid, &str);
}

impl Identified for Device {
    fn identified(&self) -> (Uuid, &str) {
        (self.id, &self.name)
    }
}

impl Identified for Application {
    fn identified(&self) -> (Uuid, &str) {
        (self.id, &self.name)
    }
}

/// A device.
pub const DEVICE: As<Device> = As {
    kind: IdentityKind::Device,
    read: Device::from_rows,
    fresh_token: DeviceToken::generate,
    name: |device| &device.name,
};

/// An application.
pub const APPLICATION: As<Application> = As {
    kind: IdentityKind::Application,
    read: Application::from_rows,
    fresh_token: DeviceToken::for_application,
    name: |application| &application.name,
};

/// A user of the identity service. Its tokens are made by [`super::Registry::issue_token`] alone.
pub const USER: As<User> = As {
    kind: IdentityKind::User,
    read: User::from_rows,
    fresh_token: DeviceToken::generate,
    name: |user| &user.name,
};

/// What a change left.
pub(super) struct Changed<T> {
    pub(super) shown: T,
    pub(super) id: Uuid,
    pub(super) generation: u32,
    pub(super) ended: Ended,
}

/// What a new identity has from the start.
pub(super) struct Outfit {
    pub(super) scope: Filters,
    pub(super) credential: NewCredential,
    pub(super) terms: Terms,
}

/// Adds an identity with one credential and a scope; returns it with the credential.
pub(super) fn create<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name: &DeviceName,
    outfit: &Outfit,
) -> Result<(T, LiveRow), RegistryError> {
    let new = &outfit.credential;
    if let Some(row) = devices::by_name(transaction, name.as_str())? {
        return Err(RegistryError::NameTaken {
            kind: IdentityKind::from_number(row.kind),
            name: row.name,
        });
    }
    refuse_taken(transaction, &new.digest)?;
    let (id, text, kind) = (Uuid::new_v4(), name.as_str(), whose.kind.number());
    let row = devices::insert_identity(transaction, kind, id, text, new.created_ms)?;
    let credential = add_credential(transaction, &row, new, &outfit.terms)?;
    set_scope(transaction, &row, &outfit.scope)?;
    Ok((read(transaction, whose, row)?.0, credential))
}

/// What a change of a scope left.
pub(super) struct Rescoped<T> {
    pub(super) changed: Changed<T>,
    pub(super) name: String,
    pub(super) filters: Filters,
    /// Whether something is no longer allowed, and so the generation grew.
    pub(super) narrows: bool,
    /// The credentials that go on with the new generation.
    pub(super) live: Vec<LiveRow>,
}

/// Changes the scope of an identity. The generation grows if anything is no longer allowed.
pub(super) fn rescope<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name_or_id: &str,
    change: &ScopeChange,
    has_room: impl FnOnce(&Filters) -> Result<(), RegistryError>,
) -> Result<Rescoped<T>, RegistryError> {
    let mut row = find(transaction, whose.kind, name_or_id)?;
    let before = scopes::of(transaction, &row)?;
    let Scope(filters) = {
        let scope = Scope::changed(&before, whose.kind, change)?;
        scope.check_name(&row.name)?;
        scope
    };
    has_room(&filters)?;
    let owner = Owner {
        id: row.id,
        name: &row.name,
    };
    let permit = |filters| scope::compile(whose.kind, filters, Some(owner));
    let narrows = !permit(&filters).covers(&permit(&before));
    if narrows {
        row.generation = row.generation.saturating_add(1);
        devices::set_generation(transaction, &row, row.generation)?;
    }
    set_scope(transaction, &row, &filters)?;
    Ok(Rescoped {
        live: terms::live(transaction, &row)?,
        name: row.name.clone(),
        changed: changed(transaction, whose, row, Ended::new())?,
        filters,
        narrows,
    })
}

/// An application has a row even if it may do nothing.
fn set_scope(
    transaction: &Transaction<'_>,
    row: &DeviceRow,
    filters: &Filters,
) -> Result<(), RegistryError> {
    if filters.is_empty() && row.kind == devices::DEVICE {
        scopes::remove(transaction, row.number)?;
    } else {
        scopes::set(transaction, row.number, filters)?;
    }
    Ok(())
}

/// Ends all credentials of an identity and adds one; returns also the new one. It has the terms of
/// the one before, but for the changes that are wanted.
pub(super) fn rotate<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name_or_id: &str,
    new: &NewCredential,
    wanted: &TermsChange,
) -> Result<(Changed<T>, LiveRow), RegistryError> {
    let row = find(transaction, whose.kind, name_or_id)?;
    let terms = succession(transaction, whose.kind, &row, new, wanted)?;
    let (row, ended) = end_credentials(transaction, row, new.created_ms)?;
    let live = add_credential(transaction, &row, new, &terms)?;
    Ok((changed(transaction, whose, row, ended)?, live))
}

/// Adds a credential beside those that an identity has, with the terms of the one before, but for
/// the changes that are wanted.
pub(super) fn succeed(
    transaction: &Transaction<'_>,
    kind: IdentityKind,
    row: &DeviceRow,
    new: &NewCredential,
    wanted: &TermsChange,
) -> Result<LiveRow, RegistryError> {
    let terms = succession(transaction, kind, row, new, wanted)?;
    add_credential(transaction, row, new, &terms)
}

/// The terms of a new credential; refuses what cannot be.
fn succession(
    transaction: &Transaction<'_>,
    kind: IdentityKind,
    row: &DeviceRow,
    new: &NewCredential,
    wanted: &TermsChange,
) -> Result<Terms, RegistryError> {
    refuse_taken(transaction, &new.digest)?;
    let mut before = devices::credentials(transaction, row)?;
    // Of another kind, one may allow more than the last token did.
    if before.iter().any(|held| held.kind == new.kind) {
        before.retain(|held| held.kind == new.kind);
    }
    let before = before.last().map(|last| renewed(last, new.created_ms));
    wanted.of(before.unwrap_or_default(), kind, new.created_ms)
}

/// Adds a credential with terms.
pub(super) fn add_credential(
    transaction: &Transaction<'_>,
    row: &DeviceRow,
    new: &NewCredential,
    terms: &Terms,
) -> Result<LiveRow, RegistryError> {
    let new = NewCredential {
        expires_ms: terms.expires_ms,
        ..*new
    };
    let live = LiveRow {
        id: devices::insert_credential(transaction, row, &new)?,
        kind: new.kind,
        digest: new.digest,
        expires_ms: new.expires_ms,
        terms: terms.row(),
        superseded_by: None,
        retires_older: false,
    };
    terms::set(transaction, live.id, &live.terms)?;
    Ok(live)
}

/// The terms of a credential, for the one that comes after it: what it allows and from where, and
/// as long a life, which begins now. So nothing is widened by a rotation.
fn renewed(last: &CredentialRow, now_ms: u64) -> Terms {
    let terms = Terms::from_row(&last.terms, last.expires_ms);
    let began = terms.not_before_ms.unwrap_or(0).max(last.created_ms);
    let life = terms.expires_ms.map(|end| end.saturating_sub(began));
    Terms {
        not_before_ms: None,
        expires_ms: life.map(|life| whole_seconds(now_ms.saturating_add(life))),
        ..terms
    }
}

/// Ends all credentials of an identity and its stored sessions.
pub(super) fn revoke<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name_or_id: &str,
    at_ms: u64,
) -> Result<Changed<T>, RegistryError> {
    let row = find(transaction, whose.kind, name_or_id)?;
    let (row, ended) = end_credentials(transaction, row, at_ms)?;
    devices::drop_sessions(transaction, row.id)?;
    changed(transaction, whose, row, ended)
}

/// Removes an identity with all that belongs to it, and leaves a tombstone.
pub(super) fn delete<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name_or_id: &str,
    at_offset: u64,
    at_ms: u64,
) -> Result<Changed<T>, RegistryError> {
    let row = find(transaction, whose.kind, name_or_id)?;
    let (row, ended) = end_credentials(transaction, row, at_ms)?;
    let changed = changed(transaction, whose, row.clone(), ended)?;
    devices::drop_sessions(transaction, row.id)?;
    devices::bury(transaction, &row, at_offset, at_ms)?;
    Ok(changed)
}

/// The identity that is meant, if it is of that kind.
pub(super) fn find(
    connection: &Connection,
    kind: IdentityKind,
    name_or_id: &str,
) -> Result<DeviceRow, RegistryError> {
    // No name looks like an id (`DeviceName`), so there is one meaning.
    let row = match Uuid::try_parse(name_or_id) {
        Ok(id) => devices::by_id(connection, id)?,
        Err(_) => devices::by_name(connection, name_or_id)?,
    };
    row.filter(|row| row.kind == kind.number())
        .ok_or_else(|| RegistryError::NotFound {
            kind,
            what: format!("{kind} {name_or_id:?}"),
        })
}

/// One identity as it is shown, and about how many bytes that takes.
pub(super) fn read<T>(
    connection: &Connection,
    whose: As<T>,
    row: DeviceRow,
) -> Result<(T, usize), RegistryError> {
    let credentials = devices::credentials(connection, &row)?;
    let scope = scopes::of(connection, &row)?;
    let texts = row.name.len() + row.profile.len() + row.label.len() + scope.bytes();
    let bytes = size_of::<T>() + texts + credentials.len() * size_of::<CredentialRow>();
    Ok(((whose.read)(row, &scope, credentials), bytes))
}

fn changed<T>(
    connection: &Connection,
    whose: As<T>,
    row: DeviceRow,
    ended: Ended,
) -> Result<Changed<T>, RegistryError> {
    Ok(Changed {
        id: row.id,
        generation: row.generation,
        ended,
        shown: read(connection, whose, row)?.0,
    })
}

fn refuse_taken(connection: &Connection, digest: &Digest) -> Result<(), RegistryError> {
    match devices::owner_of(connection, digest)? {
        None => Ok(()),
        Some((device, credential)) => Err(RegistryError::TokenTaken {
            kind: IdentityKind::from_number(device.kind),
            owner: device.name,
            ended: credential.revoked_ms.is_some(),
        }),
    }
}

/// Ends what is live and raises the generation.
pub(super) fn end_credentials(
    transaction: &Transaction<'_>,
    mut row: DeviceRow,
    at_ms: u64,
) -> Result<(DeviceRow, Ended), RegistryError> {
    let ended = devices::end_credentials(transaction, &row, at_ms, ENDED_CREDENTIALS_KEPT)?;
    // Out of reach: four thousand million changes of one device.
    row.generation = row.generation.saturating_add(1);
    devices::set_generation(transaction, &row, row.generation)?;
    Ok((row, ended))
}
