//! A device that publishes numbered telemetry through a window and holds the broker to its word.
//!
//! It knows exactly what was promised to it: acknowledgements come in order [MQTT-4.6.0-2], so
//! what was acknowledged is always a stretch from 0 on, one number. Whatever happens to the
//! connection, it comes back, sends again what has no acknowledgement, in the old order
//! [MQTT-4.4.0-1], and goes on.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    link::{Link, Over},
    random::Random,
    site::Site,
};
use crate::common::packets::{self, Connect, TELEMETRY, Version};

/// Time stamp of message 0 of every device; message n is n milliseconds later. Times of their own
/// keep messages apart in history, where equal times would hide one another.
pub(crate) const FIRST_TS: u64 = 1_700_000_000_000;

/// How a device behaves.
#[derive(Clone)]
pub(crate) struct Habits {
    pub(crate) version: Version,
    /// 1 or 2.
    pub(crate) qos: u8,
    /// Clean session 0 (3.1.1), or a session expiry of an hour (MQTT 5).
    pub(crate) keeps_session: bool,
    /// Messages under way at most.
    pub(crate) window: usize,
    /// Bytes of text in a message: from the first to below the second.
    pub(crate) text_bytes: (u64, u64),
    /// One look around in so many ends in a take-over: a second connection while the first is
    /// open. 0 = never.
    pub(crate) take_over_one_in: u64,
    /// Time between two PINGREQ. Zero = none.
    pub(crate) ping_interval: Duration,
    /// Without an acknowledgement for so long, while the broker is there, something is wrong.
    pub(crate) patience: Duration,
}

/// What a device has noted, for the test to look at while it runs.
#[derive(Default)]
pub(crate) struct Notes {
    /// Messages 0 to this, exclusive, were promised (PUBACK or PUBREC).
    pub(crate) promised: AtomicU64,
    /// Messages 0 to this, exclusive, were sent at least once.
    pub(crate) sent: AtomicU64,
    /// Connections that ended without our doing.
    pub(crate) losses: AtomicU64,
    /// PINGRESPs that came.
    pub(crate) pongs: AtomicU64,
    /// The longest wait for a PINGRESP, in milliseconds; one that is still out counts.
    pub(crate) longest_ping_ms: AtomicU64,
    /// Reason of the last DISCONNECT plus 1; 0 = none came.
    pub(crate) disconnect: AtomicU64,
}

/// One device.
pub(crate) struct Device {
    pub(crate) name: String,
    /// As in the journal's records.
    pub(crate) id: uuid::Uuid,
    pub(crate) token: String,
    pub(crate) habits: Habits,
    pub(crate) notes: Arc<Notes>,
    random: Random,
    /// Under way, oldest first; those with PUBREC stand in front.
    under_way: VecDeque<Message>,
    /// How many of them have their PUBREC.
    received: usize,
    next: u64,
    /// The broker has confirmed a session that must survive.
    has_session: bool,
    last_promise: Instant,
    matter: Matter,
    /// Messages that may still be begun, by all who share it; None = no end.
    budget: Option<Arc<AtomicU64>>,
}

struct Message {
    packet_id: u16,
    n: u64,
    payload: Vec<u8>,
    /// PUBREL was sent on an earlier connection: it may have been done there.
    may_be_released: bool,
}

/// What a device publishes: message n of it.
#[derive(Clone, Debug)]
pub(crate) enum Matter {
    /// Telemetry with a time.
    Telemetry,
    /// Messages on this topic.
    Stream(String),
    /// Retained messages: on [`RETAINED_TOPICS`] topics below this one in turn, and now and then
    /// one that clears.
    Retained(String),
}

/// Topics of one setter of retained messages.
pub(crate) const RETAINED_TOPICS: u64 = 8;

impl Matter {
    /// The topic of message `n`.
    fn topic(&self, n: u64) -> String {
        match self {
            Matter::Telemetry => TELEMETRY.to_owned(),
            Matter::Stream(topic) => topic.clone(),
            Matter::Retained(below) => format!("{below}/{}", n % RETAINED_TOPICS),
        }
    }

