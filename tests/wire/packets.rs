//! Every packet of `tests/data/packets.tsv`, which says for each what a strict broker must do.

use tollgate::mqtt::wire::{
    Packet, Sender, Version, WireError, decode, decode_connect, first_frame, frame,
};

use super::hex;

/// The limit of the whole packet in bytes; none of the packets is refused for its size.
const PACKET_SIZE_MAX: u32 = 262_144;

struct Case {
    version: Version,
    accept: bool,
    bytes: Vec<u8>,
    what: String,
}

#[test]
fn sec_04_to_12_all_131_packets_get_the_verdict_of_a_strict_broker() {
    let cases = cases();
    assert_eq!(cases.len(), 131);
    let mut wrong = Vec::new();
    for case in &cases {
        let verdict = read(case.version, &case.bytes);
        if verdict.is_ok() != case.accept {
            wrong.push(format!("{:?} {}: {verdict:?}", case.version, case.what));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_is_accepted_can_be_written_and_read_back() {
    for case in cases().iter().filter(|case| case.accept) {
        let packet = read(case.version, &case.bytes).expect("an accepted packet");
        let mut out = Vec::new();
        packet
            .encode(case.version, &mut out)
            .expect("SEC-13: what is accepted can be written");
        let again = read(case.version, &out).expect("what we wrote");
        assert_eq!(packet, again, "{}: {}", case.what, hex::text(&out));
    }
}

#[test]
fn no_packet_is_accepted_cut_short_or_with_a_byte_behind_it() {
    for case in cases().iter().filter(|case| case.accept) {
        for len in 0..case.bytes.len() {
            let cut = &case.bytes[..len];
            assert!(
                decode(case.version, Sender::Client, cut).is_err(),
                "{} cut",
                case.what
            );
        }
        let mut longer = case.bytes.clone();
        longer.push(0);
        let verdict = decode(case.version, Sender::Client, &longer);
        assert!(
            matches!(verdict, Err(WireError::TrailingBytes { count: 1, .. })),
            "{verdict:?}"
        );
    }
}

/// What a broker does with the bytes: frame, then decode; the first packet by its own rules.
fn read(version: Version, bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    let frame = frame(bytes, PACKET_SIZE_MAX)?.expect("every case has a whole header");
    let packet = frame
        .packet(bytes)
        .expect("every case that is not refused by then is whole");
    let decoded = decode(version, Sender::Client, packet)?;
    if let Packet::Connect(connect) = decoded {
        let first = first_frame(bytes, PACKET_SIZE_MAX).expect("a CONNECT is a first packet");
        assert_eq!(first, Some(frame));
        assert_eq!(decode_connect(packet), Ok(connect));
    }
    Ok(decoded)
}

fn cases() -> Vec<Case> {
    let lines = include_str!("../data/packets.tsv").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split('\t');
            let mut field = || fields.next().expect("four fields").to_owned();
            Case {
                version: match field().as_str() {
                    "5" => Version::V5,
                    "3.1.1" => Version::V311,
                    other => panic!("unknown version {other}"),
                },
                accept: match field().as_str() {
                    "accept" => true,
                    "refuse" => false,
                    other => panic!("unknown verdict {other}"),
                },
                bytes: hex::bytes(&field()),
                what: field(),
            }
        })
        .collect()
}
