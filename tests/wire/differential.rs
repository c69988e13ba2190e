//! The codec beside two that are not ours: `flowsdk`, which is strict, and `mqttbytes`, where it
//! can be used at all. Every difference is known by name, with who is right and the clause.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use flowsdk::mqtt_serde::control_packet::MqttPacket;
use flowsdk::mqtt_serde::parser::ParseOk;
use tollgate::mqtt::topic::{FilterError, TopicError};
use tollgate::mqtt::wire::{
    ConnAckProperties, Packet, PacketType, Property, Sender, Version, WireError, decode,
};

use super::generate::{Choices, Maker, Pool, kinds};
use super::hex;

/// Packets of each kind and version, half of them changed.
const ROUNDS: u32 = 2_000;

/// A difference between us and `flowsdk` that has been looked into.
struct Difference {
    name: &'static str,
    /// Who is right, and by which clause.
    verdict: &'static str,
    /// A packet that shows it.
    example: (Version, Sender, &'static str),
    is: fn(&Sample<'_>) -> bool,
}

/// One packet and what became of it here; they came to the opposite verdict.
struct Sample<'a> {
    version: Version,
    bytes: &'a [u8],
    ours: &'a Result<Packet<'a>, WireError>,
}

const FLOWSDK: &[Difference] = &[
    Difference {
        name: "control and non-characters",
        verdict: "ours by choice: [MQTT-1.5.4] lets a receiver refuse them, SEC-08 asks for it",
        example: (Version::V5, Sender::Client, "3004 0001 01 00"),
        is: |sample| match sample.ours {
            Err(
                WireError::Character { character, .. }
                | WireError::Topic {
                    error: TopicError::Character(character),
                    ..
                }
                | WireError::Filter(FilterError::Text(TopicError::Character(character))),
            ) => *character != 0,
            _ => false,
        },
    },
    Difference {
        name: "$share/ without name or filter before MQTT 5",
        verdict: "ours by choice: shares work in every version, SEC-10 asks for one parser",
        example: (
            Version::V311,
            Sender::Client,
            "820d 0001 0008 2473686172652f67 00",
        ),
        is: |sample| {
            sample.version < Version::V5
                && matches!(sample.ours, Err(WireError::Filter(FilterError::Share)))
        },
    },
    Difference {
        name: "packets of the other side",
        verdict: "ours: it has no notion of a side, section 2.1.2 and SEC-07 have",
        example: (Version::V5, Sender::Client, "d000"),
        is: |sample| matches!(sample.ours, Err(WireError::WrongSender { .. })),
    },
    Difference {
        name: "subscription identifier from a client",
        verdict: "ours: [MQTT-3.3.4-6]",
        example: (Version::V5, Sender::Client, "3006 0001 74 02 0b01"),
        is: |sample| {
            let property = Property::SubscriptionIdentifier;
            *sample.ours == Err(WireError::PropertyNotAllowed { property })
        },
    },
    Difference {
        name: "session expiry in a server's DISCONNECT",
        verdict: "ours: [MQTT-3.14.2-2]",
        example: (Version::V5, Sender::Server, "e007 00 05 1100000001"),
        is: |sample| {
            let property = Property::SessionExpiryInterval;
            *sample.ours == Err(WireError::PropertyNotAllowed { property })
        },
    },
    Difference {
        name: "authentication data without a method",
        verdict: "ours: section 3.15.2.2.2",
        example: (Version::V5, Sender::Client, "f006 18 04 16 0001 61"),
        is: |sample| {
            let property = Property::AuthenticationMethod;
            *sample.ours == Err(WireError::PropertyMissing { property })
        },
    },
    Difference {
        name: "protocol level of another version",
        verdict: "ours: [MQTT-3.1.2-2]; it looks at the level it was told instead",
        example: (
            Version::V5,
            Sender::Client,
            "100d 0004 4d515454 01 02 003c 00 0000",
        ),
        is: |sample| matches!(sample.ours, Err(WireError::UnsupportedVersion { .. })),
    },
    Difference {
        name: "empty password",
        verdict: "ours: a password is binary data of 0 bytes or more, sections 1.5.6 and 3.1.3.6",
        example: (
            Version::V5,
            Sender::Client,
            "1010 0004 4d515454 05 42 003c 00 0001 63 0000",
        ),
        is: |sample| match sample.ours {
            Ok(Packet::Connect(connect)) => connect.password == Some(b""),
            _ => false,
        },
    },
    Difference {
        name: "empty user name",
        verdict: "ours: a string of 0 bytes or more, sections 1.5.4 and 3.1.3.5",
        example: (
            Version::V5,
            Sender::Client,
            "1010 0004 4d515454 05 82 003c 00 0001 63 0000",
        ),
        is: |sample| match sample.ours {
            Ok(Packet::Connect(connect)) => connect.user_name == Some(""),
            _ => false,
        },
    },
    Difference {
        name: "empty will message",
        verdict: "ours: a will message may be empty, section 3.1.3.4",
        example: (
            Version::V5,
            Sender::Client,
            "1014 0004 4d515454 05 06 003c 00 0001 63 00 0001 77 0000",
        ),
        is: |sample| match sample.ours {
            Ok(Packet::Connect(connect)) => {
                connect.will.is_some_and(|will| will.payload.is_empty())
            }
            _ => false,
        },
    },
    Difference {
        name: "empty assigned client identifier",
        verdict: "open: no clause forbids it; it makes no sense and we never send it",
        example: (Version::V5, Sender::Server, "2006 00 00 03 12 0000"),
        is: |sample| match sample.ours {
            Ok(Packet::ConnAck(connack)) => connack.properties.assigned_client_id == Some(""),
            _ => false,
        },
    },
    Difference {
        name: "DUP of PUBREL, SUBSCRIBE and UNSUBSCRIBE in MQTT 3.1",
        verdict: "ours: MQTT 3.1 section 2.1; it reads 3.1 as 3.1.1",
        example: (Version::V31, Sender::Client, "6a02 0001"),
        is: |sample| sample.version == Version::V31 && sample.bytes[0] & 0x0F == 0x0A,
    },
    Difference {
        name: "the first byte of CONNACK in MQTT 3.1",
        verdict: "ours: reserved and not used, MQTT 3.1 section 3.2; it reads 3.1 as 3.1.1",
        example: (Version::V31, Sender::Server, "2002 80 00"),
        is: |sample| {
            sample.version == Version::V31 && matches!(sample.ours, Ok(Packet::ConnAck(_)))
        },
    },
    Difference {
        name: "QoS and Retain of a will that is not there in MQTT 3.1",
        verdict: "ours: disregarded, MQTT 3.1 section 3.1; it reads 3.1 as 3.1.1",
        example: (
            Version::V31,
            Sender::Client,
            "100f 0006 4d5149736470 03 22 003c 0001 63",
        ),
        is: |sample| {
            let flags = flags_of_3_1(sample.bytes);
            sample.ours.is_ok() && flags & 0b0000_0100 == 0 && flags & 0b0011_1000 != 0
        },
    },
    Difference {
        name: "user name taken back by the length in MQTT 3.1",
        verdict: "ours: MQTT 3.1 section 3.1; it reads 3.1 as 3.1.1",
        example: (
            Version::V31,
            Sender::Client,
            "100f 0006 4d5149736470 03 82 003c 0001 63",
        ),
        is: |sample| match sample.ours {
            Ok(Packet::Connect(connect)) => {
                let flags = flags_of_3_1(sample.bytes);
                flags & 0b1000_0000 != 0 && connect.user_name.is_none()
                    || flags & 0b0100_0000 != 0 && connect.password.is_none()
            }
            _ => false,
        },
    },
    Difference {
        name: "empty client identifier without a clean session",
        verdict: "ours: [MQTT-3.1.3-8] of 3.1.1; MQTT 3.1 section 3.1 asks for one always",
        example: (
            Version::V311,
            Sender::Client,
            "100c 0004 4d515454 04 00 003c 0000",
        ),
        is: |sample| *sample.ours == Err(WireError::ClientIdEmpty),
    },
];

#[test]
fn flowsdk_comes_to_the_same_verdict_and_reads_the_same_fields() {
    let mut seen = BTreeMap::new();
    each_packet(|version, sender, bytes| {
        let ours = decode(version, sender, bytes);
        let theirs = flowsdk(version, bytes);
        if ours.is_ok() != theirs.is_some() {
            let sample = Sample {
                version,
                bytes,
                ours: &ours,
            };
            let known = FLOWSDK.iter().find(|difference| (difference.is)(&sample));
            let Some(known) = known else {
                panic!(
                    "{version:?} {}: ours {ours:?}, theirs {theirs:?}",
                    hex::text(bytes)
                );
            };
            *seen.entry(known.name).or_insert(0) += 1;
            return;
        }
        // Both took it: what they write must read the same here.
        if let (Ok(packet), Some(written)) = (&ours, &theirs) {
            assert_eq!(decode(version, sender, written).as_ref(), Ok(packet));
        }
    });
    println!("{seen:#?}");
}

#[test]
fn every_known_difference_is_one() {
    for Difference {
        name,
        verdict,
        example,
        ..
    } in FLOWSDK
    {
        let (version, sender, digits) = *example;
        let bytes = hex::bytes(digits);
        let ours = decode(version, sender, &bytes);
        let theirs = flowsdk(version, &bytes);
        println!("{name}: {verdict}");
        assert_ne!(
            ours.is_ok(),
            theirs.is_some(),
            "{name}: ours {ours:?}, theirs {theirs:?}"
        );
        let sample = Sample {
            version,
            bytes: &bytes,
            ours: &ours,
        };
        let first = FLOWSDK.iter().find(|difference| (difference.is)(&sample));
        assert_eq!(first.map(|difference| difference.name), Some(*name));
    }
}

#[test]
fn mqttbytes_reads_what_we_accept_where_it_can_be_used() {
    each_packet(|version, sender, bytes| {
        let Ok(ours) = decode(version, sender, bytes) else {
            return;
        };
        if version == Version::V31 || !mqttbytes_can(&ours, version) {
            return;
        }
        let written = mqttbytes(version, bytes)
            .unwrap_or_else(|error| panic!("{}: {error}: {ours:?}", hex::text(bytes)));
        assert_eq!(
            decode(version, sender, &written),
            Ok(ours),
            "{}",
            hex::text(bytes)
        );
    });
}

#[test]
fn mqttbytes_is_wrong_where_we_do_not_ask_it() {
    // A password is binary data (section 3.1.3.6).
    let binary = hex::bytes("101500044d51545404c2003c0001630001750003ff00fe");
    assert!(decode(Version::V311, Sender::Client, &binary).is_ok());
    assert!(mqttbytes(Version::V311, &binary).is_err());
    // An empty user name is not an absent one (section 3.1.3.5).
    let empty = hex::bytes("100f00044d5154540482003c0001630000");
    assert_ne!(mqttbytes(Version::V311, &empty).as_deref(), Ok(&empty[..]));
    // The third subscription identifier is not the payload [MQTT-3.3.4-4].
    let three = hex::bytes("300a000174060b010b020b03");
    let written = mqttbytes(Version::V5, &three).expect("taken");
    let read = decode(Version::V5, Sender::Server, &written);
    assert_ne!(read, decode(Version::V5, Sender::Server, &three));
    // A length has one form only [MQTT-1.5.5-1].
    assert!(mqttbytes(Version::V5, &hex::bytes("308400 0001 74 00")).is_ok());
}

/// The flags of a CONNECT of MQTT 3.1; 0 for other packets.
fn flags_of_3_1(bytes: &[u8]) -> u8 {
    let name = bytes.windows(7).position(|window| window == b"MQIsdp\x03");
    name.filter(|_| bytes[0] == 0x10)
        .map_or(0, |at| bytes[at + 7])
}

/// Every kind of packet in every version, made by chance; half of them with a few bytes changed.
/// The chance is the same in every run.
fn each_packet(mut check: impl FnMut(Version, Sender, &[u8])) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..ROUNDS {
        for version in [Version::V31, Version::V311, Version::V5] {
            for (kind, sender) in kinds(version) {
                let bytes: Vec<u8> = (0..300).map(|_| random.byte()).collect();
                let mut packet = made(version, sender, kind, &bytes);
                for _ in 0..round % 4 {
                    change(&mut packet, &mut random);
                }
                check(version, sender, &packet);
            }
        }
    }
}

