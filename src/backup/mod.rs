//! Backups: one sealed file that holds everything an installation needs.
//!
//! # Format (all of it: `docs/backup-format.md`)
//!
//! A header of 80 bytes (magic, version, how the key is made of the passphrase), then chunks, each
//! sealed with AES-256-GCM under a key of this file only. The chunks' content is a list of files
//! and ends with an end mark.
//!
//! # Invariants
//! 1. Nothing is readable without the passphrase, and nothing is put in place before the last
//!    chunk was opened: a flipped bit, a cut or an exchanged chunk is found before that.
//! 2. The parts fit together: history is taken first, then the state database, then the journal up
//!    to what is durable by then, so that no part refers to a record that the journal has not. All
//!    that was acknowledged before the backup began is in it, and nothing is left out in between.
//! 3. A restore replaces nothing: its three folders are missing or empty.
//! 4. Only what is durable is copied; the broker goes on meanwhile.

mod collect;
mod error;
mod restore;
mod seal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use collect::{write, write_stopped};
pub use error::BackupError;
pub use restore::{restore, verify};
pub use seal::{FORMAT_VERSION, PASSPHRASE_BYTES_MIN, Passphrase};

/// Where an installation keeps its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Journal, state database, history.
    pub data: PathBuf,
    /// Keys and the admin token.
    pub secrets: PathBuf,
    /// Certificates.
    pub certs: PathBuf,
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// When it was made; wall clock, ms.
    pub made_ms: u64,
    /// The newest journal record in it; 0 if it was not asked for (the broker was stopped).
    pub last: u64,
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// One of the three folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Data,
    Secrets,
    Certs,
}

impl Root {
    const ALL: [Root; 3] = [Root::Data, Root::Secrets, Root::Certs];

    fn number(self) -> u8 {
        match self {
            Root::Data => 1,
            Root::Secrets => 2,
            Root::Certs => 3,
        }
    }

    fn of(number: u8) -> Option<Root> {
        Root::ALL.into_iter().find(|root| root.number() == number)
    }
}

/// The kinds of entries.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const FILE: u8 = 1;
    pub(super) const ABOUT: u8 = 2;
}

/// Bytes of a path at most.
const PATH_BYTES_MAX: usize = 1_024;
