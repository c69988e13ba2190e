//! Typed reads and writes of retained messages. What they mean is `broker`'s affair. Every write
//! may be repeated.

use rusqlite::{Connection, params};

use super::messages::{MessageRow, message_row};
use super::{StoreError, Unsigned};

/// Visits every retained message up to the offset `last`, in byte order of the topics: what is
/// behind it was written by a checkpoint that was cut off.
///
/// # Errors
/// The database could not be read.
pub fn each(
    connection: &Connection,
    last: u64,
    mut visit: impl FnMut(MessageRow<'_>),
) -> Result<(), StoreError> {
    let sql = "SELECT topic, offset, publisher, credential, generation, qos, received_ms,
                      expires_ms, properties, payload
               FROM retained WHERE offset <= ?1 ORDER BY topic";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Unsigned(last)])?;
    while let Some(row) = rows.next()? {
        visit(message_row(row, true)?);
    }
    Ok(())
}

/// Writes a topic's retained message.
///
/// # Errors
/// The database could not be written; so for every function here.
pub fn put(connection: &Connection, row: &MessageRow<'_>) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO retained
               (topic, offset, publisher, credential, generation, qos, received_ms, expires_ms,
                properties, payload)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        row.topic,
        Unsigned(row.offset),
        row.publisher,
        Unsigned(row.credential),
        row.generation,
        row.qos,
        Unsigned(row.received_ms),
        row.expires_ms.map(Unsigned),
        row.properties,
        row.payload
    ])?;
    Ok(())
}

/// The topic has no retained message.
pub fn clear(connection: &Connection, topic: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM retained WHERE topic = ?1";
    connection.prepare_cached(sql)?.execute([topic])?;
    Ok(())
}

/// Removes up to `most` messages whose time was over at `now_ms`; answers how many.
pub fn remove_expired(
    connection: &Connection,
    now_ms: u64,
    most: u32,
) -> Result<usize, StoreError> {
    let sql = "DELETE FROM retained WHERE topic IN (
                   SELECT topic FROM retained WHERE expires_ms IS NOT NULL AND expires_ms <= ?1
                   LIMIT ?2)";
    let values = params![Unsigned(now_ms), most];
    Ok(connection.prepare_cached(sql)?.execute(values)?)
}
