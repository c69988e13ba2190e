//! The run: load, kill, start again, prove.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    operator::Operator,
    rig::{
        admin::Admin,
        device::{Device, Habits},
        load::{self, Load},
        proof,
        random::{self, Random},
        site::Site,
    },
};
use crate::common::{
    broker::{Broker, Setup},
    packets::Version,
};

/// Devices that publish.
const DEVICES: usize = 16;

/// How often the broker is killed unless `TOLLGATE_TORTURE_CYCLES` says otherwise.
const CYCLES: u64 = 25;

/// Between two ends of the broker, at most so many messages are promised...
const MESSAGES_PER_CYCLE: u64 = 6_000;

/// ...and then it lives at most so much longer, in microseconds.
const JITTER_US: u64 = 30_000;

/// How long a kill waits for a file of the history to be written.
const AIM_LIMIT: Duration = Duration::from_secs(3);

/// What follows from the first byte of such a file to the removal of what it replaces takes about
/// so long, in microseconds.
const AIM_JITTER_US: u64 = 20_000;

/// Messages of the one device that history is asked for in a cycle.
const LOOKED_AT: u64 = 5_000;

/// Messages promised after a start, within which time: it serves again.
pub(super) const SERVES_AGAIN: Duration = Duration::from_secs(180);

/// How the broker ends in a cycle.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// kill -9 while it serves.
    Killed,
    /// kill -9, and again while it starts.
    KilledTwice,
    /// SIGTERM.
    Stopped,
}

/// REL-01, REL-03, REL-06, REL-24: 0 promised messages missing, 0 of QoS 2 doubled, 0 revoked
/// tokens let in, the order kept, sessions there.
#[test]
fn rel_24_what_was_promised_survives_kill_9() {
    let cycles = cycles();
    let mut random = Random::new(random::seed());
    let began = Instant::now();
    // The smallest head: files are written and merged while the broker is killed.
    let setup = Setup::new().set("TOLLGATE_HISTORY_HEAD_SIZE_MAX_BYTES", "1048576");
    let mut broker = setup.start();
    let admin = Admin::new(broker.dir());
    let site = Arc::new(Site::default());
    let devices = load::devices(&broker, DEVICES, &habits(), &mut random);
    let names: Vec<String> = devices.iter().map(|held| held.name.clone()).collect();
    let operator = Operator::start(&admin, &site, random.fork());
    let load = Load::start(devices, &site);
    let mut slowest = Duration::ZERO;
    let mut caught = 0;
    for cycle in 1..=cycles {
        site.is_up(broker.address("mqtt"), broker.address("http"));
        // At times nothing is waited for: it dies while the clients come back.
        let messages = random.below(MESSAGES_PER_CYCLE) * (random.below(4)).min(1);
        load.until_promised(load.promised() + messages, SERVES_AGAIN);
        std::thread::sleep(Duration::from_micros(random.below(JITTER_US)));
        let end = end(&mut random);
        if random.below(2) == 0 {
            aim(&broker.dir().join("data/history"), &mut random);
        }
        site.is_down();
        let took = end_and_start(&mut broker, end, &mut random, &mut caught);
        slowest = slowest.max(took);
        println!("cycle {cycle}: {messages} more promised, {end:?}, ready after {took:?}");
        prove_some(&broker, &admin, &load, &names, &operator, &mut random);
    }
    site.is_up(broker.address("mqtt"), broker.address("http"));
    load.until_promised(load.promised() + 1_000, SERVES_AGAIN);
    let devices = load.finish();
    let revoked = operator.finish(broker.address("mqtt"));
    proof::prove_history(&admin, broker.address("http"), &devices);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    let figures = proof::prove_journal(&broker.dir().join("data"), &devices);
    assert_eq!(
        figures.promised,
        devices.iter().map(Device::sent).sum::<u64>()
    );
    // A run that never meets a seal proves nothing about it.
    assert!(
        caught > 0 || cycles < CYCLES,
        "no kill met a file of the history half-way"
    );
    println!(
        "{caught} of {cycles} ends met a file of the history half-way; {:?}: {} \
         promised, {} missing, {} of QoS 2 doubled, {} of QoS 1 \
         repeated, {revoked} revoked tokens refused, slowest start {slowest:?}",
        began.elapsed(),
        figures.promised,
        figures.missing,
        figures.doubled,
        figures.repeated,
    );
}

/// How often the broker is killed.
pub(super) fn cycles() -> u64 {
    std::env::var("TOLLGATE_TORTURE_CYCLES").map_or(CYCLES, |text| {
        text.parse()
            .expect("TOLLGATE_TORTURE_CYCLES is a whole number")
    })
}

fn habits() -> Habits {
    Habits {
        version: Version::V311,
        qos: 1,
        keeps_session: true,
        window: 24,
        text_bytes: (0, 200),
        take_over_one_in: 400,
        ping_interval: Duration::from_millis(200),
        patience: SERVES_AGAIN,
    }
}

pub(super) fn end(random: &mut Random) -> End {
    match random.below(10) {
        0 => End::Stopped,
        1 | 2 => End::KilledTwice,
        _ => End::Killed,
    }
}

/// Ends the broker and starts it again; answers how long the start took.
/// `caught` counts the ends at which a file of the history was being written or replaced.
pub(super) fn end_and_start(
    broker: &mut Broker,
    end: End,
    random: &mut Random,
    caught: &mut u64,
) -> Duration {
    let history = broker.dir().join("data/history");
    match end {
        End::Killed => {
            broker.kill9();
            *caught += u64::from(is_half_done(&history));
        }
        End::Stopped => assert_eq!(broker.stop(), 0, "{}", broker.stderr()),
        End::KilledTwice => {
            broker.kill9();
            *caught += u64::from(is_half_done(&history));
            let mut starting = broker
                .command(&["serve"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program runs");
            std::thread::sleep(Duration::from_millis(random.below(120)));
            starting.kill().expect("the process is ours");
            starting.wait().expect("the child can be waited for");
        }
    }
    let began = Instant::now();
    broker.restart();
    began.elapsed()
}

/// Waits until a file of the history is being written, by a seal or a compaction, and a little
/// longer: what follows next is the rename, the manifest, and the removal of what it replaces.
fn aim(history: &Path, random: &mut Random) {
    let deadline = Instant::now() + AIM_LIMIT;
    while !names(history).iter().any(|name| is_unfinished(name)) {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(Duration::from_micros(random.below(AIM_JITTER_US)));
}

/// Whether a seal or a compaction did not come to its end: there is a file that is not whole, or
/// one that is not listed.
fn is_half_done(history: &Path) -> bool {
    let names = names(history);
    let listed = fs::read_to_string(history.join("_manifest.json")).unwrap_or_default();
    let mut files = names.iter().filter(|name| name.ends_with(".parquet"));
    names.iter().any(|name| is_unfinished(name)) || files.any(|name| !listed.contains(name))
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(".tmp")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// One device and the operator's last tokens, right after the start. Nobody publishes yet.
fn prove_some(
    broker: &Broker,
    admin: &Admin,
    load: &Load,
    names: &[String],
    operator: &Operator,
    random: &mut Random,
) {
    let count = u64::try_from(names.len()).expect("names are few");
    let at = usize::try_from(random.below(count)).expect("names are few");
    let notes = &load.notes()[at];
    // Its last messages; all the others are looked at in the end.
    let promised = notes.promised.load(Ordering::SeqCst);
    let last = promised.saturating_sub(LOOKED_AT)..promised;
    proof::prove_history_of(admin, broker.address("http"), &names[at], last);
    operator.prove(broker.address("mqtt"), 5);
}
