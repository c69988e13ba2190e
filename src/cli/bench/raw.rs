//! `tollgate bench raw`: a sink that only frames and acks, and copies each message to everybody
//! who subscribed, whatever to. No broker can do less, so its figures are what the kernel, TLS and
//! the generator cost in the same run.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::cli::bench::{
    BenchError, frame,
    options::Raw,
    poll::Poll,
    tls::{Accepted, Acceptor},
};

/// The listeners' keys; connections have the ones below.
const LISTENER: usize = usize::MAX;
const TLS_LISTENER: usize = usize::MAX - 1;
/// How long a wait lasts when nothing happens: the end must be noticed.
const WAIT: Duration = Duration::from_millis(50);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Answers of a connection that does not read them: beyond it the connection is closed.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A packet that has not ended by then is not one of a load test: the connection is closed.
const PARTIAL_BYTES_MAX: usize = 1024 * 1024;

/// Answers everybody until the time is over.
pub(super) fn run(options: &Raw) -> Result<(), BenchError> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let poll = Poll::new()?;
    let listener = listen(options.listen, &poll, LISTENER)?;
    let tls = match options.tls() {
        Some((address, certificate, key)) => {
            let acceptor = Acceptor::new(certificate, key)?;
            Some((listen(address, &poll, TLS_LISTENER)?, acceptor))
        }
        None => None,
    };
    let mut clients = Clients::new(poll);
    let mut keys = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    while Instant::now() < end {
        clients.poll.wait(WAIT, &mut keys)?;
        for &key in &keys {
            match (key, &tls) {
                (LISTENER, _) => clients.accept(&listener, None)?,
                (TLS_LISTENER, Some((listener, acceptor))) => {
                    clients.accept(listener, Some(acceptor))?;
                }
                _ => clients.serve(key, &mut buffer),
            }
        }
    }
    Ok(())
}

fn listen(address: std::net::SocketAddr, poll: &Poll, key: usize) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    poll.add(&listener, key)?;
    Ok(listener)
}

/// Everybody who is connected; a key is a place.
struct Clients {
    poll: Poll,
    places: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Places of those who subscribed.
    subscribers: Vec<usize>,
    messages: Messages,
}

/// What subscribers are to get.
#[derive(Default)]
struct Messages {
    /// Somebody subscribed: messages are copied.
    are_wanted: bool,
    bytes: Vec<u8>,
    /// The last packet id; all subscribers get the same ones.
    packet_id: u16,
}

impl Clients {
    fn new(poll: Poll) -> Clients {
        Clients {
            poll,
            places: Vec::new(),
            free: Vec::new(),
            subscribers: Vec::new(),
            messages: Messages::default(),
        }
    }

    fn serve(&mut self, key: usize, buffer: &mut [u8]) {
        let Some(Some(client)) = self.places.get_mut(key) else {
            return;
        };
        let was_subscriber = client.is_subscriber;
        let served = client.serve(buffer, &mut self.messages);
        if client.is_subscriber && !was_subscriber {
            self.subscribers.push(key);
            self.messages.are_wanted = true;
        }
        if served.is_err() {
            self.remove(key);
        }
        self.deliver();
    }

    /// What was published just now, in one write to each subscriber.
    fn deliver(&mut self) {
        if self.messages.bytes.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for &key in &self.subscribers {
            if let Some(Some(client)) = self.places.get_mut(key)
                && client.send(&self.messages.bytes).is_err()
            {
                gone.push(key);
            }
        }
        self.messages.bytes.clear();
        gone.into_iter().for_each(|key| self.remove(key));
    }

    fn remove(&mut self, key: usize) {
        if let Some(place) = self.places.get_mut(key) {
            *place = None;
            self.free.push(key);
            self.subscribers.retain(|&other| other != key);
            self.messages.are_wanted = !self.subscribers.is_empty();
        }
    }

    fn accept(&mut self, listener: &TcpListener, tls: Option<&Acceptor>) -> Result<(), BenchError> {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Whoever left before it was taken in is no reason to stop.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let key = self.free.pop().unwrap_or(self.places.len());
            self.poll.add(&socket, key)?;
            let stream = match tls {
                Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(socket)?)),
                None => Stream::Plain(socket),
            };
            let client = Client::new(stream);
            match self.places.get_mut(key) {
                Some(place) => *place = Some(client),
                None => self.places.push(Some(client)),
            }
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<Accepted>),
}

struct Client {
    stream: Stream,
    is_version_5: bool,
    is_subscriber: bool,
    /// The start of a packet whose end has not come.
    partial: Vec<u8>,
    /// What is to be sent; empty when the socket took all.
    answers: Vec<u8>,
}

