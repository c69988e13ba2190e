//! Every endpoint: method, path, handler. `docs/openapi.yaml` lists the same, a test sees to it.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::refused::{Code, Refused};
use super::service::Shared;
use super::{admin, backup, bulk, health, history, identities, platform, tail};
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
        get("/admin/v1/openapi.yaml", health::openapi),
        get("/healthz", health::health),
        get("/readyz", health::readiness),
        get("/metrics", health::metrics),
    ];
    routes.extend(identities!(Device, "devices", "{device}"));
    routes.extend(identities!(Application, "apps", "{app}"));
    routes
}

/// The endpoints, and the refusals of everything else.
pub(super) fn router(shared: Shared) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        router.route(route.path, route.handler)
    });
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

async fn not_found() -> Response {
    Refused::new(
        Code::NotFound,
        "no such endpoint; see /admin/v1/openapi.yaml",
    )
    .into_response()
}

async fn method_not_allowed() -> Response {
    let message = "the endpoint does not take this method; the header Allow lists those it takes";
    Refused::new(Code::MethodNotAllowed, message).into_response()
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
