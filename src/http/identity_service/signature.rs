//! HMAC-SHA256 signatures of requests (section 5 of the specification): what is signed, how it is
//! checked, and how our own command line signs.
//!
//! Signed are the method, the raw request target and the values of the headers that the request
//! names, the raw Host among them: nothing is decoded or rewritten before. A client whose endpoint
//! ends with a slash signs Host with that slash; both are tried.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Method, Uri, header};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::identity::{AccessKeyText, base64, content_hash};

/// How far a request's date may be from ours, in either direction.
const DATE_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// Headers that one signature may cover.
const SIGNED_HEADERS_MAX: usize = 16;

const SCHEME: &str = "HMAC-SHA256";
const HOST: &str = "host";
const CONTENT_HASH: &str = "x-ms-content-sha256";
const DATES: [&str; 2] = ["x-ms-date", "date"];

/// `Sat, 21 Nov 2026 20:34:35 GMT`.
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// A request whose head is signed; its body must have this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The version of the access key.
    pub access_key: u32,
    /// SHA-256 of the body, in base 64.
    pub content_hash: String,
}

/// What of a request is signed, taken apart.
struct Claim<'r> {
    /// Up to the header values.
    target: String,
    /// Name and value, in the order of signing.
    values: Vec<(&'r str, &'r str)>,
    signature: Vec<u8>,
}

impl Signed {
    /// Checks the head of a request. `verify` says which access key signed a text.
    ///
    /// # Errors
    /// What is wrong, for the log: the client is told nothing of it.
    pub(super) fn verify(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        now: SystemTime,
        verify: impl Fn(&str, &[u8]) -> Option<u32>,
    ) -> Result<Signed, &'static str> {
        let claim = Claim::read(method, uri, headers)?;
        let dated = claim.value(DATES[0]).or_else(|| claim.value(DATES[1]));
        let date = parse_date(dated.ok_or("the signature does not cover a date")?);
        if !is_near(date.ok_or("the date cannot be read")?, now) {
            return Err("the date is too far from ours");
        }
        let content_hash = claim.value(CONTENT_HASH);
        let content_hash = content_hash.ok_or("the signature does not cover the body's hash")?;
        claim
            .value(HOST)
            .ok_or("the signature does not cover Host")?;
        let access_key = verify(&claim.text(""), &claim.signature)
            .or_else(|| verify(&claim.text("/"), &claim.signature))
            .ok_or("the signature is of no access key in use")?;
        Ok(Signed {
            access_key,
            content_hash: content_hash.to_owned(),
        })
    }
}

impl<'r> Claim<'r> {
    fn read(method: &Method, uri: &Uri, headers: &'r HeaderMap) -> Result<Self, &'static str> {
        let authorization = one(headers, header::AUTHORIZATION.as_str())?;
        let (scheme, rest) = authorization.split_once(' ').ok_or(NOT_SIGNED)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(NOT_SIGNED);
        }
        let (names, signature) = rest.trim().split_once('&').ok_or(NOT_SIGNED)?;
        let names = names.strip_prefix("SignedHeaders=").ok_or(NOT_SIGNED)?;
        let signature = signature.strip_prefix("Signature=").ok_or(NOT_SIGNED)?;
        let signature = base64::decode(signature).ok_or("the signature is not base 64")?;
        let mut values = Vec::new();
        for name in names.split(';') {
            if values.len() == SIGNED_HEADERS_MAX {
                return Err("the signature covers too many headers");
            }
            values.push((name, one(headers, name)?));
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Claim {
            target: format!("{method}\n{target}\n"),
            values,
            signature,
        })
    }

    fn value(&self, wanted: &str) -> Option<&'r str> {
        let mut values = self.values.iter();
        let found = values.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value)
    }

    /// The text that was signed, if Host was signed with this behind it.
    fn text(&self, behind_host: &str) -> String {
        let mut text = self.target.clone();
        for (place, (name, value)) in self.values.iter().enumerate() {
            if place > 0 {
                text.push(';');
            }
            text.push_str(value);
            if name.eq_ignore_ascii_case(HOST) {
                text.push_str(behind_host);
            }
        }
        text
    }
}

const NOT_SIGNED: &str = "the header Authorization is no signature";

/// The value of a header that is there exactly once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, &'static str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("a header that must be there once is not, or is there twice");
    };
    value.to_str().map_err(|_| "a header is no plain text")
}

