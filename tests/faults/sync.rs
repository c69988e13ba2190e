//! Disks that fail a sync, or take their time over it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    rig::{
        admin::Admin,
        device::{Habits, Notes},
        load::{self, Load},
        proof,
        random::{self, Random},
        site::Site,
    },
    sync_faults::SyncFaults,
};
use crate::common::{
    broker::{Broker, Setup},
    packets::{self, Connect, TELEMETRY, VERSIONS, Version, log_in, publish},
    wire::{ANSWER_LIMIT, Wire, read_some},
};

/// A way in which a broker goes away and comes back.
type Way = fn(&mut Broker);

/// How long something that must happen may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// An hour as a MQTT 5 session expiry property.
const EXPIRY_HOUR: [u8; 5] = [0x11, 0, 0, 0x0e, 0x10];

/// REL-01, REL-04: nothing is acknowledged while its sync is under way, and never after the sync
/// has failed; the process says what happened and ends with 3, and a restart has all that was
/// acknowledged.
#[test]
fn rel_04_after_a_failed_sync_nothing_is_acknowledged() {
    let (setup, faults) = SyncFaults::on(Setup::new());
    let mut broker = setup.start();
    let token = broker.create_device("pump");
    for (at, version) in (0..).zip(VERSIONS) {
        for qos in [1, 2] {
            let n = 2 * at + u32::from(qos);
            let id = format!("client-{n}");
            let mut wire = broker.wire();
            log_in(&mut wire, &Connect::with_token(version, &id, &token));
            faults.clear();
            wire.send(&publish(version, qos, 1, TELEMETRY, &payload(n, "kept")));
            let ack = wire.packet();
            assert_eq!(ack[0] >> 4, if qos == 1 { 4 } else { 5 }, "{ack:02x?}");

            faults.hold();
            wire.send(&publish(version, qos, 2, TELEMETRY, &payload(n, "lost")));
            faults.until_held();
            // The sync is under way: only the answer to the PINGREQ comes.
            wire.expect_alive();
            faults.fail(1);
            let after = wire.packets_until_close();
            assert_eq!(after, Vec::<Vec<u8>>::new(), "{version:?} QoS {qos}");
            assert_eq!(broker.exit_code(), 3, "{}", broker.stderr());

            let log = broker.stderr();
            let last = log.lines().last().unwrap_or_default();
            for word in ["the journal failed", "sync", "journal/", "exit code 3"] {
                assert!(
                    last.contains(word),
                    "{word:?} is not in the last line: {last}"
                );
            }
            faults.clear();
            broker.restart();
            let kept = broker.values("pump", &format!("kept{n}"));
            assert_eq!(kept, [n], "{version:?} QoS {qos}");
        }
    }
}

/// REL-29: the n-th sync under load, for one n after another; nothing that was acknowledged is
/// missing.
#[test]
fn rel_29_a_sync_that_fails_under_load_loses_nothing_acknowledged() {
    let (setup, faults) = SyncFaults::on(Setup::new());
    let mut random = Random::new(random::seed());
    let mut broker = setup.start();
    let admin = Admin::new(broker.dir());
    let site = Arc::new(Site::default());
    let devices = load::devices(&broker, 6, &habits(), &mut random);
    let load = Load::start(devices, &site);
    for round in 0..6 {
        site.is_up(broker.address("mqtt"), broker.address("http"));
        load.until_promised(load.promised() + 200, LIMIT);
        faults.fail(u32::try_from(1 + random.below(20)).expect("a small number"));
        assert_eq!(broker.exit_code(), 3, "round {round}: {}", broker.stderr());
        site.is_down();
        faults.clear();
        broker.restart();
    }
    site.is_up(broker.address("mqtt"), broker.address("http"));
    let devices = load.finish();
    proof::prove_history(&admin, broker.address("http"), &devices);
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    proof::prove_journal(&broker.dir().join("data"), &devices);
}

/// REL-01, REL-03: a client that comes back before the sync is done is told nothing that is not
/// on disk yet: not the PUBREC of the message it repeats...
#[test]
fn rel_03_a_repeated_qos_2_message_waits_for_the_record_of_the_first() {
    for version in [Version::V311, Version::V5] {
        let (broker, faults, token) = broker_with_device();
        let mut first = broker.wire();
        log_in(&mut first, &lasting(version, &token));
        faults.hold();
        first.send(&publish(version, 2, 7, TELEMETRY, &payload(1, "a")));
        faults.until_held();
        let dup = packets::publish_flags(version, 0x0c, 7, TELEMETRY, &payload(1, "a"));
        expect_ack_after_sync(&broker, &faults, &lasting(version, &token), &dup, 0x50);
    }
}

