//! Typed reads and writes of clients' certificates: what a row of `credential` of that kind stands
//! for.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, Unsigned};

/// A row of `certificate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateRow {
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// When it ends; wall clock, ms.
    pub ends_ms: u64,
}

/// Notes what a credential stands for.
///
/// # Errors
/// That the database could not be read or written; so for every function here.
pub fn insert(
    connection: &Connection,
    credential: u64,
    row: &CertificateRow,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO certificate (credential, fingerprint, ends_ms) VALUES (?1, ?2, ?3)";
    let values = params![Unsigned(credential), row.fingerprint, Unsigned(row.ends_ms)];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// What a credential stands for.
pub fn of(connection: &Connection, credential: u64) -> Result<Option<CertificateRow>, StoreError> {
    let sql = "SELECT fingerprint, ends_ms FROM certificate WHERE credential = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([Unsigned(credential)], |row| {
        Ok(CertificateRow {
            fingerprint: row.get(0)?,
            ends_ms: row.get::<_, Unsigned>(1)?.0,
        })
    });
    Ok(found.optional()?)
}
