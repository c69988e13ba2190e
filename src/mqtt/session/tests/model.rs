//! Random traffic to one client against a simple model of it: QoS 1 at least once, QoS 2 exactly
//! once, in order, within its Receive Maximum; through reconnects and restarts of the server. A
//! feed shares packet ids and places with the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::mqtt::message::{Content, Message, Publisher};
use crate::mqtt::wire::{Publish, PublishProperties};

const SEEDS: u64 = 3_000;
const STEPS: usize = 120;

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// What the client and the disk know, and what is on the way.
struct Model {
    random: Random,
    session: Session,
    receive_maximum: u16,
    /// Packets on their way to the client.
    pipe: VecDeque<Vec<u8>>,
    /// Ids whose PUBLISH came on this connection and is not acknowledged, with the QoS.
    open: BTreeMap<PacketId, QoS>,
    /// QoS 2 ids whose PUBREC was sent and whose PUBREL has not come: kept across connections.
    held: BTreeSet<PacketId>,
    /// Offsets the client has taken, in order.
    taken: Vec<u64>,
    /// PUBRECs sent on this connection that PUBREL has not answered, in order.
    to_release: VecDeque<PacketId>,
    offered: u64,
    qos_of: BTreeMap<u64, QoS>,
    disk: BTreeMap<u64, Progress>,
    /// Assignments that are not durable yet.
    recording: VecDeque<(u64, PacketId)>,
    /// The feed's next number on this connection, the highest it has sent, and the numbers the
    /// client has acknowledged.
    feed_next: u64,
    feed_highest: u64,
    feed_settled: BTreeSet<u64>,
}

/// The feed's source; its numbers are told from offsets by being above this one.
const FEED: u64 = 1 << 32;

fn content(offset: u64, qos: QoS) -> Content {
    let topic = Topic::new("top/ic").unwrap();
    Content::from_parts(topic, &[], &offset.to_be_bytes(), qos, false)
}

fn message(offset: u64, qos: QoS) -> Arc<Message> {
    Arc::new(Message::new(
        content(offset, qos),
        Publisher::default(),
        1,
        None,
    ))
}

