//! MQTT over WebSocket: a layer of a [`Stream`] like TLS, above TCP or TLS.
//!
//! [`enter()`] takes a client from its HTTP request to here. From then on what it reads is MQTT,
//! with the frames around it taken away where they stand ([`frames`]), and each write is a frame of
//! its own: a header in front, in the same system call, of bytes that stay where they are. Nothing
//! above knows of frames, and nothing is buffered here.
//!
//! # Invariants
//! 1. A control frame never stands inside a data frame: it waits until that is written. What waits
//!    is one pong and one Close, at most [`CONTROL_OUT_BYTES_MAX`].
//! 2. The last word is Close, with why; behind it nothing is written.
//! 3. Who writes half a frame writes its rest before anything else: [`Output`] keeps the order.
//!
//! [`Output`]: super::output::Output

mod enter;
mod frames;
mod upgrade;

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::stream::Stream;
use crate::metrics::WebSocketFailure;
use frames::CONTROL_BYTES_MAX;

pub(super) use enter::{Bearer, enter};
pub use frames::{End, Frames};
pub use upgrade::WebSocketRules;

/// Longest data frame written, in bytes: longer writes become several. Its header has four bytes.
const FRAME_OUT_BYTES_MAX: usize = 65_535;
const HEADER_OUT_BYTES_MAX: usize = 4;

/// Control frames that may wait to be written, in bytes.
const CONTROL_OUT_BYTES_MAX: usize = 2 * (2 + CONTROL_BYTES_MAX);

/// What a client does that ends its WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// MQTT is binary [MQTT-6.0.0-1].
    #[error("a text frame: MQTT is binary")]
    Text,
    /// RFC 6455, 5.1.
    #[error("a frame without a mask: clients must mask")]
    Unmasked,
    /// Whatever else RFC 6455 does not allow.
    #[error("a frame that is none, or not in its place")]
    Protocol,
    /// In one frame or in many.
    #[error("a longer message than is taken")]
    TooLong,
    /// Within a second.
    #[error("more frames without data than a client needs")]
    Flood,
}

/// A WebSocket over `S`, as the server has it.
pub(super) struct WebSocket<S> {
    under: S,
    frames: Frames,
    /// Header of the data frame being written, as far as it has not gone.
    header: [u8; HEADER_OUT_BYTES_MAX],
    header_at: usize,
    header_len: usize,
    /// Payload of that frame that has not gone.
    left: usize,
    /// Control frames that wait; empty, without memory, but for moments.
    control: Vec<u8>,
    /// How much of them has gone.
    control_at: usize,
    /// Close was said.
    is_over: bool,
}

impl Violation {
    /// What Close says (RFC 6455, 7.4.1).
    fn close_code(self) -> u16 {
        match self {
            Violation::Text => 1003,
            Violation::Unmasked | Violation::Protocol => 1002,
            Violation::TooLong => 1009,
            Violation::Flood => 1008,
        }
    }
}

/// How a WebSocket failed, for the figures; `None` if it is not that which failed.
pub(super) fn failure(error: &io::Error) -> Option<WebSocketFailure> {
    let violation = error.get_ref()?.downcast_ref::<Violation>()?;
    Some(match violation {
        Violation::Text => WebSocketFailure::Text,
        Violation::Unmasked => WebSocketFailure::Unmasked,
        Violation::Protocol => WebSocketFailure::Protocol,
        Violation::TooLong => WebSocketFailure::TooLong,
        Violation::Flood => WebSocketFailure::Flood,
    })
}

impl<S> WebSocket<S> {
    fn new(under: S) -> Self {
        Self {
            under,
            frames: Frames::default(),
            header: [0; HEADER_OUT_BYTES_MAX],
            header_at: 0,
            header_len: 0,
            left: 0,
            control: Vec::new(),
            control_at: 0,
            is_over: false,
        }
    }

