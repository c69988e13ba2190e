//! The words of the admin API about its own tokens.

use serde::{Deserialize, Serialize};

use super::TokenText;

/// Body of `POST /admin/v1/admin-tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAdminToken {
    /// Name of the token, unique among admin tokens.
    pub name: String,
    /// What it allows: `read`, `operate` or `admin`.
    pub scope: String,
    /// When it ends by itself; never without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// An admin token as operators see it. No secret in it, ever (SEC-76).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminTokenView {
    /// Its name.
    pub name: String,
    /// What it allows: `read`, `operate` or `admin`.
    pub scope: String,
    /// When it was created.
    pub created_ms: u64,
    /// When it ends by itself; absent if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Whether that time is over.
    pub expired: bool,
}

/// One page of admin tokens, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminTokenPage {
    /// The tokens of this page, ordered by name.
    pub admin_tokens: Vec<AdminTokenView>,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Reply to a creation: the only time the token is shown (SEC-51).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminTokenCreated {
    /// What was made.
    pub admin_token: AdminTokenView,
    /// Its text.
    pub token: TokenText,
}
