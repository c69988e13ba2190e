//! The application feed at a connection: slices of the journal become PUBLISH packets, and what
//! the client acknowledges is told to the feed thread.
//!
//! What waits here is bounded by the feed, which gives no more before the client has settled what
//! it was given; what waits in the socket's queue by [`WRITE_BYTES`]: nothing is encoded while the
//! client does not take what was written.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;

use super::connection::{Connection, Inner};
use super::worker::Worker;
use crate::broker::feed::{
    Attach, Delivery, Detach, FedRecord, MemberKey, START_PROPERTY, Slice, Start, Wanted,
};
use crate::identity::Action;
use crate::metrics::FeedDrop;
use crate::mqtt::session::{Granted, Item, Sending, Session, source_number};
use crate::mqtt::topic::{Filter, Topic};
use crate::mqtt::wire::{Publish, PublishProperties, QoS, ReasonCode, Subscribe, UserProperties};

/// Highest QoS of a feed.
const QOS_MAX: QoS = QoS::AtLeastOnce;

/// Bytes encoded for one write; one packet more may be in it.
const WRITE_BYTES: usize = 64 * 1024;

/// Bytes of `v1/devices/{id}/telemetry`.
const TOPIC_BYTES: usize = 57;

/// Gives each client of a worker what comes for it.
pub(super) async fn run(worker: Rc<Worker>) {
    let inbox = worker.shared.feeds.inbox(worker.index);
    loop {
        for delivery in inbox.take().await {
            let member = delivery.member;
            if let Some(connection) = worker.connection(member.slot, member.generation) {
                connection.fed(&worker, delivery);
            }
        }
    }
}

/// The feeds of one connection.
#[derive(Debug, Default)]
pub(super) struct Feeding {
    sources: Vec<Source>,
    /// What came and was not sent; oldest first.
    queue: VecDeque<Delivery>,
    attached: u32,
}

#[derive(Debug)]
struct Source {
    key: MemberKey,
    filter: Box<str>,
    start: u64,
    qos: QoS,
    credit: u16,
    /// Records sent or left out.
    taken: u64,
    /// Of these, the first ones that the feed knows to be settled.
    reported: u64,
}

/// A wish for a feed that was granted.
pub(super) struct Wish {
    filter: Box<str>,
    wanted: Wanted,
    start: Start,
    is_restart: bool,
}

impl Feeding {
    /// The answer to a wish: what the permit covers and the feed has.
    pub(super) fn grant(
        feeding: Option<&Feeding>,
        worker: &Worker,
        subscribe: &Subscribe<'_>,
        filter: &Filter<'_>,
    ) -> Result<(Granted, Wish), ReasonCode> {
        let wanted = Wanted::of(filter).ok_or(ReasonCode::TopicFilterInvalid)?;
        let named = filter.share_name().map(Start::of_group);
        let named = named
            .transpose()
            .map_err(|_| ReasonCode::TopicFilterInvalid)?
            .flatten();
        let mut properties = subscribe.user_properties.iter();
        let asked = properties.find(|(name, _)| *name == START_PROPERTY);
        let asked = match asked {
            Some((_, text)) => {
                Some(Start::parse(text).ok_or(ReasonCode::ImplementationSpecificError)?)
            }
            None => None,
        };
        let held = feeding.and_then(|feeding| {
            let mut sources = feeding.sources.iter();
            sources.find(|source| *source.filter == *filter.as_str())
        });
        let is_shared = filter.share_name().is_some();
        let (start, is_restart) = match (held, asked) {
            (Some(held), _) if is_shared => (Start::from_number(held.start), false),
            (Some(held), None) => (Start::from_number(held.start), false),
            (_, Some(asked)) => (asked, true),
            (None, None) => {
                let now = Start::Offset(worker.shared.journal.durable().next().number());
                (named.unwrap_or(now), false)
            }
        };
        if held.is_none() && !worker.shared.feeds.has_room() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let granted = Granted {
            qos: QOS_MAX,
            start: start.number(),
        };
        let wish = Wish {
            filter: filter.as_str().into(),
            wanted,
            start,
            is_restart,
        };
        Ok((granted, wish))
    }

