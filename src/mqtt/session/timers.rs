//! Keep-alive: a client that says nothing for one and a half times its keep alive is gone.

use std::time::{Duration, Instant};

/// The keep-alive clock of one connection. It hears complete packets only, so that bytes that
/// trickle in do not keep a connection alive (SEC-80).
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Seconds granted, 1 to 65,535.
    granted_s: u16,
    heard: Instant,
}

impl KeepAlive {
    /// A wish of 0 ("none") or beyond `max_s` is granted as `max_s`.
    #[must_use]
    pub fn new(wished_s: u16, max_s: u16, now: Instant) -> Self {
        Self {
            granted_s: granted(wished_s, max_s),
            heard: now,
        }
    }

    /// A complete packet came, or the server reads again after it had stopped reading.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The moment at which the client counts as gone [MQTT-3.1.2-22].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.heard + Duration::from_millis(u64::from(self.granted_s) * 1_500)
    }
}

/// Seconds granted for a wish: 1 to `max_s`.
pub(super) fn granted(wished_s: u16, max_s: u16) -> u16 {
    let granted_s = if wished_s == 0 {
        max_s
    } else {
        wished_s.min(max_s)
    };
    granted_s.max(1)
}

impl super::Session {
    /// The moment at which this client counts as gone unless it is heard before.
    #[must_use]
    pub fn keep_alive_deadline(&self) -> Instant {
        self.keep_alive.deadline()
    }

    /// The client counts as heard: a packet of it waits for room, or the server reads it again
    /// after back-pressure, and silence meanwhile was not the client's fault.
    pub fn heard(&mut self, now: Instant) {
        self.keep_alive.heard(now);
    }
}