fn made(version: Version, sender: Sender, kind: PacketType, bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    let pool = Pool::new(&mut choices);
    let mut lists = pool.lists(&mut choices);
    lists.strip(version);
    let mut maker = Maker {
        version,
        sender,
        pool: &pool,
        lists: &lists,
        choices,
    };
    let mut out = Vec::new();
    maker
        .packet(kind)
        .encode(version, &mut out)
        .expect("a valid packet can be written");
    out
}

/// One byte becomes another; the length stays, so that what changes is in the fields.
fn change(packet: &mut [u8], random: &mut Random) {
    let place = match random.below(8) {
        0 => 0,
        _ if packet.len() > 2 => 2 + random.below(packet.len() - 2),
        _ => return,
    };
    packet[place] = match random.below(3) {
        0 => packet[place] ^ 1 << random.below(8),
        1 => random.byte() % 50,
        _ => random.byte(),
    };
}

/// What `flowsdk` writes after it has read; `None` when it refuses or does not take all bytes. It
/// panics on some PUBLISHes whose properties run over the packet: that counts as refused.
fn flowsdk(version: Version, bytes: &[u8]) -> Option<Vec<u8>> {
    let read = || MqttPacket::from_bytes_with_version(bytes, version as u8);
    match catch_unwind(read).ok()? {
        Ok(ParseOk::Packet(packet, taken)) if taken == bytes.len() => {
            Some(packet.to_bytes().expect("it writes what it has read"))
        }
        _ => None,
    }
}

