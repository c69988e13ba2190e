//! Figures of the history's files: read from its status when somebody asks.

use std::time::Duration;

use metrics::{Counter, Gauge};

use super::{list, one_counter, one_gauge};

/// What the history says of its files when the figures are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileFigures {
    /// Age of the oldest durable record not read yet.
    pub lag: Duration,
    /// Durable records not in files yet.
    pub unsealed_records: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Samples in them.
    pub samples: u64,
    /// Damaged ones met.
    pub damaged_files: u64,
    /// Files written from memory.
    pub seals: u64,
    /// How long the last one took.
    pub seal_last: Duration,
    /// The last attempt failed.
    pub seal_failing: bool,
    /// Files merged or rewritten.
    pub compactions: u64,
    /// How long the last one took.
    pub compaction_last: Duration,
    /// Deleted devices whose bytes may be in files.
    pub unpurged_devices: u64,
    /// Bytes of latest values in memory.
    pub latest_bytes: u64,
    /// Devices dropped from these.
    pub latest_evictions: u64,
}

/// Where they go.
pub(super) struct HistoryHandles {
    lag: Gauge,
    unsealed_records: Gauge,
    files: Gauge,
    file_bytes: Gauge,
    samples: Gauge,
    damaged_files: Gauge,
    seals: Counter,
    seal_last: Gauge,
    seal_failing: Gauge,
    compactions: Counter,
    compaction_last: Gauge,
    unpurged_devices: Gauge,
    latest_bytes: Gauge,
    latest_evictions: Counter,
}

impl HistoryHandles {
    pub(super) fn new() -> Self {
        Self {
            lag: one_gauge(&list::HISTORY_LAG_SECONDS),
            unsealed_records: one_gauge(&list::HISTORY_UNSEALED),
            files: one_gauge(&list::HISTORY_FILES),
            file_bytes: one_gauge(&list::HISTORY_FILE_BYTES),
            samples: one_gauge(&list::HISTORY_SAMPLES),
            damaged_files: one_gauge(&list::HISTORY_DAMAGED_FILES),
            seals: one_counter(&list::HISTORY_SEALS),
            seal_last: one_gauge(&list::HISTORY_SEAL_SECONDS),
            seal_failing: one_gauge(&list::HISTORY_SEAL_FAILING),
            compactions: one_counter(&list::HISTORY_COMPACTIONS),
            compaction_last: one_gauge(&list::HISTORY_COMPACTION_SECONDS),
            unpurged_devices: one_gauge(&list::HISTORY_UNPURGED),
            latest_bytes: one_gauge(&list::HISTORY_LATEST),
            latest_evictions: one_counter(&list::HISTORY_LATEST_EVICTIONS),
        }
    }

    pub(super) fn set(&self, figures: &FileFigures) {
        self.lag.set(figures.lag.as_secs_f64());
        self.unsealed_records.set(float(figures.unsealed_records));
        self.files.set(float(figures.files));
        self.file_bytes.set(float(figures.file_bytes));
        self.samples.set(float(figures.samples));
        self.damaged_files.set(float(figures.damaged_files));
        self.seals.absolute(figures.seals);
        self.seal_last.set(figures.seal_last.as_secs_f64());
        self.seal_failing
            .set(if figures.seal_failing { 1.0 } else { 0.0 });
        self.compactions.absolute(figures.compactions);
        self.compaction_last
            .set(figures.compaction_last.as_secs_f64());
        self.unpurged_devices.set(float(figures.unpurged_devices));
        self.latest_bytes.set(float(figures.latest_bytes));
        self.latest_evictions.absolute(figures.latest_evictions);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure on a chart, exact up to 2^53"
)]
fn float(number: u64) -> f64 {
    number as f64
}
