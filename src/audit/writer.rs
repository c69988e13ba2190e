//! The thread `audit`: takes up what was told, writes both books, syncs them.
//!
//! It works in rounds. Events of changes are read from the state database and synced in the round;
//! those of clients are synced a second after they were written, at the latest. Between two rounds
//! it pauses, so that many events share a round and nobody who tells one has to wake it; when there
//! is nothing to do it sleeps.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::alarms::Alarms;
use super::chain::{Chain, Entry};
use super::event::{Event, What};
use super::look_ups::LookUps;
use super::notice::{Notice, RefusedClientNotice, TakenOver, refused_event};
use super::shared::{Shared, Timed, held, now_ms, packed, unpacked};
use super::{Audit, AuditError, AuditLimits, Book, DIRECTORY, subscriber};
use crate::metrics::{Alarm, AuditBook, AuditFigures, AuditLoss, Metrics};
use crate::store::outbox::{self, Waiting};
use crate::store::{Store, StoreError};

/// Notices of clients that may wait, about 150 bytes each; more are counted and dropped.
const NOTICES_MAX: usize = 4_096;

/// Other events that may wait; more are counted and dropped.
const EVENTS_MAX: usize = 1_024;

/// Events of changes read at once.
const CHANGES_AT_ONCE: u32 = 1_000;

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// How long rounds go on after the last event: a gate is shut for a second.
const BUSY_FOR: Duration = Duration::from_millis(1_200);

/// Longest time that events of clients are written and not synced.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

/// After a failed write, before the next.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Opens the books and starts the thread.
pub(super) fn start(
    data_dir: &Path,
    store: &Store,
    limits: AuditLimits,
    metrics: &Metrics,
) -> Result<Audit, AuditError> {
    let directory = data_dir.join(DIRECTORY);
    let (staged, heads) =
        store.read(|connection| Ok((outbox::last(connection)?, outbox::heads(connection)?)))?;
    let [admin_head, access_head] = match heads.as_deref().and_then(unpacked) {
        Some(heads) => heads.map(Some),
        None => [None, None],
    };
    let failed = |source| AuditError::File {
        path: directory.clone(),
        source,
    };
    let open =
        |book, bytes_max, head| Chain::open(&directory, book, bytes_max, head).map_err(failed);
    let admin = open(Book::Admin, limits.admin_bytes_max, admin_head)?;
    let access = open(Book::Access, limits.access_bytes_max, access_head)?;
    let (notices, told) = sync_channel(NOTICES_MAX);
    let (events, noted) = sync_channel(EVENTS_MAX);
    // What the database no longer has was on disk in the file: nothing of it is told again.
    let change = admin.change;
    if change > staged {
        // The database is older than the book, from a backup: its numbers go on behind the book's.
        store.write(move |connection| outbox::skip_to(connection, change))?;
    }
    let heads = [admin.chain.head(), access.chain.head()];
    let figures = metrics.audit().clone();
    let shared = Shared::new(directory.clone(), notices, events, figures, (change, heads));
    let shared = Arc::new(shared);
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        store: store.clone(),
        told,
        noted,
        admin: admin.chain,
        access: access.chain,
        change,
        pending: VecDeque::new(),
        alarms: Alarms::default(),
        dirty_since: None,
        retry_at: None,
        busy_until: Instant::now(),
        is_failing: false,
    };
    for event in admin.events.into_iter().chain(access.events) {
        let (what, facts) = (event.what().as_str(), event.members());
        tracing::error!(
            what,
            facts,
            "the audit is not as it was written: run tollgate audit verify"
        );
        writer.pending.push_back((now_ms(), event));
    }
    if staged > 0 {
        shared.committed(staged);
    }
    // What a crash kept from the book is there before anything new is served.
    writer.round();
    let named = thread::Builder::new().name("audit".to_owned());
    let thread = named.spawn(move || writer.run()).map_err(failed)?;
    shared.started(thread);
    Ok(Audit { shared })
}

