//! The public vectors of the security requirements that the codec alone decides, by their ids.
//!
//! P-16, P-49 and P-50 are packets the codec takes and the session refuses; they are not here.

use tollgate::mqtt::wire::{
    Packet, ReasonCode, Sender, Version, WireError, decode, decode_connect, first_frame, frame,
};

use super::hex;

/// SEC-03: bytes of the largest first packet.
const CONNECT_SIZE_MAX: u32 = 65_536;
/// SEC-03: bytes of the largest packet after it.
const PACKET_SIZE_MAX: u32 = 262_144;

/// Whether the error is the one that was meant.
type Expected = fn(WireError) -> bool;

/// The vectors of state "new": read instead of CONNECT.
const NEW: &[(&str, &str, Expected)] = &[
    ("P-01", "40020001", |error| {
        matches!(error, WireError::NotConnect { first_byte: 0x40 })
    }),
    ("P-02", "30ffffff7f", |error| {
        matches!(error, WireError::NotConnect { first_byte: 0x30 })
    }),
    ("P-03", "10ffffff7f", |error| {
        matches!(error, WireError::PacketTooLarge { .. })
    }),
    ("P-04", "108080808001", |error| {
        matches!(error, WireError::VariableByteInteger { .. })
    }),
    ("P-05", "e000", |error| {
        matches!(error, WireError::NotConnect { first_byte: 0xE0 })
    }),
    ("P-06", "100e00044d5154546302003c00027031", |error| {
        error == WireError::UnsupportedVersion { level: 0x63 }
    }),
    ("P-07", "100e00044d5154540403003c00027031", is_flags),
    ("P-08", "100e00044d515454040a003c00027031", is_flags),
    (
        "P-09",
        "101400044d515454041e003c00027031000177000178",
        is_flags,
    ),
    ("P-10", "101100044d5154540442003c00027031000178", is_flags),
    ("P-11", "100c00044d5154540400003c0000", |error| {
        error == WireError::ClientIdEmpty
    }),
    (
        "P-12",
        "101300044d5154540502003c808080800100027031",
        |error| matches!(error, WireError::VariableByteInteger { .. }),
    ),
    ("P-13", "101100044d5154540502003c027f0100027031", |error| {
        error == WireError::UnknownProperty { identifier: 0x7F }
    }),
    ("P-14", "101100044d5154540502003c02170200027031", |error| {
        error.reason() == ReasonCode::ProtocolError
    }),
];

/// The vectors of states C4 (3.1.1) and C5 (MQTT 5), with what a MQTT 5 client is told.
const CONNECTED: &[(&str, Version, &str, &[ReasonCode])] = &[
    ("P-15", Version::V5, "29020001", ANY),
    ("P-17", Version::V311, "0000", ANY),
    ("P-18", Version::V311, "f000", ANY),
    ("P-19", Version::V311, "d000", ANY),
    ("P-20", Version::V311, "b0020001", ANY),
    ("P-21", Version::V311, "9003000100", ANY),
    ("P-22", Version::V311, "30020000", ANY),
    ("P-23", Version::V311, "3203000161", ANY),
    ("P-24", Version::V311, "36050001610001", ANY),
    ("P-25", Version::V311, "32050001610000", ANY),
    ("P-26", Version::V311, "30040002c328", ANY),
    ("P-27", Version::V311, "30050003610062", ANY),
    ("P-28", Version::V311, "30050003612f23", ANY),
    ("P-29", Version::V311, "3005ffff616263", ANY),
    ("P-30", Version::V311, "8006000100016100", ANY),
    ("P-31", Version::V311, "82020001", ANY),
    ("P-32", Version::V311, "82050001000161", ANY),
    ("P-33", Version::V311, "8206000100016103", ANY),
    ("P-34", Version::V311, "8206000000016100", ANY),
    ("P-35", Version::V311, "820700010002612300", ANY),
    ("P-36", Version::V311, "82050001000000", ANY),
    ("P-37", Version::V311, "a2020001", ANY),
    ("P-39", Version::V311, "c100", ANY),
    ("P-40", Version::V311, "c00100", ANY),
    (
        "P-43",
        Version::V5,
        "3003000000",
        &[ReasonCode::ProtocolError],
    ),
    (
        "P-44",
        Version::V5,
        "300700016103230000",
        &[ReasonCode::TopicAliasInvalid],
    ),
    (
        "P-45",
        Version::V5,
        "8207000100000161c0",
        &[ReasonCode::MalformedPacket, ReasonCode::ProtocolError],
    ),
    (
        "P-46",
        Version::V5,
        "8210000100000a2473686172652f672f6104",
        &[ReasonCode::ProtocolError],
    ),
    (
        "P-47",
        Version::V5,
        "820f00010000092473686172652f616200",
        ANY,
    ),
    (
        "P-48",
        Version::V5,
        "30080001610401000100",
        &[ReasonCode::ProtocolError],
    ),
];

