//! Faults that were fixed, each with the test that would have found it.

#![cfg(test)]

mod common;

#[path = "common/parts.rs"]
mod parts;
#[expect(dead_code, reason = "what delays and fails syncs is for others")]
#[path = "faults/sync_faults.rs"]
mod sync_faults;

#[path = "regression/arrivals.rs"]
mod arrivals;
#[path = "regression/bursts.rs"]
mod bursts;
#[path = "regression/checkpoint.rs"]
mod checkpoint;
#[path = "regression/panics.rs"]
mod panics;
#[path = "regression/pause.rs"]
mod pause;
#[path = "regression/receipt.rs"]
mod receipt;
#[path = "regression/shares.rs"]
mod shares;
#[path = "regression/stall.rs"]
mod stall;
