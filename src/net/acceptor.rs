//! Listeners: one thread accepts for all of them.
//!
//! Sockets come in bursts: those that wait are accepted first, then each is looked after. One of a
//! plain listener is greeted here, as its CONNECT is most often there by then and takes less than
//! to wake another thread for it; TLS and PROXY headers are dealt out to the greeters. Behind a
//! full burst the thread offers its core, and whoever was let in is on the way home.
//!
//! Whoever gets no place ([`Places`]) is closed here, before it costs anybody else anything. More
//! connections in a second than are accepted, or a lack of file descriptors, make accepting pause:
//! clients wait in the system's queue, and the connected ones do not notice (SEC-81).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::greeter::{Greeter, TOGETHER_MAX};
use super::handshake;
use super::places::{Place, Places};
use super::proxy;
use super::start::spawn_vital;
use super::tls::Tls;
use super::websocket::WebSocketRules;
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
    /// MQTT over WebSocket, or MQTT right away.
    pub web: Option<Arc<WebSocketRules>>,
    /// From where connections begin with a PROXY header.
    pub proxies: Networks,
}

/// A socket on its way to a greeter. It does not block.
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) tls: Option<Tls>,
    pub(super) web: Option<Arc<WebSocketRules>>,
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

/// Who looks after accepted sockets.
pub(super) struct Reception {
    /// On the acceptor's own thread.
    own: Rc<Greeter>,
    /// The others, each on a thread of its own.
    others: Vec<mpsc::Sender<Accepted>>,
}

impl Reception {
    /// Greeters: one for the acceptor's thread, and the ways to the others.
    pub(super) fn new(own: Rc<Greeter>, others: Vec<mpsc::Sender<Accepted>>) -> Reception {
        Reception { own, others }
    }
}

/// Why a burst has no more sockets.
enum Filled {
    /// Nobody waits any longer.
    Emptied,
    /// It has as many as it may have.
    Full,
    /// The last one is one too many for this moment: it has to wait so long.
    TooFast(Duration),
    /// All descriptors for clients are in use.
    NoDescriptors,
    Failed(io::Error),
}

/// Accepts on every listener until `stop` changes; runs on the acceptor's own thread.
pub(super) async fn accept_all(
    listeners: Vec<Listener>,
    door: Door,
    reception: Reception,
    mut stop: watch::Receiver<bool>,
) {
    let keeper = Rc::new(Doorkeeper {
        door: RefCell::new(door),
        next: Cell::new(Instant::now()),
        warned: Cell::new(None),
    });
    let reception = Rc::new(reception);
    reception.own.open();
    for (index, listener) in listeners.into_iter().enumerate() {
        let (reception, keeper) = (Rc::clone(&reception), Rc::clone(&keeper));
        spawn_vital(async move {
            if let Err(error) = accept(listener, &keeper, &reception, index).await {
                tracing::error!(%error, "a listener cannot accept any longer");
            }
        });
    }
    // An error means that the sender is gone, which is a stop as well. The tasks end with the
    // thread.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// Puts a listening socket on this thread's runtime.
#[expect(
    deprecated,
    reason = "unsound only for types whose descriptor may not be theirs, and this one's is"
)]
fn watch(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    socket.set_nonblocking(true)?;
    // Every socket that is accepted has it from the listener.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn accept(
    listener: Listener,
    keeper: &Doorkeeper,
    reception: &Reception,
    first: usize,
) -> io::Result<()> {
    let socket = watch(listener.socket)?;
    let spoken = (listener.tls, listener.web, listener.proxies);
    let mut turn = reception.others.iter().cycle().skip(first);
    let mut burst = Vec::with_capacity(TOGETHER_MAX);
    loop {
        let mut ready = socket.readable().await?;
        let filled = keeper.fill(socket.get_ref(), &spoken, &mut burst);
        let waits = match filled {
            Filled::TooFast(_) => burst.pop(),
            _ => None,
        };
        for accepted in burst.drain(..) {
            if accepted.tls.is_none() && accepted.web.is_none() && !accepted.is_proxied {
                handshake::meet(&reception.own, accepted);
                continue;
            }
            let Some(other) = turn.next() else {
                return Ok(());
            };
            if let Err(TrySendError::Full(accepted)) = other.try_send(accepted) {
                // Whoever was let in does not wait for a greeter that is busy.
                reception.own.open_gates_now();
                if other.send(accepted).await.is_err() {
                    return Ok(());
                }
            }
        }
        reception.own.open_gates_now();
        burst.extend(waits);
        match filled {
            Filled::Emptied => ready.clear_ready(),
            Filled::Full => {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            Filled::TooFast(pause) => tokio::time::sleep(pause).await,
            Filled::NoDescriptors => {
                let why = "all file descriptors for clients are in use";
                keeper.rest(why).await;
            }
            Filled::Failed(error) => keeper.rest_after(&error).await,
        }
    }
}

/// The next socket that waits, which does not block, and who is at its other end.
fn next(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, address) = acceptfrom_with(listener, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from(socket), address))
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

    /// Accepts who waits, as far as descriptors, rate and room in `burst` go.
    fn fill(
        &self,
        socket: &TcpListener,
        (tls, web, proxies): &(Option<Tls>, Option<Arc<WebSocketRules>>, Networks),
        burst: &mut Vec<Accepted>,
    ) -> Filled {
        while burst.len() < TOGETHER_MAX {
            if self.is_short_of_descriptors() {
                return Filled::NoDescriptors;
            }
            let (socket, address) = match next(socket) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Filled::Emptied,
                Err(error) => return Filled::Failed(error),
            };
            let from = proxy::peer(address);
            let is_proxied = proxies.contains(from);
            let Some(place) = self.place(from, is_proxied) else {
                continue;
            };
            let since = Instant::now();
            burst.push(Accepted {
                socket,
                tls: tls.clone(),
                web: web.clone(),
                from,
                is_proxied,
                place,
                since,
            });
            if let Some(pause) = self.pause(since) {
                return Filled::TooFast(pause);
            }
        }
        Filled::Full
    }

    /// Keeps to the rate: what came in a burst of a tenth of a second passes at once, one more
    /// has to wait so long.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let step = Duration::from_secs(1) / self.door.borrow().per_second_max.max(1);
        let burst = Duration::from_millis(100);
        let floor = now.checked_sub(burst).unwrap_or(now);
        let next = self.next.get().max(floor) + step;
        self.next.set(next);
        let pause = next.saturating_duration_since(now);
        if pause.is_zero() {
            return None;
        }
        self.door.borrow().figures.accept_paused(AcceptPause::Rate);
        Some(pause)
    }

    /// Some descriptors are kept for what is not a client: segments, the state database, HTTP.
    fn is_short_of_descriptors(&self) -> bool {
        let door = self.door.borrow();
        door.places.connections() >= door.descriptors_max
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_accepted_socket_sends_at_once_and_never_blocks() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listening = watch(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
            let address = listening.get_ref().local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let _ready = listening.readable().await.unwrap();
            let (mut socket, from) = next(listening.get_ref()).unwrap();
            assert_eq!(from, client.local_addr().unwrap());
            assert!(socket.nodelay().unwrap());
            let nothing = socket.read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let nobody = next(listening.get_ref()).unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        });
    }
}
