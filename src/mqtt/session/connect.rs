//! CONNECT: how a session opens, what CONNACK says, and how refusals are put in each version.

use std::sync::Arc;
use std::time::Instant;

use super::authentication::{Authentication, Supported};
use super::timers::KeepAlive;
use super::{Replies, Session, SessionLimits, SessionState, aliases};
use crate::mqtt::message::Will;
use crate::mqtt::wire::{ConnAck, ConnAckProperties, Connect, Packet, ReasonCode, Version};

/// What of a CONNECT the server keeps: the packet itself ends with the read buffer.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Protocol version.
    pub version: Version,
    /// State of an earlier connection is to be dropped.
    pub clean_start: bool,
    /// Keep alive wished, in seconds; 0 is "none".
    pub keep_alive_s: u16,
    /// Client id, empty if the client leaves the choice to the server.
    pub client_id: Box<str>,
    /// Session expiry wished, in seconds. 3.1.1: 0 with clean session, else "never".
    pub expiry_s: u32,
    /// Longest packet the client takes, in bytes.
    pub client_packet_size_max: u32,
    /// QoS 1 and 2 messages the client takes at once, 1 to 65,535.
    pub client_receive_maximum: u16,
    /// Topic aliases the client takes; 0 is none.
    pub client_topic_aliases: u16,
    /// The client asked for reasons in words, in so many words. Absent, the standard would allow
    /// them too [MQTT-3.1.2-29]: small clients are spared what they never read.
    pub wants_reasons: bool,
    /// What is to be published when the connection ends badly.
    pub will: Option<Arc<Will>>,
}

/// Why a CONNECT is refused, in the words of TB-04's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectRefusal {
    /// The protocol level is not 3, 4 or 5 [MQTT-3.1.2-2].
    UnsupportedVersion,
    /// Unknown token, wrong user name or password.
    BadCredentials,
    /// A certificate that is not good now or nobody's, or one identity's beside the token of
    /// another (SEC-22).
    BadCertificate,
    /// A bad, expired or revoked token of a user, or one of another user than the user name says.
    BadUserToken,
    /// A token whose time has not begun. The client is told what it would be told of any other, as
    /// with the four below (SEC-20).
    TokenNotYet,
    /// A token whose time is over.
    TokenExpired,
    /// A token that may not be used from where the client is.
    TokenNetwork,
    /// A token that is bound to a certificate which the client did not show.
    TokenCertificate,
    /// A token that is bound to a certificate, on a listener that asks for none.
    TokenCertificateNotAsked,
    /// Neither user name nor password, and the client id is not known.
    UnknownClientId,
    /// No client id, user name or password at all.
    NoCredentials,
    /// 3.1 and 3.1.1, in the style of Magenta's hub: no user name, or an empty one.
    MissingUserName,
    /// The credential is good, but may not do what the CONNECT asks (its will).
    NotAuthorized,
    /// 3.1.1: empty client id without clean session [MQTT-3.1.3-8].
    ClientIdRequired,
    /// An authentication method that is not supported (SEC-26).
    BadAuthenticationMethod,
    /// MQTT 5: authentication data without a method (SEC-26).
    ProtocolError,
    /// The identity has as many sessions as it may have (SEC-28).
    TooManySessions,
    /// The identity has as many connections as it may have (SEC-28).
    TooManyConnections,
    /// The client takes no packet as long as the CONNACK that would accept it.
    PacketTooLarge,
    /// The storage stays full: the session cannot be recorded.
    StorageFull,
    /// The server cannot decide now; the client may try again.
    Unavailable,
    /// The server is about to stop.
    ShuttingDown,
    /// Too many connects.
    RateExceeded,
}

