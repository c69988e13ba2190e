//! Wills.

use crate::common::packets::{Connect, VERSIONS, Version, binary, packet, text};
use crate::common::wire::hex;
use crate::site::{Client, create_app, site};

fn with_will<'a>(version: Version, name: &'a str, token: &'a str) -> Connect<'a> {
    Connect {
        will: Some((1, false, "will/of", b"gone")),
        ..Connect::with_token(version, name, token)
    }
}

/// CONNECT of MQTT 5 with a will delay and a session expiry, in seconds.
fn delayed(client_id: &str, token: &str, delay_s: u32, expiry_s: u32, clean: bool) -> Vec<u8> {
    let mut body = hex("00044d51545405");
    body.push(0x80 | 0x0c | u8::from(clean) << 1);
    body.extend([0, 60]);
    body.extend([5, 0x11]);
    body.extend(expiry_s.to_be_bytes());
    text(&mut body, client_id);
    body.extend([5, 0x18]);
    body.extend(delay_s.to_be_bytes());
    text(&mut body, "will/of");
    binary(&mut body, b"gone");
    text(&mut body, token);
    packet(0x10, &body)
}

fn connect_delayed(broker: &crate::common::broker::Broker, connect: &[u8]) -> Client {
    let mut wire = broker.wire();
    wire.send(connect);
    let connack = wire.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    Client::over(wire, Version::V5)
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_when_the_connection_is_lost() {
    for version in VERSIONS {
        let (broker, token) = site();
        let mut watcher = Client::connect(&broker, version, "w", &token);
        watcher.subscribe(&[("will/#", 1)]);
        let (client, _) = Client::with(&broker, &with_will(version, "c", &token));
        client.wire.reset();
        watcher.expect(1, "will/of", "gone");
    }
}

#[test]
fn mqtt_3_14_4_3_a_goodbye_takes_the_will_away() {
    let (broker, token) = site();
    let mut watcher = Client::connect(&broker, Version::V5, "w", &token);
    watcher.subscribe(&[("will/#", 1), ("marker", 0)]);
    let (client, _) = Client::with(&broker, &with_will(Version::V5, "c", &token));
    client.disconnect();
    let mut other = Client::connect(&broker, Version::V5, "o", &token);
    watcher.expect_nothing_before(&mut other, "marker");
    // 0x04 asks for it all the same.
    let (mut client, _) = Client::with(&broker, &with_will(Version::V5, "c", &token));
    client.wire.send(&[0xe0, 1, 4]);
    watcher.expect(1, "will/of", "gone");
}

#[test]
fn a_take_over_publishes_the_will_of_the_older_connection() {
    let (broker, token) = site();
    let mut watcher = Client::connect(&broker, Version::V5, "w", &token);
    watcher.subscribe(&[("will/#", 1)]);
    let (mut older, _) = Client::with(&broker, &with_will(Version::V5, "c", &token));
    let (_newer, _) = Client::with(&broker, &with_will(Version::V5, "c", &token));
    let goodbye = older.wire.packet();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8e));
    watcher.expect(1, "will/of", "gone");
}

#[test]
fn mqtt_3_1_3_9_a_delayed_will_waits_and_goes_when_its_session_comes_back() {
    let (broker, token) = site();
    let mut watcher = Client::connect(&broker, Version::V5, "w", &token);
    watcher.subscribe(&[("will/#", 1), ("marker", 0)]);
    let mut other = Client::connect(&broker, Version::V5, "o", &token);
    // Back in time: not published.
    let client = connect_delayed(&broker, &delayed("c", &token, 3_000, 3_600, false));
    client.wire.reset();
    let client = connect_delayed(&broker, &delayed("c", &token, 3_000, 3_600, false));
    watcher.expect_nothing_before(&mut other, "marker");
    // A clean start ends the session, and so the delay.
    client.wire.reset();
    let client = connect_delayed(&broker, &delayed("c", &token, 1, 3_600, true));
    watcher.expect(1, "will/of", "gone");
    // The delay ends by itself.
    client.wire.reset();
    watcher.expect(1, "will/of", "gone");
}

#[test]
fn rel_06_a_will_is_published_once_after_kill_9() {
    let (mut broker, token) = site();
    let keeps = Connect {
        clean: false,
        properties: vec![0x11, 0, 0, 14, 16],
        ..Connect::with_token(Version::V5, "w", &token)
    };
    let (mut watcher, _) = Client::with(&broker, &keeps);
    watcher.subscribe(&[("will/#", 1)]);
    let _client = connect_delayed(&broker, &delayed("c", &token, 0, 3_600, false));
    broker.kill9();
    broker.restart();
    let (mut watcher, _) = Client::with(&broker, &keeps);
    watcher.expect(1, "will/of", "gone");
    // Its acknowledgement is on disk when this is.
    watcher.publish(3, "sync", "x");
    watcher.disconnect();
    broker.kill9();
    broker.restart();
    let (mut watcher, _) = Client::with(&broker, &keeps);
    let mut other = Client::connect(&broker, Version::V5, "o", &token);
    watcher.subscribe(&[("marker", 0)]);
    watcher.expect_nothing_before(&mut other, "marker");
}

#[test]
fn sec_35_sec_37_the_will_of_a_revoked_credential_is_not_published() {
    let (broker, token) = site();
    let mut watcher = Client::connect(&broker, Version::V5, "w", &token);
    watcher.subscribe(&[("#", 1)]);
    let bad = create_app(&broker, "bad", &["will/#", "r/#"], &["#"]);
    let mut lost = Client::connect(&broker, Version::V5, "l", &bad);
    lost.publish(3, "r/1", "retained");
    watcher.expect(1, "r/1", "retained");
    let (mut client, _) = Client::with(&broker, &with_will(Version::V5, "c", &bad));
    let waits = connect_delayed(&broker, &delayed("d", &bad, 3_000, 3_600, false));
    waits.wire.reset();
    broker.wait_metric_until("tollgate_connections", |held| held == 3.0);
    let receipt = broker.cli_json(&["app", "revoke", "bad", "--json"]);
    assert_eq!(receipt["receipt"]["wills"], 2, "{receipt}");
    assert_eq!(receipt["receipt"]["retained"], 1, "{receipt}");
    assert_eq!(client.wire.packet()[2], 0x98);
    let mut other = Client::connect(&broker, Version::V5, "o", &token);
    watcher.expect_nothing_before(&mut other, "marker");
    other.subscribe(&[("r/#", 0), ("marker", 0)]);
    other.expect_nothing_before(&mut watcher, "marker");
}
