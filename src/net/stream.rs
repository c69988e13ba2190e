//! A client's byte stream, plain or TLS, that can move from one worker's runtime to another's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::TlsStream;

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
pub(super) enum Socket {
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
                let socket = stream.get_mut().0;
                if let Socket::Attached(inner) = std::mem::replace(socket, Socket::Absent) {
                    *socket = Socket::Detached(inner.into_std()?);
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
                let socket = stream.get_mut().0;
                if let Socket::Detached(inner) = std::mem::replace(socket, Socket::Absent) {
                    *socket = Socket::Attached(TcpStream::from_std(inner)?);
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
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
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
    fn attached(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Attached(socket) => Ok(Pin::new(socket)),
            Self::Detached(_) | Self::Absent => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().attached()?.poll_read(cx, into)
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
