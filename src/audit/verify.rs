//! Checks the books: every file, every record, that each continues the one before, and that nothing
//! is missing at either end as far as anybody knows.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::event::What;
use super::reader::event_of;
use super::scan::{self, AuditFile, Fault, FaultKind, Head, NO_HEAD};
use super::shared::unpacked;
use super::{Book, DIRECTORY};
use crate::store::{self, StoreError, outbox};

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
    /// Of each book the last record of which it is told here that it was removed.
    removed: [u64; 2],
}

/// What is known of a book from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// Records that were seen before, at another time or in another place: they must still be what
    /// they were.
    pub noted: &'a [Head],
    /// The last record that the state database knows to be on disk.
    pub written: Option<Head>,
    /// It may be being written: half a record at its end is no fault.
    pub is_live: bool,
}

/// The last records of both books that the state database in `data_dir` knows to be on disk; `None`
/// before the first. Asked before the files are read, as they grow.
///
/// # Errors
/// There is no state database, or it cannot be read.
pub fn written(data_dir: &Path) -> Result<Option<[Head; 2]>, StoreError> {
    let heads = store::look(data_dir, outbox::heads)?;
    Ok(heads.as_deref().and_then(unpacked))
}

/// Checks both books of the data directory `data_dir`.
///
/// # Errors
/// A file cannot be read.
pub fn verify_all(data_dir: &Path, expected: [Expected<'_>; 2]) -> io::Result<[Verified; 2]> {
    let dir = data_dir.join(DIRECTORY);
    let [of_admin, of_access] = expected;
    // In this order: that a file of it went is told in the other one before it goes.
    let mut access = verify(&dir, Book::Access, of_access)?;
    let mut admin = verify(&dir, Book::Admin, of_admin)?;
    let [removed_admin, removed_access] = admin.removed;
    admin.begins(&dir, removed_admin);
    // What told of it may have gone, too.
    if admin.first <= 1 || removed_access > 0 {
        access.begins(&dir, removed_access);
    }
    Ok([admin, access])
}

/// Checks one book in the directory `dir`; that its oldest files are gone is no fault.
///
/// # Errors
/// A file cannot be read.
pub fn verify(dir: &Path, book: Book, expected: Expected<'_>) -> io::Result<Verified> {
    let files = scan::files(dir, book)?;
    let mut verified = Verified {
        files: files.len() as u64,
        records: 0,
        bytes: 0,
        first: 0,
        head: NO_HEAD,
        faults: Vec::new(),
        removed: [0; 2],
    };
    // Nothing is known before the oldest file, unless it is the first of all.
    let mut head = files
        .first()
        .filter(|file| file.first == 1)
        .map(|_| NO_HEAD);
    let noted: Vec<Head> = expected
        .noted
        .iter()
        .copied()
        .chain(expected.written)
        .collect();
    let mut seen = vec![false; noted.len()];
    for (place, file) in files.iter().enumerate() {
        let is_last = place + 1 == files.len();
        verified.file(
            file,
            &mut head,
            (&noted, &mut seen),
            expected.is_live && is_last,
        )?;
    }
    verified.head = head.unwrap_or(NO_HEAD);
    let last = files.last().map_or(dir, |file| file.path.as_path());
    for (at, noted) in noted.iter().enumerate() {
        // The database may know one that is not kept any more.
        let is_old = at >= expected.noted.len() && noted.number < verified.first;
        if seen.get(at) == Some(&false) && !is_old {
            verified.miss(noted, last);
        }
    }
    Ok(verified)
}

impl Verified {
    fn file(
        &mut self,
        file: &AuditFile,
        head: &mut Option<Head>,
        (noted, seen): (&[Head], &mut [bool]),
        may_be_torn: bool,
    ) -> io::Result<()> {
        let (first, removed) = (&mut self.first, &mut self.removed);
        let mut replaced = Vec::new();
        let scanned = scan::scan(file, head, |read, line| {
            if *first == 0 {
                *first = read.number;
            }
            for (noted, seen) in noted.iter().zip(&mut *seen) {
                if noted.number == read.number {
                    *seen = true;
                    if noted.digest != read.digest {
                        replaced.push(read.number);
                    }
                }
            }
            note_removed(line, removed);
            ControlFlow::Continue(())
        })?;
        self.records += scanned.records;
        self.bytes += scanned.bytes;
        if !(may_be_torn && scanned.is_only_torn()) {
            self.faults.extend(scanned.faults);
        }
        replaced.dedup();
        let replaced = replaced.into_iter().map(|number| Fault {
            file: file.path.clone(),
            offset: 0,
            what: FaultKind::Replaced { number },
        });
        self.faults.extend(replaced);
        Ok(())
    }

    /// Files at the beginning are gone: that must be told as far as `removed`.
    fn begins(&mut self, dir: &Path, removed: u64) {
        let first = self.first;
        if first > removed.saturating_add(1) {
            self.faults.push(Fault {
                file: dir.to_owned(),
                offset: 0,
                what: FaultKind::Beginning { first },
            });
        }
    }

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

/// Reads which records went, of a record that says so: it is whole, and nothing in it is anybody's
/// but ours.
fn note_removed(line: &[u8], removed: &mut [u64; 2]) {
    if event_of(line) != Some(What::Removed.as_str()) {
        return;
    }
    let text = std::str::from_utf8(line).unwrap_or_default();
    let Some((_, behind)) = text.split_once(",\"last\":") else {
        return;
    };
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    let last: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    for (book, removed) in Book::ALL.iter().zip(removed) {
        if text.contains(&format!(",\"book\":\"{}\"", book.as_str())) {
            *removed = last.unwrap_or_default().max(*removed);
        }
    }
}
