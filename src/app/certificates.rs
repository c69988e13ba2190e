//! The server's certificates: made at the first start, renewed by themselves, never touched when
//! they are the operator's own.
//!
//! | file | what | lives |
//! |---|---|---|
//! | `certs/ca-root.pem` | the CA that clients are given | 10 years; renewed with the same key |
//! | `secrets/ca.key` | its key, ECDSA P-256, 0600 | as long as the installation |
//! | `certs/server.pem` | the server's certificate, with a note of its names above it | 397 days |
//! | `secrets/server.key` | its key, ECDSA P-256, 0600 | as its certificate |
//!
//! Renewal happens at start and while running ([`reload`]), when a certificate has less than 30
//! days left or a name is missing from it, and needs `ca.key`. Clients keep trusting: the CA
//! stays. A pair is the operator's own when `mqtts.certificate` names it or when `server.pem`
//! lacks our note; nothing here writes to it then.

mod clients;
mod files;
mod issue;
mod names;
mod reload;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{NoClientAuth, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use crate::config::{CertificatePair, Config};

pub use crate::net::tls::not_after;
pub use reload::Reloader;

use issue::Note;

/// The pair to serve with, and what was done about it, in words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Certificate and key; both exist now.
    pub pair: CertificatePair,
    /// What was made or renewed, and what could not be.
    pub notes: Vec<String>,
}

/// How the pair stands before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The operator's own: read, never written.
    Own,
    /// Ours, and good for more than 30 days.
    Good,
    /// Ours, and made or renewed at the next start; why.
    Due(String),
    /// Ours and good today, but it cannot be renewed; why.
    Stuck(String),
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that must be there is not.
    #[error(
        "{}: the {what} is missing. Restore it, or correct mqtts.certificate and mqtts.key; \
         without both the broker makes its own pair",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file that cannot be read or written.
    #[error(
        "{}: the {what} cannot be {action}: {source}. Check owner and permissions",
        path.display()
    )]
    Inaccessible {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// `read` or `written`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{}: this is no PEM {what} ({why}). Replace it with a whole one", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// Certificate and key are of two pairs.
    #[error(
        "{} and {}: the key does not belong to the certificate. Put the two files of one pair \
         there",
        certificate.display(), key.display()
    )]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A key that others may read (SEC-78).
    #[error(
        "{}: others may read this key (mode {mode:o}). Run: chmod 600 {}; and think about \
         replacing it",
        path.display(), path.display()
    )]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The server needs a certificate and the CA's key is gone.
    #[error(
        "{}: the CA's key is missing and {why}. Restore it from a backup of the secrets, or \
         remove {} to get a new CA, which every TLS client must then be given",
        key.display(), ca.display()
    )]
    CaKeyGone {
        /// Where the key should be.
        key: PathBuf,
        /// The CA's certificate.
        ca: PathBuf,
        /// What it was needed for.
        why: String,
    },
    /// The CA's key signs what its certificate does not vouch for.
    #[error(
        "{} and {}: the key is not that of this CA. Put the two files of one CA there, or remove \
         both to get a new one, which every TLS client must then be given",
        ca.display(), key.display()
    )]
    CaMismatch {
        /// The CA's certificate.
        ca: PathBuf,
        /// The key beside it.
        key: PathBuf,
    },
    /// A certificate could not be made: a name that cannot stand in one, or no randomness.
    #[error("a certificate for {names} cannot be made: {why}. Check certs.names")]
    Making {
        /// The names asked for.
        names: String,
        /// What the library said.
        why: String,
    },
}

/// The settings for TLS 1.3 and 1.2 with a pair (SEC-70).
///
/// Every suite of the provider is ECDHE with an AEAD; no 0-RTT (`max_early_data_size` stays 0),
/// no renegotiation and no compression exist in rustls. Tickets let a device come back without a
/// full handshake; their keys change by themselves.
///
/// # Errors
/// What is wrong with which file, and what to do.
pub fn load_server_config(pair: &CertificatePair) -> Result<Arc<ServerConfig>, CertificateError> {
    load_config(pair, Arc::new(NoClientAuth))
}