fn parse_date(text: &str) -> Option<SystemTime> {
    let date = PrimitiveDateTime::parse(text, DATE).ok()?;
    Some(date.assume_utc().into())
}

fn is_near(date: SystemTime, now: SystemTime) -> bool {
    let apart = now
        .duration_since(date)
        .unwrap_or_else(|earlier| earlier.duration());
    apart <= DATE_SKEW_MAX
}

/// The headers with which a request is signed, each with its value: what our own command line
/// sends beside Host. `target` is path and query as they go over the wire.
#[must_use]
pub fn signed_headers(
    key: &AccessKeyText,
    method: &str,
    host: &str,
    target: &str,
    body: &[u8],
    now: SystemTime,
) -> [(&'static str, String); 3] {
    let date = OffsetDateTime::from(now).format(DATE).unwrap_or_default();
    let hash = content_hash(body);
    let text = format!("{method}\n{target}\n{date};{host};{hash}");
    let signature = key.sign(&text);
    let covered = format!("{};{HOST};{CONTENT_HASH}", DATES[0]);
    let authorization = format!("{SCHEME} SignedHeaders={covered}&Signature={signature}");
    [
        (DATES[0], date),
        (CONTENT_HASH, hash),
        ("authorization", authorization),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const DATE_TEXT: &str = "Sat, 21 Nov 2026 20:34:35 GMT";
    const EMPTY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const SCOPES: &str = "sZHRO4JkAmw3HcI1PyxrC5twHvkHIWjyMLVIkauXKRA=";
    const CREATE: &str = "/identities?api-version=2023-10-01";
    const ISSUE: &str = "/identities/8%3Aacs%3A00000000-0000-0000-0000-000000000001_\
        00000006-19e0-2727-80f5-8b3a0d003502/:issueAccessToken?api-version=2023-10-01";

    fn verify(text: &str, signature: &[u8]) -> Option<u32> {
        let key = AccessKeyText::parse(KEY).unwrap();
        (key.sign(text) == base64::encode(signature)).then_some(3)
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn checked(
        target: &str,
        pairs: &[(&str, &str)],
        minutes_later: i64,
    ) -> Result<Signed, &'static str> {
        let date = parse_date(DATE_TEXT).unwrap();
        let apart = Duration::from_secs(minutes_later.unsigned_abs() * 60);
        let now = if minutes_later < 0 {
            date - apart
        } else {
            date + apart
        };
        let uri: Uri = target.parse().unwrap();
        Signed::verify(&Method::POST, &uri, &headers(pairs), now, verify)
    }

    fn authorization(signature: &str) -> String {
        format!(
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        )
    }

    /// The three golden vectors of section 5.3. In the second one Host was signed with a slash,
    /// and came without (ID-23).
    const VECTORS: [(&str, &str, &str); 3] = [
        (
            CREATE,
            EMPTY,
            "4MQsB33EsV7RJjHCjJMqchtju8xHjjLZGUqor5UoI18=",
        ),
        (
            CREATE,
            EMPTY,
            "yU6tvnN6gHGt4pneuudhlkPPYaHUR66gcO6HcjkbiQ8=",
        ),
        (
            ISSUE,
            SCOPES,
            "8qkg1dopOwgdw4bBk6fWwz9O7Qk+IYqMuLAcNlASrMQ=",
        ),
    ];

    #[test]
    fn id_20_the_golden_vectors_verify() {
        for (target, hash, signature) in VECTORS {
            let authorization = authorization(signature);
            let pairs = [
                ("host", "127.0.0.1:18081"),
                ("x-ms-date", DATE_TEXT),
                ("x-ms-content-sha256", hash),
                ("authorization", authorization.as_str()),
            ];
            let signed = checked(target, &pairs, 0).unwrap();
            assert_eq!((signed.access_key, signed.content_hash.as_str()), (3, hash));
        }
        assert_eq!(content_hash(b""), EMPTY);
        assert_eq!(content_hash(br#"{"scopes": ["chat"]}"#), SCOPES);
    }

    #[test]
    fn id_21_the_raw_target_and_host_are_signed() {
        let authorization = authorization(VECTORS[2].2);
        let with = |host, target: &str| {
            let pairs = [
                ("host", host),
                ("x-ms-date", DATE_TEXT),
                ("x-ms-content-sha256", SCOPES),
                ("authorization", authorization.as_str()),
            ];
            checked(target, &pairs, 0).is_ok()
        };
        let absolute = format!("http://127.0.0.1:18081{ISSUE}");
        assert!(with("127.0.0.1:18081", ISSUE) && with("127.0.0.1:18081", &absolute));
        // The same path, written in another way, is another request.
        assert!(!with("127.0.0.1:18081", &ISSUE.replace("%3A", ":")));
        assert!(!with("127.0.0.1:18081", &ISSUE.replace("%3A", "%3a")));
        for host in ["127.0.0.1", "localhost:18081", "127.0.0.1:18082"] {
            assert!(!with(host, ISSUE), "{host}");
        }
    }

    #[test]
    fn id_22_what_is_missing_wrong_or_old_is_refused() {
        let good = authorization(VECTORS[0].2);
        let all = [
            ("host", "127.0.0.1:18081"),
            ("x-ms-date", DATE_TEXT),
            ("x-ms-content-sha256", EMPTY),
            ("authorization", good.as_str()),
        ];
        for minutes in [-15, 0, 15] {
            assert!(checked(CREATE, &all, minutes).is_ok(), "{minutes}");
        }
        for minutes in [-16, 16, 60 * 24 * 365] {
            assert!(checked(CREATE, &all, minutes).is_err(), "{minutes}");
        }
        for missing in 0..all.len() {
            let mut rest = all.to_vec();
            let left_out = rest.remove(missing);
            assert!(checked(CREATE, &rest, 0).is_err(), "{left_out:?}");
            let twice = [&all[..], &[left_out]].concat();
            assert!(checked(CREATE, &twice, 0).is_err(), "{left_out:?} twice");
        }
        let with = |value: &str| {
            let mut changed = all;
            changed[3].1 = value;
            checked(CREATE, &changed, 0)
        };
        let parts = |names: &str| {
            with(&format!(
                "HMAC-SHA256 SignedHeaders={names}&Signature={}",
                VECTORS[0].2
            ))
        };
        assert!(with(&good.replace("HMAC-SHA256", "hmac-sha256")).is_ok());
        assert!(parts("X-MS-Date;Host;x-ms-content-sha256").is_ok());
        for names in [
            "",
            "host",
            "x-ms-date;host",
            "host;x-ms-content-sha256",
            "x-ms-date;x-ms-content-sha256",
            "host;x-ms-date;x-ms-content-sha256",
            &"host;".repeat(40),
        ] {
            assert!(parts(names).is_err(), "{names}");
        }
        for bad in [
            "",
            "Bearer x",
            "HMAC-SHA256",
            "HMAC-SHA256 Signature=x&SignedHeaders=host",
            &good[..good.len() - 1],
            &good.replace("4MQs", "5MQs"),
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        for date in [
            "yesterday",
            "2026-11-21T20:34:35Z",
            "Sun, 21 Nov 2026 20:34:35 GMT",
        ] {
            let mut changed = all;
            changed[1].1 = date;
            assert!(checked(CREATE, &changed, 0).is_err(), "{date}");
        }
    }

    #[test]
    fn what_our_command_line_signs_is_good_and_so_is_a_plain_date() {
        let now = parse_date(DATE_TEXT).unwrap();
        let key = AccessKeyText::parse(KEY).unwrap();
        let made = signed_headers(&key, "POST", "h:1", "/identities?a=b", b"x", now);
        let mut pairs: Vec<(&str, &str)> = vec![("host", "h:1")];
        pairs.extend(made.iter().map(|(name, value)| (*name, value.as_str())));
        assert!(checked("/identities?a=b", &pairs, 0).is_ok());
        // Some clients send `date`.
        let signature = key.sign(&format!("POST\n/x\n{DATE_TEXT};h:1;{EMPTY}"));
        let authorization = format!(
            "HMAC-SHA256 SignedHeaders=date;host;x-ms-content-sha256&Signature={signature}"
        );
        let pairs = [
            ("host", "h:1"),
            ("date", DATE_TEXT),
            ("x-ms-content-sha256", EMPTY),
            ("authorization", authorization.as_str()),
        ];
        assert!(checked("/x", &pairs, 0).is_ok());
    }
}
