//! `tollgate backup` and `restore`, end to end (REL-44).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, TELEMETRY, Version, log_in, publish},
};
use crate::mount::Mount;

const PASSPHRASE: &str = "correct horse battery";

const NOT_EMPTY: i32 = 4;
const WRONG_PASSPHRASE: i32 = 8;
const DAMAGED: i32 = 9;
const NEWER: i32 = 10;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn backup(broker: &Broker, name: &str) -> PathBuf {
    let path = broker.dir().join(name);
    let output = broker
        .command(&["backup", path_text(&path)])
        .env("TOLLGATE_BACKUP_PASSPHRASE", PASSPHRASE)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}\n{}", broker.stderr());
    path
}

/// Restores into the folders of the setup.
fn restore(setup: &Setup, file: &Path, passphrase: &str, more: &[&str]) -> Output {
    let mut command = setup.command();
    command
        .args(["restore", path_text(file)])
        .args(more)
        .env("TOLLGATE_BACKUP_PASSPHRASE", passphrase);
    command.output().expect("the program runs")
}

fn is_untouched(setup: &Setup) -> bool {
    let entries = fs::read_dir(setup.dir()).expect("the directory can be listed");
    entries.count() == 0
}

/// Devices publish with acks while the backup is made. What was acknowledged before it began is
/// there, and of each device an unbroken row from its first message on.
#[test]
fn rel_44_a_backup_under_load_is_a_consistent_prefix() {
    const DEVICES: usize = 4;

    let broker = Broker::start();
    let tokens: Vec<String> = (0..DEVICES)
        .map(|number| broker.create_device(&format!("d{number}")))
        .collect();
    let (file, before) = backup_under_load(&broker, &tokens);
    // Devices made after it are not in it.
    broker.create_device("late");
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let setup = Setup::new();
    let output = restore(&setup, &file, PASSPHRASE, &[]);
    assert!(output.status.success(), "{output:?}");
    for (folder, mode) in [
        ("data", 0o700),
        ("secrets", 0o700),
        ("secrets/registry.key", 0o600),
    ] {
        let found = fs::metadata(setup.dir().join(folder)).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, mode, "{folder}");
    }
    let mut restored = setup.start();
    assert!(
        !restored.stderr().contains("damage"),
        "{}",
        restored.stderr()
    );
    for ((number, token), before) in tokens.iter().enumerate().zip(before) {
        let name = format!("d{number}");
        log_in(
            &mut restored.wire(),
            &Connect::with_token(Version::V311, "x", token),
        );
        let kept = all_numbers(&restored, &name);
        let last = kept.last().copied().unwrap_or(0);
        assert!(
            last >= before,
            "{name}: {last} of {before} acknowledged before the backup"
        );
        let whole: BTreeSet<u64> = (1..=last).collect();
        assert!(kept == whole, "{name}: there is a hole before {last}");
    }
    let devices = restored.cli_ok(&["device", "list"]);
    assert!(!devices.contains("late"), "{devices}");
    // The journal goes on where the copy ends.
    let mut wire = restored.wire();
    log_in(
        &mut wire,
        &Connect::with_token(Version::V311, "x", &tokens[0]),
    );
    wire.send(&publish(Version::V311, 1, 9, TELEMETRY, br#"{"after":1}"#));
    wire.expect("40020009");
    restored.kill9();
    restored.restart();
    assert_eq!(restored.values("d0", "after").len(), 1);
    assert_eq!(restored.stop(), 0);
    assert!(!broker.dir().join("data/backup.tmp").exists());
}

/// Makes a backup while each device publishes one number after the other, from 1 on; answers the
/// last one acknowledged to each before the backup began.
fn backup_under_load(broker: &Broker, tokens: &[String]) -> (PathBuf, Vec<u64>) {
    let acked: Vec<AtomicU64> = tokens.iter().map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let address = broker.address("mqtt");
    thread::scope(|scope| {
        for (token, acked) in tokens.iter().zip(&acked) {
            let stop = &stop;
            scope.spawn(move || {
                let mut wire = crate::common::wire::Wire::connect(address);
                log_in(&mut wire, &Connect::with_token(Version::V311, "x", token));
                let mut number = 0_u64;
                // No more than one answer of the API holds.
                while !stop.load(Ordering::Relaxed) && number < 9_999 {
                    number += 1;
                    let payload = format!(r#"{{"ts":{number},"values":{{"n":{number}}}}}"#);
                    let id = u16::try_from(number % 60_000 + 1).expect("in range");
                    wire.send(&publish(
                        Version::V311,
                        1,
                        id,
                        TELEMETRY,
                        payload.as_bytes(),
                    ));
                    assert_eq!(wire.packet()[0], 0x40);
                    acked.store(number, Ordering::Relaxed);
                }
            });
        }
        while acked.iter().any(|acked| acked.load(Ordering::Relaxed) < 50) {
            thread::yield_now();
        }
        let before: Vec<u64> = acked.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let file = backup(broker, "under-load.backup");
        let during: Vec<u64> = acked.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(during > before, "the load went on");
        (file, before)
    })
}

/// The values of `n`: fewer than one page of the API holds.
fn all_numbers(broker: &Broker, device: &str) -> BTreeSet<u64> {
    let number = |value: Value| value.as_u64().expect("a number");
    broker.values(device, "n").into_iter().map(number).collect()
}

#[test]
fn a_backup_of_a_stopped_broker_is_the_same_and_waits_for_no_answer() {
    let mut broker = Broker::start();
    let token = broker.create_device("pump");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "x", &token));
    wire.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"a":1}"#));
    wire.expect("40020001");
    // As a crash leaves it: the last segment is not cut, the database has a log beside it.
    broker.kill9();
    let file = backup(&broker, "stopped.backup");
    let len = fs::metadata(&file).expect("it is there").len();
    assert!(
        len < 4 << 20,
        "zeros that were filled ahead are not in it: {len}"
    );
    let setup = Setup::new();
    assert!(restore(&setup, &file, PASSPHRASE, &[]).status.success());
    for name in ["lock", "ballast", "next.prepared"] {
        let path = setup.dir().join("data/journal").join(name);
        assert!(!path.exists(), "{name} is of no use elsewhere");
    }
    let restored = setup.start();
    assert_eq!(restored.values("pump", "a").len(), 1);
    log_in(
        &mut restored.wire(),
        &Connect::with_token(Version::V5, "y", &token),
    );
    broker.restart();
    assert_eq!(broker.values("pump", "a").len(), 1);
    // A running broker that is asked at the wrong place is not taken for a stopped one.
    let output = broker
        .command(&["backup", "other.backup"])
        .env("TOLLGATE_ADMIN_URL", "http://127.0.0.1:1")
        .env("TOLLGATE_BACKUP_PASSPHRASE", PASSPHRASE)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        text(&output.stderr).contains("a broker runs on"),
        "{output:?}"
    );
    assert!(!broker.dir().join("other.backup").exists());
}

