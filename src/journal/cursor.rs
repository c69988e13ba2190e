//! Walking the batches of one segment file: the core of reader, recovery and verification.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::DiskFile;
use super::error::JournalError;
use super::format::{BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, DATA_START};
use super::index::{Segment, Written};
use super::record::{Offset, RecordBatch};

/// Bytes read in one call at most while batches are small. A longer batch is read whole.
const READ_BYTES: usize = 256 * 1024;

/// Bytes read at least: a block of the page cache.
const READ_BYTES_MIN: usize = 4096;

/// Bytes asked for per record that is known to be there, so that a reader at the journal's end
/// does not copy 256 KiB for every commit of 2 KiB. A guess: a wrong one costs a second read.
const READ_BYTES_PER_RECORD: u64 = 512;

/// What stands at the cursor's position.
pub(super) enum Place {
    /// The batch that is expected; its records are not checked yet.
    Batch(BatchHeader),
    /// Something else, and what is wrong with it.
    Bad(&'static str),
}

/// The result of a search behind a bad place.
pub(super) struct Search {
    /// The next good batch; the cursor stands on it.
    pub(super) found: Option<BatchHeader>,
    /// Byte position after the last byte that is not zero, if any is behind the bad place's start.
    pub(super) written_end: Option<u64>,
}

/// A place in a segment file.
pub(super) struct Cursor {
    pub(super) path: Arc<Path>,
    pub(super) file: Arc<dyn DiskFile>,
    written: Written,
    salt: u64,
    /// Byte position of the next batch.
    pub(super) position: u64,
    /// Offset of the first record of the next batch.
    pub(super) expected: u64,
    /// Number of the last batch passed.
    sequence: u64,
    /// Records up to this offset are in the file.
    known: u64,
    window: Window,
}

impl Cursor {
    /// A cursor before the first batch of a file.
    pub(super) fn new(
        segment: &Segment,
        file: Arc<dyn DiskFile>,
        salt: u64,
        buffer: Vec<u8>,
    ) -> Cursor {
        let window = Window {
            buffer,
            start: 0,
            filled: 0,
            trusted: 0,
        };
        Cursor {
            path: Arc::clone(&segment.path),
            file,
            written: Arc::clone(&segment.written),
            salt,
            position: DATA_START,
            expected: segment.first,
            sequence: 0,
            known: 0,
            window,
        }
    }

    /// The buffer, for the next cursor.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.window.buffer
    }

    /// Looks at the batch at the position. Everything up to offset `durable` was in the file
    /// before the call: bytes read earlier, for a lower offset, are read again.
    pub(super) fn look(&mut self, durable: u64) -> Result<Place, JournalError> {
        self.known = durable;
        if self.expected > self.window.trusted {
            self.window.filled = 0;
        }
        let bytes = self.bytes(self.position, BATCH_HEADER_BYTES)?;
        let Some(header) = bytes.and_then(|bytes| bytes.first_chunk()) else {
            return Ok(Place::Bad("the file ends here"));
        };
        if header.iter().all(|byte| *byte == 0) {
            return Ok(Place::Bad("nothing is written here"));
        }
        Ok(match BatchHeader::decode(header) {
            None => Place::Bad("the batch header's checksum does not hold"),
            Some(header) if header.salt != self.salt => Place::Bad("the batch is of another file"),
            Some(header) if header.sequence != self.sequence + 1 => {
                Place::Bad("the batch has the wrong number")
            }
            Some(header) if header.first != self.expected => {
                Place::Bad("the batch has the wrong offset")
            }
            Some(header) => Place::Batch(header),
        })
    }

    /// Checks the records of the batch at the position against its checksum.
    pub(super) fn check(&mut self, header: &BatchHeader) -> Result<bool, JournalError> {
        let position = self.position;
        self.check_at(position, header)
    }

    /// Goes behind the batch at the position.
    pub(super) fn pass(&mut self, header: &BatchHeader) {
        self.position += header.bytes_len();
        self.expected = header.next();
        self.sequence = header.sequence;
    }

    /// The whole batch that was passed last. Only right after `check` and `pass` of it.
    pub(super) fn passed(&self, header: &BatchHeader) -> &[u8] {
        let position = self.position - header.bytes_len();
        self.window
            .get(position, bytes_len(header))
            .unwrap_or_default()
    }

