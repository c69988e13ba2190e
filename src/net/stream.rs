//! A client's byte stream, plain, TLS, or WebSocket over either, that can move from one worker's
//! runtime to another's.
//!
//! Under TLS the bytes a peer may send without giving us data are bounded (SEC-70): in the
//! handshake by [`HANDSHAKE_BYTES_MAX`], behind it by [`OVERHEAD_BYTES_MAX`] a second. Key updates
//! and the like are then too rare to cost anything.
//!
//! A session ticket, the last that a server says in a handshake of TLS 1.3, waits for what is said
//! next, which is CONNACK: one write for both. Nobody needs the ticket before the next connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::TlsStream;
use super::websocket::WebSocket;

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

/// What is read of TLS in one call, in bytes. The TLS layer reads on until its caller's buffer is
/// full: only behind the call is it known how much of that was data.
const CALL_BYTES: u32 = 8 * 1024;

/// The start of a record may have come before the call.
const _: () = assert!(CALL_BYTES + RECORD_BYTES_MAX < OVERHEAD_BYTES_MAX);

/// Type of a TLS record that is encrypted.
const ENCRYPTED: u8 = 0x17;

/// An encrypted record that is no longer may be an alert, which has 24 bytes: it must not wait.
const ALERT_BYTES_MAX: usize = 64;

/// Beyond it what is written waits until what is held has gone, in bytes.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// In which time the overhead is counted together.
const OVERHEAD_WINDOW: Duration = Duration::from_secs(1);

/// A connection's stream on the worker that owns it.
pub(super) enum Stream {
    /// MQTT over TCP.
    Plain(TcpStream),
    /// MQTT over TLS. Boxed: its state is ten times a socket's.
    Tls(Box<TlsStream<Socket>>),
    /// MQTT over WebSocket, over one of the others.
    WebSocket(Box<WebSocket<Stream>>),
}

/// A stream between two workers, registered with no runtime.
pub(super) enum Detached {
    /// The plain socket.
    Plain(std::net::TcpStream),
    /// The TLS state with its socket detached inside.
    Tls(Box<TlsStream<Socket>>),
    /// The state of the frames, above one of the others.
    WebSocket(Box<WebSocket<Detached>>),
}

