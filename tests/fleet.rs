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
#[expect(dead_code, reason = "one of its file systems is enough here")]
mod mount;
#[cfg(test)]
#[path = "fleet/service.rs"]
mod service;
#[cfg(test)]
#[path = "fleet/terms.rs"]
mod terms;
