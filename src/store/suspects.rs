//! What was written by credentials that fell into wrong hands, as marks: device, from which journal
//! record on, up to which credential. And moments: by when which records had come, so that a time
//! can be told as an offset when the journal itself no longer reaches back to it.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{StoreError, Unsigned};

/// Marks that there are at most; one more is refused, and the revocation with it.
pub const SUSPECTS_MAX: u64 = 1_000_000;

/// Moments that are kept, the newest ones: at least two years.
pub const MOMENTS_MAX: u32 = 1_100_000;

/// Moments are at least so far apart, in ms.
const MOMENTS_APART_MS: u64 = 60_000;

/// A row of `suspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspectRow {
    /// Whose records.
    pub device: Uuid,
    /// The first record in the journal that is meant.
    pub first_offset: u64,
    /// The last credential that is meant; those that came later are another's.
    pub credential_max: u64,
    /// The time that was given, wall clock in ms.
    pub from_ms: u64,
    /// When the credentials were revoked, wall clock in ms.
    pub revoked_ms: u64,
}

/// Marks what all credentials of a device that there are or were have written from a record on. An
/// earlier mark that says nothing more goes.
///
/// # Errors
/// That the database could not be used; so for every function here.
pub fn mark(
    connection: &Connection,
    device: Uuid,
    (first_offset, from_ms): (u64, u64),
    revoked_ms: u64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM suspect WHERE device = ?1 AND first_offset >= ?2";
    let first = Unsigned(first_offset);
    connection.execute(sql, params![device.as_bytes(), first])?;
    let sql = "INSERT INTO suspect (device, first_offset, credential_max, from_ms, revoked_ms)
               SELECT ?1, ?2, coalesce(max(id), 0), ?3, ?4 FROM credential";
    let values = params![
        device.as_bytes(),
        first,
        Unsigned(from_ms),
        Unsigned(revoked_ms)
    ];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// How many marks there are.
pub fn count(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM suspect";
    let count: Unsigned = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(count.0)
}

/// The marks of a device, or of all, in the order in which they begin.
pub fn of(connection: &Connection, device: Option<Uuid>) -> Result<Vec<SuspectRow>, StoreError> {
    let sql = "SELECT device, first_offset, credential_max, from_ms, revoked_ms FROM suspect
               WHERE ?1 IS NULL OR device = ?1 ORDER BY device, first_offset";
    let mut statement = connection.prepare_cached(sql)?;
    let device = device.map(Uuid::into_bytes);
    let rows = statement.query_map([device], |row| {
        Ok(SuspectRow {
            device: Uuid::from_bytes(row.get(0)?),
            first_offset: row.get::<_, Unsigned>(1)?.0,
            credential_max: row.get::<_, Unsigned>(2)?.0,
            from_ms: row.get::<_, Unsigned>(3)?.0,
            revoked_ms: row.get::<_, Unsigned>(4)?.0,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A device is gone, and with it what it wrote.
pub fn forget(connection: &Connection, device: Uuid) -> Result<(), StoreError> {
    let sql = "DELETE FROM suspect WHERE device = ?1";
    connection.execute(sql, [device.as_bytes()])?;
    Ok(())
}

/// Notes that records up to this one had come by now.
pub fn note_moment(connection: &Connection, offset: u64, now_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO moment (received_ms, offset) SELECT ?1, ?2
               WHERE NOT EXISTS (SELECT 1 FROM moment WHERE received_ms > ?3)";
    let since = Unsigned(now_ms.saturating_sub(MOMENTS_APART_MS));
    let added = connection.prepare_cached(sql)?.execute(params![
        Unsigned(now_ms),
        Unsigned(offset),
        since
    ])?;
    if added > 0 {
        let sql = "DELETE FROM moment WHERE received_ms <= (
                       SELECT received_ms FROM moment
                       ORDER BY received_ms DESC LIMIT 1 OFFSET ?1)";
        connection.prepare_cached(sql)?.execute([MOMENTS_MAX])?;
    }
    Ok(())
}

/// The last record that had surely come before a time; `None` if nobody knows of any.
pub fn before(connection: &Connection, ms: u64) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT offset FROM moment WHERE received_ms < ?1
               ORDER BY received_ms DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let offset = statement.query_row([Unsigned(ms)], |row| row.get::<_, Unsigned>(0));
    Ok(offset.optional()?.map(|offset| offset.0))
}
