//! Listeners: one thread accepts for all of them and deals the sockets out to the workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::tls::Tls;

/// How long accepting rests when the process has no descriptor left: the connections that live
/// go on, new ones wait in the kernel's queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and what is spoken on it.
pub struct Listener {
    /// Bound and listening.
    pub socket: TcpListener,
    /// TLS, or plain TCP.
    pub tls: Option<Tls>,
}

/// A socket on its way to a worker.
pub(super) struct Accepted {
    pub(super) socket: std::net::TcpStream,
    pub(super) tls: Option<Tls>,
}

/// Accepts on every listener until `stop` changes; runs on the acceptor's own thread.
pub(super) async fn accept_all(
    listeners: Vec<Listener>,
    workers: Vec<mpsc::Sender<Accepted>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut accepting = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let workers = workers.clone();
        accepting.push(tokio::task::spawn_local(async move {
            if let Err(error) = accept(listener, &workers, index).await {
                tracing::error!(%error, "a listener cannot accept any longer");
            }
        }));
    }
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
    for task in accepting {
        task.abort();
    }
}

async fn accept(
    listener: Listener,
    workers: &[mpsc::Sender<Accepted>],
    first: usize,
) -> io::Result<()> {
    listener.socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(listener.socket)?;
    let mut turn = workers.iter().cycle().skip(first % workers.len().max(1));
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                rest_after(&error).await;
                continue;
            }
        };
        let Some(worker) = turn.next() else {
            return Ok(());
        };
        match prepare(stream, address) {
            Ok(socket) => {
                let accepted = Accepted {
                    socket,
                    tls: listener.tls.clone(),
                };
                if worker.send(accepted).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was lost while it was accepted"),
        }
    }
}

fn prepare(stream: tokio::net::TcpStream, _from: SocketAddr) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

/// A peer that left early is nothing to wait for; a lack of descriptors or memory is.
async fn rest_after(error: &io::Error) {
    let is_peers = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !is_peers {
        tracing::warn!(%error, "accepting rests: raise the limit of open files (ulimit -n)");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
