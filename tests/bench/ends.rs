//! Runs that end otherwise: a broker that dies, Ctrl-C, arguments that make no sense.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    common::{broker::Setup, tools},
    rig::{Killed, Raw, TOLLGATE, bench, cpu_ns, free_port, refused},
};

/// CPU time of the broker after which a load has surely begun.
const BEGUN_NS: u64 = 50_000_000;

/// Starts a load that nothing but an event of the test will end, and waits until it has begun.
fn running(raw: &Raw, flags: &str) -> Killed {
    let before = raw.process.cpu_ns();
    running_until(raw, flags, || {
        cpu_ns(raw.process.pid()) >= before + BEGUN_NS
    })
}

/// The same until somebody sees that it has begun.
fn running_until(raw: &Raw, flags: &str, has_begun: impl Fn() -> bool) -> Killed {
    let process = Command::new(TOLLGATE)
        .args(["bench"])
        .args(flags.split_whitespace())
        .args(["--json", "--port", &raw.port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Killed(process);
    while !has_begun() {
        let ended = process.0.try_wait().unwrap();
        assert_eq!(ended, None, "{flags}: it ends before it has begun");
        thread::yield_now();
    }
    process
}

/// Exit code, figures and error of a load that is about to end.
fn end(mut running: Killed) -> (Option<i32>, Value, String) {
    let mut text = [String::new(), String::new()];
    let (out, said) = (running.0.stdout.take(), running.0.stderr.take());
    let pipes: [Box<dyn std::io::Read>; 2] = [Box::new(out.unwrap()), Box::new(said.unwrap())];
    for (text, mut pipe) in text.iter_mut().zip(pipes) {
        pipe.read_to_string(text).unwrap();
    }
    let code = running.0.wait().unwrap().code();
    let [out, said] = text;
    (code, serde_json::from_str(&out).unwrap_or_default(), said)
}

#[test]
fn a_broker_that_goes_away_is_no_result() {
    for flags in [
        "ingest --seconds 3600",
        "ingest --seconds 3600 --rate 50000",
    ] {
        let mut raw = Raw::start();
        let load = running(&raw, flags);
        raw.process.0.kill().unwrap();
        let (code, figures, said) = end(load);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(figures["lost_connections"], 100, "{figures}");
        assert!(said.contains("100 connections were lost"), "{said}");
    }
}

#[test]
fn idle_connections_that_are_lost_are_counted() {
    let mut raw = Raw::start();
    // Idle connections cost the broker no time, but they are there to be seen.
    let open = format!("/proc/{}/fd", raw.process.pid());
    let load = running_until(
        &raw,
        "idle --connections 5000 --seconds 15 --source 127.0.0.4",
        || std::fs::read_dir(&open).unwrap().count() > 1_000,
    );
    raw.process.0.kill().unwrap();
    let (code, figures, said) = end(load);
    // Killed while they were still being opened, or when all were open.
    assert_eq!(code, Some(1), "{figures}{said}");
    let is_lost = said.contains("idle connections were lost");
    assert!(is_lost || said.contains("were not opened"), "{said}");
}

#[test]
fn a_broker_that_goes_away_ends_no_connect_test_early() {
    let mut raw = Raw::start();
    let load = running(&raw, "connect --seconds 8 --rate 500");
    raw.process.0.kill().unwrap();
    let (code, figures, said) = end(load);
    assert_eq!(code, Some(0), "{said}");
    let failed = figures["failed"].as_object().unwrap();
    assert!(!failed.is_empty(), "{figures}");
}

#[test]
fn ctrl_c_ends_a_run_with_what_was_measured() {
    let raw = Raw::start();
    for flags in ["ingest --seconds 3600", "connect --seconds 3600 --rate 500"] {
        let load = running(&raw, flags);
        let pid = i32::try_from(load.pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        let (code, figures, said) = end(load);
        assert_eq!((code, &*said), (Some(0), ""), "{flags}");
        assert_eq!(figures["interrupted"], true, "{figures}");
        let count = ["messages", "accepted"].map(|name| figures[name].as_u64());
        assert!(count.iter().flatten().all(|&n| n > 0), "{figures}");
    }
}

#[test]
fn a_port_without_a_broker_is_code_5() {
    for command in [
        "ingest",
        "connect --seconds 1",
        "idle",
        "fanout",
        "connect --at-once 3",
    ] {
        let (_, said) = refused(&format!("{command} --port {}", free_port()), 5);
        assert!(
            said.contains("no broker answers at 127.0.0.1:"),
            "{command}: {said}"
        );
    }
    // An address that this machine does not have.
    let (_, said) = refused("ingest --source 203.0.113.7", 5);
    assert!(said.contains("no address 203.0.113.7 (--source)"), "{said}");
    let (_, said) = refused("ingest --host no-such-host.invalid", 5);
    assert!(said.contains("no-such-host.invalid"), "{said}");
}

#[test]
fn what_speaks_no_mqtt_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        socket
    });
    let (_, said) = refused(&format!("ingest --connections 1 --port {port}"), 5);
    assert!(
        said.contains("speaks no MQTT: 0x48 instead of CONNACK"),
        "{said}"
    );
    server.join().unwrap();
}

