//! The words of the admin API about applications.

use serde::{Deserialize, Serialize};

use super::{DeviceView, Receipt, TokenText};

/// Body of `POST /admin/v1/apps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateApp {
    /// Name of the application, unique among devices and applications.
    pub name: String,
    /// Token to use instead of a generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenText>,
    /// Filters of the topics it may publish to; none without them.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Filters of the topics it may receive; none without them.
    #[serde(default)]
    pub subscribe: Vec<String>,
}

/// An application as the operator sees it. No secret in it, ever (SEC-76).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Id, name, generation and credentials, as a device has them.
    #[serde(flatten)]
    pub identity: DeviceView,
    /// Filters of the topics it may publish to.
    pub publish: Vec<String>,
    /// Filters of the topics it may receive.
    pub subscribe: Vec<String>,
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
}

/// Reply to a revocation or deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppEnded {
    /// The application after the revocation, or as it was before it was deleted.
    pub app: AppView,
    /// What the broker did.
    pub receipt: Receipt,
}
