//! Broken packets and packets in the wrong place, byte by byte.
//!
//! The cases P-01 to P-50 of the security requirements (section 8), and more of each kind. Behind
//! every one of them comes a packet that would work: it must not be looked at any more (SEC-14).

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, packet, publish, reason},
    wire::{ANSWER_LIMIT, Wire, hex, show},
};

/// What must come back.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// The close. MQTT 5 may say why before it: a DISCONNECT of 0x80 and above.
    Close,
    /// A CONNACK with one of these codes, and the close.
    Tell(&'static [u8]),
    /// The close, and only these codes in a CONNACK before it.
    Refuse(&'static [u8]),
    /// The close, or a SUBACK with this one code and the connection stays.
    CloseOrSubAck(u8),
    /// DISCONNECT with one of these codes, and the close.
    Disconnect(&'static [u8]),
}

use Must::{Close, CloseOrSubAck, Disconnect, Refuse, Tell};

/// Instead of CONNECT.
const NEW: &[(&str, &str, Must)] = &[
    ("P-01", "40020001", Close),
    ("P-02", "30ffffff7f", Close),
    ("P-03", "10ffffff7f", Close),
    ("P-04", "108080808001", Close),
    ("P-05", "e000", Close),
    (
        "P-06",
        "100e00044d5154546302003c00027031",
        Tell(&[0x01, 0x84]),
    ),
    ("P-07", "100e00044d5154540403003c00027031", Close),
    ("P-08", "100e00044d515454040a003c00027031", Close),
    (
        "P-09",
        "101400044d515454041e003c00027031000177000178",
        Close,
    ),
    ("P-10", "101100044d5154540442003c00027031000178", Close),
    ("P-11", "100c00044d5154540400003c0000", Tell(&[0x02])),
    (
        "P-12",
        "101300044d5154540502003c808080800100027031",
        Refuse(&[0x81]),
    ),
    (
        "P-13",
        "101100044d5154540502003c027f0100027031",
        Refuse(&[0x81]),
    ),
    (
        "P-14",
        "101100044d5154540502003c02170200027031",
        Refuse(&[0x82]),
    ),
    // SEC-02: decided on the first byte, whatever is announced.
    ("CONNECT with flags", "11", Close),
    ("PUBLISH, first byte only", "30", Close),
    ("SUBSCRIBE first", "82060001000161 00", Close),
    ("PINGREQ first", "c000", Close),
    ("AUTH first", "f000", Close),
    ("type 0 first", "0000", Close),
    // SEC-03: 64 KiB and one byte, before authentication.
    ("CONNECT too long", "10 feff03", Close),
    // SEC-05: fields and Remaining Length.
    (
        "CONNECT with a byte left over",
        "100f00044d5154540402003c0002703100",
        Close,
    ),
    (
        "CONNECT cut in its client id",
        "100d00044d5154540402003c000270",
        Close,
    ),
    (
        "CONNECT without a client id",
        "100a00044d5154540402003c",
        Close,
    ),
    ("CONNECT of length 0", "1000", Close),
    (
        "CONNECT whose user name is missing",
        "100e00044d5154540482003c00027031",
        Close,
    ),
    (
        "CONNECT with will retain but no will",
        "100e00044d5154540422003c00027031",
        Close,
    ),
    (
        "CONNECT with another protocol's name",
        "100e00044d5154580402003c00027031",
        Refuse(&[1, 0x84]),
    ),
    (
        "CONNECT with MQIsdp and level 4",
        "101000064d51497364700402003c00027031",
        Refuse(&[1, 0x84]),
    ),
    // SEC-08: text.
    (
        "CONNECT with an ill-formed client id",
        "100e00044d5154540402003c0002c328",
        Close,
    ),
    (
        "CONNECT with U+0000 in the client id",
        "100e00044d5154540402003c00027000",
        Close,
    ),
    (
        "CONNECT with a surrogate",
        "100f00044d5154540402003c0003eda080",
        Close,
    ),
    // SEC-09 and the rest, MQTT 5.
    (
        "Receive Maximum 0",
        "101200044d5154540502003c0321000000027031",
        Refuse(&[0x81, 0x82]),
    ),
    (
        "Session Expiry twice",
        "101900044d5154540502003c0a11000000011100000001 00027031",
        Refuse(&[0x82]),
    ),
    (
        "authentication data alone",
        "101300044d5154540502003c0416000178 00027031",
        Refuse(&[0x82]),
    ),
    (
        "unknown authentication method",
        "101300044d5154540502003c0415000178 00027031",
        Refuse(&[0x8c]),
    ),
    // SEC-17: other protocols.
    (
        "HTTP",
        "474554202f20485454502f312e310d0a486f73743a20780d0a0d0a",
        Close,
    ),
    ("TLS", "16030100c8010000c40303", Close),
    (
        "PROXY",
        "50524f58592054435034203132372e302e302e31203132372e302e302e31203120320d0a",
        Close,
    ),
    (
        "PROXY, second version",
        "0d0a0d0a000d0a515549540a2111000c",
        Close,
    ),
    ("SSH", "5353482d322e302d780d0a", Close),
];

/// After an accepted CONNECT of 3.1.1.
const C4: &[(&str, &str, Must)] = &[
    ("P-17", "0000", Close),
    ("P-18", "f000", Close),
    ("P-19", "d000", Close),
    ("P-20", "b0020001", Close),
    ("P-21", "9003000100", Close),
    ("P-22", "30020000", Close),
    ("P-23", "3203000161", Close),
    ("P-24", "36050001610001", Close),
    ("P-25", "32050001610000", Close),
    ("P-26", "30040002c328", Close),
    ("P-27", "30050003610062", Close),
    ("P-28", "30050003612f23", Close),
    ("P-29", "3005ffff616263", Close),
    ("P-30", "8006000100016100", Close),
    ("P-31", "82020001", Close),
    ("P-32", "82050001000161", Close),
    ("P-33", "8206000100016103", Close),
    ("P-34", "8206000000016100", Close),
    ("P-35", "820700010002612300", CloseOrSubAck(0x80)),
    ("P-36", "82050001000000", Close),
    ("P-37", "a2020001", Close),
    ("P-39", "c100", Close),
    ("P-40", "c00100", Close),
    ("CONNACK", "20020000", Close),
    ("AUTH in 3.1.1", "f0020000", Close),
    ("DUP on QoS 0", "3803000161", Close),
    ("PUBLISH without a topic", "3000", Close),
    ("PUBLISH with half a topic length", "300100", Close),
    ("PUBLISH with + in the topic", "300500 03612f2b", Close),
    ("PUBLISH with an overlong form", "30040002c081", Close),
    ("PUBLISH with a surrogate", "30050003eda080", Close),
    ("PUBLISH with a control character", "30050003610162", Close),
    ("PUBACK for id 0", "40020000", Close),
    ("PUBACK with a byte left over", "4003000100", Close),
    ("PUBREC for id 0", "50020000", Close),
    ("PUBREL for id 0", "62020000", Close),
    ("PUBREL without an id", "6200", Close),
    ("PUBCOMP for id 0", "70020000", Close),
    ("UNSUBSCRIBE id 0", "a2050000000161", Close),
    ("UNSUBSCRIBE of an empty filter", "a20400010000", Close),
    ("SUBSCRIBE with reserved bits", "8206000100016104", Close),
    (
        "SUBSCRIBE to a/+b",
        "8209000100 04612f2b6200",
        CloseOrSubAck(0x80),
    ),
    (
        "SUBSCRIBE to #/a",
        "820800010003232f6100",
        CloseOrSubAck(0x80),
    ),
    ("DISCONNECT with a body", "e00100", Close),
    ("a length of five bytes", "308080808001", Close),
    ("a length that never ends", "30ffffffff", Close),
];

/// After an accepted CONNECT of MQTT 5.
const C5: &[(&str, &str, Must)] = &[
    ("P-15", "29020001", Close),
    ("P-43", "3003000000", Disconnect(&[0x82])),
    ("P-44", "300700016103230000", Disconnect(&[0x94])),
    ("P-45", "8207000100000161c0", Disconnect(&[0x81, 0x82])),
    (
        "P-46",
        "8210000100000a2473686172652f672f6104",
        Disconnect(&[0x82]),
    ),
    (
        "P-47",
        "820f00010000092473686172652f616200",
        CloseOrSubAck(0x8f),
    ),
    ("P-48", "30080001610401000100", Disconnect(&[0x82])),
    ("P-49", "e0070005110000000a", Disconnect(&[0x82])),
    (
        "server packet SUBACK",
        "900400010000",
        Disconnect(&[0x81, 0x82]),
    ),
    ("server packet PINGRESP", "d000", Disconnect(&[0x81, 0x82])),
    ("type 0", "0000", Disconnect(&[0x81, 0x82])),
    ("AUTH without a method", "f000", Disconnect(&[0x82])),
    ("QoS 3", "3606000161000100", Disconnect(&[0x81])),
    ("packet id 0", "3206000161000000", Disconnect(&[0x81, 0x82])),
    (
        "retain handling 3",
        "820700010000016130",
        Disconnect(&[0x81, 0x82]),
    ),
    (
        "subscription id 0",
        "82090001 02 0b00 000161 00",
        Disconnect(&[0x82]),
    ),
    (
        "alias above the maximum",
        "300700016103230021",
        Disconnect(&[0x94]),
    ),
    (
        "an alias that stands for nothing",
        "3006 0000 03 230001",
        Disconnect(&[0x94]),
    ),
    (
        "unknown property",
        "30060001 61 027f00",
        Disconnect(&[0x81]),
    ),
    (
        "a property of another packet",
        "300900016105 1100000001",
        Disconnect(&[0x81, 0x82]),
    ),
    (
        "payload format 2",
        "30060001 61 020102",
        Disconnect(&[0x81, 0x82]),
    ),
    (
        "property length past the packet",
        "3005000161 0a00",
        Disconnect(&[0x81]),
    ),
    (
        "property length of five bytes",
        "30090001618080808001 00",
        Disconnect(&[0x81]),
    ),
    (
        "property length not minimal",
        "3006000161 800000",
        Disconnect(&[0x81]),
    ),
    (
        "response topic with #",
        "300800016104 08000123",
        Disconnect(&[0x81, 0x82, 0x90]),
    ),
    (
        "subscription id from a client",
        "3006000161020b01",
        Disconnect(&[0x82]),
    ),
    (
        "ill-formed text in a user property",
        "300b0001610726 0002c328 000161",
        Disconnect(&[0x81]),
    ),
    (
        "PUBACK with an unknown reason",
        "400300017f",
        Disconnect(&[0x81, 0x82]),
    ),
    (
        "PUBACK with a byte left over",
        "400500010000ff",
        Disconnect(&[0x81]),
    ),
    ("DISCONNECT with a reason of the server's", "e0018d", Close),
    ("a topic that is cut", "3002ffff", Disconnect(&[0x81])),
];

#[test]
fn new_connections_that_do_not_begin_as_they_must() {
    let (broker, token) = site();
    let good = Connect::with_token(Version::V311, "p1", &token).encode();
    let mut wrong = Vec::new();
    for &(id, bytes, must) in NEW {
        let mut wire = broker.wire();
        wire.send(&[hex(bytes), good.clone()].concat());
        let answers = wire.packets_until_close();
        let (codes, least): (&[u8], _) = match must {
            Tell(codes) => (codes, 1),
            Refuse(codes) => (codes, 0),
            _ => (&[], 0),
        };
        let is_refusal = |answer: &Vec<u8>| answer[0] == 0x20 && codes.contains(&reason(answer));
        let right_number = (least..=1).contains(&answers.len());
        let right = right_number && answers.iter().all(is_refusal);
        if !right {
            wrong.push(format!("{id}: {answers:02x?}, {must:02x?}"));
        }
        expect_service(&broker, &token);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The same CONNECTs with a good token put in: still nobody gets in.
#[test]
fn a_good_token_in_a_broken_connect_opens_nothing() {
    let (broker, token) = site();
    let cases = NEW.iter().filter(|(id, bytes, _)| {
        let is_connect = bytes.starts_with("10") && bytes.len() > 20;
        // Whether the flags promise something that is missing changes with the token behind.
        is_connect && !id.contains("missing") && !id.contains("cut") && *id != "P-10"
    });
    for &(id, bytes, _) in cases {
        let mut wire = broker.wire();
        wire.send(&with_token(&hex(bytes), &token));
        for answer in wire.packets_until_close() {
            assert_ne!(
                (answer[0], reason(&answer)),
                (0x20, 0),
                "{id}: {}",
                show(&answer)
            );
        }
    }
    // P-10: password without user name; the password is the token.
    let mut body = hex("00044d5154540442003c00027031");
    crate::common::packets::text(&mut body, &token);
    let mut wire = broker.wire();
    wire.send(&packet(0x10, &body));
    wire.expect_close();
    expect_service(&broker, &token);
}

#[test]
fn packets_that_a_3_1_1_client_may_not_send() {
    for version in [Version::V31, Version::V311] {
        in_place(version, C4);
    }
}

#[test]
fn packets_that_an_mqtt_5_client_may_not_send() {
    in_place(Version::V5, C5);
}

/// P-16: a second CONNECT.
#[test]
fn p_16_a_second_connect_closes() {
    let (broker, token) = site();
    for version in VERSIONS {
        let connect = Connect::with_token(version, "p1", &token);
        let mut wire = broker.wire();
        log_in(&mut wire, &connect);
        wire.send(&connect.encode());
        let answers = wire.packets_until_close();
        assert!(
            is_right(version, &answers, Close),
            "{version:?}: {answers:02x?}"
        );
        expect_service(&broker, &token);
    }
}

/// P-38: 65,535 slashes.
#[test]
fn p_38_a_filter_of_slashes_is_refused() {
    let (broker, token) = site();
    let mut bytes = hex("82848004 0001 ffff");
    bytes.extend([b'/'; 65_535]);
    bytes.push(0);
    let mut wire = connect(&broker, Version::V311, &token);
    wire.send(&bytes);
    if let Some(answer) = wire.packet_or_close(ANSWER_LIMIT) {
        assert_eq!(show(&answer), "9003000180");
        wire.expect_alive();
    }
    expect_service(&broker, &token);
}

/// P-41, P-42: acknowledgements for what was never sent.
#[test]
fn p_41_p_42_acknowledgements_for_unknown_ids_do_no_harm() {
    let (broker, token) = site();
    for version in VERSIONS {
        let mut wire = connect(&broker, version, &token);
        wire.send_hex("40021234"); // P-41: PUBACK, ignored
        wire.send_hex("70021234"); // PUBCOMP, ignored
        wire.expect_alive();
        wire.send_hex("50021234"); // P-42: PUBREC
        let pubrel = wire.packet();
        assert_eq!(
            (pubrel[0], &pubrel[2..4]),
            (0x62, &hex("1234")[..]),
            "{}",
            show(&pubrel)
        );
        wire.expect_alive();
    }
}

/// SEC-06: the flags of every packet that a client may send, all of them wrong.
#[test]
fn sec_06_wrong_flags_close() {
    let (broker, token) = site();
    let packets = [
        ("PUBACK", 0x40, "020001"),
        ("PUBREC", 0x50, "020001"),
        ("PUBREL", 0x62, "020001"),
        ("PUBCOMP", 0x70, "020001"),
        ("SUBSCRIBE", 0x82, "0600010001 6100"),
        ("UNSUBSCRIBE", 0xa2, "0500010001 61"),
        ("PINGREQ", 0xc0, "00"),
        ("DISCONNECT", 0xe0, "00"),
    ];
    for (name, first_byte, rest) in packets {
        for flags in (0..16).filter(|flags| *flags != first_byte & 0x0f) {
            let mut wire = connect(&broker, Version::V311, &token);
            wire.send(&[vec![first_byte & 0xf0 | flags], hex(rest)].concat());
            wire.send(&late(Version::V311));
            let answers = wire.packets_until_close();
            assert!(
                answers.is_empty(),
                "{name} with flags {flags:x}: {answers:02x?}"
            );
        }
    }
    expect_nothing_late(&broker);
}

/// SEC-17 from the other side: MQTT without TLS on the TLS port.
#[test]
fn plain_mqtt_on_the_tls_port_is_closed() {
    let (broker, token) = site();
    let mut wire = Wire::connect(broker.address("mqtts"));
    wire.send(&Connect::with_token(Version::V311, "p1", &token).encode());
    // A TLS alert may come first; it is not an MQTT packet.
    wire.skip_until_close();
    expect_service(&broker, &token);
}

/// Every case on a connection of its own, with a good PUBLISH right behind it.
fn in_place(version: Version, cases: &[(&str, &str, Must)]) {
    let (broker, token) = site();
    let mut wrong = Vec::new();
    for &(id, bytes, must) in cases {
        let mut wire = connect(&broker, version, &token);
        wire.send(&hex(bytes));
        if let CloseOrSubAck(code) = must
            && let Some(answer) = wire.packet_or_close(ANSWER_LIMIT)
        {
            let is_suback = answer[0] == 0x90 && answer.last() == Some(&code);
            assert!(
                is_suback || is_disconnect(&answer),
                "{id}: {}",
                show(&answer)
            );
            if is_suback {
                wire.expect_alive();
            }
            continue;
        }
        wire.send(&late(version));
        let answers = wire.packets_until_close();
        if !is_right(version, &answers, must) {
            wrong.push(format!("{version:?} {id}: {answers:02x?}, {must:02x?}"));
        }
        expect_service(&broker, &token);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    expect_nothing_late(&broker);
}

fn is_right(version: Version, answers: &[Vec<u8>], must: Must) -> bool {
    match must {
        Disconnect(codes) => {
            matches!(answers, [one] if one[0] == 0xe0 && codes.contains(&reason(one)))
        }
        _ if version == Version::V5 => match answers {
            [] => true,
            [one] => is_disconnect(one),
            _ => false,
        },
        _ => answers.is_empty(),
    }
}

fn is_disconnect(packet: &[u8]) -> bool {
    packet[0] == 0xe0 && reason(packet) >= 0x80
}

/// What would be stored if the broker read on.
fn late(version: Version) -> Vec<u8> {
    publish(version, 1, 99, TELEMETRY, br#"{"late":1}"#)
}

fn expect_nothing_late(broker: &Broker) {
    assert_eq!(broker.values("hostile", "late"), [0_u8; 0]);
}

/// A CONNECT with the user name flag set and the token at its end, its length put right.
fn with_token(connect: &[u8], token: &str) -> Vec<u8> {
    let mut body = connect[2..].to_vec();
    let name_length = usize::from(body[1]);
    body[name_length + 3] |= 0x80;
    crate::common::packets::text(&mut body, token);
    packet(0x10, &body)
}

/// After all that, a normal client is served.
fn expect_service(broker: &Broker, token: &str) {
    connect(broker, Version::V5, token).expect_alive();
}

fn site() -> (Broker, String) {
    let broker = Broker::start();
    let token = broker.create_device("hostile");
    (broker, token)
}

fn connect(broker: &Broker, version: Version, token: &str) -> Wire {
    let mut wire = broker.wire();
    log_in(&mut wire, &Connect::with_token(version, "p1", token));
    wire
}
