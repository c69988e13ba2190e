//! Which segment holds which offsets: one entry per file, in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A segment file.
#[derive(Clone)]
pub(super) struct Segment {
    /// Offset of its first record.
    pub(super) first: u64,
    pub(super) path: Arc<Path>,
    /// `None` if both copies of its header are bad: then nothing in it can be read.
    pub(super) salt: Option<u64>,
    /// Length of the file.
    pub(super) bytes: u64,
    pub(super) written: Written,
}

/// How far a file was written, in whole blocks: up to there at least before a batch that ends there
/// is durable. Zeros of a segment to come are not in the system's cache, and reading them would
/// fetch the file from the disk before it is written.
pub(super) type Written = Arc<AtomicU64>;

/// Of a file that nobody writes.
pub(super) fn all_written() -> Written {
    Arc::new(AtomicU64::new(u64::MAX))
}

/// The segments, oldest first. Never empty once the committer has its first one.
pub(super) struct Index {
    segments: Vec<Segment>,
}

impl Index {
    pub(super) fn new(segments: Vec<Segment>) -> Index {
        Index { segments }
    }

    /// The oldest offset that a segment starts with.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.first().map(|segment| segment.first)
    }

    /// The segment that holds `offset`, or the oldest one if that is later; and the first offset
    /// of the one after it.
    pub(super) fn holding(&self, offset: u64) -> Option<(Segment, Option<u64>)> {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= offset)
            .max(1);
        let segment = self.segments.get(after - 1)?.clone();
        Some((segment, self.segments.get(after).map(|next| next.first)))
    }

    /// First offsets of the oldest segment, and of the one after the one that starts with `first`.
    pub(super) fn around(&self, first: u64) -> (Option<u64>, Option<u64>) {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= first);
        (
            self.first(),
            self.segments.get(after).map(|next| next.first),
        )
    }

    /// The segments that start at `offset` or earlier.
    pub(super) fn up_to(&self, offset: u64) -> Vec<Segment> {
        let before = |segment: &&Segment| segment.first <= offset;
        self.segments.iter().take_while(before).cloned().collect()
    }

    /// Adds the newest segment.
    pub(super) fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// Takes the oldest segment out, if another one starts at `before` or earlier, so that all its
    /// records come before it.
    pub(super) fn take_before(&mut self, before: u64) -> Option<Segment> {
        match self.segments.as_slice() {
            [_, next, ..] if next.first <= before => Some(self.segments.remove(0)),
            _ => None,
        }
    }

    /// First offsets of all segments, oldest first.
    pub(super) fn starts(&self) -> Vec<u64> {
        self.segments.iter().map(|segment| segment.first).collect()
    }

    /// The start of the newest segments that have at least `bytes` together, or of the oldest one.
    pub(super) fn tail(&self, bytes: u64) -> Option<u64> {
        let mut sum = 0_u64;
        let newest_first = self.segments.iter().rev();
        let mut first = None;
        for segment in newest_first {
            first = Some(segment.first);
            sum = sum.saturating_add(segment.bytes);
            if sum >= bytes {
                break;
            }
        }
        first
    }

    /// Bytes of the segment that holds `offset` and of those after it.
    pub(super) fn bytes_from(&self, offset: u64) -> u64 {
        let behind = self
            .segments
            .partition_point(|segment| segment.first <= offset)
            .saturating_sub(1);
        let segments = self.segments.iter().skip(behind);
        segments.map(|segment| segment.bytes).sum()
    }

    /// Bytes of all files, and how many they are.
    pub(super) fn size(&self) -> (u64, u64) {
        let bytes = self.segments.iter().map(|segment| segment.bytes).sum();
        (bytes, self.segments.len() as u64)
    }
}
