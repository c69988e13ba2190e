//! Certificates of clients, known by their fingerprints (TB-03, SEC-72): SHA-256 of the whole
//! certificate, never a name that stands in it.
//!
//! # Invariants
//! 1. A credential of this kind ends with its certificate at the latest, whatever its terms say,
//!    and so do connections that came in with it.
//! 2. Where a certificate stands beside a token, the connection ends with the first of both.
//! 3. Whether a certificate is good at the moment is judged before anybody asks here.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};

use super::{NotAdmitted, Principal, Registry};
use crate::store::certificate::CertificateRow;

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub(super) [u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Fingerprint(bytes)
    }
}

/// In lower case, without colons.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A certificate that is to open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// What it is known by.
    pub fingerprint: Fingerprint,
    /// When it ends; wall clock, ms.
    pub ends_ms: u64,
}

impl NewCertificate {
    pub(super) fn row(self) -> CertificateRow {
        CertificateRow {
            fingerprint: self.fingerprint.0,
            ends_ms: self.ends_ms,
        }
    }
}

impl Registry {
    /// Who shows this certificate in the TLS handshake, from this address. Touches memory only.
    ///
    /// # Errors
    /// Nobody has it, or its terms do not let it in.
    pub fn admit_certificate(
        &self,
        certificate: Fingerprint,
        from: IpAddr,
    ) -> Result<Principal, NotAdmitted> {
        let digest = self.shared().key.certificate_digest(&certificate.0);
        self.shared().admit(&digest, None, Some(from))
    }
}

impl Principal {
    /// The same, of a client that showed a certificate which ends then (wall clock, ms).
    #[must_use]
    pub fn with_certificate(self, ends_ms: u64) -> Principal {
        let own = self.expires_at_ms.unwrap_or(u64::MAX);
        Principal {
            certificate_ends_ms: Some(ends_ms),
            expires_at_ms: Some(own.min(ends_ms)),
            ..self
        }
    }
}
