//! Raw bytes against a real broker: every bit of an answer counts.
//!
//! Tests say which requirement they hold the broker to (`tb_04_…`). That something does not
//! happen is shown by a marker sent behind it, never by waiting.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "broker/basic.rs"]
mod basic;
#[cfg(test)]
#[path = "broker/bound.rs"]
mod bound;
#[cfg(test)]
#[path = "broker/certificates.rs"]
mod certificates;
#[cfg(test)]
#[path = "broker/connect.rs"]
mod connect;
#[cfg(test)]
#[path = "broker/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "broker/publish.rs"]
mod publish;
#[cfg(test)]
#[path = "broker/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "broker/revoke.rs"]
mod revoke;
#[cfg(test)]
#[path = "broker/rotation.rs"]
mod rotation;
#[cfg(test)]
#[path = "broker/scopes.rs"]
mod scopes;
#[cfg(test)]
#[path = "broker/secrets.rs"]
mod secrets;
#[cfg(test)]
#[path = "broker/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "broker/subscribe.rs"]
mod subscribe;
#[cfg(test)]
#[path = "broker/terms.rs"]
mod terms;
#[cfg(test)]
#[path = "broker/timeouts.rs"]
mod timeouts;
