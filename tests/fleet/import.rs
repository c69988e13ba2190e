//! `tollgate device import` and `export`, end to end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, Version, log_in, publish, reason},
};

/// The broker said no, and nothing changed.
const REFUSED: i32 = 6;

/// Bad rows were left out.
const IN_PART: i32 = 7;

/// Writes a file into the broker's directory.
fn file(broker: &Broker, name: &str, text: &str) -> PathBuf {
    let path = broker.dir().join(name);
    fs::write(&path, text).expect("a file can be written");
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn import(broker: &Broker, csv: &str, more: &[&str]) -> Output {
    let path = file(broker, "fleet.csv", csv);
    let path = path.to_str().expect("temporary paths are UTF-8");
    broker.cli(&[&["device", "import", path], more].concat())
}

fn names(broker: &Broker) -> Vec<String> {
    let devices = broker.cli_json(&["device", "list", "--json"]);
    let devices = devices["devices"].as_array().expect("a list");
    let name = |device: &serde_json::Value| device["name"].as_str().expect("a name").to_owned();
    devices.iter().map(name).collect()
}

#[test]
fn a_file_becomes_a_fleet_that_connects_and_survives_a_kill() {
    let mut broker = Broker::start();
    let id = "0f4cbe07-41c1-4a4d-9d4b-9b6e8fbb2c11";
    let csv = format!(
        "\u{feff}Label,token,name,ID,profile\r\n\
         \"Halle 1, Tor \"\"A\"\"\",token-of-gate-1,gate 1,,\r\n\
         ,token-of-gate-2,Tör/2,{id},pump\r\n"
    );
    let output = import(&broker, &csv, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "imported 2 devices, skipped 0 rows\n");
    broker.kill9();
    broker.restart();
    for (token, name) in [("token-of-gate-1", "gate 1"), ("token-of-gate-2", "Tör/2")] {
        let mut wire = broker.wire();
        log_in(&mut wire, &Connect::with_token(Version::V311, "a", token));
        wire.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"a":1}"#));
        wire.expect("40020001");
        assert_eq!(broker.points(name).len(), 1);
    }
    let shown = broker.cli_json(&["device", "show", id, "--json"]);
    assert_eq!(shown["profile"], "pump");
    assert_eq!(shown["label"], "");
    let shown = broker.cli_json(&["device", "show", "gate 1", "--json"]);
    assert_eq!(shown["profile"], "default");
    assert_eq!(shown["label"], "Halle 1, Tor \"A\"");
    assert_eq!(shown["credentials"][0]["chosen"], true);
    // A revocation works on an imported device as on any other.
    broker.revoke("Tör/2");
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V5, "a", "token-of-gate-2").encode());
    assert_eq!(reason(&wire.packet()), 0x86);
}

#[test]
fn made_tokens_are_written_to_a_file_of_their_own_and_work() {
    let broker = Broker::start();
    let csv = "name,token\na,\nb,token-of-device-b\nc,\n";
    let output = import(&broker, csv, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("line 2, column token: is empty"), "{said}");
    assert!(said.contains("--tokens-out"), "{said}");

    let tokens = broker.dir().join("tokens.csv");
    let out = tokens.to_str().expect("temporary paths are UTF-8");
    let output = import(&broker, csv, &["--tokens-out", out]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mode = fs::metadata(&tokens)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let made = fs::read_to_string(&tokens).expect("it can be read");
    let rows: Vec<(&str, &str)> = made
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once(','))
        .collect();
    let of: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(of, ["a", "c"]);
    for (name, token) in rows {
        assert!(token.starts_with("tgd_"), "{name}");
        log_in(
            &mut broker.wire(),
            &Connect::with_token(Version::V5, "x", token),
        );
        let shown = broker.cli_json(&["device", "show", name, "--json"]);
        assert_eq!(shown["credentials"][0]["chosen"], false);
    }
    // Another import does not overwrite them, and is not done.
    let output = import(&broker, "name\nd\n", &["--tokens-out", out]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("tokens.csv"), "{output:?}");
    assert_eq!(fs::read_to_string(&tokens).expect("it is there"), made);
    assert!(!names(&broker).contains(&"d".to_owned()));
}

