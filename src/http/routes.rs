//! Every endpoint: method, path, handler. `docs/openapi.yaml` lists the same, a test sees to it.

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::identity_service::{self, Refusal};
use super::refused::{Code, Refused};
use super::service::Shared;
use super::{admin, audit, backup, bulk, health, history, identities, platform, revocations, tail};
use crate::identity::{Application, Device};

/// One endpoint.
pub(super) struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the description")
    )]
    pub(super) method: Method,
    pub(super) path: &'static str,
    handler: MethodRouter<Shared>,
}

/// The endpoints of one kind of identity.
macro_rules! identities {
    ($kind:ty, $list:literal, $one:literal) => {
        [
            get(concat!("/admin/v1/", $list), identities::list::<$kind>),
            post(concat!("/admin/v1/", $list), identities::create::<$kind>),
            get(
                concat!("/admin/v1/", $list, "/", $one),
                identities::show::<$kind>,
            ),
            delete(
                concat!("/admin/v1/", $list, "/", $one),
                identities::delete::<$kind>,
            ),
            post(
                concat!("/admin/v1/", $list, "/", $one, "/rotate"),
                identities::rotate::<$kind>,
            ),
            post(
                concat!("/admin/v1/", $list, "/", $one, "/revoke"),
                identities::revoke::<$kind>,
            ),
            patch(
                concat!("/admin/v1/", $list, "/", $one, "/scope"),
                identities::scope::<$kind>,
            ),
        ]
    };
}

/// Every endpoint there is.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        get("/admin/v1/devices/{device}/telemetry", history::telemetry),
        get("/admin/v1/telemetry/tail", tail::tail),
        post("/admin/v1/tokens/check", admin::check_token),
        get(bulk::PATH, bulk::export),
        post(bulk::PATH, bulk::import),
        post("/admin/v1/backup", backup::make),
        get("/admin/v1/audit", audit::read),
        get("/admin/v1/events", audit::events),
        get("/admin/v1/refused", audit::refused),
        get(
            "/api/plugins/telemetry/{entityType}/{id}/keys/timeseries",
            platform::keys,
        ),
        get(
            "/api/plugins/telemetry/{entityType}/{id}/values/timeseries",
            platform::values,
        ),
        get(
            "/api/plugins/telemetry/{entityType}/{id}/values/timeseries/history",
            platform::values,
        ),
        post("/identities", identity_service::create),
        delete("/identities/{id}", identity_service::delete),
        post(
            "/identities/{id}/:issueAccessToken",
            identity_service::issue,
        ),
        post(
            "/identities/{id}/:revokeAccessTokens",
            identity_service::revoke,
        ),
        post(
            "/teamsUser/:exchangeAccessToken",
            identity_service::exchange,
        ),
        get(
            identity_service::PUBLIC_KEYS_PATH,
            identity_service::public_keys,
        ),
        get("/admin/v1/identity", identity_service::show),
        get("/admin/v1/users", identity_service::list),
        get("/admin/v1/users/{user}", identity_service::one),
        post("/admin/v1/users/{user}/revoke", revocations::user),
        post("/admin/v1/revocations", revocations::make),
        post(
            "/admin/v1/identity/keys/{key}/renew",
            identity_service::renew,
        ),
        get("/admin/v1/openapi.yaml", health::openapi),
        get("/healthz", health::health),
        get("/readyz", health::readiness),
        get("/metrics", health::metrics),
    ];
    routes.extend(identities!(Device, "devices", "{device}"));
    routes.extend(identities!(Application, "apps", "{app}"));
    routes
}

/// The paths of all endpoints, as the description has them.
pub(super) fn patterns() -> Vec<&'static str> {
    routes().into_iter().map(|route| route.path).collect()
}

/// The endpoints, and the refusals of everything else.
pub(super) fn router(shared: Shared) -> Router {
    // A step of a path may begin with a colon, as those of the identity service do.
    let empty = Router::new().without_v07_checks();
    let router = routes().into_iter().fold(empty, |router, route| {
        router.route(route.path, route.handler)
    });
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

async fn not_found(uri: Uri) -> Response {
    let message = "no such endpoint; see /admin/v1/openapi.yaml";
    refused(&uri, Refused::new(Code::NotFound, message))
}

async fn method_not_allowed(uri: Uri) -> Response {
    let message = "the endpoint does not take this method; the header Allow lists those it takes";
    refused(&uri, Refused::new(Code::MethodNotAllowed, message))
}

/// A refusal in the form of those whom the path belongs to.
fn refused(uri: &Uri, refused: Refused) -> Response {
    if identity_service::is_ours(uri.path()) {
        return Refusal::from(refused).into_response();
    }
    refused.into_response()
}

fn get<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::GET, MethodFilter::GET, path, handler)
}

fn post<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::POST, MethodFilter::POST, path, handler)
}

fn patch<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::PATCH, MethodFilter::PATCH, path, handler)
}

fn delete<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::DELETE, MethodFilter::DELETE, path, handler)
}

fn route<H: Handler<T, Shared>, T: 'static>(
    method: Method,
    filter: MethodFilter,
    path: &'static str,
    handler: H,
) -> Route {
    let handler = on(filter, handler);
    Route {
        method,
        path,
        handler,
    }
}
