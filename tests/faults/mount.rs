//! Small file systems of our own, for tests that fill one up or make it read-only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A file system in memory; it goes with this value.
pub(crate) struct Mount {
    dir: TempDir,
}

impl Mount {
    /// A new one of so many MiB.
    ///
    /// # Panics
    /// If this process may not mount.
    pub(crate) fn tmpfs(mib: u32) -> Mount {
        let dir = TempDir::with_prefix("tollgate-mount-").expect("a temporary directory");
        let options = format!("size={mib}m,mode=0700");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let output = mount(&arguments, dir.path());
        assert!(
            output.status.success(),
            "this test needs a small file system of its own and may not mount one: {}. Run the \
             tests as root, or as root of a namespace: unshare --map-root-user --mount cargo test \
             --test faults",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Mount { dir }
    }

    /// A folder on it, made if missing.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("the file system takes a folder");
        path
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Nothing can be written any more.
    pub(crate) fn read_only(&self) {
        let output = mount(&["-o", "remount,ro"], self.dir.path());
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a broker that is about to end may still have files open.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .output();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Output {
    let mut command = Command::new("mount");
    command.args(arguments).arg(at);
    command.output().expect("this test needs the mount command")
}
