//! Revocations: of one, or of many by one commit; and what one would end.

use axum::Json;
use axum::extract::State;

use super::admin::{Reply, confirm_all, foresee_all, in_registry, to_the_end};
use super::api::{Receipt, Revocation, Revoke, RevokeAll, RevokedView};
use super::body::{JsonBody, OptionalJsonBody};
use super::parameters::{RawPath, named_in};
use super::refused::Refused;
use super::service::Shared;
use crate::broker;
use crate::identity::{IdentityKind, Named, REVOKED_AT_ONCE_MAX, Registry, Revoked};

const _: () = assert!(REVOKED_AT_ONCE_MAX == 10_000, "docs/openapi.yaml says so");

/// `POST /admin/v1/revocations`
pub(super) async fn make(
    State(shared): State<Shared>,
    JsonBody(wanted): JsonBody<RevokeAll>,
) -> Reply<Revocation> {
    let named = |kind, names: Vec<String>| {
        let names = names.into_iter();
        names.map(move |name_or_id| Named { kind, name_or_id })
    };
    let devices = named(IdentityKind::Device, wanted.devices);
    let apps = named(IdentityKind::Application, wanted.apps);
    let users = named(IdentityKind::User, wanted.users);
    let whom: Vec<Named> = devices.chain(apps).chain(users).collect();
    revoked(shared, whom, wanted.dry_run).await
}

/// `POST /admin/v1/users/{user}/revoke`
pub(super) async fn user(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<Revoke>,
) -> Reply<RevokedView> {
    let user = Named {
        kind: IdentityKind::User,
        name_or_id: named_in(path, "user")?,
    };
    let Json(reply) = revoked(shared, vec![user], wanted.dry_run).await?;
    let one = reply.revoked.into_iter().next();
    let missing = || Refused::internal(&"a revocation without anybody");
    one.map(Json).ok_or_else(missing)
}

async fn revoked(shared: Shared, whom: Vec<Named>, dry_run: bool) -> Reply<Revocation> {
    if dry_run {
        let foresee = move |registry: &Registry| registry.foresee_revoke_all(&whom);
        let revoked = in_registry(&shared, foresee).await?;
        let receipts = foresee_all(&shared, changes_of(&revoked)).await?;
        return Ok(Json(reply(revoked, &receipts, dry_run)));
    }
    to_the_end(async move {
        let revoke = move |registry: &Registry| registry.revoke_all(whom);
        let revoked = in_registry(&shared, revoke).await?;
        note(&revoked);
        let receipts = confirm_all(&shared, changes_of(&revoked)).await?;
        Ok(Json(reply(revoked, &receipts, dry_run)))
    })
    .await
}

fn changes_of(revoked: &[Revoked]) -> Vec<crate::identity::Change> {
    revoked.iter().map(|one| one.change.clone()).collect()
}

fn note(revoked: &[Revoked]) {
    for Revoked { change, .. } in revoked {
        tracing::info!(kind = %change.kind, id = %change.identity, "revoked");
    }
}

fn reply(revoked: Vec<Revoked>, receipts: &[broker::Receipt], dry_run: bool) -> Revocation {
    let mut total = broker::Receipt::default();
    receipts.iter().for_each(|receipt| total.add(receipt));
    let views = revoked.into_iter().zip(receipts);
    let views = views.map(|(one, receipt)| RevokedView {
        kind: one.change.kind.to_string(),
        id: one.change.identity,
        name: one.name,
        receipt: Receipt::of(receipt, dry_run),
    });
    Revocation {
        revoked: views.collect(),
        receipt: Receipt::of(&total, dry_run),
    }
}
