//! Revocations: of one, or of many by one commit; and what one would end.

use axum::Json;
use axum::extract::State;

use super::admin::{Reply, confirm_all, foresee_all, in_registry, to_the_end};
use super::api::{Receipt, Revocation, Revoke, RevokeAll, RevokedView};
use super::body::{JsonBody, OptionalJsonBody};
use super::parameters::{RawPath, named_in};
use super::refused::{Code, Refused};
use super::service::Shared;
use super::suspects;
use crate::broker;
use crate::identity::{IdentityKind, Named, REVOKED_AT_ONCE_MAX, Registry, Revoked, Since};

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
    if wanted.since_ms.is_some() && !(wanted.apps.is_empty() && wanted.users.is_empty()) {
        return Err(only_devices_write());
    }
    let devices = named(IdentityKind::Device, wanted.devices);
    let apps = named(IdentityKind::Application, wanted.apps);
    let users = named(IdentityKind::User, wanted.users);
    let wish = Revoke {
        dry_run: wanted.dry_run,
        since_ms: wanted.since_ms,
    };
    let whom: Vec<Named> = devices.chain(apps).chain(users).collect();
    revoked(shared, whom, wish).await
}

/// `POST /admin/v1/users/{user}/revoke`
pub(super) async fn user(
    State(shared): State<Shared>,
    path: RawPath,
    OptionalJsonBody(wanted): OptionalJsonBody<Revoke>,
) -> Reply<RevokedView> {
    let user = named_in(path, "user")?;
    one(shared, IdentityKind::User, user, wanted)
        .await
        .map(Json)
}

/// Revokes one, or says what that would end.
pub(super) async fn one(
    shared: Shared,
    kind: IdentityKind,
    name_or_id: String,
    wanted: Revoke,
) -> Result<RevokedView, Refused> {
    if wanted.since_ms.is_some() && kind != IdentityKind::Device {
        return Err(only_devices_write());
    }
    let whom = vec![Named { kind, name_or_id }];
    let Json(reply) = revoked(shared, whom, wanted).await?;
    let one = reply.revoked.into_iter().next();
    one.ok_or_else(|| Refused::internal(&"a revocation without anybody"))
}

fn only_devices_write() -> Refused {
    let message = "since_ms: only devices write telemetry; leave it out for others";
    Refused::new(Code::BadField, message).target("since_ms")
}

async fn revoked(shared: Shared, whom: Vec<Named>, wanted: Revoke) -> Reply<Revocation> {
    let since = match wanted.since_ms {
        None => None,
        Some(from_ms) => {
            let asked = Shared::clone(&shared);
            let find = move || suspects::since(&asked, from_ms);
            Some(shared.lanes.registry(find).await?)
        }
    };
    if wanted.dry_run {
        let foresee = move |registry: &Registry| registry.foresee_revoke_all(&whom);
        let revoked = in_registry(&shared, foresee).await?;
        let receipts = foresee_all(&shared, changes_of(&revoked)).await?;
        return Ok(Json(reply(revoked, &receipts, true, since)));
    }
    to_the_end(async move {
        let revoke = move |registry: &Registry| registry.revoke_all(whom, since);
        let revoked = in_registry(&shared, revoke).await?;
        note(&revoked);
        let receipts = confirm_all(&shared, changes_of(&revoked)).await?;
        if since.is_some() {
            let history = shared.history.clone();
            let publish = move |registry: &Registry| {
                suspects::publish(registry, &history);
                Ok(())
            };
            in_registry(&shared, publish).await?;
        }
        Ok(Json(reply(revoked, &receipts, false, since)))
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

fn reply(
    revoked: Vec<Revoked>,
    receipts: &[broker::Receipt],
    dry_run: bool,
    since: Option<Since>,
) -> Revocation {
    let told = |receipt: &broker::Receipt| Receipt {
        suspect_from: since.map(|since| since.first_offset),
        ..Receipt::of(receipt, dry_run)
    };
    let mut total = broker::Receipt::default();
    receipts.iter().for_each(|receipt| total.add(receipt));
    let views = revoked.into_iter().zip(receipts);
    let views = views.map(|(one, receipt)| RevokedView {
        kind: one.change.kind.to_string(),
        id: one.change.identity,
        name: one.name,
        receipt: told(receipt),
    });
    Revocation {
        revoked: views.collect(),
        receipt: told(&total),
    }
}
