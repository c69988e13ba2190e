//! The terms of tokens on their way out of one broker and into another (SEC-54).

use std::fs;

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, Version, log_in, publish, reason},
    wire::Wire,
};

/// MQTT 5: bad user name or password.
const BAD_TOKEN: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;
const QUOTA_EXCEEDED: u8 = 0x97;

fn import(broker: &Broker, csv: &str, more: &[&str]) -> std::process::Output {
    let path = broker.dir().join("fleet.csv");
    fs::write(&path, csv).expect("a file can be written");
    let path = path.to_str().expect("temporary paths are UTF-8");
    broker.cli(&[&["device", "import", path], more].concat())
}

fn export(broker: &Broker) -> String {
    broker.cli_ok(&["device", "export"])
}

/// What CONNACK says to a token.
fn answer(broker: &Broker, token: &str) -> (Wire, u8) {
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V5, "c", token).encode());
    let code = reason(&wire.packet());
    (wire, code)
}

/// What a token is worth, without what is another in every broker.
fn check(broker: &Broker, token: &str) -> serde_json::Value {
    let mut report = broker.cli_json(&["token", "check", token, "--json"]);
    let fields = report.as_object_mut().expect("an object");
    for own in ["credential", "since_ms", "refused"] {
        fields.remove(own);
    }
    report
}

/// Names and tokens that an import made.
fn made(broker: &Broker) -> Vec<(String, String)> {
    let text = fs::read_to_string(broker.dir().join("tokens.csv")).expect("it can be read");
    let rows = text.lines().skip(1).filter_map(|row| row.split_once(','));
    rows.map(|(name, token)| (name.to_owned(), token.to_owned()))
        .collect()
}

/// Into a fresh broker, with tokens that are made there.
fn move_to_another(csv: &str) -> Broker {
    let other = Broker::start();
    other.cli_ok(&["device", "delete", "first-device"]);
    let tokens = other.dir().join("tokens.csv");
    let tokens = tokens.to_str().expect("temporary paths are UTF-8");
    let output = import(&other, csv, &["--tokens-out", tokens]);
    assert!(output.status.success(), "{output:?}");
    other
}

const FLEET: &str = "\
    name,token,not_before,expires,rights,networks,connections_max,messages_max,publish,\
    certificate\n\
    any,token-of-any,,,,,,,,\n\
    later,token-of-later,2100-01-01T00:00:00.250Z,2101-01-01T00:00:00Z,all,,,,,\n\
    ends,token-of-ends,,90d,,,,,,\n\
    reads,token-of-reads,,,attributes_read;rpc,,,,site/%n/#,\n\
    mute,token-of-mute,,,none,,,,,\n\
    far,token-of-far,,,, 10.0.0.0/8 ; 2001:db8::7,,,,\n\
    near,token-of-near,,,,127.0.0.0/8,1,5,,\n\
    bound,token-of-bound,,,,,,,,\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\n\
    tied,token-of-tied,1970-01-02T00:00:00Z,,rpc,,,,,\
    8899aabbccddeeff8899aabbccddeeff8899aabbccddeeff8899aabbccddeeff\n";