/// ...and not the PUBCOMP of the release it repeats: were the release lost, the next message with
/// that id would be taken for the old one.
#[test]
fn rel_03_a_repeated_release_waits_for_the_record_of_the_first() {
    for version in [Version::V311, Version::V5] {
        let (broker, faults, token) = broker_with_device();
        let mut first = broker.wire();
        log_in(&mut first, &lasting(version, &token));
        first.send(&publish(version, 2, 7, TELEMETRY, &payload(1, "a")));
        assert_eq!(first.packet()[0], 0x50);
        faults.hold();
        first.send(&packets::pubrel(7));
        faults.until_held();
        let pubrel = packets::pubrel(7);
        expect_ack_after_sync(&broker, &faults, &lasting(version, &token), &pubrel, 0x70);
    }
}

/// An ack says that everything before it is on disk, also what itself has none: whoever publishes
/// because of it must stand behind a retained message of QoS 0, whichever worker serves him.
#[test]
fn rel_03_an_ack_waits_for_a_retained_message_of_qos_0_before_it() {
    let (broker, faults, _) = broker_with_device();
    let all = ["--publish", "#"];
    let app = broker.cli_json(&[&["app", "create", "a", "--json"][..], &all].concat());
    let token = app["token"].as_str().expect("a token");
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "a", token));
    faults.hold();
    wire.send(&packets::publish_flags(
        Version::V311,
        0x01,
        0,
        "kept",
        b"1",
    ));
    faults.until_held();
    // Nobody gets it, so nothing of it is recorded.
    wire.send(&publish(Version::V311, 1, 1, "nobody", b"2"));
    // PINGREQ is behind it, and waits for nothing.
    wire.send(&[0xc0, 0]);
    assert_eq!(
        wire.packet(),
        [0xd0, 0],
        "acknowledged before it was on disk"
    );
    faults.clear();
    assert_eq!(wire.packet()[0], 0x40);
}

/// [MQTT-3.2.0-1]: a client whose CONNACK waits for the disk is sent nothing before it, also not
/// when its connection ends meanwhile: no DISCONNECT.
#[test]
fn nothing_goes_before_a_connack_that_waits() {
    let (broker, faults, token) = broker_with_device();
    let other = broker.create_device("valve");
    let connect = |wire: &mut Wire, token: &str| {
        wire.send(&lasting(Version::V5, token).encode());
    };
    faults.hold();
    let (mut taken_over, mut revoked) = (broker.wire(), broker.wire());
    connect(&mut taken_over, &token);
    connect(&mut revoked, &other);
    broker.wait_metric("tollgate_connections", 2.0);
    broker.revoke("valve");
    let mut second = broker.wire();
    connect(&mut second, &token);
    for (what, mut wire) in [("taken over", taken_over), ("revoked", revoked)] {
        let packets = wire.packets_until_close();
        // A CONNACK that refuses is a good answer, too.
        let is_refusal = |packet: &Vec<u8>| packet[0] == 0x20 && packet[3] >= 0x80;
        assert!(packets.iter().all(is_refusal), "{what}: {packets:02x?}");
    }
    faults.clear();
    let connack = second.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
}

/// REL-06: a session comes back although nothing else happens at the broker: no sync of somebody
/// else's telemetry is needed to be let in, or to be answered a second time.
#[test]
fn rel_06_a_session_comes_back_on_a_quiet_broker() {
    for version in [Version::V311, Version::V5] {
        let mut broker = Broker::start();
        let token = broker.create_device("pump");
        let connect = lasting(version, &token);
        let mut first = broker.wire();
        assert_eq!(log_in(&mut first, &connect)[2], 0, "{version:?}: it is new");
        first.send(&publish(version, 2, 7, TELEMETRY, &payload(1, "a")));
        assert_eq!(first.packet()[0], 0x50);
        let ways: [(&str, Way); 4] = [
            ("taken over", |_| {}),
            ("killed", Broker::restart),
            ("stopped", |broker| {
                assert_eq!(broker.stop(), 0, "{}", broker.stderr());
                broker.restart();
            }),
            ("taken over after a start", |_| {}),
        ];
        for (way, happens) in ways {
            happens(&mut broker);
            let mut wire = broker.wire();
            let connack = log_in(&mut wire, &connect);
            assert_eq!(connack[2], 1, "{version:?} {way}: its session is there");
            let dup = packets::publish_flags(version, 0x0c, 7, TELEMETRY, &payload(1, "a"));
            wire.send(&dup);
            assert_eq!(wire.packet()[0], 0x50, "{version:?} {way}");
            wire.send(&packets::pubrel(9));
            assert_eq!(wire.packet()[0], 0x70, "{version:?} {way}");
        }
        assert_eq!(
            broker.values("pump", "a1").len(),
            1,
            "{version:?}: stored once"
        );
    }
}

