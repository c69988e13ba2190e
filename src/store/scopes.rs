//! Typed reads and writes of scopes: what applications, and some devices, may publish to and
//! receive. What a filter means is `identity`'s affair.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::devices::DeviceRow;
use super::{StoreError, Unsigned};

/// The filters of one scope, as they were given: one a line, as filters hold no control characters
/// (SEC-08).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filters {
    publish: Box<str>,
    subscribe: Box<str>,
}

impl Filters {
    /// The filters for publishing and for receiving. None of them holds a line break.
    #[must_use]
    pub fn new(publish: &[String], subscribe: &[String]) -> Filters {
        Filters {
            publish: publish.join("\n").into(),
            subscribe: subscribe.join("\n").into(),
        }
    }

    /// The columns `publish` and `subscribe` from place `at` on; empty where there is no row.
    pub(super) fn from_columns(row: &Row<'_>, at: usize) -> rusqlite::Result<Filters> {
        let publish: Option<Box<str>> = row.get(at)?;
        let subscribe: Option<Box<str>> = row.get(at + 1)?;
        Ok(Filters {
            publish: publish.unwrap_or_default(),
            subscribe: subscribe.unwrap_or_default(),
        })
    }

    /// What may be published to.
    pub fn publish(&self) -> impl Iterator<Item = &str> {
        self.publish.lines()
    }

    /// What may be received.
    pub fn subscribe(&self) -> impl Iterator<Item = &str> {
        self.subscribe.lines()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty()
    }

    /// Bytes of all filters.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.publish.len() + self.subscribe.len()
    }
}

/// An identity with a scope.
#[derive(Clone, Debug)]
pub struct Scoped {
    /// The id that the world uses.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its kind, as in [`DeviceRow`].
    pub kind: u8,
    /// Its scope.
    pub filters: Filters,
}

/// Notes the scope of an identity in place of the one it had.
///
/// # Errors
/// That the database could not be written.
pub fn set(connection: &Connection, number: i64, filters: &Filters) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO scope (number, publish, subscribe) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![
        number,
        &*filters.publish,
        &*filters.subscribe
    ])?;
    Ok(())
}

/// Takes the scope of an identity away.
///
/// # Errors
/// That the database could not be written.
pub fn remove(connection: &Connection, number: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM scope WHERE number = ?1";
    connection.prepare_cached(sql)?.execute([number])?;
    Ok(())
}

/// The scope of an identity; an empty one, if no row says it.
///
/// # Errors
/// That the database could not be read; so for every function here.
pub fn of(connection: &Connection, identity: &DeviceRow) -> Result<Filters, StoreError> {
    let sql = "SELECT publish, subscribe FROM scope WHERE number = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([identity.number], |row| Filters::from_columns(row, 0));
    Ok(found.optional()?.unwrap_or_default())
}

/// Visits the identities with these `number`s that have a scope.
pub fn each(
    connection: &Connection,
    numbers: RangeInclusive<u64>,
    mut visit: impl FnMut(Scoped),
) -> Result<(), StoreError> {
    let sql = "SELECT d.id, d.name, d.kind, s.publish, s.subscribe
               FROM scope AS s CROSS JOIN device AS d ON d.number = s.number
               WHERE s.number BETWEEN ?1 AND ?2";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Unsigned(*numbers.start()), Unsigned(*numbers.end())])?;
    while let Some(row) = rows.next()? {
        visit(Scoped {
            id: Uuid::from_bytes(row.get(0)?),
            name: row.get(1)?,
            kind: row.get(2)?,
            filters: Filters::from_columns(row, 3)?,
        });
    }
    Ok(())
}
