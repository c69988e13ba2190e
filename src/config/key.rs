//! Every key: its name, its default, what it may hold. `config.toml` says the same in words; a
//! test keeps the two in step.

mod audit;
mod limits;
mod web_socket;

use crate::limits::PACKET_BYTES_MAX;

pub(in crate::config) use audit::*;
pub(in crate::config) use limits::*;
pub(in crate::config) use web_socket::*;

/// One key of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The table it stands in; empty for the keys at the top.
    pub section: &'static str,
    /// Its name in that table, with the unit last.
    pub name: &'static str,
    /// The value that stands when nothing is set, as TOML.
    pub default: &'static str,
    /// What it may hold.
    pub shape: Shape,
}

/// What a key may hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape {
    /// A path; not empty.
    Path,
    /// A path, or empty for "not set".
    OptionalPath,
    /// `"ADDRESS:PORT"`, a list of them, or `"off"`.
    Listen,
    /// A list of host names and IP addresses.
    Names,
    /// A list of `SCHEME://HOST[:PORT]`, or `null`, as browsers send them.
    Origins,
    /// A list of networks: `"10.0.0.0/8"`, `"2001:db8::/32"`, or single addresses.
    Networks,
    /// A list of pairs `"CERTIFICATE:KEY"` of paths.
    Pairs,
    /// A list of `"subscribe FILTER"` and `"publish FILTER"`.
    Rights,
    /// `true` or `false`.
    Switch,
    /// A whole number in a range.
    Number {
        /// Smallest value allowed.
        least: u64,
        /// Largest value allowed.
        most: u64,
        /// What is counted, in words.
        unit: &'static str,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A log level, or a list of `target=level`.
    LogFilter,
}

impl Key {
    /// `section.name`, as messages and `--config` users write it.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }

    /// The environment variable that sets it: `TOLLGATE_MQTT_LISTEN` for `mqtt.listen`.
    pub fn variable(&self) -> String {
        format!(
            "TOLLGATE_{}",
            self.path().replace('.', "_").to_ascii_uppercase()
        )
    }

    const fn new(
        section: &'static str,
        name: &'static str,
        default: &'static str,
        shape: Shape,
    ) -> Key {
        Key {
            section,
            name,
            default,
            shape,
        }
    }
}

