//! Many devices in one change: rows are checked and staged in memory, then added in one
//! transaction.
//!
//! # Invariants
//! 1. All rows are added or none, unless the caller wants bad ones to be left out.
//! 2. A token lives for one [`Import::add`]; only its digest is staged.
//! 3. A row costs 96 bytes and its texts while it is staged; at most [`IMPORT_ROWS_MAX`] rows.
//!
//! The transaction adds the rows in the order of their digests, so that the indexes grow at their
//! end. Other changes wait for it.

mod alike;
mod staged;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use self::alike::Alike;
use self::staged::{Row, Staged};
use super::{Registry, now_ms};
use crate::identity::deeds;
use crate::identity::device::{self, DEFAULT_PROFILE};
use crate::identity::terms::{Terms, index_seconds};
use crate::identity::{
    CredentialKind, DeviceName, DeviceToken, IdentityKind, RegistryError, Scope, TermsChange,
};
use crate::store::bulk::{self, ListedDevice};
use crate::store::scopes::Filters;
use crate::store::terms::TermsRow;
use crate::store::{StoreError, Transaction};

/// Rows of one import; more are imported in parts. Bounds memory (about 130 MB) and the time for
/// which other changes wait (some seconds).
pub const IMPORT_ROWS_MAX: usize = 1 << 20;

/// Bad rows that are reported one by one; more are only counted.
pub const IMPORT_FAULTS_MAX: usize = 10_000;

/// A row of an import, as it came.
#[derive(Clone, Copy, Debug)]
pub struct ImportRow<'a> {
    /// Name, unique in the registry.
    pub name: &'a str,
    /// Its token.
    pub token: &'a str,
    /// Its id; a random one without it.
    pub id: Option<&'a str>,
    /// Name of its device profile; "default" without it.
    pub profile: Option<&'a str>,
    /// For people.
    pub label: Option<&'a str>,
    /// Patterns of the topics it may publish to besides its own.
    pub publish: &'a [String],
    /// Patterns of the topics it may receive besides its own.
    pub subscribe: &'a [String],
    /// Terms of its token.
    pub terms: Option<&'a TermsChange>,
}

/// Why a row is not added. Holds no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// The row, counted from 1.
    pub row: u32,
    /// Which of its fields: `name`, `token`, `id`, `profile`, `label`, `publish`,
    /// `subscribe`, one of the terms, or `row` for all of it.
    pub field: &'static str,
    /// What is wrong with it, as the rest of a sentence.
    pub what: String,
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Devices that were added: 0 if bad rows were not to be left out and there were some.
    pub created: u64,
    /// Bad rows, in order, at most [`IMPORT_FAULTS_MAX`].
    pub faults: Vec<RowFault>,
    /// All bad rows.
    pub faults_total: u64,
}

/// Rows on their way into the registry.
pub struct Import {
    registry: Registry,
    rows: Vec<Row>,
    /// Name, profile and label of every row, one behind the other.
    text: String,
    scopes: Alike<Filters>,
    /// Without what each token has of its own: its times and its certificate.
    terms: Alike<TermsRow>,
    faults: Faults,
    seen: u32,
    created_ms: u64,
}

#[derive(Clone, Default)]
struct Faults {
    list: Vec<RowFault>,
    total: u64,
}

impl Registry {
    /// Up to `limit` devices whose names come after `after`, by name, each with the terms of its
    /// token: of the newest live one, or the newest of all if none is live. And whether there are
    /// more.
    ///
    /// # Errors
    /// The database failed.
    pub fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(ListedDevice, Terms)>, bool), RegistryError> {
        let token = CredentialKind::ACCESS_TOKEN;
        let mut devices = self
            .store
            .read(|connection| bulk::list(connection, token, after, limit + 1))?;
        let more = devices.len() > limit;
        devices.truncate(limit);
        let with_terms = devices.into_iter().map(|device| {
            let terms = Terms::from_row(&device.terms, device.expires_ms);
            (device, terms)
        });
        Ok((with_terms.collect(), more))
    }

    /// Begins an import; nothing changes before [`Import::commit`].
    #[must_use]
    pub fn import(&self) -> Import {
        Import {
            registry: self.clone(),
            rows: Vec::new(),
            text: String::new(),
            scopes: Alike::default(),
            terms: Alike::default(),
            faults: Faults::default(),
            seen: 0,
            created_ms: now_ms(),
        }
    }
}

impl Import {
    /// Stages the next row, or notes what is wrong with it.
    ///
    /// # Errors
    /// There are more rows than one import takes.
    pub fn add(&mut self, row: &ImportRow<'_>) -> Result<(), RegistryError> {
        let number = self.next()?;
        match self.check(row, number) {
            Ok(row) => self.rows.push(row),
            Err((field, what)) => self.faults.note(number, field, what),
        }
        Ok(())
    }

