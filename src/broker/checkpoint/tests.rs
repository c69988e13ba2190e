//! The shadow, its checkpoints and a start from them, against a model that is a list.
//!
//! After every record the state is restored from what a process that was killed there would find,
//! and compared; with checkpoints, and cut-off ones, at any place in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::changes::Changes;
use super::*;
use crate::broker::record::message::Fixed;
use crate::broker::record::{Flags, Target, Targets, encode, message, queue, will};
use crate::broker::retained::{Cursor, Progress as Walked};
use crate::journal::{Record, RecordHeader, RecordKind};
use crate::mqtt::message::{Content, Message, Publisher, Will};
use crate::mqtt::session::{Progress, Subscribed, SubscriptionSet};
use crate::mqtt::topic::{Filter, Topic};
use crate::mqtt::wire::{PacketId, QoS};
use crate::store::devices::{self, NewCredential};

const LIMITS: RetainedLimits = RetainedLimits {
    messages_max: 1,
    bytes_max: 1,
    publisher_messages_max: 1,
    publisher_bytes_max: 1,
};

/// A queued message as a client would be sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    offset: u64,
    qos: u8,
    retain: bool,
    ids: Vec<u32>,
    share: Option<String>,
    payload: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelSession {
    device: Uuid,
    client: String,
    expiry_s: u32,
    filters: Vec<(String, u8, Option<u32>)>,
    unreleased: BTreeSet<u16>,
    waiting: Vec<Copy>,
    sent: Vec<(u16, Copy)>,
    received: Vec<(u16, u64)>,
    will: Option<(String, u64)>,
}

/// What is expected: sessions by their number, and of each topic payload and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    sessions: BTreeMap<u32, ModelSession>,
    retained: BTreeMap<String, (String, u64)>,
}

/// A journal as a list, a database, and the two views of them.
struct Rig {
    _dir: TempDir,
    store: Store,
    devices: Vec<Uuid>,
    records: Vec<(RecordHeader, Vec<u8>)>,
    shadow: Shadow,
    checkpoint: u64,
    model: Model,
}

