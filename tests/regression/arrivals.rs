//! Clients that are let in while the journal has no room even for their sessions: so many may
//! wait, so long, and each is told.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::stall::{FLOOD_CONNECTIONS, Flood};
use crate::{
    common::{
        broker::{Broker, Setup},
        packets::{Connect, Version, reason},
    },
    sync_faults::SyncFaults,
};

/// Clients of one worker that may wait (`ARRIVALS_WAITING_MAX`).
const WAITING_MAX: usize = 1_024;

/// How long one waits (`CONNECT_TIMEOUT`).
const WAITS: Duration = Duration::from_secs(10);

/// How much later it may be, on a busy machine.
const SLACK: Duration = Duration::from_secs(60);

/// Clients that find no place among those that wait.
const TOO_MANY: usize = 6;

/// Client ids so long that few sessions fit into the room kept for sessions (64 KiB).
const ID_BYTES: usize = 15_000;

/// Of the sessions that still fit, the broker asks for 4 KiB and three times the client id.
const FITTING_MAX: usize = 4;

/// How often the test begins anew where the machine is too slow for it.
const ATTEMPTS_MAX: usize = 5;

#[test]
fn sec_82_arrivals_wait_within_bounds() {
    let is_done = (0..ATTEMPTS_MAX).any(|_| arrivals_wait_within_bounds());
    assert!(is_done, "the clients take too long to connect, each time");
}

/// False if it proves nothing: the first clients had nearly waited long enough before the last ones
/// came.
fn arrivals_wait_within_bounds() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to its maximum");
    let setup = Setup::new()
        .set("TOLLGATE_WORKERS_COUNT", "1")
        .set("TOLLGATE_DEVICE_SESSIONS", "per_client_id");
    let (setup, faults) = SyncFaults::on(setup);
    let broker = setup.start();
    let token = broker.create_device("pump");
    let _flood = Flood::start(&broker, &faults, 100);

    // The first ones fill the room; they are let in and their CONNACK waits for the disk.
    let mut fitting: Vec<Client> = Vec::new();
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..FITTING_MAX + WAITING_MAX + TOO_MANY)
        .map(|at| Client::connect(&broker, &token, at))
        .collect();
    if began.elapsed() > WAITS / 2 {
        return false;
    }
    // Those that find no place hear of it at once, the others not yet.
    let mut refused_at_once = Vec::new();
    until(began + WAITS, || {
        take_answered(&mut clients, &mut refused_at_once);
        refused_at_once.len() >= TOO_MANY
    });
    let at_once = began.elapsed();
    println!("told at once, after {at_once:?}");
    assert!(at_once < WAITS, "too slow to tell: {at_once:?}");
    // Up to FITTING_MAX were let in instead of waiting.
    let connections = metric(&broker, "tollgate_connections") - FLOOD_CONNECTIONS;
    let expected = FITTING_MAX + TOO_MANY - connections;
    until(began + WAITS, || {
        take_answered(&mut clients, &mut refused_at_once);
        refused_at_once.len() >= expected
    });
    assert_eq!(refused_at_once.len(), expected, "of {connections} let in");

    let mut refused_later = Vec::new();
    until(Instant::now() + WAITS + SLACK, || {
        take_answered(&mut clients, &mut refused_later);
        refused_later.len() >= WAITING_MAX
    });
    assert!(began.elapsed() >= WAITS, "{:?}", began.elapsed());
    assert_eq!(refused_later.len(), WAITING_MAX);
    let refused = refused_at_once.iter().chain(&refused_later);
    refused.for_each(Client::expect_refused);
    // With room again, those that were let in are told, and new ones are welcome.
    faults.clear();
    clients.push(Client::connect(&broker, &token, usize::MAX));
    until(Instant::now() + SLACK, || {
        take_answered(&mut clients, &mut fitting);
        clients.is_empty()
    });
    assert_eq!(fitting.len(), connections + 1);
    for client in fitting {
        assert_eq!(client.received[3], 0, "{:02x?}", client.received);
    }
    true
}

/// A client that has sent a CONNECT whose session outlives it.
struct Client {
    version: Version,
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(broker: &Broker, token: &str, at: usize) -> Client {
        let version = [Version::V311, Version::V5][at % 2];
        let id = format!("{at:0ID_BYTES$}");
        let connect = Connect {
            clean: false,
            properties: if version == Version::V5 {
                vec![0x11, 0, 0, 0x0e, 0x10] // an hour
            } else {
                Vec::new()
            },
            ..Connect::with_token(version, &id, token)
        };
        let mut socket = TcpStream::connect(broker.address("mqtt")).expect("the broker accepts");
        socket.write_all(&connect.encode()).expect("it is sent");
        socket.set_nonblocking(true).expect("sockets can");
        Client {
            version,
            socket,
            received: Vec::new(),
        }
    }

    /// Whether the CONNACK is there.
    fn is_answered(&mut self) -> bool {
        let mut chunk = [0; 256];
        match self.socket.read(&mut chunk) {
            Ok(count) => self.received.extend(&chunk[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        self.received.len() >= 4
    }

    /// MQTT 5: quota exceeded; before: server unavailable.
    fn expect_refused(&self) {
        let code = if self.version == Version::V5 { 0x97 } else { 3 };
        assert_eq!(self.received[0], 0x20, "{:02x?}", self.received);
        assert_eq!(reason(&self.received), code, "{:02x?}", self.received);
    }
}

fn take_answered(clients: &mut Vec<Client>, answered: &mut Vec<Client>) {
    answered.extend(clients.extract_if(.., Client::is_answered));
}

fn until(deadline: Instant, mut is_so: impl FnMut() -> bool) {
    while !is_so() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

fn metric(broker: &Broker, name: &str) -> usize {
    let reply = ureq::get(format!("{}/metrics", broker.admin_url())).call();
    let text = reply
        .expect("the broker answers")
        .body_mut()
        .read_to_string();
    let text = text.expect("metrics are text");
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = values.next().and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
