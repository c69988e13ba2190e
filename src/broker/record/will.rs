//! A session's will: the body of `Will`. The header says whose session it is, and with which
//! credential the client came that set it.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | QoS; 4: to be retained; 8: it expires |
//! | 4 | delay in seconds |
//! | 4 | seconds the message lives from its publication; 0 without the mark |
//! | 2 + n | topic |
//! | 4 + n | properties that are passed on, as MQTT 5 writes them: length, bytes |
//! | the rest | payload |
//!
//! An empty body says that the session has no will any more: the client said goodbye, or came
//! again without one. A will that is published ends with its `Message` record instead, which is
//! one record, so that it is published once. Wills are not part of `SessionChange`: a SUBSCRIBE
//! does not write them again.

use super::bytes::{put_long, put_text, take_long, take_text, take_u8, take_u32};
use crate::mqtt::message::{Content, Will};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

const QOS: u8 = 0b11;
const RETAIN: u8 = 4;
const EXPIRES: u8 = 8;

/// Writes the body behind what `out` holds.
pub fn encode(will: &Will, out: &mut Vec<u8>) {
    let content = &will.content;
    let retain = u8::from(content.retain()) * RETAIN;
    let expires = u8::from(will.expiry_s.is_some()) * EXPIRES;
    out.push(content.qos().as_u8() | retain | expires);
    out.extend_from_slice(&will.delay_s.to_le_bytes());
    out.extend_from_slice(&will.expiry_s.unwrap_or(0).to_le_bytes());
    put_text(out, content.topic().as_str());
    put_long(out, content.properties());
    out.extend_from_slice(content.payload());
}

/// Reads a body that is not empty; `None` if it is not one.
#[must_use]
pub fn decode(mut body: &[u8]) -> Option<Will> {
    let marks = take_u8(&mut body).filter(|marks| marks & !(QOS | RETAIN | EXPIRES) == 0)?;
    let delay_s = take_u32(&mut body)?;
    let expiry_s = take_u32(&mut body)?;
    let expires = marks & EXPIRES != 0;
    if !expires && expiry_s != 0 {
        return None;
    }
    let topic = Topic::new(take_text(&mut body)?).ok()?;
    let properties = take_long(&mut body)?;
    let (qos, retain) = (QoS::from_u8(marks & QOS)?, marks & RETAIN != 0);
    Some(Will {
        content: Content::from_parts(topic, properties, body, qos, retain),
        delay_s,
        expiry_s: expires.then_some(expiry_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn will(expiry_s: Option<u32>, payload: &[u8]) -> Will {
        let topic = Topic::new("fleet/pump-7/status").expect("a topic");
        let properties = b"\x03\x00\x04text";
        Will {
            content: Content::from_parts(topic, properties, payload, QoS::ExactlyOnce, true),
            delay_s: 30,
            expiry_s,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for will in [will(None, b""), will(Some(0), b"x"), will(Some(9), b"gone")] {
            let mut out = Vec::new();
            encode(&will, &mut out);
            assert_eq!(decode(&out), Some(will));
        }
    }

    /// The payload is what is left, so that only what stands before it can be cut.
    #[test]
    fn a_cut_body_is_none() {
        let mut whole = Vec::new();
        encode(&will(Some(9), b""), &mut whole);
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "cut at {cut}");
        }
        for marks in [16, 0b11, 0] {
            whole[0] = marks; // of a later version; no QoS; an expiry without its mark
            assert_eq!(decode(&whole), None, "marks {marks}");
        }
    }
}
