//! Replies of one JSON object a line, made by a thread of their own, that may have no end.
//!
//! The thread waits while the caller does not read; it ends when nobody reads any more, which it
//! sees by its sender.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

/// Parts of a reply that may wait for the caller, each of at most [`PART_BYTES`] and one line.
const PARTS_WAITING_MAX: usize = 4;

/// Bytes of lines sent at a time.
pub(super) const PART_BYTES: usize = 64 * 1024;

/// Longest wait for more lines before looking whether the caller is still there.
pub(super) const IDLE_WAIT: Duration = Duration::from_millis(200);

/// Where lines are put in.
pub(super) type Lines = mpsc::Sender<Bytes>;

/// A reply, and where its lines are put in.
pub(super) fn reply() -> (Lines, Response) {
    let (lines, parts) = mpsc::channel(PARTS_WAITING_MAX);
    let body = stream::unfold(parts, |mut parts: mpsc::Receiver<Bytes>| async {
        let part = parts.recv().await?;
        Some((Ok::<_, Infallible>(part), parts))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (lines, (kind, Body::from_stream(body)).into_response())
}

/// Sends what there is; false if nobody reads any more.
pub(super) fn send(lines: &Lines, part: &mut Vec<u8>) -> bool {
    part.is_empty() || lines.blocking_send(std::mem::take(part).into()).is_ok()
}
