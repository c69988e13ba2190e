//! Why a backup could not be made or restored: what, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::seal::PASSPHRASE_BYTES_MIN;
use crate::journal::JournalError;
use crate::store::StoreError;

/// Why a backup could not be made or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The operating system refused something on a file.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The backup itself could not be read or written.
    #[error("the backup cannot be {action}: {source}{}", advice(source))]
    Stream {
        /// "read" or "written".
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Too easy to guess.
    #[error(
        "the passphrase has less than {PASSPHRASE_BYTES_MIN} bytes; whoever has the backup could \
         try out all such. Choose a longer one"
    )]
    Weak,
    /// Not the passphrase that the backup was made with.
    #[error(
        "this passphrase does not open the backup; nothing was changed. Use the one that \
         it was made with"
    )]
    Passphrase,
    /// Not a backup at all.
    #[error("this is no Tollgate backup: it does not begin like one; nothing was changed")]
    Foreign,
    /// Made by a newer Tollgate (REL-10).
    #[error(
        "the backup has format {found}, and this Tollgate knows formats up to {known}; nothing was \
         changed. Restore it with the Tollgate that made it, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The newest of this program.
        known: u32,
    },
    /// Changed or cut since it was made.
    #[error(
        "the backup is damaged at byte {at}: {what}. Nothing of it was put in place; use another \
         copy"
    )]
    Damaged {
        /// Byte position in the backup.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A restore replaces nothing.
    #[error(
        "{} is not empty; a restore replaces nothing. Move it away, or restore to another place \
         with --data-dir, --secrets-dir and --certs-dir",
        path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A broker runs on these folders and was not asked.
    #[error(
        "a broker runs on {} and does not answer where it was asked: say where it is with \
         --admin-url, or stop it",
        path.display()
    )]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// The history was compacted each time it was looked at.
    #[error("the history changed each time it was looked at; try again")]
    Moving,
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// For `map_err`: says what was tried on which file.
pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File {
        action,
        path,
        source,
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". Free some space, or choose another disk; nothing was changed"
        }
        io::ErrorKind::PermissionDenied => ". Run this as the broker's user",
        io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy => {
            ". A mount point cannot be replaced: restore into a folder below it"
        }
        _ => "",
    }
}
