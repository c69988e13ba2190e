//! The operations on users: create, issue, revoke, delete, and the exchange that is not configured.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

use super::body::{Call, bad_scopes, wanted_token};
use super::{Cause, Refusal, answer};
use crate::http::admin::{ALL_RECORDS, confirm, in_registry, to_the_end};
use crate::http::api::{IdentityCreated, IdentityRef, IdentityToken, TokenText};
use crate::http::parameters::decoded;
use crate::http::refused::Refused;
use crate::http::service::{ServiceState, Shared};
use crate::identity::{Registry, UserToken};

/// Whole seconds, with the fraction and offset that the reference has (section 3.2).
const EXPIRES_ON: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].0000000+00:00");

/// `POST /identities` (section 2.1)
pub(in crate::http) async fn create(
    State(shared): State<Shared>,
    request: Request,
) -> Response<Body> {
    answer(created(shared, request).await)
}

async fn created(shared: Shared, request: Request) -> Result<Response<Body>, Refusal> {
    let call = Call::read(request).await?;
    let wanted = wanted_token(&call.members()?, "createTokenWithScopes")?;
    let access_key = call.access_key;
    let create = move |registry: &Registry| registry.create_user(wanted, access_key);
    let (user, token) = in_registry(&shared, create).await?;
    let id = shared.registry.user_id(user);
    tracing::info!(user = %id, token = ?token.as_ref().map(|token| token.credential), "created");
    let reply = IdentityCreated {
        identity: IdentityRef { id },
        access_token: token.as_ref().map(shown),
    };
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// `POST /identities/{id}/:issueAccessToken` (section 2.2)
pub(in crate::http) async fn issue(
    State(shared): State<Shared>,
    request: Request,
) -> Response<Body> {
    answer(issued(shared, request).await)
}

async fn issued(shared: Shared, request: Request) -> Result<Response<Body>, Refusal> {
    let user = named_in(&shared, request.uri().path());
    let call = Call::read(request).await?;
    let wanted = wanted_token(&call.members()?, "scopes")?.ok_or_else(bad_scopes)?;
    let (user, access_key) = (user?, call.access_key);
    let issue = move |registry: &Registry| registry.issue_token(user, wanted, access_key);
    let token = in_registry(&shared, issue).await?;
    let id = shared.registry.user_id(user);
    tracing::info!(user = %id, token = token.credential, "given a token");
    Ok(Json(shown(&token)).into_response())
}

/// `POST /identities/{id}/:revokeAccessTokens` (section 2.3)
pub(in crate::http) async fn revoke(
    State(shared): State<Shared>,
    request: Request,
) -> Response<Body> {
    answer(revoked(shared, request).await)
}

async fn revoked(shared: Shared, request: Request) -> Result<Response<Body>, Refusal> {
    let user = named_in(&shared, request.uri().path());
    Call::read(request).await?;
    let user = user?;
    ended(shared, "tokens revoked", user, move |registry| {
        registry.revoke_tokens(user)
    })
    .await
}

/// `DELETE /identities/{id}` (section 2.4)
pub(in crate::http) async fn delete(
    State(shared): State<Shared>,
    request: Request,
) -> Response<Body> {
    answer(deleted(shared, request).await)
}

async fn deleted(shared: Shared, request: Request) -> Result<Response<Body>, Refusal> {
    let user = named_in(&shared, request.uri().path());
    Call::read(request).await?;
    let user = user?;
    ended(shared, "deleted", user, move |registry| {
        registry.delete_user(user, ALL_RECORDS)
    })
    .await
}

/// `POST /teamsUser/:exchangeAccessToken` (section 2.5): no provider of other identities can be
/// configured, and that is what is answered.
pub(in crate::http) async fn exchange(request: Request) -> Response<Body> {
    answer(exchanged(request).await)
}

async fn exchanged(request: Request) -> Result<Response<Body>, Refusal> {
    let members = Call::read(request).await?.members()?;
    for member in ["token", "appId", "userId"] {
        let text = members.get(member).and_then(|value| value.as_str());
        if text.is_none_or(str::is_empty) {
            let message = format!("{member} must be a string that is not empty");
            return Err(Refusal::new(Cause::InvalidRequest, message).target(member));
        }
    }
    let message = "tokens of Teams users cannot be exchanged: no identity provider is configured";
    Err(Refusal::new(Cause::NotConfigured, message))
}

/// Makes a change that takes rights away, has it confirmed everywhere, and says so with nothing.
async fn ended(
    shared: Shared,
    what: &'static str,
    user: Uuid,
    make: impl FnOnce(&Registry) -> Result<crate::identity::Change, crate::identity::RegistryError>
    + Send
    + 'static,
) -> Result<Response<Body>, Refusal> {
    to_the_end(async move {
        let change = in_registry(&shared, make).await?;
        tracing::info!(user = %shared.registry.user_id(user), "{what}");
        confirm(&shared, change).await?;
        Ok::<_, Refused>(StatusCode::NO_CONTENT.into_response())
    })
    .await
    .map_err(Refusal::from)
}

/// The user that a path names. Split first, then decoded: an id may come with `%3A` (ID-07).
fn named_in(shared: &ServiceState, path: &str) -> Result<Uuid, Refusal> {
    let step = path.split('/').nth(2).unwrap_or_default();
    let id = decoded(step).ok();
    let user = id.and_then(|id| shared.registry.parse_user_id(&id));
    user.ok_or_else(|| Refusal::new(Cause::IdentityNotFound, "there is no such identity"))
}

fn shown(token: &UserToken) -> IdentityToken {
    let expires_s = i64::try_from(token.expires_s).unwrap_or(i64::MAX);
    let expires = OffsetDateTime::from_unix_timestamp(expires_s);
    let expires_on = expires
        .ok()
        .and_then(|expires| expires.format(EXPIRES_ON).ok());
    IdentityToken {
        token: TokenText::new(token.expose().to_owned()),
        expires_on: expires_on.unwrap_or_default(),
    }
}
