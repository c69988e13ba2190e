//! Why a command was not done, and the exit code that says so to a script.

use std::{io, path::PathBuf};

use crate::{app, backup::BackupError, cli::BenchError, config::ConfigError};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument is wrong in a way that the parser cannot see.
    #[error("{0}")]
    Usage(String),
    /// The broker ended with an error.
    #[error(transparent)]
    App(#[from] app::AppError),
    /// `tollgate check` found something that would keep the broker from starting.
    #[error("{0} of the checks failed; the broker would not start")]
    Check(usize),
    /// The history cannot be looked at.
    #[error("{}: the history cannot be read: {source}", path.display())]
    Store {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `tollgate store verify` found damage.
    #[error(
        "{0} of the history's files are damaged; all others are served. Restore them from a copy, \
         or leave them: what can be read of them is served too"
    )]
    Damaged(usize),
    /// The audit cannot be looked at.
    #[error("{}: the audit cannot be read: {source}", path.display())]
    Audit {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `tollgate audit verify` found something.
    #[error(
        "the audit is not as it was written in {0} places: keep a copy of its files as they are \
         now, and compare them with a backup"
    )]
    AuditDamaged(usize),
    /// Nothing answers where the broker should be.
    #[error(
        "no broker answers at {url}: {what}. Start one with `tollgate serve`, or say where it is \
         with --admin-url or TOLLGATE_ADMIN_URL"
    )]
    NoBroker {
        /// The address that was tried.
        url: String,
        /// What the system said.
        what: String,
    },
    /// Something answers that is no Tollgate.
    #[error(
        "what answers at {url} is not Tollgate's admin API ({what}). Say where the broker is with \
         --admin-url or TOLLGATE_ADMIN_URL"
    )]
    NotTollgate {
        /// The address that was tried.
        url: String,
        /// What came back.
        what: String,
    },
    /// Nothing answers where a connection string says.
    #[error("no identity service answers at {url}: {what}")]
    NoService {
        /// The address that was tried.
        url: String,
        /// What the system said.
        what: String,
    },
    /// The configuration gives no address to speak to.
    #[error("{0}")]
    NoAddress(String),
    /// The admin token cannot be read.
    #[error(
        "{}: the admin token cannot be read: {source}. {}, or set TOLLGATE_ADMIN_TOKEN",
        path.display(),
        if source.kind() == io::ErrorKind::NotFound {
            "Run this in the broker's directory, or say where its files are with --config or \
             --secrets-dir"
        } else {
            "Run this as the broker's user, or as root"
        }
    )]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The broker said no.
    #[error("the broker refused: {message}")]
    Refused {
        /// The broker's words.
        message: String,
    },
    /// Rows of a file are bad, nothing was imported.
    #[error(
        "nothing was imported; correct these rows, or leave them out with --skip-bad:\n  {lines}"
    )]
    BadRows {
        /// Each with its place, one in a line.
        lines: String,
    },
    /// Done, but for some rows.
    #[error("{skipped} rows were skipped, all others are imported")]
    Skipped {
        /// Rows.
        skipped: u64,
    },
    /// Every row was left out.
    #[error("nothing was imported: all {skipped} rows were skipped")]
    AllSkipped {
        /// Rows.
        skipped: u64,
    },
    /// A backup was not made or not restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The broker ended a backup in the middle.
    #[error("the backup broke off ({what}); the broker's log says why. Nothing is kept of it")]
    BrokenOff {
        /// What was missing.
        what: String,
    },
    /// A reply that cannot be read or shown.
    #[error("a body of the admin API is not as expected: {0}")]
    Reply(#[source] serde_json::Error),
    /// A load test was not run, or not to its end.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// Standard input cannot be read.
    #[error("standard input: {0}")]
    Input(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl CliError {
    /// The process's exit code; the table is in the module's own comment.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_) | CliError::Usage(_) | CliError::NoAddress(_) => 2,
            CliError::App(error) => error.exit_code(),
            CliError::Bench(error) => error.exit_code(),
            CliError::Check(_) => 4,
            CliError::NoBroker { .. }
            | CliError::NoService { .. }
            | CliError::NotTollgate { .. } => 5,
            CliError::Refused { .. } | CliError::BadRows { .. } => 6,
            CliError::Skipped { .. } | CliError::AllSkipped { .. } => 7,
            CliError::Backup(error) => match error {
                BackupError::Weak => 2,
                BackupError::NotEmpty { .. } | BackupError::InUse { .. } => 4,
                BackupError::Passphrase => 8,
                BackupError::Damaged { .. } | BackupError::Foreign => 9,
                BackupError::Newer { .. } => 10,
                _ => 1,
            },
            CliError::AdminToken { .. }
            | CliError::BrokenOff { .. }
            | CliError::Store { .. }
            | CliError::Damaged(_)
            | CliError::Audit { .. }
            | CliError::AuditDamaged(_)
            | CliError::Reply(_)
            | CliError::Input(_)
            | CliError::Output(_) => 1,
        }
    }

    /// True when the reader of our output went away (`| head`): nothing to complain about.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
