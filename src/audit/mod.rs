//! The audit: what was changed, who came and who was refused, in files that tell when they were
//! changed afterwards (SEC-56). `docs/audit-format.md` describes them.
//!
//! # Format
//! Two books in the directory `audit` of the data directory, each a row of files of JSON lines
//! ([`record`]): `admin` holds what people do and what the broker does by itself, `access` what
//! clients do. Whoever floods the broker with connections fills the second and never the first.
//!
//! # Invariants
//! 1. One thread, `audit`, writes. Every record carries the digest of the one before it.
//! 2. A change of the registry puts its event into the transaction that makes it
//!    ([`Audit::stage`]): it is told if and only if the change was made, in the order of the
//!    commits, and durable before anybody is answered. The thread copies it into the book; after a
//!    crash the next start does. A number in the record keeps it from being told twice.
//! 3. Events of clients go through one bounded queue that nobody waits for: beyond it, and beyond
//!    [`PER_SECOND_MAX`] a second of each sort, they are counted. They are synced once a second.
//! 4. Telemetry knows nothing of the audit and never waits for it.
//!
//! # When the disk is full, or a limit is reached
//! A book's oldest file goes when the book is longer than its limit; that is an event itself. While
//! nothing can be written, events of clients are counted and dropped; those of changes wait in the
//! state database. When [`WAITING_MAX`] wait, what adds devices, applications, users and tokens is
//! refused; what ends or narrows rights is carried out all the same.

mod alarms;
mod chain;
mod event;
mod gate;
mod look_ups;
mod notice;
mod reader;
pub mod record;
mod refused;
mod scan;
mod shared;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use event::{Caller, Event, TEXT_BYTES_MAX, What, cut};
pub use gate::PER_SECOND_MAX;
pub use notice::{ClientId, Connected, RefusedClientNotice, TakenOver};
pub use reader::{Line, Reader, event_of};
pub use record::LINE_BYTES_MAX;
pub use refused::{Known, ROWS_MAX, RefusedClient};
pub use scan::{AuditFile, Fault, FaultKind, Head};
pub use shared::now_ms;
pub use verify::{Expected, Verified, verify, verify_all, written};

use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Transaction, outbox};
use shared::Shared;

/// The directory of the audit's files in the data directory.
pub const DIRECTORY: &str = "audit";

/// Events of changes that may wait in the state database for the audit's file.
pub const WAITING_MAX: u64 = 100_000;

/// A digest of the credential that a client showed, and what is known of it.
pub type LookUp = Box<dyn Fn(&[u8; 32]) -> Option<Known> + Send + Sync>;

/// One of the two rows of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Book {
    /// What people do, and what the broker does by itself.
    Admin,
    /// What clients do.
    Access,
}

impl Book {
    /// Both.
    pub const ALL: [Book; 2] = [Book::Admin, Book::Access];

    /// What it is called in the names of its files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Book::Admin => "admin",
            Book::Access => "access",
        }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// Bytes of the book of changes.
    pub admin_bytes_max: u64,
    /// Bytes of the book of clients.
    pub access_bytes_max: u64,
}

/// Why the audit could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The directory or a file of it.
    #[error("{}: the audit cannot be opened: {source}. Check owner, permissions and space",
        path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The one place that all events go through. Clones share it.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

/// How far the books are written, so that a reader does not read half a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Of each book: the first record of its newest file, and the bytes written of that.
    pub ends: [Option<(u64, u64)>; 2],
    /// Grows with every round that wrote something.
    pub round: u64,
}

impl Audit {
    /// Opens both books in the data directory `data_dir`, writes what a crash kept from them, and
    /// starts the thread.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn start(
        data_dir: &Path,
        store: &Store,
        limits: AuditLimits,
        metrics: &Metrics,
    ) -> Result<Audit, AuditError> {
        writer::start(data_dir, store, limits, metrics)
    }

    /// Sets how a credential that was refused is recognised. Asked on the audit's thread.
    pub fn look_up_with(&self, look_up: LookUp) {
        self.shared.look_up_with(look_up);
    }

    /// Puts the events of a change into its transaction; answers the number of the last one, for
    /// [`Audit::committed`].
    ///
    /// # Errors
    /// The database failed.
    pub fn stage(
        &self,
        transaction: &Transaction<'_>,
        events: &[Event],
    ) -> Result<Option<u64>, StoreError> {
        let (written, heads) = self.shared.on_disk();
        outbox::remove(transaction, written)?;
        outbox::set_heads(transaction, &shared::packed(&heads))?;
        let (now, mut last) = (now_ms(), None);
        for event in events {
            let name = event.what().as_str();
            last = Some(outbox::push(transaction, now, name, event.members())?);
        }
        Ok(last)
    }

    /// The transaction is on disk: the thread may take the event up.
    pub fn committed(&self, number: u64) {
        self.shared.committed(number);
    }

    /// Whether as many events of changes wait as may ([`WAITING_MAX`]).
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shared.waiting() >= WAITING_MAX
    }

    /// Tells an event that is no change of the registry. Nobody waits for it.
    pub fn note(&self, event: Event) {
        self.shared.note(event);
    }

    /// A client was let in: `describe` is asked only if it is told.
    pub fn connected(&self, now: Instant, describe: impl FnOnce() -> Connected) {
        self.shared.connected(now, describe);
    }

    /// A client was refused.
    pub fn refused(&self, client: RefusedClientNotice) {
        self.shared.refused(client);
    }

    /// A session was taken over.
    pub fn taken_over(&self, what: TakenOver) {
        self.shared.taken_over(what);
    }

    /// A call was refused because of who called: a stranger's, so it is told among the clients.
    pub fn call_refused(&self, now: Instant, describe: impl FnOnce() -> Event) {
        self.shared.call_refused(now, describe);
    }

    /// Waits until all that was told before is written, at most this long.
    pub fn catch_up(&self, within: Duration) {
        self.shared.catch_up(within);
    }

    /// How far the books are written. Waits until that is further than `since`, at most this long.
    #[must_use]
    pub fn written(&self, since: Option<u64>, within: Duration) -> Written {
        self.shared.written(since, within)
    }

    /// The newest refused clients whose last refusal is behind `sequence`, oldest first.
    #[must_use]
    pub fn refused_after(&self, sequence: u64) -> Vec<RefusedClient> {
        self.shared.refused_after(sequence)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Writes and syncs what was told, then ends the thread. Blocks for that.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

/// The /64 of an IPv6 address is one subscriber; elsewhere an address is itself.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}
