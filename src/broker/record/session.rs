//! A session: the body of `SessionBegin` and `SessionChange`; and how far its feed is settled.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | session expiry in seconds |
//! | 2 + n | client id: length, UTF-8 |
//! | 2 | number of subscriptions |
//! | each 1 | options as in SUBSCRIBE, below 64; 64: an id follows; 128: a start follows |
//! | 2 + n | filter: length, UTF-8 |
//! | with 64: 4 | subscription id, not 0 |
//! | with 128: 8 | start of its feed (`feed::Start::number`), not 0 |
//!
//! Version 0.1.0 wrote the QoS alone where the options are, and where one subscription was a feed,
//! the starts of all behind the last, in their order, 8 bytes each, 0 for no feed: that is read.
//!
//! `FeedProgress` says how far a session's feed is settled: 8 bytes with the offset, then the
//! filter of the subscription.
//!
//! `SessionBegin` starts a session without unfinished QoS 2 ids, queue and will; `SessionChange`
//! replaces all of the above and keeps those; `SessionEnd` has no body. Ids are not repeated here:
//! the records of the messages and of their releases are the truth about them.

use super::bytes::{put_text, take_text, take_u8, take_u16, take_u32, take_u64};
use crate::journal::RECORD_BODY_BYTES_MAX;
use crate::limits::{FILTERS_BYTES_MAX, SUBSCRIPTIONS_PER_SESSION_MAX};
use crate::mqtt::session::{Subscribed, SubscriptionSet};
use crate::mqtt::wire::{QoS, RetainHandling, SubscriptionOptions};

/// Bytes of one subscription beside its filter, at most.
pub const SUBSCRIPTION_BYTES: usize = 1 + 2 + 4 + 8;

// A session is one record: its filters, its client id, expiry and number.
const _: () = assert!(
    FILTERS_BYTES_MAX + SUBSCRIPTIONS_PER_SESSION_MAX * SUBSCRIPTION_BYTES + u16::MAX as usize + 8
        <= RECORD_BODY_BYTES_MAX
);

const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
const RETAIN_HANDLING_SHIFT: u32 = 4;
const OPTIONS: u8 = 0b11_1111;
const WITH_ID: u8 = 64;
const WITH_START: u8 = 128;

/// What a session record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBody {
    /// Seconds the session outlives its connection.
    pub expiry_s: u32,
    /// Client id, empty where an identity has one session only.
    pub client_id: Box<str>,
    /// Granted subscriptions.
    pub subscriptions: SubscriptionSet,
}

/// Writes the body behind what `out` holds.
pub fn encode(expiry_s: u32, client_id: &str, subscriptions: &SubscriptionSet, out: &mut Vec<u8>) {
    out.extend_from_slice(&expiry_s.to_le_bytes());
    put_text(out, client_id);
    let count = u16::try_from(subscriptions.len()).expect("SUBSCRIPTIONS_MAX is far below 65,536");
    out.extend_from_slice(&count.to_le_bytes());
    for subscribed in subscriptions {
        let id = subscribed.id.unwrap_or(0);
        let has_start = subscribed.start != 0;
        let marks = (u8::from(id != 0) * WITH_ID) | (u8::from(has_start) * WITH_START);
        out.push(options_to_u8(subscribed.options) | marks);
        put_text(out, &subscribed.filter);
        if id != 0 {
            out.extend_from_slice(&id.to_le_bytes());
        }
        if subscribed.start != 0 {
            out.extend_from_slice(&subscribed.start.to_le_bytes());
        }
    }
}

/// Options as SUBSCRIBE has them: one byte, below 64.
#[must_use]
pub fn options_to_u8(options: SubscriptionOptions) -> u8 {
    options.qos.as_u8()
        | (u8::from(options.no_local) * NO_LOCAL)
        | (u8::from(options.retain_as_published) * RETAIN_AS_PUBLISHED)
        | ((options.retain_handling as u8) << RETAIN_HANDLING_SHIFT)
}

/// What [`options_to_u8`] wrote; `None` for anything else.
#[must_use]
pub fn options_from_u8(byte: u8) -> Option<SubscriptionOptions> {
    Some(SubscriptionOptions {
        qos: QoS::from_u8(byte & 0b11)?,
        no_local: byte & NO_LOCAL != 0,
        retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
        retain_handling: match byte >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    })
}

/// Writes the body of `FeedProgress` behind what `out` holds.
pub fn encode_progress(settled: u64, filter: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&settled.to_le_bytes());
    out.extend_from_slice(filter.as_bytes());
}

/// Reads the body of `FeedProgress`: offset and filter. `None` if it is not one.
#[must_use]
pub fn decode_progress(mut body: &[u8]) -> Option<(u64, &str)> {
    let settled = take_u64(&mut body)?;
    Some((settled, std::str::from_utf8(body).ok()?))
}

