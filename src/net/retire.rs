//! The clock of tokens: writes down which have ended by themselves, and tells the workers.
//!
//! A token whose time is over opens no door from that moment on, and a worker's sweep ends its
//! connections ([`super::sweep`]): neither waits for this thread. What it adds is what must stay:
//! the end is on disk, and what waits in the token's name (a delayed will) goes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::broker::Control;
use crate::identity::Registry;

/// How often the wall clock is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Tokens that end in one transaction; other changes wait for it.
const TOGETHER_MAX: u32 = 1_000;

/// Pause after the state database refused: its disk may be full.
const RETRY_WAIT: Duration = Duration::from_secs(5);

/// Runs until `stopped` says so.
pub(super) async fn run(registry: Registry, control: Control, mut stopped: watch::Receiver<bool>) {
    loop {
        let wait = match end_due(&registry, &control).await {
            Progress::More => Duration::ZERO,
            Progress::Done => LOOK_INTERVAL,
            Progress::Failed => RETRY_WAIT,
        };
        // Cancel-safe, both of them.
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

enum Progress {
    /// There may be more to do at once.
    More,
    Done,
    Failed,
}

async fn end_due(registry: &Registry, control: &Control) -> Progress {
    if registry.next_end_ms() > now_ms() {
        return Progress::Done;
    }
    // This thread has nothing else to do, so it may wait for the disk.
    let changes = match registry.end_due(TOGETHER_MAX) {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!(
                %error,
                "the end of tokens cannot be written down; nobody gets in with them, and it is \
                 tried again"
            );
            return Progress::Failed;
        }
    };
    for change in changes {
        let (identity, tokens) = (change.identity, change.credentials_ended.clone());
        tracing::info!(%identity, ?tokens, "tokens ended by themselves");
        if let Err(late) = control.apply(change).await {
            tracing::warn!(%identity, %late, "the end of a token");
        }
    }
    Progress::More
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
