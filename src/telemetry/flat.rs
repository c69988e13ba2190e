//! The reader's quick way: the samples of flat objects of strict JSON, read once.
//!
//! As the gate's ([`strict`]) it leaves to the scanner whatever is lenient, escaped, nested,
//! doubled or broken, so the two cannot disagree on more than speed. A property test holds them
//! together.

use std::borrow::Cow;

use super::error::PayloadError;
use super::number;
use super::payload::{scan_checked, utf8};
use super::sample::{Sample, ScanOptions, Value};
use super::strict;

/// Keys of an object that are told apart here; objects with more go to the scanner.
const KEYS_MAX: usize = 24;

/// Longest `ts` in digits that cannot leave 64 bits.
const TS_DIGITS_MAX: usize = 18;

/// Adds the samples of a payload that was checked before, as those in the journal were; what was
/// added before an error is taken away again.
///
/// # Errors
/// Those of [`check`](super::check).
pub(super) fn scan_into<'a>(
    payload: &'a [u8],
    options: ScanOptions,
    received_ms: u64,
    samples: &mut Vec<Sample<'a>>,
) -> Result<(), PayloadError> {
    let before = samples.len();
    let received = i64::try_from(received_ms).unwrap_or(i64::MAX);
    if self::samples(utf8(payload)?, options, received, samples).is_some() {
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
    samples: &mut Vec<Sample<'a>>,
) -> Option<()> {
    let (ts_ms, members) = match text.strip_prefix("{\"ts\":") {
        None => (received_ms, text),
        Some(behind) => {
            let behind = behind.strip_prefix(' ').unwrap_or(behind);
            let (digits, behind) = behind.split_once(',')?;
            if digits.len() > TS_DIGITS_MAX || strict::number(digits.as_bytes())? != (true, &[]) {
                return None;
            }
            let behind = behind.strip_prefix(' ').unwrap_or(behind);
            let behind = behind.strip_prefix("\"values\":")?;
            let behind = behind.strip_prefix(' ').unwrap_or(behind);
            (digits.parse().ok()?, behind.strip_suffix('}')?)
        }
    };
    let is_outer = members.len() == text.len();
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
    rest.is_empty().then_some(())
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
    // Where a part of the rest stands in the text: the text can be cut there, as ends are quotes.
    let part = |behind: &[u8], len: usize| {
        let start = text.len().checked_sub(behind.len())?;
        text.get(start..start + len)
    };
    for count in 0..KEYS_MAX {
        let (key, hash, behind) = strict::string(rest)?;
        let (known, free) = hashes.split_at_mut_checked(count)?;
        if known.contains(&hash) {
            return None; // doubled, or two keys that look so
        }
        *free.first_mut()? = hash;
        let key = part(rest.get(1..)?, key.len())?;
        rest = strict::skip_blank(behind.strip_prefix(b":")?);
        let value = match rest.first()? {
            b'"' => {
                let (string, _, behind) = strict::string(rest)?;
                let string = part(rest.get(1..)?, string.len())?;
                rest = behind;
                Some(if options.cast_strings && number::is_castable(string) {
                    number::number(string)
                } else {
                    Value::Text(Cow::Borrowed(string))
                })
            }
            b'-' | b'0'..=b'9' => {
                let (_, behind) = strict::number(rest)?;
                let number = part(rest, rest.len() - behind.len())?;
                rest = behind;
                Some(number::short(number).unwrap_or_else(|| number::number(number)))
            }
            b'n' => {
                rest = rest.strip_prefix(b"null")?;
                None
            }
            b't' => {
                rest = rest.strip_prefix(b"true")?;
                Some(Value::Bool(true))
            }
            b'f' => {
                rest = rest.strip_prefix(b"false")?;
                Some(Value::Bool(false))
            }
            _ => return None,
        };
        if let Some(value) = value {
            visit(key, value)?;
        } else if matches!(key, "ts" | "values") {
            return None;
        }
        match rest.split_first()? {
            (b',', behind) => rest = strict::skip_blank(behind),
            (b'}', behind) => return Some(behind),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the quick way says, and what the scanner says.
    fn both(
        text: &str,
        options: ScanOptions,
    ) -> (Option<Vec<Sample<'_>>>, Option<Vec<Sample<'_>>>) {
        let mut quick = Vec::new();
        let is_simple = samples(text, options, 5, &mut quick).is_some();
        let mut scanned = Vec::new();
        let result = scan_checked(text.as_bytes(), options, 5, |sample| scanned.push(sample));
        (
            is_simple.then_some(quick),
            result.is_ok().then_some(scanned),
        )
    }

    #[test]
    fn payloads_as_devices_send_them_are_simple() {
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
            let (quick, scanned) = both(text, ScanOptions::default());
            assert!(quick.is_some(), "{text}");
            assert_eq!(quick, scanned, "{text}");
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
            text in payload(),
            cast_strings in any::<bool>(),
        ) {
            let options = ScanOptions { cast_strings, ..ScanOptions::default() };
            let (quick, scanned) = both(&text, options);
            if quick.is_some() {
                prop_assert_eq!(format!("{:?}", quick), format!("{:?}", scanned));
            }
        }
    }
}
