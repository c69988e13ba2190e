//! Listeners: one thread accepts for all of them and deals the sockets out to the greeters.
//!
//! Whoever gets no place ([`Places`]) is closed here, before it costs anybody else anything. More
//! connections in a second than are accepted, or a lack of file descriptors, make accepting pause:
//! clients wait in the system's queue, and the connected ones do not notice (SEC-81).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::places::{Place, Places};
use super::proxy;
use super::tls::Tls;
use crate::audit::{Audit, ClientId, RefusedClientNotice};
use crate::limits::Networks;
use crate::metrics::{AcceptPause, ConnectRefusal as Refusal, DoorFigures, WorkerCounters};

/// How long accepting rests when the process has no descriptor left: the connections that live
/// go on, new ones wait in the kernel's queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log says that descriptors are short.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A listening socket and what is spoken on it.
pub struct Listener {
    /// Bound and listening.
    pub socket: TcpListener,
    /// TLS, or plain TCP.
    pub tls: Option<Tls>,
    /// From where connections begin with a PROXY header.
    pub proxies: Networks,
}

/// A socket on its way to a greeter.
pub(super) struct Accepted {
    pub(super) socket: std::net::TcpStream,
    pub(super) tls: Option<Tls>,
    /// Who it is from, unless a proxy says otherwise.
    pub(super) from: IpAddr,
    /// It begins with a PROXY header.
    pub(super) is_proxied: bool,
    pub(super) place: Place,
    pub(super) since: Instant,
}

/// What accepting is limited by.
pub(super) struct Door {
    pub(super) places: Arc<Places>,
    pub(super) per_second_max: u32,
    /// Connections that the process has descriptors for.
    pub(super) descriptors_max: usize,
    pub(super) figures: DoorFigures,
    pub(super) counters: WorkerCounters,
    pub(super) audit: Audit,
}

/// The door, as all listeners use it on the acceptor's thread.
struct Doorkeeper {
    door: RefCell<Door>,
    /// When the next connection may be accepted, as far as the rate goes.
    next: Cell<Instant>,
    warned: Cell<Option<Instant>>,
}

/// Accepts on every listener until `stop` changes; runs on the acceptor's own thread.
pub(super) async fn accept_all(
    listeners: Vec<Listener>,
    door: Door,
    greeters: Vec<mpsc::Sender<Accepted>>,
    mut stop: watch::Receiver<bool>,
) {
    let keeper = Rc::new(Doorkeeper {
        door: RefCell::new(door),
        next: Cell::new(Instant::now()),
        warned: Cell::new(None),
    });
    let mut accepting = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let (greeters, keeper) = (greeters.clone(), Rc::clone(&keeper));
        accepting.push(tokio::task::spawn_local(async move {
            if let Err(error) = accept(listener, &keeper, &greeters, index).await {
                tracing::error!(%error, "a listener cannot accept any longer");
            }
        }));
    }
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
    for task in accepting {
        task.abort();
    }
}

async fn accept(
    listener: Listener,
    keeper: &Doorkeeper,
    greeters: &[mpsc::Sender<Accepted>],
    first: usize,
) -> io::Result<()> {
    listener.socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(listener.socket)?;
    let mut turn = greeters.iter().cycle().skip(first % greeters.len().max(1));
    loop {
        keeper.wait_for_descriptors().await;
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                keeper.rest_after(&error).await;
                continue;
            }
        };
        let from = proxy::peer(address);
        let is_proxied = listener.proxies.contains(from);
        let Some(place) = keeper.place(from, is_proxied) else {
            continue;
        };
        keeper.wait_for_rate().await;
        let Some(greeter) = turn.next() else {
            return Ok(());
        };
        match prepare(stream) {
            Ok(socket) => {
                let accepted = Accepted {
                    socket,
                    tls: listener.tls.clone(),
                    from,
                    is_proxied,
                    place,
                    since: Instant::now(),
                };
                if greeter.send(accepted).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was lost while it was accepted"),
        }
    }
}

fn prepare(stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

impl Doorkeeper {
    /// A place, unless a limit says no: the socket is closed then, without a word. Where a proxy
    /// names the client, its address is looked at once it is known.
    fn place(&self, from: IpAddr, is_proxied: bool) -> Option<Place> {
        let door = &mut *self.door.borrow_mut();
        let place = door.places.enter().and_then(|mut place| {
            if !is_proxied {
                place.belongs_to(from)?;
            }
            Ok(place)
        });
        place.map_err(|why| door.refuse(from, why)).ok()
    }

    /// Keeps to the rate: what came in a burst of a tenth of a second passes at once.
    async fn wait_for_rate(&self) {
        let now = Instant::now();
        let step = Duration::from_secs(1) / self.door.borrow().per_second_max.max(1);
        let burst = Duration::from_millis(100);
        let floor = now.checked_sub(burst).unwrap_or(now);
        let next = self.next.get().max(floor) + step;
        self.next.set(next);
        if next > now {
            self.door.borrow().figures.accept_paused(AcceptPause::Rate);
            tokio::time::sleep(next - now).await;
        }
    }

    /// Some descriptors are kept for what is not a client: segments, the state database, HTTP.
    async fn wait_for_descriptors(&self) {
        loop {
            let is_short = {
                let door = self.door.borrow();
                door.places.connections() >= door.descriptors_max
            };
            if !is_short {
                return;
            }
            self.rest("all file descriptors for clients are in use")
                .await;
        }
    }

    /// A peer that left early is nothing to wait for; a lack of descriptors or memory is.
    async fn rest_after(&self, error: &io::Error) {
        let is_peers = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if !is_peers {
            self.rest(&error.to_string()).await;
        }
    }

    async fn rest(&self, why: &str) {
        let now = Instant::now();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= WARN_EVERY;
        if self.warned.get().is_none_or(is_due) {
            self.warned.set(Some(now));
            tracing::warn!(
                why,
                "accepting rests: raise the limit of open files (ulimit -n)"
            );
        }
        let pause = AcceptPause::Descriptors;
        self.door.borrow().figures.accept_paused(pause);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl Door {
    fn refuse(&mut self, from: IpAddr, why: Refusal) {
        tracing::debug!(%from, ?why, "no place for a connection");
        self.counters.connect_refused(why);
        self.counters.flush();
        self.audit.refused(RefusedClientNotice {
            from: from.to_canonical(),
            client_id: ClientId::default(),
            reason: why.label(),
            is_throttled: false,
            digests: Vec::new(),
            known: None,
        });
    }
}
