//! Certificates and keys that change while the broker runs (SEC-71).
//!
//! The files are looked at every `certs.check_interval_s`, and read at once on SIGHUP. Good new
//! ones serve from the next handshake on; connections keep what they have. Bad ones change
//! nothing: the old pair goes on serving, the log has an error and a figure counts it. The pair
//! that the broker made itself is renewed meanwhile as at a start. Keys of session tickets stay,
//! so that devices come back without a full handshake also after a reload.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    server::{
        ClientHello, NoClientAuth, ParsedCertificate, ProducesTickets, ResolvesServerCert,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};

use super::{
    CertificateError, Prepared, broken, clients::clients, load_config, not_after, pem_error,
    prepare, provider, read_chain, refuse_exposed,
};
use crate::audit::{Audit, Event, What};
use crate::config::{CertificatePair, Config};
use crate::metrics::DoorFigures;
use crate::net::tls::{Clients, Tls};

/// How often it is seen whether our own pair is to be renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

/// A certificate that ends sooner is warned about: ours are renewed earlier than that.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// TLS 1.3 tickets per handshake: a device comes back once with each.
const TICKETS: usize = 1;

/// The certificates in use, and where they came from.
pub struct Reloader {
    config: Config,
    /// The server's own; the others are in `config`.
    pair: CertificatePair,
    tickets: Tickets,
    /// For HTTP.
    tls: Tls,
    /// For MQTT, where clients may be asked for certificates.
    mqtts: Tls,
    figures: DoorFigures,
    /// What was done is told to it.
    audit: Option<Audit>,
    /// How the files were when they were last read.
    seen: Vec<Option<Stamp>>,
    /// When it was last seen whether our own pair is to be renewed; wall clock.
    renewed: SystemTime,
}

/// Keys of session tickets: a session that did not show a certificate is not resumed where one is
/// asked for.
struct Tickets {
    https: Arc<dyn ProducesTickets>,
    mqtts: Arc<dyn ProducesTickets>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Reloader {
    /// Makes what is missing, reads everything once.
    ///
    /// # Errors
    /// What keeps the server without a certificate, and what to do.
    pub fn start(
        config: &Config,
        figures: DoorFigures,
        now: SystemTime,
    ) -> Result<Reloader, CertificateError> {
        let Prepared { pair, notes } = prepare(config, now)?;
        for note in &notes {
            tracing::info!("{note}");
        }
        let ticketer =
            || aws_lc_rs::Ticketer::new().map_err(|error| broken(&pair.key, "private key", &error));
        let tickets = Tickets {
            https: ticketer()?,
            mqtts: ticketer()?,
        };
        let (https, mqtts, clients) = serving(&pair, config, &tickets)?;
        let mut reloader = Reloader {
            config: config.clone(),
            pair,
            tickets,
            tls: Tls::new(https),
            mqtts: Tls::asking(mqtts, clients),
            figures,
            audit: None,
            seen: Vec::new(),
            renewed: now,
        };
        reloader.seen = reloader.stamps();
        reloader.note_end(now);
        Ok(reloader)
    }

    /// Tells reloads from now on to this audit.
    pub fn audited_by(&mut self, audit: Audit) {
        self.audit = Some(audit);
    }

    /// What HTTP listeners offer, always the newest.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// What MQTT listeners offer, always the newest.
    #[must_use]
    pub fn mqtts(&self) -> Tls {
        self.mqtts.clone()
    }

    /// Reads the files again if one has changed. Blocking.
    pub fn poll(&mut self, now: SystemTime) {
        // A clock that went back tells nothing: it is seen at once.
        let since = now.duration_since(self.renewed);
        if !since.is_ok_and(|since| since < RENEWAL_INTERVAL) {
            self.renewed = now;
            match prepare(&self.config, now) {
                Ok(Prepared { notes, .. }) => {
                    for note in &notes {
                        tracing::info!("{note}");
                    }
                }
                Err(error) => tracing::error!(%error, "the server's certificate is not renewed"),
            }
            self.note_end(now);
        }
        if self.stamps() != self.seen {
            self.reload(now);
        }
    }

    /// Reads the files again. Blocking. True if what they hold serves now.
    pub fn reload(&mut self, now: SystemTime) -> bool {
        self.seen = self.stamps();
        let serving = serving(&self.pair, &self.config, &self.tickets);
        let is_taken = serving.is_ok();
        let told = match serving {
            Ok((https, mqtts, clients)) => {
                self.tls.replace(https, None);
                self.mqtts.replace(mqtts, clients);
                self.note_end(now);
                tracing::info!("new handshakes use the certificates as they are in the files now");
                Event::new(What::CertificatesReloaded)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the certificates in the files cannot be used; the old ones go on serving"
                );
                Event::new(What::CertificatesKept).text("what", &error.to_string())
            }
        };
        if let Some(audit) = &self.audit {
            audit.note(told.text("file", &self.pair.certificate.display().to_string()));
        }
        self.figures.certificates_reloaded(is_taken);
        is_taken
    }

