//! The scenarios of `scenarios.rs` with Eclipse Paho's C client: its example programs `paho_c_pub`
//! and `paho_c_sub`, as Debian packages them.
//!
//! `paho_c_sub` traces the packets, which shows when it is subscribed and the flags of what comes.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    common::tools::{Running, printed, run, tool},
    scenarios::Way,
};

/// Plays one and says what was seen.
pub(crate) fn play(way: &Way, scenario: &str) -> Value {
    let play = Play {
        way,
        topic: format!("{}/{scenario}", way.prefix),
    };
    match scenario {
        "retained" => play.retained(),
        "filters" => play.filters(),
        "will" => play.will(),
        "shared" => play.shared(),
        "qos2" => play.qos2(),
        other => panic!("no scenario {other}"),
    }
}

struct Play<'a> {
    way: &'a Way,
    topic: String,
}

/// A PUBLISH as the trace shows it.
#[derive(Clone, Debug)]
struct Got {
    qos: u8,
    retain: bool,
    payload: String,
}

/// A `paho_c_sub`, which does not end by itself.
struct Subscriber(Running);

impl Play<'_> {
    fn program(&self, name: &str, id: &str, arguments: &[&str]) -> Command {
        let Way { port, version, .. } = self.way;
        let scheme = self.way.ca_file.as_ref().map_or("tcp", |_| "ssl");
        let mut command = Command::new(tool("bash"));
        command.args(["-c", r#"exec "$0" "$@" 2>&1"#]); // the trace is on stderr
        command.arg(tool(name));
        command.args(["-c", &format!("{scheme}://localhost:{port}")]);
        command.args(["-V", &version.replace('.', ""), "-u", &self.way.token]);
        command.args(["-i", &format!("{}-{id}", self.way.prefix)]);
        if let Some(ca_file) = &self.way.ca_file {
            command.arg("--cafile").arg(ca_file);
        }
        command.args(arguments);
        command
    }

    fn publish(&self, qos: u8, arguments: &[&str]) {
        let qos = qos.to_string();
        let all = [&["-q", &qos], arguments].concat();
        let output = run(&mut self.program("paho_c_pub", "p", &all));
        let (stdout, stderr) = printed(&output);
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    }

    fn subscriber(&self, id: &str, filter: &str, more: &[&str]) -> Subscriber {
        let all = ["-q", "2", "-t", filter, "--trace", "protocol"];
        let mut command = self.program("paho_c_sub", id, &[&all, more].concat());
        let mut running = Running::start(&mut command);
        running.wait_for_line("<- SUBACK");
        Subscriber(running)
    }

    fn retained(&self) -> Value {
        let topic = &self.topic;
        self.publish(1, &["-t", topic, "-r", "-m", "kept"]);
        let mut first = self.subscriber("first", topic, &[]);
        first.take(1);
        self.publish(1, &["-t", topic, "-r", "-m", "live"]);
        self.publish(1, &["-t", topic, "-r", "-n"]);
        let mut second = self.subscriber("second", topic, &[]);
        self.publish(1, &["-t", topic, "-m", "marker"]);
        let flags = |all: Vec<Got>| -> Vec<Value> {
            let all = all.into_iter();
            all.map(|got| json!([got.payload, got.retain])).collect()
        };
        let mut first = first.take(4);
        first.truncate(3); // the marker came here too
        json!({"first": flags(first), "second": flags(second.take(1))})
    }

    fn filters(&self) -> Value {
        let topic = &self.topic;
        let mut plus = self.subscriber("plus", &format!("{topic}/+/x"), &[]);
        let mut hash = self.subscriber("hash", &format!("{topic}/b/#"), &[]);
        for name in ["a/y", "a/x", "b", "b/c/d", "c/x"] {
            self.publish(1, &["-t", &format!("{topic}/{name}"), "-m", name]);
        }
        let (plus, hash) = (payloads(plus.take(2)), payloads(hash.take(2)));
        let got = [&plus[..1], &hash, &plus[1..]].concat();
        json!({"got": got})
    }

    fn will(&self) -> Value {
        let topic = &self.topic;
        let mut watcher = self.subscriber("watcher", topic, &[]);
        let other = format!("{topic}/other");
        let will = ["--will-topic", topic, "--will-payload"];
        drop(self.subscriber("lost", &other, &[&will[..], &["gone"]].concat()));
        watcher.take(1);
        self.publish(
            1,
            &[&will[..], &["not this", "-t", &other, "-m", "x"]].concat(),
        );
        self.publish(1, &["-t", topic, "-m", "marker"]);
        json!({"got": payloads(watcher.take(2))})
    }

    fn shared(&self) -> Value {
        let topic = &self.topic;
        let group = format!("$share/group/{topic}");
        let mut plain = self.subscriber("all", topic, &[]);
        let mut one = self.subscriber("one", &group, &[]);
        let mut two = self.subscriber("two", &group, &[]);
        let numbers: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        for number in &numbers[..4] {
            self.publish(1, &["-t", topic, "-m", number]);
        }
        let plain = payloads(plain.take(4));
        let parts = loop {
            let parts = [one.seen(), two.seen()].map(payloads);
            if parts[0].len() + parts[1].len() >= 4 {
                break parts;
            }
        };
        drop(one);
        for number in &numbers[4..] {
            self.publish(1, &["-t", topic, "-m", number]);
        }
        let mut rest = payloads(two.take(parts[1].len() + 4)).split_off(parts[1].len());
        rest.sort_unstable();
        let mut both = parts.concat();
        both.sort_unstable();
        json!({
            "plain": plain == numbers[..4],
            "shared": both == numbers[..4],
            "fair": parts.iter().all(|part| !part.is_empty()),
            "rest": rest == numbers[4..],
        })
    }

    fn qos2(&self) -> Value {
        let mut subscriber = self.subscriber("s", &self.topic, &[]);
        let numbers: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        for number in &numbers {
            self.publish(2, &["-t", &self.topic, "-m", number]);
        }
        let got = subscriber.take(5);
        let mut qos: Vec<u8> = got.iter().map(|got| got.qos).collect();
        qos.dedup();
        json!({"in order, once": payloads(got) == numbers, "qos": qos})
    }
}

impl Subscriber {
    /// What has come.
    fn seen(&mut self) -> Vec<Got> {
        self.0.seen().lines().filter_map(Got::read).collect()
    }

    /// What has come when it is so many.
    fn take(&mut self, count: usize) -> Vec<Got> {
        loop {
            let seen = self.seen();
            if seen.len() >= count {
                return seen;
            }
        }
    }
}

impl Got {
    /// `… <- PUBLISH msgid: 1 qos: 2 retained: 1 payload len(4): kept`
    fn read(line: &str) -> Option<Got> {
        let (_, packet) = line.split_once(" <- PUBLISH ")?;
        let field = |name: &str| packet.split_once(name)?.1.split(' ').next();
        let (_, payload) = packet.split_once("): ")?;
        Some(Got {
            qos: field(" qos: ")?.parse().ok()?,
            retain: field(" retained: ")? == "1",
            payload: payload.to_owned(),
        })
    }
}

fn payloads(all: Vec<Got>) -> Vec<String> {
    all.into_iter().map(|got| got.payload).collect()
}
