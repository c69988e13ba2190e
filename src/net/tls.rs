//! The TLS side of a listener: the one file of the data path that names `rustls`.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// TLS on the server's side of a connection over `S`.
pub type TlsStream<S> = tokio_rustls::server::TlsStream<S>;

/// What a TLS listener offers: certificate, versions, cipher suites.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// A listener that offers `config` (TLS 1.2 and 1.3, SEC-70).
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            acceptor: TlsAcceptor::from(config),
        }
    }

    /// The handshake. It has no deadline of its own: the caller's covers it and CONNECT.
    ///
    /// # Errors
    /// The handshake failed, or the peer left.
    pub async fn accept<S>(&self, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(socket).await
    }
}
