//! Outside programs that the tests drive. `scripts/setup` installs them; a missing one is a
//! failure, never a skipped test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long an outside client may take for its whole errand.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

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
/// If it takes longer than a minute; it is killed then.
pub(crate) fn run(command: &mut Command) -> Output {
    let what = format!("{command:?}");
    let mut child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what} does not run: {error}"));
    let deadline = Instant::now() + TOOL_LIMIT;
    // Their output fits a pipe, so nothing needs to be read before the end.
    while child
        .try_wait()
        .expect("the child can be waited for")
        .is_none()
    {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let output = child.wait_with_output().expect("its pipes are ours");
            panic!("{what} does not end; so far: {output:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("its pipes are ours")
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
