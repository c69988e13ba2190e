//! What the last run left, put together from the state database and what changed behind it.
//!
//! Of two sessions with one key the later is the one: it began because the earlier had ended. What
//! belongs to an identity whose state was dropped is passed over: the database has none of it, and
//! what the journal brings back is judged here, as a checkpoint judges it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::Restored;
use super::queues::{Entry, How, Step};
use super::save::is_live;
use super::shadow::Shadow;
use crate::broker::record::will;
use crate::broker::retained::{RetainedIndex, RetainedLimits};
use crate::broker::sessions::{SessionKey, Stored};
use crate::mqtt::message::{Content, Message, Publisher, Will};
use crate::mqtt::session::{Delivered, Ids, Progress, SessionState, Unsettled};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{PacketId, QoS};
use crate::store::messages::{self, DeliveryRow, MessageRow, QueuedRow};
use crate::store::{Connection, StoreError, devices, retained, sessions};

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Unix time in milliseconds.
    pub(super) wall_ms: u64,
}

/// Wills by session, and who set each.
type Wills = HashMap<u32, (Arc<Will>, Publisher)>;

/// The queues of the sessions that are restored.
type Queues = HashMap<u32, Vec<Ordered>>;

/// A message of a queue, with its place in the order of sending.
struct Ordered {
    rank: (u8, u64),
    unsettled: Unsettled,
}

/// Everything that is restored. `checkpoint` is the offset up to which the database is valid.
pub(super) fn restored(
    shadow: &mut Shadow,
    connection: &Connection,
    checkpoint: u64,
    limits: RetainedLimits,
    now: Now,
) -> Result<Restored, StoreError> {
    end_dead(shadow, connection)?;
    end_doubles(shadow);
    shadow.changes.forget_ended();
    let mut queues = queues(shadow, connection, checkpoint)?;
    let mut wills = wills(shadow, connection)?;
    let mut restored = Restored {
        next_number: shadow.highest.wrapping_add(1).max(1),
        retained: Arc::new(index(shadow, connection, checkpoint, limits, now.wall_ms)?),
        sessions: Vec::with_capacity(shadow.sessions.len()),
        feeds: Vec::new(),
    };
    for (number, session) in &shadow.sessions {
        let (will, publisher) = wills.remove(number).unzip();
        let mut state = SessionState {
            subscriptions: session.body.subscriptions.clone(),
            unreleased: session.unreleased.clone(),
            will,
            ..SessionState::default()
        };
        state.restore(in_order(queues.remove(number).unwrap_or_default()));
        let mut stored = Stored::new(*number, state, session.body.expiry_s, now.instant);
        stored.publisher = publisher.unwrap_or(Publisher {
            identity: session.device.as_u128(),
            credential: 0,
            generation: session.generation,
        });
        let key = SessionKey {
            identity: session.device,
            client_id: session.body.client_id.clone(),
        };
        restored.sessions.push((key, stored));
        restored.feeds.extend(session.feeds(*number));
    }
    Ok(restored)
}

/// Sessions that the journal brought back although their identity's state was dropped. Those that
/// did not change since the checkpoint were judged by it.
fn end_dead(shadow: &mut Shadow, connection: &Connection) -> Result<(), StoreError> {
    let mut dead = Vec::new();
    for number in &shadow.changes.changed {
        if let Some(session) = shadow.sessions.get(number)
            && !is_live(connection, session.device, session.generation)?
        {
            dead.push(*number);
        }
    }
    for number in dead {
        shadow.end(number);
    }
    Ok(())
}

fn end_doubles(shadow: &mut Shadow) {
    let mut latest: HashMap<(Uuid, Box<str>), u32> = HashMap::new();
    let mut older = Vec::new();
    for (number, session) in &shadow.sessions {
        match latest.entry((session.device, session.body.client_id.clone())) {
            Place::Vacant(vacant) => {
                vacant.insert(*number);
            }
            Place::Occupied(mut held) => {
                older.push(*number.min(held.get()));
                held.insert(*number.max(held.get()));
            }
        }
    }
    for number in older {
        shadow.end(number);
    }
}

fn queues(shadow: &Shadow, connection: &Connection, checkpoint: u64) -> Result<Queues, StoreError> {
    let changes = &shadow.changes.queues;
    let mut bodies: HashMap<u64, Arc<Message>> = HashMap::new();
    messages::each_message(connection, checkpoint, |row| {
        if let Some(message) = message(&row) {
            bodies.insert(row.offset, message);
        }
    })?;
    let mut queues = Queues::new();
    let mut groups: HashMap<String, Arc<str>> = HashMap::new();
    messages::each_queued(connection, checkpoint, |row| {
        let step = match changes.entries.get(&(row.session, row.offset)) {
            None => step(row.state),
            Some(Entry::Moved(now)) => step(row.state).then(*now),
            Some(Entry::Gone | Entry::New { .. }) => return,
        };
        let (session, offset) = (row.session, row.offset);
        if let Some(how) = how(row, &mut groups)
            && let Some(message) = bodies.get(&offset)
            && shadow.sessions.contains_key(&session)
        {
            let ordered = ordered(offset, how, step, message);
            queues.entry(session).or_default().push(ordered);
        }
    })?;
    for ((session, offset), entry) in &changes.entries {
        if let Entry::New { how, step } = entry
            && let Some(body) = changes.bodies.get(offset)
        {
            let ordered = ordered(*offset, how.clone(), *step, &body.message);
            queues.entry(*session).or_default().push(ordered);
        }
    }
    Ok(queues)
}

