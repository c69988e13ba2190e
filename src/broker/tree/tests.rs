//! The tree against the plain meaning of its words: a list of subscriptions, each asked whether it
//! matches.

mod model;
mod threads;

use super::*;
use crate::mqtt::topic::FilterBuf;
use crate::mqtt::wire::QoS;

pub(super) fn session(worker: u16, slot: u32) -> Subscriptions {
    Subscriptions::new(subscriber(worker, slot), true)
}

pub(super) fn subscriber(worker: u16, slot: u32) -> Subscriber {
    Subscriber::new(worker, slot, 0).expect("a worker")
}

pub(super) fn filter(text: &str) -> Filter<'_> {
    Filter::new(text).expect(text)
}

pub(super) fn topic(text: &str) -> Topic<'_> {
    Topic::new(text).expect(text)
}

fn qos(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

fn no_local() -> SubscriptionOptions {
    SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    }
}

fn tree() -> SubscriptionTree {
    SubscriptionTree::new(TreeLimits::default())
}

/// Subscribes with defaults.
fn add(tree: &SubscriptionTree, own: &mut Subscriptions, text: &str) -> Subscribed {
    let options = SubscriptionOptions::default();
    tree.subscribe(own, filter(text), options, None)
        .expect("room")
}

fn matched(tree: &SubscriptionTree, text: &str) -> Matches {
    let mut found = Matches::new();
    tree.matches(topic(text), None, &mut found);
    found
}

/// The slots that a topic reaches, without share groups.
fn slots(tree: &SubscriptionTree, text: &str) -> Vec<u32> {
    matched(tree, text)
        .deliveries()
        .iter()
        .map(Delivery::slot)
        .collect()
}

#[test]
fn mqtt_4_7_wildcards_match_by_level() {
    let tree = tree();
    let filters = [
        "a/b", "a/+", "a/#", "+/b", "#", "+", "/+", "a//b", "a/+/b", "+/+/#", "é/#",
    ];
    let mut sessions: Vec<_> = (0..).zip(filters).map(|(n, _)| session(0, n)).collect();
    for (own, text) in sessions.iter_mut().zip(filters) {
        assert_eq!(add(&tree, own, text), Subscribed::New);
    }
    for text in [
        "a/b", "a", "a/", "/", "/a", "a//b", "a/x/b", "b", "é", "é/x/y", "x/y/z",
    ] {
        let expected: Vec<u32> = (0..)
            .zip(filters)
            .filter(|(_, f)| filter(f).matches(topic(text)))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(slots(&tree, text), expected, "{text}");
    }
}

#[test]
fn mqtt_4_7_2_1_wildcards_at_the_first_level_do_not_match_dollar_topics() {
    let tree = tree();
    let mut open = session(0, 1);
    let mut own = session(0, 2);
    for text in ["#", "+/x", "+/#"] {
        add(&tree, &mut open, text);
    }
    for text in ["$SYS/#", "$SYS/x"] {
        add(&tree, &mut own, text);
    }
    assert_eq!(slots(&tree, "$SYS/x"), [2]);
    assert_eq!(slots(&tree, "$SYS"), [2]);
    assert_eq!(slots(&tree, "a/x"), [1]);
    assert_eq!(slots(&tree, "a/$x"), [1]);
}

#[test]
fn mqtt_3_3_4_overlapping_filters_of_a_session_are_one_delivery() {
    let tree = tree();
    let mut own = session(3, 7);
    let mut other = session(3, 8);
    let subscribe = |own: &mut Subscriptions, text, level, id| {
        tree.subscribe(own, filter(text), qos(level), id)
            .expect("room");
    };
    subscribe(&mut own, "a/b", QoS::AtMostOnce, Some(5));
    subscribe(&mut own, "a/+", QoS::ExactlyOnce, None);
    subscribe(&mut own, "a/#", QoS::AtLeastOnce, Some(SUBSCRIPTION_ID_MAX));
    subscribe(&mut own, "#", QoS::AtLeastOnce, Some(5));
    subscribe(&mut other, "#", QoS::AtMostOnce, Some(9));

    let found = matched(&tree, "a/b");
    let [first, second] = found.deliveries() else {
        panic!("one each: {found:?}");
    };
    assert_eq!(
        (first.subscriber(), first.qos()),
        (own.subscriber(), QoS::ExactlyOnce)
    );
    let mut ids = found.ids(first).to_vec();
    ids.sort_unstable();
    assert_eq!(
        ids,
        [5, 5, SUBSCRIPTION_ID_MAX],
        "all of them, equal ones too"
    );
    assert_eq!(found.ids(second), [9]);
    assert_eq!(second.qos(), QoS::AtMostOnce);
}

