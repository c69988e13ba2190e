//! Applications: identities that are no devices, and do what their filters say.

use std::sync::Arc;

use uuid::Uuid;

use super::changes;
use super::{
    Change, Device, DeviceName, DeviceToken, IdentityKind, Page, Permit, Registry, RegistryError,
};
use crate::mqtt::topic::{Filter, FilterBuf};
use crate::store::Transaction;
use crate::store::applications::Filters;

/// Applications the registry holds at most: each has a compiled permit in memory.
pub const APPLICATIONS_MAX: u64 = 10_000;

/// Filters for publishing, and for subscribing, that one application may have.
pub const FILTERS_MAX: usize = 64;

/// An application and its credentials; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Id, name, generation and credentials, as a device has them.
    pub identity: Device,
    /// Filters of the topics it may publish to.
    pub publish: Vec<String>,
    /// Filters of the topics it may receive.
    pub subscribe: Vec<String>,
}

/// A part of the list of applications, in byte order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationPage {
    /// The applications.
    pub applications: Vec<Application>,
    /// The `after` of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// What an application may do: filters that were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Filters);

impl Scope {
    /// Checks the filters: at most [`FILTERS_MAX`] of each, valid, without `$share` (a share gives
    /// no more than the plain filter, SEC-32) and outside the `$` trees (SEC-33).
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] with the filter at fault.
    pub fn new(publish: Vec<String>, subscribe: Vec<String>) -> Result<Scope, RegistryError> {
        check("publish", &publish)?;
        check("subscribe", &subscribe)?;
        Ok(Scope(Filters { publish, subscribe }))
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
        let token = token.unwrap_or_else(DeviceToken::for_application);
        let new = self.new_credential(&token);
        let (name, filters) = (name.clone(), scope.0.clone());
        let compiled = filters.clone();
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            if held.permits.len() as u64 >= APPLICATIONS_MAX {
                return Err(RegistryError::Full {
                    kind: IdentityKind::Application,
                    limit: APPLICATIONS_MAX,
                });
            }
            changes::create_application(transaction, &name, &filters, &new)
        };
        let application = self.change(work, move |(application, credential), shared| {
            let identity = &application.identity;
            // The permit first: whoever finds the token finds it too.
            let permit = Arc::new(permit_of(identity.id, &compiled));
            shared.permits.insert(identity.id, permit);
            shared.add(&new.digest, identity, IdentityKind::Application, credential);
            application
        })?;
        Ok((application, token))
    }

    /// One application, by its name or its id.
    ///
    /// # Errors
    /// There is none, or the database failed.
    pub fn application(&self, name_or_id: &str) -> Result<Application, RegistryError> {
        self.one(changes::APPLICATION, name_or_id)
    }

    /// A part of the list of applications, by name.
    ///
    /// # Errors
    /// A limit outside 1 to [`Page::LIMIT_MAX`], or the database failed.
    pub fn applications(&self, page: Page) -> Result<ApplicationPage, RegistryError> {
        let (applications, more) = self.page(changes::APPLICATION, page)?;
        let last = applications.last().filter(|_| more);
        let next = last.map(|application| application.identity.name.clone());
        Ok(ApplicationPage { applications, next })
    }

    /// As [`Registry::rotate`], for an application.
    ///
    /// # Errors
    /// There is no such application, the token is taken, or the database failed.
    pub fn rotate_application(
        &self,
        name_or_id: &str,
        token: Option<DeviceToken>,
    ) -> Result<(Application, DeviceToken, Change), RegistryError> {
        let token = token.unwrap_or_else(DeviceToken::for_application);
        self.rotate_as(changes::APPLICATION, name_or_id, token)
    }

    /// As [`Registry::revoke`], for an application.
    ///
    /// # Errors
    /// There is no such application, or the database failed.
    pub fn revoke_application(
        &self,
        name_or_id: &str,
    ) -> Result<(Application, Change), RegistryError> {
        self.revoke_as(changes::APPLICATION, name_or_id)
    }

    /// As [`Registry::delete`], for an application.
    ///
    /// # Errors
    /// There is no such application, or the database failed.
    pub fn delete_application(
        &self,
        name_or_id: &str,
        at: u64,
    ) -> Result<(Application, Change), RegistryError> {
        self.delete_as(changes::APPLICATION, name_or_id, at)
    }
}

/// Compiles what an application may do. A filter that this version does not take (a newer one
/// wrote it) allows nothing.
pub(super) fn permit_of(id: Uuid, filters: &Filters) -> Permit {
    let compile = |texts: &[String]| -> Vec<FilterBuf> {
        let checked = texts.iter().filter_map(|text| match Filter::new(text) {
            Ok(filter) if filter.share_name().is_none() => Some(FilterBuf::from(filter)),
            _ => {
                tracing::warn!(application = %id, filter = text, "this filter allows nothing");
                None
            }
        });
        checked.collect()
    };
    Permit::filters(compile(&filters.publish), compile(&filters.subscribe))
}

fn check(field: &'static str, filters: &[String]) -> Result<(), RegistryError> {
    let invalid = |what: String| Err(RegistryError::Invalid { field, what });
    if filters.len() > FILTERS_MAX {
        let found = filters.len();
        return invalid(format!("has {found} filters, the limit is {FILTERS_MAX}"));
    }
    for text in filters {
        match Filter::new(text) {
            Err(error) => return invalid(format!("filter {text:?} {error}")),
            Ok(filter) if filter.share_name().is_some() => {
                return invalid(format!(
                    "filter {text:?} names a share group; give the plain filter, which allows \
                     every group on it"
                ));
            }
            Ok(filter) if filter.as_str().starts_with('$') => {
                return invalid(format!("filter {text:?} is in a $ tree, which is closed"));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}
