//! Bounds that several modules share. Every other limit is a named constant in the module that
//! keeps it; where one bound must fit into another, the larger one's module asserts it when
//! Tollgate is compiled.

pub mod network;

pub use network::{Network, Networks};

/// Largest value that `mqtt.packet_size_max_bytes` may have. A PUBLISH of that size has a payload
/// that fits into one record of the journal, with room for the record's header.
pub const PACKET_BYTES_MAX: usize = 507_904;