/// The packets `mqttbytes` reads without a mistake once they are known to be valid.
fn mqttbytes_can(packet: &Packet<'_>, version: Version) -> bool {
    match packet {
        Packet::Publish(publish) => publish.properties.subscription_ids.iter().count() <= 2,
        Packet::Unsubscribe(_) => version < Version::V5,
        // It leaves out the length of no properties.
        Packet::ConnAck(connack) => {
            version < Version::V5 || connack.properties != ConnAckProperties::default()
        }
        Packet::Connect(_) | Packet::Disconnect(_) | Packet::Auth(_) => false,
        Packet::PingReq | Packet::PingResp => false,
        _ => true,
    }
}

/// What `mqttbytes` writes after it has read.
fn mqttbytes(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let run = || {
        let (mut read, mut written) = (BytesMut::from(bytes), BytesMut::new());
        let result = match version {
            Version::V5 => mqttbytes::v5::read(&mut read, bytes.len())
                .and_then(|packet| write_v5(&packet, &mut written)),
            _ => mqttbytes::v4::read(&mut read, bytes.len())
                .and_then(|packet| write_v4(&packet, &mut written)),
        };
        result
            .map(|_| written.to_vec())
            .map_err(|error| format!("{error:?}"))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("panicked".to_owned()))
}

