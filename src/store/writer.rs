//! The one thread that writes, and how requests share a transaction.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{Severity, severity};
use super::{DiskFullHook, StoreError};

/// Requests that may wait for the writer; whoever comes then waits until there is room. Admin
/// changes and checkpoints are few: this bounds memory, not the rate.
const WRITES_WAITING_MAX: usize = 1_024;

/// Requests that share one transaction: enough to make the sync cheap for each, few enough that
/// none waits long for its neighbours (about 20 us each).
const WRITES_PER_COMMIT_MAX: usize = 256;

const _: () = assert!(WRITES_PER_COMMIT_MAX <= WRITES_WAITING_MAX);

/// The writer thread, named `state`.
pub(super) struct Writer {
    /// `None` only while dropping.
    requests: Option<SyncSender<Box<dyn Request>>>,
    thread: Option<JoinHandle<()>>,
    hook: Arc<Mutex<Option<DiskFullHook>>>,
}

impl Writer {
    pub(super) fn start(path: &Path, connection: Connection) -> Result<Writer, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(WRITES_WAITING_MAX);
        let hook = Arc::new(Mutex::new(None));
        let state = State {
            connection,
            hook: Arc::clone(&hook),
            failed: None,
        };
        let thread = thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || state.run(&receiver))
            .map_err(|source| StoreError::File {
                action: "start the writer thread of",
                path: path.to_owned(),
                source,
            })?;
        Ok(Writer {
            requests: Some(sender),
            thread: Some(thread),
            hook,
        })
    }

    /// `is_spare`: it is refused rather than have the hook asked for space.
    pub(super) fn write<T, R, F, A>(
        &self,
        work: F,
        then: A,
        is_spare: bool,
    ) -> Result<R, StoreError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(T) -> R + Send + 'static,
    {
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Box::new(Write {
            work,
            then,
            done: None,
            is_spare,
            reply,
        });
        let requests = self.requests.as_ref().ok_or(StoreError::Stopped)?;
        requests.send(request).map_err(|_| StoreError::Stopped)?;
        answer.recv().map_err(|_| StoreError::Stopped)?
    }

    pub(super) fn on_disk_full(&self, hook: DiskFullHook) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None; // ends the loop once everything that waits is done
        if let Some(thread) = self.thread.take()
            // The last handle may go away inside a request; a thread cannot wait for itself.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the state database had panicked");
        }
    }
}

/// One request, as the writer sees it.
trait Request: Send {
    /// Runs the work; may be called again after a rollback of everything.
    fn run(&mut self, transaction: &Transaction<'_>) -> Verdict;
    /// The transaction is on disk.
    fn committed(self: Box<Self>);
    /// The transaction is not, and will not be, on disk.
    fn refused(self: Box<Self>, error: StoreError);
    /// It can wait for a day with room on the disk.
    fn is_spare(&self) -> bool;
}

/// What the writer does after one request ran.
enum Verdict {
    Keep,
    Undo,
    Full,
    Fatal(String),
}

struct Write<T, R, F, A> {
    work: F,
    then: A,
    done: Option<Result<T, StoreError>>,
    is_spare: bool,
    reply: SyncSender<Result<R, StoreError>>,
}

impl<T, R, F, A> Request for Write<T, R, F, A>
where
    T: Send,
    R: Send,
    F: FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send,
    A: FnOnce(T) -> R + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> Verdict {
        let done = (self.work)(transaction);
        let verdict = match &done {
            Ok(_) => Verdict::Keep,
            Err(StoreError::Full) => Verdict::Full,
            Err(StoreError::Sqlite(error)) => match severity(error) {
                Severity::Statement => Verdict::Undo,
                Severity::Full => Verdict::Full,
                Severity::Fatal => Verdict::Fatal(error.to_string()),
            },
            Err(_) => Verdict::Undo,
        };
        self.done = Some(done);
        verdict
    }

