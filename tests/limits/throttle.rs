//! SEC-27: who guesses credentials is slowed down, and nobody else.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in, reason},
    wire::{ANSWER_LIMIT, Wire, client_config, socket_from},
};

const NOBODY_TRUSTED: (&str, &str) = ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "");

/// CONNACK: bad user name or password, and connection rate exceeded.
const BAD: u8 = 0x86;
const TOO_MANY: u8 = 0x9f;

#[test]
fn sec_27_after_ten_failures_a_further_one_is_delayed_and_refused() {
    let broker = Broker::start_with(&[NOBODY_TRUSTED]);
    let token = broker.create_device("a");
    for n in 0..10 {
        assert_eq!(guess(&broker, "127.0.0.2", Version::V5, n), BAD);
    }
    let since = Instant::now();
    assert_eq!(guess(&broker, "127.0.0.2", Version::V5, 10), TOO_MANY);
    assert!(since.elapsed() >= Duration::from_millis(950), "not delayed");
    assert_eq!(guess(&broker, "127.0.0.2", Version::V311, 11), 3);
    // Every listener counts together.
    let socket = socket_from("127.0.0.2", broker.address("mqtts"));
    let mut tls = Wire::over_tls(client_config(&broker.ca_file()), "localhost", socket);
    tls.send(&Connect::with_token(Version::V5, "x", "a wrong token").encode());
    assert_eq!(reason(&tls.packet()), TOO_MANY);
    // A good credential from the same address is not held back: behind it may be a whole site.
    // Until one was quick: what makes all slow for a while is the machine.
    let limit = Instant::now() + ANSWER_LIMIT;
    loop {
        let since = Instant::now();
        let mut good = Wire::connect_from("127.0.0.2", broker.address("mqtt"));
        log_in(&mut good, &Connect::with_token(Version::V5, "a", &token));
        if since.elapsed() < Duration::from_millis(900) {
            break;
        }
        assert!(since < limit, "held back, each time");
    }
    // Another address begins anew.
    assert_eq!(guess(&broker, "127.0.0.3", Version::V5, 12), BAD);
    let throttled = r#"tollgate_connects_refused_total{reason="throttled"}"#;
    assert_eq!(broker.metric(throttled), 3.0);
    assert!(broker.metric("tollgate_throttle_entries") >= 2.0);
}

#[test]
fn sec_27_one_credential_is_counted_from_every_address() {
    let broker = Broker::start_with(&[
        NOBODY_TRUSTED,
        ("TOLLGATE_LIMITS_FAILURES_PER_MINUTE_MAX", "3"),
    ]);
    for n in 2..5 {
        assert_eq!(guess(&broker, &format!("127.0.0.{n}"), Version::V5, 0), BAD);
    }
    assert_eq!(guess(&broker, "127.0.0.9", Version::V5, 0), TOO_MANY);
    assert_eq!(guess(&broker, "127.0.0.9", Version::V5, 1), BAD);
}

#[test]
fn s_21_two_hundred_wrong_tokens_do_not_keep_a_good_device_out() {
    let broker = Broker::start_with(&[NOBODY_TRUSTED]);
    let token = broker.create_device("a");
    let address = broker.address("mqtt");
    // Far less than the minute in which failures are counted together, also on a busy machine.
    let guessing: Vec<_> = (0..20)
        .map(|thread| {
            thread::spawn(move || {
                (0..10)
                    .map(|n| {
                        let wrong = format!("wrong {thread} {n}");
                        let mut wire = Wire::connect_from("127.0.0.2", address);
                        let connect = Connect::with_token(Version::V5, "x", &wrong);
                        wire.send(&connect.encode());
                        wire.packet_or_close(ANSWER_LIMIT)
                            .map(|answer| reason(&answer))
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut waits = Vec::new();
    while !guessing.iter().all(|thread| thread.is_finished()) {
        let since = Instant::now();
        let mut good = Wire::connect_from("127.0.0.2", address);
        log_in(&mut good, &Connect::with_token(Version::V5, "a", &token));
        waits.push(since.elapsed());
    }
    // Those that guess wait for 1 s each time. The median, since some are the machine's doing.
    waits.sort();
    assert!(!waits.is_empty(), "the guesses take 10 s");
    let median = waits[waits.len() / 2];
    println!("{} came in meanwhile, after {median:?} each", waits.len());
    assert!(median < Duration::from_millis(900), "{median:?}");
    let answers: Vec<_> = guessing
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let ordinary = answers
        .iter()
        .filter(|answer| **answer == Some(BAD))
        .count();
    let throttled = answers
        .iter()
        .filter(|answer| **answer == Some(TOO_MANY))
        .count();
    assert_eq!((ordinary, throttled), (10, 190));
}

#[test]
fn sec_27_trusted_networks_are_not_throttled() {
    let broker = Broker::start();
    for n in 0..15 {
        assert_eq!(guess(&broker, "127.0.0.2", Version::V5, n), BAD);
    }
    assert_eq!(broker.metric("tollgate_throttle_entries"), 0.0);
}

/// What a wrong token is answered with.
fn guess(broker: &Broker, source: &str, version: Version, n: u32) -> u8 {
    let mut wire = Wire::connect_from(source, broker.address("mqtt"));
    let wrong = format!("a wrong token {n}");
    wire.send(&Connect::with_token(version, "x", &wrong).encode());
    let answer = wire.packet();
    wire.expect_close();
    reason(&answer)
}
