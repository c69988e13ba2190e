//! The secrets directory: the registry key, the admin token, the key that users' tokens are
//! signed with.
//!
//! # Format
//! `registry.key`: 64 hexadecimal digits (32 random bytes) and a line end. `admin.token`: the
//! token and a line end. `identity.key`: a private key (PKCS#8) in base 64 and a line end. The
//! directory is 0700, the files 0600; a file that others may read stops
//! the start (SEC-78). A file is written beside, synced and renamed, so that it is whole or not
//! there. Anything else in them is refused, never repaired (SEC-42): a new registry key would make
//! every token unknown.
//!
//! A missing admin token is made anew at the next start: removing the file is how it is replaced.
//! So is a missing signing key: tokens that were signed with the old one go on.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;

use super::key::{self, Digest, KEY_BYTES, RegistryKey};
use super::users::Signer;
use super::{AdminToken, SecretsError};

/// The file of the registry key in the secrets directory.
pub const REGISTRY_KEY_FILE: &str = "registry.key";

/// The file of the admin token in the secrets directory.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// The file of the key that users' tokens are signed with, in the secrets directory.
pub const IDENTITY_KEY_FILE: &str = "identity.key";

/// What to do when no backup has the key.
pub(super) const KEY_LOST: &str = "If it is lost for good, every device needs a new token: \
     remove the credentials (sqlite3 state.db 'DELETE FROM credential; DELETE FROM admin_token'), \
     start again, which makes a new key, and rotate the token of each device; devices and \
     telemetry stay";

/// Bytes read of a secret file; more is not one of ours.
const FILE_BYTES_MAX: u64 = 4_096;

/// The secrets of this installation; made by the first start, unlike any other's (SEC-60).
pub struct Secrets {
    dir: PathBuf,
    key: RegistryKey,
    admin: Digest,
    signer: Arc<Signer>,
}

impl Secrets {
    /// Reads the secrets in `dir`, making the directory and what is missing in it. A registry key
    /// is only made if `store_is_empty` (no credential depends on another one).
    ///
    /// # Errors
    /// See [`SecretsError`]: missing, damaged or exposed secrets stop the start.
    pub fn open(dir: &Path, store_is_empty: bool) -> Result<Secrets, SecretsError> {
        let key_path = dir.join(REGISTRY_KEY_FILE);
        if !store_is_empty && is_missing(&key_path)? {
            return Err(SecretsError::KeyMissing { path: key_path });
        }
        make_dir(dir)?;
        if is_missing(&key_path)? {
            let mut key = [0; KEY_BYTES];
            rand::fill(&mut key).map_err(|_| SecretsError::Random)?;
            write_line(dir, REGISTRY_KEY_FILE, &to_hex(&key))?;
            key.fill(0);
        }
        let key = read_key(&key_path)?;
        if is_missing(&dir.join(ADMIN_TOKEN_FILE))? {
            write_line(dir, ADMIN_TOKEN_FILE, AdminToken::generate().expose())?;
        }
        let admin = key.admin_digest(Secrets::read_admin_token(dir)?.expose());
        Ok(Secrets {
            dir: dir.to_owned(),
            key,
            admin,
            signer: Arc::new(signer(dir)?),
        })
    }

    /// Reads the admin token, for the commands that call the admin API.
    ///
    /// # Errors
    /// That it is missing, damaged or exposed.
    pub fn read_admin_token(dir: &Path) -> Result<AdminToken, SecretsError> {
        let path = dir.join(ADMIN_TOKEN_FILE);
        let text = read_line(&path)?;
        AdminToken::parse(&text).ok_or(SecretsError::Damaged {
            path,
            what: "does not hold one admin token (tga_ and 36 characters) in one line",
            advice: "Remove it and start the broker again: it makes a new one",
        })
    }

    /// Whether `presented` is the admin token; in constant time.
    #[must_use]
    pub fn admin_token_matches(&self, presented: &str) -> bool {
        key::equal(&self.key.admin_digest(presented), &self.admin)
    }

    /// The secrets directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn key(&self) -> &RegistryKey {
        &self.key
    }

    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    pub(super) fn key_path(&self) -> PathBuf {
        self.dir.join(REGISTRY_KEY_FILE)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn read_key(path: &Path) -> Result<RegistryKey, SecretsError> {
    let text = read_line(path)?;
    let mut bytes = from_hex(&text).ok_or_else(|| SecretsError::Damaged {
        path: path.to_owned(),
        what: "does not hold 64 hexadecimal digits in one line",
        advice: "Put it back from the backup of the secrets directory; do not remove it while \
                 devices have tokens",
    })?;
    let key = RegistryKey::new(&bytes);
    bytes.fill(0);
    Ok(key)
}

/// The signing key of `dir`, a new one where there is none.
fn signer(dir: &Path) -> Result<Signer, SecretsError> {
    let path = dir.join(IDENTITY_KEY_FILE);
    if is_missing(&path)? {
        let fresh = Signer::generate().ok_or(SecretsError::Random)?;
        write_line(dir, IDENTITY_KEY_FILE, &fresh)?;
    }
    let text = read_line(&path)?;
    Signer::read(&text).ok_or(SecretsError::Damaged {
        path,
        what: "does not hold one private key (P-256, PKCS#8 in base 64) in one line",
        advice: "Remove it and start the broker again: it makes a new one, and tokens of users \
                 that were signed with the old one go on",
    })
}

/// The one line of a secret file that only its owner can read.
fn read_line(path: &Path) -> Result<String, SecretsError> {
    let file = File::open(path).map_err(at("open", path))?;
    let metadata = file.metadata().map_err(at("look at", path))?;
    check_mode(path, metadata.mode(), "600")?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(at("read", path))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Writes a file so that it is whole or not there, also after a crash.
fn write_line(dir: &Path, name: &str, line: &str) -> Result<(), SecretsError> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(at("create", &temporary))?;
    file.write_all(line.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(at("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(at("rename to", &path))?;
    sync_dir(dir)
}

fn make_dir(dir: &Path) -> Result<(), SecretsError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.mode() & 0o077 == 0 => Ok(()),
        // Nothing in it was ever exposed.
        Ok(_) if fs::read_dir(dir).map_err(at("list", dir))?.next().is_none() => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
                .map_err(at("close to other users (chmod)", dir))
        }
        Ok(metadata) => check_mode(dir, metadata.mode(), "700"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(at("create", dir))?;
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
                _ => sync_dir(Path::new(".")),
            }
        }
        Err(error) => Err(at("look at", dir)(error)),
    }
}

fn check_mode(path: &Path, mode: u32, wanted: &'static str) -> Result<(), SecretsError> {
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(SecretsError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o7777,
            wanted,
        }),
    }
}

fn is_missing(path: &Path) -> Result<bool, SecretsError> {
    path.try_exists()
        .map(|exists| !exists)
        .map_err(at("look at", path))
}

fn sync_dir(dir: &Path) -> Result<(), SecretsError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(at("sync the directory", dir))
}

fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SecretsError {
    let path = path.to_owned();
    move |source| SecretsError::File {
        action,
        path: path.clone(),
        source,
    }
}

fn to_hex(bytes: &[u8; KEY_BYTES]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair.first_chunk::<2>()?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}
