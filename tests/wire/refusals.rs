//! Every way bytes are refused, with the reason a MQTT 5 peer is told; and legal bytes that look
//! odd.

use tollgate::mqtt::topic::TopicError;
use tollgate::mqtt::wire::{
    AckKind, Connect, ConnectProperties, Packet, PacketId, Property, Publish, PublishProperties,
    QoS, ReasonCode, Sender, Subscribe, USER_PROPERTIES_BYTES_MAX, USER_PROPERTIES_MAX,
    UserProperties, Version, Will, WillProperties, WireError, decode, decode_connect, frame,
    write_ack,
};

use super::hex;

#[test]
fn sec_03_the_limit_counts_the_whole_packet_and_needs_no_body() {
    // 8 bytes: 2 of header, 6 of body.
    let header = [0x30, 0x06];
    assert!(matches!(frame(&header, 8), Ok(Some(found)) if found.total_len() == 8));
    let error = WireError::PacketTooLarge {
        size: 8,
        maximum: 7,
    };
    assert_eq!(frame(&header, 7), Err(error));
    assert_eq!(error.reason(), ReasonCode::PacketTooLarge);
    let header = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    assert!(matches!(frame(&header, u32::MAX), Ok(Some(found)) if found.remaining_len > 1 << 27));
}

#[test]
fn sec_04_a_header_is_found_when_its_last_byte_is_there() {
    for (digits, whole) in [
        ("", false),
        ("30", false),
        ("3080", false),
        ("308080", false),
        ("30808080", false),
        ("3000", true),
        ("308001", true),
        ("30808001", true),
        ("3080808001", true),
    ] {
        let found = frame(&hex::bytes(digits), u32::MAX);
        assert_eq!(found.map(|frame| frame.is_some()), Ok(whole), "{digits}");
    }
    for digits in [
        "3080808080",
        "30ffffffff",
        "30ffffffff01",
        "308000",
        "30808000",
        "3080808000",
    ] {
        let error = frame(&hex::bytes(digits), u32::MAX);
        assert!(
            matches!(error, Err(WireError::VariableByteInteger { .. })),
            "{digits}"
        );
    }
}

#[test]
fn sec_06_header_flags_are_exact_for_every_type() {
    for first_byte in 0..=255_u8 {
        let (number, flags) = (first_byte >> 4, first_byte & 0x0F);
        let legal = match number {
            0 => false,
            // QoS 3 never, DUP only above QoS 0.
            3 => flags & 6 != 6 && (flags & 8 == 0 || flags & 6 != 0),
            // DUP is MQTT 3.1's; `decode` refuses it elsewhere.
            6 | 8 | 10 => flags == 2 || flags == 10,
            _ => flags == 0,
        };
        assert_eq!(
            frame(&[first_byte, 0], 100).is_ok(),
            legal,
            "{first_byte:#04x}"
        );
    }
}

#[test]
fn dup_of_pubrel_subscribe_and_unsubscribe_is_mqtt_3_1_alone() {
    for digits in ["6a020001", "8a06000100016101", "aa050001000161"] {
        let bytes = hex::bytes(digits);
        assert!(
            decode(Version::V31, Sender::Client, &bytes).is_ok(),
            "{digits}"
        );
        let error = decode(Version::V311, Sender::Client, &bytes);
        assert!(
            matches!(error, Err(WireError::HeaderFlags { found: 0x0A, .. })),
            "{digits}"
        );
    }
    let error = outcome(Version::V5, Sender::Client, "6a020001");
    assert!(matches!(
        error,
        Err(WireError::HeaderFlags { found: 0x0A, .. })
    ));
}

