//! Every endpoint: who may call it, method, path, handler. `docs/openapi.yaml` lists the same, a
//! test sees to it.

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::access::{Needs, guard, in_form_of};
use super::refused::{Code, Refused};
use super::service::Shared;
use super::{
    admins, audit, backup, bulk, credentials, health, history, identities, identity_service,
    platform, revocations, tail, tokens,
};
use crate::identity::{AdminScope, Application, Device};

/// One endpoint.
pub(super) struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the description")
    )]
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What its callers must have shown.
    pub(super) needs: Needs,
    /// Whether it has parameters behind a question mark, and refuses those that it does not know.
    reads_query: bool,
    handler: MethodRouter<Shared>,
}

/// The endpoints of one kind of identity.
macro_rules! identities {
    ($kind:ty, $list:literal, $one:literal) => {
        [
            get(
                READ,
                concat!("/admin/v1/", $list),
                identities::list::<$kind>,
            )
            .with_query(),
            post(
                OPERATE,
                concat!("/admin/v1/", $list),
                identities::create::<$kind>,
            ),
            get(
                READ,
                concat!("/admin/v1/", $list, "/", $one),
                identities::show::<$kind>,
            ),
            delete(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one),
                identities::delete::<$kind>,
            )
            .with_query(),
            post(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/rotate"),
                identities::rotate::<$kind>,
            ),
            post(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/rollback"),
                identities::roll_back::<$kind>,
            ),
            post(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/revoke"),
                identities::revoke::<$kind>,
            ),
            patch(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/scope"),
                identities::scope::<$kind>,
            ),
            post(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/credentials"),
                credentials::add::<$kind>,
            ),
            delete(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/credentials/{credential}"),
                credentials::end::<$kind>,
            ),
            patch(
                OPERATE,
                concat!("/admin/v1/", $list, "/", $one, "/terms"),
                identities::terms::<$kind>,
            ),
        ]
    };
}

const OPEN: Needs = Needs::Nothing;
const SIGNED: Needs = Needs::Signature;
const READ: Needs = Needs::Scope(AdminScope::Read);
const OPERATE: Needs = Needs::Scope(AdminScope::Operate);
const ADMIN: Needs = Needs::Scope(AdminScope::Admin);

/// Every endpoint there is.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        get(
            READ,
            "/admin/v1/devices/{device}/telemetry",
            history::telemetry,
        )
        .with_query(),
        get(READ, "/admin/v1/telemetry/tail", tail::tail).with_query(),
        get(READ, "/admin/v1/audit", audit::read).with_query(),
        get(READ, "/admin/v1/events", audit::events).with_query(),
        get(READ, "/admin/v1/refused", audit::refused).with_query(),
        post(READ, "/admin/v1/tokens/check", tokens::check),
        get(READ, "/admin/v1/tokens/usage", tokens::usage).with_query(),
        get(READ, bulk::PATH, bulk::export).with_query(),
        post(OPERATE, bulk::PATH, bulk::import).with_query(),
        // A backup holds the secrets, sealed with what the caller chooses.
        post(ADMIN, "/admin/v1/backup", backup::make),
        get(READ, "/admin/v1/openapi.yaml", health::openapi),
        get(OPEN, "/healthz", health::health),
        get(OPEN, "/readyz", health::readiness),
        get(OPEN, "/metrics", health::metrics),
    ];
    routes.extend(identities!(Device, "devices", "{device}"));
    routes.extend(identities!(Application, "apps", "{app}"));
    routes.extend(of_admin_tokens());
    routes.extend(of_the_platform());
    routes.extend(of_the_identity_service());
    routes
}

/// The paths of all endpoints, as the description has them.
pub(super) fn patterns() -> Vec<&'static str> {
    routes().into_iter().map(|route| route.path).collect()
}

fn of_admin_tokens() -> [Route; 4] {
    let one = "/admin/v1/admin-tokens/{admin_token}";
    [
        get(ADMIN, "/admin/v1/admin-tokens", admins::list).with_query(),
        post(ADMIN, "/admin/v1/admin-tokens", admins::create),
        get(ADMIN, one, admins::show),
        delete(ADMIN, one, admins::revoke),
    ]
}

