//! `mosquitto_pub`: what it prints, and the lines that users paste.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::{
    common::{
        broker::Broker,
        packets::TELEMETRY,
        tools::{printed, run, tool},
    },
    site::{Errand, Fault, Site},
};

#[test]
fn publishes_at_every_qos_over_tcp_and_tls() {
    let mut site = Site::start();
    for version in ["3.1", "3.1.1", "5"] {
        for tls in [false, true] {
            for qos in [0, 1, 2] {
                let errand = site.good_errand(version, tls, &[qos]);
                let (arguments, case) = (arguments(&errand), format!("{version} {tls} {qos}"));
                let port = errand.port(&site.broker);
                let ca_file = errand.tls.then(|| site.broker.ca_file());
                let output = publish(port, ca_file.as_deref(), &arguments);
                let (stdout, stderr) = printed(&output);
                assert_eq!(
                    (output.status.code(), &*stderr),
                    (Some(0), ""),
                    "{case}: {stdout}"
                );
            }
        }
    }
    site.check_stored();
}

/// TB-04, TB-16: the exit code, the number in its debug output, and the text.
#[test]
fn says_why_it_was_refused() {
    let site = Site::start();
    for (version, fault, expected) in REFUSALS {
        let errand = site.bad_errand(version, *fault);
        let output = publish(errand.port(&site.broker), None, &arguments(&errand));
        let (stdout, stderr) = printed(&output);
        let case = format!("{version} {fault:?}:\n{stdout}{stderr}");
        assert_eq!(output.status.code(), Some(expected.code), "{case}");
        assert!(stdout.contains(expected.step), "{case}");
        assert_eq!(stderr.lines().next(), Some(expected.text), "{case}");
        let acknowledged = stdout.contains("received PUBACK") || stdout.contains("received PUBREC");
        let is_told = *version == "5" && matches!(fault, Fault::BadJson(_));
        assert_eq!(acknowledged, is_told, "{case}");
    }
    site.check_stored();
}

/// What `mosquitto_pub` makes of a refusal.
struct Refusal {
    /// Its exit code.
    code: i32,
    /// The step in its debug output that shows it.
    step: &'static str,
    /// The first line on stderr.
    text: &'static str,
}

const fn refusal(code: i32, step: &'static str, text: &'static str) -> Refusal {
    Refusal { code, step, text }
}

const V3_TOKEN: Refusal = refusal(
    5,
    "received CONNACK (5)",
    "Connection error: Connection Refused: not authorised.",
);
const V3_ID: Refusal = refusal(
    2,
    "received CONNACK (2)",
    "Connection error: Connection Refused: identifier rejected.",
);
const V3_LOST: Refusal = refusal(7, "sending PUBLISH", "Error: The connection was lost.");
const V5_TOKEN: Refusal = refusal(
    134,
    "received CONNACK (134)",
    "Connection error: Bad User Name or Password",
);
const V5_ID: Refusal = refusal(
    133,
    "received CONNACK (133)",
    "Connection error: Client Identifier not valid",
);
const V5_NOTHING: Refusal = refusal(
    135,
    "received CONNACK (135)",
    "Connection error: Not authorized",
);
const V5_PUBACK: Refusal = refusal(0, "received PUBACK (Mid: 1, RC:153)", BAD_PAYLOAD);
const V5_PUBREC: Refusal = refusal(0, "received PUBREC (Mid: 1)", BAD_PAYLOAD);
const BAD_PAYLOAD: &str = "Warning: Publish 1 failed: Payload format invalid.";

const REFUSALS: &[(&str, Fault, Refusal)] = &[
    ("3.1", Fault::WrongToken, V3_TOKEN),
    ("3.1", Fault::RevokedToken, V3_TOKEN),
    ("3.1", Fault::NoUserName, V3_ID),
    ("3.1", Fault::BadJson(1), V3_LOST),
    ("3.1", Fault::BadJson(2), V3_LOST),
    ("3.1.1", Fault::WrongToken, V3_TOKEN),
    ("3.1.1", Fault::RevokedToken, V3_TOKEN),
    ("3.1.1", Fault::NoUserName, V3_ID),
    ("3.1.1", Fault::Nothing, V3_TOKEN),
    ("3.1.1", Fault::BadJson(1), V3_LOST),
    ("3.1.1", Fault::BadJson(2), V3_LOST),
    ("5", Fault::WrongToken, V5_TOKEN),
    ("5", Fault::RevokedToken, V5_TOKEN),
    ("5", Fault::NoUserName, V5_ID),
    ("5", Fault::Nothing, V5_NOTHING),
    ("5", Fault::BadJson(1), V5_PUBACK),
    ("5", Fault::BadJson(2), V5_PUBREC),
];

