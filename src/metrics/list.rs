//! The list of figures: names, units, help, and the closed lists of label values.

use metrics::Unit;

use super::{audit, door, feed, history, routing, users};

/// One figure: everything there is to know about it but its value.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name, with the unit at its end.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: Unit,
    /// One sentence for the operator.
    pub help: &'static str,
    /// Its only label, with every value it can have.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

/// How a figure behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, sorted into [`SECONDS_BUCKETS`].
    Histogram,
}

/// Upper bounds of every distribution, in seconds: from one sync of a fast disk to the longest
/// time a client is made to wait.
pub const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Declares a closed list of reasons: an enum whose variants are the values of a label.
macro_rules! closed_list {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every member, in the order of [`Self::LABELS`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The label values, one for each member.
            pub const LABELS: &'static [&'static str] = &[$($label,)+];
            /// How many members there are.
            pub const COUNT: usize = Self::LABELS.len();

            /// Its value of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

pub(super) use closed_list;

closed_list! {
    /// Why a received message was not stored.
    Refusal {
        /// The payload is not what the topic asks for.
        BadPayload = "bad_payload",
        /// The payload is longer than the topic takes.
        PayloadTooLarge = "payload_too_large",
        /// No such topic.
        UnknownTopic = "unknown_topic",
        /// The principal may not publish there.
        NotAuthorized = "not_authorized",
        /// More came with the token in a second than it may.
        RateExceeded = "rate_exceeded",
        /// The journal had no room.
        StorageFull = "storage_full",
        /// As much is retained as may be.
        RetainedFull = "retained_full",
        /// The packet broke the protocol.
        ProtocolError = "protocol_error",
        /// The credential ended while the message waited.
        Revoked = "revoked",
        /// The connection ended while the message waited to be stored.
        Disconnected = "disconnected",
        /// The broker was stopping.
        Stopping = "stopping",
    }
}

closed_list! {
    /// What the journal is doing.
    JournalState {
        /// Taking records.
        Running = "running",
        /// Out of room: taking nothing, acknowledging nothing new.
        Full = "full",
        /// A write or sync failed: the process is about to end.
        Failed = "failed",
        /// The broker is stopping.
        Closed = "closed",
    }
}

/// The label values of quality of service.
pub(super) const QOS_LABELS: &[&str] = &["0", "1", "2"];

/// The label values of a HTTP status, by class: 1xx never leaves this server.
const STATUS_LABELS: &[&str] = &["2xx", "3xx", "4xx", "5xx"];

pub(super) const fn figure(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
) -> Figure {
    Figure {
        name,
        kind,
        unit,
        help,
        label: None,
    }
}

pub(super) const fn labelled(
    figure: Figure,
    label: &'static str,
    values: &'static [&'static str],
) -> Figure {
    Figure {
        label: Some((label, values)),
        ..figure
    }
}

