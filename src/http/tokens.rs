//! What is told about tokens: what one is worth, and who still uses an old one.

use axum::Json;
use axum::extract::{RawQuery, State};

use super::admin::{Reply, in_registry};
use super::api::{TokenCheck, TokenReport, TokenUsage, UsageConnection, UsagePage};
use super::body::JsonBody;
use super::parameters::Parameters;
use super::service::Shared;
use super::views::report_view;
use crate::broker::LiveConnection;
use crate::identity::{OldToken, Registry, USAGE_PER_PAGE_MAX};

/// Tokens in one page when the request names no `limit`.
const USAGE_PER_PAGE_DEFAULT: usize = 100;

/// `POST /admin/v1/tokens/check`
pub(super) async fn check(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<TokenCheck>,
) -> Reply<TokenReport> {
    let check = move |registry: &Registry| registry.check_token(wanted.token.expose());
    let mut report = report_view(in_registry(&shared, check).await?);
    if let TokenReport::Live {
        certificate: Some(_),
        refused: refused @ None,
        ..
    } = &mut report
        && let Some(why) = shared.asks_nobody()
    {
        *refused = Some(format!("it needs a client certificate, and {why}"));
    }
    Ok(Json(report))
}

/// `GET /admin/v1/tokens/usage`
pub(super) async fn usage(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<UsagePage> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let one = parameters.text("device")?;
    let after = parameters.number("after", 0..=usize::MAX)?;
    let limit = parameters.number("limit", 1..=USAGE_PER_PAGE_MAX)?;
    parameters.finish(&["device", "after", "limit"])?;
    let after = u64::try_from(after.unwrap_or(0)).unwrap_or(u64::MAX >> 1);
    let limit = limit.unwrap_or(USAGE_PER_PAGE_DEFAULT);
    let ask = move |registry: &Registry| registry.old_tokens(one.as_deref(), after, limit);
    let (tokens, more) = in_registry(&shared, ask).await?;
    let identities = tokens.iter().map(|token| token.identity).collect();
    let live = shared.control.find(identities).await;
    let next = tokens.last().filter(|_| more).map(|token| token.credential);
    let tokens = tokens.into_iter().map(|token| view(token, &live)).collect();
    Ok(Json(UsagePage { tokens, next }))
}

fn view(token: OldToken, live: &[LiveConnection]) -> TokenUsage {
    let of = |credential: u64| {
        let found = live.iter();
        found.filter(move |held| held.identity == token.identity && held.credential == credential)
    };
    let mut connections: Vec<UsageConnection> = of(token.credential)
        .map(|held| UsageConnection {
            client_id: held.client_id.to_string(),
            from: held.from,
            since_ms: held.since_ms,
        })
        .collect();
    // An identity is named once for each of its old tokens.
    connections.sort_by(|a, b| (a.since_ms, &a.client_id).cmp(&(b.since_ms, &b.client_id)));
    connections.dedup();
    let mut new: Vec<&str> = of(token.superseded_by)
        .map(|held| &*held.client_id)
        .collect();
    new.sort_unstable();
    new.dedup();
    TokenUsage {
        kind: token.kind.to_string(),
        device: token.identity,
        name: token.name,
        credential: token.credential,
        superseded_by: token.superseded_by,
        superseded_ms: token.superseded_ms,
        expires_ms: token.expires_ms,
        connections,
        connections_new: u64::try_from(new.len()).unwrap_or(u64::MAX),
        last_used_ms: token.last_use.map(|last| last.at_ms),
        last_used_from: token.last_use.map(|last| last.from),
    }
}
