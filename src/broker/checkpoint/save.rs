//! Writing a checkpoint: what changed, in transactions small enough that an admin's change does
//! not wait long for its own, and at last the offset.
//!
//! A checkpoint that is cut off between two transactions does no harm. Its rows are those of a
//! later moment than the offset says; the next start passes over messages behind the offset and
//! applies the journal from there, which leads to the same rows: every write says what is, not
//! what changes.
//!
//! Nothing of a revoked identity is written: each session, with its queue and will, and each
//! retained message is judged in the transaction that writes it, and what was written before goes
//! with the revocation's own transaction (SEC-34).

use std::sync::Arc;

use uuid::Uuid;

use super::changes::{HeldWill, Last};
use super::queues::{Entry, Key, Step};
use super::shadow::Shadow;
use crate::broker::record::will;
use crate::mqtt::message::Message;
use crate::store::messages::{self, DeliveryRow, MessageRow, QueuedRow};
use crate::store::sessions::{self, SessionRow, WillRow};
use crate::store::{Connection, Store, StoreError, devices, retained, suspects};

/// Writes of one transaction, at most.
const WRITES_MAX: usize = 1_000;

/// Bytes of the messages of one transaction, at most by one message more.
const WRITE_BYTES: usize = 1024 * 1024;

/// Expired retained messages that one checkpoint removes, at most.
const EXPIRED_MAX: u32 = 10_000;

/// One row.
pub(super) enum Write {
    End(u32),
    Session(SessionRow),
    Will(u32, Option<HeldWill>),
    Queued(QueuedRow),
    Delivery(Key, DeliveryRow),
    Settled(Key),
    Message(u64, Arc<Message>),
    Retained(Box<str>, Last),
}

/// Writes what `shadow` has changed and the offset it has applied; then nothing is changed any
/// more. After an error everything is as it was, and may be tried again.
pub(super) fn save(shadow: &mut Shadow, store: &Store, now_ms: u64) -> Result<(), StoreError> {
    shadow.changes.forget_ended();
    // Until the last write has succeeded, parts may be there.
    shadow.changes.queues.is_partly_written = true;
    let mut writes = writes(shadow).into_iter().peekable();
    while writes.peek().is_some() {
        let mut part = Vec::new();
        let mut bytes = 0;
        while part.len() < WRITES_MAX
            && bytes < WRITE_BYTES
            && let Some(write) = writes.next()
        {
            bytes += write.bytes();
            part.push(write);
        }
        // The journal keeps what a checkpoint would replace: the ballast is not for this.
        store.write_spare(move |transaction| {
            part.iter().try_for_each(|write| write.apply(transaction))
        })?;
    }
    let offset = shadow.applied.number();
    store.write_spare(move |transaction| {
        retained::remove_expired(transaction, now_ms, EXPIRED_MAX)?;
        suspects::note_moment(transaction, offset, now_ms)?;
        sessions::set_offset(transaction, offset)
    })?;
    shadow.changes = Default::default();
    Ok(())
}

/// Sessions before what belongs to them, queues before the messages in them.
pub(super) fn writes(shadow: &Shadow) -> Vec<Write> {
    let changes = &shadow.changes;
    let mut writes: Vec<Write> = changes.ended.iter().copied().map(Write::End).collect();
    let rows = changes.changed.iter();
    let rows = rows.filter_map(|number| Some(shadow.sessions.get(number)?.row(*number)));
    writes.extend(rows.map(Write::Session));
    let wills = changes.wills().iter();
    writes.extend(wills.map(|(session, will)| Write::Will(*session, will.clone())));
    let entries = changes.queues.entries.iter();
    writes.extend(entries.map(|(key, entry)| match entry {
        Entry::New { how, step } => Write::Queued(QueuedRow {
            session: key.0,
            offset: key.1,
            qos: how.qos.as_u8(),
            retain: how.retain,
            ids: how.ids.with(<[u32]>::to_vec),
            share: how.share.as_deref().map(str::to_owned),
            state: delivery(*step),
        }),
        Entry::Moved(step) => Write::Delivery(*key, delivery(*step)),
        Entry::Gone => Write::Settled(*key),
    }));
    let bodies = changes.queues.bodies.iter();
    writes.extend(bodies.map(|(offset, body)| Write::Message(*offset, Arc::clone(&body.message))));
    let retained = changes.retained().iter();
    writes.extend(retained.map(|(topic, last)| Write::Retained(topic.clone(), last.clone())));
    writes
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Write::Message(_, message) => message.bytes(),
            Write::Retained(_, last) => last.message.as_ref().map_or(0, |held| held.bytes()),
            Write::Will(_, Some(held)) => held.will.content.payload().len(),
            _ => 0,
        }
    }

    pub(super) fn apply(&self, connection: &Connection) -> Result<(), StoreError> {
        match self {
            Write::End(number) => sessions::end(connection, *number),
            Write::Session(row) => match is_live(connection, row.device, row.generation)? {
                true => sessions::put(connection, row),
                false => sessions::end(connection, row.number),
            },
            Write::Will(session, None) => sessions::clear_will(connection, *session),
            Write::Will(session, Some(held)) => {
                sessions::put_will(connection, &will_row(*session, held))
            }
            Write::Queued(row) => messages::put_queued(connection, row),
            Write::Delivery((session, offset), state) => {
                messages::set_delivery(connection, *session, *offset, *state)
            }
            Write::Settled((session, offset)) => messages::settle(connection, *session, *offset),
            Write::Message(offset, message) => {
                messages::put_message(connection, &message_row(message, *offset))
            }
            Write::Retained(topic, last) => put_retained(connection, topic, last),
        }
    }
}

/// Whether what an identity left with this generation counts.
pub(super) fn is_live(
    connection: &Connection,
    identity: Uuid,
    generation: u32,
) -> Result<bool, StoreError> {
    let first = devices::state_generation(connection, identity)?;
    Ok(first.is_some_and(|first| first <= generation))
}

fn put_retained(connection: &Connection, topic: &str, last: &Last) -> Result<(), StoreError> {
    if let Some(message) = &last.message {
        let publisher = message.publisher();
        let identity = Uuid::from_u128(publisher.identity);
        if is_live(connection, identity, publisher.generation)? {
            return retained::put(connection, &message_row(message, last.offset));
        }
    }
    // A revoked publisher's message replaced the one before it all the same.
    retained::clear(connection, topic)
}

fn message_row(message: &Message, offset: u64) -> MessageRow<'_> {
    let (content, publisher) = (message.content(), message.publisher());
    MessageRow {
        offset,
        publisher: publisher.identity.to_be_bytes(),
        credential: publisher.credential,
        generation: publisher.generation,
        qos: content.qos().as_u8(),
        retain: content.retain(),
        received_ms: message.received_ms(),
        expires_ms: message.expires_ms(),
        topic: content.topic().as_str(),
        properties: content.properties(),
        payload: content.payload(),
    }
}

fn will_row(session: u32, held: &HeldWill) -> WillRow {
    let mut body = Vec::new();
    will::encode(&held.will, &mut body);
    WillRow {
        session,
        credential: held.publisher.credential,
        generation: held.publisher.generation,
        body,
    }
}

fn delivery(step: Step) -> DeliveryRow {
    DeliveryRow {
        packet_id: step.packet_id.map_or(0, |id| id.get()),
        is_received: step.is_received,
        place: step.place,
    }
}
