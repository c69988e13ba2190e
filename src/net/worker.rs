//! One worker: a thread with a runtime of its own, the home of its sessions.
//!
//! A turn of the runtime runs every task that is ready; each reads its socket, and what it
//! records goes to the worker's open batch. The *flush* task stands behind them in the queue and
//! hands the batch to the committer, once per turn. After a sync the committer wakes the
//! worker's *release* task, which walks the ledger and writes all acks that became true.
//! Everything here runs on one thread: the cells are borrowed for one synchronous step each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::{Notify, mpsc};
use tokio::task::coop::unconstrained;

use super::connection::{Connection, End};
use super::home;
use super::linger::LINGER;
use super::outbox::{Outbox, Purpose};
use super::start::{Guards, spawn_vital};
use crate::broker::feed::Feeds;
use crate::broker::{Command, SessionTable};
use crate::device_api::Profile;
use crate::identity::Registry;
use crate::journal::{Journal, RecordHeader};
use crate::metrics::{
    ConnectRefusal as RefusedConnect, Metrics, Refusal, SlowReader, WorkerCounters,
};
use crate::mqtt::session::{Close, ConnectRefusal, Replies, SessionLimits};
use crate::mqtt::wire::{Publish, QoS, ReasonCode, Version};

/// Bytes one read takes at most. One buffer serves all connections of a worker.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How often a worker looks for silent clients and expired sessions. It is the precision of
/// both; keep-alive counts in seconds.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// A sweep that is late by this much shows that the process did not run.
const PAUSE_NOTICED: Duration = Duration::from_secs(1);

/// How long a stop waits for the journal before it says goodbye.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a stop waits for the records that the goodbyes make.
const LAST_RECORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A journal that takes nothing for this long counts as full to clients (architecture section 3).
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What every worker and greeter share.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) limits: SessionLimits,
    pub(super) profile: Profile,
    pub(super) one_session: bool,
    pub(super) empty_user_name_code_4: bool,
    pub(super) metrics: Metrics,
    pub(super) feeds: Feeds,
    pub(super) journal: Journal,
    pub(super) guards: Guards,
    /// The next session number.
    pub(super) session_numbers: AtomicU32,
    /// Where clients are sent to their home worker, some at a time.
    pub(super) homes: Vec<mpsc::Sender<Vec<super::handshake::Arrival>>>,
}

/// One worker's state.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) read_buffer: RefCell<Vec<u8>>,
    pub(super) replies: RefCell<Replies>,
    /// Packets of the application feed for one write.
    pub(super) feed_buffer: RefCell<Vec<u8>>,
    pub(super) connections: RefCell<Slab<Rc<Connection>>>,
    pub(super) sessions: RefCell<SessionTable>,
    /// Clients let in whose session cannot be recorded yet.
    pub(super) arrivals_waiting: Cell<usize>,
    outbox: RefCell<Outbox>,
    counters: RefCell<WorkerCounters>,
    generations: Cell<u32>,
    /// Connections with parked packets, oldest first.
    parked: RefCell<VecDeque<(u32, u32)>>,
    /// Since when the journal takes nothing more.
    behind_since: Cell<Option<Instant>>,
    is_stopping: Cell<bool>,
    /// Connection tasks that have not returned yet.
    pub(super) tasks: Cell<usize>,
    flush: Notify,
    /// Wakes the release task; the committer calls it from its own thread.
    durable: Arc<Notify>,
    /// Wakes those who wait for room or for the last ack.
    pub(super) progress: Notify,
}

