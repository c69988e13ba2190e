//! From an accepted socket to a session's home: PROXY header, TLS, WebSocket, CONNECT,
//! authentication, with one deadline for all.
//!
//! Nothing of a connection takes effect here (SEC-21): a client that is let in is sent to its
//! session's home worker with everything that was read, and only there its session opens. What it
//! takes meanwhile is charged to its [`Place`], and every step takes its turn ([`Turnstile`]) on a
//! [`Greeter`]'s thread.
//!
//! [`Turnstile`]: super::turnstile::Turnstile

use std::io::{self, Read};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::acceptor::Accepted;
use super::admit::{Failure, LastWords, admit, refuse};
use super::greeter::Greeter;
use super::places::{Place, TLS_BYTES};
use super::proxy;
use super::stream::{Detached, Socket, Stream};
use super::tls::{self, Certificate, Listener, Tls};
use super::told::Shown;
use super::websocket::{self, Bearer, WebSocketRules};
use crate::audit::ClientId;
use crate::broker::SessionKey;
use crate::identity::{IdentityKind, Principal, QuotaPlace};
use crate::metrics::{ConnectRefusal as Refusal, TlsFailure};
use crate::mqtt::session::Opening;
use crate::mqtt::wire;

/// PROXY header, TLS handshake, WebSocket request and CONNECT together must be through in this time
/// (SEC-70).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest CONNECT, in bytes (SEC-03).
pub const CONNECT_BYTES_MAX: u32 = 64 * 1024;

/// What is read of a CONNECT before anything is charged for it, in bytes: most fit.
const FIRST_READ_BYTES: usize = 512;

/// What is read, and charged, at once of a longer one, in bytes.
pub(super) const NEXT_READ_BYTES: usize = 4 * 1024;

/// A client that was let in, on the way to its session's home.
pub(super) struct Arrival {
    pub(super) stream: Detached,
    /// Where it comes from; behind a proxy what that says.
    pub(super) from: IpAddr,
    /// What is told of its client id.
    pub(super) told_id: ClientId,
    pub(super) principal: Principal,
    pub(super) opening: Opening,
    pub(super) key: SessionKey,
    /// Bytes that came behind CONNECT.
    pub(super) leftover: Vec<u8>,
    /// The client id the server chose, for a client that sent none [MQTT-3.1.3-6].
    pub(super) assigned: Option<Box<str>>,
    pub(super) place: Place,
    /// Its place in the quota of its credential, once it is at home.
    pub(super) quota: Option<QuotaPlace>,
}

impl Arrival {
    /// Upper bound of what its session records when it opens, in bytes.
    pub(super) fn record_bytes(&self) -> usize {
        let will = self.opening.will.as_ref().map_or(0, |will| {
            let content = &will.content;
            256 + content.topic().as_str().len()
                + content.properties().len()
                + content.payload().len()
        });
        4_096 + 3 * self.opening.client_id.len() + will
    }
}

/// A client on its way to its CONNECT.
pub(super) struct Guest {
    pub(super) from: IpAddr,
    place: Place,
    stage: Stage,
    /// Where it came in, for advice about it.
    listener: Listener,
    /// What it showed in the TLS handshake.
    certificate: Certificate,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Proxy,
    Tls,
    WebSocket,
    Connect,
}

