//! What is known about a token that an operator shows.

use serde::Serialize;
use uuid::Uuid;

use super::token;
use super::{IdentityKind, Registry, RegistryError, TokenHint};
use crate::store::devices;

/// What is known about a token; never holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TokenReport {
    /// A device can connect with it.
    Live {
        /// Whether a device or an application.
        kind: IdentityKind,
        /// Its name.
        device: String,
        /// Its id.
        id: Uuid,
        /// The credential's id.
        credential: u64,
        /// Wall clock, ms.
        since_ms: u64,
    },
    /// It was valid once.
    Revoked {
        /// Whether a device or an application.
        kind: IdentityKind,
        /// Its name.
        device: String,
        /// Its id.
        id: Uuid,
        /// The credential's id.
        credential: u64,
        /// Wall clock, ms.
        since_ms: u64,
        /// When it ended; wall clock, ms.
        at_ms: u64,
    },
    /// No device has it, or had it lately.
    Unknown {
        /// What its form tells.
        hint: Option<TokenHint>,
    },
}

impl Registry {
    /// What is known about a token that an operator shows.
    ///
    /// # Errors
    /// The database failed.
    pub fn check_token(&self, token: &str) -> Result<TokenReport, RegistryError> {
        let digest = self.shared().key.token_digest(token);
        let owner = self.ask(|snapshot| Ok(devices::owner_of(snapshot, &digest)?))?;
        Ok(match owner {
            None => TokenReport::Unknown {
                hint: token::hint(token),
            },
            Some((device, credential)) => {
                let (id, since_ms) = (device.id, credential.created_ms);
                let kind = IdentityKind::from_number(device.kind);
                let (device, number) = (device.name, credential.id);
                match credential.revoked_ms {
                    None => TokenReport::Live {
                        kind,
                        device,
                        id,
                        credential: number,
                        since_ms,
                    },
                    Some(at_ms) => TokenReport::Revoked {
                        kind,
                        device,
                        id,
                        credential: number,
                        since_ms,
                        at_ms,
                    },
                }
            }
        })
    }
}
