//! Records: what a worker encodes into a batch and what a reader gets back.

use uuid::Uuid;

use super::format::Fields;

/// Bytes of an encoded record header; the body follows it at once.
pub const RECORD_HEADER_BYTES: usize = 52;

/// Largest batch a worker may submit, in bytes with record headers. Bounds what one turn of a
/// worker can pile up under a QoS 0 flood; beyond it [`Batch::push`] answers [`BatchFull`].
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Largest body of one record in bytes: the largest packet there may be (496 KiB), the topic that
/// its alias stood for (64 KiB), and who gets it. Beyond it [`Batch::push`] answers [`BatchFull`]
/// even when the batch is empty.
pub const RECORD_BODY_BYTES_MAX: usize = 896 * 1024;

const _: () = assert!(RECORD_BODY_BYTES_MAX + RECORD_HEADER_BYTES < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < u32::MAX as usize);

/// Number of a record: the first is 1, each next one is one more, none is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// Before the first record: nothing.
    pub const ZERO: Offset = Offset(0);

    /// The offset with this number; 0 is [`Offset::ZERO`].
    #[must_use]
    pub const fn new(number: u64) -> Offset {
        Offset(number)
    }

    /// The number itself, for storing it elsewhere.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The offset of the record after this one.
    #[must_use]
    pub const fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a record says. Readers skip kinds they do not know, so a later version may add some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A telemetry message; the body is its payload. With QoS 2 it holds the packet id (REL-03).
    Telemetry = 1,
    /// PUBREL of a QoS 2 message: its packet id is free again.
    Release = 2,
    /// A session began.
    SessionBegin = 3,
    /// A session ended.
    SessionEnd = 4,
    /// A session's subscriptions or expiry changed.
    SessionChange = 5,
    /// How far a session's feed is settled; the body is written by the broker.
    FeedProgress = 6,
    /// A message that stored sessions get or that is retained; the body, as those of all kinds
    /// below, is written by the broker.
    Message = 7,
    /// Packet ids that messages to clients got.
    Assigned = 8,
    /// Clients have these QoS 2 messages (PUBREC).
    Received = 9,
    /// These messages are out of their sessions' queues.
    Settled = 10,
    /// A session's will, or that it has none any more.
    Will = 11,
}

impl RecordKind {
    /// The kind with this number, if this version knows it.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<RecordKind> {
        match number {
            1 => Some(RecordKind::Telemetry),
            2 => Some(RecordKind::Release),
            3 => Some(RecordKind::SessionBegin),
            4 => Some(RecordKind::SessionEnd),
            5 => Some(RecordKind::SessionChange),
            6 => Some(RecordKind::FeedProgress),
            7 => Some(RecordKind::Message),
            8 => Some(RecordKind::Assigned),
            9 => Some(RecordKind::Received),
            10 => Some(RecordKind::Settled),
            11 => Some(RecordKind::Will),
            _ => None,
        }
    }
}

/// Everything a record says beside its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record says.
    pub kind: RecordKind,
    /// QoS of the message, 0..=2.
    pub qos: u8,
    /// How the payload is to be scanned, as the device's profile said when it came in.
    pub profile_flags: u8,
    /// The scanner that accepted the payload.
    pub parser_version: u8,
    /// Wall clock at arrival, milliseconds since the Unix epoch.
    pub received_ms: u64,
    /// The device.
    pub device: Uuid,
    /// The credential the connection came in with.
    pub credential: u64,
    /// The device's generation at that time.
    pub generation: u32,
    /// Session number, 0 = none.
    pub session: u32,
    /// Packet id of a QoS 2 message, 0 = none.
    pub packet_id: u16,
}

impl RecordHeader {
    /// Whether the record says something of a session beside whose message it is: everything but
    /// telemetry of QoS 0 and 1.
    #[must_use]
    pub fn is_of_session(&self) -> bool {
        self.kind != RecordKind::Telemetry || self.packet_id != 0
    }

    fn encode(&self, body_len: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&body_len.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.profile_flags;
        bytes[6] = self.parser_version;
        bytes[7] = self.qos;
        bytes[8..16].copy_from_slice(&self.received_ms.to_le_bytes());
        bytes[16..32].copy_from_slice(self.device.as_bytes());
        bytes[32..40].copy_from_slice(&self.credential.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.generation.to_le_bytes());
        bytes[44..46].copy_from_slice(&self.packet_id.to_le_bytes());
        // 46..48 is reserved and zero.
        bytes[48..52].copy_from_slice(&self.session.to_le_bytes());
        bytes
    }
}

/// A record as a reader gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number.
    pub offset: Offset,
    /// What it says beside the body.
    pub header: RecordHeader,
    /// The body, e.g. a payload.
    pub body: &'a [u8],
}

/// The batch (or the record by itself) is over its limit; nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch has no room for a record of {body_bytes} bytes")]
pub struct BatchFull {
    /// Bytes of the body that found no room.
    pub body_bytes: usize,
}

/// A worker's open batch: records are encoded in place, and its buffer is what is written.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    records: u32,
    bytes_max: usize,
    /// One of the records [`RecordHeader::is_of_session`].
    has_sessions: bool,
}

