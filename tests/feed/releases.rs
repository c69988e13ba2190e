//! What the feed keeps of the journal while the history lets it go.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::{
    broker::feed::FeedLimits,
    identity::{DeviceName, IdentityKind, Scope},
    journal::Offset,
    telemetry::{History, HistoryOptions},
};

use crate::{
    common::wire::Wire,
    parts::Parts,
    site::{ALL, Client, Counter, Options},
};

const SEGMENT_BYTES: u64 = 64 * 1024;

/// Some thirty segments of messages.
const MESSAGES: u32 = 20_000;

/// A broker with small segments, an application's kept session that has settled five messages and
/// went, and what was sent since then, all of it in files of the history. Answers the token too.
fn site(pin_bytes_max: u64) -> (Parts, History, String, TempDir) {
    let limits = FeedLimits {
        keep_bytes: 0,
        pin_bytes_max,
    };
    let broker = Parts::start_with(1, 2, SEGMENT_BYTES, limits);
    let dir = TempDir::with_prefix("tollgate-feed-").expect("a temporary directory");
    let options = HistoryOptions {
        head_bytes_max: 64 * 1024,
        ..HistoryOptions::new(dir.path())
    };
    let history = History::start(broker.journal.clone(), options, []).expect("a history");
    let scope = Scope::new(IdentityKind::Application, &[], &[ALL.to_owned()]).expect("a filter");
    let name = DeviceName::new("a").expect("a name");
    let created = broker.registry.create_application(&name, &scope, None);
    let token = created.expect("an application").1.expose().to_owned();
    let mut counter = Counter::over(Wire::connect(broker.address), &broker.tokens[0]);
    let mut client = connect(&broker, &token);
    assert_eq!(client.subscribe(ALL), 1);
    counter.send(5);
    assert_eq!(client.take_numbers(5), [1, 2, 3, 4, 5]);
    client.disconnect();
    for _ in 0..MESSAGES / 100 {
        counter.send(100);
    }
    (broker, history, token, dir)
}

fn connect(broker: &Parts, token: &str) -> Client {
    Client::over(Wire::connect(broker.address), token, &Options::KEPT)
}

/// Waits until the journal has let go of everything before an offset that `is_there` likes.
fn release_until(broker: &Parts, is_there: impl Fn(Offset) -> bool) -> Offset {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let end = broker.journal.durable().next();
        let first = broker.journal.release(end).expect("files can be removed");
        if is_there(first) {
            return first;
        }
        assert!(Instant::now() < deadline, "the journal begins at {first:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_feed_has_not_settled_stays_while_the_history_lets_the_journal_go() {
    let (broker, history, token, _dir) = site(1 << 40);
    // Seals what is there and releases it, as it did meanwhile.
    history.close();
    assert!(history.status().seals > 2);
    let mut client = connect(&broker, &token);
    assert!(client.is_present);
    for number in 6..=MESSAGES + 5 {
        let message = client.take();
        assert_eq!(message.number(), number);
        assert_eq!(message.property("missed_from"), None, "{number}");
    }
    // Once it is settled, it goes.
    release_until(&broker, |first| first.number() > u64::from(MESSAGES) / 2);
    broker.stop();
}

#[test]
fn beyond_the_limit_a_feed_goes_on_with_the_oldest_kept_and_says_so() {
    let (broker, history, token, _dir) = site(3 * SEGMENT_BYTES);
    history.close();
    let first = release_until(&broker, |first| first.number() > u64::from(MESSAGES) / 2);
    let mut client = connect(&broker, &token);
    assert!(client.is_present);
    let message = client.take();
    let offset = |name| message.property(name).and_then(|text| text.parse().ok());
    let missed: u64 = offset("missed_from").expect("it says what is missing");
    assert!(missed > 5 && missed < 20, "{missed}");
    let at: u64 = offset("offset").expect("an offset");
    assert!(at >= first.number() && at < first.number() + 5, "{at}");
    let mut number = message.number();
    assert!(number > 6);
    while number < MESSAGES + 5 {
        let message = client.take();
        number += 1;
        assert_eq!(message.number(), number);
        assert_eq!(message.property("missed_from"), None, "{number}");
    }
    broker.stop();
}
