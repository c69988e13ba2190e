//! A device as operators see it.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::{BasicInfo, Fingerprint, RegistryError, Terms};
use crate::store::devices::{self, CredentialRow, DeviceRow};
use crate::store::scopes::Filters;

/// Bytes a device name may have.
const NAME_BYTES_MAX: usize = 255;

/// The profile of a device that names none (TB: its `type`).
pub const DEFAULT_PROFILE: &str = "default";

/// Bytes the name of a device profile may have.
const PROFILE_BYTES_MAX: usize = 255;

/// Characters a label may have.
const LABEL_CHARS_MAX: usize = 255;

/// Checks the name of a device profile.
pub(super) fn check_profile(text: &str) -> Result<(), RegistryError> {
    let what = match text.len() {
        0 => "is empty".to_owned(),
        1..=PROFILE_BYTES_MAX if !text.contains(char::is_control) => return Ok(()),
        1..=PROFILE_BYTES_MAX => "has a control character".to_owned(),
        bytes => format!("has {bytes} bytes, the limit is {PROFILE_BYTES_MAX}"),
    };
    let field = "profile";
    Err(RegistryError::Invalid { field, what })
}

/// Checks a label, which may be empty.
pub(super) fn check_label(text: &str) -> Result<(), RegistryError> {
    let characters = text.chars().count();
    let what = if text.contains(char::is_control) {
        "has a control character".to_owned()
    } else if characters > LABEL_CHARS_MAX {
        format!("has {characters} characters, the limit is {LABEL_CHARS_MAX}")
    } else {
        return Ok(());
    };
    let field = "label";
    Err(RegistryError::Invalid { field, what })
}

/// A device name that can be used: 1 to 255 bytes, no control characters, nothing that could be
/// taken for an id or a step in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);

impl DeviceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] with the reason.
    pub fn new(text: &str) -> Result<DeviceName, RegistryError> {
        let what = match text {
            "" => "is empty".to_owned(),
            _ if text.len() > NAME_BYTES_MAX => {
                format!("has {} bytes, the limit is {NAME_BYTES_MAX}", text.len())
            }
            _ if text.contains(char::is_control) => "has a control character".to_owned(),
            _ if Uuid::try_parse(text).is_ok() => {
                "looks like an id, so that nobody could tell which of the two is meant".to_owned()
            }
            // A client that tidies up paths would ask for another resource.
            "." | ".." => "is a step in a path".to_owned(),
            _ => return Ok(DeviceName(text.to_owned())),
        };
        Err(RegistryError::Invalid {
            field: "name",
            what,
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// It sends telemetry on the device topics.
    Device,
    /// It does what its filters say.
    Application,
    /// It does what the scopes of its token say.
    User,
}

impl IdentityKind {
    /// The number in the database.
    pub(super) const fn number(self) -> u8 {
        match self {
            IdentityKind::Device => devices::DEVICE,
            IdentityKind::Application => devices::APPLICATION,
            IdentityKind::User => devices::USER,
        }
    }

    /// What a newer version wrote has no filters here, so that it may do nothing.
    pub(super) const fn from_number(number: u8) -> IdentityKind {
        match number {
            devices::DEVICE => IdentityKind::Device,
            devices::USER => IdentityKind::User,
            _ => IdentityKind::Application,
        }
    }
}

impl IdentityKind {
    /// What it is called: `device`, `application`, `user`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            IdentityKind::Device => "device",
            IdentityKind::Application => "application",
            IdentityKind::User => "user",
        }
    }
}

impl fmt::Display for IdentityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A device and its credentials; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Never reused.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Grows when credentials end or rights narrow.
    pub generation: u32,
    /// Name of its device profile.
    pub profile: String,
    /// For people; may be empty.
    pub label: String,
    /// Patterns of the topics it may publish to besides its own.
    pub publish: Vec<String>,
    /// Patterns of the topics it may receive besides its own.
    pub subscribe: Vec<String>,
    /// Live ones and the last ended ones, oldest first.
    pub credentials: Vec<CredentialInfo>,
}

/// A user of the identity service; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never reused.
    pub id: Uuid,
    /// The id as the world writes it: `8:acs:…`.
    pub name: String,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Grows when its tokens are revoked.
    pub generation: u32,
    /// Live ones and the last ended ones, oldest first.
    pub credentials: Vec<CredentialInfo>,
}

impl User {
    pub(super) fn from_rows(
        row: DeviceRow,
        _scope: &Filters,
        credentials: Vec<CredentialRow>,
    ) -> User {
        User {
            id: row.id,
            name: row.name,
            created_ms: row.created_ms,
            generation: row.generation,
            credentials: CredentialInfo::from_rows(credentials),
        }
    }
}

