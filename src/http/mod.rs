//! The HTTP server: admin API, history, health, metrics.
//!
//! ```text
//! accept → connection (TLS, limits) → service (gate, deadline) → routes → admin, history, health
//!          hyper                      who, how often, how long   axum     registry, store, journal
//! ```
//!
//! One thread (`http-0`) serves every connection; whatever blocks runs on a few more (`http-1`, …),
//! each kind behind a bound of its own (`lanes`). Nothing here runs on a worker, and all of it has
//! a lower priority than workers and committer, so neither a slow query nor many of them delay an
//! acknowledgement; and nothing here is reachable from an MQTT port (SEC-75).
//!
//! The API is written down in `docs/openapi.yaml`, which is also served; tests keep it equal to
//! the routes and to the types of [`api`]. No cookies, no CORS headers: a web page of another
//! origin can neither send the token nor read a reply.

pub mod api;
pub mod identity_service;

mod access;
mod admin;
mod admins;
mod audit;
mod backup;
mod body;
mod bulk;
mod caller;
mod connection;
mod credentials;
mod gate;
mod health;
mod history;
mod identities;
mod lanes;
mod lines;
mod parameters;
mod platform;
mod refused;
mod revocations;
mod routes;
mod service;
mod suspects;
mod tail;
mod tokens;
mod views;

#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::audit::Audit;
use crate::backup::Folders;
use crate::broker::Control;
use crate::identity::{Registry, Secrets};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::net::{give_way, tls::Tls};
use crate::telemetry::History;

use service::Service;

/// Longest time for reading a request's head, and again for the rest of it up to the reply
/// (SEC-75). A late body gets 408, late work 503; work that was begun is finished all the same.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Open connections; beyond it new ones wait in the system's queue until one closes. An idle one
/// is closed after [`REQUEST_TIME_MAX`], so the wait is short.
pub const CONNECTIONS_MAX: u32 = 256;

/// Pause after a failed accept: out of file descriptors is the usual cause, and it needs others to
/// close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server is made of.
pub struct HttpParts {
    /// Bound sockets, each plain or with TLS.
    pub listeners: Vec<(TcpListener, Option<Tls>)>,
    /// What MQTT clients meet on the TLS listener, if there is one.
    pub mqtts: Option<Tls>,
    /// Host names and addresses that clients may use for this server, besides loopback names and
    /// the address a connection comes in on (SEC-75).
    pub names: Vec<String>,
    /// Requests a second in the long run, for strangers and for the operator each (SEC-75).
    pub requests_per_second_max: u32,
    /// Devices and tokens.
    pub registry: Registry,
    /// Knows the admin token.
    pub secrets: Arc<Secrets>,
    /// What devices sent.
    pub history: History,
    /// Carries changes of rights to the running broker.
    pub control: Control,
    /// What is done here is told to it.
    pub audit: Audit,
    /// Asked how it is.
    pub journal: Journal,
    /// The figures that `/metrics` shows.
    pub metrics: Metrics,
    /// What a backup holds.
    pub folders: Folders,
}

/// Why the server could not start. The environment's affair, all of it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A thread or the runtime could not be made.
    #[error("cannot start the HTTP server: {0}")]
    Runtime(#[source] io::Error),
    /// A bound socket could not be used.
    #[error("cannot use a bound socket for HTTP: {0}")]
    Listener(#[source] io::Error),
}

/// The running server. Dropping it stops it at once.
pub struct HttpServer {
    stop: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
}

impl HttpServer {
    /// Starts to answer on every listener.
    ///
    /// # Errors
    /// See [`HttpError`]; nothing is left running then.
    pub fn start(parts: HttpParts) -> Result<HttpServer, HttpError> {
        suspects::publish(&parts.registry, &parts.history);
        let runtime = runtime().map_err(HttpError::Runtime)?;
        let (stop, stopping) = watch::channel(None);
        let mut doors = Vec::new();
        for (listener, tls) in parts.listeners {
            listener
                .set_nonblocking(true)
                .map_err(HttpError::Listener)?;
            let _inside = runtime.enter(); // the socket is registered with this runtime
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(HttpError::Listener)?;
            doors.push((listener, tls));
        }
        let service = Service::new(service::ServiceParts {
            mqtts: parts.mqtts,
            names: parts.names,
            requests_per_second_max: parts.requests_per_second_max,
            registry: parts.registry,
            secrets: parts.secrets,
            history: parts.history,
            control: parts.control,
            audit: parts.audit,
            journal: parts.journal,
            metrics: parts.metrics,
            folders: parts.folders,
        });
        let thread = thread::Builder::new()
            .name("http-0".to_owned())
            .spawn(move || run(runtime, doors, &service, stopping))
            .map_err(HttpError::Runtime)?;
        Ok(HttpServer { stop, thread })
    }

    /// Accepts no more, answers what is under way for at most `grace`, then closes everything.
    /// Blocks until that is done.
    pub fn stop(self, grace: Duration) {
        // Fails only when the thread has ended already, which is what is wanted.
        let _ = self.stop.send(Some(Instant::now() + grace));
        if self.thread.join().is_err() {
            tracing::error!("the HTTP server's thread panicked");
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    let next = AtomicUsize::new(1);
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(lanes::BLOCKING_THREADS_MAX)
        .thread_name_fn(move || format!("http-{}", next.fetch_add(1, Ordering::Relaxed)))
        .build()
}

type Door = (tokio::net::TcpListener, Option<Tls>);

/// The thread `http-0`: accepts and serves until it is told to stop.
fn run(
    runtime: Runtime,
    doors: Vec<Door>,
    service: &Service,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    // The threads that this one starts inherit it.
    give_way();
    let connections = Arc::new(Semaphore::new(
        usize::try_from(CONNECTIONS_MAX).unwrap_or(usize::MAX),
    ));
    let deadline = runtime.block_on(async {
        for door in doors {
            let connections = Arc::clone(&connections);
            tokio::spawn(accept(door, service.clone(), connections, stop.clone()));
        }
        // An error means that the handle was dropped without a grace period.
        let _ = stop.changed().await;
        let deadline = stop.borrow().unwrap_or_else(Instant::now);
        // Every connection holds a permit: all of them together mean that none is left.
        let _ = timeout_at(deadline, connections.acquire_many(CONNECTIONS_MAX)).await;
        deadline
    });
    runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
}

/// Takes connections from one listener until `stop` says so.
async fn accept(
    (listener, tls): Door,
    service: Service,
    connections: Arc<Semaphore>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    loop {
        // Cancel-safe: a permit or a connection not yet handed out is not lost, but not taken.
        let arrived = tokio::select! {
            arrived = next(&listener, &connections) => arrived,
            _ = stop.changed() => return,
        };
        match arrived {
            Ok((stream, permit)) => {
                let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
                tokio::spawn(async move {
                    service.connection(true);
                    let answering = service.clone();
                    let answer = move |request, ends| answering.clone().answer(request, ends);
                    connection::serve(stream, tls, answer, stop).await;
                    service.connection(false);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept an HTTP connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is room for it.
async fn next(
    listener: &tokio::net::TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}
