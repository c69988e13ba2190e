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
        "{connections} connections were refused with CONNACK code {code:#04x}{}", hint(*code)
    )]
    Refused {
        /// How many.
        connections: u64,
        /// Return code (MQTT 3.1.1) or reason code (MQTT 5).
        code: u8,
    },
    /// Some connections came to no CONNACK.
    #[error("{connections} connections were not opened: {what}")]
    NotOpened {
        /// How many.
        connections: u64,
        /// What went wrong with the first of them.
        what: String,
    },
    /// Ctrl-C came while connections were opened: nothing was measured.
    #[error("ended by Ctrl-C before all connections were open")]
    Interrupted,
    /// SUBACK carries a refusal.
    #[error("the broker refused the subscription to {filter} with SUBACK code {code:#04x}")]
    NotSubscribed {
        /// What was asked for.
        filter: String,
        /// Return code (MQTT 3.1.1) or reason code (MQTT 5).
        code: u8,
    },
    /// The broker's own figures cannot be read.
    #[error("{url}: the metrics cannot be read: {what}")]
    Metrics {
        /// Where they were looked for.
        url: String,
        /// What came instead.
        what: String,
    },
    /// The broker counted something else than the generator.
    #[error("the ledger does not balance: {0}")]
    Ledger(String),
    /// Idle connections that are not as they should be.
    #[error("{lost} idle connections were lost, {silent} did not answer PINGREQ")]
    Idle {
        /// Connections that ended.
        lost: u64,
        /// Connections of the sample that did not answer.
        silent: u64,
    },
    /// Deliveries that were due and did not come, or came more often.
    #[error("{expected} deliveries were due, {delivered} came")]
    Deliveries {
        /// Messages times the subscribers that asked for them.
        expected: u64,
        /// What came.
        delivered: u64,
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
    /// Connections share tokens, and the broker closed all but the newest of each.
    #[error(
        "{ended} of {connections} connections were closed by the broker: they share {tokens} \
         tokens, and a device has one connection at a time. Give a token for each with --tokens \
         (`tollgate device import FILE --tokens-out` makes them), or fewer --connections"
    )]
    TakenOver {
        /// Connections that ended.
        ended: u64,
        /// All of them.
        connections: usize,
        /// What they share.
        tokens: usize,
    },
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
            BenchError::Refused { .. } | BenchError::NotSubscribed { .. } => 6,
            BenchError::Tls(_) | BenchError::Encode(_) => 2,
            BenchError::NotOpened { .. }
            | BenchError::Interrupted
            | BenchError::Metrics { .. }
            | BenchError::Ledger(_)
            | BenchError::Idle { .. }
            | BenchError::Deliveries { .. }
            | BenchError::File { .. }
            | BenchError::System(_)
            | BenchError::TakenOver { .. }
            | BenchError::Incomplete { .. } => 1,
        }
    }
}

/// What the usual codes of a refusal mean for who runs a load test.
fn hint(code: u8) -> &'static str {
    match code {
        0x04 | 0x05 | 0x86 | 0x87 => ": are the tokens known?",
        0x03 | 0x88 | 0x97 => ": the broker has reached a limit, or has one per client or token",
        _ => "",
    }
}
