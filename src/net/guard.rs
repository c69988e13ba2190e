//! A panic while one client is served: what it ends (SEC-16).
//!
//! Where the step at hand touches what is this client's alone (frames, packets, its session, the
//! gate, the scan of its payload), nothing of it is shared and nobody else can notice: the client's
//! connection ends, told as 0x80, counted and logged. Anywhere else something that clients share
//! may be half changed (the tree, what is retained, the open batch, a table): the process ends with
//! exit code 1, and finds what it promised in the journal.
//!
//! A CONNECT is looked at before anything is its client's: a panic there closes the socket.
//!
//! So steps say that they are alone, not that they are shared: one that is forgotten ends too much,
//! never too little. The price is two stores to a cell for each step.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::connection::{Connection, End};
use super::greeter::Greeter;
use super::worker::Worker;
use crate::broker::vital;
use crate::mqtt::session::Close;
use crate::mqtt::wire::ReasonCode;

impl Worker {
    /// Does a step that touches nothing but what is one client's.
    #[inline]
    pub(super) fn alone<T>(&self, step: impl FnOnce() -> T) -> T {
        self.is_alone.set(true);
        let done = step();
        self.is_alone.set(false);
        done
    }

    /// Serves a client. Where that panics in a step that was [`Worker::alone`], the answer is how
    /// the connection ends; any other panic ends the process.
    pub(super) fn guarded<T>(
        &self,
        connection: &Connection,
        serve: impl FnOnce() -> T,
    ) -> Result<T, End> {
        // What the step has left of the connection is only ended; cells are free again.
        let served = catch_unwind(AssertUnwindSafe(serve));
        served.map_err(|_| {
            if !self.is_alone.replace(false) {
                vital::end_after_panic("network");
            }
            let device = connection.principal.identity;
            tracing::error!(%device, "a client's packet led to a panic: its connection ends");
            self.count(|counters| counters.panicked());
            // What its packets before this one led to goes on.
            self.hand_over_soon();
            End::Closed(Close::because(ReasonCode::UnspecifiedError))
        })
    }
}

impl Greeter {
    /// Looks at a CONNECT; `None` if that panicked.
    pub(super) fn guarded<T>(&self, from: IpAddr, look: impl FnOnce() -> T) -> Option<T> {
        let looked = catch_unwind(AssertUnwindSafe(look)).ok();
        if looked.is_none() {
            tracing::error!(%from, "a CONNECT led to a panic: its connection ends");
            self.count_panic();
        }
        looked
    }
}
