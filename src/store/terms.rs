//! Typed reads and writes of the terms of tokens, and of tokens that end by themselves. What terms
//! mean is `identity`'s affair.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, Row, Rows, Statement, params};

use super::devices::{DeviceRow, device_row};
use super::{StoreError, Unsigned};

/// A row of `terms`; the default one stands for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TermsRow {
    /// When it begins to be valid; wall clock, ms.
    pub not_before_ms: Option<u64>,
    /// A bit for each right; all of them without it.
    pub rights: Option<u8>,
    /// Networks that it may be used from, one a line; any without one.
    pub networks: Box<str>,
    /// Connections at once; any number without it.
    pub connections_max: Option<u32>,
    /// Messages in a second; any number without it.
    pub messages_max: Option<u32>,
    /// SHA-256 of the client's certificate that it needs beside it; none without it.
    pub certificate: Option<Box<[u8; 32]>>,
}

/// A live credential, with what the index in memory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRow {
    /// `credential.id`.
    pub id: u64,
    /// Meaning given by `identity`.
    pub kind: u8,
    /// HMAC-SHA-256 under the registry key.
    pub digest: [u8; 32],
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// What else holds for it.
    pub terms: TermsRow,
    /// Another took its place, and it ends.
    pub superseded_by: Option<u64>,
    /// When it is first used, those it took the place of end.
    pub retires_older: bool,
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
            connections_max: row.get(at + 3)?,
            messages_max: row.get(at + 4)?,
            certificate: row.get::<_, Option<[u8; 32]>>(at + 5)?.map(Box::new),
        })
    }
}

impl LiveRow {
    /// The columns id, kind, digest, `expires_ms`, `superseded_by` and `retires_older` from place
    /// `at` on; without terms.
    pub(super) fn from_columns(row: &Row<'_>, at: usize) -> rusqlite::Result<LiveRow> {
        Ok(LiveRow {
            id: row.get::<_, Unsigned>(at)?.0,
            kind: row.get(at + 1)?,
            digest: row.get(at + 2)?,
            expires_ms: row.get::<_, Option<Unsigned>>(at + 3)?.map(|at| at.0),
            superseded_by: row.get::<_, Option<Unsigned>>(at + 4)?.map(|id| id.0),
            retires_older: row.get(at + 5)?,
            terms: TermsRow::default(),
        })
    }
}

/// Terms in the order of their credentials, for a walk through both.
pub(super) struct TermsInOrder<'s> {
    rows: Rows<'s>,
    next: Option<(u64, TermsRow)>,
}

impl<'s> TermsInOrder<'s> {
    pub(super) const SQL: &'static str =
        "SELECT credential, not_before_ms, rights, networks, connections_max, messages_max,
                certificate
         FROM terms WHERE credential BETWEEN ?1 AND ?2 ORDER BY credential";

