//! The words of the identity service, on its own wire and in the admin API.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Receipt, TokenText};

/// Body of `POST /identities`; all of it may be left out. Unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateIdentity {
    /// Scopes of the token that is wanted with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_token_with_scopes: Vec<String>,
    /// How long that token lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_minutes: Option<u32>,
}

/// Body of `POST /identities/{id}/:issueAccessToken`. Unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssueToken {
    /// What the token allows.
    pub scopes: Vec<String>,
    /// How long it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_minutes: Option<u32>,
}

/// Reply to `POST /identities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityCreated {
    /// The new identity.
    pub identity: IdentityRef,
    /// Its first token, if one was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<IdentityToken>,
}

/// An identity by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRef {
    /// `8:acs:…`, opaque to clients.
    pub id: String,
}

/// A token, shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityToken {
    /// The token.
    pub token: TokenText,
    /// When it ends.
    pub expires_on: String,
}

/// Reply to `GET /admin/v1/identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityServiceView {
    /// The first half of every id.
    pub resource: Uuid,
    /// Users in the registry.
    pub users: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The access keys in use, without their texts.
    pub keys: Vec<AccessKeyView>,
}

/// An access key, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyView {
    /// `primary` or `secondary`.
    pub name: String,
    /// Counts the keys there ever were.
    pub version: u32,
    /// When it was made.
    pub created_ms: u64,
}

/// Reply to a renewal: the only time the key is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRenewed {
    /// What is known of it from now on.
    pub key: AccessKeyView,
    /// The key.
    pub access_key: TokenText,
    /// Users whose tokens ended with the key before it.
    pub users: u64,
    /// What the broker did about them.
    pub receipt: Receipt,
}

/// A user of the identity service as the operator sees it, with what was counted of it since the
/// broker's start. No secret in it, ever (ID-61).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// `8:acs:…`
    pub id: String,
    /// When it was created.
    pub created_ms: u64,
    /// Grows whenever its tokens are revoked.
    pub generation: u32,
    /// Tokens that open the door now.
    pub tokens: u64,
    /// Connections there are.
    pub connections: u64,
    /// Tokens issued.
    pub issued: u64,
    /// Revocations of all its tokens.
    pub revocations: u64,
    /// Connections that were accepted.
    pub connects: u64,
    /// Connections that were refused with its name.
    pub connects_refused: u64,
    /// Messages that came from it.
    pub messages_received: u64,
    /// Copies of messages that went to it.
    pub messages_delivered: u64,
}

/// One page of users, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    /// The users of this page, ordered by id.
    pub users: Vec<UserView>,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
