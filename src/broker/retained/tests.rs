//! The index against a list that is searched from end to end.

use std::collections::BTreeMap;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::mqtt::message::{Content, Publisher};
use crate::mqtt::wire::QoS;

const NOW_MS: u64 = 1_000_000;
const ALL: u64 = u64::MAX;

fn filter(text: &str) -> Filter<'_> {
    Filter::new(text).expect(text)
}

fn topic(text: &str) -> Topic<'_> {
    Topic::new(text).expect(text)
}

/// A message that is to be retained, with the offset of its record.
#[derive(Clone)]
struct Sent {
    publisher: u128,
    generation: u32,
    offset: u64,
    expires_ms: Option<u64>,
    body: String,
}

impl Sent {
    fn on(&self, name: &str) -> Arc<Message> {
        let body = self.body.as_bytes();
        let content = Content::from_parts(topic(name), b"", body, QoS::AtLeastOnce, true);
        let publisher = Publisher {
            identity: self.publisher,
            credential: 1,
            generation: self.generation,
        };
        Arc::new(Message::restored(content, publisher, 1, self.expires_ms))
    }
}

fn message(offset: u64, body: &str) -> Sent {
    Sent {
        publisher: 1,
        generation: 1,
        offset,
        expires_ms: None,
        body: body.to_owned(),
    }
}

fn from(publisher: u128, offset: u64, body: &str) -> Sent {
    Sent {
        publisher,
        ..message(offset, body)
    }
}

/// Admits and applies, as one worker alone does.
#[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
fn set(index: &RetainedIndex, name: &str, sent: Sent) -> Result<Kept, RetainedFull> {
    let message = sent.on(name);
    index.admit(&message)?;
    let kept = index.apply(&message, sent.offset, sent.offset);
    assert_is_sum(index);
    Ok(kept)
}

/// True if it cleared one.
fn clear(index: &RetainedIndex, name: &str, offset: u64) -> bool {
    let before = index.figures().messages;
    set(index, name, message(offset, "")).expect("a clear is let in");
    index.figures().messages < before
}

/// The sums are those of what is held and what is on its way.
fn assert_is_sum(index: &RetainedIndex) {
    let state = index.read();
    if state.messages.len() > 1_000 {
        return; // too slow to do at every step
    }
    let held = state.messages.iter();
    let sizes = held.map(|(topic, held)| (&**topic, Size::of(&held.message)));
    assert!(state.accounts.is_sum_of(sizes));
}

fn index() -> RetainedIndex {
    RetainedIndex::new(RetainedLimits {
        publisher_messages_max: usize::MAX,
        publisher_bytes_max: usize::MAX,
        ..RetainedLimits::default()
    })
}

fn walk(index: &RetainedIndex, text: &str, before: u64) -> Vec<String> {
    let mut cursor = Cursor::new(filter(text), before);
    let mut found = Vec::new();
    while index.step(&mut cursor, NOW_MS, &mut found) == Progress::More {}
    assert_eq!(
        index.step(&mut cursor, NOW_MS, &mut found),
        Progress::Done,
        "it stays over"
    );
    found.iter().map(|found| found.topic.to_string()).collect()
}

#[test]
fn mqtt_3_3_1_a_topic_keeps_its_last_message_until_it_is_cleared() {
    let index = index();
    assert_eq!(set(&index, "a/b", message(1, "one")), Ok(Kept::New));
    assert_eq!(set(&index, "a/b", message(2, "two")), Ok(Kept::Replaced));
    assert_eq!(set(&index, "a/b", message(1, "late")), Ok(Kept::Outdated));
    let held = index.get(topic("a/b"), NOW_MS).expect("kept");
    assert_eq!(held.content().payload(), b"two");
    assert_eq!(
        index.figures(),
        RetainedFigures {
            messages: 1,
            bytes: 6
        }
    );
    assert!(!clear(&index, "a/b", 1), "an earlier clear");
    assert!(!clear(&index, "a", 9));
    assert!(clear(&index, "a/b", 3));
    assert_eq!(index.get(topic("a/b"), NOW_MS), None);
    assert_eq!(index.figures(), RetainedFigures::default());
    assert_eq!(held.content().payload(), b"two", "who has it keeps it");
}

