//! What the audit is told of changes: whose they are, what ended, and what may be done now. Names
//! and public numbers, never a secret.

use uuid::Uuid;

use super::changes::{As, Changed, Ended, Outfit, Rescoped};
use super::{AdminTokenInfo, BasicInfo, Fingerprint, IdentityKind, Rights, Since, Terms};
use crate::audit::{Event, What};
use crate::store::scopes::Filters;
use crate::store::terms::LiveRow;

/// Identities whose tokens ended by themselves that are told one by one in one transaction; of the
/// others it is told how many there are. A million tokens may end at the same moment, and must not
/// take the place of what people did.
const ENDED_TOLD_MAX: usize = 100;

/// Somebody whose tokens ended by themselves.
pub(super) struct Left<'a> {
    pub(super) kind: IdentityKind,
    pub(super) id: Uuid,
    pub(super) name: &'a str,
    /// The token whose use ended them.
    pub(super) used: Option<u64>,
    pub(super) ended: Vec<u64>,
}

/// Something happened to an identity.
pub(super) fn of(what: What, kind: IdentityKind, id: Uuid, name: &str) -> Event {
    let event = Event::new(what).text("kind", kind.as_str()).id("id", id);
    event.text("name", name)
}

/// An identity was added, with this credential.
pub(super) fn created(
    kind: IdentityKind,
    (id, name): (Uuid, &str),
    outfit: &Outfit,
    credential: u64,
) -> Event {
    let event = with_scope(of(What::Created, kind, id, name), &outfit.scope);
    with_terms(event.number("credential", credential), &outfit.terms)
}

/// An identity has a new credential, and all others ended.
pub(super) fn rotated<T>(whose: As<T>, changed: &Changed<T>, new: &LiveRow) -> Event {
    let event = ended(What::Rotated, whose, changed).number("credential", new.id);
    with_terms(event, &terms_of(new))
}

/// An identity has a new credential, the last one in `live`; the others live on for a while.
pub(super) fn overlapped<T>(
    whose: As<T>,
    (id, _): (Uuid, u32),
    shown: &T,
    live: &[LiveRow],
) -> Event {
    let event = of(What::Rotated, whose.kind, id, (whose.name)(shown));
    let Some((new, older)) = live.split_last() else {
        return event; // it was just made
    };
    let until = older.iter().filter_map(|held| held.expires_ms).max();
    let event = event
        .number("credential", new.id)
        .numbers("older", &ids(older))
        .maybe_number("older_until_ms", until)
        .flag("older_until_used", new.retires_older);
    with_terms(event, &terms_of(new))
}

/// The newest credential ended, and these live on.
pub(super) fn rolled_back<T>(
    whose: As<T>,
    (id, _): (Uuid, u32),
    shown: &T,
    (ended, live): (Option<&LiveRow>, &[LiveRow]),
) -> Event {
    let event = of(What::RolledBack, whose.kind, id, (whose.name)(shown));
    let ended: Vec<u64> = ended.into_iter().map(|held| held.id).collect();
    event.numbers("ended", &ended).numbers("live", &ids(live))
}

/// The terms of a credential were changed, and are these.
pub(super) fn terms_changed<T>(
    whose: As<T>,
    (id, _): (Uuid, u32),
    shown: &T,
    held: &LiveRow,
) -> Event {
    let event = of(What::TermsChanged, whose.kind, id, (whose.name)(shown));
    with_terms(event.number("credential", held.id), &terms_of(held))
}

/// Credentials ended by themselves.
pub(super) fn left<'a>(what: What, all: impl Iterator<Item = Left<'a>>) -> Vec<Event> {
    let (mut events, mut more) = (Vec::new(), (0, 0));
    for left in all {
        if events.len() < ENDED_TOLD_MAX {
            let event = of(what, left.kind, left.id, left.name);
            let event = event.maybe_number("used", left.used);
            events.push(event.numbers("ended", &left.ended));
        } else {
            more = (more.0 + 1, more.1 + left.ended.len() as u64);
        }
    }
    if more.0 > 0 {
        let event = Event::new(what).number("more_identities", more.0);
        events.push(event.number("more_ended", more.1));
    }
    events
}

