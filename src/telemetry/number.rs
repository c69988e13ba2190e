//! Numbers by the rules of TB-22.

use std::borrow::Cow;

use super::sample::Value;

/// Most digits behind the decimal point that are still stored as a double.
const FRACTION_DIGITS_MAX: i64 = 16;

/// The value of a number as it is written: `-` at most once, digits, at most one `.`, and perhaps
/// an exponent. What fits neither 64-bit integer nor double keeps its text.
pub(super) fn number(text: &str) -> Value<'_> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let Some(exponent) = exponent else {
        return match mantissa.split_once('.') {
            // `25.0` is a double although it is whole: the device says that it measures fractions.
            Some((_, fraction)) => double_or_text(text, len_i64(fraction)),
            None => text
                .parse()
                .map_or(Value::Text(Cow::Borrowed(text)), Value::Long),
        };
    };
    let (negative, unsigned) = mantissa
        .strip_prefix('-')
        .map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole
        .bytes()
        .chain(fraction.bytes())
        .all(|digit| digit == b'0')
    {
        return Value::Long(0);
    }
    let scale = len_i64(fraction).saturating_sub(exponent_value(exponent));
    let fraction_zeros = trailing_zeros(fraction);
    let zeros = if fraction_zeros == fraction.len() {
        fraction_zeros + trailing_zeros(whole)
    } else {
        fraction_zeros
    };
    let scale_stripped = scale.saturating_sub(i64::try_from(zeros).unwrap_or(i64::MAX));
    if scale_stripped > 0 {
        return double_or_text(text, scale);
    }
    let digits = whole.bytes().chain(fraction.bytes());
    let significant = whole.len() + fraction.len() - zeros;
    match integer(digits.take(significant), scale_stripped, negative) {
        Some(value) => Value::Long(value),
        None => Value::Text(Cow::Borrowed(text)),
    }
}

/// A number that was read quickly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Short {
    Long(i64),
    Double(f64),
}

/// The same as [`number`] for a strict number of few digits without exponent that a text begins
/// with, quickly, and what follows it. `None` for others, and for what is no number.
#[inline]
pub(super) fn leading(text: &[u8]) -> Option<(Short, &[u8])> {
    let is_negative = text.first() == Some(&b'-');
    let begin = usize::from(is_negative);
    let (whole, point) = more_digits(text, begin, 0);
    let count = point - begin;
    if count == 0 || count > SHORT_DIGITS_MAX || count > 1 && text.get(begin) == Some(&b'0') {
        return None;
    }
    match text.get(point) {
        Some(b'.') => {}
        Some(b'e' | b'E') => return None,
        _ => {
            let value = if is_negative { -whole } else { whole };
            return Some((Short::Long(value), text.get(point..)?));
        }
    }
    let (digits, end) = more_digits(text, point + 1, whole);
    let places = end - point - 1;
    let is_long = count + places > SHORT_DIGITS_MAX;
    if places == 0 || is_long || matches!(text.get(end), Some(b'e' | b'E')) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "below 10^15 nothing is lost")]
    let value = digits as f64 / POWERS.get(places)?;
    // A decimal number knows no negative zero.
    let value = if is_negative { 0.0 - value } else { value };
    Some((Short::Double(value), text.get(end..)?))
}

/// Digits of numbers that are read quickly. Below 10^15 every whole number is a double, and so is
/// every power of ten below 10^22: their quotient is rounded once, as the text itself would be.
const SHORT_DIGITS_MAX: usize = 15;

/// A number with the digits of a text behind its own, and where those end. Garbage beyond 18.
#[inline]
fn more_digits(text: &[u8], begin: usize, mut number: i64) -> (i64, usize) {
    let mut at = begin;
    while let Some(byte) = text.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
        at += 1;
    }
    (number, at)
}

/// Powers of ten.
const POWERS: [f64; 16] = [
    1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Whether a string reads as a number: an optional `-`, digits and at most one point that is not
/// the last character. An exponent, a `+` and blanks make it a string, as in the reference.
pub(super) fn is_castable(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let mut points = 0;
    for byte in unsigned.bytes() {
        match byte {
            b'0'..=b'9' => {}
            b'.' if points == 0 => points = 1,
            _ => return false,
        }
    }
    !unsigned.is_empty() && !unsigned.ends_with('.')
}

/// Whether the text is a number of strict JSON.
pub(super) fn is_number(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, rest) = digits(unsigned);
    if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
        return false;
    }
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => match digits(fraction) {
            ([], _) => return false,
            (_, rest) => rest,
        },
    };
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => {
            let exponent = match exponent.split_first() {
                Some((b'+' | b'-', unsigned)) => unsigned,
                _ => exponent,
            };
            matches!(digits(exponent), ([_, ..], []))
        }
        Some(_) => false,
    }
}

/// Milliseconds of a `ts` that is written as a number; a fraction of a millisecond is cut off.
/// `None` if it does not fit 64 bits.
pub(super) fn whole_part(text: &str) -> Option<i64> {
    if !text.contains(['e', 'E']) {
        return text.split('.').next()?.parse().ok();
    }
    match number(text) {
        Value::Long(value) => Some(value),
        Value::Double(value) if value.abs() < 9.0e18 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "in range; the fraction is cut"
            )]
            let whole = value.trunc() as i64;
            Some(whole)
        }
        _ => None,
    }
}

/// The leading digits, and what follows them.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn double_or_text(text: &str, scale: i64) -> Value<'_> {
    if scale <= FRACTION_DIGITS_MAX
        && let Ok(value) = text.parse::<f64>()
        && value.is_finite()
    {
        // A decimal number knows no negative zero; adding zero takes the sign off.
        return Value::Double(value + 0.0);
    }
    Value::Text(Cow::Borrowed(text))
}

/// `digits` times ten to the power of minus `scale` (not above 0), if that fits.
fn integer(digits: impl Iterator<Item = u8>, scale: i64, negative: bool) -> Option<i64> {
    // Built up below zero, as there is one more negative than positive number.
    let mut value: i64 = 0;
    for digit in digits {
        value = value
            .checked_mul(10)?
            .checked_sub(i64::from(digit.wrapping_sub(b'0')))?;
    }
    let power = u32::try_from(scale.checked_neg()?).ok()?;
    value = value.checked_mul(10_i64.checked_pow(power)?)?;
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// The exponent's value; one beyond 64 bits counts as the greatest of its sign, which is beyond
/// every length a payload can have as well.
fn exponent_value(text: &str) -> i64 {
    let limit = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    text.parse().unwrap_or(limit)
}

fn trailing_zeros(digits: &str) -> usize {
    digits.len() - digits.trim_end_matches('0').len()
}

fn len_i64(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}
