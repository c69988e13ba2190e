//! All stored sessions as the journal tells them, and what changed since the last checkpoint.

use std::collections::HashMap;
use std::sync::Arc;

use super::changes::{Changes, HeldWill, Last};
use super::queues::{How, Step};
use super::session::Session;
use crate::broker::record::{self, MessageRecord, queue, will};
use crate::journal::{
    Damage, Entry, Journal, JournalError, Offset, Record, RecordHeader, RecordKind,
};
use crate::mqtt::message::Publisher;
use crate::mqtt::session::PacketIds;
use crate::mqtt::wire::PacketId;
use crate::store::sessions::SessionRow;

/// The state between two records.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pub(super) sessions: HashMap<u32, Session>,
    pub(super) changes: Changes,
    /// The last offset applied.
    pub(super) applied: Offset,
    /// The highest session number ever seen.
    pub(super) highest: u32,
}

/// How far a follower came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// Everything durable is applied.
    All,
    /// As much as may be held is: a checkpoint comes first.
    Full,
}

impl Shadow {
    /// What a checkpoint left, up to the offset `applied`.
    pub(super) fn new(rows: Vec<SessionRow>, applied: Offset) -> Shadow {
        let numbers = rows.iter().map(|row| row.number);
        Shadow {
            highest: numbers.max().unwrap_or(0),
            sessions: rows
                .into_iter()
                .map(|row| (row.number, Session::from_row(row)))
                .collect(),
            changes: Changes::default(),
            applied,
        }
    }

    /// Applies what is durable and was not applied yet, until `bytes_max` are held.
    pub(super) fn follow(
        &mut self,
        journal: &Journal,
        bytes_max: usize,
    ) -> Result<Followed, JournalError> {
        if let Some(durable) = journal.no_sessions_behind(self.applied) {
            // Telemetry of QoS 0 and 1, which is nearly everything, costs nothing here.
            self.applied = self.applied.max(durable);
            return Ok(Followed::All);
        }
        let mut reader = journal.reader(self.applied.next());
        while self.changes.bytes() < bytes_max {
            match reader.next()? {
                Some(Entry::Batch(batch)) => {
                    for record in batch {
                        self.apply(&record);
                    }
                }
                Some(Entry::Damage(damage)) => self.pass_over(&damage),
                None => return Ok(Followed::All),
            }
        }
        Ok(Followed::Full)
    }

    pub(super) fn apply(&mut self, record: &Record<'_>) {
        self.applied = record.offset;
        let header = &record.header;
        self.highest = self.highest.max(header.session);
        let is_read = match header.kind {
            RecordKind::Telemetry => {
                self.holds_id(header);
                true
            }
            RecordKind::Release => {
                self.frees_id(header);
                true
            }
            RecordKind::SessionBegin => self.describe(record, true),
            RecordKind::SessionChange => self.describe(record, false),
            RecordKind::SessionEnd => {
                self.end(header.session);
                true
            }
            RecordKind::FeedProgress => self.progress(record),
            RecordKind::Message => self.message(record),
            RecordKind::Assigned => self.assigned(record),
            RecordKind::Received => self.received(record),
            RecordKind::Settled => self.settled(record),
            RecordKind::Will => self.will(record),
        };
        if !is_read {
            tracing::warn!(
                offset = record.offset.number(),
                kind = ?header.kind,
                "stored sessions: a record cannot be read and is passed over"
            );
        }
    }

    /// A session is over, with all that belongs to it.
    pub(super) fn end(&mut self, number: u32) {
        if self.sessions.remove(&number).is_some() {
            self.changes.end(number);
        }
    }

    /// Records are lost. A message among them is in no queue; one whose settlement is lost comes
    /// again. Which QoS 2 ids of clients are still open is not known: all are free, so that a
    /// message with an id that was released meanwhile is not taken for a repeated one and lost.
    fn pass_over(&mut self, damage: &Damage) {
        let mut freed = 0;
        for (number, session) in &mut self.sessions {
            if !session.unreleased.is_empty() {
                freed += session.unreleased.len();
                session.unreleased = PacketIds::default();
                self.changes.changed.insert(*number);
            }
        }
        // The journal reports it to everybody who reads there; this says what it means here.
        tracing::error!(
            file = %damage.file.display(),
            position = damage.position,
            first = damage.first.number(),
            next = damage.next.number(),
            what = damage.what,
            unfinished_freed = freed,
            "stored sessions: a stretch of the journal is lost, with what it said of sessions, \
             queued and retained messages; what stands before and behind it is applied, and \
             unfinished QoS 2 messages of clients count as released"
        );
        self.applied = Offset::new(damage.next.number().saturating_sub(1));
    }