/// SEC-51: neither the backup nor anything it leaves behind holds a secret in clear.
#[test]
fn without_the_passphrase_there_is_no_usable_secret() {
    let broker = Broker::start();
    let token = broker.create_device("a device with a name");
    let file = backup(&broker, "sealed.backup");
    let sealed = fs::read(&file).expect("it can be read");
    let mut secrets = vec![token.into_bytes(), b"a device with a name".to_vec()];
    for name in ["registry.key", "admin.token", "ca.key", "server.key"] {
        let secret = fs::read(broker.dir().join("secrets").join(name)).expect("a secret");
        secrets.push(secret[..40].to_vec());
    }
    secrets.push(PASSPHRASE.as_bytes().to_vec());
    for secret in &secrets {
        let found = sealed.windows(secret.len()).any(|part| part == secret);
        assert!(!found, "{}", text(secret));
    }
    let setup = Setup::new();
    for wrong in ["correct horse batterz", "x", ""] {
        let output = restore(&setup, &file, wrong, &[]);
        let code = output.status.code();
        assert!(matches!(code, Some(WRONG_PASSPHRASE | 2)), "{output:?}");
        assert!(is_untouched(&setup), "{wrong:?}");
    }
    let log = broker.stderr();
    assert!(!log.contains(PASSPHRASE), "{log}");
    // A weak one is refused where it would be used.
    let output = broker
        .command(&["backup", "weak.backup"])
        .env("TOLLGATE_BACKUP_PASSPHRASE", "short")
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("12 bytes"), "{output:?}");
}

