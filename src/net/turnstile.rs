//! The turnstile: the handshakes of a greeter take turns.
//!
//! Handshakes that have begun go before those that have not: in a storm the first are through
//! early, instead of all in the last moment, and few hold TLS state at once. One whose deadline
//! passes in line is closed having cost nothing. For that, handshakes get [`SHARE`] of time per
//! turn; whoever comes later waits in line, and the next turn begins only after the runtime has
//! looked at all sockets.
//!
//! Between two turns the thread offers its core to others. The system lets a thread finish its
//! slice, of a millisecond or more, even if a worker with a higher priority has something to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Time for handshakes in one turn of a greeter. The step that exceeds it is the last of its turn.
const SHARE: Duration = Duration::from_micros(200);

/// One greeter's turnstile. The line is bounded by the sockets that may be before CONNECT.
#[derive(Default)]
pub(super) struct Turnstile {
    /// Of this turn's share.
    spent: Cell<Duration>,
    begun: Line,
    new: Line,
    waiting: Notify,
}

/// Tasks in order of arrival. A task that left the line by itself leaves its waker, which then
/// does nothing.
#[derive(Default)]
struct Line {
    wakers: RefCell<VecDeque<Waker>>,
    /// Number of the waker in front.
    front: Cell<u64>,
}

/// A future whose every step takes its turn.
pub(super) struct Paced<F> {
    turnstile: Rc<Turnstile>,
    future: Pin<Box<F>>,
    /// Number in the line, if it ever stood in it.
    number: Option<u64>,
    has_begun: bool,
}

impl Turnstile {
    /// Lets `future` take its turns here.
    pub(super) fn pace<F: Future>(self: &Rc<Self>, future: F) -> Paced<F> {
        Paced {
            turnstile: Rc::clone(self),
            future: Box::pin(future),
            number: None,
            has_begun: false,
        }
    }

    /// Begins turns for as long as somebody waits, and calls `between` behind each; never returns.
    pub(super) async fn turns(self: Rc<Self>, between: impl Fn()) {
        loop {
            self.waiting.notified().await;
            while self.is_busy() {
                std::thread::yield_now();
                // The runtime looks at all sockets before this goes on, and runs what is ready
                // there first.
                tokio::task::yield_now().await;
                between();
                self.spent.set(Duration::ZERO);
                self.next();
            }
            between();
        }
    }

    /// True if somebody waits for a turn.
    pub(super) fn is_busy(&self) -> bool {
        !(self.begun.is_empty() && self.new.is_empty())
    }

    fn next(&self) {
        if let Some(waker) = self.begun.pop().or_else(|| self.new.pop()) {
            waker.wake();
        }
    }

    fn spend(&self, time: Duration) {
        let spent = self.spent.get().saturating_add(time);
        self.spent.set(spent);
        if spent < SHARE {
            self.next();
        } else if self.is_busy() {
            self.waiting.notify_one();
        }
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    fn pop(&self) -> Option<Waker> {
        let waker = self.wakers.borrow_mut().pop_front()?;
        self.front.set(self.front.get() + 1);
        Some(waker)
    }

    fn push(&self, waker: &Waker) -> u64 {
        let mut wakers = self.wakers.borrow_mut();
        wakers.push_back(waker.clone());
        self.front.get() + u64::try_from(wakers.len()).unwrap_or(u64::MAX) - 1
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let turnstile = Rc::clone(&self.turnstile);
        if turnstile.spent.get() >= SHARE {
            let line = if self.has_begun {
                &turnstile.begun
            } else {
                &turnstile.new
            };
            if self.number.is_none_or(|number| number < line.front.get()) {
                self.number = Some(line.push(cx.waker()));
            }
            turnstile.waiting.notify_one();
            return Poll::Pending;
        }
        if !self.has_begun {
            self.has_begun = true;
            self.number = None;
        }
        let since = Instant::now();
        let outcome = self.future.as_mut().poll(cx);
        turnstile.spend(since.elapsed());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 1 ms each, noted in order.
    async fn steps(name: u32, count: u32, log: Rc<RefCell<Vec<u32>>>) {
        for _ in 0..count {
            let until = Instant::now() + Duration::from_millis(1);
            while Instant::now() < until {}
            log.borrow_mut().push(name);
            tokio::task::yield_now().await;
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn others_run_between_two_handshake_steps() {
        run(async {
            let turnstile = Rc::new(Turnstile::default());
            tokio::task::spawn_local(Rc::clone(&turnstile).turns(|| ()));
            let log = Rc::new(RefCell::new(Vec::new()));
            let handshakes: Vec<_> = (1..=20)
                .map(|name| {
                    tokio::task::spawn_local(turnstile.pace(steps(name, 2, Rc::clone(&log))))
                })
                .collect();
            // A connected client: ready in every turn of the runtime.
            let seen = Rc::clone(&log);
            let client = tokio::task::spawn_local(async move {
                let mut longest = 0;
                let mut last = 0;
                while last < 40 {
                    tokio::task::yield_now().await;
                    let now = seen.borrow().len();
                    longest = longest.max(now - last);
                    last = now;
                }
                longest
            });
            for handshake in handshakes {
                handshake.await.unwrap();
            }
            assert!(client.await.unwrap() <= 2, "it waited behind several steps");
        });
    }

    #[test]
    fn those_that_have_begun_go_first() {
        run(async {
            let turnstile = Rc::new(Turnstile::default());
            tokio::task::spawn_local(Rc::clone(&turnstile).turns(|| ()));
            let log = Rc::new(RefCell::new(Vec::new()));
            let handshakes: Vec<_> = (1..=10)
                .map(|name| {
                    tokio::task::spawn_local(turnstile.pace(steps(name, 3, Rc::clone(&log))))
                })
                .collect();
            for handshake in handshakes {
                handshake.await.unwrap();
            }
            let log = log.borrow();
            let end_of_first = log.iter().rposition(|name| *name == 1).unwrap();
            let begin_of_last = log.iter().position(|name| *name == 10).unwrap();
            assert_eq!(log.len(), 30);
            assert!(end_of_first < begin_of_last, "{log:?}");
        });
    }
}
