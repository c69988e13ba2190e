//! Readers while others write: what is promised about order holds on several threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::super::*;
use super::{filter, session, topic};
use crate::mqtt::wire::QoS;

/// Sessions that come and go beside the ones that are watched.
const ROUNDS: u32 = 300;

/// [MQTT-3.8.4-4]: a message that is matched while a subscription is being replaced is not lost;
/// whatever else comes and goes in the same shards.
#[test]
fn mqtt_3_8_4_4_a_subscription_that_is_replaced_is_always_found() {
    let tree = SubscriptionTree::new(TreeLimits::default());
    let filters = ["t/1", "t/+", "#", "$share/g/t/1"];
    let is_over = AtomicBool::new(false);
    let mut kept = session(0, 1_000_000);
    for text in filters {
        tree.subscribe(&mut kept, filter(text), options(0), Some(1))
            .expect("room");
    }
    thread::scope(|scope| {
        let (tree, is_over) = (&tree, &is_over);
        let readers: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || watch(tree, is_over)))
            .collect();
        let churn = scope.spawn(move || {
            for round in 0..ROUNDS {
                come_and_go(tree, round);
            }
        });
        let kept = &mut kept;
        let replacing = scope.spawn(move || {
            for round in 0..ROUNDS * 20 {
                for text in filters {
                    let again = tree.subscribe(kept, filter(text), options(round), Some(1));
                    assert_eq!(again, Ok(Subscribed::Replaced));
                }
            }
        });
        let outcomes = [churn.join(), replacing.join()];
        is_over.store(true, Ordering::Release); // also when one failed, so that readers end
        let matches: u32 = readers
            .into_iter()
            .map(|reader| reader.join().expect("the reader found what it must"))
            .sum();
        assert!(outcomes.iter().all(Result::is_ok) && matches > 0);
    });
    tree.clear(&mut kept);
    assert_eq!(tree.figures(), TreeFigures::default());
}

/// A subscription is found by every match that begins after it was made, on any thread: also when
/// it is the second on a filter that another thread has only just added.
#[test]
fn a_subscription_counts_from_the_moment_it_was_made() {
    for round in 0..200 {
        let tree = SubscriptionTree::new(TreeLimits::default());
        let text = if round % 2 == 0 { "t/+" } else { "t/1" };
        thread::scope(|scope| {
            for slot in 0..3 {
                let tree = &tree;
                scope.spawn(move || {
                    let mut own = session(0, slot);
                    tree.subscribe(&mut own, filter(text), options(0), None)
                        .expect("room");
                    let mut found = Matches::new();
                    tree.matches(topic("t/1"), None, &mut found);
                    let mut slots = found.deliveries().iter().map(Delivery::slot);
                    assert!(slots.any(|found| found == slot));
                });
            }
        });
        assert_eq!(tree.figures().subscriptions, 3);
    }
}

#[test]
fn the_limit_holds_when_many_threads_reach_it() {
    let tree = SubscriptionTree::new(TreeLimits {
        subscriptions_max: 100,
        ..TreeLimits::default()
    });
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        for slot in 0..4 {
            let (tree, made) = (&tree, &made);
            scope.spawn(move || {
                let mut own = session(0, slot);
                for n in 0..60 {
                    let text = format!("t/{n}");
                    if tree
                        .subscribe(&mut own, filter(&text), options(0), None)
                        .is_ok()
                    {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(
                        tree.figures().subscriptions <= 100 + 4,
                        "one try a thread at most"
                    );
                }
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 100);
    assert_eq!(tree.figures().subscriptions, 100);
}

fn options(round: u32) -> SubscriptionOptions {
    let qos = if round.is_multiple_of(2) {
        QoS::AtMostOnce
    } else {
        QoS::ExactlyOnce
    };
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

/// Matches until told to stop; returns how often.
fn watch(tree: &SubscriptionTree, is_over: &AtomicBool) -> u32 {
    let mut found = Matches::new();
    let mut matches = 0;
    while !is_over.load(Ordering::Acquire) || matches == 0 {
        tree.matches(topic("t/1"), None, &mut found);
        let deliveries = found.deliveries();
        assert!(deliveries.is_sorted_by_key(|delivery| delivery.subscriber()));
        let kept = deliveries
            .iter()
            .find(|delivery| delivery.slot() == 1_000_000);
        let kept = kept.expect("always there");
        assert_eq!(found.ids(kept), [1, 1, 1], "by each of the three filters");
        let shares: Vec<_> = found.shares().collect();
        assert_eq!(shares.len(), 1);
        assert!(!shares[0].candidates.is_empty());
        matches += 1;
    }
    matches
}

/// A session that subscribes to the same filters and to others nearby, and ends.
fn come_and_go(tree: &SubscriptionTree, round: u32) {
    let mut own = session(1, round);
    let near = format!("t/{round}");
    let wild = format!("t/{round}/#");
    for text in [
        "t/1",
        "t/+",
        "#",
        "$share/g/t/1",
        "$share/h/+/x",
        &near,
        &wild,
    ] {
        tree.subscribe(&mut own, filter(text), options(round), None)
            .expect("room");
    }
    assert!(tree.unsubscribe(&mut own, filter("t/+")));
    tree.set_connected(&mut own, false);
    tree.clear(&mut own);
}
