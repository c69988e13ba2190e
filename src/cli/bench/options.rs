//! What load is asked for, checked before anything is opened.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, value_parser};

use crate::cli::{
    CliError,
    bench::{
        load::Plan,
        payload::{self, Template},
        target::{self, Target, TargetArguments},
    },
};

/// Connections at most: beyond it one process has no descriptors left almost everywhere.
pub(super) const CONNECTIONS_MAX: i64 = 60_000;
/// Messages in flight on one connection at most: half of the packet ids, so that none is reused
/// while it waits.
const WINDOW_MAX: i64 = 32_767;
/// Window of a paced run that names none: the Receive Maximum that Tollgate grants.
const WINDOW_PACED: u32 = 100;
/// Bytes of a payload: the least is `{"t":1}`, the most is twice what Tollgate takes by default.
const PAYLOAD: std::ops::RangeInclusive<i64> = 7..=512 * 1024;

/// How much, how fast and how long: shared by what publishes.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// Size of the payload, JSON
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u32).range(PAYLOAD))]
    pub(super) payload_bytes: u32,
    /// Messages in flight on each connection [default: 1, with --rate 100]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    window: Option<u32>,
    /// Messages a second over all connections, evenly paced [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// With --rate: messages that a connection sends in one write, up to its window
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    together: u32,
    /// How long messages are sent
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(super) struct Ingest {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    #[command(flatten)]
    pace: Pace,
    /// Connections, all open before the first message
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Quality of service
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Text of the payload instead of a size. In it {connection} is the connection's number,
    /// {time} microseconds and {random} a number from 100 to 999, both new in every message
    #[arg(long, value_name = "TEXT", conflicts_with = "payload_bytes")]
    payload: Option<String>,
    /// Topic of every message; may have {connection} in it
    #[arg(long, default_value = "v1/devices/me/telemetry")]
    topic: String,
    /// Tollgate's metrics (http://127.0.0.1:8080/metrics): wait until its history has caught up and
    /// compare what it received and stored with what was sent and acknowledged
    #[arg(long, value_name = "URL")]
    pub(super) ledger_url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Raw {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Address to listen on for TLS
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "certificate",
        requires = "key"
    )]
    tls_listen: Option<SocketAddr>,
    /// Certificates of the TLS listener, PEM
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    certificate: Option<PathBuf>,
    /// Their key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    key: Option<PathBuf>,
    /// How long it runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
}

impl Pace {
    /// The load of one kind of message.
    pub(super) fn plan(&self, target: &Target, qos: u8, topic: &str, payload: Template) -> Plan {
        Plan {
            version: target.version,
            qos,
            topic: topic.to_owned(),
            payload,
            window: match (self.window, self.rate) {
                (Some(window), _) => window,
                (None, Some(_)) => WINDOW_PACED,
                (None, None) => 1,
            },
            rate: self.rate,
            together: self.together,
            duration: Duration::from_secs(self.seconds),
            in_bursts: false,
        }
    }

    /// # Errors
    /// More at a time than the window holds, or without a rate.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let window = self.window.unwrap_or(WINDOW_PACED);
        if self.together > 1 && (self.rate.is_none() || self.together > window) {
            let what = format!("--together needs --rate, and is at most the window ({window})");
            return Err(CliError::Usage(what));
        }
        Ok(())
    }

    /// Messages in flight on each connection, where that was asked for.
    pub(super) fn window(&self) -> Option<u32> {
        self.window
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }
}

impl Raw {
    /// The TLS listener, if one is asked for: address, certificates, key.
    pub(super) fn tls(&self) -> Option<(SocketAddr, &Path, &Path)> {
        let (certificate, key) = (self.certificate.as_deref()?, self.key.as_deref()?);
        Some((self.tls_listen?, certificate, key))
    }
}

impl Ingest {
    /// Resolves the host, reads tokens and certificates; connects to nothing.
    pub(super) fn checked(&self) -> Result<(Target, Plan), CliError> {
        self.pace.check()?;
        target::check_topic("--topic", &self.topic)?;
        let target = self.target.checked(false)?;
        let payload = match &self.payload {
            Some(text) => Template::new(text),
            None => Template::new(&payload::of_size(self.pace.payload_bytes())),
        };
        let plan = self.pace.plan(&target, self.qos, &self.topic, payload);
        Ok((target, plan))
    }

    pub(super) fn connections(&self) -> usize {
        self.connections as usize
    }
}
