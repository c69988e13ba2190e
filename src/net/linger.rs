//! The end of a connection: our last word is written and the rest of the peer's is read away, so
//! that no reset for unread bytes destroys it on its way. Who has nothing left to say is not
//! waited for: the system sends what was written before the end.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::connection::{Connection, End};
use super::output::Output;

/// How long a closed connection is drained, so that the peer reads our last word before the
/// reset that unread data would cause.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Drains what the peer still sends, so that it can read our last word, then lets go.
pub(super) async fn linger(connection: Rc<Connection>, end: End) {
    if connection.has_heard_all(end) {
        return;
    }
    let drained = std::future::poll_fn(|cx| {
        let inner = &mut *connection.inner.borrow_mut();
        poll_drained(&mut inner.output, cx)
    });
    // Either way the socket is closed when this returns.
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// As [`linger`], for an output that belongs to nobody yet.
pub(super) async fn drain(output: &mut Output) {
    let drained = std::future::poll_fn(|cx| {
        output.remember(cx.waker());
        poll_drained(output, cx)
    });
    let _ = tokio::time::timeout(LINGER, drained).await;
}

fn poll_drained(output: &mut Output, cx: &mut Context<'_>) -> Poll<()> {
    if output.poll_unsent(cx).is_pending() || output.poll_shutdown(cx).is_pending() {
        return Poll::Pending;
    }
    let mut waste = [0; 1024];
    loop {
        match output.poll_read(cx, &mut waste) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}
