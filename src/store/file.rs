//! Finding, checking and opening the database file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{FILE_NAME, StoreError, migrations};

/// How long a statement waits for another process that holds the database, an offline command for
/// example; then it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// No more is read ahead, in bytes: 16 million devices with terms have 5 GB.
const READ_AHEAD_MAX_BYTES: u64 = 8 << 30;

/// Of one read, in bytes.
const READ_AHEAD_PIECE_BYTES: usize = 1 << 20;

/// What the write-ahead log may keep on disk after a checkpoint, in bytes: a burst of changes must
/// not leave its peak behind.
const WAL_KEPT_BYTES: i64 = 16 << 20;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Makes the directory (0700) and the file (0600) if they are missing (SEC-78), and looks at the
/// first bytes of a file that is there.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, StoreError> {
    make_dir(dir)?;
    check_writable(dir)?;
    let path = dir.join(FILE_NAME);
    match File::open(&path) {
        Ok(mut file) => {
            check_header(&mut file, &path)?;
            close_to_others(&path, 0o600)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SQLite gives its other files the mode of this one.
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            created.map_err(at("create", &path))?;
            sync_dir(dir)?;
        }
        Err(error) => return Err(at("open", &path)(error)),
    }
    Ok(path)
}

/// Checks a file that has to be there, by its first bytes; changes nothing.
pub(super) fn check_existing(path: &Path) -> Result<(), StoreError> {
    let mut file = File::open(path).map_err(at("open", path))?;
    check_header(&mut file, path)
}

/// A directory that cannot be written is refused here, where the system says why; SQLite would
/// only say that it cannot open a file.
fn check_writable(dir: &Path) -> Result<(), StoreError> {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)
        .map_err(|errno| at("write in", dir)(errno.into()))
}

/// Opens for writing, after the checks that change nothing, and brings the schema up to date.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    check_content(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(damage(path))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(damage(path))?;
    if mode != "wal" {
        let what = format!("it cannot use a write-ahead log here, only {mode:?}");
        return Err(at("use", path)(io::Error::other(what)));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    migrations::apply(&mut connection, path)?;
    Ok(connection)
}

/// Opens for reading only.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(damage(path))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Reads the whole structure through a connection that cannot write: the version, whose file it
/// is, and SQLite's own check.
fn check_content(path: &Path) -> Result<(), StoreError> {
    let connection = open_for_reading(path)?;
    // Closing must not fold the log of a newer version into its file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let number = |name| -> Result<i64, StoreError> {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(damage(path))
    };
    let (version, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(damage(path))?;
    check_identity(path, version, application, tables > 0)?;
    read_ahead(path);
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(damage(path))?;
    match answer.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged {
            path: path.to_owned(),
            what: answer,
        }),
    }
}

/// Reads the file once from begin to end, so that the system has it in memory. The check and the
/// load go through it in the order of its trees; on a cold disk that takes minutes for millions of
/// devices, and this some seconds. What cannot be read is reported by those who need it.
fn read_ahead(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let mut file = file.take(READ_AHEAD_MAX_BYTES);
    let mut piece = vec![0; READ_AHEAD_PIECE_BYTES];
    while file.read(&mut piece).is_ok_and(|read| read > 0) {}
}

/// Judges the first 100 bytes without opening the database: what is clearly not ours, or newer,
/// is not touched at all.
fn check_header(file: &mut File, path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(100);
    file.take(100)
        .read_to_end(&mut header)
        .map_err(at("read", path))?;
    if header.is_empty() {
        return Ok(()); // made by us or by SQLite, and never written
    }
    let number = |at: usize| -> Option<i64> {
        let bytes = header.get(at..)?.first_chunk::<4>()?;
        Some(i64::from(u32::from_be_bytes(*bytes)))
    };
    if !header.starts_with(MAGIC) {
        let what = "it does not begin like a SQLite file".to_owned();
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            what,
        });
    }
    match (number(60), number(68)) {
        (Some(version), Some(application)) => {
            check_identity(path, version, application, version > 0)
        }
        _ => {
            let what = format!("only {} bytes are left of it", header.len());
            Err(StoreError::Damaged {
                path: path.to_owned(),
                what,
            })
        }
    }
}

fn check_identity(
    path: &Path,
    version: i64,
    application: i64,
    has_tables: bool,
) -> Result<(), StoreError> {
    if application != migrations::APPLICATION_ID && (application != 0 || has_tables) {
        let what = format!("its application id is {application:#x}");
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            what,
        });
    }
    let known = migrations::newest();
    if version > known {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found: version,
            known,
        });
    }
    Ok(())
}

/// Says "damaged" for what SQLite finds wrong with the file itself.
fn damage(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
    |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        },
        _ => StoreError::Sqlite(error),
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    match fs::metadata(dir) {
        Ok(metadata) => {
            let others = metadata.permissions().mode() & 0o077 != 0;
            // Only a directory that is clearly ours is closed to others: "/tmp" must stay open.
            if others && (dir.join(FILE_NAME).exists() || is_empty(dir)?) {
                return close_to_others(dir, 0o700);
            }
            if others {
                tracing::warn!(
                    path = %dir.display(),
                    "the data directory is open to other users and holds files of others; use a \
                     directory of its own, with mode 0700"
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(at("create", dir))?;
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
                _ => sync_dir(Path::new(".")),
            }
        }
        Err(error) => Err(at("look at", dir)(error)),
    }
}

fn is_empty(dir: &Path) -> Result<bool, StoreError> {
    Ok(fs::read_dir(dir).map_err(at("list", dir))?.next().is_none())
}

fn close_to_others(path: &Path, mode: u32) -> Result<(), StoreError> {
    let found = fs::metadata(path)
        .map_err(at("look at", path))?
        .permissions()
        .mode()
        & 0o777;
    if found & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "was open to other users; now it is not");
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(at("close to other users (chmod)", path))
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(at("sync the directory", dir))
}

pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        action,
        path: path.clone(),
        source,
    }
}
