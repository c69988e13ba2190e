//! A greeter: a thread on which clients come as far as CONNECT, beside the workers.
//!
//! A TLS handshake takes 0.1 to 0.5 ms of a core, and after a network outage thousands of clients
//! begin one in the same moment. None of that work runs on a worker. Greeters have a lower
//! priority than workers and committer, and offer their core after each step of a handshake
//! ([`Turnstile`]): what a connected client sends does not wait behind those who come.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::acceptor::Accepted;
use super::handshake::{self, NEXT_READ_BYTES};
use super::start::spawn_vital;
use super::turnstile::Turnstile;
use super::worker::Shared;
use crate::metrics::{ConnectRefusal, WorkerCounters};

/// By how much the threads that let clients in are nicer than the rest of the process: they get a
/// tenth of a core that others keep busy, and all of one that nobody does.
const NICER_BY: i32 = 10;

/// One greeter's state; there are as many as workers.
pub(super) struct Greeter {
    pub(super) shared: Arc<Shared>,
    /// Where handshakes take their turns.
    pub(super) turnstile: Rc<Turnstile>,
    /// What is read of a CONNECT at once. One serves all.
    pub(super) buffer: RefCell<Vec<u8>>,
    counters: RefCell<WorkerCounters>,
}

impl Greeter {
    pub(super) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let counters = shared.metrics.worker();
        Rc::new(Self {
            shared,
            turnstile: Rc::default(),
            buffer: RefCell::new(vec![0; NEXT_READ_BYTES]),
            counters: RefCell::new(counters),
        })
    }

    /// Greets until the acceptor ends; who is on the way then is closed.
    pub(super) async fn run(self: Rc<Self>, mut sockets: mpsc::Receiver<Accepted>) {
        give_way();
        spawn_vital(Rc::clone(&self.turnstile).turns());
        while let Some(accepted) = sockets.recv().await {
            handshake::start(&self, accepted);
        }
    }

    pub(super) fn count_connect_refused(&self, why: ConnectRefusal) {
        let counters = &mut *self.counters.borrow_mut();
        counters.connect_refused(why);
        counters.flush();
    }
}

/// Lowers the priority of this thread, and of no other.
pub(super) fn give_way() {
    // Linux counts niceness by thread. More of it needs no right.
    if let Err(error) = rustix::process::nice(NICER_BY) {
        tracing::debug!(%error, "letting clients in has the priority of everything else");
    }
}
