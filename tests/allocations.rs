//! A telemetry PUBLISH costs no heap allocation from the socket to the journal: none on the
//! workers (`net-…`) and none on the committer (`journal`), once their buffers have grown.
//!
//! The broker's parts run in this process on plain TCP and WebSocket; the allocator counts by the
//! name of the thread. Buffers grow to what a turn has ever needed, so the first rounds may
//! allocate; what would cost something per message shows in every round.

#![cfg(test)]
#![expect(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

mod common;

#[path = "common/parts.rs"]
mod parts;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::packets::{Connect, TELEMETRY, Version, publish};
use common::web;
use parts::Parts;

/// Messages of one round.
const MESSAGES: usize = 20_000;

/// Connections that send at once: more on each worker than a task of the runtime may serve in one
/// go (128), so that a sync has more acks to write than that.
const CONNECTIONS: usize = 400;

/// So many rounds without an allocation must follow one another…
const QUIET_ROUNDS: usize = 2;

/// …within this many: by then every buffer has met its largest turn.
const ROUNDS_MAX: usize = 40;

/// How long an answer may take, on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Counts what the watched threads allocate while counting is on.
struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Where the first allocation of a round came from.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// What is known of a thread.
#[derive(Clone, Copy, PartialEq)]
enum Watched {
    Unknown,
    Yes,
    /// Not watched, or busy with finding out.
    No,
}

thread_local! {
    static WATCHED: Cell<Watched> = const { Cell::new(Watched::Unknown) };
}

// SAFETY: everything is handed to the system's allocator as it came; what is done beside it sets
// the thread aside first, so that allocations of its own are not looked at.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTING.load(Ordering::Relaxed) {
            // A thread that is ending has no such value any more, and is not watched.
            let _ = WATCHED.try_with(|watched| count(watched, layout));
        }
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(watched: &Cell<Watched>, layout: Layout) {
    let known = watched.replace(Watched::No);
    let is_watched = known == Watched::Yes || (known == Watched::Unknown && has_watched_name());
    if is_watched {
        if ALLOCATIONS.fetch_add(1, Ordering::SeqCst) == 0 {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let trace = Backtrace::force_capture().to_string();
            let ours = trace.lines().filter(|line| line.contains("./src/"));
            let from = ours.collect::<Vec<_>>().join("\n");
            let told = format!("{} bytes on {name}, from\n{from}", layout.size());
            *FIRST.lock().expect("nobody panics with it") = Some(told);
        }
        watched.set(Watched::Yes);
    }
}

fn has_watched_name() -> bool {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    name.starts_with("net-") || name == "journal"
}

/// What carries MQTT.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Tcp,
    WebSocket,
}

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Load {
    version: Version,
    over: Over,
    qos: u8,
    /// Messages that one connection sends before it waits for the answers.
    window: usize,
}

#[test]
fn a_telemetry_publish_allocates_nothing_from_socket_to_journal() {
    the_counter_counts();
    let broker = Parts::start(CONNECTIONS, 2);
    for (version, over) in [
        (Version::V311, Over::Tcp),
        (Version::V5, Over::Tcp),
        (Version::V5, Over::WebSocket),
    ] {
        for (qos, window) in [(0, 32), (1, 1), (1, 32)] {
            let load = Load {
                version,
                over,
                qos,
                window,
            };
            let mut clients = connect(&broker, load);
            let mut quiet = 0;
            let mut seen = Vec::new();
            while quiet < QUIET_ROUNDS {
                let first = FIRST.lock().expect("nobody panics with it").clone();
                assert!(
                    seen.len() < ROUNDS_MAX,
                    "{load:?}: allocations in rounds of {MESSAGES} messages: {seen:?}; the last \
                     that was looked at: {}",
                    first.unwrap_or_default()
                );
                let allocations = counted(|| round(&mut clients));
                quiet = if allocations == 0 { quiet + 1 } else { 0 };
                seen.push(allocations);
            }
            println!("{load:?}: allocations by round {seen:?}");
        }
    }
    broker.stop();
}

/// Only the watched threads count, and they do.
fn the_counter_counts() {
    let allocate = || drop(std::hint::black_box(vec![0_u8; 100]));
    for (name, expected) in [("net-test", 1), ("journal", 1), ("journal-prep", 0)] {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let counts = thread.spawn(move || counted(allocate)).expect("a thread");
        let counted = counts.join().expect("it does not panic");
        assert_eq!(counted, expected, "{name}");
    }
}

