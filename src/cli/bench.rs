//! `tollgate bench`: load for any broker, and what it costs that broker.
//!
//! The generator must be much cheaper than any broker, or it measures itself: one thread, packets
//! encoded before the run, packet ids patched in place, one write per refill. [`raw`] is the floor:
//! a sink that only frames and acks, for ratios within one run.

mod error;
mod frame;
mod ingest;
mod latency;
mod link;
mod options;
mod packets;
mod poll;
mod process;
mod raw;
mod report;
mod store;
mod tls;

pub use error::BenchError;

use clap::{Args, Subcommand};

use crate::cli::CliError;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish as fast as a window allows, or at a steady rate, and measure the acks
    Ingest(Box<options::Ingest>),
    /// Be a broker that only frames and acks: the floor to compare with
    Raw(options::Raw),
    /// Write a history without a broker and measure what it costs to keep and to ask
    Store(store::Store),
}

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    match arguments.command {
        Command::Ingest(options) => ingest::run(&options.checked()?),
        Command::Raw(options) => Ok(raw::run(&options)?),
        Command::Store(options) => Ok(store::run(&options)?),
    }
}
