//! A journal that is behind: whom the broker does not read is not cut off for silence (SEC-80).

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    common::{
        broker::{Broker, Setup},
        client::Client,
        packets::{Connect, TELEMETRY, Version, log_in, publish},
        wire::{ANSWER_LIMIT, Wire},
    },
    sync_faults::SyncFaults,
};

/// Long enough that this test, on a busy machine, does not make its clients silent itself.
const KEEP_ALIVE_S: u16 = 3;

/// Silence after which a client is cut off: one and a half keep alives, and one look every 500 ms.
const CUT_OFF: Duration = Duration::from_secs(5);

/// A socket that takes nothing for so long belongs to a client that is not read, if the broker's
/// only worker served another one meanwhile…
const NOT_READ: Duration = Duration::from_millis(500);

/// …so often.
const NOT_READ_TIMES: u32 = 3;

/// Between two looks: the API is asked less often than it takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long what must come may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes after which a flood ought to have been stopped: three batches of 1 MiB, what a
/// connection may park, and the largest socket buffers of both ends.
const FLOOD_MAX: usize = 64 << 20;

#[test]
fn sec_80_keep_alive_stands_still_while_a_client_is_not_read() {
    let (setup, faults) = SyncFaults::on(Setup::new().set("TOLLGATE_WORKERS_COUNT", "1"));
    let broker = setup.start();
    // Making devices takes longer than a client may be silent.
    let tokens = ["stalled", "silent"].map(|name| broker.create_device(name));
    let flood = Flood::start(&broker, &faults, 1_000);
    // Their sessions end with their connections, so that nothing of them waits for the disk.
    let [mut stalled, mut silent] = tokens.map(|token| connect(&broker, &token));
    let since = Instant::now();
    // The first is parked, whatever its size; the second finds no room there: nothing behind it
    // is read any more.
    let large = format!(r#"{{"text":"{}"}}"#, "a".repeat(65_000));
    for id in [1, 2] {
        let version = Version::V311;
        stalled.send(&publish(version, 1, id, TELEMETRY, large.as_bytes()));
    }
    stalled.send(&[0xc0, 0]);
    // Who is read and says nothing is cut off, however the journal is doing.
    assert_eq!(silent.packet_or_close(LIMIT), None);
    // Twice the time: the other one is still there, and has had no answer.
    let left = (2 * CUT_OFF).saturating_sub(since.elapsed());
    assert_eq!(stalled.packet_within(left), None, "nothing is durable");
    faults.clear();
    drop(flood);
    let mut answers = [stalled.packet(), stalled.packet(), stalled.packet()];
    answers.sort();
    let expected: [&[u8]; 3] = [&[0x40, 2, 0, 1], &[0x40, 2, 0, 2], &[0xd0, 0]];
    assert_eq!(answers, expected, "it was not cut off");
    // It is read again, and says nothing: now it is cut off.
    assert_eq!(stalled.packet_or_close(LIMIT), None);
}

/// A client that sends a value, says DISCONNECT and goes has sent it, however the journal is doing
/// at that moment.
#[test]
fn sec_80_a_goodbye_waits_for_what_was_sent_before_it() {
    let (setup, faults) = SyncFaults::on(Setup::new().set("TOLLGATE_WORKERS_COUNT", "1"));
    let broker = setup.start();
    let token = broker.create_device("brief");
    // What waits for it has no room either.
    let text = "a".repeat(2_000);
    let mut flood = Flood::start(&broker, &faults, text.len() / 2);
    let mut brief = broker.wire();
    log_in(
        &mut brief,
        &Connect::with_token(Version::V311, "brief", &token),
    );
    let payload = format!(r#"{{"last":"{text}"}}"#);
    let last = publish(Version::V311, 0, 0, TELEMETRY, payload.as_bytes());
    brief.send(&[last.as_slice(), &[0xe0, 0]].concat());
    flood.until_read();
    drop(brief);
    flood.until_read();
    faults.clear();
    drop(flood);
    let end = Instant::now() + LIMIT;
    while broker.values("brief", "last").is_empty() {
        assert!(Instant::now() < end, "its last value is not there");
        std::thread::sleep(LOOK_INTERVAL);
    }
    assert_eq!(
        broker.metric(r#"tollgate_messages_refused_total{reason="disconnected"}"#),
        0.0
    );
}

/// A message for many kept sessions takes a lot of room in the journal. While there is none its
/// publisher is refused or waits; what was acknowledged reaches everybody. Each copy names its
/// group with all of its name here: 160 KB for each message.
#[test]
fn sec_82_messages_to_many_sessions_are_refused_or_wait_while_the_journal_is_behind() {
    const MEMBERS: usize = 10;
    const GROUPS: usize = 4;
    const MESSAGES: u16 = 60;
    let setup = Setup::new()
        .set("TOLLGATE_WORKERS_COUNT", "1")
        .set("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "100")
        .set("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "100");
    let (setup, faults) = SyncFaults::on(setup);
    let broker = setup.start();
    let scope = ["--publish", "#", "--subscribe", "#", "--json"];
    let created = broker.cli_json(&[&["app", "create", "fan"][..], &scope].concat());
    let token = created["token"].as_str().expect("a token");
    let names: Vec<String> = (0..MEMBERS).map(|at| format!("m{at}")).collect();
    let join = |name: &String| {
        let mut member = Client::connect(
            &broker,
            &Connect::with_token(Version::V5, name, token).kept(),
        );
        for group in 0..GROUPS {
            let filter = format!("$share/{name}-{group}-{}/fan/t", "n".repeat(4_000));
            assert_eq!(member.subscribe(&filter, 1), 1);
        }
        member
    };
    let mut members: Vec<Client> = names.iter().map(join).collect();
    let mut publisher = Client::connect(
        &broker,
        &Connect::with_token(Version::V5, "publisher", token),
    );
    let before = broker.rss_kib();
    faults.hold();
    for id in 1..=MESSAGES {
        publisher.send_publish(2, id, "fan/t", &[], &id.to_be_bytes());
        if id == 1 {
            faults.until_held();
        }
    }
    publisher.wire.expect_alive();
    let grown = broker.rss_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    faults.clear();
    let codes: Vec<u8> = (1..=MESSAGES)
        .map(|id| publisher.expect_ack(0x40, id))
        .collect();
    assert!(
        codes.iter().all(|code| [0, 0x97].contains(code)),
        "{codes:02x?}"
    );
    let accepted = codes.iter().filter(|code| **code == 0).count();
    assert!(accepted >= 10, "{codes:02x?}");
    println!("{accepted} of {MESSAGES} accepted, {grown} KiB more");
    assert_eq!(publisher.publish(1, "fan/t", b"marker"), 0);
    for member in &mut members {
        let mut seen = vec![0; codes.len()];
        let mut markers = 0;
        while markers < GROUPS {
            let message = member.take();
            match message.payload.try_into() {
                Ok(id) => seen[usize::from(u16::from_be_bytes(id)) - 1] += 1,
                Err(_) => markers += 1,
            }
        }
        let is_right = |(code, copies): (&u8, &usize)| *code != 0 || *copies == GROUPS;
        assert!(
            codes.iter().zip(&seen).all(is_right),
            "{codes:02x?} {seen:?}"
        );
    }
}

fn connect(broker: &Broker, token: &str) -> Wire {
    let mut wire = broker.wire();
    let connect = Connect {
        keep_alive_s: KEEP_ALIVE_S,
        ..Connect::with_token(Version::V311, "a", token)
    };
    log_in(&mut wire, &connect);
    wire
}

/// A client that sent until the broker, whose syncs are held, read no more of it: there is no room
/// left for telemetry.
pub(crate) struct Flood {
    _socket: TcpStream,
    /// Is served all the time.
    served: Wire,
}

/// Connections that a flood holds.
pub(crate) const FLOOD_CONNECTIONS: usize = 2;

impl Flood {
    /// Holds the syncs and floods. What is left of the room is less than a message of `bytes`. The
    /// broker must have one worker.
    pub(crate) fn start(broker: &Broker, faults: &SyncFaults, bytes: usize) -> Flood {
        let token = broker.create_device("flood");
        let mut socket = log_in_plain(broker.address("mqtt"), &token);
        let token = broker.create_device("served");
        let mut served = broker.wire();
        log_in(
            &mut served,
            &Connect::with_token(Version::V311, "served", &token),
        );
        let text = "a".repeat(bytes);
        let payload = format!(r#"{{"text":"{text}"}}"#);
        let packet = publish(Version::V311, 0, 0, TELEMETRY, payload.as_bytes());
        faults.hold();
        socket.write_all(&packet).expect("the first is read");
        faults.until_held();
        socket
            .set_write_timeout(Some(NOT_READ))
            .expect("a timeout above zero is valid");
        let many = packet.repeat(1 + (256 << 10) / packet.len());
        let mut sent = 0;
        let mut rest = many.as_slice();
        let mut not_read = 0;
        while not_read < NOT_READ_TIMES {
            match socket.write(rest) {
                Ok(written) => {
                    not_read = 0;
                    sent += written;
                    rest = &rest[written..];
                    if rest.is_empty() {
                        rest = &many;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    served.expect_alive();
                    not_read += 1;
                }
                Err(error) => panic!("the flood was cut off: {error}"),
            }
            assert!(sent < FLOOD_MAX, "nothing stops a flood");
        }
        Flood {
            _socket: socket,
            served,
        }
    }

    /// Until the only worker has read what was sent to it before this.
    pub(crate) fn until_read(&mut self) {
        // It may be the second of those that are read in one turn.
        for _ in 0..3 {
            self.served.expect_alive();
        }
    }
}

fn log_in_plain(address: SocketAddr, token: &str) -> TcpStream {
    use std::io::Read;
    let mut socket = TcpStream::connect(address).expect("the broker accepts");
    socket
        .set_read_timeout(Some(ANSWER_LIMIT))
        .expect("a timeout above zero is valid");
    let connect = Connect::with_token(Version::V311, "flood", token).encode();
    socket.write_all(&connect).expect("CONNECT is sent");
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).expect("CONNACK comes");
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket
}
