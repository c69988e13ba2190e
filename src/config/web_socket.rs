//! `[ws]` and `[wss]`: MQTT over WebSocket.

use std::net::SocketAddr;

use super::ConfigError;
use super::key;
use super::layer::Layers;
use crate::limits::Networks;

/// `[ws]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ws {
    /// Addresses to listen on; empty = off; port 0 = any free port.
    pub listen: Vec<SocketAddr>,
    /// Pages that browsers may come from, as `https://host:port`; empty = any. For `wss` too.
    pub origins: Vec<String>,
    /// Tokens may stand in the query. For `wss` too.
    pub token_in_query: bool,
    /// As `mqtt.proxy_protocol_from`, for this listener.
    pub proxy_protocol_from: Networks,
}

/// `[wss]`, with the certificates of `[mqtts]`, and what that asks of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wss {
    /// Addresses to listen on; empty = off; port 0 = any free port.
    pub listen: Vec<SocketAddr>,
    /// As `mqtt.proxy_protocol_from`, for this listener.
    pub proxy_protocol_from: Networks,
}

pub(super) fn ws(layers: &Layers) -> Result<Ws, ConfigError> {
    Ok(Ws {
        listen: layers.addresses(&key::WS_LISTEN)?,
        origins: layers.origins(&key::WS_ORIGINS)?,
        token_in_query: layers.switch(&key::WS_TOKEN_IN_QUERY)?,
        proxy_protocol_from: layers.networks(&key::WS_PROXY_PROTOCOL_FROM)?,
    })
}

pub(super) fn wss(layers: &Layers) -> Result<Wss, ConfigError> {
    Ok(Wss {
        listen: layers.addresses(&key::WSS_LISTEN)?,
        proxy_protocol_from: layers.networks(&key::WSS_PROXY_PROTOCOL_FROM)?,
    })
}