/// The vector only says that the connection is closed.
const ANY: &[ReasonCode] = &[];

#[test]
fn p_01_to_p_14_are_refused_instead_of_connect() {
    for (id, digits, expected) in NEW {
        let error = first(&hex::bytes(digits)).expect_err(id);
        assert!(expected(error), "{id}: {error:?}");
    }
}

#[test]
fn sec_02_p_01_p_02_p_05_are_decided_on_the_first_byte() {
    for first_byte in (0..=255).filter(|byte| *byte != 0x10) {
        let error = first_frame(&[first_byte], CONNECT_SIZE_MAX);
        assert_eq!(error, Err(WireError::NotConnect { first_byte }));
    }
    assert_eq!(first_frame(&[0x10], CONNECT_SIZE_MAX), Ok(None));
}

#[test]
fn p_15_to_p_48_are_refused_on_a_connection() {
    for (id, version, digits, reasons) in CONNECTED {
        let bytes = hex::bytes(digits);
        let error = connected(*version, &bytes).expect_err(id);
        assert!(
            reasons.is_empty() || reasons.contains(&error.reason()),
            "{id}: {error:?}"
        );
    }
}

#[test]
fn p_38_a_filter_of_65535_slashes_is_refused_in_both_versions() {
    for (version, digits) in [(Version::V311, ""), (Version::V5, "00")] {
        let mut body = hex::bytes(&format!("0001 {digits} ffff"));
        body.extend(std::iter::repeat_n(b'/', 65_535));
        body.push(0);
        let mut bytes = vec![0x82];
        bytes.extend(remaining_length(body.len()));
        bytes.extend(body);
        let error = connected(version, &bytes).expect_err("65,536 levels");
        assert_eq!(error.reason(), ReasonCode::TopicFilterInvalid);
    }
}

#[test]
fn p_41_p_42_acks_for_unknown_ids_are_packets() {
    let puback = hex::bytes("40021234");
    assert!(
        matches!(connected(Version::V311, &puback), Ok(Packet::PubAck(_))),
        "P-41"
    );
    let pubrec = hex::bytes("50021234");
    assert!(
        matches!(connected(Version::V311, &pubrec), Ok(Packet::PubRec(_))),
        "P-42"
    );
}

fn first(bytes: &[u8]) -> Result<(), WireError> {
    let frame = first_frame(bytes, CONNECT_SIZE_MAX)?.expect("a whole header");
    decode_connect(frame.packet(bytes).expect("a whole packet")).map(drop)
}

fn connected(version: Version, bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    let frame = frame(bytes, PACKET_SIZE_MAX)?.expect("a whole header");
    decode(
        version,
        Sender::Client,
        frame.packet(bytes).expect("a whole packet"),
    )
}

fn is_flags(error: WireError) -> bool {
    matches!(error, WireError::ConnectFlags { .. })
}

fn remaining_length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(length & 0x7F).expect("seven bits");
        length >>= 7;
        if length == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