    /// Notes a row that could not even be read, or of which one field could not.
    ///
    /// # Errors
    /// As [`Import::add`].
    pub fn unreadable(&mut self, field: &'static str, what: String) -> Result<(), RegistryError> {
        let number = self.next()?;
        self.faults.note(number, field, what);
        Ok(())
    }

    /// Adds all staged rows, durably; with `skip_bad` without those that are bad, otherwise all or
    /// none. Other changes of the registry wait meanwhile.
    ///
    /// # Errors
    /// The registry has no room for that many, or the database failed.
    pub fn commit(mut self, skip_bad: bool) -> Result<Imported, RegistryError> {
        self.refuse_repeated();
        if self.faults.total > 0 && !skip_bad {
            return Ok(self.faults.into_imported(0));
        }
        let kind = IdentityKind::Device;
        let shared = &self.registry.shared;
        let held = shared.devices.load(Ordering::Relaxed);
        let room = shared.devices_max.saturating_sub(held);
        if self.rows.len() as u64 > room {
            let limit = shared.devices_max;
            return Err(RegistryError::Full { kind, limit });
        }
        shared.check_audit()?;
        shared.scopes.check_room(kind, &self.scopes.all)?;
        self.give_ids();
        self.rows.sort_unstable_by_key(|row| row.digest);
        let Import {
            registry,
            rows,
            text,
            scopes,
            terms,
            faults,
            created_ms,
            ..
        } = self;
        let staged = Arc::new(Staged {
            rows,
            text,
            scopes: scopes.all,
            terms: terms.all,
            created_ms,
            skip_bad,
        });
        let added_rows = Arc::clone(&staged);
        // What the last run found: the work may run twice, and a refusal is rolled back.
        let found = Arc::new(Mutex::new(Faults::default()));
        let (finds, shared) = (Arc::clone(&found), Arc::clone(&registry.shared));
        let teller = registry.teller();
        let work = move |transaction: &Transaction<'_>| {
            let (added, bad) = staged.insert(transaction)?;
            let (is_refused, left_out) = (bad.total > 0 && !staged.skip_bad, bad.total);
            *finds.lock().unwrap_or_else(PoisonError::into_inner) = bad;
            if is_refused {
                return Err(StoreError::TakenBack);
            }
            let number =
                teller.stage(transaction, || vec![deeds::imported(added.len(), left_out)])?;
            Ok((added, number))
        };
        let created = registry.store.write_then(work, move |(added, number)| {
            shared.told(number);
            shared.add_many(&added, &added_rows)
        });
        let bad = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        let faults = faults.and(bad);
        match created {
            Ok(created) => Ok(faults.into_imported(created)),
            Err(StoreError::TakenBack) => Ok(faults.into_imported(0)),
            Err(error) => Err(error.into()),
        }
    }

    fn next(&mut self) -> Result<u32, RegistryError> {
        if self.seen as usize >= IMPORT_ROWS_MAX {
            let what = format!(
                "are more than {IMPORT_ROWS_MAX}, the limit of one import; import the file in parts"
            );
            let field = "rows";
            return Err(RegistryError::Invalid { field, what });
        }
        self.seen += 1;
        Ok(self.seen)
    }

    fn check(&mut self, row: &ImportRow<'_>, number: u32) -> Result<Row, (&'static str, String)> {
        let refused = |error: RegistryError| match error {
            RegistryError::Invalid { field, what } => (field, what),
            other => ("row", other.to_string()),
        };
        let name = DeviceName::new(row.name).map_err(refused)?;
        let profile = row.profile.unwrap_or(DEFAULT_PROFILE);
        device::check_profile(profile).map_err(refused)?;
        let label = row.label.unwrap_or_default();
        device::check_label(label).map_err(refused)?;
        let id = match row.id {
            None => Uuid::nil(),
            Some(text) => Uuid::try_parse(text)
                .ok()
                .filter(|id| !id.is_nil())
                .ok_or_else(|| ("id", "is no id: 8-4-4-4-12 hexadecimal digits".to_owned()))?,
        };
        let kind = IdentityKind::Device;
        let scope = Scope::new(kind, row.publish, row.subscribe).map_err(refused)?;
        scope.check_name(row.name).map_err(refused)?;
        let scope = self.place_of_scope(scope.0)?;
        let terms = match row.terms {
            None => Terms::default(),
            Some(wanted) => wanted
                .of(Terms::default(), kind, self.created_ms)
                .map_err(refused)?,
        };
        let token_terms = self.place_of_terms(&terms)?;
        let token = DeviceToken::imported(row.token).map_err(|error| refused(error.into()))?;
        let text_at = self.text.len();
        let lengths = (
            u8::try_from(name.as_str().len()),
            u8::try_from(profile.len()),
            u16::try_from(label.len()),
        );
        let (Ok(name_len), Ok(profile_len), Ok(label_len)) = lengths else {
            return Err(("row", "is too long".to_owned())); // the checks above say so before
        };
        for part in [name.as_str(), profile, label] {
            self.text.push_str(part);
        }
        Ok(Row {
            digest: self.registry.shared.key.token_digest(token.expose()),
            id,
            text_at,
            number,
            scope,
            terms: token_terms,
            expires_s: index_seconds(terms.expires_ms),
            not_before_ms: terms.not_before_ms.unwrap_or(0),
            certificate: terms.certificate.map(|known| Box::new(known.0)),
            name_len,
            profile_len,
            label_len,
            chosen: token.is_chosen(),
            has_id: row.id.is_some(),
        })
    }

    fn place_of_scope(
        &mut self,
        scope: Filters,
    ) -> Result<Option<NonZeroU32>, (&'static str, String)> {
        if scope.is_empty() {
            return Ok(None);
        }
        let bytes = scope.bytes();
        self.scopes.place(scope, bytes).map_err(|limit| {
            let what = format!(
                "is one scope too many: the different scopes of one import have at most {limit} \
                 bytes; use %d, or import the file in parts"
            );
            ("subscribe", what)
        })
    }

    fn place_of_terms(
        &mut self,
        terms: &Terms,
    ) -> Result<Option<NonZeroU32>, (&'static str, String)> {
        let row = TermsRow {
            not_before_ms: None,
            certificate: None,
            ..terms.row()
        };
        if row.is_none() {
            return Ok(None);
        }
        let bytes = row.networks.len();
        self.terms.place(row, bytes).map_err(|limit| {
            let what = format!(
                "are too many that differ: those of one import have at most {limit} bytes; import \
                 the file in parts"
            );
            ("networks", what)
        })
    }

    /// Takes rows out whose name, id or token an earlier row has.
    fn refuse_repeated(&mut self) {
        let Import {
            rows, text, faults, ..
        } = self;
        let mut order: Vec<u32> = (0..u32::try_from(rows.len()).unwrap_or(0)).collect();
        let mut repeated = repeated_in(rows, &mut order, "name", |row| row.name(text).as_bytes());
        repeated.extend(repeated_in(rows, &mut order, "token", |row| &row.digest));
        order.retain(|at| rows.get(*at as usize).is_some_and(|row| row.has_id));
        repeated.extend(repeated_in(rows, &mut order, "id", |row| row.id.as_bytes()));
        repeated.sort_unstable();
        repeated.dedup_by_key(|found| found.0);
        for (number, field, first) in &repeated {
            faults.note(*number, field, format!("is that of row {first} already"));
        }
        let is_repeated = |row: &Row| {
            let found = repeated.binary_search_by_key(&row.number, |found| found.0);
            found.is_ok()
        };
        rows.retain(|row| !is_repeated(row));
    }

    /// Random ids for the rows without one, ascending in the order of the digests.
    fn give_ids(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.digest);
        let wanted = self.rows.iter().filter(|row| !row.has_id).count();
        let mut ids: Vec<Uuid> = (0..wanted).map(|_| Uuid::new_v4()).collect();
        ids.sort_unstable();
        let without = self.rows.iter_mut().filter(|row| !row.has_id);
        for (row, id) in without.zip(ids) {
            row.id = id;
        }
    }
}

