//! Points in time as people write and read them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Reads a point in time: RFC 3339, milliseconds since the epoch, `now`, or how long ago (`10m`).
///
/// # Errors
/// In words, for the parser of arguments.
pub(super) fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    if text == "now" {
        return Ok(now_ms);
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    if let Ok(ago_ms) = parse_length(text) {
        return Ok(now_ms.saturating_sub(ago_ms));
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| {
            "allowed is RFC 3339 (2026-01-31T12:00:00Z), milliseconds since the epoch, now, or how \
             long ago (30s, 10m, 1h, 7d)"
                .to_owned()
        })
        .and_then(|moment| {
            i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).map_err(|_| too_far())
        })
}

/// Reads a point in time that lies ahead: RFC 3339, milliseconds since the epoch, `now`, or how far
/// from now (`90d`).
///
/// # Errors
/// In words, for the parser of arguments.
pub(super) fn parse_ahead(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(length_ms) = parse_length(text) {
        return now_ms.checked_add(length_ms).ok_or_else(too_far);
    }
    parse(text, now_ms).map_err(|_| {
        "allowed is RFC 3339 (2027-01-31T12:00:00Z), milliseconds since the epoch, or how far from \
         now (12h, 90d)"
            .to_owned()
    })
}

/// Reads a length of time: `500ms`, `30s`, `10m`, `1h`, `7d`, `2w`; in milliseconds.
///
/// # Errors
/// In words, for the parser of arguments.
pub(super) fn parse_length(text: &str) -> Result<i64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let unit_ms: i64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return Err(LENGTH.to_owned()),
    };
    let number: i64 = number.parse().map_err(|_| LENGTH.to_owned())?;
    number.checked_mul(unit_ms).ok_or_else(too_far)
}

/// Writes a point in time as RFC 3339 in UTC with milliseconds.
pub(super) fn show(ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|moment| {
            let whole = moment.format(&Rfc3339).ok()?; // no fraction when it is zero
            let seconds = whole.get(..19)?;
            Some(format!("{seconds}.{:03}Z", moment.millisecond()))
        })
        .unwrap_or_else(|| format!("{ms} ms"))
}

/// The same for the registry's times, which are never negative.
pub(super) fn show_unsigned(ms: u64) -> String {
    i64::try_from(ms).map_or_else(|_| format!("{ms} ms"), show)
}

/// The wall clock, milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn too_far() -> String {
    "this is too far away".to_owned()
}

const LENGTH: &str = "allowed is a number with ms, s, m, h, d or w, as in 10m";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_769_860_800_000;

    #[test]
    fn a_moment_is_rfc_3339_milliseconds_or_how_long_ago() {
        assert_eq!(parse("2026-01-31T12:00:00Z", 0), Ok(NOW));
        assert_eq!(parse("2026-01-31T13:00:00.250+01:00", 0), Ok(NOW + 250));
        assert_eq!(parse("1769860800000", 0), Ok(NOW));
        assert_eq!(parse("-5", 0), Ok(-5));
        assert_eq!(parse("now", NOW), Ok(NOW));
        assert_eq!(parse("10m", NOW), Ok(NOW - 600_000));
        assert_eq!(parse("7d", NOW), Ok(NOW - 604_800_000));
    }

    #[test]
    fn a_moment_ahead_counts_from_now() {
        assert_eq!(parse_ahead("7d", NOW), Ok(NOW + 604_800_000));
        assert_eq!(parse_ahead("now", NOW), Ok(NOW));
        assert_eq!(parse_ahead("2026-01-31T12:00:00Z", 0), Ok(NOW));
        assert_eq!(parse_ahead("1769860800000", 0), Ok(NOW));
        assert!(parse_ahead("9223372036854775807ms", NOW).is_err());
        let error = parse_ahead("tomorrow", NOW).unwrap_err();
        assert!(error.contains("how far from now"), "{error}");
    }

    #[test]
    fn what_is_no_moment_is_refused_with_the_forms_that_are() {
        for text in ["", "m", "yesterday", "2026-01-31", "1x", "-1h", "1.5h"] {
            let error = parse(text, NOW).unwrap_err();
            assert!(error.contains("RFC 3339"), "{text:?}: {error}");
        }
        assert!(parse_length("9223372036854775807w").is_err());
        assert!(parse_length("99999999999999999999s").is_err());
    }

    #[test]
    fn a_moment_is_shown_in_utc_with_milliseconds() {
        assert_eq!(show(NOW), "2026-01-31T12:00:00.000Z");
        assert_eq!(show(NOW + 7), "2026-01-31T12:00:00.007Z");
        assert_eq!(show(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(show(i64::MAX), "9223372036854775807 ms");
        assert_eq!(show_unsigned(u64::MAX), "18446744073709551615 ms");
    }
}