fn packet(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// The one that the rig's device got.
fn credential(device: Uuid) -> u64 {
    u64::try_from(device.as_u128()).unwrap()
}

fn header(kind: RecordKind, device: Uuid, session: u32) -> RecordHeader {
    RecordHeader {
        device,
        session,
        generation: 1,
        credential: credential(device),
        ..queue::header(kind, 1_000)
    }
}

impl Rig {
    fn new() -> Rig {
        let dir = TempDir::with_prefix("tollgate-shadow-").unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        let mut rig = Rig {
            _dir: dir,
            store,
            devices: Vec::new(),
            records: Vec::new(),
            shadow: Shadow::new(Vec::new(), Offset::ZERO),
            checkpoint: 0,
            model: Model::default(),
        };
        rig.devices = (1..=3).map(|n| rig.device(n)).collect();
        rig
    }

    fn device(&self, number: u8) -> Uuid {
        let id = Uuid::from_u128(number.into());
        let added = self.store.write(move |transaction| {
            let row = devices::insert(transaction, id, &format!("device {number}"), 1)?;
            let new = NewCredential {
                kind: 0,
                digest: [number; 32],
                chosen: false,
                created_ms: 1,
                expires_ms: None,
            };
            devices::insert_credential(transaction, &row, &new)
        });
        added.unwrap();
        id
    }

    fn next(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap() + 1
    }

    fn push(&mut self, header: RecordHeader, body: Vec<u8>) {
        self.records.push((header, body));
        let last = self.records.len() - 1;
        self.replay(last);
    }

    fn replay(&mut self, at: usize) {
        let (header, body) = &self.records[at];
        self.shadow.apply(&Record {
            offset: Offset::new(u64::try_from(at).unwrap() + 1),
            header: *header,
            body,
        });
    }

    fn begin(&mut self, number: u32, device: Uuid, client: &str) {
        let mut body = Vec::new();
        encode(60, client, &SubscriptionSet::default(), &mut body);
        self.push(header(RecordKind::SessionBegin, device, number), body);
        let session = ModelSession {
            device,
            client: client.to_owned(),
            expiry_s: 60,
            ..ModelSession::default()
        };
        self.model.sessions.insert(number, session);
    }

    fn subscribe(&mut self, number: u32, filter: &str, options: u8, id: Option<u32>) {
        let session = self.model.sessions.get_mut(&number).unwrap();
        session.filters.retain(|(held, ..)| held != filter);
        session.filters.push((filter.to_owned(), options, id));
        session.filters.sort();
        let filters = session.filters.iter();
        let set: SubscriptionSet = filters
            .map(|(filter, options, id)| Subscribed {
                filter: filter.as_str().into(),
                options: crate::broker::record::session::options_from_u8(*options).unwrap(),
                id: *id,
                start: 0,
            })
            .collect();
        let mut body = Vec::new();
        encode(60, &session.client, &set, &mut body);
        let device = session.device;
        self.push(header(RecordKind::SessionChange, device, number), body);
    }

    fn end(&mut self, number: u32) {
        let device = self.model.sessions.remove(&number).unwrap().device;
        self.push(header(RecordKind::SessionEnd, device, number), Vec::new());
    }

    /// A message of `publisher`'s session to these; what each is sent with is made of its number.
    fn message(&mut self, sent: &Sent<'_>, to: &[u32]) {
        let offset = self.next();
        let payload = match sent.payload {
            "" => String::new(),
            text => format!("{text} {offset}"),
        };
        let topic = Topic::new(sent.topic).unwrap();
        let (properties, bytes) = (b"\x01\x01", payload.as_bytes());
        let content = Content::from_parts(
            topic,
            properties,
            bytes,
            QoS::ExactlyOnce,
            sent.flags.retain,
        );
        let publisher = Publisher {
            identity: sent.publisher.as_u128(),
            credential: credential(sent.publisher),
            generation: 1,
        };
        let message = Message::restored(content, publisher, 1_000, None);
        let mut targets = Targets::default();
        for number in to {
            let copy = Copy {
                offset,
                qos: 1 + u8::from(!(u64::from(*number) + offset).is_multiple_of(3)),
                retain: (u64::from(*number) + offset).is_multiple_of(2),
                ids: (0..*number % 3).map(|n| n + 1).collect(),
                share: (number % 4 == 3).then(|| "$share/g/#".to_owned()),
                payload: payload.clone(),
            };
            let target = Target {
                session: *number,
                qos: QoS::from_u8(copy.qos).unwrap(),
                retain: copy.retain,
                ids: copy.ids.as_slice().into(),
                group: copy.share.as_deref(),
            };
            let _ = targets.push(&target);
            if let Some(session) = self.model.sessions.get_mut(number)
                && session
                    .waiting
                    .last()
                    .is_none_or(|last| last.offset != offset)
            {
                session.waiting.push(copy);
            }
        }
        let id = (sent.packet_id != 0).then(|| packet(sent.packet_id));
        let body = message::parts(&message, sent.flags, &targets, &mut Fixed::default()).concat();
        self.push(message::header(&message, sent.session, id), body);
        if let Some(session) = self.model.sessions.get_mut(&sent.session) {
            if sent.flags.will {
                session.will = None;
            }
            session.unreleased.extend(id.map(PacketId::get));
        }
        if sent.flags.retain {
            match payload.is_empty() {
                true => self.model.retained.remove(sent.topic),
                false => (self.model.retained).insert(sent.topic.to_owned(), (payload, offset)),
            };
        }
    }

    /// The first waiting message of QoS 2 of each session gets an id.
    fn assign(&mut self) {
        let mut body = Vec::new();
        for (number, session) in &mut self.model.sessions {
            let first = session.waiting.iter().position(|copy| copy.qos == 2);
            if let Some(at) = first {
                let copy = session.waiting.remove(at);
                let id = u16::try_from(copy.offset).unwrap() + 100;
                queue::put_assigned(&mut body, *number, copy.offset, packet(id));
                session.sent.push((id, copy));
            }
        }
        self.push(queue::header(RecordKind::Assigned, 1), body);
    }

    /// The last message with an id of each session is received: not the order of sending.
    fn receive(&mut self) {
        let mut body = Vec::new();
        for (number, session) in &mut self.model.sessions {
            if let Some((id, copy)) = session.sent.pop() {
                queue::put(&mut body, *number, copy.offset);
                session.received.push((id, copy.offset));
            }
        }
        self.push(queue::header(RecordKind::Received, 1), body);
    }

    /// One message of each session is settled, in whatever state.
    fn settle(&mut self, which: u16) {
        let mut body = Vec::new();
        for (number, session) in &mut self.model.sessions {
            let offset = match which % 3 {
                0 => session.received.pop().map(|(_, offset)| offset),
                1 => session.sent.pop().map(|(_, copy)| copy.offset),
                _ if session.waiting.is_empty() => None,
                _ => Some(session.waiting.remove(0).offset),
            };
            if let Some(offset) = offset {
                queue::put(&mut body, *number, offset);
            }
        }
        queue::put(&mut body, 999, 1); // of a session that is over
        self.push(queue::header(RecordKind::Settled, 1), body);
    }

    fn will(&mut self, number: u32, text: Option<&str>) {
        let session = self.model.sessions.get_mut(&number).unwrap();
        let device = session.device;
        session.will = text.map(|text| (text.to_owned(), credential(device)));
        let mut body = Vec::new();
        if let Some(text) = text {
            let topic = Topic::new("will/of").unwrap();
            let content = Content::from_parts(topic, b"", text.as_bytes(), QoS::AtLeastOnce, true);
            let new = Will {
                content,
                delay_s: 3,
                expiry_s: Some(9),
            };
            will::encode(&new, &mut body);
        }
        self.push(header(RecordKind::Will, device, number), body);
    }

    fn checkpoint(&mut self) {
        save::save(&mut self.shadow, &self.store, 1).unwrap();
        assert_eq!(self.shadow.changes.bytes(), 0);
        self.checkpoint = self.shadow.applied.number();
    }

    /// The process is killed after so many writes of a checkpoint, and starts again.
    fn kill_in_checkpoint(&mut self, writes: usize) {
        self.shadow.changes.forget_ended();
        let all = save::writes(&self.shadow);
        let part: Vec<_> = all.into_iter().take(writes).collect();
        let wrote = self
            .store
            .write(move |transaction| part.iter().try_for_each(|write| write.apply(transaction)));
        wrote.unwrap();
        self.kill();
    }

    fn kill(&mut self) {
        let read = self.store.read(|connection| {
            let offset = sessions::offset(connection)?;
            let is_partly_written = messages::is_partly_written(connection, offset)?;
            Ok((sessions::load(connection)?, offset, is_partly_written))
        });
        let (rows, offset, is_partly_written) = read.unwrap();
        assert_eq!(offset, self.checkpoint);
        self.shadow = Shadow::new(rows, Offset::new(offset));
        self.shadow.changes.queues.is_partly_written = is_partly_written;
        for at in usize::try_from(offset).unwrap()..self.records.len() {
            self.replay(at);
        }
    }

    fn restored(&mut self) -> Restored {
        let now = Now {
            instant: Instant::now(),
            wall_ms: 2_000,
        };
        let (shadow, at) = (&mut self.shadow, self.checkpoint);
        self.store
            .read(|connection| restore::restored(shadow, connection, at, LIMITS, now))
            .unwrap()
    }

    #[track_caller]
    fn check(&mut self) {
        let restored = self.restored();
        assert_eq!(seen(&restored), self.model);
    }
}

/// What is published, and by whom.
struct Sent<'a> {
    publisher: Uuid,
    session: u32,
    packet_id: u16,
    topic: &'a str,
    payload: &'a str,
    flags: Flags,
}

