//! The keys of `[limits]`.

use super::{Key, Shape};
use crate::limits::SUBSCRIPTIONS_PER_SESSION_MAX;

pub(in crate::config) const LIMITS_CONNECTIONS_MAX: Key = Key::new(
    "limits",
    "connections_max",
    "250000",
    Shape::Number {
        least: 1,
        most: 10_000_000,
        unit: "connections",
    },
);
pub(in crate::config) const LIMITS_CONNECTIONS_PER_ADDRESS_MAX: Key = Key::new(
    "limits",
    "connections_per_address_max",
    "1000",
    Shape::Number {
        least: 1,
        most: 10_000_000,
        unit: "connections",
    },
);
pub(in crate::config) const LIMITS_HANDSHAKES_PER_ADDRESS_MAX: Key = Key::new(
    "limits",
    "handshakes_per_address_max",
    "50",
    Shape::Number {
        least: 1,
        most: 10_000_000,
        unit: "connections",
    },
);
pub(in crate::config) const LIMITS_HANDSHAKE_MEMORY_MAX_BYTES: Key = Key::new(
    "limits",
    "handshake_memory_max_bytes",
    "67108864",
    Shape::Number {
        least: 1 << 20,
        most: 1 << 40,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_ACCEPTS_PER_SECOND_MAX: Key = Key::new(
    "limits",
    "accepts_per_second_max",
    "10000",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "connections",
    },
);
pub(in crate::config) const LIMITS_HTTP_REQUESTS_PER_SECOND_MAX: Key = Key::new(
    "limits",
    "http_requests_per_second_max",
    "100",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "requests",
    },
);
pub(in crate::config) const LIMITS_FAILURES_PER_MINUTE_MAX: Key = Key::new(
    "limits",
    "failures_per_minute_max",
    "10",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "failures",
    },
);
pub(in crate::config) const LIMITS_TRUSTED_NETWORKS: Key = Key::new(
    "limits",
    "trusted_networks",
    r#"["127.0.0.0/8", "::1"]"#,
    Shape::Networks,
);
pub(in crate::config) const LIMITS_CONNECTIONS_PER_IDENTITY_MAX: Key = Key::new(
    "limits",
    "connections_per_identity_max",
    "10",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "connections",
    },
);
pub(in crate::config) const LIMITS_SESSIONS_PER_IDENTITY_MAX: Key = Key::new(
    "limits",
    "sessions_per_identity_max",
    "10",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "sessions",
    },
);
pub(in crate::config) const LIMITS_SESSION_EXPIRY_MAX_S: Key = Key::new(
    "limits",
    "session_expiry_max_s",
    "604800",
    Shape::Number {
        least: 0,
        most: 4_294_967_294,
        unit: "seconds",
    },
);
pub(in crate::config) const LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX: Key = Key::new(
    "limits",
    "subscriptions_per_session_max",
    "100",
    Shape::Number {
        least: 1,
        most: SUBSCRIPTIONS_PER_SESSION_MAX as u64,
        unit: "subscriptions",
    },
);
pub(in crate::config) const LIMITS_FILTERS_PER_PACKET_MAX: Key = Key::new(
    "limits",
    "filters_per_packet_max",
    "100",
    Shape::Number {
        least: 1,
        most: 10_000,
        unit: "filters",
    },
);
pub(in crate::config) const LIMITS_UNFINISHED_QOS2_MAX: Key = Key::new(
    "limits",
    "unfinished_qos2_max",
    "0",
    Shape::Number {
        least: 0,
        most: 65_535,
        unit: "messages, 0 = as mqtt.receive_maximum",
    },
);
pub(in crate::config) const LIMITS_QUEUE_MESSAGES_MAX: Key = Key::new(
    "limits",
    "queue_messages_max",
    "10000",
    Shape::Number {
        least: 1,
        most: 1_000_000,
        unit: "messages",
    },
);
pub(in crate::config) const LIMITS_QUEUE_MAX_BYTES: Key = Key::new(
    "limits",
    "queue_max_bytes",
    "8388608",
    Shape::Number {
        least: 65_536,
        most: 1 << 34,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_SUBSCRIPTIONS_MAX: Key = Key::new(
    "limits",
    "subscriptions_max",
    "10000000",
    Shape::Number {
        least: 1,
        most: 1 << 32,
        unit: "subscriptions",
    },
);
pub(in crate::config) const LIMITS_RETAINED_MESSAGES_MAX: Key = Key::new(
    "limits",
    "retained_messages_max",
    "100000",
    Shape::Number {
        least: 1,
        most: 1 << 32,
        unit: "messages",
    },
);
pub(in crate::config) const LIMITS_RETAINED_MAX_BYTES: Key = Key::new(
    "limits",
    "retained_max_bytes",
    "268435456",
    Shape::Number {
        least: 65_536,
        most: 1 << 40,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_RETAINED_PER_IDENTITY_MAX: Key = Key::new(
    "limits",
    "retained_per_identity_max",
    "100",
    Shape::Number {
        least: 1,
        most: 1 << 32,
        unit: "messages",
    },
);
pub(in crate::config) const LIMITS_RETAINED_PER_IDENTITY_MAX_BYTES: Key = Key::new(
    "limits",
    "retained_per_identity_max_bytes",
    "1048576",
    Shape::Number {
        least: 1_024,
        most: 1 << 40,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_INBOX_MAX_BYTES: Key = Key::new(
    "limits",
    "inbox_max_bytes",
    "8388608",
    Shape::Number {
        least: 1_048_576,
        most: 1 << 30,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_UNSENT_MAX_BYTES: Key = Key::new(
    "limits",
    "unsent_max_bytes",
    "1048576",
    Shape::Number {
        least: 65_536,
        most: 1 << 30,
        unit: "bytes",
    },
);
pub(in crate::config) const LIMITS_UNSENT_TIMEOUT_S: Key = Key::new(
    "limits",
    "unsent_timeout_s",
    "30",
    Shape::Number {
        least: 1,
        most: 3_600,
        unit: "seconds",
    },
);
