//! `POST /admin/v1/backup`: everything, sealed, as a stream.
//!
//! The caller gets bytes and decides where they go: this server writes no path that a caller names,
//! and the secrets leave it only under the passphrase (SEC-76). A backup that fails in the middle
//! breaks the connection off: what was sent has no end mark and cannot be restored.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::api::BackupRequest;
use super::body::JsonBody;
use super::refused::{Code, Refused};
use super::service::Shared;
use crate::backup::{self, BackupError, Passphrase};

/// Pieces that wait for the caller to read them; the backup waits for room.
const PIECES_WAITING_MAX: usize = 8;

/// Bytes of a piece at least, but for the last one.
const PIECE_BYTES: usize = 128 * 1024;

type Piece = Result<Bytes, io::Error>;

/// `POST /admin/v1/backup`
pub(super) async fn make(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<BackupRequest>,
) -> Result<Response, Refused> {
    let passphrase = Passphrase::new(wanted.passphrase.expose()).map_err(|error| {
        Refused::new(Code::WeakPassphrase, error.to_string()).target("passphrase")
    })?;
    let permit = shared.lanes.bulk_permit()?;
    let (pieces, taken) = mpsc::channel::<Piece>(PIECES_WAITING_MAX);
    spawn_blocking(move || {
        let _permit = permit;
        let out = Pieces {
            to: pieces.clone(),
            piece: Vec::with_capacity(PIECE_BYTES),
        };
        match backup::write(&shared.folders, &shared.journal, &passphrase, out) {
            Ok((made, _)) => {
                tracing::info!(files = made.files, bytes = made.bytes, "a backup was made");
            }
            Err(error) => {
                let gone = matches!(&error, BackupError::Stream { .. });
                if gone {
                    tracing::warn!("a backup was broken off: its reader went away");
                } else {
                    tracing::error!(%error, "a backup failed");
                }
                let broken = io::Error::other("the backup failed");
                let _ = pieces.blocking_send(Err(broken));
            }
        }
    });
    let next = |mut taken: mpsc::Receiver<Piece>| async { Some((taken.recv().await?, taken)) };
    let body = Body::from_stream(stream::unfold(taken, next));
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, body).into_response())
}

/// Hands bytes to the connection, in pieces.
struct Pieces {
    to: mpsc::Sender<Piece>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.to
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
