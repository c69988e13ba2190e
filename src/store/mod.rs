//! The state database (SQLite): the registry and the checkpoints of everything else.
//!
//! # Format
//! One file, `state.db` (0600) in the data directory, write-ahead log beside it, `synchronous =
//! FULL`: a commit is synced before anybody is told. `application_id` says that the file is ours,
//! `user_version` is the number of the last migration applied (`migrations.rs`).
//!
//! # Invariants
//! 1. One thread, `state`, writes. It takes all requests that wait into one transaction, so that
//!    many changes share a sync; each request sits in a savepoint of its own and fails alone.
//! 2. A request is answered after the COMMIT that holds it, never before (REL-01), and what it
//!    changes in memory is changed on the writer thread in the order of the commits.
//! 3. After a failed write or sync nothing more is written (REL-04). A full disk is no failure.
//! 4. A newer schema, a foreign file or a damaged one is refused before anything is changed
//!    (REL-10).
//!
//! After a crash at any point, what was answered is there; of what was not answered, whole
//! requests are there or not.

pub mod admin_tokens;
pub mod basic;
pub mod bulk;
pub mod certificate;
pub mod devices;
mod error;
mod file;
mod integer;
pub mod load;
pub mod messages;
mod migrations;
pub mod outbox;
mod readers;
pub mod retained;
pub mod scopes;
pub mod sessions;
mod snapshot;
pub mod suspects;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod users;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use rusqlite::{Connection, Transaction};

pub use error::StoreError;
pub use integer::Unsigned;
pub use snapshot::{look, snapshot};

use readers::Readers;
use writer::Writer;

/// The name of the database file in the data directory.
pub const FILE_NAME: &str = "state.db";

/// Page cache of a scan, in KiB as SQLite wants it: a pass in order needs few pages.
const SCAN_CACHE_KIB: i64 = 256;

/// What frees disk space when the state database meets a full disk; `true` if it freed some.
pub type DiskFullHook = Arc<dyn Fn() -> bool + Send + Sync>;

/// The state database. Clones share one writer thread, which stops with the last of them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    readers: Readers,
    writer: Writer, // dropped last: the last connection folds the write-ahead log into the file
}

impl Store {
    /// Opens the state database in the data directory `dir`, making both if they are not there.
    /// Brings an older schema up to date. Open it before the journal, so that the directory gets
    /// its mode (0700) while it is empty (SEC-78).
    ///
    /// # Errors
    /// See [`StoreError`]; a newer schema, a foreign and a damaged file are left as they are.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let path = file::prepare(dir)?;
        let connection = file::open_for_writing(&path)?;
        let writer = Writer::start(&path, connection)?;
        let readers = Readers::new(path.clone());
        Ok(Store {
            inner: Arc::new(Inner {
                path,
                readers,
                writer,
            }),
        })
    }

    /// Runs `work` on the writer thread and returns after its effects are synced. Blocks; must not
    /// be called from an async task or from within another `work`.
    ///
    /// When the disk is full, `work` may run a second time after a rollback: it must not rely on
    /// what the first run left in captured state.
    ///
    /// # Errors
    /// What `work` returns (its effects are rolled back), or that the commit did not happen.
    pub fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_then(work, |value| value)
    }

    /// Like [`Store::write`]; after the COMMIT and before the answer, `then` runs on the writer
    /// thread. Effects in memory belong there: they happen in the order of the commits. It must be
    /// short and must not use the store.
    ///
    /// # Errors
    /// As [`Store::write`]; `then` has run if and only if the answer is `Ok`.
    pub fn write_then<T, R, F, A>(&self, work: F, then: A) -> Result<R, StoreError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(T) -> R + Send + 'static,
    {
        self.inner.writer.write(work, then, false)
    }

    /// As [`Store::write`], for what can wait until there is room: on a full disk it is refused
    /// with [`StoreError::Full`] and leaves the space that is kept aside to others.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_spare<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.writer.write(work, |value| value, true)
    }

    /// Runs `work` on a read connection; it sees everything that was answered before. Blocks on
    /// the disk, and while four others read.
    ///
    /// # Errors
    /// What `work` returns, or that no connection could be opened.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.inner.readers.read(work)
    }

    /// As [`Store::read`], for one pass over whole tables: on a connection of its own, which is
    /// closed behind it, so that no memory stays with it.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn scan<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = file::open_for_reading(&self.inner.path)?;
        connection.pragma_update(None, "cache_size", -SCAN_CACHE_KIB)?;
        work(&connection)
    }

    /// Sets what is asked for space when the disk is full; the request is then tried once more.
    /// The hook runs on the writer thread and must not use the store.
    pub fn on_disk_full(&self, hook: DiskFullHook) {
        self.inner.writer.on_disk_full(hook);
    }

    /// Whether no credential and no admin token is stored, live or ended: then a missing registry
    /// key harms nobody.
    ///
    /// # Errors
    /// That the database could not be read.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        self.read(|connection| {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM credential)
                          AND NOT EXISTS (SELECT 1 FROM admin_token)";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }

    /// The database file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}
