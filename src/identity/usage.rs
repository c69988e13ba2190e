//! Who still uses a token whose place another took.
//!
//! The last use of such a token is remembered from the rotation, or the start of the broker, until
//! it ends: about 60 bytes for each that was used. Who is connected with it now, the workers know.

use std::net::IpAddr;

use uuid::Uuid;

use super::changes;
use super::registry::now_ms;
use super::{IdentityKind, Principal, Registry, RegistryError};
use crate::store::terms::{self as rows, SupersededRow};

/// Tokens in one page at most.
pub const USAGE_PER_PAGE_MAX: usize = 1_000;

/// When and from where a token was shown last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// Wall clock, ms.
    pub at_ms: u64,
    /// Behind a proxy.
    pub from: IpAddr,
}

/// A live token whose place another took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldToken {
    /// Whose it is.
    pub kind: IdentityKind,
    /// The device or application.
    pub identity: Uuid,
    /// Its name.
    pub name: String,
    /// The token's number.
    pub credential: u64,
    /// The number of the one that took its place.
    pub superseded_by: u64,
    /// When that happened; wall clock, ms.
    pub superseded_ms: u64,
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// When it was shown last since the rotation, or the start of the broker.
    pub last_use: Option<LastUse>,
}

impl Registry {
    /// Live tokens whose place another took, with numbers above `after`, at most `limit`, of one
    /// device or application, or of all; and whether there are more.
    ///
    /// # Errors
    /// There is no such device or application, or the database failed.
    pub fn old_tokens(
        &self,
        name_or_id: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<OldToken>, bool), RegistryError> {
        let mut found = self.ask(|snapshot| {
            let owner = match name_or_id {
                None => None,
                Some(one) => {
                    let device = changes::find(snapshot, IdentityKind::Device, one);
                    let row = match device {
                        Err(RegistryError::NotFound { .. }) => {
                            changes::find(snapshot, IdentityKind::Application, one)?
                        }
                        found => found?,
                    };
                    Some(row.number)
                }
            };
            Ok(rows::superseded(snapshot, owner, after, limit + 1)?)
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        let tokens = found.into_iter().map(|row| self.old_token(row));
        Ok((tokens.collect(), more))
    }

    fn old_token(&self, row: SupersededRow) -> OldToken {
        let held = self.shared().uses.get(&row.id);
        OldToken {
            kind: IdentityKind::from_number(row.owner.kind),
            identity: row.owner.id,
            name: row.owner.name,
            credential: row.id,
            superseded_by: row.by,
            superseded_ms: row.by_created_ms.unwrap_or(0),
            expires_ms: row.expires_ms,
            last_use: held.map(|held| *held),
        }
    }

    /// Notes that a connection opened with a credential of which something is to be done when it
    /// is used, or of which it is to be told. Touches memory only.
    pub fn note_use(&self, principal: &Principal, from: IpAddr) {
        if !principal.is_watched {
            return;
        }
        let at_ms = now_ms();
        let shared = self.shared();
        shared
            .uses
            .insert(principal.credential, LastUse { at_ms, from });
        shared.note_first_use(principal.credential);
        // It may have ended meanwhile, and been forgotten before it was noted.
        if !self.is_current(principal) {
            shared.uses.remove(&principal.credential);
        }
    }
}
