//! paho-mqtt in Python: what its callbacks say.

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
                "connect: Success",
                "publish: Success",
                "publish: Success",
                "publish: Success",
                "disconnect: Normal disconnection",
            ];
            assert_eq!(paho(&site, &errand), expected, "{version} {tls}");
        }
    }
    site.check_stored();
}

#[test]
fn mqtt_6_0_0_3_publishes_at_every_qos_over_websocket() {
    let mut site = Site::start();
    for version in ["3.1", "3.1.1", "5"] {
        for transport in ["ws", "wss"] {
            let errand = site.errand_over(version, transport, &[0, 1, 2]);
            let expected = [
                "connect: Success",
                "publish: Success",
                "publish: Success",
                "publish: Success",
                "disconnect: Normal disconnection",
            ];
            let said = paho(&site, &errand);
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
        (
            "3.1.1",
            ["connect: Success", "disconnect: Unspecified error"],
        ),
        (
            "5",
            ["connect: Success", "disconnect: Administrative action"],
        ),
    ] {
        let mut errand = site.revoked_errand(version);
        errand.web = true;
        assert_eq!(paho(&site, &errand), expected, "{version}");
    }
}

/// TB-04, TB-16. paho ends every connection that it closes itself as "Normal disconnection".
#[test]
fn says_why_it_was_refused() {
    const NOT_AUTHORIZED: &[&str] = &["connect: Not authorized", NORMAL];
    const BAD_ID: &[&str] = &["connect: Client identifier not valid", NORMAL];
    const BAD_USER: &[&str] = &["connect: Bad user name or password", NORMAL];
    const CLOSED: &[&str] = &["connect: Success", "disconnect: Unspecified error"];
    const SENT_AND_CLOSED: &[&str] = &[
        "connect: Success",
        "publish: Success",
        "disconnect: Unspecified error",
    ];
    const NORMAL: &str = "disconnect: Normal disconnection";
    const BAD_PAYLOAD: &[&str] = &[
        "connect: Success",
        "publish: Payload format invalid",
        NORMAL,
    ];
    // paho overlooks the reason in PUBREC; its PUBREL then meets an id that is not in use.
    const UNKNOWN_ID: &[&str] = &[
        "connect: Success",
        "publish: Packet identifier not found",
        NORMAL,
    ];
    const TOLD: &[&str] = &[
        "connect: Success",
        "publish: Success",
        "disconnect: Payload format invalid",
    ];
    let table = [
        ("3.1", Fault::WrongToken, NOT_AUTHORIZED),
        ("3.1", Fault::RevokedToken, NOT_AUTHORIZED),
        ("3.1", Fault::NoUserName, BAD_ID),
        ("3.1", Fault::BadJson(0), SENT_AND_CLOSED),
        ("3.1", Fault::BadJson(1), CLOSED),
        ("3.1", Fault::BadJson(2), CLOSED),
        ("3.1.1", Fault::WrongToken, NOT_AUTHORIZED),
        ("3.1.1", Fault::RevokedToken, NOT_AUTHORIZED),
        ("3.1.1", Fault::NoUserName, BAD_ID),
        ("3.1.1", Fault::Nothing, NOT_AUTHORIZED),
        ("3.1.1", Fault::BadJson(0), SENT_AND_CLOSED),
        ("3.1.1", Fault::BadJson(1), CLOSED),
        ("3.1.1", Fault::BadJson(2), CLOSED),
        ("5", Fault::WrongToken, BAD_USER),
        ("5", Fault::RevokedToken, BAD_USER),
        ("5", Fault::NoUserName, BAD_ID),
        ("5", Fault::Nothing, NOT_AUTHORIZED),
        ("5", Fault::BadJson(0), TOLD),
        ("5", Fault::BadJson(1), BAD_PAYLOAD),
        ("5", Fault::BadJson(2), UNKNOWN_ID),
    ];
    let site = Site::start();
    for (version, fault, expected) in table {
        let errand = site.bad_errand(version, fault);
        assert_eq!(paho(&site, &errand), expected, "{version} {fault:?}");
    }
    site.check_stored();
}

/// TB-07: what a device sees whose token is revoked while it is connected.
#[test]
fn says_that_it_was_cut_off() {
    const CLOSED: &[&str] = &["connect: Success", "disconnect: Unspecified error"];
    const TOLD: &[&str] = &["connect: Success", "disconnect: Administrative action"];
    let site = Site::start();
    for (version, expected) in [("3.1", CLOSED), ("3.1.1", CLOSED), ("5", TOLD)] {
        let errand = site.revoked_errand(version);
        assert_eq!(paho(&site, &errand), expected, "{version}");
    }
}

/// The lines that the program prints on an errand.
fn paho(site: &Site, errand: &Errand) -> Vec<String> {
    let script = clients_dir().join("paho_client.py");
    let mut command = Command::new(tool("python"));
    command.arg("-u"); // each line at once
    command.arg(script).arg(errand.json(&site.broker));
    let output = site.run(&mut command, errand, "connect: ");
    let (stdout, stderr) = printed(&output);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{stdout}");
    stdout.lines().map(str::to_owned).collect()
}
