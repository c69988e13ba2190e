//! The run for messages between clients: publish, subscribe, kill, start again, prove.
//!
//! Streams of QoS 1 and 2 go to subscribers whose sessions are kept, alone and as a group;
//! topics are retained, replaced and cleared; clients with wills go with the broker. What was
//! acknowledged must be there, of QoS 2 once.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use tollgate::store::{Store, messages, sessions};

use super::{
    cycles::{self, End, SERVES_AGAIN},
    mortals::{self, Fate, Wills},
    rig::{
        admin::Admin,
        device::{self, Device, Matter, Notes, RETAINED_TOPICS},
        load::Load,
        proof,
        random::{self, Random},
        site::Site,
    },
    subscriber::{self, MARKER, Subscribed, Subscriber, Tally},
};
use crate::common::{
    broker::{Broker, Setup},
    client::Client,
    packets::{Connect, Version},
};

/// Streams of messages, each with its publisher.
const STREAMS: usize = 6;

/// Those who retain: one of QoS 1, one of QoS 2.
const SETTERS: [&str; 2] = ["keep-1", "keep-2"];

/// Clients with wills at a time.
const MORTALS: usize = 5;

/// Between two ends of the broker, at most so many messages are published...
const MESSAGES_PER_CYCLE: u64 = 1_200;

/// ...and then it lives at most so much longer, in microseconds.
const JITTER_US: u64 = 20_000;

/// How long a kill waits for a checkpoint: one comes about a second after a start.
const AIM_LIMIT: Duration = Duration::from_secs(3);

/// A checkpoint of what is here takes about so long, in microseconds.
const AIM_JITTER_US: u64 = 30_000;

/// How long everything may take to arrive at the end.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// Those who subscribe.
static SUBSCRIBERS: [subscriber::Habits; 5] = [
    plain("five-1", Version::V5, 1, 20, 0),
    plain("five-2", Version::V5, 2, 20, 0),
    plain("three-1", Version::V311, 1, 0, 0),
    plain("three-2", Version::V311, 2, 0, 0),
    plain("often-away", Version::V5, 2, 100, 2),
];

/// Two that share.
static GROUP: [subscriber::Habits; 2] = [
    member("member-five", Version::V5),
    member("member-three", Version::V311),
];

const fn plain(
    name: &'static str,
    version: Version,
    qos: u8,
    receive_maximum: u16,
    away_one_in: u64,
) -> subscriber::Habits {
    subscriber::Habits {
        name,
        version,
        qos,
        filters: &["load/#", "will/#", MARKER],
        receive_maximum,
        away_one_in,
        gets_all: true,
    }
}

const fn member(name: &'static str, version: Version) -> subscriber::Habits {
    subscriber::Habits {
        filters: &["$share/group/load/#", MARKER],
        away_one_in: 6,
        gets_all: false,
        ..plain(name, version, 2, 20, 0)
    }
}

/// Everything that runs beside the broker.
struct Rig {
    site: Arc<Site>,
    token: String,
    load: Option<Load>,
    /// Of the streams' publishers, then of those who retain.
    notes: Vec<Arc<Notes>>,
    /// Messages that may be begun.
    budget: Arc<AtomicU64>,
    subscribed: Vec<Subscribed>,
    is_over: Arc<AtomicBool>,
    wills: Arc<Wills>,
    mortals: Vec<std::thread::JoinHandle<()>>,
}