/// An identity has a credential besides its tokens; `replaced`: in the place of that one.
pub(super) fn credential_added(
    kind: IdentityKind,
    (id, name): (Uuid, &str),
    made: &LiveRow,
    (basic, replaced): (BasicInfo, Option<u64>),
) -> Event {
    let ended: Vec<u64> = replaced.into_iter().collect();
    let asks = [
        ("client_id", basic.client_id),
        ("user_name", basic.user_name),
        ("password", basic.password),
    ];
    let asks = asks.iter().filter(|(_, is_asked)| *is_asked);
    let event = of(What::CredentialAdded, kind, id, name)
        .number("credential", made.id)
        .texts("asks", asks.map(|(what, _)| *what))
        .numbers("ended", &ended);
    with_terms(event, &terms_of(made))
}

/// A certificate opens the door from now on.
pub(super) fn certificate_added(
    kind: IdentityKind,
    (id, name): (Uuid, &str),
    made: &LiveRow,
    fingerprint: Fingerprint,
) -> Event {
    let event = of(What::CredentialAdded, kind, id, name)
        .number("credential", made.id)
        .text("certificate", &fingerprint.to_string());
    with_terms(event, &terms_of(made))
}

/// One credential of an identity ended.
pub(super) fn credential_ended<T>(
    whose: As<T>,
    (id, _): (Uuid, u32),
    shown: &T,
    credential: u64,
) -> Event {
    let event = of(What::CredentialEnded, whose.kind, id, (whose.name)(shown));
    event.numbers("ended", &[credential])
}

/// Devices were added, but for rows that are bad.
pub(super) fn imported(created: usize, left_out: u64) -> Event {
    let event = Event::new(What::Imported).number("created", created as u64);
    event.number("left_out", left_out)
}

/// Credentials ended, at least.
pub(super) fn ended<T>(what: What, whose: As<T>, changed: &Changed<T>) -> Event {
    let event = of(what, whose.kind, changed.id, (whose.name)(&changed.shown));
    event.numbers("ended", &numbers(&changed.ended))
}

/// Credentials ended, of an identity of any kind that is known by its name; what they wrote is
/// marked since then.
pub(super) fn revoked(
    kind: IdentityKind,
    changed: &Changed<String>,
    since: Option<Since>,
) -> Event {
    let event = of(What::Revoked, kind, changed.id, &changed.shown);
    event
        .numbers("ended", &numbers(&changed.ended))
        .maybe_number("suspect_from_ms", since.map(|since| since.from_ms))
        .maybe_number("suspect_from_offset", since.map(|since| since.first_offset))
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

/// An admin token was made, or ended.
pub(super) fn admin_token(what: What, number: u64, token: &AdminTokenInfo) -> Event {
    Event::new(what)
        .number("admin_token", number)
        .text("name", &token.name)
        .text("scope", token.scope.as_str())
        .maybe_number("expires_ms", token.expires_ms)
}

/// The public numbers of what ended.
pub(super) fn numbers(ended: &Ended) -> Vec<u64> {
    ended.iter().map(|(number, _)| *number).collect()
}

fn ids(live: &[LiveRow]) -> Vec<u64> {
    live.iter().map(|held| held.id).collect()
}

fn terms_of(held: &LiveRow) -> Terms {
    Terms::from_row(&held.terms, held.expires_ms)
}

fn with_scope(event: Event, scope: &Filters) -> Event {
    let event = event.texts("publish", scope.publish());
    event.texts("subscribe", scope.subscribe())
}

/// Nothing for what is not restricted.
fn with_terms(event: Event, terms: &Terms) -> Event {
    let networks: Vec<String> = terms.networks.iter().map(ToString::to_string).collect();
    let event = event
        .maybe_number("not_before_ms", terms.not_before_ms)
        .maybe_number("expires_ms", terms.expires_ms)
        .texts("networks", networks.iter().map(String::as_str))
        .maybe_number("connections_max", terms.connections_max.map(u64::from))
        .maybe_number("messages_max", terms.messages_max.map(u64::from));
    let event = match terms.certificate {
        Some(bound_to) => event.text("bound_to", &bound_to.to_string()),
        None => event,
    };
    if terms.rights == Rights::ALL {
        return event;
    }
    let rights: Vec<&str> = terms.rights.iter().map(|right| right.as_str()).collect();
    event.text("rights", &rights.join(" "))
}
