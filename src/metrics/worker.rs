//! What one worker counts while it works.

use std::{mem, time::Duration};

use metrics::{Counter, Gauge, Histogram};

use super::door::ConnectRefusal;
use super::feed::{self, FeedDrop};
use super::list::{self, Refusal};
use super::routing::{self, DeliveryDrop, WillEnd};
use super::{counters, one_counter, one_gauge};

/// Counters of one worker: plain integers, added to the shared figures by [`Self::flush`].
///
/// The ledger: every message received ends as stored, routed, refused or repeated, and is in flight
/// until then. Flush once per turn of the worker; what is not flushed is not visible. Dropping
/// flushes.
#[derive(Debug)]
pub struct WorkerCounters {
    received: [u64; 3],
    stored: [u64; 3],
    refused: [u64; Refusal::COUNT],
    routed: [u64; 3],
    delivered: [u64; 3],
    wills: [u64; WillEnd::COUNT],
    delivered_again: u64,
    undelivered: [u64; DeliveryDrop::COUNT],
    repeated: u64,
    connects: u64,
    disconnects: u64,
    connects_refused: [u64; ConnectRefusal::COUNT],
    takeovers: u64,
    panics: u64,
    fed: u64,
    fed_again: u64,
    feed_dropped: [u64; FeedDrop::COUNT],
    /// Something was counted since the last flush.
    touched: bool,
    handles: WorkerHandles,
}

/// The shared figures that workers add to.
#[derive(Clone, Debug)]
pub(super) struct WorkerHandles {
    received: Vec<Counter>,
    stored: Vec<Counter>,
    refused: Vec<Counter>,
    routed: Vec<Counter>,
    delivered: Vec<Counter>,
    wills: Vec<Counter>,
    delivered_again: Counter,
    undelivered: Vec<Counter>,
    repeated: Counter,
    in_flight: Gauge,
    ack_wait: Histogram,
    connections: Gauge,
    connects: Counter,
    connects_refused: Vec<Counter>,
    takeovers: Counter,
    panics: Counter,
    fed: Counter,
    fed_again: Counter,
    feed_dropped: Vec<Counter>,
}

impl WorkerCounters {
    /// `messages` PUBLISH packets of this quality of service (0 to 2) arrived complete.
    pub fn received(&mut self, qos: u8, messages: u64) {
        add(self.received.get_mut(usize::from(qos)), messages);
        self.touched = true;
    }

    /// `messages` of this quality of service (0 to 2) are on disk.
    pub fn stored(&mut self, qos: u8, messages: u64) {
        add(self.stored.get_mut(usize::from(qos)), messages);
        self.touched = true;
    }

    /// `messages` of this quality of service (0 to 2) went to those who subscribed, if anybody
    /// did, and needed no record.
    pub fn routed(&mut self, qos: u8, messages: u64) {
        add(self.routed.get_mut(usize::from(qos)), messages);
        self.touched = true;
    }

    /// `copies` were written to clients with this quality of service (0 to 2).
    pub fn delivered(&mut self, qos: u8, copies: u64) {
        add(self.delivered.get_mut(usize::from(qos)), copies);
        self.touched = true;
    }

    /// So many of those copies had been written before, to an earlier connection.
    pub fn delivered_again(&mut self, copies: u64) {
        self.delivered_again = self.delivered_again.saturating_add(copies);
    }

    /// The time of a will came.
    pub fn will(&mut self, end: WillEnd) {
        self.wills(end, 1);
    }

    /// As [`Self::will`], of several.
    pub fn wills(&mut self, end: WillEnd, wills: u64) {
        add(self.wills.get_mut(end as usize), wills);
        self.touched = true;
    }

    /// A copy of a message did not reach its subscriber, and why.
    pub fn undelivered(&mut self, reason: DeliveryDrop) {
        add(self.undelivered.get_mut(reason as usize), 1);
        self.touched = true;
    }

    /// `messages` were not stored, and why.
    pub fn refused(&mut self, reason: Refusal, messages: u64) {
        add(self.refused.get_mut(reason as usize), messages);
        self.touched = true;
    }

    /// A QoS 2 PUBLISH came again under a packet id already held.
    pub fn repeated(&mut self) {
        self.repeated = self.repeated.saturating_add(1);
        self.touched = true;
    }

    /// A run of `messages` was acknowledged, `wait` after the first of them arrived.
    ///
    /// Once per run, not per message: it goes straight to the shared distribution.
    pub fn acknowledged(&self, wait: Duration, messages: usize) {
        self.handles
            .ack_wait
            .record_many(wait.as_secs_f64(), messages);
    }

    /// A CONNECT was accepted.
    pub fn connected(&mut self) {
        self.connects = self.connects.saturating_add(1);
        self.touched = true;
    }

    /// A connection whose CONNECT was accepted is gone.
    pub fn disconnected(&mut self) {
        self.disconnects = self.disconnects.saturating_add(1);
        self.touched = true;
    }

    /// A connection got no further than its CONNECT, and why.
    pub fn connect_refused(&mut self, reason: ConnectRefusal) {
        add(self.connects_refused.get_mut(reason as usize), 1);
        self.touched = true;
    }

