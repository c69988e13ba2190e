//! What the service manager is told (systemd with `Type=notify`): ready, stopping, still alive.
//!
//! Without `NOTIFY_SOCKET` nothing is said to anybody. A message that does not arrive is no reason
//! to end: the service manager decides by itself what silence means.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything listens and is served.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The broker ends, and will take a moment.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The broker is alive.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the service manager wants to hear that the broker is alive: half of what it waits.
pub(super) fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how the broker is");
    }
}
