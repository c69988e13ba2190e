//! The forms of a telemetry payload (TB-21, TB-23): records and their members.
//!
//! What an object means is known only at its end: `ts` may follow `values`, and the last of equal
//! keys counts (TB-20). So its members are noted as places in the payload first. [`check`] reads
//! the whole payload so; [`scan`] does the same and then goes over it again to emit, so that a
//! payload that is bad at its end has emitted nothing.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use super::compact::compact;
use super::error::PayloadError;
use super::flat;
use super::json::{Kind, Scanner, Token, unescape};
use super::number;
use super::sample::{Sample, ScanOptions, Value};

/// What the gate learns of a good payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Samples [`scan`] will emit, 0 for `{}` and `[]`.
    pub samples: u32,
}

/// Whether this payload can be read, and how many samples are in it. Allocates nothing, but for a
/// payload with more members than any before on this thread, or with more than 16 of them and a
/// key twice, or that looks as none before: how it looks is kept, in 17 places of up to 2 KiB a
/// thread.
///
/// # Errors
/// [`PayloadError`] for a bad payload (TB-16).
pub fn check(payload: &[u8], options: ScanOptions) -> Result<Checked, PayloadError> {
    if options.string_bytes_max.is_none()
        && let Some(samples) = flat::check(payload)
    {
        return Ok(Checked { samples });
    }
    let text = utf8(payload)?;
    let mut samples: u32 = 0;
    read(text, options, |_, members| {
        let present = members
            .iter()
            .filter(|member| member.value.kind != Kind::Null)
            .count();
        samples = samples.saturating_add(u32::try_from(present).unwrap_or(u32::MAX));
    })?;
    Ok(Checked { samples })
}

/// Emits every sample of a payload, in the order of the payload; records without a time get
/// `received_ms`. Equal (key, time) in several records of an array are all emitted: the later one
/// counts.
///
/// # Errors
/// Those of [`check`]; `visit` was then not called at all.
pub fn scan<'a>(
    payload: &'a [u8],
    options: ScanOptions,
    received_ms: u64,
    visit: impl FnMut(Sample<'a>),
) -> Result<(), PayloadError> {
    check(payload, options)?;
    scan_checked(payload, options, received_ms, visit)
}

/// The same for a payload that was checked before, as those in the journal were: it is read once.
///
/// # Errors
/// Those of [`check`]; `visit` may have been called for what comes before the error.
pub(super) fn scan_checked<'a>(
    payload: &'a [u8],
    options: ScanOptions,
    received_ms: u64,
    mut visit: impl FnMut(Sample<'a>),
) -> Result<(), PayloadError> {
    let text = utf8(payload)?;
    let received_ms = i64::try_from(received_ms).unwrap_or(i64::MAX);
    read(text, options, |ts_ms, members| {
        let ts_ms = ts_ms.unwrap_or(received_ms);
        for member in members {
            if let Some(value) = member.value(text, options) {
                visit(Sample {
                    key: member.key(text),
                    ts_ms,
                    value,
                });
            }
        }
    })
}

/// Members whose storage a thread keeps for the next payload (40 bytes each, 160 KiB in two
/// lists). One payload can hold up to a quarter of its bytes; what is beyond is given back.
const MEMBERS_KEPT_MAX: usize = 2_048;

/// Up to this many members, equal keys are sought pair by pair; more are sorted, so that no choice
/// of keys takes quadratic time.
const MEMBERS_PAIRED_MAX: usize = 16;

thread_local! {
    /// Storage for members, so that the gate allocates nothing.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// The members of the record being read, and those of its `values`.
#[derive(Default)]
struct Scratch {
    outer: Members,
    inner: Members,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            outer: Members::new(),
            inner: Members::new(),
        }
    }
}

/// The members of one object, in order.
#[derive(Default)]
struct Members {
    list: Vec<Member>,
    /// Bits of keys met so far: a key whose bit is not set is a new one.
    seen: u64,
    /// Two keys had the same bit.
    suspect: bool,
    /// For sorting: a hash of each key and its place in the list.
    order: Vec<(u64, u32)>,
}

