//! The broker under test, and who connects to it: checked before anything is opened.

use std::{
    cell::Cell,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use clap::{Args, ValueEnum};

use crate::cli::{
    CliError,
    bench::{BenchError, packets, tls::Tls},
};

/// The ports that Linux gives to clients by default: the first, and how many.
const PORT_FIRST: u16 = 32_768;
pub(super) const PORTS: u16 = 28_232;
/// Connections to a broker on this machine that come from 127.0.0.1; so many more come from
/// 127.0.0.2, and so on, around and around.
const LOOPBACK_GROUP: usize = 10_000;
const LOOPBACK_GROUPS: usize = 6;
/// Bytes of a client id at most in MQTT 3.1, which has the least room.
const CLIENT_ID_BYTES_MAX: usize = 23;

#[derive(Debug, Args)]
pub(super) struct TargetArguments {
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the broker
    #[arg(long, default_value_t = 1883)]
    port: u16,
    /// File with a token per line: one per connection, from the top again when they run out
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    tokens: Option<PathBuf>,
    /// One token for all connections
    #[arg(long)]
    token: Option<String>,
    /// Password beside the token, for brokers that ask for one
    #[arg(long, default_value = "", hide_default_value = true)]
    password: String,
    /// MQTT version
    #[arg(long, value_enum, default_value_t = Version::V311)]
    mqtt: Version,
    /// Speak TLS
    #[arg(long, requires = "cafile")]
    tls: bool,
    /// PEM file with the CA that signed the broker's certificate
    #[arg(long, value_name = "FILE", requires = "tls")]
    cafile: Option<PathBuf>,
    /// Connect from these addresses in turn: each has 28,000 ports
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// Process of the broker on this machine: adds its CPU time and its memory
    #[arg(long, value_name = "PID")]
    pub(super) broker_pid: Option<u32>,
    /// Count the broker's instructions with `perf stat` where the machine has counters
    #[arg(long, requires = "broker_pid")]
    pub(super) perf: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Version {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

impl Version {
    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        }
    }
}

/// A broker, and the connections it is to get.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) version: Version,
    pub(super) tls: Option<Tls>,
    tokens: Vec<String>,
    password: String,
    /// Sessions outlive their connections.
    is_kept: bool,
    sources: Vec<IpAddr>,
    /// Port of the next connection with a source address, in [`PORTS`] from 0.
    next_port: Cell<u16>,
    run: u32,
}

impl TargetArguments {
    /// Resolves the host, reads tokens and certificates; connects to nothing. With `resumes` TLS
    /// connections use the tickets of earlier ones.
    pub(super) fn checked(&self, resumes: bool) -> Result<Target, CliError> {
        let cafile = self.cafile.as_deref().filter(|_| self.tls);
        let tls = cafile.map(|cafile| Tls::new(cafile, &self.host, resumes));
        Ok(Target {
            address: self.address()?,
            version: self.mqtt,
            tls: tls.transpose()?,
            tokens: match (&self.tokens, &self.token) {
                (Some(path), _) => read_tokens(path)?,
                (None, token) => token.iter().cloned().collect(),
            },
            password: self.password.clone(),
            is_kept: false,
            sources: self.source.clone(),
            next_port: Cell::new(first_port()),
            run: std::process::id(),
        })
    }

    fn address(&self) -> Result<SocketAddr, BenchError> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let first = found.and_then(|mut found| {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            found.next().ok_or_else(none)
        });
        first.map_err(|source| BenchError::NoBroker {
            address: format!("{}:{}", self.host, self.port),
            source,
        })
    }
}

impl Target {
    /// The same broker with one token for all: for subscribers and probes. Their client ids have
    /// another mark.
    pub(super) fn with_token(&self, token: &str) -> Target {
        Target {
            tokens: vec![token.to_owned()],
            ..self.with_sessions(self.is_kept)
        }
    }

    /// The same clients, whose sessions outlive their connections, or end with them.
    pub(super) fn with_sessions(&self, is_kept: bool) -> Target {
        Target {
            address: self.address,
            version: self.version,
            tls: self.tls.clone(),
            tokens: self.tokens.clone(),
            password: self.password.clone(),
            is_kept,
            sources: self.sources.clone(),
            next_port: Cell::new(first_port()),
            run: self.run,
        }
    }

    /// CONNECT of a connection; `mark` tells groups of one run apart.
    pub(super) fn connect(&self, mark: char, number: usize) -> Result<BytesMut, BenchError> {
        let client_id = format!("b{mark}{:x}-{number}", self.run);
        debug_assert!(client_id.len() <= CLIENT_ID_BYTES_MAX, "{client_id}");
        let token = pick(&self.tokens, number).map_or("", String::as_str);
        let login = (token, self.password.as_str());
        packets::connect(self.version, &client_id, login, self.is_kept)
    }

    /// Why connections are gone that the broker closed, if it is that they share tokens.
    pub(super) fn taken_over(&self, ended: u64, connections: usize) -> Option<BenchError> {
        let tokens = self.tokens.len();
        (ended > 0 && tokens > 0 && tokens < connections).then_some(BenchError::TakenOver {
            ended,
            connections,
            tokens,
        })
    }

    /// Address and port that a connection comes from; `None` leaves both to the system.
    ///
    /// The system looks for a free port one by one, which takes a millisecond when half of them
    /// are taken: a storm would measure that. So the port is chosen here, another one each time,
    /// and to a broker on this machine many connections come from several of its addresses.
    pub(super) fn source(&self, number: usize) -> Option<SocketAddr> {
        let source = match (pick(&self.sources, number), self.address.ip()) {
            (Some(source), _) => *source,
            (None, IpAddr::V4(ip)) if ip.is_loopback() => {
                let group = u8::try_from(number / LOOPBACK_GROUP % LOOPBACK_GROUPS);
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + group.unwrap_or(0)))
            }
            (None, _) => return None,
        };
        let place = self.next_port.get() % PORTS;
        self.next_port.set(place + 1);
        Some(SocketAddr::new(source, PORT_FIRST + place))
    }
}

/// Where the ports of a run begin: runs at the same time should not meet.
fn first_port() -> u16 {
    let pid = std::process::id();
    u16::try_from(pid.wrapping_mul(7919) % u32::from(PORTS)).expect("less than 28,232")
}

/// The entry whose turn it is.
fn pick<T>(list: &[T], number: usize) -> Option<&T> {
    list.get(number.checked_rem(list.len())?)
}

fn read_tokens(path: &Path) -> Result<Vec<String>, CliError> {
    let text = fs::read_to_string(path).map_err(|source| BenchError::File {
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<String> = lines.map(str::to_owned).collect();
    if tokens.is_empty() {
        let path = path.display();
        return Err(CliError::Usage(format!("--tokens: {path} has no token")));
    }
    Ok(tokens)
}

/// A topic name that can be published to.
pub(super) fn check_topic(flag: &str, topic: &str) -> Result<(), CliError> {
    if topic.is_empty() || topic.len() > 65_535 || topic.contains(['+', '#', '\0']) {
        return Err(CliError::Usage(format!("{flag} is not a topic name")));
    }
    Ok(())
}
