//! A client's byte stream, plain or TLS, that can move from one worker's runtime to another's.
//!
//! Under TLS the bytes a peer may send without giving us data are bounded (SEC-70): in the
//! handshake by [`HANDSHAKE_BYTES_MAX`], behind it by [`OVERHEAD_BYTES_MAX`] a second. Key updates
//! and the like are then too rare to cost anything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::TlsStream;

/// The longest record, in bytes: that of TLS 1.2.
const RECORD_BYTES_MAX: u32 = 5 + 16 * 1024 + 2 * 1024;

/// What a client may send during the TLS handshake, in bytes. A ClientHello with a post-quantum
/// key share has under 3 KiB. A record more, as the library reads on behind the handshake until it
/// has what comes next as a whole: a long CONNECT is no flood.
pub(super) const HANDSHAKE_BYTES_MAX: u32 = 16 * 1024 + RECORD_BYTES_MAX;

/// What a client may send in one second without giving us data, in bytes: 1,200 key updates.
pub(super) const OVERHEAD_BYTES_MAX: u32 = 32 * 1024;

/// Bytes of TLS that one byte of data may stand for: records of two bytes, the shortest packets
/// of MQTT, have 24 bytes in all.
const OVERHEAD_FACTOR: u32 = 16;

/// In which time the overhead is counted together.
const OVERHEAD_WINDOW: Duration = Duration::from_secs(1);

/// A connection's stream on the worker that owns it.
pub(super) enum Stream {
    /// MQTT over TCP.
    Plain(TcpStream),
    /// MQTT over TLS. Boxed: its state is ten times a socket's.
    Tls(Box<TlsStream<Socket>>),
}

/// A stream between two workers, registered with no runtime.
pub(super) enum Detached {
    /// The plain socket.
    Plain(std::net::TcpStream),
    /// The TLS state with its socket detached inside.
    Tls(Box<TlsStream<Socket>>),
}

/// A socket under TLS. It can be detached from its runtime without touching the TLS state above.
pub(super) struct Socket {
    state: SocketState,
    /// Bytes that came and stand for no data yet.
    overhead: u32,
    /// Since when they are counted; `None` during the handshake.
    since: Option<Instant>,
}

enum SocketState {
    /// Registered with this thread's runtime.
    Attached(TcpStream),
    /// On its way between two runtimes.
    Detached(std::net::TcpStream),
    /// Taken out for a moment; never seen by the TLS layer.
    Absent,
}

impl Stream {
    /// Takes the stream off this thread's runtime.
    pub(super) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Plain(socket) => socket.into_std().map(Detached::Plain),
            Self::Tls(mut stream) => {
                let socket = &mut stream.get_mut().0.state;
                if let SocketState::Attached(inner) = std::mem::replace(socket, SocketState::Absent)
                {
                    *socket = SocketState::Detached(inner.into_std()?);
                }
                Ok(Detached::Tls(stream))
            }
        }
    }

    /// Puts the stream on this thread's runtime.
    pub(super) fn attach(detached: Detached) -> io::Result<Self> {
        match detached {
            Detached::Plain(socket) => TcpStream::from_std(socket).map(Self::Plain),
            Detached::Tls(mut stream) => {
                let socket = &mut stream.get_mut().0.state;
                if let SocketState::Detached(inner) = std::mem::replace(socket, SocketState::Absent)
                {
                    *socket = SocketState::Attached(TcpStream::from_std(inner)?);
                }
                Ok(Self::Tls(stream))
            }
        }
    }

    /// Reads what is there, at most `into`'s free room.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Tls(stream) => {
                let before = into.filled().len();
                ready!(Pin::new(stream.as_mut()).poll_read(cx, into))?;
                let data = into.filled().len() - before;
                stream.get_mut().0.gave_data(data);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Writes as much of `bytes` as the peer takes now and hands it to the kernel. `Pending`
    /// means that nothing was taken; `cx`'s task is woken when more goes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            // The way that asks nothing of the runtime first; only a full socket needs its waker.
            Self::Plain(socket) => match socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(socket).poll_write(cx, bytes)
                }
                written => Poll::Ready(written),
            },
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    /// Hands what the TLS layer still holds to the kernel; a plain stream holds nothing.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    /// Says goodbye: TLS close_notify, then FIN. What the peer still sends is not read here.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

impl Socket {
    /// A socket whose TLS handshake begins.
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            state: SocketState::Attached(socket),
            overhead: 0,
            since: None,
        }
    }

    /// The handshake is through.
    pub(super) fn handshake_done(&mut self) {
        self.overhead = 0;
        self.since = Some(Instant::now());
    }

    fn attached(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.state {
            SocketState::Attached(socket) => Ok(Pin::new(socket)),
            SocketState::Detached(_) | SocketState::Absent => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    fn gave_data(&mut self, bytes: usize) {
        let covered = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .saturating_mul(OVERHEAD_FACTOR);
        self.overhead = self.overhead.saturating_sub(covered);
    }

    /// Counts bytes that came; an error once they are more than a client needs. The clock is
    /// asked only when that may be so.
    fn came(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.overhead = self.overhead.saturating_add(bytes);
        let is_flood = match &mut self.since {
            None => self.overhead > HANDSHAKE_BYTES_MAX,
            Some(_) if self.overhead <= OVERHEAD_BYTES_MAX => false,
            Some(since) if since.elapsed() < OVERHEAD_WINDOW => true,
            Some(since) => {
                *since = Instant::now();
                self.overhead = 0;
                false
            }
        };
        if is_flood {
            let why = "more TLS bytes without data than a client needs";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(this.attached()?.poll_read(cx, into))?;
        this.came(into.filled().len() - before)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.get_mut().attached()?.poll_write(cx, bytes))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().attached()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().attached()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(since: Option<Instant>) -> Socket {
        Socket {
            state: SocketState::Absent,
            overhead: 0,
            since,
        }
    }

    #[test]
    fn s_33_bytes_without_data_are_bounded_per_second() {
        let mut socket = socket(Some(Instant::now()));
        // A key update has 27 bytes.
        let taken = (0..10_000).take_while(|_| socket.came(27).is_ok()).count();
        assert_eq!(taken, OVERHEAD_BYTES_MAX as usize / 27);
        socket.since = Instant::now().checked_sub(OVERHEAD_WINDOW);
        assert!(socket.came(27).is_ok(), "the next second begins anew");
        assert_eq!(socket.overhead, 0);
    }

    #[test]
    fn data_pays_for_its_records() {
        let mut socket = socket(Some(Instant::now()));
        for _ in 0..100_000 {
            socket.came(24).unwrap(); // PINGREQ alone in a record
            socket.gave_data(2);
            socket.came(16_406).unwrap(); // the largest record
            socket.gave_data(16_384);
        }
    }

    #[test]
    fn sec_70_a_handshake_has_few_bytes_however_long_it_takes() {
        let mut socket = socket(None);
        assert!(socket.came(HANDSHAKE_BYTES_MAX as usize).is_ok());
        let error = socket.came(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }
}
