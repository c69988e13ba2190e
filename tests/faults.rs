//! What an operator meets on a bad day: disks that fail, fill up or slow down, and starts that
//! have to be refused. Each case says what must still be true, and which words explain it.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "faults/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "faults/full_disk.rs"]
mod full_disk;
#[cfg(test)]
#[path = "faults/mount.rs"]
mod mount;
#[cfg(test)]
#[path = "common/torture/mod.rs"]
mod rig;
#[cfg(test)]
#[path = "faults/secrets.rs"]
mod secrets;
#[cfg(test)]
#[path = "faults/start.rs"]
mod start;
#[cfg(test)]
#[path = "faults/stop.rs"]
mod stop;
#[cfg(test)]
#[path = "faults/sync.rs"]
mod sync;
#[cfg(test)]
#[path = "faults/sync_faults.rs"]
mod sync_faults;
