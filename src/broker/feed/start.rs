//! Where a feed starts, as a client says it and as it is kept.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::journal::{Entry, Journal, JournalError, Offset};

/// Numbers from here on are milliseconds since the Unix epoch (1973 and later), below it offsets:
/// a broker that stores a million messages a second gets there in 27 hours, so larger offsets are
/// written with `offset:` before them.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// Marks a time in the number that is kept.
const TIME_BIT: u64 = 1 << 63;

/// The user property of SUBSCRIBE that says where to start.
pub const START_PROPERTY: &str = "start";

/// Where a new feed starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With this record, or the oldest kept if that is later.
    Offset(u64),
    /// With the first record received at this time (ms) or later.
    Time(u64),
}

impl Start {
    /// Reads `earliest`, an offset, `offset:` and an offset, milliseconds since the epoch, or
    /// RFC 3339. `None` if it is none of these.
    #[must_use]
    pub fn parse(text: &str) -> Option<Start> {
        if text == "earliest" {
            return Some(Start::Offset(1));
        }
        if let Some(offset) = text.strip_prefix("offset:") {
            return number(offset).map(Start::Offset);
        }
        if let Some(number) = number(text) {
            return Some(if number < MILLISECONDS_FROM {
                Start::Offset(number)
            } else {
                Start::Time(number)
            });
        }
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()?;
        (ms < TIME_BIT).then_some(Start::Time(ms))
    }

    /// What the name of a share group says behind its `@`; `None` without one.
    ///
    /// # Errors
    /// The part behind `@` is no start.
    pub fn of_group(name: &str) -> Result<Option<Start>, NotAStart> {
        match name.rsplit_once('@') {
            None => Ok(None),
            Some((_, start)) => Start::parse(start).map(Some).ok_or(NotAStart),
        }
    }

    /// As a number that is never 0.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Start::Offset(offset) => offset.clamp(1, TIME_BIT - 1),
            Start::Time(ms) => ms | TIME_BIT,
        }
    }

    /// The start with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Start {
        if number & TIME_BIT == 0 {
            Start::Offset(number)
        } else {
            Start::Time(number ^ TIME_BIT)
        }
    }

    /// The first record to read, and the time (ms) before which records are left out, up to the
    /// first that is not.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn resolve(self, journal: &Journal) -> Result<(u64, u64), JournalError> {
        match self {
            Start::Offset(offset) => Ok((offset.max(journal.first().number()), 0)),
            Start::Time(ms) => Ok((segment_before(journal, ms)?, ms)),
        }
    }
}

/// The text behind `@` in a group's name is no start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAStart;

/// The start of the last segment that begins before this time: what was received then or later
/// comes behind it, as long as the clock did not go back by more than a segment lasts.
fn segment_before(journal: &Journal, ms: u64) -> Result<u64, JournalError> {
    let firsts = journal.segment_starts();
    let (mut low, mut high) = (0, firsts.len());
    while low + 1 < high {
        let middle = low.midpoint(high);
        let Some(first) = firsts.get(middle) else {
            break;
        };
        if received_ms(journal, *first)?.is_some_and(|received| received < ms) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(firsts.get(low).map_or(1, |first| first.number()))
}

fn received_ms(journal: &Journal, at: Offset) -> Result<Option<u64>, JournalError> {
    let mut reader = journal.reader(at);
    Ok(match reader.next()? {
        Some(Entry::Batch(batch)) => batch.iter().next().map(|record| record.header.received_ms),
        _ => None,
    })
}

fn number(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_digits)?;
    (number < TIME_BIT).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_earliest_an_offset_or_a_time() {
        for (text, start) in [
            ("earliest", Start::Offset(1)),
            ("0", Start::Offset(0)),
            ("17", Start::Offset(17)),
            ("offset:1769860800000", Start::Offset(1_769_860_800_000)),
            ("1769860800000", Start::Time(1_769_860_800_000)),
            ("2026-01-31T12:00:00Z", Start::Time(1_769_860_800_000)),
        ] {
            assert_eq!(Start::parse(text), Some(start), "{text}");
            if start != Start::Offset(0) {
                assert_eq!(Start::from_number(start.number()), start);
            }
        }
        let far = "9223372036854775808";
        for text in ["", "now", "-1", "+5", "1x", "offset:", "2026-01-31", far] {
            assert_eq!(Start::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_group_says_its_start_behind_the_last_at() {
        assert_eq!(Start::of_group("g"), Ok(None));
        assert_eq!(Start::of_group("g@x@5"), Ok(Some(Start::Offset(5))));
        assert_eq!(Start::of_group("me@example"), Err(NotAStart));
    }
}
