//! The words of the admin API about applications.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CredentialView, Receipt, TokenText};

/// An application as the operator sees it. No secret in it, ever (SEC-76).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Opaque id, for life.
    pub id: Uuid,
    /// Name, unique among devices and applications.
    pub name: String,
    /// When it was created.
    pub created_ms: u64,
    /// Grows whenever rights narrow or a credential ends.
    pub generation: u32,
    /// Filters of the topics it may publish to.
    pub publish: Vec<String>,
    /// Filters of the topics it may receive.
    pub subscribe: Vec<String>,
    /// Every credential it has or had, oldest first.
    pub credentials: Vec<CredentialView>,
}

/// One page of applications, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPage {
    /// The applications of this page, ordered by name.
    pub apps: Vec<AppView>,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Reply to a creation: the only time the token is shown (SEC-51).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppCreated {
    /// The new application.
    pub app: AppView,
    /// Its token.
    pub token: TokenText,
    /// Why a token of it opens no door as things are; absent if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Reply to a rotation: the new token, shown once, and what became of the old one's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRotated {
    /// The application after the rotation.
    pub app: AppView,
    /// Its new token.
    pub token: TokenText,
    /// What the broker did.
    pub receipt: Receipt,
    /// Why a token of it opens no door as things are; absent if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Reply to a revocation, a deletion, or a change of the scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppChanged {
    /// The application after the change, or as it was before it was deleted.
    pub app: AppView,
    /// What the broker did.
    pub receipt: Receipt,
    /// Of changed terms: why a token of it opens no door as things are; absent if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
