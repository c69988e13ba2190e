//! The words of the admin API about clients that were refused.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Reply to `GET /admin/v1/refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedClients {
    /// The newest ones, the last refusal last.
    pub refused: Vec<RefusedClient>,
    /// The value of `after` that asks for what comes later.
    pub next: u64,
}

/// A client that was refused, as often as it was for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedClient {
    /// First refusal.
    pub first_ms: u64,
    /// Last refusal.
    pub last_ms: u64,
    /// How often.
    pub count: u64,
    /// The address it comes from.
    pub from: String,
    /// Its client id, cut at 64 bytes; empty if it sent none or did not come as far.
    pub client_id: String,
    /// Why: as the label of `tollgate_connects_refused_total`.
    pub reason: String,
    /// Public number of the credential it showed, if it is or was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<u64>,
    /// Whose credential that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Uuid>,
    /// The name of whose it is, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When the credential ended; absent while it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}