/// One name and its value, as places in the payload.
#[derive(Clone, Copy)]
struct Member {
    key: Token,
    value: Token,
}

/// Reads the whole document, calling `record` at the end of each record with its own time, if it
/// has one, and its members; those that count no more are `Null`.
fn read(
    text: &str,
    options: ScanOptions,
    mut record: impl FnMut(Option<i64>, &[Member]),
) -> Result<(), PayloadError> {
    let mut scratch = SCRATCH.take();
    let result = document(text, options, &mut scratch, &mut record);
    scratch.outer.give_back();
    scratch.inner.give_back();
    SCRATCH.set(scratch);
    result
}

fn document(
    text: &str,
    options: ScanOptions,
    scratch: &mut Scratch,
    record: &mut impl FnMut(Option<i64>, &[Member]),
) -> Result<(), PayloadError> {
    let mut scanner = Scanner::new(text);
    match scanner.next_byte()? {
        None => return Err(PayloadError::Empty),
        Some(b'{') => {
            let (ts_ms, members) = object(&mut scanner, text, options, 1, scratch)?;
            record(ts_ms, members);
        }
        Some(b'[') => {
            scanner.advance();
            let mut first = true;
            while scanner.next_item(first, b']')? {
                first = false;
                match scanner.next_byte()? {
                    Some(b'{') => {}
                    Some(_) => return Err(not_a_record(&scanner)),
                    None => return Err(scanner.unexpected("an object", None)),
                }
                let (ts_ms, members) = object(&mut scanner, text, options, 2, scratch)?;
                record(ts_ms, members);
            }
        }
        Some(_) => return Err(not_a_record(&scanner)),
    }
    match scanner.next_byte()? {
        None => Ok(()),
        Some(_) => Err(PayloadError::TrailingData {
            position: scanner.position(),
        }),
    }
}

fn not_a_record(scanner: &Scanner<'_>) -> PayloadError {
    PayloadError::NotARecord {
        position: scanner.position(),
    }
}

/// Reads one record, whose opening bracket is the next byte. `depth`: containers open in it.
fn object<'s>(
    scanner: &mut Scanner<'_>,
    text: &str,
    options: ScanOptions,
    depth: u32,
    scratch: &'s mut Scratch,
) -> Result<(Option<i64>, &'s [Member]), PayloadError> {
    let Scratch { outer, inner } = scratch;
    let (mut ts, mut values) = (None, None);
    outer.clear();
    scanner.advance();
    let mut first = true;
    while let Some(key) = scanner.next_name(first)? {
        first = false;
        let is_values = key_is(key, text, "values");
        let value = if is_values && scanner.next_byte()? == Some(b'{') {
            // Perhaps the record's own members, perhaps a JSON value: both are at hand.
            members(scanner, text, depth, inner)?
        } else {
            scanner.value(depth)?
        };
        if is_values {
            values = Some(value);
        } else if key_is(key, text, "ts") {
            ts = Some(value);
        }
        outer.push(Member { key, value }, text);
    }
    // Both or none (TB-23): a lone one is an ordinary key. What else stands beside them, like
    // `metadata`, means nothing.
    let (ts_ms, members) = match (ts, values) {
        (Some(ts), Some(values)) => {
            if values.kind != Kind::Object {
                return Err(PayloadError::ValuesNotAnObject {
                    position: values.start,
                });
            }
            (Some(timestamp(ts, text)?), inner)
        }
        _ => (None, outer),
    };
    members.drop_duplicates(text);
    if let Some(limit) = options.string_bytes_max {
        members
            .list
            .iter()
            .try_for_each(|member| member.measure(text, limit))?;
    }
    Ok((ts_ms, &members.list))
}