/// REL-30 and architecture section 3: a slow disk is latency and back-pressure, never loss.
#[test]
fn rel_30_a_slow_disk_makes_everybody_wait_and_nobody_leave() {
    let setup = Setup::new().set("TOLLGATE_HISTORY_HEAD_SIZE_MAX_BYTES", "8388608");
    let (setup, faults) = SyncFaults::on(setup);
    let mut random = Random::new(random::seed());
    let mut broker = setup.start();
    let site = Arc::new(Site::default());
    let slow = Habits {
        window: 32,
        // Together far more than the broker may hold (50 x 32 x 4 KiB = 6.4 MB), yet each
        // connection's share below what it may park (64 KiB), so that PINGREQ is read.
        text_bytes: (1_000, 2_000),
        ping_interval: Duration::from_millis(250),
        ..habits()
    };
    let devices = load::devices(&broker, 50, &slow, &mut random);
    let before = memory_kib(&broker);
    faults.delay(Duration::from_millis(300));
    site.is_up(broker.address("mqtt"), broker.address("http"));
    let load = Load::start(devices, &site);
    let began = Instant::now();
    let mut most = 0;
    let is_served = |notes: &Arc<Notes>| {
        notes.pongs.load(Ordering::SeqCst) > 10 && notes.promised.load(Ordering::SeqCst) > 0
    };
    // Nobody is left out: everybody's PINGREQs are answered, and messages acknowledged.
    site.until("15 s of slow syncs", LIMIT, || {
        most = most.max(memory_kib(&broker));
        began.elapsed() > Duration::from_secs(15) && load.notes().iter().all(is_served)
    });
    let (promised, took) = (load.promised(), began.elapsed());
    assert_eq!(
        load.losses(),
        0,
        "a client was cut off: {}",
        broker.stderr()
    );
    let longest = load.notes().iter().map(|notes| &notes.longest_ping_ms);
    let longest = longest.map(|ms| ms.load(Ordering::SeqCst)).max();
    faults.clear();
    let devices = load.finish();
    println!(
        "{promised} promised in {took:?}, a PINGREQ waited {longest:?} ms at most, memory {before} \
         KiB before, {most} KiB at most"
    );
    // What waits for the disk is 6.4 MB. The rest is the history's: 47 MiB until its first merge of
    // long texts, 100 to 125 MiB from then on (seen in 8 runs).
    assert!(most < before + 192 * 1024, "{before} KiB became {most} KiB");
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    proof::prove_journal(&broker.dir().join("data"), &devices);
}

/// A QoS 1 and a QoS 2 client that send more than may be parked: the broker stops reading them,
/// and when it reads again, everything is there, in order.
#[test]
fn rel_30_clients_that_send_too_much_are_read_again_later() {
    let (setup, faults) = SyncFaults::on(Setup::new());
    let mut random = Random::new(random::seed());
    let mut broker = setup.start();
    let site = Arc::new(Site::default());
    let heavy = Habits {
        window: 64,
        text_bytes: (30_000, 60_000),
        patience: LIMIT,
        ..habits()
    };
    let devices = load::devices(&broker, 8, &heavy, &mut random);
    faults.delay(Duration::from_millis(500));
    site.is_up(broker.address("mqtt"), broker.address("http"));
    let load = Load::start(devices, &site);
    load.until_promised(100, LIMIT);
    assert_eq!(
        load.losses(),
        0,
        "a client was cut off: {}",
        broker.stderr()
    );
    faults.clear();
    let devices = load.finish();
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
    proof::prove_journal(&broker.dir().join("data"), &devices);
}

