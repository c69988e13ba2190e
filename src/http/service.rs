//! What every request goes through: gate, deadline, endpoint, the headers of every reply.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tower_service::Service as _;

use super::REQUEST_TIME_MAX;
use super::access::{self, Caller, in_form_of};
use super::body::Deadline;
use super::bulk;
use super::gate::Gate;
use super::identity_service::{self, Refusal};
use super::lanes::Lanes;
use super::refused::{Code, Refused};
use super::routes;
use crate::backup::Folders;
use crate::broker::Control;
use crate::identity::{Registry, Secrets};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::telemetry::History;

/// What endpoints work with. Cloning shares it.
pub(super) type Shared = Arc<ServiceState>;

/// The inside of [`Shared`].
pub(super) struct ServiceState {
    pub(super) registry: Registry,
    pub(super) secrets: Arc<Secrets>,
    pub(super) history: History,
    pub(super) control: Control,
    pub(super) journal: Journal,
    pub(super) metrics: Metrics,
    pub(super) folders: Folders,
    pub(super) lanes: Lanes,
}

/// The parts of a [`Service`].
pub(super) struct ServiceParts {
    pub(super) names: Vec<String>,
    pub(super) requests_per_second_max: u32,
    pub(super) registry: Registry,
    pub(super) secrets: Arc<Secrets>,
    pub(super) history: History,
    pub(super) control: Control,
    pub(super) journal: Journal,
    pub(super) metrics: Metrics,
    pub(super) folders: Folders,
}

/// Answers requests. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Service {
    gate: Arc<Gate>,
    shared: Shared,
    router: Router,
}

impl Service {
    pub(super) fn new(parts: ServiceParts) -> Service {
        let shared = Arc::new(ServiceState {
            registry: parts.registry,
            secrets: parts.secrets,
            history: parts.history,
            control: parts.control,
            journal: parts.journal,
            metrics: parts.metrics,
            folders: parts.folders,
            lanes: Lanes::new(),
        });
        Service {
            gate: Arc::new(Gate::new(parts.names, parts.requests_per_second_max)),
            router: routes::router(Shared::clone(&shared)),
            shared,
        }
    }

    /// Answers one request that came in on the address `local`.
    pub(super) async fn answer(self, request: Request<Incoming>, local: IpAddr) -> Response<Body> {
        let started = Instant::now();
        let method = request.method().clone();
        let mut response = if identity_service::is_ours(request.uri().path()) {
            self.answer_signed(request, started).await
        } else {
            self.answer_operator(request, local, started).await
        };
        let headers = response.headers_mut();
        // A token that is shown once must not stay in anybody's cache.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        let status = response.status().as_u16();
        self.shared.metrics.http_request(status);
        // Not the address: it may hold what a caller put there by mistake (SEC-55).
        tracing::debug!(%method, status, elapsed = ?started.elapsed(), "HTTP request");
        response
    }

    /// A request with an admin token, or to what is open to everybody.
    async fn answer_operator(
        &self,
        mut request: Request<Incoming>,
        local: IpAddr,
        started: Instant,
    ) -> Response<Body> {
        let (secrets, registry) = (&self.shared.secrets, &self.shared.registry);
        let admin = |token: &str| access::admin(secrets, registry, token);
        match self.gate.admit(&request, local, admin) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                let time = match request.uri().path() {
                    bulk::PATH => bulk::IMPORT_TIME_MAX,
                    _ => REQUEST_TIME_MAX,
                };
                self.dispatch(request, started + time, time).await
            }
            Err(refused) => in_form_of(request.uri().path(), refused),
        }
    }

    /// A request to the identity service, which is signed.
    async fn answer_signed(
        &self,
        mut request: Request<Incoming>,
        started: Instant,
    ) -> Response<Body> {
        let client_id = identity_service::client_request_id(request.headers());
        let admitted = identity_service::admit(&self.shared, &mut request);
        let counted = self.gate.count_signed(admitted.is_ok());
        let mut response = match (counted, admitted) {
            (Err(refused), _) => Refusal::from(refused).into_response(),
            (Ok(()), Err(refusal)) => refusal.into_response(),
            (Ok(()), Ok(())) => {
                request.extensions_mut().insert(Caller::BackEnd);
                let time = REQUEST_TIME_MAX;
                self.dispatch(request, started + time, time).await
            }
        };
        identity_service::finish(&mut response, client_id);
        response
    }

    /// Notes that a connection was opened (true) or closed (false).
    pub(super) fn connection(&self, opened: bool) {
        self.shared.metrics.http_connection(opened);
    }

    async fn dispatch(
        &self,
        request: Request<Incoming>,
        deadline: Instant,
        time: Duration,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Deadline(deadline));
        let reply = self.router.clone().call(request);
        match timeout_at(deadline, reply).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let message = format!(
                    "not done after {} s; a change that was asked for may still be made",
                    time.as_secs()
                );
                in_form_of(&path, Refused::new(Code::RequestTimeout, message))
            }
        }
    }
}
