//! The reader's quick way: the samples of flat objects of strict JSON, read once. And the gate's:
//! payloads that look as others before them are only compared with those.
//!
//! As the gate's ([`strict`]) it leaves to the scanner whatever is lenient, escaped, nested,
//! doubled or broken, so the two cannot disagree on more than speed. A property test holds them
//! together.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use super::error::PayloadError;
use super::number::{self, Short};
use super::payload::{scan_checked, utf8};
use super::sample::{Sample, ScanOptions, Value};
use super::strict::{self, KEYS_MAX, TS_DIGITS_MAX};

/// Adds the samples of a payload that was checked before, as those in the journal were; what was
/// added before an error is taken away again.
///
/// # Errors
/// Those of [`check`](super::check).
pub(super) fn scan_into<'a>(
    payload: &'a [u8],
    options: ScanOptions,
    received_ms: u64,
    shapes: &mut Shapes,
    samples: &mut Vec<Sample<'a>>,
) -> Result<(), PayloadError> {
    let before = samples.len();
    let received = i64::try_from(received_ms).unwrap_or(i64::MAX);
    if self::samples(utf8(payload)?, options, received, shapes, samples).is_some() {
        return Ok(());
    }
    samples.truncate(before);
    let scanned = scan_checked(payload, options, received_ms, |sample| samples.push(sample));
    if scanned.is_err() {
        samples.truncate(before);
    }
    scanned
}

/// Adds the samples of a payload of one of the forms `{"a":1,…}` and `{"ts":1,"values":{"a":1,…}}`,
/// with at most one blank behind each `:` and `,`. `None`: it is not this simple, and what was
/// added means nothing.
#[inline]
pub(super) fn samples<'a>(
    text: &'a str,
    options: ScanOptions,
    received_ms: i64,
    shapes: &mut Shapes,
    samples: &mut Vec<Sample<'a>>,
) -> Option<()> {
    let outline = outline(text.as_bytes())?;
    let members = text.get(outline.members)?;
    let (ts_ms, is_outer) = match outline.ts {
        None => (received_ms, true),
        Some(digits) => (text.get(digits)?.parse().ok()?, false),
    };
    let before = samples.len();
    let mut add = |key, value| {
        samples.push(Sample {
            key: Cow::Borrowed(key),
            ts_ms,
            value,
        });
    };
    let shape = shapes.of(members.as_bytes(), is_outer);
    if shape
        .and_then(|shape| shape.read(members, is_outer, options, &mut add))
        .is_some()
    {
        return Some(());
    }
    samples.truncate(before);
    let rest = object(members, options, |key, value| {
        if is_outer && matches!(key, "ts" | "values") {
            return None; // perhaps a time and its values, in this order or another
        }
        samples.push(Sample {
            key: Cow::Borrowed(key),
            ts_ms,
            value,
        });
        Some(())
    })?;
    rest.is_empty().then_some(())?;
    shapes.missed(members, is_outer);
    Some(())
}

thread_local! {
    /// How the payloads that the gate sees look.
    static OF_GATE: RefCell<Shapes> = const { RefCell::new(Shapes::new()) };
}

/// How many samples the gate finds in a payload of one of these forms; `None` for others, and for
/// bad ones. Allocates nothing, but for a shape that is larger than those before it.
#[inline]
pub(super) fn check(payload: &[u8]) -> Option<u32> {
    OF_GATE.with_borrow_mut(|shapes| {
        if let Some(samples) = count(payload, shapes) {
            return Some(samples);
        }
        // Most payloads are ASCII, and seen to be so in a tenth of the time that UTF-8 takes.
        let is_ascii = payload.is_ascii();
        if !is_ascii && utf8(payload).is_err() {
            return None;
        }
        let samples = strict::samples(payload)?;
        if is_ascii {
            missed(payload, shapes);
        }
        Some(samples)
    })
}

/// How many samples are in a payload of one of these forms, if it looks as one before it did and
/// its values are ASCII.
#[inline]
fn count(payload: &[u8], shapes: &mut Shapes) -> Option<u32> {
    let outline = outline(payload)?;
    let (members, is_outer) = (payload.get(outline.members)?, outline.ts.is_none());
    shapes.of(members, is_outer)?.count(members, is_outer)
}