/// Allocations of the watched threads while `run` runs.
fn counted(run: impl FnOnce()) -> u64 {
    ALLOCATIONS.store(0, Ordering::SeqCst);
    IS_COUNTING.store(true, Ordering::SeqCst);
    run();
    IS_COUNTING.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// A client: its socket, what it sends at a time, and how long the answer is.
struct Client {
    socket: TcpStream,
    over: Over,
    window: Vec<u8>,
    messages: usize,
    answer: Vec<u8>,
}

impl Client {
    /// Reads the whole answer; over a WebSocket it may come in some frames.
    fn read_answer(&mut self) {
        let mut rest = self.answer.as_mut_slice();
        while !rest.is_empty() {
            let len = match self.over {
                Over::Tcp => rest.len(),
                Over::WebSocket => frame_len(&mut self.socket),
            };
            let (part, behind) = rest.split_at_mut(len);
            self.socket.read_exact(part).expect("it is answered");
            rest = behind;
        }
    }
}

/// The length of the server's next frame, whose header is read.
fn frame_len(socket: &mut TcpStream) -> usize {
    let mut header = [0; 2];
    socket.read_exact(&mut header).expect("a frame comes");
    assert_eq!(header[0], web::BINARY);
    if header[1] < 126 {
        return usize::from(header[1]);
    }
    socket.read_exact(&mut header).expect("its length comes");
    usize::from(u16::from_be_bytes(header))
}

fn round(clients: &mut [Client]) {
    let mut left = MESSAGES;
    while left > 0 {
        for client in &mut *clients {
            client.socket.write_all(&client.window).expect("it is sent");
            left = left.saturating_sub(client.messages);
        }
        for client in &mut *clients {
            client.read_answer();
        }
    }
}

/// A client for each device.
fn connect(broker: &Parts, load: Load) -> Vec<Client> {
    let Load {
        version,
        over,
        qos,
        window,
    } = load;
    let address = match over {
        Over::Tcp => broker.address,
        Over::WebSocket => broker.web,
    };
    // A frame for each packet: the most work that frames make.
    let framed = |packet: Vec<u8>| match over {
        Over::Tcp => packet,
        Over::WebSocket => web::frame(web::BINARY, &packet),
    };
    let client = |token: &String| {
        let mut socket = TcpStream::connect(address).expect("the broker accepts");
        socket.set_nodelay(true).expect("TCP has this option");
        socket
            .set_read_timeout(Some(ANSWER_LIMIT))
            .expect("a timeout above zero is valid");
        if over == Over::WebSocket {
            upgrade(&mut socket);
        }
        let connect = framed(Connect::with_token(version, "a", token).encode());
        socket.write_all(&connect).expect("CONNECT is sent");
        if over == Over::WebSocket {
            frame_len(&mut socket); // that of CONNACK
        }
        let mut header = [0; 2];
        socket.read_exact(&mut header).expect("CONNACK comes");
        let mut rest = vec![0; usize::from(header[1])];
        socket.read_exact(&mut rest).expect("CONNACK is whole");
        assert_eq!((header[0], rest[1]), (0x20, 0), "let in");
        let payload = br#"{"temperature":21.5,"on":true,"unit":"celsius"}"#;
        let mut bytes = Vec::new();
        for id in 1..=window {
            // The last one is acknowledged in any case, when it and all before it are on disk:
            // a slow disk must not pile up what was sent, which would be kept in memory.
            let qos = if id == window { 1 } else { qos };
            let id = u16::try_from(id).expect("a small window");
            bytes.extend(framed(publish(version, qos, id, TELEMETRY, payload)));
        }
        Client {
            socket,
            over,
            window: bytes,
            messages: window,
            answer: vec![0; if qos == 0 { 4 } else { 4 * window }],
        }
    };
    broker.tokens.iter().map(client).collect()
}

/// Makes a WebSocket of it.
fn upgrade(socket: &mut TcpStream) {
    let request = web::request("/mqtt", &[]);
    socket.write_all(&request).expect("the request is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("the answer comes");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
}
