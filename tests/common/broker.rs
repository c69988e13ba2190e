//! A broker in its own process and its own directory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{secrets, wire::Wire};

/// How long a start may take: key generation in a test build on a busy machine of two cores.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long the process may take to end, and a figure to become what it must become: a limit for
/// what hangs. Tests about the time of a stop measure it.
const EVENT_LIMIT: Duration = Duration::from_secs(60);

/// How long the figures of a process that is about to end may take: they are not what is tested.
const FIGURES_LIMIT: Duration = Duration::from_secs(2);

/// How often a state that has no event of its own is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often figures are asked for: well below what the HTTP server answers in a second.
const METRICS_INTERVAL: Duration = Duration::from_millis(25);

/// Where no broker is: a port that nobody is given by chance.
const NOBODY: &str = "http://127.0.0.1:1";

/// A broker to be started: its directory and its environment.
pub(crate) struct Setup {
    dir: TempDir,
    environment: BTreeMap<String, String>,
    /// Open files the process may have; None is what the test has.
    files_max: Option<u32>,
    /// What its processes wrote to stdout, and the figures that they showed at their ends.
    outputs: Arc<Mutex<Vec<u8>>>,
}

/// A running broker. Dropping it kills the process (by its id) and removes its directory.
pub(crate) struct Broker {
    setup: Setup,
    child: Child,
    listeners: BTreeMap<String, SocketAddr>,
}

/// A start that did not get as far as `ready`.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The exit code; None if a signal ended the process.
    pub(crate) code: Option<i32>,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

impl Setup {
    /// A fresh directory, every listener on a free port of 127.0.0.1.
    pub(crate) fn new() -> Setup {
        let dir = TempDir::with_prefix("tollgate-test-").expect("a temporary directory");
        let mut setup = Setup {
            dir,
            environment: BTreeMap::new(),
            files_max: None,
            outputs: Arc::default(),
        };
        // The whole suite runs at the most verbose level, so that what must never be logged would
        // be seen at the end (SEC-55).
        setup = setup.set("TOLLGATE_LOG_LEVEL", "trace");
        for key in [
            "TOLLGATE_MQTT_LISTEN",
            "TOLLGATE_MQTTS_LISTEN",
            "TOLLGATE_HTTP_LISTEN",
        ] {
            setup = setup.set(key, "127.0.0.1:0");
        }
        for (key, name) in [
            ("TOLLGATE_DATA_DIR", "data"),
            ("TOLLGATE_SECRETS_DIR", "secrets"),
            ("TOLLGATE_CERTS_DIR", "certs"),
        ] {
            let path = setup.dir.path().join(name);
            setup = setup.set(key, path.to_str().expect("temporary paths are UTF-8"));
        }
        setup
    }

    /// Sets one environment variable of the broker and of the commands that speak to it.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Setup {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Lets the broker have this many open files.
    pub(crate) fn limit_files(mut self, files: u32) -> Setup {
        self.files_max = Some(files);
        self
    }

    /// Starts it and waits for `ready`.
    ///
    /// # Panics
    /// With all of stderr if it is not ready in time.
    pub(crate) fn start(self) -> Broker {
        match self.try_start() {
            Ok(broker) => broker,
            Err((_, refusal)) => panic!("the broker did not start: {refusal:#?}"),
        }
    }

    /// Starts it; a start that it refuses comes back with what it said, and the setup.
    pub(crate) fn try_start(self) -> Result<Broker, (Setup, Refusal)> {
        let (mut child, stdout) = self.spawn();
        match self.wait_ready(&mut child, stdout) {
            Ok(listeners) => Ok(Broker {
                setup: self,
                child,
                listeners,
            }),
            Err(refusal) => Err((self, refusal)),
        }
    }