/// Many clients send a burst each while the journal takes nothing: most of it stays with the
/// system, where it is bounded by the sockets. The broker does not copy it all.
#[test]
fn rel_30_a_flood_waits_in_the_sockets_and_not_in_memory() {
    const CLIENTS: usize = 300;
    let setup = Setup::new()
        .set("TOLLGATE_DEVICE_SESSIONS", "per_client_id")
        .set("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "300")
        .set("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "300");
    let (setup, faults) = SyncFaults::on(setup);
    let mut broker = setup.start();
    let token = broker.create_device("pump");
    let mut wires: Vec<Wire> = (0..CLIENTS)
        .map(|number| {
            let mut wire = broker.wire();
            let id = format!("client-{number}");
            log_in(&mut wire, &Connect::with_token(Version::V311, &id, &token));
            wire
        })
        .collect();
    faults.hold();
    let one = publish(Version::V311, 0, 0, TELEMETRY, &payload(1, "flow"));
    // A socket takes as much, whether it is read or not.
    let burst = one.repeat(48 * 1024 / one.len());
    for wire in &mut wires {
        wire.send(&burst);
    }
    let end = Instant::now() + LIMIT;
    let unread = loop {
        let unread = unread_bytes(&broker);
        // Each was read once at least.
        if unread.len() == CLIENTS && unread.iter().all(|bytes| *bytes < burst.len()) {
            break unread.iter().sum::<usize>();
        }
        assert!(Instant::now() < end, "not read: {unread:?}");
        std::thread::yield_now();
    };
    // Some 80 found room in the journal's batches, all others had some reads of 8 KiB.
    assert!(unread > 4 * 1024 * 1024, "{unread} bytes were left");
    faults.clear();
    let sent = u32::try_from(CLIENTS * (burst.len() / one.len())).expect("some thousands");
    broker.wait_metric("tollgate_messages_stored_total{qos=\"0\"}", sent.into());
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());
}

/// What each of the broker's MQTT connections has sent and the broker has not read, as Linux tells.
fn unread_bytes(broker: &Broker) -> Vec<usize> {
    let port = format!(":{:04X}", broker.address("mqtt").port());
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let fields = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_open = |fields: &Vec<&str>| fields[1].ends_with(&port) && fields[3] == "01";
    let queue = |fields: Vec<&str>| {
        let (_, unread) = fields[4].split_once(':').expect("both queues");
        usize::from_str_radix(unread, 16).expect("a number")
    };
    fields.skip(1).filter(is_open).map(queue).collect()
}

fn habits() -> Habits {
    Habits {
        version: Version::V311,
        qos: 1,
        keeps_session: true,
        window: 16,
        text_bytes: (0, 100),
        take_over_one_in: 0,
        ping_interval: Duration::ZERO,
        patience: LIMIT,
    }
}

fn payload(n: u32, key: &str) -> Vec<u8> {
    format!(r#"{{"{key}{n}":{n}}}"#).into_bytes()
}

fn broker_with_device() -> (Broker, SyncFaults, String) {
    let (setup, faults) = SyncFaults::on(Setup::new());
    let broker = setup.start();
    let token = broker.create_device("pump");
    (broker, faults, token)
}

/// CONNECT of a session that outlives its connection.
fn lasting(version: Version, token: &str) -> Connect<'_> {
    Connect {
        clean: false,
        properties: if version == Version::V5 {
            EXPIRY_HOUR.to_vec()
        } else {
            Vec::new()
        },
        ..Connect::with_token(version, "pump", token)
    }
}

/// Sends CONNECT and a packet at once, while a sync is held: the acknowledgement (its first byte)
/// is not there when the packet has surely been handled, and comes when the sync is done.
fn expect_ack_after_sync(
    broker: &Broker,
    faults: &SyncFaults,
    connect: &Connect<'_>,
    packet: &[u8],
    ack: u8,
) {
    let mut socket = TcpStream::connect(broker.address("mqtt")).expect("the broker accepts");
    // What comes in one piece with CONNECT is handled in one step with it.
    let both = [connect.encode().as_slice(), packet].concat();
    socket.write_all(&both).expect("the socket takes it");
    broker.wait_metric("tollgate_takeovers_total", 1.0);
    // Every worker confirms a revocation, so the step above is over then.
    broker.create_device("valve");
    broker.revoke("valve");
    socket.set_nonblocking(true).expect("sockets can");
    let mut early = [0; 256];
    let early = match socket.read(&mut early) {
        Ok(count) => early[..count].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
        Err(error) => panic!("the connection is lost: {error}"),
    };
    assert!(
        !has_packet(&early, ack),
        "before it was on disk: {early:02x?}"
    );
    faults.clear();
    socket.set_nonblocking(false).expect("sockets can");
    let limit = Some(ANSWER_LIMIT);
    socket
        .set_read_timeout(limit)
        .expect("the limit is not zero");
    let mut received = early;
    while !has_packet(&received, ack) {
        let mut chunk = [0; 256];
        let count = read_some(&mut socket, &mut chunk).expect("the acknowledgement comes");
        assert_ne!(count, 0, "closed instead: {received:02x?}");
        received.extend(&chunk[..count]);
    }
}

/// Whether a packet with this first byte is among whole packets of less than 128 bytes.
fn has_packet(mut bytes: &[u8], first: u8) -> bool {
    while let [kind, length, rest @ ..] = bytes {
        if *kind == first {
            return true;
        }
        bytes = rest.get(usize::from(*length)..).unwrap_or(&[]);
    }
    false
}

/// Resident memory of the broker.
fn memory_kib(broker: &Broker) -> u64 {
    let path = format!("/proc/{}/status", broker.pid());
    let status = fs::read_to_string(path).expect("the broker runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("/proc tells resident memory in KiB")
}
