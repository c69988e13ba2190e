//! Many devices at once, and the plain list of all of them.

use rusqlite::{CachedStatement, Connection, params};
use uuid::Uuid;

use super::devices::{self, NewCredential};
use super::scopes::{self, Filters};
use super::terms::{self, TermsRow};
use super::{StoreError, Unsigned};

/// Page cache of the writer while it adds many rows, in KiB as SQLite wants it: the index of names
/// meets them in no order, and 64 MiB hold all of it for a million devices.
const CACHE_KIB: i64 = 64 * 1024;

/// A device to be added with one live credential.
#[derive(Clone, Debug)]
pub struct NewDevice<'a> {
    /// The id that the world uses.
    pub id: Uuid,
    /// Unique.
    pub name: &'a str,
    /// Name of its device profile.
    pub profile: &'a str,
    /// For people; may be empty.
    pub label: &'a str,
    /// What it may do besides using its own topics.
    pub scope: Option<&'a Filters>,
    /// What holds for its credential beside an end.
    pub terms: TermsRow,
    /// Its credential; its time is the device's too.
    pub credential: NewCredential,
}

/// What of a new device is another's already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The name, and that one has the same id: it is that device.
    Itself,
    /// The name.
    Name,
    /// The id, now or before it was deleted.
    Id,
    /// The token, live or ended.
    Token,
}

/// One row of the list of all devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDevice {
    /// Unique.
    pub name: String,
    /// The id that the world uses.
    pub id: Uuid,
    /// Name of its device profile.
    pub profile: String,
    /// For people; may be empty.
    pub label: String,
    /// What it may do besides using its own topics.
    pub scope: Filters,
    /// When its credential ends by itself; wall clock, ms.
    pub expires_ms: Option<u64>,
    /// What else holds for its credential.
    pub terms: TermsRow,
}

/// Adds devices in one transaction. Add them in the order of their digests, and ids in ascending
/// order: then all indexes but that of the names grow at their end.
pub struct Inserter<'c> {
    connection: &'c Connection,
    cache_before: i64,
    device: CachedStatement<'c>,
    credential: CachedStatement<'c>,
}

impl<'c> Inserter<'c> {
    /// Prepares the statements.
    ///
    /// # Errors
    /// That the database could not be used; so for every function here.
    pub fn new(connection: &'c Connection) -> Result<Inserter<'c>, StoreError> {
        let cache_before = connection.pragma_query_value(None, "cache_size", |row| row.get(0))?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let device = "INSERT INTO device (id, name, created_ms, generation, profile, label)
                      VALUES (?1, ?2, ?3, 1, ?4, ?5) ON CONFLICT DO NOTHING";
        let credential =
            "INSERT INTO credential (device, kind, digest, chosen, created_ms, expires_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
        Ok(Inserter {
            connection,
            cache_before,
            device: connection.prepare_cached(device)?,
            credential: connection.prepare_cached(credential)?,
        })
    }

    /// Adds one; answers its credential's id, or what of it is taken. Then nothing of it was added.
    pub fn add(&mut self, new: &NewDevice<'_>) -> Result<Result<u64, Taken>, StoreError> {
        let created_ms = Unsigned(new.credential.created_ms);
        let values = params![
            new.id.as_bytes(),
            new.name,
            created_ms,
            new.profile,
            new.label
        ];
        if self.device.execute(values)? == 0 {
            return Ok(Err(match devices::by_name(self.connection, new.name)? {
                Some(holder) if holder.id == new.id => Taken::Itself,
                Some(_) => Taken::Name,
                None => Taken::Id,
            }));
        }
        let number = self.connection.last_insert_rowid();
        let NewCredential {
            kind,
            digest,
            chosen,
            ..
        } = new.credential;
        let expires_ms = new.credential.expires_ms.map(Unsigned);
        let values = params![number, kind, digest, chosen, created_ms, expires_ms];
        if self.credential.execute(values)? == 0 {
            let sql = "DELETE FROM device WHERE number = ?1";
            self.connection.prepare_cached(sql)?.execute([number])?;
            return Ok(Err(Taken::Token));
        }
        let credential = u64::try_from(self.connection.last_insert_rowid()).unwrap_or(0);
        if let Some(scope) = new.scope {
            scopes::set(self.connection, number, scope)?;
        }
        if !new.terms.is_none() {
            terms::set(self.connection, credential, &new.terms)?;
        }
        Ok(Ok(credential))
    }

    /// Whether a device with this id was deleted: its records in the journal are dead, so that the
    /// id is not given out again.
    pub fn is_buried(&self, id: Uuid) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tombstone WHERE device = ?1)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([id.as_bytes()], |row| row.get(0))?)
    }
}

impl Drop for Inserter<'_> {
    fn drop(&mut self) {
        // Only a matter of memory.
        let _ = self
            .connection
            .pragma_update(None, "cache_size", self.cache_before);
    }
}

/// Up to `limit` devices whose names come after `after`, by name, in byte order. The credential is
/// the newest live one of this kind, or the newest of them if none is live.
///
/// # Errors
/// That the database could not be read.
pub fn list(
    connection: &Connection,
    credential: u8,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<ListedDevice>, StoreError> {
    // Every name is longer than "", so that nothing is left out when there is no `after`.
    let sql = "SELECT d.name, d.id, d.profile, d.label, s.publish, s.subscribe, c.expires_ms,
                      t.not_before_ms, t.rights, t.networks, t.connections_max, t.messages_max,
                      t.certificate
               FROM device AS d LEFT JOIN scope AS s ON s.number = d.number
               LEFT JOIN credential AS c ON c.id = (
                   SELECT id FROM credential WHERE device = d.number AND kind = ?4
                   ORDER BY revoked_ms IS NULL DESC, id DESC LIMIT 1)
               LEFT JOIN terms AS t ON t.credential = c.id
               WHERE d.name > ?1 AND d.kind = ?3 ORDER BY d.name LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(
        params![after.unwrap_or(""), limit, devices::DEVICE, credential],
        |row| {
            Ok(ListedDevice {
                name: row.get(0)?,
                id: Uuid::from_bytes(row.get(1)?),
                profile: row.get(2)?,
                label: row.get(3)?,
                scope: Filters::from_columns(row, 4)?,
                expires_ms: row.get::<_, Option<Unsigned>>(6)?.map(|at| at.0),
                terms: TermsRow::from_columns(row, 7)?,
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}
