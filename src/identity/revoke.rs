//! Ending the credentials of any number of identities at once, and what that would end.
//!
//! # Invariants
//! 1. All of one call are in one transaction: it is on disk for all of them or for none, and who is
//!    not there refuses the whole call before anything is written.
//! 2. What is foreseen is computed from the same rows by the same rules, and changes nothing.
//! 3. Devices and applications lose what is kept of them (SEC-35); users keep it, as their tokens
//!    come and go by design.

use std::collections::HashSet;

use uuid::Uuid;

use super::changes::{self, As, Changed};
use super::deeds;
use super::ends::After;
use super::registry::{Shared, now_ms};
use super::{Change, IdentityKind, Principal, Registry, RegistryError};
use crate::store::devices::{self, DeviceRow};
use crate::store::suspects::{self, SUSPECTS_MAX};
use crate::store::{Connection, Transaction, terms};

pub use crate::store::suspects::SuspectRow;

/// Identities that one call may name: about a second of the database's one writer.
pub const REVOKED_AT_ONCE_MAX: usize = 10_000;

/// Somebody who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub kind: IdentityKind,
    /// Its name or its id.
    pub name_or_id: String,
}

/// From when on what the revoked credentials wrote is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The time that was given; wall clock, ms.
    pub from_ms: u64,
    /// The first record in the journal that came then or later, or one before it.
    pub first_offset: u64,
}

/// Somebody whose credentials ended, or would end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its name; of a user its id as the world writes it.
    pub name: String,
    /// Who it is, and what the broker has to do about it.
    pub change: Change,
}

impl Registry {
    /// Ends all credentials of everybody who is named, in one transaction, and marks what they
    /// wrote `since`. Who is named twice is there once. May be repeated, to have the changes
    /// confirmed again.
    ///
    /// # Errors
    /// More than [`REVOKED_AT_ONCE_MAX`] or nobody is named, one of them does not exist, or the
    /// database failed: then nothing is changed.
    pub fn revoke_all(
        &self,
        whom: Vec<Named>,
        since: Option<Since>,
    ) -> Result<Vec<Revoked>, RegistryError> {
        check_count(&whom)?;
        let work = move |transaction: &Transaction<'_>| {
            let rows = find_all(transaction, &whom)?;
            check_marks(transaction, rows.len(), since)?;
            let mut all = Vec::with_capacity(rows.len());
            let mut marks = Vec::new();
            for row in rows {
                let kind = IdentityKind::from_number(row.kind);
                let at_ms = now_ms();
                let (row, ended) = changes::end_credentials(transaction, row, at_ms)?;
                if let Some(since) = since {
                    let first = (since.first_offset, since.from_ms);
                    suspects::mark(transaction, row.id, first, at_ms)?;
                    marks.extend(suspects::of(transaction, Some(row.id))?);
                }
                if keeps(kind) == After::StateGoes {
                    devices::drop_sessions(transaction, row.id)?;
                }
                let changed = Changed {
                    shown: row.name,
                    id: row.id,
                    generation: row.generation,
                    ended,
                };
                all.push((kind, changed));
            }
            Ok((all, marks))
        };
        let told = move |(all, _): &(Vec<(IdentityKind, Changed<String>)>, _)| {
            let all = all.iter();
            all.map(|(kind, changed)| deeds::revoked(*kind, changed, since))
                .collect()
        };
        self.change_all(told, work, |(all, marks), shared| {
            shared.marks.set(&marks);
            let all = all.into_iter();
            all.map(|(kind, changed)| shared.revoked(kind, changed))
                .collect()
        })
    }

    /// What of a device is marked as written by somebody else, or of all; in the order of devices
    /// and offsets.
    ///
    /// # Errors
    /// The database failed.
    pub fn suspects(&self, device: Option<Uuid>) -> Result<Vec<SuspectRow>, RegistryError> {
        self.ask(|snapshot| Ok(suspects::of(snapshot, device)?))
    }

    /// Whether a record that this credential of a device wrote is marked. Touches memory only.
    #[must_use]
    pub fn is_suspect(&self, device: Uuid, credential: u64, offset: u64) -> bool {
        self.shared().marks.hold(device, credential, offset)
    }

    /// The last record of the journal that had surely come before a time (wall clock, ms); `None`
    /// if nobody knows of any.
    ///
    /// # Errors
    /// The database failed.
    pub fn record_before(&self, ms: u64) -> Result<Option<u64>, RegistryError> {
        self.ask(|snapshot| Ok(suspects::before(snapshot, ms)?))
    }

    /// What [`Registry::revoke_all`] would do now. Changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn foresee_revoke_all(&self, whom: &[Named]) -> Result<Vec<Revoked>, RegistryError> {
        check_count(whom)?;
        self.ask(|snapshot| {
            let rows = find_all(snapshot, whom)?.into_iter();
            rows.map(|row| {
                let after = keeps(IdentityKind::from_number(row.kind));
                let change = foreseen(snapshot, &row, after)?;
                let name = row.name;
                Ok(Revoked { name, change })
            })
            .collect()
        })
    }

    /// What [`Registry::revoke_as`] or [`Registry::delete_as`] would do now: the identity as it is,
    /// and the change. Changes nothing.
    ///
    /// # Errors
    /// There is none with that name or id, or the database failed.
    pub fn foresee_as<T>(
        &self,
        whose: As<T>,
        name_or_id: &str,
    ) -> Result<(T, Change), RegistryError> {
        self.ask(|snapshot| {
            let row = changes::find(snapshot, whose.kind, name_or_id)?;
            let change = foreseen(snapshot, &row, After::StateGoes)?;
            Ok((changes::read(snapshot, whose, row)?.0, change))
        })
    }
}

