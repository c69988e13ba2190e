//! A client made of bytes: it sends what a test wants and shows what came back, nothing more.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::web::{self, Web};

/// How long an answer that must come may take, on a busy machine.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long a close that must come may take before the client is let in. Below the 10 s after
/// which a connection without CONNECT is closed anyway, so that it is not taken for the one
/// expected; behind a CONNACK it is [`ANSWER_LIMIT`].
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(9);

/// One connection.
pub(crate) struct Wire {
    stream: Stream,
    /// Frames around what is sent and received.
    web: Option<Box<Web>>,
    /// Read from the socket and not yet taken by the test.
    received: Vec<u8>,
    /// CONNACK has come and said yes.
    is_let_in: bool,
    ended: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects without TLS.
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        let socket = socket(address);
        Wire {
            stream: Stream::Plain(socket),
            web: None,
            received: Vec::new(),
            is_let_in: false,
            ended: false,
        }
    }

    /// Connects without TLS from an address of this machine, such as 127.0.0.2.
    pub(crate) fn connect_from(source: &str, address: SocketAddr) -> Wire {
        Wire {
            stream: Stream::Plain(socket_from(source, address)),
            web: None,
            received: Vec::new(),
            is_let_in: false,
            ended: false,
        }
    }

    /// TLS with settings and on a socket of the test's own.
    pub(crate) fn over_tls(config: Arc<ClientConfig>, name: &str, socket: TcpStream) -> Wire {
        let name = ServerName::try_from(name.to_owned()).expect("a valid name");
        let connection = ClientConnection::new(config, name).expect("a valid config");
        Wire {
            stream: Stream::Tls(Box::new(StreamOwned::new(connection, socket))),
            web: None,
            received: Vec::new(),
            is_let_in: false,
            ended: false,
        }
    }

    /// Asks for a WebSocket at `target`, with header lines of the test's own beside those that are
    /// needed; what comes back instead of one is in the error, as text.
    pub(crate) fn upgrade(mut self, target: &str, headers: &[String]) -> Result<Wire, String> {
        self.send_raw(&web::request(target, headers));
        let answer = self.http_answer();
        if !answer.starts_with("HTTP/1.1 101 ") {
            return Err(answer);
        }
        let mut web = Box::<Web>::default();
        let early = std::mem::take(&mut self.received);
        web.take(&early, &mut self.received);
        self.web = Some(web);
        Ok(self)
    }

    /// The head of a HTTP answer, and its body if the connection ends behind it.
    pub(crate) fn http_answer(&mut self) -> String {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let has_head = |bytes: &[u8]| bytes.windows(4).any(|four| four == b"\r\n\r\n");
        let is_switch = |bytes: &[u8]| bytes.starts_with(b"HTTP/1.1 101 ");
        while !(self.ended || has_head(&self.received) && is_switch(&self.received)) {
            let received = String::from_utf8_lossy(&self.received);
            assert!(Instant::now() < deadline, "no answer in time: {received}");
            self.fill(deadline);
        }
        let end = self
            .received
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let whole = self.ended.then_some(self.received.len());
        let len = whole.or(end.map(|at| at + 4)).unwrap_or(0);
        let rest = self.received.split_off(len);
        String::from_utf8_lossy(&std::mem::replace(&mut self.received, rest)).into_owned()
    }

    /// What the WebSocket has seen beside data.
    pub(crate) fn web(&self) -> &Web {
        self.web.as_ref().expect("this wire is a WebSocket")
    }

    /// Waits for a pong; its payload.
    pub(crate) fn pong(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let web = self.web.as_mut().expect("this wire is a WebSocket");
            if !web.pongs.is_empty() {
                return web.pongs.remove(0);
            }
            assert!(!self.ended && Instant::now() < deadline, "no pong in time");
            self.fill(deadline);
        }
    }

    /// The TLS state, for what only TLS tests look at.
    pub(crate) fn tls(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        match &mut self.stream {
            Stream::Tls(stream) => stream,
            Stream::Plain(_) => panic!("this wire has no TLS"),
        }
    }

    /// Ends the sending side; what the broker still says can be read.
    pub(crate) fn half_close(&self) {
        let _ = self.socket().shutdown(std::net::Shutdown::Write);
    }

    /// True as long as the broker has not closed: nothing is expected to be on its way.
    pub(crate) fn is_open(&mut self) -> bool {
        self.fill(Instant::now());
        !self.ended
    }

    /// Connects with TLS and verifies the certificate against the authority in `ca_file`.
    pub(crate) fn connect_tls(address: SocketAddr, ca_file: &Path) -> Wire {
        Wire::over_tls(client_config(ca_file), "localhost", socket(address))
    }

    /// Sends bytes; a peer that has closed already is noticed by the next read, not here. In a
    /// WebSocket they are one frame.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self.web {
            Some(_) => self.send_raw(&web::frame(web::BINARY, bytes)),
            None => self.send_raw(bytes),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let sent = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        if let Err(error) = sent {
            assert!(is_closed(error.kind()), "sending failed: {error}");
        }
    }

    /// Sends bytes given in hexadecimal; blanks are skipped.
    pub(crate) fn send_hex(&mut self, text: &str) {
        self.send(&hex(text));
    }

    /// The next packet, whole.
    ///
    /// # Panics
    /// If the broker closes or stays silent instead.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        match self.packet_or_close(ANSWER_LIMIT) {
            Some(packet) => packet,
            None => panic!(
                "closed before a packet; left over: {}",
                show(&self.received)
            ),
        }
    }

    /// The next packet, or None if the broker closed without one.
    ///
    /// # Panics
    /// If neither happens in time.
    pub(crate) fn packet_or_close(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(packet) = self.take_packet() {
                return Some(packet);
            }
            if self.ended {
                return None;
            }
            let received = show(&self.received);
            assert!(
                Instant::now() < deadline,
                "neither packet nor close in time: {received}"
            );
            self.fill(deadline);
        }
    }

    /// The next packet if it comes within `limit`; None also after a close.
    pub(crate) fn packet_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        while !self.ended && packet_length(&self.received).is_none() && Instant::now() < deadline {
            self.fill(deadline);
        }
        self.take_packet()
    }

    /// Waits for the close and does not look at what comes before it.
    pub(crate) fn skip_until_close(&mut self) {
        let deadline = Instant::now() + self.close_limit();
        while !self.ended {
            assert!(
                Instant::now() < deadline,
                "no close in time: {}",
                show(&self.received)
            );
            self.fill(deadline);
        }
    }

    /// Finishes the TLS handshake without sending anything of MQTT.
    pub(crate) fn finish_handshake(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            while stream.conn.is_handshaking() {
                stream
                    .conn
                    .complete_io(&mut stream.sock)
                    .expect("the handshake works");
            }
        }
    }

    /// Expects exactly this packet next, given in hexadecimal.
    pub(crate) fn expect(&mut self, expected: &str) {
        let packet = self.packet();
        assert_eq!(show(&packet), show(&hex(expected)), "expected the second");
    }

    /// Expects the close next, and no packet before it.
    pub(crate) fn expect_close(&mut self) {
        if let Some(packet) = self.packet_or_close(self.close_limit()) {
            panic!("{} instead of a close", show(&packet));
        }
        assert!(
            self.received.is_empty(),
            "half a packet: {}",
            show(&self.received)
        );
    }

    /// Everything that still comes until the close, packet by packet.
    ///
    /// # Panics
    /// If the broker does not close in time.
    pub(crate) fn packets_until_close(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(packet) = self.packet_or_close(self.close_limit()) {
            packets.push(packet);
        }
        packets
    }

    /// Shows that nothing was on its way: a PINGREQ is answered next.
    ///
    /// This covers deliveries and closes. PINGRESP may pass waiting acknowledgements, so for
    /// "no acknowledgement" use a marker PUBLISH of QoS 1 (they leave in order).
    pub(crate) fn expect_alive(&mut self) {
        self.send(&[0xc0, 0]);
        self.expect("d000");
    }

    /// Gives the connection up so that the peer gets a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.socket(), Some(Duration::ZERO))
            .expect("the option exists for TCP");
    }

    fn close_limit(&self) -> Duration {
        if self.is_let_in {
            ANSWER_LIMIT
        } else {
            CLOSE_LIMIT
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    /// The first packet of what was received, if all of it is there.
    fn take_packet(&mut self) -> Option<Vec<u8>> {
        let length = packet_length(&self.received)?;
        let rest = self.received.split_off(length);
        let packet = std::mem::replace(&mut self.received, rest);
        self.is_let_in |= matches!(packet[..], [0x20, _, _, 0, ..]);
        Some(packet)
    }

    /// One read that waits at most until the deadline.
    fn fill(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1)); // zero would mean "for ever"
        self.socket()
            .set_read_timeout(Some(left))
            .expect("a timeout above zero is valid");
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(socket) => socket.read(&mut chunk),
            Stream::Tls(stream) => stream.read(&mut chunk),
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => match &mut self.web {
                Some(web) => web.take(&chunk[..count], &mut self.received),
                None => self.received.extend_from_slice(&chunk[..count]),
            },
            Err(error) if is_closed(error.kind()) => self.ended = true,
            Err(error) => assert!(
                // Interrupted: a read with a limit ends so when the machine was halted and goes on.
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ),
                "reading failed: {error}"
            ),
        }
    }
}

