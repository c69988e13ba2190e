//! Typed reads and writes of stored sessions, their wills, and the offset up to which the journal
//! is in the tables. What they mean is `broker`'s affair.
//!
//! Every write may be repeated: a checkpoint is written in several transactions, of which the last
//! one moves the offset, and after a crash in between the same is written again.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{StoreError, Unsigned, messages};

/// The name of this checkpoint in the table `checkpoint`.
const CHECKPOINT: &str = "sessions";

/// A row of `session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session's number in the journal.
    pub number: u32,
    /// Whose it is.
    pub device: Uuid,
    /// The identity's generation when it was used last.
    pub generation: u32,
    /// Empty where a device has one session only.
    pub client_id: String,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// QoS 2 packet ids that are not released, ascending.
    pub unreleased: Vec<u16>,
    /// Subscriptions.
    pub filters: Vec<FilterRow>,
}

/// A subscription of a stored session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRow {
    /// Granted QoS and further options, as one byte.
    pub options: u8,
    /// The subscription identifier.
    pub id: Option<u32>,
    /// The filter.
    pub filter: String,
    /// Where its feed started; 0 if it is none.
    pub start: u64,
    /// The offset up to which its feed is settled, if any is.
    pub settled: Option<u64>,
}

/// A row of `will`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRow {
    /// The session.
    pub session: u32,
    /// The credential with which it was set.
    pub credential: u64,
    /// The generation of the identity then.
    pub generation: u32,
    /// What it is, as the broker writes it.
    pub body: Vec<u8>,
}

/// All stored sessions.
///
/// # Errors
/// The database could not be read; so for every function here that reads.
pub fn load(connection: &Connection) -> Result<Vec<SessionRow>, StoreError> {
    let sql = "SELECT number, device, generation, client_id, expiry_s, qos2_ids, filters
               FROM session";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(SessionRow {
            number: row.get(0)?,
            device: Uuid::from_bytes(row.get(1)?),
            generation: row.get(2)?,
            client_id: row.get(3)?,
            expiry_s: row.get(4)?,
            unreleased: ids(&row.get::<_, Vec<u8>>(5)?),
            filters: filters(&row.get::<_, String>(6)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The offset up to which the journal is in the tables; 0: nothing.
pub fn offset(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT offset FROM checkpoint WHERE name = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let offset: Option<Unsigned> = statement
        .query_row([CHECKPOINT], |row| row.get(0))
        .optional()?;
    Ok(offset.map_or(0, |offset| offset.0))
}

/// Notes the offset up to which the journal is in the tables.
///
/// # Errors
/// The database could not be written; so for every function here that writes.
pub fn set_offset(connection: &Connection, offset: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO checkpoint (name, offset) VALUES (?1, ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute(params![CHECKPOINT, Unsigned(offset)])?;
    Ok(())
}

/// Writes a session, new or changed. Another one of the same client ends.
pub fn put(connection: &Connection, row: &SessionRow) -> Result<(), StoreError> {
    let sql = "SELECT number FROM session WHERE device = ?1 AND client_id = ?2 AND number <> ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let other: Option<u32> = statement
        .query_row(
            params![row.device.as_bytes(), row.client_id, row.number],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(number) = other {
        end(connection, number)?;
    }
    let sql = "INSERT OR REPLACE INTO session
               (number, device, generation, client_id, expiry_s, qos2_ids, filters)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let unreleased = row.unreleased.iter();
    let ids: Vec<u8> = unreleased.flat_map(|id| id.to_le_bytes()).collect();
    let lines: Vec<String> = row.filters.iter().map(line).collect();
    connection.prepare_cached(sql)?.execute(params![
        row.number,
        row.device.as_bytes(),
        row.generation,
        row.client_id,
        row.expiry_s,
        ids,
        lines.join("\n")
    ])?;
    Ok(())
}

/// Removes a session with its queue and its will.
pub fn end(connection: &Connection, number: u32) -> Result<(), StoreError> {
    messages::end_queue(connection, number)?;
    clear_will(connection, number)?;
    let sql = "DELETE FROM session WHERE number = ?1";
    connection.prepare_cached(sql)?.execute([number])?;
    Ok(())
}

/// All wills of stored sessions.
pub fn load_wills(connection: &Connection) -> Result<Vec<WillRow>, StoreError> {
    let sql = "SELECT session, credential, generation, body FROM will";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(WillRow {
            session: row.get(0)?,
            credential: row.get::<_, Unsigned>(1)?.0,
            generation: row.get(2)?,
            body: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes the will of a session, if the session is there.
pub fn put_will(connection: &Connection, row: &WillRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO will (session, credential, generation, body)
               SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM session WHERE number = ?1)";
    let credential = Unsigned(row.credential);
    let values = params![row.session, credential, row.generation, row.body];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The session has no will.
pub fn clear_will(connection: &Connection, session: u32) -> Result<(), StoreError> {
    let sql = "DELETE FROM will WHERE session = ?1";
    connection.prepare_cached(sql)?.execute([session])?;
    Ok(())
}

fn ids(bytes: &[u8]) -> Vec<u16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
        .collect()
}

/// One subscription: `1 filter`, with an id `1#7 filter`, with a feed's start and settled offset
/// `1@5 filter`, `1#7@5:17 filter`. Filters hold no control characters (SEC-08). Schema 3 had the
/// QoS where the options are, and no ids.
fn line(row: &FilterRow) -> String {
    let FilterRow {
        options, filter, ..
    } = row;
    let id = row.id.map_or_else(String::new, |id| format!("#{id}"));
    match (row.start, row.settled) {
        (0, _) => format!("{options}{id} {filter}"),
        (start, None) => format!("{options}{id}@{start} {filter}"),
        (start, Some(settled)) => format!("{options}{id}@{start}:{settled} {filter}"),
    }
}

fn filters(lines: &str) -> Vec<FilterRow> {
    let parse = |line: &str| {
        let (grant, filter) = line.split_once(' ')?;
        let (grant, feed) = grant.split_once('@').unwrap_or((grant, "0"));
        let (options, id) = match grant.split_once('#') {
            Some((options, id)) => (options, Some(id.parse().ok()?)),
            None => (grant, None),
        };
        let (start, settled) = match feed.split_once(':') {
            Some((start, settled)) => (start, Some(settled.parse().ok()?)),
            None => (feed, None),
        };
        Some(FilterRow {
            options: options.parse().ok()?,
            id,
            filter: filter.to_owned(),
            start: start.parse().ok()?,
            settled,
        })
    };
    lines.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rel_10_a_subscription_is_read_as_it_was_written_and_as_older_versions_wrote_it() {
        let row = |id, start, settled| FilterRow {
            options: 45,
            id,
            filter: "a b@c:d#/+".to_owned(),
            start,
            settled,
        };
        for id in [None, Some(7)] {
            for row in [row(id, 0, None), row(id, 5, None), row(id, 5, Some(17))] {
                assert_eq!(filters(&line(&row)), [row]);
            }
        }
        let old = FilterRow {
            options: 1,
            ..row(None, 5, Some(17))
        };
        assert_eq!(filters("1@5:17 a b@c:d#/+"), [old]);
    }
}
