//! What people do.

use std::fs;

use serde_json::Value;

use super::records::{LIMIT, changes, files, records, verify};
use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, Version},
};

fn strangers_call(broker: &Broker, path: &str, token: &str) -> u16 {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let request = agent.post(format!("{}{path}", broker.admin_url()));
    let request = request.header("authorization", format!("Bearer {token}"));
    request.send_empty().expect("an answer").status().as_u16()
}

/// Create, rotate, scope, revoke, delete, import; of devices and applications; who asked, in the
/// order in which it was done, and no token anywhere.
#[test]
fn sec_56_every_change_is_told_in_order_with_who_asked() {
    let broker = Broker::start();
    let mut secrets = vec![broker.create_device("boiler")];
    let rotated = broker.cli_json(&["device", "rotate", "boiler", "--grace", "0s", "--json"]);
    secrets.push(rotated["token"].as_str().unwrap().to_owned());
    broker.cli_ok(&["device", "scope", "boiler", "--publish", "site/%n/#"]);
    broker.cli_ok(&["device", "revoke", "boiler"]);
    let app = broker.cli_json(&["app", "create", "viewer", "--subscribe", "site/#", "--json"]);
    secrets.push(app["token"].as_str().unwrap().to_owned());
    broker.cli_ok(&["app", "delete", "viewer"]);
    broker.cli_ok(&["device", "delete", "boiler"]);
    let rows = broker.dir().join("devices.csv");
    fs::write(&rows, "name,token\nfrom-file,AAAAAAAAAAAAAAAAAAAA1\n").unwrap();
    broker.cli_ok(&["device", "import", rows.to_str().unwrap()]);
    secrets.push("AAAAAAAAAAAAAAAAAAAA1".to_owned());

    let records = records(&broker);
    let told: Vec<_> = changes(&records);
    let told: Vec<_> = told
        .iter()
        .map(|(event, name)| (&**event, &**name))
        .collect();
    let expected = [
        ("created", "first-device"),
        ("created", "boiler"),
        ("rotated", "boiler"),
        ("scope_changed", "boiler"),
        ("revoked", "boiler"),
        ("created", "viewer"),
        ("deleted", "viewer"),
        ("deleted", "boiler"),
        ("imported", ""),
    ];
    assert_eq!(told, expected);
    let of = |event: &str, name: &str| -> &Value {
        let mut found = records
            .iter()
            .filter(|r| r["event"] == event && r["name"] == name);
        found.next().unwrap_or_else(|| panic!("{event} {name}"))
    };
    assert_eq!(of("created", "first-device")["by"], "tollgate");
    let rotated = of("rotated", "boiler");
    assert_eq!(
        (&rotated["by"], &rotated["from"]),
        (&"admin".into(), &"127.0.0.1".into())
    );
    assert_eq!(rotated["ended"][0], of("created", "boiler")["credential"]);
    assert_eq!(of("revoked", "boiler")["ended"][0], rotated["credential"]);
    assert_eq!(of("scope_changed", "boiler")["publish"][0], "site/%n/#");
    assert_eq!(records[0]["event"], "started");
    let calls = records.iter().filter(|record| record["event"] == "call");
    let revoke = calls
        .clone()
        .find(|call| call["endpoint"] == "/admin/v1/devices/{device}/revoke");
    assert_eq!(revoke.expect("the call")["status"], 200);
    verify(&broker);
    for path in files(&broker, "") {
        let text = fs::read_to_string(path).unwrap();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()));
        }
    }
}

#[test]
fn sec_56_refused_calls_are_told_and_name_no_secret() {
    let broker = Broker::start();
    assert_eq!(
        strangers_call(&broker, "/admin/v1/devices/tgd_Secret/revoke", "tga_Wrong"),
        401
    );
    assert_eq!(
        strangers_call(&broker, "/nothing/tgd_Secret", "tga_Wrong"),
        401
    );
    assert!(!broker.cli(&["device", "revoke", "nobody"]).status.success());
    let records = records(&broker);
    let refused: Vec<_> = records
        .iter()
        .filter(|r| r["event"] == "call_refused")
        .collect();
    assert_eq!(refused[0]["endpoint"], "/admin/v1/devices/{device}/revoke");
    assert_eq!(
        (&refused[0]["reason"], &refused[1]["endpoint"]),
        (&"unauthorized".into(), &"none".into())
    );
    let failed = records
        .iter()
        .find(|r| r["event"] == "call" && r["status"] == 404);
    assert_eq!(failed.expect("the call")["by"], "admin");
    for book in ["admin", "access"] {
        let text = fs::read_to_string(&files(&broker, book)[0]).unwrap();
        assert!(
            !text.contains("Secret") && !text.contains("Wrong"),
            "{text}"
        );
    }
}