impl Batch {
    pub(super) fn with_limit(bytes_max: usize) -> Batch {
        Batch {
            bytes: Vec::new(),
            records: 0,
            bytes_max,
            has_sessions: false,
        }
    }

    /// Adds a record: the one copy of its body in user space. Allocates only while the buffer
    /// grows to the size this worker needs; recycled batches keep theirs.
    ///
    /// # Errors
    /// [`BatchFull`] when the record does not fit in what is left (1 MiB in all, a body at most
    /// 896 KiB): submit the batch, then push the record into an empty one.
    pub fn push(&mut self, header: &RecordHeader, body: &[u8]) -> Result<(), BatchFull> {
        self.push_parts(header, &[body])
    }

    /// Adds a record whose body lies in several places, one behind the other.
    ///
    /// # Errors
    /// As [`Batch::push`].
    pub fn push_parts(&mut self, header: &RecordHeader, body: &[&[u8]]) -> Result<(), BatchFull> {
        let body_bytes = body.iter().map(|part| part.len()).sum();
        let full = BatchFull { body_bytes };
        let room = self.bytes_max.saturating_sub(self.bytes.len());
        if body_bytes > RECORD_BODY_BYTES_MAX || RECORD_HEADER_BYTES + body_bytes > room {
            return Err(full);
        }
        let body_len = u32::try_from(body_bytes).map_err(|_| full)?;
        self.bytes.extend_from_slice(&header.encode(body_len));
        for part in body {
            self.bytes.extend_from_slice(part);
        }
        self.records += 1;
        self.has_sessions |= header.is_of_session();
        Ok(())
    }

    /// True as long as nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records pushed so far.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Encoded bytes so far, record headers included.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes its buffer has room for without another allocation.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn has_sessions(&self) -> bool {
        self.has_sessions
    }

    /// Adds the records of another batch behind its own and leaves that one empty. The caller sees
    /// to the limit.
    pub(super) fn append(&mut self, other: &mut Batch) {
        self.bytes.extend_from_slice(&other.bytes);
        self.records += other.records;
        self.has_sessions |= other.has_sessions;
        other.clear();
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.has_sessions = false;
    }
}

/// The records of one commit, checked and ready to walk.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatch<'a> {
    first: Offset,
    records: u32,
    body: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// `body` must be whole: see [`RecordBatch::is_whole`].
    pub(super) fn new(first: Offset, records: u32, body: &'a [u8]) -> RecordBatch<'a> {
        RecordBatch {
            first,
            records,
            body,
        }
    }

    /// True if exactly `records` records fill `body`.
    pub(super) fn is_whole(records: u32, body: &[u8]) -> bool {
        let mut rest = body;
        for _ in 0..records {
            let Some((_, _, after)) = split_record(rest) else {
                return false;
            };
            rest = after;
        }
        rest.is_empty()
    }

    /// The same without the records before `from`.
    pub(super) fn starting_at(mut self, from: Offset) -> RecordBatch<'a> {
        while self.first < from && self.records > 0 {
            let Some((_, _, rest)) = split_record(self.body) else {
                break;
            };
            self.body = rest;
            self.records -= 1;
            self.first = self.first.next();
        }
        self
    }

    /// Offset of the first record.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// Offset after the last record: where a cursor goes on once the batch is dealt with.
    #[must_use]
    pub fn next(&self) -> Offset {
        Offset(self.first.0.saturating_add(u64::from(self.records)))
    }

    /// Records in the batch, of any kind.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// True when no record is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The records in order of their offsets, without those of kinds this version does not know.
    #[must_use]
    pub fn iter(&self) -> Records<'a> {
        Records {
            next: self.first,
            left: self.records,
            rest: self.body,
        }
    }
}

impl<'a> IntoIterator for RecordBatch<'a> {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &RecordBatch<'a> {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Iterator over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    next: Offset,
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while self.left > 0 {
            let (header, body, rest) = split_record(self.rest)?;
            let offset = self.next;
            self.rest = rest;
            self.left -= 1;
            self.next = offset.next();
            if let Some(header) = decode_header(header) {
                return Some(Record {
                    offset,
                    header,
                    body,
                });
            }
        }
        None
    }
}

/// Splits the first record off: its header after the length, its body, the rest.
fn split_record(bytes: &[u8]) -> Option<(&[u8; RECORD_HEADER_BYTES], &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let body_len = u32::from_le_bytes(*header.first_chunk()?);
    let (body, rest) = rest.split_at_checked(usize::try_from(body_len).ok()?)?;
    Some((header, body, rest))
}

/// The header, unless its kind is one this version does not know.
fn decode_header(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<RecordHeader> {
    let mut fields = Fields::new(bytes);
    let _body_len = fields.u32()?;
    let kind = RecordKind::from_u8(fields.u8()?)?;
    let profile_flags = fields.u8()?;
    let parser_version = fields.u8()?;
    let qos = fields.u8()?;
    let received_ms = fields.u64()?;
    let device = Uuid::from_bytes(fields.take()?);
    let credential = fields.u64()?;
    let generation = fields.u32()?;
    let packet_id = fields.u16()?;
    let _reserved = fields.u16()?;
    let session = fields.u32()?;
    Some(RecordHeader {
        kind,
        qos,
        profile_flags,
        parser_version,
        received_ms,
        device,
        credential,
        generation,
        session,
        packet_id,
    })
}