/// Reads the object that begins at the next byte and notes its members. `depth`: the containers
/// around it, of which there are two at most here.
fn members(
    scanner: &mut Scanner<'_>,
    text: &str,
    depth: u32,
    members: &mut Members,
) -> Result<Token, PayloadError> {
    let start = scanner.position();
    members.clear();
    scanner.advance();
    let mut first = true;
    while let Some(key) = scanner.next_name(first)? {
        first = false;
        let value = scanner.value(depth + 1)?;
        members.push(Member { key, value }, text);
    }
    Ok(Token {
        kind: Kind::Object,
        start,
        end: scanner.position(),
    })
}

impl Members {
    const fn new() -> Self {
        Self {
            list: Vec::new(),
            seen: 0,
            suspect: false,
            order: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.seen = 0;
        self.suspect = false;
    }

    fn give_back(&mut self) {
        if self.list.capacity() > MEMBERS_KEPT_MAX {
            *self = Self::new();
        }
    }

    #[inline]
    fn push(&mut self, member: Member, text: &str) {
        let bit = if member.key.kind == Kind::EscapedText {
            // Written otherwise it may be any key.
            u64::MAX
        } else {
            key_bit(member.key.raw(text).as_bytes())
        };
        self.suspect |= self.seen & bit != 0;
        self.seen |= bit;
        self.list.push(member);
    }

    /// Makes every member `Null` whose key comes again later.
    fn drop_duplicates(&mut self, text: &str) {
        if !self.suspect {
            return;
        }
        if self.list.len() > MEMBERS_PAIRED_MAX {
            self.drop_duplicates_sorted(text);
            return;
        }
        let mut rest = self.list.as_mut_slice();
        while let Some((member, later)) = rest.split_first_mut() {
            if later
                .iter()
                .any(|other| key_order(member.key, other.key, text).is_eq())
            {
                member.value.kind = Kind::Null;
            }
            rest = later;
        }
    }

    fn drop_duplicates_sorted(&mut self, text: &str) {
        let Self { list, order, .. } = self;
        let key = |index: u32| {
            usize::try_from(index)
                .ok()
                .and_then(|index| list.get(index))
                .map(|member| member.key)
        };
        let by_key = |a: &(u64, u32), b: &(u64, u32)| {
            // Numbers are quick to compare; equal ones, by chance or by choice, are no proof.
            a.0.cmp(&b.0).then_with(|| match (key(a.1), key(b.1)) {
                (Some(a), Some(b)) => key_order(a, b, text),
                _ => Ordering::Equal,
            })
        };
        order.clear();
        order.extend(
            (0..)
                .zip(list.iter())
                .map(|(index, member)| (hash(member.key, text), index)),
        );
        order.sort_unstable_by(|a, b| by_key(a, b).then(a.1.cmp(&b.1)));
        let doubled = |pair: &[(u64, u32)]| match pair {
            [earlier, later] if by_key(earlier, later).is_eq() => usize::try_from(earlier.1).ok(),
            _ => None,
        };
        let earlier: Vec<usize> = order.windows(2).filter_map(doubled).collect();
        for index in earlier {
            if let Some(member) = list.get_mut(index) {
                member.value.kind = Kind::Null;
            }
        }
    }
}

impl Member {
    fn key<'a>(&self, text: &'a str) -> Cow<'a, str> {
        decoded(self.key, text)
    }

    /// The value by the rules of TB-22; `None` for null.
    fn value<'a>(&self, text: &'a str, options: ScanOptions) -> Option<Value<'a>> {
        let raw = self.value.raw(text);
        Some(match self.value.kind {
            Kind::Null => return None,
            Kind::Bool(value) => Value::Bool(value),
            Kind::Number => number::number(raw),
            Kind::Text if options.cast_strings && number::is_castable(raw) => number::number(raw),
            Kind::Text => Value::Text(Cow::Borrowed(raw)),
            Kind::EscapedText => escaped_value(decoded(self.value, text), options),
            // The depth was checked where the value was read first.
            Kind::Object | Kind::Array => {
                Value::Json(Cow::Owned(compact(text, self.value, 0).ok()?))
            }
        })
    }

    /// Whether the profile's limit for strings is kept. Strings that become numbers count too.
    fn measure(&self, text: &str, limit: u32) -> Result<(), PayloadError> {
        let raw = self.value.raw(text);
        let len = match self.value.kind {
            Kind::Text => raw.len(),
            Kind::EscapedText => unescape(raw).map(char::len_utf8).sum(),
            _ => return Ok(()),
        };
        if u32::try_from(len).is_ok_and(|len| len <= limit) {
            return Ok(());
        }
        Err(PayloadError::StringTooLong {
            position: self.value.start,
            len,
            limit,
        })
    }
}

