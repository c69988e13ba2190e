//! From an accepted socket to a session's home: PROXY header, TLS, CONNECT, authentication, with
//! one deadline for all.
//!
//! Nothing of a connection takes effect here (SEC-21): a client that is let in is sent to its
//! session's home worker with everything that was read, and only there its session opens. What it
//! takes meanwhile is charged to its [`Place`], and every step takes its turn ([`Turnstile`]) on a
//! [`Greeter`]'s thread.
//!
//! [`Turnstile`]: super::turnstile::Turnstile

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::acceptor::Accepted;
use super::authenticate::authenticate;
use super::greeter::Greeter;
use super::output::Output;
use super::places::{Place, TLS_BYTES};
use super::proxy;
use super::stream::{Detached, Socket, Stream};
use super::throttle::{self, Verdict};
use super::tls::{self, Tls};
use super::told::{self, Shown};
use super::wills;
use crate::audit::ClientId;
use crate::broker::SessionKey;
use crate::identity::{Action, IdentityKind, Principal, QuotaPlace};
use crate::metrics::{ConnectRefusal as Refusal, TlsFailure};
use crate::mqtt::session::{ConnectRefusal, Opening};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{self, Connect, Property, Version, WireError};

/// PROXY header, TLS handshake and CONNECT together must be through in this time (SEC-70).
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

/// Why a socket got no further.
enum Failure {
    /// Closed without an answer.
    Silent(Refusal),
    /// Answered with a CONNACK, then closed.
    Refused(ConnectRefusal, Version, Shown),
    /// One failed authentication too many: answered after this time, then closed.
    Throttled(Version, Duration, Shown),
}

/// A client on its way to its CONNECT.
struct Guest {
    from: IpAddr,
    place: Place,
    stage: Stage,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Proxy,
    Tls,
    Connect,
}

