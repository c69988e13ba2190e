//! Typed reads and writes of what applications may do. The rest of an application is an identity
//! like a device: see `devices`.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::StoreError;
use super::devices::DeviceRow;

/// The filters of one application, as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// What it may publish to.
    pub publish: Vec<String>,
    /// What it may receive.
    pub subscribe: Vec<String>,
}

/// Notes what a new application may do.
///
/// # Errors
/// That the database could not be written.
pub fn insert(
    connection: &Connection,
    application: &DeviceRow,
    filters: &Filters,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO application (number, publish, subscribe) VALUES (?1, ?2, ?3)";
    let (publish, subscribe) = (filters.publish.join("\n"), filters.subscribe.join("\n"));
    connection
        .prepare_cached(sql)?
        .execute(params![application.number, publish, subscribe])?;
    Ok(())
}

/// What an application may do; nothing, if no row says it.
///
/// # Errors
/// That the database could not be read; so for every function here.
pub fn filters(connection: &Connection, application: &DeviceRow) -> Result<Filters, StoreError> {
    let sql = "SELECT publish, subscribe FROM application WHERE number = ?1";
    let found = connection
        .prepare_cached(sql)?
        .query_row([application.number], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    Ok(
        found.map_or_else(Filters::default, |(publish, subscribe)| Filters {
            publish: lines(&publish),
            subscribe: lines(&subscribe),
        }),
    )
}

/// Visits every application.
pub fn each(
    connection: &Connection,
    mut visit: impl FnMut(Uuid, Filters),
) -> Result<(), StoreError> {
    let sql = "SELECT d.id, a.publish, a.subscribe
               FROM application AS a JOIN device AS d ON d.number = a.number";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let filters = Filters {
            publish: lines(&row.get::<_, String>(1)?),
            subscribe: lines(&row.get::<_, String>(2)?),
        };
        visit(Uuid::from_bytes(row.get(0)?), filters);
    }
    Ok(())
}

/// One filter a line: filters hold no control characters (SEC-08).
fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
