//! Typed reads and writes of the terms of tokens, and of tokens that end by themselves. What terms
//! mean is `identity`'s affair.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::devices::{DeviceRow, device_row};
use super::{StoreError, Unsigned};

/// A row of `terms`; the default one stands for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermsRow {
    /// When it begins to be valid; wall clock, ms.
    pub not_before_ms: Option<u64>,
    /// A bit for each right; all of them without it.
    pub rights: Option<u8>,
    /// Networks that it may be used from, one a line; any without one.
    pub networks: Box<str>,
}

/// A live credential, with what the index in memory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRow {
    /// `credential.id`.
    pub id: u64,
    /// HMAC-SHA-256 under the registry key.
    pub digest: [u8; 32],
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// What else holds for it.
    pub terms: TermsRow,
}

/// A credential whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRow {
    /// The `number` of its identity.
    pub owner: i64,
    /// `credential.id`.
    pub id: u64,
    /// HMAC-SHA-256 under the registry key.
    pub digest: [u8; 32],
}

impl TermsRow {
    /// Whether there is nothing to write down.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == TermsRow::default()
    }

    /// The columns of `terms` from place `at` on, where a row may be missing.
    pub(super) fn from_columns(row: &Row<'_>, at: usize) -> rusqlite::Result<TermsRow> {
        let networks: Option<Box<str>> = row.get(at + 2)?;
        Ok(TermsRow {
            not_before_ms: row.get::<_, Option<Unsigned>>(at)?.map(|at| at.0),
            rights: row.get(at + 1)?,
            networks: networks.unwrap_or_default(),
        })
    }
}

impl LiveRow {
    /// The columns id, digest, `expires_ms` and those of `terms` from place `at` on.
    pub(super) fn from_columns(row: &Row<'_>, at: usize) -> rusqlite::Result<LiveRow> {
        Ok(LiveRow {
            id: row.get::<_, Unsigned>(at)?.0,
            digest: row.get(at + 1)?,
            expires_ms: row.get::<_, Option<Unsigned>>(at + 2)?.map(|at| at.0),
            terms: TermsRow::from_columns(row, at + 3)?,
        })
    }
}

/// Notes the terms of a credential in place of those it had.
///
/// # Errors
/// That the database could not be read or written; so for every function here.
pub fn set(connection: &Connection, credential: u64, terms: &TermsRow) -> Result<(), StoreError> {
    let id = Unsigned(credential);
    if terms.is_none() {
        let sql = "DELETE FROM terms WHERE credential = ?1";
        connection.prepare_cached(sql)?.execute([id])?;
        return Ok(());
    }
    let sql = "INSERT OR REPLACE INTO terms (credential, not_before_ms, rights, networks)
               VALUES (?1, ?2, ?3, ?4)";
    let not_before_ms = terms.not_before_ms.map(Unsigned);
    let values = params![id, not_before_ms, terms.rights, &*terms.networks];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Sets when a credential ends by itself.
pub fn set_expiry(
    connection: &Connection,
    credential: u64,
    expires_ms: Option<u64>,
) -> Result<(), StoreError> {
    let sql = "UPDATE credential SET expires_ms = ?2 WHERE id = ?1";
    let values = params![Unsigned(credential), expires_ms.map(Unsigned)];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The live credentials of an identity, oldest first.
pub fn live(connection: &Connection, identity: &DeviceRow) -> Result<Vec<LiveRow>, StoreError> {
    let sql = "SELECT c.id, c.digest, c.expires_ms, t.not_before_ms, t.rights, t.networks
               FROM credential AS c LEFT JOIN terms AS t ON t.credential = c.id
               WHERE c.device = ?1 AND c.revoked_ms IS NULL ORDER BY c.id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([identity.number], |row| LiveRow::from_columns(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the next credential ends by itself, those of users left out; wall clock, ms.
pub fn next_end(connection: &Connection) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT min(expires_ms) FROM credential
               WHERE expires_ms IS NOT NULL AND kind <> 2 AND revoked_ms IS NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let found: Option<Unsigned> = statement.query_row([], |row| row.get(0))?;
    Ok(found.map(|at| at.0))
}

/// Ends up to `most` credentials whose time is over at `at_ms`, those of users left out, the
/// longest over first. Sorted by owner.
pub fn end_due(
    connection: &Connection,
    at_ms: u64,
    most: u32,
) -> Result<Vec<EndedRow>, StoreError> {
    let sql = "UPDATE credential SET revoked_ms = expires_ms WHERE id IN (
                   SELECT id FROM credential
                   WHERE expires_ms IS NOT NULL AND kind <> 2 AND revoked_ms IS NULL
                     AND expires_ms <= ?1
                   ORDER BY expires_ms LIMIT ?2)
               RETURNING device, id, digest";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![Unsigned(at_ms), most], |row| {
        Ok(EndedRow {
            owner: row.get(0)?,
            id: row.get::<_, Unsigned>(1)?.0,
            digest: row.get(2)?,
        })
    })?;
    let mut ended = rows.collect::<Result<Vec<_>, _>>()?;
    ended.sort_unstable_by_key(|row| (row.owner, row.id));
    Ok(ended)
}

/// An identity by its number, and whether it has a live credential.
pub fn owner(
    connection: &Connection,
    number: i64,
) -> Result<Option<(DeviceRow, bool)>, StoreError> {
    let sql = "SELECT number, id, name, created_ms, generation, profile, label, kind, EXISTS (
                   SELECT 1 FROM credential AS c
                   WHERE c.device = device.number AND c.revoked_ms IS NULL)
               FROM device WHERE number = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([number], |row| Ok((device_row(row)?, row.get(8)?)));
    Ok(found.optional()?)
}
