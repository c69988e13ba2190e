//! What comes in a WebSocket, as pure bytes: frames go in, and what they carry stays in place.
//!
//! MQTT over WebSocket is a stream [MQTT-6.0.0-2]: a packet may come in many frames and a frame may
//! hold many packets. So nothing is collected here: a frame's data is unmasked where it was read,
//! moved over the header in front of it, and is MQTT from then on. Whatever lengths frames
//! announce, no byte of room is made for them.
//!
//! # Invariants
//! 1. What is kept from one read to the next is the start of a header or of a control frame: at
//!    most [`HEADER_BYTES_MAX`] and [`CONTROL_BYTES_MAX`] bytes.
//! 2. Of pings the last one waits for its answer; there is no queue of them.
//! 3. After a Close or a violation nothing more is taken.

use std::io::Cursor;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Violation;

/// Longest header of a frame with a mask, in bytes.
const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame, in bytes (RFC 6455, 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// Longest message, in bytes, in one frame or in many. Clients write all that waits as one message,
/// so this is no limit of a packet: that is `mqtt.packet_size_max_bytes`, and holds inside.
pub(super) const MESSAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Frames without data in one second: pings, pongs, empty fragments. Clients ping once in seconds.
pub(super) const IDLE_FRAMES_MAX: u32 = 100;

/// In which time they are counted together.
const IDLE_WINDOW: Duration = Duration::from_secs(1);

/// How the other side's frames end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It sent Close, with this code or none.
    Closed(Option<u16>),
    /// It broke a rule.
    Violated(Violation),
}

/// One client's frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// The start of a header whose rest has not come.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// Bytes that are still to come of the data frame at hand.
    left: u64,
    /// Its mask, or that of the control frame at hand; its first byte is for the next one.
    mask: [u8; 4],
    /// A message is to be continued.
    in_message: bool,
    /// Of the message at hand, as announced so far.
    message_bytes: u64,
    control: Option<Box<ControlFrame>>,
    /// Payload of the last ping that has no answer.
    ping: Option<Vec<u8>>,
    end: Option<End>,
    /// Frames without data since `idle_since`.
    idle: u32,
    idle_since: Option<Instant>,
}

/// A control frame whose rest has not come.
#[derive(Debug)]
struct ControlFrame {
    kind: Control,
    len: usize,
    payload: Vec<u8>,
}

impl Frames {
    /// Takes what was read. The data in it is then at the front of `bytes`; says how much it is.
    pub fn take(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut data) = (0, 0);
        while self.end.is_none() && at < bytes.len() {
            let step = if self.left > 0 {
                let step = self.unmask_data(bytes.get_mut(at..).unwrap_or_default());
                bytes.copy_within(at..at + step, data);
                data += step;
                Ok(step)
            } else if self.control.is_some() {
                self.take_control(bytes.get(at..).unwrap_or_default())
            } else {
                self.take_header(bytes.get(at..).unwrap_or_default())
            };
            match step {
                Ok(step) => at += step,
                Err(why) => self.end = Some(End::Violated(why)),
            }
        }
        data
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The payload of a ping that wants an answer.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Unmasks what of `bytes` belongs to the data frame at hand.
    fn unmask_data(&mut self, bytes: &mut [u8]) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let step = left.min(bytes.len());
        unmask(bytes.get_mut(..step).unwrap_or_default(), &mut self.mask);
        self.left -= u64::try_from(step).unwrap_or(u64::MAX).min(self.left);
        step
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let known = self.header_len;
        let free = self.header.get_mut(known..).unwrap_or_default();
        let more = free.len().min(bytes.len());
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        let seen = self.header.get(..known + more).unwrap_or_default();
        let mut cursor = Cursor::new(seen);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol)?;
        let Some((header, length)) = parsed else {
            self.header_len = known + more;
            return Ok(more);
        };
        let size = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.header_len = 0;
        self.begin(&header, length, size)?;
        Ok(size.saturating_sub(known))
    }

    /// A frame begins. Everything about it is checked now, before any of it is taken.
    fn begin(&mut self, header: &FrameHeader, length: u64, size: usize) -> Result<(), Violation> {
        let has_extension = header.rsv1 || header.rsv2 || header.rsv3;
        // A length has one spelling, the shortest.
        if has_extension || size != header.len(length) {
            return Err(Violation::Protocol);
        }
        self.mask = header.mask.ok_or(Violation::Unmasked)?;
        let kind = match header.opcode {
            OpCode::Data(data) => return self.begin_data(data, header.is_final, length),
            OpCode::Control(kind) => kind,
        };
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        if !header.is_final || len > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol);
        }
        self.count_idle()?;
        self.control = Some(Box::new(ControlFrame {
            kind,
            len,
            payload: Vec::with_capacity(len),
        }));
        self.take_control(&[]).map(drop)
    }

    fn begin_data(&mut self, data: Data, is_final: bool, length: u64) -> Result<(), Violation> {
        match data {
            // [MQTT-6.0.0-1]
            Data::Text => return Err(Violation::Text),
            Data::Binary if !self.in_message => self.message_bytes = 0,
            Data::Continue if self.in_message => {}
            Data::Binary | Data::Continue | Data::Reserved(_) => return Err(Violation::Protocol),
        }
        self.message_bytes = self.message_bytes.saturating_add(length);
        if self.message_bytes > MESSAGE_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        self.in_message = !is_final;
        self.left = length;
        if length == 0 {
            self.count_idle()?;
        }
        Ok(())
    }

    /// Takes what of `bytes` belongs to the control frame at hand, and acts on it once it is whole.
    fn take_control(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let Some(control) = &mut self.control else {
            return Ok(0);
        };
        let step = (control.len - control.payload.len()).min(bytes.len());
        let before = control.payload.len();
        control.payload.extend(bytes.iter().take(step));
        let fresh = control.payload.get_mut(before..).unwrap_or_default();
        unmask(fresh, &mut self.mask);
        if control.payload.len() < control.len {
            return Ok(step);
        }
        let Some(control) = self.control.take() else {
            return Ok(step);
        };
        match control.kind {
            Control::Ping => self.ping = Some(control.payload),
            Control::Pong => {}
            Control::Close => self.end = Some(End::Closed(close_code(&control.payload)?)),
            Control::Reserved(_) => return Err(Violation::Protocol),
        }
        Ok(step)
    }

    /// One more frame without data. The clock is asked only for those.
    fn count_idle(&mut self) -> Result<(), Violation> {
        let now = Instant::now();
        let is_new = |since: Instant| now.saturating_duration_since(since) >= IDLE_WINDOW;
        if self.idle_since.is_none_or(is_new) {
            self.idle_since = Some(now);
            self.idle = 0;
        }
        self.idle += 1;
        if self.idle > IDLE_FRAMES_MAX {
            return Err(Violation::Flood);
        }
        Ok(())
    }
}

