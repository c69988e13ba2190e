//! A connection's stream with what could not be written yet.

use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use super::stream::Stream;

/// What may wait for one client that does not read (SEC-82). Beyond either the client is cut off:
/// what it was sent are acknowledgements of its own messages, which it will ask for again.
#[derive(Clone, Copy, Debug)]
pub struct UnsentLimits {
    /// Bytes, beyond what the system's buffers hold.
    pub bytes_max: usize,
    /// Time without any of them going.
    pub timeout: Duration,
}

/// Bytes of deliveries that are collected for one write. A turn with more for one client writes
/// meanwhile, so that buffers stay small and are not read again from main memory.
const TURN_BYTES: usize = 32 * 1024;

/// Room of a new buffer for deliveries, bytes: a burst of small messages.
const TURN_BYTES_FIRST: usize = 1024;

/// Bytes that the buffers for deliveries of one worker may keep while they are empty, and the
/// size beyond which one is given back to the system.
const LENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const LENT_ONE_BYTES_MAX: usize = 2 * TURN_BYTES;

/// Buffers for what is delivered in a turn, used again and again by a worker's connections.
#[derive(Default)]
pub(super) struct Lent {
    free: Vec<Vec<u8>>,
    /// Room in all of them.
    bytes: usize,
}

/// The stream of one connection. Whoever has something to say writes at once; what the kernel
/// does not take is kept, and the connection's task is woken to write it when it can.
pub(super) struct Output {
    stream: Stream,
    /// Empty, without memory, unless the peer is slow.
    unsent: BytesMut,
    /// What was delivered in this turn, in a buffer that the worker lends; written in one go by
    /// [`Output::flush`].
    turn: Vec<u8>,
    /// A layer of the stream holds bytes the kernel did not take.
    is_unflushed: bool,
    /// The connection's task, to be woken when the socket takes more.
    waker: Option<Waker>,
    is_broken: bool,
    unsent_bytes_max: usize,
    /// Bytes of the feed and of deliveries among those that wait: their own bounds hold for them,
    /// so not the limit.
    fed: usize,
    /// Since when bytes wait and none of them has gone.
    stuck_since: Option<Instant>,
    is_overfull: bool,
}

impl Lent {
    fn take(&mut self) -> Vec<u8> {
        match self.free.pop() {
            Some(buffer) => {
                self.bytes = self.bytes.saturating_sub(buffer.capacity());
                buffer
            }
            None => Vec::with_capacity(TURN_BYTES_FIRST),
        }
    }

    /// Keeps an empty buffer, unless enough is kept.
    fn give_back(&mut self, buffer: Vec<u8>) {
        let room = buffer.capacity();
        let is_of_use = (1..=LENT_ONE_BYTES_MAX).contains(&room);
        if is_of_use && self.bytes + room <= LENT_BYTES_MAX {
            self.bytes += room;
            self.free.push(buffer);
        }
    }
}

impl Output {
    pub(super) fn new(stream: Stream, unsent_bytes_max: usize) -> Self {
        Self {
            stream,
            unsent: BytesMut::new(),
            turn: Vec::new(),
            is_unflushed: false,
            waker: None,
            is_broken: false,
            unsent_bytes_max,
            fed: 0,
            stuck_since: None,
            is_overfull: false,
        }
    }

