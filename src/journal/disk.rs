//! The fault seam: the calls the journal makes on the file system, and nothing else.
//!
//! A trait only because tests lose, reorder, shorten and fail these calls (REL-25, 26, 28, 29).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Permissions of what is made: nobody else reads the devices' data (SEC-78).
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// A file of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name without the directory.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// An open file, read and written by position.
pub trait DiskFile: Send + Sync {
    /// Reads into `buffer` from byte `position` on; may read less, 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes the slices one after another from byte `position` on; may write less than all.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Makes what was written, and the file's length, survive a power loss (fdatasync).
    ///
    /// # Errors
    /// What the system says. After an error nothing is known of the file (REL-04).
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros that need not occupy space yet.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// From now on, or no more: writes go to the disk without a copy in the system's cache. They
    /// are of whole blocks of [`BLOCK_BYTES`], from memory that begins at a multiple of that; a
    /// file system may refuse them nevertheless. What is written is as durable as before: by
    /// [`DiskFile::sync_data`]. A disk without a cache does nothing here.
    ///
    /// # Errors
    /// What the system says; writes go as before then.
    fn bypass_cache(&self, _bypass: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a block of the system's cache, and of one that most disks take without it.
pub const BLOCK_BYTES: usize = 4096;

/// Holds a lock until it is dropped.
pub trait DiskLock: Send {}

/// The file system as the journal uses it.
pub trait Disk: Send + Sync {
    /// Opens an existing file to read and write.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a file that must not exist yet, to read and write.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file in one step; a file of the new name is replaced.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The files (not the directories) in a directory, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>>;

    /// Makes a directory and those above it, durably; no error when it is there.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes files created, renamed and removed in a directory survive a power loss.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that this process may still write in the directory's file system.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Locks a file (made if missing) against every other opener, in this process or another;
    /// `None` when somebody holds it. The lock ends with its holder's process, even by kill -9.
    ///
    /// # Errors
    /// What the system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

struct RealLock {
    /// flock on an open file description: closing it (or dying) releases it.
    _file: File,
}

impl DiskLock for RealLock {}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, position)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        // One system call for a whole commit: header and every worker's buffer.
        Ok(rustix::io::pwritev(&self.0, slices, position)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn bypass_cache(&self, bypass: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.0)?;
        flags.set(OFlags::DIRECT, bypass);
        Ok(fcntl_setfl(&self.0, flags)?)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(FileEntry {
                    name,
                    len: metadata.len(),
                });
            }
        }
        Ok(files)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        // Each directory's own entry lives in the one above it, so that is synced too.
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        DirBuilder::new().mode(DIR_MODE).create(dir)?;
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// No file descriptor is left, in this process or on the machine: nothing was opened.
pub(super) fn is_no_descriptor(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}
