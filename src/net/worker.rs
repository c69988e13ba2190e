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
use uuid::Uuid;

use super::connection::{Connection, End};
use super::durables::Durables;
use super::home;
use super::outbox::{Outbox, Purpose};
use super::output::Lent;
use super::route::Scratch;
use super::start::{Guards, spawn_vital};
use super::statistics::Statistics;
use super::sweep::Sweeps;
use super::wills::Wills;
use super::{deliver, leave, rights, sweep, turn};
use crate::audit::Audit;
use crate::broker::feed::Feeds;
use crate::broker::router::{Parcel, Router};
use crate::broker::{Command, LiveConnection, SessionTable};
use crate::device_api::Profile;
use crate::identity::Registry;
use crate::journal::{Journal, RecordHeader};
use crate::metrics::{ConnectRefusal as RefusedConnect, Metrics, Refusal, WorkerCounters};
use crate::mqtt::session::{Encoded, Replies, SessionLimits};
use crate::mqtt::wire::{Publish, QoS};

/// Bytes one read takes at most. One buffer serves all connections of a worker.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A journal that takes nothing for this long counts as full to clients (architecture section 3).
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What every worker and greeter share.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) limits: SessionLimits,
    pub(super) profile: Profile,
    pub(super) one_session: bool,
    pub(super) empty_user_name_code_4: bool,
    /// Connections end with the token that they showed.
    pub(super) cut_at_expiry: bool,
    pub(super) metrics: Metrics,
    pub(super) audit: Audit,
    pub(super) feeds: Feeds,
    pub(super) router: Router,
    /// How often the broker's figures are published to clients; zero is never.
    pub(super) statistics_every: Duration,
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
    /// Wills whose time has not come.
    pub(super) wills: RefCell<Wills>,
    /// Identities whose retained messages are on their way out.
    pub(super) sweeps: RefCell<Sweeps>,
    /// The broker's figures for clients.
    pub(super) statistics: RefCell<Statistics>,
    /// Ends that the journal had no room for.
    pub(super) owed: RefCell<VecDeque<RecordHeader>>,
    /// Kept sessions with ordinary subscriptions.
    pub(super) durables: RefCell<Durables>,
    /// Clients let in whose session cannot be recorded yet.
    pub(super) arrivals_waiting: Cell<usize>,
    pub(super) outbox: RefCell<Outbox>,
    pub(super) counters: RefCell<WorkerCounters>,
    generations: Cell<u32>,
    /// Connections with parked packets, oldest first.
    pub(super) parked: RefCell<VecDeque<(u32, u32)>>,
    /// Since when the journal takes nothing more.
    pub(super) behind_since: Cell<Option<Instant>>,
    pub(super) is_stopping: Cell<bool>,
    /// The step at hand touches nothing but what is one client's ([`super::guard`]).
    pub(super) is_alone: Cell<bool>,
    /// Connection tasks that have not returned yet.
    pub(super) tasks: Cell<usize>,
    /// Buffers for the message that is being routed.
    pub(super) scratch: RefCell<Scratch>,
    /// Messages of kept sessions that are settled and not written down yet.
    pub(super) settled: RefCell<Vec<u8>>,
    /// Connections whose walks wait for retained messages that are under way.
    pub(super) walkers: RefCell<Vec<(u32, u32)>>,
    /// Connections that wait for room to write down a packet id.
    pub(super) starved: RefCell<Vec<(u32, u32)>>,
    /// Messages that were routed in this turn, for each worker.
    pub(super) parcels: RefCell<Vec<Parcel>>,
    /// The message that is being delivered, as packets.
    pub(super) encoded: RefCell<Encoded>,
    /// Connections with deliveries of this turn.
    pub(super) dirty: RefCell<Vec<(u32, u32)>>,
    /// Buffers for what is delivered in one turn.
    pub(super) lent: RefCell<Lent>,
    /// A client waits until there is room for what its message would route.
    pub(super) is_route_full: Cell<bool>,
    /// Something is in `parcels` or `dirty`.
    pub(super) has_routed: Cell<bool>,
    pub(super) flush: Arc<Notify>,
    /// Wakes the release task; the committer calls it from its own thread.
    pub(super) durable: Arc<Notify>,
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
        let applier = shared.router.retained.applier();
        let flush = shared.router.turn(index);
        let parcels = (0..shared.router.workers()).map(|_| Parcel::default());
        let parcels = RefCell::new(parcels.collect());
        Rc::new(Self {
            index,
            shared,
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES]),
            replies: RefCell::default(),
            feed_buffer: RefCell::default(),
            connections: RefCell::default(),
            sessions: RefCell::new(sessions),
            wills: RefCell::default(),
            sweeps: RefCell::default(),
            statistics: RefCell::new(Statistics::new(Instant::now())),
            owed: RefCell::default(),
            durables: RefCell::default(),
            arrivals_waiting: Cell::new(0),
            outbox: RefCell::new(Outbox::new(submitter, applier)),
            counters: RefCell::new(counters),
            generations: Cell::new(0),
            parked: RefCell::default(),
            behind_since: Cell::new(None),
            is_stopping: Cell::new(false),
            is_alone: Cell::new(false),
            tasks: Cell::new(0),
            scratch: RefCell::default(),
            settled: RefCell::default(),
            walkers: RefCell::default(),
            starved: RefCell::default(),
            parcels,
            encoded: RefCell::default(),
            dirty: RefCell::default(),
            lent: RefCell::default(),
            is_route_full: Cell::new(false),
            has_routed: Cell::new(false),
            flush,
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
        spawn_vital(unconstrained(turn::flush_each_turn(Rc::clone(&self))));
        spawn_vital(unconstrained(turn::release_after_sync(Rc::clone(&self))));
        spawn_vital(sweep::sweep(Rc::clone(&self)));
        spawn_vital(unconstrained(deliver::run(Rc::clone(&self))));
        spawn_vital(super::feed::run(Rc::clone(&self)));
        loop {
            // Cancel-safe: `recv` loses nothing when another branch wins. Control goes first.
            tokio::select! {
                biased;
                command = control.recv() => match command {
                    Some(Command::Apply { changes, is_dry, reply }) => {
                        let receipts = rights::apply_all(&self, &changes, is_dry).await;
                        // A caller that no longer waits has been told "not yet confirmed".
                        let _ = reply.send(receipts);
                    }
                    Some(Command::Find { identities, reply }) => {
                        let _ = reply.send(self.find(&identities));
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

    /// Who is connected here as one of these identities.
    fn find(&self, identities: &[Uuid]) -> Vec<LiveConnection> {
        let (sessions, connections) = (self.sessions.borrow(), self.connections.borrow());
        let slots = identities.iter().flat_map(|id| sessions.live_of(*id));
        let found = slots.filter_map(|slot| connections.get(slot as usize));
        let found = found.map(|connection| LiveConnection {
            identity: connection.principal.identity,
            credential: connection.principal.credential,
            client_id: connection.key.client_id.clone(),
            from: connection.from,
            since_ms: connection.since_ms,
        });
        found.collect()
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
        // What is owed stands before whatever else is recorded of sessions.
        let is_free = leave::write_owed(self) || purpose == Purpose::Message;
        let has_room = is_free && self.outbox.borrow_mut().make_room(bytes, purpose);
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
        if self.outbox.borrow().is_pending() || self.has_routed.get() {
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

    pub(super) fn count_routed(&self, qos: QoS) {
        self.counters.borrow_mut().routed(qos.as_u8(), 1);
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
            let inner = &mut *connection.inner.borrow_mut();
            inner.output.flush(&mut self.lent.borrow_mut());
            let counters = &mut *self.counters.borrow_mut();
            for qos in inner.parked_messages() {
                counters.received(qos.as_u8(), 1);
                counters.refused(Refusal::Disconnected, 1);
            }
            counters.disconnected();
            counters.flush();
        }
        drop(connection.quota.take());
        if let Some(figures) = &connection.principal.figures {
            figures.disconnected();
        }
        tracing::debug!(device = %connection.principal.identity, ?end, "connection ended");
        leave::keep_or_end(self, connection);
    }
}