/// The value of a string with escapes: it can still read as a number (`"\u0032"`).
fn escaped_value(text: Cow<'_, str>, options: ScanOptions) -> Value<'_> {
    if options.cast_strings && number::is_castable(&text) {
        match number::number(&text) {
            Value::Long(value) => return Value::Long(value),
            Value::Double(value) => return Value::Double(value),
            _ => {}
        }
    }
    Value::Text(text)
}

/// The time of a record. As in the reference a whole number in quotes will do; anything else that
/// is no number makes the payload bad.
fn timestamp(ts: Token, text: &str) -> Result<i64, PayloadError> {
    let ts_ms = match ts.kind {
        Kind::Number => number::whole_part(ts.raw(text)),
        Kind::Text => ts.raw(text).parse().ok(),
        Kind::EscapedText => decoded(ts, text).parse().ok(),
        Kind::Null | Kind::Bool(_) | Kind::Object | Kind::Array => None,
    };
    ts_ms.ok_or(PayloadError::BadTimestamp { position: ts.start })
}

pub(super) fn utf8(payload: &[u8]) -> Result<&str, PayloadError> {
    std::str::from_utf8(payload).map_err(|error| PayloadError::NotUtf8 {
        position: error.valid_up_to(),
    })
}

fn decoded(token: Token, text: &str) -> Cow<'_, str> {
    let raw = token.raw(text);
    match token.kind {
        Kind::EscapedText => Cow::Owned(unescape(raw).collect()),
        _ => Cow::Borrowed(raw),
    }
}

#[inline]
fn key_is(key: Token, text: &str, name: &str) -> bool {
    match key.kind {
        Kind::EscapedText => unescape(key.raw(text)).eq(name.chars()),
        _ => key.raw(text) == name,
    }
}

/// Orders keys by what they mean, however they are written. For UTF-8 the order of bytes is that
/// of characters.
fn key_order(a: Token, b: Token, text: &str) -> Ordering {
    if a.kind != Kind::EscapedText && b.kind != Kind::EscapedText {
        return a.raw(text).cmp(b.raw(text));
    }
    let chars = |token: Token| {
        let raw = token.raw(text);
        let plain = token.kind != Kind::EscapedText;
        let (plain, escaped) = if plain { (raw, "") } else { ("", raw) };
        plain.chars().chain(unescape(escaped))
    };
    chars(a).cmp(chars(b))
}

/// A number for a key that is the same however the key is written (FNV-1a).
fn hash(key: Token, text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let raw = key.raw(text);
    if key.kind != Kind::EscapedText {
        return raw.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    }
    unescape(raw).fold(0xcbf2_9ce4_8422_2325, |hash, character| {
        character.encode_utf8(&mut [0; 4]).bytes().fold(hash, step)
    })
}

/// One of 64 bits for a key: a cheap first look before keys are compared.
#[inline]
fn key_bit(key: &[u8]) -> u64 {
    let ends = match key {
        [] => 0,
        [first, .., last] => usize::from(*first).wrapping_mul(31) ^ usize::from(*last),
        [only] => usize::from(*only),
    };
    1 << (ends.wrapping_add(key.len().wrapping_mul(7)) % 64)
}

const _: () = assert!(size_of::<Member>() <= 48);
