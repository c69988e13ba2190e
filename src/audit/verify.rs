//! Checks a whole book: every file, every record, and that each continues the one before.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::Book;
use super::scan::{self, Fault, FaultKind, Head, NO_HEAD};

/// What a book holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Files.
    pub files: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The first record that is kept; 0 if there is none.
    pub first: u64,
    /// The last record.
    pub head: Head,
    /// What is wrong, oldest first.
    pub faults: Vec<Fault>,
}

/// Checks the book in the directory `dir`. `noted` are heads that were seen before, at another
/// time or in another place: their records must still be what they were.
///
/// A file that is being written may end with half a record: `is_live` says that this is no fault.
///
/// # Errors
/// A file cannot be read.
pub fn verify(dir: &Path, book: Book, noted: &[Head], is_live: bool) -> io::Result<Verified> {
    let files = scan::files(dir, book)?;
    let mut verified = Verified {
        files: files.len() as u64,
        records: 0,
        bytes: 0,
        first: 0,
        head: NO_HEAD,
        faults: Vec::new(),
    };
    // Nothing is known before the oldest file, unless it is the first of all.
    let mut head = files
        .first()
        .filter(|file| file.first == 1)
        .map(|_| NO_HEAD);
    let mut seen = vec![false; noted.len()];
    for (place, file) in files.iter().enumerate() {
        let first = &mut verified.first;
        let mut replaced = Vec::new();
        let scanned = scan::scan(file, &mut head, |read, _| {
            if *first == 0 {
                *first = read.number;
            }
            for (noted, seen) in noted.iter().zip(&mut seen) {
                if noted.number == read.number {
                    *seen = true;
                    if noted.digest != read.digest {
                        replaced.push(read.number);
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        verified.records += scanned.records;
        verified.bytes += scanned.bytes;
        let is_last = place + 1 == files.len();
        let is_being_written = is_live && is_last && scanned.is_only_torn();
        if !is_being_written {
            verified.faults.extend(scanned.faults);
        }
        let replaced = replaced.into_iter().map(|number| Fault {
            file: file.path.clone(),
            offset: 0,
            what: FaultKind::Replaced { number },
        });
        verified.faults.extend(replaced);
    }
    verified.head = head.unwrap_or(NO_HEAD);
    let unseen = noted.iter().zip(&seen).filter(|(_, seen)| !**seen);
    let last = files.last().map_or(dir, |file| file.path.as_path());
    for (noted, _) in unseen {
        verified.miss(noted, last);
    }
    Ok(verified)
}

impl Verified {
    /// A record that was noted is not there; `last` is the newest file.
    fn miss(&mut self, noted: &Head, last: &Path) {
        let number = noted.number;
        let (offset, what) = match number {
            0 => return,
            _ if number > self.head.number => {
                let end = std::fs::metadata(last).map_or(0, |metadata| metadata.len());
                let last = self.head.number;
                (
                    end,
                    FaultKind::Short {
                        last,
                        noted: number,
                    },
                )
            }
            _ => (0, FaultKind::Gone { number }),
        };
        let file = last.to_owned();
        self.faults.push(Fault { file, offset, what });
    }
}
