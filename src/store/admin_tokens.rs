//! Typed reads and writes of the tokens of the admin API. What a scope allows is `http`'s affair,
//! what a digest is made of `identity`'s.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StoreError, Unsigned};

/// A row of `admin_token` without its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTokenRow {
    /// Never used again.
    pub number: u64,
    /// Unique.
    pub name: String,
    /// Meaning given by `identity`.
    pub scope: u8,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Wall clock, ms; none for one that does not end by itself.
    pub expires_ms: Option<u64>,
}

const COLUMNS: &str = "number, name, scope, created_ms, expires_ms";

/// Adds one; the `number` of `row` is not looked at, the one it got is returned.
///
/// # Errors
/// That the database could not be read or written; so for every function here.
pub fn insert(
    connection: &Connection,
    row: &AdminTokenRow,
    digest: &[u8; 32],
) -> Result<u64, StoreError> {
    let sql = "INSERT INTO admin_token (name, digest, scope, created_ms, expires_ms)
               VALUES (?1, ?2, ?3, ?4, ?5) RETURNING number";
    let values = params![
        row.name,
        digest,
        row.scope,
        Unsigned(row.created_ms),
        row.expires_ms.map(Unsigned)
    ];
    let number: Unsigned = connection.query_row(sql, values, |row| row.get(0))?;
    Ok(number.0)
}

/// The one of this name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<AdminTokenRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM admin_token WHERE name = ?1");
    Ok(connection.query_row(&sql, [name], read).optional()?)
}

/// Those with names after `after`, in byte order, at most `limit`.
pub fn page(
    connection: &Connection,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<AdminTokenRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM admin_token WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT ?2"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params![after, limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many there are.
pub fn count(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM admin_token";
    Ok(connection
        .query_row(sql, [], |row| row.get::<_, Unsigned>(0))?
        .0)
}

/// Removes the one of this name; its digest, if there was one.
pub fn remove(connection: &Connection, name: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let sql = "DELETE FROM admin_token WHERE name = ?1 RETURNING digest";
    Ok(connection
        .query_row(sql, [name], |row| row.get(0))
        .optional()?)
}

/// Visits each with its digest.
pub fn each(
    connection: &Connection,
    mut visit: impl FnMut(AdminTokenRow, [u8; 32]),
) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare(&format!("SELECT {COLUMNS}, digest FROM admin_token"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(read(row)?, row.get(5)?);
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<AdminTokenRow> {
    Ok(AdminTokenRow {
        number: row.get::<_, Unsigned>(0)?.0,
        name: row.get(1)?,
        scope: row.get(2)?,
        created_ms: row.get::<_, Unsigned>(3)?.0,
        expires_ms: row.get::<_, Option<Unsigned>>(4)?.map(|at| at.0),
    })
}