/// Reads a body; `None` if it is not one.
#[must_use]
pub fn decode(mut body: &[u8]) -> Option<SessionBody> {
    let expiry_s = take_u32(&mut body)?;
    let client_id = take_text(&mut body)?.into();
    let count = take_u16(&mut body)?;
    let mut listed = Vec::with_capacity(usize::from(count.min(1_000)));
    for _ in 0..count {
        listed.push(subscribed(&mut body)?);
    }
    if !body.is_empty() {
        // As version 0.1.0 wrote feeds: it knew no marks.
        for subscribed in &mut listed {
            subscribed.start = take_u64(&mut body).filter(|_| subscribed.start == 0)?;
        }
    }
    body.is_empty().then(|| SessionBody {
        expiry_s,
        client_id,
        subscriptions: listed.into_iter().collect(),
    })
}

fn subscribed(body: &mut &[u8]) -> Option<Subscribed> {
    let marks = take_u8(body)?;
    let options = options_from_u8(marks & OPTIONS)?;
    let filter = take_text(body)?.into();
    let id = match marks & WITH_ID {
        0 => None,
        _ => Some(take_u32(body).filter(|id| *id != 0)?),
    };
    let start = match marks & WITH_START {
        0 => 0,
        _ => take_u64(body).filter(|start| *start != 0)?,
    };
    Some(Subscribed {
        filter,
        options,
        id,
        start,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(filter: &str, options: u8, id: Option<u32>, start: u64) -> Subscribed {
        Subscribed {
            filter: filter.into(),
            options: options_from_u8(options).expect("options"),
            id,
            start,
        }
    }

    fn body() -> SessionBody {
        SessionBody {
            expiry_s: 3_600,
            client_id: "pump-7".into(),
            subscriptions: [
                subscribed("v1/devices/me/attributes", 1, None, 0),
                subscribed("v1/devices/me/rpc/request/+", 0, None, 0),
            ]
            .into_iter()
            .collect(),
        }
    }

    fn with_everything() -> SessionBody {
        let mut body = body();
        for more in [
            subscribed("v1/devices/+/telemetry", 1, None, 1 << 63 | 5),
            subscribed("a/#", 0b10_1110, Some(268_435_455), 0),
            subscribed("b/#", 2, Some(1), 7),
        ] {
            body.subscriptions.insert(more);
        }
        body
    }

    fn bytes(body: &SessionBody) -> Vec<u8> {
        let mut out = Vec::new();
        encode(
            body.expiry_s,
            &body.client_id,
            &body.subscriptions,
            &mut out,
        );
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        for body in [body(), with_everything()] {
            assert_eq!(decode(&bytes(&body)), Some(body));
        }
        for byte in 0..=u8::MAX {
            let read = options_from_u8(byte);
            let is_one = byte & 3 != 3 && byte >> 4 < 3;
            assert_eq!(read.map(options_to_u8), is_one.then_some(byte), "{byte}");
        }
    }

    /// Version 0.1.0: QoS alone, and the starts behind everything.
    #[test]
    fn rel_10_the_body_of_an_older_version_is_read() {
        let old = |starts: &[u64]| {
            let mut out = vec![60, 0, 0, 0, 1, 0, b'x', 2, 0];
            out.extend_from_slice(&[1, 1, 0, b'a', 0, 1, 0, b'b']);
            out.extend(starts.iter().flat_map(|start| start.to_le_bytes()));
            out
        };
        let read = |starts: [u64; 2]| SessionBody {
            expiry_s: 60,
            client_id: "x".into(),
            subscriptions: [
                subscribed("a", 1, None, starts[0]),
                subscribed("b", 0, None, starts[1]),
            ]
            .into_iter()
            .collect(),
        };
        assert_eq!(decode(&old(&[])), Some(read([0, 0])));
        assert_eq!(decode(&old(&[0, 9])), Some(read([0, 9])));
        assert_eq!(decode(&old(&[9])), None);
        assert_eq!(decode(&old(&[1, 2, 3])), None);
    }

    #[test]
    fn a_feed_says_how_far_it_is_settled() {
        let mut progress = Vec::new();
        encode_progress(9, "a/+", &mut progress);
        assert_eq!(decode_progress(&progress), Some((9, "a/+")));
        assert_eq!(decode_progress(&progress[..7]), None);
    }

    #[test]
    fn a_cut_or_padded_body_is_none() {
        for body in [body(), with_everything()] {
            let whole = bytes(&body);
            for cut in 0..whole.len() {
                assert_eq!(decode(&whole[..cut]), None, "cut at {cut}");
            }
            let mut padded = whole;
            padded.push(0);
            assert_eq!(decode(&padded), None);
        }
    }
}
