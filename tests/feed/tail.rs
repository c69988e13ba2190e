//! `tollgate tail`, and how much the feed carries.

use std::{io::Write as _, process::Command, time::Instant};

use serde_json::Value;

use crate::{
    common::{
        broker::Broker,
        packets::{Connect, TELEMETRY, Version, publish, subscribe},
        tools::Running,
        wire::{ANSWER_LIMIT, read_some, socket},
    },
    site::{ALL, Counter, create_app},
};

#[test]
fn tail_shows_what_devices_send_now_or_since() {
    let broker = Broker::start();
    let tokens = ["one", "two"].map(|name| broker.create_device(name));
    let mut counters = tokens.map(|token| Counter::connect(&broker, &token));
    for counter in &mut counters {
        counter.send(1);
    }
    let mut tail = Running::start(&mut broker.command(&["tail", "--from", "earliest"]));
    tail.wait_for_line("  one  {\"n\":1}");
    tail.wait_for_line("  two  {\"n\":1}");
    counters[1].send(1);
    tail.wait_for_line("  two  {\"n\":2}");
    let arguments = ["tail", "one", "--json", "--from", "offset:1"];
    let mut json = Running::start(&mut broker.command(&arguments));
    counters[0].send(1);
    json.wait_for_line("{\"n\":2}");
    drop(tail);
    for (arguments, word) in [
        (&["tail", "nobody"][..], "no device"),
        (&["tail", "--from", "soon"], "must be earliest"),
    ] {
        let output = broker.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(said.contains(word), "{said}");
    }
    // A pipe that ends is no error, and the shell sees none.
    let program = broker.command(&[]).get_program().to_owned();
    let mut shell = Command::new("bash");
    shell
        .args(["-o", "pipefail", "-c"])
        .arg(
            "\"$0\" tail --json --from earliest --admin-url \"$1\" | head -n 2; \
             echo \"${PIPESTATUS[0]}\"",
        )
        .arg(program)
        .arg(broker.admin_url())
        .env("TOLLGATE_ADMIN_TOKEN", admin_token(&broker));
    let mut piped = Running::start(&mut shell);
    piped.wait_for_line("\"offset\"");
    // It hears of the end when it writes behind it; what it writes before is lost in the pipe.
    while piped.is_running() {
        counters[0].send(1);
    }
    let output = piped.finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let first: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(
        (&first["name"], &first["payload"]["n"]),
        (&"one".into(), &1.into())
    );
    assert_eq!(lines[2], "0", "{text}");
}

fn admin_token(broker: &Broker) -> String {
    let file = broker.dir().join("secrets/admin.token");
    let text = std::fs::read_to_string(file).expect("the token's file");
    text.trim().to_owned()
}

/// All that one client gets from the past, at QoS 1, in one go; prints how fast. How fast it must
/// be is for a quiet machine to say.
#[test]
fn one_client_gets_many_messages_from_the_past() {
    const MESSAGES: u32 = 200_000;
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    let payload = br#"{"temperature":21.5,"humidity":40,"pressure":1013.25,"state":1}"#;
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        bytes.extend(publish(Version::V311, 0, 0, TELEMETRY, payload));
    }
    for _ in 0..MESSAGES / 1_000 {
        counter.wire.send(&bytes);
    }
    counter.send(1);
    let mut socket = socket(broker.address("mqtt"));
    let limit = Some(ANSWER_LIMIT);
    socket.set_read_timeout(limit).expect("it is not zero");
    let mut hello = Connect::with_token(Version::V311, "c", &token).encode();
    let filter = format!("$share/g@earliest/{ALL}");
    hello.extend(subscribe(Version::V311, 1, &[(&filter, 1)]));
    socket.write_all(&hello).expect("it is read");
    let begin = Instant::now();
    let (mut held, mut buffer) = (Vec::new(), vec![0; 256 * 1024]);
    let mut count = 0;
    while count < MESSAGES + 1 {
        let read = read_some(&mut socket, &mut buffer).expect("it goes on");
        assert!(read > 0, "closed after {count}");
        held.extend_from_slice(&buffer[..read]);
        let mut acks = Vec::new();
        let mut at = 0;
        while let Some((kind, body, end)) = frame(&held, at) {
            if kind >> 4 == 3 {
                count += 1;
                let topic = usize::from(u16::from_be_bytes([held[body], held[body + 1]]));
                let id = body + 2 + topic;
                acks.extend([0x40, 2, held[id], held[id + 1]]);
            }
            at = end;
        }
        held.drain(..at);
        socket.write_all(&acks).expect("it is read");
    }
    let rate = f64::from(MESSAGES) / begin.elapsed().as_secs_f64();
    println!("feed: {rate:.0} messages a second to one client, QoS 1");
}

/// First byte, start of the body and end of the packet at `at`.
fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let kind = *bytes.get(at)?;
    let (mut length, mut place) = (0, at + 1);
    for shift in [0, 7, 14] {
        let byte = usize::from(*bytes.get(place)?);
        place += 1;
        length |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes.len() >= place + length).then_some((kind, place, place + length))
}
