//! What is marked as written by somebody else: credentials that were in wrong hands.
//!
//! Where the marks stand: in the state database. The file `_suspects.csv` beside the files of
//! samples is a copy for programs that read these by themselves (`docs/history-format.md`), written
//! anew at each start and with each mark; queries do not read it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::manifest;
use super::rows::Row;
use crate::journal::Offset;

/// The file of marks.
const NAME: &str = "_suspects.csv";

/// What of one device is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// From this record on,
    pub first: Offset,
    /// by this credential or one before it.
    pub credential_max: u64,
}

/// A mark as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspectMark {
    /// Whose samples.
    pub device: Uuid,
    /// Which of them.
    pub suspect: Suspect,
    /// The time that was given; wall clock, ms.
    pub from_ms: u64,
    /// When the credentials were revoked; wall clock, ms.
    pub revoked_ms: u64,
}

impl Suspect {
    /// Whether a sample of the device is marked. Its row has its credential.
    pub(super) fn holds(&self, row: &Row<'_>) -> bool {
        row.offset >= self.first.number() && row.credential <= self.credential_max
    }
}

/// Writes all marks, and no file where there never was one.
pub(super) fn write(dir: &Path, marks: &[SuspectMark]) -> io::Result<()> {
    if marks.is_empty() && !dir.join(NAME).exists() {
        return Ok(());
    }
    let mut text = String::from("device,first_offset,credential_max,from_ms,revoked_ms\n");
    for mark in marks {
        let Suspect {
            first,
            credential_max,
        } = mark.suspect;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{},{},{credential_max},{},{}",
            mark.device,
            first.number(),
            mark.from_ms,
            mark.revoked_ms
        );
    }
    manifest::replace(dir, NAME, &text)
}
