//! An HTTP server in this process on real parts in a temporary directory, and a client made of
//! bytes. The workers of the broker are played by a thread that the test holds in its hand.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustls::ServerConfig;
use serde_json::Value;
use tempfile::TempDir;
use tollgate::{
    audit::{Audit, AuditLimits},
    backup::Folders,
    broker::{Command, Control, Receipt},
    http::{HttpParts, HttpServer},
    identity::{ADMIN_TOKEN_FILE, Change, Registry, Secrets},
    journal::{Journal, JournalOptions, RealDisk, RecordHeader, RecordKind, Submitter},
    metrics::Metrics,
    net::tls::Tls,
    store::Store,
    telemetry::{History, HistoryOptions, PARSER_VERSION},
};
use uuid::Uuid;

/// How long an answer that must come may take: the server's own limit is 10 s, the rest is for a
/// busy machine.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What the played worker does with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    /// Confirms at once: one connection, two sessions, three messages.
    Confirms,
    /// Confirms when the test says so, by [`Server::let_confirm`].
    Waits,
    /// Never confirms.
    Sleeps,
}

/// Room for some files of each book.
const SMALL_AUDIT: AuditLimits = AuditLimits {
    admin_bytes_max: 1 << 20,
    access_bytes_max: 1 << 20,
};

/// A running server with what it works on. Dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) admin_token: String,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) journal: Journal,
    pub(crate) history: History,
    pub(crate) metrics: Metrics,
    /// The changes that reached the worker.
    changes: Mutex<mpsc::Receiver<Change>>,
    confirm: mpsc::Sender<()>,
    submitter: Submitter,
    http: Option<HttpServer>,
    dir: TempDir,
}

