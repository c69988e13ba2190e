//! SUBSCRIBE and UNSUBSCRIBE on the virtual topics.

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish, subscribe, unsubscribe},
    wire::{Wire, show},
};

/// TB-11: all that a device may subscribe to, letter by letter.
const ALLOWED: [&str; 23] = [
    "v1/devices/me/attributes",
    "v1/devices/me/attributes/response/+",
    "v1/devices/me/rpc/request/+",
    "v1/devices/me/rpc/response/+",
    "v2/a",
    "v2/a/j",
    "v2/a/p",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/a/res/p/+",
    "v2/r/req/+",
    "v2/r/req/j/+",
    "v2/r/req/p/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/r/res/p/+",
    "v1/gateway/attributes",
    "v1/gateway/attributes/response",
    "v1/gateway/rpc",
    "v2/fw/response/+/chunk/+",
    "v2/fw/error",
    "v2/sw/response/+/chunk/+",
    "v2/sw/error",
];

/// S-14 and more of the kind: valid filters that reach past the list or beside it.
const REFUSED: [&str; 16] = [
    "#",
    "+",
    "/#",
    "v1/#",
    "v1/+/me/attributes",
    "v1/devices/+/attributes",
    "v1/devices/me/#",
    "v1/devices/me/telemetry",
    "v1/devices/me/attributes/",
    "V1/devices/me/attributes",
    "v1/devices/me/rpc/request/1",
    "v2/fw/response/+",
    "/provision/response",
    "$SYS/#",
    "$share/g/v1/devices/me/attributes",
    "some/topic",
];

#[test]
fn tb_11_tb_13_the_list_is_granted_with_at_most_qos_1() {
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        let filters: Vec<_> = ALLOWED
            .iter()
            .zip((0..3_u8).cycle())
            .map(|(f, q)| (*f, q))
            .collect();
        let granted: Vec<_> = filters.iter().map(|(_, qos)| (*qos).min(1)).collect();
        assert_eq!(suback(&mut wire, version, &filters), granted, "{version:?}");
    }
}

#[test]
fn tb_11_anything_else_is_refused_on_its_own() {
    let (broker, token) = site();
    for version in VERSIONS {
        let refused = if version == Version::V5 { 0x8f } else { 0x80 };
        let mut wire = connect(&broker, version, &token);
        for filter in REFUSED {
            let filters = [(ALLOWED[0], 1), (filter, 2), (ALLOWED[2], 0)];
            let codes = suback(&mut wire, version, &filters);
            assert_eq!(codes, [1, refused, 0], "{version:?} {filter}");
        }
        wire.expect_alive();
    }
}

#[test]
fn unsuback_tells_what_was_removed() {
    let (broker, token) = site();
    let mut wire = connect(&broker, Version::V5, &token);
    assert_eq!(suback(&mut wire, Version::V5, &[(ALLOWED[0], 1)]), [1]);
    wire.send(&unsubscribe(Version::V5, 9, &[ALLOWED[0], ALLOWED[1], "#"]));
    // Removed; was not subscribed; could not be.
    wire.expect("b006 0009 00 001111");
    for version in [Version::V31, Version::V311] {
        let mut wire = connect(&broker, version, &token);
        wire.send(&unsubscribe(version, 9, &[ALLOWED[0], "#"]));
        wire.expect("b0020009");
    }
}

/// Not to another device, not to itself: what is published on device topics stays with us.
#[test]
fn tb_10_nothing_published_is_delivered() {
    let broker = Broker::start();
    let (one, other) = (broker.create_device("one"), broker.create_device("other"));
    let topics = [
        "v1/devices/me/attributes",
        "v1/devices/me/attributes/response/1",
        "v1/devices/me/rpc/request/1",
        "v1/devices/me/rpc/response/1",
        "v1/gateway/attributes",
        "v1/gateway/rpc",
        "v2/a",
        "v2/fw/error",
        TELEMETRY,
    ];
    let filters: Vec<_> = ALLOWED.iter().map(|filter| (*filter, 1)).collect();
    for version in VERSIONS {
        let mut publisher = connect(&broker, version, &one);
        let mut listener = connect(&broker, version, &other);
        assert_eq!(
            suback(&mut publisher, version, &filters).len(),
            filters.len()
        );
        assert_eq!(
            suback(&mut listener, version, &filters).len(),
            filters.len()
        );
        for (topic, id) in topics.iter().zip(1..) {
            for qos in [0, 1] {
                publisher.send(&publish(version, qos, id, topic, br#"{"method":"m"}"#));
            }
        }
        for id in 1..=topics.len() {
            let packet = publisher.packet();
            let expected = [0x40, u8::try_from(id).expect("a few")];
            assert_eq!(
                [packet[0], packet[3]],
                expected,
                "{version:?} {}",
                show(&packet)
            );
        }
        publisher.expect_alive();
        listener.expect_alive();
    }
}

fn site() -> (Broker, String) {
    let broker = Broker::start();
    let token = broker.create_device("a");
    (broker, token)
}

fn connect(broker: &Broker, version: Version, token: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, "a", token));
    wire
}

/// The codes of the answer.
fn suback(wire: &mut Wire, version: Version, filters: &[(&str, u8)]) -> Vec<u8> {
    wire.send(&subscribe(version, 77, filters));
    let packet = wire.packet();
    let head = if version == Version::V5 { 5 } else { 4 };
    assert_eq!(
        (packet[0], &packet[2..4]),
        (0x90, &[0, 77][..]),
        "{}",
        show(&packet)
    );
    packet[head..].to_vec()
}
