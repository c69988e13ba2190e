//! A fleet as a whole: many devices at once in and out, and backups.

#[cfg(test)]
#[path = "fleet/backup.rs"]
mod backup;
#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "fleet/import.rs"]
mod import;
#[cfg(test)]
#[path = "faults/mount.rs"]
mod mount;
