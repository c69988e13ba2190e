//! The end of a certificate's life, read from its DER (RFC 5280, 4.1). rustls tells only whether
//! a certificate is good now; renewal needs to know how long it stays so.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use time::{Date, Month, PrimitiveDateTime, Time};

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From when on.
    pub(super) not_before: SystemTime,
    /// Until when.
    pub(super) not_after: SystemTime,
    /// The same; wall clock, ms.
    pub(super) not_after_ms: u64,
}

impl Validity {
    pub(super) fn holds_at(self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// When a certificate ends; `None` when its DER cannot be read that far.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    validity(certificate).map(|life| life.not_after)
}

/// When a certificate is good; `None` when its DER cannot be read that far.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?; // tbsCertificate
    let (tag, _, rest) = element(fields)?;
    if tag == VERSION {
        fields = rest;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, text, rest) = element(validity)?;
    let not_before = moment(tag, text)?;
    let (tag, text, _) = element(rest)?;
    let not_after = moment(tag, text)?;
    let since = not_after.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Validity {
        not_before,
        not_after,
        not_after_ms: u64::try_from(since.as_millis()).ok()?,
    })
}

/// `[0] EXPLICIT`, left out by version 1.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, rest) = bytes.split_at_checked(usize::from(first & 0x7f))?;
        length = 0;
        for &digit in digits {
            length = length.checked_mul(256)?.checked_add(usize::from(digit))?;
        }
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` (years from 1950 to 2049) or `YYYYMMDDhhmmssZ`.
fn moment(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time)
        .assume_utc()
        .unix_timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(moment(UTC_TIME, b"260131120000Z"), at(1_769_860_800));
        assert_eq!(
            moment(GENERALIZED_TIME, b"20500101000000Z"),
            at(2_524_608_000)
        );
        assert_eq!(moment(UTC_TIME, b"700101000000Z"), at(0));
        for wrong in [
            &b"261331120000Z"[..],
            b"260131120000",
            b"",
            b"26Z",
            b"\xffZ",
        ] {
            assert_eq!(moment(UTC_TIME, wrong), None);
        }
        assert_eq!(moment(0x02, b"260131120000Z"), None);
    }

    #[test]
    fn cut_or_wrong_der_has_no_end_and_no_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let made = params.self_signed(&key).unwrap();
        let whole = made.der().to_vec();
        assert!(not_after(&CertificateDer::from(whole.clone())).is_some());
        for end in 0..whole.len() {
            let mut cut = whole.clone();
            cut.truncate(end);
            assert_eq!(not_after(&CertificateDer::from(cut)), None);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let _ = not_after(&CertificateDer::from(flipped)); // whatever it says, it returns
        }
    }
}