#[test]
fn a_walk_finds_what_the_filter_matches() {
    let index = index();
    // Names that go on with a character before `/` stand between a topic and what is below it.
    let names = [
        "a", "a/", "a/b", "a/b/c", "a/b-c", "a/b-c/c", "a/b!/c", "a-b", "a-b/c", "a0", "/", "/a",
        "//", "$SYS/x", "$SYS", "é/b", "b/b/c", "b/b/d", "%", "!", "a/b/c/d",
    ];
    for (offset, name) in (1..).zip(names) {
        set(&index, name, message(offset, "x")).expect("room");
    }
    for text in [
        "#",
        "a/#",
        "a/+",
        "a/+/c",
        "+/b",
        "+/+/c",
        "+",
        "/+",
        "/#",
        "+/+",
        "$SYS/#",
        "$SYS/+",
        "a/b",
        "a/b/#",
        "a/+/#",
        "+/b/#",
        "none/#",
        "none",
        "a-b/+",
        "+/b-c",
        "$share/g/a/#",
        "é/+",
    ] {
        let mut expected: Vec<&str> = names.to_vec();
        expected.retain(|name| filter(text).matches(topic(name)));
        expected.sort_unstable();
        assert_eq!(walk(&index, text, ALL), expected, "{text}");
    }
}

#[test]
fn a_walk_leaves_out_what_came_after_the_subscription() {
    let index = index();
    for (offset, name) in [(5, "a/1"), (9, "a/2"), (10, "a/3"), (11, "a/4")] {
        set(&index, name, message(offset, "x")).expect("room");
    }
    assert_eq!(walk(&index, "a/+", 10), ["a/1", "a/2"]);
    assert_eq!(walk(&index, "a/3", 10), [""; 0]);
}

#[test]
fn a_long_walk_is_many_steps_and_misses_nothing_that_stays() {
    let index = index();
    for n in 0..20_000_u64 {
        set(&index, &format!("t/{n:05}"), message(n, "x")).expect("room");
    }
    let mut cursor = Cursor::new(filter("#"), ALL);
    let mut found = Vec::new();
    let mut steps = 0;
    loop {
        let before = found.len();
        let progress = index.step(&mut cursor, NOW_MS, &mut found);
        assert!(found.len() - before <= STEP_COST_MAX);
        // Every step loses a topic that it has not reached, and its own place.
        clear(&index, &format!("t/{:05}", 19_999 - steps), ALL);
        if let Some(last) = found.last() {
            clear(&index, &last.topic, ALL);
        }
        steps += 1;
        if progress == Progress::Done {
            break;
        }
    }
    let least = 20_000 / u64::try_from(STEP_COST_MAX).expect("small");
    assert!((least..least * 2).contains(&steps), "{steps} steps");
    let gone = 20_000 - found.len();
    assert!((1..200).contains(&gone), "{gone} were not found");
    assert!(found.is_sorted_by(|a, b| a.topic < b.topic));
}

/// Branches that cannot match are jumped over: the steps depend on what `+` opens, not on what
/// lies below.
#[test]
fn a_walk_jumps_over_branches() {
    let index = index();
    for device in 0..50 {
        for n in 0..1_000 {
            let name = format!("d/{device}/log/{n}");
            set(&index, &name, message(1, "x")).expect("room");
        }
        let name = format!("d/{device}/state");
        set(&index, &name, message(1, "x")).expect("room");
    }
    let mut cursor = Cursor::new(filter("d/+/state"), ALL);
    let mut found = Vec::new();
    let mut steps = 1;
    while index.step(&mut cursor, NOW_MS, &mut found) == Progress::More {
        steps += 1;
    }
    assert_eq!(found.len(), 50);
    assert!(steps <= 10, "{steps} steps for 50,050 topics");
    let mut cursor = Cursor::new(filter("d/7/#"), ALL);
    found.clear();
    while index.step(&mut cursor, NOW_MS, &mut found) == Progress::More {}
    assert_eq!(found.len(), 1_001);
}

