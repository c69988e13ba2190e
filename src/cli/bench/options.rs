//! What was asked of a load test, checked before anything is opened.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum, value_parser};

use crate::cli::{CliError, bench::BenchError};

/// Connections at most: beyond it one source address has no ports left.
const CONNECTIONS_MAX: i64 = 60_000;
/// Messages in flight on one connection at most: half of the packet ids, so that none is reused
/// while it waits.
const WINDOW_MAX: i64 = 32_767;
/// Window of a paced run that names none: the Receive Maximum that Tollgate grants.
const WINDOW_PACED: u32 = 100;
/// Bytes of a payload: the least is `{"t":1}`, the most is twice what Tollgate takes by default.
const PAYLOAD: std::ops::RangeInclusive<i64> = 7..=512 * 1024;

#[derive(Debug, Args)]
pub(super) struct Ingest {
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
    /// Connections, all open before the first message
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Quality of service
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Size of the payload, JSON
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u32).range(PAYLOAD))]
    payload_bytes: u32,
    /// Messages in flight on each connection [default: 1, with --rate 100]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    window: Option<u32>,
    /// Messages a second over all connections, evenly paced [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Topic of every message
    #[arg(long, default_value = "v1/devices/me/telemetry")]
    topic: String,
    /// MQTT version
    #[arg(long, value_enum, default_value_t = Version::V311)]
    mqtt: Version,
    /// Speak TLS
    #[arg(long, requires = "cafile")]
    tls: bool,
    /// PEM file with the CA that signed the broker's certificate
    #[arg(long, value_name = "FILE", requires = "tls")]
    cafile: Option<PathBuf>,
    /// Connect from these addresses in turn
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// How long messages are sent
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Process of the broker on this machine: adds its CPU time per message and its memory
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Raw {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// How long it runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u64).range(1..=3600))]
    pub(super) seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Version {
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

/// A load test that can be run.
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    /// What was typed: certificates and messages name it.
    pub(super) host: String,
    pub(super) tokens: Vec<String>,
    pub(super) password: String,
    pub(super) connections: usize,
    pub(super) qos: u8,
    pub(super) payload_bytes: usize,
    /// Messages in flight per connection; QoS 0 has no acks to wait for.
    pub(super) window: u32,
    /// Messages a second over all connections; `None` is as fast as possible.
    pub(super) rate: Option<u32>,
    pub(super) topic: String,
    pub(super) version: Version,
    pub(super) cafile: Option<PathBuf>,
    pub(super) sources: Vec<IpAddr>,
    pub(super) duration: Duration,
    pub(super) broker_pid: Option<u32>,
    pub(super) json: bool,
}

impl Ingest {
    /// Resolves the host and reads the tokens.
    pub(super) fn checked(&self) -> Result<Plan, CliError> {
        if self.topic.is_empty() || self.topic.len() > 65_535 || self.topic.contains(['+', '#']) {
            return Err(CliError::Usage("--topic is not a topic name".to_owned()));
        }
        let address = self.address()?;
        let window = match (self.window, self.rate) {
            (Some(window), _) => window,
            (None, Some(_)) => WINDOW_PACED,
            (None, None) => 1,
        };
        Ok(Plan {
            address,
            host: self.host.clone(),
            tokens: self.tokens()?,
            password: self.password.clone(),
            connections: usize::try_from(self.connections).expect("the parser bounds it to 60,000"),
            qos: self.qos,
            payload_bytes: usize::try_from(self.payload_bytes)
                .expect("the parser bounds it to 512 KiB"),
            window,
            rate: self.rate,
            topic: self.topic.clone(),
            version: self.mqtt,
            cafile: self.cafile.clone().filter(|_| self.tls),
            sources: self.source.clone(),
            duration: Duration::from_secs(self.seconds),
            broker_pid: self.broker_pid,
            json: self.json,
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

    fn tokens(&self) -> Result<Vec<String>, CliError> {
        let Some(path) = &self.tokens else {
            return Ok(self.token.iter().cloned().collect());
        };
        let text = fs::read_to_string(path).map_err(|source| BenchError::File {
            path: path.clone(),
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
}
