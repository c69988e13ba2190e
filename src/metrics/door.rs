//! What happens at the door: figures of limits, TLS and certificates. All of it is rare beside
//! messages, so it goes straight to the shared figures.

use metrics::{Counter, Gauge, Unit};

use super::list::{Figure, Kind, closed_list, figure, labelled};
use super::{counters, one_counter, one_gauge};

/// Handles of the figures of the door. Cloning shares them.
#[derive(Clone, Debug)]
pub struct DoorFigures {
    handshakes: Gauge,
    handshake_bytes: Gauge,
    accept_pauses: Vec<Counter>,
    tls_failures: Vec<Counter>,
    throttle_entries: Gauge,
    slow_readers: Vec<Counter>,
    websocket_failures: Vec<Counter>,
    certificate_end: Gauge,
    certificate_reloads: Counter,
    certificate_reload_failures: Counter,
}

impl DoorFigures {
    /// Registers with the recorder of the current scope.
    pub(super) fn new() -> DoorFigures {
        DoorFigures {
            handshakes: one_gauge(&HANDSHAKES),
            handshake_bytes: one_gauge(&HANDSHAKE_BYTES),
            accept_pauses: counters(&ACCEPT_PAUSES),
            tls_failures: counters(&TLS_FAILURES),
            throttle_entries: one_gauge(&THROTTLE_ENTRIES),
            slow_readers: counters(&SLOW_READERS),
            websocket_failures: counters(&WEBSOCKET_FAILURES),
            certificate_end: one_gauge(&CERTIFICATE_END),
            certificate_reloads: one_counter(&CERTIFICATE_RELOADS),
            certificate_reload_failures: one_counter(&CERTIFICATE_RELOAD_FAILURES),
        }
    }

    /// A connection without an accepted CONNECT came (true) or is through or gone (false).
    pub fn handshake(&self, came: bool) {
        self.handshakes.increment(if came { 1.0 } else { -1.0 });
    }

    /// What such connections are charged changed by this many bytes.
    pub fn handshake_bytes(&self, change: i32) {
        self.handshake_bytes.increment(f64::from(change));
    }

    /// Accepting paused.
    pub fn accept_paused(&self, why: AcceptPause) {
        count(self.accept_pauses.get(why as usize));
    }

    /// A TLS connection failed.
    pub fn tls_failed(&self, why: TlsFailure) {
        count(self.tls_failures.get(why as usize));
    }

    /// The table of failed authentications has this many entries.
    pub fn throttle_entries(&self, entries: u32) {
        self.throttle_entries.set(f64::from(entries));
    }

    /// A client that does not read was cut off.
    pub fn slow_reader(&self, why: SlowReader) {
        count(self.slow_readers.get(why as usize));
    }

    /// A request became no WebSocket, or a WebSocket ended for what came in it.
    pub fn websocket_failed(&self, why: WebSocketFailure) {
        count(self.websocket_failures.get(why as usize));
    }

    /// The certificates in use end at this time, seconds since the Unix epoch: the earliest.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of a date, exact up to 2^53"
    )]
    pub fn certificate_end(&self, unix_s: u64) {
        self.certificate_end.set(unix_s as f64);
    }

    /// Certificates were read again; true if the new ones serve now.
    pub fn certificates_reloaded(&self, taken: bool) {
        if taken {
            self.certificate_reloads.increment(1);
        } else {
            self.certificate_reload_failures.increment(1);
        }
    }
}

/// Counts one; the handles cover every member of their list, so there always is one.
fn count(counter: Option<&Counter>) {
    if let Some(counter) = counter {
        counter.increment(1);
    }
}

closed_list! {
    /// Why a connection got no further than its CONNECT.
    ConnectRefusal {
        /// The first packet was no CONNECT, or a malformed one.
        BadConnect = "bad_connect",
        /// A protocol version that is not spoken here.
        UnsupportedVersion = "unsupported_version",
        /// A client id that is not accepted.
        BadClientId = "bad_client_id",
        /// Missing, unknown or revoked credential.
        BadCredential = "bad_credential",
        /// A certificate that is not good now, or nobody's.
        BadCertificate = "bad_certificate",
        /// A token whose time has not begun.
        TokenNotYet = "token_not_yet",
        /// A token whose time is over.
        TokenExpired = "token_expired",
        /// A token that may not be used from there.
        TokenNetwork = "token_network",
        /// A token that is bound to a certificate which was not shown.
        TokenCertificate = "token_certificate",
        /// A token that is bound to a certificate, where the listener asks for none.
        TokenCertificateNotAsked = "token_certificate_not_asked",
        /// A good credential that may not do what the CONNECT asks.
        NotAuthorized = "not_authorized",
        /// No complete CONNECT in time.
        Timeout = "timeout",
        /// The TLS handshake failed.
        TlsFailed = "tls_failed",
        /// As many connections as there may be in all.
        TooManyConnections = "too_many_connections",
        /// As many connections as one address may have.
        AddressConnections = "address_connections",
        /// As many connections before CONNECT as one address may have.
        AddressHandshakes = "address_handshakes",
        /// The memory for connections before CONNECT was used up.
        HandshakeMemory = "handshake_memory",
        /// As many connections as one identity may have.
        IdentityConnections = "identity_connections",
        /// As many sessions as one identity may have.
        IdentitySessions = "identity_sessions",
        /// A proxy's connection did not begin with a whole PROXY header.
        ProxyHeader = "proxy_header",
        /// The HTTP request asked for no WebSocket that is served.
        BadUpgrade = "bad_upgrade",
        /// The client takes no packet as long as the CONNACK.
        PacketTooLarge = "packet_too_large",
        /// Too many failures from the same address.
        Throttled = "throttled",
        /// The broker could not serve it: storage, or stopping.
        Unavailable = "unavailable",
    }
}

