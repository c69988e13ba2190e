//! Reading every byte of every file, and saying what is wrong.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{FileError, OpenFile, Wanted};
use super::manifest::{self, FileEntry, Found, Manifest};
use super::merge::Held;
use crate::journal::Offset;

/// What was found in a directory.
#[derive(Clone, Debug, Default)]
pub struct StoreReport {
    /// Everything up to this offset should be in the files.
    pub sealed: Offset,
    /// What is wrong with the manifest, if anything is.
    pub manifest: Option<String>,
    /// Each file, in the order of the manifest.
    pub files: Vec<FileVerdict>,
}

/// What was found in a file.
#[derive(Clone, Debug)]
pub struct FileVerdict {
    /// The file.
    pub file: PathBuf,
    /// Samples that could be read.
    pub rows: u64,
    /// Its length as it should be.
    pub bytes: u64,
    /// What is wrong, if anything is.
    pub wrong: Option<String>,
}

impl StoreReport {
    /// How many files are not as they should be, the manifest included.
    #[must_use]
    pub fn wrong(&self) -> usize {
        let files = self.files.iter().filter(|file| file.wrong.is_some());
        files.count() + usize::from(self.manifest.is_some())
    }
}

/// Reads everything in a directory of the history and changes nothing. A running broker is not
/// disturbed; a file that it merges away meanwhile is looked for again. A directory that does not
/// exist holds nothing, which is right.
///
/// # Errors
/// When the manifest cannot be read, or was written by a later version.
pub fn verify_files(dir: &Path) -> io::Result<StoreReport> {
    let mut report = StoreReport::default();
    if !dir.exists() {
        return Ok(report);
    }
    let mut manifest = load(dir, &mut report)?;
    let mut attempts = 0;
    let mut at = 0;
    while let Some(entry) = manifest.files.get(at) {
        let verdict = verify(dir, entry);
        at += 1;
        if verdict.wrong.is_some() && attempts < ATTEMPTS_MAX {
            // Perhaps the list has changed meanwhile.
            let newer = load(dir, &mut StoreReport::default())?;
            if newer.files != manifest.files && !newer.files.contains(entry) {
                (manifest, at) = (newer, 0);
                attempts += 1;
                report.files.clear();
                continue;
            }
        }
        report.files.push(verdict);
    }
    report.sealed = Offset::new(manifest.sealed);
    Ok(report)
}

/// How often the list of files may change under a verification.
const ATTEMPTS_MAX: u32 = 10;

fn load(dir: &Path, report: &mut StoreReport) -> io::Result<Manifest> {
    let what = match Manifest::load(dir)? {
        Found::Whole(manifest) => return Ok(manifest),
        Found::Missing => "it is missing".to_owned(),
        Found::Damaged(what) => what,
    };
    let mut manifest = Manifest::empty();
    let mut names: Vec<String> = std::fs::read_dir(dir)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| manifest::offsets(name).is_some())
        .collect();
    names.sort();
    if names.is_empty() && what == "it is missing" {
        return Ok(manifest); // nothing was sealed yet
    }
    report.manifest = Some(what);
    for name in names {
        match super::files::examine(dir, &name) {
            Ok(entry) => manifest.files.push(entry),
            Err(error) => report.files.push(FileVerdict {
                file: dir.join(&name),
                rows: 0,
                bytes: 0,
                wrong: Some(words(error)),
            }),
        }
    }
    Ok(manifest)
}

fn verify(dir: &Path, entry: &FileEntry) -> FileVerdict {
    let file = dir.join(&entry.name);
    let (rows, wrong) = match read(&file, entry) {
        Ok(rows) if rows == entry.rows => (rows, None),
        Ok(rows) => {
            let what = format!("it has {rows} samples instead of {}", entry.rows);
            (rows, Some(what))
        }
        Err((rows, what)) => (rows, Some(what)),
    };
    FileVerdict {
        file,
        rows,
        bytes: entry.bytes,
        wrong,
    }
}

/// Reads every column of every row; the rows read, and what is wrong.
fn read(path: &Path, entry: &FileEntry) -> Result<u64, (u64, String)> {
    let at_once = |error: FileError| (0, words(error));
    let metadata = std::fs::metadata(path).map_err(|error| (0, error.to_string()))?;
    if metadata.len() != entry.bytes {
        let (len, expected) = (metadata.len(), entry.bytes);
        return Err((0, format!("it has {len} bytes instead of {expected}")));
    }
    let open = OpenFile::open(path, Some(entry.tail_crc32c)).map_err(at_once)?;
    let mut cursor = open.read(Wanted::ALL, true).map_err(at_once)?;
    let mut rows = 0;
    let mut last: Option<Held> = None;
    loop {
        match cursor.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(rows),
            Err(error) => return Err((rows, words(error))),
        }
        let Some(row) = cursor.row() else { continue };
        rows += 1;
        let is_sorted = last
            .as_ref()
            .is_none_or(|last| last.row().series_order(&row).is_lt());
        if !is_sorted {
            return Err((rows, format!("sample {rows} is out of order")));
        }
        last = Some(Held::new(&row));
    }
}

fn words(error: FileError) -> String {
    match error {
        FileError::Damaged { what, .. } => what,
        FileError::Open { source, .. } => source.to_string(),
    }
}
