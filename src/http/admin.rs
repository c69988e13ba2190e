//! Devices and their tokens.
//!
//! A change that takes rights away goes: registry (durable) → every worker confirms → reply with
//! the receipt (SEC-34). The whole of it runs as a task of its own: a caller who hangs up between
//! two of these steps must not leave connections with rights that ended.

use std::future::Future;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};

use super::api::{
    ADMIN_PREFIX, CreateDevice, DEVICES_PER_PAGE_DEFAULT, DEVICES_PER_PAGE_MAX, Deleted,
    DeviceCreated, DevicePage, DeviceView, Receipt, Revoked, RotateDevice, Rotated, TokenCheck,
    TokenReport, TokenText,
};
use super::body::{JsonBody, OptionalJsonBody};
use super::parameters::{Parameters, RawPath, device_in};
use super::refused::{Code, Refused};
use super::service::{ServiceState, Shared};
use super::views::{
    chosen_token, device_name, device_view, page_view, refused_by_registry, report_view,
};
use crate::identity::{Change, Page, Registry, RegistryError};
use crate::journal::Offset;

/// Up to which journal offset the records of a deleted device are dead: all of them, whatever is
/// still on its way to the disk, as a device's id is never given out again. The largest number
/// that the state database holds.
pub(super) const ALL_RECORDS: u64 = u64::MAX >> 1;

/// What a handler returns.
pub(super) type Reply<T> = Result<Json<T>, Refused>;

/// `GET /admin/v1/devices`
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<DevicePage> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let after = parameters.text("after")?;
    let limit = parameters.number("limit", 1..=DEVICES_PER_PAGE_MAX)?;
    parameters.finish(&["after", "limit"])?;
    let page = Page {
        after,
        limit: limit.unwrap_or(DEVICES_PER_PAGE_DEFAULT),
    };
    let page = in_registry(&shared, move |registry| registry.devices(page)).await?;
    Ok(Json(page_view(page)))
}

/// `POST /admin/v1/devices`
pub(super) async fn create(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<CreateDevice>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<DeviceCreated>), Refused> {
    let name = device_name(&wanted.name)?;
    let token = chosen_token(wanted.token)?;
    let create = move |registry: &Registry| registry.create_device(&name, token);
    let (device, token) = in_registry(&shared, create).await?;
    tracing::info!(device = %device.id, "a device was created");
    let location = format!("{ADMIN_PREFIX}/devices/{}", device.id);
    let token = TokenText::new(token.expose().to_owned());
    let created = DeviceCreated {
        device: device_view(device),
        token,
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(created),
    ))
}

/// `GET /admin/v1/devices/{device}`
pub(super) async fn show(State(shared): State<Shared>, path: RawPath) -> Reply<DeviceView> {
    let device = device_in(path)?;
    let device = in_registry(&shared, move |registry| registry.device(&device)).await?;
    Ok(Json(device_view(device)))
}

/// `POST /admin/v1/devices/{device}/rotate`
pub(super) async fn rotate(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<RotateDevice>,
) -> Reply<Rotated> {
    let device = device_in(path)?;
    let token = chosen_token(wanted.token)?;
    to_the_end(async move {
        let rotate = move |registry: &Registry| registry.rotate(&device, token);
        let (device, token, change) = in_registry(&shared, rotate).await?;
        tracing::info!(device = %device.id, "the token of a device was rotated");
        let receipt = confirm(&shared, change).await?;
        let token = TokenText::new(token.expose().to_owned());
        Ok(Json(Rotated {
            device: device_view(device),
            token,
            receipt,
        }))
    })
    .await
}

/// `POST /admin/v1/devices/{device}/revoke`
pub(super) async fn revoke(State(shared): State<Shared>, path: RawPath) -> Reply<Revoked> {
    let device = device_in(path)?;
    to_the_end(async move {
        let revoke = move |registry: &Registry| registry.revoke(&device);
        let (device, change) = in_registry(&shared, revoke).await?;
        tracing::info!(device = %device.id, "a device was revoked");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(Revoked {
            device: device_view(device),
            receipt,
        }))
    })
    .await
}

/// `DELETE /admin/v1/devices/{device}`
pub(super) async fn delete(State(shared): State<Shared>, path: RawPath) -> Reply<Deleted> {
    let device = device_in(path)?;
    to_the_end(async move {
        let delete = move |registry: &Registry| registry.delete(&device, ALL_RECORDS);
        let (device, change) = in_registry(&shared, delete).await?;
        tracing::info!(device = %device.id, "a device was deleted");
        shared.history.forget(device.id, Offset::new(ALL_RECORDS));
        let receipt = confirm(&shared, change).await?;
        Ok(Json(Deleted {
            device: device_view(device),
            receipt,
        }))
    })
    .await
}

/// `POST /admin/v1/tokens/check`
pub(super) async fn check_token(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<TokenCheck>,
) -> Reply<TokenReport> {
    let check = move |registry: &Registry| registry.check_token(wanted.token.expose());
    Ok(Json(report_view(in_registry(&shared, check).await?)))
}

/// Asks the registry, off this thread.
pub(super) async fn in_registry<T: Send + 'static>(
    shared: &ServiceState,
    ask: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, Refused> {
    let registry = shared.registry.clone();
    let call = move || ask(&registry).map_err(|error| refused_by_registry(&error));
    shared.lanes.registry(call).await
}

/// Has every worker confirm a change that is durable already.
pub(super) async fn confirm(shared: &ServiceState, change: Change) -> Result<Receipt, Refused> {
    let receipt = shared.control.apply(change).await.map_err(|late| {
        // What a reply would have shown once (a new token) is lost with it: asking again helps.
        let message = format!("durable, not yet confirmed everywhere: {late}");
        Refused::new(Code::NotConfirmed, message)
    })?;
    Ok(Receipt {
        connections: receipt.connections,
        sessions: receipt.sessions,
        queued: receipt.unfinished,
        milliseconds: receipt.milliseconds,
    })
}

/// Runs a change to its end, also when nobody waits for the reply any more.
pub(super) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    let task = tokio::spawn(change);
    task.await
        .map_err(|panicked| Refused::internal(&panicked))?
}
