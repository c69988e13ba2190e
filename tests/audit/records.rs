//! What the tests read of the audit.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::broker::Broker;

/// How long something that must be told may take, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// All records, as `tollgate audit --json` prints them.
pub(crate) fn records(broker: &Broker) -> Vec<Value> {
    let text = cli_ok(broker, &["audit", "--json"]);
    let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    text.lines().map(read).collect()
}

/// What a command prints that must succeed. Where the broker is stopped, it finds that out: nobody
/// says where one would be.
fn cli_ok(broker: &Broker, arguments: &[&str]) -> String {
    let mut output = broker.cli(arguments);
    if output.status.code() == Some(5) {
        let mut command = broker.command(arguments);
        output = command.env_remove("TOLLGATE_ADMIN_URL").output().unwrap();
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Those that tell of changes, by event and name.
pub(crate) fn changes(records: &[Value]) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let of_changes = records.iter().filter(|record| record["change"].is_u64());
    let pair = |record| (text(record, "event"), text(record, "name"));
    of_changes.map(pair).collect()
}

/// `tollgate audit verify` must find nothing.
pub(crate) fn verify(broker: &Broker) -> Value {
    let report = cli_ok(broker, &["audit", "verify", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    for book in report["books"].as_array().unwrap() {
        assert_eq!(book["faults"].as_array().unwrap().len(), 0, "{report}");
    }
    report
}

/// The files of a book, oldest first.
pub(crate) fn files(broker: &Broker, book: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(broker.dir().join("data/audit")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_of_book = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.starts_with(book)
    };
    let mut paths: Vec<_> = paths.filter(is_of_book).collect();
    paths.sort();
    paths
}

/// A command that prints a JSON object a line, as they come. Ended when dropped.
pub(crate) struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Followed {
    pub(crate) fn start(mut command: Command) -> Followed {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let stdout = child.stdout.take().expect("it was asked to be a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Followed {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The next object that is as it should be; what comes before it is skipped.
    pub(crate) fn until(&mut self, is_right: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|e| panic!("{e}; seen: {:#?}", self.seen));
            self.seen.push(line.clone());
            let value: Value = serde_json::from_str(&line).expect("one JSON object a line");
            if is_right(&value) {
                return value;
            }
        }
    }
}

impl Followed {
    /// Whether such an object is among those that came so far.
    pub(crate) fn has_come(&mut self, is_right: impl Fn(&Value) -> bool) -> bool {
        self.seen
            .extend(self.lines.recv_timeout(Duration::from_millis(100)));
        let values = self
            .seen
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        values.into_iter().any(|value: Value| is_right(&value))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
