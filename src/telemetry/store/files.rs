//! The files of the history while the broker runs: which there are, and footers kept at hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{FileError, OpenFile};
use super::manifest::{self, FileEntry, Found, Manifest, UNFINISHED};
use crate::journal::Offset;

/// Bytes of footers and indexes kept in memory; beyond it those used longest ago are read again.
const FOOTERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One file. It stays what it is: a file that is rewritten is another one.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) entry: FileEntry,
    pub(super) path: PathBuf,
    number: u64,
    /// Something in it is not what was written: it is served as far as that goes, and left alone.
    pub(super) is_damaged: AtomicBool,
}

/// The list of files, in order of their offsets. Shared by those who read it; a change is a new
/// list.
pub(super) type Files = Arc<Vec<Arc<DataFile>>>;

impl DataFile {
    pub(super) fn new(dir: &Path, entry: FileEntry) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            path: dir.join(&entry.name),
            entry,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            is_damaged: AtomicBool::new(false),
        })
    }

    /// Whether the index of files says that it cannot hold the device in these times.
    pub(super) fn rules_out(&self, device: uuid::Uuid, (from, to): (i64, i64)) -> bool {
        let entry = &self.entry;
        !(entry.least_device..=entry.greatest_device).contains(&device)
            || entry.greatest_ts < from
            || (entry.least_ts >= to && to != i64::MAX)
    }
}

/// Footers read before.
#[derive(Default)]
pub(super) struct Footers {
    /// The one used last stands last. Short: searched from front to back.
    kept: Mutex<Vec<(u64, Arc<OpenFile>)>>,
}

impl Footers {
    /// The file, opened now or before.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn open(&self, file: &DataFile) -> Result<Arc<OpenFile>, FileError> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some(place) = kept.iter().position(|(number, _)| *number == file.number) {
            let found = kept.remove(place);
            let open = Arc::clone(&found.1);
            kept.push(found);
            return Ok(open);
        }
        drop(kept);
        let open = Arc::new(OpenFile::open(&file.path, Some(file.entry.tail_crc32c))?);
        let mut kept = lock();
        kept.push((file.number, Arc::clone(&open)));
        let mut bytes: usize = kept.iter().map(|(_, open)| open.bytes()).sum();
        while bytes > FOOTERS_BYTES_MAX && kept.len() > 1 {
            bytes -= kept.remove(0).1.bytes();
        }
        Ok(open)
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&self, file: &DataFile) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(number, _)| *number != file.number);
    }
}

/// What a start found.
pub(super) struct Opened {
    pub(super) files: Files,
    /// Everything up to here is in the files.
    pub(super) sealed: Offset,
    /// Files that are damaged or missing, and what about them.
    pub(super) damage: Vec<(PathBuf, String)>,
}

/// Reads the directory, made when missing; removes what a crash left over.
///
/// # Errors
/// When it cannot be read or written, or a later version wrote it.
pub(super) fn open(dir: &Path, journal_first: Offset) -> io::Result<Opened> {
    manifest::make_dir(dir)?;
    let names = names(dir)?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        fs::remove_file(dir.join(name))?;
    }
    let (manifest, mut damage) = match Manifest::load(dir)? {
        Found::Whole(manifest) => (manifest, Vec::new()),
        Found::Missing if !names.iter().any(|name| manifest::offsets(name).is_some()) => {
            (Manifest::empty(), Vec::new())
        }
        Found::Missing => rebuild(dir, &names, "it is missing")?,
        Found::Damaged(what) => rebuild(dir, &names, &what)?,
    };
    let files = with_left_over(
        dir,
        manifest.files,
        &names,
        (manifest.sealed, journal_first),
    )?;
    let mut found = Vec::new();
    for entry in files {
        let file = DataFile::new(dir, entry);
        match fs::metadata(&file.path) {
            Ok(metadata) if metadata.len() == file.entry.bytes => {}
            Ok(metadata) => {
                let (len, expected) = (metadata.len(), file.entry.bytes);
                let what = format!("it has {len} bytes instead of {expected}");
                file.is_damaged.store(true, Ordering::Relaxed);
                damage.push((file.path.clone(), what));
            }
            Err(error) => {
                file.is_damaged.store(true, Ordering::Relaxed);
                damage.push((file.path.clone(), error.to_string()));
            }
        }
        found.push(file);
    }
    Ok(Opened {
        files: Arc::new(found),
        sealed: Offset::new(manifest.sealed),
        damage,
    })
}

/// Adds files that are not listed and whose records the journal no longer has; removes the others,
/// which a crash left over.
fn with_left_over(
    dir: &Path,
    mut files: Vec<FileEntry>,
    names: &[String],
    (sealed, journal_first): (u64, Offset),
) -> io::Result<Vec<FileEntry>> {
    for name in names {
        let Some((first, last)) = manifest::offsets(name) else {
            continue;
        };
        if files.iter().any(|entry| entry.name == *name) {
            continue;
        }
        let path = dir.join(name);
        let is_elsewhere = last.number() <= sealed || journal_first <= first;
        if !is_elsewhere && let Ok(entry) = examine(dir, name) {
            tracing::warn!(file = %path.display(), "a file of the history was not listed");
            files.push(entry);
        } else {
            fs::remove_file(&path)?;
        }
    }
    files.sort_by_key(FileEntry::offsets);
    Ok(files)
}

/// A manifest from the files themselves. Files that a crash left over are in it too: what is twice
/// in files counts once.
fn rebuild(
    dir: &Path,
    names: &[String],
    what: &str,
) -> io::Result<(Manifest, Vec<(PathBuf, String)>)> {
    tracing::error!(
        dir = %dir.display(),
        what,
        "the manifest of the history cannot be used and is made again from its files"
    );
    let mut damage = Vec::new();
    let mut made = Manifest::empty();
    for name in names {
        let Some((_, last)) = manifest::offsets(name) else {
            continue;
        };
        made.sealed = made.sealed.max(last.number());
        match examine(dir, name) {
            Ok(entry) => made.files.push(entry),
            Err(FileError::Damaged { path, what }) => damage.push((path, what)),
            Err(FileError::Open { source, .. }) => return Err(source),
        }
    }
    made.files.sort_by_key(FileEntry::offsets);
    // Files that cannot be read at all must not be taken for left over later.
    for (path, _) in &damage {
        let mut kept = path.clone().into_os_string();
        kept.push(".damaged");
        fs::rename(path, kept)?;
    }
    made.save(dir)?;
    Ok((made, damage))
}

/// The entry of a file as the file itself tells it.
pub(super) fn examine(dir: &Path, name: &str) -> Result<FileEntry, FileError> {
    let path = dir.join(name);
    let open = OpenFile::open(&path, None)?;
    let bytes = fs::metadata(&path).map_err(|source| FileError::Open { path, source })?;
    let (times, devices) = open.bounds();
    Ok(FileEntry {
        name: name.to_owned(),
        rows: open.rows(),
        bytes: bytes.len(),
        least_ts: times.0,
        greatest_ts: times.1,
        least_device: devices.0,
        greatest_device: devices.1,
        tail_crc32c: open.tail_crc,
    })
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        // A name that is not UTF-8 is none of ours.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
