//! Bounds that hold between modules, checked when Tollgate is compiled.
//!
//! Every limit is a named constant in the module that keeps it. What must fit into what is said
//! here, so that changing one of them cannot break another unnoticed.

use crate::journal::{BATCH_BYTES_MAX, RECORD_BODY_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::net::{CONNECT_BYTES_MAX, SESSION_RESERVE_BYTES};

/// Largest value that `mqtt.packet_size_max_bytes` may have: a PUBLISH of that size has a payload
/// that fits into a record.
pub const PACKET_BYTES_MAX: usize = 507_904;

/// What one record takes at most.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + PACKET_BYTES_MAX;

// A payload is stored whole in one record.
const _: () = assert!(PACKET_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
// A record fits into an empty batch beside the part that session records may use.
const _: () = assert!(RECORD_BYTES_MAX + SESSION_RESERVE_BYTES <= BATCH_BYTES_MAX);
// A session's first record holds a client id, which came in a CONNECT.
const _: () = assert!((CONNECT_BYTES_MAX as usize) + 1_024 <= BATCH_BYTES_MAX);
