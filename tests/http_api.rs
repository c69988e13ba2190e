//! The HTTP server from outside, on a real registry, journal and history: every endpoint, every
//! refusal, and what strangers get.

#[cfg(test)]
#[path = "http_api/admins.rs"]
mod admins;
#[cfg(test)]
#[path = "http_api/devices.rs"]
mod devices;
#[cfg(test)]
#[path = "http_api/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "http_api/operations.rs"]
mod operations;
#[cfg(test)]
#[path = "http_api/platform.rs"]
mod platform;
#[cfg(test)]
#[path = "http_api/rubbish.rs"]
mod rubbish;
#[cfg(test)]
#[path = "http_api/scopes.rs"]
mod scopes;
#[cfg(test)]
#[path = "http_api/strangers.rs"]
mod strangers;
#[cfg(test)]
#[path = "http_api/telemetry.rs"]
mod telemetry;
