//! Whether a client that has sent its CONNECT comes in, and what it is told if not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::authenticate::authenticate;
use super::greeter::Greeter;
use super::output::Output;
use super::stream::Stream;
use super::throttle::{self, Verdict};
use super::tls::Certificate;
use super::told::{self, Shown};
use super::websocket::Bearer;
use super::wills;
use crate::audit::ClientId;
use crate::identity::{Action, Principal};
use crate::metrics::ConnectRefusal as Refusal;
use crate::mqtt::session::{ConnectRefusal, Opening};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{self, Connect, Property, Version, WireError};

/// Why a client does not come in.
pub(super) enum Failure {
    /// Closed without an answer.
    Silent(Refusal),
    /// Answered with a CONNACK, then closed.
    Refused(ConnectRefusal, Version, Shown),
    /// One failed authentication too many: answered after this time, then closed.
    Throttled(Version, Duration, Shown),
}

/// What is still said to a client that is refused, and after which time.
#[derive(Default)]
pub(super) struct LastWords {
    /// CONNACK, or the answer to a request; nothing where the stream itself says why.
    pub(super) bytes: Vec<u8>,
    pub(super) delay: Duration,
}

/// Who comes in, what its session is to be, and what is told of its client id.
pub(super) type Admitted = (Principal, Opening, ClientId);

/// Who it is, and whether it may come in.
pub(super) fn admit(
    greeter: &Greeter,
    packet: &[u8],
    from: IpAddr,
    (certificate, bearer): (&Certificate, Option<&Bearer>),
) -> Result<Admitted, Failure> {
    let connect = match wire::decode_connect(packet) {
        Ok(connect) => bearer.map_or(connect, |bearer| bearer.beside(connect)),
        Err(WireError::UnsupportedVersion { .. }) => {
            // P-06: a version nobody knows is answered in the oldest words [MQTT-3.1.2-2].
            return Err(Failure::Refused(
                ConnectRefusal::UnsupportedVersion,
                Version::V311,
                Shown::default(),
            ));
        }
        Err(WireError::ClientIdEmpty) => {
            // Only 3.1 and 3.1.1 demand a client id (P-11).
            return Err(Failure::Refused(
                ConnectRefusal::ClientIdRequired,
                Version::V311,
                Shown::default(),
            ));
        }
        Err(WireError::PropertyMissing {
            property: Property::AuthenticationMethod,
        }) => {
            // SEC-26: only MQTT 5 has it, and is told what is missing.
            let refusal = ConnectRefusal::ProtocolError;
            return Err(Failure::Refused(refusal, Version::V5, Shown::default()));
        }
        Err(error) => {
            tracing::debug!(%from, %error, "no session: malformed CONNECT");
            return Err(Failure::Silent(Refusal::BadConnect));
        }
    };
    let refused = |refusal| Failure::Refused(refusal, connect.version, Shown::of(&connect));
    let mut opening = Opening::new(&connect).map_err(refused)?;
    if !opening.takes_connack(greeter.shared.limits) {
        // [MQTT-3.1.2-24]: what cannot be sent is not sent, and there is no session without it.
        return Err(if ConnectRefusal::PacketTooLarge.fits(&opening) {
            refused(ConnectRefusal::PacketTooLarge)
        } else {
            Failure::Silent(Refusal::PacketTooLarge)
        });
    }
    let principal = authenticate(greeter, &connect, (from, certificate))
        .map_err(|refusal| failed(greeter, &connect, from, refusal))?;
    if bearer.is_some_and(|bearer| !bearer.is_of(&principal)) {
        let refusal = ConnectRefusal::BadUserToken;
        return Err(failed(greeter, &connect, from, refusal));
    }
    if let Some(will) = &connect.will {
        // SEC-37: decided now; on device topics a will is allowed and has no effect (TB-15).
        let topic = Topic::new(will.topic).ok();
        if !topic.is_some_and(|topic| principal.permit.allows(Action::Publish, topic)) {
            let shown = Shown::of(&connect).with_principal(&principal);
            let refusal = ConnectRefusal::NotAuthorized;
            return Err(Failure::Refused(refusal, connect.version, shown));
        }
        opening.will = opening.will.filter(|will| wills::is_kept(will));
    }
    Ok((principal, opening, told::client_id(&connect)))
}