/// One read, again where a halt of the machine interrupted it (signal(7): reads with a limit are
/// not begun anew by the kernel).
pub(crate) fn read_some(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match from.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Bytes from hexadecimal text; blanks are skipped.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16);
    digits
        .chunks(2)
        .map(|pair| byte(pair).expect("hexadecimal digits"))
        .collect()
}

/// Bytes as hexadecimal text.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The length of the packet at the front, if all of it is there.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (place, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining += usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let length = 2 + place + remaining;
            return (bytes.len() >= length).then_some(length);
        }
    }
    None
}

/// A peer that closes while bytes of ours are unread answers with a reset: closed all the same.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
    )
}

/// Settings of a TLS client that trusts the authority in `ca_file`. It remembers sessions.
pub(crate) fn client_config(ca_file: &Path) -> Arc<ClientConfig> {
    client_config_with(ca_file, rustls::crypto::aws_lc_rs::default_provider())
}

/// As [`client_config`], with suites of its own.
pub(crate) fn client_config_with(ca_file: &Path, provider: CryptoProvider) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).expect("the CA file opens") {
        roots
            .add(certificate.expect("the CA file is PEM"))
            .expect("a usable CA");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A socket from an address of this machine.
pub(crate) fn socket_from(source: &str, address: SocketAddr) -> TcpStream {
    let source: std::net::IpAddr = source.parse().expect("an address");
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )
    .expect("a socket");
    socket
        .bind(&SocketAddr::new(source, 0).into())
        .expect("this machine has the whole of 127.0.0.0/8");
    socket
        .connect_timeout(&address.into(), ANSWER_LIMIT)
        .unwrap_or_else(|error| panic!("no connection from {source} to {address}: {error}"));
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true).expect("TCP has this option");
    socket
        .set_write_timeout(Some(ANSWER_LIMIT))
        .expect("a timeout above zero is valid");
    socket
}

pub(crate) fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, ANSWER_LIMIT)
        .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    socket.set_nodelay(true).expect("TCP has this option");
    socket
        .set_write_timeout(Some(ANSWER_LIMIT))
        .expect("a timeout above zero is valid");
    socket
}
