//! Typed reads and writes of messages and of the queues of stored sessions that they are in. What
//! they mean is `broker`'s affair. Every write may be repeated.

use rusqlite::{Connection, Row, params};

use super::{StoreError, Unsigned};

/// A row of `message` or `retained`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRow<'a> {
    /// Its record in the journal.
    pub offset: u64,
    /// Who published it, the bytes of a UUID.
    pub publisher: [u8; 16],
    /// With which credential.
    pub credential: u64,
    /// The generation of the publisher then.
    pub generation: u32,
    /// The QoS it was published with.
    pub qos: u8,
    /// The Retain flag it was published with.
    pub retain: bool,
    /// Wall clock, ms.
    pub received_ms: u64,
    /// Wall clock, ms; `None` is never.
    pub expires_ms: Option<u64>,
    /// Its topic.
    pub topic: &'a str,
    /// Properties as the broker writes them.
    pub properties: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// A row of `queued`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRow {
    /// The session.
    pub session: u32,
    /// The message.
    pub offset: u64,
    /// The QoS it is sent with.
    pub qos: u8,
    /// The Retain flag it is sent with.
    pub retain: bool,
    /// Subscription ids.
    pub ids: Vec<u32>,
    /// The filter of the share group for which the session has it.
    pub share: Option<String>,
    /// How far its delivery is.
    pub state: DeliveryRow,
}

/// How far the delivery of a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The packet id it has; 0 for none.
    pub packet_id: u16,
    /// PUBREC has come.
    pub is_received: bool,
    /// Order among the deliveries that are as far: ascending.
    pub place: u64,
}

/// Visits every message that is in a queue, in order of the offsets, up to `last`: what is behind
/// it was written by a checkpoint that was cut off.
///
/// # Errors
/// The database could not be read; so for every function here that reads.
pub fn each_message(
    connection: &Connection,
    last: u64,
    mut visit: impl FnMut(MessageRow<'_>),
) -> Result<(), StoreError> {
    let sql = "SELECT topic, offset, publisher, credential, generation, qos, received_ms,
                      expires_ms, properties, payload, retain
               FROM message WHERE offset <= ?1 ORDER BY offset";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Unsigned(last)])?;
    while let Some(row) = rows.next()? {
        visit(message_row(row, row.get(10)?)?);
    }
    Ok(())
}

/// Visits everything queued, by session, in order of the offsets up to `last`.
pub fn each_queued(
    connection: &Connection,
    last: u64,
    mut visit: impl FnMut(QueuedRow),
) -> Result<(), StoreError> {
    let sql = "SELECT session, offset, qos, retain, ids, share, packet_id, received, place
               FROM queued WHERE offset <= ?1 ORDER BY session, offset";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Unsigned(last)])?;
    while let Some(row) = rows.next()? {
        let ids = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        let ids = ids.as_chunks::<4>().0.iter();
        visit(QueuedRow {
            session: row.get(0)?,
            offset: row.get::<_, Unsigned>(1)?.0,
            qos: row.get(2)?,
            retain: row.get(3)?,
            ids: ids.map(|id| u32::from_le_bytes(*id)).collect(),
            share: row.get(5)?,
            state: DeliveryRow {
                packet_id: row.get::<_, Option<u16>>(6)?.unwrap_or(0),
                is_received: row.get(7)?,
                place: row.get::<_, Unsigned>(8)?.0,
            },
        });
    }
    Ok(())
}

/// Whether something queued is behind `last`: a checkpoint was cut off.
pub fn is_partly_written(connection: &Connection, last: u64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM queued WHERE offset > ?1)";
    Ok(connection.query_row(sql, [Unsigned(last)], |row| row.get(0))?)
}

/// Puts a message into a session's queue, if the session is there; its body comes with
/// [`put_message`].
///
/// # Errors
/// The database could not be written; so for every function here that writes.
pub fn put_queued(connection: &Connection, row: &QueuedRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO queued
               (session, offset, qos, retain, ids, share, packet_id, received, place)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
               WHERE EXISTS (SELECT 1 FROM session WHERE number = ?1)";
    let ids: Vec<u8> = row.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    connection.prepare_cached(sql)?.execute(params![
        row.session,
        Unsigned(row.offset),
        row.qos,
        row.retain,
        ids,
        row.share,
        (row.state.packet_id != 0).then_some(row.state.packet_id),
        row.state.is_received,
        Unsigned(row.state.place)
    ])?;
    Ok(())
}

/// Writes a message that is in a queue; one that is in none is not written.
pub fn put_message(connection: &Connection, row: &MessageRow<'_>) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO message
               (topic, offset, publisher, credential, generation, qos, received_ms, expires_ms,
                properties, payload, retain)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
               WHERE EXISTS (SELECT 1 FROM queued WHERE offset = ?2)";
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
        row.payload,
        row.retain
    ])?;
    Ok(())
}

/// Notes how far a delivery is, if the message is still queued. A packet id of 0 leaves the one it
/// has.
pub fn set_delivery(
    connection: &Connection,
    session: u32,
    offset: u64,
    state: DeliveryRow,
) -> Result<(), StoreError> {
    let sql = "UPDATE queued SET packet_id = coalesce(?3, packet_id), received = ?4, place = ?5
               WHERE session = ?1 AND offset = ?2";
    let packet_id = (state.packet_id != 0).then_some(state.packet_id);
    let values = params![
        session,
        Unsigned(offset),
        packet_id,
        state.is_received,
        Unsigned(state.place)
    ];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Takes a message out of a session's queue, and away if it is in no other.
pub fn settle(connection: &Connection, session: u32, offset: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM queued WHERE session = ?1 AND offset = ?2";
    let values = params![session, Unsigned(offset)];
    connection.prepare_cached(sql)?.execute(values)?;
    drop_unqueued(connection, offset)
}

/// Takes everything out of a session's queue.
pub(super) fn end_queue(connection: &Connection, session: u32) -> Result<(), StoreError> {
    let sql = "SELECT offset FROM queued WHERE session = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let offsets = statement.query_map([session], |row| row.get(0))?;
    let offsets = offsets.collect::<rusqlite::Result<Vec<Unsigned>>>()?;
    if offsets.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM queued WHERE session = ?1";
    connection.prepare_cached(sql)?.execute([session])?;
    for Unsigned(offset) in offsets {
        drop_unqueued(connection, offset)?;
    }
    Ok(())
}

fn drop_unqueued(connection: &Connection, offset: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM message WHERE offset = ?1
               AND NOT EXISTS (SELECT 1 FROM queued WHERE offset = ?1)";
    connection
        .prepare_cached(sql)?
        .execute([Unsigned(offset)])?;
    Ok(())
}

/// The first ten columns: topic, offset, publisher, credential, generation, qos, received,
/// expires, properties, payload.
pub(super) fn message_row<'a>(row: &'a Row<'_>, retain: bool) -> rusqlite::Result<MessageRow<'a>> {
    Ok(MessageRow {
        topic: row.get_ref(0)?.as_str()?,
        offset: row.get::<_, Unsigned>(1)?.0,
        publisher: row.get(2)?,
        credential: row.get::<_, Unsigned>(3)?.0,
        generation: row.get(4)?,
        qos: row.get(5)?,
        retain,
        received_ms: row.get::<_, Unsigned>(6)?.0,
        expires_ms: row.get::<_, Option<Unsigned>>(7)?.map(|at| at.0),
        properties: row.get_ref(8)?.as_blob()?,
        payload: row.get_ref(9)?.as_blob()?,
    })
}
