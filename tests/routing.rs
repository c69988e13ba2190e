//! Ordinary messages from client to client: raw bytes against a real broker of several workers.
//!
//! That something does not arrive is shown by a marker sent behind it, never by waiting.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "routing/durable.rs"]
mod durable;
#[cfg(test)]
#[path = "routing/live.rs"]
mod live;
#[cfg(test)]
#[path = "routing/qos.rs"]
mod qos;
#[cfg(test)]
#[path = "routing/retained.rs"]
mod retained;
#[cfg(test)]
#[path = "routing/shares.rs"]
mod shares;
#[cfg(test)]
#[path = "routing/site.rs"]
mod site;
#[cfg(test)]
#[path = "routing/slow.rs"]
mod slow;
#[cfg(test)]
#[path = "routing/wills.rs"]
mod wills;
