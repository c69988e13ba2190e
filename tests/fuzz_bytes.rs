//! Random bytes against the codec (SEC-01, REL-20), random packets against a session (REL-21), and
//! frames of a WebSocket (SEC-74); `fuzz/README.md` says how to run it.
//!
//! `TOLLGATE_FUZZ_SECONDS` bounds the time (default 60 where `CI` is set, else 10),
//! `TOLLGATE_SEED` repeats a run.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it is wrong"
)]

#[path = "fuzz_bytes/frames.rs"]
mod frames;
#[path = "fuzz_bytes/sequences.rs"]
mod sequences;

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tollgate::mqtt::wire::{
    Connect, Packet, Sender, Version, WireError, decode, decode_connect, first_frame, frame,
};

/// Seconds without `TOLLGATE_FUZZ_SECONDS`, on a developer's machine and where `CI` is set.
const SECONDS_DEFAULT: u64 = 10;
const SECONDS_DEFAULT_CI: u64 = 60;
/// No input may take longer than this.
const INPUT_TIME_MAX: Duration = Duration::from_millis(100);
/// How often a slow input is timed.
const TIMED_AGAIN_MAX: u32 = 5;
/// The limit of the whole packet in bytes (SEC-03).
const PACKET_SIZE_MAX: u32 = 262_144;
/// Bytes of the largest input that is kept for further mutation; the corpus stays small and quick.
const INPUT_BYTES_MAX: usize = 2_048;
/// Inputs that are kept for further mutation beyond those on disk; then they replace each other.
const KEPT_MAX: usize = 4_096;
/// Outcomes that are remembered, 8 bytes each; beyond them nothing is new any more.
const OUTCOMES_MAX: usize = 1_000_000;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

