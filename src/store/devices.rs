//! Typed reads and writes of devices, their credentials, tombstones and the `meta` table. What
//! they mean, and which of them belong together, is `identity`'s affair.

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::basic::{self, BasicRow, NamesRow};
use super::certificate::{self, CertificateRow};
use super::terms::TermsRow;
use super::{StoreError, Unsigned, sessions, suspects};

/// A row of `device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The key that other tables of the database use; never shown.
    pub number: i64,
    /// The id that the world uses.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Grows with every narrowing; 1 at first.
    pub generation: u32,
    /// Name of its device profile.
    pub profile: String,
    /// For people; may be empty.
    pub label: String,
    /// [`DEVICE`], [`APPLICATION`], [`USER`], or what a newer version added.
    pub kind: u8,
}

/// The kind of a credential of MQTT Basic.
pub const BASIC: u8 = 3;

/// The kind of a credential that is a client's certificate.
pub const CERTIFICATE: u8 = 4;

/// The kind of a device.
pub const DEVICE: u8 = 0;

/// The kind of an application.
pub const APPLICATION: u8 = 1;

/// The kind of a user of the identity service.
pub const USER: u8 = 2;

/// A row of `credential` without its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRow {
    /// Never reused.
    pub id: u64,
    /// Meaning given by `identity`.
    pub kind: u8,
    /// Whether a person chose the text.
    pub chosen: bool,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Wall clock, ms; `None` while it is live.
    pub revoked_ms: Option<u64>,
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// What else holds for it.
    pub terms: TermsRow,
    /// Another took its place.
    pub superseded_by: Option<u64>,
    /// When it is first used, those it took the place of end.
    pub retires_older: bool,
    /// What it is compared with, if it is of MQTT Basic.
    pub basic: Option<BasicRow>,
    /// Its names, where they may be shown.
    pub names: NamesRow,
    /// What it stands for, if it is a certificate.
    pub certificate: Option<CertificateRow>,
}

/// What a new credential consists of; its terms come after it.
#[derive(Clone, Copy, Debug)]
pub struct NewCredential {
    /// Meaning given by `identity`.
    pub kind: u8,
    /// HMAC-SHA-256 under the registry key.
    pub digest: [u8; 32],
    /// Whether a person chose the text.
    pub chosen: bool,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
}

/// The device with this id.
///
/// # Errors
/// That the database could not be read; so for every function here.
pub fn by_id(connection: &Connection, id: Uuid) -> Result<Option<DeviceRow>, StoreError> {
    let sql = "SELECT number, id, name, created_ms, generation, profile, label, kind
               FROM device WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement
        .query_row([id.as_bytes()], device_row)
        .optional()?)
}

/// The device with this name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<DeviceRow>, StoreError> {
    let sql = "SELECT number, id, name, created_ms, generation, profile, label, kind
               FROM device WHERE name = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([name], device_row).optional()?)
}

