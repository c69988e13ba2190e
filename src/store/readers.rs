//! Read connections: a few, handed out one at a time, so that a read never waits for a write.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

use super::{StoreError, file};

/// Read connections open at a time; one more reader waits for one to come back. Enough for the
/// HTTP threads, and each costs its page cache (2 MiB).
pub(super) const READERS_MAX: usize = 4;

pub(super) struct Readers {
    path: PathBuf,
    // A leaf lock, held for a push or a pop. std: nothing waits in async code here.
    pool: Mutex<Pool>,
    returned: Condvar,
}

struct Pool {
    idle: Vec<Connection>,
    /// Open connections, idle or lent.
    open: usize,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Readers {
        let pool = Mutex::new(Pool {
            idle: Vec::new(),
            open: 0,
        });
        Readers {
            path,
            pool,
            returned: Condvar::new(),
        }
    }

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut lent = Lent {
            readers: self,
            connection: self.take(),
        };
        if lent.connection.is_none() {
            lent.connection = Some(file::open_for_reading(&self.path)?);
        }
        match &lent.connection {
            Some(connection) => work(connection),
            None => Err(StoreError::Stopped),
        }
    }

    /// An idle connection, or `None` with the right to open one more.
    fn take(&self) -> Option<Connection> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Some(connection);
            }
            if pool.open < READERS_MAX {
                pool.open += 1;
                return None;
            }
            pool = self
                .returned
                .wait(pool)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Gives the connection, or the right to open one, back however the read ends.
struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self
            .readers
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.connection.take() {
            // A transaction that was left open would pin an old snapshot: such a one is closed.
            Some(connection) if connection.is_autocommit() => pool.idle.push(connection),
            _ => pool.open = pool.open.saturating_sub(1),
        }
        drop(pool);
        self.readers.returned.notify_one();
    }
}
