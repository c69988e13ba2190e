//! A panic on a worker ends the process with code 1: a broker that lost one of its workers would
//! keep the connections of all devices that are at home there, and serve none of them.

use std::{env, process::Command, time::Duration};

use tracing::{Event, Metadata, Subscriber, field, span};

use crate::{
    common::{
        packets::{Connect, Version, log_in},
        wire::Wire,
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
    for way in ["sweep", "command"] {
        let program = env::current_exe().expect("this test runs");
        let output = Command::new(program)
            .args(["--exact", "panics::a_broker_that_panics", "--nocapture"])
            .env(WAY, way)
            .output()
            .expect("the child runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("a worker panics"), "{way}: {told}");
        assert_eq!(output.status.code(), Some(1), "{way}: {told}");
    }
}

/// The child of the test above; by itself it does nothing.
#[test]
fn a_broker_that_panics() {
    let Ok(way) = env::var(WAY) else { return };
    tracing::subscriber::set_global_default(Panics).expect("nobody else listens");
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
    // Either way the worker ends the connection: at the command, or for the client's silence.
    std::thread::sleep(LIFE);
    std::process::exit(SURVIVED);
}

/// Listens to the broker's messages, and panics on a worker at the end of a connection.
struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut is_end = false;
        event.record(&mut |field: &field::Field, value: &dyn std::fmt::Debug| {
            is_end |= field.name() == "message" && format!("{value:?}") == "connection ended";
        });
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
