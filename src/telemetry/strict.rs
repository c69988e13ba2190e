//! The gate's quick way: flat objects of strict JSON, as nearly all devices send them.
//!
//! Answers "good, with so many samples" or "not this simple". It never says that a payload is bad
//! and never decides anything in doubt: whatever is lenient, escaped, nested, doubled or broken is
//! left to the scanner, so the two cannot disagree on more than speed. A property test holds them
//! together.

/// Keys of an object that are told apart here; objects with more go to the scanner.
pub(super) const KEYS_MAX: usize = 24;

/// Longest `ts` in digits that cannot leave 64 bits.
pub(super) const TS_DIGITS_MAX: usize = 18;

/// The samples in a payload (valid UTF-8) of one of the forms `{"a":1,…}` and
/// `{"ts":1,"values":{"a":1,…}}`, with at most one blank behind each `:` and `,`.
#[inline]
pub(super) fn samples(payload: &[u8]) -> Option<u32> {
    let (members, rest) = object(payload, |values| {
        let (members, rest) = object(values, |_| None)?;
        // Only as the record's own: `ts` and `values` in here are ordinary keys.
        Some((members.samples, rest))
    })?;
    if !rest.is_empty() {
        return None;
    }
    match (members.ts_good, members.values) {
        (Some(true), Some(inner)) => Some(inner),
        (None, None) => Some(members.samples),
        (Some(_), None) => Some(members.samples),
        // A time that is none, or `values` as an ordinary key.
        _ => None,
    }
}

/// What was seen of one object.
struct Members {
    /// Members that are not null.
    samples: u32,
    /// There is a `ts`, and it is a whole number without doubt.
    ts_good: Option<bool>,
    /// There is a `values` that is an object with so many samples.
    values: Option<u32>,
}

/// Reads one object. `values` reads the object of the key of this name.
#[inline]
fn object(
    payload: &[u8],
    values: impl Fn(&[u8]) -> Option<(u32, &[u8])>,
) -> Option<(Members, &[u8])> {
    let mut members = Members {
        samples: 0,
        ts_good: None,
        values: None,
    };
    let mut hashes = [0_u64; KEYS_MAX];
    let mut rest = payload.strip_prefix(b"{")?;
    if let Some(rest) = rest.strip_prefix(b"}") {
        return Some((members, rest));
    }
    for count in 0..KEYS_MAX {
        let (key, hash, behind) = string(rest)?;
        let (known, free) = hashes.split_at_mut_checked(count)?;
        if known.contains(&hash) {
            return None; // doubled, or two keys that look so
        }
        *free.first_mut()? = hash;
        rest = skip_blank(behind.strip_prefix(b":")?);
        rest = match (rest.first()?, key) {
            (b'{', b"values") => {
                let (samples, behind) = values(rest)?;
                members.values = Some(samples);
                behind
            }
            (_, b"values") => return None, // an ordinary key, or bad beside `ts`
            (b'"', _) => {
                members.samples += 1;
                string(rest)?.2
            }
            (b'-' | b'0'..=b'9', _) => {
                members.samples += 1;
                let (is_whole, behind) = number(rest)?;
                if key == b"ts" {
                    members.ts_good = Some(is_whole && rest.len() - behind.len() <= TS_DIGITS_MAX);
                }
                behind
            }
            (b'n', _) => rest.strip_prefix(b"null")?,
            (b't', _) => {
                members.samples += 1;
                rest.strip_prefix(b"true")?
            }
            (b'f', _) => {
                members.samples += 1;
                rest.strip_prefix(b"false")?
            }
            _ => return None,
        };
        // A `ts` of another kind beside `values` is the scanner's affair.
        if key == b"ts" && members.ts_good.is_none() {
            members.ts_good = Some(false);
        }
        match rest.split_first()? {
            (b',', behind) => rest = skip_blank(behind),
            (b'}', behind) => return Some((members, behind)),
            _ => return None,
        }
    }
    None
}

/// A quoted string without escapes: its bytes, a hash of them, and what follows the quote.
#[inline]
pub(super) fn string(text: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut hash = 0_u64;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.is_empty() {
            return None;
        }
        let word = word(rest);
        let ends = zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES);
        if ends == 0 {
            hash = mix(hash, word);
            at += 8;
            continue;
        }
        let bits = ends.trailing_zeros() & !7; // where the byte begins: a multiple of 8 below 64
        let within = word & !(u64::MAX << bits);
        let len = at + usize::try_from(bits / 8).ok()?;
        // The length keeps apart what zeros in the last word do not.
        let hash = mix(mix(hash, within), u64::from(bits));
        let (string, behind) = text.split_at_checked(len)?;
        return Some((string, hash, behind.strip_prefix(b"\"")?));
    }
}

/// The first eight bytes; zeros, which end no string, behind the end.
#[inline]
fn word(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let bytes = text.iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        }
    }
}

/// The first eight bytes of a name, without what follows its quote.
#[inline]
pub(super) fn first_word(name: &[u8]) -> u64 {
    let word = word(name);
    match zero_bytes(word ^ QUOTES) {
        0 => word,
        ends => word & !(u64::MAX << (ends.trailing_zeros() & !7)),
    }
}

const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
const ONES: u64 = u64::from_le_bytes([1; 8]);

/// The highest bit of the lowest byte that is zero is set, those below are not; bits above it mean
/// nothing. No bit if no byte is zero.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// No key is kept but by its hash, and equal hashes are left to the scanner: good enough is fine.
#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

/// What follows a value that is a number, a text of ASCII characters, `true` or `false`.
#[inline]
pub(super) fn skip_value(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'"' => skip_ascii_string(text.get(1..)?),
        b'-' | b'0'..=b'9' => Some(number(text)?.1),
        b't' => text.strip_prefix(b"true"),
        b'f' => text.strip_prefix(b"false"),
        _ => None,
    }
}

/// What follows the quote that ends a string of ASCII characters without escapes.
#[inline]
fn skip_ascii_string(mut text: &[u8]) -> Option<&[u8]> {
    while let Some((word, behind)) = text.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let is_end = zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES);
        let ends = is_end | word & (ONES << 7);
        if ends != 0 {
            let at = usize::try_from(ends.trailing_zeros() / 8).ok()?;
            return text.get(at..)?.strip_prefix(b"\"");
        }
        text = behind;
    }
    let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0x80..);
    let at = text.iter().position(is_end)?;
    text.get(at..)?.strip_prefix(b"\"")
}

/// A strict number: whether it is written without point and exponent, and what follows it.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<(bool, &[u8])> {
    let whole = text.strip_prefix(b"-").unwrap_or(text);
    let mut rest = digits(whole)?;
    if whole.first() == Some(&b'0') && whole.len() - rest.len() > 1 {
        return None;
    }
    let behind_whole = rest;
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = digits(fraction)?;
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let unsigned = match exponent.split_first() {
            Some((b'+' | b'-', unsigned)) => unsigned,
            _ => exponent,
        };
        rest = digits(unsigned)?;
    }
    Some((rest.len() == behind_whole.len(), rest))
}

/// What follows at least one digit.
#[inline]
fn digits(mut text: &[u8]) -> Option<&[u8]> {
    let begin = text.len();
    while let Some((b'0'..=b'9', rest)) = text.split_first() {
        text = rest;
    }
    (text.len() < begin).then_some(text)
}

#[inline]
pub(super) fn skip_blank(text: &[u8]) -> &[u8] {
    text.strip_prefix(b" ").unwrap_or(text)
}
