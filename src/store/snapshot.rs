//! The database as it stands at one moment, for others than the broker: a copy, or a look into it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{FILE_NAME, StoreError, file};

/// Reads in the state database of the data directory `dir`, whether a broker uses it or not.
/// Changes nothing in it.
///
/// # Errors
/// See [`StoreError`]; a newer schema and a foreign file are refused.
pub fn look<T>(
    dir: &Path,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let path = dir.join(FILE_NAME);
    file::check_existing(&path)?;
    let connection = file::open_for_reading(&path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    work(&connection)
}

/// Writes what is committed in the state database of the data directory `dir` to the new file `to`
/// (0600), whole and synced. Others may go on to write. Blocking.
///
/// # Errors
/// See [`StoreError`]; a newer schema and a foreign file are refused.
pub fn snapshot(dir: &Path, to: &Path) -> Result<(), StoreError> {
    let from = dir.join(FILE_NAME);
    file::check_existing(&from)?;
    // SQLite would make it with another mode.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to);
    let made = made.map_err(file::at("create", to))?;
    let Some(name) = to.to_str() else {
        let wrong = std::io::Error::from(std::io::ErrorKind::InvalidFilename);
        return Err(file::at("create", to)(wrong));
    };
    let connection = file::open_for_reading(&from)?;
    connection.execute("VACUUM INTO ?1", [name])?;
    made.sync_all().map_err(file::at("sync", to))
}
