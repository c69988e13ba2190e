//! Putting a backup in place, or only looking whether it could be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::at;
use super::seal::Opener;
use super::{BackupError, Contents, Folders, PATH_BYTES_MAX, Passphrase, Root, kind};

/// Stands behind the name of a folder while it is filled.
const STAGING_ENDING: &str = ".restoring";

/// Reads a whole backup and checks all of it; writes nothing.
///
/// # Errors
/// Why it cannot be restored.
pub fn verify(passphrase: &Passphrase, input: impl Read) -> Result<Contents, BackupError> {
    unpack(Opener::new(input, passphrase)?, None)
}

/// Puts a backup in place: fills three folders beside the wanted ones, and gives them their names
/// when everything was checked and is on disk; the data last. After an error nothing has changed.
///
/// # Errors
/// [`BackupError::NotEmpty`], or why it cannot be restored.
pub fn restore(
    folders: &Folders,
    passphrase: &Passphrase,
    input: impl Read,
) -> Result<Contents, BackupError> {
    for root in Root::ALL {
        check_empty(folder(folders, root))?;
    }
    let opener = Opener::new(input, passphrase)?;
    let staging = Staging::new(folders)?;
    let contents = unpack(opener, Some(&staging))?;
    staging.put_in_place()?;
    Ok(contents)
}

fn folder(folders: &Folders, root: Root) -> &Path {
    match root {
        Root::Data => &folders.data,
        Root::Secrets => &folders.secrets,
        Root::Certs => &folders.certs,
    }
}

fn check_empty(path: &Path) -> Result<(), BackupError> {
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty {
                path: path.to_owned(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("list", path)(error)),
    }
}

/// Reads all entries up to the very end; writes the files if it is told where.
fn unpack<R: Read>(
    mut opener: Opener<R>,
    staging: Option<&Staging<'_>>,
) -> Result<Contents, BackupError> {
    let mut contents = Contents::default();
    loop {
        let [kind] = opener.exactly()?;
        match kind {
            kind::ABOUT => {
                contents.made_ms = u64::from_le_bytes(opener.exactly()?);
                contents.last = u64::from_le_bytes(opener.exactly()?);
            }
            kind::FILE => {
                contents.bytes += unpack_file(&mut opener, staging)?;
                contents.files += 1;
            }
            kind::END => {
                let files = u64::from_le_bytes(opener.exactly()?);
                let bytes = u64::from_le_bytes(opener.exactly()?);
                if (files, bytes) != (contents.files, contents.bytes) {
                    return Err(opener.damaged("the end mark counts other files"));
                }
                opener.end()?;
                return Ok(contents);
            }
            _ => return Err(opener.damaged("an entry of an unknown kind")),
        }
    }
}

fn unpack_file<R: Read>(
    opener: &mut Opener<R>,
    staging: Option<&Staging<'_>>,
) -> Result<u64, BackupError> {
    let [root] = opener.exactly()?;
    let len = usize::from(u16::from_le_bytes(opener.exactly()?));
    let mut name = Vec::with_capacity(len);
    while name.len() < len {
        name.extend_from_slice(opener.some((len - name.len()) as u64)?);
    }
    let name = String::from_utf8(name).unwrap_or_default();
    let root = Root::of(root).filter(|_| is_safe(&name));
    let root = root.ok_or_else(|| opener.damaged("a file's name is not one of ours"))?;
    let bytes = u64::from_le_bytes(opener.exactly()?);
    let stored = u64::from_le_bytes(opener.exactly()?);
    if stored > bytes {
        return Err(opener.damaged("a file's length is wrong"));
    }
    let mut file = match staging {
        Some(staging) => Some(staging.create(root, &name)?),
        None => None,
    };
    let mut left = stored;
    while left > 0 {
        let some = opener.some(left)?;
        left -= some.len() as u64;
        if let Some((file, path)) = &mut file {
            file.write_all(some).map_err(at("write", path))?;
        }
    }
    if let Some((file, path)) = file {
        let done = file.set_len(bytes).and_then(|()| file.sync_all());
        done.map_err(at("write", &path))?;
    }
    Ok(bytes)
}

/// A path that stays in its folder.
fn is_safe(name: &str) -> bool {
    let is_step = |step: &str| !step.is_empty() && step != "." && step != "..";
    name.len() <= PATH_BYTES_MAX && !name.contains('\0') && name.split('/').all(is_step)
}

/// The three folders while they are filled; removed when dropped.
struct Staging<'a> {
    folders: &'a Folders,
}

impl<'a> Staging<'a> {
    fn new(folders: &'a Folders) -> Result<Staging<'a>, BackupError> {
        let staging = Staging { folders };
        staging.remove();
        for root in Root::ALL {
            let path = staging.path(root);
            DirBuilder::new()
                .recursive(true)
                .mode(modes(root).0)
                .create(&path)
                .map_err(at("create", &path))?;
        }
        Ok(staging)
    }

    fn path(&self, root: Root) -> PathBuf {
        let mut path = folder(self.folders, root).as_os_str().to_owned();
        path.push(STAGING_ENDING);
        path.into()
    }

    fn create(&self, root: Root, name: &str) -> Result<(File, PathBuf), BackupError> {
        let path = self.path(root).join(name);
        let (folder_mode, mode) = modes(root);
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(folder_mode)
                .create(parent)
                .map_err(at("create", parent))?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(at("create", &path))?;
        file.set_permissions(fs::Permissions::from_mode(mode)) // whatever the umask says
            .map_err(at("close to other users (chmod)", &path))?;
        Ok((file, path))
    }

    /// Makes everything durable and gives the folders their names. The data comes last: without
    /// it nothing starts that would make keys anew.
    fn put_in_place(self) -> Result<(), BackupError> {
        for root in Root::ALL {
            sync_folders(&self.path(root), 0)?;
        }
        for root in [Root::Certs, Root::Secrets, Root::Data] {
            let (from, to) = (self.path(root), folder(self.folders, root));
            fs::rename(&from, to).map_err(at("put in place", to))?;
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(at("sync the directory", parent))?;
        }
        Ok(())
    }

    fn remove(&self) {
        for root in Root::ALL {
            let _ = fs::remove_dir_all(self.path(root));
        }
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Modes of folders and files (SEC-78); certificates are for everybody.
fn modes(root: Root) -> (u32, u32) {
    match root {
        Root::Data | Root::Secrets => (0o700, 0o600),
        Root::Certs => (0o755, 0o644),
    }
}

fn sync_folders(folder: &Path, depth: usize) -> Result<(), BackupError> {
    let failed = |error| at("sync the directory", folder)(error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && depth < 8 {
            sync_folders(&path, depth + 1)?;
        }
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}
