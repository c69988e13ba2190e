//! Making a backup: what goes into it, and in which order it is taken.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::at;
use super::seal::Sealer;
use super::{BackupError, Contents, Folders, PATH_BYTES_MAX, Passphrase, Root, kind};
use crate::journal::{Disk, Journal, RealDisk};
use crate::store;

/// Where snapshots stand until they are written, in the data directory: the same file system, so
/// that files can be linked. Removed at the end, and by the next backup.
const WORK_FOLDER: &str = "backup.tmp";

/// The folder of the journal, and of the history, in the data directory.
const JOURNAL: &str = "journal";
const HISTORY: &str = "history";

/// How often the history is looked at again when a compaction changed it meanwhile.
const HISTORY_TRIES: usize = 10;

/// What is never copied: locks, space kept aside, files that are being made.
const LEFT_OUT: [&str; 3] = ["lock", "ballast", "lost+found"];
const LEFT_OUT_ENDINGS: [&str; 5] = [".prepared", ".tmp", ".new", ".part", ".restoring"];

/// Levels of folders that are looked into.
const DEPTH_MAX: usize = 4;

/// Bytes read of a file at a time.
const READ_BYTES: usize = 64 * 1024;

/// A file to be copied.
struct Source {
    root: Root,
    /// Path in the root's folder.
    name: String,
    path: PathBuf,
    /// How much of it; `None` is all.
    bytes: Option<u64>,
}

/// Writes a backup of a running installation to `out`, sealed with `passphrase`. Blocks; the
/// broker goes on meanwhile. A reader that goes away ends it.
///
/// # Errors
/// What could not be read or written; what was written then has no end and cannot be restored.
pub fn write<W: Write>(
    folders: &Folders,
    journal: &Journal,
    passphrase: &Passphrase,
    out: W,
) -> Result<(Contents, W), BackupError> {
    // First of all the key, which takes a moment, and the header: the reader sees that it begins.
    let sealer = Sealer::new(out, passphrase)?;
    let work = Work::new(&folders.data)?;
    // Nothing that the parts below refer to goes away meanwhile.
    let hold = journal.hold(journal.first());
    let mut sources = history(folders, &work)?;
    sources.push(state(folders, &work)?);
    let last = journal.durable();
    for part in journal.prefix(last)? {
        sources.push(Source {
            root: Root::Data,
            name: format!("{JOURNAL}/{}", part.name),
            path: part.path,
            bytes: Some(part.bytes),
        });
    }
    sources.extend(others(folders, &work)?);
    let written = entries(sealer, &sources, last.number());
    drop(hold);
    written
}

/// As [`write()`], of an installation whose broker is stopped: takes its lock meanwhile.
///
/// # Errors
/// As [`write()`]; [`BackupError::InUse`] if a broker runs.
pub fn write_stopped<W: Write>(
    folders: &Folders,
    passphrase: &Passphrase,
    out: W,
) -> Result<(Contents, W), BackupError> {
    let journal = folders.data.join(JOURNAL);
    let path = journal.join("lock");
    let lock = RealDisk.lock(&path).map_err(at("lock", &path))?;
    let lock = lock.ok_or(BackupError::InUse { path })?;
    let sealer = Sealer::new(out, passphrase)?;
    let work = Work::new(&folders.data)?;
    let mut sources = history(folders, &work)?;
    sources.push(state(folders, &work)?);
    sources.extend(files(Root::Data, &journal, JOURNAL)?);
    sources.extend(others(folders, &work)?);
    let written = entries(sealer, &sources, 0);
    drop(lock);
    written
}

/// The folder for snapshots; gone when it is dropped.
struct Work(PathBuf);

