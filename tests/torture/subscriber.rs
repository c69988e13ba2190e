//! A subscriber with a kept session that comes back after every kill, and holds what it is sent
//! against what must come: nothing left out, in order, and of QoS 2 nothing twice.
//!
//! It keeps the packet ids of QoS 2 whatever happens to the broker, as a client must
//! [MQTT-4.3.3-12]: a PUBLISH under an id that it holds is the same message again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    cycles::SERVES_AGAIN,
    rig::{
        link::{Link, Over},
        proof,
        random::Random,
        site::Site,
    },
};
use crate::common::{
    client::Message,
    packets::{self, Connect, Version, packet},
};

/// How long one read waits: acknowledgements are held back for some of them.
const LOOK_AROUND: Duration = Duration::from_millis(3);

/// How a subscriber behaves.
#[derive(Clone)]
pub(crate) struct Habits {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) qos: u8,
    pub(crate) filters: &'static [&'static str],
    /// In MQTT 5.
    pub(crate) receive_maximum: u16,
    /// Of the ends of its connections, one in so many leads to a pause for a life of the broker.
    /// 0 = none.
    pub(crate) away_one_in: u64,
    /// Who gets everything gets it in order; members of a group get parts.
    pub(crate) gets_all: bool,
}

/// What came, of one subscriber or of a group.
pub(crate) struct Tally {
    /// By stream.
    streams: Vec<Seen>,
    /// How often each will came.
    pub(crate) wills: BTreeMap<u64, u32>,
    /// Messages of QoS 1 that came again.
    pub(crate) repeated: u64,
}

/// What came of a stream.
#[derive(Default)]
struct Seen {
    /// How often each message came.
    times: Vec<u8>,
    distinct: u64,
}

/// One subscriber.
pub(crate) struct Subscriber {
    habits: Habits,
    token: String,
    tally: Arc<Mutex<Tally>>,
    /// The last message of all came.
    is_at_marker: Arc<AtomicBool>,
    has_session: Arc<AtomicBool>,
    random: Random,
    /// QoS 2 messages whose PUBREL has not come.
    held: HashMap<u16, (String, Vec<u8>)>,
    /// Acknowledgements that are held back.
    later: Vec<u8>,
    /// The last packets, to be shown.
    trace: VecDeque<String>,
}

/// A subscriber on its thread.
pub(crate) struct Subscribed {
    pub(crate) name: &'static str,
    pub(crate) gets_wills: bool,
    pub(crate) tally: Arc<Mutex<Tally>>,
    pub(crate) is_at_marker: Arc<AtomicBool>,
    pub(crate) has_session: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The topic of the last message of all.
pub(crate) const MARKER: &str = "marker";

/// The quality of service with which stream `at` is published; the same for wills.
pub(crate) fn qos_of(at: u64) -> u8 {
    if at.is_multiple_of(2) { 1 } else { 2 }
}

impl Tally {
    pub(crate) fn new(streams: usize) -> Arc<Mutex<Tally>> {
        let streams = (0..streams).map(|_| Seen::default()).collect();
        Arc::new(Mutex::new(Tally {
            streams,
            wills: BTreeMap::new(),
            repeated: 0,
        }))
    }

    /// Different messages that came of a stream.
    pub(crate) fn distinct(&self, stream: usize) -> u64 {
        self.streams[stream].distinct
    }

    /// The first of so many messages of a stream that did not come.
    pub(crate) fn first_missing(&self, stream: usize, sent: u64) -> Option<u64> {
        let seen = &self.streams[stream];
        let at = |n: &u64| usize::try_from(*n).expect("numbers are small");
        (0..sent).find(|n| seen.times.get(at(n)).is_none_or(|times| *times == 0))
    }

    /// Message `n` came.
    fn note(&mut self, stream: usize, n: u64, qos: u8, gets_all: bool) -> Result<(), String> {
        let seen = &mut self.streams[stream];
        let at = usize::try_from(n).expect("numbers are small");
        if seen.times.len() <= at {
            seen.times.resize(at + 1, 0);
        }
        if seen.times[at] > 0 {
            if qos == 2 {
                return Err(format!("message {n} of stream {stream}, QoS 2, came again"));
            }
            seen.times[at] = seen.times[at].saturating_add(1);
            self.repeated += 1;
            return Ok(());
        }
        if gets_all && n != seen.distinct {
            let what = format!("message {n} of stream {stream}, QoS {qos}");
            let expected = seen.distinct;
            return Err(format!("{what} came when {expected} was the next new one"));
        }
        seen.times[at] = 1;
        seen.distinct += 1;
        Ok(())
    }

