//! Telemetry read from the journal, shared by everybody it is fed to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::identity::Registry;
use crate::journal::{Entry, Journal, JournalError, Offset, Reader, RecordBatch, RecordKind};

/// Bytes of payload in a chunk; one record more may be in it, whatever its size.
pub(super) const CHUNK_BYTES: usize = 128 * 1024;

/// Bytes of recent chunks kept for feeds that are nearly caught up.
const RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A telemetry message of a device.
#[derive(Clone, Copy, Debug)]
pub struct FedRecord {
    /// Its number in the journal.
    pub offset: u64,
    /// Wall clock at arrival, ms.
    pub received_ms: u64,
    /// Who sent it,
    pub device: Uuid,
    /// and the credential it came in with.
    pub credential: u64,
    start: usize,
    len: usize,
}

/// Consecutive telemetry of the journal, or some of it.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    records: Vec<FedRecord>,
    payloads: Vec<u8>,
    /// All telemetry from here,
    first: u64,
    /// up to and not including this offset was considered.
    pub(super) next: u64,
    /// Records from this offset up to the first one were lost.
    pub(super) missed_from: Option<u64>,
}

/// A part of a chunk.
#[derive(Clone, Debug)]
pub struct Slice {
    chunk: Arc<Chunk>,
    at: usize,
    end: usize,
    /// Before the first record of the slice, records from this offset on were lost.
    pub missed_from: Option<u64>,
}

impl Chunk {
    pub(super) fn bytes(&self) -> usize {
        self.payloads.len() + self.records.len() * size_of::<FedRecord>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn records(&self) -> &[FedRecord] {
        &self.records
    }

    fn payload(&self, record: &FedRecord) -> &[u8] {
        let end = record.start.saturating_add(record.len);
        self.payloads.get(record.start..end).unwrap_or_default()
    }

    fn push(&mut self, mut record: FedRecord, payload: &[u8]) {
        record.start = self.payloads.len();
        record.len = payload.len();
        self.payloads.extend_from_slice(payload);
        self.records.push(record);
    }

    /// The records that are wanted, as a chunk of their own.
    pub(super) fn filtered(&self, mut wanted: impl FnMut(&FedRecord) -> bool) -> Chunk {
        let mut kept = Chunk {
            first: self.first,
            next: self.next,
            ..Chunk::default()
        };
        for record in self.records.iter().filter(|record| wanted(record)) {
            kept.push(*record, self.payload(record));
        }
        kept
    }
}

impl Slice {
    /// From a record of the chunk on.
    pub(super) fn new(chunk: Arc<Chunk>, at: usize) -> Slice {
        let end = chunk.records.len();
        Slice {
            chunk,
            at,
            end,
            missed_from: None,
        }
    }

    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// True if no record is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first record with its payload.
    #[must_use]
    pub fn first(&self) -> Option<(&FedRecord, &[u8])> {
        let record = self.records().first()?;
        Some((record, self.chunk.payload(record)))
    }

    /// Drops the first record.
    pub fn pass(&mut self) {
        self.at = (self.at + 1).min(self.end);
        self.missed_from = None;
    }

    pub(super) fn records(&self) -> &[FedRecord] {
        self.chunk
            .records
            .get(self.at..self.end)
            .unwrap_or_default()
    }

    /// The records with these offsets are dropped.
    pub(super) fn without(&self, offsets: &std::collections::HashSet<u64>) -> Slice {
        let (at, end) = (self.at, self.end);
        let mut place = 0;
        let kept = self.chunk.filtered(|record| {
            let is_inside = (at..end).contains(&place);
            place += 1;
            is_inside && !offsets.contains(&record.offset)
        });
        Slice {
            missed_from: self.missed_from,
            ..Slice::new(Arc::new(kept), 0)
        }
    }

    /// What this device sent.
    pub(super) fn of(&self, device: Uuid) -> Slice {
        let (at, end) = (self.at, self.end);
        let mut place = 0;
        let kept = self.chunk.filtered(|record| {
            let is_inside = (at..end).contains(&place);
            place += 1;
            is_inside && record.device == device
        });
        Slice::new(Arc::new(kept), 0)
    }

    /// Bytes that a record counts for.
    pub(super) fn weight(record: &FedRecord) -> usize {
        record.len + size_of::<FedRecord>()
    }

    /// Splits off at most `records` from the front, and no more than one beyond `bytes`.
    pub(super) fn split(&mut self, records: usize, bytes: usize) -> Slice {
        let mut weight = 0;
        let count = self
            .records()
            .iter()
            .take(records)
            .take_while(|record| {
                let fits = weight < bytes;
                weight += Slice::weight(record);
                fits
            })
            .count();
        let at = self.at;
        self.at += count;
        Slice {
            chunk: Arc::clone(&self.chunk),
            at,
            end: at + count,
            missed_from: self.missed_from.take(),
        }
    }
}

/// What is dead: records of deleted devices.
pub(super) struct Dead {
    /// Devices deleted before this start.
    before: HashMap<Uuid, u64>,
    registry: Registry,
}

impl Dead {
    pub(super) fn new(registry: Registry) -> Dead {
        let before = registry.tombstones().into_iter().collect();
        Dead { before, registry }
    }