impl ConnectRefusal {
    /// CONNACK's code in `version`.
    #[must_use]
    pub fn code(self, version: Version) -> u8 {
        let (v5, v3) = match self {
            Self::UnsupportedVersion => (ReasonCode::UnsupportedProtocolVersion, 0x01),
            Self::BadCredentials
            | Self::TokenNotYet
            | Self::TokenExpired
            | Self::TokenNetwork
            | Self::TokenCertificate
            | Self::TokenCertificateNotAsked => (ReasonCode::BadUserNameOrPassword, 0x05),
            Self::BadUserToken | Self::MissingUserName => (ReasonCode::BadUserNameOrPassword, 0x04),
            Self::NotAuthorized | Self::BadCertificate => (ReasonCode::NotAuthorized, 0x05),
            Self::UnknownClientId => (ReasonCode::ClientIdentifierNotValid, 0x02),
            Self::NoCredentials => (ReasonCode::NotAuthorized, 0x05),
            Self::ClientIdRequired => (ReasonCode::ClientIdentifierNotValid, 0x02),
            Self::BadAuthenticationMethod => (ReasonCode::BadAuthenticationMethod, 0x05),
            Self::ProtocolError => (ReasonCode::ProtocolError, 0x05),
            Self::TooManySessions | Self::TooManyConnections => (ReasonCode::QuotaExceeded, 0x03),
            Self::PacketTooLarge => (ReasonCode::PacketTooLarge, 0x03),
            Self::StorageFull => (ReasonCode::QuotaExceeded, 0x03),
            Self::Unavailable => (ReasonCode::ServerUnavailable, 0x03),
            Self::ShuttingDown => (ReasonCode::ServerShuttingDown, 0x03),
            Self::RateExceeded => (ReasonCode::ConnectionRateExceeded, 0x03),
        };
        if version == Version::V5 {
            v5.as_u8()
        } else {
            v3
        }
    }

    /// True if the client takes a packet as long as this CONNACK [MQTT-3.1.2-24].
    #[must_use]
    pub fn fits(self, opening: &Opening) -> bool {
        let mut connack = Vec::new();
        self.write(opening.version, &mut connack);
        opening.takes(connack.len())
    }

    /// Writes the refusing CONNACK; Session Present is 0 [MQTT-3.2.2-6].
    pub fn write(self, version: Version, out: &mut Vec<u8>) {
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            code: self.code(version),
            properties: ConnAckProperties::default(),
        });
        packet
            .encode(version, out)
            .expect("a CONNACK without properties always fits");
    }
}

/// QoS 1 messages to one client that may be unacknowledged, whatever its Receive Maximum: bounds
/// what is remembered for it (32 bytes each).
pub const UNACKNOWLEDGED_MAX: u16 = 16_384;

impl Opening {
    /// Keeps what is needed of `connect`, or says why no session can open.
    ///
    /// # Errors
    /// The client asks for what the server does not have, whoever it is.
    pub fn new(connect: &Connect<'_>) -> Result<Self, ConnectRefusal> {
        // [MQTT-4.12.0-1] (SEC-26)
        let method = connect.properties.authentication_method;
        if method.is_some_and(|name| Supported::named(name).is_none()) {
            return Err(ConnectRefusal::BadAuthenticationMethod);
        }
        let is_v5 = connect.version == Version::V5;
        // [MQTT-3.1.3-7] (3.1.1): without a name there is nothing to come back to.
        if !is_v5 && connect.client_id.is_empty() && !connect.clean_start {
            return Err(ConnectRefusal::ClientIdRequired);
        }
        let expiry_s = match connect.properties.session_expiry_s {
            Some(expiry_s) => expiry_s,
            None if is_v5 || connect.clean_start => 0,
            None => u32::MAX,
        };
        Ok(Self {
            version: connect.version,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            client_id: connect.client_id.into(),
            expiry_s,
            client_packet_size_max: connect.properties.packet_size_max.unwrap_or(u32::MAX),
            client_receive_maximum: connect.properties.receive_maximum.unwrap_or(u16::MAX),
            client_topic_aliases: connect.properties.topic_alias_maximum.unwrap_or(0),
            wants_reasons: connect.properties.request_problem_information == Some(true),
            will: connect
                .will
                .as_ref()
                .and_then(Will::of_connect)
                .map(Arc::new),
        })
    }
}

impl Opening {
    /// True if the client takes the CONNACK that would accept it, whatever it will say
    /// [MQTT-3.1.2-24].
    #[must_use]
    pub fn takes_connack(&self, limits: SessionLimits) -> bool {
        if self.client_packet_size_max >= CONNACK_BYTES_MAX {
            return true;
        }
        let mut replies = Replies::default();
        let assigned = self.client_id.is_empty().then_some(ASSIGNED_LIKE);
        Session::accepted(self, limits, (false, false), assigned, &mut replies);
        self.takes(replies.ordered.len())
    }

