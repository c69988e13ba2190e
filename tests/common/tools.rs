//! Outside programs that the tests drive. `scripts/setup` installs them; a missing one is a
//! failure, never a skipped test.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long an outside client may take for its whole errand.
const TOOL_LIMIT: Duration = Duration::from_secs(300);

/// The path of a program: `python` is the one of the local environment, `node` needs the
/// packages beside it, anything else is looked up in PATH.
///
/// # Panics
/// If it is not there.
pub(crate) fn tool(name: &str) -> PathBuf {
    let found = match name {
        "python" => Some(repository().join(".tools/python/bin/python")),
        "node" => clients_dir()
            .join("node_modules/mqtt")
            .exists()
            .then(|| in_path("node"))
            .flatten(),
        other => in_path(other),
    };
    match found {
        Some(path) if path.exists() => path,
        _ => panic!("{name} or its packages are missing: run scripts/setup"),
    }
}

/// The folder of the client programs of these tests.
pub(crate) fn clients_dir() -> PathBuf {
    repository().join("tests/clients")
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end.
///
/// # Panics
/// If it takes longer than [`TOOL_LIMIT`]; it is killed then.
pub(crate) fn run(command: &mut Command) -> Output {
    Running::start(command).finish()
}

/// A program that is still running. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    what: String,
    deadline: Instant,
    stdout: Reading,
    stderr: Reading,
}

/// What a program writes to one of its two streams, line by line as it comes.
struct Reading {
    lines: mpsc::Receiver<String>,
    text: String,
}

impl Running {
    /// Starts a program; it has [`TOOL_LIMIT`] for its whole errand.
    pub(crate) fn start(command: &mut Command) -> Running {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what} does not run: {error}"));
        let stdout = Reading::start(child.stdout.take().expect("asked to be a pipe"));
        let stderr = Reading::start(child.stderr.take().expect("asked to be a pipe"));
        let deadline = Instant::now() + TOOL_LIMIT;
        Running {
            child,
            what,
            deadline,
            stdout,
            stderr,
        }
    }

    /// Waits until it has printed a line with this text to stdout.
    ///
    /// # Panics
    /// If it ends without, or does not in time.
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        while !self.stdout.text.contains(text) {
            if let Err(error) = self.stdout.next(self.deadline) {
                panic!(
                    "{}: no line with {text:?} ({error}): {}",
                    self.what, self.stdout.text
                );
            }
        }
    }

    /// All that it has printed to stdout, after waiting a moment for more.
    ///
    /// # Panics
    /// If it has ended, or its time is over.
    pub(crate) fn seen(&mut self) -> &str {
        let soon = Instant::now() + Duration::from_millis(10);
        loop {
            match self.stdout.next(soon) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) if Instant::now() < self.deadline => break,
                Err(error) => panic!("{}: {error}: {}", self.what, self.stdout.text),
            }
        }
        &self.stdout.text
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// If it has not, and its time is over.
    pub(crate) fn is_running(&mut self) -> bool {
        let is_over = Instant::now() > self.deadline;
        assert!(!is_over, "{} does not end", self.what);
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time; it is killed then.
    pub(crate) fn finish(mut self) -> Output {
        for stream in [&mut self.stdout, &mut self.stderr] {
            loop {
                match stream.next(self.deadline) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        panic!("{} does not end; so far: {}", self.what, stream.text);
                    }
                }
            }
        }
        let status = self.child.wait().expect("the child can be waited for");
        let bytes = |stream: &mut Reading| std::mem::take(&mut stream.text).into_bytes();
        let (stdout, stderr) = (bytes(&mut self.stdout), bytes(&mut self.stderr));
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // an error means that it has ended already
        let _ = self.child.wait();
    }
}

impl Reading {
    /// Reads in a thread of its own, which ends with the pipe.
    fn start(pipe: impl Read + Send + 'static) -> Reading {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Reading {
            lines,
            text: String::new(),
        }
    }

    /// Takes the next line into the text.
    fn next(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left)?;
        self.text.push_str(&line);
        self.text.push('\n');
        Ok(())
    }
}

/// stdout and stderr of a program that has ended, as text.
pub(crate) fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file()))
}