#[test]
fn mqtt_3_8_3_3_no_local_leaves_out_the_publisher_alone() {
    let tree = tree();
    let mut own = session(0, 1);
    let mut other = session(1, 1);
    for own in [&mut own, &mut other] {
        tree.subscribe(own, filter("a/#"), no_local(), None)
            .expect("room");
    }
    let from = Some(own.subscriber());
    let mut found = Matches::new();
    tree.matches(topic("a/b"), from, &mut found);
    assert_eq!(found.deliveries().len(), 1);
    assert_eq!(found.deliveries()[0].subscriber(), other.subscriber());

    // Another subscription of the same session without it still counts, by itself.
    let plain = qos(QoS::AtMostOnce);
    tree.subscribe(&mut own, filter("a/b"), plain, Some(4))
        .expect("room");
    tree.matches(topic("a/b"), from, &mut found);
    assert_eq!(found.deliveries().len(), 2);
    assert_eq!(found.ids(&found.deliveries()[0]), [4]);
    tree.matches(topic("a/b"), None, &mut found);
    assert_eq!(found.deliveries().len(), 2);
}

#[test]
fn the_retain_flag_is_kept_if_one_matching_subscription_keeps_it() {
    let tree = tree();
    let mut own = session(0, 1);
    let keeps = SubscriptionOptions {
        retain_as_published: true,
        ..SubscriptionOptions::default()
    };
    tree.subscribe(&mut own, filter("a"), keeps, None)
        .expect("room");
    assert!(matched(&tree, "a").deliveries()[0].retain_as_published());
    add(&tree, &mut own, "+");
    assert!(matched(&tree, "a").deliveries()[0].retain_as_published());
    add(&tree, &mut own, "a");
    assert!(!matched(&tree, "a").deliveries()[0].retain_as_published());
}

#[test]
fn mqtt_3_8_4_3_a_repeated_subscribe_replaces_the_options() {
    let tree = tree();
    let mut own = session(0, 1);
    for text in ["a/b", "a/+", "$share/g/a/b"] {
        assert_eq!(add(&tree, &mut own, text), Subscribed::New, "{text}");
        let again = tree.subscribe(&mut own, filter(text), qos(QoS::ExactlyOnce), Some(3));
        assert_eq!(again, Ok(Subscribed::Replaced), "{text}");
    }
    assert_eq!((own.len(), tree.figures().subscriptions), (3, 3));
    let found = matched(&tree, "a/b");
    assert_eq!(found.deliveries()[0].qos(), QoS::ExactlyOnce);
    assert_eq!(found.ids(&found.deliveries()[0]), [3, 3]);
    let share = found.shares().next().expect("one group");
    assert_eq!(share.candidates[0].qos(), QoS::ExactlyOnce);
    assert!(
        share.candidates[0].is_connected(),
        "replacing does not disconnect"
    );
}

#[test]
fn unsubscribe_knows_what_is_subscribed_and_what_only_looks_like_it() {
    let tree = tree();
    let mut own = session(0, 1);
    let mut other = session(0, 2);
    add(&tree, &mut own, "a/+");
    add(&tree, &mut other, "a/b");
    add(&tree, &mut other, "$share/g/a/+");
    for text in ["a/b", "a/#", "$share/g/a/+", "$share/h/a/+", "+/+"] {
        assert!(!tree.unsubscribe(&mut own, filter(text)), "{text}");
    }
    assert!(tree.unsubscribe(&mut own, filter("a/+")));
    assert!(!tree.unsubscribe(&mut own, filter("a/+")));
    assert_eq!(slots(&tree, "a/b"), [2]);
    assert_eq!(tree.clear(&mut other), 2);
    assert!(matched(&tree, "a/b").is_empty());
    assert_eq!(tree.figures(), TreeFigures::default());
}

#[test]
fn a_session_can_list_what_it_holds() {
    let tree = tree();
    let mut own = session(0, 1);
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        ..SubscriptionOptions::default()
    };
    tree.subscribe(&mut own, filter("a/+/é"), options, Some(7))
        .expect("room");
    add(&tree, &mut own, "$share/g n/a//#");
    add(&tree, &mut own, "x");
    let mut held = tree.list(&own);
    held.sort_by(|a, b| a.filter.cmp(&b.filter));
    let texts: Vec<_> = held
        .iter()
        .map(|held| held.filter.as_filter().as_str())
        .collect();
    assert_eq!(texts, ["$share/g n/a//#", "a/+/é", "x"]);
    assert_eq!((held[1].options, held[1].id), (options, Some(7)));
    assert_eq!(held[0].filter, FilterBuf::from(filter("$share/g n/a//#")));
    assert_eq!(held[2].id, None);
}

