//! The words of the admin API about tokens: their terms, and what one is worth.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::TokenText;
use crate::identity::Fingerprint;

/// When a token is valid, from where, beside which certificate, and what it allows. In a request,
/// what is not given stays as it is, and null takes it away; a new token has no terms but those
/// given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// When it begins to be valid.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_before_ms: Option<Option<u64>>,
    /// When it ends by itself; counts as the end of its second.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_ms: Option<Option<u64>>,
    /// Its rights on the device topics; null is all of them.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub rights: Option<Option<Vec<String>>>,
    /// Networks that it may be used from; an empty list is anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Connections that it may have at once; null is as many as its holder may have.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub connections_max: Option<Option<u32>>,
    /// Messages that may come with it in a second; null is any number.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub messages_max: Option<Option<u32>>,
    /// SHA-256 fingerprint of the client's certificate that it needs beside it; null is none.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub certificate: Option<Option<String>>,
}

/// The fingerprint of a certificate as replies show it.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let read: Fingerprint = text.parse()?;
    Ok(read.to_string())
}

/// Body of `PATCH …/terms` of a device or an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeTerms {
    /// Which of its live tokens; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<u64>,
    /// What changes.
    pub terms: Terms,
}

/// Body of `POST /admin/v1/tokens/check`: in the body, because addresses end up in logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCheck {
    /// The token to look up.
    pub token: TokenText,
}

/// Reply to a token check; the token itself is never in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TokenReport {
    /// The token opens the door.
    Live {
        /// What it belongs to: `device` or `application`.
        #[serde(default = "device_kind")]
        kind: String,
        /// Id of its device or application.
        device: Uuid,
        /// Name of it.
        name: String,
        /// Its credential.
        credential: u64,
        /// When it was issued.
        since_ms: u64,
        /// Why it does not open the door now, from anywhere or from some places.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// When it begins to be valid; absent when it always was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before_ms: Option<u64>,
        /// When it ends by itself; absent when it does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_ms: Option<u64>,
        /// Its rights on the device topics; absent when it has them all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rights: Option<Vec<String>>,
        /// Networks that it may be used from; absent when it may be from anywhere.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        networks: Vec<String>,
        /// Connections that it may have at once; absent without a limit of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connections_max: Option<u32>,
        /// Messages that may come with it in a second; absent without a limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages_max: Option<u32>,
        /// Fingerprint of the client's certificate that it needs beside it; absent without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
        /// Filters of the topics that its holder may publish to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        publish: Vec<String>,
        /// Filters of the topics that its holder may receive.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subscribe: Vec<String>,
    },
    /// The token did once.
    Revoked {
        /// What it belonged to: `device` or `application`.
        #[serde(default = "device_kind")]
        kind: String,
        /// Id of its device or application.
        device: Uuid,
        /// Name of it; absent when the device was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its credential.
        credential: u64,
        /// When it was issued.
        #[serde(default)]
        since_ms: u64,
        /// When it was revoked.
        revoked_ms: u64,
        /// It ended by itself.
        #[serde(default)]
        expired: bool,
    },
    /// No device ever had it.
    Unknown {
        /// What looks wrong about it, such as a checksum that does not fit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// Brokers that knew devices only did not say it.
fn device_kind() -> String {
    "device".to_owned()
}

/// Reply to `GET /admin/v1/tokens/usage`: live tokens whose place another took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsagePage {
    /// The tokens of this page, in the order of their numbers.
    pub tokens: Vec<TokenUsage>,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A live token whose place another took, and who still uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// What it belongs to: `device` or `application`.
    pub kind: String,
    /// Id of that.
    pub device: Uuid,
    /// Name of it.
    pub name: String,
    /// The old token's number.
    pub credential: u64,
    /// The number of the one that took its place.
    pub superseded_by: u64,
    /// Since when.
    pub superseded_ms: u64,
    /// When the old one ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Who is connected with the old one.
    pub connections: Vec<UsageConnection>,
    /// How many are connected with the new one.
    pub connections_new: u64,
    /// When the old one was shown last; absent if not since the rotation or the broker's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<u64>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_from: Option<IpAddr>,
}

/// A connection that was opened with an old token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageConnection {
    /// The client id; empty for a device that has one session only.
    pub client_id: String,
    /// Where it came from.
    pub from: IpAddr,
    /// Since when.
    pub since_ms: u64,
}

/// A member that is there, null or not.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_token_is_a_member_beside_its_facts() {
        let report = TokenReport::Unknown { hint: None };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"state":"unknown"}"#
        );
        let id = "00000000-0000-0000-0000-000000000001";
        let text = format!(
            r#"{{"state":"live","kind":"device",
                "device":"{id}","name":"a","credential":3,"since_ms":4}}"#
        );
        let report: TokenReport = serde_json::from_str(&text).unwrap();
        assert!(matches!(
            report,
            TokenReport::Live {
                credential: 3,
                since_ms: 4,
                ..
            }
        ));
    }

    #[test]
    fn what_is_not_given_is_not_what_is_taken_away() {
        let read = |text: &str| serde_json::from_str::<Terms>(text).unwrap();
        assert_eq!(read("{}").expires_ms, None);
        assert_eq!(read(r#"{"expires_ms":null}"#).expires_ms, Some(None));
        assert_eq!(read(r#"{"expires_ms":7}"#).expires_ms, Some(Some(7)));
        assert_eq!(read(r#"{"rights":null}"#).rights, Some(None));
        assert_eq!(read(r#"{"rights":[]}"#).rights, Some(Some(Vec::new())));
        let text = r#"{"expires_ms":null}"#;
        assert_eq!(serde_json::to_string(&read(text)).unwrap(), text);
    }
}
