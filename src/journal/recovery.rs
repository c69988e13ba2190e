//! What is done at open, before anything is written: find the segments, find the end, cut it.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use super::cursor::{Cursor, Place};
use super::disk::{Disk, DiskFile};
use super::error::JournalError;
use super::format::{
    BatchHeader, DATA_START, FORMAT_VERSION, HEADER_BLOCK_BYTES, NotHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, first_by_name,
};
use super::index::{Segment, all_written};
use super::options::{Cut, DAMAGE_REPORTS_MAX, Damage};
use super::record::{Offset, RECORD_HEADER_BYTES};
use super::segment::write_all;

/// What was found.
pub(super) struct Found {
    /// The segments with records, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Offset of the next record to be written.
    pub(super) next: u64,
    pub(super) cut: Option<Cut>,
    pub(super) damage: Vec<Damage>,
}

/// Finds the segments in `dir` and the end of the last one. Nothing is changed before every
/// header was seen to be of a version that is read here (REL-10).
pub(super) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Found, JournalError> {
    let mut segments = Vec::new();
    let entries = disk
        .list(dir)
        .map_err(|e| JournalError::io("list", dir, e))?;
    for entry in entries {
        if let Some(first) = first_by_name(&entry.name) {
            let path: Arc<Path> = dir.join(&entry.name).into();
            let header = read_header(disk, &path, first)?;
            let segment = Segment {
                first,
                path,
                salt: header.salt,
                bytes: entry.len,
                written: all_written(),
            };
            segments.push((segment, header.fault));
        }
    }
    segments.sort_by_key(|(segment, _)| segment.first);
    let mut found = Found {
        segments: Vec::new(),
        next: 1,
        cut: None,
        damage: Vec::new(),
    };
    let last = segments.pop();
    let mut segments = segments.into_iter().peekable();
    while let Some((segment, fault)) = segments.next() {
        let next = segments
            .peek()
            .or(last.as_ref())
            .map(|(next, _)| next.first);
        // Without a salt no batch of it can be told from a payload: all of it is lost.
        let lost_to = next.filter(|_| segment.salt.is_none());
        found.report_header(&segment, fault, lost_to);
        found.segments.push(segment);
    }
    match last {
        Some((last, fault)) => recover_last(disk, last, fault, &mut found)?,
        None => return Ok(found),
    }
    // The rename that made the last segment may not be durable yet, but what is in it is about to
    // be called so.
    disk.sync_dir(dir)
        .map_err(|e| JournalError::io("sync", dir, e))?;
    Ok(found)
}

fn recover_last(
    disk: &dyn Disk,
    last: Segment,
    fault: Option<Fault>,
    found: &mut Found,
) -> Result<(), JournalError> {
    if let Some(salt) = last.salt {
        found.report_header(&last, fault, None);
        return scan_last(disk, last, salt, found);
    }
    // Nothing in it is changed, and no offset that it may hold is used again.
    found.next = beyond(disk, &last)?;
    found.report_header(&last, fault, Some(found.next));
    if found.next > last.first {
        found.segments.push(last);
    }
    Ok(())
}

impl Found {
    /// Reports a bad header; with both copies bad, the records before `lost_to` are lost.
    fn report_header(&mut self, segment: &Segment, fault: Option<Fault>, lost_to: Option<u64>) {
        if let Some((position, what)) = fault {
            let lost = segment.first..lost_to.unwrap_or(segment.first);
            self.report(&segment.path, position, lost, what);
        }
    }

    fn report(&mut self, file: &Path, position: u64, lost: std::ops::Range<u64>, what: &str) {
        if self.damage.len() < DAMAGE_REPORTS_MAX {
            self.damage.push(Damage {
                file: file.to_path_buf(),
                position,
                first: Offset::new(lost.start),
                next: Offset::new(lost.end),
                what: what.to_owned(),
            });
        }
    }
}

/// An offset after every record that a file without a header may hold.
fn beyond(disk: &dyn Disk, segment: &Segment) -> Result<u64, JournalError> {
    let file = disk
        .open(&segment.path)
        .map_err(|e| JournalError::io("open", &segment.path, e))?;
    // No batch can be found without the salt, but what is not zero was written.
    let mut cursor = Cursor::new(segment, file, 0, Vec::new());
    let written = cursor
        .search(0)?
        .written_end
        .map_or(0, |end| end - DATA_START);
    Ok(segment.first + written.div_ceil(RECORD_HEADER_BYTES as u64))
}

struct Header {
    /// `None` if both copies are bad.
    salt: Option<u64>,
    fault: Option<Fault>,
}