/// A credential, named by its public id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialInfo {
    /// Never reused.
    pub id: u64,
    /// What is shown at CONNECT.
    pub kind: CredentialKind,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Wall clock, ms; `None` while it is live.
    pub revoked_ms: Option<u64>,
    /// Whether a person chose the text: such a token may be weak (SEC-50).
    pub chosen: bool,
    /// When it is valid, from where, and what it allows.
    pub terms: Terms,
    /// The credential that took its place, and with whose grace time it ends.
    pub superseded_by: Option<u64>,
    /// When it is first used, those it took the place of end.
    pub retires_older: bool,
    /// What it asks for, if it is of MQTT Basic.
    pub basic: Option<BasicInfo>,
    /// The client id that it asks for beside a password.
    pub client_id: Option<String>,
    /// The user name that it asks for beside a password.
    pub user_name: Option<String>,
    /// Its fingerprint, if it is a certificate.
    pub fingerprint: Option<Fingerprint>,
}

impl CredentialInfo {
    /// Whether it opens the door at that moment, from the right place.
    #[must_use]
    pub fn is_valid_at(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none()
            && self.terms.expires_ms.is_none_or(|at| at > now_ms)
            && self.terms.not_before_ms.is_none_or(|at| at <= now_ms)
    }
}

/// What a peer shows to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CredentialKind {
    /// An access token as the MQTT user name.
    AccessToken,
    /// A token of the identity service, as the MQTT password.
    UserToken,
    /// Client id, user name and password.
    MqttBasic,
    /// A certificate in the TLS handshake.
    X509,
    /// Written by a newer version.
    Unknown,
}

impl CredentialKind {
    /// The number in the database.
    pub(super) const ACCESS_TOKEN: u8 = 1;
    /// The number in the database.
    pub(super) const USER_TOKEN: u8 = 2;
    /// The number in the database.
    pub(super) const MQTT_BASIC: u8 = devices::BASIC;
    /// The number in the database.
    pub(super) const CERTIFICATE: u8 = devices::CERTIFICATE;

    fn from_number(number: u8) -> CredentialKind {
        match number {
            Self::ACCESS_TOKEN => CredentialKind::AccessToken,
            Self::USER_TOKEN => CredentialKind::UserToken,
            Self::MQTT_BASIC => CredentialKind::MqttBasic,
            Self::CERTIFICATE => CredentialKind::X509,
            _ => CredentialKind::Unknown,
        }
    }
}

/// Which devices to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Names after this one; from the first without it.
    pub after: Option<String>,
    /// How many at most, 1 to [`Page::LIMIT_MAX`].
    pub limit: usize,
}

impl Page {
    /// Devices in one page at most.
    pub const LIMIT_MAX: usize = 10_000;

    /// Bytes of one page, roughly: it ends early where names, scopes and credentials are long.
    pub const BYTES_MAX: usize = 8 * 1024 * 1024;
}

/// A part of the list of devices, in byte order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePage {
    /// The devices.
    pub devices: Vec<Device>,
    /// The `after` of the next page; `None` on the last one.
    pub next: Option<String>,
}

impl Device {
    pub(super) fn from_rows(
        device: DeviceRow,
        scope: &Filters,
        credentials: Vec<CredentialRow>,
    ) -> Device {
        Device {
            id: device.id,
            name: device.name,
            created_ms: device.created_ms,
            generation: device.generation,
            profile: device.profile,
            label: device.label,
            publish: scope.publish().map(str::to_owned).collect(),
            subscribe: scope.subscribe().map(str::to_owned).collect(),
            credentials: CredentialInfo::from_rows(credentials),
        }
    }
}

impl CredentialInfo {
    pub(super) fn from_rows(rows: Vec<CredentialRow>) -> Vec<CredentialInfo> {
        let info = |row: CredentialRow| CredentialInfo {
            id: row.id,
            kind: CredentialKind::from_number(row.kind),
            created_ms: row.created_ms,
            revoked_ms: row.revoked_ms,
            chosen: row.chosen,
            terms: Terms::from_row(&row.terms, row.expires_ms),
            superseded_by: row.superseded_by,
            retires_older: row.retires_older,
            basic: row.basic.map(BasicInfo::from),
            client_id: row.names.client_id,
            user_name: row.names.user_name,
            fingerprint: row.certificate.map(|row| Fingerprint(row.fingerprint)),
        };
        rows.into_iter().map(info).collect()
    }
}
