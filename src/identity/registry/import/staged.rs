//! Checked rows, and the transaction that adds them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::super::Shared;
use super::{Faults, alike};
use crate::identity::key::Digest;
use crate::identity::terms::from_index_seconds;
use crate::identity::{CredentialKind, IdentityKind};
use crate::store::bulk::{Inserter, NewDevice, Taken};
use crate::store::devices::NewCredential;
use crate::store::scopes::Filters;
use crate::store::terms::{LiveRow, TermsRow};
use crate::store::{StoreError, Transaction};

/// A row that was checked.
pub(super) struct Row {
    pub(super) digest: Digest,
    /// Nil until it is given one.
    pub(super) id: Uuid,
    pub(super) text_at: usize,
    pub(super) number: u32,
    /// Its place among the scopes of the import.
    pub(super) scope: Option<NonZeroU32>,
    /// Its place among the terms of the import.
    pub(super) terms: Option<NonZeroU32>,
    /// Whole seconds; 0 is never.
    pub(super) expires_s: u32,
    /// Wall clock, ms; 0 is always.
    pub(super) not_before_ms: u64,
    /// The certificate that its token is bound to: each device has another.
    pub(super) certificate: Option<Box<[u8; 32]>>,
    pub(super) name_len: u8,
    pub(super) profile_len: u8,
    pub(super) label_len: u16,
    pub(super) chosen: bool,
    pub(super) has_id: bool,
}

/// What the transaction adds.
pub(super) struct Staged {
    pub(super) rows: Vec<Row>,
    pub(super) text: String,
    pub(super) scopes: Vec<Filters>,
    pub(super) terms: Vec<TermsRow>,
    pub(super) created_ms: u64,
    pub(super) skip_bad: bool,
}

impl Staged {
    pub(super) fn insert(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(Vec<Added>, Faults), StoreError> {
        let mut added = Vec::with_capacity(self.rows.len());
        let mut faults = Faults::default();
        let mut inserter = Inserter::new(transaction)?;
        for (place, row) in self.rows.iter().enumerate() {
            if row.has_id && inserter.is_buried(row.id)? {
                faults.note(row.number, "id", words(Taken::Id));
                continue;
            }
            match inserter.add(&self.new_device(row))? {
                Ok(credential) => added.push(Added { place, credential }),
                Err(taken) => {
                    let field = match taken {
                        Taken::Itself | Taken::Name => "name",
                        Taken::Id => "id",
                        Taken::Token => "token",
                    };
                    faults.note(row.number, field, words(taken));
                }
            }
        }
        Ok((added, faults))
    }

    fn new_device(&self, row: &Row) -> NewDevice<'_> {
        let [name, profile, label] = row.texts(&self.text);
        NewDevice {
            id: row.id,
            name,
            profile,
            label,
            scope: alike::at(&self.scopes, row.scope),
            terms: self.terms_of(row),
            credential: NewCredential {
                kind: CredentialKind::ACCESS_TOKEN,
                digest: row.digest,
                chosen: row.chosen,
                created_ms: self.created_ms,
                expires_ms: from_index_seconds(row.expires_s),
            },
        }
    }

    fn terms_of(&self, row: &Row) -> TermsRow {
        let common = alike::at(&self.terms, row.terms);
        TermsRow {
            not_before_ms: (row.not_before_ms > 0).then_some(row.not_before_ms),
            certificate: row.certificate.clone(),
            ..common.cloned().unwrap_or_default()
        }
    }
}

/// A row that was added: where it stands, and its credential's id.
pub(super) struct Added {
    place: usize,
    credential: u64,
}

fn words(taken: Taken) -> String {
    match taken {
        Taken::Itself => {
            "is that of this device, which is here already; leave its row out: it stays as it is"
        }
        Taken::Name => "is that of another device; choose another, or delete that device",
        Taken::Id => "is or was that of another device; leave it empty to get a new one",
        Taken::Token => "is or was that of another device; choose another",
    }
    .to_owned()
}

impl Shared {
    pub(super) fn add_many(&self, added: &[Added], staged: &Staged) -> u64 {
        let kind = IdentityKind::Device;
        let scopes = staged.scopes.iter();
        let scopes: Vec<_> = scopes.map(|all| self.scopes.common(kind, all)).collect();
        for Added { place, credential } in added {
            let Some(row) = staged.rows.get(*place) else {
                continue; // the places are those of the rows
            };
            if let Some(scope) = alike::at(&scopes, row.scope) {
                self.scopes
                    .hold(row.id, row.name(&staged.text), Arc::clone(scope));
            }
            let held = LiveRow {
                id: *credential,
                kind: CredentialKind::ACCESS_TOKEN,
                digest: row.digest,
                expires_ms: from_index_seconds(row.expires_s),
                terms: staged.terms_of(row),
                superseded_by: None,
                retires_older: false,
            };
            self.ends_too_at(held.expires_ms);
            self.learn(kind, (row.id, 1), &held);
        }
        let count = added.len() as u64;
        self.devices.fetch_add(count, Ordering::Relaxed);
        count
    }
}

impl Row {
    pub(super) fn name<'t>(&self, text: &'t str) -> &'t str {
        let [name, ..] = self.texts(text);
        name
    }

    fn texts<'t>(&self, text: &'t str) -> [&'t str; 3] {
        let rest = text.get(self.text_at..).unwrap_or_default();
        let (name, rest) = rest
            .split_at_checked(usize::from(self.name_len))
            .unwrap_or_default();
        let (profile, rest) = rest
            .split_at_checked(usize::from(self.profile_len))
            .unwrap_or_default();
        let label = rest.get(..usize::from(self.label_len)).unwrap_or_default();
        [name, profile, label]
    }
}
