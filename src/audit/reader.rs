//! Reads both books in the order of their times, from the files, while they are written or not.
//!
//! Digests are not checked here: that is for `verify`. What is no record is given on as it is.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::scan;
use super::{Book, LINE_BYTES_MAX, Written};

/// Bytes read of a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

const _: () = assert!(CHUNK_BYTES > 2 * LINE_BYTES_MAX);

/// A record as it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its time as it is written, RFC 3339; empty if this is no record.
    pub time: String,
    /// The line, without its end.
    pub text: Vec<u8>,
}

/// Reads on from where it is, each time it is asked.
pub struct Reader {
    books: [Cursor; 2],
}

impl Reader {
    /// Begins with the records of this time (RFC 3339 in UTC with milliseconds); without one with
    /// the oldest kept.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn new(dir: &Path, since: Option<&str>) -> io::Result<Reader> {
        let cursor = |book| Cursor::new(dir, book, since.unwrap_or_default());
        Ok(Reader {
            books: [cursor(Book::Admin)?, cursor(Book::Access)?],
        })
    }

    /// The next record; `None` if there is none yet. `written`: how far the broker has written
    /// them; without it everything is read.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next(&mut self, written: Option<&Written>) -> io::Result<Option<Line>> {
        let mut earliest: Option<usize> = None;
        for place in 0..self.books.len() {
            let end = written.map(|written| written.ends.get(place).copied().flatten());
            let Some(book) = self.books.get_mut(place) else {
                continue;
            };
            let has_one = book.fill(end)?;
            let before = earliest.and_then(|at| self.books.get(at)).map(Cursor::time);
            let this = self.books.get(place).map(Cursor::time);
            if has_one && before.is_none_or(|before| this.is_some_and(|this| this < before)) {
                earliest = Some(place);
            }
        }
        let book = earliest.and_then(|place| self.books.get_mut(place));
        Ok(book.and_then(|book| book.next.take()))
    }
}

struct Cursor {
    dir: PathBuf,
    book: Book,
    since: String,
    /// The file that is read: its first record, and how far it is read.
    at: Option<(u64, u64)>,
    chunk: Vec<u8>,
    /// Of the chunk.
    used: usize,
    next: Option<Line>,
}

impl Cursor {
    fn new(dir: &Path, book: Book, since: &str) -> io::Result<Cursor> {
        let mut cursor = Cursor {
            dir: dir.to_owned(),
            book,
            since: since.to_owned(),
            at: None,
            chunk: Vec::new(),
            used: 0,
            next: None,
        };
        // The last file that begins before that time, or else the oldest.
        for file in scan::files(dir, book)? {
            let mut head = vec![0; 256];
            let read = File::open(&file.path).and_then(|mut opened| opened.read(&mut head));
            head.truncate(read.unwrap_or_default());
            let begins = time_of(&head);
            if cursor.at.is_none() || (!begins.is_empty() && begins < since) {
                cursor.at = Some((file.first, 0));
            }
        }
        Ok(cursor)
    }

    fn time(&self) -> &str {
        self.next.as_ref().map_or("", |line| &line.time)
    }

    /// Sees to it that the next record is there, if there is one.
    fn fill(&mut self, end: Option<Option<(u64, u64)>>) -> io::Result<bool> {
        while self.next.is_none() {
            match self.line() {
                Some(line) if line.time < self.since => {}
                Some(line) => self.next = Some(line),
                None => {
                    if !self.read_more(end)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn line(&mut self) -> Option<Line> {
        let rest = self.chunk.get(self.used..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let text = rest.get(..end)?.to_vec();
        self.used += end + 1;
        let time = time_of(&text).to_owned();
        Some(Line { time, text })
    }

    /// Reads the next bytes, of this file or the one behind it.
    fn read_more(&mut self, end: Option<Option<(u64, u64)>>) -> io::Result<bool> {
        let Some((first, at)) = self.at else {
            let files = scan::files(&self.dir, self.book)?;
            self.at = files.first().map(|file| (file.first, 0));
            return Ok(self.at.is_some());
        };
        let until = match end {
            None => u64::MAX,
            // A newer file is written: this one is whole.
            Some(Some((newest, _))) if first < newest => u64::MAX,
            Some(Some((_, bytes))) => bytes,
            Some(None) => return Ok(false),
        };
        let path = self.dir.join(scan::file_name(self.book, first));
        let got = match read_at(&path, at, until, &mut self.chunk) {
            // It was removed meanwhile: on with the oldest that is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            got => got?,
        };
        self.used = 0;
        if got > 0 {
            self.at = Some((first, at + got));
            return Ok(true);
        }
        let files = scan::files(&self.dir, self.book)?;
        let next = files.iter().find(|file| file.first > first);
        let is_there = |first: u64| match end {
            Some(Some((newest, _))) => first <= newest,
            Some(None) => false,
            None => true,
        };
        match next.filter(|file| is_there(file.first)) {
            Some(file) => self.at = Some((file.first, 0)),
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads whole lines into `chunk`, from `at` up to `until`; answers how many bytes they are. What
/// is longer than any record is given on in pieces.
fn read_at(path: &Path, at: u64, until: u64, chunk: &mut Vec<u8>) -> io::Result<u64> {
    chunk.clear();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let most = until.saturating_sub(at).min(CHUNK_BYTES as u64);
    file.take(most).read_to_end(chunk)?;
    match chunk.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => chunk.truncate(end + 1),
        None if chunk.len() == CHUNK_BYTES => {
            chunk.push(b'\n');
            return Ok(CHUNK_BYTES as u64);
        }
        None => chunk.clear(),
    }
    Ok(chunk.len() as u64)
}

/// The time of a record, as it is written: such texts compare as the times do.
fn time_of(line: &[u8]) -> &str {
    const NAME: &[u8] = b",\"time\":\"";
    const TIME_BYTES: usize = "2026-11-22T12:50:44.123Z".len();
    // It stands behind the number, which has 20 digits at most.
    let head = line.get(..line.len().min(64)).unwrap_or_default();
    let at = head.windows(NAME.len()).position(|window| window == NAME);
    let text = at.and_then(|at| head.get(at + NAME.len()..at + NAME.len() + TIME_BYTES));
    text.and_then(|text| std::str::from_utf8(text).ok())
        .unwrap_or_default()
}

/// The name of the event that a record tells of.
#[must_use]
pub fn event_of(line: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b",\"event\":\"";
    let head = line.get(..line.len().min(128)).unwrap_or_default();
    let at = head.windows(NAME.len()).position(|window| window == NAME)?;
    let rest = head.get(at + NAME.len()..)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(rest.get(..end)?).ok()
}