    /// The directory that holds everything of this broker; its working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The program, without arguments, in this setup's directory and environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("TOLLGATE_") {
                command.env_remove(key);
            }
        }
        command
            .envs(&self.environment)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn stderr_path(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    fn spawn(&self) -> (Child, ChildStdout) {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(self.stderr_path())
            .expect("the log file opens");
        let mut command = self.command();
        if let Some(files) = self.files_max {
            // The shell becomes the broker: the process id is the same.
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg(format!("ulimit -n {files} && exec \"$0\" serve"));
            shell.arg(program()).current_dir(self.dir.path());
            shell.env_clear().envs(
                std::env::vars_os()
                    .filter(|(key, _)| !key.to_string_lossy().starts_with("TOLLGATE_")),
            );
            shell.envs(&self.environment).stdin(Stdio::null());
            command = shell;
        } else {
            command.arg("serve");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the broker's program runs");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        (child, stdout)
    }

    fn wait_ready(
        &self,
        child: &mut Child,
        stdout: ChildStdout,
    ) -> Result<BTreeMap<String, SocketAddr>, Refusal> {
        let (sender, lines) = mpsc::channel();
        let outputs = Arc::clone(&self.outputs);
        // The thread ends with the pipe. It goes on reading after `ready`: a full pipe would
        // stop the broker.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                keep(&outputs, line.as_bytes());
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + START_LIMIT;
        let mut listeners = BTreeMap::new();
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    seen.push_str(&line);
                    seen.push('\n');
                    if line == "ready" {
                        return Ok(listeners);
                    }
                    if let Some((name, address)) = listener(&line) {
                        listeners.insert(name, address);
                    }
                }
                Err(error) => {
                    if error == mpsc::RecvTimeoutError::Timeout {
                        seen.push_str("(no `ready` in time)\n");
                        let _ = child.kill();
                    }
                    let code = child.wait().expect("the child can be waited for").code();
                    let stderr = fs::read_to_string(self.stderr_path()).unwrap_or_default();
                    return Err(Refusal {
                        code,
                        stdout: seen,
                        stderr,
                    });
                }
            }
        }
    }
}

impl Broker {
    /// A broker with the defaults of the tests.
    pub(crate) fn start() -> Broker {
        Setup::new().start()
    }

    /// A broker with some environment variables of its own.
    pub(crate) fn start_with(overrides: &[(&str, &str)]) -> Broker {
        overrides
            .iter()
            .fold(Setup::new(), |setup, (key, value)| setup.set(key, value))
            .start()
    }

