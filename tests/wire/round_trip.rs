//! What is written can be read, and what is read can be written (SEC-13).

use proptest::prelude::*;
use tollgate::mqtt::wire::{
    Ack, AckKind, Disconnect, EncodeError, Packet, PacketId, PacketType, Publish,
    PublishProperties, QoS, ReasonCode, ReasonProperties, Sender, Version, decode, frame,
    write_ack,
};

use super::generate::{Choices, Maker, Pool, kinds};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every packet type in every version: read back, it is the same packet, and what was read is
    /// written as the same bytes.
    #[test]
    fn every_packet_of_every_version_is_read_as_it_was_written(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        for version in VERSIONS {
            for (kind, sender) in kinds(version) {
                with_packet(version, sender, kind, &bytes, |packet| {
                    let written = encode(packet, version);
                    let again = decode(version, sender, &written)
                        .map_err(|error| format!("{error}: {packet:?}"))?;
                    if again != *packet {
                        return Err(format!("read {again:?}, wrote {packet:?}"));
                    }
                    if encode(&again, version) != written {
                        return Err(format!("written differently: {packet:?}"));
                    }
                    Ok(())
                })
                .map_err(TestCaseError::fail)?;
            }
        }
    }

    /// A byte changed: whatever is still accepted is written as something that reads the same.
    #[test]
    fn what_is_accepted_after_a_change_is_read_as_it_was_written(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        position in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        for version in VERSIONS {
            for (kind, sender) in kinds(version) {
                with_packet(version, sender, kind, &bytes, |packet| {
                    let mut changed = encode(packet, version);
                    let position = position.index(changed.len());
                    changed[position] = value;
                    let Ok(accepted) = decode(version, sender, &changed) else { return Ok(()) };
                    let written = encode(&accepted, version);
                    match decode(version, sender, &written) {
                        Ok(again) if again == accepted => Ok(()),
                        other => Err(format!("read {other:?}, wrote {accepted:?}")),
                    }
                })
                .map_err(TestCaseError::fail)?;
            }
        }
    }

    /// Before MQTT 5 everything that MQTT 5 added is left out, and the rest stays.
    #[test]
    fn what_mqtt_5_added_is_left_out_before(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        for kind in [PacketType::Publish, PacketType::PubAck, PacketType::Disconnect] {
            with_packet(Version::V5, Sender::Client, kind, &bytes, |packet| {
                if matches!(packet, Packet::Publish(publish) if publish.topic.is_empty()) {
                    return Ok(());
                }
                let expected = stripped(packet.clone());
                for version in [Version::V31, Version::V311] {
                    let written = encode(packet, version);
                    if decode(version, Sender::Client, &written).as_ref() != Ok(&expected) {
                        return Err(format!("{version:?}: {packet:?}"));
                    }
                }
                Ok(())
            })
            .map_err(TestCaseError::fail)?;
        }
    }
}

#[test]
fn acks_are_written_short_when_they_can_be() {
    let id = PacketId::new(0x1234).expect("not 0");
    let mut out = Vec::new();
    write_ack(
        &mut out,
        AckKind::PubAck,
        Version::V5,
        id,
        ReasonCode::Success,
    );
    write_ack(
        &mut out,
        AckKind::PubRel,
        Version::V311,
        id,
        ReasonCode::Success,
    );
    write_ack(
        &mut out,
        AckKind::PubRec,
        Version::V5,
        id,
        ReasonCode::NotAuthorized,
    );
    write_ack(
        &mut out,
        AckKind::PubRec,
        Version::V31,
        id,
        ReasonCode::NotAuthorized,
    );
    write_ack(
        &mut out,
        AckKind::PubComp,
        Version::V5,
        id,
        ReasonCode::PacketIdentifierNotFound,
    );
    let expected = "40021234 62021234 5003123487 50021234 7003123492";
    assert_eq!(out, super::hex::bytes(expected));
}

#[test]
fn write_ack_is_what_encode_writes() {
    let id = PacketId::new(7).expect("not 0");
    let reasons = [ReasonCode::Success, ReasonCode::QuotaExceeded];
    for version in VERSIONS {
        for reason in reasons {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            write_ack(&mut short, AckKind::PubAck, version, id, reason);
            let ack = Ack {
                packet_id: id,
                reason,
                properties: ReasonProperties::default(),
            };
            ack.encode(AckKind::PubAck, version, &mut long)
                .expect("writable");
            assert_eq!(short, long, "{version:?} {reason:?}");
        }
    }
}

#[test]
fn lengths_take_one_to_four_bytes_and_no_more() {
    let limits = [
        (0, 2),
        (127, 2),
        (128, 3),
        (16_383, 3),
        (16_384, 4),
        (2_097_151, 4),
    ];
    for (remaining, header_len) in limits.into_iter().chain([(2_097_152, 5)]) {
        // A topic of one byte takes three bytes of the body.
        let Some(length) = usize::checked_sub(remaining, 3) else {
            continue;
        };
        let payload = vec![0; length];
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &payload,
        };
        let written = encode(&Packet::Publish(publish), Version::V311);
        let frame = frame(&written, u32::MAX)
            .expect("a header")
            .expect("a whole one");
        assert_eq!(
            (frame.header_len, frame.remaining_len),
            (header_len, remaining)
        );
        assert_eq!(
            decode(Version::V311, Sender::Client, &written),
            Ok(Packet::Publish(publish))
        );
    }
    let payload = vec![0; 268_435_455];
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: &payload,
    };
    let mut out = Vec::new();
    let error = publish.encode(Version::V311, &mut out);
    assert_eq!(
        error,
        Err(EncodeError::PacketTooLarge {
            length: 268_435_458
        })
    );
    assert!(out.is_empty());
}

/// Makes the packet that `bytes` choose and hands it to `check`.
fn with_packet(
    version: Version,
    sender: Sender,
    kind: PacketType,
    bytes: &[u8],
    check: impl FnOnce(&Packet<'_>) -> Result<(), String>,
) -> Result<(), String> {
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
    check(&maker.packet(kind))
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet
        .encode(version, &mut out)
        .expect("a valid packet can be written");
    out
}

fn stripped(packet: Packet<'_>) -> Packet<'_> {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish {
            properties: PublishProperties::default(),
            ..publish
        }),
        Packet::PubAck(ack) => Packet::PubAck(Ack {
            reason: ReasonCode::Success,
            properties: ReasonProperties::default(),
            ..ack
        }),
        Packet::Disconnect(_) => {
            Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION))
        }
        other => other,
    }
}
