//! Typed reads and writes of stored sessions and of the offset they were derived up to. What they
//! mean is `broker`'s affair.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{StoreError, Unsigned};

/// The name of this checkpoint in the table `checkpoint`.
const CHECKPOINT: &str = "sessions";

/// A row of `session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session's number in the journal.
    pub number: u32,
    /// Whose it is.
    pub device: Uuid,
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
    /// Granted QoS.
    pub qos: u8,
    /// The filter.
    pub filter: String,
    /// Where its feed started; 0 if it is none.
    pub start: u64,
    /// The offset up to which its feed is settled, if any is.
    pub settled: Option<u64>,
}

/// What changed since the last checkpoint.
#[derive(Clone, Debug, Default)]
pub struct SessionChanges {
    /// Sessions to write, new or changed.
    pub written: Vec<SessionRow>,
    /// Numbers of sessions that ended.
    pub ended: Vec<u32>,
    /// Everything up to this journal offset is in the table now.
    pub offset: u64,
}

/// All stored sessions, and the offset up to which the journal is in them (0: nothing).
///
/// # Errors
/// The database could not be read.
pub fn load(connection: &Connection) -> Result<(Vec<SessionRow>, u64), StoreError> {
    let sql = "SELECT number, device, client_id, expiry_s, qos2_ids, filters FROM session";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(SessionRow {
            number: row.get(0)?,
            device: Uuid::from_bytes(row.get(1)?),
            client_id: row.get(2)?,
            expiry_s: row.get(3)?,
            unreleased: ids(&row.get::<_, Vec<u8>>(4)?),
            filters: filters(&row.get::<_, String>(5)?),
        })
    })?;
    let sessions = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let sql = "SELECT offset FROM checkpoint WHERE name = ?1";
    let offset: Option<Unsigned> = connection
        .query_row(sql, [CHECKPOINT], |row| row.get(0))
        .optional()?;
    Ok((sessions, offset.map_or(0, |offset| offset.0)))
}

/// Writes a checkpoint.
///
/// # Errors
/// The database could not be written.
pub fn save(transaction: &Transaction<'_>, changes: &SessionChanges) -> Result<(), StoreError> {
    let mut end = transaction.prepare_cached("DELETE FROM session WHERE number = ?1")?;
    for number in &changes.ended {
        end.execute([number])?;
    }
    let mut write = transaction.prepare_cached(
        "INSERT OR REPLACE INTO session (number, device, client_id, expiry_s, qos2_ids, filters)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for row in &changes.written {
        let ids: Vec<u8> = row
            .unreleased
            .iter()
            .flat_map(|id| id.to_le_bytes())
            .collect();
        let lines: Vec<String> = row.filters.iter().map(line).collect();
        write.execute(params![
            row.number,
            row.device.as_bytes(),
            row.client_id,
            row.expiry_s,
            ids,
            lines.join("\n")
        ])?;
    }
    transaction.execute(
        "INSERT OR REPLACE INTO checkpoint (name, offset) VALUES (?1, ?2)",
        params![CHECKPOINT, Unsigned(changes.offset)],
    )?;
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

/// One subscription: `1 filter`, or with a feed's start and settled offset `1@5 filter`,
/// `1@5:17 filter`. Filters hold no control characters (SEC-08).
fn line(row: &FilterRow) -> String {
    let FilterRow { qos, filter, .. } = row;
    match (row.start, row.settled) {
        (0, _) => format!("{qos} {filter}"),
        (start, None) => format!("{qos}@{start} {filter}"),
        (start, Some(settled)) => format!("{qos}@{start}:{settled} {filter}"),
    }
}

fn filters(lines: &str) -> Vec<FilterRow> {
    let parse = |line: &str| {
        let (grant, filter) = line.split_once(' ')?;
        let (qos, feed) = grant.split_once('@').unwrap_or((grant, "0"));
        let (start, settled) = match feed.split_once(':') {
            Some((start, settled)) => (start, Some(settled.parse().ok()?)),
            None => (feed, None),
        };
        Some(FilterRow {
            qos: qos.parse().ok()?,
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
    fn a_subscription_is_read_as_it_was_written_and_as_version_1_wrote_it() {
        let row = |start, settled| FilterRow {
            qos: 1,
            filter: "a b@c:d/+".to_owned(),
            start,
            settled,
        };
        for row in [row(0, None), row(5, None), row(5, Some(17))] {
            assert_eq!(filters(&line(&row)), [row]);
        }
        assert_eq!(filters("1 a b@c:d/+"), [row(0, None)]);
    }
}
