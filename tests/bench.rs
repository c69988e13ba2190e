//! The load generator against its own sink, a real Tollgate and a real Mosquitto: what it counts
//! is what happened, and what is not a result is said to be none.

#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "bench/ends.rs"]
mod ends;
#[cfg(test)]
#[path = "bench/loads.rs"]
mod loads;
#[cfg(test)]
#[path = "bench/rig.rs"]
mod rig;
