//! Blocking work, off the thread that serves connections and with a bound on each kind.
//!
//! Registry and history have lanes of their own: a history query may wait for seconds, and a
//! revocation must not wait behind it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::refused::{Code, Refused};

/// Registry calls at once; more wait for their turn, at most as long as a request may take. The
/// registry has one writer thread, so more would only wait there.
pub(super) const REGISTRY_CALLS_MAX: usize = 4;

/// History queries at once; more are refused with 503. Each may hold a page of points and wait
/// for the store's reader, so they must not pile up.
pub(super) const HISTORY_CALLS_MAX: usize = 4;

/// Threads for blocking work: one for each call that may run at once.
pub(super) const BLOCKING_THREADS_MAX: usize = REGISTRY_CALLS_MAX + HISTORY_CALLS_MAX;

/// The two lanes.
pub(super) struct Lanes {
    registry: Arc<Semaphore>,
    history: Arc<Semaphore>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes {
            registry: Arc::new(Semaphore::new(REGISTRY_CALLS_MAX)),
            history: Arc::new(Semaphore::new(HISTORY_CALLS_MAX)),
        }
    }

    /// Runs a call on the registry. Once started it runs to its end, whoever still waits for it.
    pub(super) async fn registry<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let permit = Arc::clone(&self.registry).acquire_owned().await;
        let permit = permit.map_err(|closed| Refused::internal(&closed))?;
        let work = spawn_blocking(move || {
            let result = call();
            drop(permit); // only now: a caller that gave up must not make room for another
            result
        });
        work.await
            .map_err(|panicked| Refused::internal(&panicked))?
    }

    /// Runs a history query, or refuses it when as many as allowed are running.
    pub(super) async fn history<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let Ok(permit) = Arc::clone(&self.history).try_acquire_owned() else {
            let message = format!("{HISTORY_CALLS_MAX} history requests are running already");
            return Err(Refused::new(Code::Busy, message));
        };
        let work = spawn_blocking(move || {
            let result = call();
            drop(permit);
            result
        });
        work.await
            .map_err(|panicked| Refused::internal(&panicked))?
    }
}