    fn committed(self: Box<Self>) {
        let Write {
            then, done, reply, ..
        } = *self;
        let answer = match done {
            Some(Ok(value)) => Ok(then(value)),
            Some(Err(error)) => Err(error),
            None => Err(StoreError::Stopped),
        };
        // Whoever asked may be gone; the change stands all the same.
        let _ = reply.send(answer);
    }

    fn refused(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }

    fn is_spare(&self) -> bool {
        self.is_spare
    }
}

/// Why a transaction did not commit.
enum Abort {
    Full,
    NotCommitted(String),
    Fatal(String),
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Abort {
        match severity(&error) {
            Severity::Full => Abort::Full,
            Severity::Statement => Abort::NotCommitted(error.to_string()),
            Severity::Fatal => Abort::Fatal(error.to_string()),
        }
    }
}

/// What the thread owns.
struct State {
    connection: Connection,
    hook: Arc<Mutex<Option<DiskFullHook>>>,
    /// Set by the first failed write or sync: nothing is accepted any more (REL-04).
    failed: Option<Arc<str>>,
}

impl State {
    fn run(mut self, requests: &Receiver<Box<dyn Request>>) {
        while let Ok(first) = requests.recv() {
            let mut batch = vec![first];
            while batch.len() < WRITES_PER_COMMIT_MAX
                && let Ok(next) = requests.try_recv()
            {
                batch.push(next);
            }
            self.serve(batch);
        }
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Request>>) {
        if let Some(what) = &self.failed {
            return refuse(batch, || StoreError::Failed(Arc::clone(what)));
        }
        let mut outcome = commit(&mut self.connection, &mut batch);
        if matches!(outcome, Err(Abort::Full)) {
            // What can wait goes first: the space that the hook has is for the rest.
            let spare: Vec<_> = batch.extract_if(.., |request| request.is_spare()).collect();
            let has_spare = !spare.is_empty();
            refuse(spare, || StoreError::Full);
            if batch.is_empty() {
                return;
            }
            if has_spare {
                outcome = commit(&mut self.connection, &mut batch);
            }
        }
        if matches!(outcome, Err(Abort::Full)) && self.free_space() {
            outcome = commit(&mut self.connection, &mut batch);
        }
        match outcome {
            Ok(()) => batch.into_iter().for_each(|request| request.committed()),
            Err(Abort::Full) => {
                tracing::warn!("the disk of the state database is full");
                refuse(batch, || StoreError::Full);
            }
            Err(Abort::NotCommitted(what)) => {
                let what: Arc<str> = what.into();
                refuse(batch, || StoreError::NotCommitted(Arc::clone(&what)));
            }
            Err(Abort::Fatal(what)) => {
                tracing::error!(%what, "the state database failed; nothing more is written");
                let what: Arc<str> = what.into();
                self.failed = Some(Arc::clone(&what));
                refuse(batch, || StoreError::Failed(Arc::clone(&what)));
            }
        }
    }

    /// Asks the hook; the lock is not held while it runs.
    fn free_space(&self) -> bool {
        let hook = self
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        hook.is_some_and(|hook| hook())
    }
}

fn refuse(batch: Vec<Box<dyn Request>>, error: impl Fn() -> StoreError) {
    for request in batch {
        request.refused(error());
    }
}

/// All of `batch` in one transaction, each in its own savepoint. Dropping the transaction on the
/// way out rolls it back.
fn commit(connection: &mut Connection, batch: &mut [Box<dyn Request>]) -> Result<(), Abort> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for request in batch {
        transaction.execute_batch("SAVEPOINT request")?;
        // Some errors, and a request that is wrong, end the whole transaction; its savepoint is
        // then gone, and releasing it fails: the batch ends here with nothing committed.
        match request.run(&transaction) {
            Verdict::Keep => transaction.execute_batch("RELEASE request")?,
            Verdict::Undo => transaction.execute_batch("ROLLBACK TO request; RELEASE request")?,
            Verdict::Full => return Err(Abort::Full),
            Verdict::Fatal(what) => return Err(Abort::Fatal(what)),
        }
    }
    transaction.commit()?;
    Ok(())
}
