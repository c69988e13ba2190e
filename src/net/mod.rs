//! Sockets: acceptor, workers, TLS, connections.
