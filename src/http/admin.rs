//! What the handlers of the admin API have in common: the registry's lane, and how a change goes.
//!
//! A change that takes rights away goes: registry (durable) → every worker confirms → reply with
//! the receipt (SEC-34). The whole of it runs as a task of its own: a caller who hangs up between
//! two of these steps must not leave connections with rights that ended.

use std::future::Future;

use axum::Json;

use super::api::Receipt;
use super::caller::{caller, in_the_name_of};
use super::refused::{Code, Refused};
use super::service::ServiceState;
use super::views::refused_by_registry;
use crate::broker;
use crate::identity::{Change, Registry, RegistryError};

/// Up to which journal offset the records of a deleted device are dead: all of them, whatever is
/// still on its way to the disk, as a device's id is never given out again. The largest number
/// that the state database holds.
pub(super) const ALL_RECORDS: u64 = u64::MAX >> 1;

/// What a handler returns.
pub(super) type Reply<T> = Result<Json<T>, Refused>;

/// Asks the registry, off this thread.
pub(super) async fn in_registry<T: Send + 'static>(
    shared: &ServiceState,
    ask: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, Refused> {
    let registry = shared.registry.by(caller());
    let call = move || ask(&registry).map_err(|error| refused_by_registry(&error));
    shared.lanes.registry(call).await
}

/// Has every worker confirm a change that is durable already.
pub(super) async fn confirm(shared: &ServiceState, change: Change) -> Result<Receipt, Refused> {
    let receipts = confirm_all(shared, vec![change]).await?;
    let receipt = receipts.first().copied().unwrap_or_default();
    Ok(Receipt::of(&receipt, false))
}

/// Has every worker confirm changes that are durable already; what each ended.
pub(super) async fn confirm_all(
    shared: &ServiceState,
    changes: Vec<Change>,
) -> Result<Vec<broker::Receipt>, Refused> {
    shared.control.apply_all(changes).await.map_err(|late| {
        // What a reply would have shown once (a new token) is lost with it: asking again helps.
        let message = format!("durable, not yet confirmed everywhere: {late}");
        Refused::new(Code::NotConfirmed, message)
    })
}

/// Asks every worker what changes would end that nobody made.
pub(super) async fn foresee_all(
    shared: &ServiceState,
    changes: Vec<Change>,
) -> Result<Vec<broker::Receipt>, Refused> {
    shared.control.foresee_all(changes).await.map_err(|late| {
        let missing = late.missing;
        let message = format!("nothing was changed; {missing} workers did not answer in time");
        Refused::new(Code::NotConfirmed, message)
    })
}

/// Runs a change to its end, also when nobody waits for the reply any more.
pub(super) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(in_the_name_of(caller(), change))
        .await
        .map_err(|panicked| Refused::internal(&panicked))?
}
