//! A panic on a worker ends the process with code 1: a broker that lost one of its workers would
//! keep the connections of all devices that are at home there, and serve none of them. One that a
//! packet leads to before anything shared is touched ends that packet's connection alone.

use std::{
    env,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tracing::{Event, Metadata, Subscriber, field, span};

use crate::{
    common::{
        packets::{Connect, TELEMETRY, Version, log_in, publish, reason},
        wire::{Wire, show},
    },
    parts::Parts,
};

/// Tells the child which way it is to panic.
const WAY: &str = "REGRESSION_PANICS_BY";

/// How long the child waits for its end, and the code with which it says that none came.
const LIFE: Duration = Duration::from_secs(60);
const SURVIVED: i32 = 17;

#[test]
fn sec_16_a_workers_panic_ends_the_process_with_code_1() {
    for way in ["sweep", "command", "goodbye"] {
        let output = panicking(way);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("a worker panics"), "{way}: {told}");
        assert_eq!(output.status.code(), Some(1), "{way}: {told}");
    }
}

#[test]
fn sec_16_a_panic_over_a_packet_ends_its_connection_alone() {
    let output = panicking("packet");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("a packet panics"), "{told}");
    assert_eq!(output.status.code(), Some(SURVIVED), "{told}");
}

/// A broker in a process of its own that panics this way.
fn panicking(way: &str) -> Output {
    let program = env::current_exe().expect("this test runs");
    Command::new(program)
        .args(["--exact", "panics::a_broker_that_panics", "--nocapture"])
        .env(WAY, way)
        .output()
        .expect("the child runs")
}

/// The child of the tests above; by itself it does nothing.
#[test]
fn a_broker_that_panics() {
    let Ok(way) = env::var(WAY) else { return };
    tracing::subscriber::set_global_default(Panics).expect("nobody else listens");
    if way == "packet" {
        panic_over_a_packet();
        std::process::exit(SURVIVED);
    }
    let broker = Parts::start(1, 2);
    let mut wire = Wire::connect(broker.address);
    let connect = Connect {
        keep_alive_s: 1,
        ..Connect::with_token(Version::V311, "a", &broker.tokens[0])
    };
    log_in(&mut wire, &connect);
    if way == "command" {
        let (_, change) = broker.registry.revoke("device-0").expect("it is there");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let receipt = runtime.block_on(broker.net.control().apply(change));
        eprintln!("{receipt:?}");
    }
    if way == "goodbye" {
        wire.send_hex("e000");
    }
    // Either way the worker ends the connection: at the command, or for the client's silence.
    std::thread::sleep(LIFE);
    std::process::exit(SURVIVED);
}

/// On the one worker there is, one client's packet panics; it and another go on.
fn panic_over_a_packet() {
    let broker = Parts::start(2, 1);
    let (mut a, mut b) = (Wire::connect(broker.address), Wire::connect(broker.address));
    let mut connect = Connect::with_token(Version::V5, "a", &broker.tokens[0]);
    (connect.clean, connect.properties) = (false, vec![0x11, 0, 0, 0, 60]);
    log_in(&mut a, &connect);
    log_in(
        &mut b,
        &Connect::with_token(Version::V311, "b", &broker.tokens[1]),
    );
    let telemetry = |id| publish(Version::V5, 1, id, TELEMETRY, br#"{"a":1}"#);
    a.send(&telemetry(1));
    a.expect("40020001");
    IS_ARMED.store(true, Ordering::SeqCst);
    a.send(&telemetry(2));
    let last = a.packet();
    assert_eq!((last[0], reason(&last)), (0xe0, 0x80), "{}", show(&last));
    a.expect_close();
    b.expect_alive();
    let mut a = Wire::connect(broker.address);
    assert_eq!(log_in(&mut a, &connect)[2], 1, "its session is there");
    a.send(&telemetry(2));
    a.expect("40020002");
    let figures = broker.metrics.render();
    assert!(
        figures.contains("tollgate_connection_panics_total 1\n"),
        "{figures}"
    );
    assert!(figures.contains("tollgate_connections 2\n"), "{figures}");
    broker.stop();
}

/// The next packet panics.
static IS_ARMED: AtomicBool = AtomicBool::new(false);

/// Listens to the broker's messages, and panics on a worker at the end of a connection, or at a
/// packet.
struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let (mut is_end, mut is_packet) = (false, false);
        event.record(&mut |field: &field::Field, value: &dyn std::fmt::Debug| {
            let message = format!("{value:?}");
            is_end |= field.name() == "message" && message == "connection ended";
            is_packet |= field.name() == "message" && message == "a packet came";
        });
        if is_packet && IS_ARMED.swap(false, Ordering::SeqCst) {
            panic!("a packet panics");
        }
        let is_end = is_end && env::var(WAY).as_deref() != Ok("packet");
        let thread = std::thread::current();
        let is_worker = thread.name().is_some_and(|name| name.starts_with("net-"));
        assert!(!(is_end && is_worker), "a worker panics");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// What its version or its client id would be refused for, DISCONNECT cannot say: the connection
/// was never let go of.
#[test]
fn a_second_connect_that_no_version_takes_ends_the_connection() {
    let broker = Parts::start(1, 1);
    let connect = Connect::with_token(Version::V5, "a", &broker.tokens[0]);
    for second in [
        "100e00044d5154546302003c00027031",           // level 99
        "100e00044d5154580402003c00027031",           // another protocol's name
        "100c00044d5154540400003c0000",               // no client id
        "101300044d5154540502003c041600017800027031", // data without a method
    ] {
        let mut wire = Wire::connect(broker.address);
        log_in(&mut wire, &connect);
        wire.send_hex(second);
        let last = wire.packet();
        assert_eq!((last[0], reason(&last)), (0xe0, 0x82), "{}", show(&last));
        wire.expect_close();
    }
    let metrics = broker.metrics.clone();
    broker.stop();
    let figures = metrics.render();
    assert!(figures.contains("tollgate_connections 0\n"), "{figures}");
}
