//! What every request goes through: gate, deadline, endpoint, the headers of every reply.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tower_service::Service as _;

use super::REQUEST_TIME_MAX;
use super::body::Deadline;
use super::bulk;
use super::caller::{self, Ends, in_the_name_of};
use super::gate::Gate;
use super::identity_service::{self, Refusal};
use super::lanes::Lanes;
use super::platform::{self, in_platform_form};
use super::refused::{Code, Refused};
use super::routes;
use crate::audit::{Audit, Caller, Event, What};
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
    pub(super) audit: Audit,
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
    pub(super) audit: Audit,
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
    /// The paths of all endpoints.
    patterns: Arc<[&'static str]>,
}

impl Service {
    pub(super) fn new(parts: ServiceParts) -> Service {
        let shared = Arc::new(ServiceState {
            registry: parts.registry,
            secrets: parts.secrets,
            history: parts.history,
            control: parts.control,
            audit: parts.audit,
            journal: parts.journal,
            metrics: parts.metrics,
            folders: parts.folders,
            lanes: Lanes::new(),
        });
        Service {
            gate: Arc::new(Gate::new(parts.names, parts.requests_per_second_max)),
            router: routes::router(Shared::clone(&shared)),
            patterns: routes::patterns().into(),
            shared,
        }
    }

    /// Answers one request that came in on a connection between these addresses.
    pub(super) async fn answer(self, request: Request<Incoming>, ends: Ends) -> Response<Body> {
        let started = Instant::now();
        let method = request.method().clone();
        let mut response = if identity_service::is_ours(request.uri().path()) {
            self.answer_signed(request, ends, started).await
        } else {
            self.answer_operator(request, ends, started).await
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

    /// A request with the admin token, or to what is open to everybody.
    async fn answer_operator(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        started: Instant,
    ) -> Response<Body> {
        let is_platform = request.uri().path().starts_with(platform::PREFIX);
        let is_admin = |token: &str| self.shared.secrets.admin_token_matches(token);
        match self.gate.admit(&request, ends.local, is_admin) {
            Ok(()) => {
                let time = match request.uri().path() {
                    bulk::PATH => bulk::IMPORT_TIME_MAX,
                    _ => REQUEST_TIME_MAX,
                };
                let caller = Caller {
                    by: "admin".into(),
                    from: Some(ends.peer),
                };
                self.dispatch(request, caller, started + time, time).await
            }
            Err(refused) => {
                self.tell_refused(&request, ends, refused.code.as_str());
                if is_platform {
                    in_platform_form(refused)
                } else {
                    refused.into_response()
                }
            }
        }
    }

    /// A request to the identity service, which is signed.
    async fn answer_signed(
        &self,
        mut request: Request<Incoming>,
        ends: Ends,
        started: Instant,
    ) -> Response<Body> {
        let client_id = identity_service::client_request_id(request.headers());
        let admitted = identity_service::admit(&self.shared, &mut request);
        let counted = self.gate.count_signed(admitted.is_ok());
        let mut response = match (counted, admitted) {
            (Err(refused), _) => Refusal::from(refused).into_response(),
            (Ok(()), Err(refusal)) => {
                self.tell_refused(&request, ends, Code::Unauthorized.as_str());
                refusal.into_response()
            }
            (Ok(()), Ok(())) => {
                let time = REQUEST_TIME_MAX;
                let caller = Caller {
                    by: identity_service::signer(&request).into(),
                    from: Some(ends.peer),
                };
                self.dispatch(request, caller, started + time, time).await
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
        caller: Caller,
        deadline: Instant,
        time: Duration,
    ) -> Response<Body> {
        let is_signed = identity_service::is_ours(request.uri().path());
        let caller = Arc::new(caller);
        let call = self.call(&request, &caller);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Deadline(deadline));
        let reply = in_the_name_of(caller, self.router.clone().call(request));
        let response = match timeout_at(deadline, reply).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let message = format!(
                    "not done after {} s; a change that was asked for may still be made",
                    time.as_secs()
                );
                let refused = Refused::new(Code::RequestTimeout, message);
                if is_signed {
                    Refusal::from(refused).into_response()
                } else {
                    refused.into_response()
                }
            }
        };
        if let Some(call) = call {
            let status = u64::from(response.status().as_u16());
            self.shared.audit.note(call.number("status", status));
        }
        response
    }

    /// What the audit is told of a call, but for its outcome; `None` for plain reading.
    fn call(&self, request: &Request<Incoming>, caller: &Caller) -> Option<Event> {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let event = || self.described(What::Call, request).by(Some(caller));
        (!reads).then(event)
    }

    /// Tells that somebody was refused because of who they are.
    fn tell_refused(&self, request: &Request<Incoming>, ends: Ends, why: &str) {
        let now = std::time::Instant::now();
        self.shared.audit.call_refused(now, || {
            let event = self.described(What::CallRefused, request);
            event.address("from", ends.peer).text("reason", why)
        });
    }

    fn described(&self, what: What, request: &Request<Incoming>) -> Event {
        let endpoint = caller::endpoint(&self.patterns, request.uri().path());
        let event = Event::new(what).text("method", request.method().as_str());
        event.text("endpoint", endpoint.unwrap_or("none"))
    }
}
