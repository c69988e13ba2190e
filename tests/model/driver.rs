//! Plays steps on a real broker and on the reference, and compares what every client sees.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    common::{
        client::{Message, publish_bytes},
        packets::{Connect, Version, log_in, packet, property_block, reason, text},
        wire::Wire,
    },
    reference::{Delivery, Options, Reference, Seen, Will},
    shares,
    steps::{How, Step, WillStep},
};

pub(crate) const TOPICS: &[&str] = &["a", "a/b", "a/b/c", "b", "b/b"];
pub(crate) const FILTERS: &[&str] = &["a", "a/b", "a/+", "a/#", "+/b", "b", "b/#", "#"];

/// Clients 0 and 1 may do anything in the place of the sequence; client 2 may publish and receive
/// what is below `a`. Clients 0 and 2 speak MQTT 5, client 1 speaks 3.1.1.
pub(crate) const CLIENTS: usize = 3;
const NARROW: usize = 2;

/// The place of the share group's topic behind [`TOPICS`].
pub(crate) const SHARED: usize = TOPICS.len();

/// What client 2 may do, below the first level that is the sequence's own.
pub(crate) const NARROW_SCOPE: &str = "+/a/#";

/// And what is left of it.
const NARROWER_SCOPE: &str = "+/a/b/#";

/// How long a packet may take before it counts as missing.
pub(crate) fn packet_limit() -> Duration {
    match IS_SHRINKING.load(Ordering::Relaxed) {
        true => Duration::from_secs(4),
        false => Duration::from_secs(60),
    }
}

/// A difference is made smaller: where one is missing, it is missing again.
pub(crate) static IS_SHRINKING: AtomicBool = AtomicBool::new(false);

/// How long one of several is listened to, before the next one is.
const SOON: Duration = Duration::from_millis(1);

/// Longer than a sequence takes.
const DELAY_S: u32 = 86_400;

fn version(client: usize) -> Version {
    [Version::V5, Version::V311, Version::V5][client]
}

