//! The frames of a WebSocket, as a client has them; nothing of the broker's own code.

/// First bytes of frames that are whole messages.
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
/// Of the first, a middle, and the last fragment of a message.
pub(crate) const FIRST: u8 = 0x02;
pub(crate) const MIDDLE: u8 = 0x00;
pub(crate) const LAST: u8 = 0x80;

/// Settings of a broker that serves WebSockets.
pub(crate) const SERVED: [(&str, &str); 2] = [
    ("TOLLGATE_WS_LISTEN", "127.0.0.1:0"),
    ("TOLLGATE_WSS_LISTEN", "127.0.0.1:0"),
];

const MASK: [u8; 4] = [0xa5, 0x01, 0xff, 0x3c];

/// What came beside data.
#[derive(Default)]
pub(crate) struct Web {
    raw: Vec<u8>,
    /// Payloads of pongs.
    pub(crate) pongs: Vec<Vec<u8>>,
    /// Data frames.
    pub(crate) frames: usize,
    /// The code of Close; 0 if it had none.
    pub(crate) close: Option<u16>,
}

/// A request for a WebSocket, with header lines beside those that are needed; a line of the same
/// name replaces one.
pub(crate) fn request(target: &str, headers: &[String]) -> Vec<u8> {
    let needed = [
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ];
    let name = |line: &str| line.split(':').next().unwrap_or("").to_lowercase();
    let is_replaced = |line: &str| headers.iter().any(|other| name(other) == name(line));
    let mut text = format!("GET {target} HTTP/1.1\r\n");
    let kept = needed.into_iter().filter(|line| !is_replaced(line));
    for line in kept.chain(headers.iter().map(String::as_str)) {
        text += line;
        text += "\r\n";
    }
    (text + "\r\n").into_bytes()
}

/// A frame with a mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = announce(first, payload.len() as u64);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// The header of a frame with a mask.
pub(crate) fn announce(first: u8, length: u64) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.push(0x80 | short),
        (_, Ok(wide)) => {
            out.push(0xfe);
            out.extend(wide.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

impl Web {
    /// Takes what was read; data goes to `data`.
    ///
    /// # Panics
    /// If a server may not send that.
    pub(crate) fn take(&mut self, bytes: &[u8], data: &mut Vec<u8>) {
        self.raw.extend_from_slice(bytes);
        while let Some((header, length)) = length(&self.raw)
            && self.raw.len() >= header + length
        {
            assert!(self.close.is_none(), "a frame behind Close");
            let first = self.raw[0];
            let payload: Vec<u8> = self.raw.drain(..header + length).skip(header).collect();
            match first {
                BINARY => {
                    self.frames += 1;
                    data.extend(payload);
                }
                0x8a => self.pongs.push(payload),
                CLOSE => {
                    let code = payload
                        .first_chunk()
                        .map_or(0, |code| u16::from_be_bytes(*code));
                    self.close = Some(code);
                }
                other => panic!("a server sent a frame that begins {other:02x}"),
            }
        }
    }
}

/// Bytes of the header at the front, and of the payload behind it.
fn length(raw: &[u8]) -> Option<(usize, usize)> {
    let second = *raw.get(1)?;
    assert_eq!(second & 0x80, 0, "a server masks nothing");
    match second {
        126 => {
            let wide = raw.get(2..4)?.first_chunk()?;
            Some((4, usize::from(u16::from_be_bytes(*wide))))
        }
        127 => {
            let wide = raw.get(2..10)?.first_chunk()?;
            let length = usize::try_from(u64::from_be_bytes(*wide));
            Some((10, length.expect("a length that memory has")))
        }
        short => Some((2, usize::from(short))),
    }
}