impl Work {
    fn new(data: &Path) -> Result<Work, BackupError> {
        let path = data.join(WORK_FOLDER);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", &path)(error));
            }
            _ => {} // left by a backup that was cut off
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(at("create", &path))?;
        Ok(Work(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What stays is removed by the next backup.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Links the history's files. The manifest comes first, and its link keeps its inode from being
/// another one's: as long as it is the manifest, the files that it names are there. A file comes
/// before the manifest that names it, and goes after the one that does no more.
fn history(folders: &Folders, work: &Work) -> Result<Vec<Source>, BackupError> {
    let folder = folders.data.join(HISTORY);
    for _ in 0..HISTORY_TRIES {
        let to = work.0.join(HISTORY);
        match fs::remove_dir_all(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", &to)(error));
            }
            _ => {}
        }
        let listed = |are_samples: bool| -> Result<Vec<Source>, BackupError> {
            let mut found = files(Root::Data, &folder, HISTORY)?;
            found.retain(|source| source.name.ends_with(".parquet") == are_samples);
            Ok(found)
        };
        let Some(mut linked) = all_linked(listed(false)?, work)? else {
            continue;
        };
        let Some(samples) = all_linked(listed(true)?, work)? else {
            continue;
        };
        if inodes(&linked) == inodes(&listed(false)?) {
            linked.extend(samples);
            return Ok(linked);
        }
    }
    Err(BackupError::Moving)
}

/// The same files under links that stay; `None` if one has gone.
fn all_linked(mut sources: Vec<Source>, work: &Work) -> Result<Option<Vec<Source>>, BackupError> {
    for source in &mut sources {
        match link(source, work) {
            Ok(to) => source.path = to,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at("link", &source.path)(error)),
        }
    }
    Ok(Some(sources))
}

/// Makes the link, in the same place of the folder for snapshots; answers its path.
fn link(source: &Source, work: &Work) -> io::Result<PathBuf> {
    let to = work.0.join(&source.name);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::hard_link(&source.path, &to)?;
    Ok(to)
}

/// Which files these are: a manifest is replaced, never changed.
fn inodes(sources: &[Source]) -> Vec<(&str, Option<u64>)> {
    let inode = |source: &Source| fs::metadata(&source.path).ok().map(|found| found.ino());
    let sources = sources.iter();
    sources
        .map(|source| (source.name.as_str(), inode(source)))
        .collect()
}

/// A copy of the state database, of one moment.
fn state(folders: &Folders, work: &Work) -> Result<Source, BackupError> {
    let path = work.0.join(store::FILE_NAME);
    store::snapshot(&folders.data, &path)?;
    Ok(Source {
        root: Root::Data,
        name: store::FILE_NAME.to_owned(),
        path,
        bytes: None,
    })
}

/// Everything else: secrets, certificates, and what later versions may keep beside the rest.
fn others(folders: &Folders, work: &Work) -> Result<Vec<Source>, BackupError> {
    let mut sources = files(Root::Secrets, &folders.secrets, "")?;
    sources.extend(files(Root::Certs, &folders.certs, "")?);
    let data = files(Root::Data, &folders.data, "")?.into_iter();
    let data = data.filter(|source| {
        let first = source.name.split('/').next().unwrap_or_default();
        ![JOURNAL, HISTORY].contains(&first) && !first.starts_with(store::FILE_NAME)
    });
    for source in data {
        sources.extend(linked(source, work));
    }
    Ok(sources)
}

/// A file that may go before its turn comes, as the oldest ones of the audit do, under a link that
/// stays; `None` if it has gone already.
fn linked(source: Source, work: &Work) -> Option<Source> {
    // A link would be linked itself, and point to nowhere from there.
    let is_file = fs::symlink_metadata(&source.path).is_ok_and(|found| found.is_file());
    if !is_file {
        return Some(source);
    }
    match link(&source, work) {
        Ok(to) => Some(Source { path: to, ..source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // Another file system, by a link.
        Err(_) => Some(source),
    }
}

/// The regular files below a folder; none if it is not there.
fn files(root: Root, folder: &Path, prefix: &str) -> Result<Vec<Source>, BackupError> {
    let mut found = Vec::new();
    walk(root, folder, prefix, 0, &mut found)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(
    root: Root,
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<Source>,
) -> Result<(), BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(at("list", folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue; // none of ours
        };
        let is_left_out = LEFT_OUT.contains(&name.as_str())
            || LEFT_OUT_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if is_left_out {
            continue;
        }
        let path = entry.path();
        let name = match prefix {
            "" => name,
            prefix => format!("{prefix}/{name}"),
        };
        // Links are followed: a secret may be one.
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at("look at", &path)(error)),
        };
        if metadata.is_dir() && depth < DEPTH_MAX {
            walk(root, &path, &name, depth + 1, found)?;
        } else if metadata.is_file() {
            found.push(Source {
                root,
                name,
                path,
                bytes: None,
            });
        }
    }
    Ok(())
}

/// Writes all entries and the end.
fn entries<W: Write>(
    mut sealer: Sealer<W>,
    sources: &[Source],
    last: u64,
) -> Result<(Contents, W), BackupError> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut contents = Contents {
        made_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        last,
        ..Contents::default()
    };
    sealer.put(&[kind::ABOUT])?;
    sealer.put(&contents.made_ms.to_le_bytes())?;
    sealer.put(&contents.last.to_le_bytes())?;
    for source in sources {
        contents.bytes += entry(&mut sealer, source)?;
        contents.files += 1;
    }
    sealer.put(&[kind::END])?;
    sealer.put(&contents.files.to_le_bytes())?;
    sealer.put(&contents.bytes.to_le_bytes())?;
    Ok((contents, sealer.finish()?))
}