/// A failed authentication: refused as what it is, or as one of too many (SEC-27).
fn failed(
    greeter: &Greeter,
    connect: &Connect<'_>,
    from: IpAddr,
    refusal: ConnectRefusal,
) -> Failure {
    let user_name = connect.user_name.filter(|name| !name.is_empty());
    // Client ids alone can be credentials too.
    let credential = user_name.unwrap_or(connect.client_id);
    let version = connect.version;
    tracing::debug!(%from, ?refusal, "no session: authentication failed");
    let shown = Shown::failed(&greeter.shared, connect);
    match (greeter.shared.guards.throttle).failed(from, credential, Instant::now()) {
        Verdict::Ordinary => Failure::Refused(refusal, version, shown),
        Verdict::Delayed => Failure::Throttled(version, throttle::DELAY, shown),
        Verdict::Refused => Failure::Throttled(version, Duration::ZERO, shown),
    }
}

/// Says why, after a while, and closes.
pub(super) async fn refuse(stream: Stream, last_words: LastWords) {
    if !last_words.delay.is_zero() {
        tokio::time::sleep(last_words.delay).await;
    }
    say_goodbye(stream, &last_words.bytes).await;
}

impl Failure {
    /// Counts it and tells of it. What the client is still told, if anything.
    pub(super) fn tell(self, greeter: &Greeter, from: IpAddr) -> Option<LastWords> {
        let (refusal, version, delay, shown) = match self {
            Self::Silent(why) => {
                greeter.refused(from, why, Shown::default());
                return None;
            }
            Self::Refused(refusal, version, shown) => (refusal, version, Duration::ZERO, shown),
            Self::Throttled(version, delay, shown) => {
                (ConnectRefusal::RateExceeded, version, delay, shown)
            }
        };
        greeter.refused(from, metric(refusal), shown);
        let mut bytes = Vec::new();
        refusal.write(version, &mut bytes);
        Some(LastWords { bytes, delay })
    }
}

/// Writes the last words and drains what still comes, so that they are read.
pub(super) async fn say_goodbye(stream: Stream, last_words: &[u8]) {
    let mut output = Output::new(stream, last_words.len());
    output.write(last_words);
    super::linger::drain(&mut output).await;
}

pub(super) fn metric(refusal: ConnectRefusal) -> Refusal {
    match refusal {
        ConnectRefusal::UnsupportedVersion => Refusal::UnsupportedVersion,
        ConnectRefusal::BadCredentials
        | ConnectRefusal::BadUserToken
        | ConnectRefusal::MissingUserName
        | ConnectRefusal::NoCredentials
        | ConnectRefusal::BadAuthenticationMethod => Refusal::BadCredential,
        ConnectRefusal::BadCertificate => Refusal::BadCertificate,
        ConnectRefusal::TokenNotYet => Refusal::TokenNotYet,
        ConnectRefusal::TokenExpired => Refusal::TokenExpired,
        ConnectRefusal::TokenNetwork => Refusal::TokenNetwork,
        ConnectRefusal::TokenCertificate => Refusal::TokenCertificate,
        ConnectRefusal::TokenCertificateNotAsked => Refusal::TokenCertificateNotAsked,
        ConnectRefusal::UnknownClientId | ConnectRefusal::ClientIdRequired => Refusal::BadClientId,
        ConnectRefusal::NotAuthorized => Refusal::NotAuthorized,
        ConnectRefusal::ProtocolError => Refusal::BadConnect,
        ConnectRefusal::RateExceeded => Refusal::Throttled,
        ConnectRefusal::TooManySessions => Refusal::IdentitySessions,
        ConnectRefusal::TooManyConnections => Refusal::IdentityConnections,
        ConnectRefusal::PacketTooLarge => Refusal::PacketTooLarge,
        ConnectRefusal::StorageFull
        | ConnectRefusal::Unavailable
        | ConnectRefusal::ShuttingDown => Refusal::Unavailable,
    }
}
