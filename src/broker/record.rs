//! How a session is written in the journal: the body of `SessionBegin` and `SessionChange`.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | session expiry in seconds, little endian |
//! | 2 + n | client id: length, UTF-8 |
//! | 2 | number of subscriptions |
//! | each 1 + 2 + n | granted QoS; filter: length, UTF-8 |
//!
//! Behind that, only where a subscription is a feed: for each subscription, in their order, 8 bytes
//! with its start (`feed::Start::number`, 0 for no feed).
//!
//! `FeedProgress` says how far a session's feed is settled: 8 bytes with the offset, little endian,
//! then the filter of the subscription.
//!
//! `SessionBegin` starts a session without unfinished QoS 2 ids; `SessionChange` replaces all of
//! the above and keeps the ids; `SessionEnd` has no body. Ids are not repeated here: the records
//! of the messages and of their releases are the truth about them.

use crate::mqtt::session::{Subscribed, SubscriptionSet};
use crate::mqtt::wire::{QoS, SubscriptionOptions};

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
    put(out, client_id);
    let count = u16::try_from(subscriptions.len()).expect("SUBSCRIPTIONS_MAX is far below 65,536");
    out.extend_from_slice(&count.to_le_bytes());
    for subscribed in subscriptions {
        out.push(subscribed.options.qos.as_u8());
        put(out, &subscribed.filter);
    }
    if subscriptions.iter().any(|subscribed| subscribed.start != 0) {
        for subscribed in subscriptions {
            out.extend_from_slice(&subscribed.start.to_le_bytes());
        }
    }
}

/// Writes the body of `FeedProgress` behind what `out` holds.
pub fn encode_progress(settled: u64, filter: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&settled.to_le_bytes());
    out.extend_from_slice(filter.as_bytes());
}

/// Reads the body of `FeedProgress`: offset and filter. `None` if it is not one.
#[must_use]
pub fn decode_progress(mut body: &[u8]) -> Option<(u64, &str)> {
    let settled = u64::from_le_bytes(take(&mut body)?);
    Some((settled, std::str::from_utf8(body).ok()?))
}

/// Reads a body; `None` if it is not one. The journal's checksum has been verified before, so
/// `None` means a record written by another version.
#[must_use]
pub fn decode(mut body: &[u8]) -> Option<SessionBody> {
    let expiry_s = u32::from_le_bytes(take(&mut body)?);
    let client_id = string(&mut body)?;
    let count = u16::from_le_bytes(take(&mut body)?);
    let mut listed = Vec::with_capacity(usize::from(count.min(1_000)));
    for _ in 0..count {
        let [qos] = take(&mut body)?;
        listed.push(Subscribed {
            filter: string(&mut body)?,
            options: SubscriptionOptions {
                qos: QoS::from_u8(qos)?,
                ..SubscriptionOptions::default()
            },
            id: None,
            start: 0,
        });
    }
    if !body.is_empty() {
        for subscribed in &mut listed {
            subscribed.start = u64::from_le_bytes(take(&mut body)?);
        }
    }
    let subscriptions = SubscriptionSet::from_iter(listed);
    body.is_empty().then_some(SessionBody {
        expiry_s,
        client_id,
        subscriptions,
    })
}

fn put(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("MQTT strings are at most 65,535 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*head)
}

fn string(body: &mut &[u8]) -> Option<Box<str>> {
    let len = usize::from(u16::from_le_bytes(take(body)?));
    let (text, rest) = body.split_at_checked(len)?;
    *body = rest;
    std::str::from_utf8(text).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qos(qos: QoS) -> SubscriptionOptions {
        SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        }
    }

    fn body() -> SessionBody {
        SessionBody {
            expiry_s: 3_600,
            client_id: "pump-7".into(),
            subscriptions: [
                Subscribed {
                    filter: "v1/devices/me/attributes".into(),
                    options: qos(QoS::AtLeastOnce),
                    id: None,
                    start: 0,
                },
                Subscribed {
                    filter: "v1/devices/me/rpc/request/+".into(),
                    options: qos(QoS::AtMostOnce),
                    id: None,
                    start: 0,
                },
            ]
            .into_iter()
            .collect(),
        }
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
        assert_eq!(decode(&bytes(&body())), Some(body()));
    }

    #[test]
    fn a_feed_keeps_its_start() {
        let mut body = body();
        body.subscriptions.insert(Subscribed {
            filter: "v1/devices/+/telemetry".into(),
            options: qos(QoS::AtLeastOnce),
            id: None,
            start: 1 << 63 | 5,
        });
        assert_eq!(decode(&bytes(&body)), Some(body));
        let mut progress = Vec::new();
        encode_progress(9, "a/+", &mut progress);
        assert_eq!(decode_progress(&progress), Some((9, "a/+")));
        assert_eq!(decode_progress(&progress[..7]), None);
    }

    #[test]
    fn a_cut_or_padded_body_is_none() {
        let whole = bytes(&body());
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "cut at {cut}");
        }
        let mut padded = whole;
        padded.push(0);
        assert_eq!(decode(&padded), None);
    }
}
