//! The scenarios of `scenarios.rs` with `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`.
//!
//! That a subscriber is subscribed shows by a retained message on a second topic of the same
//! SUBSCRIBE packet, `…/ready`.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

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
    play.publish(&["-r", "-t", &play.ready(), "-m", "ready"]);
    match scenario {
        "retained" => play.retained(),
        "filters" => play.filters(),
        "will" => play.will(),
        "will_delay" => play.will_delay(),
        "shared" => play.shared(),
        "session" => play.session(),
        "qos2" => play.qos2(),
        "flow_out" => play.flow_out(),
        "flow_in" => play.flow_in(),
        "alias_to" => play.alias_to(),
        "request" => play.request(),
        "options" => play.options(),
        other => panic!("no scenario {other}"),
    }
}

struct Play<'a> {
    way: &'a Way,
    topic: String,
}

impl Play<'_> {
    fn ready(&self) -> String {
        format!("{}/ready", self.topic)
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool("stdbuf"));
        command.arg("-oL").arg(tool(name)); // else its debug output waits in a buffer
        self.reach(&mut command);
        command.args(arguments);
        command
    }

    fn reach(&self, command: &mut Command) {
        let version = match self.way.version {
            "3.1" => "31",
            "3.1.1" => "311",
            other => other,
        };
        command.args(["-h", "localhost", "-p", &self.way.port.to_string()]);
        command.args(["-V", version, "-u", &self.way.token]);
        if let Some(ca_file) = &self.way.ca_file {
            command.arg("--cafile").arg(ca_file);
        }
    }

    /// Publishes at QoS 1 unless told otherwise, and sees that it was taken.
    fn publish(&self, arguments: &[&str]) {
        let all = [&["-q", "1"], arguments].concat();
        done(&mut self.program("mosquitto_pub", &all));
    }

    /// Publishes each line of a text as a message.
    fn publish_lines(&self, lines: &str, arguments: &[&str]) {
        let mut command = Command::new(tool("bash"));
        command.args(["-c", r#"printf %s "$LINES_TO_SEND" | "$0" "$@""#]);
        command.arg(tool("mosquitto_pub"));
        self.reach(&mut command);
        command.arg("-l").args(arguments);
        done(command.env("LINES_TO_SEND", lines).stdin(Stdio::null()));
    }

    /// A subscriber to `filter` that is subscribed; it prints lines as `format` says.
    fn subscriber(&self, filter: &str, format: &str, more: &[&str]) -> Running {
        let ready = self.ready();
        let all = ["-q", "2", "-t", filter, "-t", &ready, "-F", format];
        let mut command = self.program("mosquitto_sub", &[&all, more].concat());
        let mut subscriber = Running::start(&mut command);
        subscriber.wait_for_line("ready");
        subscriber
    }

    fn retained(&self) -> Value {
        let topic = &self.topic;
        self.publish(&["-r", "-t", topic, "-m", "kept"]);
        let mut first = self.subscriber(topic, "%r%p", &["-C", "4"]);
        first.wait_for_line("1kept");
        self.publish(&["-r", "-t", topic, "-m", "live"]);
        self.publish(&["-r", "-t", topic, "-n"]);
        let first = lines(first);
        let second = self.subscriber(topic, "%r%p", &["-C", "2"]);
        self.publish(&["-t", topic, "-m", "marker"]);
        json!({"first": flagged(&first), "second": flagged(&lines(second))})
    }

    fn filters(&self) -> Value {
        let topic = &self.topic;
        let (plus, hash) = (format!("{topic}/+/x"), format!("{topic}/b/#"));
        let first = self.subscriber(&plus, "%p", &["-t", &hash, "-C", "4"]);
        let send = |name: &&str| self.publish(&["-t", &format!("{topic}/{name}"), "-m", name]);
        ["a/y", "a/x", "b", "b/c/d"].iter().for_each(send);
        let mut got = lines(first);
        let more = ["-t", &hash, "-U", &hash, "-d"];
        let mut second = self.subscriber(&plus, "got %p", &more);
        second.wait_for_line("received UNSUBACK");
        ["b/c", "c/x"].iter().for_each(send);
        second.wait_for_line("got c/x");
        got.extend(second.seen().lines().filter_map(|line| {
            let payload = line.strip_prefix("got ")?;
            (payload != "ready").then(|| payload.to_owned())
        }));
        json!({"got": got})
    }

    fn will(&self) -> Value {
        let topic = &self.topic;
        let watcher = self.subscriber(topic, "%p", &["-C", "3"]);
        let other = format!("{topic}/other");
        drop(self.subscriber(
            &other,
            "%p",
            &["--will-topic", topic, "--will-payload", "gone"],
        ));
        let mut watcher = watcher;
        watcher.wait_for_line("gone");
        let left = ["--will-topic", topic, "--will-payload", "not this"];
        self.publish(&[&["-t", &other, "-m", "x"], &left[..]].concat());
        self.publish(&["-t", topic, "-m", "marker"]);
        json!({"got": lines(watcher)})
    }

    fn will_delay(&self) -> Value {
        let topic = &self.topic;
        let other = format!("{topic}/other");
        let mut watcher = self.subscriber(topic, "%p", &["-C", "3"]);
        let lost = |id: &str, payload: &str, delay: &str| {
            let id = format!("{}-{id}", self.way.prefix);
            let session = ["-i", &id, "-c", "-x", "3600"];
            let will = ["--will-topic", topic, "--will-payload", payload];
            let delay = ["-D", "will", "will-delay-interval", delay];
            drop(self.subscriber(&other, "%p", &[&session[..], &will, &delay].concat()));
            id
        };
        let back = lost("back", "cancelled", "3600");
        let end = ["-t", &other, "-E", "-i", &back, "-c", "-x", "0"];
        done(&mut self.program("mosquitto_sub", &end));
        let anew = lost("anew", "ended", "3600");
        done(&mut self.program("mosquitto_sub", &["-t", &other, "-E", "-i", &anew]));
        watcher.wait_for_line("ended");
        let before = Instant::now();
        lost("late", "waited", "1");
        let got = lines(watcher);
        json!({"got": got, "waited": before.elapsed() >= Duration::from_secs(1)})
    }

    fn shared(&self) -> Value {
        let topic = &self.topic;
        let group = format!("$share/group/{topic}");
        let plain = self.subscriber(topic, "%p", &["-C", "21"]);
        let mut members = [(); 2].map(|()| self.subscriber(&group, "%p", &[]));
        self.publish_lines(&numbers(0, 20), &["-t", topic, "-q", "1"]);
        let plain = lines(plain);
        let parts = loop {
            let parts = members.each_mut().map(|member| number_lines(member.seen()));
            if parts[0].len() + parts[1].len() >= 20 {
                break parts;
            }
        };
        let [one, mut two] = members;
        drop(one);
        self.publish_lines(&numbers(20, 40), &["-t", topic, "-q", "1"]);
        let mut rest = Vec::new();
        while rest.len() < 20 {
            rest = number_lines(two.seen()).split_off(parts[1].len());
        }
        rest.sort_unstable();
        let mut both = parts.concat();
        both.sort_unstable();
        json!({
            "plain": plain == numbers(0, 20).lines().collect::<Vec<_>>(),
            "shared": both == (0..20).collect::<Vec<_>>(),
            "fair": parts.iter().all(|part| !part.is_empty()),
            "rest": rest == (20..40).collect::<Vec<_>>(),
        })
    }

    fn session(&self) -> Value {
        let topic = &self.topic;
        let id = format!("{}-away", self.way.prefix);
        let kept = ["-i", &id, "-c", "-q", "2", "-t", topic];
        done(&mut self.program("mosquitto_sub", &[&kept[..], &["-E"]].concat()));
        for (qos, payload) in [("1", "one"), ("1", "two"), ("2", "three")] {
            self.publish(&["-q", qos, "-t", topic, "-m", payload]);
        }
        let back = [&kept[..], &["-C", "3", "-F", "%q%p"]].concat();
        let output = done(&mut self.program("mosquitto_sub", &back));
        let got = output.lines().map(|line| {
            let (qos, payload) = line.split_at(1);
            json!([payload, qos.parse::<u8>().expect("a digit")])
        });
        let got: Vec<Value> = got.collect();
        // A clean start ends the session.
        let other = format!("{topic}/other");
        done(&mut self.program("mosquitto_sub", &["-t", &other, "-E", "-i", &id]));
        self.publish(&["-t", topic, "-m", "for nobody"]);
        let anew = self.subscriber(topic, "%p", &["-i", &id, "-c", "-C", "2"]);
        self.publish(&["-t", topic, "-m", "marker"]);
        json!({"got": got, "anew": lines(anew)})
    }

    fn qos2(&self) -> Value {
        let subscriber = self.subscriber(&self.topic, "%q%p", &["-C", "52"]);
        self.publish_lines(&numbers(0, 50), &["-t", &self.topic, "-q", "2"]);
        self.publish(&["-t", &self.topic, "-q", "2", "-m", "end"]);
        let got = lines(subscriber);
        let all = numbers(0, 50) + "end";
        let in_order = got.iter().map(|line| &line[1..]).eq(all.lines());
        let mut qos: Vec<u8> = got.iter().map(|line| line.as_bytes()[0] - b'0').collect();
        qos.dedup();
        json!({"in order, once": in_order, "qos": qos})
    }

    fn flow_out(&self) -> Value {
        let subscriber = self.subscriber(&self.topic, "%p", &["-C", "301"]);
        self.publish_lines(&numbers(0, 300), &["-t", &self.topic, "-q", "2"]);
        let all = lines(subscriber).iter().eq(numbers(0, 300).lines());
        json!({"all": all})
    }

    fn flow_in(&self) -> Value {
        let one = ["-C", "11", "-D", "connect", "receive-maximum", "1"];
        let subscriber = self.subscriber(&self.topic, "%p", &one);
        self.publish_lines(&numbers(0, 10), &["-t", &self.topic, "-q", "1"]);
        json!({"got": number_lines(&lines(subscriber).join("\n"))})
    }

    fn alias_to(&self) -> Value {
        let topic = format!("{}/a", self.topic);
        let subscriber = self.subscriber(&topic, "%t %p", &["-C", "4"]);
        let alias = ["-t", &topic, "-q", "1", "-D", "publish", "topic-alias", "1"];
        self.publish_lines("1\n2\n3\n", &alias);
        let got = lines(subscriber);
        let got = got.iter().filter_map(|line| {
            let (topic, payload) = line.split_once(' ')?;
            Some([topic.rsplit('/').next()?, payload])
        });
        json!({"got": got.collect::<Vec<_>>()})
    }

    fn request(&self) -> Value {
        let (ask, answer) = (
            format!("{}/ask", self.topic),
            format!("{}/answer", self.topic),
        );
        let server = self.subscriber(&ask, "%R|%D|%P|%C|%F|%E|%p", &["-C", "2"]);
        let mut asker = self.program("mosquitto_rr", &["-q", "1", "-t", &ask, "-e", &answer]);
        for property in [
            ["user-property a", "1"],
            ["user-property a", "2"],
            ["content-type", "text/plain"],
            ["payload-format-indicator", "1"],
            ["message-expiry-interval", "100"],
            ["correlation-data", "c-1"],
        ] {
            asker.args(["-D", "publish"]).args(property[0].split(' '));
            asker.arg(property[1]);
        }
        let asker = Running::start(asker.args(["-m", "ping", "-F", "%p|%D"]));
        let asked = lines(server).join("\n");
        let asked: Vec<&str> = asked.split('|').collect();
        let correlation = ["-D", "publish", "correlation-data", asked[1]];
        self.publish(&[&["-t", asked[0], "-m", "pong"], &correlation[..]].concat());
        let answered = lines(asker).join("\n");
        let (answer, correlation) = answered.split_once('|').expect("as the format says");
        let user = asked[2].split(' ').filter_map(|pair| pair.split_once(':'));
        json!({
            "user": user.map(|(name, value)| [name, value]).collect::<Vec<_>>(),
            "type": asked[3],
            "format": asked[4].parse::<u8>().unwrap_or(0),
            "expiry": (1..=100).contains(&asked[5].parse::<u32>().unwrap_or(0)),
            "answer": answer,
            "correlation": correlation,
        })
    }

    fn options(&self) -> Value {
        let topic = &self.topic;
        self.publish(&["-r", "-t", topic, "-m", "kept"]);
        let more = ["--retain-as-published", "-C", "3"];
        let mut subscriber = self.subscriber(topic, "%r%p", &more);
        subscriber.wait_for_line("kept");
        self.publish(&["-r", "-t", topic, "-m", "live"]);
        json!({"got": flagged(&lines(subscriber))})
    }
}

/// Runs it to its end and expects success; what it printed.
fn done(command: &mut Command) -> String {
    let output = run(command);
    let (stdout, stderr) = printed(&output);
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

/// The lines of a subscriber that ends by itself, but that it is ready.
fn lines(subscriber: Running) -> Vec<String> {
    let output = subscriber.finish();
    let (stdout, stderr) = printed(&output);
    assert!(output.status.success(), "{stdout}{stderr}");
    let lines = stdout.lines().filter(|line| !line.ends_with("ready"));
    lines.map(str::to_owned).collect()
}

/// Lines of `%r%p` as payload and flag.
fn flagged(lines: &[String]) -> Vec<Value> {
    let split = lines.iter().map(|line| line.split_at(1));
    split
        .map(|(flag, payload)| json!([payload, flag == "1"]))
        .collect()
}

fn numbers(from: u32, to: u32) -> String {
    (from..to).map(|number| format!("{number}\n")).collect()
}

fn number_lines(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