/// A reply, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_with(Worker::Confirms, Vec::new())
    }

    /// `names`: what the server may be called besides its address.
    pub(crate) fn start_with(worker: Worker, names: Vec<String>) -> Server {
        Server::build(worker, names, None, 100)
    }

    /// It takes as many requests a second as anybody sends.
    pub(crate) fn start_unlimited() -> Server {
        Server::build(Worker::Confirms, Vec::new(), None, 1_000_000)
    }

    /// It takes so many requests a second.
    pub(crate) fn start_limited(requests_per_second_max: u32) -> Server {
        Server::build(Worker::Confirms, Vec::new(), None, requests_per_second_max)
    }

    /// Its only listener speaks TLS.
    pub(crate) fn start_secured(tls: Arc<ServerConfig>) -> Server {
        Server::build(Worker::Confirms, Vec::new(), Some(tls), 100)
    }

    fn build(
        worker: Worker,
        names: Vec<String>,
        tls: Option<Arc<ServerConfig>>,
        requests_per_second_max: u32,
    ) -> Server {
        let dir = TempDir::with_prefix("tollgate-http-").unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        let secrets_dir = dir.path().join("secrets");
        let secrets = Arc::new(Secrets::open(&secrets_dir, true).unwrap());
        let registry = Registry::open(store.clone(), &secrets).unwrap();
        let options = JournalOptions {
            segment_bytes: 1024 * 1024,
            ballast_bytes: 0,
            ..JournalOptions::new(dir.path().join("data/journal"))
        };
        let panic = |error: &_| panic!("the journal failed: {error}");
        let (journal, _) = Journal::open(Arc::new(RealDisk), options, Box::new(panic)).unwrap();
        let history = History::start(
            journal.clone(),
            HistoryOptions::new(dir.path().join("data/history")),
            [],
        )
        .unwrap();
        let metrics = Metrics::new();
        let audit = Audit::start(&dir.path().join("data"), &store, SMALL_AUDIT, &metrics).unwrap();
        registry.audited_by(audit.clone()).unwrap();
        let (lane, seen) = tokio::sync::mpsc::channel(1);
        let (changes_in, changes) = mpsc::channel();
        let (confirm, confirmed) = mpsc::channel();
        thread::spawn(move || play(worker, seen, &changes_in, &confirmed));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let parts = HttpParts {
            requests_per_second_max,
            listeners: vec![(listener, tls.map(Tls::new))],
            mqtts: None,
            names,
            registry: registry.clone(),
            secrets,
            history: history.clone(),
            control: Control::new(vec![lane]),
            audit,
            journal: journal.clone(),
            metrics: metrics.clone(),
            folders: Folders {
                data: dir.path().join("data"),
                secrets: secrets_dir.clone(),
                certs: dir.path().join("certs"),
            },
        };
        let http = HttpServer::start(parts).unwrap();
        let admin_token = fs::read_to_string(secrets_dir.join(ADMIN_TOKEN_FILE)).unwrap();
        Server {
            address,
            admin_token: admin_token.trim().to_owned(),
            store,
            registry,
            submitter: journal.submitter(Arc::new(|| {})),
            journal,
            history,
            metrics,
            changes: Mutex::new(changes),
            confirm,
            http: Some(http),
            dir,
        }
    }

    /// What it works on: `data`, `secrets`, `certs`.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The next change that reaches the worker.
    pub(crate) fn next_change(&self) -> Change {
        self.changes
            .lock()
            .unwrap()
            .recv_timeout(ANSWER_LIMIT)
            .unwrap()
    }

    /// Lets a waiting worker confirm one change.
    pub(crate) fn let_confirm(&self) {
        self.confirm.send(()).unwrap();
    }

    /// Stops the server and says how long that took.
    pub(crate) fn stop(&mut self, grace: Duration) -> Duration {
        let started = Instant::now();
        if let Some(http) = self.http.take() {
            http.stop(grace);
        }
        started.elapsed()
    }

    /// A request with the admin token; JSON in, JSON out.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let token = format!("Authorization: Bearer {}", self.admin_token);
        let reply = self.request(method, path, &[&token], body);
        (reply.status, reply.json())
    }

    /// A request with these headers beside the usual ones, on a connection of its own.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&str>,
    ) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            text += &format!("Host: {}\r\n", self.address);
        }
        for header in headers {
            text += &format!("{header}\r\n");
        }
        if let Some(body) = body {
            if !headers
                .iter()
                .any(|header| header.starts_with("Content-Type:"))
            {
                text += "Content-Type: application/json\r\n";
            }
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut stream = self.connect();
        stream
            .write_all(format!("{text}\r\n{}", body.unwrap_or_default()).as_bytes())
            .unwrap();
        read_to_end(&mut stream)
    }

    /// The header that carries the admin token.
    pub(crate) fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.admin_token)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        stream
    }

    /// Creates a device; its id and its token.
    pub(crate) fn create(&self, name: &str) -> (Uuid, String) {
        let body = format!("{{\"name\":\"{name}\"}}");
        let (status, created) = self.call("POST", "/admin/v1/devices", Some(&body));
        assert_eq!(status, 201, "{created}");
        let id = created["device"]["id"].as_str().unwrap().parse().unwrap();
        (id, created["token"].as_str().unwrap().to_owned())
    }

    /// Puts a payload of a device into the journal, durably, as if it had been published.
    pub(crate) fn publish(&mut self, device: Uuid, payload: &str) {
        let mut batch = self.submitter.take_batch();
        let header = RecordHeader {
            kind: RecordKind::Telemetry,
            qos: 1,
            profile_flags: 0,
            parser_version: PARSER_VERSION,
            received_ms: now_ms(),
            device,
            credential: 1,
            generation: 1,
            session: 0,
            packet_id: 0,
        };
        batch.push(&header, payload.as_bytes()).unwrap();
        let offset = self
            .submitter
            .submit(batch)
            .unwrap_or_else(|_| panic!("the journal is full"));
        let before = tollgate::journal::Offset::new(offset.number() - 1);
        assert!(self.journal.wait_past(before, ANSWER_LIMIT) >= offset);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
        let closed = self.journal.close();
        assert!(closed.is_ok() || thread::panicking());
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of a refusal.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Waits for a state that has no event of its own.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + ANSWER_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads until the server closes, and takes the one reply apart.
pub(crate) fn read_to_end(stream: &mut impl Read) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

/// One read, again where a halt of the machine interrupted it (signal(7): reads with a limit are
/// not begun anew by the kernel).
pub(crate) fn read_some(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match from.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads one reply with a JSON body, as text, and leaves the connection open.
pub(crate) fn read_reply(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut some = [0; 4096];
    // Bodies are JSON objects, and no shorter part of one is well-formed.
    let is_whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        body.is_some_and(|body| serde_json::from_str::<Value>(&body).is_ok())
    };
    while !is_whole(&bytes) {
        match read_some(stream, &mut some) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&some[..count]),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no reply: {text:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Reply {
        status,
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The worker: takes changes from its control lane and confirms them, or does not.
fn play(
    worker: Worker,
    mut lane: tokio::sync::mpsc::Receiver<Command>,
    changes: &mpsc::Sender<Change>,
    confirmed: &mpsc::Receiver<()>,
) {
    let mut unanswered = Vec::new();
    while let Some(command) = lane.blocking_recv() {
        let Command::Apply {
            changes: made,
            is_dry: false,
            reply,
        } = command
        else {
            continue;
        };
        for change in made.iter() {
            // The test may be over.
            let _ = changes.send(Change::clone(change));
        }
        if worker == Worker::Waits && confirmed.recv().is_err() {
            return;
        }
        if worker == Worker::Sleeps {
            unanswered.push(reply);
            continue;
        }
        let receipt = Receipt {
            connections: 1,
            sessions: 2,
            unfinished: 3,
            milliseconds: 0,
            ..Receipt::default()
        };
        let _ = reply.send(vec![receipt; made.len()]);
    }
}
