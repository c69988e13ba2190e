//! What each change of the registry does to the state database. Every function refuses before its
//! first statement that writes, so that a refusal leaves nothing behind.

use uuid::Uuid;

use super::key::Digest;
use super::{Device, DeviceName, RegistryError};
use crate::store::devices::{self, DeviceRow, NewCredential};
use crate::store::{Connection, Transaction};

/// Ended credentials remembered for each device, so that a token can be told to be revoked and its
/// text is not used again; older ones are forgotten.
pub const ENDED_CREDENTIALS_KEPT: u32 = 16;

/// Credentials that a change ended: id and digest.
pub(super) type Ended = Vec<(u64, Digest)>;

/// Adds a device with one credential; returns it with the credential's id.
pub(super) fn create(
    transaction: &Transaction<'_>,
    name: &DeviceName,
    new: &NewCredential,
) -> Result<(Device, u64), RegistryError> {
    if devices::by_name(transaction, name.as_str())?.is_some() {
        return Err(RegistryError::NameTaken {
            name: name.as_str().to_owned(),
        });
    }
    refuse_taken(transaction, &new.digest)?;
    let row = devices::insert(transaction, Uuid::new_v4(), name.as_str(), new.created_ms)?;
    let credential = devices::insert_credential(transaction, &row, new)?;
    Ok((read(transaction, row)?, credential))
}

/// Ends all credentials of a device and adds one; returns also the new one's id.
pub(super) fn rotate(
    transaction: &Transaction<'_>,
    name_or_id: &str,
    new: &NewCredential,
) -> Result<(Device, Ended, u64), RegistryError> {
    let row = find(transaction, name_or_id)?;
    refuse_taken(transaction, &new.digest)?;
    let (row, ended) = end_credentials(transaction, row, new.created_ms)?;
    let credential = devices::insert_credential(transaction, &row, new)?;
    Ok((read(transaction, row)?, ended, credential))
}

/// Ends all credentials of a device and its stored sessions.
pub(super) fn revoke(
    transaction: &Transaction<'_>,
    name_or_id: &str,
    at_ms: u64,
) -> Result<(Device, Ended), RegistryError> {
    let row = find(transaction, name_or_id)?;
    let (row, ended) = end_credentials(transaction, row, at_ms)?;
    devices::drop_sessions(transaction, row.id)?;
    Ok((read(transaction, row)?, ended))
}

/// Removes a device with all that belongs to it, and leaves a tombstone.
pub(super) fn delete(
    transaction: &Transaction<'_>,
    name_or_id: &str,
    at_offset: u64,
    at_ms: u64,
) -> Result<(Device, Ended), RegistryError> {
    let row = find(transaction, name_or_id)?;
    let (row, ended) = end_credentials(transaction, row, at_ms)?;
    let device = read(transaction, row.clone())?;
    devices::drop_sessions(transaction, row.id)?;
    devices::bury(transaction, &row, at_offset, at_ms)?;
    Ok((device, ended))
}

/// The device that is meant.
pub(super) fn find(connection: &Connection, name_or_id: &str) -> Result<DeviceRow, RegistryError> {
    // No name looks like an id (`DeviceName`), so there is one meaning.
    let row = match Uuid::try_parse(name_or_id) {
        Ok(id) => devices::by_id(connection, id)?,
        Err(_) => devices::by_name(connection, name_or_id)?,
    };
    row.ok_or_else(|| RegistryError::NotFound {
        what: format!("device {name_or_id:?}"),
    })
}

/// The device with its credentials.
pub(super) fn read(connection: &Connection, row: DeviceRow) -> Result<Device, RegistryError> {
    let credentials = devices::credentials(connection, &row)?;
    Ok(Device::from_rows(row, credentials))
}

fn refuse_taken(connection: &Connection, digest: &Digest) -> Result<(), RegistryError> {
    match devices::owner_of(connection, digest)? {
        None => Ok(()),
        Some((device, credential)) => Err(RegistryError::TokenTaken {
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