/// Notes how a good payload looks that [`count`] did not know.
fn missed(payload: &[u8], shapes: &mut Shapes) {
    if let Some(outline) = outline(payload)
        && let Some(members) = payload.get(outline.members)
        && let Ok(members) = utf8(members)
    {
        shapes.missed(members, outline.ts.is_none());
    }
}

/// Where things are in a payload of one of these forms.
struct Outline {
    /// The digits of its time; `None` if the payload itself is the object with the samples.
    ts: Option<Range<usize>>,
    /// That object, from its opening bracket on.
    members: Range<usize>,
}

#[inline]
fn outline(payload: &[u8]) -> Option<Outline> {
    let at = |rest: &[u8]| payload.len() - rest.len();
    let Some(behind) = payload.strip_prefix(b"{\"ts\":") else {
        let members = 0..payload.len();
        return Some(Outline { ts: None, members });
    };
    let digits = strict::skip_blank(behind);
    let (is_whole, behind) = strict::number(digits)?;
    let ts = at(digits)..at(behind);
    if !is_whole || ts.len() > TS_DIGITS_MAX {
        return None;
    }
    let behind = strict::skip_blank(behind.strip_prefix(b",")?);
    let behind = strict::skip_blank(behind.strip_prefix(b"\"values\":")?);
    payload.strip_suffix(b"}")?;
    Some(Outline {
        ts: Some(ts),
        members: at(behind)..payload.len() - 1,
    })
}

/// Calls `visit` for the members of an object; those that are null are only looked at. Answers
/// what follows it.
#[inline]
fn object<'a>(
    text: &'a str,
    options: ScanOptions,
    mut visit: impl FnMut(&'a str, Value<'a>) -> Option<()>,
) -> Option<&'a [u8]> {
    let mut hashes = [0_u64; KEYS_MAX];
    let mut rest = text.as_bytes().strip_prefix(b"{")?;
    for count in 0..KEYS_MAX {
        let (key, hash, behind) = strict::string(rest)?;
        let (known, free) = hashes.split_at_mut_checked(count)?;
        if known.contains(&hash) {
            return None; // doubled, or two keys that look so
        }
        *free.first_mut()? = hash;
        let key = part(text, rest.get(1..)?, key.len())?;
        rest = strict::skip_blank(behind.strip_prefix(b":")?);
        if let Some(behind) = rest.strip_prefix(b"null") {
            if matches!(key, "ts" | "values") {
                return None;
            }
            rest = behind;
        } else {
            let (visited, behind) = value(text, rest, options, |value| visit(key, value))?;
            visited?;
            rest = behind;
        }
        match rest.split_first()? {
            (b',', behind) => rest = strict::skip_blank(behind),
            (b'}', behind) => return Some(behind),
            _ => return None,
        }
    }
    None
}

/// Calls `visit` for the simple value that the rest of a text begins with; answers what that said,
/// and what follows. Each kind of value is made where it is visited: one that goes through memory
/// on its way there waits for itself.
#[inline]
fn value<'a, R>(
    text: &'a str,
    rest: &'a [u8],
    options: ScanOptions,
    visit: impl FnOnce(Value<'a>) -> R,
) -> Option<(R, &'a [u8])> {
    match rest.first()? {
        b'"' => {
            let (string, _, behind) = strict::string(rest)?;
            let string = part(text, rest.get(1..)?, string.len())?;
            if options.cast_strings && number::is_castable(string) {
                return Some((visit(number::number(string)), behind));
            }
            Some((visit(Value::Text(Cow::Borrowed(string))), behind))
        }
        b'-' | b'0'..=b'9' => match number::leading(rest) {
            Some((Short::Long(value), behind)) => Some((visit(Value::Long(value)), behind)),
            Some((Short::Double(value), behind)) => Some((visit(Value::Double(value)), behind)),
            None => {
                let (_, behind) = strict::number(rest)?;
                let number = part(text, rest, rest.len() - behind.len())?;
                Some((visit(number::number(number)), behind))
            }
        },
        b't' => Some((visit(Value::Bool(true)), rest.strip_prefix(b"true")?)),
        b'f' => Some((visit(Value::Bool(false)), rest.strip_prefix(b"false")?)),
        _ => None,
    }
}

/// The first bytes of the rest of a text. It can be cut there, as ends are quotes.
#[inline]
fn part<'a>(text: &'a str, rest: &[u8], len: usize) -> Option<&'a str> {
    let start = text.len().checked_sub(rest.len())?;
    text.get(start..start.checked_add(len)?)
}