/// Up to `limit` identities of one kind whose names come after `after`, by name, in byte order.
pub fn page(
    connection: &Connection,
    kind: u8,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<DeviceRow>, StoreError> {
    // Every name is longer than "", so that nothing is left out when there is no `after`.
    let sql = "SELECT number, id, name, created_ms, generation, profile, label, kind FROM device
               WHERE name > ?1 AND kind = ?3 ORDER BY name LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after.unwrap_or(""), limit, kind], device_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The credentials of a device, live and ended, oldest first.
pub fn credentials(
    connection: &Connection,
    device: &DeviceRow,
) -> Result<Vec<CredentialRow>, StoreError> {
    let sql = "SELECT c.id, c.kind, c.chosen, c.created_ms, c.revoked_ms, c.expires_ms,
                      c.superseded_by, c.retires_older,
                      t.not_before_ms, t.rights, t.networks, t.connections_max, t.messages_max,
                      t.certificate
               FROM credential AS c LEFT JOIN terms AS t ON t.credential = c.id
               WHERE c.device = ?1 ORDER BY c.id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([device.number], credential_row)?;
    let mut credentials = rows.collect::<Result<Vec<_>, _>>()?;
    for credential in &mut credentials {
        read_more(connection, credential)?;
    }
    Ok(credentials)
}

/// Whose credential has this digest, live or ended.
pub fn owner_of(
    connection: &Connection,
    digest: &[u8; 32],
) -> Result<Option<(DeviceRow, CredentialRow)>, StoreError> {
    let sql = "SELECT c.id, c.kind, c.chosen, c.created_ms, c.revoked_ms, c.expires_ms,
                      c.superseded_by, c.retires_older,
                      t.not_before_ms, t.rights, t.networks, t.connections_max, t.messages_max,
                      t.certificate, c.device
               FROM credential AS c LEFT JOIN terms AS t ON t.credential = c.id
               WHERE c.digest = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row([digest], |row| {
            Ok((credential_row(row)?, row.get::<_, i64>(14)?))
        })
        .optional()?;
    let Some((mut credential, number)) = found else {
        return Ok(None);
    };
    read_more(connection, &mut credential)?;
    let sql = "SELECT number, id, name, created_ms, generation, profile, label, kind
               FROM device WHERE number = ?1";
    let device = connection
        .prepare_cached(sql)?
        .query_row([number], device_row)?;
    Ok(Some((device, credential)))
}

/// Adds a device of generation 1 without credentials.
pub fn insert(
    connection: &Connection,
    id: Uuid,
    name: &str,
    created_ms: u64,
) -> Result<DeviceRow, StoreError> {
    insert_identity(connection, DEVICE, id, name, created_ms)
}

/// Adds an identity of generation 1 without credentials.
pub fn insert_identity(
    connection: &Connection,
    kind: u8,
    id: Uuid,
    name: &str,
    created_ms: u64,
) -> Result<DeviceRow, StoreError> {
    let sql = "INSERT INTO device (id, name, created_ms, generation, kind)
               VALUES (?1, ?2, ?3, 1, ?4)
                RETURNING number, id, name, created_ms, generation, profile, label, kind";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![id.as_bytes(), name, Unsigned(created_ms), kind];
    Ok(statement.query_row(values, device_row)?)
}

/// Adds a live credential and returns its id.
pub fn insert_credential(
    connection: &Connection,
    device: &DeviceRow,
    new: &NewCredential,
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO credential (device, kind, digest, chosen, created_ms, expires_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
    let (created_ms, expires_ms) = (Unsigned(new.created_ms), new.expires_ms.map(Unsigned));
    let NewCredential {
        kind,
        digest,
        chosen,
        ..
    } = new;
    let values = params![device.number, kind, digest, chosen, created_ms, expires_ms];
    let id: Unsigned = connection
        .prepare_cached(sql)?
        .query_row(values, |row| row.get(0))?;
    Ok(id.0)
}

/// Ends every live credential of a device; returns ids and digests of those it ended, and forgets
/// the oldest ended ones so that at most `kept` stay.
pub fn end_credentials(
    connection: &Connection,
    device: &DeviceRow,
    at_ms: u64,
    kept: u32,
) -> Result<Vec<(u64, [u8; 32])>, StoreError> {
    let sql = "UPDATE credential SET revoked_ms = ?2
               WHERE device = ?1 AND revoked_ms IS NULL RETURNING id, digest";
    let mut ended = Vec::new();
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![device.number, Unsigned(at_ms)])?;
    while let Some(row) = rows.next()? {
        ended.push((row.get::<_, Unsigned>(0)?.0, row.get(1)?));
    }
    forget_ended(connection, device, kept)?;
    ended.sort_unstable();
    Ok(ended)
}

/// Gives a credential that ended another digest, so that somebody may have what it was found by.
pub fn set_digest(
    connection: &Connection,
    credential: u64,
    digest: &[u8; 32],
) -> Result<(), StoreError> {
    let sql = "UPDATE credential SET digest = ?2 WHERE id = ?1";
    let values = params![Unsigned(credential), digest];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Forgets the oldest ended credentials of a device, so that at most `kept` stay.
pub fn forget_ended(
    connection: &Connection,
    device: &DeviceRow,
    kept: u32,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM credential WHERE id IN (
                   SELECT id FROM credential WHERE device = ?1 AND revoked_ms IS NOT NULL
                   ORDER BY id DESC LIMIT -1 OFFSET ?2)";
    let values = params![device.number, kept];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Sets the generation of a device.
pub fn set_generation(
    connection: &Connection,
    device: &DeviceRow,
    generation: u32,
) -> Result<(), StoreError> {
    let sql = "UPDATE device SET generation = ?2 WHERE number = ?1";
    connection
        .prepare_cached(sql)?
        .execute(params![device.number, generation])?;
    Ok(())
}

/// Removes what is kept of the identity's state: sessions with their queues and wills, retained
/// messages. What the journal says of it with an earlier generation than the present one never
/// comes back (SEC-34, SEC-35).
pub fn drop_sessions(connection: &Connection, device: Uuid) -> Result<(), StoreError> {
    let id = device.as_bytes();
    let sql = "UPDATE device SET state_generation = generation WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([id])?;
    let sql = "SELECT number FROM session WHERE device = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let numbers = statement.query_map([id], |row| row.get(0))?;
    for number in numbers.collect::<rusqlite::Result<Vec<u32>>>()? {
        sessions::end(connection, number)?;
    }
    let sql = "DELETE FROM retained WHERE publisher = ?1";
    connection.prepare_cached(sql)?.execute([id])?;
    Ok(())
}

/// The first generation of an identity whose state counts; `None` if it has no live credential,
/// or is not there: then nothing of it counts. A user keeps its state between two tokens.
pub fn state_generation(
    connection: &Connection,
    identity: Uuid,
) -> Result<Option<u32>, StoreError> {
    let sql = "SELECT state_generation FROM device WHERE id = ?1 AND (kind = ?2 OR EXISTS (
                   SELECT 1 FROM credential AS c
                   WHERE c.device = device.number AND c.revoked_ms IS NULL))";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![identity.as_bytes(), USER];
    Ok(statement.query_row(values, |row| row.get(0)).optional()?)
}

/// Whether this credential of an identity is live.
pub fn is_credential_live(
    connection: &Connection,
    identity: Uuid,
    credential: u64,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (
                   SELECT 1 FROM credential AS c JOIN device AS d ON d.number = c.device
                   WHERE c.id = ?2 AND d.id = ?1 AND c.revoked_ms IS NULL)";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![identity.as_bytes(), Unsigned(credential)];
    Ok(statement.query_row(values, |row| row.get(0))?)
}

/// Removes a device with its credentials and writes its tombstone: journal records of it up to
/// `offset` are dead.
pub fn bury(
    connection: &Connection,
    device: &DeviceRow,
    offset: u64,
    deleted_ms: u64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM device WHERE number = ?1";
    connection.prepare_cached(sql)?.execute([device.number])?;
    suspects::forget(connection, device.id)?;
    let sql = "INSERT INTO tombstone (device, offset, deleted_ms, kind) VALUES (?1, ?2, ?3, ?4)";
    let (id, offset, deleted_ms) = (device.id.as_bytes(), Unsigned(offset), Unsigned(deleted_ms));
    let values = params![id, offset, deleted_ms, device.kind];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Every tombstone of those that could send telemetry: device and journal offset.
pub fn tombstones(connection: &Connection) -> Result<Vec<(Uuid, u64)>, StoreError> {
    let mut statement =
        connection.prepare("SELECT device, offset FROM tombstone WHERE kind <> ?1")?;
    let rows = statement.query_map([USER], |row| {
        Ok((Uuid::from_bytes(row.get(0)?), row.get::<_, Unsigned>(1)?.0))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A value of the `meta` table.
pub fn meta(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    Ok(connection
        .query_row(sql, [name], |row| row.get(0))
        .optional()?)
}

/// Sets a value of the `meta` table.
pub fn set_meta(connection: &Connection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
    connection.execute(sql, params![name, value])?;
    Ok(())
}

pub(super) fn device_row(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    Ok(DeviceRow {
        number: row.get(0)?,
        id: Uuid::from_bytes(row.get(1)?),
        name: row.get(2)?,
        created_ms: row.get::<_, Unsigned>(3)?.0,
        generation: row.get(4)?,
        profile: row.get(5)?,
        label: row.get(6)?,
        kind: row.get(7)?,
    })
}

/// What stands in the table of its kind.
fn read_more(connection: &Connection, credential: &mut CredentialRow) -> Result<(), StoreError> {
    match credential.kind {
        BASIC => {
            credential.basic = basic::of(connection, credential.id)?;
            credential.names = basic::names_of(connection, credential.id)?;
        }
        CERTIFICATE => credential.certificate = certificate::of(connection, credential.id)?,
        _ => {}
    }
    Ok(())
}

fn credential_row(row: &Row<'_>) -> rusqlite::Result<CredentialRow> {
    Ok(CredentialRow {
        id: row.get::<_, Unsigned>(0)?.0,
        kind: row.get(1)?,
        chosen: row.get(2)?,
        created_ms: row.get::<_, Unsigned>(3)?.0,
        revoked_ms: row.get::<_, Option<Unsigned>>(4)?.map(|at| at.0),
        expires_ms: row.get::<_, Option<Unsigned>>(5)?.map(|at| at.0),
        superseded_by: row.get::<_, Option<Unsigned>>(6)?.map(|id| id.0),
        retires_older: row.get(7)?,
        terms: TermsRow::from_columns(row, 8)?,
        basic: None,
        names: NamesRow::default(),
        certificate: None,
    })
}
