//! What the subscription tree and the retained messages cost at the size of a fleet: a million
//! subscriptions of 100,000 sessions, a million retained messages.
//!
//! `cargo bench --bench tree` measures; `cargo test` runs each once at a hundredth of the size, so
//! that none of them rots. The allocation columns are counted by the allocator: a match shows
//! none, and "max alloc" of the two `*_a_million` rows is the memory of the whole.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark ends at what it does not expect"
)]

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use tollgate::broker::retained::{Cursor, Progress, RetainedIndex, RetainedLimits, STEP_COST_MAX};
use tollgate::broker::tree::{
    Delivery, Matches, Subscriber, SubscriptionTree, Subscriptions, TreeLimits,
};
use tollgate::mqtt::message::{Content, Message, Publisher};
use tollgate::mqtt::topic::{Filter, Topic};
use tollgate::mqtt::wire::{QoS, SubscriptionOptions};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Workers the sessions are spread over.
const WORKERS: usize = 4;
/// Sessions of a site.
const SITE_SESSIONS: usize = 100;
/// Subscriptions of a session: see `filters`.
const SESSION_FILTERS: usize = 10;

fn main() {
    divan::main();
}

/// 100,000 sessions when measuring.
fn sessions_all() -> usize {
    match std::env::args().any(|argument| argument == "--bench") {
        true => 100_000,
        false => 1_000,
    }
}

/// Four topics of the device, one wildcard of its own, three with `+` on its site, what is sent to
/// all, and the jobs of its site, shared.
fn filters(n: usize) -> [String; SESSION_FILTERS] {
    let site = n / SITE_SESSIONS;
    [
        format!("v1/devices/{n:08}/rpc/request"),
        format!("dev/{n:08}/cmd"),
        format!("dev/{n:08}/config"),
        format!("dev/{n:08}/firmware"),
        format!("dev/{n:08}/file/+"),
        format!("site/{site}/+/alarm"),
        format!("site/{site}/line{}/+/mode", n % 10),
        format!("site/{site}/notice/#"),
        "broadcast/#".to_owned(),
        format!("$share/crew/site/{site}/jobs"),
    ]
}

struct Fleet {
    tree: SubscriptionTree,
    sessions: Vec<Subscriptions>,
}

static FLEET: LazyLock<Fleet> = LazyLock::new(|| fleet(sessions_all()));

fn fleet(sessions: usize) -> Fleet {
    let tree = SubscriptionTree::new(TreeLimits::default());
    let sessions = (0..sessions).map(|n| {
        let mut own = session(n);
        for text in filters(n) {
            subscribe(&tree, &mut own, &text);
        }
        own
    });
    let sessions = sessions.collect();
    Fleet { tree, sessions }
}

fn session(n: usize) -> Subscriptions {
    let worker = u16::try_from(n % WORKERS).unwrap();
    let slot = u32::try_from(n / WORKERS).unwrap();
    Subscriptions::new(Subscriber::new(worker, slot, 0).unwrap(), true)
}

fn subscribe(tree: &SubscriptionTree, own: &mut Subscriptions, text: &str) {
    let filter = Filter::new(text).unwrap();
    tree.subscribe(own, filter, SubscriptionOptions::default(), Some(1))
        .unwrap();
}

/// 1,000 sessions with each of the filters.
fn listeners(filters: &[&str]) -> SubscriptionTree {
    let tree = SubscriptionTree::new(TreeLimits::default());
    for n in 0..1_000 {
        let mut own = session(n);
        for text in filters {
            subscribe(&tree, &mut own, text);
        }
    }
    tree
}

/// Measures one match after another over the topics; `deliveries` is what each yields.
fn measure(
    bencher: Bencher<'_, '_>,
    tree: &SubscriptionTree,
    topics: &[String],
    deliveries: usize,
) {
    let count = |found: &Matches| found.deliveries().len() + found.shares().count();
    let mut found = Matches::new();
    for text in topics {
        tree.matches(Topic::new(text).unwrap(), None, &mut found);
        assert_eq!(count(&found), deliveries, "{text}");
    }
    let next = AtomicUsize::new(0);
    bencher
        .counter(ItemsCount::new(deliveries.max(1)))
        .with_inputs(|| {
            let at = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919);
            Topic::new(&topics[at % topics.len()]).unwrap()
        })
        .bench_local_values(|topic| {
            tree.matches(black_box(topic), None, &mut found);
            black_box(found.deliveries().len())
        });
}

/// Topics of devices all over the fleet, so that not all of them are in the caches.
fn of_devices(name: impl Fn(usize) -> String) -> Vec<String> {
    let all = sessions_all();
    (0..10_000).map(|n| name(n * 37 % all)).collect()
}

