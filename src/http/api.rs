//! The words of the admin API: request and reply bodies, shared by the server and the command line.
//!
//! `docs/openapi.yaml` describes the same bodies for everybody else; a test keeps the two equal.
//! Times are milliseconds since the Unix epoch. Requests refuse unknown fields, so that a
//! misspelt one is an error; replies may gain fields, so readers ignore what they do not know.

mod admins;
mod apps;
mod audit;
mod credentials;
mod revocations;
mod tokens;
mod users;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::identity::DeviceToken;
pub use admins::{AdminTokenCreated, AdminTokenPage, AdminTokenView, CreateAdminToken};
pub use apps::{AppChanged, AppCreated, AppPage, AppRotated, AppView};
pub use audit::{RefusedClient, RefusedClients};
pub use credentials::{AddCredential, CredentialAdded};
pub use revocations::{Receipt, Revocation, Revoke, RevokeAll, RevokedView, SuspectView};
pub use tokens::{
    ChangeTerms, Terms, TokenCheck, TokenReport, TokenUsage, UsageConnection, UsagePage,
    fingerprint,
};
pub use users::{
    AccessKeyRenewed, AccessKeyView, CreateIdentity, IdentityCreated, IdentityRef,
    IdentityServiceView, IdentityToken, IssueToken, UserPage, UserView,
};

/// Path prefix of every admin endpoint.
pub const ADMIN_PREFIX: &str = "/admin/v1";

/// Most devices in one [`DevicePage`], and applications in one [`AppPage`]. Long names and scopes
/// make a page shorter.
pub const DEVICES_PER_PAGE_MAX: usize = 10_000;

/// Devices in one [`DevicePage`] when the request names no `limit`.
pub const DEVICES_PER_PAGE_DEFAULT: usize = 100;

/// Most points in one [`TelemetryView`]; a longer history is read in several requests.
pub const POINTS_MAX: usize = 10_000;

/// Points in one [`TelemetryView`] when the request names no `limit`.
pub const POINTS_DEFAULT: usize = 1_000;

/// Most keys one history request may name.
pub const KEYS_MAX: usize = 100;

/// Path of import and export of devices, behind [`ADMIN_PREFIX`].
pub const BULK_PATH: &str = "/bulk/devices";

/// Most devices in one import.
pub const IMPORT_ROWS_MAX: usize = 1 << 20;

/// Most devices in one [`ExportPage`], and how many when the request names no `limit`.
pub const EXPORT_PER_PAGE_MAX: usize = 10_000;

/// A token in clear, on its way to or from the operator (SEC-55).
///
/// It has no `Display` and its `Debug` is redacted; [`TokenText::expose`] is the one way to the
/// text, so that a search for the word finds every place.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenText(String);

impl TokenText {
    /// Wraps the text of a token.
    #[must_use]
    pub fn new(text: String) -> TokenText {
        TokenText(text)
    }

    /// A fresh one, of the form that the broker makes itself.
    ///
    /// # Panics
    /// If the system gives no random numbers: then no token may be made.
    #[must_use]
    pub fn generate() -> TokenText {
        TokenText(DeviceToken::generate().expose().to_owned())
    }

    /// The token itself: for the reply that shows it once, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// Body of `POST /admin/v1/devices` and `POST /admin/v1/apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Name of the device or application, unique among both.
    pub name: String,
    /// Token to use instead of a generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenText>,
    /// Filters of the topics it may publish to; a device besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Filters of the topics it may receive; a device besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// Terms of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

/// Body of `PATCH /admin/v1/devices/{device}/scope` and `PATCH /admin/v1/apps/{app}/scope`. A list
/// that is given replaces the one there is, one that is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeScope {
    /// Filters of the topics it may publish to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
    /// Filters of the topics it may receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Vec<String>>,
}

/// Body of `POST …/rotate` of a device or an application; an empty body means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Token to use instead of a generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenText>,
    /// What is to be different from the terms of the token before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// How long the old token lives on, in seconds; a day without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// The old token ends when the new one is first used, if that is earlier.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retire_on_use: bool,
}

/// A device as the operator sees it. No secret in it, ever (SEC-76).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Opaque id, for life.
    pub id: Uuid,
    /// Name, unique in the registry.
    pub name: String,
    /// When it was created.
    pub created_ms: u64,
    /// Grows whenever rights narrow or a credential ends.
    pub generation: u32,
    /// Name of its device profile.
    #[serde(default)]
    pub profile: String,
    /// For people; may be empty.
    #[serde(default)]
    pub label: String,
    /// Patterns of the topics it may publish to besides its own; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Patterns of the topics it may receive besides its own; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// Every credential the device has or had, oldest first.
    pub credentials: Vec<CredentialView>,
}

