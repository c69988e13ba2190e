//! One feed: where it is in the journal, who it is given to, and what of that is settled.
//!
//! # Invariants
//! 1. Every wanted record below `read` is settled, or in `again`, in `ready`, or assigned to a
//!    member: in exactly one of them.
//! 2. What is assigned to a member that leaves, and not settled, is given to another one; without
//!    one it is read again from the journal.
//! 3. The journal keeps everything from [`Cursor::low`] on, unless it pins more than it may.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::chunk::{ChunkReader, Dead, Found, Recent, Slice};
use super::{Attach, Delivery, MemberKey, Wanted};
use crate::journal::{Hold, Journal, JournalError, Offset};

/// Bytes of records that one member may have unsettled, on its way to the client or back. One
/// record more may be, whatever its size. It bounds the memory of a slow client.
const MEMBER_BYTES_MAX: usize = 1024 * 1024;

/// Records that a member of a group gets at a time while there are others.
const SHARE_RECORDS: usize = 64;

/// Chunks that one feed takes before the others have their turn.
const CHUNKS_PER_TURN: usize = 16;

/// What a cursor reads with.
pub(super) struct Source<'a> {
    pub(super) journal: &'a Journal,
    pub(super) dead: &'a Dead,
    pub(super) recent: &'a mut Recent,
}

/// Whose cursor it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A session that is kept, by its number in the journal.
    Session(u32),
    /// A connection whose session ends with it.
    Connection(MemberKey),
    /// A share group of an application.
    Group(Uuid),
}

/// A session or connection that the feed is given to.
#[derive(Debug)]
struct Member {
    key: MemberKey,
    /// Unsettled records it may have.
    credit: usize,
    assigned: VecDeque<Slice>,
    records: usize,
    bytes: usize,
    /// Records settled since it joined, counted from the first one on.
    settled: u64,
}

/// A feed.
pub(super) struct Cursor {
    pub(super) owner: Owner,
    pub(super) filter: Box<str>,
    /// The application.
    pub(super) identity: Uuid,
    /// Sessions that keep it while nobody is connected.
    pub(super) keepers: Vec<u32>,
    /// Everything up to this offset is settled, on disk.
    pub(super) recorded: u64,
    /// Something was settled since then.
    pub(super) is_changed: bool,
    pub(super) hold: Option<Hold>,
    wanted: Wanted,
    /// The next offset to look at.
    read: u64,
    /// Records received before are left out, up to the first that is not.
    not_before_ms: u64,
    /// Offsets below `read` that have to be given again; ascending.
    again: VecDeque<u64>,
    /// Read, and nobody's yet.
    ready: VecDeque<Slice>,
    members: Vec<Member>,
    /// Reads for this cursor alone while it is far behind.
    own: Option<ChunkReader>,
    missed_from: Option<u64>,
}

impl Cursor {
    pub(super) fn new(
        owner: Owner,
        identity: Uuid,
        filter: &str,
        wanted: Wanted,
        (read, not_before_ms): (u64, u64),
        journal: &Journal,
    ) -> Cursor {
        Cursor {
            owner,
            filter: filter.into(),
            identity,
            keepers: Vec::new(),
            recorded: read.saturating_sub(1),
            is_changed: false,
            hold: Some(journal.hold(Offset::new(read))),
            wanted,
            read,
            not_before_ms,
            again: VecDeque::new(),
            ready: VecDeque::new(),
            members: Vec::new(),
            own: None,
            missed_from: None,
        }
    }

    /// True if this is the cursor that the client means.
    pub(super) fn is_for(&self, attach: &Attach) -> bool {
        self.filter == attach.filter && self.owner == attach.owner()
    }