    /// A connection ended because a packet of it led to a panic.
    pub fn panicked(&mut self) {
        self.panics = self.panics.saturating_add(1);
        self.touched = true;
    }

    /// A connection was closed because another one took over its session.
    pub fn taken_over(&mut self) {
        self.takeovers = self.takeovers.saturating_add(1);
        self.touched = true;
    }

    /// The feed wrote messages to an application, so many of them again.
    pub fn fed(&mut self, messages: u64, again: u64) {
        self.fed = self.fed.saturating_add(messages);
        self.fed_again = self.fed_again.saturating_add(again);
        self.touched = true;
    }

    /// The feed left a message out for an application.
    pub fn feed_dropped(&mut self, reason: FeedDrop) {
        add(self.feed_dropped.get_mut(reason as usize), 1);
        self.touched = true;
    }

    /// Adds everything counted since the last flush to the shared figures.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of one turn, far below 2^53"
    )]
    pub fn flush(&mut self) {
        if !mem::take(&mut self.touched) {
            return;
        }
        let begun: u64 = self.received.iter().sum();
        let ended: u64 = self
            .stored
            .iter()
            .chain(&self.routed)
            .chain(&self.refused)
            .sum::<u64>()
            + self.repeated;
        if begun != ended {
            self.handles
                .in_flight
                .increment(begun as f64 - ended as f64);
        }
        if self.connects != self.disconnects {
            self.handles
                .connections
                .increment(self.connects as f64 - self.disconnects as f64);
        }
        self.disconnects = 0;
        move_all(&mut self.received, &self.handles.received);
        move_all(&mut self.stored, &self.handles.stored);
        move_all(&mut self.routed, &self.handles.routed);
        move_all(&mut self.delivered, &self.handles.delivered);
        move_all(&mut self.wills, &self.handles.wills);
        move_one(&mut self.delivered_again, &self.handles.delivered_again);
        move_all(&mut self.undelivered, &self.handles.undelivered);
        move_all(&mut self.refused, &self.handles.refused);
        move_all(&mut self.connects_refused, &self.handles.connects_refused);
        move_one(&mut self.repeated, &self.handles.repeated);
        move_one(&mut self.connects, &self.handles.connects);
        move_one(&mut self.takeovers, &self.handles.takeovers);
        move_one(&mut self.panics, &self.handles.panics);
        move_one(&mut self.fed, &self.handles.fed);
        move_one(&mut self.fed_again, &self.handles.fed_again);
        move_all(&mut self.feed_dropped, &self.handles.feed_dropped);
    }

    pub(super) fn new(handles: WorkerHandles) -> WorkerCounters {
        WorkerCounters {
            received: [0; 3],
            stored: [0; 3],
            refused: [0; Refusal::COUNT],
            routed: [0; 3],
            delivered: [0; 3],
            wills: [0; WillEnd::COUNT],
            delivered_again: 0,
            undelivered: [0; DeliveryDrop::COUNT],
            repeated: 0,
            connects: 0,
            disconnects: 0,
            connects_refused: [0; ConnectRefusal::COUNT],
            takeovers: 0,
            panics: 0,
            fed: 0,
            fed_again: 0,
            feed_dropped: [0; FeedDrop::COUNT],
            touched: false,
            handles,
        }
    }
}

impl Drop for WorkerCounters {
    fn drop(&mut self) {
        self.flush();
    }
}

impl WorkerHandles {
    /// Registers with the recorder of the current scope.
    pub(super) fn new(ack_wait: Histogram) -> WorkerHandles {
        WorkerHandles {
            received: counters(&list::RECEIVED),
            stored: counters(&list::STORED),
            refused: counters(&list::REFUSED),
            routed: counters(&routing::ROUTED),
            delivered: counters(&routing::DELIVERED),
            wills: counters(&routing::WILLS),
            delivered_again: one_counter(&routing::DELIVERED_AGAIN),
            undelivered: counters(&routing::UNDELIVERED),
            repeated: one_counter(&list::REPEATED),
            in_flight: one_gauge(&list::IN_FLIGHT),
            ack_wait,
            connections: one_gauge(&list::CONNECTIONS),
            connects: one_counter(&list::CONNECTS),
            connects_refused: counters(&list::CONNECTS_REFUSED),
            takeovers: one_counter(&list::TAKEOVERS),
            panics: one_counter(&list::CONNECTION_PANICS),
            fed: one_counter(&feed::DELIVERED),
            fed_again: one_counter(&feed::REDELIVERED),
            feed_dropped: counters(&feed::DROPPED),
        }
    }
}

/// Adds to a count that is there; the arrays cover every member of their list, so it always is.
fn add(count: Option<&mut u64>, more: u64) {
    if let Some(count) = count {
        *count = count.saturating_add(more);
    }
}

fn move_all(counts: &mut [u64], handles: &[Counter]) {
    for (count, handle) in counts.iter_mut().zip(handles) {
        move_one(count, handle);
    }
}

fn move_one(count: &mut u64, handle: &Counter) {
    let more = mem::take(count);
    if more > 0 {
        handle.increment(more);
    }
}
