//! One connection of the generator: its socket, and the messages in flight on it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::cli::bench::{
    BenchError, packets,
    target::{PORTS, Target},
    tls,
};

/// What the system says of a connection that is still being made.
const IN_PROGRESS: i32 = Errno::INPROGRESS.raw_os_error();
/// Send buffer of a connection: without acks to wait for (QoS 0), what lies in it at the end of
/// the run is still to be read by the broker.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// A socket, plain or TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tls::Stream>),
}

/// A connection to the broker: from its CONNECT on.
pub(super) struct Link {
    stream: Stream,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
    /// The start of a packet whose end has not come.
    partial: Vec<u8>,
    /// When the messages in flight were sent, in microseconds since the start; number and mask
    /// choose the place.
    sent_us: Box<[u32]>,
    /// Messages sent.
    pub(super) sent: u64,
    /// PUBRECs taken (QoS 2).
    pub(super) received: u64,
    /// Messages whose last ack came.
    pub(super) done: u64,
    pub(super) is_open: bool,
}

impl Link {
    /// Starts a connection and its CONNECT; nothing is waited for. `window` is the room for
    /// messages in flight.
    pub(super) fn start(
        target: &Target,
        mark: char,
        number: usize,
        window: u32,
    ) -> Result<Link, BenchError> {
        let unsent = target.connect(mark, number)?.to_vec();
        let socket = socket(target, number).map_err(|source| BenchError::NoBroker {
            address: target.address.to_string(),
            source,
        })?;
        let stream = match &target.tls {
            Some(tls) => Stream::Tls(Box::new(tls.connect(socket)?)),
            None => Stream::Plain(socket),
        };
        let places = window.next_power_of_two() as usize;
        Ok(Link {
            stream,
            unsent,
            partial: Vec::new(),
            sent_us: vec![0; places].into_boxed_slice(),
            sent: 0,
            received: 0,
            done: 0,
            is_open: true,
        })
    }

    /// True when the TLS handshake was shortened by a ticket.
    pub(super) fn is_resumed(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => tls::is_resumed(stream),
        }
    }

    /// Messages that wait for their last ack.
    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.done
    }

    /// True while the socket took all it was given.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends at most `count` messages in one write and says how many; the socket may keep some for
    /// later, which counts as sent.
    pub(super) fn publish(
        &mut self,
        block: &mut packets::Block,
        count: u64,
        now_us: u32,
    ) -> io::Result<u64> {
        let (bytes, count) = block.messages(self.sent, count, now_us);
        let mask = self.sent_us.len() as u64 - 1;
        for number in self.sent..self.sent + count {
            let place = usize::try_from(number & mask).unwrap_or_default();
            if let Some(sent_us) = self.sent_us.get_mut(place) {
                *sent_us = now_us;
            }
        }
        self.sent += count;
        write(&mut self.stream, &mut self.unsent, bytes)?;
        Ok(count)
    }

    /// When the message in flight with this number was sent.
    pub(super) fn sent_us(&self, number: u64) -> u32 {
        let mask = self.sent_us.len() as u64 - 1;
        let place = usize::try_from(number & mask).unwrap_or_default();
        self.sent_us.get(place).copied().unwrap_or_default()
    }

    /// Sends other bytes, behind what waits.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        write(&mut self.stream, &mut self.unsent, bytes)
    }

    /// Tries again to send what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() && matches!(self.stream, Stream::Plain(_)) {
            return Ok(());
        }
        write(&mut self.stream, &mut self.unsent, &[])
    }

    /// Reads once; `None` when nothing is there. True means that there may be more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, bool)>> {
        match self.stream.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            // A short read of a plain socket has emptied it; the next bytes are a new event.
            Ok(len) => {
                let is_plain = matches!(self.stream, Stream::Plain(_));
                Ok(Some((len, !is_plain || len == buffer.len())))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some((0, true))),
            Err(error) => Err(error),
        }
    }

    /// The kept start of a packet with `bytes` behind it; `None` when nothing was kept.
    pub(super) fn joined(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.partial.is_empty() {
            return None;
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        Some(joined)
    }

    /// Keeps the start of a packet.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket().as_fd()
    }
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// Writes what waits, then `bytes`; keeps what the socket does not take.
fn write(stream: &mut Stream, unsent: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    if unsent.is_empty() {
        let taken = write_some(stream, bytes)?;
        unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default());
    } else {
        unsent.extend_from_slice(bytes);
        let taken = write_some(stream, unsent)?;
        unsent.drain(..taken);
    }
    match stream.flush() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

/// Writes until all is taken or the socket is full, and says how much was taken.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => break,
            Ok(len) => taken += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// A socket on its way to the broker; a source port that is taken is tried with the next one.
fn socket(target: &Target, number: usize) -> io::Result<TcpStream> {
    let mut tries = 0; // a run that has just ended may have left thousands of ports busy in a row
    loop {
        let source = target.source(number);
        let error = match connecting(target.address, source) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let kinds = [io::ErrorKind::AddrInUse, io::ErrorKind::AddrNotAvailable];
        tries += 1;
        if source.is_none() || tries == PORTS || !kinds.contains(&error.kind()) {
            return Err(error);
        }
    }
}

/// What is written before it has arrived has to wait.
fn connecting(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(source) = source {
        // Ports of connections that have just ended can be had again.
        socket.set_reuse_address(true)?;
        socket
            .bind(&source.into())
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    let what = format!("this machine has no address {} (--source)", source.ip());
                    io::Error::new(io::ErrorKind::InvalidInput, what)
                }
                _ => error,
            })?;
    }
    socket.set_nonblocking(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(TcpStream::from(socket)),
    }
}
