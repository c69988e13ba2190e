//! The control lane: admin changes reach every worker ahead of any data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::identity::Change;

/// Commands one worker can have waiting. They are admin calls: a sender waits for a place.
pub const COMMANDS_WAITING_MAX: usize = 64;

/// How long an admin call waits for all workers to confirm; then it says so instead of guessing.
pub const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Rights of identities changed: end what must end, then answer with what ended here, for each.
    Apply {
        /// The changes, as committed, or as they would be.
        changes: Arc<[Change]>,
        /// Nothing is to end: only count what would.
        is_dry: bool,
        /// Where to confirm.
        reply: oneshot::Sender<Vec<Receipt>>,
    },
    /// Who is connected as one of these identities?
    Find {
        /// The identities.
        identities: Arc<[Uuid]>,
        /// Where to answer.
        reply: oneshot::Sender<Vec<LiveConnection>>,
    },
    /// Stop: say goodbye to every client when what they were promised is durable, then confirm.
    Stop {
        /// Where to confirm.
        reply: oneshot::Sender<()>,
    },
}

/// A connection, as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConnection {
    /// Whose it is.
    pub identity: Uuid,
    /// The credential that it showed.
    pub credential: u64,
    /// As the client named it, or was named.
    pub client_id: Box<str>,
    /// Where it came from, behind a proxy.
    pub from: IpAddr,
    /// When it was let in; wall clock, ms.
    pub since_ms: u64,
}

/// What a change ended, over all workers. Each thing is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections closed.
    pub connections: u64,
    /// Sessions that ended, with or without a connection.
    pub sessions: u64,
    /// Subscriptions that ended, with their sessions or without.
    pub subscriptions: u64,
    /// Messages dropped that waited to be sent. Another member gets those of a share group.
    pub queued: u64,
    /// Messages dropped that were sent and not acknowledged.
    pub in_flight: u64,
    /// QoS 2 messages from its clients dropped whose PUBREL had not come.
    pub unfinished: u64,
    /// Wills that are not published.
    pub wills: u64,
    /// Retained messages dropped.
    pub retained: u64,
    /// Time until the last worker confirmed, in milliseconds.
    pub milliseconds: u64,
}

impl Receipt {
    /// Adds what another one counted; the time is the longer one.
    pub fn add(&mut self, other: &Receipt) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.subscriptions += other.subscriptions;
        self.queued += other.queued;
        self.in_flight += other.in_flight;
        self.unfinished += other.unfinished;
        self.wills += other.wills;
        self.retained += other.retained;
        self.milliseconds = self.milliseconds.max(other.milliseconds);
    }
}

/// The change is durable, but not every worker confirmed it in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change is durable, but {missing} of {workers} workers did not confirm it within \
     {CONFIRMATION_TIMEOUT:?}; connections of the old right may still be open there: repeat the \
     call"
)]
pub struct NotConfirmed {
    /// Workers that did not answer.
    pub missing: usize,
    /// Workers there are.
    pub workers: usize,
}

/// The sending end of every worker's control lane.
#[derive(Debug, Clone)]
pub struct Control {
    lanes: Arc<[mpsc::Sender<Command>]>,
}

impl Control {
    /// A control over the workers behind `lanes`.
    #[must_use]
    pub fn new(lanes: Vec<mpsc::Sender<Command>>) -> Self {
        Self {
            lanes: lanes.into(),
        }
    }

    /// Applies a committed change on every worker and adds up what it ended.
    ///
    /// # Errors
    /// A worker did not confirm within [`CONFIRMATION_TIMEOUT`].
    pub async fn apply(&self, change: Change) -> Result<Receipt, NotConfirmed> {
        let receipts = self.apply_all(vec![change]).await?;
        Ok(receipts.first().copied().unwrap_or_default())
    }

    /// Applies committed changes on every worker, in order; what each ended. All have the time of
    /// the whole.
    ///
    /// # Errors
    /// A worker did not confirm all of them within [`CONFIRMATION_TIMEOUT`].
    pub async fn apply_all(&self, changes: Vec<Change>) -> Result<Vec<Receipt>, NotConfirmed> {
        self.ask(changes, false).await
    }

    /// What [`Control::apply_all`] would end now; nothing does.
    ///
    /// # Errors
    /// A worker did not answer within [`CONFIRMATION_TIMEOUT`].
    pub async fn foresee_all(&self, changes: Vec<Change>) -> Result<Vec<Receipt>, NotConfirmed> {
        self.ask(changes, true).await
    }

    async fn ask(&self, changes: Vec<Change>, is_dry: bool) -> Result<Vec<Receipt>, NotConfirmed> {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + CONFIRMATION_TIMEOUT;
        let mut totals = vec![Receipt::default(); changes.len()];
        let changes: Arc<[Change]> = changes.into();
        let mut waiting = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes.iter() {
            let (reply, confirmed) = oneshot::channel();
            let command = Command::Apply {
                changes: Arc::clone(&changes),
                is_dry,
                reply,
            };
            if let Ok(Ok(())) = tokio::time::timeout_at(deadline, lane.send(command)).await {
                waiting.push(confirmed);
            }
        }
        let mut confirmed = 0;
        for reply in waiting {
            if let Ok(Ok(parts)) = tokio::time::timeout_at(deadline, reply).await {
                confirmed += 1;
                for (total, part) in totals.iter_mut().zip(&parts) {
                    total.add(part);
                }
            }
        }
        let workers = self.lanes.len();
        if confirmed < workers {
            return Err(NotConfirmed {
                missing: workers - confirmed,
                workers,
            });
        }
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        for total in &mut totals {
            total.milliseconds = milliseconds;
        }
        Ok(totals)
    }

    /// Who is connected as one of these identities, on any worker. A worker that does not answer
    /// within [`CONFIRMATION_TIMEOUT`] is left out.
    pub async fn find(&self, identities: Arc<[Uuid]>) -> Vec<LiveConnection> {
        let deadline = tokio::time::Instant::now() + CONFIRMATION_TIMEOUT;
        let mut waiting = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes.iter() {
            let (reply, found) = oneshot::channel();
            let identities = Arc::clone(&identities);
            let command = Command::Find { identities, reply };
            if let Ok(Ok(())) = tokio::time::timeout_at(deadline, lane.send(command)).await {
                waiting.push(found);
            }
        }
        let mut all = Vec::new();
        for found in waiting {
            if let Ok(Ok(part)) = tokio::time::timeout_at(deadline, found).await {
                all.extend(part);
            }
        }
        all
    }

    /// Asks every worker to stop and waits until all have, or until `grace` is over.
    /// Returns true if all did.
    pub async fn stop(&self, grace: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + grace;
        let mut waiting = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes.iter() {
            let (reply, stopped) = oneshot::channel();
            if lane.send(Command::Stop { reply }).await.is_ok() {
                waiting.push(stopped);
            }
        }
        for stopped in waiting {
            if tokio::time::timeout_at(deadline, stopped).await.is_err() {
                return false;
            }
        }
        true
    }
}
