//! The thread `feed`: takes what the workers say, gives out what is durable, notes what is settled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chunk::{Dead, Recent};
use super::cursor::{Cursor, Owner, Source};
use super::{
    Attach, Command, Delivery, Detach, FeedLimits, MemberKey, RestoredFeed, Shared, Start, Wanted,
    now_ms, wait,
};
use uuid::Uuid;

use crate::broker::record;
use crate::identity::Registry;
use crate::journal::{Hold, Journal, JournalError, Offset, RecordHeader, RecordKind, Submitter};
use crate::metrics::{FeedFigures, Metrics};
use crate::mqtt::topic::Filter;

/// How often settled offsets are noted and holds moved.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the journal is looked at although nobody said anything: records that no worker wrote.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Pause after the journal could not be read.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Offsets that may be settled without a note, as long as no message was: a quiet feed on a busy
/// journal, or an idle broker, does not write a record every second.
const UNNOTED_MAX: u64 = 100_000;

/// How long a stop waits until the last notes are on disk.
const LAST_NOTES_TIMEOUT: Duration = Duration::from_secs(1);

/// What the thread owns.
pub(super) struct Runner {
    shared: Arc<Shared>,
    journal: Journal,
    dead: Dead,
    recent: Recent,
    submitter: Submitter,
    metrics: Metrics,
    limits: FeedLimits,
    cursors: BTreeMap<u64, Cursor>,
    next: u64,
    /// Which cursor a member has.
    routes: HashMap<MemberKey, u64>,
    /// Keeps the journal's end for feeds that start in the past.
    keep: Hold,
    out: Vec<Vec<Delivery>>,
    /// The last record handed to the journal.
    noted: Offset,
}