/// How the payloads of a fleet look: what stands around their values, which is the same from
/// payload to payload, is compared instead of read.
pub(super) struct Shapes {
    list: [Shape; SHAPES],
    /// For the next one that is noted.
    spare: Shape,
}

/// Shapes that are known at a time; each takes 2 KiB at most.
const SHAPES: usize = 16;

/// Bytes of a shape beyond which it is not noted.
const SHAPE_BYTES_MAX: usize = 1_024;

/// Payloads of another shape after which one gives way.
const MISSES_MAX: u32 = 4;

/// What stands before each value of an object.
struct Shape {
    /// Bracket or comma, the name in its quotes and the colon, perhaps with blanks: of all members,
    /// one behind the other. No name is there twice.
    leads: Vec<u8>,
    members: Vec<Lead>,
    /// The object is a payload, not the values in one.
    is_outer: bool,
    /// Payloads in turn that did not look so.
    misses: u32,
}

/// What stands before one value.
#[derive(Clone, Copy)]
struct Lead {
    /// Its bytes.
    len: usize,
    /// Where in them the name begins and ends.
    name: (usize, usize),
}

impl Default for Shapes {
    fn default() -> Self {
        Self::new()
    }
}

impl Shapes {
    /// None is known.
    pub(super) const fn new() -> Self {
        Self {
            list: [const { Shape::new() }; SHAPES],
            spare: Shape::new(),
        }
    }

    /// The place of the shape that an object may have, by the first eight bytes of its first name.
    #[inline]
    fn place(members: &[u8], is_outer: bool) -> Option<usize> {
        let word = strict::first_word(members.get(2..)?) ^ u64::from(is_outer);
        let hash = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Some(usize::try_from(hash).ok()? % SHAPES)
    }

    /// The shape that an object may have.
    #[inline]
    fn of(&mut self, members: &[u8], is_outer: bool) -> Option<&mut Shape> {
        self.list.get_mut(Self::place(members, is_outer)?)
    }

    /// An object was read otherwise: perhaps the next ones look as it does.
    fn missed(&mut self, members: &str, is_outer: bool) {
        let place = Self::place(members.as_bytes(), is_outer);
        let Some(shape) = place.and_then(|place| self.list.get_mut(place)) else {
            return;
        };
        shape.misses = shape.misses.saturating_add(1);
        // What cannot be noted is tried less and less often, and drives no other out.
        let is_due = shape.members.is_empty() || shape.misses >= MISSES_MAX;
        if is_due && shape.misses.is_power_of_two() && self.spare.note(members, is_outer).is_some()
        {
            std::mem::swap(shape, &mut self.spare);
        }
    }
}

impl Shape {
    const fn new() -> Self {
        Self {
            leads: Vec::new(),
            members: Vec::new(),
            is_outer: false,
            misses: 0,
        }
    }

    /// How many members an object of this shape has, whose texts are ASCII.
    #[inline]
    fn count(&mut self, members: &[u8], is_outer: bool) -> Option<u32> {
        if is_outer != self.is_outer {
            return None;
        }
        let mut rest = members;
        let mut leads = self.leads.as_slice();
        for (member, count) in self.members.iter().zip(1..) {
            let (lead, later) = leads.split_at_checked(member.len)?;
            let behind = strict::skip_value(rest.strip_prefix(lead)?)?;
            if behind == b"}" {
                self.misses = 0;
                return Some(count);
            }
            (leads, rest) = (later, behind);
        }
        None
    }