/// REL-01, REL-03, REL-06, REL-24: 0 acknowledged messages missing, 0 of QoS 2 doubled within a
/// session, the order kept, retained messages and wills as promised.
#[test]
fn rel_24_what_subscribers_wait_for_survives_kill_9() {
    let cycles = cycles::cycles();
    let mut random = Random::new(random::seed());
    let began = Instant::now();
    // Who is away for some lives gets everything later.
    let setup = Setup::new()
        .set("TOLLGATE_LIMITS_QUEUE_MESSAGES_MAX", "1000000")
        .set("TOLLGATE_LIMITS_QUEUE_MAX_BYTES", "1073741824")
        .set("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "1000")
        .set("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "100000");
    let mut broker = setup.start();
    let rig = Rig::start(&broker, &mut random);
    let mut caught = 0;
    for cycle in 1..=cycles {
        let ended = one_cycle(&mut broker, &rig, &mut random);
        caught += u64::from(ended.is_cut_off);
        println!(
            "cycle {cycle}: {} more published, {:?}, ready after {:?}",
            ended.messages, ended.how, ended.took
        );
        rig.prove_retained(&broker, false);
    }
    let figures = rig.finish(&mut broker);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    println!(
        "{cycles} ends, {caught} within a checkpoint; {:?}: {figures}",
        began.elapsed()
    );
}

/// A life of the broker that is over.
struct Ended {
    messages: u64,
    how: End,
    took: Duration,
    /// It was writing a checkpoint.
    is_cut_off: bool,
}

fn one_cycle(broker: &mut Broker, rig: &Rig, random: &mut Random) -> Ended {
    let data = broker.dir().join("data");
    let stamp = stamp(&data);
    // At times nothing is waited for: it dies while the clients come back.
    let messages = random.below(MESSAGES_PER_CYCLE) * random.below(4).min(1);
    let before = rig.promised();
    rig.budget.store(messages, Ordering::SeqCst);
    rig.site
        .is_up(broker.address("mqtt"), broker.address("http"));
    let awaited = before + random.below(messages + 1);
    let what = format!("{awaited} messages acknowledged");
    rig.site
        .until(&what, SERVES_AGAIN, || rig.promised() >= awaited);
    let mut how = cycles::end(random);
    let is_aimed = random.below(3) == 0;
    if is_aimed {
        how = End::Killed;
        aim(&data, stamp, &rig.budget);
        std::thread::sleep(Duration::from_micros(random.below(AIM_JITTER_US)));
    } else if random.one_in(6) {
        rig.drain(broker);
    } else {
        std::thread::sleep(Duration::from_micros(random.below(JITTER_US)));
    }
    rig.site.is_down();
    let mut is_cut_off = false;
    if is_aimed {
        broker.kill9();
        is_cut_off = has_half_a_checkpoint(&data);
    }
    let took = cycles::end_and_start(broker, how, random, &mut 0);
    rig.site.check();
    Ended {
        messages,
        how,
        took,
        is_cut_off,
    }
}

impl Rig {
    /// Starts everybody; sessions and subscriptions are there when it is done.
    fn start(broker: &Broker, random: &mut Random) -> Rig {
        let admin = Admin::new(broker.dir());
        let wanted = json!({"name": "all", "publish": ["#"], "subscribe": ["#"]});
        let created = admin.post(broker.address("http"), "/apps", &wanted);
        let created = created.expect("the broker answers");
        let token = created["token"].as_str().expect("a token").to_owned();
        let site = Arc::new(Site::default());
        let is_over = Arc::default();
        let shared = Tally::new(STREAMS);
        let start = |habits: &subscriber::Habits, tally: &Arc<Mutex<Tally>>, random: Random| {
            Subscriber::start(habits, &token, tally, random, &site, &is_over)
        };
        let alone = SUBSCRIBERS
            .iter()
            .map(|habits| start(habits, &Tally::new(STREAMS), random.fork()));
        let mut subscribed: Vec<Subscribed> = alone.collect();
        subscribed.extend(
            GROUP
                .iter()
                .map(|habits| start(habits, &shared, random.fork())),
        );
        site.is_up(broker.address("mqtt"), broker.address("http"));
        site.until("all subscribed", SERVES_AGAIN, || {
            subscribed
                .iter()
                .all(|one| one.has_session.load(Ordering::SeqCst))
        });
        let budget: Arc<AtomicU64> = Arc::default();
        let load = Load::start(publishers(&token, &budget, random), &site);
        let notes = load.notes().to_vec();
        let wills: Arc<Wills> = Arc::default();
        let mortals = (0..MORTALS).map(|_| mortals::start(&token, &wills, random.fork(), &site));
        let mortals = mortals.collect();
        Rig {
            site,
            token,
            load: Some(load),
            notes,
            budget,
            subscribed,
            is_over,
            wills,
            mortals,
        }
    }

    /// Messages that were acknowledged.
    fn promised(&self) -> u64 {
        let promised = self.notes.iter().map(|notes| &notes.promised);
        promised
            .map(|promised| promised.load(Ordering::SeqCst))
            .sum()
    }

    /// Lets everything that was begun be acknowledged; then every message is accounted for.
    fn drain(&self, broker: &Broker) {
        self.budget.store(0, Ordering::SeqCst);
        self.site.until("all acknowledged", SERVES_AGAIN, || {
            self.notes.iter().all(|notes| {
                // In this order: what is sent meanwhile is not promised.
                let promised = notes.promised.load(Ordering::SeqCst);
                promised == notes.sent.load(Ordering::SeqCst)
            })
        });
        prove_ledger(broker);
    }

    /// Who comes after a start finds the last acknowledged value of each topic, or one that was
    /// sent later.
    fn prove_retained(&self, broker: &Broker, is_last: bool) {
        let notes = &self.notes[STREAMS..];
        let promised: Vec<u64> = notes
            .iter()
            .map(|notes| notes.promised.load(Ordering::SeqCst))
            .collect();
        let found = retained(broker, &self.token);
        for (at, below) in SETTERS.iter().enumerate() {
            let sent = notes[at].sent.load(Ordering::SeqCst);
            if is_last {
                assert_eq!(promised[at], sent, "{below}: all is acknowledged");
            }
            for place in 0..RETAINED_TOPICS {
                let topic = format!("{below}/{place}");
                let held = found.get(&topic).copied();
                let right = may_be_held(place, promised[at], sent);
                assert!(
                    right.contains(&held),
                    "{topic}: {held:?} is retained, right is one of {right:?}"
                );
            }
        }
    }

    /// Ends all of it and holds what came against what must have come.
    fn finish(mut self, broker: &mut Broker) -> String {
        let (mqtt, http) = (broker.address("mqtt"), broker.address("http"));
        self.site.is_up(mqtt, http);
        self.budget.store(0, Ordering::SeqCst);
        let load = self.load.take().expect("it runs until now");
        let devices = load.finish();
        for mortal in std::mem::take(&mut self.mortals) {
            mortal.join().expect("no mortal panics");
        }
        // Once more: handshakes are under way.
        self.site.is_down();
        broker.kill9();
        broker.restart();
        self.prove_retained(broker, true);
        self.site
            .is_up(broker.address("mqtt"), broker.address("http"));
        let last_will = self.let_wills_come(broker);
        let sent: Vec<u64> = self.notes[..STREAMS]
            .iter()
            .map(|notes| notes.sent.load(Ordering::SeqCst))
            .collect();
        self.await_all("all arrived", || {
            let lacks = self.subscribed.iter().map(|one| missing(one, &sent));
            lacks.flatten().collect()
        });
        let fates = self.wills.fates();
        self.await_all("all wills came", || {
            let watchers = self.subscribed.iter().filter(|one| one.gets_wills);
            let lacks = watchers.map(|one| missing_wills(one, &fates, last_will));
            lacks.flatten().collect()
        });
        // Behind everything: what would come again has come.
        let mut client = self.client(broker, "marker");
        assert_eq!(client.publish(2, MARKER, br#"{"n":0}"#), 0);
        client.disconnect();
        self.await_all("the marker came", || {
            let is_waiting = |one: &&Subscribed| !one.is_at_marker.load(Ordering::SeqCst);
            let waiting = self.subscribed.iter().filter(is_waiting);
            waiting.map(|one| one.name.to_owned()).collect()
        });
        prove_ledger(broker);
        let (repeated, unasked) = self.judge_what_came(&fates, last_will);
        let promised = self.promised();
        assert_eq!(promised, devices.iter().map(Device::sent).sum::<u64>());
        format!(
            "{promised} acknowledged, {} wills, 0 missing, 0 of QoS 2 doubled, {repeated} of QoS 1 \
             repeated, {unasked} wills of unanswered packets came",
            fates.len()
        )
    }

    /// Ends those who subscribed; nothing came that must not. How many messages of QoS 1 came
    /// again, and how many wills that may or may not come.
    fn judge_what_came(
        &mut self,
        fates: &BTreeMap<u64, (Fate, String)>,
        last_will: u64,
    ) -> (u64, usize) {
        self.is_over.store(true, Ordering::SeqCst);
        let (mut repeated, mut unasked) = (0, 0);
        for one in std::mem::take(&mut self.subscribed) {
            let tally = Arc::clone(&one.tally);
            let (name, is_watcher) = (one.name, one.gets_wills);
            one.join();
            let tally = tally.lock().unwrap();
            if is_watcher {
                repeated += tally.repeated;
                unasked += prove_wills(name, &tally, fates, last_will);
            }
        }
        self.site.check();
        (repeated, unasked)
    }

    /// Waits until nothing is lacking.
    fn await_all(&self, what: &str, lacking: impl Fn() -> Vec<String>) {
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        loop {
            self.site.check();
            let lacking = lacking();
            if lacking.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not within {ARRIVAL_LIMIT:?}: {what}\n{}",
                lacking.join("\n")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A will that waits longer than all others comes behind them; its number.
    fn let_wills_come(&self, broker: &Broker) -> u64 {
        let n = self.wills.fresh();
        let topic = format!("will/{n}");
        let mut connect = Connect::with_token(Version::V5, "last will", &self.token)
            .kept_for(60)
            .will_delay(mortals::DELAY_MAX_S + 1);
        connect.will = Some((subscriber::qos_of(n), false, &topic, b"last"));
        Client::connect(broker, &connect).wire.reset();
        n
    }

    fn client(&self, broker: &Broker, id: &str) -> Client {
        Client::connect(broker, &Connect::with_token(Version::V5, id, &self.token))
    }
}

/// Those of the streams, then those who retain.
fn publishers(token: &str, budget: &Arc<AtomicU64>, random: &mut Random) -> Vec<Device> {
    let make = |name: String, at: usize, matter: Matter, random: Random| {
        let habits = device::Habits {
            version: if (at / 2).is_multiple_of(2) {
                Version::V5
            } else {
                Version::V311
            },
            qos: subscriber::qos_of(at as u64),
            keeps_session: true,
            window: 8,
            text_bytes: (0, 3_000),
            take_over_one_in: 400,
            ping_interval: Duration::ZERO,
            patience: SERVES_AGAIN,
        };
        let id = uuid::Uuid::nil();
        Device::new(&name, id, token, habits, random).publishing(matter, budget)
    };
    let mut made = Vec::new();
    for at in 0..STREAMS {
        let matter = Matter::Stream(format!("load/{at}"));
        made.push(make(format!("publisher-{at}"), at, matter, random.fork()));
    }
    for (at, below) in SETTERS.iter().enumerate() {
        let matter = Matter::Retained((*below).to_owned());
        // QoS 1 in MQTT 5, QoS 2 in 3.1.1.
        let name = format!("setter-{at}");
        made.push(make(name, 3 * at, matter, random.fork()));
    }
    made
}

/// Every message that came is stored, handed on, refused or a repetition.
fn prove_ledger(broker: &Broker) {
    let sum = |what: &str| broker.metric_sum(&format!("tollgate_messages_{what}_total"));
    let deadline = Instant::now() + SERVES_AGAIN;
    loop {
        // Wills and readers come and go meanwhile: it is right at some moment.
        let accounted = sum("stored") + sum("routed") + sum("refused") + sum("repeated");
        if broker.metric("tollgate_messages_in_flight") == 0.0 && sum("received") == accounted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "messages do not add up: {}",
            broker.metrics()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What did not come to a subscriber, or to its group.
fn missing(one: &Subscribed, sent: &[u64]) -> Vec<String> {
    let tally = one.tally.lock().unwrap();
    let lacking = sent.iter().enumerate().filter_map(|(stream, sent)| {
        let came = tally.distinct(stream);
        let first = tally.first_missing(stream, *sent)?;
        let name = one.name;
        Some(format!(
            "{name}: stream {stream}: {came} of {sent}, not {first}"
        ))
    });
    lacking.collect()
}

/// Wills that did not come to a subscriber.
fn missing_wills(
    one: &Subscribed,
    fates: &BTreeMap<u64, (Fate, String)>,
    last: u64,
) -> Vec<String> {
    let tally = one.tally.lock().unwrap();
    let due = fates.iter().filter(|(_, (fate, _))| *fate == Fate::Comes);
    let lacking = due.filter(|(n, _)| !tally.wills.contains_key(*n));
    let mut lacking: Vec<String> = lacking
        .map(|(n, (_, story))| format!("{}: will {n}: {story}", one.name))
        .collect();
    if !tally.wills.contains_key(&last) {
        lacking.push(format!("{}: the last will, {last}", one.name));
    }
    lacking
}

/// No will that must not come; answers how many came that may.
fn prove_wills(
    name: &str,
    tally: &Tally,
    fates: &BTreeMap<u64, (Fate, String)>,
    last: u64,
) -> usize {
    let mut unasked = 0;
    for n in tally.wills.keys().filter(|n| **n != last) {
        match fates.get(n) {
            Some((Fate::Comes, _)) => {}
            Some((Fate::Unclear, _)) => unasked += 1,
            fate => panic!("{name}: will {n} came, and its fate is {fate:?}"),
        }
    }
    unasked
}

/// The numbers of what is retained, by topic.
fn retained(broker: &Broker, token: &str) -> BTreeMap<String, u64> {
    let connect = Connect::with_token(Version::V5, "reader", token);
    let mut reader = Client::connect(broker, &connect);
    assert_eq!(reader.retain(1, "end-of-retained", b"end"), 0);
    // What is retained comes filter by filter.
    for filter in ["keep-1/#", "keep-2/#", "end-of-retained"] {
        assert_eq!(reader.subscribe(filter, 0), 0, "{filter}");
    }
    let mut found = BTreeMap::new();
    loop {
        let message = reader.next();
        if message.topic == "end-of-retained" {
            reader.disconnect();
            return found;
        }
        found.insert(message.topic.clone(), proof::number(&message.payload));
    }
}

/// What may be retained at a place of a setter of whom so many messages were acknowledged, and so
/// many sent: the last acknowledged one, and each later one. `None` is nothing.
fn may_be_held(place: u64, promised: u64, sent: u64) -> Vec<Option<u64>> {
    let is_here = |n: &u64| n % RETAINED_TOPICS == place;
    let value = |n: u64| (!device::clears(n)).then_some(n);
    let last = (0..promised).rev().find(is_here).and_then(value);
    let later = (promised..sent).filter(is_here).map(value);
    std::iter::once(last).chain(later).collect()
}

/// Waits until the state database has been written since `before`; traffic goes on.
fn aim(data: &Path, before: Option<(u64, SystemTime)>, budget: &AtomicU64) {
    let deadline = Instant::now() + AIM_LIMIT;
    while stamp(data) == before && Instant::now() < deadline {
        let _ = budget.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Length and time of the database's log.
fn stamp(data: &Path) -> Option<(u64, SystemTime)> {
    let held = fs::metadata(data.join("state.db-wal")).ok()?;
    Some((held.len(), held.modified().ok()?))
}

/// Whether the database of a broker that is dead has a checkpoint that did not come to its end.
/// A copy is looked at: opening it changes it.
fn has_half_a_checkpoint(data: &Path) -> bool {
    let copy = tempfile::TempDir::with_prefix("tollgate-test-").expect("a temporary directory");
    for name in ["state.db", "state.db-wal"] {
        // The log may not be there.
        let _ = fs::copy(data.join(name), copy.path().join(name));
    }
    let store = Store::open(copy.path()).expect("the copy opens");
    let is_partly_written = store.read(|connection| {
        let last = sessions::offset(connection)?;
        messages::is_partly_written(connection, last)
    });
    is_partly_written.expect("the copy can be read")
}
