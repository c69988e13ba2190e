//! What every request goes through: gate, deadline, endpoint, the headers of every reply.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tower_service::Service as _;

use super::REQUEST_TIME_MAX;
use super::access::{self, Caller, in_form_of};
use super::body::Deadline;
use super::bulk;
use super::caller::{self, Ends, in_the_name_of};
use super::gate::Gate;
use super::identity_service::{self, Refusal};
use super::lanes::Lanes;
use super::refused::{Code, Refused};
use super::routes;
use crate::audit::{self, Audit, Event, What};
use crate::backup::Folders;
use crate::broker::Control;
use crate::identity::{CredentialInfo, Registry, Secrets};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::net::tls::{ASKS_NOBODY, Tls};
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
    /// What MQTT clients meet on the TLS listener, if there is one.
    pub(super) mqtts: Option<Tls>,
    pub(super) lanes: Lanes,
}

impl ServiceState {
    /// Why no client can show a certificate as things are; `None` if it can.
    pub(super) fn asks_nobody(&self) -> Option<&'static str> {
        match &self.mqtts {
            None => Some("there is no TLS listener: mqtts.listen is off"),
            Some(mqtts) if mqtts.asks_clients() => None,
            Some(_) => Some(ASKS_NOBODY),
        }
    }

    /// Why no token with one of these credentials' terms opens a door as things are: what a reply
    /// warns of.
    pub(super) fn warnings(&self, credentials: &[CredentialInfo]) -> Vec<String> {
        let is_bound =
            |held: &CredentialInfo| held.revoked_ms.is_none() && held.terms.certificate.is_some();
        let why = self
            .asks_nobody()
            .filter(|_| credentials.iter().any(is_bound));
        let warning =
            |why| format!("what is bound to a client certificate opens no door, as {why}");
        why.map(warning).into_iter().collect()
    }
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
    pub(super) mqtts: Option<Tls>,
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
            mqtts: parts.mqtts,
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

    /// A request with an admin token, or to what is open to everybody.
    async fn answer_operator(
        &self,
        mut request: Request<Incoming>,
        ends: Ends,
        started: Instant,
    ) -> Response<Body> {
        let (secrets, registry) = (&self.shared.secrets, &self.shared.registry);
        let admin = |token: &str| access::admin(secrets, registry, token);
        match self.gate.admit(&request, ends.local, admin) {
            Ok(caller) => {
                let asks = Asks::new(caller::of_admin(&caller, ends), ends);
                request.extensions_mut().insert(caller);
                let time = match request.uri().path() {
                    bulk::PATH => bulk::IMPORT_TIME_MAX,
                    _ => REQUEST_TIME_MAX,
                };
                self.dispatch(request, asks, started + time, time).await
            }
            Err(refused) => {
                let endpoint = self.endpoint(&request);
                self.tell_refused(&endpoint, &Asks::new(None, ends), refused.code.as_str());
                in_form_of(request.uri().path(), refused)
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
                let endpoint = self.endpoint(&request);
                let why = Code::Unauthorized.as_str();
                self.tell_refused(&endpoint, &Asks::new(None, ends), why);
                refusal.into_response()
            }
            (Ok(()), Ok(())) => {
                request.extensions_mut().insert(Caller::BackEnd);
                let time = REQUEST_TIME_MAX;
                let signer = identity_service::signer(&request, ends);
                let asks = Asks {
                    is_back_end: true,
                    ..Asks::new(Some(signer), ends)
                };
                self.dispatch(request, asks, started + time, time).await
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
        asks: Asks,
        deadline: Instant,
        time: Duration,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let endpoint = self.endpoint(&request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Deadline(deadline));
        let reply = in_the_name_of(asks.caller.clone(), self.router.clone().call(request));
        let response = match timeout_at(deadline, reply).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let message = format!(
                    "not done after {} s; a change that was asked for may still be made",
                    time.as_secs()
                );
                in_form_of(&path, Refused::new(Code::RequestTimeout, message))
            }
        };
        self.tell(&endpoint, &asks, response.status());
        response
    }

    /// Tells of a call of somebody known: of all but plain reading, and of whatever the caller has
    /// no right to. What a back end changed is told by the change itself: these come at any rate,
    /// and a second record of each would halve how far back the audit goes.
    fn tell(&self, endpoint: &Endpoint, asks: &Asks, status: StatusCode) {
        let Some(caller) = asks.caller.as_deref() else {
            return;
        };
        if asks.is_back_end && status.is_success() {
            return;
        }
        if !endpoint.reads() {
            let event = endpoint.event(What::Call).by(Some(caller));
            let status = u64::from(status.as_u16());
            self.shared.audit.note(event.number("status", status));
        } else if status == StatusCode::FORBIDDEN {
            self.tell_refused(endpoint, asks, Code::ScopeMissing.as_str());
        }
    }

    /// Tells that somebody was refused because of who they are.
    fn tell_refused(&self, endpoint: &Endpoint, asks: &Asks, why: &str) {
        let now = std::time::Instant::now();
        self.shared.audit.call_refused(now, || {
            let event = endpoint.event(What::CallRefused);
            let event = match asks.caller.as_deref() {
                Some(caller) => event.by(Some(caller)),
                None => event.address("from", asks.ends.peer),
            };
            event.text("reason", why)
        });
    }

    fn endpoint(&self, request: &Request<Incoming>) -> Endpoint {
        Endpoint {
            method: request.method().clone(),
            path: caller::endpoint(&self.patterns, request.uri().path()),
        }
    }
}

/// Who asks, as far as it is known.
struct Asks {
    caller: Option<Arc<audit::Caller>>,
    is_back_end: bool,
    ends: Ends,
}

impl Asks {
    fn new(caller: Option<audit::Caller>, ends: Ends) -> Asks {
        Asks {
            caller: caller.map(Arc::new),
            is_back_end: false,
            ends,
        }
    }
}

/// What is asked for, as the audit names it.
struct Endpoint {
    method: Method,
    /// As its description has it.
    path: Option<&'static str>,
}

impl Endpoint {
    fn reads(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method)
    }

    fn event(&self, what: What) -> Event {
        let event = Event::new(what).text("method", self.method.as_str());
        event.text("endpoint", self.path.unwrap_or("none"))
    }
}
