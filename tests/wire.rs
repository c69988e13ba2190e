//! The codec from outside: hand-made packets with a verdict, the vectors of the security
//! requirements, round trips, and a comparison with two codecs that are not ours.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it is wrong"
)]

#[path = "wire/allocations.rs"]
mod allocations;
#[path = "wire/differential.rs"]
mod differential;
#[path = "wire/generate.rs"]
mod generate;
#[path = "wire/hex.rs"]
mod hex;
#[path = "wire/packets.rs"]
mod packets;
#[path = "wire/refusals.rs"]
mod refusals;
#[path = "wire/round_trip.rs"]
mod round_trip;
#[path = "wire/unwritable.rs"]
mod unwritable;
#[path = "wire/vectors.rs"]
mod vectors;
