//! Applications and their tokens: as `admin` for devices, with the filters of what they may do.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};

use super::admin::{ALL_RECORDS, Reply, confirm, in_registry, to_the_end};
use super::api::{
    ADMIN_PREFIX, AppCreated, AppEnded, AppPage, AppRotated, AppView, CreateApp,
    DEVICES_PER_PAGE_DEFAULT, DEVICES_PER_PAGE_MAX, RotateDevice, TokenText,
};
use super::body::{JsonBody, OptionalJsonBody};
use super::parameters::{Parameters, RawPath, app_in};
use super::refused::{Code, Refused};
use super::service::{ServiceState, Shared};
use super::views::{app_view, device_name, refused_by_registry};
use crate::identity::{DeviceToken, Page, Registry, Scope};

/// `GET /admin/v1/apps`
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<AppPage> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let after = parameters.text("after")?;
    let limit = parameters.number("limit", 1..=DEVICES_PER_PAGE_MAX)?;
    parameters.finish(&["after", "limit"])?;
    let page = Page {
        after,
        limit: limit.unwrap_or(DEVICES_PER_PAGE_DEFAULT),
    };
    let page = in_registry(&shared, move |registry| registry.applications(page)).await?;
    Ok(Json(AppPage {
        apps: page.applications.into_iter().map(app_view).collect(),
        next: page.next,
    }))
}

/// `POST /admin/v1/apps`
pub(super) async fn create(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<CreateApp>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<AppCreated>), Refused> {
    let name = device_name(&wanted.name)?;
    let token = chosen_token(&shared, wanted.token)?;
    let scope = Scope::new(wanted.publish, wanted.subscribe)
        .map_err(|error| refused_by_registry(&error))?;
    let create = move |registry: &Registry| registry.create_application(&name, &scope, token);
    let (app, token) = in_registry(&shared, create).await?;
    tracing::info!(application = %app.identity.id, "an application was created");
    let location = format!("{ADMIN_PREFIX}/apps/{}", app.identity.id);
    let created = AppCreated {
        app: app_view(app),
        token: TokenText::new(token.expose().to_owned()),
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(created),
    ))
}

/// `GET /admin/v1/apps/{app}`
pub(super) async fn show(State(shared): State<Shared>, path: RawPath) -> Reply<AppView> {
    let app = app_in(path)?;
    let app = in_registry(&shared, move |registry| registry.application(&app)).await?;
    Ok(Json(app_view(app)))
}

/// `POST /admin/v1/apps/{app}/rotate`
pub(super) async fn rotate(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<RotateDevice>,
) -> Reply<AppRotated> {
    let app = app_in(path)?;
    let token = chosen_token(&shared, wanted.token)?;
    to_the_end(async move {
        let rotate = move |registry: &Registry| registry.rotate_application(&app, token);
        let (app, token, change) = in_registry(&shared, rotate).await?;
        tracing::info!(application = %app.identity.id, "an application's token was rotated");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(AppRotated {
            app: app_view(app),
            token: TokenText::new(token.expose().to_owned()),
            receipt,
        }))
    })
    .await
}

/// `POST /admin/v1/apps/{app}/revoke`
pub(super) async fn revoke(State(shared): State<Shared>, path: RawPath) -> Reply<AppEnded> {
    let app = app_in(path)?;
    to_the_end(async move {
        let revoke = move |registry: &Registry| registry.revoke_application(&app);
        let (app, change) = in_registry(&shared, revoke).await?;
        tracing::info!(application = %app.identity.id, "an application was revoked");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(AppEnded {
            app: app_view(app),
            receipt,
        }))
    })
    .await
}

/// `DELETE /admin/v1/apps/{app}`
pub(super) async fn delete(State(shared): State<Shared>, path: RawPath) -> Reply<AppEnded> {
    let app = app_in(path)?;
    to_the_end(async move {
        let delete = move |registry: &Registry| registry.delete_application(&app, ALL_RECORDS);
        let (app, change) = in_registry(&shared, delete).await?;
        tracing::info!(application = %app.identity.id, "an application was deleted");
        let receipt = confirm(&shared, change).await?;
        Ok(Json(AppEnded {
            app: app_view(app),
            receipt,
        }))
    })
    .await
}

/// A chosen token that can be used, and is not the one that opens this API.
fn chosen_token(
    shared: &ServiceState,
    text: Option<TokenText>,
) -> Result<Option<DeviceToken>, Refused> {
    let Some(text) = text else {
        return Ok(None);
    };
    if shared.secrets.admin_token_matches(text.expose()) {
        let message = "token is the admin token, which no application may carry";
        return Err(Refused::new(Code::BadField, message).target("token"));
    }
    DeviceToken::chosen_for_application(text.expose())
        .map(Some)
        .map_err(|error| refused_by_registry(&error.into()))
}
