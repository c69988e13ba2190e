//! What is closed because of the time: silence, half a CONNECT, dripping bytes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::common::{
    broker::Broker,
    packets::{Connect, VERSIONS, Version, log_in, reason},
    wire::{Wire, show},
};

/// MQTT 5: keep alive timeout.
const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;

/// SEC-70: TLS handshake and CONNECT have one deadline.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How much later than its time something may come, on a busy machine: what is measured is that it
/// comes, and not before its time. The times themselves are tested with a clock of the test's own
/// (`src/mqtt/session/`).
const SLACK: Duration = Duration::from_secs(60);

#[test]
fn tb_81_silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    let broker = Broker::start();
    for version in VERSIONS {
        let token = broker.create_device(&format!("{version:?}"));
        let since = Instant::now();
        let mut wire = connect(&broker, version, &token);
        expect_timed_out(&mut wire, version);
        expect_within(since.elapsed(), Duration::from_millis(1_500));
    }
}

/// A client that pings in time stays, over several keep alives.
#[test]
fn a_pinging_client_stays() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let keep_alive = Duration::from_secs(3);
    let mut wire = connect_with(&broker, Version::V5, &token, 3);
    let (mut since, mut pinged) = (Instant::now(), Instant::now());
    while since.elapsed() < Duration::from_secs(10) {
        // Held up by a busy machine, this test was silent itself: then it begins anew.
        if pinged.elapsed() > keep_alive {
            wire = connect_with(&broker, Version::V5, &token, 3);
            since = Instant::now();
        }
        pinged = Instant::now();
        wire.expect_alive();
        thread::sleep(Duration::from_millis(200)); // the client's pace
    }
    expect_timed_out(&mut wire, Version::V5);
}

/// SEC-80: bytes that never become a packet are silence.
#[test]
fn sec_80_dripping_bytes_do_not_count() {
    let broker = Broker::start();
    let token = broker.create_device("a");
    let since = Instant::now();
    let mut wire = connect(&broker, Version::V5, &token);
    wire.send_hex("30 ff01 0003");
    let end = loop {
        wire.send(b"a");
        if let Some(end) = wire.packet_within(Duration::from_millis(100)) {
            break end;
        }
        assert!(since.elapsed() < SLACK, "dripping keeps it open");
    };
    assert_eq!(
        (end[0], reason(&end)),
        (0xe0, KEEP_ALIVE_TIMEOUT),
        "{}",
        show(&end)
    );
    expect_within(since.elapsed(), Duration::from_millis(1_500));
}

/// S-40: nothing, half a CONNECT, half a TLS handshake. All wait together.
#[test]
fn s_40_no_connect_in_time_ends_the_connection() {
    let broker = Broker::start();
    let since = Instant::now();
    let mut silent = broker.wire();
    let mut half = broker.wire();
    half.send_hex("101100044d51");
    let mut silent_tls = Wire::connect(broker.address("mqtts"));
    let mut half_tls = Wire::connect(broker.address("mqtts"));
    half_tls.send_hex("16030100c8010000c40303");
    let mut tls_without_connect = broker.wire_tls();
    tls_without_connect.finish_handshake();
    let busy = processor_ticks(&broker);
    for wire in [
        &mut silent,
        &mut half,
        &mut silent_tls,
        &mut half_tls,
        &mut tls_without_connect,
    ] {
        let end = wire.packet_or_close(CONNECT_DEADLINE + SLACK);
        assert_eq!(end, None, "closed without a word");
        expect_within(since.elapsed(), CONNECT_DEADLINE);
    }
    // A tick is 10 ms. Waiting costs next to nothing; the files that are made ready behind a start
    // cost something, more on a slow machine. Asking all the time would cost 1,000.
    let ticks = processor_ticks(&broker) - busy;
    assert!(
        ticks < 300,
        "{ticks} ticks of processor time while nothing happened"
    );
}

fn connect(broker: &Broker, version: Version, token: &str) -> Wire {
    connect_with(broker, version, token, 1)
}

fn connect_with(broker: &Broker, version: Version, token: &str, keep_alive_s: u16) -> Wire {
    let mut wire = broker.wire();
    let connect = Connect {
        keep_alive_s,
        ..Connect::with_token(version, "a", token)
    };
    log_in(&mut wire, &connect);
    wire
}

fn expect_timed_out(wire: &mut Wire, version: Version) {
    if version == Version::V5 {
        let packet = wire.packet();
        assert_eq!(
            (packet[0], reason(&packet)),
            (0xe0, KEEP_ALIVE_TIMEOUT),
            "{}",
            show(&packet)
        );
    }
    let end = wire.packet_or_close(Duration::from_millis(1_500) + SLACK);
    assert_eq!(end, None, "a close and nothing else");
}

/// Not before the time, counted from a moment before CONNECT was sent, and not much later. The
/// broker looks at the clock once in a while: its time may be a little older.
fn expect_within(elapsed: Duration, time: Duration) {
    let early = Duration::from_millis(100);
    assert!(elapsed + early >= time, "{elapsed:?} is before {time:?}");
    assert!(
        elapsed <= time + SLACK,
        "{elapsed:?} is long after {time:?}"
    );
}

/// Processor time of the broker so far, user and system, in ticks.
fn processor_ticks(broker: &Broker) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid()));
    let stat = stat.expect("Linux tells this about every process");
    // The name in brackets may hold blanks; what is counted comes behind it.
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    let fields: Vec<_> = fields.split_whitespace().collect();
    let number = |field: &str| field.parse::<u64>().expect("a number");
    number(fields[11]) + number(fields[12])
}