struct Writer {
    shared: Arc<Shared>,
    store: Store,
    told: Receiver<Timed<Notice>>,
    noted: Receiver<Timed<Event>>,
    admin: Chain,
    access: Chain,
    /// The last change whose event is written.
    change: u64,
    /// Events for the book of changes that are not written yet.
    pending: VecDeque<Timed<Event>>,
    alarms: Alarms,
    /// Since when events of clients are written and not synced.
    dirty_since: Option<Instant>,
    /// Not before then after a failed write.
    retry_at: Option<Instant>,
    /// What is left out in the second of the last event is still counted.
    busy_until: Instant,
    /// The last attempt to write failed, and that was said.
    is_failing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let is_last = self.shared.is_stopping();
            let mut has_worked = self.round();
            if is_last {
                break;
            }
            if !has_worked && !self.has_more() {
                self.shared.idle(true);
                // Once more: who told something before that line did not wake us.
                has_worked = self.round();
                if !has_worked && !self.has_more() && !self.shared.is_stopping() {
                    thread::park();
                }
                self.shared.idle(false);
            } else {
                thread::park_timeout(PAUSE);
            }
        }
        for chain in [&mut self.admin, &mut self.access] {
            if let Err(error) = chain.sync() {
                tracing::error!(%error, "the audit could not be synced at the end");
            }
        }
        self.is_synced();
        let heads = packed(&[self.admin.head(), self.access.head()]);
        let noted = self
            .store
            .write_spare(move |transaction| outbox::set_heads(transaction, &heads));
        if let Err(error) = noted {
            tracing::debug!(%error, "where the audit ended is not noted");
        }
        self.shared.over();
    }

    /// Whether something is left to do when nobody tells anything.
    fn has_more(&self) -> bool {
        self.dirty_since.is_some()
            || !self.pending.is_empty()
            || self.shared.waiting() > 0
            || Instant::now() < self.busy_until
    }

    /// Takes up what there is; answers whether there was something.
    fn round(&mut self) -> bool {
        let asked = self.shared.asked();
        // Before the others are taken up: what is told before a change is written before it.
        let staged = self.shared.staged();
        let now = Instant::now();
        let clients = self.clients(now);
        while self.pending.len() < EVENTS_MAX
            && let Ok(event) = self.noted.try_recv()
        {
            self.pending.push_back(event);
        }
        let is_paused = self.retry_at.is_some_and(|at| now < at) && !self.shared.is_stopping();
        let mut written = 0;
        if is_paused {
            self.lose(clients.len());
        } else {
            let results = [
                self.write_changes(staged),
                self.write_clients(&clients, now),
            ];
            let mut errors = Vec::new();
            for result in results {
                match result {
                    Ok(count) => written += count,
                    Err(error) => errors.push(error),
                }
            }
            self.attempted(&errors, now);
        }
        self.trim(written > 0);
        self.shared
            .answered(asked, [end_of(&self.admin), end_of(&self.access)]);
        let has_worked = written > 0 || !clients.is_empty();
        if has_worked {
            self.busy_until = now + BUSY_FOR;
        }
        has_worked
    }

    /// Copies events of changes up to `staged` from the state database, and writes the others of
    /// that book between them, by their times; all are synced.
    fn write_changes(&mut self, staged: u64) -> Result<usize, StoreError> {
        let mut total = 0;
        loop {
            let mut waiting = if staged > self.change {
                let from = self.change;
                self.store
                    .read(|connection| outbox::after(connection, from, CHANGES_AT_ONCE))?
            } else {
                Vec::new()
            };
            let read = waiting.len();
            waiting.retain(|row| row.number <= staged);
            let is_all = read < CHANGES_AT_ONCE as usize || waiting.len() < read;
            let count = waiting.len() + self.pending.len();
            if count > 0 {
                self.write_admin(&waiting)?;
                total += count;
            }
            if is_all {
                // Numbers of changes that were rolled back have no row.
                self.change = self.change.max(staged);
                self.is_synced();
                return Ok(total);
            }
        }
    }

    fn write_admin(&mut self, waiting: &[Waiting]) -> Result<(), StoreError> {
        let numbered: Vec<String> = waiting
            .iter()
            .map(|row| format!(",\"change\":{}{}", row.number, row.members))
            .collect();
        let changes = waiting.iter().zip(&numbered).map(|(row, members)| Entry {
            time_ms: row.at_ms,
            event: &row.event,
            members,
        });
        let entries = by_time(self.pending.iter().map(entry), changes);
        self.admin.append(entries).map_err(|error| full(&error))?;
        self.change = waiting.last().map_or(self.change, |row| row.number);
        let count = waiting.len() + self.pending.len();
        self.pending.clear();
        self.figures().written(AuditBook::Admin, count as u64);
        self.admin.sync().map_err(|error| full(&error))
    }

    /// Makes events of what clients did.
    fn clients(&mut self, now: Instant) -> Vec<Timed<Event>> {
        let mut events = self.left_out();
        let mut look_ups = LookUps::default();
        for _ in 0..NOTICES_MAX {
            let Ok((at_ms, notice)) = self.told.try_recv() else {
                break;
            };
            match notice {
                Notice::Connected(client) => events.push((at_ms, client.event())),
                Notice::Event(event) => events.push((at_ms, event)),
                Notice::Refused(client) => {
                    self.refused(at_ms, &client, now, &mut look_ups, &mut events);
                }
                Notice::TakenOver(what) => self.taken_over(at_ms, &what, now, &mut events),
            }
        }
        events
    }

    fn refused(
        &mut self,
        at_ms: u64,
        client: &RefusedClientNotice,
        now: Instant,
        look_ups: &mut LookUps,
        events: &mut Vec<Timed<Event>>,
    ) {
        // Before the lock: the database is asked.
        let known = look_ups.known(&self.shared, client);
        let who = (client.from, client.client_id.as_str());
        let row = held(&self.shared.table).note(at_ms, who, client.reason, known);
        if self.shared.gates.refused.admits(now) {
            events.push((at_ms, refused_event(&row)));
        }
        let source = subscriber(client.from);
        if client.is_throttled && self.alarms.throttled(source, now) {
            let alarm = Event::new(What::Alarm)
                .text("alarm", "source_throttled")
                .address("from", source);
            self.raise(at_ms, Alarm::SourceThrottled, alarm, events);
        }
    }

    fn taken_over(
        &mut self,
        at_ms: u64,
        what: &TakenOver,
        now: Instant,
        events: &mut Vec<Timed<Event>>,
    ) {
        if self.shared.gates.taken_over.admits(now) {
            events.push((at_ms, what.event()));
        }
        if self
            .alarms
            .taken_over(what.credential, what.before, what.from, now)
        {
            self.raise(at_ms, Alarm::TokenTwoAddresses, what.alarm(), events);
        }
    }

    fn raise(&self, at_ms: u64, alarm: Alarm, event: Event, events: &mut Vec<Timed<Event>>) {
        self.figures().alarm(alarm);
        tracing::warn!(facts = event.members(), "an alarm");
        events.push((at_ms, event));
    }

    /// What the gates left out since the last round.
    fn left_out(&self) -> Vec<Timed<Event>> {
        let gates = &self.shared.gates;
        let sorts = [
            ("connected", &gates.connected),
            ("refused", &gates.refused),
            ("taken_over", &gates.taken_over),
            ("call_refused", &gates.calls),
        ];
        let counted = sorts
            .into_iter()
            .map(|(sort, gate)| (sort, gate.take_left_out()));
        let events = counted
            .filter(|(_, count)| *count > 0)
            .map(|(sort, count)| {
                self.figures().lost(AuditLoss::Sampled, count);
                let event = Event::new(What::LeftOut)
                    .text("of", sort)
                    .number("count", count);
                (now_ms(), event)
            });
        events.collect()
    }

    fn write_clients(
        &mut self,
        events: &[Timed<Event>],
        now: Instant,
    ) -> Result<usize, StoreError> {
        let written = self.access.append(events.iter().map(entry));
        if let Err(error) = written {
            self.lose(events.len());
            return Err(full(&error));
        }
        self.figures()
            .written(AuditBook::Access, events.len() as u64);
        if self.access.is_dirty() {
            let since = *self.dirty_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= SYNC_WITHIN {
                self.dirty_since = None;
                self.access.sync().map_err(|error| full(&error))?;
                self.is_synced();
            }
        }
        Ok(events.len())
    }

    /// Notes how far the books are on disk. The head of the book of clients is one that may not be
    /// synced yet: it is noted only as of the last sync.
    fn is_synced(&mut self) {
        let (_, [admin, access]) = self.shared.on_disk();
        let head = |chain: &Chain, before| {
            if chain.is_dirty() {
                before
            } else {
                chain.head()
            }
        };
        let heads = [head(&self.admin, admin), head(&self.access, access)];
        self.shared.synced(self.change, heads);
        self.figures().waiting(self.shared.waiting());
    }

    /// The oldest files go when it is told that they do; on a full disk before that, to make room.
    fn trim(&mut self, has_grown: bool) {
        let is_told = self.pending.is_empty() || self.is_failing;
        for chain in [&mut self.admin, &mut self.access] {
            if is_told {
                chain.remove_leaving();
            }
            if has_grown {
                let leaving = chain.trim().into_iter();
                self.pending.extend(leaving.map(|event| (now_ms(), event)));
            }
        }
        self.figures().bytes(AuditBook::Admin, self.admin.bytes());
        self.figures().bytes(AuditBook::Access, self.access.bytes());
    }

    fn lose(&self, count: usize) {
        self.figures().lost(AuditLoss::Storage, count as u64);
    }

    /// What could not be written is tried again; that it could not is said once.
    fn attempted(&mut self, errors: &[StoreError], now: Instant) {
        self.retry_at = (!errors.is_empty()).then(|| now + RETRY_AFTER);
        if let Some(error) = errors.first().filter(|_| !self.is_failing) {
            tracing::error!(
                %error,
                "the audit cannot be written: changes are told later, clients are only counted"
            );
        }
        if self.is_failing && errors.is_empty() {
            tracing::info!("the audit is written again");
        }
        self.is_failing = !errors.is_empty();
        self.figures().failed(self.is_failing);
        if self.is_failing {
            self.figures().waiting(self.shared.waiting());
        }
    }

    fn figures(&self) -> &AuditFigures {
        &self.shared.figures
    }
}

