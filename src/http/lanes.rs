//! Blocking work, off the thread that serves connections and with a bound on each kind.
//!
//! Registry and history have lanes of their own: a history query may wait for seconds, and a
//! revocation must not wait behind it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::refused::{Code, Refused};

/// Registry calls at once; more wait for their turn, at most as long as a request may take. The
/// registry has one writer thread, so more would only wait there.
pub(super) const REGISTRY_CALLS_MAX: usize = 4;

/// History queries at once; more are refused with 503. Each may hold a page of points and wait
/// for the store's reader, so they must not pile up.
pub(super) const HISTORY_CALLS_MAX: usize = 4;

/// Imports and backups at once; more are refused with 503. Each takes long, and memory or disk.
pub(super) const BULK_CALLS_MAX: usize = 1;

/// Threads for blocking work: one for each call that may run at once.
pub(super) const BLOCKING_THREADS_MAX: usize =
    REGISTRY_CALLS_MAX + HISTORY_CALLS_MAX + BULK_CALLS_MAX;

/// The lanes.
pub(super) struct Lanes {
    registry: Arc<Semaphore>,
    history: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes {
            registry: Arc::new(Semaphore::new(REGISTRY_CALLS_MAX)),
            history: Arc::new(Semaphore::new(HISTORY_CALLS_MAX)),
            bulk: Arc::new(Semaphore::new(BULK_CALLS_MAX)),
        }
    }

    /// Runs a call on the registry. Once started it runs to its end, whoever still waits for it.
    pub(super) async fn registry<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let permit = Arc::clone(&self.registry).acquire_owned().await;
        let permit = permit.map_err(|closed| Refused::internal(&closed))?;
        run(permit, call).await
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
        run(permit, call).await
    }

    /// Runs an import or a backup, or refuses it when one is running.
    pub(super) async fn bulk<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        run(self.bulk_permit()?, call).await
    }

    /// The right to run an import or a backup.
    pub(super) fn bulk_permit(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let permit = Arc::clone(&self.bulk).try_acquire_owned();
        permit.map_err(|_| {
            let message = "an import or a backup is running already; try again when it is done";
            Refused::new(Code::Busy, message)
        })
    }
}

/// Runs a call on a thread that may block. The permit is given back when it has ended: a caller
/// that gave up must not make room for another.
async fn run<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    call: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let work = spawn_blocking(move || {
        let result = call();
        drop(permit);
        result
    });
    work.await
        .map_err(|panicked| Refused::internal(&panicked))?
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::task::Poll;

    use futures_util::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    /// On a runtime of one thread, so that a yield lets every other task go as far as it can.
    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn one_history_query_too_many_is_refused() {
        run(async {
            let lanes = Lanes::new();
            let (started, starts) = mpsc::channel();
            let (releases, released) = (0..HISTORY_CALLS_MAX)
                .map(|_| mpsc::channel::<()>())
                .unzip();
            let releases: Vec<mpsc::Sender<()>> = releases;
            let released: Vec<mpsc::Receiver<()>> = released;
            let calls = released.into_iter().map(|released| {
                let started = started.clone();
                lanes.history(move || {
                    started.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                })
            });
            let refused = async {
                yield_now().await; // the calls before this one have their permits by now
                let refused = lanes.history(|| Ok(())).await.unwrap_err();
                assert_eq!(refused.code, Code::Busy);
                assert!(lanes.registry(|| Ok(())).await.is_ok(), "a lane of its own");
                for release in releases {
                    release.send(()).unwrap();
                }
            };
            let (results, ()) = tokio::join!(join_all(calls), refused);
            assert!(results.iter().all(Result::is_ok));
            assert_eq!(starts.try_iter().count(), HISTORY_CALLS_MAX);
            assert!(
                lanes.history(|| Ok(())).await.is_ok(),
                "there is room again"
            );
        });
    }

    #[test]
    fn one_registry_call_too_many_waits_for_its_turn() {
        run(async {
            let lanes = Lanes::new();
            let (release, released) = mpsc::channel::<()>();
            let released = Arc::new(std::sync::Mutex::new(released));
            let calls = (0..REGISTRY_CALLS_MAX).map(|number| {
                let released = Arc::clone(&released);
                lanes.registry(move || {
                    released.lock().unwrap().recv().unwrap();
                    Ok(number)
                })
            });
            let late = async {
                yield_now().await;
                let late = lanes.registry(|| Ok(()));
                tokio::pin!(late);
                let is_waiting =
                    poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx).is_pending())).await;
                assert!(is_waiting && lanes.registry.available_permits() == 0);
                for _ in 0..REGISTRY_CALLS_MAX {
                    release.send(()).unwrap();
                }
                assert!(late.await.is_ok());
            };
            let (results, ()) = tokio::join!(join_all(calls), late);
            assert!(results.iter().all(Result::is_ok));
        });
    }

    #[test]
    fn a_panic_of_a_call_is_a_fault_of_ours_and_frees_its_place() {
        run(async {
            let lanes = Lanes::new();
            for _ in 0..=HISTORY_CALLS_MAX {
                let refused = lanes
                    .history::<()>(|| panic!("a test's panic"))
                    .await
                    .unwrap_err();
                assert_eq!(refused.code, Code::Internal);
            }
        });
    }
}