#[test]
fn sec_07_each_side_sends_its_own_packets_only() {
    let packets = [
        ("100e00044d5154540502003c0000 0163", true, false),
        ("2003000000", false, true),
        ("3004000174 00", true, true),
        ("40020001", true, true),
        ("50020001", true, true),
        ("62020001", true, true),
        ("70020001", true, true),
        ("820700010000016101", true, false),
        ("900400010001", false, true),
        ("a206000100000161", true, false),
        ("b00400010000", false, true),
        ("c000", true, false),
        ("d000", false, true),
        ("e000", true, true),
        ("f000", true, true),
    ];
    for (digits, client, server) in packets {
        for (sender, legal) in [(Sender::Client, client), (Sender::Server, server)] {
            let bytes = hex::bytes(digits);
            let read = decode(Version::V5, sender, &bytes);
            assert_eq!(read.is_ok(), legal, "{digits} from {sender:?}: {read:?}");
            let wrong = matches!(read, Err(WireError::WrongSender { .. }));
            assert_eq!(wrong, !legal, "{digits} from {sender:?}: {read:?}");
        }
    }
    let goodbye = decode(Version::V311, Sender::Server, &[0xE0, 0]);
    assert!(
        matches!(goodbye, Err(WireError::WrongSender { .. })),
        "{goodbye:?}"
    );
    for (first_byte, number) in [(0x00, 0), (0xF0, 15)] {
        let error = decode(Version::V311, Sender::Client, &[first_byte, 0]).map(drop);
        assert_eq!(error, Err(WireError::UnknownType { number }));
    }
}

#[test]
fn sec_08_strict_strings_take_no_control_and_no_non_characters() {
    for (client_id, user_name) in [("a\u{1}", "u"), ("a\u{FFFE}", "u"), ("a", "u\u{85}")] {
        let bytes = written(&Connect {
            client_id,
            user_name: Some(user_name),
            ..connect()
        });
        let error = decode_connect(&bytes).expect_err("refused");
        assert!(matches!(error, WireError::Character { .. }), "{error:?}");
        assert_eq!(error.reason(), ReasonCode::MalformedPacket);
    }
    // Other strings of MQTT 5 take anything but U+0000.
    for (text, legal) in [("a\u{1}\u{FFFE}", true), ("a\0", false)] {
        let properties = PublishProperties {
            content_type: Some(text),
            ..PublishProperties::default()
        };
        let mut bytes = Vec::new();
        Publish {
            properties,
            ..publish()
        }
        .encode(Version::V5, &mut bytes)
        .expect("writable");
        assert_eq!(
            decode(Version::V5, Sender::Client, &bytes).is_ok(),
            legal,
            "{text:?}"
        );
    }
}

#[test]
fn sec_08_ill_formed_utf_8_is_refused_in_every_string() {
    // Surrogate, overlong slash, above U+10FFFF, cut short, a lone continuation byte.
    for digits in ["eda080", "c0af", "f4908080", "c3", "80"] {
        let bad = hex::bytes(digits);
        let length = u16::try_from(bad.len()).expect("short").to_be_bytes();
        let mut bytes = vec![0x30, 0, length[0], length[1]];
        bytes.extend(&bad);
        bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
        let error = decode(Version::V311, Sender::Client, &bytes);
        assert_eq!(
            error,
            Err(WireError::Utf8 {
                field: "topic name"
            }),
            "{digits}"
        );
    }
}