    fn is_dead(&self, device: Uuid, offset: u64) -> bool {
        self.before.get(&device).is_some_and(|dead| offset <= *dead)
            || self.registry.is_deleted(device)
    }
}

/// Reads the journal in chunks.
pub(super) struct ChunkReader {
    reader: Reader,
    /// Read and not taken yet: what one commit was more than a chunk.
    ready: VecDeque<Arc<Chunk>>,
    /// The offset the next chunk starts with.
    next: u64,
    missed_from: Option<u64>,
}

impl ChunkReader {
    pub(super) fn new(journal: &Journal, from: u64) -> ChunkReader {
        ChunkReader {
            reader: journal.reader(Offset::new(from)),
            ready: VecDeque::new(),
            next: from.max(1),
            missed_from: None,
        }
    }

    /// The offset that the next chunk begins with.
    pub(super) fn position(&self) -> u64 {
        self.ready.front().map_or(self.next, |chunk| chunk.first)
    }

    /// The next chunk, which may hold no record; `None` when nothing more is durable.
    pub(super) fn next(&mut self, dead: &Dead) -> Result<Option<Arc<Chunk>>, JournalError> {
        if let Some(chunk) = self.ready.pop_front() {
            return Ok(Some(chunk));
        }
        let mut chunk = Chunk {
            first: self.next,
            next: self.next,
            ..Chunk::default()
        };
        while chunk.payloads.len() < CHUNK_BYTES {
            match self.reader.next()? {
                Some(Entry::Batch(batch)) => {
                    if batch.first().number() > self.next {
                        self.missed_from.get_or_insert(self.next);
                    }
                    fill(&mut chunk, &mut self.ready, &batch, dead);
                    self.next = batch.next().number();
                }
                // Reported by the store, which reads everything; here it is a gap.
                Some(Entry::Damage(damage)) => {
                    self.missed_from.get_or_insert(damage.first.number());
                    chunk.next = damage.next.number();
                    self.next = damage.next.number();
                }
                None => break,
            }
            if !self.ready.is_empty() {
                break;
            }
        }
        if chunk.next == chunk.first {
            return Ok(None);
        }
        if !chunk.is_empty() {
            chunk.missed_from = self.missed_from.take();
        }
        Ok(Some(Arc::new(chunk)))
    }
}

/// Adds a commit's telemetry; what is beyond a chunk's size goes to further chunks.
fn fill(chunk: &mut Chunk, more: &mut VecDeque<Arc<Chunk>>, batch: &RecordBatch<'_>, dead: &Dead) {
    let mut later: Vec<Chunk> = Vec::new();
    for record in batch {
        let header = &record.header;
        let offset = record.offset.number();
        if header.kind != RecordKind::Telemetry || dead.is_dead(header.device, offset) {
            continue;
        }
        let is_full = |chunk: &Chunk| chunk.payloads.len() >= CHUNK_BYTES;
        if is_full(later.last().unwrap_or(chunk)) {
            later.last_mut().unwrap_or(chunk).next = offset;
            later.push(Chunk {
                first: offset,
                ..Chunk::default()
            });
        }
        let fed = FedRecord {
            offset,
            received_ms: header.received_ms,
            device: header.device,
            credential: header.credential,
            start: 0,
            len: 0,
        };
        later.last_mut().unwrap_or(chunk).push(fed, record.body);
    }
    later.last_mut().unwrap_or(chunk).next = batch.next().number();
    more.extend(later.into_iter().map(Arc::new));
}

/// The journal's end, read once for all who are there.
#[derive(Default)]
pub(super) struct Recent {
    reader: Option<ChunkReader>,
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

/// What is at a place of the journal.
pub(super) enum Found {
    /// This.
    Chunk(Arc<Chunk>),
    /// Nothing is durable there yet.
    Nothing,
    /// It is too long ago: read it yourself.
    Past,
}

impl Recent {
    /// The chunk that holds the offset `at`.
    pub(super) fn find(
        &mut self,
        journal: &Journal,
        at: u64,
        dead: &Dead,
    ) -> Result<Found, JournalError> {
        let place = self.chunks.partition_point(|chunk| chunk.next <= at);
        if let Some(chunk) = self.chunks.get(place).filter(|chunk| chunk.first <= at) {
            return Ok(Found::Chunk(Arc::clone(chunk)));
        }
        let end = self.reader.as_ref().map_or(0, ChunkReader::position);
        if at < end {
            return Ok(Found::Past);
        }
        if at > end {
            // Whoever is furthest leads; the others read for themselves until they are there.
            self.chunks.clear();
            self.bytes = 0;
            self.reader = Some(ChunkReader::new(journal, at));
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Found::Nothing);
        };
        let Some(chunk) = reader.next(dead)? else {
            return Ok(Found::Nothing);
        };
        self.bytes += chunk.bytes();
        self.chunks.push_back(Arc::clone(&chunk));
        while self.bytes > RECENT_BYTES_MAX && self.chunks.len() > 1 {
            let oldest = self.chunks.pop_front();
            self.bytes -= oldest.map_or(0, |chunk| chunk.bytes());
        }
        Ok(Found::Chunk(chunk))
    }

    /// Gives the memory back when nobody is fed.
    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }
}
