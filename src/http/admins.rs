//! `/admin/v1/admin-tokens`: who may ask this API for what.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};

use super::admin::{Reply, in_registry, to_the_end};
use super::api::{
    ADMIN_PREFIX, AdminTokenCreated, AdminTokenPage, AdminTokenView, CreateAdminToken, TokenText,
};
use super::body::JsonBody;
use super::parameters::{Parameters, RawPath, named_in, page_of};
use super::refused::{Code, Refused};
use super::service::Shared;
use super::views::device_name;
use crate::identity::{AdminScope, AdminTokenInfo, Registry};

/// What a path names.
const ONE: &str = "admin_token";

/// `GET /admin/v1/admin-tokens`
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<AdminTokenPage> {
    let page = page_of(Parameters::new(query.as_deref())?)?;
    let list = move |registry: &Registry| registry.admin_tokens(&page);
    let (found, more) = in_registry(&shared, list).await?;
    let last = found.last().filter(|_| more);
    let next = last.map(|last| last.name.clone());
    let admin_tokens = found.into_iter().map(view).collect();
    Ok(Json(AdminTokenPage { admin_tokens, next }))
}

/// `POST /admin/v1/admin-tokens`
pub(super) async fn create(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<CreateAdminToken>,
) -> Result<
    (
        StatusCode,
        [(HeaderName, String); 1],
        Json<AdminTokenCreated>,
    ),
    Refused,
> {
    let name = device_name(&wanted.name)?;
    let scope = AdminScope::parse(&wanted.scope).ok_or_else(|| {
        let known = AdminScope::ALL.map(AdminScope::as_str).join(", ");
        Refused::new(Code::BadField, format!("scope must be one of: {known}")).target("scope")
    })?;
    let expires_ms = wanted.expires_ms;
    let location = format!("{ADMIN_PREFIX}/admin-tokens/{}", in_path(name.as_str()));
    let create = move |registry: &Registry| registry.create_admin_token(&name, scope, expires_ms);
    let (made, token) = in_registry(&shared, create).await?;
    tracing::info!(name = ?made.name, scope = %made.scope, "admin token created");
    let reply = AdminTokenCreated {
        admin_token: view(made),
        token: TokenText::new(token.expose().to_owned()),
    };
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(reply)))
}

/// `GET /admin/v1/admin-tokens/{admin_token}`
pub(super) async fn show(State(shared): State<Shared>, path: RawPath) -> Reply<AdminTokenView> {
    let name = named_in(path, ONE)?;
    let find = move |registry: &Registry| registry.admin_token(&name);
    Ok(Json(view(in_registry(&shared, find).await?)))
}

/// `DELETE /admin/v1/admin-tokens/{admin_token}`
pub(super) async fn revoke(State(shared): State<Shared>, path: RawPath) -> Reply<AdminTokenView> {
    let name = named_in(path, ONE)?;
    to_the_end(async move {
        let revoke = move |registry: &Registry| registry.revoke_admin_token(&name);
        let gone = in_registry(&shared, revoke).await?;
        tracing::info!(name = ?gone.name, scope = %gone.scope, "admin token revoked");
        Ok(Json(view(gone)))
    })
    .await
}

fn view(info: AdminTokenInfo) -> AdminTokenView {
    AdminTokenView {
        name: info.name,
        scope: info.scope.as_str().to_owned(),
        created_ms: info.created_ms,
        expires_ms: info.expires_ms,
        expired: info.is_expired,
    }
}

/// A name as one step of a path.
fn in_path(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
