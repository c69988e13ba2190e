//! Making certificates. The only file that knows `rcgen`.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem},
};

use super::{CertificateError, broken, pem_error, provider};

/// 397 days: the longest that clients take from a server without complaint.
pub(super) const SERVER_LIFE: Duration = Duration::from_secs(397 * 86_400);

/// 10 years: a device in the field should not outlive what it trusts.
const CA_LIFE: Duration = Duration::from_secs(3_652 * 86_400);

/// Certificates start a day early, for devices whose clock is behind.
const START_BEFORE: Duration = Duration::from_secs(86_400);

/// A certificate of ours for the server.
pub(super) struct Made {
    /// For checking.
    pub(super) der: CertificateDer<'static>,
    /// For the file, with the note above it.
    pub(super) pem: String,
}

/// What stands above our certificate in its file. PEM readers skip text outside the blocks
/// (RFC 7468, 2), so the note costs nobody anything and cannot part from its certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Every name in the certificate.
    pub(super) names: Vec<String>,
    /// Those of them that `certs.names` asked for.
    pub(super) configured: Vec<String>,
}

impl Note {
    /// The note of a file; `None` when the file is not ours.
    pub(super) fn read(path: &Path) -> Option<Note> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        if lines.next()? != MARK {
            return None;
        }
        let list = |line: &str| -> Vec<String> {
            line.split(", ")
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let names = list(lines.next()?.strip_prefix(NAMES)?);
        let configured = list(lines.next()?.strip_prefix(CONFIGURED)?);
        Some(Note { names, configured })
    }

    fn text(&self) -> String {
        let (names, configured) = (self.names.join(", "), self.configured.join(", "));
        format!("{MARK}\n{NAMES}{names}\n{CONFIGURED}{configured}\n")
    }
}

const MARK: &str = "Made by Tollgate, which renews it. For your own, set mqtts.certificate and \
                    mqtts.key.";
const NAMES: &str = "Names: ";
const CONFIGURED: &str = "From certs.names: ";

/// A new key: ECDSA P-256, which every TLS client of small devices can check.
pub(super) fn new_key() -> Result<KeyPair, CertificateError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| making(&[], &error))
}

/// A key of ours from its file.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, CertificateError> {
    let text = fs::read_to_string(path)
        .map_err(|error| pem_error(path, "private key of the CA", pem::Error::Io(error)))?;
    KeyPair::from_pem(&text).map_err(|error| broken(path, "private key of the CA", &error))
}

/// The CA's own certificate.
pub(super) fn ca_pem(key: &KeyPair, now: SystemTime) -> Result<String, CertificateError> {
    let mut params = ca_params(key)?;
    params.not_before = (now - START_BEFORE).into();
    params.not_after = (now + CA_LIFE).into();
    Ok(params
        .self_signed(key)
        .map_err(|error| making(&[], &error))?
        .pem())
}

/// The server's certificate, which ends with its CA at the latest.
pub(super) fn server(
    key: &KeyPair,
    ca_key: &KeyPair,
    note: &Note,
    now: SystemTime,
    ca_end: SystemTime,
) -> Result<Made, CertificateError> {
    let failed = |error| making(&note.names, &error);
    let mut params = CertificateParams::new(note.names.clone()).map_err(failed)?;
    params.distinguished_name.remove(DnType::CommonName); // only one name is there by default
    params
        .distinguished_name
        .push(DnType::CommonName, "Tollgate");
    params.not_before = (now - START_BEFORE).into();
    params.not_after = (now + SERVER_LIFE).min(ca_end).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::new(ca_params(ca_key)?, ca_key);
    let made = params.signed_by(key, &issuer).map_err(failed)?;
    let mut pem = note.text();
    let _ = write!(pem, "\n{}", made.pem()); // writing to a String cannot fail
    Ok(Made {
        der: made.der().clone(),
        pem,
    })
}

/// Does what a client does that trusts `ca` and calls the server `localhost`.
pub(super) fn verify(
    chain: &[CertificateDer<'static>],
    ca: CertificateDer<'static>,
    now: SystemTime,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| text(&error))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| text(&error))?;
    let name = ServerName::try_from("localhost").map_err(|error| text(&error))?;
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|error| text(&error))?;
    let (server, rest) = chain.split_first().ok_or("no certificate")?;
    verifier
        .verify_server_cert(server, rest, &name, &[], UnixTime::since_unix_epoch(now))
        .map(|_| ())
        .map_err(|error| text(&error))
}

/// What follows from the key alone, so that the CA can be made again from it: above all its name,
/// by which certificates find their issuer.
fn ca_params(key: &KeyPair) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| making(&[], &error))?;
    let id: String = params
        .key_identifier(key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name.remove(DnType::CommonName);
    // One name per installation: two CAs of one name would confuse a client that knows both.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Tollgate CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn making(names: &[String], error: &rcgen::Error) -> CertificateError {
    let names = if names.is_empty() {
        "the CA".to_owned()
    } else {
        names.join(", ")
    };
    CertificateError::Making {
        names,
        why: error.to_string(),
    }
}
