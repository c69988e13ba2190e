//! Writing segment files: zero-filled ahead by the helper, then one gathered write per commit.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::DiskFile;
use super::error::JournalError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, COMMIT_BYTES_MAX, DATA_START, HEADER_BLOCK_BYTES,
    SegmentHeader, padding,
};
use super::queue::Pending;

/// Batches of one commit at most. More would need more slices than one call takes (1024), and
/// what is left is the next commit.
const COMMIT_BATCHES_MAX: usize = 256;

/// Bytes that a segment keeps back for the batch that closes it.
const CLOSING_BYTES: u64 = BATCH_HEADER_BYTES as u64;

/// Bytes zero-filled between two syncs: bounds what a commit's sync may have to wait for.
const FILL_SYNC_BYTES: u64 = 8 * 1024 * 1024;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Bytes of records that fit in an empty segment.
pub(super) fn capacity(segment_bytes: u64) -> usize {
    let overhead = DATA_START + BATCH_HEADER_BYTES as u64 + CLOSING_BYTES;
    let bytes = segment_bytes.saturating_sub(overhead) / 8 * 8;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The segment file that commits go to.
pub(super) struct SegmentWriter {
    file: Arc<dyn DiskFile>,
    path: Arc<Path>,
    header: SegmentHeader,
    bytes: u64,
    /// Where the next batch goes.
    position: u64,
    /// Number of the last batch.
    sequence: u64,
}

impl SegmentWriter {
    /// Writes both copies of the header into a prepared file, durably.
    pub(super) fn start(
        file: Arc<dyn DiskFile>,
        path: Arc<Path>,
        header: SegmentHeader,
        bytes: u64,
    ) -> io::Result<SegmentWriter> {
        let encoded = header.encode();
        write_all(&*file, &mut [IoSlice::new(&encoded)], 0)?;
        write_all(
            &*file,
            &mut [IoSlice::new(&encoded)],
            HEADER_BLOCK_BYTES as u64,
        )?;
        file.sync_data()?;
        Ok(SegmentWriter {
            file,
            path,
            header,
            bytes,
            position: DATA_START,
            sequence: 0,
        })
    }

    /// How many of the pending batches one commit takes: all, unless the segment's rest or the
    /// largest commit is less. 0 = the first one needs the next segment.
    pub(super) fn fitting(&self, pending: &[Pending]) -> usize {
        let rest = self.bytes.saturating_sub(self.position + CLOSING_BYTES);
        let room = usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(COMMIT_BYTES_MAX);
        let mut total = BATCH_HEADER_BYTES;
        let fits = |pending: &&Pending| {
            total += pending.batch.bytes_len();
            total + padding(total) <= room
        };
        pending
            .iter()
            .take(COMMIT_BATCHES_MAX)
            .take_while(fits)
            .count()
    }

    /// Writes the batches as one, durably; the first of their records has offset `first`.
    /// Answers the bytes written. No allocation.
    ///
    /// # Errors
    /// What the system says; the segment must not be written to again (REL-04).
    pub(super) fn commit(&mut self, first: u64, batches: &[Pending]) -> Result<u64, JournalError> {
        let records = batches.iter().map(|pending| pending.batch.records()).sum();
        let body_len = batches
            .iter()
            .map(|pending| pending.batch.bytes_len())
            .sum::<usize>();
        let padding = padding(BATCH_HEADER_BYTES + body_len);
        let padding = ZEROS.get(..padding).unwrap_or_default();
        let header = BatchHeader {
            salt: self.header.salt,
            sequence: self.sequence + 1,
            first,
            records,
            // At most `COMMIT_BYTES_MAX`, as `fitting` saw to.
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            check: 0,
        };
        let bodies = || {
            batches
                .iter()
                .map(|pending| pending.batch.bytes())
                .chain([padding])
        };
        let encoded = header.encode(bodies());
        let mut slices = [IoSlice::new(&[]); COMMIT_BATCHES_MAX + 2];
        let all = std::iter::once(encoded.as_slice()).chain(bodies());
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        let slices = slices.get_mut(..used).unwrap_or_default();
        write_all(&*self.file, slices, self.position)
            .map_err(|e| JournalError::io("write", &self.path, e))?;
        self.file
            .sync_data()
            .map_err(|e| JournalError::io("sync", &self.path, e))?;
        self.sequence += 1;
        self.position += header.bytes_len();
        Ok(header.bytes_len())
    }

    /// Writes an empty batch behind the last one: then damage to that one is not taken for a torn
    /// tail at the next start.
    ///
    /// # Errors
    /// As [`SegmentWriter::commit`].
    pub(super) fn close(&mut self, first: u64) -> Result<(), JournalError> {
        if self.sequence > 0 {
            self.commit(first, &[])?;
        }
        Ok(())
    }
}

/// Writes all slices, however many calls it takes.
pub(super) fn write_all(
    file: &dyn DiskFile,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a new file `len` zero bytes that occupy space, durably: a later write into them changes
/// no metadata, which is what makes a commit one quick sync. Ends early, with
/// [`io::ErrorKind::Interrupted`], when `stop` is set.
pub(super) fn fill(file: &dyn DiskFile, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut position = 0;
    while position < len {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let mut end = position;
        for slice in &mut slices {
            let part = (len - end).min(ZEROS.len() as u64);
            let part = usize::try_from(part).unwrap_or(ZEROS.len());
            *slice = IoSlice::new(ZEROS.get(..part).unwrap_or_default());
            end += slice.len() as u64;
        }
        write_all(file, &mut slices, position)?;
        if end / FILL_SYNC_BYTES != position / FILL_SYNC_BYTES || end == len {
            file.sync_data()?;
        }
        position = end;
    }
    Ok(())
}