/// All keys, in the order of `config.toml`.
pub const KEYS: &[&Key] = &[
    &DATA_DIR,
    &SECRETS_DIR,
    &CERTS_DIR,
    &MQTT_LISTEN,
    &MQTT_KEEP_ALIVE_MAX_S,
    &MQTT_PACKET_SIZE_MAX_BYTES,
    &MQTT_RECEIVE_MAXIMUM,
    &MQTT_TOPIC_ALIAS_MAXIMUM,
    &MQTT_SYS_INTERVAL_S,
    &MQTT_PROXY_PROTOCOL_FROM,
    &MQTTS_LISTEN,
    &MQTTS_CERTIFICATE,
    &MQTTS_KEY,
    &MQTTS_MORE_CERTIFICATES,
    &MQTTS_CLIENT_CERTIFICATE,
    &MQTTS_CLIENT_AUTHORITY,
    &MQTTS_CLIENT_REVOCATIONS,
    &MQTTS_PROXY_PROTOCOL_FROM,
    &WS_LISTEN,
    &WS_ORIGINS,
    &WS_TOKEN_IN_QUERY,
    &WS_PROXY_PROTOCOL_FROM,
    &WSS_LISTEN,
    &WSS_PROXY_PROTOCOL_FROM,
    &CERTS_NAMES,
    &CERTS_CHECK_INTERVAL_S,
    &HTTP_LISTEN,
    &HTTPS_LISTEN,
    &DEVICE_SESSIONS,
    &DEVICE_PAYLOAD_SIZE_MAX_BYTES,
    &DEVICE_SEND_ACK,
    &DEVICE_CAST_STRINGS,
    &DEVICE_STRING_SIZE_MAX_BYTES,
    &DEVICE_CONNACK_STYLE,
    &IDENTITY_CUT_AT_EXPIRY,
    &IDENTITY_CHAT,
    &IDENTITY_CHAT_JOIN,
    &IDENTITY_CHAT_JOIN_LIMITED,
    &IDENTITY_VOIP,
    &IDENTITY_VOIP_JOIN,
    &LIMITS_CONNECTIONS_MAX,
    &LIMITS_CONNECTIONS_PER_ADDRESS_MAX,
    &LIMITS_HANDSHAKES_PER_ADDRESS_MAX,
    &LIMITS_HANDSHAKE_MEMORY_MAX_BYTES,
    &LIMITS_ACCEPTS_PER_SECOND_MAX,
    &LIMITS_HTTP_REQUESTS_PER_SECOND_MAX,
    &LIMITS_FAILURES_PER_MINUTE_MAX,
    &LIMITS_TRUSTED_NETWORKS,
    &LIMITS_CONNECTIONS_PER_IDENTITY_MAX,
    &LIMITS_SESSIONS_PER_IDENTITY_MAX,
    &LIMITS_SESSION_EXPIRY_MAX_S,
    &LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX,
    &LIMITS_FILTERS_PER_PACKET_MAX,
    &LIMITS_UNFINISHED_QOS2_MAX,
    &LIMITS_QUEUE_MESSAGES_MAX,
    &LIMITS_QUEUE_MAX_BYTES,
    &LIMITS_SUBSCRIPTIONS_MAX,
    &LIMITS_RETAINED_MESSAGES_MAX,
    &LIMITS_RETAINED_MAX_BYTES,
    &LIMITS_RETAINED_PER_IDENTITY_MAX,
    &LIMITS_RETAINED_PER_IDENTITY_MAX_BYTES,
    &LIMITS_INBOX_MAX_BYTES,
    &LIMITS_UNSENT_MAX_BYTES,
    &LIMITS_UNSENT_TIMEOUT_S,
    &JOURNAL_SIZE_MAX_BYTES,
    &JOURNAL_COMMIT_INTERVAL_US,
    &JOURNAL_SYNC_DELAY_US,
    &HISTORY_HEAD_SIZE_MAX_BYTES,
    &HISTORY_LATEST_SIZE_MAX_BYTES,
    &HISTORY_RETENTION_DAYS,
    &FEED_KEEP_SIZE_BYTES,
    &FEED_PIN_SIZE_MAX_BYTES,
    &AUDIT_ADMIN_SIZE_MAX_BYTES,
    &AUDIT_ACCESS_SIZE_MAX_BYTES,
    &WORKERS_COUNT,
    &LOG_FORMAT,
    &LOG_LEVEL,
];

/// Names that people bring from elsewhere, with ours: (section.name, section.name).
pub(super) const RENAMED: &[(&str, &str)] = &[
    // ThingsBoard's device profile spells it so.
    (
        "device.sendAckOnValidationException",
        "device.send_ack_on_validation_exception",
    ),
];

