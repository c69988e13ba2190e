//! Where the fixtures are, and how one becomes a broker's folders.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::common::broker::{Broker, Setup};

/// The folder of a fixture.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/formats")
        .join(name)
}

/// Copies the files with the modes that git does not keep.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Keeps the two secrets without which nothing of the fixture can be used.
pub(crate) fn copy_secrets(broker: &Broker, name: &str) {
    let secrets = folder(name).join("secrets");
    fs::create_dir_all(&secrets).unwrap();
    for name in ["registry.key", "admin.token"] {
        fs::copy(broker.dir().join("secrets").join(name), secrets.join(name)).unwrap();
    }
}

/// Leaves out what a segment or the ballast is filled ahead with.
pub(crate) fn cut_segments(data: &Path) {
    for entry in fs::read_dir(data.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0);
        match end {
            Some(end) if path.extension().is_some_and(|ending| ending == "journal") => {
                bytes.truncate((end + 4096) & !4095);
                fs::write(&path, bytes).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
    }
}

/// A broker that is to start on a copy of the fixture.
pub(crate) fn setup(name: &str) -> Setup {
    let setup = Setup::new();
    for part in ["data", "secrets"] {
        copy(&folder(name).join(part), &setup.dir().join(part));
    }
    setup
}