    /// What the connection runs over, as the audit has it.
    pub(super) fn over(&self) -> &'static str {
        self.stream.over()
    }

    /// True if bytes have waited for `timeout` and none of them has gone.
    pub(super) fn is_stuck(&self, now: Instant, timeout: Duration) -> bool {
        self.stuck_since
            .is_some_and(|since| now.saturating_duration_since(since) >= timeout)
    }

    /// True if it was cut off because more waited for it than may.
    pub(super) fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    /// Remembers the task that polls this connection.
    pub(super) fn remember(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// True once the peer is gone or was cut off for not reading.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// True if closing the socket takes nothing from the client: the system has all that was
    /// written. Not so under TLS and WebSocket, which have last words of their own.
    pub(super) fn is_with_system(&self) -> bool {
        !self.stream.has_last_word() && self.unsent.is_empty() && self.turn.is_empty()
    }

    /// True if nothing waits to be written, and something may be.
    pub(super) fn is_clear(&self) -> bool {
        !self.is_broken && self.unsent.is_empty() && !self.is_unflushed
    }

    /// Writes a portion of the feed; call it only while [`Output::is_clear`].
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len();
        self.write(bytes);
    }

    /// Bytes that wait for the client, those of this turn included.
    pub(super) fn waiting(&self) -> usize {
        self.unsent.len() + self.turn.len()
    }

    /// The buffer for what is delivered in this turn; `lent` are buffers of the worker's. Whoever
    /// adds to it sees to it that [`Output::flush`] is called before the turn ends.
    #[inline]
    pub(super) fn turn(&mut self, lent: &mut Lent) -> &mut Vec<u8> {
        if self.turn.capacity() == 0 {
            self.turn = lent.take();
        }
        &mut self.turn
    }

    /// True if so much was delivered in this turn that it should be written now.
    #[inline]
    pub(super) fn is_turn_full(&self) -> bool {
        self.turn.len() >= TURN_BYTES
    }

    /// Writes what was delivered in this turn and gives the buffer back.
    pub(super) fn flush(&mut self, lent: &mut Lent) {
        let mut turn = std::mem::take(&mut self.turn);
        if !turn.is_empty() {
            self.fed += turn.len();
            self.write(&turn);
            turn.clear();
        }
        lent.give_back(turn);
    }

    /// Writes `bytes` behind all that was written before, now or later.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.is_broken || bytes.is_empty() {
            return;
        }
        if !self.turn.is_empty() {
            // One write for all of this turn.
            return self.turn.extend_from_slice(bytes);
        }
        let mut rest = bytes;
        if self.unsent.is_empty() {
            rest = match self.write_now(bytes) {
                Ok(written) => bytes.get(written..).unwrap_or(&[]),
                Err(_) => return self.give_up(),
            };
        }
        if rest.is_empty() {
            self.fed = 0;
            return;
        }
        self.stuck_since.get_or_insert_with(Instant::now);
        if self.unsent.len() + rest.len() > self.unsent_bytes_max.saturating_add(self.fed) {
            self.is_overfull = true;
            return self.give_up();
        }
        self.unsent.extend_from_slice(rest);
    }

    /// Writes what is kept; ready when nothing is.
    pub(super) fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while !self.unsent.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(written);
            self.stuck_since = Some(Instant::now());
        }
        self.fed = 0;
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        if self.is_unflushed {
            ready!(self.stream.poll_flush(cx))?;
            self.is_unflushed = false;
        }
        self.stuck_since = None;
        Poll::Ready(Ok(()))
    }

    /// Reads what is there into `buffer`; 0 is the peer's end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        ready!(self.stream.poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }

    /// Ends the sending side behind what was written; the peer sees the close at once.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    /// As [`Output::poll_shutdown`], once and without waiting.
    pub(super) fn shutdown(&mut self) {
        if !self.unsent.is_empty() || !self.turn.is_empty() || self.is_unflushed {
            return; // the task writes that first, then ends the sending side
        }
        let waker = self.waker.take();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        // An error means that the peer is gone already; `Pending` is finished by the task.
        let _ = self.stream.poll_shutdown(&mut cx);
        self.waker = waker;
    }

    fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Taken out and put back, so that the context can borrow it without a clone.
        let waker = self.waker.take();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        let mut written = 0;
        let result = loop {
            let rest = bytes.get(written..).unwrap_or(&[]);
            if rest.is_empty() {
                break Ok(written);
            }
            match self.stream.poll_write(&mut cx, rest) {
                Poll::Ready(Ok(0)) => break Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => break Ok(written),
            }
        };
        if result.is_ok() {
            self.is_unflushed = match self.stream.poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Pending | Poll::Ready(Err(_)) => true,
            };
            if self.is_unflushed {
                self.stuck_since.get_or_insert_with(Instant::now);
            }
        }
        self.waker = waker;
        result
    }

    fn give_up(&mut self) {
        self.is_broken = true;
        self.unsent = BytesMut::new();
        self.turn = Vec::new();
        self.wake();
    }
}