fn of_the_platform() -> [Route; 3] {
    [
        get(
            READ,
            "/api/plugins/telemetry/{entityType}/{id}/keys/timeseries",
            platform::keys,
        )
        .with_query(),
        get(
            READ,
            "/api/plugins/telemetry/{entityType}/{id}/values/timeseries",
            platform::values,
        )
        .with_query(),
        get(
            READ,
            "/api/plugins/telemetry/{entityType}/{id}/values/timeseries/history",
            platform::values,
        )
        .with_query(),
    ]
}

/// What back ends call, and what operators see of it.
fn of_the_identity_service() -> [Route; 12] {
    let issue = "/identities/{id}/:issueAccessToken";
    let revoke = "/identities/{id}/:revokeAccessTokens";
    let exchange = "/teamsUser/:exchangeAccessToken";
    let renew = "/admin/v1/identity/keys/{key}/renew";
    [
        post(SIGNED, "/identities", identity_service::create).with_query(),
        delete(SIGNED, "/identities/{id}", identity_service::delete).with_query(),
        post(SIGNED, issue, identity_service::issue).with_query(),
        post(SIGNED, revoke, identity_service::revoke).with_query(),
        post(SIGNED, exchange, identity_service::exchange).with_query(),
        get(
            OPEN,
            identity_service::PUBLIC_KEYS_PATH,
            identity_service::public_keys,
        ),
        get(READ, "/admin/v1/identity", identity_service::show),
        get(READ, "/admin/v1/users", identity_service::list).with_query(),
        get(READ, "/admin/v1/users/{user}", identity_service::one),
        post(OPERATE, "/admin/v1/users/{user}/revoke", revocations::user),
        post(OPERATE, "/admin/v1/revocations", revocations::make),
        post(ADMIN, renew, identity_service::renew),
    ]
}

/// The endpoints, and the refusals of everything else.
pub(super) fn router(shared: Shared) -> Router {
    // A step of a path may begin with a colon, as those of the identity service do.
    let empty = Router::new().without_v07_checks();
    let router = routes().into_iter().fold(empty, |router, route| {
        let handler = guard(route.needs, route.reads_query, route.handler);
        router.route(route.path, handler)
    });
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

async fn not_found(uri: Uri) -> Response {
    let message = "no such endpoint; see /admin/v1/openapi.yaml";
    in_form_of(uri.path(), Refused::new(Code::NotFound, message))
}

async fn method_not_allowed(uri: Uri) -> Response {
    let message = "the endpoint does not take this method; the header Allow lists those it takes";
    in_form_of(uri.path(), Refused::new(Code::MethodNotAllowed, message))
}

fn get<H: Handler<T, Shared>, T: 'static>(needs: Needs, path: &'static str, handler: H) -> Route {
    route(needs, (Method::GET, MethodFilter::GET), path, handler)
}

fn post<H: Handler<T, Shared>, T: 'static>(needs: Needs, path: &'static str, handler: H) -> Route {
    route(needs, (Method::POST, MethodFilter::POST), path, handler)
}

fn patch<H: Handler<T, Shared>, T: 'static>(needs: Needs, path: &'static str, handler: H) -> Route {
    route(needs, (Method::PATCH, MethodFilter::PATCH), path, handler)
}

fn delete<H: Handler<T, Shared>, T: 'static>(
    needs: Needs,
    path: &'static str,
    handler: H,
) -> Route {
    route(needs, (Method::DELETE, MethodFilter::DELETE), path, handler)
}

fn route<H: Handler<T, Shared>, T: 'static>(
    needs: Needs,
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    handler: H,
) -> Route {
    let handler = on(filter, handler);
    Route {
        method,
        path,
        needs,
        reads_query: false,
        handler,
    }
}

impl Route {
    /// It reads parameters behind a question mark. Of others they are refused: a misspelt
    /// parameter must not be without effect.
    fn with_query(self) -> Route {
        Route {
            reads_query: true,
            ..self
        }
    }
}
