//! The TLS side of a listener: the one place of the data path that names `rustls`.

mod clients;
mod validity;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::{
    AlertDescription as Alert, CipherSuite, Error, InvalidMessage,
    PeerIncompatible as Incompatible, PeerMisbehaved as Misbehaved, ServerConfig, server::Acceptor,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;

use crate::metrics::TlsFailure;

pub(super) use clients::Certificate;
pub use clients::{CLIENT_PEM_BYTES_MAX, ClientCertificate, Clients};
pub use validity::not_after;

/// TLS on the server's side of a connection over `S`.
pub type TlsStream<S> = tokio_rustls::server::TlsStream<S>;

/// What a TLS listener offers: certificates, versions, cipher suites. Clones share it, so that it
/// can be replaced while the broker runs.
#[derive(Clone)]
pub struct Tls {
    offer: Arc<ArcSwap<Offer>>,
}

/// What is said of certificates of clients where they have no effect.
pub const ASKS_NOBODY: &str = "no listener asks clients for certificates: \
     mqtts.client_certificate is \"off\", neither \"optional\" nor \"required\"";

struct Offer {
    /// The client's order of cipher suites decides.
    config: Arc<ServerConfig>,
    /// The same, but ours does.
    ordered: Arc<ServerConfig>,
    /// What is asked of clients: by `config`, and again at CONNECT.
    clients: Option<Arc<Clients>>,
}

impl Tls {
    /// A listener that offers `config` (TLS 1.2 and 1.3, SEC-70).
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self::asking(config, None)
    }

    /// As [`Tls::new`], asking clients for certificates; `config` has the verifier of `clients`.
    #[must_use]
    pub fn asking(config: Arc<ServerConfig>, clients: Option<Arc<Clients>>) -> Self {
        Self {
            offer: Arc::new(ArcSwap::new(Offer::new(config, clients))),
        }
    }

    /// Offers `config` from the next handshake on, and judges by `clients` from the next CONNECT
    /// on. Connections there are keep what they have (SEC-71).
    pub fn replace(&self, config: Arc<ServerConfig>, clients: Option<Arc<Clients>>) {
        self.offer.store(Offer::new(config, clients));
    }

    /// The certificate that the client of a connection showed, as it is judged now.
    pub(super) fn certificate<S>(&self, stream: &TlsStream<S>) -> Certificate {
        match &self.offer.load().clients {
            Some(clients) => clients.judge(stream.get_ref().1.peer_certificates()),
            None => Certificate::NotAsked,
        }
    }

    /// Whether clients are asked for certificates.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.offer.load().clients.is_some()
    }

    /// What advice about clients that fail depends on; `is_web`: it serves WebSockets.
    pub(super) fn listener(&self, is_web: bool) -> Listener {
        let offer = self.offer.load();
        let has_authority = (offer.clients.as_ref()).is_some_and(|clients| clients.has_authority());
        Listener {
            is_web,
            has_authority,
        }
    }

    /// Why a client would not be let in by a certificate now, whoever it may belong to; in words,
    /// `None` if it would.
    #[must_use]
    pub fn doubt(&self, certificate: &ClientCertificate) -> Option<String> {
        match &self.offer.load().clients {
            Some(clients) => clients.doubt(certificate),
            None => Some(ASKS_NOBODY.to_owned()),
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
        let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let offer = self.offer.load_full();
        let config = match prefers_chacha(&offer.config, begun.client_hello().cipher_suites()) {
            true => &offer.config,
            false => &offer.ordered,
        };
        begun.into_stream(Arc::clone(config)).await
    }
}

impl Offer {
    fn new(config: Arc<ServerConfig>, clients: Option<Arc<Clients>>) -> Arc<Offer> {
        let mut ordered = ServerConfig::clone(&config);
        ordered.ignore_client_order = true;
        Arc::new(Offer {
            config,
            ordered: Arc::new(ordered),
            clients,
        })
    }
}

/// Suites for those that have no instructions for AES.
const CHACHA: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Whether a client would rather not use AES. To any other it is all the same which AES it is.
fn prefers_chacha(ours: &ServerConfig, wanted: &[CipherSuite]) -> bool {
    let ours = &ours.crypto_provider().cipher_suites;
    let first = wanted
        .iter()
        .find(|wanted| ours.iter().any(|suite| suite.suite() == **wanted));
    first.is_some_and(|first| CHACHA.contains(first))
}

