//! Why a load test was not run, or not to its end.

use std::{io, path::PathBuf};

/// Why a load test was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The address has no host that can be found, or nothing answers there.
    #[error("no broker answers at {address}: {source}")]
    NoBroker {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// CONNACK carries a refusal.
    #[error(
        "connection {connection} was refused with CONNACK code {code:#04x}: is its token known?"
    )]
    Refused {
        /// Number of the connection, from 0.
        connection: usize,
        /// Return code (MQTT 3.1.1) or reason code (MQTT 5).
        code: u8,
    },
    /// What came back is no CONNACK.
    #[error("connection {connection}: what answers speaks no MQTT ({what})")]
    NoConnack {
        /// Number of the connection, from 0.
        connection: usize,
        /// What came instead.
        what: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or a name that TLS cannot use.
    #[error("TLS: {0}")]
    Tls(String),
    /// The packets cannot be encoded.
    #[error("the packets cannot be encoded: {0}")]
    Encode(String),
    /// The system refused something that the generator needs.
    #[error("the load generator: {0}")]
    System(#[from] io::Error),
    /// The run ended, but not every message was acknowledged.
    #[error(
        "{lost} connections were lost, {unacknowledged} messages have no ack, {refused} were \
         refused: the figures are not a result"
    )]
    Incomplete {
        /// Connections that ended during the run.
        lost: u64,
        /// Messages sent and not acknowledged.
        unacknowledged: u64,
        /// Acks with a reason code of 0x80 or more.
        refused: u64,
    },
}

impl BenchError {
    /// The process's exit code; the table is in the comment of `cli`.
    pub fn exit_code(&self) -> u8 {
        match self {
            BenchError::NoBroker { .. } => 5,
            BenchError::Refused { .. } => 6,
            BenchError::Tls(_) | BenchError::Encode(_) => 2,
            BenchError::NoConnack { .. }
            | BenchError::File { .. }
            | BenchError::System(_)
            | BenchError::Incomplete { .. } => 1,
        }
    }
}
