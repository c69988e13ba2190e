//! A copy of the database as it stands at one moment.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{FILE_NAME, StoreError, file};

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
