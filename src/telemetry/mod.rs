//! Device payloads to samples, and their history.
//!
//! One lenient JSON scanner serves the gate ([`check`]: may this payload be acknowledged?) and the
//! store ([`scan`]: which samples does it hold?), so that what was acknowledged is what is read
//! back. It is iterative, nests at most 64 deep and never fails on any input but by returning a
//! [`PayloadError`] (SEC-01, TB-16, TB-20 to TB-23).

mod compact;
mod error;
mod flat;
mod json;
mod number;
mod payload;
mod sample;
mod store;
mod strict;

pub use error::PayloadError;
pub use payload::{Checked, check, scan};
pub use sample::{OwnedValue, Sample, ScanOptions, Value};
pub use store::{
    Aggregate, Aggregation, BUCKETS_MAX, Bucket, DAMAGE_KEPT_MAX, FileDamage, FileVerdict, History,
    HistoryOptions, HistoryStatus, OnStep, Point, Query, QueryError, RESULT_BYTES_MAX, StoreReport,
    Suspect, SuspectMark, verify_files,
};

/// Version of the reading rules, noted in every journal record: a later version that reads a
/// payload otherwise gets its own number, so that old records keep their old meaning.
pub const PARSER_VERSION: u8 = 1;
