//! From an accepted socket to a session's home: TLS, CONNECT, authentication, one deadline for all.
//!
//! Nothing of a connection takes effect here (SEC-21): a client that is let in is sent to its
//! session's home worker with everything that was read, and only there its session opens.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::acceptor::Accepted;
use super::home;
use super::output::Output;
use super::stream::{Detached, Socket, Stream};
use super::worker::Worker;
use crate::broker::SessionKey;
use crate::identity::{Action, IdentityKind, Principal};
use crate::metrics::ConnectRefusal as Refusal;
use crate::mqtt::session::{ConnectRefusal, Opening};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{self, Connect, Version, WireError};

/// TLS handshake and CONNECT together must be through in this time (SEC-70).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest CONNECT, in bytes (SEC-03).
pub const CONNECT_BYTES_MAX: u32 = 64 * 1024;

/// Clients one worker has between accept and CONNECT at once. One more is closed at once; the
/// clients that are connected do not notice.
pub const HANDSHAKES_MAX: usize = 8_192;

/// First guess at a CONNECT's length: most fit, and a silent client costs little.
const FIRST_READ_BYTES: usize = 512;

/// A client that was let in, on the way to its session's home.
pub(super) struct Arrival {
    pub(super) stream: Detached,
    pub(super) principal: Principal,
    pub(super) opening: Opening,
    pub(super) key: SessionKey,
    /// Bytes that came behind CONNECT.
    pub(super) leftover: Vec<u8>,
    /// The client id the server chose, for a client that sent none [MQTT-3.1.3-6].
    pub(super) assigned: Option<Box<str>>,
}

impl Arrival {
    /// Upper bound of what its session records when it opens, in bytes.
    pub(super) fn record_bytes(&self) -> usize {
        4_096 + 3 * self.opening.client_id.len()
    }
}

/// Why a socket got no further.
enum Failure {
    /// Closed without an answer.
    Silent(Refusal),
    /// Answered with a CONNACK, then closed.
    Refused(ConnectRefusal, Version),
}

/// Starts the handshake of an accepted socket.
pub(super) fn start(worker: &Rc<Worker>, accepted: Accepted) {
    if worker.handshakes.get() >= HANDSHAKES_MAX || worker.is_stopping() {
        return worker.count_connect_refused(Refusal::TooManyConnections);
    }
    worker.handshakes.set(worker.handshakes.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        greet(&worker, accepted).await;
        worker.handshakes.set(worker.handshakes.get() - 1);
    });
}

async fn greet(worker: &Rc<Worker>, accepted: Accepted) {
    let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
    let secured = tokio::time::timeout_at(deadline, secure(accepted)).await;
    let mut stream = match secured {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no session: the TLS handshake failed");
            return worker.count_connect_refused(Refusal::TlsFailed);
        }
        Err(_) => return worker.count_connect_refused(Refusal::Timeout),
    };
    let mut bytes = Vec::new();
    let read = tokio::time::timeout_at(deadline, read_connect(&mut stream, &mut bytes)).await;
    let connect_len = match read {
        Ok(Ok(connect_len)) => connect_len,
        Ok(Err(_)) => return worker.count_connect_refused(Refusal::BadConnect),
        Err(_) => return worker.count_connect_refused(Refusal::Timeout),
    };
    let leftover = bytes.split_off(connect_len.min(bytes.len()));
    match admit(worker, &bytes) {
        Ok((principal, opening)) => {
            bytes.clear();
            send_home(worker, stream, principal, opening, leftover).await;
        }
        Err(Failure::Silent(why)) => worker.count_connect_refused(why),
        Err(Failure::Refused(refusal, version)) => {
            worker.count_connect_refused(metric(refusal));
            let mut connack = Vec::new();
            refusal.write(version, &mut connack);
            say_goodbye(stream, &connack).await;
        }
    }
}

/// The stream, secured if the listener wants it.
async fn secure(accepted: Accepted) -> io::Result<Stream> {
    let socket = TcpStream::from_std(accepted.socket)?;
    match accepted.tls {
        None => Ok(Stream::Plain(socket)),
        Some(tls) => {
            let stream = tls.accept(Socket::Attached(socket)).await?;
            Ok(Stream::Tls(Box::new(stream)))
        }
    }
}

