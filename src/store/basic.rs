//! Typed reads and writes of MQTT Basic credentials: what a row of `credential` of that kind is
//! compared with. What the forms mean is `identity`'s affair.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StoreError, Unsigned};

/// A row of `basic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicRow {
    /// Which of client id and user name it is found by; meaning given by `identity`.
    pub form: u8,
    /// A keyed digest of the password, if one is asked for.
    pub password: Option<[u8; 32]>,
}

/// The names of a credential as far as they are no secret: those beside a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesRow {
    /// The client id.
    pub client_id: Option<String>,
    /// The user name.
    pub user_name: Option<String>,
}

/// Notes what a credential is compared with.
///
/// # Errors
/// That the database could not be read or written; so for every function here.
pub fn insert(
    connection: &Connection,
    credential: u64,
    row: &BasicRow,
    names: &NamesRow,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO basic (credential, form, password, client_id, user_name)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let id = Unsigned(credential);
    let values = params![id, row.form, row.password, names.client_id, names.user_name];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The names of a credential, where they may be shown.
pub fn names_of(connection: &Connection, credential: u64) -> Result<NamesRow, StoreError> {
    let sql = "SELECT client_id, user_name FROM basic WHERE credential = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([Unsigned(credential)], |row| {
        Ok(NamesRow {
            client_id: row.get(0)?,
            user_name: row.get(1)?,
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// What a credential is compared with.
pub fn of(connection: &Connection, credential: u64) -> Result<Option<BasicRow>, StoreError> {
    let sql = "SELECT form, password FROM basic WHERE credential = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([Unsigned(credential)], |row| read(row, 0));
    Ok(found.optional()?)
}

/// Visits every live one by the number of its credential.
pub fn each_live(
    connection: &Connection,
    mut visit: impl FnMut(u64, BasicRow),
) -> Result<(), StoreError> {
    let sql = "SELECT b.credential, b.form, b.password
               FROM basic AS b JOIN credential AS c ON c.id = b.credential
               WHERE c.revoked_ms IS NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get::<_, Unsigned>(0)?.0, read(row, 1)?);
    }
    Ok(())
}

fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<BasicRow> {
    Ok(BasicRow {
        form: row.get(at)?,
        password: row.get(at + 1)?,
    })
}
