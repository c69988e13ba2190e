//! Reading the journal from an offset on, while it grows.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::cursor::{Cursor, Place};
use super::error::JournalError;
use super::format::BatchHeader;
use super::options::Damage;
use super::record::{Offset, RecordBatch};
use super::shared::{Shared, lock};

/// What a reader meets.
#[derive(Debug)]
pub enum Entry<'a> {
    /// Records, durable and checked.
    Batch(RecordBatch<'a>),
    /// A stretch that is lost; the next entry goes on after it.
    Damage(Damage),
}

/// A place in the journal that moves forward. Keeps working while the committer appends, and after
/// the journal was closed. Owns a buffer of 256 KiB, or of the largest commit it met (8 MiB at
/// most).
pub struct Reader {
    shared: Arc<Shared>,
    /// The next record wanted.
    wanted: u64,
    /// The place in the segment file that holds it. Before the first batch is returned it may be
    /// at an earlier one.
    place: Option<(u64, Cursor)>,
    buffer: Vec<u8>,
}

enum Step {
    Nothing,
    Batch(BatchHeader, u64),
    Damage(Damage),
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Offset) -> Reader {
        let wanted = from.number().max(1);
        Reader {
            shared,
            wanted,
            place: None,
            buffer: Vec::new(),
        }
    }

    /// The next entry, or `None` when nothing more is durable now: call again later.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be read; the next call tries again.
    #[expect(
        clippy::should_implement_trait,
        reason = "entries borrow the reader's buffer, which an Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, JournalError> {
        Ok(match (self.advance()?, &self.place) {
            (Step::Batch(header, from), Some((_, cursor))) => Some(Entry::Batch(
                cursor.records(&header).starting_at(Offset::new(from)),
            )),
            (Step::Damage(damage), _) => Some(Entry::Damage(damage)),
            _ => None,
        })
    }

    /// The next record wanted: everything before it was returned or reported.
    #[must_use]
    pub fn position(&self) -> Offset {
        Offset::new(self.wanted)
    }

    fn advance(&mut self) -> Result<Step, JournalError> {
        loop {
            // Loaded before the file is read: then everything up to it is in the file.
            let durable = self.shared.durable();
            if self.wanted > durable {
                return Ok(Step::Nothing);
            }
            let Some((segment, cursor)) = self.place.as_mut() else {
                match self.enter(durable)? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            };
            let what = match cursor.look(durable)? {
                // Not wanted: its records need not be read.
                Place::Batch(header) if header.next() <= self.wanted => {
                    cursor.pass(&header);
                    continue;
                }
                Place::Batch(header) if cursor.check(&header)? => {
                    cursor.pass(&header);
                    let from = std::mem::replace(&mut self.wanted, header.next());
                    return Ok(Step::Batch(header, from));
                }
                Place::Batch(_) => "the batch's checksum does not hold",
                Place::Bad(what) => what,
            };
            let segment = *segment;
            if let Some(damage) = self.go_on(segment, durable, what)? {
                return Ok(Step::Damage(damage));
            }
        }
    }

    /// Opens the segment that holds the record wanted.
    fn enter(&mut self, durable: u64) -> Result<Option<Step>, JournalError> {
        let holding = lock(&self.shared.index).holding(self.wanted);
        let Some((segment, next_first)) = holding else {
            return Ok(Some(Step::Nothing));
        };
        self.wanted = self.wanted.max(segment.first);
        let lost = |reader: &mut Reader, what: &str| {
            let next = next_first.unwrap_or(durable + 1);
            let damage = reader.damage(&segment.path, 0, next, what);
            Ok(damage.map(Step::Damage))
        };
        let Some(salt) = segment.salt else {
            return lost(self, "both copies of the file's header are bad");
        };
        match self.shared.disk.open(&segment.path) {
            Ok(file) => {
                let buffer = std::mem::take(&mut self.buffer);
                let cursor = Cursor::new(&segment, file, salt, buffer);
                self.place = Some((segment.first, cursor));
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Either it was released a moment ago, or somebody else removed it.
                let first = lock(&self.shared.index).first();
                if first > Some(segment.first) {
                    return Ok(None);
                }
                lost(self, "the file is missing")
            }
            Err(error) => Err(JournalError::io("open", &segment.path, error)),
        }
    }

    /// No good batch stands at the cursor: the segment ends here, or a stretch is damaged.
    fn go_on(
        &mut self,
        segment: u64,
        durable: u64,
        what: &str,
    ) -> Result<Option<Damage>, JournalError> {
        let Some((_, mut cursor)) = self.place.take() else {
            return Ok(None);
        };
        let (oldest, next_first) = lock(&self.shared.index).around(segment);
        let (path, position) = (Arc::clone(&cursor.path), cursor.position);
        // What was released is gone on purpose, with whatever followed it.
        let released = oldest > Some(segment);
        if released || next_first.is_some_and(|next| next <= cursor.expected) {
            self.buffer = cursor.into_buffer();
            return Ok(None);
        }
        // The next segment's first record was not in this one, whatever a search may find.
        let last = next_first.map_or(durable, |next| next - 1);
        let next = match cursor.search(last)?.found {
            Some(header) => header.first,
            None => last + 1,
        };
        if next_first == Some(next) {
            self.buffer = cursor.into_buffer();
        } else {
            // In the newest segment the search goes on from here when more is durable.
            cursor.expected = next;
            self.place = Some((segment, cursor));
        }
        Ok(self.damage(&path, position, next, what))
    }

    /// The damage from the record wanted up to `next`, if any wanted record is in it.
    fn damage(&mut self, file: &Path, position: u64, next: u64, what: &str) -> Option<Damage> {
        let first = self.wanted;
        self.wanted = self.wanted.max(next);
        (next > first).then(|| Damage {
            file: file.to_path_buf(),
            position,
            first: Offset::new(first),
            next: Offset::new(next),
            what: what.to_owned(),
        })
    }
}
