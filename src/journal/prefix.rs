//! A prefix of the journal as files: what a copy of it needs, while the journal goes on.

use std::path::PathBuf;

use super::Journal;
use super::cursor::{Cursor, Place};
use super::error::JournalError;
use super::format::DATA_START;
use super::index::Segment;
use super::record::Offset;
use super::shared::lock;

/// A file of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixPart {
    /// Its name in the journal's directory.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How many of its bytes belong to the prefix.
    pub bytes: u64,
}

impl Journal {
    /// The files that hold everything kept up to `last`, a durable offset, and nothing after it:
    /// copied to another place they open as a journal that ends there. Hold its first record
    /// meanwhile ([`Journal::hold`]). Blocking: it reads the last file up to its end.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be read.
    pub fn prefix(&self, last: Offset) -> Result<Vec<PrefixPart>, JournalError> {
        let last = last.number();
        let mut segments = lock(&self.shared().index).up_to(last.saturating_add(1));
        // A file that begins behind the prefix is only needed to say where the journal goes on,
        // when it is the only one.
        if segments.len() > 1 {
            segments.retain(|segment| segment.first <= last);
        }
        let newest = segments.pop();
        let mut parts: Vec<PrefixPart> = segments
            .iter()
            .map(|segment| part(segment, segment.bytes))
            .collect();
        if let Some(newest) = newest {
            let bytes = self.end_in(&newest, last)?;
            parts.push(part(&newest, bytes));
        }
        Ok(parts)
    }

    /// The byte position behind the batch that ends with `last`.
    fn end_in(&self, segment: &Segment, last: u64) -> Result<u64, JournalError> {
        let Some(salt) = segment.salt else {
            return Ok(segment.bytes); // nothing in it can be told apart
        };
        let path = &segment.path;
        let file = self
            .shared()
            .disk
            .open(path)
            .map_err(|e| JournalError::io("open", path, e))?;
        let mut cursor = Cursor::new(segment, file, salt, Vec::new());
        while cursor.expected <= last {
            match cursor.look(last)? {
                Place::Batch(header) => cursor.pass(&header),
                // Damage is copied as it is, and reported by whoever opens the copy.
                Place::Bad(_) => {
                    if cursor.search(last)?.found.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(cursor.position.max(DATA_START))
    }
}

fn part(segment: &Segment, bytes: u64) -> PrefixPart {
    let name = segment.path.file_name().unwrap_or_default();
    PrefixPart {
        name: name.to_string_lossy().into_owned(),
        path: segment.path.to_path_buf(),
        bytes,
    }
}
