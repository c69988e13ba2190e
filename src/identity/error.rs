//! What can go wrong with devices, tokens and secrets. No error holds a secret (SEC-55).

use std::io;
use std::path::PathBuf;

use super::{IdentityKind, TokenError};
use crate::store::StoreError;

/// Why the registry refused a change or a question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Names are unique.
    #[error("{kind} {name:?} exists already; choose another name, or rotate its token")]
    NameTaken {
        /// What has the name.
        kind: IdentityKind,
        /// The name.
        name: String,
    },
    /// A token names one identity, once and for ever.
    #[error(
        "that token {} {kind} {owner:?}; choose another, or leave it out to get a fresh one",
        if *.ended { "was ended, and cannot be used again: it belonged to" }
        else { "is in use already by" }
    )]
    TokenTaken {
        /// What has or had it.
        kind: IdentityKind,
        /// The name of who has or had it.
        owner: String,
        /// Whether it has been ended there.
        ended: bool,
    },
    /// Client id and user name of MQTT Basic name one credential, a user name also a token.
    #[error(
        "that client id or user name {} {kind} {owner:?}; choose another{}",
        if *.ended { "belonged to an ended credential of" } else { "is in use already by" },
        if *.ended { ", or give it another password" }
        else { ", or replace that credential if it is the same one's" }
    )]
    NamesTaken {
        /// What has or had them.
        kind: IdentityKind,
        /// The name of who has or had them.
        owner: String,
        /// Whether that has been ended.
        ended: bool,
    },
    /// No such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What kind of identity was looked for.
        kind: IdentityKind,
        /// What was looked for: `device "boiler"`.
        what: String,
    },
    /// No such live credential.
    #[error("{kind} {name:?} has no live credential {credential}")]
    NoCredential {
        /// What it was looked for at.
        kind: IdentityKind,
        /// The name of that.
        name: String,
        /// Its number.
        credential: u64,
    },
    /// A value that cannot be used.
    #[error("{field} {what}")]
    Invalid {
        /// Which part of the request.
        field: &'static str,
        /// What is wrong with it, as the rest of a sentence.
        what: String,
    },
    /// The registry is at its limit.
    #[error("the registry holds {limit} {kind}s, which is its limit; delete some first")]
    Full {
        /// Which of its limits.
        kind: IdentityKind,
        /// Devices or applications.
        limit: u64,
    },
    /// Names of admin tokens are unique.
    #[error(
        "the admin token {name:?} exists already; choose another name, or revoke it first: its \
         text is shown once and cannot be shown again"
    )]
    AdminTokenExists {
        /// The name.
        name: String,
    },
    /// No such admin token.
    #[error("there is no admin token {name:?}")]
    NoAdminToken {
        /// What was looked for.
        name: String,
    },
    /// There are as many admin tokens as there may be.
    #[error("there are {limit} admin tokens, which is the limit; revoke some first")]
    AdminTokensFull {
        /// Tokens.
        limit: usize,
    },
    /// There are as many tokens of users as there may be.
    #[error("users have {limit} tokens, which is the limit; they end by themselves within a day")]
    TokensFull {
        /// Tokens.
        limit: usize,
    },
    /// The access key that asked was replaced meanwhile.
    #[error("the access key of this request was replaced")]
    KeyReplaced,
    /// The different scopes take as much memory as they may.
    #[error(
        "the different scopes take {limit} bytes, which is the limit; give many devices one scope \
         with %d, or narrow others first"
    )]
    ScopesFull {
        /// Bytes.
        limit: u64,
    },
    /// Too much of what was done before is not in the audit yet.
    #[error(
        "the audit cannot be written, so nothing is added until it can: look at the broker's log \
         and the disk. Revoking, deleting and narrowing still work"
    )]
    AuditBehind,
    /// The registry key is not the one that made the digests.
    #[error(
        "the registry key {} is not the one that this state database was made with: no token \
         would be recognised. Put back the secrets directory that belongs to this data \
         directory (from the same backup). {}",
        key.display(),
        super::secrets::KEY_LOST
    )]
    WrongKey {
        /// The key file.
        key: PathBuf,
    },
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TokenError> for RegistryError {
    fn from(error: TokenError) -> RegistryError {
        RegistryError::Invalid {
            field: "token",
            what: error.to_string(),
        }
    }
}

/// Why the secrets could not be used. Nothing is started without them (SEC-42).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others may read or change it (SEC-78).
    #[error(
        "{} is open to other users (mode {mode:04o}); whoever read it could act as the broker or \
         its operator. If somebody may have, replace it; then: chmod {wanted} {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it must have, as given to chmod.
        wanted: &'static str,
    },
    /// There, and not what it should be.
    #[error("{} is damaged: it {what}. {advice}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Devices have tokens, and the key that recognises them is not there.
    #[error(
        "the registry key {} is missing, and the state database holds tokens made with it: \
         without it no token can ever be recognised again. Put the file back from the backup of \
         the secrets directory (mode 0600). {}",
        path.display(),
        super::secrets::KEY_LOST
    )]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The random generator failed: no secret may be made.
    #[error("the system gives no random numbers, so that no secret can be made")]
    Random,
}