/// First what was received, in the order of the PUBRECs; then what has an id, in the order in
/// which it got it; then what waits, in the order of the journal: [`in_order`] puts it together.
fn ordered(offset: u64, how: How, step: Step, message: &Arc<Message>) -> Ordered {
    let (rank, progress) = match (step.packet_id, step.is_received) {
        // An id that is lost was given in a stretch of the journal that is.
        (None, _) => ((2, offset), Progress::Waiting),
        (Some(id), false) => ((1, step.place), Progress::Sent(id)),
        (Some(id), true) => ((0, step.place), Progress::Received(id)),
    };
    let is_received = matches!(progress, Progress::Received(_));
    Ordered {
        rank,
        unsettled: Unsettled {
            message: (!is_received).then(|| Arc::clone(message)),
            how: Delivered {
                qos: how.qos,
                retain: how.retain,
                ids: how.ids,
                offset,
                share: how.share,
            },
            progress,
        },
    }
}

/// The order of sending. Packet ids of QoS 1 are not on disk: what has none stands where its record
/// does, so before a message of QoS 2 that came later and has one.
fn in_order(mut all: Vec<Ordered>) -> Vec<Unsettled> {
    all.sort_by_key(|ordered| ordered.rank);
    let waiting = all.split_off(all.partition_point(|ordered| ordered.rank.0 < 2));
    let sent = all.split_off(all.partition_point(|ordered| ordered.rank.0 < 1));
    let mut waiting = waiting.into_iter().peekable();
    for one in sent {
        let offset = one.unsettled.how.offset;
        // Of QoS 2 without an id nothing was sent, and nothing behind it either.
        let is_before = |held: &Ordered| {
            held.unsettled.how.offset < offset && held.unsettled.how.qos == QoS::AtLeastOnce
        };
        while let Some(before) = waiting.next_if(is_before) {
            all.push(before);
        }
        all.push(one);
    }
    all.extend(waiting);
    all.into_iter().map(|ordered| ordered.unsettled).collect()
}

fn wills(shadow: &mut Shadow, connection: &Connection) -> Result<Wills, StoreError> {
    let mut wills = Wills::new();
    let changed = shadow.changes.wills();
    for row in sessions::load_wills(connection)? {
        let Some(session) = shadow.sessions.get(&row.session) else {
            continue;
        };
        if changed.contains_key(&row.session) {
            continue;
        }
        let Some(will) = will::decode(&row.body) else {
            tracing::warn!(session = row.session, "a stored will cannot be read");
            continue;
        };
        let publisher = Publisher {
            identity: session.device.as_u128(),
            credential: row.credential,
            generation: row.generation,
        };
        wills.insert(row.session, (Arc::new(will), publisher));
    }
    for (number, held) in changed {
        if let Some(held) = held
            && shadow.sessions.contains_key(number)
        {
            wills.insert(*number, (Arc::clone(&held.will), held.publisher));
        }
    }
    // A will of a credential that ended is not published (SEC-37), whatever became of its session.
    let mut ended = Vec::new();
    for (number, (_, publisher)) in &wills {
        let identity = Uuid::from_u128(publisher.identity);
        if !devices::is_credential_live(connection, identity, publisher.credential)? {
            ended.push(*number);
        }
    }
    for number in ended {
        wills.remove(&number);
        shadow.changes.set_will(number, None);
    }
    Ok(wills)
}

fn index(
    shadow: &Shadow,
    connection: &Connection,
    checkpoint: u64,
    limits: RetainedLimits,
    now_ms: u64,
) -> Result<RetainedIndex, StoreError> {
    let changed = shadow.changes.retained();
    let index = RetainedIndex::new(limits);
    retained::each(connection, checkpoint, |row| {
        if let Some(message) = message(&row)
            && !changed.contains_key(row.topic)
            && !message.is_expired(now_ms)
        {
            index.apply(&message, row.offset, 0);
        }
    })?;
    for last in changed.values() {
        let Some(message) = &last.message else {
            continue;
        };
        let publisher = message.publisher();
        let identity = Uuid::from_u128(publisher.identity);
        if is_live(connection, identity, publisher.generation)? && !message.is_expired(now_ms) {
            index.apply(message, last.offset, 0);
        }
    }
    Ok(index)
}

/// `None` for a row that this program did not write.
fn message(row: &MessageRow<'_>) -> Option<Arc<Message>> {
    let (topic, qos) = (Topic::new(row.topic).ok()?, QoS::from_u8(row.qos)?);
    let content = Content::from_parts(topic, row.properties, row.payload, qos, row.retain);
    let publisher = Publisher {
        identity: u128::from_be_bytes(row.publisher),
        credential: row.credential,
        generation: row.generation,
    };
    let message = Message::restored(content, publisher, row.received_ms, row.expires_ms);
    Some(Arc::new(message))
}

/// The name of a group is shared by all who have a message through it.
fn how(row: QueuedRow, groups: &mut HashMap<String, Arc<str>>) -> Option<How> {
    let share = row.share.map(|share| {
        let name = share.as_str().into();
        Arc::clone(groups.entry(share).or_insert(name))
    });
    Some(How {
        qos: QoS::from_u8(row.qos)?,
        retain: row.retain,
        ids: Ids::new(&row.ids),
        share,
    })
}

fn step(row: DeliveryRow) -> Step {
    Step {
        packet_id: PacketId::new(row.packet_id),
        is_received: row.is_received,
        place: row.place,
    }
}