    /// Where the listener of that name (`mqtt`, `mqtts`, `http`, `https`) accepts.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| {
            panic!(
                "no listener {name} was announced, only {:?}",
                self.listeners
            );
        })
    }

    /// Port for MQTT without TLS.
    pub(crate) fn mqtt_port(&self) -> u16 {
        self.address("mqtt").port()
    }

    /// Port for MQTT over TLS.
    pub(crate) fn mqtts_port(&self) -> u16 {
        self.address("mqtts").port()
    }

    /// Where the administrative API is.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.address("http"))
    }

    /// The directory that holds everything of this broker; its working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The certificate of the authority made at the first start.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir().join("certs").join("ca-root.pem")
    }

    /// Everything written to stderr so far, by every process of this setup.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.setup.stderr_path()).unwrap_or_default()
    }

    /// A raw connection to the plain listener.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address("mqtt"))
    }

    /// A raw connection to the TLS listener; the broker's certificate is verified.
    pub(crate) fn wire_tls(&self) -> Wire {
        Wire::connect_tls(self.address("mqtts"), &self.ca_file())
    }

    /// A raw connection to the WebSocket listener, upgraded.
    pub(crate) fn wire_ws(&self) -> Wire {
        let upgraded = Wire::connect(self.address("ws")).upgrade("/mqtt", &[]);
        upgraded.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"))
    }

    /// The same with TLS.
    pub(crate) fn wire_wss(&self) -> Wire {
        let wire = Wire::connect_tls(self.address("wss"), &self.ca_file());
        let upgraded = wire.upgrade("/mqtt", &[]);
        upgraded.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"))
    }

    /// `tollgate` with these arguments, speaking to this broker as long as it is there: the port of
    /// one that has ended may be another test's by now.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        secrets::given(arguments);
        let is_running = Path::new(&format!("/proc/{}", self.pid())).exists();
        let url = match is_running {
            true => self.admin_url(),
            false => NOBODY.to_owned(),
        };
        let mut command = self.setup.command();
        command.env("TOLLGATE_ADMIN_URL", url).args(arguments);
        command
    }

    /// Runs `tollgate` with these arguments against this broker.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("the program runs");
        secrets::harvest(&String::from_utf8_lossy(&output.stdout));
        secrets::expect_none([("stderr of a command", output.stderr.as_slice())]);
        output
    }

    /// As `cli`, for a command that must succeed: its stdout.
    pub(crate) fn cli_ok(&self, arguments: &[&str]) -> String {
        self.stdout_of(arguments, &self.cli(arguments))
    }

    /// What a command printed that must have succeeded.
    fn stdout_of(&self, arguments: &[&str], output: &Output) -> String {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "tollgate {arguments:?}: {}\nstdout: {stdout}\nstderr: {stderr}\nbroker: {}",
            output.status,
            self.stderr()
        );
        stdout
    }

    /// As `cli_ok`, for a command that prints JSON.
    pub(crate) fn cli_json(&self, arguments: &[&str]) -> Value {
        json(arguments, &self.cli_ok(arguments))
    }

    /// Makes a device and returns its generated token.
    pub(crate) fn create_device(&self, name: &str) -> String {
        let created = self.cli_json(&["device", "create", name, "--json"]);
        created["token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token in the answer: {created}"))
            .to_owned()
    }

    /// Makes a device with a token of our choice.
    pub(crate) fn create_device_with_token(&self, name: &str, token: &str) {
        self.cli_ok(&["device", "create", name, "--token", token, "--json"]);
    }

    /// Ends every credential of the device; the answer is the receipt.
    pub(crate) fn revoke(&self, device: &str) -> Value {
        self.cli_json(&["device", "revoke", device, "--json"])
    }

    /// Memory of the process, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the process runs");
        let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = row.and_then(|row| row.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).expect("a number")
    }

    /// Everything stored of a device, as `tollgate query` tells it. While the history has not
    /// caught up with the journal, on a busy machine right after a start, it is asked again.
    pub(crate) fn query_json(&self, device: &str) -> Value {
        let arguments = ["query", device, "--format", "json", "--limit", "10000"];
        let deadline = Instant::now() + EVENT_LIMIT;
        loop {
            let output = self.cli(&arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            if !said.contains("has not caught up") || Instant::now() > deadline {
                return json(&arguments, &self.stdout_of(&arguments, &output));
            }
        }
    }

    /// Everything stored of a device: key, value; oldest first.
    pub(crate) fn points(&self, device: &str) -> Vec<(String, Value)> {
        let mut answer = self.query_json(device);
        let points = match answer["points"].as_array_mut() {
            Some(points) => points,
            None => panic!("no list of points: {answer}"),
        };
        points.sort_by_key(|point| point["ts"].as_i64().expect("every point has a time"));
        let key = |point: &Value| {
            point["key"]
                .as_str()
                .expect("every point has one")
                .to_owned()
        };
        points
            .iter()
            .map(|point| (key(point), point["value"].clone()))
            .collect()
    }

    /// The values stored of one key, oldest first.
    pub(crate) fn values(&self, device: &str, key: &str) -> Vec<Value> {
        let points = self.points(device).into_iter();
        points
            .filter(|(of, _)| of == key)
            .map(|(_, value)| value)
            .collect()
    }

    /// The figures as `/metrics` shows them.
    pub(crate) fn metrics(&self) -> String {
        let answer = ureq::get(format!("{}/metrics", self.admin_url())).call();
        let body = answer.expect("the broker shows its figures").into_body();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut body.into_reader(), &mut text).expect("UTF-8");
        text
    }

    /// The value of one figure, labels and all: `name{label="value"}`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no figure {name} in\n{metrics}"));
        value.parse().expect("a number")
    }

    /// The sum of a figure over its labels.
    pub(crate) fn metric_sum(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let rows = metrics.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key.split('{').next() == Some(name)).then_some(value)
        });
        rows.map(|value| value.parse::<f64>().expect("a number"))
            .sum()
    }

    /// Waits until nothing is in flight; then every message received is stored, refused or a
    /// repetition of one that is. Answers how many came.
    pub(crate) fn expect_balanced_ledger(&self) -> f64 {
        self.wait_metric_until("tollgate_messages_in_flight", |messages| messages == 0.0);
        let sum = |what: &str| self.metric_sum(&format!("tollgate_messages_{what}_total"));
        let received = sum("received");
        let accounted = sum("stored") + sum("refused") + sum("repeated");
        assert_eq!(received, accounted, "{}", self.metrics());
        received
    }

    /// Waits until a figure is at least `least`.
    pub(crate) fn wait_metric(&self, name: &str, least: f64) {
        self.wait_metric_until(name, |value| value >= least);
    }

    /// Waits until a figure is as it should be.
    pub(crate) fn wait_metric_until(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + EVENT_LIMIT;
        loop {
            let value = self.metric(name);
            if is_right(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {value}");
            thread::sleep(METRICS_INTERVAL);
        }
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }

    /// Asks for a clean stop and returns the exit code.
    ///
    /// # Panics
    /// With all of stderr if it takes too long or a signal ended it.
    pub(crate) fn stop(&mut self) -> i32 {
        self.keep_figures();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the process is ours and not yet waited for");
        self.exit_code()
    }

    /// Keeps the figures of a process that is about to end.
    fn keep_figures(&mut self) {
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if is_running && self.listeners.contains_key("http") {
            let agent = ureq::Agent::config_builder()
                .timeout_global(Some(FIGURES_LIMIT))
                .build();
            let url = format!("{}/metrics", self.admin_url());
            // It may be hung, stopped or out of sockets: that is for the test to notice.
            if let Ok(mut reply) = ureq::Agent::from(agent).get(url).call() {
                let figures = reply.body_mut().read_to_vec().unwrap_or_default();
                keep(&self.setup.outputs, &figures);
            }
        }
    }

    /// Waits for the process to end by itself and returns the exit code.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + EVENT_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status
                    .code()
                    .unwrap_or_else(|| panic!("{status}: {}", self.stderr()));
            }
            assert!(
                Instant::now() < deadline,
                "it does not stop: {}",
                self.stderr()
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends the process as a power switch would.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the child can be waited for");
    }

    /// Starts again on the same directories; what still runs is killed first. Ports change.
    pub(crate) fn restart(&mut self) {
        if self
            .child
            .try_wait()
            .expect("the child can be waited for")
            .is_none()
        {
            self.kill9();
        }
        let (mut child, stdout) = self.setup.spawn();
        match self.setup.wait_ready(&mut child, stdout) {
            Ok(listeners) => {
                self.child = child;
                self.listeners = listeners;
            }
            Err(refusal) => panic!("the broker did not start again: {refusal:#?}"),
        }
    }

    /// Starts a second process on the same directories, which is expected to be refused.
    pub(crate) fn start_second(&self) -> Output {
        self.setup
            .command()
            .arg("serve")
            .output()
            .expect("the program runs")
    }

    /// Stops it and hands back the setup, to be started differently.
    pub(crate) fn into_setup(mut self) -> Setup {
        self.stop();
        let empty = Setup {
            dir: TempDir::new().expect("a directory"),
            environment: BTreeMap::new(),
            files_max: None,
            outputs: Arc::default(),
        };
        std::mem::replace(&mut self.setup, empty)
    }
}