    fn takes(&self, bytes: usize) -> bool {
        u32::try_from(bytes).is_ok_and(|bytes| bytes <= self.client_packet_size_max)
    }
}

/// No accepting CONNACK is longer, in bytes.
const CONNACK_BYTES_MAX: u32 = 127;

/// As long as the client ids that the server chooses.
const ASSIGNED_LIKE: &str = "0123456789abcdef0123456789abcdef";

impl Session {
    /// Opens a session, with the state of an earlier one where that is resumed.
    #[must_use]
    pub fn open(
        opening: &Opening,
        limits: SessionLimits,
        resumed: Option<SessionState>,
        now: Instant,
    ) -> Self {
        let mut state = resumed.unwrap_or_default();
        let window = opening.client_receive_maximum.min(UNACKNOWLEDGED_MAX);
        state.in_flight.connect(window);
        state.queue.connect();
        // What the earlier connection left is replaced, and not published any more
        // [MQTT-3.1.3-9].
        state.will.clone_from(&opening.will);
        let aliases = opening.client_topic_aliases.min(limits.topic_aliases_max);
        Self {
            version: opening.version,
            limits,
            keep_alive: KeepAlive::new(opening.keep_alive_s, limits.keep_alive_max_s, now),
            expiry_s: limits.expiry(opening.expiry_s),
            client_packet_size_max: opening.client_packet_size_max,
            wants_reasons: opening.wants_reasons && opening.version == Version::V5,
            // Messages whose PUBREL is still to come hold their places [MQTT-4.9.0-1].
            unacknowledged: u16::try_from(state.unreleased.len()).unwrap_or(u16::MAX),
            authentication: Authentication::new(None),
            aliases_in: aliases::Inbound::default(),
            aliases_out: aliases::Outbound::new(aliases),
            state,
        }
    }

    /// Writes the accepting CONNACK, with what MQTT 5 clients must know of the server's limits.
    /// `assigned` is the client id the server chose for a client that sent none
    /// [MQTT-3.2.2-16].
    ///
    /// `is_sharing` says whether share groups can be joined.
    pub fn accept(
        &self,
        opening: &Opening,
        session_present: bool,
        is_sharing: bool,
        assigned: Option<&str>,
        replies: &mut Replies,
    ) {
        let told = (session_present, is_sharing);
        Self::accepted(opening, self.limits, told, assigned, replies);
    }

    /// As [`Session::accept`], for any session that opens like this.
    fn accepted(
        opening: &Opening,
        limits: SessionLimits,
        (session_present, is_sharing): (bool, bool),
        assigned: Option<&str>,
        replies: &mut Replies,
    ) {
        let granted_s = limits.keep_alive(opening.keep_alive_s);
        let expiry_s = limits.expiry(opening.expiry_s);
        let properties = ConnAckProperties {
            // [MQTT-3.2.2-21]: only when it is not what the client asked for.
            server_keep_alive_s: (granted_s != opening.keep_alive_s).then_some(granted_s),
            session_expiry_s: (expiry_s != opening.expiry_s).then_some(expiry_s),
            receive_maximum: Some(limits.receive_maximum),
            packet_size_max: Some(limits.packet_size_max),
            assigned_client_id: assigned,
            topic_alias_maximum: Some(limits.topic_aliases_max).filter(|&maximum| maximum > 0),
            // Absent is yes: wildcards, subscription identifiers, retained messages, QoS 2.
            shared_subscription_available: (!is_sharing).then_some(false),
            // Response Information is never sent, whatever the client asks for: no part of the
            // topics is set aside for responses, a client chooses within its scope.
            ..ConnAckProperties::default()
        };
        let packet = Packet::ConnAck(ConnAck {
            session_present,
            code: 0,
            properties,
        });
        packet
            .encode(opening.version, &mut replies.ordered)
            .expect("numbers and a client id of at most 36 bytes always fit");
    }

    /// The longest packet the client takes, in bytes.
    #[must_use]
    pub fn client_packet_size_max(&self) -> u32 {
        self.client_packet_size_max
    }
}
