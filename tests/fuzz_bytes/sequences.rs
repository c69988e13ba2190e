//! Random packets, one after the other, to a session that was let in: a client that says anything,
//! in any order, through reconnects in other versions.
//!
//! What a connection does around a session is done here as it does it: frames, decoder, gate,
//! subscriptions, acknowledgements, deliveries. A failed run names the seed of its sequence.

#![expect(
    clippy::cast_possible_truncation,
    reason = "what is cast is below a small bound, and written so"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::limits::FILTERS_BYTES_MAX;
use tollgate::mqtt::message::{Content, Message, Publisher};
use tollgate::mqtt::session::{
    Close, Delivered, Encoded, Ending, Granted, Ids, Opening, Outgoing, QueueLimits, Refused,
    Replies, Session, SessionLimits, SessionState, Step, Verdict,
};
use tollgate::mqtt::topic::{Filter, Topic};
use tollgate::mqtt::wire::{
    Connect, ConnectProperties, Packet, PacketId, QoS, ReasonCode, Sender, Version, decode, frame,
};

use super::{Random, VERSIONS, fit_length};

/// Packets and events of one sequence.
const STEPS: usize = 200;

const LIMITS: SessionLimits = SessionLimits {
    packet_size_max: 4_096,
    receive_maximum: 4,
    keep_alive_max_s: 7_200,
    session_expiry_max_s: 3_600,
    subscriptions_max: 6,
    filters_per_packet_max: 4,
    unreleased_max: 5,
    topic_aliases_max: 3,
    queue: QueueLimits {
        messages_max: 8,
        bytes_max: 4_096,
    },
};

/// What the client takes of the server's.
#[derive(Clone, Copy)]
struct Wishes {
    version: Version,
    packet_size_max: u32,
    receive_maximum: u16,
    aliases: u16,
}

/// A session with what is around it.
struct Client {
    session: Session,
    wishes: Wishes,
    replies: Replies,
    now: Instant,
    /// Places of acknowledgements that were written and have not left.
    unsent_places: u16,
    /// QoS 2 ids whose PUBREL has not come.
    held: BTreeSet<PacketId>,
    /// Ids of deliveries that are not acknowledged, sent on this connection.
    open: BTreeSet<PacketId>,
    /// Ids that earlier connections used and that are still open.
    before: BTreeSet<PacketId>,
    /// Topics of the aliases that the server gave.
    aliases: BTreeMap<u16, String>,
    /// Assignments that are not durable yet.
    recording: Vec<PacketId>,
    offsets: u64,
}

/// How a step ends.
enum After {
    Goes,
    Over,
}

/// Runs one sequence; what it did, for the figures of the run.
pub(crate) fn run(seed: u64) -> u64 {
    let _named = Named(seed);
    let mut random = Random::of(seed);
    let mut client = Client::connect(&mut random, None);
    let mut packets = 0;
    for _ in 0..STEPS {
        let after = match random.below(10) {
            0 => client.offer(&mut random),
            1 => client.pump(),
            2 => client.acks_leave(),
            3 if random.below(4) == 0 => After::Over,
            _ => {
                packets += 1;
                client.receive(&packet(&client, &mut random))
            }
        };
        client.check();
        if let After::Over = after {
            client = client.reconnect(&mut random);
        }
    }
    packets
}

