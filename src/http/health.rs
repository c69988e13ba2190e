//! What anybody may ask: is it well, is it ready, how is it doing; and the API's description.
//!
//! No id, topic or address is in any of these replies (SEC-77).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::service::{ServiceState, Shared};
use crate::journal::{FullReason, JournalStatus};
use crate::metrics::{FileFigures, HistoryFigures, JournalFigures, JournalState, UsersFigures};

/// The API's description, as it stands in the documentation.
const OPENAPI: &str = include_str!("../../docs/openapi.yaml");

/// Body of `/healthz` and `/readyz`.
#[derive(Serialize)]
struct Health {
    /// `ok`, `degraded` or `unavailable`.
    status: &'static str,
    /// What the journal is doing.
    journal: &'static str,
    /// For people: what that means and what to do.
    message: String,
}

/// `/healthz`: whether the broker is worth keeping alive. A full disk heals by itself, and a
/// restart would only cut the connections, so that is 200 and "degraded".
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let (state, health) = describe(shared.journal.status());
    let is_alive = matches!(state, JournalState::Running | JournalState::Full);
    answer(is_alive, health)
}

/// `/readyz`: whether telemetry is acknowledged now.
pub(super) async fn readiness(State(shared): State<Shared>) -> Response {
    let (state, health) = describe(shared.journal.status());
    answer(state == JournalState::Running, health)
}

/// Every figure, in the Prometheus text format.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    note_figures(&shared);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], shared.metrics.render()).into_response()
}

/// `docs/openapi.yaml`.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

fn answer(is_well: bool, health: Health) -> Response {
    let status = if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

fn describe(status: JournalStatus) -> (JournalState, Health) {
    let (state, trouble) = explain(status);
    let health = Health {
        status: match state {
            JournalState::Running => "ok",
            JournalState::Full => "degraded",
            JournalState::Failed | JournalState::Closed => "unavailable",
        },
        journal: label(state),
        message: trouble.unwrap_or_else(|| "telemetry is on disk before it is acknowledged".into()),
    };
    (state, health)
}

/// The journal's state, and in words what is wrong with it, if anything is.
fn explain(status: JournalStatus) -> (JournalState, Option<String>) {
    match status {
        JournalStatus::Running => (JournalState::Running, None),
        JournalStatus::Full { since, reason } => {
            let why = match reason {
                FullReason::NoSpace => "the file system of the data directory has no room",
                FullReason::SizeMax => "the journal has reached the size set for it",
                FullReason::NoDescriptor => "the broker has no file descriptor left",
                FullReason::Refused(_) => "the system refuses to make room for the journal",
            };
            let words = format!(
                "full for {} s: {why}; connections stay, telemetry is acknowledged again as soon \
                 as there is room",
                since.elapsed().as_secs()
            );
            (JournalState::Full, Some(words))
        }
        JournalStatus::Failed => {
            let words = "a write to the journal failed: nothing more is acknowledged, the broker \
                         ends; its log says what failed";
            (JournalState::Failed, Some(words.to_owned()))
        }
        JournalStatus::Closed => (
            JournalState::Closed,
            Some("the broker is stopping".to_owned()),
        ),
    }
}

fn label(state: JournalState) -> &'static str {
    let place = JournalState::ALL.iter().position(|known| *known == state);
    place
        .and_then(|place| JournalState::LABELS.get(place))
        .copied()
        .unwrap_or_default()
}

/// Takes down what is known only by asking.
fn note_figures(shared: &ServiceState) {
    let journal = &shared.journal;
    let usage = journal.usage();
    let durable = journal.durable().number();
    shared.metrics.set_journal(JournalFigures {
        durable,
        bytes: usage.bytes,
        segments: usage.segments,
        commits: usage.commits,
        commit_bytes: usage.commit_bytes,
        state: explain(journal.status()).0,
    });
    let registry = &shared.registry;
    let count = |held: usize| u64::try_from(held).unwrap_or(u64::MAX);
    let tokens = (
        count(registry.tokens()),
        count(registry.tokens_with_terms()),
    );
    let scopes = count(registry.scopes());
    shared
        .metrics
        .set_registry(registry.devices_total(), tokens, scopes);
    shared
        .metrics
        .set_basic_credentials(count(registry.basic_credentials()));
    shared
        .metrics
        .set_admin_tokens(count(registry.admin_tokens_total()));
    let users = registry.user_totals();
    shared.metrics.set_users(UsersFigures {
        users: users.users,
        tokens: users.tokens,
        issued: users.issued,
        revocations: users.revocations,
    });
    let history = shared.history.status();
    shared.metrics.set_history(HistoryFigures {
        lag_records: durable.saturating_sub(history.read.number()),
        head_bytes: u64::try_from(history.head_bytes).unwrap_or(u64::MAX),
        damage: history.damage_total,
        unreadable: history.unreadable,
    });
    let lag = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let read = Duration::from_millis(history.read_received_ms);
    let is_behind = durable > history.read.number() && history.read_received_ms > 0;
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    shared.metrics.set_history_files(&FileFigures {
        lag: lag
            .filter(|_| is_behind)
            .map_or(Duration::ZERO, |now| now.saturating_sub(read)),
        unsealed_records: durable.saturating_sub(history.sealed.number()),
        files: number(history.files),
        file_bytes: history.file_bytes,
        samples: history.file_rows,
        damaged_files: history.file_damage_total,
        seals: history.seals,
        seal_last: history.seal_last,
        seal_failing: history.seal_failure.is_some(),
        compactions: history.compactions,
        compaction_last: history.compaction_last,
        unpurged_devices: number(history.unpurged),
        latest_bytes: number(history.latest_bytes),
        latest_evictions: history.latest_evictions,
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_full_disk_is_no_reason_for_a_restart() {
        let since = Instant::now();
        let full = JournalStatus::Full {
            since,
            reason: FullReason::NoSpace,
        };
        assert_eq!(describe(full).1.status, "degraded");
        assert_eq!(describe(JournalStatus::Running).1.status, "ok");
        assert_eq!(describe(JournalStatus::Failed).1.status, "unavailable");
    }

    #[test]
    fn each_state_of_the_journal_has_its_words() {
        let full = |reason| JournalStatus::Full {
            since: Instant::now(),
            reason,
        };
        let refused = FullReason::Refused(std::io::ErrorKind::PermissionDenied);
        for (status, name, words) in [
            (
                full(FullReason::NoSpace),
                "full",
                "full for 0 s: the file system of the data",
            ),
            (
                full(FullReason::SizeMax),
                "full",
                "full for 0 s: the journal has reached the size",
            ),
            (
                full(FullReason::NoDescriptor),
                "full",
                "full for 0 s: the broker has no file descriptor left",
            ),
            (full(refused), "full", "full for 0 s: the system refuses"),
            (
                JournalStatus::Failed,
                "failed",
                "a write to the journal failed",
            ),
            (JournalStatus::Closed, "closed", "the broker is stopping"),
        ] {
            let (state, trouble) = explain(status);
            assert_eq!(label(state), name);
            let trouble = trouble.unwrap();
            assert!(trouble.starts_with(words), "{trouble}");
        }
        let (state, trouble) = explain(JournalStatus::Running);
        assert_eq!((label(state), trouble), ("running", None));
    }
}