/// Writes one file; answers its length.
fn entry<W: Write>(sealer: &mut Sealer<W>, source: &Source) -> Result<u64, BackupError> {
    let failed = |error| at("read", &source.path)(error);
    let file = File::open(&source.path).map_err(failed)?;
    let there = file.metadata().map_err(failed)?.len();
    let bytes = source.bytes.unwrap_or(there);
    if there < bytes {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    let stored = without_zeros(&file, bytes).map_err(failed)?;
    let name = source.name.as_bytes();
    let Some(len) = u16::try_from(name.len())
        .ok()
        .filter(|len| usize::from(*len) <= PATH_BYTES_MAX)
    else {
        return Err(failed(io::ErrorKind::InvalidFilename.into()));
    };
    sealer.put(&[kind::FILE, source.root.number()])?;
    sealer.put(&len.to_le_bytes())?;
    sealer.put(name)?;
    sealer.put(&bytes.to_le_bytes())?;
    sealer.put(&stored.to_le_bytes())?;
    let mut rest = file.take(stored);
    let mut buffer = vec![0; READ_BYTES];
    let mut left = stored;
    while left > 0 {
        let read = rest.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        sealer.put(buffer.get(..read).unwrap_or_default())?;
        left -= read as u64;
    }
    Ok(bytes)
}

/// The length of the file's first `bytes` bytes without the zeros at their end: a segment of the
/// journal is filled with zeros ahead.
fn without_zeros(file: &File, bytes: u64) -> io::Result<u64> {
    let mut end = bytes;
    let mut buffer = vec![0; READ_BYTES];
    while end > 0 {
        let start = end.saturating_sub(READ_BYTES as u64);
        let part = usize::try_from(end - start).unwrap_or(READ_BYTES);
        let part = buffer.get_mut(..part).unwrap_or_default();
        file.read_exact_at(part, start)?;
        if let Some(place) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(start + place as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// A book of the audit is trimmed while the history is still being copied.
    #[test]
    fn a_file_that_goes_before_its_turn_is_in_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let folders = Folders {
            data: at("data"),
            secrets: at("secrets"),
            certs: at("certs"),
        };
        let audit = folders.data.join("audit");
        fs::create_dir_all(&audit).unwrap();
        fs::write(audit.join("first"), "oldest").unwrap();
        fs::write(at("elsewhere"), "linked").unwrap();
        std::os::unix::fs::symlink("../../elsewhere", audit.join("second")).unwrap();
        let work = Work::new(&folders.data).unwrap();
        let sources = others(&folders, &work).unwrap();
        fs::remove_file(audit.join("first")).unwrap();
        let found = sources.iter().map(|source| {
            let text = fs::read_to_string(&source.path).unwrap();
            (source.name.as_str(), text)
        });
        let expected = [("audit/first", "oldest"), ("audit/second", "linked")];
        let expected = expected.map(|(name, text)| (name, text.to_owned()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    /// Seals and merges go on while the files are linked.
    #[test]
    fn rel_44_a_manifest_in_a_backup_names_files_that_are_in_it() {
        const ROUNDS: usize = 100;
        const FILES: usize = 8;
        const LIMIT: Duration = Duration::from_secs(20);

        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            data: dir.path().join("data"),
            secrets: dir.path().join("secrets"),
            certs: dir.path().join("certs"),
        };
        let history_dir = folders.data.join(HISTORY);
        fs::create_dir_all(&history_dir).unwrap();
        let stop = AtomicBool::new(false);
        let (mut whole, begin) = (0, Instant::now());
        thread::scope(|scope| {
            // As the store does: a new file, the list with it, and then old files go.
            scope.spawn(|| {
                let mut names: Vec<String> = Vec::new();
                for number in 0.. {
                    names.push(format!("{number}.parquet"));
                    fs::write(history_dir.join(&names[names.len() - 1]), "samples").unwrap();
                    let gone = names.len().saturating_sub(FILES);
                    let gone: Vec<String> = names.drain(..gone).collect();
                    fs::write(history_dir.join("list.new"), names.join("\n")).unwrap();
                    fs::rename(history_dir.join("list.new"), history_dir.join("list")).unwrap();
                    for name in gone {
                        fs::remove_file(history_dir.join(name)).unwrap();
                    }
                    if stop.load(Ordering::Relaxed) || begin.elapsed() > 2 * LIMIT {
                        return;
                    }
                    thread::sleep(Duration::from_micros(300)); // so that some attempts succeed
                }
            });
            let mut rounds = || {
                while whole < ROUNDS && begin.elapsed() < LIMIT {
                    let work = Work::new(&folders.data).unwrap();
                    let Ok(sources) = history(&folders, &work) else {
                        continue;
                    };
                    let Some(list) = sources.iter().find(|source| source.name.ends_with("list"))
                    else {
                        continue;
                    };
                    let list = fs::read_to_string(&list.path).unwrap();
                    for name in list.lines() {
                        let name = format!("{HISTORY}/{name}");
                        if !sources.iter().any(|source| source.name == name) {
                            return Err(name);
                        }
                    }
                    whole += 1;
                }
                Ok(())
            };
            let found = rounds();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(found, Ok(()));
        });
        assert!(whole > 0);
    }
}
