//! A file system without room for the audit.

use std::{fs, os::unix::fs::DirBuilderExt as _, time::Instant};

use super::{
    mount::Mount,
    records::{LIMIT, changes, records, verify},
};
use crate::common::{
    broker::Setup,
    packets::{Connect, TELEMETRY, Version, log_in, publish},
};

/// Changes are made and answered, telemetry is acknowledged, and what was changed is told when
/// there is room again, also after a `kill -9` and a start without room.
#[test]
fn rel_28_a_full_disk_keeps_nobody_waiting_and_loses_no_change() {
    let mount = Mount::tmpfs(1);
    let setup = Setup::new();
    let data = setup.dir().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    std::os::unix::fs::symlink(mount.path(), data.join("audit")).unwrap();
    let mut broker = setup.start();
    let token = broker.create_device("before");
    verify(&broker);
    let filler = mount.path().join("filler");
    let mut bytes = 1 << 20;
    let mut filled = Vec::new();
    while bytes > 0 {
        filled.resize(filled.len() + bytes, 0_u8);
        if fs::write(&filler, &filled).is_err() {
            let room = fs::metadata(&filler).unwrap().len();
            filled.truncate(usize::try_from(room).unwrap());
            bytes /= 2;
        }
    }
    // The last page of a file may have room: until nothing is written any more.
    let mut names = vec!["before".to_owned()];
    let deadline = Instant::now() + LIMIT;
    while broker.metric("tollgate_audit_waiting_changes") == 0.0 {
        assert!(Instant::now() < deadline, "the file system is not full");
        names.push(format!("n{}", names.len()));
        broker.create_device(names.last().unwrap());
    }
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(Version::V311, "c", &token));
    wire.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"a":1}"#));
    assert_eq!(wire.packet()[0], 0x40, "telemetry does not wait");
    broker.revoke("before");
    assert_eq!(broker.metric("tollgate_audit_failed"), 1.0);
    broker.kill9();
    broker.restart();
    names.push("after".to_owned());
    broker.create_device("after");
    assert!(broker.metric("tollgate_audit_waiting_changes") >= 2.0);
    fs::remove_file(&filler).unwrap();
    broker.wait_metric_until("tollgate_audit_waiting_changes", |waiting| waiting == 0.0);
    let told = changes(&records(&broker));
    let created: Vec<_> = told
        .iter()
        .filter(|(event, _)| event == "created")
        .collect();
    let created: Vec<_> = created
        .iter()
        .skip(1)
        .map(|(_, name)| name.clone())
        .collect();
    assert_eq!(created, names);
    assert!(told.contains(&("revoked".to_owned(), "before".to_owned())));
    verify(&broker);
}
