//! That the search for secrets at the end of every broker finds what it is for (SEC-55).

use std::{
    fs::OpenOptions,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tollgate::identity::base64;

use crate::common::{broker::Broker, secrets};

fn is_found(output: &str) -> bool {
    let search = || secrets::expect_none([("an output", output.as_bytes())]);
    catch_unwind(search).is_err()
}

#[test]
fn sec_55_a_secret_is_found_in_every_form_and_wherever_it_begins() {
    let secret = "nobody-else-uses-this-password/+?";
    secrets::used(secret.as_bytes());
    assert!(!is_found("a line about something else, and nobody-else"));
    for (before, after) in [
        ("", ""),
        ("a", "z"),
        ("ab", "yz"),
        ("abc", "xyz"),
        ("abcd", ""),
    ] {
        let text = format!("{before}{secret}{after}");
        let encoded = base64::encode(text.as_bytes());
        let for_addresses = encoded.replace('+', "-").replace('/', "_");
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [text, encoded, for_addresses, hex.to_uppercase(), hex] {
            assert!(is_found(&format!("line\nkey={form} more\n")), "{form}");
        }
    }
    // What is harvested from a reply and from a command's arguments is a secret from then on.
    secrets::harvest(r#"{"device":{"name":"x"},"token": "another-one-of-them","expires":1}"#);
    assert!(is_found("another-one-of-them") && !is_found("\"expires\":1"));
    secrets::given(&["device", "create", "x", "--token", "a-third-of-the-kind"]);
    assert!(is_found("a-third-of-the-kind"));
}

#[test]
fn sec_55_a_broker_that_let_a_secret_out_fails_its_test() {
    let broker = Broker::start();
    let token = broker.create_device("boiler");
    broker.wire().send(b"\x10\x00");
    let log = broker.dir().join("stderr.log");
    let mut log = OpenOptions::new().append(true).open(log).expect("its log");
    let leak = format!("{{\"seen\":\"{}\"}}\n", base64::encode(token.as_bytes()));
    log.write_all(leak.as_bytes()).expect("room for a line");
    let ended = catch_unwind(AssertUnwindSafe(|| drop(broker)));
    let why = ended.expect_err("it was in the log");
    let why = why.downcast_ref::<String>().expect("words");
    assert!(
        why.contains("a secret got out") && why.contains("base 64"),
        "{why}"
    );
    assert!(!why.contains(&token), "the message holds none of it");
}
