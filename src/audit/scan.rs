//! Reads a file of the audit from its beginning to its end, and tells what is wrong with it.
//!
//! What is no record does not end the reading: it goes on with the next line that is one, and what
//! lies between is told with its place. A record whose own digest is right is taken for what was
//! written, and where it does not fit to the one before, that is told too.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::record::{self, Digest, NoRecord, Read};
use super::{Book, LINE_BYTES_MAX};

/// A file of a book: its first record is in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFile {
    /// Where it is.
    pub path: PathBuf,
    /// The number of its first record.
    pub first: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// At which byte.
    pub offset: u64,
    /// What it is, and what it means.
    pub what: FaultKind,
}

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Bytes that are no record.
    #[error("{bytes} bytes are no record: they were changed, or never written whole")]
    NoRecord {
        /// How many.
        bytes: u64,
    },
    /// The last line has no end.
    #[error("the last {bytes} bytes are half a record: a crash cut it off, or somebody did")]
    Torn {
        /// How many.
        bytes: u64,
    },
    /// A record does not follow the one before.
    #[error("record {found} stands where {expected} should: records are missing or were moved")]
    Number {
        /// What should have come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A record does not name the digest of the one before.
    #[error("record {number} does not continue the one before it: one of them was replaced")]
    Chain {
        /// The later one.
        number: u64,
    },
    /// The file is named after another record than its first.
    #[error("the first record is {found}, the file's name says {named}")]
    Name {
        /// What the name says.
        named: u64,
        /// What came first.
        found: u64,
    },
    /// Records that were written before are not there any more.
    #[error("the audit ends with record {last}, but {noted} was written: the end is missing")]
    Short {
        /// The last one found.
        last: u64,
        /// The last one known to have been written.
        noted: u64,
    },
    /// A record is another than the one that was noted.
    #[error("record {number} is not the one that was noted: it was replaced, and all behind it")]
    Replaced {
        /// Which.
        number: u64,
    },
    /// The oldest files are gone, and it is not told that they were removed.
    #[error(
        "the audit begins with record {first}; those before it are gone, and no record says that \
         they were removed because of the limit on disk"
    )]
    Beginning {
        /// The first one there is.
        first: u64,
    },
    /// A record that was noted stands in a file that is gone.
    #[error("record {number}, which was noted, is older than all that is kept")]
    Gone {
        /// Which.
        number: u64,
    },
}

/// Where a chain stands: its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record; 0 if there is none.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Nothing was written yet.
pub(super) const NO_HEAD: Head = Head {
    number: 0,
    digest: record::NO_DIGEST,
};

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Records that are whole.
    pub records: u64,
    /// Behind the last whole record.
    pub end: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// The greatest number of a change in it.
    pub change: Option<u64>,
    /// What is wrong, in order.
    pub faults: Vec<Fault>,
}

/// Faults told one by one in one file; more are only counted as one.
const FAULTS_MAX: usize = 1_000;

/// The files of a book in `dir`, oldest first. None if there is no such directory.
///
/// # Errors
/// What the system said.
pub(super) fn files(dir: &Path, book: Book) -> io::Result<Vec<AuditFile>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(first) = name.and_then(|name| first_in(name, book)) {
            files.push(AuditFile { path, first });
        }
    }
    files.sort_by_key(|file| file.first);
    Ok(files)
}

/// The name of the file of a book that begins with this record.
pub(super) fn file_name(book: Book, first: u64) -> String {
    format!("{}-{first:020}.jsonl", book.as_str())
}

fn first_in(name: &str, book: Book) -> Option<u64> {
    let digits = name.strip_prefix(book.as_str())?.strip_prefix('-')?;
    let digits = digits.strip_suffix(".jsonl")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Checks a file. `head`: where the chain stands before it; `None` where nobody knows, as for the
/// oldest file kept. It is moved on to the last record. `each` sees every whole record with its
/// line, and may end the reading.
///
/// # Errors
/// The file cannot be read.
pub(super) fn scan(
    file: &AuditFile,
    head: &mut Option<Head>,
    mut each: impl FnMut(&Read, &[u8]) -> ControlFlow<()>,
) -> io::Result<Scanned> {
    let content = fs::read(&file.path)?;
    let mut scanned = Scanned {
        bytes: content.len() as u64,
        ..Scanned::default()
    };
    let mut at = 0;
    // Where bytes began that are no record.
    let mut bad_from: Option<usize> = None;
    while let Some((line, next)) = line_at(&content, at) {
        match record::read(line) {
            Ok(read) => {
                if let Some(from) = bad_from.take() {
                    let bytes = (at - from) as u64;
                    scanned.fault(file, from, FaultKind::NoRecord { bytes });
                }
                scanned.follow(file, at, &read, head);
                scanned.records += 1;
                scanned.end = next as u64;
                scanned.change = scanned.change.max(read.change);
                if each(&read, line).is_break() {
                    return Ok(scanned);
                }
            }
            Err(NoRecord::Form | NoRecord::Digest) => {
                bad_from.get_or_insert(at);
            }
        }
        at = next;
    }
    if let Some(from) = bad_from {
        let bytes = (at - from) as u64;
        scanned.fault(file, from, FaultKind::NoRecord { bytes });
    }
    if at < content.len() {
        let bytes = (content.len() - at) as u64;
        scanned.fault(file, at, FaultKind::Torn { bytes });
    }
    Ok(scanned)
}

impl Scanned {
    /// Whether all that is wrong is a last line without its end, as a crash leaves it.
    #[must_use]
    pub(super) fn is_only_torn(&self) -> bool {
        matches!(self.faults.as_slice(), [fault] if matches!(fault.what, FaultKind::Torn { .. }))
    }

    fn follow(&mut self, file: &AuditFile, at: usize, read: &Read, head: &mut Option<Head>) {
        let number = read.number;
        if self.records == 0 && number != file.first {
            let named = file.first;
            self.fault(
                file,
                at,
                FaultKind::Name {
                    named,
                    found: number,
                },
            );
        }
        if let Some(head) = head {
            let expected = head.number + 1;
            if number != expected {
                self.fault(
                    file,
                    at,
                    FaultKind::Number {
                        expected,
                        found: number,
                    },
                );
            } else if read.prev != head.digest {
                self.fault(file, at, FaultKind::Chain { number });
            }
        }
        *head = Some(Head {
            number,
            digest: read.digest,
        });
    }

    fn fault(&mut self, file: &AuditFile, at: usize, what: FaultKind) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                file: file.path.clone(),
                offset: at as u64,
                what,
            });
        }
    }
}

/// The line that begins at `at`, without its end, and where the next one begins. What is longer
/// than any record ends where a record would have to.
fn line_at(content: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = content.get(at..)?;
    let window = rest.get(..LINE_BYTES_MAX).unwrap_or(rest);
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((rest.get(..end)?, at + end + 1)),
        None if rest.len() > LINE_BYTES_MAX => Some((window, at + LINE_BYTES_MAX)),
        None => None,
    }
}