    fn holds_id(&mut self, header: &RecordHeader) {
        let Some(id) = PacketId::new(header.packet_id) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&header.session) {
            session.generation = session.generation.max(header.generation);
            if session.unreleased.insert(id) {
                self.changes.changed.insert(header.session);
            }
        }
    }

    fn frees_id(&mut self, header: &RecordHeader) {
        if let Some(id) = PacketId::new(header.packet_id)
            && let Some(session) = self.sessions.get_mut(&header.session)
            && session.unreleased.remove(id)
        {
            self.changes.changed.insert(header.session);
        }
    }

    fn describe(&mut self, record: &Record<'_>, begins: bool) -> bool {
        let (number, header) = (record.header.session, &record.header);
        let Some(body) = record::decode(record.body).filter(|_| number != 0) else {
            return false;
        };
        let before = self.sessions.remove(&number).filter(|_| !begins);
        let session = match before {
            Some(before) => before.with_body(body),
            None => Session {
                device: header.device,
                generation: header.generation,
                body,
                unreleased: PacketIds::default(),
                settled: HashMap::new(),
            },
        };
        let generation = session.generation.max(header.generation);
        let session = Session {
            generation,
            ..session
        };
        self.sessions.insert(number, session);
        self.changes.changed.insert(number);
        true
    }

    fn progress(&mut self, record: &Record<'_>) -> bool {
        let Some((settled, filter)) = record::decode_progress(record.body) else {
            return false;
        };
        let number = record.header.session;
        if let Some(session) = self.sessions.get_mut(&number) {
            session.settled.insert(filter.into(), settled);
            self.changes.changed.insert(number);
        }
        true
    }

    fn message(&mut self, record: &Record<'_>) -> bool {
        let Some(read) = MessageRecord::decode(record.body) else {
            return false;
        };
        let (header, offset) = (&record.header, record.offset.number());
        self.holds_id(header);
        if read.flags.will && self.sessions.contains_key(&header.session) {
            self.changes.set_will(header.session, None);
        }
        // Built when it is needed first.
        let mut built = None;
        if read.flags.retain {
            if !read.payload.is_empty() {
                built = read.message(header);
            }
            let message = built.clone();
            self.changes
                .retain(read.topic.as_str(), Last { offset, message });
        }
        let mut group = None;
        for target in read.targets() {
            let is_known = self.sessions.contains_key(&target.session);
            // One that is not known and not behind is over. One that is behind has subscribed on
            // another worker, whose records come a little later.
            if !is_known && target.session <= self.highest {
                continue;
            }
            if built.is_none() {
                built = read.message(header);
            }
            let Some(message) = &built else {
                return false;
            };
            let how = How::of(&target, &mut group);
            self.changes
                .queues
                .add((target.session, offset), how, message);
        }
        true
    }

    fn assigned(&mut self, record: &Record<'_>) -> bool {
        let Some(entries) = queue::assigned(record.body) else {
            return false;
        };
        for (at, (session, offset, packet_id)) in entries.enumerate() {
            let step = Step {
                packet_id: Some(packet_id),
                is_received: false,
                place: place(record, at),
            };
            self.step(session, offset, step);
        }
        true
    }

    fn received(&mut self, record: &Record<'_>) -> bool {
        let Some(entries) = queue::entries(record.body) else {
            return false;
        };
        for (at, (session, offset)) in entries.enumerate() {
            let step = Step {
                packet_id: None,
                is_received: true,
                place: place(record, at),
            };
            self.step(session, offset, step);
        }
        true
    }

    fn step(&mut self, session: u32, offset: u64, step: Step) {
        if self.sessions.contains_key(&session) {
            self.changes.queues.step((session, offset), step);
        }
    }

    fn settled(&mut self, record: &Record<'_>) -> bool {
        let Some(entries) = queue::entries(record.body) else {
            return false;
        };
        for (session, offset) in entries {
            if self.sessions.contains_key(&session) {
                self.changes.queues.settle((session, offset));
            }
        }
        true
    }

    fn will(&mut self, record: &Record<'_>) -> bool {
        let header = &record.header;
        let held = match record.body {
            [] => None,
            body => {
                let Some(will) = will::decode(body) else {
                    return false;
                };
                let publisher = Publisher {
                    identity: header.device.as_u128(),
                    credential: header.credential,
                    generation: header.generation,
                };
                let will = Arc::new(will);
                Some(HeldWill { will, publisher })
            }
        };
        if let Some(session) = self.sessions.get_mut(&header.session) {
            session.generation = session.generation.max(header.generation);
            self.changes.set_will(header.session, held);
        }
        true
    }
}

/// The order of deliveries that are equally far: where their records stand.
fn place(record: &Record<'_>, at: usize) -> u64 {
    let places = u64::try_from(queue::ENTRIES_MAX).unwrap_or(u64::MAX);
    let at = u64::try_from(at).unwrap_or(u64::MAX).min(places - 1);
    record
        .offset
        .number()
        .saturating_mul(places)
        .saturating_add(at)
}
