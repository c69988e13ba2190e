//! The broker's own messages: on stderr, because stdout belongs to the banner and to `ready`.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Sends every message of this process to stderr as configured. A second call does nothing.
pub(super) fn start(log: &Log) {
    // The filter was checked by `config`; a part this library cannot read is left out, not fatal.
    let filter = EnvFilter::builder().parse_lossy(&log.level);
    let builder = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error here means that a subscriber is set already, which is what we want.
    let _ = match log.format {
        LogFormat::Json => tracing::subscriber::set_global_default(builder.json().finish()),
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal());
            tracing::subscriber::set_global_default(builder.finish())
        }
    };
}
