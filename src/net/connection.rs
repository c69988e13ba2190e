//! One client's connection on its home worker: bytes in, packets to the session, verdicts back.
//!
//! One task owns the reading side; it wakes only when the socket has something, when bytes are
//! left to write, or when it is to end. Acknowledgements are written by the worker straight from
//! its ledger, so a sync wakes no connection.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::feed::Feeding;
use super::output::Output;
use super::parked::Parked;
use super::places::Place;
use super::publish::Recorded;
use super::tls;
use super::walks::Walk;
use super::websocket;
use super::worker::Worker;
use crate::broker::SessionKey;
use crate::broker::tree::Subscriptions;
use crate::identity::{Action, Permit, Principal, QuotaPlace};
use crate::metrics::{SlowReader, TlsFailure};
use crate::mqtt::session::{Close, Replies, Session};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

/// Reads one connection does before the others get their turn.
const READS_PER_TURN: usize = 4;

/// What one read takes while the journal is behind, in bytes: what cannot be taken then is kept
/// by its connection until there is room, and many connections may send at once.
const BEHIND_READ_BYTES: usize = 8 * 1024;

/// The start of a packet that is put before what is read next, in bytes: copying more each time
/// would cost more than it saves.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// One connection. It is shared by its own task and the worker, both on one thread; the inner
/// state is borrowed for the length of one synchronous step and never across an await.
pub(super) struct Connection {
    /// Its place on the worker.
    pub(super) slot: u32,
    /// Tells it from earlier and later connections in the same slot.
    pub(super) generation: u32,
    /// Who it is.
    pub(super) principal: Principal,
    /// Its place in the quota of its credential, if that has one; given up when it ends.
    pub(super) quota: RefCell<Option<QuotaPlace>>,
    /// When it was let in; wall clock, ms.
    pub(super) since_ms: u64,
    /// When its credential ends by itself, as it stands now; wall clock, ms.
    pub(super) expires_at_ms: Cell<Option<u64>>,
    /// What it may do: the one gate of everything that it sends and is sent. Replaced when the
    /// rights of its identity change; `principal.permit` is what it was at CONNECT.
    pub(super) permit: RefCell<Arc<Permit>>,
    /// Which session it is connected to.
    pub(super) key: SessionKey,
    /// Where it comes from; behind a proxy what that says.
    pub(super) from: IpAddr,
    /// The session's number in the journal; 0 if nothing of it outlives the connection.
    pub(super) session_number: u32,
    /// The session expiry the journal knows, in seconds.
    pub(super) expiry_recorded_s: u32,
    /// It came with a will, which the journal knows.
    pub(super) has_will: bool,
    /// Set when the worker has let go of it; nothing it says counts any more.
    pub(super) is_over: Cell<bool>,
    /// Its place among all connections, given up when the socket is closed.
    pub(super) _place: Place,
    /// The moving parts.
    pub(super) inner: RefCell<Inner>,
}

/// What changes while a connection lives.
pub(super) struct Inner {
    pub(super) session: Session,
    pub(super) output: Output,
    /// The start of a packet whose rest has not come; empty, without memory, between packets.
    partial: Vec<u8>,
    /// Packets that wait for room in the journal.
    pub(super) parked: Parked,
    /// Nothing more is read until the parked packets are through.
    pub(super) is_stalled: bool,
    /// Runs of acks in the worker's ledger.
    runs_waiting: u32,
    /// Something was recorded that no ack went with, such as a retained message of QoS 0. The next
    /// ack waits for it: who publishes because of that one stands behind it in the journal.
    has_unanswered: bool,
    /// Runs of acks so far, those included that did not have to wait.
    pub(super) runs_pushed: u32,
    /// Retained messages on their way.
    pub(super) walks: Vec<Walk>,
    /// What a walk found is on its way to the disk.
    pub(super) walk_waits: bool,
    /// CONNACK is among them: nothing may overtake it.
    pub(super) connack_waits: bool,
    /// The end that what came with CONNECT has led to.
    ends_with: Option<End>,
    /// An application's feeds.
    pub(super) feeding: Option<Box<Feeding>>,
    /// The client settled messages since the feeds were looked at.
    pub(super) has_settled: bool,
    /// What a session that ends with this connection has in the subscription tree.
    pub(super) subscriptions: Option<Box<Subscriptions>>,
    /// It is in the worker's list of connections with deliveries of this turn.
    pub(super) is_dirty: bool,
    /// The client sends nothing more; it may still wait for acknowledgements.
    input_ended: bool,
}