#[divan::bench(sample_count = 1, sample_size = 1)]
fn subscribe_a_million(bencher: Bencher<'_, '_>) {
    let all = sessions_all();
    bencher
        .counter(ItemsCount::new(all * SESSION_FILTERS))
        .bench_local(|| fleet(all));
}

#[divan::bench]
fn match_one_subscriber(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("dev/{n:08}/cmd"));
    measure(bencher, &FLEET.tree, &topics, 1);
}

#[divan::bench]
fn match_one_wildcard_subscriber(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("dev/{n:08}/file/7"));
    measure(bencher, &FLEET.tree, &topics, 1);
}

#[divan::bench]
fn match_nobody(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("up/{n:08}/temperature"));
    measure(bencher, &FLEET.tree, &topics, 0);
}

#[divan::bench]
fn match_100_of_a_site(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("site/{}/7/alarm", n / SITE_SESSIONS));
    measure(bencher, &FLEET.tree, &topics, SITE_SESSIONS);
}

#[divan::bench]
fn match_a_share_group_of_100(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("site/{}/jobs", n / SITE_SESSIONS));
    measure(bencher, &FLEET.tree, &topics, 1);
}

#[divan::bench]
fn match_everybody(bencher: Bencher<'_, '_>) {
    measure(
        bencher,
        &FLEET.tree,
        &["broadcast/now".to_owned()],
        sessions_all(),
    );
}

#[divan::bench]
fn match_1000_by_one_filter(bencher: Bencher<'_, '_>) {
    let tree = listeners(&["fan/out"]);
    measure(bencher, &tree, &["fan/out".to_owned()], 1_000);
}

#[divan::bench]
fn match_1000_by_three_filters_each(bencher: Bencher<'_, '_>) {
    let tree = listeners(&["fan/out", "fan/+", "fan/#"]);
    measure(bencher, &tree, &["fan/out".to_owned()], 1_000);
}

/// The same match in a small tree and in a large one.
#[divan::bench(args = [1, 10, 100])]
fn match_one_among_percent_of_the_fleet(bencher: Bencher<'_, '_>, percent: usize) {
    let small;
    let tree = match percent {
        100 => &FLEET.tree,
        _ => {
            small = fleet(sessions_all() * percent / 100);
            &small.tree
        }
    };
    measure(bencher, tree, &["dev/00000003/cmd".to_owned()], 1);
}

/// What a cache by topic would cost at its best: a hit, and the same copy.
#[divan::bench(args = [1, 1_000])]
fn a_cache_hit_instead(bencher: Bencher<'_, '_>, subscribers: usize) {
    let tree = listeners(&["fan/out"]);
    let mut found = Matches::new();
    tree.matches(Topic::new("fan/out").unwrap(), None, &mut found);
    let kept: Vec<Delivery> = found.deliveries()[..subscribers].to_vec();
    let topics = of_devices(|n| format!("dev/{n:08}/cmd"));
    let cache: HashMap<&str, &Vec<Delivery>> =
        topics.iter().map(|topic| (topic.as_str(), &kept)).collect();
    let next = AtomicUsize::new(0);
    let mut out = Vec::new();
    bencher
        .counter(ItemsCount::new(subscribers))
        .with_inputs(|| {
            let at = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919);
            topics[at % topics.len()].as_str()
        })
        .bench_local_values(|topic| {
            out.clear();
            out.extend_from_slice(cache[black_box(topic)]);
            black_box(out.len())
        });
}

/// Matches of several workers at once, of different topics in the same tries.
#[divan::bench(threads = [1, 2])]
fn match_on_threads(bencher: Bencher<'_, '_>) {
    let topics = of_devices(|n| format!("dev/{n:08}/file/7"));
    let next = AtomicUsize::new(0);
    LazyLock::force(&FLEET);
    bencher
        .with_inputs(|| {
            let at = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919);
            Topic::new(&topics[at % topics.len()]).unwrap()
        })
        .bench_values(|topic| {
            thread_local! {
                static FOUND: std::cell::RefCell<Matches> = std::cell::RefCell::default();
            }
            FOUND.with_borrow_mut(|found| {
                FLEET.tree.matches(topic, None, found);
                found.deliveries().len()
            })
        });
}

#[divan::bench(args = ["dev/x/cmd", "site/7/+/other", "broadcast/#"])]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>, text: &str) {
    let filter = Filter::new(text).unwrap();
    let mut own = session(sessions_all());
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        subscribe(&FLEET.tree, &mut own, text);
        assert!(FLEET.tree.unsubscribe(&mut own, filter));
    });
}