/// Every kind of bad row, with its line and column; and nothing is imported.
#[test]
fn bad_rows_are_named_by_line_and_column_and_nothing_is_imported() {
    let broker = Broker::start();
    let before = names(&broker);
    let long = "x".repeat(256);
    let csv = format!(
        "name,token,id,profile,label\n\
         good,token-of-good-one,,,\n\
         \"a\nb\",token-number-two,,,\n\
         three,tga_x,,,\n\
         four,token-number-four,no-id,,\n\
         good,token-number-five,,,\n\
         six,token-of-good-one,,,\n\
         seven,token-number-seven,,{long},\n\
         eight,token-number-eight,,,{long}\n"
    );
    let output = import(&broker, &csv, &[]);
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    let said = text(&output.stderr);
    for words in [
        "line 3, column name: has a control character",
        "line 5, column token: is an administrator's or application's token",
        "line 6, column id: is no id",
        "line 7, column name: is that of line 2 already",
        "line 8, column token: is that of line 2 already",
        "line 9, column profile: has 256 bytes",
        "line 10, column label: has 256 characters",
        "--skip-bad",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(!said.contains("line 2,"), "{said}");
    assert_eq!(names(&broker), before, "all or nothing");
}

/// What only the broker's database knows; then the same file without its bad rows.
#[test]
fn rows_that_collide_with_devices_are_named_and_can_be_skipped() {
    let broker = Broker::start();
    broker.create_device_with_token("taken", "token-that-is-taken");
    broker.cli_ok(&["device", "create", "gone"]);
    let gone = broker.cli_json(&["device", "show", "gone", "--json"]);
    let gone = gone["id"].as_str().expect("an id").to_owned();
    broker.cli_ok(&["device", "delete", "gone"]);
    let before = names(&broker);
    let csv = format!(
        "name,token,id\n\
         taken,token-number-one,\n\
         two,token-that-is-taken,\n\
         three,token-number-three,{gone}\n\
         fine,token-of-a-fine-one,\n"
    );
    let output = import(&broker, &csv, &[]);
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    let said = text(&output.stderr);
    for words in [
        "line 2, column name: is that of another device",
        "line 3, column token: is or was that of another device",
        "line 4, column id: is or was that of another device",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(!said.contains("token-that-is-taken"), "SEC-55: {said}");
    assert_eq!(names(&broker), before, "all or nothing");
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V5, "x", "token-of-a-fine-one").encode());
    assert_eq!(reason(&wire.packet()), 0x86);
    // The same with --skip-bad: the good row alone.
    let output = import(&broker, &csv, &["--skip-bad"]);
    assert_eq!(output.status.code(), Some(IN_PART), "{output:?}");
    assert_eq!(text(&output.stdout), "imported 1 devices, skipped 3 rows\n");
    let said = text(&output.stderr);
    assert_eq!(said.matches("skipped: ").count(), 3, "{said}");
    log_in(
        &mut broker.wire(),
        &Connect::with_token(Version::V5, "x", "token-of-a-fine-one"),
    );
    assert_eq!(names(&broker).len(), before.len() + 1);
}

#[test]
fn skipped_rows_leave_no_token_in_the_file_of_tokens() {
    let broker = Broker::start();
    broker.create_device_with_token("taken", "token-that-is-taken");
    let tokens = broker.dir().join("tokens.csv");
    let out = tokens.to_str().expect("temporary paths are UTF-8");
    let csv = "name,label\ntaken,x\nshort\nnew,y\n";
    let output = import(&broker, csv, &["--skip-bad", "--tokens-out", out]);
    assert_eq!(output.status.code(), Some(IN_PART), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("line 3: has 1 fields, the first line names 2"),
        "{said}"
    );
    let made = fs::read_to_string(&tokens).expect("it can be read");
    let names: Vec<&str> = made
        .lines()
        .filter_map(|line| line.split(',').next())
        .collect();
    assert_eq!(names, ["name", "new"]);
    // Refused as a whole: no file stays.
    let other = broker.dir().join("other.csv");
    let out = other.to_str().expect("temporary paths are UTF-8");
    let output = import(&broker, "name\ntaken\n", &["--tokens-out", out]);
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    assert!(!other.exists());
}