/// Why it got no further than that.
pub(super) enum Stopped {
    /// A limit on its address.
    Limit(Refusal),
    /// The socket, TLS, or what was sent.
    Io(io::Error),
    /// What was sent, of which the stream still says why.
    Said(Stream, io::Error),
    /// It was refused, which was counted and told; this is still said.
    Refused(Stream, LastWords),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Starts the handshake of an accepted socket.
pub(super) fn start(greeter: &Rc<Greeter>, accepted: Accepted) {
    greet_later(greeter, accepted, Vec::new());
}

fn greet_later(greeter: &Rc<Greeter>, accepted: Accepted, begun: Vec<u8>) {
    let greeting = greet(Rc::clone(greeter), accepted, begun);
    tokio::task::spawn_local(greeter.turnstile.pace(greeting));
}

/// Greets an accepted socket on which MQTT is spoken from the first byte on. If its CONNECT is
/// there already, all is done in this step, and the client has gathered with those who go to the
/// same home.
pub(super) fn meet(greeter: &Rc<Greeter>, accepted: Accepted) {
    let buffer = &mut *greeter.buffer.borrow_mut();
    let room = buffer.get_mut(..FIRST_READ_BYTES).unwrap_or_default();
    let came = match (&accepted.socket).read(room) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            let bytes = room.get(..read).unwrap_or_default();
            connect_len(bytes).map(|connect_len| (bytes, connect_len))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((&[][..], None)),
        Err(error) => Err(error),
    };
    let (bytes, connect_len) = match came {
        Ok((bytes, Some(connect_len))) => (bytes, connect_len),
        Ok((bytes, None)) => return greet_later(greeter, accepted, bytes.to_vec()),
        Err(error) => {
            let mut guest = Guest::new(accepted.from, accepted.place);
            guest.stage = Stage::Connect;
            return guest.failed(greeter, &error);
        }
    };
    let (packet, leftover) = bytes.split_at_checked(connect_len).unwrap_or((bytes, &[]));
    let (from, stream) = (accepted.from, Detached::Plain(accepted.socket));
    let admitted = greeter.guarded(from, || {
        admit(greeter, packet, from, (&Certificate::NotAsked, None))
    });
    match admitted.unwrap_or(Err(Failure::Silent(Refusal::BadConnect))) {
        Ok((principal, opening, told_id)) => {
            let who = (principal, from, told_id);
            let leftover = leftover.to_vec();
            let (home, arrival) =
                going_home(greeter, stream, who, opening, leftover, accepted.place);
            greeter.gather(home, arrival);
        }
        Err(failure) => {
            let Some(last_words) = failure.tell(greeter, from) else {
                return;
            };
            let place = accepted.place;
            tokio::task::spawn_local(async move {
                match Stream::attach(stream) {
                    Ok(stream) => refuse(stream, last_words).await,
                    Err(error) => tracing::debug!(%error, "a connection was lost when refused"),
                }
                drop(place);
            });
        }
    }
}

/// The length of the CONNECT at the front of `bytes`; `None` if that is not whole.
fn connect_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let frame = wire::first_frame(bytes, CONNECT_BYTES_MAX)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let whole = frame.filter(|frame| frame.packet(bytes).is_some());
    Ok(whole.map(|frame| frame.total_len()))
}

/// Greets a client of which `bytes` have come, fewer than a CONNECT.
async fn greet(greeter: Rc<Greeter>, accepted: Accepted, mut bytes: Vec<u8>) {
    let deadline = tokio::time::Instant::from_std(accepted.since) + CONNECT_TIMEOUT;
    let Accepted {
        socket,
        tls,
        web,
        from,
        is_proxied,
        place,
        ..
    } = accepted;
    let mut guest = Guest::new(from, place);
    let listener = tls.as_ref().map(|tls| tls.listener(web.is_some()));
    guest.listener = listener.unwrap_or_default();
    let steps = async {
        let stream = guest.reach(socket, is_proxied, tls.as_ref()).await?;
        let (stream, bearer) = match &web {
            Some(rules) => guest.enter_web(&greeter, stream, rules).await?,
            None => (stream, None),
        };
        let (stream, len) = read_connect(&greeter, stream, &mut guest, &mut bytes).await?;
        Ok::<_, Stopped>((stream, bearer, len))
    };
    let reached = tokio::time::timeout_at(deadline, steps).await;
    let (stream, bearer, connect_len) = match reached {
        Ok(Ok(reached)) => reached,
        Ok(Err(why)) => {
            // Outside of the deadline: who was refused before it is not out of time too.
            if let Some((stream, last_words)) = guest.stopped(&greeter, why) {
                refuse(stream, last_words).await;
            }
            return;
        }
        Err(_) => return guest.out_of_time(&greeter),
    };
    let leftover = bytes.split_off(connect_len.min(bytes.len()));
    let from = guest.from;
    let certificate = std::mem::replace(&mut guest.certificate, Certificate::NotAsked);
    let shown = (&certificate, bearer.as_ref());
    let admitted = greeter.guarded(from, || admit(&greeter, &bytes, from, shown));
    drop(bytes);
    match admitted.unwrap_or(Err(Failure::Silent(Refusal::BadConnect))) {
        Ok((principal, opening, told_id)) => {
            let stream = match stream.detach() {
                Ok(stream) => stream,
                Err(error) => {
                    return tracing::debug!(%error, "a connection was lost before its session");
                }
            };
            let who = (principal, from, told_id);
            let (home, arrival) = going_home(&greeter, stream, who, opening, leftover, guest.place);
            greeter.send_home(home, arrival);
        }
        Err(failure) => {
            drop(leftover);
            if let Some(last_words) = failure.tell(&greeter, from) {
                refuse(stream, last_words).await;
            }
        }
    }
}