    /// The same above another stream.
    pub(super) fn moved<T>(
        self,
        to: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<Box<WebSocket<T>>> {
        Ok(Box::new(WebSocket {
            under: to(self.under)?,
            frames: self.frames,
            header: self.header,
            header_at: self.header_at,
            header_len: self.header_len,
            left: self.left,
            control: self.control,
            control_at: self.control_at,
            is_over: self.is_over,
        }))
    }

    pub(super) fn under(&self) -> &S {
        &self.under
    }

    /// Whether a data frame is half written.
    fn is_in_frame(&self) -> bool {
        self.left > 0
    }

    /// Begins a data frame for the first of `len` bytes.
    fn begin(&mut self, len: usize) {
        self.left = len.min(FRAME_OUT_BYTES_MAX);
        let header = FrameHeader {
            opcode: OpCode::Data(Data::Binary),
            ..FrameHeader::default()
        };
        let mut room = self.header.as_mut_slice();
        let free = room.len();
        // A length of two bytes at most: there is room for it.
        let _ = header.format(self.left as u64, &mut room);
        (self.header_at, self.header_len) = (0, free - room.len());
    }

    /// Puts a control frame behind those that wait.
    fn say(&mut self, kind: Control, payload: &[u8]) {
        let header = FrameHeader {
            opcode: OpCode::Control(kind),
            ..FrameHeader::default()
        };
        // Writing to memory does not fail.
        let _ = header.format(payload.len() as u64, &mut self.control);
        self.control.extend_from_slice(payload);
    }

    /// Answers a ping. An answer that waits is replaced by it, unless some of that has gone: then
    /// one more waits behind it, and a third is left out (RFC 6455, 5.5.3).
    fn pong(&mut self, payload: &[u8]) {
        if self.control_at == 0 {
            self.control.clear();
        }
        if self.control.len() + 2 + payload.len() <= CONTROL_OUT_BYTES_MAX {
            self.say(Control::Pong, payload);
        }
    }

    fn say_close(&mut self) {
        let code = match self.frames.end() {
            Some(End::Violated(why)) => Some(why.close_code()),
            Some(End::Closed(code)) => code,
            None => Some(1000),
        };
        let code = code.map(u16::to_be_bytes);
        let payload = code.as_ref().map_or(&[][..], |code| code.as_slice());
        self.say(Control::Close, payload);
    }
}

impl WebSocket<Stream> {
    /// Reads MQTT. The end of the stream is the client's Close, or that of what is below.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // It ends with data, or when nothing more is there. Frames without data are bounded.
        loop {
            if !self.is_in_frame()
                && let Poll::Ready(Err(error)) = self.poll_control(cx)
            {
                return Poll::Ready(Err(error));
            }
            if !self.is_over {
                match self.frames.end() {
                    Some(End::Closed(_)) => return Poll::Ready(Ok(())),
                    Some(End::Violated(why)) => {
                        let error = io::Error::new(io::ErrorKind::InvalidData, why);
                        return Poll::Ready(Err(error));
                    }
                    None => {}
                }
            }
            let before = into.filled().len();
            ready!(self.under.poll_read(cx, into))?;
            let came = into.filled_mut().get_mut(before..).unwrap_or_default();
            if came.is_empty() || self.is_over {
                // Behind our Close what comes is only read away.
                return Poll::Ready(Ok(()));
            }
            let data = self.frames.take(came);
            into.set_filled(before + data);
            if let Some(ping) = self.frames.take_ping() {
                self.pong(&ping);
            }
            if data > 0 {
                // The data comes first; an error shows again.
                if !self.is_in_frame() {
                    let _ = self.poll_control(cx);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes as much of `bytes` as goes, as the data of a frame. Bytes that were not taken must be
    /// the first of the next call.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.is_in_frame() {
            ready!(self.poll_control(cx))?;
            self.begin(bytes.len());
        }
        let body = bytes.get(..self.left).unwrap_or(bytes);
        loop {
            let header = self.header.get(self.header_at..self.header_len);
            let header = header.unwrap_or_default();
            let written = ready!(self.under.poll_write_parts(cx, header, body))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = written.min(header.len());
            self.header_at += of_header;
            let of_body = written - of_header;
            self.left = self.left.saturating_sub(of_body);
            if of_body > 0 {
                return Poll::Ready(Ok(of_body));
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_in_frame() {
            ready!(self.poll_control(cx))?;
        }
        self.under.poll_flush(cx)
    }

    /// Says Close, then what is below says goodbye. In the middle of a frame there is nothing to
    /// say: the client did not read.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_over {
            if self.is_in_frame() {
                // An answer to a ping would be read as the rest of the frame.
                (self.control, self.control_at) = (Vec::new(), 0);
            } else {
                self.say_close();
            }
            self.is_over = true;
        }
        // A client that is gone gets no last word.
        let _ = ready!(self.poll_control(cx));
        self.under.poll_shutdown(cx)
    }

    /// Writes the control frames that wait; ready when none does.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.control.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.control.get(self.control_at..)
            && !rest.is_empty()
        {
            let written = ready!(self.under.poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control_at += written;
        }
        ready!(self.under.poll_flush(cx))?;
        (self.control, self.control_at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// The payload of each frame, and the header before it.
    static ZEROS: [u8; FRAME_OUT_BYTES_MAX] = [0; FRAME_OUT_BYTES_MAX];
    const HEADER: [u8; 4] = [0x82, 126, 0xff, 0xff];

    /// A ping of a client, with a mask of zeros, and the answer to it.
    const PING: &[u8] = b"\x89\x84\0\0\0\0late";
    const PONG: &[u8] = b"\x8a\x04late";

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_io().build().unwrap().block_on(test);
    }

    /// A WebSocket that is in the middle of a frame, since the system takes no more, with a ping
    /// that came meanwhile; and the client, who has read nothing.
    async fn full() -> (WebSocket<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, client) = tokio::join!(listener.accept(), connecting);
        let mut socket = WebSocket::new(Stream::Plain(accepted.unwrap().0));
        let mut client = client.unwrap();
        poll_fn(|cx| {
            while socket.poll_write(cx, &ZEROS).map(Result::unwrap).is_ready() {}
            Poll::Ready(())
        })
        .await;
        client.write_all(PING).await.unwrap();
        poll_fn(|cx| {
            let mut room = [0; 100];
            let read = socket.poll_read(cx, &mut ReadBuf::new(&mut room));
            assert!(read.is_pending(), "there is no data in it");
            match socket.control.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        assert!(socket.is_in_frame());
        (socket, client)
    }

    /// Takes whole frames of zeros off the front; what is behind them.
    fn behind_frames(mut came: &[u8]) -> &[u8] {
        let whole = [&HEADER[..], &ZEROS].concat();
        while let Some(rest) = came.strip_prefix(whole.as_slice()) {
            came = rest;
        }
        came
    }

    #[test]
    fn a_pong_waits_until_the_frame_in_its_way_is_written_and_goes_before_the_next() {
        run(async {
            let (mut socket, mut client) = full().await;
            // There is room again, and the pong still waits.
            let mut came = vec![0; 100_000];
            client.read_exact(&mut came).await.unwrap();
            poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            assert_eq!((socket.control.as_slice(), socket.control_at), (PONG, 0));
            let sending = async {
                while socket.is_in_frame() {
                    let rest = &ZEROS[..socket.left];
                    poll_fn(|cx| socket.poll_write(cx, rest)).await.unwrap();
                }
                let next = poll_fn(|cx| socket.poll_write(cx, b"next")).await;
                assert_eq!(next.unwrap(), 4);
            };
            let end = [PONG, b"\x82\x04next"].concat();
            let reading = async {
                while !came.ends_with(&end) {
                    assert_ne!(client.read_buf(&mut came).await.unwrap(), 0);
                }
            };
            tokio::join!(sending, reading);
            assert_eq!(behind_frames(&came), end);
        });
    }

    #[test]
    fn in_the_middle_of_a_frame_there_is_neither_a_pong_nor_a_last_word() {
        run(async {
            let (mut socket, mut client) = full().await;
            poll_fn(|cx| socket.poll_shutdown(cx)).await.unwrap();
            drop(socket);
            let mut came = Vec::new();
            client.read_to_end(&mut came).await.unwrap();
            let half = behind_frames(&came);
            let whole = [&HEADER[..], &ZEROS].concat();
            assert!(whole.starts_with(half), "{} bytes", half.len());
        });
    }
}
