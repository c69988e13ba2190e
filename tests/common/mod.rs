//! What the tests of a running broker share: the broker as a child process, a client that speaks
//! raw bytes, and the outside programs that the tests drive.
//!
//! Every test binary declares it as `#[cfg(test)] mod common;`.
#![allow(
    dead_code,
    reason = "each test binary compiles its own copy and uses its own part of it"
)]

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod packets;
pub(crate) mod secrets;
pub(crate) mod tools;
pub(crate) mod web;
pub(crate) mod wire;
