//! `tollgate bench`: load for any broker, and what it costs that broker.
//!
//! The generator must be much cheaper than any broker, or it measures itself: one thread, packets
//! encoded before the run, packet ids patched in place, one write per refill. [`raw`] is the floor:
//! a sink that only frames and acks, for ratios within one run.

mod connect;
mod cost;
mod error;
mod fanout;
mod frame;
mod idle;
mod ingest;
mod interrupt;
mod latency;
mod ledger;
mod link;
mod load;
mod opener;
mod options;
mod packets;
mod payload;
mod poll;
mod probe;
mod raw;
mod stalls;
mod store;
mod target;
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
    /// Open connections over and over, or all at once, and measure how long CONNACK takes
    Connect(Box<connect::Connect>),
    /// Hold connections on which nothing happens and measure what each costs in memory
    Idle(Box<idle::Idle>),
    /// Publish to subscribers and measure the deliveries
    Fanout(Box<fanout::Fanout>),
    /// Be a broker that only frames and acks: the floor to compare with
    Raw(options::Raw),
    /// Write a history without a broker and measure what it costs to keep and to ask
    Store(store::Store),
}

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    match arguments.command {
        Command::Ingest(options) => ingest::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::Fanout(options) => fanout::run(&options),
        Command::Raw(options) => Ok(raw::run(&options)?),
        Command::Store(options) => Ok(store::run(&options)?),
    }
}
