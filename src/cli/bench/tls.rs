//! TLS on the generator's side.

use std::{net::TcpStream, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::cli::bench::BenchError;

/// A TLS connection over its own socket.
pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whom the generator trusts, and which name it expects.
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the certificates of `cafile` and nothing else; the certificate must be for `host`.
    pub(super) fn new(cafile: &Path, host: &str) -> Result<Tls, BenchError> {
        let wrong =
            |what: &dyn std::fmt::Display| BenchError::Tls(format!("{}: {what}", cafile.display()));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(cafile).map_err(|error| wrong(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| BenchError::Tls(format!("{host}: {error}")))?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
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