#[test]
fn sec_09_topics_answer_with_reasons_of_their_own() {
    let topic = "/".repeat(128);
    let mut bytes = Vec::new();
    Publish {
        topic: &topic,
        ..publish()
    }
    .encode(Version::V5, &mut bytes)
    .expect("writable");
    let error = decode(Version::V5, Sender::Client, &bytes).expect_err("129 levels");
    assert!(
        matches!(
            error,
            WireError::Topic {
                error: TopicError::TooDeep(129),
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.reason(), ReasonCode::TopicNameInvalid);

    let will = Will {
        topic: "a/+",
        ..will()
    };
    let error = decode_connect(&written(&Connect {
        will: Some(will),
        ..connect()
    }))
    .map(drop);
    let error = error.expect_err("a wildcard");
    assert_eq!(
        error,
        WireError::Topic {
            field: "will topic",
            error: TopicError::Wildcard
        }
    );

    let properties = WillProperties {
        response_topic: Some("#"),
        ..WillProperties::default()
    };
    let will = Will {
        properties,
        ..self::will()
    };
    let error = decode_connect(&written(&Connect {
        will: Some(will),
        ..connect()
    }))
    .map(drop);
    let error = error.expect_err("a wildcard");
    assert_eq!(
        error,
        WireError::Topic {
            field: "response topic",
            error: TopicError::Wildcard
        }
    );
}

#[test]
fn sec_11_user_properties_end_at_64_and_at_8_kib() {
    for (count, legal) in [
        (USER_PROPERTIES_MAX, true),
        (USER_PROPERTIES_MAX + 1, false),
    ] {
        let pairs = vec![("n", "v"); count];
        assert_eq!(reads_publish_with(&pairs).is_ok(), legal, "{count}");
    }
    // Two lengths of two bytes, a name of one byte.
    let value = "v".repeat(USER_PROPERTIES_BYTES_MAX - 5);
    assert_eq!(reads_publish_with(&[("n", &value)]), Ok(()));
    let error = reads_publish_with(&[("nn", &value)]).expect_err("8,193 bytes");
    assert!(
        matches!(
            error,
            WireError::UserProperties {
                bytes: 8_193,
                count: 1
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.reason(), ReasonCode::QuotaExceeded);
}

#[test]
fn sec_11_connect_and_its_will_share_one_limit() {
    for (count, legal) in [(32, true), (33, false)] {
        let pairs = vec![("n", "v"); count];
        let user_properties = UserProperties::new(&pairs);
        let properties = WillProperties {
            user_properties,
            ..WillProperties::default()
        };
        let will = Some(Will {
            properties,
            ..will()
        });
        let properties = ConnectProperties {
            user_properties,
            ..ConnectProperties::default()
        };
        let bytes = written(&Connect {
            will,
            properties,
            ..connect()
        });
        assert_eq!(decode_connect(&bytes).is_ok(), legal, "{count} in each");
    }
}

/// Section 2.2.2.2: identifier with a legal value, and the places that take it.
const PROPERTIES: &[(&str, &str)] = &[
    ("01 01", "publish will"),
    ("02 00000001", "publish will"),
    ("03 0000", "publish will"),
    ("08 0001 61", "publish will"),
    ("09 0000", "publish will"),
    ("0b 01", "subscribe from-server"),
    ("11 00000001", "connect connack disconnect"),
    ("12 0000", "connack"),
    ("13 0001", "connack"),
    ("15 0001 61", "connect connack auth"),
    ("17 01", "connect"),
    ("18 00000001", "will"),
    ("19 01", "connect"),
    ("1a 0000", "connack"),
    ("1c 0000", "connack disconnect"),
    ("1f 0000", "connack ack suback unsuback disconnect auth"),
    ("21 0001", "connect connack"),
    ("22 0001", "connect connack"),
    ("23 0001", "publish from-server"),
    ("24 01", "connack"),
    ("25 01", "connack"),
    (
        "26 0000 0000",
        "connect connack publish from-server will ack subscribe suback \
      unsubscribe unsuback disconnect auth",
    ),
    ("27 00000001", "connect connack"),
    ("28 01", "connack"),
    ("29 01", "connack"),
    ("2a 01", "connack"),
];

/// Where properties stand: first byte, sender, the bytes of the body before and behind them.
const PLACES: &[(&str, u8, Sender, &str, &str)] = &[
    (
        "connect",
        0x10,
        Sender::Client,
        "0004 4d515454 05 02 0000",
        "0000",
    ),
    (
        "will",
        0x10,
        Sender::Client,
        "0004 4d515454 05 06 0000 00 0000",
        "0001 61 0000",
    ),
    ("connack", 0x20, Sender::Server, "00 00", ""),
    ("publish", 0x30, Sender::Client, "0001 61", ""),
    ("from-server", 0x30, Sender::Server, "0001 61", ""),
    ("ack", 0x40, Sender::Client, "0001 00", ""),
    ("subscribe", 0x82, Sender::Client, "0001", "0001 61 00"),
    ("suback", 0x90, Sender::Server, "0001", "00"),
    ("unsubscribe", 0xA2, Sender::Client, "0001", "0001 61"),
    ("unsuback", 0xB0, Sender::Server, "0001", "00"),
    ("disconnect", 0xE0, Sender::Client, "00", ""),
    ("auth", 0xF0, Sender::Client, "18", ""),
];

#[test]
fn sec_11_every_property_is_refused_where_it_does_not_belong() {
    for (property, allowed) in PROPERTIES {
        for &(place, first_byte, sender, before, behind) in PLACES {
            // A server's PUBLISH takes what a client's does.
            let from_server = place == "from-server" && allowed.contains("publish");
            let legal = from_server || allowed.split_whitespace().any(|name| name == place);
            let mut block = hex::bytes(property);
            // AUTH needs its method.
            if place == "auth" && !property.starts_with("15") {
                block.extend(hex::bytes("15 0001 61"));
            }
            let mut body = hex::bytes(before);
            body.push(u8::try_from(block.len()).expect("short"));
            body.extend(block);
            body.extend(hex::bytes(behind));
            let mut bytes = vec![first_byte, u8::try_from(body.len()).expect("short")];
            bytes.extend(body);
            let read = decode(Version::V5, sender, &bytes);
            assert_eq!(read.is_ok(), legal, "{property} in {place}: {read:?}");
            let not_allowed = matches!(read, Err(WireError::PropertyNotAllowed { .. }));
            assert_eq!(not_allowed, !legal, "{property} in {place}: {read:?}");
        }
    }
}

#[test]
fn sec_12_an_alias_stands_for_an_empty_topic_in_mqtt_5_alone() {
    let bytes = hex::bytes("300700000323000178");
    let read = decode(Version::V5, Sender::Client, &bytes).expect("legal");
    let Packet::Publish(publish) = read else {
        panic!("a PUBLISH")
    };
    assert_eq!(
        (publish.topic, publish.properties.topic_alias),
        ("", Some(1))
    );
    assert_eq!(publish.topic_name(), None);
    let error = decode(Version::V311, Sender::Client, &bytes).expect_err("empty");
    assert!(
        matches!(
            error,
            WireError::Topic {
                error: TopicError::Empty,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn mqtt_3_1_keeps_its_own_rules() {
    // Will QoS and Retain without a will are disregarded; flags may promise a user name that the
    // length takes back; a client identifier may be longer than 23 characters.
    let bytes = hex::bytes("100f 0006 4d5149736470 03 38 003c 0001 63");
    let connect = decode_connect(&bytes).expect("legal in MQTT 3.1");
    assert_eq!((connect.version, connect.will), (Version::V31, None));
    let bytes = hex::bytes("100f 0006 4d5149736470 03 c2 003c 0001 63");
    let connect = decode_connect(&bytes).expect("legal in MQTT 3.1");
    assert_eq!((connect.user_name, connect.password), (None, None));
    let client_id = "a client identifier of more than 23 characters";
    let bytes = written(&Connect {
        version: Version::V31,
        client_id,
        ..self::connect()
    });
    assert_eq!(
        decode_connect(&bytes).map(|connect| connect.client_id),
        Ok(client_id)
    );
    let bytes = hex::bytes("100e 0006 4d5149736470 03 02 003c 0000");
    assert_eq!(decode_connect(&bytes), Err(WireError::ClientIdEmpty));
}

#[test]
fn names_and_levels_belong_together() {
    for (digits, level) in [
        ("0004 4d515454 03", 3),
        ("0006 4d5149736470 04", 4),
        ("0004 4d515454 06", 6),
        ("0004 4d515454 84", 0x84),
    ] {
        let body = hex::bytes(digits);
        let mut bytes = vec![0x10, u8::try_from(body.len()).expect("short")];
        bytes.extend(body);
        let error = decode_connect(&bytes).expect_err("unsupported");
        assert_eq!(error, WireError::UnsupportedVersion { level }, "{digits}");
        assert_eq!(error.reason(), ReasonCode::UnsupportedProtocolVersion);
    }
    let error = decode_connect(&hex::bytes("1007 0004 4d515458 05")).map(drop);
    assert_eq!(error, Err(WireError::ProtocolName));
    assert_eq!(
        decode_connect(&[0xC0, 0]),
        Err(WireError::NotConnect { first_byte: 0xC0 })
    );
}

#[test]
fn servers_packets_are_read_as_strictly() {
    for (digits, expected) in [
        ("2003020000", "CONNACK flags"),
        ("2003018700", "CONNACK flags"),
        ("2003000600", "reason code"),
        ("90030001 00", "SUBACK codes"),
        ("9004000100 03", "reason code"),
        ("b0030001 00", "UNSUBACK codes"),
        ("b004000100 01", "reason code"),
        ("e007 00 05 1100000001", "Session Expiry Interval"),
    ] {
        let error = decode(Version::V5, Sender::Server, &hex::bytes(digits)).expect_err(digits);
        assert!(error.to_string().contains(expected), "{digits}: {error}");
    }
    for digits in ["20020006", "9003000103", "b003000100"] {
        let bytes = hex::bytes(digits);
        assert!(
            decode(Version::V311, Sender::Server, &bytes).is_err(),
            "{digits}"
        );
    }
    assert!(outcome(Version::V31, Sender::Server, "20020100").is_ok());
}

#[test]
fn an_auth_without_method_is_refused_unless_it_is_empty() {
    let error = outcome(Version::V5, Sender::Client, "f0021800");
    let property = Property::AuthenticationMethod;
    assert_eq!(error, Err(WireError::PropertyMissing { property }));
    let error = outcome(Version::V5, Sender::Client, "f00118");
    assert!(
        matches!(error, Err(WireError::Truncated { .. })),
        "{error:?}"
    );
}

#[test]
fn filters_of_a_subscribe_that_was_read_are_all_there() {
    let bytes = hex::bytes("821a 0001 02 0b07 0001 61 00 000a 2473686172652f672f23 01 0001 2b 2e");
    let read = decode(Version::V5, Sender::Client, &bytes).expect("legal");
    let Packet::Subscribe(subscribe) = read else {
        panic!("a SUBSCRIBE")
    };
    assert_eq!(subscribe.subscription_id, Some(7));
    let filters: Vec<_> = subscribe.filters().collect();
    assert_eq!(filters.len(), 3);
    assert_eq!(filters[1].filter.share_name(), Some("g"));
    assert_eq!(filters[1].options.qos, QoS::AtLeastOnce);
    let again = Subscribe::new(subscribe.packet_id, &filters);
    assert!(again.filters().eq(subscribe.filters()));
    assert!(filters[2].options.no_local && filters[2].options.retain_as_published);
}

#[test]
fn errors_say_what_came_and_what_was_expected() {
    let error = outcome(Version::V311, Sender::Client, "3005ffff616263");
    let error = error.expect_err("runs over");
    assert_eq!(error.to_string(), "topic name: 65535 bytes needed, 3 left");
    let error = outcome(Version::V5, Sender::Client, "30080001740321000178");
    assert_eq!(
        error.expect_err("not here").to_string(),
        "Receive Maximum is not allowed here"
    );
}

#[test]
#[should_panic(expected = "cannot carry")]
#[cfg(debug_assertions)]
fn write_ack_with_a_reason_of_another_packet_is_a_bug() {
    let id = PacketId::new(1).expect("not 0");
    write_ack(
        &mut Vec::new(),
        AckKind::PubAck,
        Version::V5,
        id,
        ReasonCode::Banned,
    );
}

fn reads_publish_with(pairs: &[(&str, &str)]) -> Result<(), WireError> {
    let user_properties = UserProperties::new(pairs);
    let properties = PublishProperties {
        user_properties,
        ..PublishProperties::default()
    };
    let mut bytes = Vec::new();
    Publish {
        properties,
        ..publish()
    }
    .encode(Version::V5, &mut bytes)
    .expect("writable");
    decode(Version::V5, Sender::Client, &bytes).map(drop)
}

fn written(connect: &Connect<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).expect("writable");
    bytes
}

fn connect() -> Connect<'static> {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn will() -> Will<'static> {
    Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "w",
        payload: b"p",
        properties: WillProperties::default(),
    }
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"p",
    }
}

/// What [`decode`] says about bytes that are given as digits.
fn outcome(version: Version, sender: Sender, digits: &str) -> Result<(), WireError> {
    decode(version, sender, &hex::bytes(digits)).map(drop)
}
