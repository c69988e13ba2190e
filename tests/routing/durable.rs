//! What was acknowledged is there after `kill -9` (REL-06).

use crate::common::packets::{Connect, Version, packet};
use crate::site::{Client, site};

fn keeps<'a>(name: &'a str, token: &'a str) -> Connect<'a> {
    Connect {
        clean: false,
        properties: vec![0x11, 0, 0, 14, 16],
        ..Connect::with_token(Version::V5, name, token)
    }
}

#[test]
fn rel_06_queued_messages_survive_kill_9_in_order() {
    let (mut broker, token) = site();
    let (mut client, _) = Client::with(&broker, &keeps("s", &token));
    client.subscribe_with(&[0x0b, 9], &[("t/#", 0x0a)]);
    client.disconnect();
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    for n in 0..20_u8 {
        publisher.publish(2 + 2 * (n % 2), "t/x", &n.to_string());
    }
    publisher.publish(3, "t/retained", "with its flag");
    broker.kill9();
    broker.restart();
    let (mut client, connack) = Client::with(&broker, &keeps("s", &token));
    assert_eq!(connack[2], 1, "the session is there");
    for n in 0..20_u8 {
        let got = client.expect(1 + n % 2, "t/x", &n.to_string());
        assert_eq!(got.properties, [0x0b, 9], "its subscription's identifier");
        assert!(!got.dup, "it was never sent: {got:?}");
    }
    assert!(client.expect(1, "t/retained", "with its flag").retain);
    // Settled ones do not come back; the subscription is there. The acknowledgements are on disk
    // when this is.
    client.publish(3, "sync", "x");
    client.disconnect();
    broker.kill9();
    broker.restart();
    let (mut client, _) = Client::with(&broker, &keeps("s", &token));
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(2, "t/x", "live");
    client.expect(1, "t/x", "live");
}

#[test]
fn rel_06_qos_2_is_delivered_once_through_kill_9() {
    let (mut broker, token) = site();
    let (mut client, _) = Client::with(&broker, &keeps("s", &token));
    client.subscribe(&[("t", 2)]);
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    publisher.publish(4, "t", "sent");
    publisher.publish(4, "t", "received");
    let sent = client.next_unacknowledged();
    let received = client.next_unacknowledged();
    client.wire.send(&packet(0x50, &received.id.to_be_bytes()));
    let pubrel = client.wire.packet();
    assert_eq!(
        (pubrel[0], &pubrel[2..4]),
        (0x62, &received.id.to_be_bytes()[..])
    );
    broker.kill9();
    broker.restart();
    let (mut client, connack) = Client::with(&broker, &keeps("s", &token));
    assert_eq!(connack[2], 1);
    // PUBREL for the one, DUP with the same id for the other; in either order.
    let (mut released, mut again) = (false, false);
    while !(released && again) {
        let bytes = client.wire.packet();
        match bytes[0] >> 4 {
            6 => {
                assert_eq!(bytes[2..4], received.id.to_be_bytes());
                client.wire.send(&packet(0x70, &received.id.to_be_bytes()));
                released = true;
            }
            _ => {
                let got = crate::site::Got::read(Version::V5, &bytes);
                assert_eq!((got.id, got.dup), (sent.id, true), "{got:?}");
                assert_eq!(got.payload, "sent");
                again = true;
                client.wire.send(&packet(0x50, &got.id.to_be_bytes()));
            }
        }
    }
    assert_eq!(client.wire.packet()[0], 0x62);
    client.wire.send(&packet(0x70, &sent.id.to_be_bytes()));
    client.subscribe(&[("marker", 0)]);
    let mut publisher = Client::connect(&broker, Version::V5, "p", &token);
    client.expect_nothing_before(&mut publisher, "marker");
}

#[test]
fn sys_figures_come_to_those_whose_scope_names_them() {
    let (broker, token) = crate::site::site_with(&[("TOLLGATE_MQTT_SYS_INTERVAL_S", "1")]);
    let watch = crate::site::create_app(&broker, "watch", &[], &["$SYS/#"]);
    let mut all = Client::connect(&broker, Version::V5, "a", &token);
    assert_eq!(all.subscribe(&[("$SYS/#", 0), ("#", 0)]), [0x87, 0]);
    let mut watch = Client::connect(&broker, Version::V5, "w", &watch);
    assert_eq!(watch.subscribe(&[("$SYS/broker/clients/#", 0)]), [0]);
    watch.expect(0, "$SYS/broker/clients/connected", "2");
    watch.expect(0, "$SYS/broker/clients/active", "2");
    all.publish(0, "marker", "");
    all.expect(0, "marker", "");
}