/// Why the connection's task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed, or the network did.
    Lost,
    /// The client said DISCONNECT.
    Disconnected,
    /// The server ended it, for this reason.
    Closed(Close),
}

/// The time of one read, taken once for all packets in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// Monotonic.
    pub(super) now: Instant,
    /// Wall clock, milliseconds since the Unix epoch.
    pub(super) wall_ms: u64,
}

impl Clocks {
    pub(super) fn read() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self {
            now: Instant::now(),
            wall_ms,
        }
    }
}

impl Inner {
    pub(super) fn new(session: Session, output: Output) -> Self {
        Self {
            session,
            output,
            partial: Vec::new(),
            parked: Parked::default(),
            is_stalled: false,
            runs_waiting: 0,
            has_unanswered: false,
            runs_pushed: 0,
            walks: Vec::new(),
            walk_waits: false,
            connack_waits: false,
            ends_with: None,
            feeding: None,
            has_settled: false,
            subscriptions: None,
            is_dirty: false,
            input_ended: false,
        }
    }

    /// Copies the kept start of a packet to the front of the buffer that is read into, and tells
    /// its length; a long one stays where it is, and the rest is added to it there.
    fn join(&self, buffer: &mut [u8]) -> usize {
        let kept = self.partial.len();
        match buffer.get_mut(..kept) {
            Some(front) if kept <= JOINED_BYTES_MAX => {
                front.copy_from_slice(&self.partial);
                kept
            }
            _ => 0,
        }
    }

    /// Keeps the start of a packet; nothing that is kept is in front of it. A large buffer that
    /// an earlier one needed is not kept for a small one: every connection may have one.
    fn keep(&mut self, rest: &[u8]) {
        let is_large = self.partial.capacity() > rest.len().max(2 * JOINED_BYTES_MAX);
        if rest.is_empty() || is_large {
            self.partial = Vec::new();
        }
        self.partial.extend_from_slice(rest);
    }

    /// Lets the connection's task end at its first turn.
    pub(super) fn ends_with(&mut self, end: End) {
        self.ends_with = Some(end);
    }

    /// True while packets wait for room in the journal.
    pub(super) fn is_waiting_for_room(&self) -> bool {
        self.is_stalled || !self.parked.is_empty()
    }

    /// True while the client has not been let in yet: its session is being recorded.
    pub(super) fn waits_for_connack(&self) -> bool {
        self.connack_waits
    }

    /// Runs of acks in the worker's ledger.
    pub(super) fn runs_waiting(&self) -> u32 {
        self.runs_waiting
    }

    /// True while acks or packets wait for the journal.
    pub(super) fn is_waiting_for_journal(&self) -> bool {
        self.runs_waiting > 0 || self.is_waiting_for_room()
    }

    /// A client that ended its sending side gets the acknowledgements of what it sent, then the
    /// close: small clients send a value and shut down behind it.
    fn poll_half_closed(&self) -> Poll<End> {
        if self.is_waiting_for_journal() {
            return Poll::Pending;
        }
        Poll::Ready(End::Lost)
    }

    /// QoS of every PUBLISH that is parked; they end with the connection.
    pub(super) fn parked_messages(&self) -> impl Iterator<Item = QoS> {
        self.parked.iter().filter_map(|packet| {
            let first = packet.first()?;
            (first >> 4 == 3)
                .then(|| QoS::from_u8((first >> 1) & 0b11))
                .flatten()
        })
    }

    /// True while the server does not read this client: its keep-alive stands still.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }
}

impl Connection {
    /// Whether its credential has ended by itself.
    pub(super) fn has_expired(&self, wall_ms: u64) -> bool {
        self.expires_at_ms.get().is_some_and(|at| at <= wall_ms)
    }

