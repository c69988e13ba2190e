//! The identity service against what users really have: unmodified SDKs, MQTT clients with the
//! tokens, and a kill behind the reply. Tests are named after the specification's rows.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "identity_service/commands.rs"]
mod commands;
#[cfg(test)]
#[path = "identity_service/expiry.rs"]
mod expiry;
#[cfg(test)]
#[path = "identity_service/forgeries.rs"]
mod forgeries;
#[cfg(test)]
#[path = "identity_service/javascript.rs"]
mod javascript;
#[cfg(test)]
#[path = "identity_service/mqtt.rs"]
mod mqtt;
#[cfg(test)]
#[path = "common/parts.rs"]
mod parts;
#[cfg(test)]
#[path = "identity_service/python.rs"]
mod python;
#[cfg(test)]
#[path = "identity_service/site.rs"]
mod site;
#[cfg(test)]
#[path = "identity_service/wire.rs"]
mod wire;
