//! Ordinary messages between `mosquitto_pub` and `mosquitto_sub`: every version, TCP and TLS.

use std::{path::PathBuf, process::Command};

use crate::common::{
    broker::Broker,
    tools::{Running, printed, run, tool},
};

/// How a program reaches the broker.
struct Way {
    port: u16,
    ca_file: Option<PathBuf>,
    version: &'static str,
    token: String,
}

impl Way {
    fn program(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool(name));
        command.args(["-h", "localhost", "-p", &self.port.to_string()]);
        command.args(["-V", self.version, "-u", &self.token]);
        if let Some(ca_file) = &self.ca_file {
            command.arg("--cafile").arg(ca_file);
        }
        command.args(arguments);
        command
    }

    /// Publishes and sees that it was taken.
    fn publish(&self, arguments: &[&str]) {
        let output = run(&mut self.program("mosquitto_pub", arguments));
        let (stdout, stderr) = printed(&output);
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    }
}

#[test]
fn mosquitto_clients_route_retain_and_keep_sessions() {
    let broker = Broker::start();
    let created = broker.cli_json(&[
        "app",
        "create",
        "a",
        "--json",
        "--publish",
        "#",
        "--subscribe",
        "#",
    ]);
    let token = created["token"].as_str().expect("a token").to_owned();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for tls in [false, true] {
            let way = Way {
                port: if tls {
                    broker.mqtts_port()
                } else {
                    broker.mqtt_port()
                },
                ca_file: tls.then(|| broker.ca_file()),
                version,
                token: token.clone(),
            };
            let case = format!("{version}{tls}");
            through_one(&way, &case);
        }
    }
}

fn through_one(way: &Way, case: &str) {
    let topic = format!("{case}/x");
    let will = format!("{case}/will");
    // A session that is kept: made, left, filled, and read.
    let kept = ["-i", case, "-c", "-q", "1", "-t", &topic, "-x", "3600"];
    let kept = if way.version == "mqttv5" {
        &kept[..]
    } else {
        &kept[..7]
    };
    run(&mut way.program("mosquitto_sub", &[kept, &["-E"]].concat()));
    for qos in ["1", "2"] {
        way.publish(&["-t", &topic, "-q", qos, "-m", &format!("queued {qos}")]);
    }
    let output = run(&mut way.program("mosquitto_sub", &[kept, &["-C", "2"]].concat()));
    let (stdout, stderr) = printed(&output);
    assert_eq!(stdout, "queued 1\nqueued 2\n", "{case}: {stderr}");
    way.publish(&["-t", &topic, "-q", "1", "-r", "-m", "retained"]);
    // The retained message, then a live one and a will.
    let all = format!("{case}/#");
    let mut watcher = Running::start(
        &mut way.program("mosquitto_sub", &["-v", "-q", "1", "-t", &all, "-C", "3"]),
    );
    watcher.wait_for_line(&format!("{topic} retained"));
    let mut lost = Running::start(&mut way.program(
        "mosquitto_sub",
        &[
            "-v",
            "-t",
            &topic,
            "--will-topic",
            &will,
            "--will-payload",
            "gone",
        ],
    ));
    lost.wait_for_line(&format!("{topic} retained"));
    way.publish(&["-t", &topic, "-q", "2", "-m", "live"]);
    watcher.wait_for_line(&format!("{topic} live"));
    drop(lost); // killed: no goodbye
    watcher.wait_for_line(&format!("{will} gone"));
    assert!(watcher.finish().status.success(), "{case}");
}
