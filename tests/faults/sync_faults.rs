//! A broker whose syncs do what the test says, by a library that is loaded before the C library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{broker::Setup, tools};

/// How long the broker may take to come to a sync.
const HELD_LIMIT: Duration = Duration::from_secs(60);

/// The control of one broker's journal syncs.
pub(crate) struct SyncFaults {
    dir: TempDir,
}

impl SyncFaults {
    /// Puts the broker of this setup under control; until told otherwise nothing is different.
    pub(crate) fn on(setup: Setup) -> (Setup, SyncFaults) {
        let dir = TempDir::with_prefix("tollgate-sync-").expect("a temporary directory");
        let faults = SyncFaults { dir };
        let control = faults.control();
        let setup = setup
            .set("LD_PRELOAD", text(library()))
            .set("SYNC_FAULTS_UNDER", "/journal/")
            .set("SYNC_FAULTS_CONTROL", text(&control));
        (setup, faults)
    }

    /// Each sync takes so much longer.
    pub(crate) fn delay(&self, by: Duration) {
        self.order(&format!("delay {}", by.as_millis()));
    }

    /// Each sync waits until another order.
    pub(crate) fn hold(&self) {
        self.order("hold 0");
    }

    /// The n-th sync from now on fails, and every later one.
    pub(crate) fn fail(&self, n: u32) {
        self.order(&format!("fail {n}"));
    }

    /// Back to normal.
    pub(crate) fn clear(&self) {
        self.order("");
    }

    /// Waits until a sync is held.
    pub(crate) fn until_held(&self) {
        let held = self.dir.path().join("control.held");
        let deadline = Instant::now() + HELD_LIMIT;
        while !held.exists() {
            assert!(Instant::now() < deadline, "the journal was not synced");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// The file is replaced in one step, so that no half of an order is read.
    fn order(&self, order: &str) {
        let next = self.dir.path().join("control.next");
        fs::write(&next, order).expect("the order can be written");
        fs::rename(&next, self.control()).expect("the order can be given");
    }
}

/// The library, built by the first test that wants it. It lies in the folder for what tests build,
/// where the next run replaces it.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = folder.join(format!("sync_faults-{}.so", std::process::id()));
        let source = tools::repository().join("tests/faults/sync_faults.c");
        let mut compiler = Command::new(tools::tool("cc"));
        compiler
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&built, &source])
            .args(["-ldl", "-lpthread"]);
        let output = tools::run(&mut compiler);
        assert!(output.status.success(), "{:?}", tools::printed(&output));
        // In one step: another run may be using the one that is there.
        let path = folder.join("sync_faults.so");
        fs::rename(&built, &path).expect("both are in one folder");
        path
    })
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
