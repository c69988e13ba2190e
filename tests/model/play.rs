//! Plays sequences for a while, on several threads, and makes a difference small.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    common::broker::Broker,
    driver::{Admin, CLIENTS, FILTERS, Ground, IS_SHRINKING, NARROW_SCOPE, Play, TOPICS},
    steps::{Step, steps},
};

/// Sequences at once: each waits for the disk nearly all of the time, and they share its syncs.
const THREADS: u64 = 16;

/// How long a failing sequence is played again to make it smaller.
const SHRINK_LIMIT: Duration = Duration::from_secs(60);

/// Until when, or how many.
#[derive(Clone, Copy)]
enum Budget {
    Until(Instant),
    Sequences(u64),
}

/// What was found: the seed, the fewest steps, and the difference.
struct Difference {
    seed: u64,
    steps: Vec<Step>,
    told: String,
}

fn broker() -> Broker {
    Broker::start_with(&[
        ("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "100000"),
        ("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "100000"),
        ("TOLLGATE_LIMITS_HTTP_REQUESTS_PER_SECOND_MAX", "1000000"),
        ("TOLLGATE_WORKERS_COUNT", "3"),
        ("TOLLGATE_MQTT_RECEIVE_MAXIMUM", "1000"),
        ("TOLLGATE_LOG_LEVEL", "warn"),
    ])
}

fn ground(broker: &Broker) -> Ground {
    let file = broker.dir().join("secrets").join("admin.token");
    let token = fs::read_to_string(file).expect("made at the first start");
    let admin = Admin {
        url: broker.admin_url(),
        token: token.trim().to_owned(),
    };
    Ground {
        address: broker.address("mqtt"),
        wide: admin.create("wide", "#"),
        narrow: admin.create("narrow", NARROW_SCOPE),
        admin,
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Plays the steps in a place of their own; what differs, if anything does.
fn play(ground: &Ground, steps: &[Step], is_forgetful: bool) -> Result<(), String> {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let place = format!("p{}", PLACES.fetch_add(1, Ordering::Relaxed));
    let played = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut play = Play::new(ground, place, is_forgetful, steps);
        for step in steps {
            play.step(step);
        }
        play.finish();
    }));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// Leaves out step after step as long as there is still a difference.
fn shrink(
    ground: &Ground,
    mut steps: Vec<Step>,
    mut told: String,
    lie: bool,
) -> (Vec<Step>, String) {
    let deadline = Instant::now() + SHRINK_LIMIT;
    let mut at = steps.len();
    IS_SHRINKING.store(true, Ordering::Relaxed);
    if play(ground, &steps, lie).is_ok() {
        // One in many times: fewer steps would tell less of it.
        at = 0;
    }
    while at > 0 && Instant::now() < deadline {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        if let Err(difference) = play(ground, &fewer, lie) {
            steps = fewer;
            told = difference;
            at = at.min(steps.len());
        }
    }
    IS_SHRINKING.store(false, Ordering::Relaxed);
    (steps, told)
}

/// Plays from this seed on; the number of sequences and the first difference.
fn play_all(ground: &Ground, first: u64, budget: Budget, lie: bool) -> (u64, Option<Difference>) {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None));
    // The others stop when one has found something: it makes it small by itself, undisturbed.
    let is_found = AtomicBool::new(false);
    let one_thread = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match budget {
                Budget::Until(end) => Instant::now() >= end,
                Budget::Sequences(count) => number >= count,
            };
            if is_over || is_found.load(Ordering::Relaxed) {
                next.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let seed = first.wrapping_add(number);
            let steps = steps(seed, CLIENTS, TOPICS.len(), FILTERS.len());
            if let Err(told) = play(ground, &steps, lie)
                && !is_found.swap(true, Ordering::Relaxed)
            {
                let (steps, told) = shrink(ground, steps, told, lie);
                let difference = Difference { seed, steps, told };
                *found.lock().expect("no panic holds it") = Some(difference);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..number("TOLLGATE_MODEL_THREADS").unwrap_or(THREADS) {
            scope.spawn(one_thread);
        }
    });
    (
        next.into_inner(),
        found.into_inner().expect("no panic holds it"),
    )
}

/// REL-21 and S-30: sessions, QoS, retained messages and rights are as the reference has them.
#[test]
fn rel_21_the_broker_does_what_the_reference_does() {
    let broker = broker();
    let ground = ground(&broker);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let first = number("TOLLGATE_MODEL_SEED").unwrap_or(clock.as_secs() << 20);
    let seconds = number("TOLLGATE_MODEL_SECONDS").unwrap_or(10);
    let budget = match number("TOLLGATE_MODEL_SEQUENCES") {
        Some(count) => Budget::Sequences(count),
        None => Budget::Until(Instant::now() + Duration::from_secs(seconds)),
    };
    let (count, difference) = play_all(&ground, first, budget, false);
    println!("{count} sequences from seed {first}");
    if let Some(Difference { seed, steps, told }) = difference {
        panic!("TOLLGATE_MODEL_SEED={seed} TOLLGATE_MODEL_SEQUENCES=1\n{steps:#?}\n{told}");
    }
    assert!(count > 0, "no sequence was played");
}

/// A reference that knows no Retain As Published differs, and few steps are left of the difference.
#[test]
fn a_difference_is_found_and_made_small() {
    let broker = broker();
    let ground = ground(&broker);
    let (_, difference) = play_all(&ground, 1, Budget::Sequences(500), true);
    let difference = difference.expect("the broker knows Retain As Published");
    assert!(difference.steps.len() <= 6, "{:#?}", difference.steps);
}
