//! What a service manager hears, and the unit file that it is given.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::broker::Setup;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/tollgate.service");

/// How long a message may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A setup that reports to a socket of the test.
fn supervised() -> (Setup, UnixDatagram) {
    let setup = Setup::new();
    let path = setup.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    socket
        .set_read_timeout(Some(LIMIT))
        .expect("it is not zero");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (setup.set("NOTIFY_SOCKET", &path), socket)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 512];
    let len = loop {
        match socket.recv(&mut message) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {} // the machine was halted
            received => break received.expect("a message in time"),
        }
    };
    String::from_utf8_lossy(&message[..len]).trim().to_owned()
}

#[test]
fn ready_is_said_when_it_listens_and_stopping_when_it_stops() {
    let (setup, socket) = supervised();
    let mut broker = setup.set("WATCHDOG_USEC", "100000").start();
    assert_eq!(heard(&socket), "READY=1");
    for listener in ["mqtt", "mqtts", "http"] {
        TcpStream::connect(broker.address(listener)).expect("it listens");
    }
    // Twice: it goes on.
    assert_eq!(heard(&socket), "WATCHDOG=1");
    assert_eq!(heard(&socket), "WATCHDOG=1");
    assert_eq!(broker.stop(), 0);
    let mut last = heard(&socket);
    while last == "WATCHDOG=1" {
        last = heard(&socket);
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn a_start_that_is_refused_is_never_ready() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (setup, socket) = supervised();
    let refused = setup.set("TOLLGATE_HTTP_LISTEN", &address).try_start();
    assert!(refused.is_err());
    // The process has ended: what it said is in the socket.
    socket.set_nonblocking(true).expect("it is a socket");
    let mut message = [0; 512];
    assert!(socket.recv(&mut message).is_err(), "it said something");
}

/// Checked by systemd itself where it is installed; here or there, the lines that matter.
#[test]
fn the_unit_file_is_sound() {
    let unit = fs::read_to_string(UNIT).expect("the unit file is there");
    for line in [
        "Type=notify",
        "RestartPreventExitStatus=2 4",
        "LimitNOFILE=1048576",
        "LimitCORE=0",
        "UMask=0077",
        "DynamicUser=yes",
        "StateDirectoryMode=0700",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        eprintln!("systemd-analyze is not installed: only the lines were checked");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The program must exist for systemd to be content.
    let program = env!("CARGO_BIN_EXE_tollgate");
    let here = dir.path().join("tollgate.service");
    fs::write(&here, unit.replace("/usr/local/bin/tollgate", program)).expect("a file");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&here)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let about_us: Vec<&str> = said
        .lines()
        .filter(|l| l.contains("tollgate.service"))
        .collect();
    assert!(output.status.success() && about_us.is_empty(), "{said}");
}
