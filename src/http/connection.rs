//! One HTTP connection: TLS, HTTP/1.1 with its limits, and an end that loses no reply.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::REQUEST_TIME_MAX;
use super::caller::Ends;
use crate::net::tls::Tls;

/// Longest request head, bytes (SEC-75); a longer one is answered with 431.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long a closed connection is read on and its bytes thrown away, so that a client still
/// sending a refused body gets to read the refusal instead of a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Serves the connection until it ends, or until `stop` says so and the request under way is
/// answered.
pub(super) async fn serve<F, A>(
    stream: TcpStream,
    tls: Option<Tls>,
    answer: F,
    stop: watch::Receiver<Option<Instant>>,
) where
    F: Fn(Request<Incoming>, Ends) -> A + Send,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return; // gone already
    };
    let ends = Ends {
        local: local.ip(),
        peer: peer.ip().to_canonical(),
    };
    // Replies are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return talk(stream, ends, answer, stop).await;
    };
    match timeout(REQUEST_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, ends, answer, stop).await,
        Ok(Err(error)) => tracing::debug!("an HTTPS handshake failed: {error}"),
        Err(_) => tracing::debug!("an HTTPS handshake took too long"),
    }
}

async fn talk<S, F, A>(stream: S, ends: Ends, answer: F, mut stop: watch::Receiver<Option<Instant>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Ends) -> A + Send,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(request, ends);
        Box::pin(async move { Ok::<_, io::Error>(answer.await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    // Cancel-safe: poll_without_shutdown keeps its state in the connection, changed() has none.
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        _ = stop.changed() => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("an HTTP connection ended: {error}");
    }
    // A client that is late or gone has nothing more to be told.
    let _ = timeout(LINGER, linger(connection.into_parts().io.into_inner())).await;
}

/// Says that nothing more comes, then waits for the other side to say so too.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let mut thrown_away = [0_u8; 4096];
    while stream.read(&mut thrown_away).await? > 0 {}
    Ok(())
}

/// A stream whose reader must take something at least every [`REQUEST_TIME_MAX`]: a client that
/// asks and does not read cannot hold its connection for ever.
struct Patient<S> {
    stream: S,
    /// Since when nothing could be written, as the end of our patience.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S) -> Patient<S> {
        Patient {
            stream,
            until: None,
        }
    }

    /// Passes a finished write on; fails one that has waited too long.
    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.until = None;
            return write;
        }
        let until = self
            .until
            .get_or_insert_with(|| Box::pin(sleep(REQUEST_TIME_MAX)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limit(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, shutdown)
    }
}
