//! Plays steps on a real broker and on the reference, and compares what every client sees.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use crate::{
    common::{
        client::{Message, publish_bytes},
        packets::{Connect, Version, log_in, packet, property_block, reason, text},
        wire::Wire,
    },
    reference::{Delivery, Options, Reference, Seen},
    steps::Step,
};

pub(crate) const TOPICS: &[&str] = &["a", "a/b", "a/b/c", "b", "b/b"];
pub(crate) const FILTERS: &[&str] = &["a", "a/b", "a/+", "a/#", "+/b", "b", "b/#", "#"];

/// Clients 0 and 1 may do anything in the place of the sequence; client 2 may publish and receive
/// what is below `a`. Clients 0 and 2 speak MQTT 5, client 1 speaks 3.1.1.
pub(crate) const CLIENTS: usize = 3;
const NARROW: usize = 2;

/// What client 2 may do, below the first level that is the sequence's own.
pub(crate) const NARROW_SCOPE: &str = "+/a/#";

/// How long a packet may take before it counts as missing.
const PACKET_LIMIT: Duration = Duration::from_secs(20);

fn version(client: usize) -> Version {
    [Version::V5, Version::V311, Version::V5][client]
}

fn may_publish(client: usize, topic: &str) -> bool {
    client != NARROW || topic == "a" || topic.starts_with("a/")
}

fn may_subscribe(client: usize, filter: &str) -> bool {
    client != NARROW || filter == "a" || filter.starts_with("a/")
}

/// The broker and the tokens of its two applications: one that may do anything, and a narrow one.
pub(crate) struct Ground {
    pub(crate) address: SocketAddr,
    pub(crate) wide: String,
    pub(crate) narrow: String,
}

/// One client's socket and what came by it.
struct Peer {
    wire: Wire,
    version: Version,
    messages: VecDeque<Message>,
    pubrels: VecDeque<u16>,
}

impl Peer {
    /// The next packet; one that does not come is a difference.
    fn packet(&mut self) -> Vec<u8> {
        let packet = self.wire.packet_or_close(PACKET_LIMIT);
        packet.unwrap_or_else(|| panic!("closed before a packet"))
    }

    /// Reads until a packet is there that is neither PUBLISH nor PUBREL.
    fn answer(&mut self) -> Vec<u8> {
        loop {
            let packet = self.packet();
            if !self.sort(&packet) {
                return packet;
            }
        }
    }

    fn sort(&mut self, packet: &[u8]) -> bool {
        match packet[0] >> 4 {
            3 => self.messages.push_back(Message::read(self.version, packet)),
            6 => self
                .pubrels
                .push_back(u16::from_be_bytes([packet[2], packet[3]])),
            _ => return false,
        }
        true
    }

    fn message(&mut self) -> Message {
        while self.messages.is_empty() {
            let packet = self.packet();
            assert!(self.sort(&packet), "unexpected {packet:02x?}");
        }
        self.messages.pop_front().expect("one is there")
    }

    fn pubrel(&mut self) -> u16 {
        while self.pubrels.is_empty() {
            let packet = self.packet();
            assert!(self.sort(&packet), "unexpected {packet:02x?}");
        }
        self.pubrels.pop_front().expect("one is there")
    }

    fn expect(&mut self, first_byte: u8, id: u16) -> u8 {
        let packet = self.answer();
        assert_eq!(packet[0], first_byte, "{packet:02x?}");
        assert_eq!(packet[2..4], id.to_be_bytes(), "{packet:02x?}");
        reason(&packet)
    }
}

/// A sequence that is being played.
pub(crate) struct Play<'g> {
    ground: &'g Ground,
    place: String,
    reference: Reference,
    peers: Vec<Option<Peer>>,
    /// The packet ids of what is open, beside the reference's `sent`.
    ids: Vec<Vec<u16>>,
    /// What each client has begun and not released: id and the bytes of the PUBLISH.
    begun: Vec<Option<u16>>,
    next_id: u16,
    next_payload: u32,
}