    /// Calls `visit` for the members of an object of this shape. `None`: it has another one, and
    /// what was visited means nothing.
    #[inline]
    fn read<'a>(
        &mut self,
        text: &'a str,
        is_outer: bool,
        options: ScanOptions,
        mut visit: impl FnMut(&'a str, Value<'a>),
    ) -> Option<()> {
        if is_outer != self.is_outer {
            return None;
        }
        let mut rest = text.as_bytes();
        let mut leads = self.leads.as_slice();
        for member in &self.members {
            let (lead, later) = leads.split_at_checked(member.len)?;
            let behind = rest.strip_prefix(lead)?;
            let (begin, end) = member.name;
            let name = part(text, rest.get(begin..)?, end - begin)?;
            let ((), behind) = value(text, behind, options, |value| visit(name, value))?;
            if behind == b"}" {
                self.misses = 0;
                return Some(());
            }
            (leads, rest) = (later, behind);
        }
        None
    }

    /// Becomes the shape of a good object. `None` for one with nulls, or a large one.
    fn note(&mut self, text: &str, is_outer: bool) -> Option<()> {
        self.leads.clear();
        self.members.clear();
        (self.is_outer, self.misses) = (is_outer, 0);
        let mut rest = text.as_bytes();
        while rest != b"}" {
            let behind = match rest.split_first()? {
                (b'{', behind) => behind,
                (_, behind) => strict::skip_blank(behind),
            };
            let begin = rest.len() - behind.len() + 1;
            let (name, _, behind) = strict::string(behind)?;
            if is_outer && matches!(name, b"ts" | b"values") {
                return None; // perhaps a time and its values
            }
            let behind = strict::skip_blank(behind.strip_prefix(b":")?);
            let lead = rest.get(..rest.len() - behind.len())?;
            if self.leads.len() + lead.len() > SHAPE_BYTES_MAX {
                return None;
            }
            self.leads.extend_from_slice(lead);
            self.members.push(Lead {
                len: lead.len(),
                name: (begin, begin + name.len()),
            });
            rest = value(text, behind, ScanOptions::default(), |_| ())?.1;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the quick way says, and what the scanner says.
    fn both<'a>(
        text: &'a str,
        options: ScanOptions,
        shapes: &mut Shapes,
    ) -> (Option<Vec<Sample<'a>>>, Option<Vec<Sample<'a>>>) {
        let mut quick = Vec::new();
        let is_simple = samples(text, options, 5, shapes, &mut quick).is_some();
        let mut scanned = Vec::new();
        let result = scan_checked(text.as_bytes(), options, 5, |sample| scanned.push(sample));
        (
            is_simple.then_some(quick),
            result.is_ok().then_some(scanned),
        )
    }

    #[test]
    fn payloads_as_devices_send_them_are_simple() {
        let mut shapes = Shapes::default();
        for text in [
            r#"{"temperature":21.5,"humidity":40}"#,
            r#"{"a": -1, "b": true, "c": null, "d": "text", "e": "2.5", "f": 1e3}"#,
            r#"{"ts":1700000000000,"values":{"a":1,"ts":2,"values":3}}"#,
            r#"{"ts": -5, "values": {"ä":"ö"}}"#,
            "{}",
        ] {
            // An object without members has none to be quick with.
            if text == "{}" {
                continue;
            }
            // The first one is read, the second one is compared with it.
            for _ in 0..2 {
                let (quick, scanned) = both(text, ScanOptions::default(), &mut shapes);
                assert!(quick.is_some(), "{text}");
                assert_eq!(quick, scanned, "{text}");
            }
        }
    }

    #[test]
    fn a_shape_is_noted_and_gives_way_to_others() {
        let hits = |shapes: &mut Shapes, text: &str| {
            let shape = shapes.of(text.as_bytes(), true).unwrap();
            let found = shape.read(text, true, ScanOptions::default(), |_, _| {});
            found.is_some()
        };
        let mut shapes = Shapes::default();
        let (one, other) = (r#"{"value-a":1,"b":2.5}"#, r#"{"value-a":1,"c":"x"}"#);
        assert!(!hits(&mut shapes, one));
        both(one, ScanOptions::default(), &mut shapes);
        assert!(hits(&mut shapes, one));
        // Fewer members of the same names, and other values.
        assert!(hits(&mut shapes, r#"{"value-a":"y"}"#));
        assert!(!hits(&mut shapes, r#"{"value-a":1,"b":2.5,"c":3}"#));
        assert!(!hits(&mut shapes, r#"{"value-a":1, "b":2.5}"#));
        assert!(!hits(&mut shapes, r#"{"value-a":null}"#));
        for _ in 0..MISSES_MAX {
            assert!(!hits(&mut shapes, other));
            both(other, ScanOptions::default(), &mut shapes);
        }
        assert!(hits(&mut shapes, other) && !hits(&mut shapes, one));
        // What is an ordinary name in `values` is none in a payload.
        let inner = r#"{"ts":1,"values":{"values":5,"b":1}}"#;
        both(inner, ScanOptions::default(), &mut shapes);
        both(inner, ScanOptions::default(), &mut shapes);
        assert!(
            both(r#"{"values":5,"b":1}"#, ScanOptions::default(), &mut shapes)
                .0
                .is_none()
        );
    }

    #[test]
    fn what_looks_as_before_is_counted() {
        let mut shapes = Shapes::default();
        for (first, second, samples) in [
            (r#"{"a":1,"b":2.5}"#, r#"{"a":-31.5e3,"b":"text"}"#, Some(2)),
            (r#"{"a":1,"b":2.5}"#, r#"{"a":true}"#, Some(1)),
            (r#"{"a": 1, "b": 2}"#, r#"{"a": false, "b": ""}"#, Some(2)),
            (
                r#"{"ts":1,"values":{"k":1}}"#,
                r#"{"ts": 17, "values":{"k":2}}"#,
                Some(1),
            ),
            // What only looks like it is read.
            (r#"{"a":1,"b":2}"#, r#"{"a":01,"b":2}"#, None),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2"#, None),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}}"#, None),
            (r#"{"a":1,"b":2}"#, r#"{"a":"ä","b":2}"#, None),
            (r#"{"a":1,"b":2}"#, r#"{"a":"\n","b":2}"#, None),
            (r#"{"a":1,"b":2}"#, r#"{"a":null,"b":2}"#, None),
            (
                r#"{"ts":1,"values":{"q":1}}"#,
                r#"{"ts":1.5,"values":{"q":1}}"#,
                None,
            ),
            (r#"{"ts":1,"values":{"q":1}}"#, r#"{"q":1}"#, None),
            // These are never noted: `ts` and `values` mean something in a payload.
            (r#"{"ab":1,"ts":2}"#, r#"{"ab":1,"ts":2}"#, None),
            (
                r#"{"values":{"a":1},"ts":2}"#,
                r#"{"values":{"a":1},"ts":2}"#,
                None,
            ),
        ] {
            for _ in 0..=MISSES_MAX {
                missed(first.as_bytes(), &mut shapes);
            }
            assert_eq!(count(second.as_bytes(), &mut shapes), samples, "{second}");
        }
    }

    fn part() -> impl Strategy<Value = String> {
        let fixed = [
            "{",
            "}",
            "{\"ts\":",
            "\"values\":",
            "\"a\":",
            "\"b\":",
            "\"ts\":",
            "\"ä\"",
            ",",
            ":",
            " ",
            "1",
            "-0",
            "-0.0",
            "2.50",
            "1e2",
            "01",
            "-",
            "null",
            "true",
            "false",
            "\"x\"",
            "\"7\"",
            "\"-.5\"",
            "\"\\u0032\"",
            "[1]",
            "{\"c\":1}",
            "}}",
            "12345678901234567890",
            "// x\n",
        ];
        prop_oneof![
            8 => prop::sample::select(fixed.map(str::to_owned).to_vec()),
            1 => "-?[0-9]{1,20}(\\.[0-9]{1,18})?",
        ]
    }

    fn payload() -> impl Strategy<Value = String> {
        let member = ("\"[a-c]\": ?", part()).prop_map(|(key, value)| key + &value);
        let object = proptest::collection::vec(member, 0..5)
            .prop_map(|list| list.join(","))
            .boxed();
        prop_oneof![
            proptest::collection::vec(part(), 0..12).prop_map(|parts| parts.concat()),
            object.clone().prop_map(|members| format!("{{{members}}}")),
            (part(), object)
                .prop_map(|(ts, members)| { format!("{{\"ts\":{ts},\"values\":{{{members}}}}}") }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: 4_096,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_quick_way_says_what_the_scanner_says(
            texts in proptest::collection::vec(payload(), 1..4),
            cast_strings in any::<bool>(),
        ) {
            let options = ScanOptions { cast_strings, ..ScanOptions::default() };
            let (mut shapes, mut of_gate) = (Shapes::default(), Shapes::default());
            for text in texts.iter().chain(&texts) {
                let (quick, scanned) = both(text, options, &mut shapes);
                match count(text.as_bytes(), &mut of_gate) {
                    None if strict::samples(text.as_bytes()).is_some() && text.is_ascii() => {
                        missed(text.as_bytes(), &mut of_gate);
                    }
                    None => {}
                    counted => {
                        let samples = scanned.as_ref().map(|samples| samples.len());
                        let counted = counted.map(|count| usize::try_from(count).unwrap());
                        prop_assert_eq!(counted, samples, "{}", text);
                    }
                }
                if quick.is_some() {
                    prop_assert_eq!(format!("{:?}", quick), format!("{:?}", scanned));
                }
            }
        }
    }
}
