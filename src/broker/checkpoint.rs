//! Stored sessions between two starts: a reader of the journal that keeps the state database's
//! `session` table a little behind, and the start that catches up.
//!
//! The journal's records are the truth (`SessionBegin`, `SessionChange`, `SessionEnd`, and for QoS
//! 2 the messages and releases that carry a packet id). The [`Checkpointer`] applies them to a
//! shadow of all sessions and writes what changed to the database together with the offset it has
//! reached, in one transaction. A start loads that and replays the rest of the journal, so its
//! time does not grow with the journal. After a crash a session counts as disconnected at the
//! start.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::feed::RestoredFeed;
use super::record::{self, SessionBody};
use super::sessions::{SessionKey, Stored};
use crate::journal::{Entry, Hold, Journal, JournalError, Offset, Record, RecordKind};
use crate::mqtt::session::{PacketIds, SessionState, Subscribed};
use crate::mqtt::wire::{PacketId, QoS, SubscriptionOptions};
use crate::store::sessions::{self as rows, FilterRow, SessionChanges, SessionRow};
use crate::store::{Store, StoreError};

/// How often the journal is followed; between two looks it only grows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A checkpoint is written when this many records were passed since the last one: it bounds what a
/// start replays and costs one transaction.
const CHECKPOINT_RECORDS: u64 = 1_000_000;

/// And also when this many bytes were committed since then, so that large records do not make it
/// long.
const CHECKPOINT_BYTES: u64 = 256 * 1024 * 1024;

/// What the last run left.
#[derive(Debug, Default)]
pub struct Restored {
    /// Stored sessions; their clock starts now.
    pub sessions: Vec<(SessionKey, Stored)>,
    /// The first session number that was never used.
    pub next_number: u32,
    /// The feeds of these sessions.
    pub feeds: Vec<RestoredFeed>,
}

