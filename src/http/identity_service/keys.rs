//! The keys of the identity service: the access keys, which operators make by the admin API, and
//! the public key of tokens.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::admin::{Reply, confirm_all, in_registry, to_the_end};
use crate::http::api::{AccessKeyRenewed, AccessKeyView, IdentityServiceView, Receipt, TokenText};
use crate::http::parameters::{RawPath, bad, named_in};
use crate::http::service::Shared;
use crate::identity::{AccessKeyInfo, AccessKeyName};

/// `GET /.well-known/jwks.json`
pub(in crate::http) async fn public_keys(State(shared): State<Shared>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, shared.registry.public_keys()).into_response()
}

/// `GET /admin/v1/identity`
pub(in crate::http) async fn show(State(shared): State<Shared>) -> Json<IdentityServiceView> {
    let totals = shared.registry.user_totals();
    Json(IdentityServiceView {
        resource: shared.registry.resource(),
        users: totals.users,
        tokens: totals.tokens,
        keys: shared
            .registry
            .access_keys()
            .into_iter()
            .map(view)
            .collect(),
    })
}

/// `POST /admin/v1/identity/keys/{key}/renew`
pub(in crate::http) async fn renew(
    State(shared): State<Shared>,
    path: RawPath,
) -> Reply<AccessKeyRenewed> {
    let name = AccessKeyName::parse(&named_in(path, "key")?)
        .ok_or_else(|| bad("key", "must be primary or secondary"))?;
    to_the_end(async move {
        let renew = move |registry: &crate::identity::Registry| registry.renew_access_key(name);
        let renewed = in_registry(&shared, renew).await?;
        tracing::info!(
            key = name.as_str(),
            version = renewed.info.version,
            "access key renewed"
        );
        let users = u64::try_from(renewed.changes.len()).unwrap_or(u64::MAX);
        let mut receipt = crate::broker::Receipt::default();
        let receipts = confirm_all(&shared, renewed.changes).await?;
        receipts.iter().for_each(|part| receipt.add(part));
        Ok(Json(AccessKeyRenewed {
            key: view(renewed.info),
            access_key: TokenText::new(renewed.text.expose().to_owned()),
            users,
            receipt: Receipt::of(&receipt, false),
        }))
    })
    .await
}

fn view(info: AccessKeyInfo) -> AccessKeyView {
    AccessKeyView {
        name: info.name.as_str().to_owned(),
        version: info.version,
        created_ms: info.created_ms,
    }
}
