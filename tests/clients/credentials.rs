//! Real clients with what opens the door besides tokens: `mosquitto_pub -u -P` and paho.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::{
    broker::Broker,
    packets::TELEMETRY,
    tools::{clients_dir, printed, run, tool},
};

/// `mosquitto_pub` to a port, with these options, and one value of this key.
pub(crate) fn mosquitto(port: u16, key: &str, options: &[&str]) -> Output {
    let mut command = Command::new(tool("mosquitto_pub"));
    command.args(["-d", "-q", "1", "-h", "localhost", "-t", TELEMETRY, "-p"]);
    command.arg(port.to_string()).args(options);
    run(command.args(["-m", &format!(r#"{{"{key}":1}}"#)]))
}

/// What paho tells of an errand.
pub(crate) fn paho(errand: &Value) -> Vec<String> {
    let mut command = Command::new(tool("python"));
    command.arg("-u").arg(clients_dir().join("paho_client.py"));
    let output = run(command.arg(errand.to_string()));
    let (stdout, stderr) = printed(&output);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{stdout}");
    stdout.lines().map(str::to_owned).collect()
}

/// Whether it was acknowledged.
pub(crate) fn is_sent(output: &Output) -> bool {
    let (stdout, _) = printed(output);
    output.status.success() && stdout.contains("received PUBACK (Mid: 1, RC:0)")
}

#[test]
fn tb_02_mosquitto_and_paho_come_in_with_a_password_over_tcp_and_tls() {
    let broker = Broker::start();
    broker.create_device("meter");
    let names = ["--client-id", "meter-1", "--user-name", "meter-user"];
    let add = ["device", "credential", "add", "meter"];
    let password = ["--password", "meter-password"];
    broker.cli_ok(&[&add[..], &names, &password].concat());
    let ca_file = broker.ca_file();
    let ca_file = ca_file.to_str().expect("temporary paths are UTF-8");
    for (at, version) in ["mqttv31", "mqttv311", "mqttv5"].into_iter().enumerate() {
        let names = ["-V", version, "-i", "meter-1", "-u", "meter-user", "-P"];
        let plain = [&names[..], &["meter-password"]].concat();
        let tls = [&plain[..], &["--cafile", ca_file]].concat();
        let wrong = [&names[..], &["meter-passwort"]].concat();
        let sent = mosquitto(broker.mqtt_port(), &format!("m{at}"), &plain);
        assert!(is_sent(&sent), "{version}: {sent:?}");
        let sent = mosquitto(broker.mqtts_port(), &format!("t{at}"), &tls);
        assert!(is_sent(&sent), "{version}: {sent:?}");
        let refused = mosquitto(broker.mqtt_port(), "refused", &wrong);
        assert!(!is_sent(&refused), "{version}: {refused:?}");
    }
    for (version, key) in [("3.1.1", "p4"), ("5", "p5")] {
        let mut errand = json!({
            "port": broker.mqtts_port(), "version": version, "client_id": "meter-1",
            "token": "meter-user", "password": "meter-password", "ca_file": ca_file,
            "messages": [[1, format!(r#"{{"{key}":1}}"#)]],
        });
        let good = ["connect: Success", "publish: Success"];
        assert_eq!(paho(&errand)[..2], good, "{version}");
        errand["password"] = "meter-passwort".into();
        let refused = paho(&errand);
        assert!(
            refused[0].starts_with("connect: ") && refused[0] != good[0],
            "{refused:?}"
        );
    }
    let mut keys: Vec<String> = broker.points("meter").into_iter().map(|at| at.0).collect();
    keys.sort();
    assert_eq!(keys, ["m0", "m1", "m2", "p4", "p5", "t0", "t1", "t2"]);
}