/// As [`load_server_config`], asking clients for certificates by `verifier`.
fn load_config(
    pair: &CertificatePair,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    refuse_exposed(&pair.key, 0o007)?; // a group is the operator's choice for a pair of their own
    let chain = read_chain(&pair.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|error| pem_error(&pair.key, "private key", error))?;
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| broken(&pair.certificate, "certificate", &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
                certificate: pair.certificate.clone(),
                key: pair.key.clone(),
            },
            rustls::Error::InvalidCertificate(why) => {
                broken(&pair.certificate, "certificate", &why)
            }
            error => broken(&pair.key, "private key", &error),
        })?;
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|error| broken(&pair.key, "private key", &error))?;
    Ok(Arc::new(config))
}

/// Makes or renews what is missing or due. Blocking; called once, before any port is bound.
///
/// # Errors
/// What keeps the server without a certificate, and what to do.
pub fn prepare(config: &Config, now: SystemTime) -> Result<Prepared, CertificateError> {
    let place = Place::of(config);
    let mut notes = Vec::new();
    match examine(config, now)? {
        State::Own | State::Good => {}
        State::Stuck(why) => notes.push(format!("the server's certificate is not renewed: {why}")),
        State::Due(why) => {
            let names = names::wanted(&config.certs.names);
            let note = Note {
                names,
                configured: config.certs.names.clone(),
            };
            if let Some(made) = place.renew_ca(now)? {
                notes.push(made);
            }
            place.renew_server(&note, now)?;
            notes.push(format!(
                "made {} for {}: {why}",
                place.pair.certificate.display(),
                note.names.join(", ")
            ));
        }
    }
    Ok(Prepared {
        pair: place.pair,
        notes,
    })
}

/// Says how the pair stands; writes nothing.
///
/// # Errors
/// As [`prepare`], as far as it can be seen without writing.
pub fn examine(config: &Config, now: SystemTime) -> Result<State, CertificateError> {
    for pair in &config.mqtts.more_pairs {
        load_server_config(pair)?;
    }
    clients::clients(&config.mqtts.clients)?;
    let place = Place::of(config);
    if config.mqtts.own_pair.is_some() {
        return load_server_config(&place.pair).map(|_| State::Own);
    }
    let Some(why) = place.why_due(&config.certs.names, now)? else {
        let is_ours = Note::read(&place.pair.certificate).is_some();
        return Ok(if is_ours { State::Good } else { State::Own });
    };
    if !place.ca.exists() || place.ca_key.exists() {
        return Ok(State::Due(why));
    }
    // Without the CA's key the pair stays as it is, as long as it serves.
    match place.check_today(now) {
        Ok(()) => Ok(State::Stuck(format!(
            "{why}, but {} is missing",
            place.ca_key.display()
        ))),
        Err(_) => Err(CertificateError::CaKeyGone {
            key: place.ca_key,
            ca: place.ca,
            why,
        }),
    }
}

/// A certificate with less than this left is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// The files, by the configuration.
struct Place {
    ca: PathBuf,
    ca_key: PathBuf,
    pair: CertificatePair,
}

impl Place {
    fn of(config: &Config) -> Place {
        let pair = config
            .mqtts
            .own_pair
            .clone()
            .unwrap_or_else(|| CertificatePair {
                certificate: config.certs_dir.join("server.pem"),
                key: config.secrets_dir.join("server.key"),
            });
        let ca_key = config.secrets_dir.join("ca.key");
        Place {
            ca: config.ca_certificate(),
            ca_key,
            pair,
        }
    }

    /// Why our pair must be made; `None` when it is good or the operator's own.
    fn why_due(
        &self,
        configured: &[String],
        now: SystemTime,
    ) -> Result<Option<String>, CertificateError> {
        if !self.pair.certificate.exists() {
            return Ok(Some("there was none".to_owned()));
        }
        let Some(note) = Note::read(&self.pair.certificate) else {
            load_server_config(&self.pair)?; // not ours: it must serve as it is
            return Ok(None);
        };
        if self.pair.key.exists() {
            refuse_exposed(&self.pair.key, 0o077)?;
        }
        if let Err(error) = load_server_config(&self.pair) {
            return Ok(Some(format!("the old one cannot be used ({error})")));
        }
        if let Some(name) = names::wanted(configured)
            .iter()
            .find(|name| !note.names.contains(name))
        {
            return Ok(Some(format!("the old one lacks {name}")));
        }
        if note.configured != configured {
            return Ok(Some("certs.names has changed".to_owned()));
        }
        let chain = read_chain(&self.pair.certificate, "certificate")?;
        if chain
            .first()
            .and_then(not_after)
            .is_none_or(|end| end < now + RENEW_BEFORE)
        {
            return Ok(Some("the old one has less than 30 days left".to_owned()));
        }
        Ok(self
            .check_today(now)
            .err()
            .map(|_| "the old one is not of this CA".to_owned()))
    }