#[test]
fn expired_messages_are_not_found_and_go_with_a_sweep() {
    let index = index();
    for n in 0..5_000_u64 {
        let expires_ms = (n % 2 == 0).then_some(NOW_MS + n % 4);
        let message = Sent {
            expires_ms,
            ..message(n, "x")
        };
        set(&index, &format!("t/{n}"), message).expect("room");
    }
    assert_eq!(
        index.get(topic("t/0"), NOW_MS),
        None,
        "its time is over now"
    );
    assert!(index.get(topic("t/2"), NOW_MS).is_some());
    assert_eq!(walk(&index, "t/+", ALL).len(), 3_750);
    assert_eq!(walk(&index, "t/0", ALL), [""; 0]);

    let mut sweep = Sweep::default();
    for (now_ms, expected) in [(NOW_MS, 1_250), (NOW_MS + 9, 1_250), (NOW_MS + 9, 0)] {
        let mut swept = 0;
        loop {
            let (count, progress) = index.sweep_expired(&mut sweep, now_ms);
            assert!(count <= STEP_COST_MAX);
            swept += count;
            if progress == Progress::Done {
                break;
            }
        }
        assert_eq!(swept, expected);
    }
    assert_eq!(index.figures().messages, 2_500);
}

#[test]
fn sec_35_the_messages_of_a_publisher_can_be_removed() {
    let index = index();
    for n in 0..3_000_u64 {
        let message = from(u128::from(n % 3), n, "body");
        set(&index, &format!("t/{n}"), message).expect("room");
    }
    assert_eq!(index.end_publisher(1, 2), 1_000);
    let mut sweep = Sweep::default();
    let mut swept = 0;
    loop {
        let (count, progress) = index.sweep_publisher(&mut sweep, 1);
        swept += count;
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!((swept, index.figures().messages), (1_000, 2_000));
    let again = index.sweep_publisher(&mut sweep, 1);
    assert_eq!(again, (0, Progress::Done));
    assert!(!walk(&index, "#", ALL).contains(&"t/1".to_owned()));
}

/// Between the two halves of a step others may write.
#[test]
fn a_sweep_leaves_what_was_replaced_meanwhile() {
    let index = index();
    for name in ["a", "b", "c"] {
        set(&index, name, from(1, 1, "x")).expect("room");
    }
    let ends = |_: &State, held: &Message| held.publisher().identity == 1;
    let (ended, progress) = index.find_ended(&mut Sweep::default(), ends);
    assert_eq!((ended.len(), progress), (3, Progress::More));
    set(&index, "b", from(2, 2, "y")).expect("room");
    clear(&index, "c", 2);
    assert_eq!(index.remove_ended(&ended, ends), 1);
    assert_eq!(walk(&index, "#", ALL), ["b"]);
}

#[test]
fn sec_41_messages_and_bytes_of_all_are_limited() {
    let index = RetainedIndex::new(RetainedLimits {
        messages_max: 2,
        bytes_max: 100,
        ..RetainedLimits::default()
    });
    let body = |bytes: usize| "x".repeat(bytes);
    set(&index, "a", from(1, 1, &body(49))).expect("room");
    let refused = set(&index, "b", from(2, 2, &body(50)));
    assert_eq!(refused, Err(RetainedFull::Bytes(101)));
    set(&index, "b", from(2, 2, &body(49))).expect("room to the byte");
    let refused = set(&index, "c", from(3, 3, "x"));
    assert_eq!(refused, Err(RetainedFull::Messages(2)));
    let refused = set(&index, "a", from(1, 4, &body(50)));
    assert_eq!(refused, Err(RetainedFull::Bytes(101)));
    let held = index.get(topic("a"), NOW_MS).expect("it stays");
    assert_eq!(held.content().payload(), body(49).as_bytes());
    assert_eq!(set(&index, "a", from(3, 5, &body(49))), Ok(Kept::Replaced));
    assert!(clear(&index, "b", 6));
    assert_eq!(set(&index, "c", from(3, 7, "x")), Ok(Kept::New));
    assert_eq!(
        index.figures(),
        RetainedFigures {
            messages: 2,
            bytes: 52
        }
    );
}

#[test]
fn sec_41_messages_and_bytes_of_a_publisher_are_limited() {
    let index = RetainedIndex::new(RetainedLimits {
        publisher_messages_max: 2,
        publisher_bytes_max: 20,
        ..RetainedLimits::default()
    });
    for (offset, name) in [(1, "a"), (2, "b")] {
        set(&index, name, from(1, offset, "123")).expect("room");
    }
    set(&index, "c", from(2, 3, "123")).expect("room for another");
    for name in ["c", "d"] {
        let refused = set(&index, name, from(1, 4, "1"));
        assert_eq!(refused, Err(RetainedFull::PublisherMessages(2)), "{name}");
    }
    let refused = set(&index, "a", from(1, 5, "1234567890123456"));
    assert_eq!(refused, Err(RetainedFull::PublisherBytes(21)));
    assert_eq!(
        set(&index, "a", from(1, 5, "123456789012345")),
        Ok(Kept::Replaced)
    );
    // Another publisher takes the topic over, and the place is free again.
    assert_eq!(set(&index, "b", from(2, 6, "1")), Ok(Kept::Replaced));
    assert_eq!(set(&index, "d", from(1, 7, "1")), Ok(Kept::New));
}

#[test]
fn walks_and_sweeps_run_beside_writers() {
    let index = index();
    for n in 0..4_000_u64 {
        set(&index, &format!("kept/{n}"), message(n, "x")).expect("room");
    }
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let index = &index;
            scope.spawn(move || {
                for n in 0..4_000_u64 {
                    let name = format!("kept/{n}/{writer}");
                    let message = Sent {
                        expires_ms: (n % 2 == 0).then_some(1),
                        ..message(n, "y")
                    };
                    set(index, &name, message).expect("room");
                    if n % 3 == 0 {
                        clear(index, &name, n);
                    }
                }
            });
        }
        let index = &index;
        scope.spawn(move || {
            let mut sweep = Sweep::default();
            for _ in 0..200 {
                index.sweep_expired(&mut sweep, NOW_MS);
            }
        });
        for _ in 0..10 {
            assert_eq!(walk(index, "kept/+", ALL).len(), 4_000);
        }
    });
    let mut sweep = Sweep::default();
    while index.sweep_expired(&mut sweep, NOW_MS).1 == Progress::More {}
    // Odd ones stay, but for every third.
    assert_eq!(walk(&index, "kept/+/+", ALL).len(), 2 * (2_000 - 667));
    let found = index.state.read().expect("no panic").messages.len();
    assert_eq!(index.figures().messages, found);
}