impl Client {
    fn new(stream: Stream) -> Client {
        Client {
            stream,
            is_version_5: false,
            is_subscriber: false,
            partial: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Reads until the socket is empty and answers each read in one write.
    fn serve(&mut self, buffer: &mut [u8], messages: &mut Messages) -> io::Result<()> {
        self.write()?;
        loop {
            // A short start of a packet stands before what is read, so that no connection needs a
            // buffer for both.
            let kept = self.partial.len();
            let joined = if kept <= READ_BYTES / 2 { kept } else { 0 };
            if let Some(front) = buffer.get_mut(..joined) {
                front.copy_from_slice(self.partial.get(..joined).unwrap_or_default());
            }
            let (len, is_more) = match self.read(buffer.get_mut(joined..).unwrap_or_default()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let bytes = buffer.get(..joined + len).unwrap_or_default();
            if joined == kept {
                let rest = self.answer(bytes, messages)?;
                self.partial.clear();
                self.partial.extend_from_slice(rest);
            } else {
                let mut long = std::mem::take(&mut self.partial);
                long.extend_from_slice(bytes);
                let rest = self.answer(&long, messages)?.to_vec();
                self.partial = rest;
            }
            self.write()?;
            let is_stuck = self.answers.len() > UNSENT_BYTES_MAX;
            if is_stuck || self.partial.len() > PARTIAL_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !is_more {
                return Ok(()); // a short read has emptied the socket
            }
        }
    }

    /// Reads once; true means that there may be more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        match &mut self.stream {
            Stream::Plain(socket) => {
                let len = socket.read(buffer)?;
                Ok((len, len == buffer.len()))
            }
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    /// Sends bytes behind what waits.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.answers.is_empty()
            && let Stream::Plain(socket) = &mut self.stream
        {
            match socket.write(bytes) {
                Ok(len) => rest = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.answers.extend_from_slice(rest);
        if self.answers.len() > UNSENT_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let outcome = loop {
            let rest = self.answers.get(sent..).unwrap_or_default();
            let written = match &mut self.stream {
                Stream::Plain(_) if rest.is_empty() => break Ok(()),
                Stream::Plain(socket) => socket.write(rest),
                Stream::Tls(stream) => stream.write(rest),
            };
            match written {
                // TLS writes what it holds even where nothing is added; a full one takes nothing.
                Ok(0) => break Ok(()),
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.answers.drain(..sent);
        outcome
    }

    /// Notes the answers to the whole packets of `bytes` and returns what is behind them.
    fn answer<'a>(&mut self, bytes: &'a [u8], messages: &mut Messages) -> io::Result<&'a [u8]> {
        let mut rest = bytes;
        while let Some(packet) = frame::split(rest) {
            let whole = rest.get(..rest.len() - packet.rest.len());
            rest = packet.rest;
            let answers = &mut self.answers;
            match packet.first >> 4 {
                // Protocol level 5 behind the name "MQTT": CONNACK has properties, none here.
                1 if packet.body.get(6) == Some(&5) => {
                    self.is_version_5 = true;
                    answers.extend([0x20, 3, 0, 0, 0]);
                }
                1 => answers.extend([0x20, 2, 0, 0]),
                3 => {
                    answer_publish(packet.first, packet.body, answers);
                    messages.add(whole.unwrap_or_default(), packet.body);
                }
                6 => answer_id(0x70, packet.body, answers),
                8 => {
                    answer_subscribe(packet.body, self.is_version_5, answers);
                    self.is_subscriber = true;
                }
                12 => answers.extend([0xd0, 0]),
                14 => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
        Ok(rest)
    }
}

impl Messages {
    /// Copies a PUBLISH, with a packet id of its own if it has one.
    fn add(&mut self, packet: &[u8], body: &[u8]) {
        if !self.are_wanted {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        let has_id = packet.first().is_some_and(|first| first & 0b110 != 0);
        if let (true, Some((topic_len, _))) = (has_id, body.split_first_chunk()) {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            let at = start + packet.len() - body.len() + 2;
            let at = at + usize::from(u16::from_be_bytes(*topic_len));
            if let Some(id) = self.bytes.get_mut(at..at + 2) {
                id.copy_from_slice(&self.packet_id.to_be_bytes());
            }
        }
    }
}

/// Grants every filter what was asked for.
fn answer_subscribe(body: &[u8], is_version_5: bool, answers: &mut Vec<u8>) {
    let Some((id, mut rest)) = body.split_first_chunk::<2>() else {
        return;
    };
    let mut granted = vec![id[0], id[1]];
    if is_version_5 {
        // The generator's properties have less than 128 bytes.
        let len = rest.first().copied().map_or(0, usize::from);
        rest = rest.get(1 + len..).unwrap_or_default();
        granted.push(0);
    }
    while let Some((len, behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len));
        let Some((options, behind)) = behind.get(len..).and_then(<[u8]>::split_first) else {
            break;
        };
        granted.push(options & 0b11);
        rest = behind;
    }
    answers.extend([0x90, u8::try_from(granted.len()).unwrap_or(u8::MAX)]);
    answers.extend(granted);
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

    fn client() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (
            Client::new(Stream::Plain(listener.accept().unwrap().0)),
            peer,
        )
    }

    fn answers(bytes: &[u8]) -> (Vec<u8>, usize) {
        let (mut client, _peer) = client();
        let rest = client
            .answer(bytes, &mut Messages::default())
            .unwrap()
            .len();
        (client.answers, rest)
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

    #[test]
    fn subscribers_get_each_message_with_an_id_of_its_own() {
        let (mut client, _peer) = client();
        let mut messages = Messages::default();
        let subscribe = [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'b', 1];
        let rest = client.answer(&subscribe, &mut messages).unwrap().len();
        assert_eq!((rest, client.is_subscriber), (0, true));
        assert_eq!(client.answers, [0x90, 3, 0, 1, 1]);
        messages.are_wanted = true;
        for (qos, ids) in [(0, [None; 2]), (1, [Some([0, 1]), Some([0, 2])])] {
            let mut block = plain_block(Version::V311, qos, "a/b", "{\"t\":1}", 1).unwrap();
            let bytes = block.messages(8, 1, 0).0.to_vec();
            for id in ids {
                messages.bytes.clear();
                client.answer(&bytes, &mut messages).unwrap();
                let mut expected = bytes.clone();
                if let Some(id) = id {
                    expected[7..9].copy_from_slice(&id);
                }
                assert_eq!(messages.bytes, expected, "QoS {qos}");
            }
        }
    }
}