#[test]
fn rel_20_no_bytes_break_the_codec() {
    let seconds = seconds();
    let seed = number_from("TOLLGATE_SEED").unwrap_or_else(seed_of_the_clock);
    let mut corpus = Corpus::open(Path::new("fuzz/corpus/wire"));
    println!(
        "seed {seed}, {seconds} s, {} inputs in the corpus",
        corpus.inputs.len()
    );
    let mut random = Random(seed | 1);

    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    for index in 0..corpus.inputs.len() {
        let input = corpus.inputs[index].clone();
        corpus.note(try_one(&input, seed, 0), &input, &mut random);
    }
    let mut tried = corpus.inputs.len() as u64;
    while Instant::now() < end {
        // The clock is asked once for many inputs.
        for _ in 0..256 {
            let input = corpus.mutated(&mut random);
            let found = try_one(&input, seed, random.next());
            corpus.note(found, &input, &mut random);
            tried += 1;
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!(
        "{tried} inputs in {elapsed:.1} s, {:.0} inputs/s, {} outcomes, seed {seed}",
        tried as f64 / elapsed,
        corpus.outcomes.len(),
    );
    assert!(
        corpus.outcomes.len() > 100,
        "the inputs reach too little of the codec"
    );
}

#[test]
fn rel_21_no_sequence_breaks_a_session() {
    try_many("packets", sequences::run);
}

#[test]
fn rel_20_sec_74_no_frames_break_a_websocket() {
    try_many("frames", frames::run);
}

/// Runs one sequence after the other until the time is over; each answers how many `parts` it had.
fn try_many(parts: &str, run: impl Fn(u64) -> u64) {
    let seed = number_from("TOLLGATE_SEED").unwrap_or_else(seed_of_the_clock);
    println!("seed {seed}, {} s", seconds());
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds());
    let (mut tried, mut count) = (0, 0);
    while Instant::now() < end {
        // The clock is asked once for many sequences.
        for _ in 0..16 {
            count += run(seed.wrapping_add(tried));
            tried += 1;
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!("{tried} sequences with {count} {parts} in {elapsed:.1} s, seed {seed}");
}

/// How long each test may take.
fn seconds() -> u64 {
    let in_ci = std::env::var_os("CI").is_some();
    number_from("TOLLGATE_FUZZ_SECONDS").unwrap_or(if in_ci {
        SECONDS_DEFAULT_CI
    } else {
        SECONDS_DEFAULT
    })
}

/// Inputs to mutate, and what has been seen.
struct Corpus {
    inputs: Vec<Vec<u8>>,
    from_disk: usize,
    outcomes: HashSet<u64>,
}

impl Corpus {
    fn open(dir: &Path) -> Corpus {
        let mut files: Vec<PathBuf> = fs::read_dir(dir)
            .expect("the corpus is in the repository")
            .map(|entry| entry.expect("a readable entry").path())
            .collect();
        files.sort();
        let inputs: Vec<Vec<u8>> = files
            .iter()
            .map(|file| fs::read(file).expect("a readable file"))
            .collect();
        Corpus {
            from_disk: inputs.len(),
            inputs,
            outcomes: HashSet::new(),
        }
    }

    /// Keeps an input that led to an outcome not seen before.
    fn note(&mut self, outcome: u64, input: &[u8], random: &mut Random) {
        let room = self.outcomes.len() < OUTCOMES_MAX;
        if room && self.outcomes.insert(outcome) && input.len() <= INPUT_BYTES_MAX {
            if self.inputs.len() < self.from_disk + KEPT_MAX {
                self.inputs.push(input.to_vec());
            } else {
                let place = self.from_disk + random.below(KEPT_MAX);
                self.inputs[place] = input.to_vec();
            }
        }
    }

    fn mutated(&self, random: &mut Random) -> Vec<u8> {
        let mut input = self.any(random).clone();
        for _ in 0..=random.below(4) {
            self.mutate(&mut input, random);
        }
        // Half of them with a length that fits, so that they reach the fields behind it.
        if random.below(2) == 0 {
            fit_length(&mut input);
        }
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        let place = random.below(input.len() + 1);
        match random.below(9) {
            0 if place < input.len() => input[place] ^= 1 << random.below(8),
            1 if place < input.len() => input[place] = random.byte(),
            2 => input.truncate(place),
            3 => input.insert(place, random.byte()),
            4 if place < input.len() => drop(input.remove(place)),
            // A length, or an identifier, changed a little.
            5 if place < input.len() => {
                input[place] = input[place].wrapping_add([1, 2, 0xFE, 0xFF][random.below(4)]);
            }
            // A piece of another input, inserted or in place of the rest.
            6 => {
                let other = self.any(random);
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(place..place, other[from..to].iter().copied());
            }
            7 => {
                let other = self.any(random);
                input.truncate(place);
                input.extend(&other[random.below(other.len() + 1)..]);
            }
            // A piece of itself again: a second property, a second filter.
            _ => {
                let to = place + random.below(input.len() - place + 1);
                let piece = input[place..to].to_vec();
                input.splice(to..to, piece);
            }
        }
        input.truncate(4 * INPUT_BYTES_MAX);
    }

    fn any(&self, random: &mut Random) -> &Vec<u8> {
        &self.inputs[random.below(self.inputs.len())]
    }
}

/// Writes a Remaining Length that fits in place of the one the input has.
fn fit_length(input: &mut Vec<u8>) {
    let Some(first_byte) = input.first().copied() else {
        return;
    };
    let header = 1
        + input
            .iter()
            .skip(1)
            .take(3)
            .take_while(|byte| **byte & 0x80 != 0)
            .count()
        + 1;
    let body = input.split_off(header.min(input.len()));
    input.clear();
    input.push(first_byte);
    let mut length = body.len();
    loop {
        let low = length.to_le_bytes()[0] & 0x7F;
        length >>= 7;
        if length == 0 {
            input.push(low);
            break;
        }
        input.push(low | 0x80);
    }
    input.extend(body);
}

/// Holds one input to all properties; a failure leaves the input in `fuzz/artifacts`.
fn try_one(input: &[u8], seed: u64, split: u64) -> u64 {
    let mut elapsed = Duration::MAX;
    let mut result = Ok(Ok(0));
    // An input is slow when it is slow each time; once may be the machine's doing.
    for _ in 0..TIMED_AGAIN_MAX {
        let begun = Instant::now();
        result = catch_unwind(AssertUnwindSafe(|| check(input, split)));
        elapsed = elapsed.min(begun.elapsed());
        if elapsed <= INPUT_TIME_MAX {
            break;
        }
    }
    let problem = match result {
        Ok(Ok(outcome)) if elapsed <= INPUT_TIME_MAX => return outcome,
        Ok(Ok(_)) => format!("took {elapsed:?}"),
        Ok(Err(problem)) => problem,
        Err(_) => "panicked".to_owned(),
    };
    let path = keep_artifact(input);
    panic!("{problem}; input in {}, seed {seed}", path.display());
}

/// The properties: verdicts of whole and chunked input agree, and what is accepted can be written
/// and read back (SEC-13). Returns what happened, as a number.
fn check(input: &[u8], split: u64) -> Result<u64, String> {
    let mut outcome = Names::default();
    let whole = framed(input);
    let chunked = framed_in_chunks(input, split);
    if whole != chunked {
        return Err(format!("whole {whole:?}, in chunks {chunked:?}"));
    }
    // The frame tells where the packet ends; without one the bytes are tried as they are.
    let packet = match &whole {
        Ok(Some(len)) => input.get(..*len).ok_or("a frame longer than the input")?,
        _ => input,
    };
    for version in VERSIONS {
        for sender in SENDERS {
            let read = decode(version, sender, packet);
            if read.is_ok() && !matches!(whole, Ok(Some(_))) {
                return Err(format!("frame said {whole:?}, decode {read:?}"));
            }
            outcome.note(&read);
            if let Ok(read) = read {
                check_round_trip(&read, version, sender)?;
            }
        }
    }
    if let Ok(connect) = decode_connect(packet) {
        check_connect(&connect, packet)?;
    }
    Ok(outcome.hash)
}

fn check_round_trip(read: &Packet<'_>, version: Version, sender: Sender) -> Result<(), String> {
    let mut written = Vec::new();
    read.encode(version, &mut written)
        .map_err(|error| format!("{error}: {read:?}"))?;
    match decode(version, sender, &written) {
        Ok(again) if again == *read => Ok(()),
        other => Err(format!("read {read:?}, wrote and read {other:?}")),
    }
}

/// What [`decode_connect`] takes, [`first_frame`] and [`decode`] take too.
fn check_connect(connect: &Connect<'_>, packet: &[u8]) -> Result<(), String> {
    let frame = first_frame(packet, u32::MAX);
    let read = decode(connect.version, Sender::Client, packet);
    match (&frame, &read) {
        (Ok(Some(_)), Ok(Packet::Connect(again))) if again == connect => Ok(()),
        _ => Err(format!("{connect:?}, but frame {frame:?}, decode {read:?}")),
    }
}

/// The length of the first packet when all of it is there; `None` when more is needed.
fn framed(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    Ok(frame(bytes, PACKET_SIZE_MAX)?
        .and_then(|frame| frame.packet(bytes))
        .map(<[u8]>::len))
}

/// The same, as a connection sees it: the bytes come in pieces, and the first verdict stays.
fn framed_in_chunks(bytes: &[u8], split: u64) -> Result<Option<usize>, WireError> {
    let mut random = Random(split | 1);
    let mut have = 0;
    loop {
        if let Some(len) = framed(&bytes[..have])? {
            return Ok(Some(len));
        }
        if have == bytes.len() {
            return Ok(None);
        }
        let step = if random.below(2) == 0 {
            1
        } else {
            1 + random.below(64)
        };
        have = bytes.len().min(have + step);
    }
}

/// A hash of the names in an outcome: which packets with which fields, or which errors. What
/// differs in numbers and strings alone is no new outcome.
#[derive(Default)]
struct Names {
    hash: u64,
    quoted: bool,
}

impl Names {
    fn note(&mut self, read: &Result<Packet<'_>, WireError>) {
        match read {
            Ok(packet) => write!(self, "{packet:?};"),
            Err(error) => write!(self, "{error:?};"),
        }
        .expect("a hash takes everything");
    }
}

impl Write for Names {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.quoted ^= byte == b'"';
            if !self.quoted && (byte.is_ascii_alphabetic() || byte == b';') {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        Ok(())
    }
}

fn keep_artifact(input: &[u8]) -> PathBuf {
    let dir = Path::new("fuzz/artifacts");
    fs::create_dir_all(dir).expect("a writable repository");
    let hash = input.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let path = dir.join(format!("wire-{hash:016x}"));
    fs::write(&path, input).expect("a writable directory");
    path
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

fn seed_of_the_clock() -> u64 {
    let since = std::time::UNIX_EPOCH
        .elapsed()
        .expect("a clock behind 1970");
    u64::from(since.subsec_nanos()) ^ since.as_secs() << 30
}

/// Xorshift: quick and repeatable, nothing more is needed.
struct Random(u64);

impl Random {
    /// Of a sequence. Neighbouring seeds begin alike: the first numbers are thrown away.
    fn of(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            let _ = random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 11) % count as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // Bytes that mean something are more likely.
        const TELLING: [u8; 16] = [
            0, 1, 2, 3, 4, 0x10, 0x23, 0x24, 0x26, 0x2B, 0x2F, 0x30, 0x7F, 0x80, 0xC0, 0xFF,
        ];
        if self.below(2) == 0 {
            TELLING[self.below(16)]
        } else {
            self.next().to_le_bytes()[3]
        }
    }
}