    fn source(&mut self, key: MemberKey) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.key == key)
    }
}

impl Connection {
    /// Takes up the feeds that a SUBSCRIBE asked for, as far as the session holds them.
    pub(super) fn take_up(&self, worker: &Worker, inner: &mut Inner, wishes: Vec<Wish>) {
        for wish in wishes {
            let mut held = inner.session.state().subscriptions.iter();
            let held = held.find(|held| held.filter == wish.filter);
            let Some((qos, start)) = held.map(|held| (held.options.qos, held.start)) else {
                continue;
            };
            let feeding = inner.feeding.get_or_insert_default();
            let known = feeding
                .sources
                .iter_mut()
                .find(|source| source.filter == wish.filter);
            match known {
                Some(source) if !wish.is_restart => source.qos = qos,
                _ => self.attach(worker, inner, wish, qos, start),
            }
        }
    }

    /// Goes on with the feeds of a session that was kept.
    pub(super) fn resume_feeds(&self, worker: &Worker, inner: &mut Inner) {
        let held = inner.session.state().subscriptions.iter();
        let held: Vec<_> = held.filter(|held| held.start != 0).cloned().collect();
        for held in held {
            let wanted = Filter::new(&held.filter)
                .ok()
                .and_then(|filter| Wanted::of(&filter));
            let Some(wanted) = wanted else {
                continue;
            };
            let wish = Wish {
                filter: held.filter,
                wanted,
                start: Start::from_number(held.start),
                is_restart: false,
            };
            self.attach(worker, inner, wish, held.options.qos, held.start);
        }
    }

    /// Lets go of the feeds that the session no longer subscribes to.
    pub(super) fn drop_feeds(&self, worker: &Worker, inner: &mut Inner) {
        let Some(feeding) = &inner.feeding else {
            return;
        };
        let subscriptions = &inner.session.state().subscriptions;
        let gone = |source: &&Source| {
            let mut held = subscriptions.iter();
            !held.any(|held| held.filter == source.filter)
        };
        let gone: Vec<MemberKey> = feeding
            .sources
            .iter()
            .filter(gone)
            .map(|source| source.key)
            .collect();
        for key in gone {
            self.detach(worker, inner, key, self.session_number);
            inner.session.in_flight().forget(key.source);
        }
    }

    /// The connection ends: its feeds stay with the session, or end too.
    pub(super) fn leave_feeds(&self, worker: &Worker, inner: &mut Inner) {
        let Some(feeding) = &inner.feeding else {
            return;
        };
        let sources: Vec<_> = feeding
            .sources
            .iter()
            .map(|source| (source.key, source.filter.starts_with("$share/")))
            .collect();
        for (key, is_shared) in sources {
            self.detach(worker, inner, key, 0);
            if is_shared {
                // Another member of the group gets what is open.
                inner.session.in_flight().forget(key.source);
            }
        }
        inner.feeding = None;
    }