impl Client {
    fn connect(random: &mut Random, state: Option<(SessionState, Client)>) -> Client {
        let version = VERSIONS[random.below(3)];
        let is_v5 = version == Version::V5;
        let pick = |random: &mut Random, values: [u32; 3], other: u32| match is_v5 {
            true => values[random.below(3)],
            false => other,
        };
        let wishes = Wishes {
            version,
            packet_size_max: pick(random, [60, 200, u32::MAX], u32::MAX),
            receive_maximum: pick(random, [1, 3, 65_535], 65_535) as u16,
            aliases: pick(random, [0, 1, 10], 0) as u16,
        };
        let mut properties = ConnectProperties::default();
        if is_v5 {
            properties.session_expiry_s = Some(60);
            properties.packet_size_max = Some(wishes.packet_size_max);
            properties.receive_maximum = Some(wishes.receive_maximum);
            properties.topic_alias_maximum = Some(wishes.aliases);
            properties.request_problem_information = Some(random.below(2) == 0);
        }
        let connect = Connect {
            version,
            clean_start: state.is_none(),
            keep_alive_s: 60,
            client_id: "c",
            will: None,
            user_name: None,
            password: None,
            properties,
        };
        let opening = Opening::new(&connect).expect("nothing in it is refused");
        let now = Instant::now();
        let (state, before) = match state {
            Some((state, before)) => (Some(state), Some(before)),
            None => (None, None),
        };
        let session = Session::open(&opening, LIMITS, state, now);
        let held = session.state().unreleased.iter().collect();
        let open = before.as_ref().map(|it| it.open.union(&it.before));
        let mut client = Client {
            session,
            wishes,
            replies: Replies::default(),
            now,
            unsent_places: 0,
            held,
            open: BTreeSet::new(),
            before: open.map(|ids| ids.copied().collect()).unwrap_or_default(),
            aliases: BTreeMap::new(),
            recording: Vec::new(),
            offsets: before.map_or(1, |it| it.offsets),
        };
        let is_present = !client.held.is_empty();
        client
            .session
            .accept(&opening, is_present, true, None, &mut client.replies);
        // A client that takes no CONNACK is turned away by the greeter.
        let connack = std::mem::take(&mut client.replies.ordered);
        assert!(matches!(
            decode(version, Sender::Server, &connack),
            Ok(Packet::ConnAck(_))
        ));
        client
    }

    fn reconnect(mut self, random: &mut Random) -> Client {
        let state = self.session.take_state();
        if random.below(4) == 0 {
            return Client::connect(random, None);
        }
        Client::connect(random, Some((state, self)))
    }

    /// Bytes from the client, as a connection takes them.
    fn receive(&mut self, bytes: &[u8]) -> After {
        let packet = match frame(bytes, LIMITS.packet_size_max) {
            Ok(Some(frame)) => match frame.packet(bytes) {
                Some(packet) => packet,
                None => return After::Goes,
            },
            Ok(None) => return After::Goes,
            Err(error) => return self.close(Close::from(&error)),
        };
        let decoded = match decode(self.wishes.version, Sender::Client, packet) {
            Ok(decoded) => decoded,
            Err(error) => return self.close(Close::from(&error)),
        };
        self.now += Duration::from_millis(1);
        let mut replies = std::mem::take(&mut self.replies);
        let handled = self.session.handle(&decoded, self.now, &mut replies);
        let done = match handled {
            Ok(step) => self.step(&decoded, &step, &mut replies),
            Err(close) => Err(close),
        };
        self.replies = replies;
        self.read_replies();
        match done {
            Ok(after) => after,
            Err(close) => self.close(close),
        }
    }

