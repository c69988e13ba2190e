//! What is known about a token that an operator shows.

use serde::Serialize;
use uuid::Uuid;

use super::key::Digest;
use super::registry::now_ms;
use super::token::{self, TOKEN_BYTES_MAX};
use super::{IdentityKind, Registry, RegistryError, TokenHint};
use crate::audit::Known;
use crate::store::devices;

/// What is known about a token; never holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TokenReport {
    /// A device can connect with it.
    Live {
        /// Whether a device, an application or a user.
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
        /// Whether a device, an application or a user.
        kind: IdentityKind,
        /// Its name.
        device: String,
        /// Its id.
        id: Uuid,
        /// The credential's id.
        credential: u64,
        /// Wall clock, ms.
        since_ms: u64,
        /// When it ended or expired; wall clock, ms.
        at_ms: u64,
    },
    /// No device has it, or had it lately.
    Unknown {
        /// What its form tells.
        hint: Option<TokenHint>,
    },
}

impl Registry {
    /// What a refused client showed, as a digest; `None` for what no token can be.
    #[must_use]
    pub fn shown_digest(&self, user_name: &str) -> Option<Box<Digest>> {
        let is_token = !user_name.is_empty() && user_name.len() <= TOKEN_BYTES_MAX;
        is_token.then(|| Box::new(self.shared().key.token_digest(user_name)))
    }

    /// Whose credential that is or was, for what is told of a refused client.
    #[must_use]
    pub fn known_by(&self, digest: &Digest) -> Option<Known> {
        let found = self.ask(|snapshot| Ok(devices::owner_of(snapshot, digest)?));
        let (device, credential) = found.ok().flatten()?;
        Some(Known {
            credential: credential.id,
            identity: device.id,
            name: Some(device.name.into()),
            ended_ms: credential.revoked_ms,
        })
    }

    /// What is known about a token that an operator shows.
    ///
    /// # Errors
    /// The database failed.
    pub fn check_token(&self, token: &str) -> Result<TokenReport, RegistryError> {
        let digest = self.shared().key.token_digest(token);
        let of_user = self.shared().key.user_digest(token);
        let owner = self.ask(|snapshot| {
            let found = devices::owner_of(snapshot, &digest)?;
            Ok(match found {
                None => devices::owner_of(snapshot, &of_user)?,
                found => found,
            })
        })?;
        Ok(match owner {
            None => TokenReport::Unknown {
                hint: token::hint(token),
            },
            Some((device, credential)) => {
                let (id, since_ms) = (device.id, credential.created_ms);
                let kind = IdentityKind::from_number(device.kind);
                let (device, number) = (device.name, credential.id);
                let expired = credential.expires_ms.filter(|at| *at <= now_ms());
                match credential.revoked_ms.or(expired) {
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