    /// True while nobody would miss it.
    pub(super) fn is_orphan(&self) -> bool {
        self.members.is_empty() && self.keepers.is_empty()
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// The first offset that is not settled.
    pub(super) fn low(&self) -> u64 {
        let assigned = self.members.iter().flat_map(|member| &member.assigned);
        let slices = self.ready.iter().chain(assigned);
        let offsets = slices.filter_map(|slice| Some(slice.records().first()?.offset));
        let again = self.again.front().copied();
        offsets
            .chain(again)
            .min()
            .unwrap_or(self.read)
            .min(self.read)
    }

    /// Lets the journal go of what is settled, on disk.
    pub(super) fn advance(&self) {
        if let Some(hold) = &self.hold {
            hold.advance(Offset::new(self.recorded.saturating_add(1)));
        }
    }

    pub(super) fn join(&mut self, attach: &Attach) {
        self.leave(attach.member, 0, &HashSet::new());
        self.members.push(Member {
            key: attach.member,
            credit: usize::from(attach.credit).max(1),
            assigned: VecDeque::new(),
            records: 0,
            bytes: 0,
            settled: 0,
        });
        if attach.session != 0 && !self.keepers.contains(&attach.session) {
            self.keepers.push(attach.session);
        }
    }

    /// The first `front` records that a member was given are settled.
    pub(super) fn settle(&mut self, key: MemberKey, front: u64) {
        let Some(member) = self.members.iter_mut().find(|held| held.key == key) else {
            return;
        };
        let mut count = front.saturating_sub(member.settled);
        member.settled = member.settled.max(front);
        self.is_changed |= count > 0;
        while count > 0 {
            let Some(slice) = member.assigned.front_mut() else {
                return;
            };
            let many = usize::try_from(count).unwrap_or(usize::MAX);
            let done = slice.split(many, usize::MAX);
            if slice.is_empty() {
                member.assigned.pop_front();
            }
            count -= done.len() as u64;
            member.records -= done.len();
            let weight: usize = done.records().iter().map(Slice::weight).sum();
            member.bytes -= weight;
        }
    }

    /// A member goes; `done` are offsets behind the first `front` records that are settled too.
    pub(super) fn leave(&mut self, key: MemberKey, front: u64, done: &HashSet<u64>) {
        self.settle(key, front);
        let Some(place) = self.members.iter().position(|held| held.key == key) else {
            return;
        };
        let member = self.members.swap_remove(place);
        for slice in member.assigned.into_iter().rev() {
            let left = slice.without(done);
            if !left.is_empty() {
                self.ready.push_front(left);
            }
        }
        self.is_changed |= !done.is_empty();
        if self.members.is_empty() {
            self.rest();
        }
    }

    /// Nobody is there: what was read is let go, its offsets are remembered.
    fn rest(&mut self) {
        let ready = self.ready.iter().flat_map(|slice| slice.records());
        let mut offsets: Vec<u64> = ready.map(|record| record.offset).collect();
        offsets.extend(&self.again);
        offsets.sort_unstable();
        self.again = offsets.into();
        self.ready.clear();
        self.own = None;
    }

    /// Gives out what there is. True if more may be there.
    pub(super) fn dispatch(
        &mut self,
        source: &mut Source<'_>,
        out: &mut [Vec<Delivery>],
    ) -> Result<bool, JournalError> {
        for _ in 0..CHUNKS_PER_TURN {
            self.assign(out);
            if self.free_member().is_none() || !self.ready.is_empty() {
                return Ok(false);
            }
            if !self.read_more(source)? {
                return Ok(false);
            }
        }
        self.assign(out);
        Ok(true)
    }

    /// The member that has the most room, if one has any.
    fn free_member(&mut self) -> Option<&mut Member> {
        let free = self
            .members
            .iter_mut()
            .filter(|member| member.records < member.credit && member.bytes < MEMBER_BYTES_MAX);
        free.max_by_key(|member| member.credit - member.records)
    }

    fn assign(&mut self, out: &mut [Vec<Delivery>]) {
        let is_shared = self.members.len() > 1;
        while let Some(mut slice) = self.ready.pop_front() {
            let Some(member) = self.free_member() else {
                self.ready.push_front(slice);
                return;
            };
            let room = member.credit - member.records;
            let records = if is_shared {
                room.min(SHARE_RECORDS)
            } else {
                room
            };
            let given = slice.split(records, MEMBER_BYTES_MAX - member.bytes);
            member.records += given.len();
            let weight: usize = given.records().iter().map(Slice::weight).sum();
            member.bytes += weight;
            member.assigned.push_back(given.clone());
            if let Some(out) = out.get_mut(member.key.worker) {
                out.push(Delivery {
                    member: member.key,
                    slice: given,
                });
            }
            if !slice.is_empty() {
                self.ready.push_front(slice);
            }
        }
    }

    /// Reads on. False if nothing more is durable.
    fn read_more(&mut self, source: &mut Source<'_>) -> Result<bool, JournalError> {
        if let Some(first) = self.again.front().copied() {
            self.read_again(first, source)?;
            return Ok(true);
        }
        let journal = source.journal;
        let chunk = match source.recent.find(journal, self.read, source.dead)? {
            Found::Chunk(chunk) => {
                self.own = None;
                chunk
            }
            Found::Nothing => return Ok(false),
            Found::Past => {
                let read = self.read;
                let own = self
                    .own
                    .get_or_insert_with(|| ChunkReader::new(journal, read));
                match own.next(source.dead)? {
                    Some(chunk) => chunk,
                    None => return Ok(false),
                }
            }
        };
        let mut at = chunk
            .records()
            .partition_point(|record| record.offset < self.read);
        if let Some(missed) = chunk.missed_from.filter(|missed| *missed >= self.read) {
            self.missed_from.get_or_insert(missed);
        }
        self.read = chunk.next;
        if self.not_before_ms > 0 {
            let mut rest = chunk.records().iter().skip(at);
            match rest.position(|record| record.received_ms >= self.not_before_ms) {
                Some(early) => {
                    at += early;
                    self.not_before_ms = 0;
                }
                None => return Ok(true),
            }
        }
        let mut slice = Slice::new(chunk, at);
        if let Wanted::Device(device) = self.wanted {
            slice = slice.of(device);
        }
        if !slice.is_empty() {
            slice.missed_from = self.missed_from.take();
            self.ready.push_back(slice);
        }
        Ok(true)
    }

    /// Reads what has to be given again. What is not there any more is given up.
    fn read_again(&mut self, first: u64, source: &Source<'_>) -> Result<(), JournalError> {
        let journal = source.journal;
        let own = self
            .own
            .get_or_insert_with(|| ChunkReader::new(journal, first));
        let chunk = own.next(source.dead)?;
        let next = chunk.as_ref().map_or(u64::MAX, |chunk| chunk.next);
        let behind = self.again.partition_point(|offset| *offset < next);
        let due: HashSet<u64> = self.again.drain(..behind).collect();
        if self.again.is_empty() {
            self.own = None;
        }
        if let Some(chunk) = chunk {
            let due = chunk.filtered(|record| due.contains(&record.offset));
            if !due.is_empty() {
                self.ready.push_back(Slice::new(Arc::new(due), 0));
            }
        }
        Ok(())
    }
}