    fn step(
        &mut self,
        packet: &Packet<'_>,
        step: &Step<'_>,
        replies: &mut Replies,
    ) -> Result<After, Close> {
        match step {
            Step::Publish(publish, alias) => {
                let topic = alias.as_ref().map(|alias| alias.topic());
                let topic = topic.or_else(|| publish.topic_name());
                let is_exact = publish.qos == QoS::ExactlyOnce;
                let id = publish.packet_id;
                assert!(!is_exact || !id.is_some_and(|id| self.held.contains(&id)));
                let verdict = match topic.filter(|topic| may(*topic)) {
                    Some(_) => Verdict::Accepted,
                    None => Verdict::Refused(Refused {
                        reason: ReasonCode::NotAuthorized,
                        ending: [Ending::Stays, Ending::ClosesUntold, Ending::Closes]
                            [publish.payload.len() % 3],
                    }),
                };
                self.session.settle(publish.qos, id, verdict, replies)?;
                if is_exact && verdict == Verdict::Accepted {
                    self.held.extend(id);
                }
            }
            Step::Repeated => {
                let Packet::Publish(publish) = packet else {
                    panic!("only a PUBLISH is repeated: {packet:?}");
                };
                assert!(publish.packet_id.is_some_and(|id| self.held.contains(&id)));
            }
            Step::Release(id) => {
                assert!(self.held.remove(id), "{id} was not held");
                self.session.released(*id, replies);
            }
            Step::ReleasedBefore => {
                let Packet::PubRel(ack) = packet else {
                    panic!("{packet:?}");
                };
                assert!(!self.held.contains(&ack.packet_id));
            }
            Step::Settled(_) => {
                let (Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack)) = packet
                else {
                    panic!("{packet:?}");
                };
                let was_sent = self.open.remove(&ack.packet_id);
                // A PUBCOMP may answer the PUBREL of an earlier connection.
                assert!(was_sent || self.before.remove(&ack.packet_id), "{packet:?}");
            }
            Step::Received { packet_id, .. } => assert!(self.open.contains(packet_id)),
            Step::Subscribe(subscribe) => {
                let taken = self
                    .session
                    .subscribe(subscribe, |it| grant(&it.filter), replies)?;
                assert!(taken.iter().all(|taken| grant(&taken.filter).is_ok()));
            }
            Step::Unsubscribe(unsubscribe) => {
                drop(self.session.unsubscribe(unsubscribe, replies)?);
            }
            Step::Disconnected { .. } => return Ok(After::Over),
            Step::Done => {}
        }
        Ok(After::Goes)
    }

    /// Everything the server says is a packet of this version that a server may send.
    fn read_replies(&mut self) {
        self.unsent_places += std::mem::take(&mut self.replies.places);
        for (is_ordered, lane) in [
            (true, std::mem::take(&mut self.replies.ordered)),
            (false, std::mem::take(&mut self.replies.prompt)),
        ] {
            for said in whole_packets(&lane, self.wishes) {
                let packet = decode(self.wishes.version, Sender::Server, said);
                let packet = packet.unwrap_or_else(|error| panic!("{error}: {said:02x?}"));
                let is_legal = match packet {
                    Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => is_ordered,
                    Packet::SubAck(_) | Packet::UnsubAck(_) => is_ordered,
                    Packet::PubRel(_) => true,
                    Packet::PingResp => !is_ordered,
                    _ => false,
                };
                assert!(is_legal, "{packet:?}, ordered {is_ordered}");
            }
        }
    }

    /// Acknowledgements that were written leave.
    fn acks_leave(&mut self) -> After {
        self.session
            .acknowledged(std::mem::take(&mut self.unsent_places));
        After::Goes
    }

    /// The server's last word.
    fn close(&mut self, close: Close) -> After {
        let mut last_word = Vec::new();
        self.session.disconnect(close, &mut last_word);
        let said = whole_packets(&last_word, self.wishes);
        if self.wishes.version == Version::V5 {
            assert_eq!(said.len(), 1);
            let packet = decode(Version::V5, Sender::Server, said[0]);
            let is_error = matches!(packet, Ok(Packet::Disconnect(it)) if it.reason.is_error());
            assert!(is_error, "{packet:?}");
        } else {
            assert!(said.is_empty());
        }
        After::Over
    }

    /// A message for the client, at any QoS.
    fn offer(&mut self, random: &mut Random) -> After {
        let topic = ["a", "a/b/c/d", "a/long/topic/that/is/worth/an/alias", "b"][random.below(4)];
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3)];
        let payload = vec![b'p'; [0, 10, 150, 1_500][random.below(4)]];
        let parsed = Topic::new(topic).expect("a topic");
        let content = Content::from_parts(parsed, &[], &payload, qos, false);
        let expiry_s = [None, Some(0), Some(60)][random.below(3)];
        let message = Arc::new(Message::new(content, Publisher::default(), 1_000, expiry_s));
        let ids: &[u32] = [&[][..], &[1], &[7, 268_435_455]][random.below(3)];
        let is_v5 = self.wishes.version == Version::V5;
        let ids = if is_v5 { ids } else { &[] };
        if qos == QoS::AtMostOnce {
            let mut out = Vec::new();
            let mut encoded = Encoded::default();
            encoded.begin();
            let how = (random.below(2) == 0, ids);
            // The gate stands in front.
            if may(parsed)
                && self
                    .session
                    .send_qos_0(&message, how, 1_500, &mut encoded, &mut out)
                    .is_ok()
            {
                self.read_deliveries(&out);
            }
            return After::Goes;
        }
        self.offsets += 1;
        let how = Delivered {
            qos,
            ids: Ids::new(ids),
            offset: [0, self.offsets][random.below(2)],
            ..Delivered::default()
        };
        // Full is an answer.
        let _ = self.session.offer(message, how);
        After::Goes
    }

    /// What the queue has is sent, and assignments become durable.
    fn pump(&mut self) -> After {
        for id in std::mem::take(&mut self.recording) {
            self.session.assigned(id);
        }
        loop {
            let mut out = Vec::new();
            match self.session.next_outgoing(1_500, may, &mut out) {
                Outgoing::Publish { .. } | Outgoing::Release => self.read_deliveries(&out),
                Outgoing::Assign { packet_id, .. } => self.recording.push(packet_id),
                Outgoing::LeftOut { .. } => assert!(out.is_empty()),
                Outgoing::Nothing => return After::Goes,
            }
        }
    }

    fn read_deliveries(&mut self, out: &[u8]) {
        for said in whole_packets(out, self.wishes) {
            let packet = decode(self.wishes.version, Sender::Server, said);
            match packet.unwrap_or_else(|error| panic!("{error}: {said:02x?}")) {
                Packet::PubRel(_) => {}
                Packet::Publish(publish) => {
                    let mut topic = publish.topic.to_owned();
                    if let Some(alias) = publish.properties.topic_alias {
                        assert!((1..=self.wishes.aliases).contains(&alias));
                        if topic.is_empty() {
                            topic.clone_from(&self.aliases[&alias]);
                        } else {
                            self.aliases.insert(alias, topic.clone());
                        }
                    }
                    assert!(may(Topic::new(&topic).expect("a topic")), "{topic}");
                    if let Some(id) = publish.packet_id {
                        let was_before = self.before.remove(&id);
                        assert!(was_before || !publish.dup, "{id} with DUP is new");
                        assert!(self.open.insert(id), "{id} is in use");
                        let most = usize::from(self.wishes.receive_maximum);
                        assert!(self.open.len() <= most, "{:?}", self.open);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is bounded stays so, and both sides mean the same by it.
    fn check(&self) {
        let state = self.session.state();
        assert!(state.subscriptions.len() <= LIMITS.subscriptions_max);
        assert!(state.subscriptions.bytes() <= FILTERS_BYTES_MAX);
        let bytes: usize = state.subscriptions.iter().map(|it| it.filter.len()).sum();
        assert_eq!(state.subscriptions.bytes(), bytes);
        assert!(state.unreleased.len() <= usize::from(LIMITS.unreleased_max));
        assert!(state.unreleased.iter().eq(self.held.iter().copied()));
        assert!(state.queue.len() <= LIMITS.queue.messages_max);
        assert!(state.queue.bytes() <= LIMITS.queue.bytes_max);
        assert!(state.unsettled().count() <= LIMITS.queue.messages_max + state.in_flight.len());
    }
}

/// The rights of this client, to publish and to receive.
fn may(topic: Topic<'_>) -> bool {
    topic.as_str().starts_with('a')
}

fn grant(filter: &Filter<'_>) -> Result<Granted, ReasonCode> {
    match filter.matched().starts_with('a') {
        true => Ok(Granted {
            qos: QoS::ExactlyOnce,
            start: 0,
        }),
        false => Err(ReasonCode::NotAuthorized),
    }
}

/// The packets in these bytes; each as long as the client takes.
fn whole_packets(mut bytes: &[u8], wishes: Wishes) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let frame = frame(bytes, wishes.packet_size_max).expect("short enough");
        let packet = frame.expect("a header").packet(bytes).expect("all of it");
        packets.push(packet);
        bytes = &bytes[packet.len()..];
    }
    packets
}

/// A packet that a client might send now; one in eight is damaged.
fn packet(client: &Client, random: &mut Random) -> Vec<u8> {
    let is_v5 = client.wishes.version == Version::V5;
    let mut body = Vec::new();
    let first = match random.below(12) {
        0..=3 => publish(is_v5, random, &mut body),
        4 | 5 => subscribe(is_v5, random, &mut body),
        6 => {
            body.extend(id(random));
            properties(is_v5, random, &[], &mut body);
            (0..1 + random.below(6)).for_each(|_| name(random, &mut body));
            0xA2
        }
        7..=9 => {
            let first = [0x40, 0x50, 0x62, 0x70][random.below(4)];
            // Mostly about something that is open.
            let open: Vec<PacketId> = client.open.union(&client.held).copied().collect();
            let about = random.below(open.len() + 1);
            let about = open.get(about).map(|id| id.get().to_be_bytes());
            body.extend(about.unwrap_or_else(|| id(random)));
            if is_v5 && random.below(3) == 0 {
                body.push([0, 0x10, 0x80, 0x87, 0x92, 0x97][random.below(6)]);
            }
            first
        }
        10 => [0xC0, 0xC0, 0xE0, 0xF0, 0x10, 0x20, 0x90, 0xD0][random.below(8)],
        _ => {
            body.extend((0..random.below(40)).map(|_| random.byte()));
            random.byte()
        }
    };
    let mut packet = vec![first, 0];
    packet.extend(body);
    if random.below(8) == 0 {
        let place = random.below(packet.len());
        packet[place] ^= 1 << random.below(8);
        packet.truncate(packet.len() - random.below(3).min(packet.len() - 2));
    }
    packet[1] &= 0x7F;
    fit_length(&mut packet);
    packet
}

fn publish(is_v5: bool, random: &mut Random, body: &mut Vec<u8>) -> u8 {
    let qos = random.below(3) as u8;
    name(random, body);
    if qos > 0 {
        body.extend(id(random));
    }
    let alias = [0, 0, 1, 2, 3, 4][random.below(6)];
    let alias = [0x23, 0, alias];
    let alias: &[u8] = if random.below(2) == 0 { &[] } else { &alias };
    properties(is_v5, random, alias, body);
    body.extend((0..random.below(20)).map(|_| b'p'));
    let dup = u8::from(qos > 0 && random.below(4) == 0) << 3;
    0x30 | dup | qos << 1 | u8::from(random.below(4) == 0)
}

fn subscribe(is_v5: bool, random: &mut Random, body: &mut Vec<u8>) -> u8 {
    body.extend(id(random));
    let ids: [&[u8]; 3] = [&[], &[0x0B, 1], &[0x0B, 0]];
    let wanted = ids[random.below(3).min(random.below(3))];
    properties(is_v5, random, wanted, body);
    for _ in 0..1 + random.below(6) {
        name(random, body);
        let options = [0, 1, 2, 4, 8, 0x10, 0x20, 0x2D, 3][random.below(9)];
        body.push(if is_v5 { options } else { options & 3 });
    }
    0x82
}

fn name(random: &mut Random, body: &mut Vec<u8>) {
    const NAMES: [&str; 14] = [
        "a",
        "a/b",
        "a/+",
        "a/#",
        "#",
        "+",
        "b",
        "$SYS/x",
        "$share/g/a",
        "$share/g/b",
        "$share//a",
        "",
        "a/\u{0}",
        "a/long/name/of/many/levels/that/takes/room/in/a/record",
    ];
    let name = NAMES[random.below(NAMES.len())];
    body.extend((name.len() as u16).to_be_bytes());
    body.extend(name.as_bytes());
}

fn id(random: &mut Random) -> [u8; 2] {
    [0, random.below(6) as u8]
}

/// The property block of MQTT 5, and nothing before.
fn properties(is_v5: bool, random: &mut Random, wanted: &[u8], body: &mut Vec<u8>) {
    if is_v5 {
        let more: &[u8] = match random.below(6) {
            0 => &[0x26, 0, 1, b'k', 0, 1, b'v'],
            _ => &[],
        };
        body.push((wanted.len() + more.len()) as u8);
        body.extend(wanted);
        body.extend(more);
    }
}

/// Says which sequence it was that failed.
pub(crate) struct Named(pub(crate) u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this sequence again: TOLLGATE_SEED={}", self.0);
        }
    }
}
