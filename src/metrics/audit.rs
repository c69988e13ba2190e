//! Figures of the audit and of alarms.

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, closed_list, figure, labelled};
use super::{counters, gauges, one_gauge};

/// Handles of the audit's figures. Cloning shares them.
#[derive(Clone, Debug)]
pub struct AuditFigures {
    records: Vec<Counter>,
    lost: Vec<Counter>,
    bytes: Vec<Gauge>,
    waiting: Gauge,
    failed: Gauge,
    alarms: Vec<Counter>,
}

impl AuditFigures {
    /// Registers with the recorder of the current scope.
    pub(super) fn new() -> AuditFigures {
        AuditFigures {
            records: counters(&AUDIT_RECORDS),
            lost: counters(&AUDIT_LEFT_OUT),
            bytes: gauges(&AUDIT_BYTES),
            waiting: one_gauge(&AUDIT_WAITING),
            failed: one_gauge(&AUDIT_FAILED),
            alarms: counters(&ALARMS),
        }
    }

    /// So many records were written.
    pub fn written(&self, book: AuditBook, count: u64) {
        if let Some(counter) = self.records.get(book as usize) {
            counter.increment(count);
        }
    }

    /// So many events are not told one by one.
    pub fn lost(&self, why: AuditLoss, count: u64) {
        if let Some(counter) = self.lost.get(why as usize) {
            counter.increment(count);
        }
    }

    /// A book has so many bytes on disk.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn bytes(&self, book: AuditBook, bytes: u64) {
        if let Some(gauge) = self.bytes.get(book as usize) {
            gauge.set(bytes as f64);
        }
    }

    /// So many events of changes wait in the state database.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn waiting(&self, changes: u64) {
        self.waiting.set(changes as f64);
    }

    /// Whether the audit cannot be written.
    pub fn failed(&self, is_failed: bool) {
        self.failed.set(if is_failed { 1.0 } else { 0.0 });
    }

    /// An alarm was raised.
    pub fn alarm(&self, alarm: Alarm) {
        if let Some(counter) = self.alarms.get(alarm as usize) {
            counter.increment(1);
        }
    }
}

closed_list! {
    /// A row of files of the audit.
    AuditBook {
        /// What people do, and what the broker does by itself.
        Admin = "admin",
        /// What clients do.
        Access = "access",
    }
}

closed_list! {
    /// Why an event has no record of its own.
    AuditLoss {
        /// More than a hundred of its sort in a second.
        Sampled = "sampled",
        /// More waited than may.
        QueueFull = "queue_full",
        /// Nothing could be written.
        Storage = "storage",
    }
}

closed_list! {
    /// What an operator should look at.
    Alarm {
        /// One token is used from two addresses in turns.
        TokenTwoAddresses = "token_two_addresses",
        /// An address has too many failed authentications.
        SourceThrottled = "source_throttled",
    }
}

pub(super) const AUDIT_RECORDS: Figure = labelled(
    figure(
        "tollgate_audit_records_total",
        Kind::Counter,
        Unit::Count,
        "Records written to the audit, by book.",
    ),
    "book",
    AuditBook::LABELS,
);
pub(super) const AUDIT_LEFT_OUT: Figure = labelled(
    figure(
        "tollgate_audit_left_out_total",
        Kind::Counter,
        Unit::Count,
        "Events without a record of their own, by reason; changes are never among them.",
    ),
    "reason",
    AuditLoss::LABELS,
);
pub(super) const AUDIT_BYTES: Figure = labelled(
    figure(
        "tollgate_audit_bytes",
        Kind::Gauge,
        Unit::Bytes,
        "Room that the audit takes on disk, by book.",
    ),
    "book",
    AuditBook::LABELS,
);
pub(super) const AUDIT_WAITING: Figure = figure(
    "tollgate_audit_waiting_changes",
    Kind::Gauge,
    Unit::Count,
    "Changes whose record waits in the state database until it can be written.",
);
pub(super) const AUDIT_FAILED: Figure = figure(
    "tollgate_audit_failed",
    Kind::Gauge,
    Unit::Count,
    "1 while the audit cannot be written.",
);
pub(super) const ALARMS: Figure = labelled(
    figure(
        "tollgate_alarms_total",
        Kind::Counter,
        Unit::Count,
        "Alarms raised, by what they are about.",
    ),
    "alarm",
    Alarm::LABELS,
);