fn write_v4(packet: &mqttbytes::v4::Packet, out: &mut BytesMut) -> Result<usize, mqttbytes::Error> {
    use mqttbytes::v4::Packet as P;
    match packet {
        P::Connect(packet) => packet.write(out),
        P::ConnAck(packet) => packet.write(out),
        P::Publish(packet) => packet.write(out),
        P::PubAck(packet) => packet.write(out),
        P::PubRec(packet) => packet.write(out),
        P::PubRel(packet) => packet.write(out),
        P::PubComp(packet) => packet.write(out),
        P::Subscribe(packet) => packet.write(out),
        P::SubAck(packet) => packet.write(out),
        P::Unsubscribe(packet) => packet.write(out),
        P::UnsubAck(packet) => packet.write(out),
        P::PingReq | P::PingResp | P::Disconnect => Ok(0),
    }
}

fn write_v5(packet: &mqttbytes::v5::Packet, out: &mut BytesMut) -> Result<usize, mqttbytes::Error> {
    use mqttbytes::v5::Packet as P;
    match packet {
        P::Connect(packet) => packet.write(out),
        P::ConnAck(packet) => packet.write(out),
        P::Publish(packet) => packet.write(out),
        P::PubAck(packet) => packet.write(out),
        P::PubRec(packet) => packet.write(out),
        P::PubRel(packet) => packet.write(out),
        P::PubComp(packet) => packet.write(out),
        P::Subscribe(packet) => packet.write(out),
        P::SubAck(packet) => packet.write(out),
        P::Unsubscribe(packet) => packet.write(out),
        P::UnsubAck(packet) => packet.write(out),
        P::PingReq | P::PingResp | P::Disconnect(_) => Ok(0),
    }
}

/// Xorshift: quick and repeatable, nothing more is needed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % count
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}