#[test]
fn a_damaged_cut_foreign_or_newer_backup_is_refused_and_nothing_is_changed() {
    let broker = Broker::start();
    let file = backup(&broker, "whole.backup");
    let whole = fs::read(&file).expect("it can be read");
    let setup = Setup::new();
    let bad = broker.dir().join("bad.backup");
    let refuse = |bytes: &[u8], codes: &[i32], what: &str| {
        fs::write(&bad, bytes).expect("it can be written");
        let output = restore(&setup, &bad, PASSPHRASE, &[]);
        let code = output.status.code().expect("it ends by itself");
        assert!(codes.contains(&code), "{what}: {output:?}");
        assert!(is_untouched(&setup), "{what}");
    };
    for at in [9, 17, 30, 60, 78, 81, 100, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refuse(&flipped, &[DAMAGED], &format!("a bit at {at}"));
    }
    for len in [0, 79, 80, 84, whole.len() / 2, whole.len() - 1] {
        refuse(&whole[..len], &[DAMAGED], &format!("cut at {len}"));
    }
    let longer = [&whole[..], b"x"].concat();
    refuse(&longer, &[DAMAGED], "a byte more");
    refuse(b"a text of somebody", &[DAMAGED], "foreign");
    let mut newer = whole;
    newer[8] = 2;
    let sum = crc32fast::hash(&newer[..76]);
    newer[76..80].copy_from_slice(&sum.to_le_bytes());
    refuse(&newer, &[NEWER], "newer");
    // A target that holds something.
    fs::create_dir(setup.dir().join("data")).expect("a folder");
    fs::write(setup.dir().join("data/mine"), "x").expect("a file");
    let output = restore(&setup, &file, PASSPHRASE, &[]);
    assert_eq!(output.status.code(), Some(NOT_EMPTY), "{output:?}");
    assert!(text(&output.stderr).contains("is not empty"), "{output:?}");
    assert_eq!(fs::read_dir(setup.dir()).expect("a list").count(), 1);
    // Whole after all, and an empty folder is no obstacle.
    fs::remove_file(setup.dir().join("data/mine")).expect("it is ours");
    let output = restore(&setup, &file, PASSPHRASE, &["--check"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!setup.dir().join("secrets").exists());
    assert!(restore(&setup, &file, PASSPHRASE, &[]).status.success());
}

#[test]
fn a_full_disk_leaves_neither_half_a_backup_nor_half_a_restore() {
    let mut broker = Broker::start();
    let token = broker.create_device("pump");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "x", &token));
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    for id in 1..=64 {
        wire.send(&publish(
            Version::V311,
            1,
            id,
            TELEMETRY,
            payload.as_bytes(),
        ));
        assert_eq!(wire.packet()[0], 0x40);
    }
    let small = Mount::tmpfs(2);
    for is_running in [true, false] {
        if !is_running {
            broker.kill9();
        }
        let output = broker
            .command(&["backup", path_text(&small.path().join("a.backup"))])
            .env("TOLLGATE_BACKUP_PASSPHRASE", PASSPHRASE)
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("No space left"), "{output:?}");
        let left = fs::read_dir(small.path()).expect("a list").count();
        assert_eq!(left, 0, "running: {is_running}");
    }
    let file = backup(&broker, "whole.backup");
    let setup = Setup::new().set("TOLLGATE_DATA_DIR", path_text(&small.path().join("data")));
    let output = restore(&setup, &file, PASSPHRASE, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("No space left"), "{output:?}");
    assert_eq!(fs::read_dir(small.path()).expect("a list").count(), 0);
    assert!(is_untouched(&setup));
}

