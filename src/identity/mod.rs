//! Who, and what may they: devices, applications, credentials, the token index, rights.
//!
//! However a peer came in, it gets one [`Principal`]; everything after CONNECT sees only that.
//! Tokens are known by keyed digests alone (SEC-51); the key and the admin token are files beside
//! the data, never in it ([`Secrets`]).

mod admin_tokens;
mod applications;
pub mod base64;
mod basic;
mod certificate;
mod changes;
mod credentials;
mod deeds;
mod device;
mod ends;
mod error;
mod index;
mod key;
mod marks;
mod permit;
mod principal;
mod quota;
mod registry;
mod report;
mod retire;
mod revoke;
mod rights;
mod rotate;
mod scope;
mod scopes;
mod secrets;
mod terms;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod users;

pub use admin_tokens::{ADMIN_TOKENS_MAX, Admin, AdminScope, AdminTokenInfo};
pub use applications::{APPLICATIONS_MAX, Application};
pub use basic::{BasicInfo, NewBasic, Shown};
pub use certificate::{Certified, Fingerprint, GoodCertificate, NewCertificate, Origin};
pub use changes::{APPLICATION, As, DEVICE, ENDED_CREDENTIALS_KEPT, Identified, USER};
pub use credentials::{Added, Adding};
pub use device::{
    CredentialInfo, CredentialKind, DEFAULT_PROFILE, Device, DeviceName, DevicePage, IdentityKind,
    Page, User,
};
pub use error::{RegistryError, SecretsError};
pub use permit::{Action, Permit, is_device_topic};
pub use principal::{NotAdmitted, Principal, ProfileFlags, TokenRefusal};
pub use quota::{QUOTA_MAX, Quota, QuotaPlace};
pub use registry::{
    Change, DEVICES_MAX, IMPORT_FAULTS_MAX, IMPORT_ROWS_MAX, Import, ImportRow, Imported,
    ListedDevice, Registry, RowFault,
};
pub use report::{LiveToken, TokenReport};
pub use revoke::{Named, REVOKED_AT_ONCE_MAX, Revoked, Since, SuspectRow};
pub use rights::{Right, Rights};
pub use rotate::{GRACE_DEFAULT_S, GRACE_MAX_S, LIVE_TOKENS_MAX, Rotation};
pub use scope::{FILTERS_MAX, SCOPE_BYTES_MAX, Scope, ScopeChange};
pub use scopes::SCOPES_BYTES_MAX;
pub use secrets::{ADMIN_TOKEN_FILE, IDENTITY_KEY_FILE, REGISTRY_KEY_FILE, Secrets};
pub use terms::{EXPIRES_MAX_MS, NETWORKS_MAX, Terms, TermsChange};
pub use token::{AdminToken, DeviceToken, TOKEN_BYTES_MAX, TokenError, TokenHint};
pub use usage::{LastUse, OldToken, USAGE_PER_PAGE_MAX};
pub use users::{
    AccessKeyInfo, AccessKeyName, AccessKeyText, LIFE_MINUTES, RenewedKey, USER_FILTERS_MAX,
    USER_ID_PREFIX, USER_TOKEN_BYTES_MAX, USER_TOKENS_MAX, USERS_MAX, UserCounts, UserFigures,
    UserScope, UserScopes, UserToken, UserTopics, UserTotals, WantedToken, content_hash,
};
