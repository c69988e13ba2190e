//! The words of the admin API about credentials besides tokens.

use serde::{Deserialize, Serialize};

use super::{CredentialView, Receipt, Terms, TokenText};

/// Body of `POST …/credentials` of a device or an application: what a client must show at CONNECT.
/// Without a password the names alone open the door, so that they are secrets too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCredential {
    /// The client id; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<TokenText>,
    /// The user name; needed with a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<TokenText>,
    /// The password; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<TokenText>,
    /// A certificate in PEM form, in place of all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its terms; where it takes the place of another, what is different from those of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// It takes the place of a live one that has the same names: that ends, sessions stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Reply to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialAdded {
    /// The credential, without what it is compared with.
    pub credential: CredentialView,
    /// What ended with the one whose place it took; absent if it took none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// Why nobody comes in with it as things are; absent if that can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