closed_list! {
    /// Why accepting paused; connections wait in the system's queue meanwhile.
    AcceptPause {
        /// No file descriptor, or no memory, was left.
        Descriptors = "descriptors",
        /// More came in a second than is accepted.
        Rate = "rate",
    }
}

closed_list! {
    /// Why a TLS connection failed.
    TlsFailure {
        /// The client speaks only versions of TLS that are not offered (1.1 and older).
        NoSharedVersion = "no_shared_version",
        /// No cipher suite, key exchange or signature scheme in common.
        NoSharedCipher = "no_shared_cipher",
        /// The client does not trust our certificate.
        CertificateRejected = "certificate_rejected",
        /// The client shows no certificate where one is required, or none that is good.
        ClientCertificate = "client_certificate",
        /// Another alert of the client.
        ClientAlert = "client_alert",
        /// What came is not TLS: MQTT without TLS on the TLS port, most likely.
        NotTls = "not_tls",
        /// The handshake was not finished in time.
        Timeout = "timeout",
        /// The client left during the handshake.
        Closed = "closed",
        /// More bytes without data than are allowed: key updates, an oversized handshake.
        Flood = "flood",
        /// Anything else.
        Other = "other",
    }
}

closed_list! {
    /// Why a client that does not read was cut off.
    SlowReader {
        /// More bytes waited than may.
        Bytes = "bytes",
        /// They waited too long without any of them going.
        Time = "time",
    }
}

closed_list! {
    /// Why a request became no WebSocket, or a WebSocket ended.
    WebSocketFailure {
        /// What came is no HTTP/1.1: MQTT without WebSocket, most likely.
        NotHttp = "not_http",
        /// A longer request than is read.
        HeadTooLong = "head_too_long",
        /// Nothing is served at the path.
        Path = "path",
        /// A method other than GET, or a body.
        Method = "method",
        /// No upgrade to a WebSocket, or a broken one.
        NoUpgrade = "no_upgrade",
        /// The subprotocol `mqtt` is not offered.
        Subprotocol = "subprotocol",
        /// A page that may not connect.
        Origin = "origin",
        /// A token that is not good, or not where tokens are taken.
        Token = "token",
        /// A text frame.
        Text = "text",
        /// A frame without a mask.
        Unmasked = "unmasked",
        /// A frame that is none, or not in its place.
        Protocol = "protocol",
        /// A longer message than is taken.
        TooLong = "too_long",
        /// More pings or empty fragments in a second than are taken.
        Flood = "flood",
    }
}

pub(super) const HANDSHAKES: Figure = figure(
    "tollgate_handshakes",
    Kind::Gauge,
    Unit::Count,
    "Connections whose CONNECT has not been accepted yet.",
);
pub(super) const HANDSHAKE_BYTES: Figure = figure(
    "tollgate_handshake_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory that connections are charged before their CONNECT is accepted.",
);
pub(super) const ACCEPT_PAUSES: Figure = labelled(
    figure(
        "tollgate_accept_pauses_total",
        Kind::Counter,
        Unit::Count,
        "Pauses of accepting, by reason; connections wait in the system's queue meanwhile.",
    ),
    "reason",
    AcceptPause::LABELS,
);
pub(super) const TLS_FAILURES: Figure = labelled(
    figure(
        "tollgate_tls_failures_total",
        Kind::Counter,
        Unit::Count,
        "TLS connections that failed, by reason.",
    ),
    "reason",
    TlsFailure::LABELS,
);
pub(super) const THROTTLE_ENTRIES: Figure = figure(
    "tollgate_throttle_entries",
    Kind::Gauge,
    Unit::Count,
    "Addresses and credentials with failed authentications within the last minutes.",
);
pub(super) const SLOW_READERS: Figure = labelled(
    figure(
        "tollgate_slow_readers_total",
        Kind::Counter,
        Unit::Count,
        "Clients cut off because they did not read, by the limit they met.",
    ),
    "reason",
    SlowReader::LABELS,
);
pub(super) const WEBSOCKET_FAILURES: Figure = labelled(
    figure(
        "tollgate_websocket_failures_total",
        Kind::Counter,
        Unit::Count,
        "Requests that became no WebSocket, and WebSockets that ended for what came, by reason.",
    ),
    "reason",
    WebSocketFailure::LABELS,
);
pub(super) const CERTIFICATE_END: Figure = figure(
    "tollgate_certificate_end_timestamp_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "When the first of the certificates in use ends, since the Unix epoch; 0 without TLS.",
);
pub(super) const CERTIFICATE_RELOADS: Figure = figure(
    "tollgate_certificate_reloads_total",
    Kind::Counter,
    Unit::Count,
    "Times that new certificates were taken into use while running.",
);
pub(super) const CERTIFICATE_RELOAD_FAILURES: Figure = figure(
    "tollgate_certificate_reload_failures_total",
    Kind::Counter,
    Unit::Count,
    "Times that new certificates could not be used: the old ones stay.",
);
