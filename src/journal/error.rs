//! What can go wrong with the journal, and whose affair it is.

use std::io;
use std::path::{Path, PathBuf};

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Operator: another process (or another part of this one) has the directory.
    #[error(
        "the journal is in use by another process, which holds the lock on {}: \
         stop that broker, or choose another data directory",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Operator: written by a newer version; nothing was changed (REL-10).
    #[error(
        "{} has journal format {found}, this version reads up to {supported}: \
         start the newer version that wrote it; nothing was changed",
        file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// Operator: an option outside its range.
    #[error("journal option {option} is {value}, allowed is {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        allowed: String,
    },
    /// Environment: the system refused a call.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Environment: at close, records that were never acknowledged found no space.
    #[error(
        "there was no space for {records} records, which were never acknowledged. \
         Nothing acknowledged is lost; clients send the rest again"
    )]
    Unwritten {
        /// How many.
        records: u64,
    },
    /// Bug: a thread of the journal panicked.
    #[error("the {thread} thread panicked")]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
}

impl JournalError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}
