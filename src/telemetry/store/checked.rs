//! A file's bytes, each block checked against its sum before anybody sees it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::encode::BLOCK_BYTES;

/// An open file. Clones share it.
#[derive(Clone)]
pub(super) struct CheckedFile {
    file: Arc<File>,
    len: u64,
    /// Where the data ends; what is behind (indexes and footer) was checked when it was opened.
    data_end: u64,
    /// CRC-32C of each [`BLOCK_BYTES`] of the data.
    blocks: Arc<[u32]>,
    /// Blocks read last, the newest one last.
    recent: Arc<Mutex<Vec<(u64, Bytes)>>>,
}

/// Blocks a reader keeps, 768 KiB: one for each column, as it goes from column to column.
const RECENT_BLOCKS: usize = 12;

impl CheckedFile {
    /// The file without sums: for reading its footer, which tells them.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn unchecked(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            len,
            data_end: 0,
            blocks: Arc::from([]),
            recent: Arc::default(),
        })
    }

    /// The same file with the sums that its footer tells: `DATA_END:HEX`. None if that is garbled
    /// or not of a file of this length.
    pub(super) fn with_checksums(&self, text: &str) -> Option<Self> {
        let (data_end, hex) = text.split_once(':')?;
        let data_end: u64 = data_end.parse().ok()?;
        let blocks: Arc<[u32]> = hex
            .as_bytes()
            .chunks(8)
            .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        let count = data_end.div_ceil(block_bytes());
        let is_whole = data_end <= self.len && u64::try_from(blocks.len()).ok() == Some(count);
        is_whole.then(|| Self {
            data_end,
            blocks,
            recent: Arc::default(),
            ..self.clone()
        })
    }

    /// CRC-32C of what stands behind the data.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn tail_crc(&self) -> io::Result<u32> {
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut crc = 0;
        let mut position = self.data_end;
        while position < self.len {
            let want = usize::try_from(self.len - position).unwrap_or(usize::MAX);
            let want = want.min(BLOCK_BYTES);
            let part = buffer.get_mut(..want).unwrap_or_default();
            self.file.read_exact_at(part, position)?;
            crc = crc32c::crc32c_append(crc, part);
            position += u64::try_from(want).unwrap_or(u64::MAX);
        }
        Ok(crc)
    }

    /// The same file for one reader, which goes over it once from front to back: the columns of a
    /// stretch of rows stand near each other, and the blocks they are in are read once.
    pub(super) fn for_one_reader(&self) -> Self {
        Self {
            recent: Arc::default(),
            ..self.clone()
        }
    }

    /// Whoever reads from front to back needs nothing before this byte any more.
    pub(super) fn forget_before(&self, position: u64) {
        let first = position / block_bytes();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(number, _)| *number >= first);
    }

    #[cfg(test)]
    pub(super) fn blocks_kept(&self) -> usize {
        self.recent.lock().unwrap().len()
    }

    /// A block, read and checked now or before.
    fn block(&self, number: u64) -> Result<Bytes> {
        let lock = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recent = lock();
        if let Some(place) = recent.iter().position(|(known, _)| *known == number) {
            let found = recent.remove(place);
            let bytes = found.1.clone();
            recent.push(found);
            return Ok(bytes);
        }
        drop(recent);
        let begin = number.saturating_mul(block_bytes());
        let len = self.len.saturating_sub(begin).min(block_bytes());
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, begin)?;
        let covered = self.data_end.saturating_sub(begin).min(len);
        let covered = bytes.get(..usize::try_from(covered).unwrap_or_default());
        let covered = covered.filter(|covered| !covered.is_empty()); // not behind the data
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(covered) = covered
            && self.blocks.get(place) != Some(&crc32c::crc32c(covered))
        {
            let what = format!("the checksum of the block at byte {begin} does not hold");
            return Err(ParquetError::General(what));
        }
        let bytes = Bytes::from(bytes);
        let mut recent = lock();
        if recent.len() >= RECENT_BLOCKS {
            recent.remove(0);
        }
        recent.push((number, bytes.clone()));
        Ok(bytes)
    }
}

impl Length for CheckedFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for CheckedFile {
    type T = BlockReader;

    fn get_read(&self, start: u64) -> Result<BlockReader> {
        Ok(BlockReader {
            file: self.clone(),
            position: start,
            held: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if end > self.len {
            return Err(ParquetError::EOF(format!(
                "the file ends before byte {end}"
            )));
        }
        let skip = usize::try_from(start % block_bytes()).unwrap_or(usize::MAX);
        let first = self.block(start / block_bytes())?;
        if skip.saturating_add(length) <= first.len() {
            return Ok(first.slice(skip..skip.saturating_add(length)));
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(first.get(skip..).unwrap_or_default());
        let mut number = start / block_bytes();
        while bytes.len() < length {
            number += 1;
            let block = self.block(number)?;
            let want = (length - bytes.len()).min(block.len());
            bytes.extend_from_slice(block.get(..want).unwrap_or_default());
        }
        Ok(Bytes::from(bytes))
    }
}

/// Reads on from a place, block by block.
pub(super) struct BlockReader {
    file: CheckedFile,
    position: u64,
    held: Bytes,
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held.is_empty() {
            let block_end = (self.position + 1).next_multiple_of(block_bytes());
            let end = block_end.min(self.file.len);
            if self.position >= end {
                return Ok(0);
            }
            let len = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            let bytes = self.file.get_bytes(self.position, len);
            self.held = bytes.map_err(io::Error::other)?;
            self.position = end;
        }
        let count = buffer.len().min(self.held.len());
        let now = self.held.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&now);
        }
        Ok(count)
    }
}

fn block_bytes() -> u64 {
    u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX)
}
