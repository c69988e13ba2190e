//! Rotation with overlap (SEC-53): old and new tokens live side by side for a grace time. A new
//! token takes the place of all that opened the door before, MQTT Basic credentials too.
//!
//! # Invariants
//! 1. The old token ends at the end of the grace time, or before, at its own end or when the new
//!    one is first used, as was chosen. What ends it is on disk before the reply, so that a restart
//!    or a broker that was off changes nothing.
//! 2. The state of sessions stays, whichever token the client comes with; connections end with the
//!    token that they showed.
//! 3. The way back is open as long as the old token lives: it gets its own end again, and the new
//!    one ends.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use uuid::Uuid;

use super::changes::{self, As, ENDED_CREDENTIALS_KEPT};
use super::deeds;
use super::registry::{Shared, now_ms};
use super::terms::whole_seconds;
use super::{Change, DeviceToken, IdentityKind, Registry, RegistryError, TermsChange};
use crate::audit::What;
use crate::store::devices;
use crate::store::terms::{self as rows, LiveRow};
use crate::store::{StoreError, Transaction};

/// How long the old token lives on unless it is said, in seconds: a day.
pub const GRACE_DEFAULT_S: u64 = 86_400;

/// Longest grace time, in seconds: 90 days.
pub const GRACE_MAX_S: u64 = 7_776_000;

/// Live credentials of one device or application; a rotation with a grace time, or one more
/// credential, that would make more is refused.
pub const LIVE_TOKENS_MAX: usize = 8;

/// Tokens whose first use is to end others and waits for the clock of tokens; one beyond is noted
/// when it is used again.
const FIRST_USES_MAX: usize = 65_536;

/// What a rotation is to be.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The new token; a fresh one without it.
    pub token: Option<DeviceToken>,
    /// What is to be different from the terms of the token before.
    pub terms: TermsChange,
    /// How long the old one lives on, in seconds, at most [`GRACE_MAX_S`]; with 0 it ends at once.
    pub grace_s: u64,
    /// The old one ends when the new one is first used, if that is earlier.
    pub retire_on_use: bool,
}

/// Live tokens after a change, for the memory.
struct Relearnt<T> {
    shown: T,
    owner: (Uuid, u32),
    live: Vec<LiveRow>,
    ended: Option<LiveRow>,
    next_ms: Option<u64>,
}

impl Registry {
    /// Gives a device or an application a new token; the old one lives on for the grace time.
    /// Durable on return; the workers have to be told.
    ///
    /// # Errors
    /// There is no such identity, the token is taken, the terms or the grace time cannot be, there
    /// are too many live tokens, or the database failed.
    pub fn rotate_with<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
        rotation: Rotation,
    ) -> Result<(T, DeviceToken, Change), RegistryError> {
        let Rotation {
            token,
            terms,
            grace_s,
            retire_on_use,
        } = rotation;
        if grace_s > GRACE_MAX_S {
            let what = format!("is {grace_s}, the longest is {GRACE_MAX_S} (90 days)");
            let field = "grace_s";
            return Err(RegistryError::Invalid { field, what });
        }
        if grace_s == 0 {
            return self.rotate_as(whose, name_or_id, token, terms);
        }
        let token = token.unwrap_or_else(whose.fresh_token);
        let new = self.new_credential(&token);
        let name_or_id = name_or_id.to_owned();
        let held = Arc::clone(self.shared());
        let work = move |transaction: &Transaction<'_>| {
            let row = changes::find(transaction, whose.kind, &name_or_id)?;
            let before = rows::live(transaction, &row)?;
            check_room(whose.kind, &row.name, before.len())?;
            held.check_audit()?;
            let made = changes::succeed(transaction, whose.kind, &row, &new, &terms)?;
            if retire_on_use && !before.is_empty() {
                rows::set_retires_older(transaction, made.id, true)?;
            }
            let end = whole_seconds(new.created_ms.saturating_add(grace_s.saturating_mul(1_000)));
            for old in before.iter().filter(|old| old.superseded_by.is_none()) {
                let end = old.expires_ms.map_or(end, |own| own.min(end));
                rows::supersede(transaction, old.id, made.id, end)?;
            }
            devices::forget_ended(transaction, &row, ENDED_CREDENTIALS_KEPT)?;
            relearnt(transaction, whose, row, None)
        };
        let told =
            move |done: &Relearnt<T>| deeds::overlapped(whose, done.owner, &done.shown, &done.live);
        let then = move |done, shared: &Shared| shared.relearn(whose, done);
        let (shown, change) = self.change(told, work, then)?;
        Ok((shown, token, change))
    }

    /// Takes a rotation back: the newest token ends, and those it took the place of live on as
    /// before. Sessions stay. Durable on return; the workers have to be told.
    ///
    /// # Errors
    /// There is no such identity, no older token is live, or the database failed.
    pub fn roll_back<T: Send + 'static>(
        &self,
        whose: As<T>,
        name_or_id: &str,
    ) -> Result<(T, Change), RegistryError> {
        let name_or_id = name_or_id.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let row = changes::find(transaction, whose.kind, &name_or_id)?;
            let mut live = rows::live(transaction, &row)?;
            // Credentials that were added since are not in the way.
            let newest = live.iter().filter_map(|old| old.superseded_by).max();
            let place = live.iter().position(|held| Some(held.id) == newest);
            let Some(newest) = place.map(|place| live.swap_remove(place)) else {
                return Err(nothing_to_roll_back(whose.kind, &row.name));
            };
            rows::end(transaction, newest.id, now_ms())?;
            rows::reinstate(transaction, newest.id)?;
            relearnt(transaction, whose, row, Some(newest))
        };
        let told = move |done: &Relearnt<T>| {
            let tokens = (done.ended.as_ref(), &*done.live);
            deeds::rolled_back(whose, done.owner, &done.shown, tokens)
        };
        self.change(told, work, move |done, shared| shared.relearn(whose, done))
    }

    /// Ends the tokens whose place one took that was used since the last call, and answers what is
    /// to be done about each identity.
    ///
    /// # Errors
    /// The database failed; it is tried again with the next call.
    pub fn end_replaced(&self) -> Result<Vec<Change>, RegistryError> {
        let used = std::mem::take(&mut *self.shared().first_uses());
        if used.is_empty() {
            return Ok(Vec::new());
        }
        let asked = used.clone();
        let work = move |transaction: &Transaction<'_>| {
            let mut done = Vec::new();
            for credential in &used {
                done.extend(end_older(transaction, *credential)?);
            }
            Ok((done, rows::next_end(transaction)?))
        };
        let told = |(done, _): &(Vec<Replaced>, _)| {
            let left = done.iter().map(|done| deeds::Left {
                kind: done.kind,
                id: done.owner.0,
                name: &done.name,
                used: Some(done.new.id),
                ended: done.old.iter().map(|held| held.id).collect(),
            });
            deeds::left(What::Replaced, left)
        };
        let changed = self.change_all(told, work, |(done, next_ms), shared| {
            shared.ends_next_at(next_ms);
            let changes = done.iter().map(|done| shared.replace(done));
            changes.collect()
        });
        if changed.is_err() {
            self.shared().first_uses().extend(asked);
        }
        changed
    }
}

