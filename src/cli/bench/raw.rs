//! `tollgate bench raw`: a sink that only frames and acks. No broker can do less, so its figures
//! are what the kernel and the generator cost in the same run.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::cli::bench::{BenchError, frame, options::Raw, poll::Poll};

/// The listener's key; connections have the ones below.
const LISTENER: usize = usize::MAX;
/// How long a wait lasts when nothing happens: the end must be noticed.
const WAIT: Duration = Duration::from_millis(50);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Answers of a connection that does not read them: beyond it the connection is closed.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// A packet that has not ended by then is not one of a load test: the connection is closed.
const PARTIAL_BYTES_MAX: usize = 1024 * 1024;

/// Answers everybody until the time is over.
pub(super) fn run(options: &Raw) -> Result<(), BenchError> {
    let listener = TcpListener::bind(options.listen)?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    drop(out);

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    let mut clients = Clients::default();
    let mut keys = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    while Instant::now() < end {
        poll.wait(WAIT, &mut keys)?;
        for &key in &keys {
            if key == LISTENER {
                accept(&listener, &poll, &mut clients)?;
            } else {
                clients.serve(key, &mut buffer);
            }
        }
    }
    Ok(())
}

/// Everybody who is connected; a key is a place.
#[derive(Default)]
struct Clients {
    places: Vec<Option<Client>>,
    free: Vec<usize>,
}

impl Clients {
    fn serve(&mut self, key: usize, buffer: &mut [u8]) {
        if let Some(place) = self.places.get_mut(key)
            && let Some(client) = place
            && client.serve(buffer).is_err()
        {
            *place = None;
            self.free.push(key);
        }
    }

    fn add(&mut self, client: Client, poll: &Poll) -> io::Result<()> {
        let key = self.free.pop().unwrap_or(self.places.len());
        poll.add(&client.socket, key)?;
        match self.places.get_mut(key) {
            Some(place) => *place = Some(client),
            None => self.places.push(Some(client)),
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, poll: &Poll, clients: &mut Clients) -> io::Result<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // Whoever left before it was taken in is no reason to stop.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let client = Client {
            socket,
            partial: Vec::new(),
            answers: Vec::new(),
        };
        clients.add(client, poll)?;
    }
}

struct Client {
    socket: TcpStream,
    /// The start of a packet whose end has not come.
    partial: Vec<u8>,
    /// What is to be sent; empty when the socket took all.
    answers: Vec<u8>,
}

impl Client {
    /// Reads until the socket is empty and answers each read in one write.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.write()?;
        loop {
            let len = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let bytes = buffer.get(..len).unwrap_or_default();
            if self.partial.is_empty() {
                let rest = answer(bytes, &mut self.answers)?;
                self.partial.extend_from_slice(rest);
            } else {
                self.partial.extend_from_slice(bytes);
                let rest_len = answer(&self.partial, &mut self.answers)?.len();
                self.partial.drain(..self.partial.len() - rest_len);
            }
            self.write()?;
            let is_stuck = self.answers.len() > UNSENT_BYTES_MAX;
            if is_stuck || self.partial.len() > PARTIAL_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if len < buffer.len() {
                return Ok(()); // a short read has emptied the socket
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.answers.is_empty() {
            match self.socket.write(&self.answers) {
                Ok(len) => drop(self.answers.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes the answers to the whole packets of `bytes` and returns what is behind them.
fn answer<'a>(bytes: &'a [u8], answers: &mut Vec<u8>) -> io::Result<&'a [u8]> {
    let mut rest = bytes;
    while let Some(packet) = frame::split(rest) {
        rest = packet.rest;
        match packet.first >> 4 {
            // Protocol level 5 behind the name "MQTT": CONNACK has properties, none here.
            1 if packet.body.get(6) == Some(&5) => answers.extend([0x20, 3, 0, 0, 0]),
            1 => answers.extend([0x20, 2, 0, 0]),
            3 => answer_publish(packet.first, packet.body, answers),
            6 => answer_id(0x70, packet.body, answers),
            // A subscription is no part of the floor: it is refused.
            8 => {
                let id = packet.body.first_chunk().copied().unwrap_or([0, 0]);
                answers.extend([0x90, 3, id[0], id[1], 0x80]);
            }
            12 => answers.extend([0xd0, 0]),
            14 => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
    }
    Ok(rest)
}

fn answer_publish(first: u8, body: &[u8], answers: &mut Vec<u8>) {
    let kind = match first & 0b110 {
        0 => return,
        0b010 => 0x40,
        _ => 0x50,
    };
    if let Some((topic_len, rest)) = body.split_first_chunk() {
        let topic_len = usize::from(u16::from_be_bytes(*topic_len));
        answer_id(kind, rest.get(topic_len..).unwrap_or_default(), answers);
    }
}

fn answer_id(kind: u8, body: &[u8], answers: &mut Vec<u8>) {
    if let Some(&[high, low]) = body.first_chunk() {
        answers.extend([kind, 2, high, low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::{
        packets::{connect, plain_block},
        target::Version,
    };

    fn answers(bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let rest = answer(bytes, &mut out).unwrap().len();
        (out, rest)
    }

    #[test]
    fn every_qos_gets_its_ack() {
        for (qos, expected) in [(0, &[][..]), (1, &[0x40, 2, 0, 9]), (2, &[0x50, 2, 0, 9])] {
            for version in [Version::V311, Version::V5] {
                let mut block = plain_block(version, qos, "a/b", "{\"t\":1}", 1).unwrap();
                let bytes = block.messages(8, 1, 0).0.to_vec();
                assert_eq!(answers(&bytes), (expected.to_vec(), 0), "QoS {qos}");
            }
        }
        let rest = [0x62, 2, 0, 9, 0xc0, 0, 0x30];
        assert_eq!(answers(&rest), (vec![0x70, 2, 0, 9, 0xd0, 0], 1));
    }

    #[test]
    fn each_version_gets_its_connack() {
        for (version, expected) in [
            (Version::V311, &[0x20, 2, 0, 0][..]),
            (Version::V5, &[0x20, 3, 0, 0, 0]),
        ] {
            let bytes = connect(version, "id", ("token", ""), false).unwrap();
            assert_eq!(answers(&bytes).0, expected);
        }
    }
}
