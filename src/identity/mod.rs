//! Who, and what may they: devices, applications, credentials, the token index, rights.
//!
//! However a peer came in, it gets one [`Principal`]; everything after CONNECT sees only that.
//! Tokens are known by keyed digests alone (SEC-51); the key and the admin token are files beside
//! the data, never in it ([`Secrets`]).

mod applications;
pub mod base64;
mod changes;
mod deeds;
mod device;
mod ends;
mod error;
mod index;
mod key;
mod permit;
mod registry;
mod report;
mod revoke;
mod scope;
mod scopes;
mod secrets;
#[cfg(test)]
mod tests;
mod token;
mod users;

use std::sync::Arc;

use uuid::Uuid;

pub use applications::{APPLICATIONS_MAX, Application};
pub use changes::{APPLICATION, As, DEVICE, ENDED_CREDENTIALS_KEPT, USER};
pub use device::{
    CredentialInfo, CredentialKind, DEFAULT_PROFILE, Device, DeviceName, DevicePage, IdentityKind,
    Page, User,
};
pub use error::{RegistryError, SecretsError};
pub use permit::{Action, Permit, is_device_topic};
pub use registry::{
    Change, DEVICES_MAX, IMPORT_FAULTS_MAX, IMPORT_ROWS_MAX, Import, ImportRow, Imported,
    ListedDevice, Registry, RowFault,
};
pub use report::TokenReport;
pub use revoke::{Named, REVOKED_AT_ONCE_MAX, Revoked};
pub use scope::{FILTERS_MAX, SCOPE_BYTES_MAX, Scope, ScopeChange};
pub use scopes::SCOPES_BYTES_MAX;
pub use secrets::{ADMIN_TOKEN_FILE, IDENTITY_KEY_FILE, REGISTRY_KEY_FILE, Secrets};
pub use token::{AdminToken, DeviceToken, TOKEN_BYTES_MAX, TokenError, TokenHint};
pub use users::{
    AccessKeyInfo, AccessKeyName, AccessKeyText, LIFE_MINUTES, RenewedKey, USER_FILTERS_MAX,
    USER_ID_PREFIX, USER_TOKEN_BYTES_MAX, USER_TOKENS_MAX, USERS_MAX, UserCounts, UserFigures,
    UserScope, UserScopes, UserToken, UserTopics, UserTotals, WantedToken, content_hash,
};

/// Who a connection belongs to and what it may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The device, application or user.
    pub identity: Uuid,
    /// Which of them.
    pub kind: IdentityKind,
    /// The credential that it showed.
    pub credential: u64,
    /// The identity's generation when it showed it.
    pub generation: u32,
    /// How its payloads are read.
    pub profile: ProfileFlags,
    /// What it may publish to and receive. Compiled once, shared.
    pub permit: Arc<Permit>,
    /// When the credential ends by itself, wall clock in ms; access tokens never do.
    pub expires_at_ms: Option<u64>,
    /// What is counted of a user; nobody else is counted.
    pub figures: Option<Arc<UserFigures>>,
}

/// Flags of the device's profile, as they stand in journal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileFlags(pub u8);
