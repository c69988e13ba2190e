//! Writing keys and certificates so that no reader ever sees half of one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::CertificateError;

/// The permission bits of a file, links followed.
pub(super) fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o777)
}

/// Writes a key: 0600 from its first byte, in a directory that is made 0700 (SEC-78).
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), CertificateError> {
    write(path, text, 0o600, 0o700).map_err(|source| failed(path, "private key", source))
}

/// Writes a certificate, which anybody may read.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), CertificateError> {
    write(path, text, 0o644, 0o755).map_err(|source| failed(path, "certificate", source))
}

/// A new file beside the old one, synced, then renamed over it; then the directory is synced, so
/// that a power cut leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32, dir_mode: u32) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(dir_mode)
        .create(dir)?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // left by a start that was cut
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask says
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

fn failed(path: &Path, what: &'static str, source: io::Error) -> CertificateError {
    CertificateError::Inaccessible {
        path: path.to_path_buf(),
        what,
        action: "written",
        source,
    }
}
