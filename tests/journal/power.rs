//! REL-25, REL-26: the power goes at every changing call, with unsynced blocks dropped, kept, or
//! mixed in any order.

use tollgate::journal::Offset;

use super::fault_disk::{FaultDisk, Unsynced};
use super::support::{Bench, Random, for_each_seed, open, open_with, options};

const POLICIES: [Unsynced; 4] = [
    Unsynced::Dropped,
    Unsynced::Kept,
    Unsynced::Mixed(512),
    Unsynced::Mixed(4096),
];

/// Submits batches from two submitters until the end or the power cut. Offset `n` gets sample `n`.
/// Answers the last offset of every batch that was taken.
fn workload(bench: &Bench, batches: u64) -> Vec<u64> {
    let mut submitters = [bench.submitter(), bench.submitter()];
    let mut next = bench.recovery.last.number() + 1;
    let mut ends = Vec::new();
    let mut random = Random::new(next);
    for turn in 0..batches {
        let records = 1 + random.below(6);
        let samples: Vec<_> = (next..next + records)
            .map(|number| (number, random.below(700) as usize))
            .collect();
        let submitter = &mut submitters[(turn % 2) as usize];
        let Some(offset) = bench.submit(submitter, &samples) else {
            break;
        };
        next += records;
        assert_eq!(offset.number(), next - 1);
        ends.push(next - 1);
        // Two in flight now and then, so that commits hold more than one batch.
        if turn % 3 != 0 && !bench.wait(offset) {
            break;
        }
    }
    if let Some(end) = ends.last() {
        bench.wait(Offset::new(*end));
    }
    ends
}

/// Every record up to the last is there once, in order; everything acknowledged is among them; the
/// end is the end of a batch that was submitted.
fn check(bench: &Bench, acked: u64, ends: &[u64], what: &str) {
    let last = bench.recovery.last.number();
    assert!(
        last >= acked,
        "{what}: {acked} was acknowledged, {last} came back"
    );
    assert!(
        last == 0 || ends.contains(&last),
        "{what}: part of a batch came back: {last}"
    );
    assert_eq!(bench.recovery.damage, [], "{what}");
    let (records, damage) = bench.read_all();
    assert_eq!(damage, [], "{what}");
    let expected: Vec<_> = (1..=last)
        .map(|number| (Offset::new(number), number))
        .collect();
    assert_eq!(records, expected, "{what}");
}

#[test]
fn rel_25_power_cut_at_every_call() {
    let whole = FaultDisk::new(1);
    workload(&open(&whole), 40);
    let calls = whole.changes();
    assert!(calls > 100, "{calls} is too few to mean anything");
    for at in 1..=calls {
        for (index, policy) in POLICIES.into_iter().enumerate() {
            let what = format!("power cut at call {at} of {calls}, {policy:?}");
            let disk = FaultDisk::new(at * 8 + index as u64);
            disk.power_off_after(at);
            let bench = match open_with(&disk, options()) {
                Ok(bench) => bench,
                Err(_) if !disk.has_power() => {
                    check(&open(&disk.power_loss(policy)), 0, &[], &what);
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let ends = workload(&bench, 40);
            let acked = bench.journal.durable().number();
            let disk = disk.power_loss(policy);
            let bench_after = open(&disk);
            check(&bench_after, acked, &ends, &what);
            // What was called durable at that start survives a second cut.
            let last = bench_after.recovery.last.number();
            let disk = disk.power_loss(Unsynced::Dropped);
            let bench_again = open(&disk);
            assert_eq!(bench_again.recovery.last.number(), last, "{what}");
            check(&bench_again, acked, &ends, &what);
        }
    }
}

/// Several lives one after another, each cut somewhere.
#[test]
fn rel_25_many_lives() {
    for_each_seed(|seed| {
        let mut random = Random::new(seed);
        let mut disk = FaultDisk::new(seed);
        let mut ends = Vec::new();
        for life in 0..8 {
            disk.set_short_writes(random.chance(50));
            disk.power_off_after(1 + random.below(120));
            let policy = POLICIES[random.below(4) as usize];
            let what = format!("TOLLGATE_SEED={seed} life {life} {policy:?}");
            let acked = match open_with(&disk, options()) {
                Ok(bench) => {
                    let last = bench.recovery.last.number();
                    ends.retain(|end| *end <= last);
                    ends.extend(workload(&bench, 20));
                    bench.journal.durable().number()
                }
                Err(_) if !disk.has_power() => 0,
                Err(error) => panic!("{what}: {error}"),
            };
            disk = disk.power_loss(policy);
            let bench = open(&disk);
            check(&bench, acked, &ends, &what);
            drop(bench);
            disk = disk.kill();
        }
    });
}
