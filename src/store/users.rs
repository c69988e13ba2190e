//! Typed reads and writes of what the identity service keeps: its users' tokens and the access
//! keys that requests are signed with. Users themselves are rows like devices
//! ([`super::devices`]); what scopes and keys mean is `identity`'s affair.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::devices::{DeviceRow, USER};
use super::{StoreError, Unsigned};

/// What a new token of a user consists of; its text depends on its id.
#[derive(Clone, Copy, Debug)]
pub struct NewToken {
    /// Meaning given by `identity`.
    pub kind: u8,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Wall clock, ms.
    pub expires_ms: u64,
    /// A bit for each scope.
    pub scopes: u8,
    /// Version of the access key that asked for it.
    pub access_key: u32,
}

/// What a live token of a user allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTerms {
    /// Its credential.
    pub id: u64,
    /// Wall clock, ms.
    pub expires_ms: u64,
    /// A bit for each scope.
    pub scopes: u8,
}

/// A credential that went: id and digest.
pub type Gone = (u64, [u8; 32]);

/// A token that ended with its access key.
#[derive(Clone, Copy, Debug)]
pub struct EndedToken {
    /// Whose it was.
    pub user: Uuid,
    /// The user's generation.
    pub generation: u32,
    /// Its credential.
    pub id: u64,
    /// HMAC-SHA-256 under the registry key.
    pub digest: [u8; 32],
}

/// A row of `access_key`.
#[derive(Clone, Debug)]
pub struct AccessKeyRow {
    /// 0 is the primary one, 1 the secondary.
    pub name: u8,
    /// Never used for another key.
    pub version: u32,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// The key, sealed.
    pub sealed: Vec<u8>,
}

/// Adds a live token and returns its id. `digest` stands in until [`set_digest`].
///
/// # Errors
/// That the database could not be read or written; so for every function here.
pub fn insert_token(
    connection: &Connection,
    user: &DeviceRow,
    new: &NewToken,
    digest: &[u8; 32],
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO credential
                   (device, kind, digest, chosen, created_ms, expires_ms, scopes, access_key)
               VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7) RETURNING id";
    let values = params![
        user.number,
        new.kind,
        digest,
        Unsigned(new.created_ms),
        Unsigned(new.expires_ms),
        new.scopes,
        new.access_key
    ];
    let id: Unsigned = connection
        .prepare_cached(sql)?
        .query_row(values, |row| row.get(0))?;
    Ok(id.0)
}

/// Sets the digest of a token whose text is known now.
pub fn set_digest(connection: &Connection, id: u64, digest: &[u8; 32]) -> Result<(), StoreError> {
    let sql = "UPDATE credential SET digest = ?2 WHERE id = ?1";
    connection
        .prepare_cached(sql)?
        .execute(params![Unsigned(id), digest])?;
    Ok(())
}

/// Visits the terms of every live token of a user.
pub fn each_terms(
    connection: &Connection,
    mut visit: impl FnMut(TokenTerms),
) -> Result<(), StoreError> {
    let sql = "SELECT id, expires_ms, scopes FROM credential
               WHERE expires_ms IS NOT NULL AND kind = 2 AND revoked_ms IS NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(TokenTerms {
            id: row.get::<_, Unsigned>(0)?.0,
            expires_ms: row.get::<_, Unsigned>(1)?.0,
            scopes: row.get(2)?,
        });
    }
    Ok(())
}

/// Removes up to `most` tokens that expired before `at_ms`, the longest expired first.
pub fn remove_expired(
    connection: &Connection,
    at_ms: u64,
    most: u32,
) -> Result<Vec<Gone>, StoreError> {
    let sql = "DELETE FROM credential WHERE id IN (
                   SELECT id FROM credential
                   WHERE expires_ms IS NOT NULL AND kind = 2 AND expires_ms <= ?1
                   ORDER BY expires_ms LIMIT ?2)
               RETURNING id, digest";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![Unsigned(at_ms), most], |row| {
        Ok((row.get::<_, Unsigned>(0)?.0, row.get(1)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a user with this id was deleted.
pub fn is_buried(connection: &Connection, id: Uuid) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM tombstone WHERE device = ?1 AND kind = ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![id.as_bytes(), USER], |row| row.get(0))?)
}

/// The access keys in use.
pub fn access_keys(connection: &Connection) -> Result<Vec<AccessKeyRow>, StoreError> {
    let sql = "SELECT name, version, created_ms, sealed FROM access_key ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(AccessKeyRow {
            name: row.get(0)?,
            version: row.get(1)?,
            created_ms: row.get::<_, Unsigned>(2)?.0,
            sealed: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether the access key of this version is in use.
pub fn has_access_key(connection: &Connection, version: u32) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM access_key WHERE version = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([version], |row| row.get(0))?)
}

/// The version that the next access key gets: above all there are and all there were, as a key is
/// only ever replaced by a newer one.
pub fn next_key_version(connection: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT coalesce(max(version), 0) + 1 FROM access_key";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Puts an access key in the place of the one with its name; answers the version that is gone.
pub fn replace_access_key(
    connection: &Connection,
    row: &AccessKeyRow,
) -> Result<Option<u32>, StoreError> {
    let sql = "SELECT version FROM access_key WHERE name = ?1";
    let before = connection
        .query_row(sql, [row.name], |found| found.get(0))
        .optional()?;
    let sql = "INSERT OR REPLACE INTO access_key (name, version, created_ms, sealed)
               VALUES (?1, ?2, ?3, ?4)";
    let values = params![row.name, row.version, Unsigned(row.created_ms), row.sealed];
    connection.execute(sql, values)?;
    Ok(before)
}

/// Removes every token that an access key of this version asked for.
pub fn end_tokens_of_key(
    connection: &Connection,
    version: u32,
) -> Result<Vec<EndedToken>, StoreError> {
    let sql = "SELECT d.id, d.generation, c.id, c.digest
               FROM credential AS c JOIN device AS d ON d.number = c.device
               WHERE c.access_key = ?1 AND c.revoked_ms IS NULL ORDER BY d.id";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([version], |row| {
        Ok(EndedToken {
            user: Uuid::from_bytes(row.get(0)?),
            generation: row.get(1)?,
            id: row.get::<_, Unsigned>(2)?.0,
            digest: row.get(3)?,
        })
    })?;
    let ended = rows.collect::<Result<Vec<_>, _>>()?;
    connection.execute("DELETE FROM credential WHERE access_key = ?1", [version])?;
    Ok(ended)
}