/// What was restored, as the model says it.
fn seen(restored: &Restored) -> Model {
    let mut model = Model::default();
    for (key, stored) in &restored.sessions {
        let state = &stored.state;
        let mut session = ModelSession {
            device: key.identity,
            client: key.client_id.to_string(),
            expiry_s: stored.expiry_s,
            unreleased: state.unreleased.iter().map(PacketId::get).collect(),
            ..ModelSession::default()
        };
        let filters = state.subscriptions.iter().map(|held| {
            let options = crate::broker::record::session::options_to_u8(held.options);
            (held.filter.to_string(), options, held.id)
        });
        session.filters = filters.collect();
        for unsettled in state.unsettled() {
            let copy = unsettled.message.map(|message| Copy {
                offset: unsettled.how.offset,
                qos: unsettled.how.qos.as_u8(),
                retain: unsettled.how.retain,
                ids: unsettled.how.ids.with(<[u32]>::to_vec),
                share: unsettled.how.share.as_deref().map(str::to_owned),
                payload: payload(&message),
            });
            match unsettled.progress {
                Progress::Waiting => session.waiting.push(copy.unwrap()),
                // An id of its own, so that it stays before what has one.
                Progress::Sent(_) if unsettled.how.qos == QoS::AtLeastOnce => {
                    session.waiting.push(copy.unwrap());
                }
                Progress::Sent(id) => session.sent.push((id.get(), copy.unwrap())),
                Progress::Received(id) => {
                    session.received.push((id.get(), unsettled.how.offset));
                }
            }
        }
        session.will = state.will.as_ref().map(|will| {
            assert_eq!((will.delay_s, will.expiry_s), (3, Some(9)));
            assert_eq!(stored.publisher.identity, key.identity.as_u128());
            let text = String::from_utf8(will.content.payload().to_vec()).unwrap();
            (text, stored.publisher.credential)
        });
        model.sessions.insert(stored.number, session);
    }
    let mut cursor = Cursor::new(Filter::new("#").unwrap(), u64::MAX);
    let mut found = Vec::new();
    while restored.retained.step(&mut cursor, 2_000, &mut found) == Walked::More {}
    for found in found {
        let last = (payload(&found.message), found.offset);
        model.retained.insert(found.topic.to_string(), last);
    }
    model
}