/// One credential of a device, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialView {
    /// Public id of the credential, the one that audit and logs name.
    pub id: u64,
    /// What it is: `access_token`, `mqtt_basic`, `x509`.
    pub kind: String,
    /// What of `client_id`, `user_name` and `password` a client must show, with MQTT Basic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks_for: Vec<String>,
    /// That client id; only shown where a password is asked for too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// That user name; only shown where a password is asked for too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Of a certificate: SHA-256 of its DER, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When it was issued.
    pub created_ms: u64,
    /// When it was revoked; absent while it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<u64>,
    /// Chosen by a person instead of generated, so perhaps weak (SEC-50).
    pub chosen: bool,
    /// When it begins to be valid; absent when it always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
    /// When it ends by itself; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Its rights on the device topics; absent when it has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// Networks that it may be used from; absent when it may be from anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Connections that it may have at once; absent without a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    /// Messages that may come with it in a second; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_max: Option<u32>,
    /// Fingerprint of the client's certificate that it needs beside it; absent if it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The credential that took its place; absent for one that none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<u64>,
    /// When it is first used, those it took the place of end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retires_older: bool,
}

/// Serde asks by reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One page of devices, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePage {
    /// The devices of this page, ordered by name.
    pub devices: Vec<DeviceView>,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Reply to a creation: the only time the token is shown (SEC-51).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCreated {
    /// The new device.
    pub device: DeviceView,
    /// Its token.
    pub token: TokenText,
    /// Why a token of it opens no door as things are; absent if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Reply to a rotation: the new token, shown once, and what became of the old one's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The device after the rotation.
    pub device: DeviceView,
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
pub struct DeviceChanged {
    /// The device after the change, or as it was before it was deleted.
    pub device: DeviceView,
    /// What the broker did.
    pub receipt: Receipt,
    /// Of changed terms: why a token of it opens no door as things are; absent if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Reply to `GET /admin/v1/devices/{device}/telemetry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TelemetryView {
    /// Id of the device.
    pub device: Uuid,
    /// The points, in the order asked for.
    pub points: Vec<TelemetryPoint>,
    /// There are more points in the range than the limit let through.
    #[serde(default)]
    pub truncated: bool,
    /// What of the device is marked, in range or not; points of it are among these. Absent without
    /// any, and where they are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspect: Vec<SuspectView>,
}

/// One value of one key at one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TelemetryPoint {
    /// Key of the series.
    pub key: String,
    /// Time of the value, milliseconds since the Unix epoch.
    pub ts: i64,
    /// The value as JSON text, kept raw so that a JSON value returns as it was sent.
    pub value: Box<RawValue>,
}

/// Reply to an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Devices that were added.
    pub created: u64,
    /// Bad rows that were left out.
    pub bad: u64,
    /// Which they are, in order; the first ten thousand of them.
    #[serde(default)]
    pub rows: Vec<RowError>,
}

/// A row of an import that is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The row, counted from 1.
    pub row: u32,
    /// Which of its fields; `row` for all of it.
    pub field: String,
    /// What is wrong with it, as the rest of a sentence.
    pub message: String,
}

/// One page of all devices, without their credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPage {
    /// The devices of this page, ordered by name.
    pub devices: Vec<DeviceEntry>,
    /// Devices in the registry when the page was read.
    pub total: u64,
    /// The value of `after` that asks for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A device of an [`ExportPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// Name, unique in the registry.
    pub name: String,
    /// Opaque id, for life.
    pub id: Uuid,
    /// Name of its device profile.
    pub profile: String,
    /// For people; may be empty.
    pub label: String,
    /// Patterns of the topics it may publish to besides its own; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Patterns of the topics it may receive besides its own; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// Terms of its newest live token, or of the newest that ended; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

/// Body of `POST /admin/v1/backup`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// What the backup is sealed with; whoever restores it needs it.
    pub passphrase: TokenText,
}

/// Body of every refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What was refused and why.
    pub error: ErrorBody,
}

/// The inside of an [`ApiError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs: one of the codes listed in `docs/openapi.yaml`.
    pub code: String,
    /// For people: what, where and what to do.
    pub message: String,
    /// The field, parameter or header at fault, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of a refused import: the bad rows, in order; the first ten thousand of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_55_a_token_is_redacted_in_debug_output() {
        let request = Create {
            name: "boiler".to_owned(),
            token: Some(TokenText::new("tgd_secret".to_owned())),
            ..Create::default()
        };
        let shown = format!("{request:?}");
        assert!(
            !shown.contains("secret") && shown.contains("redacted"),
            "{shown}"
        );
    }

    #[test]
    fn a_misspelt_field_of_a_request_is_refused_and_a_new_field_of_a_reply_is_not() {
        assert!(serde_json::from_str::<Create>(r#"{"name":"a","tokn":"b"}"#).is_err());
        let receipt: Receipt = serde_json::from_str(r#"{"connections":1,"later":2}"#).unwrap();
        assert_eq!(
            receipt,
            Receipt {
                connections: 1,
                ..Receipt::default()
            }
        );
    }

    #[test]
    fn a_value_returns_as_it_was_sent() {
        let text = r#"{"key":"k","ts":1,"value":{"b": 12345678901234567890123,"a":1.10}}"#;
        let point: TelemetryPoint = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&point).unwrap(), text);
    }
}