/// Why sessions could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint could not be read.
    #[error("the stored sessions cannot be read from the state database: {0}")]
    Store(#[from] StoreError),
    /// The journal could not be read.
    #[error("the stored sessions cannot be replayed from the journal: {0}")]
    Journal(#[from] JournalError),
    /// The thread could not be made.
    #[error("cannot start the thread that follows the stored sessions: {0}")]
    Thread(io::Error),
}

/// The reader that keeps the `session` table up to date; its thread is named `state-sessions`.
#[derive(Debug)]
pub struct Checkpointer {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// How far the state database is.
struct Checkpoint {
    offset: Offset,
    /// Bytes that this process had committed to the journal then; `None` for a checkpoint of an
    /// earlier process, behind which nobody knows how much there is.
    bytes: Option<u64>,
    /// What is behind it stays in the journal.
    hold: Hold,
}

/// All sessions as the journal tells them.
#[derive(Debug, Default)]
struct Shadow {
    sessions: HashMap<u32, Session>,
    changed: HashSet<u32>,
    ended: HashSet<u32>,
    /// The last offset applied.
    applied: Offset,
    highest: u32,
}

#[derive(Debug)]
struct Session {
    device: Uuid,
    body: SessionBody,
    unreleased: PacketIds,
    /// Of each feed, by its filter, the offset up to which it is settled.
    settled: HashMap<Box<str>, u64>,
}

impl Checkpointer {
    /// Restores the sessions of the last run and starts to follow the journal.
    /// `is_live` tells whether an identity can still connect; sessions of others are dropped.
    ///
    /// # Errors
    /// The checkpoint or the journal could not be read.
    pub fn start(
        store: &Store,
        journal: &Journal,
        is_live: impl Fn(Uuid) -> bool,
        now: Instant,
    ) -> Result<(Restored, Self), RestoreError> {
        let (rows, offset) = store.read(rows::load)?;
        let written = Offset::new(offset);
        // A start needs everything behind the last checkpoint.
        let last = Checkpoint {
            offset: written,
            bytes: None,
            hold: journal.hold(written.next()),
        };
        let mut shadow = Shadow::new(rows, written);
        shadow.follow(journal)?;
        let restored = shadow.restored(is_live, now);
        let (stop, stopped) = mpsc::channel();
        let (store, journal) = (store.clone(), journal.clone());
        let thread = std::thread::Builder::new()
            .name("state-sessions".to_owned())
            .spawn(move || run(shadow, last, &store, &journal, &stopped))
            .map_err(RestoreError::Thread)?;
        Ok((restored, Self { stop, thread }))
    }

    /// Writes a last checkpoint and ends the thread. Call it when the journal grows no more.
    pub fn stop(self) {
        drop(self.stop);
        // A panic was reported by the thread itself; the next start replays a little more.
        let _ = self.thread.join();
    }
}

fn run(
    mut shadow: Shadow,
    mut last: Checkpoint,
    store: &Store,
    journal: &Journal,
    stopped: &mpsc::Receiver<()>,
) {
    loop {
        let is_last = stopped.recv_timeout(FOLLOW_INTERVAL) != Err(RecvTimeoutError::Timeout);
        if let Err(error) = shadow.follow(journal) {
            tracing::warn!(%error, "stored sessions: the journal cannot be read; trying again");
        }
        let bytes = journal.usage().commit_bytes;
        if shadow.applied > last.offset && (is_last || last.is_old(shadow.applied, bytes)) {
            match shadow.save(store) {
                Ok(()) => last.moves_to(shadow.applied, bytes),
                Err(error) => {
                    tracing::warn!(%error, "stored sessions: no checkpoint; trying again");
                }
            }
        }
        if is_last {
            return;
        }
    }
}

impl Checkpoint {
    /// True if a start would have much to replay behind this one.
    fn is_old(&self, applied: Offset, bytes: u64) -> bool {
        let records = applied.number().saturating_sub(self.offset.number());
        records >= CHECKPOINT_RECORDS
            || self
                .bytes
                .is_none_or(|before| bytes.saturating_sub(before) >= CHECKPOINT_BYTES)
    }

    fn moves_to(&mut self, offset: Offset, bytes: u64) {
        self.offset = offset;
        self.bytes = Some(bytes);
        self.hold.advance(offset.next());
    }
}

impl Shadow {
    fn new(rows: Vec<SessionRow>, applied: Offset) -> Self {
        let mut shadow = Self {
            applied,
            ..Self::default()
        };
        for row in rows {
            shadow.highest = shadow.highest.max(row.number);
            let settled = row
                .filters
                .iter()
                .filter_map(|row| Some((row.filter.as_str().into(), row.settled?)))
                .collect();
            let subscriptions = row
                .filters
                .into_iter()
                .map(|row| Subscribed {
                    filter: row.filter.into(),
                    options: SubscriptionOptions {
                        qos: QoS::from_u8(row.qos).unwrap_or_default(),
                        ..SubscriptionOptions::default()
                    },
                    id: None,
                    start: row.start,
                })
                .collect();
            let body = SessionBody {
                expiry_s: row.expiry_s,
                client_id: row.client_id.into(),
                subscriptions,
            };
            let unreleased = row
                .unreleased
                .into_iter()
                .filter_map(PacketId::new)
                .collect();
            let session = Session {
                device: row.device,
                body,
                unreleased,
                settled,
            };
            shadow.sessions.insert(row.number, session);
        }
        shadow
    }

    /// Applies everything durable that was not applied yet.
    fn follow(&mut self, journal: &Journal) -> Result<(), JournalError> {
        if let Some(durable) = journal.no_sessions_behind(self.applied) {
            // Telemetry of QoS 0 and 1, which is nearly everything, costs nothing here.
            self.applied = self.applied.max(durable);
            return Ok(());
        }
        let mut reader = journal.reader(self.applied.next());
        while let Some(entry) = reader.next()? {
            match entry {
                Entry::Batch(batch) => {
                    for record in batch {
                        self.apply(&record);
                    }
                }
                Entry::Damage(damage) => {
                    // The journal reports it to everybody who reads there; the rest is applied.
                    tracing::warn!(
                        file = %damage.file.display(),
                        position = damage.position,
                        what = damage.what,
                        "stored sessions: a stretch of the journal is lost"
                    );
                    self.applied = Offset::new(damage.next.number().saturating_sub(1));
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>) {
        self.applied = record.offset;
        let number = record.header.session;
        if number == 0 {
            return;
        }
        self.highest = self.highest.max(number);
        match record.header.kind {
            RecordKind::Telemetry => {
                if let Some(id) = PacketId::new(record.header.packet_id) {
                    self.unreleased(number, |ids| ids.insert(id));
                }
            }
            RecordKind::Release => {
                if let Some(id) = PacketId::new(record.header.packet_id) {
                    self.unreleased(number, |ids| ids.remove(id));
                }
            }
            RecordKind::SessionBegin => self.describe(number, record, true),
            RecordKind::SessionChange => self.describe(number, record, false),
            RecordKind::FeedProgress => self.progress(number, record.body),
            RecordKind::SessionEnd => {
                if self.sessions.remove(&number).is_some() {
                    self.changed.remove(&number);
                    self.ended.insert(number);
                }
            }
        }
    }

    fn unreleased(&mut self, number: u32, change: impl FnOnce(&mut PacketIds) -> bool) {
        if let Some(session) = self.sessions.get_mut(&number)
            && change(&mut session.unreleased)
        {
            self.changed.insert(number);
        }
    }

    fn progress(&mut self, number: u32, body: &[u8]) {
        if let Some((settled, filter)) = record::decode_progress(body)
            && let Some(session) = self.sessions.get_mut(&number)
        {
            session.settled.insert(filter.into(), settled);
            self.changed.insert(number);
        }
    }

    fn describe(&mut self, number: u32, record: &Record<'_>, begins: bool) {
        let Some(body) = record::decode(record.body) else {
            tracing::warn!(
                offset = record.offset.number(),
                "a session record cannot be read"
            );
            return;
        };
        let before = self.sessions.remove(&number).filter(|_| !begins);
        let (unreleased, settled) = match before {
            Some(mut before) => {
                // A feed that started anew has settled nothing.
                before
                    .settled
                    .retain(|filter, _| start_of(&before.body, filter) == start_of(&body, filter));
                (before.unreleased, before.settled)
            }
            None => Default::default(),
        };
        let session = Session {
            device: record.header.device,
            body,
            unreleased,
            settled,
        };
        self.sessions.insert(number, session);
        self.changed.insert(number);
    }

    fn restored(&self, is_live: impl Fn(Uuid) -> bool, now: Instant) -> Restored {
        let mut by_key: HashMap<SessionKey, Stored> = HashMap::new();
        for (number, session) in &self.sessions {
            if !is_live(session.device) {
                continue;
            }
            let key = SessionKey {
                identity: session.device,
                client_id: session.body.client_id.clone(),
            };
            let state = SessionState {
                subscriptions: session.body.subscriptions.clone(),
                unreleased: session.unreleased.clone(),
                ..SessionState::default()
            };
            let stored = Stored::new(*number, state, session.body.expiry_s, now);
            // Of two sessions with one key the later began because the earlier had ended.
            let is_latest = by_key.get(&key).is_none_or(|held| held.number < *number);
            if is_latest {
                by_key.insert(key, stored);
            }
        }
        let sessions: Vec<(SessionKey, Stored)> = by_key.into_iter().collect();
        let held = sessions.iter().map(|(_, stored)| stored.number);
        let feeds = held.flat_map(|number| self.feeds(number)).collect();
        Restored {
            sessions,
            next_number: self.highest.wrapping_add(1).max(1),
            feeds,
        }
    }

    fn feeds(&self, number: u32) -> Vec<RestoredFeed> {
        let Some(session) = self.sessions.get(&number) else {
            return Vec::new();
        };
        let feeds = session.body.subscriptions.iter();
        feeds
            .filter(|held| held.start != 0)
            .map(|held| RestoredFeed {
                session: number,
                identity: session.device,
                filter: held.filter.clone(),
                start: held.start,
                settled: session.settled.get(&held.filter).copied(),
            })
            .collect()
    }

    fn save(&mut self, store: &Store) -> Result<(), StoreError> {
        let written = self
            .changed
            .iter()
            .filter_map(|number| Some(self.sessions.get(number)?.row(*number)))
            .collect();
        let ended = self.ended.iter().copied().collect();
        let changes = SessionChanges {
            written,
            ended,
            offset: self.applied.number(),
        };
        // The journal keeps what a checkpoint would replace: the ballast is not for this.
        store.write_spare(move |transaction| rows::save(transaction, &changes))?;
        self.changed.clear();
        self.ended.clear();
        Ok(())
    }
}

/// Where the feed of this filter starts, if the session has it.
fn start_of(body: &SessionBody, filter: &str) -> Option<u64> {
    let mut held = body.subscriptions.iter();
    held.find(|held| *held.filter == *filter)
        .map(|held| held.start)
}

impl Session {
    fn row(&self, number: u32) -> SessionRow {
        let subscriptions = self.body.subscriptions.iter();
        SessionRow {
            number,
            device: self.device,
            client_id: self.body.client_id.to_string(),
            expiry_s: self.body.expiry_s,
            unreleased: self.unreleased.iter().map(PacketId::get).collect(),
            filters: subscriptions
                .map(|held| FilterRow {
                    qos: held.options.qos.as_u8(),
                    filter: held.filter.to_string(),
                    start: held.start,
                    settled: self.settled.get(&held.filter).copied(),
                })
                .collect(),
        }
    }
}
