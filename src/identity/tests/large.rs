//! Large registries. The ignored tests print figures and are run by hand, in release mode, alone:
//!
//! ```sh
//! TOLLGATE_TEST_DEVICES=1000000 cargo test --release --lib a_million_ -- --ignored --nocapture \
//!   --test-threads 1
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::vector_key;
use crate::identity::index::{TokenEntry, TokenIndex, TokenKey};
use crate::identity::*;
use crate::store::Store;

/// Tokens asked for, at most.
const LOOKUPS: usize = 1_000_000;

fn wanted() -> u64 {
    let text = std::env::var("TOLLGATE_TEST_DEVICES").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

/// A number of a row, all over the table, each once: in no order that a cache would like.
fn spread(at: u64, devices: u64) -> u64 {
    at * 611_953 % devices
}

/// What a lookup costs beside its digest, among a million tokens in random order (target: 150 ns),
/// and what they take in memory with an end each (target: 100 MB): the resident set before and
/// after.
#[test]
#[ignore = "prints figures; run it in release mode"]
fn a_million_tokens_in_the_index() {
    let tokens = wanted();
    let key = vector_key();
    let entry = |credential| TokenEntry {
        identity: Uuid::new_v4(),
        credential,
        generation: 1,
        kind: 0,
        expires_s: 4_000_000_000,
        has_terms: false,
        is_basic: false,
        is_watched: false,
    };
    let before = resident_kib();
    let index = TokenIndex::with_capacity(1);
    let started = Instant::now();
    for number in 0..tokens {
        index.insert(&key.token_digest(&token(number)), entry(number));
    }
    let filled = started.elapsed();
    let resident = resident_kib().saturating_sub(before);
    // A step that meets every number once, in no order that a cache would like.
    let asked: Vec<String> = (0..tokens).map(|at| token(spread(at, tokens))).collect();
    let started = Instant::now();
    let digests: Vec<_> = asked.iter().map(|token| key.token_digest(token)).collect();
    let digest = started.elapsed();
    let started = Instant::now();
    let found = digests
        .iter()
        .filter(|digest| index.find(TokenKey::new(digest)).is_some());
    assert_eq!(found.count() as u64, tokens);
    let lookup = started.elapsed();
    let wrong = (0..tokens).map(|at| key.token_digest(&format!("no token {at:08}")));
    let wrong: Vec<_> = wrong.collect();
    let started = Instant::now();
    let found = wrong
        .iter()
        .filter(|digest| index.find(TokenKey::new(digest)).is_some());
    assert_eq!(found.count(), 0);
    let missed = started.elapsed();
    let each = |took: Duration| took.as_nanos() / u128::from(tokens);
    println!(
        "{tokens} tokens: digest {} ns, lookup {} ns, of a wrong one {} ns, insert with digest {} \
         ns, {} MB",
        each(digest),
        each(lookup),
        each(missed),
        each(filled),
        resident * 1_024 / 1_000_000
    );
}

fn token(number: u64) -> String {
    format!("token-of-the-meter-number-{number:08}")
}

/// Adds devices with scopes and terms: four scopes, an end of its own for every token, and one of
/// three has rights or networks.
fn fill(registry: &Registry, devices: u64) {
    let rights = [&["telemetry"][..], &["telemetry", "rpc"]];
    let rights = rights.map(|names| Rights::named(names.iter().copied()).unwrap());
    for from in (0..devices).step_by(IMPORT_ROWS_MAX) {
        let mut import = registry.import();
        for number in from..devices.min(from + IMPORT_ROWS_MAX as u64) {
            let site = number % 4;
            let network = format!("10.{}.0.0/16", number % 100);
            let terms = TermsChange {
                expires_ms: Some(Some(4_000_000_000_000 + number * 1_000)),
                rights: (number % 6 == 0).then(|| rights[usize::from(number % 12 == 0)]),
                networks: (number % 6 == 3).then(|| vec![network.parse().unwrap()]),
                ..TermsChange::default()
            };
            let row = ImportRow {
                name: &format!("meter-{number:08}"),
                token: &token(number),
                id: None,
                profile: None,
                label: None,
                publish: &[format!("site-{site}/%d/out")],
                subscribe: &[format!("site-{site}/all/#")],
                terms: Some(&terms),
            };
            import.add(&row).unwrap();
        }
        let done = import.commit(false).unwrap();
        assert_eq!(done.faults, []);
    }
}

/// More than one thread loads them.
#[test]
fn what_a_start_loads_is_what_was_there() {
    const DEVICES: u64 = 33_000;
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::open(&dir.path().join("secrets"), true).unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let before = Registry::open(store.clone(), &secrets).unwrap();
    fill(&before, DEVICES);
    for number in [0, 5, DEVICES - 1] {
        before.revoke(&format!("meter-{number:08}")).unwrap();
    }
    // Their numbers come behind all others.
    let (_, rotated, _) = before.rotate("meter-00000006", None).unwrap();
    before.delete("meter-00000009", 1).unwrap();
    let after = Registry::open(store, &secrets).unwrap();
    assert_eq!(after.tokens() as u64, DEVICES - 4);
    assert_eq!(after.devices_total(), DEVICES - 1);
    assert_eq!(after.scopes() as u64, DEVICES - 1);
    assert_eq!(after.tokens_with_terms(), before.tokens_with_terms());
    assert_eq!(after.tombstones(), before.tombstones());
    let away: IpAddr = "10.3.1.1".parse().unwrap();
    let known = |registry: &Registry, token: &str| {
        let admitted = registry.admit(token, Some(away));
        admitted.map(|who| {
            let whose = (who.identity, who.kind, who.credential, who.generation);
            (whose, who.permit, who.expires_at_ms)
        })
    };
    let some = (0..DEVICES).filter(|at| at % 5 < 2).map(token);
    for token in some.chain([rotated.expose().to_owned()]) {
        assert_eq!(known(&after, &token), known(&before, &token), "{token}");
    }
}

/// What a start reads of a million devices with scopes and terms, and what a token costs that is
/// shown then: a right one, one from the wrong network, and one that is none. The last must cost
/// least.
#[test]
#[ignore = "prints figures; run it in release mode"]
fn a_million_devices_with_scopes_and_terms() {
    let devices = wanted();
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::open(&dir.path().join("secrets"), true).unwrap();
    let data = dir.path().join("data");
    let began = Instant::now();
    fill(
        &Registry::open(Store::open(&data).unwrap(), &secrets).unwrap(),
        devices,
    );
    let filled = began.elapsed();
    let began = Instant::now();
    let store = Store::open(&data).unwrap();
    let opened = began.elapsed();
    let began = Instant::now();
    let registry = Registry::open(store, &secrets).unwrap();
    let loaded = began.elapsed();
    assert_eq!(registry.tokens() as u64, devices);

    let home: IpAddr = "10.200.0.1".parse().unwrap();
    // Each kind in turn, three times, and the least counts: other programs only add.
    let mut least = [Duration::MAX; 4];
    for round in 0..3 {
        let ask = |kind: fn(u64) -> bool, text: fn(u64) -> String, is_right: bool| {
            let rows = (0..devices)
                .map(|at| spread(at, devices))
                .filter(|at| kind(*at));
            let asked: Vec<String> = rows.take(LOOKUPS).map(text).collect();
            let began = Instant::now();
            let admitted = asked
                .iter()
                .filter(|token| registry.admit(token, Some(home)).is_ok());
            let admitted = admitted.count();
            let took = began.elapsed() / u32::try_from(asked.len()).unwrap();
            assert_eq!(admitted, if is_right { asked.len() } else { 0 }, "{round}");
            took
        };
        let took = [
            ask(|at| at % 3 != 0, token, true),
            ask(|at| at % 6 == 0, token, true),
            ask(|at| at % 6 == 3, token, false),
            ask(
                |_| true,
                |at| format!("no-token-of-a-meter-number-{at:08}"),
                false,
            ),
        ];
        for (least, took) in least.iter_mut().zip(took) {
            *least = took.min(*least);
        }
    }
    let [right, with_rights, elsewhere, wrong] = least.map(|took| took.as_nanos());
    println!(
        "{devices} devices with scopes and terms: import {filled:.1?}, check of the database \
         {opened:.2?}, load {loaded:.2?}; a right token {right} ns, with rights of its own \
         {with_rights} ns, from elsewhere {elsewhere} ns, a wrong one {wrong} ns, digests included"
    );
    assert!(wrong < right, "a wrong token costs more than a right one");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = row.and_then(|row| row.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap()
}
