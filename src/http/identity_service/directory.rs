//! Users as the operator sees them: a list, and one of them with its figures (section 10 of the
//! specification). Labels of metrics never name a user; these two do.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{RawQuery, State};

use crate::http::admin::{Reply, in_registry};
use crate::http::api::{UserPage, UserView};
use crate::http::parameters::{Parameters, RawPath, named_in, page_of};
use crate::http::refused::{Code, Refused};
use crate::http::service::Shared;
use crate::identity::{Registry, USER, User};

/// `GET /admin/v1/users`
pub(in crate::http) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Reply<UserPage> {
    let page = page_of(Parameters::new(query.as_deref())?)?;
    let page = move |registry: &Registry| registry.page_of(USER, page);
    let (found, more) = in_registry(&shared, page).await?;
    let last = found.last().filter(|_| more);
    let next = last.map(|last| last.name.clone());
    let users = found.into_iter().map(|user| view(&shared.registry, user));
    Ok(Json(UserPage {
        users: users.collect(),
        next,
    }))
}

/// `GET /admin/v1/users/{user}`
pub(in crate::http) async fn one(State(shared): State<Shared>, path: RawPath) -> Reply<UserView> {
    let id = named_in(path, "user")?;
    let user = shared.registry.parse_user_id(&id).ok_or_else(|| {
        let message = format!("there is no user {id:?}");
        Refused::new(Code::UserNotFound, message).target("user")
    })?;
    let find = move |registry: &Registry| registry.one(USER, &user.to_string());
    let found = in_registry(&shared, find).await?;
    Ok(Json(view(&shared.registry, found)))
}

fn view(registry: &Registry, user: User) -> UserView {
    let counts = registry.user_counts(user.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let credentials = user.credentials.iter();
    let live = credentials.filter(|held| held.is_valid_at(now_ms));
    UserView {
        tokens: u64::try_from(live.count()).unwrap_or(u64::MAX),
        id: user.name,
        created_ms: user.created_ms,
        generation: user.generation,
        connections: counts.live,
        issued: counts.issued,
        revocations: counts.revocations,
        connects: counts.connects,
        connects_refused: counts.refused,
        messages_received: counts.received,
        messages_delivered: counts.delivered,
    }
}