/// Why a TLS connection failed, for the figures.
pub(super) fn failure(error: &io::Error) -> TlsFailure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::PeerIncompatible(
            Incompatible::ServerDoesNotSupportTls12Or13
            | Incompatible::ServerTlsVersionIsDisabledByOurConfig
            | Incompatible::SupportedVersionsExtensionRequired
            | Incompatible::Tls12NotOffered
            | Incompatible::Tls12NotOfferedOrEnabled,
        ))
        | Some(Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion)) => {
            TlsFailure::NoSharedVersion
        }
        Some(Error::PeerIncompatible(_)) => TlsFailure::NoSharedCipher,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            TlsFailure::ClientCertificate
        }
        Some(Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        )) => TlsFailure::CertificateRejected,
        Some(Error::AlertReceived(_)) => TlsFailure::ClientAlert,
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge,
        )) => TlsFailure::NotTls,
        Some(Error::PeerMisbehaved(
            Misbehaved::TooManyEmptyFragments
            | Misbehaved::TooManyKeyUpdateRequests
            | Misbehaved::TooManyRenegotiationRequests
            | Misbehaved::TooManyWarningAlertsReceived,
        )) => TlsFailure::Flood,
        Some(_) => TlsFailure::Other,
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => TlsFailure::Closed,
            io::ErrorKind::QuotaExceeded => TlsFailure::Flood,
            _ => TlsFailure::Other,
        },
    }
}

/// What of a listener the advice depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listener {
    is_web: bool,
    /// It names authorities that certificates of clients have to be of.
    has_authority: bool,
}

/// One line in the log for each reason and [`WARN_EVERY`], on each kind of listener: a fleet that
/// cannot connect must be seen, and must not fill the log.
pub(super) struct TlsWarnings {
    began: Instant,
    /// By reason, those of WebSocket behind the others.
    due: Vec<Due>,
}

#[derive(Default)]
struct Due {
    /// Of the next warning: milliseconds since it all began.
    at: AtomicU64,
    /// Since the last one.
    failures: AtomicU64,
}

/// How often one reason is warned about.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl TlsWarnings {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            due: (0..2 * TlsFailure::ALL.len())
                .map(|_| Due::default())
                .collect(),
        }
    }

    /// Notes a failure, and warns if it is time.
    pub(super) fn note(&self, why: TlsFailure, at: Listener, from: std::net::IpAddr) {
        let place = why as usize + usize::from(at.is_web) * TlsFailure::ALL.len();
        let (Some(Due { at: due, failures }), Some(advice)) =
            (self.due.get(place), advice(why, at))
        else {
            return;
        };
        failures.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = now.saturating_add(u64::try_from(WARN_EVERY.as_millis()).unwrap_or(u64::MAX));
        let was_due = due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            (at <= now).then_some(next)
        });
        if was_due.is_ok() {
            let failures = failures.swap(0, Ordering::Relaxed);
            let reason = TlsFailure::LABELS.get(why as usize).copied();
            tracing::warn!(failures, reason, latest_from = %from, "TLS clients fail: {advice}");
        }
    }
}

/// What an operator should look at; `None` where the client's side is not to blame or known.
fn advice(why: TlsFailure, at: Listener) -> Option<&'static str> {
    match why {
        TlsFailure::NoSharedVersion => {
            Some("they offer no version from 1.2 on: update their firmware, or give them a gateway")
        }
        TlsFailure::NoSharedCipher => {
            Some("no cipher suite in common: TLS 1.2 clients need ECDHE with AES-GCM or ChaCha20")
        }
        TlsFailure::CertificateRejected => Some(
            "they do not trust the certificate: give them certs/ca-root.pem, or use a name and \
             address that it holds (certs.names)",
        ),
        TlsFailure::NotTls if at.is_web => Some(
            "what came is not TLS: addresses begin with wss:// or https:// here, and WebSocket \
             without TLS has a port of its own (ws.listen)",
        ),
        TlsFailure::NotTls => {
            Some("what came is not TLS: MQTT without TLS has a port of its own (mqtt.listen)")
        }
        TlsFailure::ClientCertificate if at.has_authority => Some(
            "they show no certificate, or none of mqtts.client_authority, which \
             mqtts.client_certificate = \"required\" asks for",
        ),
        TlsFailure::ClientCertificate => Some(
            "they show no usable certificate, which mqtts.client_certificate = \"required\" asks \
             for",
        ),
        TlsFailure::Timeout => Some("handshakes take longer than 10 s: is the network that slow?"),
        TlsFailure::Flood => Some("more handshake bytes or key updates came than a client needs"),
        TlsFailure::ClientAlert | TlsFailure::Closed | TlsFailure::Other => None,
    }
}