    /// The records of the batch that was passed last.
    pub(super) fn records(&self, header: &BatchHeader) -> RecordBatch<'_> {
        let body = self
            .passed(header)
            .get(BATCH_HEADER_BYTES..)
            .unwrap_or_default();
        let body = body.get(..body_len(header)).unwrap_or_default();
        RecordBatch::new(Offset::new(header.first), header.records, body)
    }

    /// Searches behind the position for the next good batch with a first record at `durable` at
    /// most, and goes to it. A match needs the salt, two checksums, a higher sequence and an
    /// offset that was not passed, so that no payload is ever taken for one.
    pub(super) fn search(&mut self, durable: u64) -> Result<Search, JournalError> {
        self.known = durable;
        // What is in the window may be older than `durable`.
        self.window.filled = 0;
        let (salt, bad) = (self.salt, self.position);
        let mut written_end = None;
        let mut at = bad;
        loop {
            let Some(bytes) = self.up_to(at, READ_BYTES)? else {
                return Ok(Search {
                    found: None,
                    written_end,
                });
            };
            let len = bytes.len() as u64;
            let hit = scan(bytes, at, salt, bad, &mut written_end);
            let Some(candidate) = hit else {
                at += len;
                continue;
            };
            if let Some(header) = self.good_at(candidate, durable)? {
                self.position = candidate;
                self.expected = header.first;
                self.sequence = header.sequence - 1;
                return Ok(Search {
                    found: Some(header),
                    written_end,
                });
            }
            at = candidate + BATCH_ALIGN as u64;
        }
    }

    /// A whole good batch at `position` that may come after what was passed.
    fn good_at(&mut self, position: u64, last: u64) -> Result<Option<BatchHeader>, JournalError> {
        let bytes = self.bytes(position, BATCH_HEADER_BYTES)?;
        let header = bytes
            .and_then(|bytes| bytes.first_chunk())
            .and_then(BatchHeader::decode);
        let (salt, sequence, expected) = (self.salt, self.sequence, self.expected);
        let follows = |header: &BatchHeader| {
            header.salt == salt
                && header.sequence > sequence
                && header.first >= expected
                && header.first <= last
        };
        let Some(header) = header.filter(follows) else {
            return Ok(None);
        };
        Ok(self.check_at(position, &header)?.then_some(header))
    }

    fn check_at(&mut self, position: u64, header: &BatchHeader) -> Result<bool, JournalError> {
        let Some(batch) = self.bytes(position, bytes_len(header))? else {
            return Ok(false);
        };
        let body = batch.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + body_len(header));
        // The checksum says that the bytes are those written, the walk that they are records.
        Ok(header.holds(batch)
            && body.is_some_and(|body| RecordBatch::is_whole(header.records, body)))
    }

    /// Exactly `len` bytes at `position`, `None` if the file ends before.
    fn bytes(&mut self, position: u64, len: usize) -> Result<Option<&[u8]>, JournalError> {
        if self.window.get(position, len).is_none() {
            let outstanding = self.known.saturating_sub(self.expected);
            let guess = outstanding.saturating_mul(READ_BYTES_PER_RECORD);
            let guess = usize::try_from(guess).unwrap_or(READ_BYTES);
            self.fill(position, len.max(guess.clamp(READ_BYTES_MIN, READ_BYTES)))?;
        }
        Ok(self.window.get(position, len))
    }

    /// Between one aligned word and `len` bytes at `position`, `None` at the end of the file.
    fn up_to(&mut self, position: u64, len: usize) -> Result<Option<&[u8]>, JournalError> {
        if self.window.get(position, BATCH_ALIGN).is_none() {
            self.fill(position, len)?;
        }
        Ok(self.window.from(position))
    }

    fn fill(&mut self, position: u64, len: usize) -> Result<(), JournalError> {
        let written = self.written.load(Ordering::Relaxed);
        let written = usize::try_from(written.saturating_sub(position)).unwrap_or(usize::MAX);
        let len = len.min(written);
        let window = &mut self.window;
        if window.buffer.len() < len {
            window.buffer.resize(len, 0);
        }
        window.start = position;
        window.filled = 0;
        window.trusted = self.known;
        while let Some(rest) = window
            .buffer
            .get_mut(window.filled..len)
            .filter(|r| !r.is_empty())
        {
            match self.file.read_at(rest, position + window.filled as u64) {
                Ok(0) => break,
                Ok(read) => window.filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    window.filled = 0;
                    return Err(JournalError::io("read", &self.path, error));
                }
            }
        }
        Ok(())
    }
}

/// A stretch of the file in memory.
struct Window {
    buffer: Vec<u8>,
    /// Byte position of the stretch.
    start: u64,
    /// Its length.
    filled: usize,
    /// Records up to this offset were in the file before the stretch was read.
    trusted: u64,
}

impl Window {
    fn get(&self, position: u64, len: usize) -> Option<&[u8]> {
        self.from(position)?.get(..len)
    }

    /// From `position` to the end of the stretch, `None` if that is nothing.
    fn from(&self, position: u64) -> Option<&[u8]> {
        let skip = usize::try_from(position.checked_sub(self.start)?).ok()?;
        self.buffer
            .get(..self.filled)?
            .get(skip..)
            .filter(|bytes| !bytes.is_empty())
    }
}

/// The first place in `bytes` (at file position `at`) behind `bad` that carries the salt.
/// Notes on the way how far the file is written.
fn scan(bytes: &[u8], at: u64, salt: u64, bad: u64, written_end: &mut Option<u64>) -> Option<u64> {
    let mut position = at;
    let (words, rest) = bytes.as_chunks::<BATCH_ALIGN>();
    for word in words {
        let number = u64::from_le_bytes(*word);
        if number != 0 {
            let zeros = u64::from(number.leading_zeros() / 8);
            *written_end = Some(position + BATCH_ALIGN as u64 - zeros);
            if number == salt && position > bad {
                return Some(position);
            }
        }
        position += BATCH_ALIGN as u64;
    }
    if let Some(last) = rest.iter().rposition(|byte| *byte != 0) {
        *written_end = Some(position + last as u64 + 1);
    }
    None
}

/// At most [`super::format::COMMIT_BYTES_MAX`], as decoding saw to.
fn bytes_len(header: &BatchHeader) -> usize {
    usize::try_from(header.bytes_len()).unwrap_or(usize::MAX)
}

fn body_len(header: &BatchHeader) -> usize {
    usize::try_from(header.body_len).unwrap_or(usize::MAX)
}
