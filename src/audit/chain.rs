//! One book as it is written: a chain of records over a row of files.
//!
//! # Invariants
//! 1. A file only grows, until it is full or the disk's limit is reached; then the next one begins
//!    with the next number. The oldest one goes when all together are longer than allowed, once a
//!    record says so: files that went without one were taken away by somebody else.
//! 2. A write that fails is taken back whole; the chain stands where it stood.
//! 3. After a failed sync nothing more is written until the next start (REL-04).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::event::{Event, What};
use super::record;
use super::scan::{self, AuditFile, FaultKind, Head, NO_HEAD};
use super::{Book, LINE_BYTES_MAX};

/// Files of one book at most: a smaller limit on disk means smaller files, not more.
const FILES: u64 = 16;

/// Largest file, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Damaged places told at a start; `tollgate audit verify` tells all.
const FAULTS_TOLD: usize = 16;

/// What a record is made of.
pub(super) struct Entry<'e> {
    pub(super) time_ms: u64,
    pub(super) event: &'e str,
    pub(super) members: &'e str,
}

/// A book that is being written.
pub(super) struct Chain {
    dir: PathBuf,
    book: Book,
    head: Head,
    /// Oldest first, with their lengths; the last one is written.
    files: VecDeque<(AuditFile, u64)>,
    /// The oldest of them that are about to go.
    leaving: usize,
    current: Option<File>,
    file_bytes_max: u64,
    bytes_max: u64,
    is_dirty: bool,
    is_failed: bool,
    buffer: Vec<u8>,
}

/// A chain as it was found, and what there is to tell of it.
pub(super) struct Opened {
    pub(super) chain: Chain,
    /// The greatest number of a change in it.
    pub(super) change: u64,
    /// What was found and done, to be its first records.
    pub(super) events: Vec<Event>,
}

