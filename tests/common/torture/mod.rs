//! What the torture and the fault tests share: devices that hold the broker to its word, an
//! operator's script, and the proof at the end.
#![allow(
    dead_code,
    reason = "each test binary compiles its own copy and uses its own part of it"
)]

pub(crate) mod admin;
pub(crate) mod device;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod proof;
pub(crate) mod random;
pub(crate) mod site;
