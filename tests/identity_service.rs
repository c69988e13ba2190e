//! The identity service against what users really have: unmodified SDKs, MQTT clients with the
//! tokens, and a kill behind the reply. Tests are named after the specification's rows.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "identity_service/mqtt.rs"]
mod mqtt;
#[cfg(test)]
#[path = "identity_service/python.rs"]
mod python;
#[cfg(test)]
#[path = "identity_service/site.rs"]
mod site;
#[cfg(test)]
#[path = "identity_service/wire.rs"]
mod wire;
