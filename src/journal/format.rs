//! The bytes of a segment file: names, headers, checksums. No I/O.

/// First bytes of every segment file, in every format version.
pub(super) const MAGIC: [u8; 8] = *b"TOLLJRNL";

/// The format this version writes, and the newest it reads (REL-10).
pub(super) const FORMAT_VERSION: u32 = 1;

/// Bytes of a segment header that mean something; the rest of its block is zero.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;

/// A copy of the segment header has a block to itself, so that no later write touches it.
pub(super) const HEADER_BLOCK_BYTES: usize = 4096;

/// Where the first batch starts: after two copies of the segment header. One bad block never costs
/// the header, and with it the salt by which every batch of the file is known.
pub(super) const DATA_START: u64 = 2 * HEADER_BLOCK_BYTES as u64;

/// Bytes of a batch header; the records follow at once.
pub(super) const BATCH_HEADER_BYTES: usize = 40;

/// Batches start at multiples of this, so that a search for them is quick.
pub(super) const BATCH_ALIGN: usize = 8;

/// Largest batch on disk (one commit) in bytes, header and padding included. Bounds a reader's
/// buffer; a longer length field is damage.
pub(super) const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Smallest and largest `segment_bytes`.
pub(super) const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
pub(super) const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

const _: () = assert!(
    usize::BITS >= 64,
    "file positions are used as lengths in memory"
);
const _: () = assert!(super::record::BATCH_BYTES_MAX + 1024 < COMMIT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN > DATA_START + 4096);

const SUFFIX: &str = ".journal";
const NAME_DIGITS: usize = 20;

/// Name of the segment file whose first record is `first`: sorts like the offset.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first offset by a file's name, if it is the name of a segment file.
pub(super) fn first_by_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_number = digits.len() == NAME_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|first| is_number && *first > 0)
}

/// What a segment file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Random per file: bytes are a batch of this file only if they carry it. A peer that cannot
    /// read the file cannot put into a payload what a search would take for a batch.
    pub(super) salt: u64,
    /// Offset of the file's first record.
    pub(super) first: u64,
}

/// Why bytes are no segment header of a version that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotHeader {
    /// A sound header of a version that is newer.
    Newer(u32),
    /// Not a header, or a damaged one.
    Damaged,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // 12..16 and 32..60 are reserved and zero.
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        let check = crc32c::crc32c(&bytes[0..60]);
        bytes[60..64].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The place of magic, version and checksum is the same in every format version, for ever:
    /// that is how a newer one is told from a damaged one.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<SegmentHeader, NotHeader> {
        let mut fields = Fields::new(bytes);
        let parsed = (|| {
            let magic: [u8; 8] = fields.take()?;
            let version = fields.u32()?;
            let _reserved = fields.u32()?;
            let header = SegmentHeader {
                salt: fields.u64()?,
                first: fields.u64()?,
            };
            let _reserved: [u8; 28] = fields.take()?;
            let check = fields.u32()?;
            let sound = magic == MAGIC && check == crc32c::crc32c(&bytes[0..60]);
            sound.then_some((version, header))
        })();
        match parsed {
            Some((FORMAT_VERSION, header)) => Ok(header),
            Some((version, _)) if version > FORMAT_VERSION => Err(NotHeader::Newer(version)),
            _ => Err(NotHeader::Damaged),
        }
    }
}

/// What stands before the records of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// The salt of its file.
    pub(super) salt: u64,
    /// Its number in its file, from 1 on.
    pub(super) sequence: u64,
    /// Offset of its first record.
    pub(super) first: u64,
    /// Its records; 0 in the batch that closes a file.
    pub(super) records: u32,
    /// Bytes of its records, without the padding.
    pub(super) body_len: u32,
    /// CRC-32C of the header before this field, of the records, and of the padding.
    pub(super) check: u32,
}

impl BatchHeader {
    /// The header with its checksums. `body` is every slice between header and next batch.
    pub(super) fn encode<'a>(
        mut self,
        body: impl Iterator<Item = &'a [u8]>,
    ) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.salt.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_len.to_le_bytes());
        let header_check = crc32c::crc32c(&bytes[0..32]);
        bytes[32..36].copy_from_slice(&header_check.to_le_bytes());
        self.check = body.fold(crc32c::crc32c(&bytes[0..36]), crc32c::crc32c_append);
        bytes[36..40].copy_from_slice(&self.check.to_le_bytes());
        bytes
    }

    /// The header, if its own checksum holds: then its lengths can be trusted, its records not yet.
    pub(super) fn decode(bytes: &[u8; BATCH_HEADER_BYTES]) -> Option<BatchHeader> {
        let mut fields = Fields::new(bytes);
        let header = BatchHeader {
            salt: fields.u64()?,
            sequence: fields.u64()?,
            first: fields.u64()?,
            records: fields.u32()?,
            body_len: fields.u32()?,
            check: 0,
        };
        let header_check = fields.u32()?;
        let check = fields.u32()?;
        let sound = header_check == crc32c::crc32c(&bytes[0..32])
            && header.bytes_len() <= COMMIT_BYTES_MAX as u64;
        sound.then_some(BatchHeader { check, ..header })
    }

    /// Bytes from this batch's start to the next one's.
    pub(super) fn bytes_len(&self) -> u64 {
        let bytes = BATCH_HEADER_BYTES as u64 + u64::from(self.body_len);
        bytes.next_multiple_of(BATCH_ALIGN as u64)
    }

    /// Offset after its last record.
    pub(super) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }

    /// True if `batch`, header and padding included, is what was written.
    pub(super) fn holds(&self, batch: &[u8]) -> bool {
        let covered = batch.get(..36).zip(batch.get(BATCH_HEADER_BYTES..));
        covered.is_some_and(|(header, body)| {
            crc32c::crc32c_append(crc32c::crc32c(header), body) == self.check
        })
    }
}

/// Bytes of padding after `len` bytes of header and records.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(BATCH_ALIGN) - len
}

/// Takes little-endian fields off the front of a byte slice.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
