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

/// The stream of one connection. Whoever has something to say writes at once; what the kernel
/// does not take is kept, and the connection's task is woken to write it when it can.
pub(super) struct Output {
    stream: Stream,
    /// Empty, without memory, unless the peer is slow.
    unsent: BytesMut,
    /// The TLS layer holds bytes the kernel did not take.
    is_unflushed: bool,
    /// The connection's task, to be woken when the socket takes more.
    waker: Option<Waker>,
    is_broken: bool,
    unsent_bytes_max: usize,
    /// Since when bytes wait and none of them has gone.
    stuck_since: Option<Instant>,
    is_overfull: bool,
}

impl Output {
    pub(super) fn new(stream: Stream, unsent_bytes_max: usize) -> Self {
        Self {
            stream,
            unsent: BytesMut::new(),
            is_unflushed: false,
            waker: None,
            is_broken: false,
            unsent_bytes_max,
            stuck_since: None,
            is_overfull: false,
        }
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

    /// Writes `bytes` behind all that was written before, now or later.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.is_broken || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if self.unsent.is_empty() {
            rest = match self.write_now(bytes) {
                Ok(written) => bytes.get(written..).unwrap_or(&[]),
                Err(_) => return self.give_up(),
            };
        }
        if rest.is_empty() {
            return;
        }
        self.stuck_since.get_or_insert_with(Instant::now);
        if self.unsent.len() + rest.len() > self.unsent_bytes_max {
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
        if !self.unsent.is_empty() || self.is_unflushed {
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
        self.wake();
    }
}
