//! A disk in memory that loses, reorders, shortens and refuses.
//!
//! It keeps two pictures of every file: what processes see (the system's cache) and what is on
//! the medium. A sync copies the dirty blocks from one to the other. A failed sync marks them clean
//! without copying all of them, as real systems do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tollgate::journal::{BLOCK_BYTES, Disk, DiskFile, DiskLock, FileEntry};

use super::support::Random;

/// Calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
    SetLen,
    Read,
}

/// What a power loss does to blocks that were written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Dropped,
    Kept,
    /// Each block of this many bytes is kept or not, whatever the order of the writes.
    Mixed(usize),
}

/// Files by name: a picture of the disk.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

const BLOCK: usize = 512;

#[derive(Default)]
struct Inode {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Blocks to be written by the next sync.
    dirty: BTreeSet<usize>,
    dirty_len: bool,
}

#[derive(Clone, Debug)]
enum DirOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

/// What a call fails with.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    Kind(ErrorKind),
    /// A number of the system's own.
    Os(i32),
}

impl From<ErrorKind> for Refusal {
    fn from(kind: ErrorKind) -> Refusal {
        Refusal::Kind(kind)
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        match refusal {
            Refusal::Kind(kind) => kind.into(),
            Refusal::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

struct Fault {
    call: Call,
    /// Calls of that kind until it strikes.
    left: u64,
    error: Refusal,
    /// For good, or once.
    sticky: bool,
}

struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    medium_names: BTreeMap<PathBuf, usize>,
    /// Since the last sync of the directory.
    dir_ops: Vec<DirOp>,
    locks: BTreeSet<PathBuf>,
    /// Files opened in an earlier life of the process answer nothing.
    life: u64,
    /// Changing calls until the power goes, if it does.
    power_left: Option<u64>,
    power: bool,
    faults: Vec<Fault>,
    capacity: u64,
    short_writes: bool,
    far_reads: bool,
    random: Random,
    changes: u64,
}

#[derive(Clone)]
pub(crate) struct FaultDisk {
    state: Arc<Mutex<State>>,
    /// Syncs wait here while they are held up.
    held: Arc<(Mutex<bool>, Condvar)>,
    life: u64,
}

struct FaultFile {
    disk: FaultDisk,
    inode: usize,
}

struct FaultLock {
    disk: FaultDisk,
    path: PathBuf,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl FaultDisk {
    pub(crate) fn new(seed: u64) -> FaultDisk {
        FaultDisk::from_image(&Image::new(), seed)
    }

    pub(crate) fn from_image(image: &Image, seed: u64) -> FaultDisk {
        let mut inodes = Vec::new();
        let mut names = BTreeMap::new();
        for (path, bytes) in image {
            names.insert(path.clone(), inodes.len());
            let (cache, medium) = (bytes.clone(), bytes.clone());
            inodes.push(Inode {
                cache,
                medium,
                ..Inode::default()
            });
        }
        let state = State {
            inodes,
            medium_names: names.clone(),
            names,
            dir_ops: Vec::new(),
            locks: BTreeSet::new(),
            life: 0,
            power_left: None,
            power: true,
            faults: Vec::new(),
            capacity: u64::MAX,
            short_writes: false,
            far_reads: true,
            random: Random::new(seed),
            changes: 0,
        };
        FaultDisk {
            state: Arc::new(Mutex::new(state)),
            held: Arc::default(),
            life: 0,
        }
    }

    /// What a process sees now.
    pub(crate) fn image(&self) -> Image {
        let state = lock(&self.state);
        let file =
            |(path, inode): (&PathBuf, &usize)| (path.clone(), state.inodes[*inode].cache.clone());
        state.names.iter().map(file).collect()
    }

    /// Changing calls (everything but reads) so far.
    pub(crate) fn changes(&self) -> u64 {
        lock(&self.state).changes
    }

    /// The power goes at the `calls`-th changing call from now: it and all later ones fail.
    pub(crate) fn power_off_after(&self, calls: u64) {
        lock(&self.state).power_left = Some(calls);
    }

    pub(crate) fn has_power(&self) -> bool {
        lock(&self.state).power
    }

    /// The `nth` call (from 1 on) of a kind fails.
    pub(crate) fn fail(&self, call: Call, nth: u64, error: impl Into<Refusal>, sticky: bool) {
        lock(&self.state).faults.push(Fault {
            call,
            left: nth,
            error: error.into(),
            sticky,
        });
    }

    pub(crate) fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    pub(crate) fn set_short_writes(&self, short: bool) {
        lock(&self.state).short_writes = short;
    }

    /// A read beyond the block of the last byte that is not zero is a panic from now on.
    pub(crate) fn forbid_far_reads(&self) {
        lock(&self.state).far_reads = false;
    }

    /// Bytes that all files together may have.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        lock(&self.state).capacity = capacity;
    }

    pub(crate) fn used(&self) -> u64 {
        lock(&self.state).used()
    }

    /// Syncs wait as long as `held` is true.
    pub(crate) fn hold_syncs(&self, held: bool) {
        *self.held.0.lock().unwrap() = held;
        self.held.1.notify_all();
    }

    /// The process is killed: what the system's cache holds stays. Returns the next life's disk.
    pub(crate) fn kill(&self) -> FaultDisk {
        let mut state = lock(&self.state);
        state.life += 1;
        state.locks.clear();
        state.faults.clear();
        state.power_left = None;
        FaultDisk {
            state: Arc::clone(&self.state),
            held: Arc::clone(&self.held),
            life: state.life,
        }
    }

    /// The power goes: what was not synced is lost, kept, or both.
    pub(crate) fn power_loss(&self, unsynced: Unsynced) -> FaultDisk {
        let next = self.kill();
        let mut state = lock(&self.state);
        state.lose_power(unsynced);
        drop(state);
        next
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|inode| self.inodes[*inode].cache.len() as u64)
            .sum()
    }

    /// Counts a call of a living process; says how it fails, if it does.
    fn enter(&mut self, life: u64, call: Call) -> io::Result<()> {
        if life != self.life || !self.power {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        if call != Call::Read {
            self.changes += 1;
            if let Some(left) = self.power_left.as_mut() {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.power = false;
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
        }
        for fault in self.faults.iter_mut().filter(|fault| fault.call == call) {
            fault.left = fault.left.saturating_sub(1);
            if fault.left == 0 {
                let error = fault.error;
                if fault.sticky {
                    fault.left = 1;
                } else {
                    fault.left = u64::MAX;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn lose_power(&mut self, unsynced: Unsynced) {
        self.power = true;
        let State { inodes, random, .. } = self;
        for inode in inodes {
            let size = if let Unsynced::Mixed(size) = unsynced {
                size
            } else {
                BLOCK
            };
            let keep = |random: &mut Random| match unsynced {
                Unsynced::Dropped => false,
                Unsynced::Kept => true,
                Unsynced::Mixed(_) => random.chance(50),
            };
            if inode.dirty_len && keep(random) {
                inode.medium.resize(inode.cache.len(), 0);
            }
            let groups: BTreeSet<usize> = inode
                .dirty
                .iter()
                .map(|block| block * BLOCK / size)
                .collect();
            for group in groups {
                if keep(random) {
                    for block in group * size / BLOCK..(group + 1) * size / BLOCK {
                        inode.persist(block);
                    }
                }
            }
            inode.dirty.clear();
            inode.dirty_len = false;
            inode.cache = inode.medium.clone();
        }
        let ops = std::mem::take(&mut self.dir_ops);
        let kept = match unsynced {
            Unsynced::Dropped => 0,
            Unsynced::Kept => ops.len(),
            Unsynced::Mixed(_) => self.random.below(ops.len() as u64 + 1) as usize,
        };
        // A file system's log keeps names in order; one that does not loses some at random.
        let in_order = self.random.chance(50);
        for (index, op) in ops.into_iter().enumerate() {
            let mixed = matches!(unsynced, Unsynced::Mixed(_));
            let keep = if in_order || !mixed {
                index < kept
            } else {
                self.random.chance(50)
            };
            if keep {
                apply(&mut self.medium_names, op);
            }
        }
        self.names = self.medium_names.clone();
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, op: DirOp) {
    match op {
        DirOp::Link(path, inode) => {
            names.insert(path, inode);
        }
        DirOp::Unlink(path) => {
            names.remove(&path);
        }
        DirOp::Rename(from, to, inode) => {
            names.retain(|path, other| !(*path == from && *other == inode));
            names.insert(to, inode);
        }
    }
}

impl Inode {
    fn persist(&mut self, block: usize) {
        let end = ((block + 1) * BLOCK)
            .min(self.cache.len())
            .min(self.medium.len());
        let start = block * BLOCK;
        if start < end {
            self.medium[start..end].copy_from_slice(&self.cache[start..end]);
        }
    }

    fn sync(&mut self) {
        self.medium.resize(self.cache.len(), 0);
        for block in std::mem::take(&mut self.dirty) {
            self.persist(block);
        }
        self.dirty_len = false;
    }

    /// The error is reported once; the blocks count as clean from now on, written or not.
    fn fail_sync(&mut self, random: &mut Random) {
        if random.chance(50) {
            self.medium.resize(self.cache.len(), 0);
        }
        for block in std::mem::take(&mut self.dirty) {
            if random.chance(30) {
                self.persist(block);
            }
        }
        self.dirty_len = false;
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = lock(&self.disk.state);
        state.enter(self.disk.life, Call::Read)?;
        let cache = &state.inodes[self.inode].cache;
        let rest = cache.get(position as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        if !state.far_reads {
            let written = cache.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let block_end = (written / BLOCK_BYTES + 1) * BLOCK_BYTES;
            let end = position as usize + len;
            assert!(end <= block_end, "reads to {end}, {block_end} is written");
        }
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut state = lock(&self.disk.state);
        let mut bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let entered = state.enter(self.disk.life, Call::Write);
        let interrupted = match &entered {
            Err(_) if state.life != self.disk.life => return entered.map(|()| 0),
            Err(_) => true,
            Ok(()) => state.short_writes && state.random.chance(50),
        };
        if interrupted {
            let written = state.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(if entered.is_ok() {
                written.max(1)
            } else {
                written
            });
        }
        let free = state.capacity.saturating_sub(state.used()) as usize;
        let len = state.inodes[self.inode].cache.len();
        let (start, mut end) = (position as usize, position as usize + bytes.len());
        if end > len && end - len > free {
            end = len + free;
            if end <= start {
                entered?;
                return Err(ErrorKind::StorageFull.into());
            }
            bytes.truncate(end - start);
        }
        let inode = &mut state.inodes[self.inode];
        if end > len {
            inode.cache.resize(end, 0);
            inode.dirty_len = true;
        }
        inode.cache[start..end].copy_from_slice(&bytes);
        if start < end {
            inode.dirty.extend(start / BLOCK..=(end - 1) / BLOCK);
        }
        entered?;
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (held, changed) = &*self.disk.held;
        drop(changed.wait_while(held.lock().unwrap(), |held| *held));
        let mut state = lock(&self.disk.state);
        let entered = state.enter(self.disk.life, Call::Sync);
        let State {
            inodes,
            random,
            power,
            life,
            ..
        } = &mut *state;
        match &entered {
            Ok(()) => inodes[self.inode].sync(),
            Err(_) if *power && *life == self.disk.life => {
                inodes[self.inode].fail_sync(random);
            }
            Err(_) => {}
        }
        entered
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.disk.state);
        state.enter(self.disk.life, Call::SetLen)?;
        let inode = &mut state.inodes[self.inode];
        inode.cache.resize(len as usize, 0);
        inode.dirty_len = true;
        Ok(())
    }
}

impl FaultDisk {
    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile {
            disk: self.clone(),
            inode,
        })
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::Read)?;
        let inode = state.names.get(path).copied().ok_or(ErrorKind::NotFound)?;
        drop(state);
        Ok(self.file(inode))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::Create)?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.used() >= state.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_path_buf(), inode);
        state.dir_ops.push(DirOp::Link(path.to_path_buf(), inode));
        drop(state);
        Ok(self.file(inode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::Remove)?;
        state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.dir_ops.push(DirOp::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::Rename)?;
        let inode = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), inode);
        state
            .dir_ops
            .push(DirOp::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<FileEntry>> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::Read)?;
        let entry = |(path, inode): (&PathBuf, &usize)| FileEntry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            len: state.inodes[*inode].cache.len() as u64,
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.enter(self.life, Call::SyncDir)?;
        for op in std::mem::take(&mut state.dir_ops) {
            apply(&mut state.medium_names, op);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = lock(&self.state);
        Ok(state.capacity.saturating_sub(state.used()))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut state = lock(&self.state);
        if !state.locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        drop(state);
        Ok(Some(Box::new(FaultLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        })))
    }
}

impl DiskLock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        let mut state = lock(&self.disk.state);
        // A lock of an earlier life was gone with its process.
        if state.life == self.disk.life {
            state.locks.remove(&self.path);
        }
    }
}
