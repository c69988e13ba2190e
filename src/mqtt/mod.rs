//! The pure protocol: bytes and state machines, no I/O, no clock.

pub mod message;
pub mod session;
pub mod topic;
pub mod wire;
