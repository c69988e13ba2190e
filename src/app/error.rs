//! Why the broker did not start or did not stop cleanly, and with which exit code that is said.

use std::io;
use std::net::SocketAddr;

use super::certificates::CertificateError;
use crate::audit::AuditError;
use crate::broker::RestoreError;
use crate::http::HttpError;
use crate::identity::{RegistryError, SecretsError};
use crate::journal::JournalError;
use crate::net::NetError;
use crate::store::StoreError;

/// Exit code: something else went wrong.
pub(super) const EXIT_OTHER: u8 = 1;
/// Exit code: the configuration is wrong.
const EXIT_CONFIGURATION: u8 = 2;
/// Exit code: the journal could not be written or synced (REL-04).
pub(super) const EXIT_JOURNAL: u8 = 3;
/// Exit code: the start was refused; nothing was served.
pub(super) const EXIT_REFUSED: u8 = 4;

/// Why the broker did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The secrets directory.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A scope of users' tokens cannot stand for what it should.
    #[error("identity.{key} {what}")]
    UserTopics {
        /// The key in its section.
        key: String,
        /// What is wrong with it, as the rest of a sentence.
        what: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The stored sessions.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The certificates.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A port cannot be listened on.
    #[error("{}", listen_message(*address, key, source))]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The configuration key it stands under.
        key: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A network thread.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The HTTP server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A thread or runtime could not be made.
    #[error("cannot start a thread of the broker: {0}")]
    Thread(io::Error),
    /// The first start's lines could not be shown; the device exists.
    #[error(
        "cannot show the first device's token: {0}. The device exists: start again, and give it \
         a new token with `tollgate device rotate first-device`"
    )]
    Banner(io::Error),
    /// Standard output is closed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Clients or disk kept the broker from stopping in time.
    #[error(
        "the broker did not stop cleanly in time: the journal is behind. Nothing acknowledged is \
         lost; what was not acknowledged will be sent again"
    )]
    StopTooSlow,
}

impl AppError {
    /// The process's exit code, as listed in `cli`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UserTopics { .. } => EXIT_CONFIGURATION,
            Self::Journal(JournalError::Panicked { .. }) => EXIT_JOURNAL,
            Self::Journal(JournalError::Unwritten { .. })
            | Self::Thread(_)
            | Self::Banner(_)
            | Self::Output(_)
            | Self::StopTooSlow => EXIT_OTHER,
            _ => EXIT_REFUSED,
        }
    }
}

fn listen_message(address: SocketAddr, key: &str, source: &io::Error) -> String {
    let advice = match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one that it has, or 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the right to bind them: choose a higher port"
        }
        _ => "choose another address",
    };
    format!("cannot listen on {address} ({key}.listen): {source}; {advice}")
}