/// Files of the history are in a backup, with their manifest, while the load goes on and they are
/// written and merged; where they are restored they are whole, and say the same.
#[test]
fn rel_44_a_backup_holds_the_files_of_the_history() {
    /// Points that are asked for: all of them were acknowledged before.
    const POINTS: u64 = 60_000;
    const POINTS_A_MESSAGE: u64 = 500;

    let setup = Setup::new().set("TOLLGATE_HISTORY_HEAD_SIZE_MAX_BYTES", "1048576");
    let broker = setup.start();
    let token = broker.create_device("pump");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "x", &token));
    let mut send = |first: u64| {
        let point = |n: u64| format!(r#"{{"ts":{n},"values":{{"n":{n},"half":{}.5}}}}"#, n / 2);
        let points: Vec<String> = (first..first + POINTS_A_MESSAGE).map(point).collect();
        let payload = format!("[{}]", points.join(","));
        wire.send(&publish(Version::V311, 1, 1, TELEMETRY, payload.as_bytes()));
        wire.expect("40020001");
    };
    (1..=POINTS)
        .step_by(usize::try_from(POINTS_A_MESSAGE).expect("small"))
        .for_each(&mut send);
    broker.wait_metric("tollgate_history_seals_total", 2.0);
    let stop = AtomicBool::new(false);
    let file = thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = POINTS + 1;
            while !stop.load(Ordering::Relaxed) {
                send(next);
                next += POINTS_A_MESSAGE;
            }
        });
        let file = backup(&broker, "with-history.backup");
        stop.store(true, Ordering::Relaxed);
        file
    });

    let setup = Setup::new();
    assert!(restore(&setup, &file, PASSPHRASE, &[]).status.success());
    expect_history_files(&setup);
    let restored = setup.start();
    // The device has sent 1, 2, 3…, so the sum tells each missing or doubled one.
    let arguments = [
        "query",
        "pump",
        "--keys",
        "n",
        "--agg",
        "sum",
        "--interval",
        "365d",
        "--from",
        "1",
        "--to",
        &(POINTS + 1).to_string(),
        "--json",
    ];
    let answer = restored.cli_json(&arguments);
    let sum = answer["points"][0]["value"].as_f64().expect("a number");
    assert_eq!(sum, (POINTS * (POINTS + 1) / 2) as f64, "{answer}");
    assert!(
        !restored.stderr().contains("damage"),
        "{}",
        restored.stderr()
    );
    let mut wire = restored.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "x", &token));
}

/// What was restored has files of the history, and they are whole. Not by the journal, which has
/// all of it too.
fn expect_history_files(setup: &Setup) {
    let history = setup.dir().join("data/history");
    let files = fs::read_dir(&history).expect("the history is in it");
    let is_parquet = |name: &str| name.ends_with(".parquet");
    let files = files.map(|entry| entry.expect("a file").file_name());
    let files = files.filter(|name| name.to_str().is_some_and(is_parquet));
    assert!(files.count() >= 1);
    let verify = setup.command().args(["store", "verify", "--json"]).output();
    let verify = verify.expect("the program runs");
    assert!(verify.status.success(), "{verify:?}");
    let report: Value = serde_json::from_slice(&verify.stdout).expect("JSON");
    let files = report["files"].as_array().expect("a list").iter();
    let samples: u64 = files.filter_map(|file| file["samples"].as_u64()).sum();
    assert!(samples > 0, "{report}");
}
