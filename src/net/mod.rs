//! Sockets: the acceptor, the workers, TLS, and one connection's life.
//!
//! [`acceptor`] deals sockets out, as far as there are [`places`]; [`handshake`] takes one as far
//! as CONNECT on the thread of a [`greeter`], in turns ([`turnstile`]), and [`throttle`] slows down who guesses; [`home`] opens its session on the session's home
//! worker; [`connection`] reads it, [`feed`] gives applications their telemetry, [`publish`]
//! passes what it says through the gate to the journal, [`outbox`] and [`ledger`] hold what was
//! promised until it is durable, and [`worker`] is the thread all this runs on.

mod acceptor;
mod connection;
mod feed;
mod greeter;
mod handshake;
mod home;
mod ledger;
mod linger;
mod outbox;
mod output;
mod parked;
mod places;
mod proxy;
mod publish;
mod start;
mod stream;
mod throttle;
pub mod tls;
mod turnstile;
mod worker;

pub use acceptor::Listener;
pub use handshake::{CONNECT_BYTES_MAX, CONNECT_TIMEOUT};
pub use output::UnsentLimits;
pub use places::PlaceLimits;
pub use start::{DoorLimits, Net, NetError, NetParts};