impl<'g> Play<'g> {
    pub(crate) fn new(ground: &'g Ground, place: String, is_forgetful: bool) -> Play<'g> {
        Play {
            ground,
            place,
            reference: Reference {
                topics: TOPICS,
                filters: FILTERS,
                may_publish,
                may_subscribe,
                sessions: (0..CLIENTS).map(|_| None).collect(),
                connected: vec![false; CLIENTS],
                retained: std::collections::BTreeMap::new(),
                is_forgetful,
            },
            peers: (0..CLIENTS).map(|_| None).collect(),
            ids: vec![Vec::new(); CLIENTS],
            begun: vec![None; CLIENTS],
            next_id: 0,
            next_payload: 0,
        }
    }

    fn topic(&self, topic: usize) -> String {
        format!("{}/{}", self.place, TOPICS[topic])
    }

    /// Plays a step; one that makes no sense now is left out.
    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect {
                client,
                clean,
                is_kept,
                window,
            } => self.connect(client, clean, is_kept, window),
            Step::End { client, politely } => self.end(client, politely),
            Step::Subscribe {
                client,
                filter,
                options,
            } => self.subscribe(client, filter, options),
            Step::Unsubscribe { client, filter } => self.unsubscribe(client, filter),
            Step::Publish {
                client,
                topic,
                qos,
                retain,
                is_empty,
            } => self.publish(client, topic, qos, retain, is_empty),
            Step::Begin { client, topic } => self.begin(client, topic),
            Step::Repeat { client } => self.repeat(client),
            Step::Release { client } => self.release(client),
            Step::Settle { client } => self.settle(client),
            Step::Receive { client } => self.receive(client),
        }
    }

    fn connect(&mut self, client: usize, clean: bool, is_kept: bool, window: u16) {
        let version = version(client);
        // 3.1.1 has one bit for both, and no window.
        let (clean, is_kept, window) = match version {
            Version::V5 => (clean, is_kept, window),
            _ => (!is_kept, is_kept, u16::MAX),
        };
        let id = format!("{}-{client}", self.place);
        let token = if client == NARROW {
            &self.ground.narrow
        } else {
            &self.ground.wide
        };
        let mut connect = Connect::with_token(version, &id, token);
        if version == Version::V5 {
            connect = connect.receive_maximum(window);
            if is_kept {
                connect = connect.kept();
            }
        }
        connect.clean = clean;
        let mut wire = Wire::connect(self.ground.address);
        let connack = log_in(&mut wire, &connect);
        if let Some(mut old) = self.peers[client].take() {
            old.wire.skip_until_close();
        }
        self.peers[client] = Some(Peer {
            wire,
            version,
            messages: VecDeque::new(),
            pubrels: VecDeque::new(),
        });
        let (is_present, seen) =
            self.reference
                .connect(client, clean, is_kept, usize::from(window));
        assert_eq!(
            connack[2] == 1,
            is_present,
            "session present of client {client}"
        );
        if !is_present {
            self.ids[client].clear();
            self.begun[client] = None;
        }
        self.check(client, seen);
    }

    fn end(&mut self, client: usize, politely: bool) {
        let Some(mut peer) = self.peers[client].take() else {
            return;
        };
        if politely {
            peer.wire.send(&[0xe0, 0]);
        } else {
            peer.wire.half_close();
        }
        peer.wire.skip_until_close();
        self.reference.end(client);
    }

    fn subscribe(&mut self, client: usize, filter: usize, options: Options) {
        let id = self.fresh_id();
        let place = format!("{}/{}", self.place, FILTERS[filter]);
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let is_v5 = peer.version == Version::V5;
        let options = if is_v5 {
            options
        } else {
            Options {
                qos: options.qos,
                no_local: false,
                as_published: false,
                retain_handling: 0,
                id: 0,
            }
        };
        let mut body = id.to_be_bytes().to_vec();
        if is_v5 {
            let property = [0x0b, options.id];
            property_block(&mut body, if options.id == 0 { &[] } else { &property });
        }
        text(&mut body, &place);
        body.push(
            options.qos
                | u8::from(options.no_local) << 2
                | u8::from(options.as_published) << 3
                | options.retain_handling << 4,
        );
        peer.wire.send(&packet(0x82, &body));
        let suback = peer.answer();
        assert_eq!((suback[0], &suback[2..4]), (0x90, &id.to_be_bytes()[..]));
        let code = *suback.last().expect("a code");
        match self.reference.subscribe(client, filter, options) {
            Some(seen) => {
                assert_eq!(code, options.qos, "granted");
                self.check(client, seen);
            }
            None => assert_eq!(code, if is_v5 { 0x87 } else { 0x80 }, "not allowed"),
        }
    }

    fn unsubscribe(&mut self, client: usize, filter: usize) {
        let id = self.fresh_id();
        let place = format!("{}/{}", self.place, FILTERS[filter]);
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        peer.wire.send(&crate::common::packets::unsubscribe(
            peer.version,
            id,
            &[&place],
        ));
        let unsuback = peer.answer();
        assert_eq!(
            (unsuback[0], &unsuback[2..4]),
            (0xb0, &id.to_be_bytes()[..])
        );
        let was_there = self.reference.unsubscribe(client, filter);
        if version(client) == Version::V5 && may_subscribe(client, FILTERS[filter]) {
            assert_eq!(unsuback.last(), Some(if was_there { &0 } else { &0x11 }));
        }
    }

    fn publish(&mut self, client: usize, topic: usize, qos: u8, retain: bool, is_empty: bool) {
        let (id, name) = (self.fresh_id(), self.topic(topic));
        let payload = if is_empty {
            String::new()
        } else {
            self.fresh_payload()
        };
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let flags = qos << 1 | u8::from(retain);
        let bytes = publish_bytes(peer.version, flags, id, &name, &[], payload.as_bytes());
        peer.wire.send(&bytes);
        let mut code = 0;
        match qos {
            0 => {
                // It has no acknowledgement: that of a message behind it says that it is handled.
                let behind = format!("{}-behind/a", self.place);
                peer.wire
                    .send(&publish_bytes(peer.version, 2, id, &behind, &[], b""));
                assert_eq!(peer.expect(0x40, id), 0);
            }
            1 => code = peer.expect(0x40, id),
            _ => {
                code = peer.expect(0x50, id);
                if code < 0x80 {
                    peer.wire.send(&packet(0x62, &id.to_be_bytes()));
                    assert_eq!(peer.expect(0x70, id), 0);
                }
            }
        }
        let seen = self.reference.publish(client, topic, qos, retain, &payload);
        if qos > 0 {
            let expected = if seen.is_none() && version(client) == Version::V5 {
                0x87
            } else {
                0
            };
            assert_eq!(code, expected, "publish of client {client} to {name}");
        }
        self.check_all(seen);
    }

    fn begin(&mut self, client: usize, topic: usize) {
        let (id, name) = (self.fresh_id(), self.topic(topic));
        let payload = self.fresh_payload();
        if self.begun[client].is_some() {
            return;
        }
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let bytes = publish_bytes(peer.version, 4, id, &name, &[], payload.as_bytes());
        peer.wire.send(&bytes);
        let code = peer.expect(0x50, id);
        let seen = self.reference.publish(client, topic, 2, false, &payload);
        if code < 0x80 {
            self.begun[client] = Some(id);
            let taken = (topic, seen.is_some(), payload);
            let session = self.reference.sessions[client].as_mut().expect("connected");
            session.unreleased.insert(id, taken);
        }
        self.check_all(seen);
    }

    fn repeat(&mut self, client: usize) {
        let (Some(id), Some(session)) = (self.begun[client], &self.reference.sessions[client])
        else {
            return;
        };
        let (topic, was_taken, payload) = session.unreleased[&id].clone();
        let name = self.topic(topic);
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let bytes = publish_bytes(peer.version, 12, id, &name, &[], payload.as_bytes());
        peer.wire.send(&bytes);
        let code = peer.expect(0x50, id);
        assert!(!was_taken || code == 0, "a repeated message");
    }

    fn release(&mut self, client: usize) {
        let (Some(peer), Some(id)) = (&mut self.peers[client], self.begun[client]) else {
            return;
        };
        peer.wire.send(&packet(0x62, &id.to_be_bytes()));
        assert_eq!(peer.expect(0x70, id), 0, "PUBCOMP");
        self.begun[client] = None;
        let session = self.reference.sessions[client].as_mut().expect("connected");
        session.unreleased.remove(&id);
    }

    fn settle(&mut self, client: usize) {
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let session = self.reference.sessions[client].as_ref().expect("connected");
        if session.sent.is_empty() {
            return;
        }
        let id = self.ids[client].remove(0);
        let sent = &session.sent[0];
        if sent.delivery.qos == 1 {
            peer.wire.send(&packet(0x40, &id.to_be_bytes()));
        } else {
            if !sent.is_received {
                peer.wire.send(&packet(0x50, &id.to_be_bytes()));
                assert_eq!(peer.pubrel(), id, "PUBREL");
            }
            peer.wire.send(&packet(0x70, &id.to_be_bytes()));
        }
        // A take-over may pass what is still on its way: it has arrived before this answer.
        peer.wire.send(&[0xc0, 0]);
        assert_eq!(peer.answer()[0], 0xd0);
        let seen = self.reference.settle(client, 0);
        self.check(client, seen);
    }

    fn receive(&mut self, client: usize) {
        let Some(peer) = &mut self.peers[client] else {
            return;
        };
        let session = self.reference.sessions[client].as_mut().expect("connected");
        let mut open = session.sent.iter();
        let Some(place) = open.position(|sent| sent.delivery.qos == 2 && !sent.is_received) else {
            return;
        };
        let sent = &mut session.sent[place];
        let id = self.ids[client][place];
        peer.wire.send(&packet(0x50, &id.to_be_bytes()));
        assert_eq!(peer.pubrel(), id, "PUBREL");
        sent.is_received = true;
    }

    fn check_all(&mut self, seen: Option<Vec<Seen>>) {
        for (client, seen) in seen.into_iter().flatten().enumerate() {
            self.check(client, seen);
        }
    }

    /// Reads what this client must see and compares it.
    fn check(&mut self, client: usize, seen: Seen) {
        let place = self.place.clone();
        let Some(peer) = &mut self.peers[client] else {
            assert_eq!(seen, Seen::default());
            return;
        };
        for at in &seen.released {
            let id = peer.pubrel();
            let open: Vec<u16> = seen
                .released
                .iter()
                .map(|at| self.ids[client][*at])
                .collect();
            assert!(open.contains(&id), "PUBREL {id} of {open:?} at {at}");
        }
        let count = seen.again.len() + seen.new.len() + seen.loose.len();
        let mut messages: Vec<Message> = (0..count).map(|_| peer.message()).collect();
        for at in seen.again {
            let message = take_first(&mut messages, |message| message.qos > 0);
            assert!(message.dup, "sent again without DUP: {message:?}");
            assert_eq!(message.id, self.ids[client][at], "{message:?}");
            let session = self.reference.sessions[client].as_ref().expect("connected");
            let told = read(&place, message);
            assert_eq!(
                told,
                shown(client, &session.sent[at].delivery),
                "client {client}"
            );
        }
        let mut new = Vec::new();
        for _ in &seen.new {
            let message = take_first(&mut messages, |message| message.qos > 0);
            assert!(!message.dup, "sent first with DUP: {message:?}");
            assert!(message.id != 0 && !self.ids[client].contains(&message.id));
            self.ids[client].push(message.id);
            new.push(read(&place, message));
        }
        let expected: Vec<_> = seen.new.iter().map(|new| shown(client, new)).collect();
        self.compare_new(client, new, &expected);
        let mut loose: Vec<_> = messages.into_iter().map(|m| read(&place, m)).collect();
        let mut expected: Vec<_> = seen.loose.iter().map(|new| shown(client, new)).collect();
        loose.sort();
        expected.sort();
        assert_eq!(loose, expected, "QoS 0 of client {client}");
    }

    /// Retained messages of one SUBSCRIBE may come in any order of their topics.
    fn compare_new(&mut self, client: usize, new: Vec<Delivery>, expected: &[Delivery]) {
        if new == expected {
            return;
        }
        let all_retained = expected.iter().all(|delivery| delivery.retain);
        let (mut left, mut right) = (new.clone(), expected.to_vec());
        left.sort();
        right.sort();
        assert!(
            all_retained && left == right,
            "client {client}: {new:#?} not {expected:#?}"
        );
        // The reference takes the order of the broker.
        let session = self.reference.sessions[client].as_mut().expect("connected");
        let begin = session.sent.len() - new.len();
        for (sent, delivery) in session.sent[begin..].iter_mut().zip(new) {
            sent.delivery = delivery;
        }
    }

    /// Shows that nothing more was on its way, and ends all sessions.
    pub(crate) fn finish(mut self) {
        for client in 0..CLIENTS {
            if let Some(mut peer) = self.peers[client].take() {
                peer.wire.send(&[0xc0, 0]);
                assert_eq!(peer.answer()[0], 0xd0);
                assert!(peer.messages.is_empty(), "too much: {:?}", peer.messages);
                assert!(peer.pubrels.is_empty(), "too much: {:?}", peer.pubrels);
                self.peers[client] = Some(peer);
            }
            self.connect(client, true, false, 10);
        }
        for topic in 0..TOPICS.len() {
            self.publish(0, topic, 1, true, true);
        }
    }

    fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    fn fresh_payload(&mut self) -> String {
        self.next_payload += 1;
        self.next_payload.to_string()
    }
}

fn take_first(messages: &mut Vec<Message>, is_it: impl Fn(&Message) -> bool) -> Message {
    let at = messages.iter().position(is_it);
    messages.remove(at.unwrap_or_else(|| panic!("none of QoS 1 or 2 in {messages:?}")))
}

/// A message as the reference speaks of it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is spoken of once, and gone"
)]
fn read(place: &str, message: Message) -> Delivery {
    let topic = message
        .topic
        .strip_prefix(place)
        .and_then(|rest| rest.strip_prefix('/'));
    let topic = topic.and_then(|name| TOPICS.iter().position(|known| *known == name));
    let ids = message.subscription_ids().into_iter();
    Delivery {
        topic: topic.unwrap_or_else(|| panic!("a topic of this place: {message:?}")),
        qos: message.qos,
        retain: message.retain,
        payload: message.text(),
        ids: ids.map(|id| u8::try_from(id).expect("small")).collect(),
    }
}

/// What the reference expects, in the client's version: before MQTT 5 there are no identifiers.
fn shown(client: usize, delivery: &Delivery) -> Delivery {
    let mut delivery = delivery.clone();
    if version(client) != Version::V5 {
        delivery.ids.clear();
    }
    delivery
}