pub(super) const RECEIVED: Figure = labelled(
    figure(
        "tollgate_messages_received_total",
        Kind::Counter,
        Unit::Count,
        "PUBLISH packets that arrived complete, by quality of service. \
         Received = stored + routed + refused + repeated + in flight.",
    ),
    "qos",
    QOS_LABELS,
);
pub(super) const STORED: Figure = labelled(
    figure(
        "tollgate_messages_stored_total",
        Kind::Counter,
        Unit::Count,
        "Messages that are on disk, by quality of service.",
    ),
    "qos",
    QOS_LABELS,
);
pub(super) const REFUSED: Figure = labelled(
    figure(
        "tollgate_messages_refused_total",
        Kind::Counter,
        Unit::Count,
        "Messages that were not stored, by reason.",
    ),
    "reason",
    Refusal::LABELS,
);
pub(super) const REPEATED: Figure = figure(
    "tollgate_messages_repeated_total",
    Kind::Counter,
    Unit::Count,
    "QoS 2 messages sent again under a packet id already held: answered, not stored twice.",
);
pub(super) const IN_FLIGHT: Figure = figure(
    "tollgate_messages_in_flight",
    Kind::Gauge,
    Unit::Count,
    "Messages received and neither stored nor refused yet.",
);
pub(super) const ACK_WAIT: Figure = figure(
    "tollgate_ack_wait_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "From the arrival of a message to its acknowledgement being written.",
);
pub(super) const CONNECTIONS: Figure = figure(
    "tollgate_connections",
    Kind::Gauge,
    Unit::Count,
    "Connections with an accepted CONNECT.",
);
pub(super) const CONNECTS: Figure = figure(
    "tollgate_connects_total",
    Kind::Counter,
    Unit::Count,
    "CONNECT packets that were accepted.",
);
pub(super) const CONNECTS_REFUSED: Figure = labelled(
    figure(
        "tollgate_connects_refused_total",
        Kind::Counter,
        Unit::Count,
        "Connections that got no further than their CONNECT, by reason.",
    ),
    "reason",
    door::ConnectRefusal::LABELS,
);
pub(super) const TAKEOVERS: Figure = figure(
    "tollgate_takeovers_total",
    Kind::Counter,
    Unit::Count,
    "Connections that were closed because their session was taken over by another.",
);
pub(super) const CONNECTION_PANICS: Figure = figure(
    "tollgate_connection_panics_total",
    Kind::Counter,
    Unit::Count,
    "Connections that ended because a packet of theirs led to a panic: a bug, to be reported.",
);
pub(super) const JOURNAL_DURABLE: Figure = figure(
    "tollgate_journal_durable_offset",
    Kind::Gauge,
    Unit::Count,
    "Offset of the last record known to be on disk.",
);
pub(super) const JOURNAL_BYTES: Figure = figure(
    "tollgate_journal_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Room the journal takes on disk, prepared segments included.",
);
pub(super) const JOURNAL_SEGMENTS: Figure = figure(
    "tollgate_journal_segments",
    Kind::Gauge,
    Unit::Count,
    "Segment files of the journal.",
);
pub(super) const JOURNAL_STATE: Figure = labelled(
    figure(
        "tollgate_journal_state",
        Kind::Gauge,
        Unit::Count,
        "1 for the state the journal is in, 0 for the others.",
    ),
    "state",
    JournalState::LABELS,
);
pub(super) const JOURNAL_COMMITS: Figure = figure(
    "tollgate_journal_commits_total",
    Kind::Counter,
    Unit::Count,
    "Commits of the journal: one write and one sync each.",
);
pub(super) const JOURNAL_COMMIT_BYTES: Figure = figure(
    "tollgate_journal_commit_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "Bytes written by the commits of the journal.",
);
pub(super) const JOURNAL_COMMIT: Figure = figure(
    "tollgate_journal_commit_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "One commit of the journal: write and sync.",
);
pub(super) const HTTP_REQUESTS: Figure = labelled(
    figure(
        "tollgate_http_requests_total",
        Kind::Counter,
        Unit::Count,
        "HTTP requests answered, by class of status.",
    ),
    "status",
    STATUS_LABELS,
);
pub(super) const HTTP_CONNECTIONS: Figure = figure(
    "tollgate_http_connections",
    Kind::Gauge,
    Unit::Count,
    "Open HTTP connections.",
);

pub(super) const DEVICES: Figure = figure(
    "tollgate_devices",
    Kind::Gauge,
    Unit::Count,
    "Devices in the registry.",
);
pub(super) const SCOPES: Figure = figure(
    "tollgate_scopes",
    Kind::Gauge,
    Unit::Count,
    "Applications, and devices with a scope of their own.",
);
pub(super) const TOKENS: Figure = figure(
    "tollgate_tokens",
    Kind::Gauge,
    Unit::Count,
    "Tokens and other credentials that open the door.",
);
pub(super) const TOKENS_WITH_TERMS: Figure = figure(
    "tollgate_tokens_with_terms",
    Kind::Gauge,
    Unit::Count,
    "Tokens with a beginning, networks or rights of their own.",
);
pub(super) const BASIC_CREDENTIALS: Figure = figure(
    "tollgate_basic_credentials",
    Kind::Gauge,
    Unit::Count,
    "Of the tokens, those that are MQTT Basic credentials.",
);
pub(super) const ADMIN_TOKENS: Figure = figure(
    "tollgate_admin_tokens",
    Kind::Gauge,
    Unit::Count,
    "Tokens of the admin API, besides the one in the secrets directory.",
);
pub(super) const PROCESS_MEMORY: Figure = figure(
    "process_resident_memory_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory of the process that is in RAM.",
);
pub(super) const PROCESS_DESCRIPTORS: Figure = figure(
    "process_open_fds",
    Kind::Gauge,
    Unit::Count,
    "Open file descriptors: connections, files, and a few more.",
);
pub(super) const PROCESS_DESCRIPTORS_MAX: Figure = figure(
    "process_max_fds",
    Kind::Gauge,
    Unit::Count,
    "File descriptors that the process may have open.",
);
pub(super) const PROCESS_START: Figure = figure(
    "process_start_time_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "When the process began, seconds since the Unix epoch.",
);
pub(super) const BUILD: Figure = labelled(
    figure(
        "tollgate_build_info",
        Kind::Gauge,
        Unit::Count,
        "Always 1; the label is the version that runs.",
    ),
    "version",
    &[env!("CARGO_PKG_VERSION")],
);

