//! Applications and their feed, from outside: raw bytes and real clients against a real broker.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "feed/clients.rs"]
mod clients;
#[cfg(test)]
#[path = "feed/groups.rs"]
mod groups;
#[cfg(test)]
#[path = "common/parts.rs"]
mod parts;
#[cfg(test)]
#[path = "feed/permits.rs"]
mod permits;
#[cfg(test)]
#[path = "feed/releases.rs"]
mod releases;
#[cfg(test)]
#[path = "feed/rights.rs"]
mod rights;
#[cfg(test)]
#[path = "feed/scopes.rs"]
mod scopes;
#[cfg(test)]
#[path = "feed/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "feed/site.rs"]
mod site;
#[cfg(test)]
#[path = "feed/starts.rs"]
mod starts;
#[cfg(test)]
#[path = "feed/stop.rs"]
mod stop;
#[cfg(test)]
#[path = "feed/tail.rs"]
mod tail;
