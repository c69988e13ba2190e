//! Who, and what may they: devices, applications, credentials, the token index, rights.
//!
//! However a peer came in, it gets one [`Principal`]; everything after CONNECT sees only that.
//! Tokens are known by keyed digests alone (SEC-51); the key and the admin token are files beside
//! the data, never in it ([`Secrets`]).

mod applications;
mod changes;
mod device;
mod ends;
mod error;
mod index;
mod key;
mod permit;
mod registry;
mod report;
mod scope;
mod scopes;
mod secrets;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use uuid::Uuid;

pub use applications::{APPLICATIONS_MAX, Application};
pub use changes::{APPLICATION, As, DEVICE, ENDED_CREDENTIALS_KEPT};
pub use device::{
    CredentialInfo, CredentialKind, DEFAULT_PROFILE, Device, DeviceName, DevicePage, IdentityKind,
    Page,
};
pub use error::{RegistryError, SecretsError};
pub use permit::{Action, Permit, is_device_topic};
pub use registry::{
    Change, DEVICES_MAX, IMPORT_FAULTS_MAX, IMPORT_ROWS_MAX, Import, ImportRow, Imported,
    ListedDevice, Registry, RowFault,
};
pub use report::TokenReport;
pub use scope::{FILTERS_MAX, SCOPE_BYTES_MAX, Scope, ScopeChange};
pub use scopes::SCOPES_BYTES_MAX;
pub use secrets::{ADMIN_TOKEN_FILE, REGISTRY_KEY_FILE, Secrets};
pub use token::{AdminToken, DeviceToken, TOKEN_BYTES_MAX, TokenError, TokenHint};

/// Who a connection belongs to and what it may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The device or application.
    pub identity: Uuid,
    /// Which of the two.
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
}

/// Flags of the device's profile, as they stand in journal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileFlags(pub u8);
