//! The clock of tokens: writes down which have ended by themselves, and tells the workers.
//!
//! A token whose time is over opens no door from that moment on, and a worker's sweep ends its
//! connections ([`super::sweep`]): neither waits for this thread. What it adds is what must stay:
//! the end is on disk, and what waits in the token's name (a delayed will) goes. It also ends the
//! tokens that another replaced which was used for the first time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::broker::Control;
use crate::identity::{Change, NotAdmitted, Registry, TokenRefusal};
use crate::mqtt::session::ConnectRefusal;

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
    // This thread has nothing else to do, so it may wait for the disk.
    let replaced = registry.end_replaced();
    let is_due = registry.next_end_ms() <= now_ms();
    let due = match is_due {
        true => registry.end_due(TOGETHER_MAX),
        false => Ok(Vec::new()),
    };
    let (changes, failure) = match (replaced, due) {
        (Ok(mut changes), Ok(due)) => {
            changes.extend(due);
            (changes, None)
        }
        (Ok(changes), Err(error)) | (Err(error), Ok(changes)) => (changes, Some(error)),
        (Err(error), Err(_)) => (Vec::new(), Some(error)),
    };
    apply(control, changes).await;
    match failure {
        None if is_due => Progress::More,
        None => Progress::Done,
        Some(error) => {
            tracing::warn!(
                %error,
                "the end of tokens cannot be written down; nobody gets in with them, and it is \
                 tried again"
            );
            Progress::Failed
        }
    }
}

async fn apply(control: &Control, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    for change in &changes {
        let (identity, tokens) = (change.identity, &change.credentials_ended);
        tracing::info!(%identity, ?tokens, "tokens ended by themselves, or were replaced");
    }
    if let Err(late) = control.apply_all(changes).await {
        tracing::warn!(%late, "the end of tokens");
    }
}

/// Why a token that is somebody's does not open the door; the client is told what it would be told
/// of any other (SEC-20).
pub(super) fn known_token(refused: NotAdmitted) -> Option<ConnectRefusal> {
    let (identity, credential) = refused.of?;
    tracing::debug!(%identity, credential, why = %refused.why, "a known token was refused");
    match refused.why {
        TokenRefusal::Unknown => None,
        TokenRefusal::NotYet => Some(ConnectRefusal::TokenNotYet),
        TokenRefusal::Expired => Some(ConnectRefusal::TokenExpired),
        TokenRefusal::Network => Some(ConnectRefusal::TokenNetwork),
        TokenRefusal::Certificate => Some(ConnectRefusal::TokenCertificate),
        TokenRefusal::CertificateNotAsked => Some(ConnectRefusal::TokenCertificateNotAsked),
        TokenRefusal::Unvouched => Some(ConnectRefusal::BadCertificate),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