#[divan::bench]
fn replace_a_subscription(bencher: Bencher<'_, '_>) {
    let mut own = session(sessions_all());
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| subscribe(&FLEET.tree, &mut own, "site/7/+/alarm"));
    FLEET.tree.clear(&mut own);
}

#[divan::bench]
fn a_session_comes_and_goes(bencher: Bencher<'_, '_>) {
    let all = sessions_all();
    let mut own = session(all);
    let filters = filters(all + 7);
    bencher
        .counter(ItemsCount::new(SESSION_FILTERS))
        .bench_local(|| {
            for text in &filters {
                subscribe(&FLEET.tree, &mut own, text);
            }
            assert_eq!(FLEET.tree.clear(&mut own), SESSION_FILTERS);
        });
    assert_eq!(
        FLEET.tree.figures().subscriptions,
        FLEET.sessions.len() * SESSION_FILTERS
    );
}

/// Ten topics for each of the sessions' number.
static RETAINED: LazyLock<RetainedIndex> = LazyLock::new(|| retained(sessions_all() * 10, 1));

fn retained(messages: usize, stride: usize) -> RetainedIndex {
    let index = RetainedIndex::new(RetainedLimits {
        messages_max: messages,
        bytes_max: usize::MAX,
        publisher_messages_max: usize::MAX,
        publisher_bytes_max: usize::MAX,
    });
    for n in 0..messages {
        let n = n * stride % messages;
        let message = message(n);
        index.admit(&message).unwrap();
        index.apply(&message, offset(n), 0);
    }
    index
}

/// Ten topics of each device, 100 devices of each site; 33 bytes.
fn retained_topic(n: usize) -> String {
    format!(
        "site/{:04}/device/{:06}/state/{:03}",
        n / 1_000,
        n / 10,
        n % 10
    )
}

fn offset(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

fn message(n: usize) -> Arc<Message> {
    let text = retained_topic(n);
    let topic = Topic::new(&text).unwrap();
    let content = Content::from_parts(topic, b"", &[b'x'; 64], QoS::AtLeastOnce, true);
    let publisher = Publisher {
        identity: u128::try_from(n / 10).unwrap(),
        credential: 1,
        generation: 1,
    };
    Arc::new(Message::restored(content, publisher, 1, None))
}

/// In order of topic (1), as a start reads them back, and all over the place, as devices send.
#[divan::bench(sample_count = 1, sample_size = 1, args = [1, 7_919])]
fn retain_a_million(bencher: Bencher<'_, '_>, stride: usize) {
    let messages = sessions_all() * 10;
    bencher
        .counter(ItemsCount::new(messages))
        .bench_local(|| retained(messages, stride));
}

#[divan::bench]
fn retained_replace(bencher: Bencher<'_, '_>) {
    let messages = RETAINED.figures().messages;
    let next = AtomicUsize::new(0);
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let at = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919) % messages;
            (offset(at), message(at))
        })
        .bench_local_values(|(offset, message)| {
            RETAINED.admit(&message).unwrap();
            RETAINED.apply(&message, offset, 0)
        });
}

/// A whole walk: one topic; the ten of a device; the 100 of a site by `+`; nothing.
#[divan::bench(args = [
    ("site/0000/device/000007/state/003", 1),
    ("site/0000/device/000007/#", 10),
    ("site/0000/device/+/state/003", 100),
    ("site/nowhere/+/state", 0),
    ("site/+/device/000007/state/003", 1),
])]
fn retained_walk(bencher: Bencher<'_, '_>, (text, expected): (&str, usize)) {
    let filter = Filter::new(text).unwrap();
    LazyLock::force(&RETAINED);
    let mut found = Vec::new();
    bencher
        .counter(ItemsCount::new(expected.max(1)))
        .bench_local(|| {
            found.clear();
            let mut cursor = Cursor::new(black_box(filter), u64::MAX);
            while RETAINED.step(&mut cursor, 0, &mut found) == Progress::More {}
            assert_eq!(found.len(), expected);
        });
}

/// One step of `#` over everything: the longest time that the lock is held.
#[divan::bench]
fn retained_one_step_of_all(bencher: Bencher<'_, '_>) {
    LazyLock::force(&RETAINED);
    let mut found = Vec::with_capacity(STEP_COST_MAX);
    let mut cursor = Cursor::new(Filter::new("#").unwrap(), u64::MAX);
    bencher
        .counter(ItemsCount::new(STEP_COST_MAX))
        .bench_local(|| {
            found.clear();
            if RETAINED.step(&mut cursor, 0, &mut found) == Progress::Done {
                cursor = Cursor::new(Filter::new("#").unwrap(), u64::MAX);
            }
        });
}
