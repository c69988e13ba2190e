//! A record as a line of text: how it is written, and how a reader finds that it was changed.
//!
//! ```text
//! {"n":7,"time":"2026-11-22T12:50:44.123Z","event":"revoked",…,"prev":"9f…","digest":"1c…"}
//! ```
//!
//! `prev` is the digest of the record before it; `digest` is SHA-256 over the line's bytes up to
//! the comma before its own name, so over `prev` too. Every byte of a line, its end included, is
//! either covered by the digest or compared with what must stand there.

use aws_lc_rs::digest;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// A digest, 32 bytes.
pub type Digest = [u8; 32];

/// What stands as `prev` in the first record of all.
pub const NO_DIGEST: Digest = [0; 32];

/// Longest line, bytes, with its end. Events are built well below it.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

const PREV: &[u8] = b",\"prev\":\"";
const DIGEST: &[u8] = b"\",\"digest\":\"";
const END: &[u8] = b"\"}";
const HEX: usize = 64;
const TAIL: usize = PREV.len() + HEX + DIGEST.len() + HEX + END.len();

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What is read of a line that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number.
    pub number: u64,
    /// Wall clock, ms since the Unix epoch.
    pub time_ms: i64,
    /// The digest of the record before it.
    pub prev: Digest,
    /// Its own.
    pub digest: Digest,
    /// The number of the change it tells of, as the state database counts them.
    pub change: Option<u64>,
}

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRecord {
    /// It has not the form of one.
    Form,
    /// Its digest is not that of its text.
    Digest,
}

/// Writes a record behind `out`, with its end; answers its digest. `members` is what an event has
/// besides its name, each with a comma before it.
pub(super) fn write(
    number: u64,
    time_ms: u64,
    event: &str,
    members: &str,
    prev: &Digest,
    out: &mut Vec<u8>,
) -> Digest {
    let start = out.len();
    out.extend_from_slice(b"{\"n\":");
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(shown_time(time_ms).as_bytes());
    out.extend_from_slice(b"\",\"event\":\"");
    out.extend_from_slice(event.as_bytes());
    out.push(b'"');
    out.extend_from_slice(members.as_bytes());
    out.extend_from_slice(PREV);
    out.extend_from_slice(hex(prev).as_bytes());
    let covered = out.get(start..).unwrap_or_default();
    // The quote behind `prev` is covered as well: `DIGEST` begins with it.
    let digest = digest_of(&[covered, b"\""]);
    out.extend_from_slice(DIGEST);
    out.extend_from_slice(hex(&digest).as_bytes());
    out.extend_from_slice(END);
    out.push(b'\n');
    digest
}

/// Reads a line, without its end.
///
/// # Errors
/// Why it is no record.
pub fn read(line: &[u8]) -> Result<Read, NoRecord> {
    let at = line.len().checked_sub(TAIL).ok_or(NoRecord::Form)?;
    let (head, tail) = line.split_at_checked(at).ok_or(NoRecord::Form)?;
    let tail = tail.strip_prefix(PREV).ok_or(NoRecord::Form)?;
    let (prev, tail) = tail.split_at_checked(HEX).ok_or(NoRecord::Form)?;
    let tail = tail.strip_prefix(DIGEST).ok_or(NoRecord::Form)?;
    let (own, end) = tail.split_at_checked(HEX).ok_or(NoRecord::Form)?;
    let (prev, own) = (parse_hex(prev), parse_hex(own));
    let (Some(prev), Some(own)) = (prev, own) else {
        return Err(NoRecord::Form);
    };
    if end != END {
        return Err(NoRecord::Form);
    }
    let covered = line.get(..at + PREV.len() + HEX + 1).unwrap_or_default();
    if digest_of(&[covered]) != own {
        return Err(NoRecord::Digest);
    }
    let head = std::str::from_utf8(head).map_err(|_| NoRecord::Form)?;
    let (number, time_ms, rest) = head_of(head).ok_or(NoRecord::Form)?;
    Ok(Read {
        number,
        time_ms,
        prev,
        digest: own,
        change: change_in(rest),
    })
}

/// Number, time, and what stands behind the time.
fn head_of(head: &str) -> Option<(u64, i64, &str)> {
    let (number, rest) = head.strip_prefix("{\"n\":")?.split_once(',')?;
    let (time, rest) = rest.strip_prefix("\"time\":\"")?.split_once('"')?;
    let moment = time::PrimitiveDateTime::parse(time, TIME).ok()?;
    let ms = moment.assume_utc().unix_timestamp_nanos() / 1_000_000;
    Some((number.parse().ok()?, i64::try_from(ms).ok()?, rest))
}

/// The number of a change stands right behind the event's name: no value can be taken for it.
fn change_in(rest: &str) -> Option<u64> {
    let (_name, rest) = rest.strip_prefix(",\"event\":\"")?.split_once('"')?;
    let rest = rest.strip_prefix(",\"change\":")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

fn digest_of(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = NO_DIGEST;
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// A digest in small hexadecimal digits, as `sha256sum` prints it.
#[must_use]
pub fn hex(digest: &Digest) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| {
        DIGITS
            .get(usize::from(value))
            .map_or('0', |d| char::from(*d))
    };
    let pairs = digest
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    pairs.collect()
}

/// Reads what [`hex`] writes, and nothing else.
#[must_use]
pub fn parse_hex(text: &[u8]) -> Option<Digest> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != HEX {
        return None;
    }
    let mut digest = NO_DIGEST;
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(digest)
}

/// RFC 3339 in UTC with milliseconds; always as long. What no calendar shows becomes its start.
#[must_use]
pub fn shown_time(ms: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let text = moment.ok().and_then(|moment| moment.format(TIME).ok());
    text.unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(members: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write(
            7,
            1_769_860_800_123,
            "revoked",
            members,
            &[0xa5; 32],
            &mut out,
        );
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn sec_56_a_record_reads_back() {
        let line = line(r#","change":12,"name":"a""#);
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.starts_with(
            r#"{"n":7,"time":"2026-01-31T12:00:00.123Z","event":"revoked","change":12,"name":"a","#
        ));
        let read = read(&line).unwrap();
        assert_eq!((read.number, read.time_ms), (7, 1_769_860_800_123));
        assert_eq!((read.prev, read.change), ([0xa5; 32], Some(12)));
    }

    #[test]
    fn sec_56_a_value_is_never_taken_for_the_number_of_a_change() {
        let line = line(r#","name":"\",\"change\":9""#);
        assert_eq!(read(&line).unwrap().change, None);
    }

    #[test]
    fn sec_56_every_byte_of_a_line_counts() {
        let line = line(r#","id":"x""#);
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad).is_err(), "bit {bit} of byte {at}");
            }
            assert!(read(&line[..at]).is_err(), "cut at {at}");
            assert!(read(&line[at + 1..]).is_err(), "begun behind {at}");
        }
        assert!(read(b"").is_err());
    }

    /// Golden: what anybody computes with `sha256sum`.
    #[test]
    fn sec_56_the_digest_is_that_of_ordinary_tools() {
        let mut out = Vec::new();
        let digest = write(1, 0, "start", "", &NO_DIGEST, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (covered, _) = text.split_once(",\"digest\":\"").unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            covered,
            format!(
                r#"{{"n":1,"time":"1970-01-01T00:00:00.000Z","event":"start","prev":"{zeros}""#
            )
        );
        assert_eq!(digest, digest_of(&[covered.as_bytes()]));
        assert_eq!(parse_hex(hex(&digest).as_bytes()), Some(digest));
        assert_eq!(parse_hex(hex(&digest).to_uppercase().as_bytes()), None);
    }
}
