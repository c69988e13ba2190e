//! The audit of a real broker: what people change, who comes and who is refused, followed live,
//! read from the files, through `kill -9` and a full disk (SEC-56, REL-06).

#[cfg(test)]
#[path = "audit/changes.rs"]
mod changes;
#[cfg(test)]
#[path = "audit/clients.rs"]
mod clients;
#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "audit/deeds.rs"]
mod deeds;
#[cfg(test)]
#[path = "audit/full.rs"]
mod full;
#[cfg(test)]
#[path = "audit/kills.rs"]
mod kills;
#[cfg(test)]
#[expect(dead_code, reason = "tests/faults uses the rest of it")]
#[path = "faults/mount.rs"]
mod mount;
#[cfg(test)]
#[path = "audit/records.rs"]
mod records;
