//! TLS on the generator's side, and on that of the sink.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::cli::bench::BenchError;

/// Tickets kept at most, two for each of the most connections; the oldest go first.
const TICKETS_MAX: usize = 120_000;

/// A TLS connection over its own socket.
pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whom the generator trusts, and which name it expects.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    tickets: Option<Arc<Tickets>>,
}

impl Tls {
    /// Trusts the certificates of `cafile` and nothing else; the certificate must be for `host`.
    pub(super) fn new(cafile: &Path, host: &str, resumes: bool) -> Result<Tls, BenchError> {
        let wrong =
            |what: &dyn std::fmt::Display| BenchError::Tls(format!("{}: {what}", cafile.display()));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(cafile).map_err(|error| wrong(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"no certificate in it"));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| BenchError::Tls(format!("{host}: {error}")))?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tickets = resumes.then(Arc::<Tickets>::default);
        config.resumption = match &tickets {
            Some(tickets) => Resumption::store(Arc::<Tickets>::clone(tickets)),
            None => Resumption::disabled(),
        };
        Ok(Tls {
            config: Arc::new(config),
            name,
            tickets,
        })
    }

    /// From now on tickets are kept and not used, or used again: a connection that uses one may
    /// get no more than one, so whoever wants a ticket for each collects first.
    pub(super) fn only_collects(&self, only: bool) {
        if let Some(tickets) = &self.tickets {
            tickets.only_collects.store(only, Ordering::Relaxed);
        }
    }

    /// A connection over `socket`; the handshake happens with the first bytes.
    pub(super) fn connect(&self, socket: TcpStream) -> Result<Stream, BenchError> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|error| BenchError::Tls(error.to_string()))?;
        Ok(StreamOwned::new(connection, socket))
    }
}

/// True when the handshake was shortened by a ticket.
pub(super) fn is_resumed(stream: &Stream) -> bool {
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// TLS 1.3 tickets of all connections in one queue: a fleet has one per device, where the usual
/// store of a client keeps eight. TLS 1.2 sessions are not resumed.
#[derive(Debug, Default)]
struct Tickets {
    queue: Mutex<VecDeque<Tls13ClientSessionValue>>,
    /// See [`Tls::only_collects`].
    only_collects: AtomicBool,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= TICKETS_MAX {
            queue.pop_front();
        }
        queue.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.only_collects.load(Ordering::Relaxed) {
            return None;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }
}

/// Bytes that the library reads from a socket at once between handshakes.
const READ_TLS_BYTES: usize = 4096;

/// The sink's side: one certificate, every version and suite that the broker offers.
pub(super) struct Acceptor {
    config: Arc<ServerConfig>,
}

/// A client of the sink.
pub(super) struct Accepted {
    connection: ServerConnection,
    socket: TcpStream,
}

impl Acceptor {
    pub(super) fn new(certificate: &Path, key: &Path) -> Result<Acceptor, BenchError> {
        let wrong = |path: &Path, what: &dyn std::fmt::Display| {
            BenchError::Tls(format!("{}: {what}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(certificate, &error))?;
        let key_found = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key_found)
            .map_err(|error| wrong(certificate, &error))?;
        let config = Arc::new(config);
        Ok(Acceptor { config })
    }

    pub(super) fn accept(&self, socket: TcpStream) -> Result<Accepted, BenchError> {
        let connection = ServerConnection::new(Arc::clone(&self.config))
            .map_err(|error| BenchError::Tls(error.to_string()))?;
        Ok(Accepted { connection, socket })
    }
}

impl Accepted {
    /// Reads data; true means that there may be more. One call of the system for each record, as
    /// long as those are small.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        if let Ok(read @ 1..) = self.connection.reader().read(buffer) {
            return Ok((read, true));
        }
        loop {
            let len = self.connection.read_tls(&mut self.socket)?;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.write(&[])?;
            let is_more = len >= READ_TLS_BYTES;
            if state.plaintext_bytes_to_read() > 0 {
                let read = self.connection.reader().read(buffer)?;
                return Ok((read, is_more || read == buffer.len()));
            }
            match (len, is_more) {
                (0, _) => return Ok((0, false)),
                (_, false) => return Err(io::ErrorKind::WouldBlock.into()),
                (_, true) => {}
            }
        }
    }

    /// Encrypts `bytes` and writes what the socket takes, of what waited too.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.connection.writer().write(bytes)?;
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}