    fn note_will(&mut self, n: u64, qos: u8) -> Result<(), String> {
        let times = self.wills.entry(n).or_default();
        *times += 1;
        if *times > 1 && qos == 2 {
            return Err(format!("will {n}, QoS 2, came again"));
        }
        Ok(())
    }
}

impl Subscriber {
    /// Starts it; it ends with the test, or when `is_over`.
    pub(crate) fn start(
        habits: &Habits,
        token: &str,
        tally: &Arc<Mutex<Tally>>,
        random: Random,
        site: &Arc<Site>,
        is_over: &Arc<AtomicBool>,
    ) -> Subscribed {
        let subscriber = Subscriber {
            token: token.to_owned(),
            tally: Arc::clone(tally),
            is_at_marker: Arc::default(),
            has_session: Arc::default(),
            random,
            held: HashMap::new(),
            later: Vec::new(),
            trace: VecDeque::new(),
            habits: habits.clone(),
        };
        let (is_at_marker, has_session) = (
            Arc::clone(&subscriber.is_at_marker),
            Arc::clone(&subscriber.has_session),
        );
        let (site, is_over) = (Arc::clone(site), Arc::clone(is_over));
        let thread = std::thread::Builder::new().name(habits.name.to_owned());
        let run = move || subscriber.run(&site, &is_over);
        Subscribed {
            name: habits.name,
            gets_wills: habits.filters.contains(&"will/#"),
            tally: Arc::clone(tally),
            is_at_marker,
            has_session,
            thread: thread.spawn(run).expect("a thread can be started"),
        }
    }

