//! What a start reads of the registry: in few passes, which can go side by side.

use std::ops::RangeInclusive;

use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::terms::{LiveRow, TermsInOrder};
use super::{StoreError, Unsigned};

/// How many identities of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of kind [`DEVICE`](super::devices::DEVICE).
    pub devices: u64,
    /// Of kind [`APPLICATION`](super::devices::APPLICATION).
    pub applications: u64,
    /// Of kind [`USER`](super::devices::USER).
    pub users: u64,
}

/// Counts the identities of each kind: reads all of them.
///
/// # Errors
/// That the database could not be read; so for every function here.
pub fn counts(connection: &Connection) -> Result<Counts, StoreError> {
    // One pass, which reads the rows.
    let sql = "SELECT count(*), count(*) FILTER (WHERE kind = 1),
                      count(*) FILTER (WHERE kind = 2), count(*) FILTER (WHERE kind > 2)
               FROM device";
    let number = |row: &Row<'_>, at| row.get::<_, Unsigned>(at).map(|count| count.0);
    let counts = connection.query_row(sql, [], |row| {
        let (applications, users) = (number(row, 1)?, number(row, 2)?);
        let others = applications + users + number(row, 3)?;
        Ok(Counts {
            devices: number(row, 0)?.saturating_sub(others),
            applications,
            users,
        })
    })?;
    Ok(counts)
}

/// How much there is to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Identities of all kinds.
    pub identities: u64,
    /// The first and the last number of a credential; from 0 to 0 without any.
    pub credentials: RangeInclusive<u64>,
    /// The first and the last `number` of an identity with a scope; from 0 to 0 without any.
    pub scopes: RangeInclusive<u64>,
}

/// How much there is to load, as the indexes say: some milliseconds for a million.
pub fn extent(connection: &Connection) -> Result<Extent, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM device),
                      (SELECT ifnull(min(id), 0) FROM credential),
                      (SELECT ifnull(max(id), 0) FROM credential),
                      (SELECT ifnull(min(number), 0) FROM scope),
                      (SELECT ifnull(max(number), 0) FROM scope)";
    let number = |row: &Row<'_>, at| row.get::<_, Unsigned>(at).map(|count| count.0);
    let found = connection.query_row(sql, [], |row| {
        Ok(Extent {
            identities: number(row, 0)?,
            credentials: number(row, 1)?..=number(row, 2)?,
            scopes: number(row, 3)?..=number(row, 4)?,
        })
    })?;
    Ok(found)
}

/// A credential that is live, with what authentication needs.
#[derive(Clone, Debug)]
pub struct LiveCredential {
    /// The credential itself.
    pub row: LiveRow,
    /// The device it belongs to.
    pub device: Uuid,
    /// The device's generation.
    pub generation: u32,
    /// As in [`super::devices::DeviceRow`].
    pub kind: u8,
}

/// Visits the live credentials with these numbers, oldest first.
pub fn each_live(
    connection: &Connection,
    ids: RangeInclusive<u64>,
    mut visit: impl FnMut(LiveCredential),
) -> Result<(), StoreError> {
    let sql = "SELECT d.id, d.generation, d.kind,
                      c.id, c.kind, c.digest, c.expires_ms, c.superseded_by, c.retires_older
               FROM credential AS c CROSS JOIN device AS d ON d.number = c.device
               WHERE c.revoked_ms IS NULL AND c.id BETWEEN ?1 AND ?2 ORDER BY c.id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Unsigned(*ids.start()), Unsigned(*ids.end())])?;
    // Most have no terms: these are read beside, not looked for with each credential.
    let mut statement = connection.prepare(TermsInOrder::SQL)?;
    let mut terms = TermsInOrder::new(&mut statement, &ids)?;
    while let Some(row) = rows.next()? {
        let id = row.get::<_, Unsigned>(3)?.0;
        visit(LiveCredential {
            device: Uuid::from_bytes(row.get(0)?),
            generation: row.get(1)?,
            kind: row.get(2)?,
            row: LiveRow {
                terms: terms.of(id)?,
                ..LiveRow::from_columns(row, 3)?
            },
        });
    }
    Ok(())
}