#[test]
fn deliveries_come_by_worker() {
    let tree = tree();
    let mut sessions = Vec::new();
    for n in 0..90_u32 {
        let worker = u16::try_from(n * 7 % 5).expect("small") * 200;
        let mut own = session(worker, n);
        add(&tree, &mut own, if n % 3 == 0 { "a/+" } else { "a/b" });
        sessions.push(own);
    }
    let found = matched(&tree, "a/b");
    let groups: Vec<_> = found.by_worker().collect();
    let workers: Vec<u16> = groups.iter().map(|(worker, _)| *worker).collect();
    assert_eq!(workers, [0, 200, 400, 600, 800]);
    for (worker, deliveries) in groups {
        assert_eq!(deliveries.len(), 18);
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.worker() == worker)
        );
        assert!(deliveries.is_sorted_by_key(|delivery| delivery.slot()));
    }
    assert_eq!(Subscriber::new(WORKERS_MAX, 0, 0), None);
    let last = Subscriber::new(WORKERS_MAX - 1, u32::MAX, u16::MAX).expect("the last");
    let delivery = Delivery::new(last, no_local(), Some(SUBSCRIPTION_ID_MAX));
    assert_eq!(delivery.subscriber(), last);
}

#[test]
fn mqtt_4_8_2_a_group_gets_a_message_once_beside_plain_subscriptions() {
    let tree = tree();
    let mut own = session(0, 1);
    let mut other = session(1, 2);
    add(&tree, &mut own, "a/+");
    for own in [&mut own, &mut other] {
        add(&tree, own, "$share/g/a/+");
    }
    add(&tree, &mut other, "$share/h/a/+");
    add(&tree, &mut other, "$share/g/a/b");
    let found = matched(&tree, "a/b");
    assert_eq!(
        found.deliveries().len(),
        1,
        "the plain subscription, by itself"
    );
    let sizes: Vec<usize> = found.shares().map(|share| share.candidates.len()).collect();
    assert_eq!(sizes.len(), 3, "the same name on two filters is two groups");
    assert_eq!(sizes.iter().sum::<usize>(), 4);
    assert_eq!(tree.figures().filters, 2);
}

#[test]
fn members_of_a_group_take_turns_and_the_connected_go_first() {
    let tree = tree();
    let mut sessions: Vec<_> = (0..5).map(|n| session(0, n)).collect();
    for own in &mut sessions {
        add(&tree, own, "$share/g/t");
    }
    tree.set_connected(&mut sessions[1], false);
    tree.set_connected(&mut sessions[4], false);
    let mut first = [0; 5];
    for _ in 0..300 {
        let found = matched(&tree, "t");
        let share = found.shares().next().expect("one group");
        let slots: Vec<u32> = share.candidates.iter().map(Delivery::slot).collect();
        assert_eq!(
            slots.len(),
            5,
            "all, so that a message can wait with one who is away"
        );
        let connected: Vec<bool> = share
            .candidates
            .iter()
            .map(Delivery::is_connected)
            .collect();
        assert_eq!(connected, [true, true, true, false, false]);
        first[usize::try_from(slots[0]).expect("small")] += 1;
    }
    assert_eq!(first, [100, 0, 100, 100, 0]);

    for own in &mut sessions {
        tree.set_connected(own, false);
    }
    let found = matched(&tree, "t");
    assert_eq!(
        found.shares().next().expect("one group").candidates.len(),
        5
    );
    tree.set_connected(&mut sessions[1], true);
    let found = matched(&tree, "t");
    let share = found.shares().next().expect("one group");
    assert_eq!(
        (
            share.candidates[0].slot(),
            share.candidates[0].is_connected()
        ),
        (1, true)
    );
}

#[test]
fn a_large_group_names_a_few_candidates() {
    let tree = tree();
    let mut sessions: Vec<_> = (0..100).map(|n| session(0, n)).collect();
    for own in &mut sessions {
        add(&tree, own, "$share/g/t");
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let found = matched(&tree, "t");
        let share = found.shares().next().expect("one group");
        assert_eq!(share.candidates.len(), CANDIDATES_MAX);
        seen.insert(share.candidates[0].slot());
    }
    assert_eq!(seen.len(), 100, "each was first once");
}

#[test]
fn a_group_is_asked_again_until_its_last_member_goes() {
    let tree = tree();
    let mut own = session(0, 1);
    let mut other = session(0, 2);
    for own in [&mut own, &mut other] {
        add(&tree, own, "$share/g/t");
    }
    let found = matched(&tree, "t");
    let group = found.shares().next().expect("one group").group;
    tree.clear(&mut own);
    let mut candidates = Vec::new();
    assert!(tree.candidates(group, &mut candidates));
    assert_eq!(candidates.len(), 1);
    assert_eq!(candidates[0].subscriber(), other.subscriber());

    tree.clear(&mut other);
    candidates.clear();
    assert!(!tree.candidates(group, &mut candidates));
    add(&tree, &mut own, "$share/h/t");
    assert!(
        !tree.candidates(group, &mut candidates),
        "another group in its place"
    );
    assert_eq!(candidates, []);
}

