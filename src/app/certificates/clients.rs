//! What is asked of clients' certificates: the files of authorities and revocation lists.

use std::{path::Path, sync::Arc};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem, pem::PemObject};

use super::{CertificateError, broken, pem_error};
use crate::config::{ClientCertificates, Demand};
use crate::net::tls::Clients;

/// Authorities in one file, and lists.
const ENTRIES_MAX: usize = 256;

/// Reads the files; `None` where clients are not asked.
///
/// # Errors
/// What is wrong with which file, and what to do.
pub(super) fn clients(
    wanted: &ClientCertificates,
) -> Result<Option<Arc<Clients>>, CertificateError> {
    if wanted.demand == Demand::Off {
        return Ok(None);
    }
    let is_required = wanted.demand == Demand::Required;
    let Some(path) = &wanted.authority else {
        let clients = Clients::new(is_required, Vec::new(), Vec::new());
        return Ok(clients.ok().map(Arc::new));
    };
    let what = "CA certificate";
    let authorities = all(path, what, CertificateDer::pem_file_iter(path))?;
    let lists = match &wanted.revocations {
        Some(path) => {
            let found = CertificateRevocationListDer::pem_file_iter(path);
            all(path, "revocation list", found)?
        }
        None => Vec::new(),
    };
    let clients = Clients::new(is_required, authorities, lists);
    let clients = clients.map_err(|why| broken(path, what, &why))?;
    Ok(Some(Arc::new(clients)))
}

/// All entries of a file; one at least.
fn all<T>(
    path: &Path,
    what: &'static str,
    entries: Result<impl Iterator<Item = Result<T, pem::Error>>, pem::Error>,
) -> Result<Vec<T>, CertificateError> {
    let entries = entries.map_err(|error| pem_error(path, what, error))?;
    let read: Result<Vec<T>, pem::Error> = entries.take(ENTRIES_MAX + 1).collect();
    let read = read.map_err(|error| pem_error(path, what, error))?;
    match read.len() {
        0 => Err(broken(path, what, &"it holds none")),
        1..=ENTRIES_MAX => Ok(read),
        _ => Err(broken(
            path,
            what,
            &format!("it holds more than {ENTRIES_MAX}"),
        )),
    }
}
