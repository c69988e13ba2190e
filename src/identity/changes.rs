//! What each change of the registry does to the state database. Every function refuses before its
//! first statement that writes, so that a refusal leaves nothing behind.

use uuid::Uuid;

use super::key::Digest;
use super::{Application, Device, DeviceName, IdentityKind, RegistryError};
use crate::store::applications::{self, Filters};
use crate::store::devices::{self, DeviceRow, NewCredential};
use crate::store::{Connection, Transaction};

/// Ended credentials remembered for each device, so that a token can be told to be revoked and its
/// text is not used again; older ones are forgotten.
pub const ENDED_CREDENTIALS_KEPT: u32 = 16;

/// Credentials that a change ended: id and digest.
pub(super) type Ended = Vec<(u64, Digest)>;

/// A kind of identity, and how one of that kind is read and shown.
pub(super) struct As<T> {
    pub(super) kind: IdentityKind,
    read: fn(&Connection, DeviceRow) -> Result<T, RegistryError>,
}

impl<T> Clone for As<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for As<T> {}

/// A device.
pub(super) const DEVICE: As<Device> = As {
    kind: IdentityKind::Device,
    read: read_device,
};

/// An application.
pub(super) const APPLICATION: As<Application> = As {
    kind: IdentityKind::Application,
    read: read_application,
};

/// What a change left.
pub(super) struct Changed<T> {
    pub(super) shown: T,
    pub(super) id: Uuid,
    pub(super) generation: u32,
    pub(super) ended: Ended,
}

/// Adds a device with one credential; returns it with the credential's id.
pub(super) fn create(
    transaction: &Transaction<'_>,
    name: &DeviceName,
    new: &NewCredential,
) -> Result<(Device, u64), RegistryError> {
    let (row, credential) = insert(transaction, IdentityKind::Device, name, new)?;
    Ok((read_device(transaction, row)?, credential))
}

/// Adds an application with one credential; returns it with the credential's id.
pub(super) fn create_application(
    transaction: &Transaction<'_>,
    name: &DeviceName,
    filters: &Filters,
    new: &NewCredential,
) -> Result<(Application, u64), RegistryError> {
    let (row, credential) = insert(transaction, IdentityKind::Application, name, new)?;
    applications::insert(transaction, &row, filters)?;
    Ok((read_application(transaction, row)?, credential))
}

/// Ends all credentials of an identity and adds one; returns also the new one's id.
pub(super) fn rotate<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    name_or_id: &str,
    new: &NewCredential,
) -> Result<(Changed<T>, u64), RegistryError> {
    let row = find(transaction, whose.kind, name_or_id)?;
    refuse_taken(transaction, &new.digest)?;
    let (row, ended) = end_credentials(transaction, row, new.created_ms)?;
    let credential = devices::insert_credential(transaction, &row, new)?;
    Ok((changed(transaction, whose, row, ended)?, credential))
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

/// One identity as it is shown.
pub(super) fn read<T>(
    connection: &Connection,
    whose: As<T>,
    row: DeviceRow,
) -> Result<T, RegistryError> {
    (whose.read)(connection, row)
}

fn read_device(connection: &Connection, row: DeviceRow) -> Result<Device, RegistryError> {
    let credentials = devices::credentials(connection, &row)?;
    Ok(Device::from_rows(row, credentials))
}

fn read_application(connection: &Connection, row: DeviceRow) -> Result<Application, RegistryError> {
    let credentials = devices::credentials(connection, &row)?;
    let filters = applications::filters(connection, &row)?;
    Ok(Application {
        publish: filters.publish,
        subscribe: filters.subscribe,
        identity: Device::from_rows(row, credentials),
    })
}

fn insert(
    transaction: &Transaction<'_>,
    kind: IdentityKind,
    name: &DeviceName,
    new: &NewCredential,
) -> Result<(DeviceRow, u64), RegistryError> {
    if let Some(row) = devices::by_name(transaction, name.as_str())? {
        return Err(RegistryError::NameTaken {
            kind: IdentityKind::from_number(row.kind),
            name: row.name,
        });
    }
    refuse_taken(transaction, &new.digest)?;
    let (id, text) = (Uuid::new_v4(), name.as_str());
    let row = devices::insert_identity(transaction, kind.number(), id, text, new.created_ms)?;
    let credential = devices::insert_credential(transaction, &row, new)?;
    Ok((row, credential))
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
        shown: read(connection, whose, row)?,
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
fn end_credentials(
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