pub(super) const DATA_DIR: Key = Key::new("", "data_dir", r#""data""#, Shape::Path);
pub(super) const SECRETS_DIR: Key = Key::new("", "secrets_dir", r#""secrets""#, Shape::Path);
pub(super) const CERTS_DIR: Key = Key::new("", "certs_dir", r#""certs""#, Shape::Path);

pub(super) const MQTT_LISTEN: Key = Key::new("mqtt", "listen", r#""[::]:1883""#, Shape::Listen);
pub(super) const MQTT_KEEP_ALIVE_MAX_S: Key = Key::new(
    "mqtt",
    "keep_alive_max_s",
    "7200",
    // Under 5 s a healthy cellular link would be cut; 65,535 is the field's end.
    Shape::Number {
        least: 5,
        most: 65_535,
        unit: "seconds",
    },
);
pub(super) const MQTT_PACKET_SIZE_MAX_BYTES: Key = Key::new(
    "mqtt",
    "packet_size_max_bytes",
    "262144",
    Shape::Number {
        least: 1_024,
        most: PACKET_BYTES_MAX as u64,
        unit: "bytes",
    },
);
pub(super) const MQTT_RECEIVE_MAXIMUM: Key = Key::new(
    "mqtt",
    "receive_maximum",
    "100",
    Shape::Number {
        least: 1,
        most: 65_535,
        unit: "messages",
    },
);
pub(super) const MQTT_TOPIC_ALIAS_MAXIMUM: Key = Key::new(
    "mqtt",
    "topic_alias_maximum",
    "32",
    Shape::Number {
        least: 0,
        most: 1_024,
        unit: "aliases",
    },
);
pub(super) const MQTT_SYS_INTERVAL_S: Key = Key::new(
    "mqtt",
    "sys_interval_s",
    "10",
    Shape::Number {
        least: 0,
        most: 86_400,
        unit: "seconds, 0 = never",
    },
);
pub(super) const MQTT_PROXY_PROTOCOL_FROM: Key =
    Key::new("mqtt", "proxy_protocol_from", "[]", Shape::Networks);

pub(super) const MQTTS_LISTEN: Key = Key::new("mqtts", "listen", r#""[::]:8883""#, Shape::Listen);
pub(super) const MQTTS_CERTIFICATE: Key =
    Key::new("mqtts", "certificate", r#""""#, Shape::OptionalPath);
pub(super) const MQTTS_KEY: Key = Key::new("mqtts", "key", r#""""#, Shape::OptionalPath);
pub(super) const MQTTS_MORE_CERTIFICATES: Key =
    Key::new("mqtts", "more_certificates", "[]", Shape::Pairs);
pub(super) const MQTTS_CLIENT_CERTIFICATE: Key = Key::new(
    "mqtts",
    "client_certificate",
    r#""off""#,
    Shape::Choice(&["off", "optional", "required"]),
);
pub(super) const MQTTS_CLIENT_AUTHORITY: Key =
    Key::new("mqtts", "client_authority", r#""""#, Shape::OptionalPath);
pub(super) const MQTTS_CLIENT_REVOCATIONS: Key =
    Key::new("mqtts", "client_revocations", r#""""#, Shape::OptionalPath);
pub(super) const MQTTS_PROXY_PROTOCOL_FROM: Key =
    Key::new("mqtts", "proxy_protocol_from", "[]", Shape::Networks);

pub(super) const CERTS_NAMES: Key = Key::new("certs", "names", "[]", Shape::Names);
pub(super) const CERTS_CHECK_INTERVAL_S: Key = Key::new(
    "certs",
    "check_interval_s",
    "30",
    Shape::Number {
        least: 0,
        most: 86_400,
        unit: "seconds, 0 = never",
    },
);

// The admin API is for this machine unless somebody asks for more.
pub(super) const HTTP_LISTEN: Key =
    Key::new("http", "listen", r#""127.0.0.1:8080""#, Shape::Listen);
pub(super) const HTTPS_LISTEN: Key = Key::new("https", "listen", r#""off""#, Shape::Listen);

pub(super) const DEVICE_SESSIONS: Key = Key::new(
    "device",
    "sessions",
    r#""one""#,
    Shape::Choice(&["one", "per_client_id"]),
);
pub(super) const DEVICE_PAYLOAD_SIZE_MAX_BYTES: Key = Key::new(
    "device",
    "payload_size_max_bytes",
    "65536",
    Shape::Number {
        least: 1,
        most: PACKET_BYTES_MAX as u64,
        unit: "bytes",
    },
);
pub(super) const DEVICE_SEND_ACK: Key = Key::new(
    "device",
    "send_ack_on_validation_exception",
    "false",
    Shape::Switch,
);
pub(super) const DEVICE_CAST_STRINGS: Key =
    Key::new("device", "cast_strings", "true", Shape::Switch);
pub(super) const DEVICE_STRING_SIZE_MAX_BYTES: Key = Key::new(
    "device",
    "string_value_size_max_bytes",
    "0",
    Shape::Number {
        least: 0,
        most: PACKET_BYTES_MAX as u64,
        unit: "bytes, 0 = no limit of its own",
    },
);
pub(super) const DEVICE_CONNACK_STYLE: Key = Key::new(
    "device",
    "connack_style",
    r#""thingsboard""#,
    Shape::Choice(&["thingsboard", "magenta"]),
);

pub(super) const IDENTITY_CUT_AT_EXPIRY: Key =
    Key::new("identity", "cut_at_expiry", "true", Shape::Switch);
pub(super) const IDENTITY_CHAT: Key = Key::new(
    "identity",
    "chat",
    r#"[
        "subscribe chat/+/#",
        "subscribe user/{id}/#",
        "publish chat/+/messages",
        "publish chat/+/typing",
        "publish chat/+/members",
        "publish chat/+/admin",
    ]"#,
    Shape::Rights,
);
pub(super) const IDENTITY_CHAT_JOIN: Key = Key::new(
    "identity",
    "chat_join",
    r#"[
        "subscribe chat/+/#",
        "subscribe user/{id}/#",
        "publish chat/+/messages",
        "publish chat/+/typing",
        "publish chat/+/members",
    ]"#,
    Shape::Rights,
);
pub(super) const IDENTITY_CHAT_JOIN_LIMITED: Key = Key::new(
    "identity",
    "chat_join_limited",
    r#"[
        "subscribe chat/+/#",
        "subscribe user/{id}/#",
        "publish chat/+/messages",
        "publish chat/+/typing",
    ]"#,
    Shape::Rights,
);
pub(super) const IDENTITY_VOIP: Key = Key::new(
    "identity",
    "voip",
    r#"[
        "subscribe call/+/#",
        "subscribe user/{id}/#",
        "publish call/+/signal",
        "publish call/+/admin",
    ]"#,
    Shape::Rights,
);
pub(super) const IDENTITY_VOIP_JOIN: Key = Key::new(
    "identity",
    "voip_join",
    r#"[
        "subscribe call/+/#",
        "subscribe user/{id}/#",
        "publish call/+/signal",
    ]"#,
    Shape::Rights,
);

pub(super) const JOURNAL_SIZE_MAX_BYTES: Key = Key::new(
    "journal",
    "size_max_bytes",
    "68719476736",
    // Three segments of 64 MiB: one being written, one prepared, one being read.
    Shape::Number {
        least: 201_326_592,
        most: 1 << 50,
        unit: "bytes",
    },
);
pub(super) const JOURNAL_COMMIT_INTERVAL_US: Key = Key::new(
    "journal",
    "commit_interval_us",
    "1000",
    Shape::Number {
        least: 0,
        most: 1_000_000,
        unit: "microseconds",
    },
);

pub(super) const JOURNAL_SYNC_DELAY_US: Key = Key::new(
    "journal",
    "sync_delay_us",
    "0",
    Shape::Number {
        least: 0,
        most: 1_000_000,
        unit: "microseconds",
    },
);

pub(super) const HISTORY_HEAD_SIZE_MAX_BYTES: Key = Key::new(
    "history",
    "head_size_max_bytes",
    "67108864",
    Shape::Number {
        least: 1 << 20,
        most: 1 << 40,
        unit: "bytes",
    },
);

pub(super) const HISTORY_LATEST_SIZE_MAX_BYTES: Key = Key::new(
    "history",
    "latest_size_max_bytes",
    "268435456",
    Shape::Number {
        least: 1 << 20,
        most: 1 << 40,
        unit: "bytes",
    },
);

pub(super) const HISTORY_RETENTION_DAYS: Key = Key::new(
    "history",
    "retention_days",
    "0",
    Shape::Number {
        least: 0,
        most: 36_500,
        unit: "days",
    },
);

pub(super) const FEED_KEEP_SIZE_BYTES: Key = Key::new(
    "feed",
    "keep_size_bytes",
    "1073741824",
    Shape::Number {
        least: 0,
        most: 1 << 50,
        unit: "bytes",
    },
);
pub(super) const FEED_PIN_SIZE_MAX_BYTES: Key = Key::new(
    "feed",
    "pin_size_max_bytes",
    "17179869184",
    Shape::Number {
        least: 0,
        most: 1 << 50,
        unit: "bytes",
    },
);

pub(super) const WORKERS_COUNT: Key = Key::new(
    "workers",
    "count",
    "0",
    Shape::Number {
        least: 0,
        most: 1_024,
        unit: "threads, 0 = one per core",
    },
);

pub(super) const LOG_FORMAT: Key = Key::new(
    "log",
    "format",
    r#""text""#,
    Shape::Choice(&["text", "json"]),
);
pub(super) const LOG_LEVEL: Key = Key::new("log", "level", r#""info""#, Shape::LogFilter);