/// A token that was used, and those that ended with that.
struct Replaced {
    kind: IdentityKind,
    owner: (Uuid, u32),
    name: String,
    new: LiveRow,
    old: Vec<LiveRow>,
}

fn end_older(
    transaction: &Transaction<'_>,
    credential: u64,
) -> Result<Option<Replaced>, StoreError> {
    let Some(row) = rows::owner_of_live(transaction, credential)? else {
        return Ok(None);
    };
    let mut old = rows::live(transaction, &row)?;
    old.retain(|held| held.id <= credential);
    let Some(mut new) = old.pop().filter(|new| new.retires_older) else {
        return Ok(None);
    };
    let now = now_ms();
    for held in &old {
        rows::end(transaction, held.id, now)?;
    }
    rows::set_retires_older(transaction, credential, false)?;
    new.retires_older = false;
    Ok(Some(Replaced {
        kind: IdentityKind::from_number(row.kind),
        owner: (row.id, row.generation),
        name: row.name,
        new,
        old,
    }))
}

fn relearnt<T>(
    transaction: &Transaction<'_>,
    whose: As<T>,
    row: devices::DeviceRow,
    ended: Option<LiveRow>,
) -> Result<Relearnt<T>, RegistryError> {
    Ok(Relearnt {
        owner: (row.id, row.generation),
        live: rows::live(transaction, &row)?,
        ended,
        next_ms: rows::next_end(transaction)?,
        shown: changes::read(transaction, whose, row)?.0,
    })
}

fn check_room(kind: IdentityKind, name: &str, live: usize) -> Result<(), RegistryError> {
    if live < LIVE_TOKENS_MAX {
        return Ok(());
    }
    let what = format!(
        "leaves too many live tokens: {kind} {name:?} has {live}, which is the limit; rotate with \
         grace_s 0, which ends them, or wait until the older ones end"
    );
    let field = "grace_s";
    Err(RegistryError::Invalid { field, what })
}

fn nothing_to_roll_back(kind: IdentityKind, name: &str) -> RegistryError {
    let what = format!("has nothing to go back to: no older token of {kind} {name:?} is live");
    let field = match kind {
        IdentityKind::Application => "app",
        _ => "device",
    };
    RegistryError::Invalid { field, what }
}

impl Shared {
    pub(super) fn note_first_use(&self, credential: u64) {
        let mut waiting = self.first_uses();
        if waiting.len() < FIRST_USES_MAX {
            waiting.insert(credential);
        }
    }

    fn first_uses(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.first_uses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn relearn<T>(&self, whose: As<T>, done: Relearnt<T>) -> (T, Change) {
        self.ends_next_at(done.next_ms);
        let mut change = Change::of_terms(whose.kind, done.owner);
        if let Some(ended) = &done.ended {
            self.index.end([&ended.digest]);
            self.forget_tokens([ended.id]);
            change.credentials_ended.push(ended.id);
        }
        for held in &done.live {
            self.learn(whose.kind, done.owner, held);
        }
        (done.shown, change)
    }

    fn replace(&self, done: &Replaced) -> Change {
        let mut change = Change::of_terms(done.kind, done.owner);
        change.expired = true;
        change.credentials_ended = done.old.iter().map(|held| held.id).collect();
        self.index.end(done.old.iter().map(|held| &held.digest));
        self.forget_tokens(change.credentials_ended.iter().copied());
        self.learn(done.kind, done.owner, &done.new);
        change
    }
}