    /// Something came from the feed.
    pub(super) fn fed(&self, worker: &Worker, delivery: Delivery) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(feeding) = &mut inner.feeding {
            feeding.queue.push_back(delivery);
            self.pump(worker, inner);
        }
    }

    /// Writes what waits, as far as the client takes it.
    pub(super) fn pump(&self, worker: &Worker, inner: &mut Inner) {
        let is_let_in = !inner.waits_for_connack();
        let Some(feeding) = &mut inner.feeding else {
            return;
        };
        let buffer = &mut *worker.feed_buffer.borrow_mut();
        while is_let_in && inner.output.is_clear() {
            buffer.clear();
            let mut counts = Counts::default();
            while buffer.len() < WRITE_BYTES
                && self.encode_next(worker, feeding, &mut inner.session, buffer, &mut counts)
            {
            }
            if counts.sent > 0 {
                worker.count(|counters| counters.fed(counts.sent, counts.again));
            }
            if buffer.is_empty() {
                break;
            }
            inner.output.feed(buffer);
        }
        report(worker, feeding, &mut inner.session);
    }

    /// Takes the next record of the queue; false if there is none, or the client takes no more.
    fn encode_next(
        &self,
        worker: &Worker,
        feeding: &mut Feeding,
        session: &mut Session,
        buffer: &mut Vec<u8>,
        counts: &mut Counts,
    ) -> bool {
        let Some(delivery) = feeding.queue.front() else {
            return false;
        };
        let key = delivery.member;
        let (sources, queue) = (&mut feeding.sources, &mut feeding.queue);
        let source = sources.iter_mut().find(|source| source.key == key);
        // A feed that is no longer wanted, and the end of a slice.
        let (Some(source), Some(delivery)) = (source, queue.front_mut()) else {
            queue.pop_front();
            return true;
        };
        let Some((record, payload)) = delivery.slice.first() else {
            queue.pop_front();
            return true;
        };
        let slice = &delivery.slice;
        match self.encode(worker, source, session, (record, payload), slice, buffer) {
            Encoded::Sent { is_again } => {
                counts.sent += 1;
                counts.again += u64::from(is_again);
            }
            Encoded::LeftOut(why) => worker.count(|counters| counters.feed_dropped(why)),
            Encoded::Later => return false,
        }
        source.taken += 1;
        delivery.slice.pass();
        true
    }

    fn encode(
        &self,
        worker: &Worker,
        source: &Source,
        session: &mut Session,
        (record, payload): (&FedRecord, &[u8]),
        slice: &Slice,
        buffer: &mut Vec<u8>,
    ) -> Encoded {
        let mut text = [0; TOPIC_BYTES];
        let topic = topic_of(record, &mut text).and_then(|topic| Topic::new(topic).ok());
        // SEC-31: every delivery is asked for.
        let Some(topic) = topic.filter(|topic| self.may(Action::Receive, *topic)) else {
            return Encoded::LeftOut(FeedDrop::NotAuthorized);
        };
        if worker.shared.registry.is_deleted(record.device) {
            return Encoded::LeftOut(FeedDrop::Deleted);
        }
        let (mut packet_id, mut is_again) = (None, false);
        if source.qos > QoS::AtMostOnce {
            let item = Item {
                source: source.key.source,
                number: record.offset,
                order: source.taken,
            };
            match session.in_flight().send(item) {
                Sending::Now {
                    packet_id: id,
                    is_again: again,
                } => (packet_id, is_again) = (Some(id), again),
                Sending::Later => return Encoded::Later,
            }
        }
        let before = buffer.len();
        let registry = &worker.shared.registry;
        let is_suspect = registry.is_suspect(record.device, record.credential, record.offset);
        let mut digits = Default::default();
        let (pairs, count) = told_of(record, slice.missed_from, is_suspect, &mut digits);
        let publish = Publish {
            dup: is_again,
            qos: packet_id.map_or(QoS::AtMostOnce, |_| QoS::AtLeastOnce),
            retain: false,
            topic: topic.as_str(),
            packet_id,
            properties: PublishProperties {
                user_properties: UserProperties::new(pairs.get(..count).unwrap_or_default()),
                ..PublishProperties::default()
            },
            payload,
        };
        let encoded = publish.encode(session.version(), buffer);
        let bytes = u32::try_from(buffer.len() - before).unwrap_or(u32::MAX);
        if encoded.is_err() || bytes > session.client_packet_size_max() {
            // [MQTT-3.1.2-25]: as if it had been sent.
            buffer.truncate(before);
            if let Some(packet_id) = packet_id {
                session.in_flight().acknowledge(packet_id);
            }
            return Encoded::LeftOut(FeedDrop::TooLarge);
        }
        Encoded::Sent { is_again }
    }

    fn attach(&self, worker: &Worker, inner: &mut Inner, wish: Wish, qos: QoS, start: u64) {
        let window = inner.session.in_flight().window();
        let is_shared = wish.filter.starts_with("$share/");
        // A group's other members can have what this client cannot take; a feed of its own is a
        // little ahead of it, so that it never waits for the feed.
        let credit = if is_shared {
            window
        } else {
            window.saturating_mul(2)
        };
        let feeding = inner.feeding.get_or_insert_default();
        feeding.attached += 1;
        let key = MemberKey {
            worker: worker.index,
            slot: self.slot,
            generation: self.generation,
            source: source_of(&wish.filter),
            attached: feeding.attached,
        };
        let old = feeding
            .sources
            .iter()
            .find(|source| source.filter == wish.filter)
            .map(|source| source.key);
        feeding.sources.push(Source {
            key,
            filter: wish.filter.clone(),
            start,
            qos,
            credit,
            taken: 0,
            reported: 0,
        });
        if let Some(old) = old {
            self.detach(worker, inner, old, 0);
            inner.session.in_flight().forget(old.source);
        }
        worker.shared.feeds.attach(Attach {
            member: key,
            identity: self.principal.identity,
            session: self.session_number,
            filter: wish.filter,
            wanted: wish.wanted,
            start: wish.start,
            is_restart: wish.is_restart,
            credit,
        });
    }

    fn detach(&self, worker: &Worker, inner: &mut Inner, key: MemberKey, ends_for: u32) {
        let Some(feeding) = &mut inner.feeding else {
            return;
        };
        let Some(source) = feeding.source(key) else {
            return;
        };
        let taken = source.taken;
        feeding.sources.retain(|source| source.key != key);
        feeding.queue.retain(|delivery| delivery.member != key);
        let in_flight = inner.session.in_flight();
        let front = in_flight.first_open(key.source).unwrap_or(taken);
        worker.shared.feeds.detach(Detach {
            member: key,
            front,
            done: in_flight.done(key.source).collect(),
            ends_for,
        });
    }
}

