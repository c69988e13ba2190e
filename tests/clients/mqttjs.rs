//! MQTT.js: what its events say.

use std::process::Command;

use crate::{
    common::tools::{clients_dir, printed, tool},
    site::{Errand, Fault, Site},
};

#[test]
fn publishes_at_every_qos_over_tcp_and_tls() {
    let mut site = Site::start();
    for version in ["3.1", "3.1.1", "5"] {
        for tls in [false, true] {
            let errand = site.good_errand(version, tls, &[0, 1, 2]);
            let expected = [
                "connect: 0",
                "publish: ok",
                "publish: ok",
                "publish: ok",
                "close",
            ];
            assert_eq!(mqttjs(&site, &errand), expected, "{version} {tls}");
        }
    }
    site.check_stored();
}

/// MQTT.js asks for another subprotocol with MQTT 3.1.
#[test]
fn mqtt_6_0_0_3_publishes_at_every_qos_over_websocket() {
    let mut site = Site::start();
    for version in ["3.1.1", "5"] {
        for transport in ["ws", "wss"] {
            let errand = site.errand_over(version, transport, &[0, 1, 2]);
            let expected = [
                "connect: 0",
                "publish: ok",
                "publish: ok",
                "publish: ok",
                "close",
            ];
            let said = mqttjs(&site, &errand);
            assert_eq!(said, expected, "{version} {transport}");
        }
    }
    site.check_stored();
}

/// TB-07 over WebSocket: it ends behind the last word.
#[test]
fn mqtt_6_0_0_3_is_told_of_its_end_over_websocket() {
    let site = Site::start();
    for (version, expected) in [
        ("3.1.1", &["connect: 0", "close"][..]),
        ("5", &["connect: 0", "disconnect: 152", "close"]),
    ] {
        let mut errand = site.revoked_errand(version);
        errand.web = true;
        assert_eq!(mqttjs(&site, &errand), expected, "{version}");
    }
}

/// TB-04, TB-16: the error's message and, in brackets, its code.
#[test]
fn says_why_it_was_refused() {
    const NOT_AUTHORIZED: &[&str] = &["error: Connection refused: Not authorized (5)", "close"];
    const ID_REJECTED: &[&str] = &[
        "error: Connection refused: Identifier rejected (2)",
        "close",
    ];
    const BAD_USER: &[&str] = &[
        "error: Connection refused: Bad User Name or Password (134)",
        "close",
    ];
    const BAD_ID: &[&str] = &[
        "error: Connection refused: Client Identifier not valid (133)",
        "close",
    ];
    const CLOSED: &[&str] = &[
        "connect: 0",
        "close",
        "publish: Connection closed (undefined)",
    ];
    const SENT_AND_CLOSED: &[&str] = &["connect: 0", "publish: ok", "close"];
    const BAD_PAYLOAD: &[&str] = &[
        "connect: 0",
        "publish: Publish error: Payload format invalid (153)",
        "close",
    ];
    let table = [
        ("3.1", Fault::WrongToken, NOT_AUTHORIZED),
        ("3.1", Fault::RevokedToken, NOT_AUTHORIZED),
        ("3.1", Fault::NoUserName, ID_REJECTED),
        ("3.1", Fault::BadJson(0), SENT_AND_CLOSED),
        ("3.1", Fault::BadJson(1), CLOSED),
        ("3.1", Fault::BadJson(2), CLOSED),
        ("3.1.1", Fault::WrongToken, NOT_AUTHORIZED),
        ("3.1.1", Fault::RevokedToken, NOT_AUTHORIZED),
        ("3.1.1", Fault::NoUserName, ID_REJECTED),
        ("3.1.1", Fault::Nothing, NOT_AUTHORIZED),
        ("3.1.1", Fault::BadJson(0), SENT_AND_CLOSED),
        ("3.1.1", Fault::BadJson(1), CLOSED),
        ("3.1.1", Fault::BadJson(2), CLOSED),
        ("5", Fault::WrongToken, BAD_USER),
        ("5", Fault::RevokedToken, BAD_USER),
        ("5", Fault::NoUserName, BAD_ID),
        (
            "5",
            Fault::Nothing,
            &["error: Connection refused: Not authorized (135)", "close"],
        ),
        (
            "5",
            Fault::BadJson(0),
            &["connect: 0", "publish: ok", "disconnect: 153", "close"],
        ),
        ("5", Fault::BadJson(1), BAD_PAYLOAD),
        ("5", Fault::BadJson(2), BAD_PAYLOAD),
    ];
    let site = Site::start();
    for (version, fault, expected) in table {
        let errand = site.bad_errand(version, fault);
        assert_eq!(mqttjs(&site, &errand), expected, "{version} {fault:?}");
    }
    site.check_stored();
}

/// TB-07: what a device sees whose token is revoked while it is connected.
#[test]
fn says_that_it_was_cut_off() {
    const CLOSED: &[&str] = &["connect: 0", "close"];
    const TOLD: &[&str] = &["connect: 0", "disconnect: 152", "close"];
    let site = Site::start();
    for (version, expected) in [("3.1", CLOSED), ("3.1.1", CLOSED), ("5", TOLD)] {
        let errand = site.revoked_errand(version);
        assert_eq!(mqttjs(&site, &errand), expected, "{version}");
    }
}

/// The lines that the program prints on an errand.
fn mqttjs(site: &Site, errand: &Errand) -> Vec<String> {
    let script = clients_dir().join("mqttjs_client.mjs");
    let mut command = Command::new(tool("node"));
    command.arg(script).arg(errand.json(&site.broker));
    let output = site.run(&mut command, errand, "connect: ");
    let (stdout, stderr) = printed(&output);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{stdout}");
    stdout.lines().map(str::to_owned).collect()
}