impl Runner {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Journal,
        registry: Registry,
        metrics: &Metrics,
        limits: FeedLimits,
    ) -> Runner {
        let keep = journal.hold(journal.tail_start(limits.keep_bytes));
        let out = shared.workers.iter().map(|_| Vec::new()).collect();
        Runner {
            submitter: journal.submitter(Arc::new(|| {})),
            shared,
            journal,
            dead: Dead::new(registry),
            recent: Recent::default(),
            metrics: metrics.clone(),
            limits,
            cursors: BTreeMap::new(),
            next: 0,
            routes: HashMap::new(),
            keep,
            out,
            noted: Offset::ZERO,
        }
    }

    /// Takes up the feeds of the last run; a group goes on where the furthest note says.
    pub(super) fn restore(&mut self, restored: Vec<RestoredFeed>) {
        for feed in restored {
            let Some(wanted) = Filter::new(&feed.filter).ok().and_then(|f| Wanted::of(&f)) else {
                continue;
            };
            let is_shared = feed.filter.starts_with("$share/");
            let owner = if is_shared {
                Owner::Group(feed.identity)
            } else {
                Owner::Session(feed.session)
            };
            let place = match feed.settled {
                Some(settled) => (settled.saturating_add(1), 0),
                None => self.resolve(Start::from_number(feed.start)),
            };
            let known = self
                .cursors
                .iter_mut()
                .find(|(_, held)| held.owner == owner && held.filter == feed.filter);
            if let Some((_, group)) = known {
                group.keepers.push(feed.session);
                if place.0 > group.low() {
                    let (identity, filter) = (feed.identity, &feed.filter);
                    let mut later =
                        Cursor::new(owner, identity, filter, wanted, place, &self.journal);
                    later.keepers = std::mem::take(&mut group.keepers);
                    *group = later;
                }
                continue;
            }
            let mut cursor = Cursor::new(
                owner,
                feed.identity,
                &feed.filter,
                wanted,
                place,
                &self.journal,
            );
            cursor.keepers.push(feed.session);
            self.add(cursor);
        }
    }

    /// Runs until it is told to stop; then it still holds the journal.
    pub(super) fn run(mut self) -> Self {
        let mut noted = Instant::now();
        loop {
            let is_stopping = self.listen();
            let mut failed = false;
            while !is_stopping
                && self.give_out().unwrap_or_else(|error| {
                    tracing::error!(%error, "the feed cannot read the journal and tries again");
                    failed = true;
                    false
                })
            {
                if self.listen_now() {
                    break;
                }
            }
            if is_stopping || noted.elapsed() >= NOTE_INTERVAL {
                self.note(None);
                self.keep();
                noted = Instant::now();
            }
            if is_stopping {
                let before = Offset::new(self.noted.number().saturating_sub(1));
                let _durable = self.journal.wait_past(before, LAST_NOTES_TIMEOUT);
                return self;
            }
            if failed {
                std::thread::sleep(RETRY_WAIT);
            }
        }
    }

    /// Waits for what the workers say, and does it. True if the thread is to stop.
    fn listen(&mut self) -> bool {
        let is_live = self.cursors.values().any(Cursor::has_members);
        self.shared.is_live.store(is_live, Ordering::Relaxed);
        if !is_live {
            self.recent.clear();
        }
        self.take(if is_live {
            LOOK_INTERVAL
        } else {
            NOTE_INTERVAL
        })
    }

    /// As [`Runner::listen`], without waiting.
    fn listen_now(&mut self) -> bool {
        self.take(Duration::ZERO)
    }

    fn take(&mut self, timeout: Duration) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut inbox = wait(&shared, timeout);
        inbox.is_durable_news = false;
        let is_stopping = inbox.is_stopping;
        let commands = std::mem::take(&mut inbox.commands);
        let settled = std::mem::take(&mut inbox.settled);
        drop(inbox);
        for (member, front) in settled {
            let cursor = self.routes.get(&member);
            if let Some(cursor) = cursor.and_then(|id| self.cursors.get_mut(id)) {
                cursor.settle(member, front);
            }
        }
        for command in commands {
            match command {
                Command::Attach(attach) => self.attach(&attach),
                Command::Detach(detach) => self.detach(detach),
                Command::EndSession(session) => self.let_go(session, |_| true),
                Command::EndSubscription { session, filter } => {
                    self.let_go(session, |of| *of == *filter);
                }
            }
        }
        is_stopping
    }

    fn attach(&mut self, attach: &Attach) {
        let mut known = self
            .cursors
            .iter()
            .find(|(_, held)| held.is_for(attach))
            .map(|(id, _)| *id);
        // Only a feed of one's own starts again; a group's others would not understand.
        let is_shared = attach.filter.starts_with("$share/");
        if let Some(id) = known.filter(|_| attach.is_restart && !is_shared) {
            self.remove(id);
            known = None;
        }
        let id = known.unwrap_or_else(|| {
            let place = self.resolve(attach.start);
            let cursor = Cursor::new(
                attach.owner(),
                attach.identity,
                &attach.filter,
                attach.wanted,
                place,
                &self.journal,
            );
            self.add(cursor)
        });
        self.routes.insert(attach.member, id);
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.join(attach);
            cursor.is_changed |= attach.is_restart;
        }
    }

    fn detach(&mut self, detach: Detach) {
        let Some(id) = self.routes.remove(&detach.member) else {
            return;
        };
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return;
        };
        let done: HashSet<u64> = detach.done.into_iter().collect();
        cursor.leave(detach.member, detach.front, &done);
        cursor
            .keepers
            .retain(|session| detach.ends_for == 0 || *session != detach.ends_for);
        if cursor.is_orphan() {
            self.remove(id);
        } else {
            self.note(Some(id));
        }
    }

    /// A session keeps no feed any more whose filter is meant.
    fn let_go(&mut self, session: u32, is_meant: impl Fn(&str) -> bool) {
        let mut orphans = Vec::new();
        for (id, cursor) in &mut self.cursors {
            if !is_meant(&cursor.filter) {
                continue;
            }
            cursor.keepers.retain(|keeper| *keeper != session);
            if cursor.is_orphan() {
                orphans.push(*id);
            }
        }
        for id in orphans {
            self.remove(id);
        }
    }

    fn add(&mut self, cursor: Cursor) -> u64 {
        self.next += 1;
        self.cursors.insert(self.next, cursor);
        self.count();
        self.next
    }

    fn remove(&mut self, id: u64) {
        self.cursors.remove(&id);
        self.routes.retain(|_, cursor| *cursor != id);
        self.count();
    }

    fn count(&self) {
        let feeds = self.cursors.len();
        self.shared.feeds.store(feeds, Ordering::Relaxed);
    }

    fn resolve(&self, start: Start) -> (u64, u64) {
        start.resolve(&self.journal).unwrap_or_else(|error| {
            tracing::error!(%error, "the place of a time cannot be found: a feed starts earlier");
            (self.journal.first().number(), 0)
        })
    }

    /// Gives everybody what they can take; true if there may be more at once.
    fn give_out(&mut self) -> Result<bool, JournalError> {
        let mut more = false;
        let mut source = Source {
            journal: &self.journal,
            dead: &self.dead,
            recent: &mut self.recent,
        };
        let mut outcome = Ok(());
        for cursor in self.cursors.values_mut().filter(|held| held.has_members()) {
            match cursor.dispatch(&mut source, &mut self.out) {
                Ok(again) => more |= again,
                Err(error) => outcome = Err(error),
            }
        }
        for (worker, deliveries) in self.shared.workers.iter().zip(&mut self.out) {
            if !deliveries.is_empty() {
                worker.put(deliveries);
            }
        }
        outcome.map(|()| more)
    }

    /// Notes what is settled, where that moved, of these feeds or of all.
    fn note(&mut self, only: Option<u64>) {
        let mut batch = self.submitter.take_batch();
        let mut noted = Vec::new();
        let mut body = Vec::new();
        for (id, cursor) in &mut self.cursors {
            if only.is_some_and(|only| only != *id) {
                continue;
            }
            let settled = cursor.low().saturating_sub(1);
            if cursor.keepers.is_empty() {
                cursor.recorded = settled;
                cursor.advance();
                continue;
            }
            let is_far = settled.saturating_sub(cursor.recorded) >= UNNOTED_MAX;
            if settled == cursor.recorded || !(cursor.is_changed || is_far) {
                continue;
            }
            body.clear();
            record::encode_progress(settled, &cursor.filter, &mut body);
            let fits = cursor.keepers.iter().all(|session| {
                let header = header(cursor.identity, *session);
                batch.push(&header, &body).is_ok()
            });
            if fits {
                noted.push((*id, settled));
            }
        }
        // A journal that takes nothing now takes it a second later.
        let Ok(last) = self.submitter.submit(batch) else {
            return;
        };
        self.noted = last;
        for (id, settled) in noted {
            if let Some(cursor) = self.cursors.get_mut(&id) {
                cursor.recorded = settled;
                cursor.is_changed = false;
                cursor.advance();
            }
        }
    }

    /// Moves the holds, lets go of what is pinned beyond the limit, and shows the figures.
    fn keep(&mut self) {
        self.keep
            .advance(self.journal.tail_start(self.limits.keep_bytes));
        let limit = self.journal.tail_start(self.limits.pin_bytes_max).number();
        let durable = self.journal.durable().number();
        let mut figures = FeedFigures {
            cursors: self.cursors.len() as u64,
            ..FeedFigures::default()
        };
        for cursor in self.cursors.values_mut() {
            let low = cursor.low();
            let lag = (durable + 1).saturating_sub(low);
            figures.lag_records = figures.lag_records.max(lag);
            if low >= limit {
                let from = Offset::new(cursor.recorded.saturating_add(1));
                cursor.hold.get_or_insert_with(|| self.journal.hold(from));
                let pinned = self.journal.bytes_from(from);
                figures.pinned_bytes = figures.pinned_bytes.max(pinned);
            } else if cursor.hold.take().is_some() {
                tracing::warn!(
                    application = %cursor.identity,
                    filter = %cursor.filter,
                    offset = low,
                    "a feed is so far behind that it pins more than feed.pin_size_max_bytes: the \
                     journal may let go of what it has not read, and it then goes on with the \
                     oldest record kept"
                );
                // Behind the line, which whoever sees the figure then finds.
                self.metrics.feed_cut();
            }
        }
        self.metrics.set_feeds(figures);
    }
}

fn header(identity: Uuid, session: u32) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::FeedProgress,
        qos: 0,
        profile_flags: 0,
        parser_version: 0,
        received_ms: now_ms(),
        device: identity,
        credential: 0,
        generation: 0,
        session,
        packet_id: 0,
    }
}
