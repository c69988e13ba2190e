//! `[limits]`: what one address, one identity and all together may take.

use std::time::Duration;

use super::error::ConfigError;
use super::key;
use super::layer::Layers;
use crate::limits::Networks;

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all MQTT listeners together.
    pub connections_max: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address_max: u32,
    /// Of these, connections whose CONNECT has not been accepted.
    pub handshakes_per_address_max: u32,
    /// Memory of all connections before their CONNECT is accepted, bytes.
    pub handshake_memory_max_bytes: usize,
    /// Connections accepted in one second, at most.
    pub accepts_per_second_max: u32,
    /// Requests to the admin API in a second, of the operator and of strangers each (SEC-75).
    pub http_requests_per_second_max: u32,
    /// Failed authentications of one address, or with one credential, within a minute.
    pub failures_per_minute_max: u32,
    /// Addresses that no per-address limit holds for.
    pub trusted_networks: Networks,
    /// Connections of one identity.
    pub connections_per_identity_max: u32,
    /// Sessions of one identity, with and without a connection.
    pub sessions_per_identity_max: u32,
    /// Longest session expiry granted, seconds.
    pub session_expiry_max_s: u32,
    /// Filters one session may hold.
    pub subscriptions_per_session_max: usize,
    /// Filters one SUBSCRIBE or UNSUBSCRIBE may carry.
    pub filters_per_packet_max: usize,
    /// QoS 2 messages of one session whose PUBREL has not come; at least `mqtt.receive_maximum`.
    pub unfinished_qos2_max: u16,
    /// Messages that wait for one client or are not received by it.
    pub queue_messages_max: usize,
    /// Bytes of these.
    pub queue_max_bytes: usize,
    /// Subscriptions of all sessions together, to ordinary topics.
    pub subscriptions_max: usize,
    /// Topics with a retained message.
    pub retained_messages_max: usize,
    /// Bytes of retained messages.
    pub retained_max_bytes: usize,
    /// Topics whose retained message comes from one identity.
    pub retained_per_identity_max: usize,
    /// Bytes of retained messages from one identity.
    pub retained_per_identity_max_bytes: usize,
    /// Bytes of messages that may wait for one worker.
    pub inbox_max_bytes: usize,
    /// Bytes that may wait for one client that does not read.
    pub unsent_max_bytes: usize,
    /// How long they may wait without one of them going.
    pub unsent_timeout: Duration,
}

pub(super) fn checked(layers: &Layers, receive_maximum: u16) -> Result<Limits, ConfigError> {
    Ok(Limits {
        connections_max: layers.number(&key::LIMITS_CONNECTIONS_MAX)?,
        connections_per_address_max: layers.number(&key::LIMITS_CONNECTIONS_PER_ADDRESS_MAX)?,
        handshakes_per_address_max: layers.number(&key::LIMITS_HANDSHAKES_PER_ADDRESS_MAX)?,
        handshake_memory_max_bytes: layers.number(&key::LIMITS_HANDSHAKE_MEMORY_MAX_BYTES)?,
        accepts_per_second_max: layers.number(&key::LIMITS_ACCEPTS_PER_SECOND_MAX)?,
        http_requests_per_second_max: layers.number(&key::LIMITS_HTTP_REQUESTS_PER_SECOND_MAX)?,
        failures_per_minute_max: layers.number(&key::LIMITS_FAILURES_PER_MINUTE_MAX)?,
        trusted_networks: layers.networks(&key::LIMITS_TRUSTED_NETWORKS)?,
        connections_per_identity_max: layers.number(&key::LIMITS_CONNECTIONS_PER_IDENTITY_MAX)?,
        sessions_per_identity_max: layers.number(&key::LIMITS_SESSIONS_PER_IDENTITY_MAX)?,
        session_expiry_max_s: layers.number(&key::LIMITS_SESSION_EXPIRY_MAX_S)?,
        subscriptions_per_session_max: layers.number(&key::LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX)?,
        filters_per_packet_max: layers.number(&key::LIMITS_FILTERS_PER_PACKET_MAX)?,
        unfinished_qos2_max: unfinished_qos2_max(layers, receive_maximum)?,
        queue_messages_max: layers.number(&key::LIMITS_QUEUE_MESSAGES_MAX)?,
        queue_max_bytes: layers.number(&key::LIMITS_QUEUE_MAX_BYTES)?,
        subscriptions_max: layers.number(&key::LIMITS_SUBSCRIPTIONS_MAX)?,
        retained_messages_max: layers.number(&key::LIMITS_RETAINED_MESSAGES_MAX)?,
        retained_max_bytes: layers.number(&key::LIMITS_RETAINED_MAX_BYTES)?,
        retained_per_identity_max: layers.number(&key::LIMITS_RETAINED_PER_IDENTITY_MAX)?,
        retained_per_identity_max_bytes: layers
            .number(&key::LIMITS_RETAINED_PER_IDENTITY_MAX_BYTES)?,
        inbox_max_bytes: layers.number(&key::LIMITS_INBOX_MAX_BYTES)?,
        unsent_max_bytes: layers.number(&key::LIMITS_UNSENT_MAX_BYTES)?,
        unsent_timeout: Duration::from_secs(layers.number(&key::LIMITS_UNSENT_TIMEOUT_S)?),
    })
}

/// A client that keeps to the Receive Maximum it was told must never meet this limit.
fn unfinished_qos2_max(layers: &Layers, receive_maximum: u16) -> Result<u16, ConfigError> {
    match layers.number(&key::LIMITS_UNFINISHED_QOS2_MAX)? {
        0 => Ok(receive_maximum),
        most if most < receive_maximum => Err(layers.conflict(
            &key::LIMITS_UNFINISHED_QOS2_MAX,
            format!(
                "is below {} = {receive_maximum}, which clients are told; raise this one or \
                 lower that one",
                key::MQTT_RECEIVE_MAXIMUM.path()
            ),
        )),
        most => Ok(most),
    }
}