/// With the broker stopped, the same commands read the files; damage is named with file and byte.
#[test]
fn sec_56_damage_is_told_with_its_place_while_stopped_and_at_the_next_start() {
    let mut broker = Broker::start();
    for name in ["a", "b", "c"] {
        broker.create_device(name);
    }
    let report = verify(&broker);
    let last = report["books"][0]["last"].as_str().unwrap().to_owned();
    assert_eq!(broker.stop(), 0);
    let stopped = records(&broker);
    assert_eq!(stopped.last().unwrap()["event"], "stopped");
    assert_eq!(changes(&stopped).len(), 4);
    verify(&broker);
    let expected = ["audit", "verify", "--expect", &last];
    broker.cli_ok(&expected);

    let path = files(&broker, "admin").pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let line = whole
        .windows(10)
        .position(|part| part == b"\"name\":\"b\"")
        .unwrap();
    let mut bad = whole.clone();
    bad[line + 8] = b'x';
    fs::write(&path, &bad).unwrap();
    let start = whole[..line]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    let output = broker.cli(&["audit", "verify"]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    let place = format!("{} at byte {start}", path.display());
    assert!(stdout.contains(&place), "{stdout} should name {place}");

    // The end that somebody cut off, at a record's end: the chain is whole, the database knows, and
    // so does whoever noted the last record.
    let keep = whole
        .split_inclusive(|b| *b == b'\n')
        .take(2)
        .map(<[u8]>::len)
        .sum::<usize>();
    fs::write(&path, &whole[..keep]).unwrap();
    let stopped = broker.dir().join("data/state.db");
    for arguments in [&expected[..], &expected[..2]] {
        let output = broker.cli(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains("the end is missing"), "{stdout}");
    }
    // Without the database it says that it cannot know.
    let aside = broker.dir().join("aside.db");
    fs::rename(&stopped, &aside).unwrap();
    let said = broker.cli_ok(&["audit", "verify"]);
    assert!(said.contains("whether records are missing"), "{said}");
    fs::rename(&aside, &stopped).unwrap();
    broker.restart();
    let told = records(&broker);
    assert!(told.iter().any(|r| r["event"] == "damaged"), "{told:#?}");
    assert_eq!(
        fs::read(&path).unwrap(),
        &whole[..keep],
        "evidence stays as it is"
    );
}

/// Files that somebody takes away, or cuts, under a running broker.
#[test]
fn sec_56_what_goes_from_under_a_running_broker_is_missed() {
    let broker = Broker::start();
    broker.create_device("a");
    verify(&broker);
    let path = files(&broker, "admin").pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // Each of the changes notes how far the books were before it.
    broker.create_device("b");
    let aside = broker.dir().join("aside");
    for cut in [None, Some(0), Some(first), Some(first + 20)] {
        fs::rename(&path, &aside).unwrap();
        if let Some(cut) = cut {
            fs::write(&path, &whole[..cut]).unwrap();
        }
        let output = broker.cli(&["audit", "verify"]);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "cut at {cut:?}: {stdout}");
        fs::rename(&aside, &path).unwrap();
    }
    verify(&broker);
}

/// SEC-71, SEC-42: a reload is told, and one that cannot be used as well.
#[test]
fn sec_71_reloads_of_certificates_are_told() {
    let broker = Setup::new()
        .set("TOLLGATE_CERTS_CHECK_INTERVAL_S", "0")
        .start();
    broker.signal(rustix::process::Signal::HUP);
    broker.wait_metric("tollgate_certificate_reloads_total", 1.0);
    fs::write(broker.dir().join("certs/server.pem"), "no certificate").unwrap();
    broker.signal(rustix::process::Signal::HUP);
    broker.wait_metric("tollgate_certificate_reload_failures_total", 1.0);
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let records = records(&broker);
        let events: Vec<_> = records
            .iter()
            .map(|r| r["event"].as_str().unwrap())
            .collect();
        let reload = events
            .iter()
            .position(|event| *event == "certificates_reloaded");
        let kept = events
            .iter()
            .position(|event| *event == "certificates_kept");
        if let (Some(reload), Some(kept)) = (reload, kept) {
            assert!(reload < kept);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{events:?}");
    }
}

/// A client id and a name are what anybody may choose (S-23).
#[test]
fn s_23_names_and_client_ids_stay_one_record_each() {
    let broker = Broker::start();
    let token = broker.create_device("a\"{}\\ \u{202e}b");
    let evil = "x\u{202e}\"},{\"event\":\"created\",\"change\":1,\"y\":\"";
    for token in [token.as_str(), "unknown"] {
        let mut wire = broker.wire();
        wire.send(&Connect::with_token(Version::V5, evil, token).encode());
        wire.packet();
    }
    let records = records(&broker);
    let with_id: Vec<_> = records.iter().filter(|r| r["client_id"] == evil).collect();
    assert_eq!(with_id.len(), 2, "{records:#?}");
    assert_eq!(with_id[0]["event"], "connected");
    assert_eq!(with_id[1]["event"], "refused");
    verify(&broker);
    let shown = broker.cli_ok(&["audit"]);
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    assert_eq!(shown.lines().count(), self::records(&broker).len());
}