/// The number of the source of packets that a feed is, by its filter.
pub(super) fn source_of(filter: &str) -> u64 {
    let hasher = BuildHasherDefault::<DefaultHasher>::new();
    source_number(hasher.hash_one(filter))
}

#[derive(Default)]
struct Counts {
    sent: u64,
    again: u64,
}

enum Encoded {
    Sent { is_again: bool },
    LeftOut(FeedDrop),
    Later,
}

/// Tells the feed what is settled, when it is worth a message.
fn report(worker: &Worker, feeding: &mut Feeding, session: &mut Session) {
    let is_drained = feeding.queue.is_empty();
    for source in &mut feeding.sources {
        let open = session.in_flight().first_open(source.key.source);
        let front = open.unwrap_or(source.taken);
        let news = front.saturating_sub(source.reported);
        if news > 0 && (is_drained || news >= u64::from(source.credit / 4)) {
            source.reported = front;
            worker.shared.feeds.settled(source.key, front);
        }
    }
}

fn topic_of<'t>(record: &FedRecord, text: &'t mut [u8; TOPIC_BYTES]) -> Option<&'t str> {
    let (before, rest) = text.split_at_mut_checked(11)?;
    let (id, after) = rest.split_at_mut_checked(36)?;
    before.copy_from_slice(b"v1/devices/");
    record.device.hyphenated().encode_lower(id);
    after.copy_from_slice(b"/telemetry");
    std::str::from_utf8(text).ok()
}

/// What a message says of itself in user properties: so many of these.
fn told_of<'t>(
    record: &FedRecord,
    missed_from: Option<u64>,
    is_suspect: bool,
    [offset, ts, missed]: &'t mut [[u8; 20]; 3],
) -> ([(&'static str, &'t str); 4], usize) {
    let mut pairs = [
        ("offset", digits(record.offset, offset)),
        ("ts", digits(record.received_ms, ts)),
        Default::default(),
        Default::default(),
    ];
    let missed = missed_from.map(|from| ("missed_from", digits(from, missed)));
    let more = [missed, is_suspect.then_some(("suspect", "true"))];
    let mut count = 2;
    for (place, pair) in pairs.iter_mut().skip(2).zip(more.into_iter().flatten()) {
        *place = pair;
        count += 1;
    }
    (pairs, count)
}

/// A number in decimal, at the end of `text`.
fn digits(mut number: u64, text: &mut [u8; 20]) -> &str {
    let mut used = 0;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    let start = text.len() - used;
    let digits = text.get(start..).unwrap_or_default();
    std::str::from_utf8(digits).unwrap_or_default()
}
