//! A greeter: a thread on which clients come as far as CONNECT, beside the workers.
//!
//! A TLS handshake takes 0.1 to 0.5 ms of a core, and after a network outage thousands of clients
//! begin one in the same moment. None of that work runs on a worker. Greeters have a lower
//! priority than workers and committer, and offer their core after each step of a handshake
//! ([`Turnstile`]): what a connected client sends does not wait behind those who come.
//!
//! Who is let in goes to its session's home worker. While handshakes wait for their turn, those
//! who are through go together, so that a worker is not woken for each. What waits here is bounded
//! by the sockets there may be before CONNECT.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::acceptor::Accepted;
use super::handshake::{self, Arrival, NEXT_READ_BYTES};
use super::start::spawn_vital;
use super::turnstile::Turnstile;
use super::worker::Shared;
use crate::metrics::{ConnectRefusal, WorkerCounters};

/// By how much the threads that let clients in are nicer than the rest of the process: they get a
/// quarter of a core that others keep busy, and all of one that nobody does.
const NICER_BY: i32 = 5;

/// So many clients go to a worker together, at most.
pub(super) const TOGETHER_MAX: usize = 8;

/// How long the first of them waits for the others.
const TOGETHER_WITHIN: Duration = Duration::from_millis(1);

/// One greeter's state; there are as many as workers.
pub(super) struct Greeter {
    pub(super) shared: Arc<Shared>,
    /// Where handshakes take their turns.
    pub(super) turnstile: Rc<Turnstile>,
    /// What is read of a CONNECT at once. One serves all.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// By home worker.
    gates: Vec<Gate>,
    counters: RefCell<WorkerCounters>,
}

/// Where clients gather that go to one worker.
#[derive(Default)]
struct Gate {
    gathered: RefCell<Vec<Arrival>>,
    /// When the first of them came.
    since: Cell<Option<Instant>>,
    open: Notify,
}

impl Greeter {
    pub(super) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let counters = shared.metrics.worker();
        Rc::new(Self {
            gates: shared.homes.iter().map(|_| Gate::default()).collect(),
            shared,
            turnstile: Rc::default(),
            buffer: RefCell::new(vec![0; NEXT_READ_BYTES]),
            counters: RefCell::new(counters),
        })
    }

    /// Greets until the acceptor ends; who is on the way then is closed.
    pub(super) async fn run(self: Rc<Self>, mut sockets: mpsc::Receiver<Accepted>) {
        self.open();
        while let Some(accepted) = sockets.recv().await {
            handshake::start(&self, accepted);
        }
    }

    /// Starts what a greeter needs on the thread that it is on; to be called once.
    pub(super) fn open(self: &Rc<Self>) {
        give_way();
        let greeter = Rc::clone(self);
        let turns = Rc::clone(&self.turnstile).turns(move || greeter.open_gates());
        spawn_vital(turns);
        for home in 0..self.gates.len() {
            spawn_vital(Rc::clone(self).serve_gate(home));
        }
    }

    /// Lets a client gather with others who go to the same home, until
    /// [`Greeter::open_gates_now`]: both in one step of the thread.
    pub(super) fn gather(&self, home: usize, arrival: Arrival) {
        let Some(gate) = self.gates.get(home) else {
            return;
        };
        gate.gathered.borrow_mut().push(arrival);
        if gate.since.get().is_none() {
            gate.since.set(Some(Instant::now()));
        }
    }

    /// Sends all home who have gathered; where the worker is behind, they wait for it.
    pub(super) fn open_gates_now(&self) {
        for (gate, inbox) in self.gates.iter().zip(&self.shared.homes) {
            if gate.since.get().is_none() {
                continue;
            }
            match inbox.try_reserve() {
                Ok(room) => {
                    gate.since.set(None);
                    room.send(gate.gathered.take());
                }
                Err(_) => gate.open.notify_one(),
            }
        }
    }

    /// Sends a client home: at once, or with the next ones if more handshakes are due.
    pub(super) fn send_home(&self, home: usize, arrival: Arrival) {
        self.gather(home, arrival);
        let Some(gate) = self.gates.get(home) else {
            return;
        };
        if !self.turnstile.is_busy() || gate.gathered.borrow().len() >= TOGETHER_MAX {
            gate.open.notify_one();
        }
    }

    /// Lets those go who have waited long enough; all, if no handshake is due.
    fn open_gates(&self) {
        let is_busy = self.turnstile.is_busy();
        for gate in &self.gates {
            let Some(since) = gate.since.get() else {
                continue;
            };
            if !is_busy || since.elapsed() >= TOGETHER_WITHIN {
                gate.open.notify_one();
            }
        }
    }

    /// A full inbox makes the clients of this home wait, and nobody else.
    async fn serve_gate(self: Rc<Self>, home: usize) {
        let (Some(gate), Some(inbox)) = (self.gates.get(home), self.shared.homes.get(home)) else {
            return;
        };
        loop {
            gate.open.notified().await;
            gate.since.set(None);
            let gathered = gate.gathered.take();
            // The worker is gone: so is the broker, soon.
            if !gathered.is_empty() && inbox.send(gathered).await.is_err() {
                return;
            }
        }
    }

    /// A CONNECT led to a panic.
    pub(super) fn count_panic(&self) {
        let counters = &mut *self.counters.borrow_mut();
        counters.panicked();
        counters.flush();
    }

    pub(super) fn count_connect_refused(&self, why: ConnectRefusal) {
        let counters = &mut *self.counters.borrow_mut();
        counters.connect_refused(why);
        counters.flush();
    }
}

/// Lowers the priority of this thread, and of no other.
pub(crate) fn give_way() {
    // Linux counts niceness by thread. More of it needs no right.
    if let Err(error) = rustix::process::nice(NICER_BY) {
        tracing::debug!(%error, "a thread keeps the priority of workers and committer");
    }
}