/// Position of the bad copy and what is wrong.
type Fault = (u64, &'static str);

fn read_header(disk: &dyn Disk, path: &Path, first: u64) -> Result<Header, JournalError> {
    let file = disk
        .open(path)
        .map_err(|e| JournalError::io("open", path, e))?;
    let second_at = HEADER_BLOCK_BYTES as u64;
    let one = read_copy(&*file, 0, path, first)?;
    let two = read_copy(&*file, second_at, path, first)?;
    Ok(match (one, two) {
        (Some(header), Some(_)) => Header {
            salt: Some(header.salt),
            fault: None,
        },
        (Some(header), None) => Header {
            salt: Some(header.salt),
            fault: Some((second_at, "the second copy of the file's header is bad")),
        },
        (None, Some(header)) => Header {
            salt: Some(header.salt),
            fault: Some((0, "the first copy of the file's header is bad")),
        },
        (None, None) => Header {
            salt: None,
            fault: Some((0, "both copies of the file's header are bad")),
        },
    })
}

/// One copy of the header; `None` if it is bad, or disagrees with the file's name.
fn read_copy(
    file: &dyn DiskFile,
    position: u64,
    path: &Path,
    first: u64,
) -> Result<Option<SegmentHeader>, JournalError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    if !read_exact(file, &mut bytes, position, path)? {
        return Ok(None);
    }
    match SegmentHeader::decode(&bytes) {
        Ok(header) => Ok(Some(header).filter(|header| header.first == first)),
        Err(NotHeader::Damaged) => Ok(None),
        Err(NotHeader::Newer(found)) => Err(JournalError::NewerFormat {
            file: path.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        }),
    }
}

/// Walks the last segment to its end, cuts a torn tail off, and makes what is left durable.
fn scan_last(
    disk: &dyn Disk,
    mut last: Segment,
    salt: u64,
    found: &mut Found,
) -> Result<(), JournalError> {
    let path = Arc::clone(&last.path);
    let file = disk
        .open(&path)
        .map_err(|e| JournalError::io("open", &path, e))?;
    let mut cursor = Cursor::new(&last, Arc::clone(&file), salt, Vec::new());
    let mut newest: Option<(u64, BatchHeader)> = None;
    let written_end = loop {
        let position = cursor.position;
        let what = match cursor.look(u64::MAX)? {
            Place::Batch(header) if cursor.check(&header)? => {
                cursor.pass(&header);
                newest = Some((position, header));
                continue;
            }
            Place::Batch(_) => "the batch's checksum does not hold",
            Place::Bad(what) => what,
        };
        let first = cursor.expected;
        let search = cursor.search(u64::MAX)?;
        if search.found.is_none() {
            break search.written_end;
        }
        // A commit is written only after the one before it is synced: so this is no torn tail.
        found.report(&path, position, first..cursor.expected, what);
    };
    let end = cursor.position;
    let torn = written_end
        .and_then(|written| written.checked_sub(end))
        .filter(|bytes| *bytes > 0);
    found.cut = torn.map(|bytes| Cut {
        file: path.to_path_buf(),
        position: end,
        bytes,
    });
    settle(&*file, newest, &path)?;
    if end < last.bytes {
        match file.set_len(end) {
            Ok(()) => last.bytes = end,
            // The next segment's header says where this one ends: nothing behind is ever read.
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot cut the file"),
        }
    }
    file.sync_data()
        .map_err(|e| JournalError::io("sync", &path, e))?;
    found.next = cursor.expected;
    // An empty segment is not used again: the next one has its name and replaces it in one step.
    // Until then its header proves that the one before it is complete.
    if newest.is_some() {
        found.segments.push(last);
    }
    Ok(())
}

/// Writes the newest batch again, in its place, before it is called durable. If its sync failed
/// before the crash, it may be in the system's cache, marked clean, and not on disk: a sync alone
/// would then do nothing. Every older batch was synced before a newer one was written.
fn settle(
    file: &dyn DiskFile,
    newest: Option<(u64, BatchHeader)>,
    path: &Path,
) -> Result<(), JournalError> {
    let Some((position, header)) = newest else {
        return Ok(());
    };
    let len = usize::try_from(header.bytes_len()).unwrap_or(usize::MAX);
    let mut batch = vec![0; len];
    if !read_exact(file, &mut batch, position, path)? || !header.holds(&batch) {
        let changed = std::io::Error::other("the batch changed while it was read");
        return Err(JournalError::io("read", path, changed));
    }
    write_all(file, &mut [IoSlice::new(&batch)], position)
        .map_err(|e| JournalError::io("write", path, e))
}

/// Fills `buffer`; false if the file ends before.
fn read_exact(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    position: u64,
    path: &Path,
) -> Result<bool, JournalError> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position + done as u64) {
            Ok(0) => return Ok(false),
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(JournalError::io("read", path, error)),
        }
    }
    Ok(true)
}
