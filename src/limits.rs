//! Bounds that several modules share. Every other limit is a named constant in the module that
//! keeps it; where one bound must fit into another, the larger one's module asserts it when
//! Tollgate is compiled.

pub mod network;

pub use network::{Network, Networks};

/// Largest value that `mqtt.packet_size_max_bytes` may have. A PUBLISH of that size has a payload
/// that fits into one record of the journal, with room for the record's header.
pub const PACKET_BYTES_MAX: usize = 507_904;

/// Largest value that `limits.subscriptions_per_session_max` may have.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 10_000;

/// Bytes that the filters of one session may have together: all of them stand in one record of
/// the journal. A filter beyond is refused like one too many; 100 of the longest fit.
pub const FILTERS_BYTES_MAX: usize = 512 * 1024;