impl Registry {
    /// Whether this is a user of the identity service; no, if the database cannot be read.
    #[must_use]
    pub fn is_user(&self, identity: Uuid) -> bool {
        let row = self.ask(|snapshot| Ok(devices::by_id(snapshot, identity)?));
        row.is_ok_and(|row| row.is_some_and(|row| row.kind == devices::USER))
    }
}

impl Change {
    /// Whether a connection of this principal ends with the change: its credential did, or all
    /// that its identity had before. What came with a later generation is of a later credential.
    #[must_use]
    pub fn ends(&self, principal: &Principal) -> bool {
        let is_old = self.ends_sessions && principal.generation < self.generation;
        principal.identity == self.identity
            && (is_old || self.credentials_ended.contains(&principal.credential))
    }

    /// Whether a will that came with this credential goes unpublished.
    #[must_use]
    pub fn ends_will_of(&self, credential: u64) -> bool {
        self.drops_state || self.credentials_ended.contains(&credential)
    }
}

impl Shared {
    fn revoked(&self, kind: IdentityKind, changed: Changed<String>) -> Revoked {
        let change = self.end(kind, &changed, keeps(kind));
        if kind == IdentityKind::User {
            self.users.count_revocation(changed.id);
        }
        let name = changed.shown;
        Revoked { name, change }
    }
}

/// What a revocation leaves of one of this kind.
const fn keeps(kind: IdentityKind) -> After {
    match kind {
        IdentityKind::Device | IdentityKind::Application => After::StateGoes,
        IdentityKind::User => After::StateStays,
    }
}

fn check_count(whom: &[Named]) -> Result<(), RegistryError> {
    let found = whom.len();
    if (1..=REVOKED_AT_ONCE_MAX).contains(&found) {
        return Ok(());
    }
    let what = format!("name {found} identities, they must be 1 to {REVOKED_AT_ONCE_MAX}");
    Err(RegistryError::Invalid {
        field: "devices, apps and users",
        what,
    })
}

/// Refuses marks that there is no room for.
fn check_marks(
    connection: &Connection,
    more: usize,
    since: Option<Since>,
) -> Result<(), RegistryError> {
    if since.is_none() {
        return Ok(());
    }
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    if suspects::count(connection)?.saturating_add(more) <= SUSPECTS_MAX {
        return Ok(());
    }
    let what = format!("cannot be marked: there are {SUSPECTS_MAX} marks; revoke without it");
    Err(RegistryError::Invalid {
        field: "since_ms",
        what,
    })
}

/// Everybody who is named, each once, before anything is written.
fn find_all(connection: &Connection, whom: &[Named]) -> Result<Vec<DeviceRow>, RegistryError> {
    let mut seen: HashSet<Uuid> = HashSet::with_capacity(whom.len());
    let mut rows = Vec::with_capacity(whom.len());
    for named in whom {
        let row = changes::find(connection, named.kind, &named.name_or_id)?;
        if seen.insert(row.id) {
            rows.push(row);
        }
    }
    Ok(rows)
}

fn foreseen(
    connection: &Connection,
    row: &DeviceRow,
    after: After,
) -> Result<Change, RegistryError> {
    let ended = terms::live(connection, row)?;
    Ok(Change {
        identity: row.id,
        kind: IdentityKind::from_number(row.kind),
        generation: row.generation.saturating_add(1),
        credentials_ended: ended.iter().map(|held| held.id).collect(),
        ends_sessions: true,
        drops_state: after != After::StateStays,
        expired: false,
    })
}