/// Two rows of entries as one, by their times; the order within each stays.
fn by_time<'e>(
    first: impl Iterator<Item = Entry<'e>>,
    second: impl Iterator<Item = Entry<'e>>,
) -> impl Iterator<Item = Entry<'e>> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    std::iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some(a), Some(b)) if b.time_ms < a.time_ms => second.next(),
        (None, _) => second.next(),
        _ => first.next(),
    })
}

fn entry((time_ms, event): &Timed<Event>) -> Entry<'_> {
    Entry {
        time_ms: *time_ms,
        event: event.what().as_str(),
        members: event.members(),
    }
}

fn end_of(chain: &Chain) -> Option<(u64, u64)> {
    chain.newest().map(|(file, bytes)| (file.first, bytes))
}

/// Both are told and tried again in the same way.
fn full(error: &io::Error) -> StoreError {
    StoreError::Failed(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_before_a_change_is_written_before_it() {
        let entries = |times: &'static [u64], event| {
            times.iter().map(move |time_ms| Entry {
                time_ms: *time_ms,
                event,
                members: "",
            })
        };
        let merged = by_time(entries(&[1, 5, 5], "note"), entries(&[3, 5, 2], "change"));
        let merged: Vec<_> = merged.map(|entry| (entry.event, entry.time_ms)).collect();
        // The order of each stays, also where a clock was set back.
        let expected = [
            ("note", 1),
            ("change", 3),
            ("note", 5),
            ("note", 5),
            ("change", 5),
            ("change", 2),
        ];
        assert_eq!(merged, expected);
    }
}
