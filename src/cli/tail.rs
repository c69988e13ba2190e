//! `tollgate tail`: what devices send, as it becomes durable.

use std::io::BufRead as _;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    cli::{
        CliError,
        client::{Client, Target, path_step},
        moment, print,
        table::shown,
    },
    config::Sources,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Names or ids of devices [default: all of them]
    devices: Vec<String>,
    /// Start here instead of now: earliest, an offset, RFC 3339 or milliseconds since the epoch;
    /// as far as the journal goes back
    #[arg(long, value_name = "START")]
    from: Option<String>,
    /// Leave out what is marked as perhaps somebody else's (device revoke --since)
    #[arg(long)]
    without_suspect: bool,
    /// Print one JSON object a line, as the broker sends it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// A line of the broker's reply: a message, or which records are gone.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    device: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    suspect: bool,
    missed_from: Option<u64>,
    missed_to: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let mut parameters = Vec::new();
    if !arguments.devices.is_empty() {
        let devices: Vec<String> = arguments
            .devices
            .iter()
            .map(|name| path_step(name))
            .collect();
        parameters.push(format!("devices={}", devices.join(",")));
    }
    if let Some(from) = &arguments.from {
        parameters.push(format!("from={}", path_step(from)));
    }
    if arguments.without_suspect {
        parameters.push("without_suspect=true".to_owned());
    }
    let reader = client.stream(&format!("/telemetry/tail?{}", parameters.join("&")))?;
    for line in reader.lines() {
        let line = line.map_err(|error| client.cut_off(&error))?;
        if arguments.json {
            print(&format!("{line}\n"))?;
        } else {
            print(&row(&line))?;
        }
    }
    Ok(())
}

fn row(line: &str) -> String {
    let Ok(read) = serde_json::from_str::<Line<'_>>(line) else {
        return format!("{}\n", shown(line));
    };
    if let (Some(from), Some(to)) = (read.missed_from, read.missed_to) {
        return format!("(records {from} to {to} are not there any more)\n");
    }
    let name = if read.name.is_empty() {
        read.device
    } else {
        read.name
    };
    let payload = read.payload.map_or("", RawValue::get);
    let text = serde_json::from_str::<String>(payload).unwrap_or_else(|_| payload.to_owned());
    let moment = moment::show_unsigned(read.ts);
    let mark = if read.suspect { "  (suspect)" } else { "" };
    format!("{moment}  {}  {}{mark}\n", shown(&name), shown(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_row_and_harmless() {
        let line = r#"{"offset":1,"ts":0,"device":"i","name":"boiler","payload":{"t":25}}"#;
        assert_eq!(row(line), "1970-01-01T00:00:00.000Z  boiler  {\"t\":25}\n");
        let line = r#"{"offset":1,"ts":0,"device":"i","name":"","payload":"{'a':\u001b}"}"#;
        assert_eq!(row(line), "1970-01-01T00:00:00.000Z  i  {'a':\\u{1b}}\n");
        let line = r#"{"ts":0,"name":"boiler","suspect":true,"payload":1}"#;
        assert_eq!(
            row(line),
            "1970-01-01T00:00:00.000Z  boiler  1  (suspect)\n"
        );
        let line = r#"{"missed_from":3,"missed_to":9}"#;
        assert_eq!(row(line), "(records 3 to 9 are not there any more)\n");
    }
}