    fn pairs(&self) -> impl Iterator<Item = &CertificatePair> {
        [&self.pair]
            .into_iter()
            .chain(&self.config.mqtts.more_pairs)
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let clients = &self.config.mqtts.clients;
        let asked = [&clients.authority, &clients.revocations];
        let asked = asked.into_iter().flatten().map(|path| stamp(path));
        self.pairs().flat_map(stamps).chain(asked).collect()
    }

    /// Says when the first of the certificates ends.
    fn note_end(&self, now: SystemTime) {
        let ends = self.pairs().filter_map(|pair| {
            let chain = read_chain(&pair.certificate, "certificate").ok()?;
            let end = not_after(chain.first()?)?;
            if end < now + WARN_BEFORE {
                tracing::warn!(
                    certificate = %pair.certificate.display(),
                    "this certificate ends within 14 days or has ended: put a new one in its place"
                );
            }
            Some(end)
        });
        let first = ends.min();
        let first = first.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.figures
            .certificate_end(first.map_or(0, |since| since.as_secs()));
    }
}

/// What HTTP and MQTT listeners offer, and what is asked of MQTT clients.
type Serving = (Arc<ServerConfig>, Arc<ServerConfig>, Option<Arc<Clients>>);

/// Reads all files: the first pair is for everybody, the others for the names they hold.
fn serving(
    first: &CertificatePair,
    config: &Config,
    tickets: &Tickets,
) -> Result<Serving, CertificateError> {
    let others = config.mqtts.more_pairs.iter().map(certified);
    let others: Vec<_> = others.collect::<Result<_, _>>()?;
    let clients = clients(&config.mqtts.clients)?;
    let offer = |verifier: Arc<dyn ClientCertVerifier>, tickets: &Arc<dyn ProducesTickets>| {
        let mut offer = ServerConfig::clone(load_config(first, verifier)?.as_ref());
        offer.ticketer = Arc::clone(tickets);
        offer.send_tls13_tickets = TICKETS;
        if !others.is_empty() {
            offer.cert_resolver = Arc::new(ByName {
                others: others.clone(),
                first: offer.cert_resolver,
            });
        }
        Ok::<_, CertificateError>(Arc::new(offer))
    };
    let https = offer(Arc::new(NoClientAuth), &tickets.https)?;
    let mqtts = match &clients {
        Some(clients) => offer(clients.verifier(), &tickets.mqtts)?,
        None => Arc::clone(&https),
    };
    Ok((https, mqtts, clients))
}

fn certified(pair: &CertificatePair) -> Result<Arc<CertifiedKey>, CertificateError> {
    refuse_exposed(&pair.key, 0o007)?;
    let chain = read_chain(&pair.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|error| pem_error(&pair.key, "private key", error))?;
    let certified =
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
                certificate: pair.certificate.clone(),
                key: pair.key.clone(),
            },
            error => broken(&pair.certificate, "certificate", &error),
        })?;
    Ok(Arc::new(certified))
}

/// Chooses by the name that the client asks for (SNI).
#[derive(Debug)]
struct ByName {
    others: Vec<Arc<CertifiedKey>>,
    first: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let found = name.and_then(|name| self.others.iter().find(|held| is_for(held, &name)));
        match found {
            Some(found) => Some(Arc::clone(found)),
            None => self.first.resolve(hello),
        }
    }
}

fn is_for(held: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = held.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

fn stamps(pair: &CertificatePair) -> [Option<Stamp>; 2] {
    [stamp(&pair.certificate), stamp(&pair.key)]
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: file.ino(),
        bytes: file.size(),
        changed_s: file.mtime(),
        changed_ns: file.mtime_nsec(),
    })
}
