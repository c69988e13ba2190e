//! A file that is written from front to back, with a CRC-32C of each block.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

use super::BLOCK_BYTES;

/// Bytes after which the system is told to begin writing to the disk. Otherwise a merged file of
/// 128 MiB would wait in memory for its sync, and the journal's syncs, which acks wait for, behind
/// that (the disk has one queue).
const WRITE_BEHIND_BYTES: u64 = 1024 * 1024;

/// A file that is written from front to back and summed on the way.
pub(super) struct Summed {
    pub(super) file: BufWriter<File>,
    pub(super) position: u64,
    /// Up to here the system is writing.
    begun: u64,
    blocks: Vec<u32>,
    /// Of the block that is being filled; once the data has ended, of all behind it.
    pub(super) crc: u32,
    filled: usize,
    data_ended: bool,
}

impl Summed {
    pub(super) fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(4 * BLOCK_BYTES, file),
            position: 0,
            begun: 0,
            blocks: Vec::new(),
            crc: 0,
            filled: 0,
            data_ended: false,
        }
    }

    /// Ends the data; answers where that is, and its checksums.
    pub(super) fn end_data(&mut self) -> String {
        use std::fmt::Write as _;
        if self.filled > 0 {
            self.blocks.push(self.crc);
        }
        (self.crc, self.filled, self.data_ended) = (0, 0, true);
        let mut text = format!("{}:", self.position);
        for block in &self.blocks {
            // Writing into a string cannot fail.
            let _ = write!(text, "{block:08x}");
        }
        text
    }

    /// Makes the system begin with what was written since the last time; does not wait for it.
    fn write_behind(&mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(bytes) = NonZeroU64::new(self.position - self.begun) {
            // Linux begins to write pages that are told not to be needed. A file system that takes
            // no advice only writes later.
            let _ = fadvise(
                self.file.get_ref(),
                self.begun,
                Some(bytes),
                Advice::DontNeed,
            );
        }
        self.begun = self.position;
        Ok(())
    }

    fn sum(&mut self, mut bytes: &[u8]) {
        if self.data_ended {
            self.crc = crc32c::crc32c_append(self.crc, bytes);
            return;
        }
        while !bytes.is_empty() {
            let room = bytes.len().min(BLOCK_BYTES - self.filled);
            let (now, later) = bytes.split_at(room);
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.filled += room;
            bytes = later;
            if self.filled == BLOCK_BYTES {
                self.blocks.push(self.crc);
                (self.crc, self.filled) = (0, 0);
            }
        }
    }
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum(bytes.get(..written).unwrap_or_default());
        self.position += u64::try_from(written).unwrap_or(u64::MAX);
        if self.position - self.begun >= WRITE_BEHIND_BYTES {
            self.write_behind()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
