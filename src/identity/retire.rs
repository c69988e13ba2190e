//! How the terms of tokens change, and how tokens end by themselves.
//!
//! # Invariants
//! 1. A token whose time is over opens no door from that moment: the index knows the moment.
//! 2. Its end is written down within a second ([`Registry::end_due`], called by the broker's
//!    clock), or before the first client of the next run. What was written down stays, whatever
//!    the wall clock says later (REL-08).
//! 3. The end of one of several tokens leaves the others, and the sessions, as they are; with the
//!    last one goes what is kept of the identity, as when it is revoked.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::changes::{self, As};
use super::credentials::BOUND_TO_ITSELF;
use super::deeds;
use super::index::{TokenEntry, TokenIndex};
use super::key::Digest;
use super::registry::{Shared, now_ms};
use super::terms::{self, Terms, TermsTable};
use super::{Change, CredentialKind, IdentityKind, Registry, RegistryError, TermsChange};
use crate::audit::What;
use crate::store::terms::{self as rows, LiveRow};
use crate::store::{StoreError, Transaction};
use crate::store::{certificate, devices};

/// Tokens of one transaction that end by themselves at the start.
const ENDED_AT_ONCE: u32 = 10_000;

/// Tokens of one identity that ended by themselves.
struct Ended {
    identity: Uuid,
    generation: u32,
    kind: IdentityKind,
    name: String,
    tokens: Vec<(u64, Digest)>,
    /// It has another.
    is_live: bool,
}

impl Registry {
    /// When the next token ends by itself; wall clock, ms; `u64::MAX` if none does.
    #[must_use]
    pub fn next_end_ms(&self) -> u64 {
        self.shared().next_end_ms.load(Ordering::Acquire)
    }

    /// Ends up to `most` tokens whose time is over: writes it down, forgets them, and answers what
    /// is to be done about each identity. Those of users are not among them: they are cleared away
    /// as others are issued.
    ///
    /// # Errors
    /// The database failed. Nobody gets in with them all the same.
    pub fn end_due(&self, most: u32) -> Result<Vec<Change>, RegistryError> {
        let work = move |transaction: &Transaction<'_>| {
            let ended = end_due(transaction, now_ms(), most)?;
            Ok((ended, rows::next_end(transaction)?))
        };
        let told = |(ended, _): &(Vec<Ended>, _)| {
            let left = ended.iter().map(|ended| deeds::Left {
                kind: ended.kind,
                id: ended.identity,
                name: &ended.name,
                used: None,
                ended: ended.tokens.iter().map(|(id, _)| *id).collect(),
            });
            deeds::left(What::Expired, left)
        };
        self.change_all(told, work, |(ended, next_ms), shared| {
            shared.ends_next_at(next_ms);
            let changes = ended.iter().map(|ended| shared.forget(ended));
            changes.collect()
        })
    }

    /// Ends all tokens whose time was over before this run.
    pub(super) fn end_all_due(&self) -> Result<(), RegistryError> {
        while self.next_end_ms() <= now_ms() {
            self.end_due(ENDED_AT_ONCE)?;
        }
        Ok(())
    }

    /// Changes the terms of a token of a device or an application: the one with that number, or
    /// without it all live ones, of which none lives on for longer than its grace time. Durable on
    /// return; the workers have to be told.
    ///
    /// # Errors
    /// There is no such identity or no such live token, the terms cannot be, or the database
    /// failed.
    pub fn set_terms<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        credential: Option<u64>,
        wanted: TermsChange,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let row = changes::find(transaction, whose.kind, &name_or_id)?;
            let mut live = rows::live(transaction, &row)?;
            live.retain(|held| match credential {
                Some(id) => held.id == id,
                None => true,
            });
            if live.is_empty() {
                return Err(no_such_token(whose.kind, &row.name, credential));
            }
            let now = now_ms();
            // All of them are refused before one is written.
            for held in &mut live {
                let before = Terms::from_row(&held.terms, held.expires_ms);
                let mut after = wanted.of(before, whose.kind, now)?;
                // What lives on for a grace time does not live longer by it.
                let grace = held.superseded_by.and(held.expires_ms);
                if let (None, Some(ends_ms)) = (credential, grace) {
                    after = after.until(ends_ms);
                }
                if let Some(row) = certificate::of(transaction, held.id)? {
                    after = after.until(row.ends_ms);
                    // A change of all that a device has is none of this in its certificates.
                    if credential.is_some() && after.certificate.is_some() {
                        return Err(bound_to_itself());
                    }
                    after.certificate = None;
                }
                (held.terms, held.expires_ms) = (after.row(), after.expires_ms);
            }
            for held in &live {
                rows::set(transaction, held.id, &held.terms)?;
                rows::set_expiry(transaction, held.id, held.expires_ms)?;
            }
            let next_ms = rows::next_end(transaction)?;
            let (id, generation) = (row.id, row.generation);
            let shown = changes::read(transaction, whose, row)?.0;
            Ok((shown, (id, generation), live, next_ms))
        };
        let told = move |(shown, owner, live, _): &(T, (Uuid, u32), Vec<LiveRow>, _)| {
            let live = live.iter();
            live.map(|held| deeds::terms_changed(whose, *owner, shown, held))
                .collect()
        };
        self.change_all(told, work, move |(shown, owner, live, next_ms), shared| {
            shared.ends_next_at(next_ms);
            for held in &live {
                shared.learn(whose.kind, owner, held);
            }
            (shown, Change::of_terms(whose.kind, owner))
        })
    }
}

