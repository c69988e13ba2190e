//! MQTT over WebSocket against a real broker: raw frames, HTTP, and the same door as on the other
//! listeners. Real clients stand in `tests/clients`.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "websocket/bearer.rs"]
mod bearer;
#[cfg(test)]
#[path = "websocket/doors.rs"]
mod doors;
#[cfg(test)]
#[path = "websocket/frames.rs"]
mod frames;
#[cfg(test)]
#[expect(dead_code, reason = "what only SDKs need is for others")]
#[path = "identity_service/site.rs"]
mod site;
#[cfg(test)]
#[path = "websocket/upgrade.rs"]
mod upgrade;