/// Nothing that a broker of this setup let out, or put into its data, holds a secret (SEC-55). The
/// first start's file with its token is not looked at: it is there to be read, once.
impl Drop for Setup {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        secrets::harvest_files(self.dir.path());
        let log = fs::read(self.stderr_path()).unwrap_or_default();
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let data = secrets::data_of(&self.dir.path().join("data"));
        let data = data
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let outputs = [
            ("the log", log.as_slice()),
            ("stdout and figures", &outputs),
        ];
        secrets::expect_none(outputs.into_iter().chain(data));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.keep_figures();
        }
        // An error means that it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the broker's log\n{}\n---", self.stderr());
        }
    }
}

/// The program under test: the one cargo has just built, or another build of it (an installed
/// package, say) that `TOLLGATE_TEST_PROGRAM` names.
fn program() -> PathBuf {
    std::env::var_os("TOLLGATE_TEST_PROGRAM").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_tollgate")),
        PathBuf::from,
    )
}

fn json(arguments: &[&str], stdout: &str) -> Value {
    serde_json::from_str(stdout)
        .unwrap_or_else(|error| panic!("tollgate {arguments:?} printed {stdout:?}: {error}"))
}

/// Adds to what is looked through for secrets.
fn keep(outputs: &Mutex<Vec<u8>>, text: &[u8]) {
    let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
    outputs.extend_from_slice(text);
    outputs.push(b'\n');
}

/// `listening mqtt 127.0.0.1:1883` → name and address.
fn listener(line: &str) -> Option<(String, SocketAddr)> {
    let (name, address) = line.strip_prefix("listening ")?.split_once(' ')?;
    Some((name.to_owned(), address.parse().ok()?))
}
