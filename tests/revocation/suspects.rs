//! `revoke --since`: what a credential wrote from a time on is marked, shown as such, and can be
//! left out, by Tollgate and by whoever reads the files.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    common::{
        broker::{Broker, Setup},
        client::Client,
        packets::{Connect, TELEMETRY, Version, publish},
        tools::{Running, printed, run, tool},
    },
    place::{Over, ask, ask_ok, create_app},
};

/// A device that writes numbers, each at a time of its own.
struct Writer {
    client: Client,
    next: u16,
}

impl Writer {
    fn new(broker: &Broker, over: Over, token: &str) -> Writer {
        let connect = Connect::with_token(Version::V311, "d", token);
        let client = over.connect(broker, &connect);
        Writer { client, next: 1 }
    }

    fn write(&mut self, number: u32) {
        let payload = format!(r#"{{"ts":{number},"values":{{"n":{number}}}}}"#);
        let packet = publish(Version::V311, 1, self.next, TELEMETRY, payload.as_bytes());
        self.next += 1;
        self.client.wire.send(&packet);
        assert_eq!(self.client.wire.packet()[0], 0x40);
    }
}

/// The values of the device, oldest first, and the reply they came in.
fn values(broker: &Broker, device: &str, more: &str) -> (Vec<u64>, Value) {
    let path = format!("devices/{device}/telemetry?order=asc{more}");
    let reply = ask_ok(broker, "GET", &path, &Value::Null);
    let points = reply["points"].as_array().expect("points").iter();
    let numbers = points.map(|point| point["value"].as_u64().expect("a number"));
    (numbers.collect(), reply)
}

fn now_ms(broker: &Broker, device: &str) -> u64 {
    // A moment behind everything that was received so far, by the broker's own clock.
    thread::sleep(Duration::from_millis(5));
    let renewed = ask_ok(
        broker,
        "POST",
        &format!("devices/{device}-clock/rotate"),
        &json!({}),
    );
    let credentials = renewed["device"]["credentials"].as_array().expect("a list");
    let last = credentials.last().expect("a credential");
    let now = last["created_ms"].as_u64().expect("a time");
    thread::sleep(Duration::from_millis(5));
    now
}

#[test]
fn sec_35_what_was_written_since_a_time_is_marked_and_can_be_left_out() {
    let mut broker = Broker::start();
    let reader = create_app(&broker, "reader", &["v1/devices/+/telemetry"]);
    for over in Over::BOTH {
        let name = format!("{over:?}");
        broker.create_device(&format!("{name}-clock"));
        let token = broker.create_device(&name);
        let mut writer = Writer::new(&broker, over, &token);
        (1..4).for_each(|number| writer.write(number));
        let since = now_ms(&broker, &name);
        (4..7).for_each(|number| writer.write(number));
        // Refused, or only foreseen: nothing is marked.
        let wish = |more: Value| {
            let mut wish = json!({"since_ms": since});
            let members = wish.as_object_mut().expect("an object");
            members.extend(more.as_object().expect("an object").clone());
            wish
        };
        let (status, refused) = ask(
            &broker,
            "POST",
            "revocations",
            &wish(json!({"apps": ["a"]})),
        );
        assert_eq!(
            (status, &refused["error"]["target"]),
            (422, &json!("since_ms"))
        );
        let path = format!("devices/{name}/revoke");
        let foreseen = ask_ok(&broker, "POST", &path, &wish(json!({"dry_run": true})));
        assert!(values(&broker, &name, "").1.get("suspect").is_none());
        let revoked = ask_ok(&broker, "POST", &path, &wish(json!({})));
        let first = &revoked["receipt"]["suspect_from"];
        assert!(
            first.is_u64() && foreseen["receipt"]["suspect_from"] == *first,
            "{revoked}"
        );
        writer.client.expect_end(&[]);
        // A new credential writes on: of that nothing is marked.
        let rotated = ask_ok(
            &broker,
            "POST",
            &format!("devices/{name}/rotate"),
            &json!({}),
        );
        let token = rotated["token"].as_str().expect("a token");
        let mut writer = Writer::new(&broker, over, token);
        writer.write(7);
        expect_marked(&broker, &name);
    }
    expect_told(&broker, &reader);
    expect_marked_after_starts(&mut broker, &reader);
}

/// All the same after a crash, and from files.
fn expect_marked_after_starts(broker: &mut Broker, reader: &str) {
    broker.kill9();
    broker.restart();
    expect_marked(broker, "Tcp");
    expect_file(broker);
    assert_eq!(broker.stop(), 0, "what is in memory goes to a file");
    let verified = broker.cli_ok(&["store", "verify"]);
    assert!(!verified.contains("_suspects"), "{verified}");
    broker.restart();
    expect_marked(broker, "Tcp");
    expect_told(broker, reader);
    let said = broker.cli(&["query", "Tls", "--without-suspect", "--format", "csv"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(text.lines().count(), 5, "{text}");
    let said = broker.cli(&["query", "Tls"]);
    let told = String::from_utf8_lossy(&said.stderr);
    assert!(told.contains("marked as suspect"), "{told}");
    ask_ok(broker, "DELETE", "devices/Tcp", &Value::Null);
    broker.restart();
    let text = fs::read_to_string(suspects_file(broker)).expect("the file of marks");
    assert_eq!(
        text.lines().count(),
        2,
        "a deleted device has no marks: {text}"
    );
}

fn expect_marked(broker: &Broker, name: &str) {
    let (all, reply) = values(broker, name, "");
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        reply["suspect"].as_array().map(Vec::len),
        Some(1),
        "{reply}"
    );
    let (rest, reply) = values(broker, name, "&without_suspect=true");
    assert_eq!(rest, [1, 2, 3, 7]);
    assert!(reply.get("suspect").is_none(), "{reply}");
    let (sums, _) = values(broker, name, "&agg=sum&interval=100&without_suspect=true");
    assert_eq!(sums, [13]);
    let (sums, _) = values(broker, name, "&agg=sum&interval=100");
    assert_eq!(sums, [28]);
}

/// An application and a tail hear it too.
fn expect_told(broker: &Broker, reader: &str) {
    let port = broker.mqtt_port().to_string();
    let listener = ["-h", "127.0.0.1", "-p", &port, "-V", "5", "-u", reader];
    let wanted = ["-q", "1", "-t", "v1/devices/+/telemetry", "-C", "14"];
    let start = ["-D", "subscribe", "user-property", "start", "earliest"];
    let shown = ["-W", "60", "-F", "%p %P"];
    let mut command = std::process::Command::new(tool("mosquitto_sub"));
    let output = run(command.args(listener).args(wanted).args(start).args(shown));
    let (heard, stderr) = printed(&output);
    assert_eq!(heard.lines().count(), 14, "{heard} {stderr}");
    for line in heard.lines() {
        let is_marked = [4, 5, 6]
            .iter()
            .any(|n| line.contains(&format!("\"n\":{n}}}")));
        assert_eq!(line.contains("suspect:true"), is_marked, "{line}");
    }
    let tail = |more: &[&str]| {
        let arguments = ["tail", "Tcp", "--from", "earliest", "--json"];
        let mut tail = Running::start(&mut broker.command(&[&arguments, more].concat()));
        tail.wait_for_line("\"n\":7}");
        tail.seen().to_owned()
    };
    let seen = tail(&[]);
    assert_eq!(seen.matches("\"suspect\":true").count(), 3, "{seen}");
    let seen = tail(&["--without-suspect"]);
    assert_eq!(seen.matches("\"n\":").count(), 4, "{seen}");
}

/// The journal's oldest file is gone when somebody remembers a time in it.
#[test]
fn sec_35_a_time_before_the_journal_begins_marks_rather_more_than_less() {
    let mut broker = Setup::new()
        .set("TOLLGATE_FEED_KEEP_SIZE_BYTES", "0")
        .start();
    broker.create_device("Tcp-clock");
    let token = broker.create_device("Tcp");
    let mut writer = Writer::new(&broker, Over::Tcp, &token);
    (1..4).for_each(|number| writer.write(number));
    let since = now_ms(&broker, "Tcp");
    (4..7).for_each(|number| writer.write(number));
    flood(&broker);
    // The first stop brings all of it to files; the journal lets go with what comes next.
    for _ in 0..2 {
        assert_eq!(broker.stop(), 0, "what is in memory goes to a file");
        broker.restart();
        let later = broker.create_device(&format!("later-{}", broker.pid()));
        Writer::new(&broker, Over::Tcp, &later).write(1);
    }
    let begin = journal_begin(&broker);
    let path = "devices/Tcp/revoke";
    let revoked = ask_ok(&broker, "POST", path, &json!({"since_ms": since}));
    let first = &revoked["receipt"]["suspect_from"];
    let first = first.as_u64().unwrap_or_else(|| panic!("{revoked}"));
    assert!(first < begin, "{first} in a journal from {begin}");
    let (rest, _) = values(&broker, "Tcp", "&without_suspect=true");
    assert!([1, 2, 3].starts_with(&rest), "{rest:?}");
}

/// The first record of the oldest file, as its name says.
fn journal_begin(broker: &Broker) -> u64 {
    let files = fs::read_dir(broker.dir().join("data/journal")).expect("the journal's directory");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let begins = names.filter_map(|name| name.strip_suffix(".journal")?.parse().ok());
    begins.min().expect("a file of the journal")
}

/// More than a file of the journal (64 MiB) holds; nearly all of it is blank.
fn flood(broker: &Broker) {
    let token = broker.create_device("flood");
    let mut client = Over::Tcp.connect(broker, &Connect::with_token(Version::V311, "f", &token));
    let payload = format!("{{\"n\":1{}}}", " ".repeat(60_000));
    let packets = |ids: std::ops::Range<u16>| {
        ids.flat_map(|id| publish(Version::V311, 1, id, TELEMETRY, payload.as_bytes()))
            .collect::<Vec<u8>>()
    };
    for some in 0..24 {
        client.wire.send(&packets(1 + some * 50..51 + some * 50));
        (0..50).for_each(|_| assert_eq!(client.wire.packet()[0], 0x40));
    }
}

fn suspects_file(broker: &Broker) -> std::path::PathBuf {
    broker.dir().join("data/history/_suspects.csv")
}

/// The file says the same as the replies.
fn expect_file(broker: &Broker) {
    let text = fs::read_to_string(suspects_file(broker)).expect("the file of marks");
    let mut lines = text.lines();
    let heading = "device,first_offset,credential_max,from_ms,revoked_ms";
    assert_eq!(lines.next(), Some(heading));
    for name in ["Tcp", "Tls"] {
        let (_, reply) = values(broker, name, "");
        let mark = &reply["suspect"][0];
        let expected = [
            reply["device"].as_str().expect("an id").to_owned(),
            mark["first_offset"].to_string(),
            mark["credential_max"].to_string(),
            mark["from_ms"].to_string(),
            mark["revoked_ms"].to_string(),
        ];
        let expected = expected.join(",");
        assert!(
            text.contains(&format!("\n{expected}\n")),
            "{expected} in\n{text}"
        );
    }
}
