//! The disk seam with slower syncs: what the broker does on a disk that is slower than the one at
//! hand. For measurements (`journal.sync_delay_us`); nothing is less durable by it.
//!
//! Invariant: a sync is told only after the real one and the delay, in this order, so that what a
//! slow disk would not have yet is not acknowledged either.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, DiskFile, DiskLock, FileEntry, RealDisk};

/// The real file system, each of whose syncs takes so much longer.
#[derive(Clone, Copy, Debug)]
pub struct SlowDisk {
    delay: Duration,
}

struct SlowFile {
    file: Arc<dyn DiskFile>,
    delay: Duration,
}

impl SlowDisk {
    /// Adds `delay` to each sync of a file or directory.
    #[must_use]
    pub fn new(delay: Duration) -> SlowDisk {
        SlowDisk { delay }
    }

    fn slow(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let delay = self.delay;
        Arc::new(SlowFile { file, delay })
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.file.write_at(slices, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        std::thread::sleep(self.delay);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn bypass_cache(&self, bypass: bool) -> io::Result<()> {
        self.file.bypass_cache(bypass)
    }
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(RealDisk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(RealDisk.create(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)?;
        std::thread::sleep(self.delay);
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        RealDisk.lock(path)
    }
}