fn opened(state: SessionState, receive_maximum: u16) -> Session {
    let mut wish = connect(Version::V5);
    wish.clean_start = false;
    wish.properties.receive_maximum = Some(receive_maximum);
    let opening = Opening::new(&wish).unwrap();
    let limits = SessionLimits {
        queue: QueueLimits {
            messages_max: 1_000,
            bytes_max: 1_000_000,
        },
        ..LIMITS
    };
    Session::open(&opening, limits, Some(state), Instant::now())
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let receive_maximum = u16::try_from(1 + random.below(6)).unwrap();
        Self {
            session: opened(SessionState::default(), receive_maximum),
            random,
            receive_maximum,
            pipe: VecDeque::new(),
            open: BTreeMap::new(),
            held: BTreeSet::new(),
            taken: Vec::new(),
            to_release: VecDeque::new(),
            offered: 0,
            qos_of: BTreeMap::new(),
            disk: BTreeMap::new(),
            recording: VecDeque::new(),
            feed_next: FEED + 1,
            feed_highest: FEED,
            feed_settled: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..15 => self.offer(),
            15..25 => self.feed(),
            25..50 => self.pump(),
            50..60 => self.sync(),
            60..85 => self.read(),
            85..97 => self.acknowledge(),
            97..99 => self.reconnect(),
            _ => self.restart(),
        }
    }

    fn offer(&mut self) {
        self.offered += 1;
        let offset = self.offered;
        let qos = match self.random.below(2) {
            0 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let how = Delivered {
            qos,
            offset,
            ..Delivered::default()
        };
        self.session.offer(message(offset, qos), how).unwrap();
        self.qos_of.insert(offset, qos);
        self.disk.insert(offset, Progress::Waiting);
    }

    fn pump(&mut self) {
        for _ in 0..self.random.below(5) {
            let mut out = Vec::new();
            match self.session.next_outgoing(2, |_| true, &mut out) {
                Outgoing::Publish { .. } | Outgoing::Release => self.pipe.push_back(out),
                Outgoing::Assign { offset, packet_id } => {
                    self.recording.push_back((offset, packet_id));
                }
                Outgoing::Nothing => return,
                left_out @ Outgoing::LeftOut { .. } => panic!("{left_out:?}"),
            }
        }
    }

    /// The feed sends its next message, or again what an earlier connection left open.
    fn feed(&mut self) {
        while self.feed_settled.contains(&self.feed_next) {
            self.feed_next += 1;
        }
        let number = self.feed_next;
        let item = Item {
            source: FEED,
            number,
            order: number,
        };
        let Sending::Now {
            packet_id,
            is_again,
        } = self.session.in_flight().send(item)
        else {
            return;
        };
        self.feed_next += 1;
        self.feed_highest = self.feed_highest.max(number);
        let publish = Publish {
            dup: is_again,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "feed",
            packet_id: Some(packet_id),
            properties: PublishProperties::default(),
            payload: &number.to_be_bytes(),
        };
        let mut packet = Vec::new();
        publish.encode(Version::V5, &mut packet).unwrap();
        self.pipe.push_back(packet);
    }

    /// Some assignments become durable, in order.
    fn sync(&mut self) {
        let count = self.random.below(3);
        let mut last = None;
        for _ in 0..count {
            let Some((offset, packet_id)) = self.recording.pop_front() else {
                break;
            };
            self.disk.insert(offset, Progress::Sent(packet_id));
            last = Some(packet_id);
        }
        if let Some(packet_id) = last {
            self.session.assigned(packet_id);
        }
    }

    /// The client reads one packet.
    fn read(&mut self) {
        let Some(bytes) = self.pipe.pop_front() else {
            return;
        };
        match decode(Version::V5, Sender::Server, &bytes).unwrap() {
            Packet::Publish(publish) => {
                let packet_id = publish.packet_id.unwrap();
                let is_known = self.open.insert(packet_id, publish.qos).is_some();
                assert!(!is_known, "id {packet_id} is open already");
                let open = self.open.len();
                assert!(open <= usize::from(self.receive_maximum), "{open} are open");
                let offset = u64::from_be_bytes(publish.payload.try_into().unwrap());
                if self.held.contains(&packet_id) {
                    assert_eq!(publish.qos, QoS::ExactlyOnce);
                    assert!(publish.dup, "id {packet_id} came before [MQTT-3.3.1-1]");
                    assert_eq!(self.taken.iter().filter(|&&held| held == offset).count(), 1);
                } else {
                    if publish.qos == QoS::ExactlyOnce {
                        self.held.insert(packet_id);
                    }
                    self.taken.push(offset);
                }
            }
            Packet::PubRel(ack) => {
                self.held.remove(&ack.packet_id);
                if let Some(expected) = self.to_release.pop_front() {
                    assert_eq!(ack.packet_id, expected, "[MQTT-4.6.0-4]");
                }
                self.open.remove(&ack.packet_id);
                self.handle(&format!("7002 {:04x}", ack.packet_id));
            }
            other => panic!("{other:?}"),
        }
    }

    /// The client acknowledges one of the messages it has.
    fn acknowledge(&mut self) {
        let waiting: Vec<(PacketId, QoS)> = self
            .open
            .iter()
            .filter(|(id, _)| !self.to_release.contains(id))
            .map(|(&id, &qos)| (id, qos))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(waiting.len() as u64)).unwrap();
        let (packet_id, qos) = waiting[at];
        if qos == QoS::AtLeastOnce {
            self.open.remove(&packet_id);
            self.handle(&format!("4002 {packet_id:04x}"));
        } else {
            self.to_release.push_back(packet_id);
            self.handle(&format!("5002 {packet_id:04x}"));
        }
    }

    fn handle(&mut self, hex: &str) {
        let bytes = bytes(hex);
        let packet = decode(Version::V5, Sender::Client, &bytes).unwrap();
        let mut replies = Replies::default();
        let step = self.session.handle(&packet, Instant::now(), &mut replies);
        match step.unwrap() {
            Step::Received { offset, packet_id } => {
                self.disk.insert(offset, Progress::Received(packet_id));
                self.pipe.push_back(replies.ordered);
            }
            Step::Settled(item) if item.source == FEED => {
                self.feed_settled.insert(item.number);
            }
            Step::Settled(item) => {
                // Nothing waits for this record: a crash may lose it.
                if self.random.below(4) > 0 {
                    self.disk.remove(&item.queued_offset().unwrap());
                }
            }
            other => panic!("{other:?} after {hex}"),
        }
    }

    fn lose_connection(&mut self) {
        self.pipe.clear();
        self.open.clear();
        self.to_release.clear();
        self.receive_maximum = u16::try_from(1 + self.random.below(6)).unwrap();
        self.feed_next = FEED + 1;
    }

    fn reconnect(&mut self) {
        self.lose_connection();
        // CONNACK waits for what was recorded.
        for (offset, packet_id) in self.recording.drain(..) {
            self.disk.insert(offset, Progress::Sent(packet_id));
        }
        let state = self.session.take_state();
        self.session = opened(state, self.receive_maximum);
    }

    /// The server dies and comes back with what is on disk.
    fn restart(&mut self) {
        self.lose_connection();
        self.recording.clear();
        let unsettled = self.disk.iter().map(|(&offset, &progress)| {
            let qos = self.qos_of[&offset];
            let is_received = matches!(progress, Progress::Received(_));
            Unsettled {
                message: (!is_received).then(|| message(offset, qos)),
                how: Delivered {
                    qos,
                    offset,
                    ..Delivered::default()
                },
                progress,
            }
        });
        let mut state = SessionState::default();
        state.restore(unsettled.collect());
        self.session = opened(state, self.receive_maximum);
    }

    /// As [`Model::feed`], but nothing new.
    fn feed_again(&mut self) {
        let mut sent = self.feed_next..=self.feed_highest;
        if sent.any(|number| !self.feed_settled.contains(&number)) {
            self.feed();
        }
    }

    /// Everything runs to its end, and what came is what was offered.
    fn finish(mut self) {
        for _ in 0..100 * STEPS {
            // What the feed sent before and was not acknowledged comes again.
            self.feed_again();
            let state = self.session.state();
            if state.queue.is_empty() && state.in_flight.is_empty() {
                break;
            }
            match self.random.below(4) {
                0 => self.pump(),
                1 => self.sync(),
                2 => self.read(),
                _ => self.acknowledge(),
            }
        }
        assert!(self.session.state().queue.is_empty(), "something is stuck");
        assert!(self.session.state().in_flight.is_empty());
        let fed: BTreeSet<u64> = self.taken.iter().copied().filter(|it| *it > FEED).collect();
        self.taken.retain(|it| *it < FEED);
        assert_eq!(fed, self.feed_settled);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let is_of = |offset: &u64| self.qos_of[offset] == qos;
            let mut first = Vec::new();
            for offset in self.taken.iter().copied().filter(is_of) {
                if !first.contains(&offset) {
                    first.push(offset);
                } else if qos == QoS::ExactlyOnce {
                    panic!("offset {offset} came twice");
                }
            }
            let all: Vec<u64> = (1..=self.offered).filter(is_of).collect();
            assert_eq!(first, all, "none is lost, none overtakes another");
        }
    }
}

#[test]
fn mqtt_4_3_random_traffic_arrives_as_promised() {
    for seed in 1..=SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            for _ in 0..STEPS {
                model.step();
            }
            model.finish();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
