//! Figures of ordinary messages: what was routed, and what became of each copy.

use metrics::Unit;

use super::list::{Figure, Kind, QOS_LABELS, closed_list, figure, labelled};

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
