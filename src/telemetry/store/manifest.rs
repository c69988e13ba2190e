//! Which files make up the history, on disk as `_manifest.json`.
//!
//! ```text
//! {"manifest":{"format":1,"sealed":N,"files":[{"name":…,"rows":…,…},…]},"crc32c":"xxxxxxxx"}
//! ```
//!
//! Written to a temporary name, synced, renamed: it holds the old list or the new one, never half
//! of each. A file counts from the moment it is in the list; one that is not is what a crash left
//! over, and is removed at the next start. Everything up to `sealed` is in the files. A manifest
//! that is missing or damaged is made again from the files themselves, and said.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::encode::Written;
use crate::journal::Offset;

/// Its name. Programs that read a directory of Parquet files leave out what begins like this.
pub(super) const NAME: &str = "_manifest.json";

/// Ending of files in the making; a start removes them.
pub(super) const UNFINISHED: &str = ".tmp";

/// Ending of the files of samples.
const ENDING: &str = ".parquet";

/// The layout that this version writes; it refuses later ones.
const FORMAT: u32 = 1;

/// The list of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Layout of this list.
    pub(super) format: u32,
    /// Everything up to this offset is in the files.
    pub(super) sealed: u64,
    /// The files, in order of their offsets.
    pub(super) files: Vec<FileEntry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Its name in the directory.
    pub(super) name: String,
    /// Samples in it.
    pub(super) rows: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Least time of a sample, milliseconds.
    pub(super) least_ts: i64,
    /// Greatest time of a sample, milliseconds.
    pub(super) greatest_ts: i64,
    /// Least device.
    pub(super) least_device: Uuid,
    /// Greatest device.
    pub(super) greatest_device: Uuid,
    /// CRC-32C of indexes and footer.
    pub(super) tail_crc32c: u32,
}

#[derive(Deserialize, Serialize)]
struct Stored<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    crc32c: String,
}

/// What a manifest's file holds.
#[derive(Debug)]
pub(super) enum Found {
    /// There is none.
    Missing,
    /// It is whole.
    Whole(Manifest),
    /// It is not what was written.
    Damaged(String),
}

impl Manifest {
    /// The list of a directory without files.
    pub(super) fn empty() -> Self {
        Self {
            format: FORMAT,
            sealed: 0,
            files: Vec::new(),
        }
    }

    /// Reads the directory's manifest.
    ///
    /// # Errors
    /// When it cannot be read, or was written by a later version.
    pub(super) fn load(dir: &Path) -> io::Result<Found> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Found::Damaged("it is no UTF-8".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let stored: Stored<'_> = match serde_json::from_str(&text) {
            Ok(stored) => stored,
            Err(error) => return Ok(Found::Damaged(error.to_string())),
        };
        let inner = stored.manifest.get();
        if stored.crc32c != sum(inner) {
            return Ok(Found::Damaged("its checksum does not hold".to_owned()));
        }
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if let Ok(Format { format }) = serde_json::from_str(inner)
            && format > FORMAT
        {
            let what = format!(
                "{}: written by a later version (format {format}, known is {FORMAT}); start that \
                 version",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(match serde_json::from_str(inner) {
            Ok(manifest) => Found::Whole(manifest),
            Err(error) => Found::Damaged(error.to_string()),
        })
    }

    /// Replaces the directory's manifest, durably.
    ///
    /// # Errors
    /// What the system says; the old one stands then.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let inner = serde_json::to_string(self).map_err(io::Error::other)?;
        let crc32c = sum(&inner);
        let manifest = RawValue::from_string(inner).map_err(io::Error::other)?;
        let stored = Stored {
            manifest: &manifest,
            crc32c,
        };
        let text = serde_json::to_string(&stored).map_err(io::Error::other)?;
        replace(dir, NAME, &text)
    }
}

impl FileEntry {
    /// The entry of a file that was just written.
    pub(super) fn new(name: String, written: &Written) -> Self {
        Self {
            name,
            rows: written.rows,
            bytes: written.bytes,
            least_ts: written.times.0,
            greatest_ts: written.times.1,
            least_device: Uuid::from_bytes(written.devices.0),
            greatest_device: Uuid::from_bytes(written.devices.1),
            tail_crc32c: written.tail_crc,
        }
    }

    /// The offsets that its name tells, from the first to the last.
    pub(super) fn offsets(&self) -> (Offset, Offset) {
        offsets(&self.name).unwrap_or_default()
    }
}

/// Name of the file with these offsets. `again`: 0, or a number that sets it apart from a file
/// with the same ones.
pub(super) fn file_name((first, last): (Offset, Offset), again: u32) -> String {
    let (first, last) = (first.number(), last.number());
    if again == 0 {
        format!("{first:020}-{last:020}{ENDING}")
    } else {
        format!("{first:020}-{last:020}-{again}{ENDING}")
    }
}

/// The offsets in the name of a file of samples; `None` for other files.
pub(super) fn offsets(name: &str) -> Option<(Offset, Offset)> {
    let mut parts = name.strip_suffix(ENDING)?.split('-');
    let first = parts.next()?.parse().ok()?;
    let last = parts.next()?.parse().ok()?;
    Some((Offset::new(first), Offset::new(last)))
}

/// Puts this text in place of a file of the directory, durably: the old one or the new one is there
/// whenever the machine ends.
///
/// # Errors
/// What the system says; the old one stands then.
pub(super) fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(name))?;
    sync_dir(dir)
}

/// Makes the directory and those above it; nobody else looks into it.
///
/// # Errors
/// What the system says.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes names in a directory survive a power loss.
///
/// # Errors
/// What the system says.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sum(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = FileEntry {
            name: file_name((Offset::new(1), Offset::new(70)), 0),
            rows: 9,
            bytes: 5_000,
            least_ts: i64::MIN,
            greatest_ts: i64::MAX,
            least_device: Uuid::from_u128(1),
            greatest_device: Uuid::from_u128(u128::MAX),
            tail_crc32c: u32::MAX,
        };
        Manifest {
            sealed: 77,
            files: vec![entry],
            ..Manifest::empty()
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::load(dir.path()), Ok(Found::Missing)));
        manifest().save(dir.path()).unwrap();
        match Manifest::load(dir.path()).unwrap() {
            Found::Whole(found) => assert_eq!(found, manifest()),
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn every_changed_byte_of_a_manifest_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        manifest().save(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 4;
            fs::write(&path, &changed).unwrap();
            let found = Manifest::load(dir.path());
            assert!(matches!(found, Ok(Found::Damaged(_))), "{place}: {found:?}");
        }
    }

    #[test]
    fn a_manifest_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let later = Manifest {
            format: 2,
            ..manifest()
        };
        later.save(dir.path()).unwrap();
        let error = Manifest::load(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn names_tell_offsets() {
        let range = (Offset::new(1), Offset::new(u64::MAX));
        for again in [0, 1, 12] {
            assert_eq!(offsets(&file_name(range, again)), Some(range));
        }
        for other in ["_manifest.json", "1-2", "x-2.parquet", "1.parquet"] {
            assert_eq!(offsets(other), None, "{other}");
        }
    }
}
