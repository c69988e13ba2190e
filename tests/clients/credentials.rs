//! Real clients with what opens the door besides tokens: `mosquitto_pub -u -P` and paho.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::common::{
    broker::{Broker, Setup},
    packets::TELEMETRY,
    tools::{clients_dir, printed, repository, run, tool},
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

/// The commands of a section of `docs/credentials.md`, block by block.
fn commands(heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs/credentials.md"));
    let text = text.expect("it is there");
    let (_, section) = text.split_once(heading).expect("the section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// Runs commands in bash as they stand, in a folder; what they printed.
fn paste(lines: &str, dir: &Path, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(tool("bash"));
    command.args(["-e", "-c", lines]).current_dir(dir);
    let output = run(command.envs(environment.iter().copied()));
    let (stdout, stderr) = printed(&output);
    assert!(output.status.success(), "{lines}\n{stdout}{stderr}");
    format!("{stdout}{stderr}")
}

/// TB-03, SEC-72: what the guide says, word for word, and paho with the same certificate.
#[test]
fn sec_72_the_guide_to_certificates_works_as_it_stands() {
    let [authority, device] = commands("## Certificates").try_into().expect("two blocks");
    let setup = Setup::new();
    let shown = paste(&authority, setup.dir(), &[]);
    let broker = setup
        .set("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", "required")
        .set("TOLLGATE_MQTTS_CLIENT_AUTHORITY", "devices-ca.pem")
        .start();
    let (url, port) = (broker.admin_url(), broker.mqtts_port());
    let device = device.replace("8883", &port.to_string());
    // The program under the name that users know it by.
    let program = env!("CARGO_BIN_EXE_tollgate");
    let device = format!("tollgate() {{ {program} \"$@\"; }}\n{device}");
    let secrets = broker.dir().join("secrets");
    let secrets = secrets.to_str().expect("temporary paths are UTF-8");
    let told = paste(
        &device,
        broker.dir(),
        &[
            ("TOLLGATE_ADMIN_URL", &url),
            ("TOLLGATE_SECRETS_DIR", secrets),
        ],
    );
    assert!(told.contains("received PUBACK (Mid: 1, RC:0)"), "{told}");
    let fingerprint = shown
        .rsplit_once("ingerprint=")
        .expect("openssl shows it")
        .1;
    let fingerprint = fingerprint.lines().next().expect("a line");
    let fingerprint = fingerprint.replace(':', "").to_lowercase();
    assert!(told.contains(&fingerprint), "{told}");
    let file = |name: &str| broker.dir().join(name).display().to_string();
    for (version, key) in [("3.1.1", "p4"), ("5", "p5")] {
        let errand = json!({
            "port": port, "version": version, "ca_file": broker.ca_file(),
            "certificate": file("pump-9.pem"), "key": file("pump-9.key"),
            "messages": [[1, format!(r#"{{"{key}":1}}"#)]],
        });
        assert_eq!(paho(&errand)[..2], ["connect: Success", "publish: Success"]);
    }
    let ca_file = broker.ca_file().display().to_string();
    let without = mosquitto(port, "refused", &["--cafile", &ca_file]);
    assert!(!is_sent(&without), "{without:?}");
    let mut keys: Vec<String> = broker.points("pump-9").into_iter().map(|at| at.0).collect();
    keys.sort();
    assert_eq!(keys, ["p4", "p5", "temperature"]);
}