fn payload(message: &Message) -> String {
    let content = message.content();
    assert_eq!(content.properties(), b"\x01\x01");
    String::from_utf8(content.payload().to_vec()).unwrap()
}

/// One step of a random history: what is done, and three numbers for it.
fn step(rig: &mut Rig, [what, a, b, c]: [u16; 4]) {
    let numbers: Vec<u32> = rig.model.sessions.keys().copied().collect();
    let pick = |n: u16| numbers.get(usize::from(n) % numbers.len().max(1)).copied();
    let device = rig.devices[usize::from(a) % rig.devices.len()];
    match (what % 16, pick(a)) {
        (0 | 1, _) | (_, None) => {
            let number = u32::try_from(rig.next()).unwrap();
            let client = format!("client {number}");
            rig.begin(number, device, &client);
        }
        (2, Some(number)) => rig.end(number),
        (3, Some(number)) => {
            let id = (c % 2 == 0).then_some(u32::from(c) + 1);
            rig.subscribe(
                number,
                ["a/#", "+/b"][usize::from(b % 2)],
                (b % 3) as u8,
                id,
            );
        }
        (4..=8, Some(number)) => {
            let chosen = numbers.iter().enumerate();
            let chosen = chosen.filter(|(at, _)| c >> (at % 16) & 1 == 1);
            let mut to: Vec<u32> = chosen.map(|(_, number)| *number).collect();
            to.push(998); // somebody who is not there any more
            let packet_id = if b % 3 == 0 { c % 5 + 1 } else { 0 };
            let sent = Sent {
                publisher: device,
                session: if packet_id == 0 { 0 } else { number },
                packet_id,
                topic: ["a/b", "c", "d/e"][usize::from(b) % 3],
                payload: ["text", "more", ""][usize::from(c) % 3],
                flags: Flags {
                    retain: b % 2 == 0,
                    will: false,
                },
            };
            rig.message(&sent, &to);
        }
        (9, Some(_)) => rig.assign(),
        (10, Some(_)) => rig.receive(),
        (11 | 12, Some(_)) => rig.settle(b),
        (13, Some(number)) => rig.will(number, (b % 3 > 0).then_some("gone")),
        (14, Some(number)) => {
            let sent = Sent {
                publisher: device,
                session: number,
                packet_id: 0,
                topic: "will/of",
                payload: "gone",
                flags: Flags {
                    retain: true,
                    will: true,
                },
            };
            rig.message(&sent, &numbers);
        }
        (_, Some(number)) => {
            let session = rig.model.sessions.get_mut(&number).unwrap();
            let id = session.unreleased.pop_first().unwrap_or(77);
            let device = session.device;
            let mut header = header(RecordKind::Release, device, number);
            header.packet_id = id;
            rig.push(header, Vec::new());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn rel_06_a_start_after_any_record_finds_what_a_list_would(
        steps in proptest::collection::vec(any::<[u16; 4]>(), 1..50),
        others in proptest::collection::vec(any::<(u8, u8)>(), 50),
    ) {
        let mut rig = Rig::new();
        for (raw, (other, more)) in steps.into_iter().zip(others) {
            step(&mut rig, raw);
            rig.check();
            match other % 8 {
                0 => rig.checkpoint(),
                1 => rig.kill(),
                2 => rig.kill_in_checkpoint(usize::from(more % 16)),
                3 => {
                    rig.checkpoint();
                    rig.kill();
                }
                _ => continue,
            }
            rig.check();
        }
        // And whatever came before: after a checkpoint nothing is needed but the database.
        rig.checkpoint();
        rig.kill();
        rig.check();
        let empty = |changes: &Changes| changes.changed.is_empty() && changes.bytes() == 0;
        prop_assert!(empty(&rig.shadow.changes));
        assert_no_garbage(&rig);
    }
}

/// Nothing is left in the tables of what is not in the model.
#[track_caller]
fn assert_no_garbage(rig: &Rig) {
    let count = |sql: &'static str| {
        let read = rig
            .store
            .read(|connection| Ok(connection.query_row(sql, [], |row| row.get::<_, u32>(0))?));
        usize::try_from(read.unwrap()).unwrap()
    };
    let sessions = rig.model.sessions.values();
    let queued: BTreeSet<u64> = sessions
        .clone()
        .flat_map(|session| {
            let waiting = session.waiting.iter().map(|copy| copy.offset);
            let sent = session.sent.iter().map(|(_, copy)| copy.offset);
            let received = session.received.iter().map(|(_, offset)| *offset);
            waiting.chain(sent).chain(received).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(count("SELECT count(*) FROM session"), sessions.len());
    assert_eq!(count("SELECT count(*) FROM message"), queued.len());
    let wills = sessions.filter(|session| session.will.is_some()).count();
    assert_eq!(count("SELECT count(*) FROM will"), wills);
    assert_eq!(
        count("SELECT count(*) FROM retained"),
        rig.model.retained.len()
    );
    let strays = "SELECT count(*) FROM queued
                  WHERE session NOT IN (SELECT number FROM session)
                     OR offset NOT IN (SELECT offset FROM message)";
    assert_eq!(count(strays), 0);
}

fn plain(publisher: Uuid, topic: &'static str, retain: bool) -> Sent<'static> {
    Sent {
        publisher,
        session: 0,
        packet_id: 0,
        topic,
        payload: "text",
        flags: Flags {
            retain,
            will: false,
        },
    }
}

impl Rig {
    fn row(&self, device: Uuid) -> devices::DeviceRow {
        let row = self
            .store
            .read(|connection| devices::by_id(connection, device));
        row.unwrap().unwrap()
    }

    /// As the registry does it: one transaction.
    fn revoke(&mut self, device: Uuid) {
        let row = self.row(device);
        let revoked = self.store.write(move |transaction| {
            devices::end_credentials(transaction, &row, 2, 16)?;
            devices::set_generation(transaction, &row, row.generation + 1)?;
            devices::drop_sessions(transaction, device)
        });
        revoked.unwrap();
    }

    fn new_credential(&mut self, device: Uuid) {
        let row = self.row(device);
        let added = self.store.write(move |transaction| {
            devices::set_generation(transaction, &row, row.generation + 1)?;
            let new = NewCredential {
                kind: 0,
                digest: [99; 32],
                chosen: false,
                created_ms: 3,
                expires_ms: None,
            };
            devices::insert_credential(transaction, &row, &new)
        });
        added.unwrap();
    }
}

/// Killed right behind the revocation: the journal holds no word of it, and the identity can
/// connect again with a new credential.
#[test]
fn sec_34_a_replay_brings_nothing_of_a_revoked_identity_back() {
    for checkpoints in 0..4 {
        let mut rig = Rig::new();
        let [revoked, other, _] = rig.devices[..] else {
            unreachable!()
        };
        rig.begin(1, revoked, "a");
        rig.begin(2, other, "b");
        rig.will(1, Some("gone"));
        rig.message(&plain(revoked, "theirs", true), &[1, 2]);
        rig.message(&plain(other, "replaced", true), &[1]);
        if checkpoints & 1 == 1 {
            rig.checkpoint();
        }
        rig.message(&plain(revoked, "replaced", true), &[]);
        rig.check();
        rig.revoke(revoked);
        rig.new_credential(revoked);
        if checkpoints & 2 == 2 {
            rig.checkpoint(); // the session's end did not find room in the journal
        }
        rig.kill();
        rig.model.sessions.remove(&1);
        // What it published to others stays theirs; what it retained goes, and what it replaced
        // does not come back.
        rig.model.retained.clear();
        rig.check();
        // The new credential begins anew, and its state counts.
        let mut body = Vec::new();
        encode(60, "a", &SubscriptionSet::default(), &mut body);
        let mut begin = header(RecordKind::SessionBegin, revoked, 3);
        begin.generation = 3;
        rig.push(begin, body);
        rig.kill();
        let session = ModelSession {
            device: revoked,
            client: "a".to_owned(),
            expiry_s: 60,
            ..ModelSession::default()
        };
        rig.model.sessions.insert(3, session);
        rig.check();
        rig.checkpoint();
        rig.kill();
        rig.check();
        assert_no_garbage(&rig);
    }
}

#[test]
fn sec_35_a_deleted_identity_leaves_nothing() {
    let mut rig = Rig::new();
    let [deleted, other, _] = rig.devices[..] else {
        unreachable!()
    };
    rig.begin(1, deleted, "a");
    rig.will(1, Some("gone"));
    rig.message(&plain(other, "kept", true), &[1]);
    rig.message(&plain(deleted, "gone", true), &[1]);
    rig.checkpoint();
    let row = rig.row(deleted);
    let buried = rig.store.write(move |transaction| {
        devices::drop_sessions(transaction, deleted)?;
        devices::bury(transaction, &row, 9, 9)
    });
    buried.unwrap();
    rig.kill();
    rig.model.sessions.clear();
    rig.model.retained.remove("gone");
    rig.check();
    assert_no_garbage(&rig);
}

/// Rotation is no revocation: what the credential before left is the identity's.
#[test]
fn sec_53_state_stays_when_a_token_is_rotated() {
    let mut rig = Rig::new();
    let device = rig.devices[0];
    rig.begin(1, device, "a");
    rig.will(1, Some("gone"));
    rig.message(&plain(device, "mine", true), &[1]);
    rig.new_credential(device);
    for _ in 0..2 {
        rig.kill();
        rig.check();
        rig.checkpoint();
    }
}

/// A will ends with the credential of the connection that set it, its session does not.
#[test]
fn sec_37_a_will_of_a_credential_that_ended_is_not_restored() {
    for checkpoint in [false, true] {
        let mut rig = Rig::new();
        let device = rig.devices[0];
        rig.begin(1, device, "a");
        rig.will(1, Some("gone"));
        rig.message(&plain(device, "mine", true), &[1]);
        if checkpoint {
            rig.checkpoint();
        }
        let row = rig.row(device);
        let ended = rig
            .store
            .write(move |transaction| devices::end_credentials(transaction, &row, 2, 16));
        ended.unwrap();
        rig.new_credential(device);
        rig.kill();
        rig.model.sessions.get_mut(&1).unwrap().will = None;
        rig.check();
        rig.checkpoint();
        rig.kill();
        rig.check();
        assert_no_garbage(&rig);
    }
}

/// It subscribed on another worker, and a message for it was written down a moment before.
#[test]
fn a_message_may_stand_before_the_begin_of_its_session() {
    let mut rig = Rig::new();
    let device = rig.devices[0];
    rig.message(&plain(device, "t", false), &[1]);
    rig.begin(1, device, "a");
    let restored = rig.restored();
    assert_eq!(restored.sessions[0].1.state.queue.len(), 1);
}

/// The later of two sessions of one client is the one; the end of the earlier is lost.
#[test]
fn of_two_sessions_with_one_key_the_later_stays() {
    for checkpoint in [false, true] {
        let mut rig = Rig::new();
        let device = rig.devices[0];
        rig.begin(1, device, "same");
        rig.message(&plain(device, "t", false), &[1]);
        if checkpoint {
            rig.checkpoint();
        }
        rig.begin(2, device, "same");
        rig.message(&plain(device, "t", false), &[2]);
        rig.model.sessions.remove(&1);
        rig.check();
        rig.checkpoint();
        rig.kill();
        rig.check();
        assert_no_garbage(&rig);
    }
}

#[test]
fn a_message_that_came_and_went_between_two_checkpoints_costs_nothing() {
    let mut rig = Rig::new();
    let device = rig.devices[0];
    rig.begin(1, device, "a");
    rig.checkpoint();
    for _ in 0..100 {
        rig.message(&plain(device, "t", false), &[1]);
        rig.settle(2);
        assert_eq!(rig.shadow.changes.bytes(), 0);
    }
    assert_eq!(save::writes(&rig.shadow).len(), 0);
}

#[test]
fn expired_messages_are_not_restored_and_their_rows_go() {
    let mut rig = Rig::new();
    let device = rig.devices[0];
    let topic = Topic::new("short").unwrap();
    let content = Content::from_parts(topic, b"\x01\x01", b"x", QoS::AtMostOnce, true);
    let publisher = Publisher {
        identity: device.as_u128(),
        credential: 5,
        generation: 1,
    };
    let flags = Flags {
        retain: true,
        will: false,
    };
    let message = Message::restored(content, publisher, 1_000, Some(1_999));
    let fixed = &mut Fixed::default();
    let body = message::parts(&message, flags, &Targets::default(), fixed).concat();
    rig.push(message::header(&message, 0, None), body);
    rig.check();
    rig.checkpoint();
    rig.check();
    save::save(&mut rig.shadow, &rig.store, 2_000).unwrap();
    assert_no_garbage(&rig);
}

/// What cannot be read is passed over, with everything else in order.
#[test]
fn records_of_another_version_are_passed_over() {
    let mut rig = Rig::new();
    let device = rig.devices[0];
    rig.begin(1, device, "a");
    for kind in [
        RecordKind::Message,
        RecordKind::Assigned,
        RecordKind::Received,
        RecordKind::Settled,
        RecordKind::Will,
        RecordKind::SessionChange,
        RecordKind::FeedProgress,
    ] {
        rig.push(header(kind, device, 1), vec![0xff; 5]);
        rig.check();
    }
    rig.message(&plain(device, "t", true), &[1]);
    rig.check();
}