/// Every figure, in the order of the documentation.
pub const FIGURES: &[Figure] = &[
    RECEIVED,
    STORED,
    REFUSED,
    routing::ROUTED,
    routing::DELIVERED,
    routing::DELIVERED_AGAIN,
    routing::UNDELIVERED,
    routing::WILLS,
    routing::SUBSCRIPTIONS,
    routing::FILTERS,
    routing::FILTER_BYTES,
    routing::RETAINED,
    routing::RETAINED_BYTES,
    routing::INBOX_BYTES,
    routing::INBOX_WAITS,
    REPEATED,
    IN_FLIGHT,
    ACK_WAIT,
    CONNECTIONS,
    CONNECTS,
    CONNECTS_REFUSED,
    TAKEOVERS,
    CONNECTION_PANICS,
    users::CONNECTIONS_EXPIRED,
    audit::AUDIT_RECORDS,
    audit::AUDIT_LEFT_OUT,
    audit::AUDIT_BYTES,
    audit::AUDIT_WAITING,
    audit::AUDIT_FAILED,
    audit::ALARMS,
    door::HANDSHAKES,
    door::HANDSHAKE_BYTES,
    door::ACCEPT_PAUSES,
    door::TLS_FAILURES,
    door::THROTTLE_ENTRIES,
    door::SLOW_READERS,
    door::WEBSOCKET_FAILURES,
    door::CERTIFICATE_END,
    door::CERTIFICATE_RELOADS,
    door::CERTIFICATE_RELOAD_FAILURES,
    JOURNAL_DURABLE,
    JOURNAL_BYTES,
    JOURNAL_SEGMENTS,
    JOURNAL_STATE,
    JOURNAL_COMMITS,
    JOURNAL_COMMIT_BYTES,
    JOURNAL_COMMIT,
    history::HISTORY_LAG,
    history::HISTORY_HEAD,
    history::HISTORY_DAMAGE,
    history::HISTORY_UNREADABLE,
    history::HISTORY_LAG_SECONDS,
    history::HISTORY_UNSEALED,
    history::HISTORY_FILES,
    history::HISTORY_FILE_BYTES,
    history::HISTORY_SAMPLES,
    history::HISTORY_DAMAGED_FILES,
    history::HISTORY_SEALS,
    history::HISTORY_SEAL_SECONDS,
    history::HISTORY_SEAL_FAILING,
    history::HISTORY_COMPACTIONS,
    history::HISTORY_COMPACTION_SECONDS,
    history::HISTORY_UNPURGED,
    history::HISTORY_LATEST,
    history::HISTORY_LATEST_EVICTIONS,
    feed::DELIVERED,
    feed::REDELIVERED,
    feed::DROPPED,
    feed::CURSORS,
    feed::LAG,
    feed::PINNED,
    feed::CUTS,
    HTTP_REQUESTS,
    HTTP_CONNECTIONS,
    DEVICES,
    SCOPES,
    ADMIN_TOKENS,
    TOKENS,
    TOKENS_WITH_TERMS,
    BASIC_CREDENTIALS,
    users::USERS,
    users::USER_TOKENS,
    users::USER_TOKENS_ISSUED,
    users::USER_REVOCATIONS,
    PROCESS_MEMORY,
    PROCESS_DESCRIPTORS,
    PROCESS_DESCRIPTORS_MAX,
    PROCESS_START,
    BUILD,
];
