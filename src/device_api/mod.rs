//! The device platform's virtual topics (specification of the device platform, sections 2 and 3).
//!
//! They are endpoints of the connected device, not broker topics: nothing published there is ever
//! routed to a subscriber (TB-10). [`route`] decides what becomes of a PUBLISH, [`topics`] which
//! filters a device may subscribe to. Every other topic is ordinary, as far as a scope covers it.

pub mod topics;

pub use crate::telemetry::PARSER_VERSION;
pub use topics::{TELEMETRY_TOPIC, grant, is_allowed, is_platform, is_virtual};

use crate::mqtt::session::{Ending, Refused};
use crate::mqtt::wire::ReasonCode;
use crate::telemetry::{self, ScanOptions};
use topics::DeviceTopic;

/// What holds for all devices until they have profiles of their own.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Longest payload on a device topic, in bytes (TB-17).
    pub payload_size_max: usize,
    /// Acknowledge bad payloads and stay, instead of TB-16's refusals
    /// (`sendAckOnValidationException`).
    pub acks_bad_payload: bool,
    /// How payloads are read.
    pub scan: ScanOptions,
}

/// What becomes of a PUBLISH on the device endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The payload is telemetry: record it.
    Telemetry,
    /// No topic of the platform: a scope covers it, and it goes to whoever subscribed.
    Ordinary,
    /// Acknowledge it as if it were stored, and drop it: the profile wants it so.
    Drop(Why),
    /// Refuse it.
    Refuse(Refused, Why),
}

/// Why a PUBLISH is not stored; the ledger's reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The payload cannot be read (TB-16).
    BadPayload,
    /// The topic is none of the device's (TB-14).
    UnknownTopic,
    /// No scope of the publisher covers the topic (SEC-30).
    NotAuthorized,
    /// The topic is in a `$` tree (SEC-33).
    SystemTopic,
    /// The payload is longer than the profile allows (TB-17).
    PayloadTooLarge,
}

/// Decides what becomes of a device's PUBLISH that the rights gate let through.
#[must_use]
pub fn route(topic: &str, payload: &[u8], profile: &Profile) -> Route {
    match DeviceTopic::of(topic) {
        DeviceTopic::Telemetry => telemetry(payload, profile),
        DeviceTopic::Foreign => Route::Ordinary,
        DeviceTopic::System | DeviceTopic::Unknown => refuse_foreign(topic),
    }
}

/// Refuses a PUBLISH to a topic that no endpoint and no scope covers: 0x90 (TB-14), or 0x87 in
/// the `$` trees, which are closed to clients (SEC-33), and for telemetry, where the token has no
/// right to send it (SEC-54). The connection stays.
#[must_use]
pub fn refuse_foreign(topic: &str) -> Route {
    let (reason, why) = match DeviceTopic::of(topic) {
        DeviceTopic::System => (ReasonCode::NotAuthorized, Why::SystemTopic),
        DeviceTopic::Telemetry => (ReasonCode::NotAuthorized, Why::NotAuthorized),
        DeviceTopic::Unknown | DeviceTopic::Foreign => {
            (ReasonCode::TopicNameInvalid, Why::UnknownTopic)
        }
    };
    Route::Refuse(
        Refused {
            reason,
            ending: Ending::Stays,
        },
        why,
    )
}

/// Decides what becomes of an application's PUBLISH: 0x87 where its filters do not cover the
/// topic, 0x90 for the names of the platform, which are endpoints of devices or its own to
/// publish to (TB-10). The connection stays.
#[must_use]
pub fn route_application(topic: &str, is_allowed: bool) -> Route {
    if !is_allowed {
        let refused = Refused {
            reason: ReasonCode::NotAuthorized,
            ending: Ending::Stays,
        };
        return Route::Refuse(refused, Why::NotAuthorized);
    }
    match DeviceTopic::of(topic) {
        DeviceTopic::Foreign => Route::Ordinary,
        _ => refuse_foreign(topic),
    }
}

fn telemetry(payload: &[u8], profile: &Profile) -> Route {
    if payload.len() > profile.payload_size_max {
        // TB-17: MQTT 5's PUBACK cannot say 0x95, so the connection ends for every version.
        let refused = Refused {
            reason: ReasonCode::PacketTooLarge,
            ending: Ending::Closes,
        };
        return Route::Refuse(refused, Why::PayloadTooLarge);
    }
    match telemetry::check(payload, profile.scan) {
        Ok(_) => Route::Telemetry,
        Err(_) if profile.acks_bad_payload => Route::Drop(Why::BadPayload),
        Err(_) => {
            let reason = ReasonCode::PayloadFormatInvalid;
            Route::Refuse(
                Refused {
                    reason,
                    ending: Ending::ClosesUntold,
                },
                Why::BadPayload,
            )
        }
    }
}