    fn run(mut self, site: &Site, is_over: &AtomicBool) {
        while !is_over.load(Ordering::SeqCst) {
            let Some(address) = site.mqtt() else { return };
            let Ok(mut link) = Link::open(address) else {
                // It is about to go down or to come up: the site will say.
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            match self.talk(&mut link, site, is_over) {
                Over::Violated(what) => {
                    let trace: Vec<String> = self.trace.into_iter().collect();
                    let trace = trace.join("\n  ");
                    site.report(format!("{}: {what}; before:\n  {trace}", self.habits.name));
                    return;
                }
                Over::Done => return,
                Over::Lost | Over::Abandoned => self.stay_away(site),
            }
        }
    }

    /// For the rest of this life of the broker, or for the next one.
    fn stay_away(&mut self, site: &Site) {
        let one_in = self.habits.away_one_in;
        if one_in == 0 || !self.random.one_in(one_in) {
            return;
        }
        let passed: Option<SocketAddr> = site.mqtt();
        while !site.is_finishing() && passed.is_some() && site.mqtt() == passed {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn talk(&mut self, link: &mut Link, site: &Site, is_over: &AtomicBool) -> Over {
        self.later.clear();
        self.say("connects".to_owned());
        let outcome = self.connect(link, site);
        match outcome.and_then(|()| self.listen(link, site, is_over)) {
            Ok(over) | Err(over) => over,
        }
    }

    fn connect(&mut self, link: &mut Link, site: &Site) -> Result<(), Over> {
        let _ = link.stream.set_read_timeout(Some(LOOK_AROUND));
        let habits = self.habits.clone();
        let mut connect = Connect::with_token(habits.version, habits.name, &self.token)
            .kept()
            .receive_maximum(habits.receive_maximum);
        connect.keep_alive_s = 600;
        let is_present = link.connect(&connect, SERVES_AGAIN, site)?;
        let had = self.has_session.load(Ordering::SeqCst);
        if had && !is_present {
            // REL-06
            let what = "the session is gone that it had".to_owned();
            return Err(Over::Violated(what));
        }
        if !had {
            let filters: Vec<_> = habits
                .filters
                .iter()
                .map(|one| (*one, habits.qos))
                .collect();
            let subscribe = packets::subscribe(habits.version, 1, &filters);
            link.outgoing.extend(subscribe);
        }
        Ok(())
    }

    fn listen(&mut self, link: &mut Link, site: &Site, is_over: &AtomicBool) -> Result<Over, Over> {
        loop {
            if site.is_abandoned() {
                return Ok(Over::Done);
            }
            let may_wait = !site.is_finishing() && !self.random.one_in(2);
            if !may_wait {
                link.outgoing.append(&mut self.later);
            }
            if is_over.load(Ordering::SeqCst) {
                link.outgoing.extend([0xe0, 0]);
                link.write()?;
                return Ok(Over::Done);
            }
            let outcome = link.write().and_then(|()| link.read());
            // Also after the end: what came before it has arrived.
            while let Some(packet) = link.take_packet() {
                self.take(&packet)?;
            }
            outcome?;
            if self.habits.away_one_in > 0 && !site.is_finishing() && self.random.one_in(200) {
                link.outgoing.extend([0xe0, 0]);
                link.write()?;
                return Ok(Over::Lost);
            }
        }
    }

    fn take(&mut self, packet: &[u8]) -> Result<(), Over> {
        match packet[0] >> 4 {
            3 => {
                let message = Message::read(self.habits.version, packet);
                self.receive(&message).map_err(Over::Violated)
            }
            6 => {
                self.release(u16::from_be_bytes([packet[2], packet[3]]));
                Ok(())
            }
            9 => {
                let mut granted = packet.iter().rev().take(self.habits.filters.len());
                if granted.any(|code| *code != self.habits.qos) {
                    return Err(Over::Violated(format!("SUBACK {packet:02x?}")));
                }
                self.has_session.store(true, Ordering::SeqCst);
                Ok(())
            }
            13 => Ok(()),
            14 => Err(Over::Lost),
            _ => Err(Over::Violated(format!("unexpected: {packet:02x?}"))),
        }
    }

    fn receive(&mut self, message: &Message) -> Result<(), String> {
        let id = message.id.to_be_bytes();
        self.say(format!(
            "PUBLISH {} QoS {} dup {} id {} {}",
            message.topic,
            message.qos,
            message.dup,
            message.id,
            message.text().chars().take(16).collect::<String>()
        ));
        if message.qos != 2 {
            self.later.extend(packet(0x40, &id));
            return self.note(message);
        }
        self.later.extend(packet(0x50, &id));
        let now = (message.topic.clone(), message.payload.clone());
        match self.held.get(&message.id) {
            Some(before) if *before != now => Err(format!(
                "packet id {} is held for {:?} and came with {:?}",
                message.id, before.0, now.0
            )),
            Some(_) if !message.dup => Err(format!("id {} again without DUP", message.id)),
            Some(_) => Ok(()),
            None => {
                self.held.insert(message.id, now);
                self.note(message)
            }
        }
    }

    fn release(&mut self, id: u16) {
        self.say(format!("PUBREL {id}"));
        let mut body = id.to_be_bytes().to_vec();
        if self.held.remove(&id).is_none() && self.habits.version == Version::V5 {
            body.push(0x92);
        }
        self.later.extend(packet(0x70, &body));
    }

    /// A message that is not one that is held.
    fn note(&self, message: &Message) -> Result<(), String> {
        let (kind, at) = message.topic.split_once('/').unwrap_or((MARKER, "0"));
        let at: u64 = at.parse().expect("topics end in numbers");
        let sent = if kind == MARKER { 2 } else { qos_of(at) };
        let expected = sent.min(self.habits.qos);
        if message.qos != expected {
            return Err(format!("QoS {expected} is right: {message:?}"));
        }
        let mut tally = self.tally.lock().unwrap();
        match kind {
            "load" => {
                let stream = usize::try_from(at).expect("streams are few");
                let n = proof::number(&message.payload);
                tally.note(stream, n, expected, self.habits.gets_all)
            }
            "will" => tally.note_will(at, expected),
            _ => {
                self.is_at_marker.store(true, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn say(&mut self, line: String) {
        if self.trace.len() == 60 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }
}

impl Subscribed {
    pub(crate) fn join(self) {
        self.thread.join().expect("no subscriber panics");
    }
}
