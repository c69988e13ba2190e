//! What the audit is to tell of changes, kept in the transaction of each change until the audit's
//! own file has it.
//!
//! # Invariants
//! 1. A row is committed with the change that it tells of, or not at all.
//! 2. Rows are numbered in the order of the commits; no number is used twice.
//! 3. A row goes when its number is known to be on disk in the audit's file, with a later change.

use rusqlite::{Connection, OptionalExtension, params};

use super::devices;
use super::{StoreError, Unsigned};

/// The `meta` entry with the last records known to be on disk.
const HEADS: &str = "audit_heads";

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number, from 1.
    pub number: u64,
    /// When it happened; wall clock, ms.
    pub at_ms: u64,
    /// What happened.
    pub event: String,
    /// Its facts, as members of a JSON object.
    pub members: String,
}

/// Adds a row; answers its number.
///
/// # Errors
/// The database failed.
pub fn push(
    connection: &Connection,
    at_ms: u64,
    event: &str,
    members: &str,
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO audit_outbox (at_ms, event, members) VALUES (?1, ?2, ?3)";
    let mut statement = connection.prepare_cached(sql)?;
    let number = statement.insert(params![Unsigned(at_ms), event, members])?;
    Ok(u64::try_from(number).unwrap_or_default())
}

/// Removes the rows up to `number`.
///
/// # Errors
/// The database failed.
pub fn remove(connection: &Connection, number: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM audit_outbox WHERE number <= ?1";
    connection
        .prepare_cached(sql)?
        .execute([Unsigned(number)])?;
    Ok(())
}

/// Up to `limit` rows behind `number`, in order.
///
/// # Errors
/// The database failed.
pub fn after(connection: &Connection, number: u64, limit: u32) -> Result<Vec<Waiting>, StoreError> {
    let sql = "SELECT number, at_ms, event, members FROM audit_outbox WHERE number > ?1 \
               ORDER BY number LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![Unsigned(number), limit], |row| {
        Ok(Waiting {
            number: row.get::<_, Unsigned>(0)?.0,
            at_ms: row.get::<_, Unsigned>(1)?.0,
            event: row.get(2)?,
            members: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number of the last row there ever was; 0 before the first.
///
/// # Errors
/// The database failed.
pub fn last(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'audit_outbox'";
    let number = connection
        .query_row(sql, [], |row| row.get::<_, Unsigned>(0))
        .optional()?;
    Ok(number.map_or(0, |number| number.0))
}

/// The next row gets a number behind `number`.
///
/// # Errors
/// The database failed.
pub fn skip_to(connection: &Connection, number: u64) -> Result<(), StoreError> {
    // SQLite makes the row of a table's sequence with its first row.
    push(connection, 0, "", "")?;
    connection.execute("DELETE FROM audit_outbox WHERE event = ''", [])?;
    let sql = "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'audit_outbox'";
    connection.execute(sql, [Unsigned(number)])?;
    Ok(())
}

/// The last records known to be on disk, as the audit wrote them down.
///
/// # Errors
/// The database failed.
pub fn heads(connection: &Connection) -> Result<Option<Vec<u8>>, StoreError> {
    devices::meta(connection, HEADS)
}

/// Notes the last records known to be on disk.
///
/// # Errors
/// The database failed.
pub fn set_heads(connection: &Connection, heads: &[u8]) -> Result<(), StoreError> {
    devices::set_meta(connection, HEADS, heads)
}