    /// `statement` is one of [`TermsInOrder::SQL`].
    pub(super) fn new(
        statement: &'s mut Statement<'_>,
        credentials: &RangeInclusive<u64>,
    ) -> Result<TermsInOrder<'s>, StoreError> {
        let ends = [Unsigned(*credentials.start()), Unsigned(*credentials.end())];
        let mut terms = TermsInOrder {
            rows: statement.query(ends)?,
            next: None,
        };
        terms.step()?;
        Ok(terms)
    }

    /// Those of a credential, whose number is greater than that of the last one asked about.
    pub(super) fn of(&mut self, credential: u64) -> Result<TermsRow, StoreError> {
        while let Some((at, _)) = &self.next
            && *at < credential
        {
            self.step()?;
        }
        let Some((_, terms)) = self.next.take_if(|(at, _)| *at == credential) else {
            return Ok(TermsRow::default());
        };
        self.step()?;
        Ok(terms)
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.next = match self.rows.next()? {
            Some(row) => Some((
                row.get::<_, Unsigned>(0)?.0,
                TermsRow::from_columns(row, 1)?,
            )),
            None => None,
        };
        Ok(())
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
    let sql = "INSERT OR REPLACE INTO terms
                   (credential, not_before_ms, rights, networks, connections_max, messages_max,
                    certificate)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let not_before_ms = terms.not_before_ms.map(Unsigned);
    let values = params![
        id,
        not_before_ms,
        terms.rights,
        &*terms.networks,
        terms.connections_max,
        terms.messages_max,
        terms.certificate.as_deref()
    ];
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
    let sql = "SELECT c.id, c.kind, c.digest, c.expires_ms, c.superseded_by, c.retires_older,
                      t.not_before_ms, t.rights, t.networks, t.connections_max, t.messages_max,
                      t.certificate
               FROM credential AS c LEFT JOIN terms AS t ON t.credential = c.id
               WHERE c.device = ?1 AND c.revoked_ms IS NULL ORDER BY c.id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([identity.number], |row| {
        Ok(LiveRow {
            terms: TermsRow::from_columns(row, 6)?,
            ..LiveRow::from_columns(row, 0)?
        })
    })?;
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

/// Notes that `by` took the place of a live credential, which ends at `ends_ms` instead of at its
/// own end.
pub fn supersede(
    connection: &Connection,
    credential: u64,
    by: u64,
    ends_ms: u64,
) -> Result<(), StoreError> {
    let sql = "UPDATE credential
               SET superseded_by = ?2, expires_before_ms = expires_ms, expires_ms = ?3
               WHERE id = ?1";
    let values = params![Unsigned(credential), Unsigned(by), Unsigned(ends_ms)];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Gives those live credentials their own ends back whose place `by` took; answers how many.
pub fn reinstate(connection: &Connection, by: u64) -> Result<usize, StoreError> {
    let sql = "UPDATE credential
               SET superseded_by = NULL, expires_ms = expires_before_ms, expires_before_ms = NULL
               WHERE superseded_by = ?1 AND revoked_ms IS NULL";
    Ok(connection.prepare_cached(sql)?.execute([Unsigned(by)])?)
}

/// Ends one live credential.
pub fn end(connection: &Connection, credential: u64, at_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE credential SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL";
    let values = params![Unsigned(credential), Unsigned(at_ms)];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Says whether the first use of a credential ends those before it.
pub fn set_retires_older(
    connection: &Connection,
    credential: u64,
    does: bool,
) -> Result<(), StoreError> {
    let sql = "UPDATE credential SET retires_older = ?2 WHERE id = ?1";
    let values = params![Unsigned(credential), does];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The identity that has a live credential, whatever kind it is.
pub fn owner_of_live(
    connection: &Connection,
    credential: u64,
) -> Result<Option<DeviceRow>, StoreError> {
    let sql =
        "SELECT d.number, d.id, d.name, d.created_ms, d.generation, d.profile, d.label, d.kind
               FROM credential AS c JOIN device AS d ON d.number = c.device
               WHERE c.id = ?1 AND c.revoked_ms IS NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([Unsigned(credential)], device_row);
    Ok(found.optional()?)
}

/// A live credential whose place another took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupersededRow {
    /// Whose it is.
    pub owner: DeviceRow,
    /// `credential.id`.
    pub id: u64,
    /// When it ends; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// What took its place.
    pub by: u64,
    /// When that was made; wall clock, ms.
    pub by_created_ms: Option<u64>,
}

/// Up to `limit` live credentials behind number `after` whose place another took, by number: of
/// the identity with this number, or of all without one.
pub fn superseded(
    connection: &Connection,
    owner: Option<i64>,
    after: u64,
    limit: usize,
) -> Result<Vec<SupersededRow>, StoreError> {
    let sql = "SELECT d.number, d.id, d.name, d.created_ms, d.generation, d.profile, d.label,
                      d.kind, c.id, c.expires_ms, c.superseded_by, n.created_ms
               FROM credential AS c JOIN device AS d ON d.number = c.device
               LEFT JOIN credential AS n ON n.id = c.superseded_by
               WHERE c.superseded_by IS NOT NULL AND c.revoked_ms IS NULL
                 AND c.id > ?1 AND (?2 IS NULL OR c.device = ?2)
               ORDER BY c.id LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![Unsigned(after), owner, limit], |row| {
        Ok(SupersededRow {
            owner: device_row(row)?,
            id: row.get::<_, Unsigned>(8)?.0,
            expires_ms: row.get::<_, Option<Unsigned>>(9)?.map(|at| at.0),
            by: row.get::<_, Unsigned>(10)?.0,
            by_created_ms: row.get::<_, Option<Unsigned>>(11)?.map(|at| at.0),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