/// A socket under TLS. It can be detached from its runtime without touching the TLS state above.
pub(super) struct Socket {
    state: SocketState,
    /// Bytes that came and stand for no data yet.
    overhead: u32,
    /// Since when they are counted; `None` during the handshake.
    since: Option<Instant>,
    /// Bytes that came in this call.
    call: u32,
    /// It was a flood: nothing more is read.
    is_flood: bool,
    /// A ticket that goes with what is written next.
    held: Vec<u8>,
    /// The last write left something, which may be the rest of a record.
    was_short: bool,
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
            Self::WebSocket(stream) => stream.moved(Self::detach).map(Detached::WebSocket),
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
            Detached::WebSocket(stream) => stream.moved(Self::attach).map(Self::WebSocket),
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
                stream.get_mut().0.call = 0;
                ready!(Pin::new(stream.as_mut()).poll_read(cx, into))?;
                let data = into.filled().len() - before;
                stream.get_mut().0.gave_data(data);
                Poll::Ready(Ok(()))
            }
            Self::WebSocket(stream) => stream.poll_read(cx, into),
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
            Self::WebSocket(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// As [`Stream::poll_write`], two parts behind each other in one go.
    pub(super) fn poll_write_parts(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        match self {
            Self::Plain(socket) => match socket.try_write_vectored(&parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(socket).poll_write_vectored(cx, &parts)
                }
                written => Poll::Ready(written),
            },
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, &parts),
            // It frames what it is given: nothing stands above it.
            Self::WebSocket(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Hands what the TLS layer still holds to the kernel; a plain stream holds nothing.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::WebSocket(stream) => stream.poll_flush(cx),
        }
    }

    /// Says goodbye: WebSocket Close, TLS close_notify, then FIN. What the peer still sends is not
    /// read here.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::WebSocket(stream) => stream.poll_shutdown(cx),
        }
    }

    /// Whether it says that it ends even when no packet does.
    pub(super) fn has_last_word(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Whether that last word has a reason.
    pub(super) fn says_why(&self) -> bool {
        matches!(self, Self::WebSocket(_))
    }

    /// What it runs over, as the audit has it.
    pub(super) fn over(&self) -> &'static str {
        match self {
            Self::Plain(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::WebSocket(stream) => match stream.under() {
                Self::Tls(_) => "wss",
                Self::Plain(_) | Self::WebSocket(_) => "ws",
            },
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
            call: 0,
            is_flood: false,
            held: Vec::new(),
            was_short: false,
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

    /// Whether these are a ticket: in the handshake all else that a server says begins with a
    /// record that is not encrypted.
    fn may_wait(&self, records: &[IoSlice<'_>]) -> bool {
        let first = records.first().and_then(|record| record.first());
        let is_behind = self.since.is_none() && self.held.is_empty() && !self.was_short;
        is_behind && first == Some(&ENCRYPTED) && bytes_of(records) > ALERT_BYTES_MAX
    }

    /// Writes what was held; ready when nothing is.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let written = self.attached().map(|socket| socket.poll_write(cx, &held));
            self.held = held;
            let written = ready!(written?)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        self.held = Vec::new();
        Poll::Ready(Ok(()))
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
        self.call = self.call.saturating_add(bytes);
        self.overhead = self.overhead.saturating_add(bytes);
        self.is_flood |= match &mut self.since {
            None => self.overhead > HANDSHAKE_BYTES_MAX,
            Some(_) if self.overhead <= OVERHEAD_BYTES_MAX => false,
            Some(since) if since.elapsed() < OVERHEAD_WINDOW => true,
            Some(since) => {
                *since = Instant::now();
                self.overhead = 0;
                false
            }
        };
        if self.is_flood {
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
        if this.is_flood {
            this.came(0)?;
        }
        let most = match this.since {
            None => into.remaining(),
            Some(_) => (CALL_BYTES.saturating_sub(this.call) as usize).min(into.remaining()),
        };
        if most == 0 && into.remaining() > 0 {
            // Not an end: the next call goes on at once.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The TLS layer's buffer is initialized: this costs nothing.
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        ready!(this.attached()?.poll_read(cx, &mut part))?;
        let came = part.filled().len();
        into.advance(came);
        this.came(came)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// The records of a flight in one call of the system.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        records: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.held.len() > HELD_BYTES_MAX {
            ready!(this.poll_held(cx))?;
        }
        let bytes = bytes_of(records);
        let waits = this.may_wait(records);
        if this.held.is_empty() && !waits {
            let socket = this.attached()?;
            // Behind the handshake it is one record most often: `send` costs less than `writev`.
            let written = match records {
                [record] => socket.poll_write(cx, record),
                _ => socket.poll_write_vectored(cx, records),
            };
            let written = ready!(written)?;
            this.was_short = written < bytes;
            return Poll::Ready(Ok(written));
        }
        for record in records {
            this.held.extend_from_slice(record);
        }
        // Taken as a whole: what the system does not take now goes with the next flush.
        if !waits && let Poll::Ready(Err(error)) = this.poll_held(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A handshake ends with a flush, for which a ticket is not written.
        if this.since.is_some() {
            ready!(this.poll_held(cx))?;
        }
        this.attached()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        this.attached()?.poll_shutdown(cx)
    }
}

fn bytes_of(records: &[IoSlice<'_>]) -> usize {
    records.iter().map(|record| record.len()).sum()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn socket(since: Option<Instant>) -> Socket {
        Socket {
            state: SocketState::Absent,
            overhead: 0,
            since,
            call: 0,
            is_flood: false,
            held: Vec::new(),
            was_short: false,
        }
    }

    #[test]
    fn s_33_bytes_without_data_are_bounded_per_second() {
        let mut socket = socket(Some(Instant::now()));
        // A key update has 27 bytes.
        let taken = (0..10_000).take_while(|_| socket.came(27).is_ok()).count();
        assert_eq!(taken, OVERHEAD_BYTES_MAX as usize / 27);
        socket.gave_data(16_384);
        assert!(socket.came(27).is_err(), "what was a flood stays one");
    }

    #[test]
    fn s_33_the_next_second_begins_anew() {
        let mut socket = socket(Instant::now().checked_sub(OVERHEAD_WINDOW));
        assert!(socket.came(OVERHEAD_BYTES_MAX as usize).is_ok());
        assert!(socket.came(27).is_ok());
        assert_eq!(socket.overhead, 0);
    }

    #[test]
    fn a_ticket_goes_with_what_is_said_next_and_an_alert_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let connecting = TcpStream::connect(listener.local_addr().unwrap());
            let (accepted, client) = tokio::join!(listener.accept(), connecting);
            let (mut server, mut client) = (Socket::new(accepted.unwrap().0), client.unwrap());
            let (hello, alert) = ([[0x16; 90].as_slice(), &[ENCRYPTED; 900]], [ENCRYPTED; 24]);
            let flight = hello.map(IoSlice::new);
            assert_eq!(server.write_vectored(&flight).await.unwrap(), 990);
            server.write_all(&alert).await.unwrap();
            server.write_all(&[ENCRYPTED; 200]).await.unwrap();
            server.flush().await.unwrap();
            let mut came = [0; 2_000];
            client.read_exact(&mut came[..1_014]).await.unwrap();
            assert_eq!(
                client.try_read(&mut came).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
            server.handshake_done();
            server.write_all(b"connack").await.unwrap();
            assert_eq!(client.read(&mut came).await.unwrap(), 207, "one write");
            assert!(came[..207].ends_with(b"connack"));
            server.write_all(&[ENCRYPTED; 200]).await.unwrap();
            client.read_exact(&mut came[..200]).await.unwrap();
        });
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