/// Why it got no further than that.
enum Stopped {
    /// A limit on its address.
    Limit(Refusal),
    /// The socket, TLS, or what was sent.
    Io(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Starts the handshake of an accepted socket.
pub(super) fn start(greeter: &Rc<Greeter>, accepted: Accepted) {
    let greeting = greet(Rc::clone(greeter), accepted);
    tokio::task::spawn_local(greeter.turnstile.pace(greeting));
}

async fn greet(greeter: Rc<Greeter>, accepted: Accepted) {
    let deadline = tokio::time::Instant::from_std(accepted.since) + CONNECT_TIMEOUT;
    let Accepted {
        socket,
        tls,
        from,
        is_proxied,
        place,
        ..
    } = accepted;
    let mut guest = Guest {
        from,
        place,
        stage: Stage::Proxy,
    };
    let mut bytes = Vec::new();
    let steps = async {
        let mut stream = guest.reach(socket, is_proxied, tls.as_ref()).await?;
        let connect_len = read_connect(&greeter, &mut stream, &mut guest, &mut bytes).await?;
        Ok::<_, Stopped>((stream, connect_len))
    };
    let reached = tokio::time::timeout_at(deadline, steps).await;
    let (stream, connect_len) = match reached {
        Ok(Ok(reached)) => reached,
        Ok(Err(why)) => return guest.stopped(&greeter, why),
        Err(_) => return guest.out_of_time(&greeter),
    };
    let leftover = bytes.split_off(connect_len.min(bytes.len()));
    let from = guest.from;
    let admitted = greeter.guarded(from, || admit(&greeter, &bytes, from));
    match admitted.unwrap_or(Err(Failure::Silent(Refusal::BadConnect))) {
        Ok((principal, opening, told_id)) => {
            drop(bytes);
            let who = (principal, from, told_id);
            send_home(&greeter, stream, who, opening, leftover, guest.place);
        }
        Err(Failure::Silent(why)) => greeter.refused(from, why, Shown::default()),
        Err(Failure::Refused(refusal, version, shown)) => {
            drop((bytes, leftover));
            greeter.refused(from, metric(refusal), shown);
            refuse(stream, refusal, version, Duration::ZERO).await;
        }
        Err(Failure::Throttled(version, delay, shown)) => {
            drop((bytes, leftover));
            let refusal = ConnectRefusal::RateExceeded;
            greeter.refused(from, metric(refusal), shown);
            refuse(stream, refusal, version, delay).await;
        }
    }
}

/// Says why, after `delay`, and closes.
async fn refuse(stream: Stream, refusal: ConnectRefusal, version: Version, delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut connack = Vec::new();
    refusal.write(version, &mut connack);
    say_goodbye(stream, &connack).await;
}

impl Guest {
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
        self.stage = Stage::Connect;
        Ok(Stream::Tls(stream))
    }

    fn stopped(&self, greeter: &Greeter, why: Stopped) {
        let from = self.from;
        let error = match why {
            Stopped::Limit(why) => return greeter.refused(from, why, Shown::default()),
            Stopped::Io(error) => error,
        };
        match self.stage {
            Stage::Proxy => {
                tracing::debug!(%from, %error, "no session: no PROXY header where one must be");
                greeter.refused(from, Refusal::ProxyHeader, Shown::default());
            }
            Stage::Tls => self.tls_failed(greeter, tls::failure(&error), &error),
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
            warnings.note(TlsFailure::Timeout, self.from);
        }
        greeter.refused(self.from, Refusal::Timeout, Shown::default());
    }

    fn tls_failed(&self, greeter: &Greeter, why: TlsFailure, error: &io::Error) {
        let from = self.from;
        tracing::debug!(%from, ?why, %error, "no session: the TLS handshake failed");
        greeter.shared.metrics.door().tls_failed(why);
        greeter.shared.guards.tls_warnings.note(why, from);
        greeter.refused(from, Refusal::TlsFailed, Shown::default());
    }
}

/// Reads until `bytes` starts with a whole CONNECT; answers its length. It reads into the greeter's
/// buffer, so that a client that has sent nothing holds no buffer.
async fn read_connect(
    greeter: &Greeter,
    stream: &mut Stream,
    guest: &mut Guest,
    bytes: &mut Vec<u8>,
) -> Result<usize, Stopped> {
    let mut room = FIRST_READ_BYTES;
    loop {
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
        let frame = wire::first_frame(bytes, CONNECT_BYTES_MAX)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(frame) = frame
            && frame.packet(bytes).is_some()
        {
            return Ok(frame.total_len());
        }
        room -= read.min(room);
        if room == 0 {
            guest.place.charge(NEXT_READ_BYTES).await;
            room = NEXT_READ_BYTES;
        }
    }
}

/// Who comes in, what its session is to be, and what is told of its client id.
type Admitted = (Principal, Opening, ClientId);

/// Who it is, and whether it may come in.
fn admit(greeter: &Greeter, packet: &[u8], from: IpAddr) -> Result<Admitted, Failure> {
    let connect = match wire::decode_connect(packet) {
        Ok(connect) => connect,
        Err(WireError::UnsupportedVersion { .. }) => {
            // P-06: a version nobody knows is answered in the oldest words [MQTT-3.1.2-2].
            return Err(Failure::Refused(
                ConnectRefusal::UnsupportedVersion,
                Version::V311,
                Shown::default(),
            ));
        }
        Err(WireError::ClientIdEmpty) => {
            // Only 3.1 and 3.1.1 demand a client id (P-11).
            return Err(Failure::Refused(
                ConnectRefusal::ClientIdRequired,
                Version::V311,
                Shown::default(),
            ));
        }
        Err(WireError::PropertyMissing {
            property: Property::AuthenticationMethod,
        }) => {
            // SEC-26: only MQTT 5 has it, and is told what is missing.
            let refusal = ConnectRefusal::ProtocolError;
            return Err(Failure::Refused(refusal, Version::V5, Shown::default()));
        }
        Err(error) => {
            tracing::debug!(%from, %error, "no session: malformed CONNECT");
            return Err(Failure::Silent(Refusal::BadConnect));
        }
    };
    let refused = |refusal| Failure::Refused(refusal, connect.version, Shown::of(&connect));
    let mut opening = Opening::new(&connect).map_err(refused)?;
    if !opening.takes_connack(greeter.shared.limits) {
        // [MQTT-3.1.2-24]: what cannot be sent is not sent, and there is no session without it.
        return Err(if ConnectRefusal::PacketTooLarge.fits(&opening) {
            refused(ConnectRefusal::PacketTooLarge)
        } else {
            Failure::Silent(Refusal::PacketTooLarge)
        });
    }
    let principal = authenticate(greeter, &connect, from)
        .map_err(|refusal| failed(greeter, &connect, from, refusal))?;
    if let Some(will) = &connect.will {
        // SEC-37: decided now; on device topics a will is allowed and has no effect (TB-15).
        let topic = Topic::new(will.topic).ok();
        if !topic.is_some_and(|topic| principal.permit.allows(Action::Publish, topic)) {
            let shown = Shown::of(&connect).with_principal(&principal);
            let refusal = ConnectRefusal::NotAuthorized;
            return Err(Failure::Refused(refusal, connect.version, shown));
        }
        opening.will = opening.will.filter(|will| wills::is_kept(will));
    }
    Ok((principal, opening, told::client_id(&connect)))
}

/// A failed authentication: refused as what it is, or as one of too many (SEC-27).
fn failed(
    greeter: &Greeter,
    connect: &Connect<'_>,
    from: IpAddr,
    refusal: ConnectRefusal,
) -> Failure {
    let user_name = connect.user_name.filter(|name| !name.is_empty());
    // Client ids alone can be credentials too.
    let credential = user_name.unwrap_or(connect.client_id);
    let version = connect.version;
    tracing::debug!(%from, ?refusal, "no session: authentication failed");
    let shown = Shown::failed(&greeter.shared, connect);
    match (greeter.shared.guards.throttle).failed(from, credential, Instant::now()) {
        Verdict::Ordinary => Failure::Refused(refusal, version, shown),
        Verdict::Delayed => Failure::Throttled(version, throttle::DELAY, shown),
        Verdict::Refused => Failure::Throttled(version, Duration::ZERO, shown),
    }
}

fn send_home(
    greeter: &Greeter,
    stream: Stream,
    (principal, from, told_id): (Principal, IpAddr, ClientId),
    opening: Opening,
    leftover: Vec<u8>,
    place: Place,
) {
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
    let index = key.home(greeter.shared.homes.len());
    let stream = match stream.detach() {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost before its session"),
    };
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
    greeter.send_home(index, arrival);
}

/// Writes the last words and drains what still comes, so that they are read.
pub(super) async fn say_goodbye(stream: Stream, last_words: &[u8]) {
    let mut output = Output::new(stream, last_words.len());
    output.write(last_words);
    super::linger::drain(&mut output).await;
}

pub(super) fn metric(refusal: ConnectRefusal) -> Refusal {
    match refusal {
        ConnectRefusal::UnsupportedVersion => Refusal::UnsupportedVersion,
        ConnectRefusal::BadCredentials
        | ConnectRefusal::BadUserToken
        | ConnectRefusal::MissingUserName
        | ConnectRefusal::NoCredentials
        | ConnectRefusal::BadAuthenticationMethod => Refusal::BadCredential,
        ConnectRefusal::TokenNotYet => Refusal::TokenNotYet,
        ConnectRefusal::TokenExpired => Refusal::TokenExpired,
        ConnectRefusal::TokenNetwork => Refusal::TokenNetwork,
        ConnectRefusal::UnknownClientId | ConnectRefusal::ClientIdRequired => Refusal::BadClientId,
        ConnectRefusal::NotAuthorized => Refusal::NotAuthorized,
        ConnectRefusal::ProtocolError => Refusal::BadConnect,
        ConnectRefusal::RateExceeded => Refusal::Throttled,
        ConnectRefusal::TooManySessions => Refusal::IdentitySessions,
        ConnectRefusal::TooManyConnections => Refusal::IdentityConnections,
        ConnectRefusal::PacketTooLarge => Refusal::PacketTooLarge,
        ConnectRefusal::StorageFull
        | ConnectRefusal::Unavailable
        | ConnectRefusal::ShuttingDown => Refusal::Unavailable,
    }
}