/// Levels that meet often, and characters on both sides of `/` in byte order.
fn names() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(&["a", "b", "a-", "a0", "", "$s", "é", "%"][..]);
    proptest::collection::vec(level, 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic", |text| Topic::new(text).is_ok())
}

fn filters() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(&["a", "b", "a-", "", "$s", "é", "+", "+", "#"][..]);
    proptest::collection::vec(level, 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a filter", |text| Filter::new(text).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_does_what_a_list_would(
        steps in proptest::collection::vec((names(), any::<bool>()), 0..80),
        filters in proptest::collection::vec(filters(), 1..10),
    ) {
        let index = index();
        let mut model = BTreeMap::new();
        for (offset, (name, is_set)) in (1..).zip(&steps) {
            if *is_set {
                let kept = set(&index, name, message(offset, name));
                let was_new = model.insert(name.as_str(), offset).is_none();
                prop_assert_eq!(kept, Ok(if was_new { Kept::New } else { Kept::Replaced }));
            } else {
                let was_there = model.remove(name.as_str()).is_some();
                prop_assert_eq!(clear(&index, name, offset), was_there);
            }
        }
        for text in &filters {
            let matching = model.keys().filter(|name| filter(text).matches(topic(name)));
            let expected: Vec<&str> = matching.copied().collect();
            prop_assert_eq!(walk(&index, text, ALL), expected, "{}", text);
        }
    }

    /// A jump goes forward and over nothing that matches.
    #[test]
    fn a_jump_passes_no_match(text in filters(), at in names(), others in
        proptest::collection::vec(names(), 0..40)
    ) {
        let filter = filter(&text);
        prop_assume!(!filter.matches(topic(&at)));
        let mut target = String::new();
        let goes_on = scan::skip(filter, &at, &mut target);
        prop_assert!(!goes_on || target.as_str() > at.as_str(), "{at} to {target}");
        for other in others.iter().filter(|other| other.as_str() > at.as_str()) {
            let is_passed = !goes_on || other.as_str() < target.as_str();
            prop_assert!(!(is_passed && filter.matches(topic(other))), "{other}");
        }
    }
}

