//! Sockets: the acceptor, the workers, TLS, WebSocket, and one connection's life.
//!
//! [`acceptor`] deals sockets out, as far as there are [`places`]; [`handshake`] takes one as far
//! as CONNECT on the thread of a [`greeter`], in turns ([`turnstile`]); [`admit`] says who comes
//! in, [`authenticate`] who it is, and [`throttle`] slows down who guesses; [`home`] opens its
//! session on the session's home worker, [`leave`] keeps or ends it; [`connection`] reads it and
//! [`incoming`] takes what it says; [`guard`] says what a panic ends; [`retire`] is the clock of
//! tokens.
//!
//! [`publish`] passes a message through the gate to the journal, or by [`route`] to the home
//! workers of those who get it ([`layers`]: in which records), where [`deliver`] writes it;
//! [`walks`] are retained messages on their way, [`wills`] wait for bad ends, [`shares`] go on when
//! a member leaves, [`feed`] gives applications their telemetry. [`outbox`] and [`ledger`] hold
//! what was promised until it is durable, [`pending`] what happens then, and [`worker`] is the
//! thread all this runs on.

mod acceptor;
mod admit;
mod authenticate;
mod connection;
mod deliver;
mod durables;
mod feed;
mod greeter;
mod guard;
mod handshake;
mod home;
mod incoming;
mod layers;
mod leave;
mod ledger;
mod linger;
mod outbox;
mod output;
mod parked;
mod pending;
mod places;
mod proxy;
mod publish;
mod queued;
mod retire;
mod rights;
mod route;
mod shares;
mod start;
mod statistics;
mod stream;
mod subscribe;
mod sweep;
mod throttle;
pub mod tls;
mod told;
mod turn;
mod turnstile;
mod walks;
mod websocket;
mod wills;
mod worker;

pub use acceptor::Listener;
pub(crate) use greeter::give_way;
pub use handshake::{CONNECT_BYTES_MAX, CONNECT_TIMEOUT};
pub use output::UnsentLimits;
pub use places::PlaceLimits;
pub use start::{DoorLimits, Net, NetError, NetParts};
pub use websocket::{End as FramesEnd, Frames, Violation, WebSocketRules};