/// A row that repeats an earlier one: its number, the field, the earlier one's number.
type Repeated = (u32, &'static str, u32);

/// The rows, of those that `order` names, whose key an earlier one has. Sorts `order`.
fn repeated_in<'t>(
    rows: &'t [Row],
    order: &mut [u32],
    field: &'static str,
    key: impl Fn(&'t Row) -> &'t [u8],
) -> Vec<Repeated> {
    let row = |at: &u32| rows.get(*at as usize);
    order.sort_unstable_by_key(|at| row(at).map(|row| (key(row), row.number)));
    let pairs = order.windows(2).filter_map(|pair| {
        let (first, second) = (row(pair.first()?)?, row(pair.get(1)?)?);
        (key(first) == key(second)).then_some((second.number, field, first.number))
    });
    pairs.collect()
}

impl Faults {
    fn note(&mut self, row: u32, field: &'static str, what: String) {
        self.total += 1;
        if self.list.len() < IMPORT_FAULTS_MAX {
            self.list.push(RowFault { row, field, what });
        }
    }

    fn and(mut self, more: Faults) -> Faults {
        self.total += more.total;
        self.list.extend(more.list);
        self.list.truncate(IMPORT_FAULTS_MAX);
        self
    }

    fn into_imported(mut self, created: u64) -> Imported {
        self.list.sort_by_key(|fault| fault.row);
        Imported {
            created,
            faults: self.list,
            faults_total: self.total,
        }
    }
}
