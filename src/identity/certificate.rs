//! Certificates of clients, known by their fingerprints (TB-03, SEC-72): SHA-256 of the whole
//! certificate, never a name that stands in it. One is a credential by itself, or stands beside a
//! token, which may be bound to it (SEC-54).
//!
//! # Invariants
//! 1. A credential of this kind ends with its certificate at the latest, whatever its terms say,
//!    and so do connections that came in with it.
//! 2. Where a certificate stands beside a token, the connection ends with the first of both.
//! 3. Whether a certificate is good at the moment is judged before anybody asks here.
//! 4. One that no authority vouches for lets in its own holder, and whoever has a token that is
//!    bound to it; nobody else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::index::TokenKey;
use super::registry::Shared;
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

/// As OpenSSL prints it (`AB:CD:…`), or as it is shown here.
impl FromStr for Fingerprint {
    type Err = String;

    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    fn from_str(text: &str) -> Result<Fingerprint, String> {
        const WANTED: &str = "is no SHA-256 fingerprint: 64 hexadecimal digits, with or without \
                              colons, as openssl x509 -noout -fingerprint -sha256 prints them";
        let mut digits = text.bytes().filter(|byte| *byte != b':');
        let mut digit = || char::from(digits.next()?).to_digit(16);
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let both = digit().zip(digit());
            let both = both.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
            *byte = both.ok_or(WANTED)?;
        }
        match digits.next() {
            None => Ok(Fingerprint(bytes)),
            Some(_) => Err(WANTED.to_owned()),
        }
    }
}

/// A client's certificate that is good at the moment, whoever it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoodCertificate {
    /// What it is known by.
    pub fingerprint: Fingerprint,
    /// When it ends; wall clock, ms.
    pub ends_ms: u64,
    /// An authority that the operator named vouches for it.
    pub is_vouched_for: bool,
}

/// What a client showed in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certified {
    /// The listener asks for none: it is no TLS, or it is not to ask.
    NotAsked,
    /// None.
    Nothing,
    /// One that is good.
    With(GoodCertificate),
}

/// From where a client comes, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Who is not said to be anywhere is in no network.
    pub address: Option<IpAddr>,
    /// What of TLS.
    pub certificate: Certified,
}

impl Origin {
    /// Of a listener that asks for no certificate.
    pub(super) fn plain(address: Option<IpAddr>) -> Origin {
        Origin {
            address,
            certificate: Certified::NotAsked,
        }
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
        certificate: GoodCertificate,
        from: IpAddr,
    ) -> Result<Principal, NotAdmitted> {
        let shared = self.shared();
        let digest = shared.key.certificate_digest(&certificate.fingerprint.0);
        let origin = Origin {
            address: Some(from),
            certificate: Certified::With(certificate),
        };
        shared.admit(&digest, None, origin)
    }
}

impl Shared {
    /// Whether a credential is the certificate itself.
    pub(super) fn is_itself(&self, key: TokenKey, certificate: &GoodCertificate) -> bool {
        let digest = self.key.certificate_digest(&certificate.fingerprint.0);
        key == TokenKey::new(&digest)
    }
}

impl Principal {
    /// The same, of a client that showed this certificate: it ends with it at the latest.
    #[must_use]
    pub fn with_certificate(self, certificate: GoodCertificate) -> Principal {
        let own = self.expires_at_ms.unwrap_or(u64::MAX);
        Principal {
            expires_at_ms: Some(own.min(certificate.ends_ms)),
            certificate: Some(Arc::new(certificate)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_as_it_is_shown() {
        let known = Fingerprint::of(b"a certificate");
        let shown = known.to_string();
        let pairs: Vec<String> = (0..32)
            .map(|at| shown[2 * at..2 * at + 2].to_uppercase())
            .collect();
        for text in [&shown, &shown.to_uppercase(), &pairs.join(":")] {
            assert_eq!(text.parse(), Ok(known), "{text}");
        }
        let cut = &shown[..63];
        let wrong = [
            "",
            cut,
            &format!("{cut}g"),
            &format!("{shown}0"),
            &format!("{}é", &shown[..62]),
            "AA:BB:CC",
        ];
        for text in wrong {
            let said = text.parse::<Fingerprint>().expect_err(text);
            assert!(said.starts_with("is no SHA-256 fingerprint"), "{said}");
        }
    }
}
