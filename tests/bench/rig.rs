//! Brokers of three kinds, and the generator that is pointed at them.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    broker::{Broker, Setup},
    tools,
};

pub(crate) const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Ports for those who cannot take any that is free: below those that the system gives to
/// connections and to whoever asks for port 0, so that no other test has one meanwhile.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// How long a broker's start may take.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A process that is killed with the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended already
        let _ = self.0.wait();
    }
}

impl Killed {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// CPU time so far: how a test sees that a load has begun.
    pub(crate) fn cpu_ns(&self) -> u64 {
        cpu_ns(self.pid())
    }
}

/// CPU time of a process's first thread, in nanoseconds.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The sink that only frames and acks.
pub(crate) struct Raw {
    pub(crate) process: Killed,
    /// Where it was told to speak TLS, the last of its ports.
    pub(crate) port: u16,
}

impl Raw {
    pub(crate) fn start() -> Raw {
        Raw::with(&[])
    }

    /// A sink that speaks TLS too, with the certificate of a broker's directory.
    pub(crate) fn over_tls(dir: &Path) -> Raw {
        let [certificate, key] = ["certs/server.pem", "secrets/server.key"].map(|name| {
            let path = dir.join(name);
            path.to_str().expect("temporary paths are UTF-8").to_owned()
        });
        Raw::with(&[
            "--tls-listen",
            "127.0.0.1:0",
            "--certificate",
            &certificate,
            "--key",
            &key,
        ])
    }

    fn with(flags: &[&str]) -> Raw {
        let mut process = Command::new(TOLLGATE)
            .args(["bench", "raw", "--seconds", "900"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        for _ in 0..if flags.is_empty() { 1 } else { 2 } {
            line.clear();
            out.read_line(&mut line).unwrap();
        }
        let port = line.trim_end().rsplit(':').next().unwrap();
        Raw {
            port: port.parse().unwrap(),
            process: Killed(process),
        }
    }
}

/// A Mosquitto that lets everybody in.
pub(crate) struct Mosquitto {
    _process: Killed,
    _dir: TempDir,
    pub(crate) port: u16,
}

impl Mosquitto {
    pub(crate) fn start() -> Mosquitto {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let path = dir.path().join("mosquitto.conf");
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             max_queued_messages 0\n"
        );
        fs::write(&path, config).unwrap();
        let process = Command::new(mosquitto_program())
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Killed(process);
        let mut process = process;
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.0.try_wait().unwrap();
            assert_eq!(ended, None, "mosquitto does not start");
            assert!(Instant::now() < end, "mosquitto does not start");
            std::thread::yield_now();
        }
        Mosquitto {
            _process: process,
            _dir: dir,
            port,
        }
    }
}

/// Debian installs it where only root looks for programs.
fn mosquitto_program() -> std::path::PathBuf {
    let aside = std::path::PathBuf::from("/usr/sbin/mosquitto");
    if aside.exists() {
        aside
    } else {
        tools::tool("mosquitto")
    }
}

/// A port that nobody listens on, and that nobody is given by chance.
pub(crate) fn free_port() -> u16 {
    // Runs of other checkouts begin elsewhere.
    let begin = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (begin + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A Tollgate with devices, each good for ten connections at least.
pub(crate) struct Fleet {
    pub(crate) broker: Broker,
    pub(crate) tokens: Vec<String>,
    /// A file with the tokens, one a line.
    pub(crate) file: String,
}

impl Fleet {
    pub(crate) fn start(devices: usize) -> Fleet {
        let setup = Setup::new().set("TOLLGATE_DEVICE_SESSIONS", "per_client_id");
        let broker = setup.start();
        let tokens: Vec<String> = (0..devices)
            .map(|number| broker.create_device(&format!("device-{number}")))
            .collect();
        let file = broker.dir().join("tokens").to_str().unwrap().to_owned();
        fs::write(&file, tokens.join("\n")).unwrap();
        Fleet {
            broker,
            tokens,
            file,
        }
    }

    /// Flags that make the generator speak TLS to it.
    pub(crate) fn tls(&self) -> String {
        let (port, ca) = (self.broker.mqtts_port(), self.broker.ca_file());
        format!("--port {port} --tls --cafile {}", ca.display())
    }

    pub(crate) fn ledger_url(&self) -> String {
        format!("{}/metrics", self.broker.admin_url())
    }
}

impl Drop for Fleet {
    /// After every load: the ledger balances to the message.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.broker.expect_balanced_ledger();
        }
    }
}

/// `tollgate bench` with these flags, split at blanks.
pub(crate) fn bench(flags: &str) -> Output {
    let flags = flags.split_whitespace();
    tools::run(Command::new(TOLLGATE).arg("bench").args(flags))
}

/// The same, with a result that is expected to be one.
pub(crate) fn figures(flags: &str) -> Value {
    let done = bench(&format!("{flags} --json"));
    let (out, said) = tools::printed(&done);
    assert_eq!(
        (done.status.code(), &*said),
        (Some(0), ""),
        "{flags}: {out}"
    );
    serde_json::from_str(&out).unwrap()
}

/// The same, with an exit code that is expected to be another: what was printed, and the error.
pub(crate) fn refused(flags: &str, code: i32) -> (Value, String) {
    let done = bench(&format!("{flags} --json"));
    let (out, said) = tools::printed(&done);
    assert_eq!(done.status.code(), Some(code), "{flags}: {said}");
    (serde_json::from_str(&out).unwrap_or_default(), said)
}

pub(crate) fn number(figures: &Value, name: &str) -> f64 {
    figures[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is no number in {figures:#}"))
}