    fn payload(&self, n: u64, text: &str) -> String {
        match self {
            Matter::Telemetry => {
                let ts = FIRST_TS + n;
                format!(r#"{{"ts":{ts},"values":{{"n":{n},"text":"{text}"}}}}"#)
            }
            Matter::Retained(_) if clears(n) => String::new(),
            _ => format!(r#"{{"n":{n},"text":"{text}"}}"#),
        }
    }
}

/// Whether retained message `n` takes away what is there.
pub(crate) fn clears(n: u64) -> bool {
    n / RETAINED_TOPICS % 4 == 3
}

impl Device {
    /// A device that exists at the broker.
    pub(crate) fn new(
        name: &str,
        id: uuid::Uuid,
        token: &str,
        habits: Habits,
        random: Random,
    ) -> Device {
        Device {
            name: name.to_owned(),
            id,
            token: token.to_owned(),
            habits,
            notes: Arc::default(),
            random,
            under_way: VecDeque::new(),
            received: 0,
            next: 0,
            has_session: false,
            last_promise: Instant::now(),
            matter: Matter::Telemetry,
            budget: None,
        }
    }

    /// Publishes something else, and no more than a budget allows.
    pub(crate) fn publishing(mut self, matter: Matter, budget: &Arc<AtomicU64>) -> Device {
        self.matter = matter;
        self.budget = Some(Arc::clone(budget));
        self
    }

    /// Messages 0 to this, exclusive, were promised.
    pub(crate) fn promised(&self) -> u64 {
        self.notes.promised.load(Ordering::SeqCst)
    }

    /// Messages 0 to this, exclusive, were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.next
    }

    /// Publishes until the test is over; gives itself back with what it knows.
    pub(crate) fn run(mut self, site: &Site) -> Device {
        let mut older = None;
        while let Some(address) = site.mqtt() {
            let Ok(mut link) = Link::open(address) else {
                // It is about to go down or to come up: the site will say.
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let over = self.talk(&mut link, site);
            drop(older.take());
            match over {
                Over::Done => return self,
                Over::Abandoned => older = Some(link),
                Over::Lost => {
                    self.notes.losses.fetch_add(1, Ordering::SeqCst);
                }
                Over::Violated(what) => {
                    site.report(format!("{}: {what}", self.name));
                    return self;
                }
            }
        }
        self
    }

    fn talk(&mut self, link: &mut Link, site: &Site) -> Over {
        let outcome = self.connect(link, site);
        match outcome.and_then(|()| self.publish(link, site)) {
            Ok(over) | Err(over) => over,
        }
    }

    fn connect(&mut self, link: &mut Link, site: &Site) -> Result<(), Over> {
        let is_v5 = self.habits.version == Version::V5;
        let mut properties = Vec::new();
        if is_v5 && self.habits.keeps_session {
            properties.extend([0x11, 0, 0, 0x0e, 0x10]); // session expiry: 3,600 s
        }
        let connect = Connect {
            clean: !self.habits.keeps_session,
            properties,
            ..Connect::with_token(self.habits.version, &self.name, &self.token)
        };
        let is_present = link.connect(&connect, self.habits.patience, site)?;
        // MQTT 3.1 knows no session present: the byte is always 0.
        if is_present != self.has_session && self.habits.version != Version::V31 {
            // REL-06: a session that was confirmed is there, whatever happened to the broker.
            let what = format!(
                "session present is {is_present}, it had one: {}",
                self.has_session
            );
            if self.has_session || !self.habits.keeps_session {
                return Err(Over::Violated(what));
            }
        }
        self.has_session = self.habits.keeps_session;
        self.last_promise = Instant::now();
        self.send_again(link);
        Ok(())
    }

    /// [MQTT-4.4.0-1]: PUBREL for what has its PUBREC, PUBLISH with DUP for the rest, in order.
    fn send_again(&mut self, link: &mut Link) {
        for (at, message) in self.under_way.iter_mut().enumerate() {
            if at < self.received {
                message.may_be_released = true;
                link.outgoing.extend(packets::pubrel(message.packet_id));
            } else {
                let flags = 0x08 | (self.habits.qos << 1);
                publish(link, self.habits.version, flags, &self.matter, message);
            }
        }
    }

    fn publish(&mut self, link: &mut Link, site: &Site) -> Result<Over, Over> {
        loop {
            if site.is_abandoned() {
                return Ok(Over::Done);
            }
            if site.is_finishing() && self.under_way.is_empty() {
                link.outgoing.extend([0xe0, 0]);
                link.write()?;
                return Ok(Over::Done);
            }
            while !site.is_finishing()
                && self.under_way.len() < self.habits.window
                && self.may_begin()
            {
                let message = self.next_message();
                if self.under_way.is_empty() {
                    self.last_promise = Instant::now();
                }
                let flags = self.habits.qos << 1;
                publish(link, self.habits.version, flags, &self.matter, &message);
                self.under_way.push_back(message);
            }
            self.ping(link);
            let outcome = link.write().and_then(|()| link.read());
            // Also after the end: what came before it may be a promise.
            while let Some(packet) = link.take_packet() {
                self.take(link, &packet)?;
            }
            outcome?;
            let take_over = self.habits.take_over_one_in;
            if take_over > 0 && self.random.one_in(take_over) {
                return Ok(Over::Abandoned);
            }
            let waited = self.last_promise.elapsed();
            if waited > self.habits.patience && !self.under_way.is_empty() {
                let what = format!("no acknowledgement for {waited:?}");
                return Err(Over::Violated(what));
            }
        }
    }

    fn may_begin(&self) -> bool {
        self.budget.as_ref().is_none_or(|budget| {
            let order = Ordering::SeqCst;
            let taken = budget.fetch_update(order, order, |left| left.checked_sub(1));
            taken.is_ok()
        })
    }

    fn next_message(&mut self) -> Message {
        let n = self.next;
        self.next += 1;
        self.notes.sent.store(self.next, Ordering::SeqCst);
        let (least, most) = self.habits.text_bytes;
        let text = usize::try_from(least + self.random.below(most - least)).expect("a small size");
        let text = "x".repeat(text);
        let payload = self.matter.payload(n, &text);
        // The lowest free id: ids are used again as soon as the broker gives them back, which
        // is where a release that is not on disk would turn a new message into a repetition.
        let is_free = |id: &u16| self.under_way.iter().all(|held| held.packet_id != *id);
        Message {
            packet_id: (1..=u16::MAX).find(is_free).expect("a window is small"),
            n,
            payload: payload.into_bytes(),
            may_be_released: false,
        }
    }

    fn ping(&mut self, link: &mut Link) {
        let interval = self.habits.ping_interval;
        let now = Instant::now();
        if !interval.is_zero() && link.pinged.is_none() && now >= link.next_ping {
            link.outgoing.extend([0xc0, 0]);
            link.pinged = Some(now);
            link.next_ping = now + interval;
        }
        if let Some(since) = link.pinged {
            let waited = u64::try_from(since.elapsed().as_millis()).expect("no aeons");
            self.notes
                .longest_ping_ms
                .fetch_max(waited, Ordering::SeqCst);
        }
    }

    fn take(&mut self, link: &mut Link, packet: &[u8]) -> Result<(), Over> {
        let kind = packet[0] >> 4;
        match kind {
            13 => {
                link.pinged = None;
                self.notes.pongs.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            14 => {
                let reason = u64::from(packets::reason(packet));
                self.notes.disconnect.store(reason + 1, Ordering::SeqCst);
                return Err(Over::Lost);
            }
            _ => {}
        }
        let packet_id = u16::from_be_bytes([packet[2], packet[3]]);
        let reason = packets::reason(packet);
        match (kind, self.habits.qos) {
            (4, 1) => self.promised_one(0, packet_id, reason).map(|()| {
                self.under_way.pop_front();
            }),
            (5, 2) => self
                .promised_one(self.received, packet_id, reason)
                .map(|()| {
                    self.received += 1;
                    link.outgoing.extend(packets::pubrel(packet_id));
                }),
            (7, 2) => self.completed(packet_id, reason),
            _ => Err(format!("not an answer to anything: {packet:02x?}")),
        }
        .map_err(Over::Violated)
    }

    /// PUBACK or PUBREC for the message at this place, and for no other.
    fn promised_one(&mut self, at: usize, packet_id: u16, reason: u8) -> Result<(), String> {
        let expected = self.under_way.get(at);
        let Some(message) = expected.filter(|message| message.packet_id == packet_id) else {
            let expected = expected.map(|message| message.packet_id);
            return Err(format!(
                "[MQTT-4.6.0-2] promised {packet_id} when it was the turn of {expected:?}"
            ));
        };
        if reason != 0 {
            return Err(format!("message {} refused with {reason:#04x}", message.n));
        }
        self.notes.promised.store(message.n + 1, Ordering::SeqCst);
        self.last_promise = Instant::now();
        Ok(())
    }

    fn completed(&mut self, packet_id: u16, reason: u8) -> Result<(), String> {
        let front = self.under_way.front();
        let Some(message) = front.filter(|held| self.received > 0 && held.packet_id == packet_id)
        else {
            let expected = front.map(|held| held.packet_id);
            return Err(format!(
                "PUBCOMP {packet_id} when it was the turn of {expected:?}"
            ));
        };
        // 0x92: the release was done before the connection was lost.
        if reason != 0 && !(reason == 0x92 && message.may_be_released) {
            return Err(format!(
                "message {} is held no more, its release is answered with {reason:#04x}",
                message.n
            ));
        }
        self.under_way.pop_front();
        self.received -= 1;
        Ok(())
    }
}

fn publish(link: &mut Link, version: Version, flags: u8, matter: &Matter, message: &Message) {
    let retain = u8::from(matches!(matter, Matter::Retained(_)));
    let topic = matter.topic(message.n);
    let (id, payload) = (message.packet_id, &message.payload);
    let packet = packets::publish_flags(version, flags | retain, id, &topic, payload);
    link.outgoing.extend(packet);
}