fn may_publish(client: usize, topic: &str, is_narrowed: bool) -> bool {
    let branch = if is_narrowed { "a/b" } else { "a" };
    let rest = topic.strip_prefix(branch);
    client != NARROW || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// No filter of the list has a wildcard where only the narrower branch may follow.
fn may_subscribe(client: usize, filter: &str, is_narrowed: bool) -> bool {
    may_publish(client, filter, is_narrowed)
}

/// The broker and the tokens of its two applications: one that may do anything, and a narrow one.
pub(crate) struct Ground {
    pub(crate) address: SocketAddr,
    pub(crate) admin: Admin,
    pub(crate) wide: String,
    pub(crate) narrow: String,
}

/// The admin API.
pub(crate) struct Admin {
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Admin {
    fn ask(&self, method: &str, path: &str, wanted: &Value) -> Value {
        let url = format!("{}/admin/v1/apps{path}", self.url);
        let request = match method {
            "PATCH" => ureq::patch(url),
            _ => ureq::post(url),
        };
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let mut reply = request
            .send_json(wanted)
            .unwrap_or_else(|error| panic!("{method} {path} {wanted}: {error}"));
        reply.body_mut().read_json().expect("JSON")
    }

    /// A new application; its token.
    pub(crate) fn create(&self, name: &str, filter: &str) -> String {
        let wanted = json!({"name": name, "publish": [filter], "subscribe": [filter]});
        let created = self.ask("POST", "", &wanted);
        created["token"].as_str().expect("a token").to_owned()
    }

    fn narrow(&self, name: &str, filter: &str) {
        let wanted = json!({"publish": [filter], "subscribe": [filter]});
        self.ask("PATCH", &format!("/{name}/scope"), &wanted);
    }

    fn revoke(&self, name: &str) {
        self.ask("POST", &format!("/{name}/revoke"), &json!({}));
    }

    fn delete(&self, name: &str) {
        let request = ureq::delete(format!("{}/admin/v1/apps/{name}", self.url));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        request.call().expect("it is deleted");
    }
}

/// One client's socket and what came by it.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    pub(crate) version: Version,
    messages: VecDeque<Message>,
    pubrels: VecDeque<u16>,
    /// What was published at QoS 0 just before it came: it gets that or not.
    maybe: Vec<String>,
    /// A retained message may be one for a SUBSCRIBE.
    has_subscribed: bool,
}

impl Peer {
    fn new(wire: Wire, version: Version) -> Peer {
        Peer {
            wire,
            version,
            messages: VecDeque::new(),
            pubrels: VecDeque::new(),
            maybe: Vec::new(),
            has_subscribed: false,
        }
    }

    /// The next packet; one that does not come is a difference.
    fn packet(&mut self) -> Vec<u8> {
        let packet = self.wire.packet_or_close(packet_limit());
        packet.unwrap_or_else(|| panic!("closed before a packet"))
    }

    /// Reads until a packet is there that is neither PUBLISH nor PUBREL.
    pub(crate) fn answer(&mut self) -> Vec<u8> {
        loop {
            let packet = self.packet();
            if !self.sort(&packet) {
                return packet;
            }
        }
    }

    fn sort(&mut self, packet: &[u8]) -> bool {
        match packet[0] >> 4 {
            3 => {
                let message = Message::read(self.version, packet);
                let may_be_late = message.qos == 0 && !(message.retain && self.has_subscribed);
                if !may_be_late || !self.maybe.contains(&message.text()) {
                    self.messages.push_back(message);
                }
            }
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

    /// The next message, if it comes soon.
    pub(crate) fn message_soon(&mut self) -> Option<Message> {
        if self.messages.is_empty()
            && let Some(packet) = self.wire.packet_within(SOON)
        {
            assert!(self.sort(&packet), "unexpected {packet:02x?}");
        }
        self.messages.pop_front()
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
    pub(crate) place: String,
    pub(crate) reference: Reference,
    pub(crate) peers: Vec<Option<Peer>>,
    /// The packet ids of what is open, beside the reference's `sent`.
    pub(crate) ids: Vec<Vec<u16>>,
    /// What each client has begun and not released: id and the bytes of the PUBLISH.
    begun: Vec<Option<u16>>,
    next_id: u16,
    next_payload: u32,
    /// The application of the narrow client, where the sequence changes its rights, and its token.
    own: Option<(String, String)>,
    is_revoked: bool,
    /// Sees everything, so that it is known when a will has been published.
    witness: Option<Peer>,
}

impl<'g> Play<'g> {
    /// To play these steps in this place.
    pub(crate) fn new(
        ground: &'g Ground,
        place: String,
        is_forgetful: bool,
        steps: &[Step],
    ) -> Play<'g> {
        let has_wills = |step: &Step| matches!(step, Step::Connect { will: Some(_), .. });
        let has_rights = |step: &Step| matches!(step, Step::Narrow | Step::Revoke);
        let own = steps.iter().any(has_rights).then(|| {
            let name = format!("narrow-{place}");
            let token = ground.admin.create(&name, NARROW_SCOPE);
            (name, token)
        });
        let has_wills = steps.iter().any(has_wills);
        let witness = has_wills.then(|| witness(ground, &place));
        Play {
            ground,
            place,
            reference: Reference {
                may_publish,
                may_subscribe,
                is_forgetful,
                ..Reference::new(TOPICS, FILTERS, CLIENTS)
            },
            peers: (0..CLIENTS).map(|_| None).collect(),
            ids: vec![Vec::new(); CLIENTS],
            begun: vec![None; CLIENTS],
            next_id: 0,
            next_payload: 0,
            own,
            is_revoked: false,
            witness,
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
                will,
            } => self.connect(client, (clean, is_kept), window, will),
            Step::End { client, how } => self.end(client, how),
            Step::Narrow => self.narrow(),
            Step::Revoke => self.revoke(),
            Step::Join { client, qos } => self.join(client, qos),
            Step::Leave { client } => self.leave(client),
            Step::Share { client, qos } => self.share(client, qos),
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

    fn connect(
        &mut self,
        client: usize,
        (clean, is_kept): (bool, bool),
        window: u16,
        will: Option<WillStep>,
    ) {
        let version = version(client);
        // 3.1.1 has one bit for both, and neither a window nor a delay.
        let is_v5 = version == Version::V5;
        let (clean, is_kept, window) = match is_v5 {
            true => (clean, is_kept, window),
            false => (!is_kept, is_kept, u16::MAX),
        };
        let Some(handed) = self.handed(client, clean) else {
            return;
        };
        let will = will.map(|will| self.will(will, is_v5));
        let id = format!("{}-{client}", self.place);
        let mut connect = Connect::with_token(version, &id, self.token(client));
        if is_v5 {
            connect = connect.receive_maximum(window);
            if is_kept {
                connect = connect.kept();
            }
        }
        connect.clean = clean;
        let will_topic = will.as_ref().map(|will| self.topic(will.topic));
        if let (Some(will), Some(topic)) = (&will, &will_topic) {
            connect.will = Some((will.qos, will.retain, topic, will.payload.as_bytes()));
            if will.is_delayed {
                connect = connect.will_delay(DELAY_S);
            }
        }
        let may = |will: &Will| {
            let is_narrowed = self.reference.is_narrowed;
            may_publish(client, TOPICS[will.topic], is_narrowed)
        };
        let is_refused =
            (client == NARROW && self.is_revoked) || will.as_ref().is_some_and(|will| !may(will));
        let mut wire = Wire::connect(self.ground.address);
        if is_refused {
            wire.send(&connect.encode());
            let connack = wire.packet();
            assert_ne!(connack[3], 0, "no right to connect: {connack:02x?}");
            return;
        }
        let connack = log_in(&mut wire, &connect);
        self.replace(client, wire);
        self.forget_handed(client, &handed);
        self.forget_withdrawn(client);
        let (is_present, all) =
            self.reference
                .connect(client, (clean, is_kept), usize::from(window), will);
        assert_eq!(
            connack[2] == 1,
            is_present,
            "session present of client {client}"
        );
        if !is_present {
            self.ids[client].clear();
            self.begun[client] = None;
        }
        self.await_wills();
        self.check_all(Some(all));
        self.find_takers(handed);
    }

    fn will(&mut self, step: WillStep, is_v5: bool) -> Will {
        Will {
            topic: step.topic,
            qos: step.qos,
            retain: step.retain,
            is_delayed: step.is_delayed && is_v5,
            payload: format!("will {}", self.fresh_payload()),
        }
    }

    /// The client has another connection now.
    fn replace(&mut self, client: usize, wire: Wire) {
        if let Some(mut old) = self.peers[client].take() {
            old.wire.skip_until_close();
        }
        let mut maybe = Vec::new();
        if let Some(before) = &mut self.reference.sessions[client] {
            maybe.append(&mut before.missed);
            maybe.extend(before.will.as_ref().map(|will| will.payload.clone()));
        }
        self.peers[client] = Some(Peer {
            maybe,
            ..Peer::new(wire, version(client))
        });
    }

    fn token(&self, client: usize) -> &'g str {
        match &self.own {
            _ if client != NARROW => &self.ground.wide,
            // A sequence that changes rights is rare: its token lives as long as the test.
            Some((_, token)) => String::leak(token.clone()),
            None => &self.ground.narrow,
        }
    }

    fn end(&mut self, client: usize, how: How) {
        if self.peers[client].is_none() {
            return;
        }
        let Some(handed) = self.handed(client, false) else {
            return;
        };
        let mut peer = self.peers[client].take().expect("it is there");
        let is_v5 = peer.version == Version::V5;
        match how {
            How::GoodbyeWithWill if is_v5 => peer.wire.send(&[0xe0, 1, 4]),
            How::Goodbye => peer.wire.send(&[0xe0, 0]),
            How::GoodbyeWithWill | How::Lost => peer.wire.half_close(),
        }
        peer.wire.skip_until_close();
        self.forget_handed(client, &handed);
        let all = self.reference.end(client, how == How::Goodbye);
        self.await_wills();
        self.check_all(Some(all));
        self.find_takers(handed);
    }

    /// Waits until the wills that are due have been published.
    fn await_wills(&mut self) {
        for payload in std::mem::take(&mut self.reference.wills) {
            let witness = self.witness.as_mut().expect("there are wills");
            let is_retained = loop {
                let message = witness.message();
                if message.text() == payload {
                    break message.retain;
                }
            };
            // A copy of QoS 0 may be seen before its record has a place in the journal, and what
            // another publishes then may stand before it. What a SUBSCRIBE finds has its place.
            if is_retained {
                watch(witness, &self.place);
                while witness.message().text() != payload {}
            }
        }
    }

    fn narrow(&mut self) {
        let Some((name, _)) = &self.own else { return };
        if self.is_revoked {
            return;
        }
        let is_first = !self.reference.is_narrowed;
        self.ground.admin.narrow(name, NARROWER_SCOPE);
        if !is_first {
            return;
        }
        self.reference.narrow(NARROW);
        self.forget_forbidden();
    }

    /// What the narrow client may not receive any more is not sent, nor sent again. What it has
    /// holds its place until it acknowledges it, or its connection ends.
    fn forget_forbidden(&mut self) {
        let Some(mut session) = self.reference.sessions[NARROW].take() else {
            self.ids[NARROW].clear();
            self.begun[NARROW] = None;
            return;
        };
        let may = |delivery: &Delivery| self.reference.may_be_sent(NARROW, delivery);
        session.waiting.retain(may);
        if self.peers[NARROW].is_some() {
            self.reference.sessions[NARROW] = Some(session);
            return;
        }
        let ids = std::mem::take(&mut self.ids[NARROW]).into_iter();
        let open = std::mem::take(&mut session.sent).into_iter().zip(ids);
        let stays = open.filter(|(sent, _)| sent.is_received || may(&sent.delivery));
        (session.sent, self.ids[NARROW]) = stays.unzip();
        self.reference.sessions[NARROW] = Some(session);
    }

    /// The older connection of the narrow client is over, and with it what only held a place.
    fn forget_withdrawn(&mut self, client: usize) {
        if client == NARROW && self.reference.is_narrowed {
            let new = self.peers[NARROW].take();
            self.forget_forbidden();
            self.peers[NARROW] = new;
        }
    }

    fn revoke(&mut self) {
        let Some((name, _)) = &self.own else { return };
        self.ground.admin.revoke(name);
        self.is_revoked = true;
        if let Some(mut peer) = self.peers[NARROW].take() {
            peer.wire.skip_until_close();
        }
        self.reference.revoke(NARROW);
        self.ids[NARROW].clear();
        self.begun[NARROW] = None;
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
        if !self.makes_room(client, filter, options) {
            return;
        }
        let peer = self.peers[client].as_mut().expect("it is connected");
        peer.has_subscribed = true;
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

    /// Settles until what is retained for a SUBSCRIBE fits into the client's window; false if it
    /// cannot. What does not fit may come behind what is published later: the standard says
    /// nothing of this order, and the messages of other sequences can hold it back.
    fn makes_room(&mut self, client: usize, filter: usize, options: Options) -> bool {
        let coming = self.reference.retained_count(client, filter, options);
        loop {
            let session = self.reference.sessions[client].as_ref().expect("connected");
            if coming == 0 || session.sent.len() + session.waiting.len() + coming <= session.window
            {
                return true;
            }
            if session.sent.is_empty() {
                return false;
            }
            self.settle(client);
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
        if version(client) == Version::V5 {
            assert_eq!(unsuback.last(), Some(if was_there { &0 } else { &0x11 }));
        }
    }

    fn publish(&mut self, client: usize, topic: usize, qos: u8, retain: bool, is_empty: bool) {
        let name = self.topic(topic);
        // Where nothing is told from nothing.
        let payload = if is_empty && !self.reference.is_missed(topic, qos) {
            String::new()
        } else {
            self.fresh_payload()
        };
        let Some(code) = self.send(client, &name, qos << 1 | u8::from(retain), &payload) else {
            return;
        };
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

    /// Publishes with the whole handshake; the reason, if the client is connected.
    pub(crate) fn send(
        &mut self,
        client: usize,
        name: &str,
        flags: u8,
        payload: &str,
    ) -> Option<u8> {
        let id = self.fresh_id();
        let peer = self.peers[client].as_mut()?;
        let qos = flags >> 1;
        let bytes = publish_bytes(peer.version, flags, id, name, &[], payload.as_bytes());
        peer.wire.send(&bytes);
        let mut code = 0;
        match qos {
            0 => {
                // It has no acknowledgement: that of a message behind it says that it is handled.
                let behind = format!("{}-behind/a/b", self.place);
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
        Some(code)
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
        let session = self.reference.sessions[client].as_mut();
        assert!(
            new.is_empty()
                || session.is_some_and(|held| held.reorder(&new, |one| shown(client, one))),
            "client {client}: {new:#?} not {:#?}",
            seen.new
        );
        let mut loose: Vec<_> = messages.into_iter().map(|m| read(&place, m)).collect();
        let mut expected: Vec<_> = seen.loose.iter().map(|new| shown(client, new)).collect();
        loose.sort();
        expected.sort();
        assert_eq!(loose, expected, "QoS 0 of client {client}");
    }

    /// Has everything delivered, shows that nothing more was on its way, and ends all sessions.
    pub(crate) fn finish(mut self) {
        for client in 0..CLIENTS {
            let session = &self.reference.sessions[client];
            if let Some(window) = session.as_ref().map(|held| held.window)
                && self.peers[client].is_none()
            {
                let window = u16::try_from(window).expect("a small window");
                self.connect(client, (false, true), window, None);
            }
            while let Some(session) = &self.reference.sessions[client]
                && !session.sent.is_empty()
            {
                self.settle(client);
            }
        }
        for client in 0..CLIENTS {
            if let Some(mut peer) = self.peers[client].take() {
                peer.wire.send(&[0xc0, 0]);
                assert_eq!(peer.answer()[0], 0xd0);
                assert!(peer.messages.is_empty(), "too much: {:?}", peer.messages);
                assert!(peer.pubrels.is_empty(), "too much: {:?}", peer.pubrels);
                self.peers[client] = Some(peer);
            }
            self.connect(client, (true, false), 10, None);
        }
        for topic in 0..TOPICS.len() {
            self.publish(0, topic, 1, true, true);
        }
        if let Some((name, _)) = &self.own {
            self.ground.admin.delete(name);
        }
        if self.witness.is_some() {
            end_witness(self.ground, &self.place);
        }
    }

    pub(crate) fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn fresh_payload(&mut self) -> String {
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
pub(crate) fn read(place: &str, message: Message) -> Delivery {
    let topic = message
        .topic
        .strip_prefix(place)
        .and_then(|rest| rest.strip_prefix('/'));
    let topic = topic.and_then(|name| TOPICS.iter().position(|known| *known == name));
    let topic = topic.or((message.topic == shares::topic(place)).then_some(SHARED));
    let ids = message.subscription_ids().into_iter();
    Delivery {
        topic: topic.unwrap_or_else(|| panic!("a topic of this place: {message:?}")),
        qos: message.qos,
        retain: message.retain,
        payload: message.text(),
        ids: ids.map(|id| u8::try_from(id).expect("small")).collect(),
        share: None,
        from: 0,
    }
}

/// What the reference expects, in the client's version: before MQTT 5 there are no identifiers.
fn shown(client: usize, delivery: &Delivery) -> Delivery {
    let mut delivery = Delivery {
        share: None,
        from: 0,
        ..delivery.clone()
    };
    if version(client) != Version::V5 {
        delivery.ids.clear();
    }
    delivery
}

/// A client that keeps and gets everything of a place.
fn witness(ground: &Ground, place: &str) -> Peer {
    let id = format!("{place}-witness");
    let connect = Connect::with_token(Version::V5, &id, &ground.wide).kept();
    let mut wire = Wire::connect(ground.address);
    log_in(&mut wire, &connect);
    let mut peer = Peer::new(wire, Version::V5);
    watch(&mut peer, place);
    peer
}

/// Subscribes to everything in this place, Retain As Published, and gets what is retained.
fn watch(witness: &mut Peer, place: &str) {
    let filter = format!("{place}/#");
    let subscribe = crate::common::packets::subscribe(Version::V5, 1, &[(&filter, 1 | 8)]);
    witness.wire.send(&subscribe);
    assert_eq!(witness.answer()[0], 0x90);
}

fn end_witness(ground: &Ground, place: &str) {
    let id = format!("{place}-witness");
    let connect = Connect::with_token(Version::V5, &id, &ground.wide);
    log_in(&mut Wire::connect(ground.address), &connect);
}