#[test]
fn sec_54_imported_terms_hold_and_survive_a_kill() {
    let mut broker = Broker::start_with(&[("TOLLGATE_DEVICE_SESSIONS", "per_client_id")]);
    let output = import(&broker, FLEET, &[]);
    assert!(output.status.success(), "{output:?}");
    for _ in 0..2 {
        for (token, expected) in [
            ("token-of-any", 0),
            ("token-of-later", BAD_TOKEN),
            ("token-of-ends", 0),
            ("token-of-far", BAD_TOKEN),
            ("token-of-bound", BAD_TOKEN),
            ("token-of-tied", BAD_TOKEN),
        ] {
            assert_eq!(answer(&broker, token).1, expected, "{token}");
        }
        for (token, expected) in [
            ("token-of-any", 0),
            ("token-of-reads", NOT_AUTHORIZED),
            ("token-of-mute", NOT_AUTHORIZED),
        ] {
            let mut wire = broker.wire();
            log_in(&mut wire, &Connect::with_token(Version::V5, "c", token));
            wire.send(&publish(Version::V5, 1, 1, TELEMETRY, br#"{"a":1}"#));
            let ack = wire.packet();
            assert_eq!((ack[0], reason(&ack)), (0x40, expected), "{token}");
        }
        let (_first, code) = answer(&broker, "token-of-near");
        assert_eq!(code, 0);
        let mut second = broker.wire();
        second.send(&Connect::with_token(Version::V5, "another", "token-of-near").encode());
        assert_eq!(reason(&second.packet()), QUOTA_EXCEEDED);
        broker.kill9();
        broker.restart();
    }
}

/// The same devices with the same terms, to the millisecond.
#[test]
fn sec_54_an_export_carries_the_terms_into_another_broker() {
    let broker = Broker::start();
    broker.cli_ok(&["device", "delete", "first-device"]);
    assert!(import(&broker, FLEET, &[]).status.success());
    let csv = export(&broker);
    for words in [
        ",2100-01-01T00:00:00.250Z,2101-01-01T00:00:00.000Z,,,,,\n",
        ",attributes_read;rpc,,,,\n",
        ",none,,,,\n",
        ",10.0.0.0/8;2001:db8::7/128,,,\n",
        ",127.0.0.0/8,1,5,\n",
        ",,,00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
        ",rpc,,,,8899aabbccddeeff8899aabbccddeeff8899aabbccddeeff8899aabbccddeeff\n",
    ] {
        assert!(csv.contains(words), "{words:?} is not in {csv}");
    }
    let other = move_to_another(&csv);
    assert_eq!(export(&other), csv);
    let made = made(&other);
    assert_eq!(made.len(), 9);
    for (name, token) in made {
        let before = check(&broker, &format!("token-of-{name}"));
        assert_eq!(check(&other, &token), before, "{name}");
    }
}

/// What was changed since, and the newest of several tokens; an end that has passed is not
/// forgotten.
#[test]
fn sec_54_an_export_has_the_terms_of_the_newest_token() {
    let broker = Broker::start();
    broker.cli_ok(&["device", "delete", "first-device"]);
    assert!(import(&broker, FLEET, &[]).status.success());
    broker.cli_ok(&["device", "limit", "any", "--allow", "rpc"]);
    broker.cli_ok(&["device", "limit", "near", "--rate", "7"]);
    // The old token ends in a day; the new one does not.
    broker.cli_ok(&["device", "rotate", "mute", "--grace", "1d"]);
    let csv = export(&broker);
    let row = |name: &str| {
        let begin = format!("{name},");
        csv.lines().find(|row| row.starts_with(&begin)).expect(name)
    };
    assert!(row("any").ends_with(",,,rpc,,,,"), "{csv}");
    assert!(row("near").ends_with(",,127.0.0.0/8,1,7,"), "{csv}");
    assert!(row("mute").ends_with(",,,none,,,,"), "{csv}");
    assert_eq!(export(&move_to_another(&csv)), csv);
    // Its only token is over: it does not come back as one without an end.
    broker.cli_ok(&["device", "limit", "ends", "--expires", "1s"]);
    broker.wait_metric_until("tollgate_tokens", |live| live == 9.0);
    let other = Broker::start();
    let tokens = other.dir().join("tokens.csv");
    let tokens = tokens.to_str().expect("temporary paths are UTF-8");
    let more = ["--skip-bad", "--tokens-out", tokens];
    let output = import(&other, &export(&broker), &more);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("column expires: is over already"), "{said}");
}

#[test]
fn terms_that_cannot_be_are_named_by_line_and_column() {
    let broker = Broker::start();
    let before = export(&broker);
    let csv = "name,token,not_before,expires,rights,networks,connections_max,messages_max,\
        certificate\n\
        a,token-number-a,tomorrow,,,,,,\n\
        b,token-number-b,,2001-01-01T00:00:00Z,,,,,\n\
        c,token-number-c,,,rpc;fly,,,,\n\
        d,token-number-d,,,,10.0.0.0/40,,,\n\
        e,token-number-e,,,,,many,,\n\
        f,token-number-f,,,,,0,,\n\
        g,token-number-g,2100-01-01T00:00:00Z,2100-01-01T00:00:00Z,,,,,\n\
        h,token-number-h,,,,,,2.5,\n\
        i,token-number-i,,1969-01-01T00:00:00Z,,,,,\n\
        j,token-number-j,,,,,,,00:11\n";
    let output = import(&broker, csv, &[]);
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(export(&broker), before, "all or nothing");
    let output = import(&broker, csv, &["--skip-bad"]);
    let said = String::from_utf8_lossy(&output.stderr);
    for words in [
        "line 2, column not_before: has \"tomorrow\": allowed is RFC 3339",
        "line 3, column expires: is over already",
        "line 4, column rights: has \"fly\", which is no right; there are telemetry",
        "line 5, column networks: has \"10.0.0.0/40\"",
        "line 6, column connections_max: has \"many\", which is no whole number",
        "line 7, column connections_max: must be 1 to",
        "line 8, column not_before: is not before",
        "line 9, column messages_max: has \"2.5\"",
        "line 10, column expires: has \"1969-01-01T00:00:00Z\": this is before 1970",
        "line 11, column certificate: is no SHA-256 fingerprint",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert_eq!(said.matches("skipped: ").count(), 10, "{said}");
    assert_eq!(export(&broker), before);
}
