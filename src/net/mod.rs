//! Sockets: acceptor, workers, TLS, connections.

pub mod certificates;
