//! Certificates that clients show: asked for in the handshake, judged at CONNECT (SEC-72).
//!
//! # Invariants
//! 1. The handshake proves that a client holds the key of the certificate it shows. One that
//!    nobody knows does not break TLS and is refused in CONNACK, where the client is told (TB-03);
//!    where a certificate is required, one of no authority breaks it.
//! 2. Time, chain and revocation lists are judged at every CONNECT, by what the files say now, so
//!    that a session that TLS resumes gains nothing, nor one resumed from another listener.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::validity::{self, Validity};

/// Most certificates that a client may show; real chains have two to four.
const CHAIN_MAX: usize = 8;

/// Longest PEM of a client's certificate that is read, in bytes.
pub const CLIENT_PEM_BYTES_MAX: usize = 16 * 1024;

/// What a client showed in the handshake, as it is judged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::net) enum Certificate {
    /// The listener asks nobody for one.
    NotAsked,
    /// None was shown, and none need be.
    None,
    /// One that is good now, and whose key the client holds.
    Good {
        /// The client's own, in DER.
        der: Vec<u8>,
        /// When it ends; wall clock, ms.
        ends_ms: u64,
        /// An authority that the operator named vouches for it.
        is_vouched_for: bool,
    },
    /// It is not good; why, for the log.
    Refused(String),
}

/// Which certificates of clients a listener asks for and takes.
pub struct Clients {
    is_required: bool,
    /// With it, certificates have to be of its authorities.
    authority: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_authority = self.authority.is_some();
        write!(f, "Clients({}, {has_authority})", self.is_required)
    }
}

impl Clients {
    /// Without authorities a certificate stands for itself: its fingerprint is what counts.
    ///
    /// # Errors
    /// What is wrong with an authority or a list, in words.
    pub fn new(
        is_required: bool,
        authorities: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Clients, String> {
        let authority = match authorities.is_empty() {
            true => None,
            false => Some(authority(authorities, lists)?),
        };
        Ok(Clients {
            is_required,
            authority,
        })
    }

    /// Whether certificates have to be of an authority.
    pub(super) fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// What the handshake asks clients for.
    #[must_use]
    pub fn verifier(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Asking {
            clients: Arc::clone(self),
            algorithms: provider().signature_verification_algorithms,
        })
    }

    pub(super) fn judge(&self, shown: Option<&[CertificateDer<'_>]>) -> Certificate {
        let Some((leaf, others)) = shown.and_then(<[_]>::split_first) else {
            return match self.is_required {
                true => Certificate::Refused("no certificate was shown".to_owned()),
                false => Certificate::None,
            };
        };
        match self.fault(leaf, others) {
            Ok(life) => Certificate::Good {
                der: leaf.to_vec(),
                ends_ms: life.not_after_ms,
                is_vouched_for: self.authority.is_some(),
            },
            Err(why) => Certificate::Refused(why),
        }
    }

    pub(super) fn doubt(&self, certificate: &ClientCertificate) -> Option<String> {
        let leaf = CertificateDer::from(certificate.der.as_slice());
        let others = certificate.others.iter();
        let others: Vec<_> = others.map(|der| der.as_slice().into()).collect();
        let why = self.fault(&leaf, &others).err()?;
        Some(match &self.authority {
            Some(_) => format!("mqtts.client_authority does not vouch for it now: {why}"),
            None => format!("it would be refused now: {why}"),
        })
    }

    fn fault(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<Validity, String> {
        let life = validity::validity(leaf).ok_or("its dates cannot be read")?;
        if let Some(authority) = &self.authority {
            authority
                .verify_client_cert(leaf, others, UnixTime::now())
                .map_err(|error| error.to_string())?;
        }
        if !life.holds_at(SystemTime::now()) {
            return Err("its time has not begun, or is over".to_owned());
        }
        Ok(life)
    }
}

/// Chain, time, purpose and lists. A list says nothing of certificates of other authorities.
fn authority(
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let added = roots.add(authority);
        added.map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match lists.is_empty() {
        true => builder,
        false => builder.with_crls(lists).allow_unknown_revocation_status(),
    };
    let built = builder.build();
    built.map_err(|error| error.to_string())
}

/// Takes whichever certificate the client can prove to be its own; what else must hold is judged
/// at CONNECT.
#[derive(Debug)]
struct Asking {
    clients: Arc<Clients>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        self.clients.is_required
    }

    // A client with hints may keep back what it does not find among them.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if others.len() >= CHAIN_MAX {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        match &self.clients.authority {
            Some(authority) if self.clients.is_required => {
                authority.verify_client_cert(leaf, others, now)
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client's certificate as an operator gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// In DER.
    pub der: Vec<u8>,
    /// When it ends; wall clock, ms.
    pub ends_ms: u64,
    /// What stood behind it, as a chain does; in DER.
    pub others: Vec<Vec<u8>>,
}

impl ClientCertificate {
    /// Reads the first certificate of a PEM text, and those behind it.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub fn from_pem(pem: &str) -> Result<ClientCertificate, String> {
        if pem.len() > CLIENT_PEM_BYTES_MAX {
            return Err(format!("has more than {CLIENT_PEM_BYTES_MAX} bytes"));
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "is no certificate in PEM form".to_owned())?;
        let life = validity::validity(&der).ok_or("is a certificate that cannot be read")?;
        if life.not_after < SystemTime::now() {
            return Err("is a certificate whose time is over".to_owned());
        }
        Ok(ClientCertificate {
            ends_ms: life.not_after_ms,
            der: der.to_vec(),
            others: CertificateDer::pem_slice_iter(pem.as_bytes())
                .filter_map(Result::ok)
                .map(|der| der.to_vec())
                .take(CHAIN_MAX)
                .skip(1)
                .collect(),
        })
    }
}
