//! Applications: identities that are no devices, and do what their scope says.

use uuid::Uuid;

use super::changes;
use super::{CredentialInfo, DeviceName, DeviceToken, Registry, RegistryError, Scope, TermsChange};
use crate::store::devices::{CredentialRow, DeviceRow};
use crate::store::scopes::Filters;

/// Applications the registry holds at most: each has a permit of its own in memory.
pub const APPLICATIONS_MAX: u64 = 10_000;

/// An application and its credentials; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Never reused.
    pub id: Uuid,
    /// Unique among devices and applications.
    pub name: String,
    /// Wall clock, ms.
    pub created_ms: u64,
    /// Grows when credentials end or rights narrow.
    pub generation: u32,
    /// Filters of the topics it may publish to.
    pub publish: Vec<String>,
    /// Filters of the topics it may receive.
    pub subscribe: Vec<String>,
    /// Live ones and the last ended ones, oldest first.
    pub credentials: Vec<CredentialInfo>,
}

impl Application {
    pub(super) fn from_rows(
        row: DeviceRow,
        scope: &Filters,
        credentials: Vec<CredentialRow>,
    ) -> Application {
        Application {
            id: row.id,
            name: row.name,
            created_ms: row.created_ms,
            generation: row.generation,
            publish: scope.publish().map(str::to_owned).collect(),
            subscribe: scope.subscribe().map(str::to_owned).collect(),
            credentials: CredentialInfo::from_rows(credentials),
        }
    }
}

impl Registry {
    /// Adds an application with one token, a fresh one without `token`. Durable on return.
    ///
    /// # Errors
    /// The name or the token is taken, the registry is full, or the database failed.
    pub fn create_application(
        &self,
        name: &DeviceName,
        scope: &Scope,
        token: Option<DeviceToken>,
    ) -> Result<(Application, DeviceToken), RegistryError> {
        self.create_as(
            changes::APPLICATION,
            name,
            scope,
            &TermsChange::default(),
            token,
        )
    }
}