/// Where nothing is left to import, nothing is said to be, and no file without a token stays.
#[test]
fn when_every_row_is_skipped_nothing_is_said_to_be_imported() {
    let broker = Broker::start();
    broker.create_device_with_token("taken", "token-that-is-taken");
    let before = names(&broker);
    let tokens = broker.dir().join("tokens.csv");
    let out = tokens.to_str().expect("temporary paths are UTF-8");
    let more = ["--skip-bad", "--tokens-out", out];
    // By the broker, and before it is asked.
    for (csv, rows) in [
        ("name,label\ntaken,x\nshort\n", 2),
        ("name,label\nshort\n", 1),
    ] {
        let output = import(&broker, csv, &more);
        assert_eq!(output.status.code(), Some(IN_PART), "{output:?}");
        let said = text(&output.stderr);
        let words = format!("nothing was imported: all {rows} rows were skipped");
        assert!(
            said.contains(&words) && !said.contains("all others"),
            "{said}"
        );
        let words = format!("imported 0 devices, skipped {rows} rows\n");
        assert_eq!(text(&output.stdout), words);
        assert!(!tokens.exists(), "a file without a token stays");
        assert_eq!(names(&broker), before);
    }
    // One came with a token of its own: none was made.
    let csv = "name,token\ntaken,\nown,token-of-its-own\n";
    let output = import(&broker, csv, &more);
    assert_eq!(output.status.code(), Some(IN_PART), "{output:?}");
    assert_eq!(text(&output.stdout), "imported 1 devices, skipped 1 rows\n");
    assert!(text(&output.stderr).contains("all others are imported"));
    assert!(!tokens.exists(), "a file without a token stays");
}

