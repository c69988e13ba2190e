//! Figures of the application feed. What the workers count is in [`super::worker`].

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, closed_list, figure, labelled};
use super::{one_counter, one_gauge};

/// What the application feed says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedFigures {
    /// Feeds, connected or not.
    pub cursors: u64,
    /// Durable records that the feed furthest behind has not settled.
    pub lag_records: u64,
    /// Bytes of the journal that are kept for the feed furthest behind.
    pub pinned_bytes: u64,
}

/// Where they go.
pub(super) struct FeedHandles {
    cursors: Gauge,
    lag: Gauge,
    pinned: Gauge,
    cuts: Counter,
}

impl FeedHandles {
    pub(super) fn new() -> Self {
        Self {
            cursors: one_gauge(&CURSORS),
            lag: one_gauge(&LAG),
            pinned: one_gauge(&PINNED),
            cuts: one_counter(&CUTS),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub(super) fn set(&self, figures: FeedFigures) {
        self.cursors.set(figures.cursors as f64);
        self.lag.set(figures.lag_records as f64);
        self.pinned.set(figures.pinned_bytes as f64);
    }

    pub(super) fn cut(&self) {
        self.cuts.increment(1);
    }
}

closed_list! {
    /// Why the feed left a message out.
    FeedDrop {
        /// Longer than the client takes.
        TooLarge = "too_large",
        /// The application may not receive it.
        NotAuthorized = "not_authorized",
        /// Its device was deleted.
        Deleted = "deleted",
    }
}

pub(super) const DELIVERED: Figure = figure(
    "tollgate_feed_delivered_total",
    Kind::Counter,
    Unit::Count,
    "Messages written to applications by the feed, those sent again included.",
);

pub(super) const REDELIVERED: Figure = figure(
    "tollgate_feed_redelivered_total",
    Kind::Counter,
    Unit::Count,
    "Messages the feed sent again under their packet id, after a reconnect.",
);

pub(super) const DROPPED: Figure = labelled(
    figure(
        "tollgate_feed_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Messages the feed left out for one application, by reason.",
    ),
    "reason",
    FeedDrop::LABELS,
);

pub(super) const CURSORS: Figure = figure(
    "tollgate_feed_cursors",
    Kind::Gauge,
    Unit::Count,
    "Feeds of applications, connected or not.",
);

pub(super) const LAG: Figure = figure(
    "tollgate_feed_lag_records",
    Kind::Gauge,
    Unit::Count,
    "Durable records that the feed furthest behind has not settled.",
);

pub(super) const PINNED: Figure = figure(
    "tollgate_feed_pinned_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Journal on disk that is kept for the feed furthest behind.",
);

pub(super) const CUTS: Figure = figure(
    "tollgate_feed_cuts_total",
    Kind::Counter,
    Unit::Count,
    "Feeds that pinned more than they may and lost their claim on the journal.",
);
