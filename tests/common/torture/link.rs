//! A connection of a client that expects it to break at any moment.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::site::Site;
use crate::common::packets::Connect;

/// How long the system may take to open a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How long one read waits before the client looks around.
const LOOK_AROUND: Duration = Duration::from_millis(20);

/// One connection.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    incoming: Vec<u8>,
    pub(crate) outgoing: Vec<u8>,
    pub(crate) pinged: Option<Instant>,
    pub(crate) next_ping: Instant,
}

/// Why a connection is over.
pub(crate) enum Over {
    /// The broker or the network ended it.
    Lost,
    /// The client connects again without closing first.
    Abandoned,
    /// There is nothing more to do.
    Done,
    /// A promise was broken.
    Violated(String),
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Over {
        Over::Lost
    }
}

impl Link {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Link> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        // Where nobody listens any more, the system may have given it that very port.
        if stream.local_addr()? == address {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_AROUND))?;
        stream.set_write_timeout(Some(LOOK_AROUND))?;
        Ok(Link {
            stream,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            pinged: None,
            next_ping: Instant::now(),
        })
    }

    /// Sends CONNECT and waits for a CONNACK that accepts it: whether the session was present.
    pub(crate) fn connect(
        &mut self,
        connect: &Connect<'_>,
        patience: Duration,
        site: &Site,
    ) -> Result<bool, Over> {
        self.stream.write_all(&connect.encode())?;
        let asked = Instant::now();
        let connack = loop {
            if let Some(packet) = self.take_packet() {
                break packet;
            }
            self.read()?;
            if site.is_abandoned() {
                return Err(Over::Done);
            }
            let waited = asked.elapsed();
            if waited > patience {
                return Err(Over::Violated(format!("no CONNACK for {waited:?}")));
            }
        };
        // The disk stays full for longer than an arrival may wait: it may try again.
        if let [0x20, _, 0, 0x97, ..] | [0x20, 2, 0, 3] = connack.as_slice() {
            return Err(Over::Lost);
        }
        let &[0x20, _, is_present, 0, ..] = connack.as_slice() else {
            // [MQTT-3.2.0-1]: nothing comes before it, not even a goodbye.
            let what = format!("instead of an accepting CONNACK: {connack:02x?}");
            return Err(Over::Violated(what));
        };
        Ok(is_present == 1)
    }

    /// Sends what the socket takes; the rest stays for the next time, so that a broker that does
    /// not read is still listened to.
    pub(crate) fn write(&mut self) -> std::io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if is_patience(error.kind()) => return Ok(()),
                // What came before the end is still there to be read, and then the end.
                Err(_) => self.outgoing.clear(),
            }
        }
        Ok(())
    }

    /// One read; nothing within [`LOOK_AROUND`] is fine.
    pub(crate) fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.incoming.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if is_patience(error.kind()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn take_packet(&mut self) -> Option<Vec<u8>> {
        let mut remaining = 0;
        for (place, &byte) in self.incoming.iter().skip(1).take(4).enumerate() {
            remaining += usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                let length = 2 + place + remaining;
                let is_whole = self.incoming.len() >= length;
                return is_whole.then(|| self.incoming.drain(..length).collect());
            }
        }
        None
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