/// Whoever imports what was exported here is told what these rows are, not to delete the devices.
#[test]
fn an_export_that_comes_back_to_its_broker_is_told_what_it_is() {
    let broker = Broker::start();
    broker.create_device("pump");
    broker.create_device("ended");
    broker.revoke("ended");
    let export = broker.cli_ok(&["device", "export"]);
    let output = import(&broker, &export, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    for words in [
        "has no column token, as an export of devices has none",
        "--tokens-out",
        "also one whose token was revoked, unless you take its row out",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    let tokens = broker.dir().join("tokens.csv");
    let out = tokens.to_str().expect("temporary paths are UTF-8");
    let output = import(&broker, &export, &["--tokens-out", out]);
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    let said = text(&output.stderr);
    let itself = "column name: is that of this device, which is here already; leave its row out";
    assert_eq!(said.matches(itself).count(), 3, "{said}");
    assert!(!said.contains("delete"), "{said}");
    // With the name of one and the id of another it is neither.
    let mixed = export.replace("pump,", "moved,").replace("ended,", "pump,");
    let output = import(&broker, &mixed, &["--tokens-out", out]);
    let said = text(&output.stderr);
    assert!(
        said.contains("column id: is or was that of another device"),
        "{said}"
    );
    assert!(
        said.contains("column name: is that of another device"),
        "{said}"
    );
}

/// A client that dies in the middle of its rows has imported none of them.
#[test]
fn a_body_that_breaks_off_imports_nothing() {
    let broker = Broker::start();
    let admin = fs::read_to_string(broker.dir().join("secrets/admin.token")).expect("a file");
    let row = "{\"name\":\"half\",\"token\":\"token-of-half-a-fleet\"}\n";
    let chunk = format!("{:x}\r\n{row}\r\n", row.len());
    for (length, body) in [
        ("Content-Length: 1000", row),
        ("Transfer-Encoding: chunked", &chunk),
    ] {
        let mut socket = TcpStream::connect(broker.address("http")).expect("it listens");
        let request = format!(
            "POST /admin/v1/bulk/devices HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \
             {}\r\nContent-Type: application/x-ndjson\r\n{length}\r\n\r\n{body}",
            admin.trim()
        );
        socket.write_all(request.as_bytes()).expect("it is read");
        socket.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        // Whatever it says to somebody who is gone.
        let _ = socket.read_to_end(&mut answer);
        assert!(!text(&answer).starts_with("HTTP/1.1 200"), "{length}");
        broker.create_device(&format!("behind {length}"));
        assert!(!names(&broker).contains(&"half".to_owned()), "{length}");
    }
}

#[test]
fn a_header_that_is_wrong_is_refused_with_the_columns_there_are() {
    let broker = Broker::start();
    for (csv, words) in [
        ("", "there is no column name"),
        ("token\nx\n", "there is no column name"),
        ("name,tokn\na,b\n", "column 2"),
        ("name,NAME\na,b\n", "column 2: name stands there twice"),
        ("name\n", "holds no rows"),
    ] {
        let output = import(&broker, csv, &[]);
        assert_eq!(output.status.code(), Some(2), "{csv:?}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
}

#[test]
fn an_export_holds_no_secret_and_can_be_imported_elsewhere() {
    let broker = Broker::start();
    let csv = "name,token,profile,label,subscribe,publish\n\
               \"a, b\",token-of-device-a,p,\"l \"\"1\"\"\",\"site/%d/#;x, y\",\n\
               c,token-of-device-c,,,,%n/out\n";
    assert!(import(&broker, csv, &[]).status.success());
    let path = broker.dir().join("export.csv");
    let out = path.to_str().expect("temporary paths are UTF-8");
    broker.cli_ok(&["device", "export", out]);
    let export = fs::read_to_string(&path).expect("it can be read");
    // It replaces no file, unless it is told to.
    fs::write(&path, "of value").expect("it can be written");
    let output = broker.cli(&["device", "export", out]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("exists already; name another file, or replace it with --force"));
    assert_eq!(fs::read(&path).expect("it is there"), b"of value");
    broker.cli_ok(&["device", "export", out, "--force"]);
    assert_eq!(fs::read_to_string(&path).expect("it can be read"), export);
    assert_eq!(broker.cli_ok(&["device", "export"]), export);
    assert!(!export.contains("token-of"), "{export}");
    assert!(
        export.contains(",,\"site/%d/#;x, y\",,") && export.contains(",%n/out,,"),
        "{export}"
    );
    let shown = broker.cli_json(&["device", "show", "a, b", "--json"]);
    assert_eq!(shown["subscribe"], serde_json::json!(["site/%d/#", "x, y"]));
    assert!(
        export.starts_with(
            "name,id,profile,label,publish,subscribe,not_before,expires,rights,networks,\
             connections_max,messages_max,certificate\n"
        ),
        "{export}"
    );
    let other = Broker::start();
    other.cli_ok(&["device", "delete", "first-device"]);
    let tokens = other.dir().join("tokens.csv");
    let tokens = tokens.to_str().expect("temporary paths are UTF-8");
    // From standard input.
    let mut child = other
        .command(&["device", "import", "-", "--tokens-out", tokens])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("it was asked for");
    input.write_all(export.as_bytes()).expect("it reads");
    drop(input);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(other.cli_ok(&["device", "export"]), export);
}

/// Many rows, over several pieces of the body and several pages of the export.
#[test]
fn twenty_thousand_devices_go_in_and_out_in_order() {
    use std::fmt::Write as _;
    const DEVICES: usize = 20_000;

    let broker = Broker::start();
    let mut csv = "name,token\n".to_owned();
    for number in 0..DEVICES {
        let _ = writeln!(csv, "meter {number:06},token-of-meter-{number:06}");
    }
    assert!(import(&broker, &csv, &[]).status.success());
    let export = broker.cli_ok(&["device", "export"]);
    let mut lines: Vec<&str> = export.lines().collect();
    assert_eq!(lines.len(), DEVICES + 2); // the heading and the first device
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), DEVICES + 2);
    for number in [0, 9_999, 10_000, DEVICES - 1] {
        let token = format!("token-of-meter-{number:06}");
        log_in(
            &mut broker.wire(),
            &Connect::with_token(Version::V311, "a", &token),
        );
    }
}