impl Guest {
    fn new(from: IpAddr, place: Place) -> Guest {
        Guest {
            from,
            place,
            stage: Stage::Proxy,
            listener: Listener::default(),
            certificate: Certificate::NotAsked,
        }
    }

    /// The stream on which MQTT is spoken: behind the PROXY header, secured if the listener wants
    /// it. A client that sends nothing has no TLS state.
    async fn reach(
        &mut self,
        socket: std::net::TcpStream,
        is_proxied: bool,
        tls: Option<&Tls>,
    ) -> Result<Stream, Stopped> {
        let socket = TcpStream::from_std(socket)?;
        if is_proxied {
            let named = proxy::read_header(&socket).await?;
            self.from = named.unwrap_or(self.from).to_canonical();
            self.place.belongs_to(self.from).map_err(Stopped::Limit)?;
        }
        let Some(tls) = tls else {
            self.stage = Stage::Connect;
            return Ok(Stream::Plain(socket));
        };
        self.stage = Stage::Tls;
        socket.readable().await?;
        self.place.charge(TLS_BYTES).await;
        let mut stream = Box::new(tls.accept(Socket::new(socket)).await?);
        stream.get_mut().0.handshake_done();
        self.certificate = tls.certificate(&stream);
        self.stage = Stage::Connect;
        Ok(Stream::Tls(stream))
    }

    /// The WebSocket on which MQTT is spoken.
    async fn enter_web(
        &mut self,
        greeter: &Greeter,
        stream: Stream,
        rules: &WebSocketRules,
    ) -> Result<(Stream, Option<Bearer>), Stopped> {
        self.stage = Stage::WebSocket;
        let entered = websocket::enter(greeter, stream, self, rules).await?;
        self.stage = Stage::Connect;
        Ok(entered)
    }

    /// Counts and tells why it got no further. What is still said to it, if anything.
    fn stopped(&self, greeter: &Greeter, why: Stopped) -> Option<(Stream, LastWords)> {
        match why {
            Stopped::Limit(why) => greeter.refused(self.from, why, Shown::default()),
            Stopped::Io(error) => self.failed(greeter, &error),
            Stopped::Said(stream, error) => {
                self.failed(greeter, &error);
                return Some((stream, LastWords::default()));
            }
            Stopped::Refused(stream, last_words) => return Some((stream, last_words)),
        }
        None
    }

    fn failed(&self, greeter: &Greeter, error: &io::Error) {
        let from = self.from;
        if let Some(why) = websocket::failure(error) {
            greeter.shared.metrics.door().websocket_failed(why);
        }
        match self.stage {
            Stage::Proxy => {
                tracing::debug!(%from, %error, "no session: no PROXY header where one must be");
                greeter.refused(from, Refusal::ProxyHeader, Shown::default());
            }
            Stage::Tls => self.tls_failed(greeter, tls::failure(error), error),
            Stage::WebSocket => {
                tracing::debug!(%from, %error, "no session: no WebSocket");
                greeter.refused(from, Refusal::BadUpgrade, Shown::default());
            }
            Stage::Connect => {
                tracing::debug!(%from, %error, "no session: no CONNECT");
                greeter.refused(from, Refusal::BadConnect, Shown::default());
            }
        }
    }

