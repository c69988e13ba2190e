//! Random operations of several sessions, against a list that is searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{filter, session, topic};
use crate::mqtt::wire::QoS;

const SESSIONS: u32 = 5;

/// Levels that meet often, with the odd ones among them: empty, `$`, beyond ASCII.
const LEVELS: &[&str] = &["a", "b", "c", "", "$s", "é", "温"];

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, String, SubscriptionOptions, Option<u32>),
    Unsubscribe(u32, String),
    Clear(u32),
    Connected(u32, bool),
    Publish(Option<u32>, String),
}

/// Session and whole filter to what was granted.
type Model = BTreeMap<(u32, String), (SubscriptionOptions, Option<u32>)>;

/// A delivery in words: slot, QoS, Retain As Published, identifiers in order.
type Expected = BTreeMap<u32, (QoS, bool, Vec<u32>)>;

fn levels() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(LEVELS);
    proptest::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
}

fn topics() -> impl Strategy<Value = String> {
    levels().prop_filter("a topic", |text| Topic::new(text).is_ok())
}

fn filters() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(&["a", "b", "", "$s", "é", "+", "+", "#"][..]);
    let plain = proptest::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"));
    let share = proptest::sample::select(&["", "", "$share/g/", "$share/h/"][..]);
    (share, prop_oneof![plain, topics()])
        .prop_map(|(share, filter)| format!("{share}{filter}"))
        .prop_filter("a filter", |text| Filter::new(text).is_ok())
}

fn options() -> impl Strategy<Value = SubscriptionOptions> {
    (0..3_u8, any::<bool>(), any::<bool>()).prop_map(|(qos, no_local, keeps)| SubscriptionOptions {
        qos: QoS::from_u8(qos).expect("0 to 2"),
        no_local,
        retain_as_published: keeps,
        ..SubscriptionOptions::default()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..SESSIONS;
    let id = prop_oneof![Just(None), (1..4_u32).prop_map(Some)];
    let step = prop_oneof![
        8 => (who.clone(), filters(), options(), id)
            .prop_map(|(who, filter, options, id)| Step::Subscribe(who, filter, options, id)),
        3 => (who.clone(), filters()).prop_map(|(who, filter)| Step::Unsubscribe(who, filter)),
        1 => who.clone().prop_map(Step::Clear),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, is)| Step::Connected(who, is)),
        8 => (proptest::option::of(who), topics())
            .prop_map(|(who, topic)| Step::Publish(who, topic)),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Plain deliveries and, by group, the members that a topic reaches.
fn expected(
    model: &Model,
    from: Option<u32>,
    name: &str,
) -> (Expected, BTreeMap<String, Vec<u32>>) {
    let mut plain = Expected::new();
    let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for ((slot, text), (options, id)) in model {
        let filter = filter(text);
        if !filter.matches(topic(name)) {
            continue;
        }
        if filter.share_name().is_some() {
            groups.entry(text.clone()).or_default().push(*slot);
            continue;
        }
        if options.no_local && from == Some(*slot) {
            continue;
        }
        let entry = plain
            .entry(*slot)
            .or_insert((QoS::AtMostOnce, false, Vec::new()));
        entry.0 = entry.0.max(options.qos);
        entry.1 |= options.retain_as_published;
        entry.2.extend(id);
        entry.2.sort_unstable();
    }
    (plain, groups)
}

fn check(
    tree: &SubscriptionTree,
    model: &Model,
    connected: &[bool],
    from: Option<u32>,
    name: &str,
    found: &mut Matches,
) {
    let publisher = from.map(|slot| super::subscriber(worker(slot), slot));
    tree.matches(topic(name), publisher, found);
    let (plain, groups) = expected(model, from, name);
    let deliveries = found.deliveries();
    assert!(
        deliveries.is_sorted_by_key(|d| d.subscriber()),
        "{name}: {deliveries:?}"
    );
    let seen: Expected = deliveries
        .iter()
        .map(|delivery| {
            let mut ids = found.ids(delivery).to_vec();
            ids.sort_unstable();
            let words = (delivery.qos(), delivery.retain_as_published(), ids);
            (delivery.slot(), words)
        })
        .collect();
    assert_eq!(seen.len(), deliveries.len(), "{name}: each session once");
    assert_eq!(seen, plain, "{name}");

    let mut seen: Vec<Vec<u32>> = Vec::new();
    for share in found.shares() {
        let is_away = |d: &Delivery| !connected[usize::try_from(d.slot()).expect("small")];
        assert!(
            share.candidates.is_sorted_by_key(is_away),
            "the connected first"
        );
        let mut slots: Vec<u32> = share.candidates.iter().map(Delivery::slot).collect();
        slots.sort_unstable();
        seen.push(slots);
    }
    seen.sort();
    let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
    groups.sort();
    assert_eq!(seen, groups, "{name}");
}

fn worker(slot: u32) -> u16 {
    u16::try_from(slot % 3).expect("below 3")
}

fn play(steps: Vec<Step>) {
    let tree = SubscriptionTree::new(TreeLimits::default());
    let mut model = Model::new();
    let mut sessions: Vec<_> = (0..SESSIONS)
        .map(|slot| session(worker(slot), slot))
        .collect();
    let mut connected = vec![true; sessions.len()];
    let mut found = Matches::new();
    let at = |who: u32| usize::try_from(who).expect("small");
    for step in steps {
        match step {
            Step::Subscribe(who, text, options, id) => {
                let done = tree
                    .subscribe(&mut sessions[at(who)], filter(&text), options, id)
                    .expect("room");
                let old = model.insert((who, text), (options, id));
                assert_eq!(done == Subscribed::Replaced, old.is_some());
            }
            Step::Unsubscribe(who, text) => {
                let was = tree.unsubscribe(&mut sessions[at(who)], filter(&text));
                assert_eq!(was, model.remove(&(who, text)).is_some());
            }
            Step::Clear(who) => {
                let before = model.len();
                model.retain(|(holder, _), _| *holder != who);
                assert_eq!(tree.clear(&mut sessions[at(who)]), before - model.len());
            }
            Step::Connected(who, is_connected) => {
                connected[at(who)] = is_connected;
                tree.set_connected(&mut sessions[at(who)], is_connected);
            }
            Step::Publish(from, name) => {
                check(&tree, &model, &connected, from, &name, &mut found);
            }
        }
        assert_eq!(tree.figures().subscriptions, model.len());
    }
    for (slot, own) in (0..).zip(&sessions) {
        let mut held: Vec<_> = tree
            .list(own)
            .into_iter()
            .map(|held| {
                (
                    held.filter.as_filter().as_str().to_owned(),
                    (held.options, held.id),
                )
            })
            .collect();
        held.sort_by(|a, b| a.0.cmp(&b.0));
        let of_session = model.iter().filter(|((holder, _), _)| *holder == slot);
        let of_session = of_session.map(|((_, text), granted)| (text.clone(), *granted));
        assert_eq!(held, of_session.collect::<Vec<_>>());
    }
    for own in &mut sessions {
        tree.clear(own);
    }
    assert_eq!(
        tree.figures(),
        TreeFigures::default(),
        "nothing is left behind"
    );
    assert!(tree.shards.iter().all(|shard| shard.read(Inner::is_pruned)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_does_what_a_list_would(steps in steps()) {
        play(steps);
    }
}