impl Worker {
    /// A worker with the sessions that are at home here.
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        journal: &Journal,
        sessions: SessionTable,
    ) -> Rc<Self> {
        let durable = Arc::new(Notify::new());
        let wake = Arc::clone(&durable);
        let submitter = journal.submitter(Arc::new(move || wake.notify_one()));
        let counters = shared.metrics.worker();
        Rc::new(Self {
            index,
            shared,
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES]),
            replies: RefCell::default(),
            feed_buffer: RefCell::default(),
            connections: RefCell::default(),
            sessions: RefCell::new(sessions),
            arrivals_waiting: Cell::new(0),
            outbox: RefCell::new(Outbox::new(submitter)),
            counters: RefCell::new(counters),
            generations: Cell::new(0),
            parked: RefCell::default(),
            behind_since: Cell::new(None),
            is_stopping: Cell::new(false),
            tasks: Cell::new(0),
            flush: Notify::new(),
            durable,
            progress: Notify::new(),
        })
    }

    /// Runs until the control lane closes or a stop is confirmed.
    pub(super) async fn run(
        self: Rc<Self>,
        mut control: mpsc::Receiver<Command>,
        mut arrivals: mpsc::Receiver<Vec<super::handshake::Arrival>>,
    ) {
        // Unconstrained: the runtime lets a task do 128 reads and writes at a time, and a sync may
        // have an ack for each of thousands of connections. Those beyond would be kept in memory
        // and their tasks woken, one by one.
        spawn_vital(unconstrained(flush_each_turn(Rc::clone(&self))));
        spawn_vital(unconstrained(release_after_sync(Rc::clone(&self))));
        spawn_vital(sweep(Rc::clone(&self)));
        spawn_vital(super::feed::run(Rc::clone(&self)));
        loop {
            // Cancel-safe: `recv` loses nothing when another branch wins. Control goes first.
            tokio::select! {
                biased;
                command = control.recv() => match command {
                    Some(Command::Apply { change, reply }) => {
                        // A caller that no longer waits has been told "not yet confirmed".
                        let _ = reply.send(home::apply(&self, &change));
                    }
                    Some(Command::Stop { reply }) => {
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
                Some(some) = arrivals.recv() => {
                    some.into_iter().for_each(|arrival| home::arrive(&self, arrival));
                    // Clients that are connected have their turn before the next ones come.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// A number for a new connection, so that a reused slot is not mistaken for the old one.
    pub(super) fn next_generation(&self) -> u32 {
        let generation = self.generations.get().wrapping_add(1);
        self.generations.set(generation);
        generation
    }

    /// A number for a new session, unique in this journal until 2^32 sessions have begun.
    pub(super) fn next_session_number(&self) -> u32 {
        loop {
            let number = self.shared.session_numbers.fetch_add(1, Ordering::Relaxed);
            if number != 0 {
                return number;
            }
        }
    }

    /// The connection in `slot`, unless it is another one by now.
    pub(super) fn connection(&self, slot: u32, generation: u32) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        connections
            .get(slot as usize)
            .filter(|held| held.generation == generation)
            .cloned()
    }

    /// True once the worker is to stop: nothing more is read.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// True if the journal has taken nothing for [`STUCK_AFTER`].
    pub(super) fn is_stuck(&self) -> bool {
        self.behind_since
            .get()
            .is_some_and(|since| since.elapsed() >= STUCK_AFTER)
    }

    /// Makes room for a record, or notes that the journal is behind. Telemetry does not pass
    /// connections that are parked already.
    pub(super) fn make_room(&self, bytes: usize, purpose: Purpose) -> bool {
        let has_room = self.outbox.borrow_mut().make_room(bytes, purpose);
        if !has_room && self.behind_since.get().is_none() {
            self.behind_since.set(Some(Instant::now()));
        }
        has_room
    }

    /// Appends a record to the open batch; false if it does not fit.
    pub(super) fn record(&self, header: &RecordHeader, body: &[u8]) -> bool {
        self.outbox.borrow_mut().record(header, body)
    }

    /// Appends a message to the open batch; false if it does not fit.
    pub(super) fn message(
        &self,
        header: &RecordHeader,
        publish: &Publish<'_>,
        now: Instant,
    ) -> bool {
        self.outbox
            .borrow_mut()
            .message(header, publish.payload, publish.qos, now)
    }

    /// Queues acks behind the records of the open batch.
    pub(super) fn acknowledge_later(&self, slot: u32, generation: u32, bytes: &[u8], places: u16) {
        self.outbox
            .borrow_mut()
            .acknowledge(slot, generation, bytes, places);
    }

    /// True if every record is durable and no ack waits: then nothing can be overtaken.
    pub(super) fn is_settled(&self) -> bool {
        self.outbox.borrow().is_settled()
    }

    /// Lets the flush task run behind all tasks that are ready now.
    pub(super) fn hand_over_soon(&self) {
        if self.outbox.borrow().is_pending() {
            self.flush.notify_one();
        }
    }

    /// Notes a connection with parked packets.
    pub(super) fn resume_later(&self, slot: u32, generation: u32) {
        self.parked.borrow_mut().push_back((slot, generation));
    }

    pub(super) fn count_received(&self, qos: QoS) {
        self.counters.borrow_mut().received(qos.as_u8(), 1);
    }

    pub(super) fn count_refused(&self, why: Refusal) {
        self.counters.borrow_mut().refused(why, 1);
    }

    pub(super) fn count_repeated(&self) {
        self.counters.borrow_mut().repeated();
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut WorkerCounters)) {
        let counters = &mut *self.counters.borrow_mut();
        what(counters);
        counters.flush();
    }

    pub(super) fn count_connect_refused(&self, why: RefusedConnect) {
        self.count(|counters| counters.connect_refused(why));
    }

    /// Lets go of a connection: its session is stored or ends, its slot is free.
    /// Does nothing for a connection that was let go before.
    pub(super) fn end(&self, connection: &Connection, end: End) {
        if connection.is_over.replace(true) {
            return;
        }
        if let End::Closed(close) = end {
            connection.close(close);
        }
        self.connections
            .borrow_mut()
            .remove(connection.slot as usize);
        {
            let inner = connection.inner.borrow();
            let counters = &mut *self.counters.borrow_mut();
            for qos in inner.parked_messages() {
                counters.received(qos.as_u8(), 1);
                counters.refused(Refusal::Disconnected, 1);
            }
            counters.disconnected();
            counters.flush();
        }
        tracing::debug!(device = %connection.principal.identity, ?end, "connection ended");
        home::keep_or_end(self, connection);
    }

    /// Hands over what is pending; wakes parked connections when there is room again.
    fn flush(&self) {
        if !self.outbox.borrow().is_pending() && self.behind_since.get().is_none() {
            // As after most syncs: nothing came meanwhile, and nobody waits for room.
            self.counters.borrow_mut().flush();
            return;
        }
        let handed_over = self.outbox.borrow_mut().hand_over();
        if handed_over {
            self.behind_since.set(None);
            self.progress.notify_waiters();
            self.resume_parked();
            // Acks that came without a record of their own may wait for nothing any more, and
            // then no sync follows that would release them.
            self.release();
        } else if self.behind_since.get().is_none() {
            self.behind_since.set(Some(Instant::now()));
        }
        self.counters.borrow_mut().flush();
    }

    /// Writes the acks of everything that is durable.
    fn release(&self) {
        loop {
            let Some(acks) = self.outbox.borrow_mut().release() else {
                break;
            };
            for (run, bytes) in acks.iter() {
                if let Some(connection) = self.connection(run.slot, run.generation) {
                    connection.acknowledge(self, bytes, run.places);
                }
            }
            self.count_stored(&acks);
            self.outbox.borrow_mut().recycle(acks);
        }
        self.progress.notify_waiters();
    }

    fn count_stored(&self, acks: &super::ledger::Acks) {
        let counters = &mut *self.counters.borrow_mut();
        for (qos, messages) in (0_u8..).zip(acks.messages()) {
            if messages > 0 {
                counters.stored(qos, u64::from(messages));
            }
        }
        if let Some((runs, wait)) = acks.wait(Instant::now()) {
            counters.acknowledged(wait, runs);
        }
    }

    fn resume_parked(&self) {
        loop {
            let Some((slot, generation)) = self.parked.borrow().front().copied() else {
                return;
            };
            let outcome = match self.connection(slot, generation) {
                Some(connection) => match connection.resume(self) {
                    Ok(is_through) => is_through,
                    Err(end) => {
                        self.end(&connection, end);
                        true
                    }
                },
                None => true,
            };
            if !outcome {
                return;
            }
            self.parked.borrow_mut().pop_front();
        }
    }

    /// Cuts off silent clients, drops expired sessions, tells MQTT 5 clients of a stuck journal.
    fn sweep_at(&self, now: Instant) {
        let is_stuck = self.is_stuck();
        let (mut over, mut refused, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        for (_, connection) in self.connections.borrow().iter() {
            let inner = connection.inner.borrow();
            let is_v5 = inner.session.version() == Version::V5;
            if is_stuck && inner.waits_for_connack() {
                refused.push(Rc::clone(connection));
            } else if is_stuck && is_v5 && inner.is_waiting_for_journal() {
                // Its acknowledgements cannot be taken back one by one without overtaking those
                // before them, so the connection says it for all [MQTT-4.6.0-2].
                over.push((Rc::clone(connection), ReasonCode::QuotaExceeded));
            } else if !inner.is_stalled() && inner.session.keep_alive_deadline() <= now {
                over.push((Rc::clone(connection), ReasonCode::KeepAliveTimeout));
            } else if inner
                .output
                .is_stuck(now, self.shared.guards.unsent.timeout)
            {
                slow.push(Rc::clone(connection));
            } else if inner.output.is_broken() {
                inner.output.wake();
            }
        }
        for (connection, reason) in over {
            self.end(&connection, End::Closed(Close::because(reason)));
        }
        for connection in slow {
            home::cut_off(self, &connection, SlowReader::Time);
        }
        for connection in refused {
            home::refuse(self, &connection, ConnectRefusal::StorageFull);
        }
        home::drop_expired(self, now);
    }

    /// Says goodbye to everybody once what they were promised is durable.
    async fn stop(self: &Rc<Self>) {
        self.is_stopping.set(true);
        // A journal that takes nothing does not keep clients from hearing that the server stops:
        // what is not acknowledged then was never promised.
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, self.settle()).await;
        let all: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .map(|(_, held)| Rc::clone(held))
            .collect();
        for connection in all {
            self.end(
                &connection,
                End::Closed(Close::because(ReasonCode::ServerShuttingDown)),
            );
        }
        // The ends of sessions are records too.
        let _ = tokio::time::timeout(LAST_RECORDS_TIMEOUT, self.settle()).await;
        let drained = async {
            while self.tasks.get() > 0 {
                self.progress.notified().await;
            }
        };
        // What is still open after that is closed with the runtime.
        let _ = tokio::time::timeout(LINGER, drained).await;
    }

    /// Waits until every record is durable and every ack of it written.
    async fn settle(&self) {
        loop {
            self.flush();
            self.release();
            // Made behind both, which notify: nothing else runs between this and the await.
            let progress = self.progress.notified();
            if self.outbox.borrow().is_settled() {
                return;
            }
            progress.await;
        }
    }
}

async fn flush_each_turn(worker: Rc<Worker>) {
    loop {
        worker.flush.notified().await;
        worker.flush();
    }
}

async fn release_after_sync(worker: Rc<Worker>) {
    loop {
        worker.durable.notified().await;
        worker.shared.feeds.durable();
        worker.release();
        // Room may have come back with the sync.
        worker.flush();
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        // After a pause of this process, what clients sent meanwhile is read first: they were not
        // silent, we were.
        let was_paused = now - last > SWEEP_INTERVAL + PAUSE_NOTICED;
        last = now;
        if !was_paused {
            worker.sweep_at(now);
        }
        worker.flush();
    }
}