/// TB-07: a subscriber of 3.1.1 whose token is revoked sees a close, comes back by itself and is
/// refused; one of MQTT 5 is told and ends.
#[test]
fn says_that_it_was_cut_off() {
    const NOT_AUTHORISED: Option<&str> =
        Some("Connection error: Connection Refused: not authorised.");
    let site = Site::start();
    let table = [
        ("3.1", 5, NOT_AUTHORISED),
        ("3.1.1", 5, NOT_AUTHORISED),
        ("5", 0, None),
    ];
    for (version, code, text) in table {
        let errand = site.revoked_errand(version);
        // Its debug output waits in a buffer unless stdout is made to pass each line on.
        let mut command = Command::new(tool("stdbuf"));
        command.arg("-oL").arg(tool("mosquitto_sub"));
        let port = errand.port(&site.broker).to_string();
        command.args([
            "-d",
            "-V",
            protocol(version),
            "-h",
            "localhost",
            "-p",
            &port,
            "-i",
            "sub",
        ]);
        command
            .args(["-t", "v1/devices/me/attributes", "-u"])
            .args(&errand.token);
        let output = site.run(&mut command, &errand, "received SUBACK");
        let (stdout, stderr) = printed(&output);
        let case = format!("{version}:\n{stdout}{stderr}");
        assert_eq!(output.status.code(), Some(code), "{case}");
        assert_eq!(stderr.lines().next(), text, "{case}");
        assert_eq!(
            stdout.contains("Received DISCONNECT (152)"),
            version == "5",
            "{case}"
        );
    }
}

/// The line as it stands in the vendor's guide: bash eats the quotes of the JSON.
#[test]
fn pasted_lines_store_25() {
    let broker = Broker::start();
    let token = broker.create_device("pasted");
    let (mqtt, mqtts) = (broker.mqtt_port(), broker.mqtts_port());
    let plain = format!(
        "mosquitto_pub -d -q 1 -h localhost -p {mqtt} -t v1/devices/me/telemetry -u {token} \
         -m {{\"temperature\":25}}"
    );
    let tls = format!(
        "mosquitto_pub -d --cafile ca-root.pem -q 1 -h localhost -p {mqtts} \
         -t v1/devices/me/telemetry -u {token} -m {{\"temperature\":25}}"
    );
    for (line, stored) in [(plain, 1), (tls, 2)] {
        paste(&line, broker.ca_file().parent().expect("a folder"));
        assert_eq!(
            broker.values("pasted", "temperature"),
            vec![serde_json::json!(25); stored]
        );
    }
}

/// The first start makes a device and writes the two lines down, because stdout is no terminal.
#[test]
fn lines_of_the_first_start_store_25() {
    let broker = Broker::start();
    let file = broker.dir().join("secrets/first-device.txt");
    let text = std::fs::read_to_string(&file).expect("the first start wrote it");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("mosquitto_pub "))
        .collect();
    assert_eq!(
        lines.len(),
        2,
        "one line without TLS and one with it: {text}"
    );
    for line in lines {
        paste(line.trim(), broker.dir());
    }
    let devices = broker.cli_json(&["device", "list", "--json"]);
    let devices = devices["devices"].as_array().expect("a list of devices");
    assert_eq!(devices.len(), 1, "{devices:?}");
    let name = devices[0]["name"].as_str().expect("a name");
    assert_eq!(broker.values(name, "temperature"), [25, 25]);
}

/// Runs a line in bash and expects the message to be acknowledged.
fn paste(line: &str, folder: &Path) {
    tool("mosquitto_pub");
    let output = run(Command::new(tool("bash"))
        .args(["-c", line])
        .current_dir(folder));
    let (stdout, stderr) = printed(&output);
    assert_eq!(
        (output.status.code(), &*stderr),
        (Some(0), ""),
        "{line}\n{stdout}"
    );
    assert!(
        stdout.contains("received PUBACK (Mid: 1, RC:0)"),
        "{line}\n{stdout}"
    );
}

/// `mosquitto_pub` with its debug output.
fn publish(port: u16, ca_file: Option<&Path>, arguments: &[String]) -> Output {
    let mut command = Command::new(tool("mosquitto_pub"));
    command.args([
        "-d",
        "-h",
        "localhost",
        "-t",
        TELEMETRY,
        "-p",
        &port.to_string(),
    ]);
    if let Some(ca_file) = ca_file {
        command.arg("--cafile").arg(ca_file);
    }
    run(command.args(arguments))
}

fn arguments(errand: &Errand) -> Vec<String> {
    let [(qos, payload)] = errand.messages.as_slice() else {
        panic!("mosquitto_pub sends one message");
    };
    let qos = qos.to_string();
    let mut arguments = vec!["-V", protocol(errand.version), "-q", &qos, "-m", payload];
    if let Some(token) = &errand.token {
        arguments.extend(["-u", token]);
    }
    // An empty id is what it sends by itself on 3.1.1 and 5.
    if let Some(client_id) = errand.client_id.filter(|id| !id.is_empty()) {
        arguments.extend(["-i", client_id]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}

/// The version as its option `-V` names it.
fn protocol(version: &str) -> &str {
    match version {
        "3.1" => "31",
        "3.1.1" => "311",
        other => other,
    }
}
