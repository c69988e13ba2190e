//! What one address, one identity and all clients together may take, and what happens at each
//! limit: the refusal itself, that nobody else notices, and the figure that counts it.
//!
//! Clients come from addresses of 127.0.0.0/8, which counts as trusted unless a test says
//! otherwise.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "limits/certificates.rs"]
mod certificates;
#[cfg(test)]
#[path = "limits/connections.rs"]
mod connections;
#[cfg(test)]
#[path = "limits/edges.rs"]
mod edges;
#[cfg(test)]
#[path = "limits/identity.rs"]
mod identity;
#[cfg(test)]
#[path = "limits/proxy.rs"]
mod proxy;
#[cfg(test)]
#[path = "limits/throttle.rs"]
mod throttle;
#[cfg(test)]
#[path = "limits/tls.rs"]
mod tls;