#[test]
fn the_number_of_subscriptions_is_limited() {
    let tree = SubscriptionTree::new(TreeLimits {
        subscriptions_max: 2,
        ..TreeLimits::default()
    });
    let mut own = session(0, 1);
    add(&tree, &mut own, "a");
    add(&tree, &mut own, "$share/g/a");
    let before = tree.figures();
    for text in ["b", "a/#", "$share/h/a", "$share/g/b/+"] {
        let refused = tree.subscribe(&mut own, filter(text), qos(QoS::AtMostOnce), None);
        assert_eq!(refused, Err(TreeFull::Subscriptions(2)), "{text}");
    }
    assert_eq!((tree.figures(), own.len()), (before, 2));
    assert_eq!(add(&tree, &mut own, "a"), Subscribed::Replaced);
    assert!(tree.unsubscribe(&mut own, filter("a")));
    assert_eq!(add(&tree, &mut own, "b"), Subscribed::New);
}

#[test]
fn the_bytes_of_filters_are_limited() {
    let tree = SubscriptionTree::new(TreeLimits {
        filter_bytes_max: 1_000,
        ..TreeLimits::default()
    });
    let mut own = session(0, 1);
    let long = format!("a/+/{}", "x".repeat(1_000));
    add(&tree, &mut own, &long);
    let bytes = tree.figures().filter_bytes;
    assert!(bytes > 2_000, "the filter and its levels: {bytes}");
    for text in ["b", "a/+", "$share/g/b", &format!("$share/g/{long}")] {
        let refused = tree.subscribe(&mut own, filter(text), qos(QoS::AtMostOnce), None);
        assert_eq!(refused, Err(TreeFull::Filters(bytes)), "{text}");
    }
    let mut other = session(0, 2);
    assert_eq!(
        add(&tree, &mut other, &long),
        Subscribed::New,
        "a known filter is free"
    );
    tree.clear(&mut own);
    tree.clear(&mut other);
    assert_eq!(tree.figures().filter_bytes, 0);
    assert_eq!(add(&tree, &mut own, "b"), Subscribed::New);
}

#[test]
fn the_deepest_filters_are_kept_found_and_forgotten() {
    let tree = tree();
    let mut own = session(0, 1);
    let deep = vec!["+"; crate::mqtt::topic::TOPIC_LEVELS_MAX].join("/");
    let mixed = "a/+/".repeat(63) + "a/#";
    for text in [&deep, &mixed] {
        add(&tree, &mut own, text);
    }
    let name = vec!["a"; crate::mqtt::topic::TOPIC_LEVELS_MAX].join("/");
    assert_eq!(slots(&tree, &name), [1]);
    tree.clear(&mut own);
    assert_eq!(tree.figures(), TreeFigures::default());
    for shard in &tree.shards {
        assert!(!shard.is_used());
        assert!(shard.read(Inner::is_pruned));
    }
}

/// `#` is a mark on the root: it stays when the last node below it goes.
#[test]
fn a_hash_at_the_root_outlives_its_neighbours() {
    let tree = tree();
    let mut own = session(0, 1);
    let mut other = session(0, 2);
    add(&tree, &mut own, "#");
    add(&tree, &mut other, "+/x");
    tree.clear(&mut other);
    assert_eq!(slots(&tree, "a/x"), [1]);
    assert!(tree.unsubscribe(&mut own, filter("#")));
    assert!(matched(&tree, "a/x").is_empty());
}

/// What a match looks at does not depend on how much else there is.
#[test]
fn unrelated_filters_are_not_visited() {
    let tree = tree();
    let mut own = session(0, 1);
    for n in 0..3_000 {
        add(&tree, &mut own, &format!("site/{n}/+/temp"));
        add(&tree, &mut own, &format!("site/{n}/x/temp"));
        add(&tree, &mut own, &format!("other{n}/#"));
    }
    let visited = |text: &str| {
        let mut levels = trie::Levels::default();
        levels.read(text);
        let (_, first) = levels.get(&tree.hasher, text, 0).expect("a level");
        tree.shards[wild_shard(first)]
            .read(|inner| inner.visit(&tree.hasher, (&mut levels, text), &mut Vec::new(), |_| {}))
    };
    // The root, and a node for each level that is there: not one of the other 3,000 filters.
    assert_eq!(visited("site/7/x/temp"), 5);
    assert_eq!(visited("site/7/x/other"), 4);
    assert_eq!(visited("site/none/x/temp"), 2);
    assert_eq!(visited("nothing/7"), 1);
    assert_eq!(slots(&tree, "site/7/x/temp"), [1]);
}
