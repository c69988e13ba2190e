//! Figures of ordinary messages: what was routed, and what became of each copy.

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, QOS_LABELS, closed_list, figure, labelled};
use super::{one_counter, one_gauge};

closed_list! {
    /// Why a copy of a message did not reach its subscriber.
    DeliveryDrop {
        /// The subscriber may not receive it (any more).
        NotAuthorized = "not_authorized",
        /// The session was gone, or had no connection for a QoS 0 message.
        Gone = "gone",
        /// The client does not read as fast as messages come (QoS 0).
        SlowReader = "slow_reader",
        /// Longer than the client's Maximum Packet Size.
        TooLarge = "too_large",
        /// Its time was over.
        Expired = "expired",
        /// The session's queue was full.
        QueueFull = "queue_full",
        /// The session ended, or another member of the share group could not take it.
        SessionEnded = "session_ended",
    }
}

/// What routing says of itself when it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoutingFigures {
    /// Subscriptions to ordinary topics.
    pub subscriptions: usize,
    /// Different filters of these.
    pub filters: usize,
    /// Bytes that the filters take, about.
    pub filter_bytes: usize,
    /// Topics with a retained message.
    pub retained_messages: usize,
    /// Bytes of these messages.
    pub retained_bytes: usize,
    /// Bytes that wait in the inboxes of the workers.
    pub inbox_bytes: usize,
    /// Parcels that found an inbox full, since the start.
    pub inbox_waits: u64,
}

/// Handles of these figures.
pub(super) struct RoutingHandles {
    subscriptions: Gauge,
    filters: Gauge,
    filter_bytes: Gauge,
    retained_messages: Gauge,
    retained_bytes: Gauge,
    inbox_bytes: Gauge,
    inbox_waits: Counter,
}

impl RoutingHandles {
    /// Registers with the recorder of the current scope.
    pub(super) fn new() -> RoutingHandles {
        RoutingHandles {
            subscriptions: one_gauge(&SUBSCRIPTIONS),
            filters: one_gauge(&FILTERS),
            filter_bytes: one_gauge(&FILTER_BYTES),
            retained_messages: one_gauge(&RETAINED),
            retained_bytes: one_gauge(&RETAINED_BYTES),
            inbox_bytes: one_gauge(&INBOX_BYTES),
            inbox_waits: one_counter(&INBOX_WAITS),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub(super) fn set(&self, figures: RoutingFigures) {
        self.subscriptions.set(figures.subscriptions as f64);
        self.filters.set(figures.filters as f64);
        self.filter_bytes.set(figures.filter_bytes as f64);
        self.retained_messages.set(figures.retained_messages as f64);
        self.retained_bytes.set(figures.retained_bytes as f64);
        self.inbox_bytes.set(figures.inbox_bytes as f64);
        self.inbox_waits.absolute(figures.inbox_waits);
    }
}

pub(super) const SUBSCRIPTIONS: Figure = figure(
    "tollgate_subscriptions",
    Kind::Gauge,
    Unit::Count,
    "Subscriptions to ordinary topics, of all sessions.",
);
pub(super) const FILTERS: Figure = figure(
    "tollgate_filters",
    Kind::Gauge,
    Unit::Count,
    "Different filters of these subscriptions.",
);
pub(super) const FILTER_BYTES: Figure = figure(
    "tollgate_filter_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory that these filters take, about.",
);
pub(super) const RETAINED: Figure = figure(
    "tollgate_retained_messages",
    Kind::Gauge,
    Unit::Count,
    "Topics with a retained message.",
);
pub(super) const RETAINED_BYTES: Figure = figure(
    "tollgate_retained_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Bytes of the retained messages.",
);
pub(super) const INBOX_BYTES: Figure = figure(
    "tollgate_inbox_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Messages that wait for the workers of those who get them.",
);
pub(super) const INBOX_WAITS: Figure = figure(
    "tollgate_inbox_waits_total",
    Kind::Counter,
    Unit::Count,
    "Times a worker found the inbox of another one full and stopped reading the publishers.",
);

closed_list! {
    /// What became of a will.
    WillEnd {
        /// It was published.
        Published = "published",
        /// The identity may not publish it any more.
        NotAuthorized = "not_authorized",
        /// Its credential ended.
        Revoked = "revoked",
        /// It was to be retained, and as much is retained as may be.
        RetainedFull = "retained_full",
        /// The journal had no room, and too many waited.
        StorageFull = "storage_full",
    }
}

pub(super) const WILLS: Figure = labelled(
    figure(
        "tollgate_wills_total",
        Kind::Counter,
        Unit::Count,
        "Wills whose time came, by what became of them.",
    ),
    "end",
    WillEnd::LABELS,
);
pub(super) const ROUTED: Figure = labelled(
    figure(
        "tollgate_messages_routed_total",
        Kind::Counter,
        Unit::Count,
        "Messages that went to those who subscribed, if anybody did, and needed no record on \
         disk, by quality of service.",
    ),
    "qos",
    QOS_LABELS,
);
pub(super) const DELIVERED: Figure = labelled(
    figure(
        "tollgate_deliveries_total",
        Kind::Counter,
        Unit::Count,
        "Copies of ordinary messages written to clients, by quality of service.",
    ),
    "qos",
    QOS_LABELS,
);
pub(super) const DELIVERED_AGAIN: Figure = figure(
    "tollgate_redeliveries_total",
    Kind::Counter,
    Unit::Count,
    "Of these, copies written again because an earlier connection left them unacknowledged.",
);
pub(super) const UNDELIVERED: Figure = labelled(
    figure(
        "tollgate_deliveries_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Copies of ordinary messages that did not reach their subscriber, by reason.",
    ),
    "reason",
    DeliveryDrop::LABELS,
);