    /// True at the end of a connection whose client has said its last word, and has been told all
    /// it was to be told.
    pub(super) fn has_heard_all(&self, end: End) -> bool {
        let inner = self.inner.borrow();
        (inner.input_ended || end == End::Disconnected) && inner.output.is_with_system()
    }

    /// Whether an action on this topic is allowed now.
    #[inline]
    pub(super) fn may(&self, action: Action, topic: Topic<'_>) -> bool {
        self.permit.borrow().allows(action, topic)
    }

    /// Reads, and handles what was read, until the connection ends.
    pub(super) fn poll(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<End> {
        let inner = &mut *self.inner.borrow_mut();
        inner.output.remember(cx.waker());
        if self.is_over.get() {
            return Poll::Ready(End::Lost);
        }
        if let Some(end) = inner.ends_with {
            return Poll::Ready(end);
        }
        let was_clear = inner.output.is_clear();
        if let Poll::Ready(Err(_)) = inner.output.poll_unsent(cx) {
            if inner.output.is_overfull() {
                worker.shared.metrics.door().slow_reader(SlowReader::Bytes);
            }
            return Poll::Ready(End::Lost);
        }
        if inner.input_ended {
            return inner.poll_half_closed();
        }
        if !was_clear {
            self.pump(worker, inner);
            self.has_room_again(worker, inner);
            worker.hand_over_soon();
        }
        let buffer = &mut *worker.read_buffer.borrow_mut();
        for _ in 0..READS_PER_TURN {
            if inner.is_stalled || worker.is_stopping() {
                return Poll::Pending;
            }
            let joined = inner.join(buffer);
            let end = match worker.behind_since.get() {
                Some(_) => buffer.len().min(joined + BEHIND_READ_BYTES),
                None => buffer.len(),
            };
            let room = buffer.get_mut(joined..end).unwrap_or_default();
            let read = match inner.output.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => {
                    inner.input_ended = true;
                    return inner.poll_half_closed();
                }
                Poll::Ready(Err(error)) => {
                    count_failure(worker, &error);
                    return Poll::Ready(End::Lost);
                }
                Poll::Ready(Ok(read)) => read,
                Poll::Pending => return Poll::Pending,
            };
            if joined > 0 {
                inner.partial.clear();
            }
            let bytes = buffer.get(..joined + read).unwrap_or(&[]);
            if let Err(end) = self.received(worker, inner, bytes) {
                return Poll::Ready(end);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles bytes behind those that were kept.
    pub(super) fn received(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        bytes: &[u8],
    ) -> Result<(), End> {
        let clocks = Clocks::read();
        let replies = &mut *worker.replies.borrow_mut();
        replies.clear();
        let mut recorded = Recorded::default();
        let outcome = if inner.partial.is_empty() {
            let (taken, outcome) =
                self.consume(worker, inner, bytes, clocks, replies, &mut recorded);
            inner.keep(bytes.get(taken..).unwrap_or(&[]));
            outcome
        } else {
            let mut input = std::mem::take(&mut inner.partial);
            input.extend_from_slice(bytes);
            let (taken, outcome) =
                self.consume(worker, inner, &input, clocks, replies, &mut recorded);
            match input.get(taken..) {
                // It goes on growing where it is.
                Some(_) if taken == 0 => inner.partial = input,
                Some(rest) => inner.keep(rest),
                None => {}
            }
            outcome
        };
        self.reply(worker, inner, replies, recorded);
        if std::mem::take(&mut inner.has_settled) {
            self.pump(worker, inner);
            // Its places in the window are the queue's too.
            self.has_room_again(worker, inner);
        }
        outcome
    }

    /// Goes on with packets that had to wait. True when none waits any longer.
    pub(super) fn resume(&self, worker: &Worker) -> Result<bool, End> {
        let inner = &mut *self.inner.borrow_mut();
        let clocks = Clocks::read();
        let parked = std::mem::take(&mut inner.parked);
        let mut done = 0;
        let mut outcome = Ok(());
        {
            let replies = &mut *worker.replies.borrow_mut();
            replies.clear();
            let mut recorded = Recorded::default();
            for packet in parked.iter() {
                let needed = self.needs_room(worker, inner, packet);
                let must_wait =
                    worker.is_route_full.get() && self.must_wait_to_route(worker, inner, packet);
                if must_wait || needed.is_some_and(|(bytes, why)| !worker.make_room(bytes, why)) {
                    break;
                }
                done += 1;
                let taken = self.take_packet(worker, inner, packet, clocks, replies, &mut recorded);
                if let Err(end) = taken {
                    outcome = Err(end);
                    break;
                }
            }
            self.reply(worker, inner, replies, recorded);
        }
        inner.parked = parked;
        inner.parked.drop_front(done);
        outcome?;
        if inner.input_ended {
            inner.output.wake();
        }
        if !inner.parked.is_empty() {
            return Ok(false);
        }
        if inner.is_stalled {
            inner.is_stalled = false;
            inner.session.heard(clocks.now);
            self.received(worker, inner, &[])?;
            inner.output.wake();
        }
        Ok(!inner.is_waiting_for_room())
    }

    /// Acks whose records are durable have come to be sent.
    pub(super) fn acknowledge(&self, worker: &Worker, bytes: &[u8], places: u16) {
        let inner = &mut *self.inner.borrow_mut();
        inner.runs_waiting = inner.runs_waiting.saturating_sub(1);
        let was_waiting = std::mem::take(&mut inner.connack_waits);
        inner.session.acknowledged(places);
        inner.output.write(bytes);
        if !inner.walks.is_empty() {
            self.mark_dirty(worker, inner);
        }
        if inner.input_ended {
            inner.output.wake();
        }
        if was_waiting {
            self.pump(worker, inner);
            self.mark_dirty(worker, inner);
        }
    }

    /// Says the last word and ends the sending side; the task drains the rest.
    pub(super) fn close(&self, close: Close) {
        let inner = &mut *self.inner.borrow_mut();
        // [MQTT-3.2.0-1] nothing goes before CONNACK: a client that waits for it sees the close.
        if !inner.connack_waits {
            let mut last_word = Vec::new();
            inner.session.disconnect(close, &mut last_word);
            inner.output.write(&last_word);
        }
        inner.output.shutdown();
        inner.output.wake();
    }

    /// Sends what a step called forth, or queues it behind the records it depends on.
    pub(super) fn reply(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        replies: &mut Replies,
        recorded: Recorded,
    ) {
        if inner.connack_waits {
            replies.ordered.append(&mut replies.prompt);
        }
        inner.has_unanswered |= recorded.any;
        if !replies.ordered.is_empty() {
            inner.runs_pushed = inner.runs_pushed.wrapping_add(1);
            let depends = std::mem::take(&mut inner.has_unanswered) || inner.runs_waiting > 0;
            if depends && !worker.is_settled() {
                let (slot, generation) = (self.slot, self.generation);
                worker.acknowledge_later(slot, generation, &replies.ordered, replies.places);
                inner.runs_waiting += 1;
                inner.connack_waits |= recorded.connack;
            } else {
                inner.session.acknowledged(replies.places);
                inner.output.write(&replies.ordered);
            }
        }
        inner.output.write(&replies.prompt);
        if !inner.walks.is_empty() {
            let run = inner.runs_pushed;
            inner
                .walks
                .iter_mut()
                .for_each(|walk| walk.goes_behind(run));
            self.mark_dirty(worker, inner);
        }
        worker.hand_over_soon();
    }
}

/// A peer whose TLS or WebSocket ends for what it sent is counted, as nobody else tells of it.
fn count_failure(worker: &Worker, error: &std::io::Error) {
    let door = worker.shared.metrics.door();
    if tls::failure(error) == TlsFailure::Flood {
        door.tls_failed(TlsFailure::Flood);
    }
    if let Some(why) = websocket::failure(error) {
        tracing::debug!(%error, "a WebSocket ends");
        door.websocket_failed(why);
    }
}
