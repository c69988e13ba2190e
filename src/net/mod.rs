//! Sockets: the acceptor, the workers, TLS, and one connection's life.
//!
//! [`acceptor`] deals sockets out; [`handshake`] takes one as far as CONNECT on whatever worker
//! it was dealt to; [`home`] opens its session on the session's home worker; [`connection`] reads
//! it, [`feed`] gives applications their
//! telemetry, [`publish`] passes what it says through the gate to the journal, [`outbox`] and
//! [`ledger`]
//! hold what was promised until it is durable, and [`worker`] is the thread all this runs on.

mod acceptor;
mod connection;
mod feed;
mod handshake;
mod home;
mod ledger;
mod outbox;
mod output;
mod parked;
mod publish;
mod start;
mod stream;
pub mod tls;
mod worker;

pub use acceptor::Listener;
pub use handshake::{CONNECT_BYTES_MAX, CONNECT_TIMEOUT, HANDSHAKES_MAX};
pub use start::{Net, NetError, NetParts};