impl Change {
    /// Connections are to look at their rights again, and some may have to end.
    pub(super) fn of_terms(kind: IdentityKind, (identity, generation): (Uuid, u32)) -> Change {
        Change {
            identity,
            kind,
            generation,
            credentials_ended: Vec::new(),
            ends_sessions: false,
            drops_state: false,
            expired: false,
        }
    }
}

fn end_due(
    transaction: &Transaction<'_>,
    now_ms: u64,
    most: u32,
) -> Result<Vec<Ended>, StoreError> {
    let due = rows::end_due(transaction, now_ms, most)?;
    let mut ended = Vec::new();
    for tokens in due.chunk_by(|a, b| a.owner == b.owner) {
        let owner = tokens.first().map(|token| token.owner).unwrap_or_default();
        let Some((mut row, is_live)) = rows::owner(transaction, owner)? else {
            continue; // the database sees to it that there is one
        };
        if !is_live {
            row.generation = row.generation.saturating_add(1);
            devices::set_generation(transaction, &row, row.generation)?;
            devices::drop_sessions(transaction, row.id)?;
        }
        ended.push(Ended {
            identity: row.id,
            generation: row.generation,
            kind: IdentityKind::from_number(row.kind),
            name: row.name,
            tokens: tokens
                .iter()
                .map(|token| (token.id, token.digest))
                .collect(),
            is_live,
        });
    }
    Ok(ended)
}

fn bound_to_itself() -> RegistryError {
    let (field, what) = ("certificate", BOUND_TO_ITSELF.to_owned());
    RegistryError::Invalid { field, what }
}

fn no_such_token(kind: IdentityKind, name: &str, credential: Option<u64>) -> RegistryError {
    let what = match credential {
        Some(id) => format!("{id} is no live token of {kind} {name:?}"),
        None => format!(
            "is missing: {kind} {name:?} has no live one, so there is nothing to \
                         limit; rotate it for a new token"
        ),
    };
    let field = "credential";
    RegistryError::Invalid { field, what }
}

/// As [`Shared::learn`], for a token of which nothing is known yet: while the registry is loaded.
pub(super) fn learn(
    index: &TokenIndex,
    table: &TermsTable,
    kind: IdentityKind,
    (identity, generation): (Uuid, u32),
    held: &LiveRow,
) {
    let has_terms = !held.terms.is_none();
    if has_terms {
        table.hold(held.id, &held.terms);
    }
    // Users' tokens say their end themselves.
    let expires_ms = held.expires_ms.filter(|_| kind != IdentityKind::User);
    let entry = TokenEntry {
        identity,
        credential: held.id,
        generation,
        kind: kind.number(),
        expires_s: terms::index_seconds(expires_ms),
        has_terms,
        is_basic: held.kind == CredentialKind::MQTT_BASIC,
        is_watched: held.retires_older || held.superseded_by.is_some(),
    };
    index.insert(&held.digest, entry);
}

impl Shared {
    /// Notes when the next token ends by itself, as the last transaction found it.
    pub(super) fn ends_next_at(&self, at_ms: Option<u64>) {
        let at_ms = at_ms.unwrap_or(u64::MAX);
        self.next_end_ms.store(at_ms, Ordering::Release);
    }

    /// A token that was made ends by itself.
    pub(super) fn ends_too_at(&self, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.next_end_ms.fetch_min(at_ms, Ordering::AcqRel);
        }
    }

    /// Makes a live token known, or what holds for it now. `owner` is an identity and its
    /// generation.
    pub(super) fn learn(&self, kind: IdentityKind, owner: (Uuid, u32), held: &LiveRow) {
        learn(&self.index, &self.terms, kind, owner, held);
        if held.terms.is_none() {
            self.terms.forget([held.id]);
        }
        if held.superseded_by.is_none() {
            self.uses.remove(&held.id);
        }
    }

    /// Lets go of what is kept of tokens that ended.
    pub(super) fn forget_tokens(&self, credentials: impl IntoIterator<Item = u64>) {
        for credential in credentials {
            self.terms.forget([credential]);
            self.basics.forget([credential]);
            self.uses.remove(&credential);
        }
    }

    fn forget(&self, ended: &Ended) -> Change {
        let credentials_ended: Vec<u64> = ended.tokens.iter().map(|(id, _)| *id).collect();
        self.index
            .end(ended.tokens.iter().map(|(_, digest)| digest));
        self.forget_tokens(credentials_ended.iter().copied());
        Change {
            identity: ended.identity,
            kind: ended.kind,
            generation: ended.generation,
            credentials_ended,
            ends_sessions: !ended.is_live,
            drops_state: !ended.is_live,
            expired: true,
        }
    }
}