    /// Does what a client does that was given `ca-root.pem`.
    fn check_today(&self, now: SystemTime) -> Result<(), CertificateError> {
        let ca = self.read_ca()?;
        let chain = read_chain(&self.pair.certificate, "certificate")?;
        issue::verify(&chain, ca, now).map_err(|_| CertificateError::CaMismatch {
            ca: self.ca.clone(),
            key: self.ca_key.clone(),
        })
    }

    /// Makes the CA if there is none, and renews its certificate, with the same key and name, a
    /// year before its end: clients with the old file go on trusting until they get the new one.
    fn renew_ca(&self, now: SystemTime) -> Result<Option<String>, CertificateError> {
        let is_new = !self.ca_key.exists();
        if !is_new {
            refuse_exposed(&self.ca_key, 0o077)?;
        }
        if self.ca.exists() {
            let end = not_after(&self.read_ca()?);
            if end.is_some_and(|end| end > now + issue::SERVER_LIFE) {
                return Ok(None);
            }
        }
        let key = if is_new {
            issue::new_key()?
        } else {
            issue::read_key(&self.ca_key)?
        };
        let pem = issue::ca_pem(&key, now)?;
        if is_new {
            files::write_secret(&self.ca_key, &key.serialize_pem())?;
        }
        files::write_public(&self.ca, &pem)?;
        Ok(Some(format!(
            "made the CA {}: TLS clients need this file",
            self.ca.display()
        )))
    }

    fn renew_server(&self, note: &Note, now: SystemTime) -> Result<(), CertificateError> {
        let ca_key = issue::read_key(&self.ca_key)?;
        let ca_end = not_after(&self.read_ca()?).unwrap_or(now);
        let key = issue::new_key()?;
        let made = issue::server(&key, &ca_key, note, now, ca_end)?;
        issue::verify(&[made.der], self.read_ca()?, now).map_err(|_| {
            CertificateError::CaMismatch {
                ca: self.ca.clone(),
                key: self.ca_key.clone(),
            }
        })?;
        // A crash between the two leaves a pair that does not match: `why_due` then says so.
        files::write_secret(&self.pair.key, &key.serialize_pem())?;
        files::write_public(&self.pair.certificate, &made.pem)
    }

    fn read_ca(&self) -> Result<CertificateDer<'static>, CertificateError> {
        CertificateDer::from_pem_file(&self.ca)
            .map_err(|error| pem_error(&self.ca, "CA certificate", error))
    }
}

/// Suites with AES of 128 bits: most processors have instructions for their SHA-256, but not for
/// the SHA-384 of those with 256 bits.
const FIRST: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// What there is of TLS, in our order.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| !FIRST.contains(&suite.suite()));
    Arc::new(provider)
}

/// Most certificates in a chain; real ones have two to four.
const CHAIN_MAX: usize = 16;

fn read_chain(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| pem_error(path, what, error))?
        .take(CHAIN_MAX)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(path, what, error))?;
    if chain.is_empty() {
        return Err(broken(path, what, &"it holds no certificate"));
    }
    Ok(chain)
}

fn pem_error(path: &Path, what: &'static str, error: pem::Error) -> CertificateError {
    match error {
        pem::Error::Io(source) if source.kind() == io::ErrorKind::NotFound => {
            CertificateError::Missing {
                path: path.to_path_buf(),
                what,
            }
        }
        pem::Error::Io(source) => CertificateError::Inaccessible {
            path: path.to_path_buf(),
            what,
            action: "read",
            source,
        },
        error => broken(path, what, &error),
    }
}

fn broken(path: &Path, what: &'static str, why: &dyn fmt::Display) -> CertificateError {
    CertificateError::Broken {
        path: path.to_path_buf(),
        what,
        why: why.to_string(),
    }
}

/// Refuses a key that somebody in `others` (permission bits) may use (SEC-78).
fn refuse_exposed(key: &Path, others: u32) -> Result<(), CertificateError> {
    let mode =
        files::mode(key).map_err(|error| pem_error(key, "private key", pem::Error::Io(error)))?;
    if mode & others == 0 {
        Ok(())
    } else {
        Err(CertificateError::Exposed {
            path: key.to_path_buf(),
            mode,
        })
    }
}
