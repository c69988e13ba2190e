//! What can go wrong with the state database: what, where, and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the state database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused something on a file or directory (environment).
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    File {
        /// What was tried, as a verb: "create", "read".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Written by a newer Tollgate; refused before anything is changed (REL-10).
    #[error(
        "the state database {} has schema version {found}, and this Tollgate knows versions up to \
         {known}; nothing was changed. Start the newer Tollgate that wrote it, or restore a \
         backup that this version made",
        path.display()
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The newest version of this program.
        known: i64,
    },
    /// A SQLite file, or any other file, that is not ours.
    #[error(
        "{} is not a Tollgate state database ({what}); nothing was changed. Choose another data \
         directory, or move that file away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found in it.
        what: String,
    },
    /// The file is ours and not whole.
    #[error(
        "the state database {} is damaged: {what}. Keep a copy of the data directory, then \
         restore this file (and remove the -wal and -shm files beside it) from a backup; the \
         telemetry journal is another file and is not affected",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What SQLite or our own checks found.
        what: String,
    },
    /// A step to a newer schema failed; it was rolled back.
    #[error(
        "migration {number} of the state database {} failed and was rolled back: {source}. \
         The older Tollgate can still read it; report this with the message",
        path.display()
    )]
    Migration {
        /// The schema version that the step leads to.
        number: i64,
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// No space left, also after the journal gave up its ballast.
    #[error(
        "the disk of the state database is full, nothing of this request was stored. Free some \
         space and repeat it"
    )]
    Full,
    /// A write or sync failed: nothing more is written until a restart (REL-04).
    #[error(
        "the state database failed ({0}); nothing more is written until Tollgate is started \
         again. Look at the disk first"
    )]
    Failed(Arc<str>),
    /// The transaction that held this request and its neighbours was not committed.
    #[error("the state database did not commit, nothing of this request was stored: {0}")]
    NotCommitted(Arc<str>),
    /// The request itself asked for its effects to be rolled back.
    #[error("the request was taken back, nothing of it was stored")]
    TakenBack,
    /// The writer thread is gone: it was stopped, or a request made it panic.
    #[error("the writer of the state database has stopped; start Tollgate again")]
    Stopped,
    /// A statement failed.
    #[error("the state database refused a statement: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What to do about an error of the operating system, as the rest of a sentence.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ". The broker's user must be able to write there: make it writable, or choose another \
             directory (data_dir)"
        }
        io::ErrorKind::NotADirectory => ". Choose another directory (data_dir)",
        _ => "",
    }
}

/// How an error of SQLite has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// One statement: its neighbours go on.
    Statement,
    /// No space: worth one retry after the hook.
    Full,
    /// The file cannot be trusted any more.
    Fatal,
}

/// Sorts an error of SQLite.
pub(super) fn severity(error: &rusqlite::Error) -> Severity {
    use rusqlite::ErrorCode;
    // Growing the -shm file on a full disk comes as an I/O error of its own.
    const SHM_SIZE: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    match error.sqlite_error() {
        Some(error) if error.extended_code == SHM_SIZE => Severity::Full,
        Some(error) => match error.code {
            ErrorCode::DiskFull => Severity::Full,
            ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Severity::Fatal
            }
            _ => Severity::Statement,
        },
        None => Severity::Statement,
    }
}
