//! MQTT by its clauses: raw bytes against a real broker, and the table that says which test shows
//! which statement (`docs/conformance.md`).
//!
//! A test is named after the statement it shows: `mqtt_3_8_4_3_…` for [MQTT-3.8.4-3] of MQTT 5
//! (and of 3.1.1 where both have it), `mqtt_311_…` where only 3.1.1 does, `p_…` and `s_…` for a
//! case or a step list of the security requirements (`docs/security-scenarios.md`). That nothing
//! happens is shown by a marker sent behind it.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "conformance/attacks.rs"]
mod attacks;
#[cfg(test)]
#[path = "conformance/connect.rs"]
mod connect;
#[cfg(test)]
#[path = "conformance/data.rs"]
mod data;
#[cfg(test)]
#[path = "conformance/ending.rs"]
mod ending;
#[cfg(test)]
#[path = "conformance/publish.rs"]
mod publish;
#[cfg(test)]
#[path = "conformance/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "conformance/rights.rs"]
mod rights;
#[cfg(test)]
#[path = "conformance/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "conformance/shares.rs"]
mod shares;
#[cfg(test)]
#[path = "conformance/site.rs"]
mod site;
#[cfg(test)]
#[path = "conformance/subscribe.rs"]
mod subscribe;
#[cfg(test)]
#[path = "conformance/table.rs"]
mod table;
#[cfg(test)]
#[path = "conformance/topics.rs"]
mod topics;
#[cfg(test)]
#[path = "conformance/vectors.rs"]
mod vectors;
#[cfg(test)]
#[path = "conformance/wills.rs"]
mod wills;
