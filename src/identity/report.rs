//! What is known about a token that an operator shows.

use uuid::Uuid;

use super::key::Digest;
use super::registry::now_ms;
use super::token::{self, TOKEN_BYTES_MAX};
use super::{
    IdentityKind, Registry, RegistryError, Shown, Terms, TokenHint, TokenRefusal,
    USER_TOKEN_BYTES_MAX,
};
use crate::audit::Known;
use crate::store::devices::{self, CredentialRow, DeviceRow};
use crate::store::scopes::{self, Filters};

/// What is known about a token; never holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenReport {
    /// Its holder can connect with it, now or later.
    Live(LiveToken),
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
        /// It ended by itself.
        expired: bool,
    },
    /// No device has it, or had it lately.
    Unknown {
        /// What its form tells.
        hint: Option<TokenHint>,
    },
}

/// What is known about a token that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// Whether of a device, an application or a user.
    pub kind: IdentityKind,
    /// Its holder's name.
    pub name: String,
    /// Its holder's id.
    pub id: Uuid,
    /// The credential's id.
    pub credential: u64,
    /// When it was made; wall clock, ms.
    pub since_ms: u64,
    /// When it is valid, from where, and what it allows on the device topics.
    pub terms: Terms,
    /// Patterns of the topics that its holder may publish to.
    pub publish: Vec<String>,
    /// Patterns of the topics that its holder may receive.
    pub subscribe: Vec<String>,
    /// Why it does not open the door now.
    pub refused: Option<String>,
}

impl Registry {
    /// What a refused client showed, as the digests that a credential may be found by; none for
    /// what no credential can be.
    #[must_use]
    pub fn shown_digests(&self, shown: Shown<'_>) -> Vec<Digest> {
        let key = &self.shared().key;
        let can_be = |text: &str| (1..=TOKEN_BYTES_MAX).contains(&text.len());
        let (client_id, user_name) = (shown.client_id, shown.user_name.unwrap_or_default());
        match (can_be(client_id), can_be(user_name)) {
            (true, true) => vec![
                key.both_digest(client_id, user_name),
                key.token_digest(user_name),
            ],
            (_, true) => vec![key.token_digest(user_name)],
            (true, _) if user_name.is_empty() => vec![key.client_id_digest(client_id)],
            _ => Vec::new(),
        }
    }

    /// As [`Registry::shown_digests`], of what a user shows.
    #[must_use]
    pub fn shown_user_digests(&self, token: &[u8]) -> Vec<Digest> {
        let is_token = !token.is_empty() && token.len() <= USER_TOKEN_BYTES_MAX;
        let token = std::str::from_utf8(token).ok().filter(|_| is_token);
        let digest = token.map(|token| self.shared().key.user_digest(token));
        digest.into_iter().collect()
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
            ended_ms: credential
                .revoked_ms
                .or(credential.expires_ms.filter(|at| *at <= now_ms())),
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
            let found = match found {
                None => devices::owner_of(snapshot, &of_user)?,
                found => found,
            };
            let Some((owner, credential)) = found else {
                return Ok(None);
            };
            let scope = scopes::of(snapshot, &owner)?;
            Ok(Some((owner, credential, scope)))
        })?;
        Ok(match owner {
            None => TokenReport::Unknown {
                hint: token::hint(token),
            },
            Some((owner, credential, scope)) => report(owner, &credential, &scope, now_ms()),
        })
    }
}

fn report(
    owner: DeviceRow,
    credential: &CredentialRow,
    scope: &Filters,
    now_ms: u64,
) -> TokenReport {
    let kind = IdentityKind::from_number(owner.kind);
    let expired = credential.expires_ms.filter(|at| *at <= now_ms);
    if let Some(at_ms) = credential.revoked_ms.or(expired) {
        return TokenReport::Revoked {
            kind,
            device: owner.name,
            id: owner.id,
            credential: credential.id,
            since_ms: credential.created_ms,
            at_ms,
            // What ends by itself is written down as ended at that moment.
            expired: credential.expires_ms == Some(at_ms),
        };
    }
    let terms = Terms::from_row(&credential.terms, credential.expires_ms);
    let is_early = terms.not_before_ms.is_some_and(|at| at > now_ms);
    let asks_more = credential
        .basic
        .is_some_and(|basic| basic.password.is_some());
    let refused = if is_early {
        Some(TokenRefusal::NotYet.to_string())
    } else {
        asks_more.then(|| "it is a user name, and the password is needed too".to_owned())
    };
    TokenReport::Live(LiveToken {
        kind,
        name: owner.name,
        id: owner.id,
        credential: credential.id,
        since_ms: credential.created_ms,
        publish: scope.publish().map(str::to_owned).collect(),
        subscribe: scope.subscribe().map(str::to_owned).collect(),
        refused,
        terms,
    })
}
