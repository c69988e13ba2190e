//! The words of the admin API about what ends: revocations, and the receipt of every change.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::broker;

/// Body of `POST /admin/v1/devices/{device}/revoke` and of the same for an application or a user;
/// an empty body means the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Change nothing, and answer with what would end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Mark what the device's credentials wrote from this time on as written by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// Body of `POST /admin/v1/revocations`: everybody is named by name or id. All of them are revoked
/// by one commit, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeAll {
    /// Devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Applications.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// Users of the identity service: what is kept of them stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Change nothing, and answer with what would end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Mark what the devices' credentials wrote from this time on as written by somebody else. Only
    /// with devices alone: nobody else writes telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// Reply to a [`RevokeAll`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Everybody who was named, each once, in the order of the request.
    pub revoked: Vec<RevokedView>,
    /// What the broker did about all of them together.
    pub receipt: Receipt,
}

/// One of those who were revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedView {
    /// `device`, `application` or `user`.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// Its name; of a user its id as the identity service writes it.
    pub name: String,
    /// What the broker did about it; the time is that of the whole call.
    pub receipt: Receipt,
}

/// What a change did in the running broker, once every worker had confirmed it (SEC-34). Each
/// thing is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Connections that were closed.
    pub connections: u64,
    /// Sessions that ended, with or without a connection.
    pub sessions: u64,
    /// Subscriptions that ended.
    pub subscriptions: u64,
    /// Messages to its clients that waited to be sent and were dropped. Those of a share group go
    /// to another member where there is one.
    pub queued: u64,
    /// Messages to its clients that were sent, not acknowledged, and will not be sent again.
    pub in_flight: u64,
    /// QoS 2 messages from its clients whose release had not come.
    pub unfinished: u64,
    /// Wills that are not published.
    pub wills: u64,
    /// Retained messages that were dropped.
    pub retained: u64,
    /// From the durable commit until the last worker had confirmed.
    pub milliseconds: u64,
    /// True if nothing was changed: the figures say what would have ended.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// With `since_ms`: the number of the first record that is marked, in the history's column
    /// `offset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_from: Option<u64>,
}

/// A mark: what the device's credentials wrote from a time on, until they were revoked, may be
/// somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectView {
    /// The time that was given.
    pub from_ms: u64,
    /// When the credentials were revoked.
    pub revoked_ms: u64,
    /// The first record that is marked, in the history's column `offset`.
    pub first_offset: u64,
    /// The last credential that is marked, in the history's column `credential`.
    pub credential_max: u64,
}

impl Receipt {
    /// The broker's own receipt, of a change or of a dry run.
    #[must_use]
    pub(in crate::http) fn of(receipt: &broker::Receipt, dry_run: bool) -> Receipt {
        Receipt {
            connections: receipt.connections,
            sessions: receipt.sessions,
            subscriptions: receipt.subscriptions,
            queued: receipt.queued,
            in_flight: receipt.in_flight,
            unfinished: receipt.unfinished,
            wills: receipt.wills,
            retained: receipt.retained,
            milliseconds: receipt.milliseconds,
            dry_run,
            suspect_from: None,
        }
    }
}

/// What stands in a body only if it is so.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}
