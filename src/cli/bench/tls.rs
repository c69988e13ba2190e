//! TLS on the generator's side.

use std::{
    collections::VecDeque,
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
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
        config.resumption = match resumes {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        Ok(Tls {
            config: Arc::new(config),
            name,
        })
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
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }
}