impl Chain {
    /// Opens the book in `dir` behind its last record. Half a record at its end is cut off; after
    /// any other damage a new file begins and nothing is changed. `noted` is the head that the
    /// state database knows: where nothing is left of the book, it goes on from there.
    pub(super) fn open(
        dir: &Path,
        book: Book,
        bytes_max: u64,
        noted: Option<Head>,
    ) -> io::Result<Opened> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut chain = Chain {
            dir: dir.to_owned(),
            book,
            head: NO_HEAD,
            files: VecDeque::new(),
            leaving: 0,
            current: None,
            file_bytes_max: (bytes_max / FILES).clamp(LINE_BYTES_MAX as u64, FILE_BYTES_MAX),
            bytes_max,
            is_dirty: false,
            is_failed: false,
            buffer: Vec::new(),
        };
        let mut events = Vec::new();
        let found = scan::files(dir, book)?;
        let head = chain.read_end(&found, &mut events)?;
        // Changes stand in one book only.
        let change = match book {
            Book::Admin => greatest_change(&found)?,
            Book::Access => 0,
        };
        for file in found {
            let bytes = fs::metadata(&file.path)?.len();
            chain.files.push_back((file, bytes));
        }
        chain.head = chain.continued(head, noted, &mut events);
        Ok(Opened {
            chain,
            change,
            events,
        })
    }

    /// The last record there is. Opens the last file if it can be gone on with.
    fn read_end(&mut self, files: &[AuditFile], events: &mut Vec<Event>) -> io::Result<Head> {
        let mut end = None;
        for (place, file) in files.iter().rev().enumerate() {
            let mut head = None;
            let scanned = scan::scan(file, &mut head, |_, _| ControlFlow::Continue(()))?;
            for fault in scanned.faults.iter().take(FAULTS_TOLD) {
                let is_cut = place == 0 && scanned.is_only_torn();
                events.push(told(fault, is_cut));
            }
            if place == 0 && (scanned.faults.is_empty() || scanned.is_only_torn()) {
                let open = OpenOptions::new().append(true).open(&file.path)?;
                if scanned.end < scanned.bytes {
                    open.set_len(scanned.end)?;
                    open.sync_all()?;
                }
                self.current = Some(open);
            }
            end = head;
            if end.is_some() {
                break;
            }
        }
        let first = files.last().map_or(1, |file| file.first);
        let mut head = end.unwrap_or(Head {
            number: first.saturating_sub(1),
            ..NO_HEAD
        });
        if self.current.is_none() && !files.is_empty() {
            // Nothing of the last file may be readable: the next one has another name.
            head.number = head.number.max(first);
        }
        Ok(head)
    }

    /// Where the chain goes on: behind what is there, or behind what is known to have been.
    fn continued(&mut self, head: Head, noted: Option<Head>, events: &mut Vec<Event>) -> Head {
        let Some(noted) = noted.filter(|noted| noted.number > head.number) else {
            return head;
        };
        let what = FaultKind::Short {
            last: head.number,
            noted: noted.number,
        };
        events.push(
            Event::new(What::Damaged)
                .text("book", self.book.as_str())
                .text("what", &what.to_string()),
        );
        // Numbers are not used again: a new file, from the record behind the last one written.
        self.current = None;
        noted
    }

    /// The last record written.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The file that is written, and how long it is.
    pub(super) fn newest(&self) -> Option<(&AuditFile, u64)> {
        self.files.back().map(|(file, bytes)| (file, *bytes))
    }

    /// Whether something is written and not synced.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Writes records, all or none. They are not synced.
    pub(super) fn append<'e>(
        &mut self,
        entries: impl Iterator<Item = Entry<'e>>,
    ) -> io::Result<u64> {
        if self.is_failed {
            return Err(io::Error::other("a sync of this book failed before"));
        }
        let mut head = self.head;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for entry in entries {
            head.number += 1;
            let Entry {
                time_ms,
                event,
                members,
            } = entry;
            head.digest = record::write(
                head.number,
                time_ms,
                event,
                members,
                &head.digest,
                &mut buffer,
            );
        }
        let written = self.write(&buffer);
        let bytes = buffer.len() as u64;
        buffer.shrink_to(4 * LINE_BYTES_MAX);
        self.buffer = buffer;
        written?;
        self.head = head;
        self.is_dirty |= bytes > 0;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let full = self
            .newest()
            .is_some_and(|(_, held)| held >= self.file_bytes_max);
        if full || self.current.is_none() {
            self.begin_file()?;
        }
        let Some((file, (_, held))) = self.current.as_mut().zip(self.files.back_mut()) else {
            return Err(io::Error::other("there is no file to write to"));
        };
        match file.write_all(bytes) {
            Ok(()) => {
                *held += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What a full disk let through of it goes again. If that fails, too, no record may
                // come behind half a one.
                if file.set_len(*held).is_err() {
                    self.is_failed = true;
                }
                Err(error)
            }
        }
    }

    /// The file that is full is synced; the next one begins with the next record.
    fn begin_file(&mut self) -> io::Result<()> {
        self.sync()?;
        let first = self.head.number + 1;
        let path = self.dir.join(scan::file_name(self.book, first));
        let mut options = OpenOptions::new();
        // Not `create_new`: one that a full disk left empty is used.
        let file = options.append(true).create(true).mode(0o600).open(&path)?;
        if file.metadata()?.len() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                path.display().to_string(),
            ));
        }
        File::open(&self.dir)?.sync_all()?;
        self.current = Some(file);
        if self
            .files
            .back()
            .is_none_or(|(last, _)| last.first != first)
        {
            self.files.push_back((AuditFile { path, first }, 0));
        }
        Ok(())
    }

    /// Puts what is written on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_failed {
            return Err(io::Error::other("a sync of this book failed before"));
        }
        if let Some(file) = self.current.as_ref().filter(|_| self.is_dirty) {
            file.sync_data().inspect_err(|_| self.is_failed = true)?;
        }
        self.is_dirty = false;
        Ok(())
    }

    /// Chooses the oldest files to go, until the book is within its limit without them; answers an
    /// event for each, to be written before [`Chain::remove_leaving`].
    pub(super) fn trim(&mut self) -> Vec<Event> {
        let staying = self.files.iter().skip(self.leaving);
        let mut bytes: u64 = staying.map(|(_, bytes)| bytes).sum();
        let mut events = Vec::new();
        while bytes > self.bytes_max
            && self.leaving + 1 < self.files.len()
            && let Some((file, held)) = self.files.get(self.leaving)
        {
            self.leaving += 1;
            let next = self.files.get(self.leaving).map(|(file, _)| file.first);
            events.push(
                Event::new(What::Removed)
                    .text("book", self.book.as_str())
                    .number("first", file.first)
                    .number("last", next.unwrap_or_default().saturating_sub(1))
                    .number("bytes", *held),
            );
            bytes -= held;
        }
        events
    }

    /// Removes the files of which it is told that they go.
    pub(super) fn remove_leaving(&mut self) {
        for (file, _) in self.files.drain(..std::mem::take(&mut self.leaving)) {
            if let Err(error) = fs::remove_file(&file.path) {
                tracing::warn!(file = %file.path.display(), %error, "an old file of the audit \
                    cannot be removed");
            }
        }
    }
}

fn told(fault: &scan::Fault, is_cut: bool) -> Event {
    let what = if is_cut { What::Cut } else { What::Damaged };
    let file = fault.file.file_name().unwrap_or_default().to_string_lossy();
    Event::new(what)
        .text("file", &file)
        .number("offset", fault.offset)
        .text("what", &fault.what.to_string())
}

/// Looked for from the newest file on: changes are counted upwards.
fn greatest_change(files: &[AuditFile]) -> io::Result<u64> {
    for file in files.iter().rev() {
        let scanned = scan::scan(file, &mut None, |_, _| ControlFlow::Continue(()))?;
        if let Some(change) = scanned.change {
            return Ok(change);
        }
    }
    Ok(0)
}