    fn out_of_time(&self, greeter: &Greeter) {
        if self.stage == Stage::Tls {
            greeter
                .shared
                .metrics
                .door()
                .tls_failed(TlsFailure::Timeout);
            let warnings = &greeter.shared.guards.tls_warnings;
            warnings.note(TlsFailure::Timeout, self.listener, self.from);
        }
        greeter.refused(self.from, Refusal::Timeout, Shown::default());
    }

    fn tls_failed(&self, greeter: &Greeter, why: TlsFailure, error: &io::Error) {
        let from = self.from;
        tracing::debug!(%from, ?why, %error, "no session: the TLS handshake failed");
        greeter.shared.metrics.door().tls_failed(why);
        let warnings = &greeter.shared.guards.tls_warnings;
        warnings.note(why, self.listener, from);
        greeter.refused(from, Refusal::TlsFailed, Shown::default());
    }
}

/// Reads until `bytes` starts with a whole CONNECT; answers its length.
async fn read_connect(
    greeter: &Greeter,
    mut stream: Stream,
    guest: &mut Guest,
    bytes: &mut Vec<u8>,
) -> Result<(Stream, usize), Stopped> {
    let read = read_until(greeter, &mut stream, guest, bytes, connect_len).await;
    match read.and_then(|read| read.map_err(Stopped::Io)) {
        Ok(len) => Ok((stream, len)),
        Err(Stopped::Io(error)) if stream.says_why() => Err(Stopped::Said(stream, error)),
        Err(why) => Err(why),
    }
}

/// Reads until `is_whole` says how long that is what `bytes` starts with. It reads into the
/// greeter's buffer, so that a client that has sent nothing holds no buffer.
pub(super) async fn read_until<E>(
    greeter: &Greeter,
    stream: &mut Stream,
    guest: &mut Guest,
    bytes: &mut Vec<u8>,
    mut is_whole: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
) -> Result<Result<usize, E>, Stopped> {
    let mut room = FIRST_READ_BYTES - bytes.len().min(FIRST_READ_BYTES);
    loop {
        if room == 0 {
            guest.place.charge(NEXT_READ_BYTES).await;
            room = NEXT_READ_BYTES;
        }
        let read = std::future::poll_fn(|cx| {
            let mut buffer = greeter.buffer.borrow_mut();
            let buffer = buffer.get_mut(..room).unwrap_or_default();
            let mut into = tokio::io::ReadBuf::new(buffer);
            match stream.poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) => {
                    bytes.extend_from_slice(into.filled());
                    Poll::Ready(Ok(into.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        if read == 0 {
            return Err(Stopped::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(whole) = is_whole(bytes).transpose() {
            return Ok(whole);
        }
        room -= read.min(room);
    }
}

/// What goes to the home of the client's session, and where that is.
fn going_home(
    greeter: &Greeter,
    stream: Detached,
    (principal, from, told_id): (Principal, IpAddr, ClientId),
    opening: Opening,
    leftover: Vec<u8>,
    place: Place,
) -> (usize, Arrival) {
    let assigned: Option<Box<str>> = opening
        .client_id
        .is_empty()
        .then(|| uuid::Uuid::new_v4().simple().to_string().into());
    let has_one = greeter.shared.one_session && principal.kind == IdentityKind::Device;
    let client_id = match &assigned {
        _ if has_one => "".into(),
        Some(assigned) => assigned.clone(),
        None => opening.client_id.clone(),
    };
    let key = SessionKey {
        identity: principal.identity,
        client_id,
    };
    let home = key.home(greeter.shared.homes.len());
    let arrival = Arrival {
        stream,
        from,
        told_id,
        principal,
        opening,
        key,
        leftover,
        assigned,
        place,
        quota: None,
    };
    (home, arrival)
}
