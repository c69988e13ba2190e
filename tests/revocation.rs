//! The end of rights, from outside: what a revocation ends and says it ended, what a dry run says,
//! what a narrowing leaves, and that all of it holds after a kill.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "revocation/kill.rs"]
mod kill;
#[cfg(test)]
#[path = "revocation/narrowing.rs"]
mod narrowing;
#[cfg(test)]
#[path = "revocation/place.rs"]
mod place;
#[cfg(test)]
#[path = "revocation/receipts.rs"]
mod receipts;
#[cfg(test)]
#[path = "revocation/suspects.rs"]
mod suspects;
