//! Frames of a WebSocket, good ones and damaged ones, cut anywhere: what is in good ones comes out,
//! and how they are cut changes nothing.

use tollgate::net::{Frames, FramesEnd, Violation};

use super::{Random, sequences::Named};

/// Messages of one sequence, and fragments of one: together fewer frames without data than are a
/// flood (100), which the clock decides.
const MESSAGES_MAX: usize = 8;
const FRAGMENTS_MAX: usize = 4;

/// First bytes of control frames.
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What comes out.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    data: Vec<u8>,
    ping: Option<Vec<u8>>,
    end: Option<FramesEnd>,
}

/// Runs one sequence; how many frames it has.
pub(crate) fn run(seed: u64) -> u64 {
    let _named = Named(seed);
    let mut random = Random::of(seed);
    let (mut sent, expected, frames) = sequence(&mut random);
    let is_damaged = random.below(3) > 0;
    if is_damaged {
        for _ in 0..=random.below(4) {
            damage(&mut sent, &mut random);
        }
    }
    let whole = taken([sent.clone()]);
    let cut = taken(pieces(&sent, &mut random));
    let flood = Some(FramesEnd::Violated(Violation::Flood));
    if whole.end != flood && cut.end != flood {
        assert_eq!(whole, cut, "it matters how they are cut");
    }
    assert!(whole.data.len() <= sent.len());
    assert!(whole.ping.is_none_or(|ping| ping.len() <= 125));
    if !is_damaged {
        assert_eq!(cut, expected);
    }
    frames
}

/// Good frames, what is in them, and how many they are.
fn sequence(random: &mut Random) -> (Vec<u8>, Outcome, u64) {
    let (mut sent, mut expected, mut frames) = (Vec::new(), Outcome::default(), 0);
    for _ in 0..random.below(MESSAGES_MAX + 1) {
        let last = random.below(FRAGMENTS_MAX);
        for fragment in 0..=last {
            let kind = if fragment == 0 { 2 } else { 0 };
            let end = if fragment == last { 0x80 } else { 0 };
            let payload = payload(random);
            frame(&mut sent, kind | end, &payload, random);
            expected.data.extend(payload);
            frames += 1;
            // A control frame may stand between two fragments.
            let first = [PING, PONG, 0, 0][random.below(4)];
            if first != 0 {
                let len = random.below(126);
                let payload: Vec<u8> = (0..len).map(|_| random.byte()).collect();
                frame(&mut sent, first, &payload, random);
                expected.ping = (first == PING).then_some(payload).or(expected.ping);
                frames += 1;
            }
        }
    }
    if random.below(3) == 0 {
        let codes: [(&[u8], Option<u16>); 4] = [
            (b"", None),
            (b"\x03\xe8", Some(1_000)),
            (b"\x03\xe9gone", Some(1_001)),
            (b"\x0f\xa0", Some(4_000)),
        ];
        let (payload, code) = codes[random.below(4)];
        frame(&mut sent, CLOSE, payload, random);
        frame(&mut sent, 0x82, b"behind it", random);
        expected.end = Some(FramesEnd::Closed(code));
        frames += 2;
    }
    (sent, expected, frames)
}

/// Of all spellings of a length; seldom a long one.
fn payload(random: &mut Random) -> Vec<u8> {
    let len = match random.below(256) {
        0..16 => 0,
        16..32 => [125, 126, 127][random.below(3)],
        32 => [65_535, 65_536][random.below(2)],
        _ => random.below(40),
    };
    let byte = random.byte();
    (0..len)
        .map(|at: usize| byte ^ at.to_le_bytes()[0])
        .collect()
}

fn frame(sent: &mut Vec<u8>, first: u8, payload: &[u8], random: &mut Random) {
    sent.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => sent.push(0x80 | short),
        (_, Ok(wide)) => {
            sent.push(0xfe);
            sent.extend(wide.to_be_bytes());
        }
        _ => {
            sent.push(0xff);
            sent.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = [(); 4].map(|()| random.byte());
    sent.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    sent.extend(masked.map(|(byte, mask)| byte ^ mask));
}

fn damage(sent: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(sent.len() + 1);
    match random.below(6) {
        0 if place < sent.len() => sent[place] ^= 1 << random.below(8),
        1 if place < sent.len() => sent[place] = random.byte(),
        2 => sent.truncate(place),
        3 => sent.insert(place, random.byte()),
        4 if place < sent.len() => drop(sent.remove(place)),
        _ => {
            let to = place + random.below((sent.len() - place).min(100) + 1);
            let piece = sent[place..to].to_vec();
            sent.splice(to..to, piece);
        }
    }
}

/// Cuts it anywhere, seldom into single bytes.
fn pieces(mut sent: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let most = [1, 3, 20, 1_500, 100_000][random.below(5)];
    let mut pieces = Vec::new();
    while !sent.is_empty() {
        let (piece, rest) = sent.split_at((1 + random.below(most)).min(sent.len()));
        pieces.push(piece.to_vec());
        sent = rest;
    }
    pieces
}

fn taken(pieces: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
    let (mut frames, mut outcome) = (Frames::default(), Outcome::default());
    for mut piece in pieces {
        let len = frames.take(&mut piece);
        outcome.data.extend(&piece[..len]);
        outcome.ping = frames.take_ping().or(outcome.ping);
    }
    outcome.end = frames.end();
    outcome
}
