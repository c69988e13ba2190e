//! Figures of the history's files: read from its status when somebody asks.

use std::time::Duration;

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, figure};
use super::{one_counter, one_gauge};

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
            lag: one_gauge(&HISTORY_LAG_SECONDS),
            unsealed_records: one_gauge(&HISTORY_UNSEALED),
            files: one_gauge(&HISTORY_FILES),
            file_bytes: one_gauge(&HISTORY_FILE_BYTES),
            samples: one_gauge(&HISTORY_SAMPLES),
            damaged_files: one_gauge(&HISTORY_DAMAGED_FILES),
            seals: one_counter(&HISTORY_SEALS),
            seal_last: one_gauge(&HISTORY_SEAL_SECONDS),
            seal_failing: one_gauge(&HISTORY_SEAL_FAILING),
            compactions: one_counter(&HISTORY_COMPACTIONS),
            compaction_last: one_gauge(&HISTORY_COMPACTION_SECONDS),
            unpurged_devices: one_gauge(&HISTORY_UNPURGED),
            latest_bytes: one_gauge(&HISTORY_LATEST),
            latest_evictions: one_counter(&HISTORY_LATEST_EVICTIONS),
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

pub(super) const HISTORY_LAG: Figure = figure(
    "tollgate_history_lag_records",
    Kind::Gauge,
    Unit::Count,
    "Durable records the history has not read yet.",
);
pub(super) const HISTORY_HEAD: Figure = figure(
    "tollgate_history_head_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory that holds the newest part of the history.",
);
pub(super) const HISTORY_DAMAGE: Figure = figure(
    "tollgate_history_damage",
    Kind::Gauge,
    Unit::Count,
    "Damaged stretches met in the journal: data on disk that cannot be served.",
);
pub(super) const HISTORY_UNREADABLE: Figure = figure(
    "tollgate_history_unreadable",
    Kind::Gauge,
    Unit::Count,
    "Journal records met whose payload this version cannot read: a later version wrote them.",
);
pub(super) const HISTORY_LAG_SECONDS: Figure = figure(
    "tollgate_history_lag_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "Age of the oldest durable record the history has not read yet; 0 when there is none.",
);
pub(super) const HISTORY_UNSEALED: Figure = figure(
    "tollgate_history_unsealed_records",
    Kind::Gauge,
    Unit::Count,
    "Durable records that are not in files of the history yet, which the journal therefore keeps.",
);
pub(super) const HISTORY_FILES: Figure = figure(
    "tollgate_history_files",
    Kind::Gauge,
    Unit::Count,
    "Files of the history.",
);
pub(super) const HISTORY_FILE_BYTES: Figure = figure(
    "tollgate_history_file_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Room the files of the history take on disk.",
);
pub(super) const HISTORY_SAMPLES: Figure = figure(
    "tollgate_history_samples",
    Kind::Gauge,
    Unit::Count,
    "Samples in the files of the history.",
);
pub(super) const HISTORY_DAMAGED_FILES: Figure = figure(
    "tollgate_history_damaged_files",
    Kind::Gauge,
    Unit::Count,
    "Files of the history met that are not what was written; the log names them.",
);
pub(super) const HISTORY_SEALS: Figure = figure(
    "tollgate_history_seals_total",
    Kind::Counter,
    Unit::Count,
    "Files written from memory.",
);
pub(super) const HISTORY_SEAL_SECONDS: Figure = figure(
    "tollgate_history_seal_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "How long it took to write the last file from memory.",
);
pub(super) const HISTORY_SEAL_FAILING: Figure = figure(
    "tollgate_history_seal_failing",
    Kind::Gauge,
    Unit::Count,
    "1 while files of the history cannot be written and the journal keeps what is new, else 0.",
);
pub(super) const HISTORY_COMPACTIONS: Figure = figure(
    "tollgate_history_compactions_total",
    Kind::Counter,
    Unit::Count,
    "Files of the history merged or rewritten.",
);
pub(super) const HISTORY_COMPACTION_SECONDS: Figure = figure(
    "tollgate_history_compaction_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "How long the last merge of files took.",
);
pub(super) const HISTORY_UNPURGED: Figure = figure(
    "tollgate_history_unpurged_devices",
    Kind::Gauge,
    Unit::Count,
    "Deleted devices whose bytes may still be in files; they are never shown.",
);
pub(super) const HISTORY_LATEST: Figure = figure(
    "tollgate_history_latest_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory that holds the latest value of each series.",
);
pub(super) const HISTORY_LATEST_EVICTIONS: Figure = figure(
    "tollgate_history_latest_evictions_total",
    Kind::Counter,
    Unit::Count,
    "Devices whose latest values were dropped from memory and are looked up in files.",
);