/// Reads until `bytes` starts with a whole CONNECT; answers its length.
async fn read_connect(stream: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = vec![0; FIRST_READ_BYTES];
    loop {
        let read = std::future::poll_fn(|cx| {
            let mut into = tokio::io::ReadBuf::new(&mut buffer);
            match stream.poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(into.filled().len())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(buffer.get(..read).unwrap_or(&[]));
        let frame = wire::first_frame(bytes, CONNECT_BYTES_MAX)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(frame) = frame
            && frame.packet(bytes).is_some()
        {
            return Ok(frame.total_len());
        }
    }
}

/// Who it is, and whether it may come in.
fn admit(worker: &Worker, packet: &[u8]) -> Result<(Principal, Opening), Failure> {
    let connect = match wire::decode_connect(packet) {
        Ok(connect) => connect,
        Err(WireError::UnsupportedVersion { .. }) => {
            // P-06: a version nobody knows is answered in the oldest words [MQTT-3.1.2-2].
            return Err(Failure::Refused(
                ConnectRefusal::UnsupportedVersion,
                Version::V311,
            ));
        }
        Err(WireError::ClientIdEmpty) => {
            // Only 3.1 and 3.1.1 demand a client id (P-11).
            return Err(Failure::Refused(
                ConnectRefusal::ClientIdRequired,
                Version::V311,
            ));
        }
        Err(error) => {
            tracing::debug!(%error, "no session: malformed CONNECT");
            return Err(Failure::Silent(Refusal::BadConnect));
        }
    };
    let refused = |refusal| Failure::Refused(refusal, connect.version);
    let opening = Opening::new(&connect).map_err(refused)?;
    let principal = authenticate(worker, &connect).map_err(refused)?;
    if let Some(will) = &connect.will {
        // SEC-37: decided now; on device topics a will is allowed and has no effect (TB-15).
        let topic = Topic::new(will.topic).ok();
        if !topic.is_some_and(|topic| principal.permit.allows(Action::Publish, topic)) {
            return Err(refused(ConnectRefusal::NotAuthorized));
        }
    }
    Ok((principal, opening))
}

/// TB-01 and TB-04: the user name is the device access token; a password beside it is ignored.
fn authenticate(worker: &Worker, connect: &Connect<'_>) -> Result<Principal, ConnectRefusal> {
    let user_name = connect.user_name.unwrap_or("");
    if let Some(principal) = worker.shared.registry.authenticate(user_name) {
        return Ok(principal);
    }
    let is_old = connect.version != Version::V5;
    Err(match (connect.user_name, connect.password) {
        (None | Some(""), _) if is_old && worker.shared.empty_user_name_code_4 => {
            ConnectRefusal::MissingUserName
        }
        (None, None) if connect.client_id.is_empty() => ConnectRefusal::NoCredentials,
        (None, None) => ConnectRefusal::UnknownClientId,
        _ => ConnectRefusal::BadCredentials,
    })
}

async fn send_home(
    worker: &Rc<Worker>,
    stream: Stream,
    principal: Principal,
    opening: Opening,
    leftover: Vec<u8>,
) {
    let assigned: Option<Box<str>> = opening
        .client_id
        .is_empty()
        .then(|| uuid::Uuid::new_v4().simple().to_string().into());
    let has_one = worker.shared.one_session && principal.kind == IdentityKind::Device;
    let client_id = match &assigned {
        _ if has_one => "".into(),
        Some(assigned) => assigned.clone(),
        None => opening.client_id.clone(),
    };
    let key = SessionKey {
        identity: principal.identity,
        client_id,
    };
    let index = key.home(worker.shared.homes.len());
    let stream = match stream.detach() {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost before its session"),
    };
    let arrival = Arrival {
        stream,
        principal,
        opening,
        key,
        leftover,
        assigned,
    };
    if index == worker.index {
        home::arrive(worker, arrival);
    } else if let Some(inbox) = worker.shared.homes.get(index) {
        // A full inbox makes this client wait, and nobody else.
        let _ = inbox.send(arrival).await;
    }
}

/// Writes the last words and drains what still comes, so that they are read.
pub(super) async fn say_goodbye(stream: Stream, last_words: &[u8]) {
    let mut output = Output::new(stream);
    output.write(last_words);
    super::connection::drain(&mut output).await;
}

pub(super) fn metric(refusal: ConnectRefusal) -> Refusal {
    match refusal {
        ConnectRefusal::UnsupportedVersion => Refusal::UnsupportedVersion,
        ConnectRefusal::BadCredentials
        | ConnectRefusal::MissingUserName
        | ConnectRefusal::NoCredentials
        | ConnectRefusal::BadAuthenticationMethod => Refusal::BadCredential,
        ConnectRefusal::UnknownClientId | ConnectRefusal::ClientIdRequired => Refusal::BadClientId,
        ConnectRefusal::NotAuthorized => Refusal::NotAuthorized,
        ConnectRefusal::RateExceeded => Refusal::Throttled,
        ConnectRefusal::TooManySessions => Refusal::TooManyConnections,
        ConnectRefusal::StorageFull
        | ConnectRefusal::Unavailable
        | ConnectRefusal::ShuttingDown => Refusal::Unavailable,
    }
}
