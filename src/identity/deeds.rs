//! What the audit is told of changes: whose they are, what ended, and what may be done now. Names
//! and public numbers, never a secret.

use uuid::Uuid;

use super::IdentityKind;
use super::changes::{As, Changed, Ended, Rescoped};
use crate::audit::{Event, What};
use crate::store::scopes::Filters;

/// Something happened to an identity.
pub(super) fn of(what: What, kind: IdentityKind, id: Uuid, name: &str) -> Event {
    let event = Event::new(what).text("kind", kind.as_str()).id("id", id);
    event.text("name", name)
}

/// An identity was added.
pub(super) fn created(kind: IdentityKind, id: Uuid, name: &str, scope: &Filters) -> Event {
    with_scope(of(What::Created, kind, id, name), scope)
}

/// Credentials ended, at least.
pub(super) fn ended<T>(what: What, whose: As<T>, changed: &Changed<T>) -> Event {
    let event = of(what, whose.kind, changed.id, (whose.name)(&changed.shown));
    event.numbers("ended", &numbers(&changed.ended))
}

/// Credentials ended, of an identity of any kind that is known by its name.
pub(super) fn revoked(kind: IdentityKind, changed: &Changed<String>) -> Event {
    let event = of(What::Revoked, kind, changed.id, &changed.shown);
    event.numbers("ended", &numbers(&changed.ended))
}

/// What may be done was changed.
pub(super) fn rescoped<T>(kind: IdentityKind, done: &Rescoped<T>) -> Event {
    let event = of(What::ScopeChanged, kind, done.changed.id, &done.name);
    let narrows = if done.narrows {
        "narrower"
    } else {
        "wider or the same"
    };
    with_scope(event.text("scope", narrows), &done.filters)
}

/// The public numbers of what ended.
pub(super) fn numbers(ended: &Ended) -> Vec<u64> {
    ended.iter().map(|(number, _)| *number).collect()
}

fn with_scope(event: Event, scope: &Filters) -> Event {
    let event = event.texts("publish", scope.publish());
    event.texts("subscribe", scope.subscribe())
}