/// The code in a Close; a reason behind it must be text.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return payload
            .is_empty()
            .then_some(None)
            .ok_or(Violation::Protocol);
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() || std::str::from_utf8(reason).is_err() {
        return Err(Violation::Protocol);
    }
    Ok(Some(code))
}

/// Takes the mask off, eight bytes at a time, and turns it to where the next byte finds it.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let len = bytes.len();
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= *mask;
    }
    mask.rotate_left(len % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x11, 0xa2, 0x03, 0xf4];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let opcode = OpCode::from(first & 0x0f);
        let header = FrameHeader {
            is_final: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            rsv2: first & 0x20 != 0,
            rsv3: first & 0x10 != 0,
            opcode,
            mask: Some(MASK),
        };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        out.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        out
    }

    /// Takes `bytes` in pieces of `len`; the data, and how it ended.
    fn taken(bytes: &[u8], len: usize) -> (Vec<u8>, Option<End>) {
        let (data, frames) = fed(bytes, len);
        (data, frames.end())
    }

    fn fed(bytes: &[u8], len: usize) -> (Vec<u8>, Frames) {
        let mut frames = Frames::default();
        let mut data = Vec::new();
        for piece in bytes.chunks(len.max(1)) {
            let mut piece = piece.to_vec();
            let came = frames.take(&mut piece);
            data.extend(&piece[..came]);
        }
        (data, frames)
    }

    fn numbers(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[test]
    fn mqtt_6_0_0_2_the_data_is_a_stream_however_it_is_cut() {
        let data = numbers(70_000);
        let mut sent = frame(0x82, &data[..3]);
        sent.extend(frame(0x02, &data[3..4]));
        sent.extend(frame(0x89, b"between"));
        sent.extend(frame(0x00, &data[4..130]));
        sent.extend(frame(0x8a, b""));
        sent.extend(frame(0x80, &data[130..300]));
        sent.extend(frame(0x82, &data[300..]));
        for len in [1, 2, 3, 5, 7, 8, 13, 64, 1_000, 4_096, sent.len()] {
            let (came, mut frames) = fed(&sent, len);
            assert!(came == data, "in pieces of {len}");
            assert_eq!(frames.end(), None);
            assert_eq!(frames.take_ping().as_deref(), Some(&b"between"[..]));
        }
    }

    #[test]
    fn sec_74_what_breaks_a_rule_ends_it_and_the_data_before_it_counts() {
        let mut unmasked = vec![0x82, 2, 1, 2];
        let long = FrameHeader {
            opcode: OpCode::Data(Data::Binary),
            mask: Some(MASK),
            ..FrameHeader::default()
        };
        let mut too_long = Vec::new();
        long.format(MESSAGE_BYTES_MAX + 1, &mut too_long).unwrap();
        let mut endless = Vec::new();
        long.format(u64::MAX, &mut endless).unwrap();
        // 5 bytes, spelled with two bytes of length.
        let wide = [&[0x82, 0xfe, 0, 5][..], &MASK, &[0; 5]].concat();
        unmasked.splice(0..0, frame(0x82, b""));
        for (bytes, why) in [
            (unmasked, Violation::Unmasked),
            (frame(0x81, b"text"), Violation::Text),
            (frame(0x01, b"text"), Violation::Text),
            (frame(0x80, b"nothing to go on with"), Violation::Protocol),
            (
                [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
                Violation::Protocol,
            ),
            (frame(0xc2, b"compressed"), Violation::Protocol),
            (frame(0x92, b"reserved"), Violation::Protocol),
            (frame(0x83, b"no such data"), Violation::Protocol),
            (frame(0x8b, b"no such control"), Violation::Protocol),
            (frame(0x09, b"a ping in fragments"), Violation::Protocol),
            (frame(0x89, &[0; 126]), Violation::Protocol),
            (frame(0x88, b"x"), Violation::Protocol),
            (frame(0x88, &[0x03, 0xed]), Violation::Protocol),
            (frame(0x88, &[0x03, 0xe8, 0xff]), Violation::Protocol),
            (wide, Violation::Protocol),
            (too_long, Violation::TooLong),
            (endless, Violation::TooLong),
        ] {
            let behind = frame(0x82, b"behind");
            let sent = [frame(0x82, b"before"), bytes, behind].concat();
            for len in [1, sent.len()] {
                let (data, end) = taken(&sent, len);
                assert_eq!(end, Some(End::Violated(why)), "{sent:02x?}");
                assert!(data.starts_with(b"before") && !data.ends_with(b"behind"));
            }
        }
    }

    #[test]
    fn sec_74_a_message_in_fragments_has_the_same_limit() {
        let half = numbers(usize::try_from(MESSAGE_BYTES_MAX / 2).unwrap());
        let mut sent = frame(0x02, &half);
        sent.extend(frame(0x00, &half));
        assert_eq!(taken(&sent, sent.len()).1, None);
        sent.extend(frame(0x80, b"x"));
        let end = Some(End::Violated(Violation::TooLong));
        assert_eq!(taken(&sent, sent.len()).1, end);
        let two = [frame(0x82, &half), frame(0x82, &half), frame(0x82, b"x")].concat();
        assert_eq!(
            taken(&two, two.len()).1,
            None,
            "each message counts for itself"
        );
    }

    #[test]
    fn sec_74_frames_without_data_are_bounded_per_second() {
        for first in [0x82, 0x89, 0x8a] {
            let flood: Vec<u8> = (0..=IDLE_FRAMES_MAX)
                .flat_map(|_| frame(first, b""))
                .collect();
            let (one, most) = (frame(first, b"").len(), flood.len());
            assert_eq!(taken(&flood[..most - one], 64).1, None);
            let end = Some(End::Violated(Violation::Flood));
            assert_eq!(taken(&flood, 64).1, end, "{first:x}");
            let (_, mut frames) = fed(&flood[..most - one], 64);
            frames.idle_since = Instant::now().checked_sub(IDLE_WINDOW);
            frames.take(&mut frame(first, b""));
            assert_eq!(frames.end(), None, "the next second begins anew");
        }
    }

    #[test]
    fn a_close_is_the_end() {
        for (payload, code) in [
            (&b""[..], None),
            (&[0x03, 0xe8], Some(1000)),
            (b"\x0b\xb8bye", Some(3000)),
        ] {
            let sent = [frame(0x88, payload), frame(0x82, b"behind")].concat();
            let (data, end) = taken(&sent, 3);
            assert_eq!((data.len(), end), (0, Some(End::Closed(code))));
        }
    }

    #[test]
    fn only_the_last_ping_waits() {
        let sent = [frame(0x89, b"first"), frame(0x89, b"last")].concat();
        let (_, mut frames) = fed(&sent, sent.len());
        assert_eq!(frames.take_ping().as_deref(), Some(&b"last"[..]));
        assert_eq!(frames.take_ping(), None);
    }

    proptest::proptest! {
        #[test]
        fn rel_20_no_bytes_break_it(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000),
            len in 1_usize..300,
        ) {
            let (whole, whole_end) = taken(&bytes, bytes.len());
            let (cut, cut_end) = taken(&bytes, len);
            proptest::prop_assert!(whole == cut && whole_end == cut_end);
            proptest::prop_assert!(whole.len() <= bytes.len());
        }
    }
}