#[test]
fn wrong_arguments_are_named_before_anything_is_opened() {
    for (flags, what) in [
        ("ingest --qos 3", "--qos"),
        ("ingest --window 0", "--window"),
        ("ingest --payload-bytes 6", "--payload-bytes"),
        ("ingest --payload x --payload-bytes 60", "--payload"),
        ("ingest --topic a/+", "--topic is not a topic name"),
        ("ingest --token t --tokens f", "--tokens"),
        ("ingest --tls", "--cafile"),
        ("ingest --perf", "--broker-pid"),
        ("ingest --mqtt 4", "--mqtt"),
        ("ingest --tokens /dev/null", "/dev/null has no token"),
        ("ingest --tls --cafile /dev/null", "no certificate in it"),
        ("connect --at-once 0", "--at-once"),
        ("connect --at-once 3 --seconds 3", "--seconds"),
        ("connect --resume", "--tls"),
        ("connect --probe-token t", "--at-once"),
        (
            "connect --at-once 1 --probe-topic #",
            "--probe-topic is not",
        ),
        ("idle --connections 60001", "--connections"),
        ("ingest --together 2", "--together needs --rate"),
        (
            "ingest --rate 9 --window 3 --together 4",
            "at most the window (3)",
        ),
        ("fanout --qos 2", "--qos"),
        ("fanout --payload-bytes 10", "--payload-bytes"),
        ("fanout --publish-topic a/#", "--publish-topic is not"),
        ("raw --listen nowhere", "--listen"),
        ("raw --tls-listen 127.0.0.1:0", "--certificate"),
    ] {
        let (_, said) = match flags.starts_with("raw") {
            true => {
                let done = bench(flags);
                assert_eq!(done.status.code(), Some(2), "{flags}");
                tools::printed(&done)
            }
            false => {
                let (_, said) = refused(flags, 2);
                (String::new(), said)
            }
        };
        assert!(said.contains(what), "{flags}: {said}");
    }
    let (_, said) = refused("ingest --tokens no-such-file", 1);
    assert!(said.contains("no-such-file: "), "{said}");
    let (_, said) = refused("idle --broker-pid 4000000000", 1);
    assert!(said.contains("load generator"), "{said}");
}

/// A device has one connection: those that share its token take each other's place. It is said, and
/// the run ends, before a message is sent or when it happens.
#[test]
fn connections_that_share_tokens_are_told_and_no_result() {
    let broker = Setup::new().set("TOLLGATE_MQTTS_LISTEN", "off").start();
    let token = broker.create_device("pump");
    let port = broker.mqtt_port();
    let began = Instant::now();
    for flags in ["", "--rate 1000", "--qos 0"] {
        let flags =
            format!("ingest --port {port} --token {token} --connections 20 --seconds 3600 {flags}");
        let (figures, said) = refused(&flags, 1);
        assert!(figures.is_null(), "nothing was measured: {figures}");
        assert!(
            said.contains("of 20 connections were closed by the broker: they share 1 tokens")
                && said.contains("--tokens"),
            "{said}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(600), "as they began");
    let shared = format!("ingest --port {port} --token {token} --connections 1 --seconds 1");
    crate::rig::figures(&shared);
}
