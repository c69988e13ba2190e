//! The codec from outside: hand-made packets with a verdict, the vectors of the security
//! requirements, round trips, and a comparison with two codecs that are not ours.

#[path = "wire/hex.rs"]
mod hex;
#[path = "wire/packets.rs"]
mod packets;
#[path = "wire/vectors.rs"]
mod vectors;