/// A record of one of two workers.
#[derive(Clone, Debug)]
struct Change {
    worker: usize,
    name: &'static str,
    body: &'static str,
    expires: bool,
}

impl Change {
    fn at(&self, offset: u64) -> Arc<Message> {
        let sent = Sent {
            expires_ms: self.expires.then_some(NOW_MS),
            ..from(
                u128::try_from(self.worker).expect("small"),
                offset,
                self.body,
            )
        };
        sent.on(self.name)
    }
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let name = proptest::sample::select(&["a", "b", "c"][..]);
    let body = proptest::sample::select(&["", "x", "yy"][..]);
    let change = (name, body, any::<bool>());
    let batch = (0..2_usize, proptest::collection::vec(change, 1..5));
    let batch = batch.prop_map(|(worker, changes)| {
        let changes = changes.into_iter().map(|(name, body, expires)| Change {
            worker,
            name,
            body,
            expires,
        });
        changes.collect::<Vec<_>>()
    });
    proptest::collection::vec(batch, 1..24)
}

/// What two workers do with the batches of a journal: each hands over and applies its own in
/// order, up to two at a time; between them anything may happen.
struct Workers<'a> {
    index: &'a RetainedIndex,
    appliers: [Applier; 2],
    /// Batches handed over and not applied, with the offset of the first record.
    under_way: [std::collections::VecDeque<(u64, &'a [Change])>; 2],
    next: u64,
}

impl<'a> Workers<'a> {
    fn submit(&mut self, batch: &'a [Change]) {
        let worker = batch[0].worker;
        while self.under_way[worker].len() >= 2 {
            self.apply(worker);
        }
        for change in batch {
            self.index.admit(&change.at(0)).expect("room");
        }
        let oldest = self.under_way.iter().filter_map(|queue| queue.front());
        let durable = oldest.map(|(first, _)| first - 1).min();
        self.appliers[worker].submits(durable.unwrap_or(self.next - 1));
        self.under_way[worker].push_back((self.next, batch));
        self.next += u64::try_from(batch.len()).expect("small");
    }

    fn apply(&mut self, worker: usize) {
        let Some((first, batch)) = self.under_way[worker].pop_front() else {
            return;
        };
        for (offset, change) in (first..).zip(batch) {
            self.index.apply(&change.at(offset), offset, offset);
            assert_is_sum(self.index);
        }
        let last = first + u64::try_from(batch.len()).expect("small") - 1;
        self.appliers[worker].applied(last);
    }
}

/// Topics with what they show, expired or not.
fn held(index: &RetainedIndex) -> BTreeMap<String, u64> {
    let state = index.read();
    let held = state.messages.iter();
    held.map(|(topic, held)| (topic.to_string(), held.offset))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whichever worker applies first: in the end the topics are as the journal's order says, and
    /// whatever was seen on the way was never older than what had been seen before.
    #[test]
    fn rel_06_two_workers_end_where_the_journal_does(
        batches in changes(),
        order in proptest::collection::vec(0..4_u8, 24),
    ) {
        let index = index();
        let mut workers = Workers {
            index: &index,
            appliers: [index.applier(), index.applier()],
            under_way: Default::default(),
            next: 1,
        };
        let mut sweep = Sweep::default();
        for (batch, what) in batches.iter().zip(order) {
            workers.submit(batch);
            match what {
                0 | 1 => workers.apply(usize::from(what)),
                2 => {
                    // What is swept must not come back either.
                    while index.sweep_expired(&mut sweep, NOW_MS).1 == Progress::More {}
                }
                _ => {}
            }
        }
        for worker in [1, 0, 1, 0] {
            workers.apply(worker);
        }
        while index.sweep_expired(&mut sweep, NOW_MS).1 == Progress::More {}
        let mut model = BTreeMap::new();
        for (offset, change) in (1..).zip(batches.iter().flatten()) {
            match change.body.is_empty() || change.expires {
                true => model.remove(change.name),
                false => model.insert(change.name.to_owned(), offset),
            };
        }
        prop_assert_eq!(held(&index), model);
        prop_assert!(index.read().accounts.is_settled());
        // With nobody behind, the next clear takes all marks with it.
        clear(&index, "z", u64::MAX);
        prop_assert_eq!(index.marks(), 0);
    }
}

/// The price of the bound: with a worker that stands still, the oldest marks go.
#[test]
fn clears_are_remembered_up_to_a_bound() {
    let index = index();
    let slow = index.applier();
    slow.submits(0);
    let most = u64::try_from(MARKS_MAX).expect("small");
    for offset in 1..=most + 10 {
        clear(&index, &format!("t/{offset}"), offset);
    }
    assert!(index.marks() <= MARKS_MAX, "{}", index.marks());
    assert_eq!(set(&index, "t/100", message(1, "late")), Ok(Kept::Outdated));
    assert_eq!(set(&index, "t/1", message(1, "late")), Ok(Kept::New));
    drop(slow);
    clear(&index, "u", most + 11);
    assert_eq!(index.marks(), 0);
}

#[test]
fn sec_41_what_is_on_its_way_counts() {
    let index = RetainedIndex::new(RetainedLimits {
        publisher_messages_max: 2,
        ..RetainedLimits::default()
    });
    let sent = message(1, "x");
    let on = |name: &str| sent.on(name);
    for name in ["a", "b", "a", "b", "a"] {
        assert_eq!(index.admit(&on(name)), Ok(()), "{name}");
    }
    let full = Err(RetainedFull::PublisherMessages(2));
    assert_eq!(index.admit(&on("c")), full);
    // A clear on its way makes room, and counts until the last change is applied.
    index.admit(&message(1, "").on("b")).expect("a clear");
    assert_eq!(index.admit(&on("c")), Ok(()));
    assert_eq!(index.admit(&on("d")), full);
    index.withdraw(&on("c"));
    assert_eq!(index.admit(&on("d")), Ok(()));
    for (offset, name, body) in [
        (1, "a", "x"),
        (2, "b", "x"),
        (3, "a", "x"),
        (4, "b", "x"),
        (5, "a", "x"),
        (6, "b", ""),
        (7, "d", "x"),
    ] {
        index.apply(&message(offset, body).on(name), offset, 0);
        assert_is_sum(&index);
    }
    assert_eq!(walk(&index, "#", ALL), ["a", "d"]);
    assert_eq!(index.admit(&on("c")), full);
    assert!(index.read().accounts.is_settled());
}

#[test]
fn sec_35_what_a_revoked_publisher_retained_is_gone_at_once() {
    let index = index();
    for (offset, name) in [(1, "a"), (2, "b")] {
        set(&index, name, from(7, offset, "x")).expect("room");
    }
    set(&index, "c", from(8, 3, "x")).expect("room");
    let late = from(7, 5, "x").on("c");
    index.admit(&late).expect("room");
    assert_eq!(index.end_publisher(7, 2), 3, "with the one on its way");
    assert_eq!(walk(&index, "#", ALL), ["c"]);
    assert_eq!(index.get(topic("a"), NOW_MS), None);
    // On its way when the revocation came: it is on disk, and replaces what a restart does not
    // show either.
    assert_eq!(index.apply(&late, 5, 0), Kept::Cleared);
    assert_eq!(walk(&index, "#", ALL), [""; 0]);
    // The identity comes again with a new credential.
    let again = Sent {
        generation: 3,
        ..from(7, 6, "new")
    };
    set(&index, "a", again).expect("room");
    let mut sweep = Sweep::default();
    while index.sweep_publisher(&mut sweep, 7).1 == Progress::More {}
    assert_eq!(walk(&index, "#", ALL), ["a"]);
    assert_eq!(held(&index), BTreeMap::from([("a".to_owned(), 6)]));
    assert_is_sum(&index);
}
