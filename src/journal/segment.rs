//! Writing segment files: zero-filled ahead by the helper, then one gathered write per commit.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::{BLOCK_BYTES, DiskFile};
use super::error::JournalError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, COMMIT_BYTES_MAX, DATA_START, HEADER_BLOCK_BYTES,
    SegmentHeader, padding,
};
use super::index::Written;
use super::prepare::is_no_space;
use super::queue::Pending;

/// Batches of one commit at most. More would need more slices than one call takes (1024), and
/// what is left is the next commit.
const COMMIT_BATCHES_MAX: usize = 256;

/// Bytes that a segment keeps back for the batch that closes it.
const CLOSING_BYTES: u64 = BATCH_HEADER_BYTES as u64;

/// Bytes zero-filled between two syncs: bounds what a commit's sync may have to wait for.
const FILL_SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// Where [`DiskFile::bypass_cache`] wants them.
#[repr(align(4096))]
struct Aligned([u8; 64 * 1024]);

const _: () = assert!(align_of::<Aligned>() == BLOCK_BYTES);

static ZEROS: Aligned = Aligned([0; 64 * 1024]);

/// So many zeros, 64 KiB at most.
fn zeros(bytes: usize) -> &'static [u8] {
    ZEROS.0.get(..bytes).unwrap_or(&ZEROS.0)
}

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
    written: Written,
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
        // Whole blocks: the system need not read them first.
        let rest = zeros(HEADER_BLOCK_BYTES - encoded.len());
        for position in [0, HEADER_BLOCK_BYTES as u64] {
            let slices = &mut [IoSlice::new(&encoded), IoSlice::new(rest)];
            write_all(&*file, slices, position)?;
        }
        file.sync_data()?;
        Ok(SegmentWriter {
            file,
            path,
            header,
            bytes,
            position: DATA_START,
            sequence: 0,
            written: Written::new(DATA_START.into()),
        })
    }

    /// How far the file is written.
    pub(super) fn written(&self) -> Written {
        Arc::clone(&self.written)
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
        let padding = zeros(padding(BATCH_HEADER_BYTES + body_len));
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
        let end = self.position + header.bytes_len();
        let end_of_block = self.end_of_block(end);
        let rest = zeros(usize::try_from(end_of_block - end).unwrap_or_default());
        let mut slices = [IoSlice::new(&[]); COMMIT_BATCHES_MAX + 3];
        let all = std::iter::once(encoded.as_slice())
            .chain(bodies())
            .chain([rest]);
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
        self.position = end;
        // Before `durable` moves: whoever sees that sees this.
        self.written.store(end_of_block, Ordering::Relaxed);
        Ok(header.bytes_len())
    }

    /// Where the block of a position ends, or the segment. The zeros up to there are written with
    /// the batch before them, so that the system need not read the block first: it was zero-filled
    /// past the cache.
    fn end_of_block(&self, position: u64) -> u64 {
        let block = position.next_multiple_of(BLOCK_BYTES as u64);
        block.min(self.bytes).max(position)
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
/// no metadata, which is what makes a commit one quick sync. They go to the disk past the system's
/// cache where that is possible, which costs no copy. Ends early, with
/// [`io::ErrorKind::Interrupted`], when `stop` is set.
pub(super) fn fill(file: &dyn DiskFile, len: u64, stop: &AtomicBool) -> io::Result<()> {
    if !len.is_multiple_of(BLOCK_BYTES as u64) || file.bypass_cache(true).is_err() {
        return write_zeros(file, len, stop);
    }
    let filled = write_zeros(file, len, stop);
    let cleared = file.bypass_cache(false);
    let is_final = |error: &io::Error| {
        error.kind() == io::ErrorKind::Interrupted || is_no_space(error) || cleared.is_err()
    };
    match filled {
        // Whatever a file system has against it; if it is the disk, it says so again.
        Err(error) if !is_final(&error) => write_zeros(file, len, stop),
        filled => filled.and(cleared),
    }
}

fn write_zeros(file: &dyn DiskFile, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let mut position = 0;
    while position < len {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let mut end = position;
        for slice in &mut slices {
            let part = (len - end).min(ZEROS.0.len() as u64);
            let part = usize::try_from(part).unwrap_or(ZEROS.0.len());
            *slice = IoSlice::new(zeros(part));
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A disk whose blocks are larger than ours: past the cache it takes whole ones only.
    #[derive(Default)]
    struct LargeBlocks {
        bytes: Mutex<Vec<u8>>,
        bypasses: AtomicBool,
        refused: AtomicBool,
    }

    impl DiskFile for LargeBlocks {
        fn read_at(&self, _buffer: &mut [u8], _position: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
            const BLOCK: usize = 16 * BLOCK_BYTES;
            let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
            if self.bypasses.load(Ordering::Relaxed) {
                let is_aligned =
                    |slice: &IoSlice<'_>| slice.as_ptr().align_offset(BLOCK_BYTES) == 0;
                assert!(slices.iter().all(is_aligned));
                if !len.is_multiple_of(BLOCK) {
                    self.refused.store(true, Ordering::Relaxed);
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
            let end = usize::try_from(position).unwrap() + len;
            let mut bytes = self.bytes.lock().unwrap();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            Ok(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn bypass_cache(&self, bypass: bool) -> io::Result<()> {
            self.bypasses.store(bypass, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn zeros_go_past_the_cache_only_where_the_disk_takes_them() {
        let stop = AtomicBool::new(false);
        let block = BLOCK_BYTES as u64;
        for (len, is_refused) in [(1024 * block, false), (257 * block, true), (100, false)] {
            let file = LargeBlocks::default();
            fill(&file, len, &stop).unwrap();
            assert_eq!(file.bytes.lock().unwrap().len() as u64, len);
            assert_eq!(file.refused.load(Ordering::Relaxed), is_refused, "{len}");
            assert!(!file.bypasses.load(Ordering::Relaxed));
        }
        stop.store(true, Ordering::Relaxed);
        let file = LargeBlocks::default();
        assert!(fill(&file, block, &stop).is_err() && !file.bypasses.load(Ordering::Relaxed));
    }
}
